package standard

import (
	"context"
	"crypto/tls"
	"errors"
	"net"
	"os"
	"strings"
	"syscall"
	"time"

	"github.com/hertznet/hertznet/network"
	"github.com/hertznet/hertznet/tlsconn"
)

// DefaultHandshakeTimeout is the default of [Dialer].HandshakeTimeout, and of
// [Transporter].HandshakeTimeout where there is no ReadTimeout.
const DefaultHandshakeTimeout = 10 * time.Second

// Dialer connects: a [network.Dialer]. The zero value is ready for use. Its
// fields must not change while it is used; its methods may be called by any
// number of goroutines at once [D12]. The fields that net.Dialer has too mean
// the same here, but for what their comments add.
type Dialer struct {
	// Timeout limits a dial as a whole, TLS handshake included, beside the timeout
	// that a caller passes: the shorter one holds. Zero or less: no limit.
	Timeout time.Duration

	// HandshakeTimeout limits the TLS handshake alone, within what is left of the
	// whole. Zero is DefaultHandshakeTimeout, less than zero is no limit of its own.
	HandshakeTimeout time.Duration

	// LocalAddr is the address to dial from; nil lets the system choose.
	LocalAddr net.Addr

	// FallbackDelay is how long to wait for IPv6 before IPv4 is tried beside it.
	// Zero is 300 ms, less than zero waits for the first to fail.
	FallbackDelay time.Duration

	// KeepAliveConfig configures TCP keep-alive probes. Its zero value uses the
	// defaults of package net (on, every 15 seconds); to turn them off, set
	// Idle to a negative value and Enable to false.
	KeepAliveConfig net.KeepAliveConfig

	// Resolver looks up names; nil is net.DefaultResolver.
	Resolver *net.Resolver

	// Control, if not nil, is called with each socket before it connects.
	Control func(network, address string, c syscall.RawConn) error

	// DialContext, if not nil, connects instead of package net, and the fields from
	// LocalAddr to Control are not used. It gets the network and address as the caller
	// passed them, so it can lead a client that knows only TCP to a unix socket. It
	// must end when ctx does.
	DialContext func(ctx context.Context, network, address string) (net.Conn, error)

	// DisableRedial keeps a connection of package hertznet's dialer from dialling once
	// more, by itself, when its peer has closed it while it lay in a pool. The methods
	// here never do that, so to them the field means nothing.
	DisableRedial bool
}

var _ network.Dialer = (*Dialer)(nil)

// DialConnection connects to address within timeout, which covers the lookup of
// the name, the connect and the TLS handshake together; timeout <= 0 is no limit
// beside the Dialer's own [D3, D4]. Networks are those of package net; "unix" takes a
// path, and an address unix:///path is a unix socket on any network, unless there
// is a DialContext.
//
// Without a tlsConfig the conn is a *Conn. With one the handshake is complete on
// return and the conn is a *TLSConn; the config is not changed, and its ServerName,
// when empty, is the host of address [D11]. On error the conn is nil and nothing stays
// open; the error of a handshake is that of [tlsconn.Conn.Handshake], bare [D2, D7].
func (d *Dialer) DialConnection(network, address string, timeout time.Duration, tlsConfig *tls.Config) (network.Conn, error) {
	if d.Timeout > 0 && (timeout <= 0 || d.Timeout < timeout) {
		timeout = d.Timeout
	}
	ctx, deadline := context.Background(), time.Time{}
	if timeout > 0 {
		deadline = time.Now().Add(timeout)
		var cancel context.CancelFunc
		ctx, cancel = context.WithDeadline(ctx, deadline)
		defer cancel()
	}
	nc, err := d.connect(ctx, network, address)
	if err != nil {
		return nil, err
	}
	if tlsConfig == nil {
		return NewConn(nc), nil
	}
	conn, err := d.handshake(nc, tlsconn.ClientConfig(tlsConfig, address), deadline)
	if err != nil {
		return nil, err
	}
	return conn, nil
}

// DialTimeout is [Dialer.DialConnection] for callers that want a net.Conn. What it
// returns is the same.
func (d *Dialer) DialTimeout(network, address string, timeout time.Duration, tlsConfig *tls.Config) (net.Conn, error) {
	conn, err := d.DialConnection(network, address, timeout, tlsConfig)
	if err != nil {
		return nil, err
	}
	return conn, nil
}

// AddTLS makes conn a TLS connection, a *TLSConn, and performs the handshake, within
// HandshakeTimeout; timeouts that conn has are lifted. Bytes that conn has buffered
// belong to the TLS stream [D8]; what it has pending is flushed first. conn may be over
// TLS itself [D9]. It must not be used any more: the result owns it, and when AddTLS
// fails it is closed [D10]. A nil tlsConfig is an error. The config is not changed; when
// its ServerName is empty, the certificate must be valid for the IP address that is
// conn's remote address.
func (d *Dialer) AddTLS(conn network.Conn, tlsConfig *tls.Config) (network.Conn, error) {
	if conn == nil {
		return nil, errors.New("standard: AddTLS: the connection is nil")
	}
	added, err := d.addTLS(conn, tlsConfig)
	if err != nil {
		conn.Close()
		return nil, err
	}
	return added, nil
}

func (d *Dialer) addTLS(conn network.Conn, tlsConfig *tls.Config) (*TLSConn, error) {
	if tlsConfig == nil {
		return nil, errors.New("standard: AddTLS: the TLS config is nil")
	}
	var deadline time.Time
	if limit := d.handshakeTimeout(); limit > 0 {
		deadline = time.Now().Add(limit)
	}
	nc, err := beneath(conn, deadline)
	if err != nil {
		return nil, err
	}
	var address string
	if a := conn.RemoteAddr(); a != nil {
		address = a.String()
	}
	return d.handshake(nc, tlsconn.ClientConfig(tlsConfig, address), deadline)
}

// beneath returns the connection that TLS is put on: conn without its buffer, if
// it is ours and the buffer is empty. What is pending is sent before the deadline.
func beneath(conn network.Conn, deadline time.Time) (net.Conn, error) {
	// Timeouts that were set for what came before end here. The handshake has the
	// same deadline and lifts it.
	if err := conn.SetDeadline(deadline); err != nil {
		return nil, err
	}
	if err := conn.Flush(); err != nil {
		return nil, err
	}
	if c, ok := conn.(interface{ self() *Conn }); ok && conn.Len() == 0 && c.self().readErr == nil {
		if err := conn.Release(); err != nil {
			return nil, err
		}
		return c.self().nc, nil
	}
	return conn, nil
}

// self finds the Conn inside of the types that embed one.
func (c *Conn) self() *Conn { return c }

// handshakeTimeout is less than zero for no limit.
func (d *Dialer) handshakeTimeout() time.Duration {
	if d.HandshakeTimeout == 0 {
		return DefaultHandshakeTimeout
	}
	return d.HandshakeTimeout
}

// handshake makes nc a TLS connection; it is closed when that fails.
func (d *Dialer) handshake(nc net.Conn, config *tls.Config, deadline time.Time) (*TLSConn, error) {
	limit := d.handshakeTimeout()
	if !deadline.IsZero() {
		left := time.Until(deadline)
		if left <= 0 {
			nc.Close()
			return nil, opError("handshake", nc, os.ErrDeadlineExceeded)
		}
		if limit < 0 || left < limit {
			limit = left
		}
	}
	c := tlsconn.Client(nc, config)
	c.SetHandshakeTimeout(limit)
	conn := NewTLSConn(c)
	if err := conn.Handshake(); err != nil {
		nc.Close()
		return nil, err
	}
	return conn, nil
}

func (d *Dialer) connect(ctx context.Context, network, address string) (net.Conn, error) {
	if d.DialContext != nil {
		nc, err := d.DialContext(ctx, network, address)
		if err != nil {
			if ne, ok := err.(net.Error); ctx.Err() != nil && !(ok && ne.Timeout()) {
				err = &net.OpError{Op: "dial", Net: network, Err: foreignTimeout{err}}
			}
			return nil, err
		}
		if nc == nil {
			return nil, errors.New("standard: Dialer.DialContext returned neither a connection nor an error")
		}
		return nc, nil
	}
	if path, ok := strings.CutPrefix(address, "unix://"); ok {
		network, address = "unix", path
	}
	nd := net.Dialer{
		LocalAddr:       d.LocalAddr,
		FallbackDelay:   d.FallbackDelay,
		KeepAliveConfig: d.KeepAliveConfig,
		Resolver:        d.Resolver,
		Control:         d.Control,
	}
	if d.KeepAliveConfig.Idle < 0 && !d.KeepAliveConfig.Enable {
		nd.KeepAlive = -1
	}
	return nd.DialContext(ctx, network, address)
}
