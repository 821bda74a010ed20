package standard

import (
	"crypto/tls"
	"log/slog"
	"net"
	"path/filepath"
	"testing"

	"github.com/hertznet/hertznet/network"
	"github.com/hertznet/hertznet/network/networktest"
	"github.com/hertznet/hertznet/tlsconn"
)

// The clauses of the contract, as package networktest checks them on any
// implementation. The other tests of this package are about what it adds and how
// it is built.

// The kit closes the connections itself, and drops some on purpose [C12].
func kitTCP(tb testing.TB) (a, b net.Conn) { return dialed(tb, "tcp", "127.0.0.1:0") }
func kitUnix(tb testing.TB) (a, b net.Conn) {
	return dialed(tb, "unix", filepath.Join(tb.TempDir(), "s"))
}
func kitPipe(testing.TB) (a, b net.Conn) { return net.Pipe() }

func kitConn(pair func(testing.TB) (a, b net.Conn)) networktest.Conn {
	return networktest.Conn{
		Wrap: func(_ testing.TB, c net.Conn) network.Conn { return NewConn(c) },
		Pair: func(tb testing.TB) (network.Conn, network.Conn) {
			a, b := pair(tb)
			return NewConn(a), NewConn(b)
		},
	}
}

func TestConn(t *testing.T)         { networktest.TestConn(t, kitConn(kitTCP)) }
func TestConnOverUnix(t *testing.T) { networktest.TestConn(t, kitConn(kitUnix)) }
func TestConnOverPipe(t *testing.T) { networktest.TestConn(t, kitConn(kitPipe)) }

// Over TLS there is one difference, which is TLS's own [L6].
func TestConnOverTLS(t *testing.T) {
	client, server := tlsConfigs(t)
	networktest.TestConn(t, networktest.Conn{
		Pair: func(tb testing.TB) (network.Conn, network.Conn) {
			x, y := kitTCP(tb)
			a, b := NewTLSConn(tlsconn.Client(x, client)), NewTLSConn(tlsconn.Server(y, server))
			shaken := make(chan error, 1)
			go func() { shaken <- a.Handshake() }()
			if err := b.Handshake(); err != nil {
				tb.Fatal(err)
			}
			if err := <-shaken; err != nil {
				tb.Fatal(err)
			}
			return a, b
		},
		Behavior: networktest.Behavior{PermanentWriteTimeout: true},
	})
}

func TestTLS(t *testing.T) {
	networktest.TestTLS(t, networktest.TLS{
		Client: func(_ testing.TB, c net.Conn, config *tls.Config) (network.Conn, error) {
			return NewTLSConn(tlsconn.Client(c, config)), nil
		},
		Server: func(_ testing.TB, c net.Conn, config *tls.Config) (network.Conn, error) {
			return NewTLSConn(tlsconn.Server(c, config)), nil
		},
	})
}

func TestDialer(t *testing.T) {
	networktest.TestDialer(t, networktest.Dialer{
		New: func(testing.TB) network.Dialer { return new(Dialer) },
	})
}

func TestTransporter(t *testing.T) {
	networktest.TestTransporter(t, networktest.Transporter{New: kitTransporter})
}

func kitTransporter(_ testing.TB, o networktest.TransporterOptions) network.Transporter {
	t := &Transporter{
		Network:            o.Network,
		Addr:               o.Address,
		TLSConfig:          o.TLS,
		ReadTimeout:        o.ReadTimeout,
		WriteTimeout:       o.WriteTimeout,
		IdleTimeout:        o.IdleTimeout,
		OnAccept:           o.OnAccept,
		OnConnect:          o.OnConnect,
		MaxConns:           o.MaxConns,
		CancelOnDisconnect: true,
		Logger:             o.Logger,
	}
	if t.Logger == nil {
		t.Logger = slog.New(slog.DiscardHandler)
	}
	if o.Listener == nil {
		return t
	}
	return onListener{t, o.Listener}
}

// onListener serves on a listener that was there before.
type onListener struct {
	*Transporter
	ln net.Listener
}

func (t onListener) ListenAndServe(onData network.OnData) error { return t.Serve(t.ln, onData) }
