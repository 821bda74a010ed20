package networktest

import (
	"crypto/tls"
	"net"
	"testing"
	"time"

	"github.com/hertznet/hertznet/network"
)

// TLS says how to make TLS connections of the implementation under test, for the
// clauses of group L. Either factory may be nil; the clauses of that side are then
// not applicable. What a connection over TLS has in common with others is judged
// by [TestConn] with a Pair of them.
//
// The factories put TLS over c, a conn of the kit, and may make the handshake
// themselves; the peer is ready for it. If that fails they return the error as
// the implementation gives it. config is complete and must not be changed.
type TLS struct {
	// Client returns the client's side, Server the server's.
	Client func(tb testing.TB, c net.Conn, config *tls.Config) (network.Conn, error)
	Server func(tb testing.TB, c net.Conn, config *tls.Config) (network.Conn, error)
}

// TestTLS checks the clauses of group L.
func TestTLS(t *testing.T, s TLS) { test(t, s) }

type tlsCheck struct {
	*check
	subject TLS
}

type tlsCase struct {
	id    string
	limit time.Duration // 0 is defaultLimit
	run   func(t *tlsCheck)
}

func (s TLS) cases() []boundCase {
	var all []boundCase
	for _, k := range tlsCases {
		all = append(all, boundCase{k.id, k.limit, func(t *check) { k.run(&tlsCheck{t, s}) }})
	}
	return all
}
