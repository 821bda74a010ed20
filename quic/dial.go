package quic

import (
	"context"
	"crypto/tls"
	"errors"
	"net"
	"net/netip"

	"github.com/quic-go/quic-go"
)

// Dial connects to a server at addr, a host and a port, from a socket of its own. The
// addresses of a name are tried one after the other, in the resolver's order, until one
// answers.
//
// ctx limits resolving and connecting, and not the connection. tlsConfig is not
// changed; it must name the application's protocol in NextProtos, and where its ServerName is
// empty the host stands in for it. With a ClientSessionCache, handshakes with a server
// that is known are short; see [Config].EarlyData for none at all, and its Tokens. A nil
// config is the zero value. The error is a net.Error: that of the first address, if there
// are several.
func Dial(ctx context.Context, addr string, tlsConfig *tls.Config, config *Config) (*Conn, error) {
	c, err := dial(ctx, addr, tlsConfig, config)
	if err != nil {
		return nil, wrap("dial "+addr, err)
	}
	return c, nil
}

func dial(ctx context.Context, addr string, tlsConfig *tls.Config, config *Config) (*Conn, error) {
	if err := checkTLS(tlsConfig); err != nil {
		return nil, err
	}
	if config.early() && tlsConfig.ClientSessionCache == nil {
		return nil, errors.New("quic: Config.EarlyData needs a tls.Config.ClientSessionCache")
	}
	host, addrs, err := resolve(ctx, addr)
	if err != nil {
		return nil, err
	}
	if tlsConfig.ServerName == "" {
		tlsConfig = tlsConfig.Clone()
		tlsConfig.ServerName = host
	}
	var first error
	for _, to := range addrs {
		c, err := dialOne(ctx, to, tlsConfig, config)
		if err == nil {
			return c, nil
		}
		if first == nil {
			first = err
		}
		if ctx.Err() != nil {
			break
		}
	}
	return nil, first
}

func dialOne(ctx context.Context, to netip.AddrPort, tlsConfig *tls.Config, config *Config) (*Conn, error) {
	q, err := config.raw()
	if err != nil {
		return nil, err
	}
	network := "udp6"
	if to.Addr().Is4() {
		network = "udp4"
	}
	pc, err := net.ListenUDP(network, nil)
	if err != nil {
		return nil, err
	}
	e := newEndpoint(pc)
	defer e.release()
	connect := e.tr.Dial
	if config.early() {
		connect = e.tr.DialEarly
	}
	var c *quic.Conn
	if c, err = connect(ctx, net.UDPAddrFromAddrPort(to), tlsConfig, q); err != nil {
		return nil, err
	}
	return e.carry(c), nil
}

// resolve returns the addresses of a host and a port, and the host.
func resolve(ctx context.Context, addr string) (string, []netip.AddrPort, error) {
	host, service, err := net.SplitHostPort(addr)
	if err != nil {
		return "", nil, err
	}
	if host == "" {
		host = "localhost" // as the net package has it
	}
	port, err := net.DefaultResolver.LookupPort(ctx, "udp", service)
	if err != nil {
		return "", nil, err
	}
	ips, err := net.DefaultResolver.LookupNetIP(ctx, "ip", host)
	if err != nil {
		return "", nil, err
	}
	addrs := make([]netip.AddrPort, len(ips))
	for i, ip := range ips {
		addrs[i] = netip.AddrPortFrom(ip.Unmap(), uint16(port))
	}
	return host, addrs, nil
}
