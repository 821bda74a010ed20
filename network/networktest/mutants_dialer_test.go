package networktest

import (
	"crypto/tls"
	"errors"
	"fmt"
	"net"
	"os"
	"runtime"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/hertznet/hertznet/network"
)

// dialerMutant is the reference dialer with one thing broken.
type dialerMutant struct {
	id   string // the clause that must catch it
	what string
	also []string // further clauses that it cannot help breaking

	// What stands in for a method of the reference; nil is the reference's own.
	conn    func(network, address string, timeout time.Duration, config *tls.Config) (network.Conn, error)
	timeout func(network, address string, timeout time.Duration, config *tls.Config) (net.Conn, error)
	addTLS  func(conn network.Conn, config *tls.Config) (network.Conn, error)
}

func (m dialerMutant) DialConnection(network, address string, timeout time.Duration, config *tls.Config) (network.Conn, error) {
	if m.conn != nil {
		return m.conn(network, address, timeout, config)
	}
	return referenceDialer{}.DialConnection(network, address, timeout, config)
}

func (m dialerMutant) DialTimeout(network, address string, timeout time.Duration, config *tls.Config) (net.Conn, error) {
	if m.timeout != nil {
		return m.timeout(network, address, timeout, config)
	}
	return referenceDialer{}.DialTimeout(network, address, timeout, config)
}

func (m dialerMutant) AddTLS(conn network.Conn, config *tls.Config) (network.Conn, error) {
	if m.addTLS != nil {
		return m.addTLS(conn, config)
	}
	return referenceDialer{}.AddTLS(conn, config)
}

// leaks keeps what a mutant forgets to close from the garbage collector, which would
// close it.
type leaks struct {
	mu  sync.Mutex
	all []any
}

func (l *leaks) add(x any) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.all = append(l.all, x)
}

var leaked leaks

var dialerMutants = []dialerMutant{
	{
		id: "D1", what: "every connection is made over TCP",
		conn: func(network, address string, timeout time.Duration, config *tls.Config) (network.Conn, error) {
			if network == "unix" {
				return nil, &net.AddrError{Err: "missing port in address", Addr: address}
			}
			return referenceDialer{}.DialConnection(network, address, timeout, config)
		},
	},
	{
		id: "D2", what: "DialConnection returns a Conn over nothing with the error",
		conn: func(network, address string, timeout time.Duration, config *tls.Config) (network.Conn, error) {
			c, err := referenceDialer{}.DialConnection(network, address, timeout, config)
			if err != nil {
				return new(reference), err
			}
			return c, nil
		},
	},
	{
		id: "D2", what: "DialTimeout returns a nil pointer with the error",
		timeout: func(network, address string, timeout time.Duration, config *tls.Config) (net.Conn, error) {
			c, err := referenceDialer{}.DialConnection(network, address, timeout, config)
			if err != nil {
				var none *net.TCPConn
				return none, err
			}
			return c, nil
		},
	},
	{
		id: "D2", what: "AddTLS returns what it was given with the error",
		addTLS: func(conn network.Conn, config *tls.Config) (network.Conn, error) {
			c, err := referenceDialer{}.AddTLS(conn, config)
			if err != nil {
				return conn, err
			}
			return c, nil
		},
		also: []string{"D10"}, // which asks for a nil Conn where the handshake times out
	},
	{
		id: "D3", what: "the timeout is not the handshake's, which has its own",
		conn: func(network, address string, timeout time.Duration, config *tls.Config) (network.Conn, error) {
			nc, err := net.DialTimeout(network, address, max(timeout, 0))
			if err != nil {
				return nil, err
			}
			if config == nil {
				return Reference(nc), nil
			}
			const ownLimit = 1600 * time.Millisecond
			return clientHandshake(nc, configFor(config, address), time.Now().Add(ownLimit))
		},
	},
	{
		id: "D3", what: "the error does not tell that it is a timeout",
		conn: func(network, address string, timeout time.Duration, config *tls.Config) (network.Conn, error) {
			c, err := referenceDialer{}.DialConnection(network, address, timeout, config)
			if err != nil && isTimeout(err) {
				err = errors.New("dial timeout")
			}
			return c, err
		},
	},
	{
		id: "D3", what: "the deadline of the dial stays on the connection",
		conn: func(network, address string, timeout time.Duration, config *tls.Config) (network.Conn, error) {
			by := time.Now().Add(timeout)
			c, err := referenceDialer{}.DialConnection(network, address, timeout, config)
			if err == nil && timeout > 0 {
				err = c.SetDeadline(by)
			}
			return c, err
		},
	},
	{
		id: "D4", what: "a timeout below zero has passed",
		timeout: func(network, address string, timeout time.Duration, config *tls.Config) (net.Conn, error) {
			if timeout < 0 {
				return net.DialTimeout(network, address, timeout)
			}
			return referenceDialer{}.DialTimeout(network, address, timeout, config)
		},
	},
	{
		id: "D5", what: "an unknown network is TCP",
		conn: func(network, address string, timeout time.Duration, config *tls.Config) (network.Conn, error) {
			switch network {
			case "tcp", "tcp4", "tcp6", "unix":
			default:
				network = "tcp"
			}
			return referenceDialer{}.DialConnection(network, address, timeout, config)
		},
	},
	{
		id: "D6", what: "one type for all connections",
		conn: func(n, address string, timeout time.Duration, config *tls.Config) (network.Conn, error) {
			c, err := referenceDialer{}.DialConnection(n, address, timeout, config)
			if _, ok := c.(network.ConnTLSer); err == nil && !ok {
				return struct {
					network.Conn
					network.ConnTLSer
				}{Conn: c}, nil
			}
			return c, err
		},
	},
	{
		id: "D6", what: "a connection over TLS hides that it is",
		addTLS: func(conn network.Conn, config *tls.Config) (network.Conn, error) {
			c, err := referenceDialer{}.AddTLS(conn, config)
			if err != nil {
				return nil, err
			}
			return struct{ network.Conn }{c}, nil
		},
	},
	{
		id: "D7", what: "the error is wrapped",
		conn: func(network, address string, timeout time.Duration, config *tls.Config) (network.Conn, error) {
			c, err := referenceDialer{}.DialConnection(network, address, timeout, config)
			var bad *tls.CertificateVerificationError
			if errors.As(err, &bad) {
				err = fmt.Errorf("tls handshake with %s: %w", address, err)
			}
			return c, err
		},
	},
	{
		id: "D7", what: "a connection whose handshake fails stays open",
		conn: func(network, address string, timeout time.Duration, config *tls.Config) (network.Conn, error) {
			if config == nil {
				return referenceDialer{}.DialConnection(network, address, timeout, config)
			}
			start := time.Now()
			plain, err := referenceDialer{}.DialConnection(network, address, timeout, nil)
			if err != nil {
				return nil, err
			}
			c := referenceTLSClient(plain, configFor(config, address))
			if timeout > 0 {
				err = c.SetDeadline(start.Add(timeout))
			}
			if err == nil {
				err = c.Handshake()
			}
			if err != nil {
				leaked.add(c)
				return nil, err
			}
			return c, c.SetDeadline(time.Time{})
		},
		also: []string{"D12"}, // a descriptor stays open
	},
	{
		id: "D8", what: "AddTLS forgets the buffer",
		addTLS: func(conn network.Conn, config *tls.Config) (network.Conn, error) {
			if c, ok := conn.(*reference); ok {
				conn = Reference(c.nc)
			}
			return referenceDialer{}.AddTLS(conn, config)
		},
	},
	{
		id: "D9", what: "AddTLS finds that there is TLS already",
		addTLS: func(conn network.Conn, config *tls.Config) (network.Conn, error) {
			if _, ok := conn.(network.ConnTLSer); ok {
				return conn, nil
			}
			return referenceDialer{}.AddTLS(conn, config)
		},
	},
	{
		id: "D10", what: "AddTLS leaves a connection open when it fails",
		addTLS: func(conn network.Conn, config *tls.Config) (network.Conn, error) {
			c := referenceTLSClient(conn, config)
			if err := c.SetDeadline(time.Now().Add(referenceHandshakeTime)); err != nil {
				return nil, err
			}
			if err := c.Handshake(); err != nil {
				leaked.add(c)
				return nil, err
			}
			return c, c.SetDeadline(time.Time{})
		},
	},
	{
		id: "D11", what: "the ServerName is written into the caller's config",
		conn: func(network, address string, timeout time.Duration, config *tls.Config) (network.Conn, error) {
			if config != nil {
				configMu.Lock() // a race is not the point here
				if config.ServerName == "" {
					config.ServerName = configFor(config, address).ServerName
				}
				config = config.Clone()
				configMu.Unlock()
			}
			return referenceDialer{}.DialConnection(network, address, timeout, config)
		},
	},
	{
		id: "D11", what: "the config has to have a ServerName",
		conn: func(network, address string, timeout time.Duration, config *tls.Config) (network.Conn, error) {
			if config != nil && config.ServerName == "" {
				return nil, errors.New("tls: either ServerName or InsecureSkipVerify must be specified in the tls.Config")
			}
			return referenceDialer{}.DialConnection(network, address, timeout, config)
		},
	},
	{
		id: "D11", what: "the ServerName is what comes before the address's first colon",
		conn: func(network, address string, timeout time.Duration, config *tls.Config) (network.Conn, error) {
			if config != nil && config.ServerName == "" {
				config = config.Clone()
				config.ServerName, _, _ = strings.Cut(address, ":")
			}
			return referenceDialer{}.DialConnection(network, address, timeout, config)
		},
	},
	{
		id: "D12", what: "a connection that is refused leaves a descriptor behind",
		conn: func(network, address string, timeout time.Duration, config *tls.Config) (network.Conn, error) {
			c, err := referenceDialer{}.DialConnection(network, address, timeout, config)
			if err != nil {
				f, _ := os.Open(os.DevNull)
				leaked.add(f)
			}
			return c, err
		},
	},
	{
		id: "D13", what: "DialTimeout ignores the config",
		timeout: func(network, address string, timeout time.Duration, config *tls.Config) (net.Conn, error) {
			return referenceDialer{}.DialTimeout(network, address, timeout, nil)
		},
	},
}

var configMu sync.Mutex

// Each mutant fails its own clause and passes all others of its group.
func TestDialerMutants(t *testing.T) {
	for _, m := range dialerMutants {
		t.Run(fmt.Sprint(m.id, " ", m.what), func(t *testing.T) {
			if m.id == "D12" && runtime.GOOS != "linux" {
				t.Skip("descriptors are counted on Linux alone")
			}
			judgeMutant(t, referenceDialerOf(m), m.id, m.also)
		})
	}
}

// What has no time limit at all shows only by waiting for it.
func TestDialerMutantWithoutALimit(t *testing.T) {
	if !long {
		t.Skip("it takes 20 seconds; set HERTZNET_LONG to run it")
	}
	subject := referenceDialerOf(dialerMutant{addTLS: func(conn network.Conn, config *tls.Config) (network.Conn, error) {
		c := referenceTLSClient(conn, config)
		if err := c.Handshake(); err != nil {
			c.Close()
			return nil, err
		}
		return c, nil
	}})
	for _, k := range subject.cases() {
		if r := execute(k, false); (r.Outcome == Failed) != (k.id == "D10") {
			t.Error(r)
		}
	}
}
