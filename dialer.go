package hertznet

import (
	"crypto/tls"
	"net"
	"time"

	"github.com/cloudwego/hertz/pkg/network"
	ours "github.com/hertznet/hertznet/network"
	"github.com/hertznet/hertznet/standard"
)

// NewDialer returns a dialer for a Hertz client:
//
//	c, err := client.NewClient(client.WithDialer(hertznet.NewDialer()))
//
// Each configure is called once, by NewDialer, with the [standard.Dialer] that connects.
// Any number of clients and goroutines may share the dialer.
//
// Its connections read Hertz's ReadTimeout as the limit of the whole response, body
// included, as Hertz documents it: SetReadTimeout(t) sets a moment, t from now, for all
// that is read until the next call.
//
// A connection that the peer closed while it waited in Hertz's pool is dialled again when
// the next request takes it, before a byte is sent, whatever the request's method.
// Bytes that came unasked, as a 408 before the close, end a plain connection too:
// they are no answer to what is sent next. The dial has the timeout of the first
// one, or the request's write timeout if that is shorter, and its error is the
// request's. A peer that closes at the very moment at which a request is sent can
// still not be told from one that has worked on it: such a request is repeated by
// Hertz if its method allows.
//
// Connections through AddTLS, those of CONNECT and HTTPS proxies, are not dialled again,
// since that would lead past the proxy or end outside of its TLS; nor is any on Windows.
// On other systems than Linux a TLS connection is only if it was closed without a
// close_notify. A Response's LocalAddr may be that of the connection before.
// DisableRedial of [standard.Dialer] turns this off.
func NewDialer(configure ...func(*standard.Dialer)) network.Dialer {
	d := new(dialer)
	for _, f := range configure {
		f(&d.std)
	}
	return d
}

// dialer is a standard.Dialer with Hertz's types.
type dialer struct{ std standard.Dialer }

// DialConnection implements network.Dialer.
func (d *dialer) DialConnection(n, address string, timeout time.Duration, tlsConfig *tls.Config) (network.Conn, error) {
	c, err := d.std.DialConnection(n, address, timeout, tlsConfig)
	if err != nil {
		return nil, err
	}
	if d.std.DisableRedial {
		return newClientConn(c), nil
	}
	return newRedialConn(c, func(limit time.Duration) (ours.Conn, error) {
		if limit <= 0 || timeout > 0 && timeout < limit {
			limit = timeout
		}
		return d.std.DialConnection(n, address, limit, tlsConfig)
	}), nil
}

// DialTimeout implements network.Dialer. Unlike Hertz's own, it honours tlsConfig.
func (d *dialer) DialTimeout(n, address string, timeout time.Duration, tlsConfig *tls.Config) (net.Conn, error) {
	return d.std.DialTimeout(n, address, timeout, tlsConfig)
}

// AddTLS implements network.Dialer. It closes c when it fails, since Hertz does not
// (pkg/protocol/http1/proxy).
func (d *dialer) AddTLS(c network.Conn, tlsConfig *tls.Config) (network.Conn, error) {
	added, err := d.std.AddTLS(c, tlsConfig)
	if err != nil {
		return nil, err
	}
	return newClientConn(added), nil
}
