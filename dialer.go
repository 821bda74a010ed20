package hertznet

import (
	"crypto/tls"
	"net"
	"time"

	"github.com/cloudwego/hertz/pkg/network"
	"github.com/hertznet/hertznet/standard"
)

// NewDialer returns a dialer for a Hertz client:
//
//	c, err := client.NewClient(client.WithDialer(hertznet.NewDialer()))
//
// Each configure is called once with the standard.Dialer that connects.
//
// Its connections read Hertz's ReadTimeout as the limit of the whole response, body
// included, as Hertz documents it.
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
	return newClientConn(c), nil
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
