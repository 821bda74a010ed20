package quic

import (
	"context"
	"crypto/tls"
	"net"
	"sync"

	"github.com/quic-go/quic-go"
)

// Listener accepts connections on a UDP socket. Any goroutine may call its methods.
type Listener struct {
	raw interface { // a *quic.Listener or a *quic.EarlyListener
		Accept(context.Context) (*quic.Conn, error)
		Addr() net.Addr
		Close() error
	}
	endpoint *endpoint
	once     sync.Once
}

// Listen listens on a network, "udp", "udp4" or "udp6", and an address, as
// net.ListenPacket takes them. tlsConfig is cloned; it must have a certificate and name
// the application's protocols in NextProtos. A nil config is the zero value.
func Listen(network, addr string, tlsConfig *tls.Config, config *Config) (*Listener, error) {
	switch network {
	case "udp", "udp4", "udp6":
	default:
		return nil, wrap("listen", net.UnknownNetworkError(network))
	}
	pc, err := net.ListenPacket(network, addr)
	if err != nil {
		return nil, wrap("listen", err)
	}
	return NewListener(pc, tlsConfig, config)
}

// NewListener is [Listen] on a socket that is open already. It owns pc from then on
// and closes it, also if it fails. A *net.UDPConn is fastest.
func NewListener(pc net.PacketConn, tlsConfig *tls.Config, config *Config) (*Listener, error) {
	return newListener(pc, tlsConfig, config, nil)
}

// newListener has admit, if it is not nil, refuse connections by an error. The context
// is that of the connection.
func newListener(pc net.PacketConn, tlsConfig *tls.Config, config *Config, admit func(context.Context) error) (*Listener, error) {
	e := newEndpoint(pc)
	fail := func(err error) (*Listener, error) {
		e.release()
		return nil, wrap("listen", err)
	}
	if err := checkTLS(tlsConfig); err != nil {
		return fail(err)
	}
	q, err := config.raw()
	if err != nil {
		return fail(err)
	}
	e.tr.VerifySourceAddress = config.verify()
	if admit != nil {
		e.tr.ConnContext = func(ctx context.Context, _ *quic.ClientInfo) (context.Context, error) {
			return ctx, admit(ctx)
		}
	}
	l := &Listener{endpoint: e}
	// Only where early data is wanted does a connection go out before its handshake is
	// complete: until then a client certificate is not verified.
	if config.early() {
		l.raw, err = e.tr.ListenEarly(tlsConfig.Clone(), q)
	} else {
		l.raw, err = e.tr.Listen(tlsConfig.Clone(), q)
	}
	if err != nil {
		return fail(err)
	}
	return l, nil
}

// Accept returns the next connection, whose handshake is complete unless
// [Config].EarlyData is set, and which is the caller's to close. Connections that nobody
// accepts are refused when 32 of them wait. After Close the error is net.ErrClosed by
// errors.Is.
func (l *Listener) Accept(ctx context.Context) (*Conn, error) {
	c, err := l.raw.Accept(ctx)
	if err != nil {
		return nil, wrap("accept", err)
	}
	return l.endpoint.carry(c), nil
}

// Addr returns the address of the socket.
func (l *Listener) Addr() net.Addr { return l.raw.Addr() }

// Close ends accepting. Connections that were accepted go on, and the last of them
// closes the socket. A second Close does nothing. It returns nil.
func (l *Listener) Close() error {
	l.once.Do(func() {
		_ = l.raw.Close() // it is always nil
		l.endpoint.release()
	})
	return nil
}
