package networktest

import (
	"context"
	"crypto/tls"
	"log/slog"
	"net"
	"testing"
	"time"

	"github.com/hertznet/hertznet/network"
)

// Transporter says how to make a transporter of the implementation under test.
//
// OnData is called with handlers of the kit. Some serve one message, close the
// connection and return; some return nil between two messages, after which the
// transporter must either close the connection or call OnData again for the next
// one; and one does as Hertz's HTTP server does: it stays in OnData, calls
// SetReadTimeout with the idle timeout, and waits for the next message in Peek. If
// the connection has a method SetIdle(bool) bool, that handler calls SetIdle(true)
// before the wait and SetIdle(false) after it. It ends if SetIdle(false) is false,
// which says that Shutdown or Close was faster. What SetIdle(true) returns is not
// looked at: when Shutdown has begun by then, the transporter closes the connection
// itself [S6]. Without the method a transporter has to find out in another way.
//
// A handler that panics is part of it [S10]: an implementation that does not
// recover takes the process down.
type Transporter struct {
	// New returns a transporter with the settings o, which does not serve yet. Where
	// the implementation has no such setting, it calls tb.Skip; what needs the
	// setting is then not applicable.
	New func(tb testing.TB, o TransporterOptions) network.Transporter

	// NoDisconnect declares that the implementation cannot tell when the peer
	// disconnects while OnData runs, and does not cancel the context then [S17].
	NoDisconnect bool
}

// TransporterOptions are the settings that a case needs. Those that have their
// zero value are the implementation's own choice.
type TransporterOptions struct {
	// Listener, if not nil, is what to accept from, instead of Network and Address.
	// It may be of a type of the kit's own, whose Accept fails as a case wants it to;
	// an implementation that needs a *net.TCPListener calls tb.Skip for others.
	Listener net.Listener
	Network  string // "tcp" or "unix"
	Address  string // to listen on

	TLS          *tls.Config   // of the server; nil is none
	ReadTimeout  time.Duration // for the first byte, the handshake, and each read
	WriteTimeout time.Duration
	IdleTimeout  time.Duration // between OnData's returning and the next byte

	// OnAccept runs for each connection before TLS, OnConnect after the handshake.
	// OnConnect gets the context that OnAccept returned, or one made from it, and OnData
	// in the same way that of OnConnect. A nil one changes nothing [S13].
	OnAccept  func(net.Conn) context.Context
	OnConnect func(context.Context, network.Conn) context.Context

	MaxConns int          // how many connections may be open at once
	Logger   *slog.Logger // what to log to
}

// TestTransporter checks the clauses of group S.
func TestTransporter(t *testing.T, s Transporter) { test(t, s) }

type transporterCheck struct {
	*check
	subject Transporter

	applied int      // parts of the case that New could be had for
	missing []string // why it could not for others
}

type transporterCase struct {
	id    string
	limit time.Duration // 0 is defaultLimit
	run   func(t *transporterCheck)
}

func (s Transporter) cases() []boundCase {
	if s.New == nil {
		panic("networktest: a Transporter needs New")
	}
	var all []boundCase
	for _, k := range transporterCases {
		all = append(all, boundCase{k.id, k.limit, func(t *check) {
			c := &transporterCheck{check: t, subject: s}
			k.run(c)
			c.sum()
		}})
	}
	return all
}
