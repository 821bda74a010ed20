package networktest

import (
	"crypto/tls"
	"errors"
	"net"
	"time"

	"github.com/hertznet/hertznet/network"
)

// referenceDialer is a network.Dialer that keeps every clause of group D: package
// net's, and the reference over what that returns.
type referenceDialer struct{}

// referenceHandshakeTime limits a handshake when nothing else does [D10].
const referenceHandshakeTime = 10 * time.Second

func (d referenceDialer) DialConnection(network, address string, timeout time.Duration, config *tls.Config) (network.Conn, error) {
	var by time.Time
	if timeout > 0 {
		by = time.Now().Add(timeout) // for all that follows [D3]
	}
	nc, err := (&net.Dialer{Deadline: by}).Dial(network, address)
	if err != nil {
		return nil, err
	}
	if config == nil {
		return Reference(nc), nil
	}
	return clientHandshake(nc, configFor(config, address), by)
}

func (d referenceDialer) DialTimeout(network, address string, timeout time.Duration, config *tls.Config) (net.Conn, error) {
	c, err := d.DialConnection(network, address, timeout, config)
	if err != nil {
		return nil, err // a nil Conn in a net.Conn would not be nil [D2]
	}
	return c, nil
}

// AddTLS reads through conn, and so what conn has buffered as well [D8], and does
// not care what conn is [D9].
func (d referenceDialer) AddTLS(conn network.Conn, config *tls.Config) (network.Conn, error) {
	if config == nil {
		conn.Close()
		return nil, errors.New("networktest: AddTLS without a tls.Config")
	}
	by := time.Now().Add(referenceHandshakeTime)
	// The limits of what came before end here.
	err := conn.SetDeadline(by)
	if err == nil {
		err = conn.Flush()
	}
	if err != nil {
		conn.Close()
		return nil, err
	}
	address := ""
	if a := conn.RemoteAddr(); a != nil {
		address = a.String()
	}
	return clientHandshake(conn, configFor(config, address), by)
}

// clientHandshake puts TLS over nc, or closes it.
func clientHandshake(nc net.Conn, config *tls.Config, by time.Time) (network.Conn, error) {
	if by.IsZero() {
		by = time.Now().Add(referenceHandshakeTime)
	}
	c := referenceTLSClient(nc, config)
	err := c.SetDeadline(by)
	if err == nil {
		err = c.Handshake()
	}
	if err == nil {
		err = c.SetDeadline(time.Time{})
	}
	if err != nil {
		c.Close()
		return nil, err
	}
	return c, nil
}

// configFor is config, or a copy with the address's host for a ServerName [D11].
func configFor(config *tls.Config, address string) *tls.Config {
	if config.ServerName != "" {
		return config
	}
	host, _, err := net.SplitHostPort(address)
	if err != nil {
		host = address
	}
	config = config.Clone()
	config.ServerName = host
	return config
}
