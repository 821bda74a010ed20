package template

import (
	"context"
	"crypto/tls"
	"errors"
	"net"
	"time"

	"github.com/hertznet/hertznet/network"
)

// Dialer is a network.Dialer.
type Dialer struct {
	HandshakeTimeout time.Duration // of TLS, within the timeout of the dial; 0 is 10 seconds
}

var _ network.Dialer = Dialer{}

// DialConnection implements network.Dialer. One context limits the lookup of the
// name, the connect and the handshake together [D3].
func (d Dialer) DialConnection(network, address string, timeout time.Duration, tlsConfig *tls.Config) (network.Conn, error) {
	ctx := context.Background()
	if timeout > 0 {
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeout(ctx, timeout)
		defer cancel()
	}
	nc, err := new(net.Dialer).DialContext(ctx, network, address)
	if err != nil {
		return nil, err // a nil interface, not one that holds a nil *Conn [D2]
	}
	if tlsConfig == nil {
		return NewConn(nc), nil
	}
	return d.startTLS(ctx, nc, tlsConfig, address)
}

// DialTimeout implements network.Dialer.
func (d Dialer) DialTimeout(network, address string, timeout time.Duration, tlsConfig *tls.Config) (net.Conn, error) {
	conn, err := d.DialConnection(network, address, timeout, tlsConfig)
	if err != nil {
		return nil, err // again: a nil network.Conn in a net.Conn would be nil too, but who remembers
	}
	return conn, nil
}

// AddTLS implements network.Dialer. TLS reads through conn itself, so it gets what
// conn has buffered [D8], and conn may be over TLS [D9].
func (d Dialer) AddTLS(conn network.Conn, tlsConfig *tls.Config) (network.Conn, error) {
	if tlsConfig == nil {
		conn.Close()
		return nil, errors.New("template: AddTLS: the TLS config is nil")
	}
	// What is left of an exchange with the proxy: its output, and its limits.
	if err := errors.Join(conn.Flush(), conn.SetDeadline(time.Time{})); err != nil {
		conn.Close()
		return nil, err
	}
	return d.startTLS(context.Background(), conn, tlsConfig, conn.RemoteAddr().String())
}

// startTLS makes the handshake as a client, or closes nc.
func (d Dialer) startTLS(ctx context.Context, nc net.Conn, config *tls.Config, address string) (network.Conn, error) {
	if config.ServerName == "" {
		config = config.Clone() // it is shared with other calls [D11]
		config.ServerName = address
		if host, _, err := net.SplitHostPort(address); err == nil {
			config.ServerName = host
		}
	}
	conn := NewTLSClient(nc, config)
	if d.HandshakeTimeout > 0 {
		conn.tls.limit = d.HandshakeTimeout
	}
	if err := conn.handshake(ctx); err != nil {
		nc.Close() // without the close_notify that conn.Close would say
		return nil, err
	}
	return conn, nil
}
