package hertznet

import (
	"crypto/tls"
	"errors"
	"io"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/cloudwego/hertz/pkg/network"
	ours "github.com/hertznet/hertznet/network"
	"github.com/hertznet/hertznet/standard"
)

// How far an exchange of Hertz's HTTP/1 client has come. What it does with a
// connection of its pool: the addresses, over TLS SetDeadline and Handshake,
// SetWriteTimeout, Flush, SetReadTimeout, Peek, Release, and last Len, which must be 0
// (pkg/protocol/http1/client.go).
const (
	unused    int32 = iota
	sent            // a request, and no byte of its answer has come
	answering       // some byte has
	answered        // by HTTP/1, with no change of the protocol
	pooled          // nothing is left of the answer
)

// clientConn is a connection that a dialer opened. In redial.go it connects again
// if it went stale in the pool.
type clientConn struct {
	conn  // under mu where it changes, and for what any goroutine may call
	tls   *standard.TLSConn
	phase atomic.Int32

	redial func(limit time.Duration) (ours.Conn, error) // nil: never
	mu     sync.Mutex
	closed bool
	limit  time.Time // of reading
}

// SetReadTimeout limits all that is read until the next call to one moment, t
// from now: Hertz documents its client's ReadTimeout as that of the full response
// and computes it from the request's own deadline.
func (c *clientConn) SetReadTimeout(t time.Duration) error {
	var limit time.Time
	if t > 0 {
		limit = time.Now().Add(t)
	}
	return c.SetReadDeadline(limit)
}

func (c *clientConn) Flush() error {
	err := c.Conn.Flush()
	c.phase.Store(sent)
	return err
}

// Peek returns the errors by which Hertz's client knows a stale pooled connection,
// io.EOF and syscall.ECONNRESET, bare: it compares them with ==.
func (c *clientConn) Peek(n int) ([]byte, error) {
	b, err := c.Conn.Peek(n)
	switch {
	case err == nil:
		if phase := c.phase.Load(); phase == sent || phase == answering {
			c.phase.Store(c.phaseOfAnswer())
		}
	case errors.Is(err, errReset):
		err = syscall.ECONNRESET
	case err == io.ErrUnexpectedEOF && c.phase.Load() == sent && c.Conn.Len() == 0:
		// TLS cut before the first byte of an answer: there is nothing that the
		// missing close_notify could have protected.
		err = io.EOF
	}
	return b, err
}

// phaseOfAnswer reads the beginning of an answer that has begun to come. The only
// connections that may be exchanged for new ones are those that speak HTTP/1 and
// go on to do so: the user of another protocol has a state at the other end.
func (c *clientConn) phaseOfAnswer() int32 {
	const version, status = len("HTTP/1."), len("HTTP/1.1 ")
	if c.Conn.Len() < status+3 {
		return answering
	}
	b, err := c.Conn.Peek(status + 3)
	switch {
	case err != nil || string(b[:version]) != "HTTP/1." || string(b[status:]) == "101":
		return unused
	case b[status] == '1': // an interim answer, another follows
		return answering
	}
	return answered
}

// Len is what Hertz asks for last before it puts a connection into its pool.
func (c *clientConn) Len() int {
	n := c.Conn.Len()
	if n == 0 {
		c.phase.CompareAndSwap(answered, pooled)
	}
	return n
}

type clientTLSConn struct{ clientConn }

func (c *clientTLSConn) Handshake() error                     { return c.secure().Handshake() }
func (c *clientTLSConn) ConnectionState() tls.ConnectionState { return c.secure().ConnectionState() }

// newClientConn gives a connection of standard what Hertz's client looks for.
func newClientConn(c any) network.Conn { return newRedialConn(c, nil) }

// newRedialConn returns a connection that redial makes anew when it went stale.
func newRedialConn(c any, redial func(limit time.Duration) (ours.Conn, error)) network.Conn {
	if c, ok := c.(*standard.TLSConn); ok {
		return &clientTLSConn{clientConn{conn: conn{&c.Conn}, tls: c, redial: redial}}
	}
	return &clientConn{conn: conn{c.(*standard.Conn)}, redial: redial}
}
