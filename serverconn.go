package hertznet

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"os"
	"sync/atomic"
	"time"

	errs "github.com/cloudwego/hertz/pkg/common/errors"
	"github.com/cloudwego/hertz/pkg/network"
	"github.com/hertznet/hertznet/standard"
)

// What Hertz's HTTP/1 server does between two requests: Flush, SetReadTimeout of
// the idle timeout, Peek(4) (pkg/protocol/http1/server.go). Nothing else in it
// does, so this is where a connection is idle.
const (
	midRequest int32 = iota
	inExchange       // of HTTP/1: a wait for a next request has just ended
	released         // after that, with a next request buffered
	flushed
	limitSet // to the idle timeout

	idlePeek = 4
)

// h2Preface is what a client begins HTTP/2 with (RFC 9113, section 3.4). With H2C the engine
// peeks for it before anything else (pkg/route/engine.go).
const h2Preface = "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"

// serverConn is a connection that a transporter accepted, for as long as Hertz has
// it: until it is closed, or is idle for so long that it is parked.
type serverConn struct {
	conn
	idle  time.Duration // what Hertz sets before it waits for a next request
	phase atomic.Int32
	cut   atomic.Bool // a read of this request failed: the peer left, or was too slow
	lease atomic.Int32
	own   atomic.Bool // the next SetReadTimeout is Hertz's, which follows a wait for a request
	joins bool        // answers to pipelined requests leave together

	parkable bool // it may be parked when it has been idle for a while
	h2c      bool // the engine is about to look for HTTP/2's preface
}

// Hertz's engine closes every connection that it returns from. One that it returns
// from only because it was idle is not closed but parked: the first Close after that
// is the engine's, and does nothing. Any other closes, as does any later one: a
// handler may have kept the connection and close it from a goroutine of its own.
const (
	leaseHeld     int32 = iota
	leaseOffered        // idle for long enough, and nothing has come
	leaseReturned       // and Hertz has let go of it
)

func (c *serverConn) server() *serverConn { return c }

func (c *serverConn) Close() error {
	if c.lease.CompareAndSwap(leaseOffered, leaseReturned) {
		return nil
	}
	// Right behind the Flush of an answer it is the engine's, since that answer was the last.
	// What is held has the write timeout then, as if it had been flushed.
	// A second Close does not wait for a peer that reads nothing, and ends the wait of the first.
	if c.phase.CompareAndSwap(flushed, midRequest) {
		_ = c.FlushHeld()
	}
	return c.Conn.Close()
}

// parks reports whether Hertz has given the connection back to be parked.
func (c *serverConn) parks() bool { return c.lease.Load() == leaseReturned }

// Release is called before the Flush that ends an answer, and nowhere else unless the
// request's body is a stream. A part of an answer is flushed without it, and then the rest
// of that answer waits for nothing, either.
func (c *serverConn) Release() error {
	if c.joins && c.Len() > 0 {
		c.phase.CompareAndSwap(inExchange, released)
	}
	return c.Conn.Release()
}

// Flush leaves the end of an answer to be sent with the next one, if the next request
// is there.
func (c *serverConn) Flush() error {
	var err error
	if c.phase.Load() == released {
		err = c.Conn.FlushSoon()
	} else {
		err = c.Conn.Flush()
	}
	c.phase.Store(flushed)
	return err
}

func (c *serverConn) SetReadTimeout(t time.Duration) error {
	// Any limit but the idle timeout is a handler's or a hijacker's, who may Peek(4) too
	// and is not idle. The idle timeout is never 0, see NewTransporter: after the Flush of
	// an answer, 0 is what Hertz sets before it calls a hijacker.
	if t == 0 && c.phase.Load() == flushed {
		c.SetHijacked()
		if err := c.FlushHeld(); err != nil { // the hijacker may wait before it reads
			return err
		}
	}
	// A handler that lifts the limit waits for what the peer need not send soon: with Hertz's
	// adaptor it has hijacked the connection.
	if c.own.Load() {
		c.own.Store(false)
	} else if t == 0 {
		c.LimitReadRate(false)
	}
	if t == c.idle {
		c.phase.CompareAndSwap(flushed, limitSet)
	} else {
		c.phase.CompareAndSwap(limitSet, flushed)
	}
	return c.Conn.SetReadTimeout(t)
}

func (c *serverConn) Peek(n int) ([]byte, error) {
	// After the Flush Hertz drops what is left of a streamed body, with Peek too: only
	// one that follows the idle timeout ends the phase.
	if c.phase.Load() != limitSet {
		b, err := c.Conn.Peek(n)
		if c.h2c {
			c.h2c = false
			if string(b) == h2Preface {
				c.LimitReadRate(false) // an HTTP/2 connection waits inside of OnData
			}
		}
		return b, c.note(err)
	}
	between := n == idlePeek
	if !between {
		c.phase.Store(midRequest)
	} else {
		c.phase.Store(inExchange)
		c.own.Store(true)
		if c.cut.Load() {
			c.cut.Store(false)
		}
	}
	// Fewer bytes are no request yet: some clients send a line end after a body.
	if !between || c.Len() >= n {
		if between {
			c.LimitReadRate(true) // this message begins as well, though nobody waits for it
		}
		b, err := c.Conn.Peek(n)
		return b, c.note(err)
	}
	c.SetIdle(true)
	b, err := c.peekIdle(n)
	if c.lease.Load() == leaseOffered {
		return nil, err
	}
	if !c.SetIdle(false) && err == nil {
		return nil, closedError("read", c.Conn)
	}
	return b, err
}

// peekIdle waits for the next request, and offers the connection for parking if none
// has begun after ParkAfter. The error is then a timeout.
func (c *serverConn) peekIdle(n int) ([]byte, error) {
	var after time.Duration
	if c.parkable {
		after = c.ParkAfter()
	}
	if after <= 0 || c.idle > 0 && c.idle <= after {
		return c.Conn.Peek(n)
	}
	if err := c.Conn.SetReadTimeout(after); err != nil {
		return nil, err
	}
	b, err := c.Conn.Peek(n)
	switch {
	case err == nil || !errors.Is(err, os.ErrDeadlineExceeded):
		return b, err
	case c.Len() == 0:
		c.lease.Store(leaseOffered)
		return nil, err
	}
	// A piece of something has come, so what is left of the time is spent here.
	limit := c.idle
	if limit > 0 {
		limit -= after
	}
	if err := c.Conn.SetReadTimeout(limit); err != nil {
		return nil, err
	}
	return c.Conn.Peek(n)
}

// resume waits for a request on a connection that was parked, as Hertz's HTTP/1
// server does between two requests.
func (c *serverConn) resume(readTimeout time.Duration) error {
	c.phase.Store(limitSet)
	if err := c.Conn.SetReadTimeout(c.idle); err != nil {
		return err
	}
	if _, err := c.Peek(idlePeek); err != nil {
		return err
	}
	return c.SetReadTimeout(readTimeout)
}

// Skip is what drops a streamed body that a handler left unread.
func (c *serverConn) Skip(n int) error { return c.note(c.Conn.Skip(n)) }

// Read is what a multipart form is read by.
func (c *serverConn) Read(p []byte) (int, error) {
	n, err := c.Conn.Read(p)
	return n, c.note(err)
}

func (c *serverConn) note(err error) error {
	if err == nil {
		return nil
	}
	c.cut.Store(true)
	if err == standard.ErrReadBufferFull {
		return fmt.Errorf("%w: %w", errs.ErrBodyTooLarge, err) // Hertz answers 413
	}
	return err
}

// HandleSpecificError also knows a request that ended half-way: Hertz puts what the
// read returned into a text of its own.
//
// Any other error has been answered, a 413 say, and the client may not have begun to send
// what is refused: so Close, which follows, must wait for it [S22].
func (c *serverConn) HandleSpecificError(err error, rip string) (needIgnore bool) {
	if err != nil && c.cut.Load() {
		logEveryday(err, rip)
		return true
	}
	if c.conn.HandleSpecificError(err, rip) {
		return true
	}
	c.DrainOnClose()
	return false
}

// serverTLSConn is a network.ConnTLSer too; a plain connection must not be one.
type serverTLSConn struct {
	serverConn
	tls *standard.TLSConn
}

func (c *serverTLSConn) Handshake() error                     { return c.tls.Handshake() }
func (c *serverTLSConn) ConnectionState() tls.ConnectionState { return c.tls.ConnectionState() }

// newServerConn gives a connection of standard the methods that Hertz looks for.
// cancel, if not nil, is called when the peer goes away.
func newServerConn(c any, idle time.Duration, cancel context.CancelFunc) serverSide {
	secure, isTLS := c.(*standard.TLSConn)
	switch {
	case isTLS && cancel == nil:
		s := &serverTLSConn{tls: secure}
		s.conn, s.idle = conn{&secure.Conn}, idle
		return s
	case isTLS:
		s := &sensingTLSConn{sensor: newSensor(&secure.Conn, cancel)}
		s.tls, s.conn, s.idle = secure, conn{&secure.Conn}, idle
		return s
	}
	plain := c.(*standard.Conn)
	if cancel == nil {
		return &serverConn{conn: conn{plain}, idle: idle}
	}
	s := &sensingConn{sensor: newSensor(plain, cancel)}
	s.conn, s.idle = conn{plain}, idle
	return s
}

// serverSide is a connection that a transporter accepted, of any kind.
type serverSide interface {
	network.Conn
	server() *serverConn
}
