package hertznet

import (
	"context"
	"crypto/tls"
	"log/slog"
	"net"
	"testing"
	"time"

	"github.com/cloudwego/hertz/pkg/common/config"
	"github.com/cloudwego/hertz/pkg/network"
	ours "github.com/hertznet/hertznet/network"
	"github.com/hertznet/hertznet/network/networktest"
	"github.com/hertznet/hertznet/standard"
)

// The adapter keeps the contract, too: what Hertz gets from it is judged by the
// same clauses as what is beneath.

func TestServerConn(t *testing.T) {
	networktest.TestConn(t, networktest.Conn{
		Wrap: func(_ testing.TB, c net.Conn) ours.Conn {
			return newServerConn(standard.NewConn(c), time.Minute, nil)
		},
	})
}

// A client's connection reads a timeout as one moment, as Hertz documents it.
func TestClientConn(t *testing.T) {
	networktest.TestConn(t, networktest.Conn{
		Wrap:     func(_ testing.TB, c net.Conn) ours.Conn { return newClientConn(standard.NewConn(c)) },
		Behavior: networktest.Behavior{OneShotReadTimeout: true},
	})
}

func TestDialer(t *testing.T) {
	networktest.TestDialer(t, networktest.Dialer{
		New: func(testing.TB) ours.Dialer { return hertzDialer{NewDialer()} },
	})
}

// hertzDialer gives a dialer of Hertz's types those of this module.
type hertzDialer struct{ d network.Dialer }

func (h hertzDialer) DialConnection(n, address string, timeout time.Duration, c *tls.Config) (ours.Conn, error) {
	return h.d.DialConnection(n, address, timeout, c)
}

func (h hertzDialer) DialTimeout(n, address string, timeout time.Duration, c *tls.Config) (net.Conn, error) {
	return h.d.DialTimeout(n, address, timeout, c)
}

func (h hertzDialer) AddTLS(conn ours.Conn, c *tls.Config) (ours.Conn, error) {
	return h.d.AddTLS(conn, c)
}

func TestTransporter(t *testing.T) {
	networktest.TestTransporter(t, networktest.Transporter{
		New: func(tb testing.TB, o networktest.TransporterOptions) ours.Transporter {
			options := config.NewOptions(nil)
			options.Listener = o.Listener
			options.Network, options.Addr = o.Network, o.Address
			options.TLS = o.TLS
			options.ReadTimeout, options.WriteTimeout = o.ReadTimeout, o.WriteTimeout
			if o.IdleTimeout > 0 {
				options.IdleTimeout = o.IdleTimeout
			}
			options.OnAccept = o.OnAccept
			if o.OnConnect != nil {
				options.OnConnect = func(ctx context.Context, c network.Conn) context.Context { return o.OnConnect(ctx, c) }
			}
			return hertzTransporter{Transport(func(t *standard.Transporter) {
				t.CancelOnDisconnect = true
				t.MaxConns = o.MaxConns
				if t.Logger = o.Logger; t.Logger == nil {
					t.Logger = slog.New(slog.DiscardHandler)
				}
			})(options).(*transporter)}
		},
	})
}

// hertzTransporter gives a transporter of Hertz's types those of this module.
type hertzTransporter struct{ *transporter }

func (h hertzTransporter) ListenAndServe(onData ours.OnData) error {
	return h.transporter.ListenAndServe(network.OnData(onData))
}
