package networktest

import (
	"testing"
	"time"

	"github.com/hertznet/hertznet/network"
)

// StreamConn says how to make stream connections of the implementation under
// test.
//
// So that the kit can see the code and the text of a CloseWithError reach the
// peer [M10], errors.As must find a [network.ApplicationError] with the code in
// the error of the peer's AcceptStream, and that error's text must contain the
// message. The code of a cancelled stream is looked for in the same way in the
// errors of Read and Write, and judged only if there is one [M4, M5].
type StreamConn struct {
	// Pair returns two ends of one connection, whose handshake is complete. The kit
	// closes both by CloseWithError. What else the factory opens it must close in a
	// tb.Cleanup; it fails the check by tb.Fatal.
	Pair func(tb testing.TB, o StreamOptions) (a, b network.StreamConn)

	// FailedHandshake returns a connection whose handshake fails or has failed. nil
	// says that there is no such thing.
	FailedHandshake func(tb testing.TB) network.StreamConn
}

// StreamOptions are the settings of both ends of a connection that a case needs.
type StreamOptions struct {
	// MaxStreams is how many streams of each kind, bidirectional and unidirectional,
	// the peer may have open at once. 0 is at least 1000.
	MaxStreams int

	// IdleTimeout is how long silence lasts before a connection is lost. 0 is at least
	// 10 seconds.
	IdleTimeout time.Duration
}

// TestStreamConn checks the clauses of group M.
func TestStreamConn(t *testing.T, s StreamConn) { test(t, s) }

// streamCheck is a check of a StreamConn.
type streamCheck struct {
	*check
	subject StreamConn
}

// streamCase is a case that judges a StreamConn.
type streamCase struct {
	id    string
	limit time.Duration // 0 is defaultLimit
	run   func(t *streamCheck)
}

func (s StreamConn) cases() []boundCase {
	if s.Pair == nil {
		panic("networktest: a StreamConn needs Pair")
	}
	var all []boundCase
	for _, k := range streamCases {
		all = append(all, boundCase{k.id, k.limit, func(t *check) { k.run(&streamCheck{t, s}) }})
	}
	return all
}
