package networktest

import (
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/hertznet/hertznet/network"
)

// tlsMutant is the reference over TLS with one thing broken.
type tlsMutant struct {
	id   string // the clause that must catch it
	what string
	also []string // further clauses that it cannot help breaking

	config  func(config *tls.Config) *tls.Config           // what it makes of a config; nil is nothing
	beneath func(c net.Conn) net.Conn                      // what it puts beneath TLS
	over    func(c *referenceTLS) network.Conn             // what it puts over the reference
	instead func(c net.Conn, s tlsMutantSide) network.Conn // of the reference
}

type tlsMutantSide struct {
	config *tls.Config
	tls    func(net.Conn, *tls.Config) *tls.Conn
}

func (m tlsMutant) subject() TLS {
	put := func(side func(net.Conn, *tls.Config) *tls.Conn) func(testing.TB, net.Conn, *tls.Config) (network.Conn, error) {
		return func(_ testing.TB, c net.Conn, config *tls.Config) (network.Conn, error) {
			if m.config != nil {
				config = m.config(config)
			}
			if m.beneath != nil {
				c = m.beneath(c)
			}
			if m.instead != nil {
				return m.instead(c, tlsMutantSide{config, side}), nil
			}
			r := newReferenceTLS(c, config, side)
			if m.over != nil {
				return m.over(r), nil
			}
			return r, nil
		}
	}
	return TLS{Client: put(tls.Client), Server: put(tls.Server)}
}

var tlsMutants = []tlsMutant{
	{
		id: "L1", what: "a second Handshake is an error",
		over: func(c *referenceTLS) network.Conn {
			var calls atomic.Int32
			return &otherHandshake{c, func() error {
				if calls.Add(1) > 1 {
					return errors.New("tls: the handshake has been made")
				}
				return c.Handshake()
			}}
		},
	},
	{
		id: "L1", what: "a failed Handshake is forgotten",
		over: func(c *referenceTLS) network.Conn {
			var once sync.Once
			return &otherHandshake{c, func() (err error) {
				once.Do(func() { err = c.Handshake() })
				return err
			}}
		},
	},
	{
		id: "L1", what: "a Handshake that is done asks the socket whether the peer is there",
		over: func(c *referenceTLS) network.Conn {
			return &otherHandshake{c, func() error {
				if !c.stream.complete.Load() {
					return c.Handshake()
				}
				if err := c.stream.raw.SetReadDeadline(time.Now().Add(-time.Second)); err != nil {
					return err
				}
				_, _ = c.stream.raw.Read(make([]byte, 0))
				return c.stream.raw.SetReadDeadline(time.Time{})
			}}
		},
	},
	{
		id: "L2", what: "ConnectionState waits for the handshake",
		over: func(c *referenceTLS) network.Conn { return &waitingState{c} },
	},
	{
		id: "L2", what: "ALPN is left out",
		config: func(config *tls.Config) *tls.Config {
			if len(config.NextProtos) > 0 {
				config = config.Clone()
				config.NextProtos = nil
			}
			return config
		},
	},
	{
		id: "L3", what: "no limit holds for a handshake",
		instead: func(c net.Conn, s tlsMutantSide) network.Conn {
			raw := &noDeadlines{Conn: c}
			r := newReferenceTLS(raw, s.config, s.tls)
			raw.complete = &r.stream.complete
			return r
		},
	},
	{
		id: "L3", what: "no limit holds for what a handshake writes",
		instead: func(c net.Conn, s tlsMutantSide) network.Conn {
			raw := &noDeadlines{Conn: c, write: true}
			r := newReferenceTLS(raw, s.config, s.tls)
			raw.complete = &r.stream.complete
			return r
		},
	},
	{
		id: "L3", what: "each read of a handshake has the whole timeout",
		beneath: func(c net.Conn) net.Conn { return &eachRead{Conn: c} },
	},
	{
		id: "L4", what: "the error is wrapped",
		over: func(c *referenceTLS) network.Conn {
			return &otherHandshake{c, func() error {
				err := c.Handshake()
				var e tls.RecordHeaderError
				if errors.As(err, &e) {
					err = fmt.Errorf("tls handshake: %w", err)
				}
				return err
			}}
		},
	},
	{
		id: "L4", what: "the error's Conn is not set",
		over: func(c *referenceTLS) network.Conn {
			return &otherHandshake{c, func() error {
				err := c.Handshake()
				if e, ok := err.(tls.RecordHeaderError); ok {
					e.Conn = nil
					return e
				}
				return err
			}}
		},
	},
	{
		id: "L5", what: "crypto/tls as it is",
		instead: func(c net.Conn, s tlsMutantSide) network.Conn {
			t := s.tls(c, s.config)
			return &bareTLS{Reference(t), t}
		},
		// Its ConnectionState waits for the handshake, and a Write whose deadline has
		// passed breaks it for good.
		also: []string{"L2", "L6"},
	},
	{
		id: "L5", what: "the end of the stream is wrapped",
		over: func(c *referenceTLS) network.Conn {
			return &otherPeekTLS{c, func(n int) ([]byte, error) {
				p, err := c.Peek(n)
				if err == io.EOF {
					err = fmt.Errorf("tls: %w", err)
				}
				return p, err
			}}
		},
	},
	{
		id: "L6", what: "a Write whose deadline had passed is permanent as well",
		over: func(c *referenceTLS) network.Conn {
			var failed error
			return &otherWrite{c, func(p []byte) (int, error) {
				if failed != nil {
					return 0, failed
				}
				n, err := c.Write(p)
				failed = err
				return n, err
			}}
		},
	},
	{
		id: "L6", what: "a Write after one that timed out is accepted, and goes nowhere",
		over: func(c *referenceTLS) network.Conn {
			var timedOut bool
			return &otherWrite{c, func(p []byte) (int, error) {
				n, err := c.Write(p)
				if err != nil && timedOut {
					return len(p), nil
				}
				timedOut = err != nil
				return n, err
			}}
		},
	},
	{
		id: "L7", what: "Close waits for the write to say goodbye after it",
		over: func(c *referenceTLS) network.Conn { return &politeClose{referenceTLS: c} },
	},
	{
		id: "L8", what: "Peek returns what the first record has",
		over: func(c *referenceTLS) network.Conn {
			return &otherPeekTLS{c, func(n int) ([]byte, error) {
				if _, err := c.Peek(min(n, 1)); err != nil {
					return nil, err
				}
				return c.Peek(min(n, c.Len()))
			}}
		},
	},
	{
		id: "L9", what: "each record takes a block until Release",
		over: func(c *referenceTLS) network.Conn { return &blockForEach{referenceTLS: c} },
	},
	{
		id: "L10", what: "each connection has a config of its own",
		config: func(config *tls.Config) *tls.Config { return config.Clone() },
	},
	{
		id: "L10", what: "the first certificate is kept",
		config: func(config *tls.Config) *tls.Config {
			if config.GetCertificate == nil {
				return config
			}
			cert, _ := config.GetCertificate(nil)
			first, _ := firstCertificates.LoadOrStore(config, cert)
			return &tls.Config{Certificates: []tls.Certificate{*first.(*tls.Certificate)}}
		},
	},
	{
		id: "L10", what: "a client's certificate is not shown",
		config: func(config *tls.Config) *tls.Config {
			if config.ServerName != "" {
				config = config.Clone()
				config.Certificates = nil
			}
			return config
		},
	},
	{
		id: "W15", what: "WriteBinary is a write of its own",
		over: func(c *referenceTLS) network.Conn { return &eagerWriteBinary{c} },
	},
}

var firstCertificates sync.Map // from *tls.Config to *tls.Certificate

type otherHandshake struct {
	*referenceTLS
	handshake func() error
}

func (c *otherHandshake) Handshake() error { return c.handshake() }

type otherPeekTLS struct {
	*referenceTLS
	peek func(n int) ([]byte, error)
}

func (c *otherPeekTLS) Peek(n int) ([]byte, error) { return c.peek(n) }

type otherWrite struct {
	*referenceTLS
	write func(p []byte) (int, error)
}

func (c *otherWrite) Write(p []byte) (int, error) { return c.write(p) }

type waitingState struct{ *referenceTLS }

func (c *waitingState) ConnectionState() tls.ConnectionState { return c.stream.tls.ConnectionState() }

type bareTLS struct {
	network.Conn
	tls *tls.Conn
}

func (c *bareTLS) Handshake() error                     { return c.tls.Handshake() }
func (c *bareTLS) ConnectionState() tls.ConnectionState { return c.tls.ConnectionState() }

// noDeadlines ignores them until the handshake is complete.
type noDeadlines struct {
	net.Conn
	write    bool // those of writing alone
	complete *atomic.Bool
}

func (c *noDeadlines) SetReadDeadline(t time.Time) error {
	if !c.write && !c.complete.Load() {
		return nil
	}
	return c.Conn.SetReadDeadline(t)
}

func (c *noDeadlines) SetWriteDeadline(t time.Time) error {
	if !c.complete.Load() {
		return nil
	}
	return c.Conn.SetWriteDeadline(t)
}

// eachRead gives each read as much time as the first one had.
type eachRead struct {
	net.Conn
	mu   sync.Mutex
	left time.Duration
}

func (c *eachRead) SetReadDeadline(t time.Time) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.left = 0
	if !t.IsZero() {
		c.left = time.Until(t)
	}
	return c.Conn.SetReadDeadline(t)
}

func (c *eachRead) Read(p []byte) (int, error) {
	c.mu.Lock()
	left := c.left
	c.mu.Unlock()
	if left > 0 {
		if err := c.Conn.SetReadDeadline(time.Now().Add(left)); err != nil {
			return 0, err
		}
	}
	return c.Conn.Read(p)
}

type politeClose struct {
	*referenceTLS
	mu sync.Mutex
}

func (c *politeClose) Write(p []byte) (int, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.referenceTLS.Write(p)
}

func (c *politeClose) Close() error {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.referenceTLS.Close()
}

type blockForEach struct {
	*referenceTLS
	blocks [][]byte
}

func (c *blockForEach) Read(p []byte) (int, error) {
	block := make([]byte, 4096)
	c.blocks = append(c.blocks, block)
	n, err := c.referenceTLS.Read(block[:min(len(p), len(block))])
	return copy(p, block[:n]), err
}

func (c *blockForEach) Release() error {
	c.blocks = nil
	return c.referenceTLS.Release()
}

type eagerWriteBinary struct{ *referenceTLS }

func (c *eagerWriteBinary) WriteBinary(p []byte) (int, error) {
	if err := c.Flush(); err != nil {
		return 0, err
	}
	return c.Write(p)
}

// Each mutant fails its own clause and passes all others of its group; with
// HERTZNET_LONG set, those of W as well.
func TestTLSMutants(t *testing.T) {
	for _, m := range tlsMutants {
		t.Run(fmt.Sprint(m.id, " ", m.what), func(t *testing.T) {
			judgeMutant(t, m.subject(), m.id, m.also)
		})
	}
}
