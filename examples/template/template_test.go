package template

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"log/slog"
	"math/big"
	"net"
	"path/filepath"
	"testing"
	"time"

	"github.com/hertznet/hertznet/network"
	"github.com/hertznet/hertznet/network/networktest"
)

// plain is where this library differs from the contract and is within its rights.
// With a library of your own, begin with nothing here, and declare what you mean.
var plain = networktest.Behavior{
	Allocates: true, // memory that was handed out is never used again
}

func TestTCP(t *testing.T) {
	networktest.TestConn(t, networktest.Conn{
		// With Wrap the kit can put conns beneath that misbehave.
		Wrap:     func(_ testing.TB, nc net.Conn) network.Conn { return NewConn(nc) },
		Pair:     func(tb testing.TB) (a, b network.Conn) { return conns(socketPair(tb, "tcp", "127.0.0.1:0")) },
		Behavior: plain,
	})
}

func TestUnix(t *testing.T) {
	networktest.TestConn(t, networktest.Conn{
		Pair: func(tb testing.TB) (a, b network.Conn) {
			return conns(socketPair(tb, "unix", filepath.Join(tb.TempDir(), "s")))
		},
		Behavior: plain,
	})
}

func TestPipe(t *testing.T) {
	networktest.TestConn(t, networktest.Conn{
		Pair:     func(testing.TB) (a, b network.Conn) { return conns(net.Pipe()) },
		Behavior: plain,
	})
}

func TestConnOverTLS(t *testing.T) {
	server, client := configs(t)
	behavior := plain
	behavior.PermanentWriteTimeout = true // crypto/tls cannot go on in the middle of a record
	networktest.TestConn(t, networktest.Conn{
		Pair: func(tb testing.TB) (a, b network.Conn) {
			x, y := socketPair(tb, "tcp", "127.0.0.1:0")
			c, s := NewTLSClient(x, client), NewTLSServer(y, server)
			shaken := make(chan error, 1)
			go func() { shaken <- s.Handshake() }()
			if err := c.Handshake(); err != nil {
				tb.Fatal(err)
			}
			if err := <-shaken; err != nil {
				tb.Fatal(err)
			}
			return c, s
		},
		Behavior: behavior,
	})
}

func TestTLS(t *testing.T) {
	networktest.TestTLS(t, networktest.TLS{
		Client: func(_ testing.TB, nc net.Conn, config *tls.Config) (network.Conn, error) {
			return NewTLSClient(nc, config), nil // the handshake comes with the first use
		},
		Server: func(_ testing.TB, nc net.Conn, config *tls.Config) (network.Conn, error) {
			return NewTLSServer(nc, config), nil
		},
	})
}

func TestDialer(t *testing.T) {
	networktest.TestDialer(t, networktest.Dialer{
		New: func(testing.TB) network.Dialer { return Dialer{HandshakeTimeout: time.Second} },
	})
}

func TestTransporter(t *testing.T) {
	networktest.TestTransporter(t, networktest.Transporter{
		NoDisconnect: true, // see Transporter
		New: func(_ testing.TB, o networktest.TransporterOptions) network.Transporter {
			if o.Logger == nil {
				o.Logger = slog.New(slog.DiscardHandler)
			}
			return &Transporter{
				From:         o.Listener,
				Network:      o.Network,
				Addr:         o.Address,
				TLS:          o.TLS,
				ReadTimeout:  o.ReadTimeout,
				WriteTimeout: o.WriteTimeout,
				IdleTimeout:  o.IdleTimeout,
				MaxConns:     o.MaxConns,
				Logger:       o.Logger,
				OnAccept:     o.OnAccept,
				OnConnect:    o.OnConnect,
			}
		},
	})
}

func conns(x, y net.Conn) (a, b network.Conn) { return NewConn(x), NewConn(y) }

// socketPair returns the two ends of a connection.
func socketPair(tb testing.TB, network, address string) (x, y net.Conn) {
	ln, err := net.Listen(network, address)
	if err != nil {
		tb.Skip(err) // such as unix sockets on a system without them
	}
	defer ln.Close()
	// The system connects before anybody accepts.
	if x, err = net.Dial(network, ln.Addr().String()); err != nil {
		tb.Fatal(err)
	}
	if y, err = ln.Accept(); err != nil {
		x.Close()
		tb.Fatal(err)
	}
	return x, y
}

// configs returns those of a server and of a client that trusts it.
func configs(tb testing.TB) (server, client *tls.Config) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		tb.Fatal(err)
	}
	der, err := x509.CreateCertificate(rand.Reader, &x509.Certificate{
		SerialNumber: big.NewInt(1),
		DNSNames:     []string{"localhost"},
		NotAfter:     time.Now().Add(time.Hour),
	}, &x509.Certificate{}, key.Public(), key)
	if err != nil {
		tb.Fatal(err)
	}
	pool := x509.NewCertPool()
	cert, err := x509.ParseCertificate(der)
	if err != nil {
		tb.Fatal(err)
	}
	pool.AddCert(cert)
	server = &tls.Config{Certificates: []tls.Certificate{{Certificate: [][]byte{der}, PrivateKey: key}}}
	return server, &tls.Config{RootCAs: pool, ServerName: "localhost"}
}
