package hertznet

import (
	"errors"
	"net"
	"time"

	errs "github.com/cloudwego/hertz/pkg/common/errors"
	"github.com/hertznet/hertznet/standard"
)

// SetWriteTimeout is the first method that Hertz's client calls for each request and
// that can fail, whether a timeout is set or not: a connection out of the pool is looked
// at here. It is looked at however short it lay there, since a server that has had
// enough requests closes right behind its answer.
func (c *clientConn) SetWriteTimeout(t time.Duration) error {
	if c.phase.CompareAndSwap(pooled, unused) && c.redial != nil && c.stale() {
		if err := c.renew(t); err != nil {
			return err
		}
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.Conn.SetWriteTimeout(t)
}

// stale reports whether the next request must not be sent on c.
func (c *clientConn) stale() bool {
	readable, ended := c.Probe()
	// Nothing was asked, so nothing that can be read is an answer. What TLS 1.3 has
	// to read may be a session ticket.
	return ended || readable && c.tls == nil
}

// renew exchanges the connection beneath for a new one, within limit if it is
// positive.
func (c *clientConn) renew(limit time.Duration) error {
	old := c.Conn
	old.Close() // first: its local address may be the only one
	fresh, err := c.redial(limit)
	if err != nil {
		return &redialError{err}
	}
	if !c.replace(fresh) {
		fresh.Close()
		return closedError("set", old)
	}
	return nil
}

// replace puts fresh beneath, with the limit that was set last, unless c was closed
// meanwhile.
func (c *clientConn) replace(fresh any) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.closed {
		return false
	}
	if secure, ok := fresh.(*standard.TLSConn); ok {
		c.tls, c.Conn = secure, &secure.Conn
	} else {
		c.Conn = fresh.(*standard.Conn)
	}
	if !c.limit.IsZero() {
		_ = c.Conn.SetReadDeadline(c.limit) // a conn that refuses it fails when it reads
	}
	return true
}

// redialError is why a stale connection could not be dialled again. Nothing was
// sent, which is what ErrBadPoolConn tells Hertz: it repeats requests whose method
// allows, perhaps on another of its addresses. After a timeout it must not: each
// connection in the pool could cost as much again.
type redialError struct{ err error }

func (e *redialError) Error() string {
	return "the peer closed the pooled connection, and dialling again failed: " + e.err.Error()
}

func (e *redialError) Unwrap() error { return e.err }

func (e *redialError) Timeout() bool {
	var t interface{ Timeout() bool }
	return errors.As(e.err, &t) && t.Timeout()
}

// Temporary makes it a net.Error, as a dial's error is.
func (e *redialError) Temporary() bool { return e.Timeout() }

func (e *redialError) Is(target error) bool {
	return target == errs.ErrBadPoolConn && !e.Timeout()
}

// What any goroutine may call at any time, a renewal included, follows.

// Close ends a renewal too, though not before its dial ends.
func (c *clientConn) Close() error {
	c.mu.Lock()
	c.closed = true
	beneath := c.Conn
	c.mu.Unlock()
	return beneath.Close()
}

func (c *clientConn) LocalAddr() net.Addr  { return c.beneath().LocalAddr() }
func (c *clientConn) RemoteAddr() net.Addr { return c.beneath().RemoteAddr() }

func (c *clientConn) beneath() *standard.Conn {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.Conn
}

func (c *clientConn) secure() *standard.TLSConn {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.tls
}

func (c *clientConn) SetDeadline(t time.Time) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.limit = t
	return c.Conn.SetDeadline(t)
}

func (c *clientConn) SetReadDeadline(t time.Time) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.limit = t
	return c.Conn.SetReadDeadline(t)
}

func (c *clientConn) SetWriteDeadline(t time.Time) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.Conn.SetWriteDeadline(t)
}
