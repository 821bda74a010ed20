package tlsconn

import (
	"crypto/tls"
	"crypto/x509"
	"net"
	"net/netip"
	"strings"
)

// ServerConfig returns the config for the conns of one listener: a clone of config with
// DynamicRecordSizingDisabled, so that the header and the body of a response leave in one
// record [W15] and large bodies in records of 16 KiB from the first byte on. The configs
// that GetConfigForClient returns are treated alike. config itself is not changed; nil is
// an empty one.
//
// Call it once for each listener, not for each conn: the keys that encrypt session tickets
// are made and rotated inside a tls.Config, so a conn with a clone of its own could not
// read the ticket that another conn gave out, and no session would ever be resumed [L10].
// SetSessionTicketKeys on config itself has no effect afterwards; see [Reloader] for a way to
// replace the keys.
func ServerConfig(config *tls.Config) *tls.Config {
	return derive(config, func(c *tls.Config) { c.DynamicRecordSizingDisabled = true })
}

// MutualTLS returns a clone of config that demands a client certificate, issued by one of
// clientCAs (ClientAuth is RequireAndVerifyClientCert). The configs that GetConfigForClient
// returns are treated alike. config itself is not changed; nil is an empty one.
//
// A nil pool trusts nobody. In a plain tls.Config it would stand for the roots of the
// system, and every certificate that the web's authorities ever issued for clients would
// pass.
func MutualTLS(config *tls.Config, clientCAs *x509.CertPool) *tls.Config {
	if clientCAs == nil {
		clientCAs = x509.NewCertPool()
	}
	return derive(config, func(c *tls.Config) {
		c.ClientAuth = tls.RequireAndVerifyClientCert
		c.ClientCAs = clientCAs
	})
}

// derive applies change to a clone of config, and to clones of what GetConfigForClient
// returns: crypto/tls uses those instead. It takes the ticket keys from the first config
// all the same, so that sessions are resumed.
func derive(config *tls.Config, change func(*tls.Config)) *tls.Config {
	if config == nil {
		config = new(tls.Config)
	}
	c := config.Clone()
	change(c)
	if choose := c.GetConfigForClient; choose != nil {
		c.GetConfigForClient = func(hello *tls.ClientHelloInfo) (*tls.Config, error) {
			chosen, err := choose(hello)
			if chosen == nil || err != nil {
				return chosen, err
			}
			chosen = chosen.Clone()
			change(chosen)
			return chosen, nil
		}
	}
	return c
}

// ClientConfig returns the config for a connection to address, which is host:port as given
// to a dialer, or a host: a clone of config with the ServerName that the certificate must
// be valid for, unless config has one, and with DynamicRecordSizingDisabled as in
// [ServerConfig]. config itself is never changed [D11]; nil is an empty one.
//
// The ServerName is the host without brackets, zone or trailing dot. It stays empty for an
// address without a host (":443", the path of a unix socket): then set it, or the handshake
// fails and says so.
func ClientConfig(config *tls.Config, address string) *tls.Config {
	if config == nil {
		config = new(tls.Config)
	}
	c := config.Clone()
	c.DynamicRecordSizingDisabled = true
	if c.ServerName == "" {
		c.ServerName = hostOf(address)
	}
	return c
}

func hostOf(address string) string {
	if strings.ContainsAny(address, "/@") {
		return "" // a unix socket
	}
	host, _, err := net.SplitHostPort(address)
	if err != nil {
		host = address
	}
	host = strings.TrimSuffix(strings.TrimPrefix(host, "["), "]")
	if ip, err := netip.ParseAddr(host); err == nil {
		return ip.WithZone("").String()
	}
	return strings.TrimSuffix(host, ".")
}
