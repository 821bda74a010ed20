package networktest

import (
	"crypto/tls"
	"net"
	"testing"

	"github.com/hertznet/hertznet/network"
)

var referenceTLSSubject = TLS{
	Client: func(_ testing.TB, c net.Conn, config *tls.Config) (network.Conn, error) {
		return referenceTLSClient(c, config), nil
	},
	Server: func(_ testing.TB, c net.Conn, config *tls.Config) (network.Conn, error) {
		return referenceTLSServer(c, config), nil
	},
}

// Z4: the reference passes everything.
func TestReferenceTLS(t *testing.T)    { TestTLS(t, referenceTLSSubject) }
func TestReferenceDialer(t *testing.T) { TestDialer(t, referenceDialerOf(referenceDialer{})) }

func referenceDialerOf(d network.Dialer) Dialer {
	return Dialer{New: func(testing.TB) network.Dialer { return d }}
}

// What a conn over TLS has in common with others.
func TestReferenceOverTLS(t *testing.T) {
	TestConn(t, Conn{
		Pair: func(t testing.TB) (network.Conn, network.Conn) {
			a, b := tcpSockets(t)
			server, client := kitServerConfig(t), kitClientConfig(t)
			server.DynamicRecordSizingDisabled, client.DynamicRecordSizingDisabled = true, true
			x, y := referenceTLSServer(a, server), referenceTLSClient(b, client)
			shaken := make(chan error, 1)
			go func() { shaken <- x.Handshake() }()
			if err := y.Handshake(); err != nil {
				t.Fatal(err)
			}
			if err := <-shaken; err != nil {
				t.Fatal(err)
			}
			return x, y
		},
		Behavior: Behavior{CopiesWriteBinary: true, PermanentWriteTimeout: true},
	})
}
