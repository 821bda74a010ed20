package standard

import (
	"crypto/tls"
	"sync"
	"sync/atomic"

	"github.com/hertznet/hertznet/network"
	"github.com/hertznet/hertznet/tlsconn"
)

// TLSConn is a [Conn] over TLS, with all methods of one: a [network.ConnTLSer] too.
// A Conn that is not over TLS has no Handshake and no ConnectionState, so that a type
// assertion tells [D6].
//
// The first read or write performs the handshake if Handshake was not called. After
// a write that timed out once it had begun every later write fails; what the peer has
// sent can still be read. A Write whose deadline had already passed is refused before
// TLS is touched, and does no harm [L6].
type TLSConn struct {
	Conn
	tls         *tlsconn.Conn
	handshakeMu sync.Mutex
	complete    atomic.Bool
}

var _ network.ConnTLSer = (*TLSConn)(nil)

// NewTLSConn returns a TLSConn that buffers c and owns it from now on. Flush
// sends whole records: a header and a body share one where they fit [W15].
func NewTLSConn(c *tlsconn.Conn) *TLSConn {
	conn := &TLSConn{tls: c}
	conn.init(c)
	return conn
}

// Handshake performs the TLS handshake, or returns at once when it is complete.
// It is limited by the handshake timeout of the tlsconn.Conn and by both timeouts
// of this Conn. A failure is final; its error is that of [tlsconn.Conn.Handshake],
// bare: io.EOF, a tls.RecordHeaderError by value, a *net.OpError with Timeout() true
// and so on. It may be called from any goroutine [L1].
func (c *TLSConn) Handshake() error {
	if c.complete.Load() {
		return nil
	}
	c.handshakeMu.Lock()
	defer c.handshakeMu.Unlock()
	if c.complete.Load() {
		return nil
	}
	err := c.rd.beginShake(&c.Conn)
	if err == nil {
		err = c.wr.beginShake(&c.Conn)
	}
	if err == nil {
		err = c.tls.Handshake()
	}
	c.rd.mark(tlsShaking, false) // its timer may stay: reads bear one that fires too early
	c.wr.endShake(&c.Conn)
	switch {
	case err == nil:
		c.rd.mark(timerExact, false)
		c.complete.Store(true)
	case c.closed.Load():
		err = c.closedError("handshake")
	}
	return err
}

// ConnectionState returns what was negotiated: the protocol, the peer's
// certificates [L2]. Before the handshake is complete it is mostly empty.
func (c *TLSConn) ConnectionState() tls.ConnectionState { return c.tls.ConnectionState() }
