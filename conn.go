package hertznet

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	errs "github.com/cloudwego/hertz/pkg/common/errors"
	"github.com/cloudwego/hertz/pkg/common/hlog"
	"github.com/cloudwego/hertz/pkg/network"
	ours "github.com/hertznet/hertznet/network"
	"github.com/hertznet/hertznet/standard"
)

// conn is a standard.Conn that speaks of errors in Hertz's terms.
type conn struct{ *standard.Conn }

// closedError is what a closed connection returns.
func closedError(op string, c *standard.Conn) error {
	return &net.OpError{Op: op, Net: c.LocalAddr().Network(), Source: c.LocalAddr(), Addr: c.RemoteAddr(), Err: net.ErrClosed}
}

func isGone(err error) bool {
	for _, target := range gone {
		if errors.Is(err, target) {
			return true
		}
	}
	return false
}

// ToHertzError implements network.ErrorNormalization. Hertz's client reads an
// early 4xx answer, and calls a pooled connection stale, only after
// ErrConnectionClosed (pkg/protocol/http1/client.go); that is for failed writes.
func (conn) ToHertzError(err error) error {
	if errors.Is(err, os.ErrDeadlineExceeded) {
		return errs.ErrTimeout
	}
	var op *net.OpError
	if errors.As(err, &op) && op.Op != "read" && isGone(err) {
		return errs.ErrConnectionClosed
	}
	return err
}

// HandleSpecificError implements network.HandleSpecificError: what peers do every
// day is logged for debugging only.
func (conn) HandleSpecificError(err error, rip string) (needIgnore bool) {
	if err == nil {
		return false
	}
	if isGone(err) || errors.Is(err, io.ErrUnexpectedEOF) || errors.Is(err, os.ErrDeadlineExceeded) {
		logEveryday(err, rip)
		return true
	}
	return false
}

func logEveryday(err error, rip string) {
	hlog.SystemLogger().Debugf("the peer ended the connection or was too slow: error=%s, remoteAddr=%s", err, rip)
}

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
	joins bool // answers to pipelined requests leave together

	parkable bool // it may be parked when it has waited for that
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
	if c.phase.Load() == flushed {
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
	// Any other limit is a handler's or a hijacker's, who may Peek(4) too and is not
	// idle. 0 is never the idle timeout, see NewTransporter. After the Flush of an answer
	// it is what Hertz sets before it calls a hijacker.
	if t == 0 && c.phase.Load() == flushed {
		c.SetHijacked()
		if err := c.FlushHeld(); err != nil { // the hijacker may wait before it reads
			return err
		}
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
// has begun when it has waited for so long. The error is then a timeout.
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

// sensor cancels a connection's context when the peer goes away while a handler
// runs. It has the two methods that Hertz's HTTP/1 server looks for when
// SenseClientDisconnection is set (internal/network.StatefulConn).
type sensor struct {
	reader   *standard.Conn
	cancel   context.CancelFunc
	watching bool
	done     chan struct{}
}

func newSensor(c *standard.Conn, cancel context.CancelFunc) sensor {
	return sensor{reader: c, cancel: cancel, done: make(chan struct{}, 1)}
}

// DetectConnectionClose starts to watch. Until AbortBlockingRead, nobody else may
// read.
func (s *sensor) DetectConnectionClose() {
	s.watching = true
	// Without a limit: the watch ends with the handler, and the peer owes no bytes.
	s.reader.LimitReadRate(false)
	if err := s.reader.SetReadDeadline(time.Time{}); err != nil {
		s.cancel()
	}
	go func() {
		// Bytes of a pipelined request end the watch too, and cancel nothing.
		_, err := s.reader.Peek(s.reader.Len() + 1)
		if err != nil && !errors.Is(err, os.ErrDeadlineExceeded) && err != standard.ErrReadBufferFull {
			s.cancel()
		}
		s.done <- struct{}{}
	}()
}

// AbortBlockingRead ends what DetectConnectionClose started.
func (s *sensor) AbortBlockingRead() {
	if !s.watching {
		return
	}
	s.watching = false
	for {
		// It fails only on a closed connection, whose reads end by themselves.
		_ = s.reader.SetReadDeadline(time.Unix(1, 0))
		select {
		case <-s.done:
			return
		case <-time.After(10 * time.Millisecond):
			// A goroutine of the handler's has set a limit of its own since.
		}
	}
}

type sensingConn struct {
	serverConn
	sensor
}

type sensingTLSConn struct {
	serverTLSConn
	sensor
}

// Release ends the watch first, as Hertz does not when a handler panics or its
// answer cannot be written: memory that is still read into must not be recycled.
func (c *sensingConn) Release() error {
	c.AbortBlockingRead()
	return c.serverConn.Release()
}

func (c *sensingTLSConn) Release() error {
	c.AbortBlockingRead()
	return c.serverConn.Release()
}

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
