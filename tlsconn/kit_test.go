package tlsconn

import (
	"crypto/tls"
	"net"
	"testing"

	"github.com/hertznet/hertznet/network"
	"github.com/hertznet/hertznet/network/networktest"
)

// kitConn is a network.Conn with nothing but the reference between it and a Conn:
// what the kit finds is of this package.
type kitConn struct {
	network.Conn
	tls *Conn
}

func (c kitConn) Handshake() error                     { return c.tls.Handshake() }
func (c kitConn) ConnectionState() tls.ConnectionState { return c.tls.ConnectionState() }

func overReference(c *Conn) kitConn { return kitConn{networktest.Reference(c), c} }

// The clauses of group L.
func TestTLS(t *testing.T) {
	networktest.TestTLS(t, networktest.TLS{
		Client: func(_ testing.TB, c net.Conn, config *tls.Config) (network.Conn, error) {
			return overReference(Client(c, config)), nil
		},
		Server: func(_ testing.TB, c net.Conn, config *tls.Config) (network.Conn, error) {
			return overReference(Server(c, config)), nil
		},
	})
}
