package networktest

import (
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/hertznet/hertznet/network"
)

// Reference puts a network.Conn over c that keeps every clause of the contract
// and is meant to be read: what other implementations are compared with. It is
// slow. It sets a deadline for each operation, copies all output, and leaves
// memory to the garbage collector, which keeps what Peek returned alive.
//
// The kit's cases hold for it with Behavior{CopiesWriteBinary: true} and nothing
// else. It has the methods CloseWrite and SetLinger, which work if those of c do.
func Reference(c net.Conn) network.Conn {
	return &reference{nc: c, rd: limit{set: c.SetReadDeadline}, wr: limit{set: c.SetWriteDeadline}}
}

var (
	errNegative = errors.New("networktest: negative count")
	errTooLarge = errors.New("networktest: too many bytes asked for at once")
)

const (
	referenceBlock  = 4096    // bytes that a read asks for
	referenceMalloc = 1 << 30 // the largest Malloc
	maxEmptyReads   = 100     // in a row [F1]
)

type reference struct {
	nc     net.Conn
	closed atomic.Bool
	rd, wr limit

	readMu  sync.Mutex
	unread  []byte // never moves within its memory, so slices of it stay as they are
	block   []byte // the memory to start from again when nothing is unread or held
	held    bool   // Peek has returned a slice since the last Release
	readErr error  // for good

	writeMu  sync.Mutex
	pending  [][]byte // what Malloc returned and copies of what WriteBinary got
	chunk    []byte   // memory for small ones; kept from Flush to Flush
	writeErr error    // for good
}

// limit is the time limit of one direction: a deadline, or a timeout that each
// operation makes a deadline of.
type limit struct {
	mu      sync.Mutex
	timeout time.Duration
	set     func(time.Time) error // of the conn beneath
}

// setTimeout holds for the operation that is blocked now, too [T15].
func (l *limit) setTimeout(d time.Duration) error {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.timeout = max(d, 0)
	return l.set(l.deadline())
}

func (l *limit) setDeadline(at time.Time) error {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.timeout = 0
	return l.set(at)
}

// deadline is when an operation that begins now ends.
func (l *limit) deadline() time.Time {
	if l.timeout == 0 {
		return time.Time{}
	}
	return time.Now().Add(l.timeout) // math.MaxInt64 saturates [T13]
}

// begin starts an operation, which has the whole timeout for itself [T4, T12].
func (l *limit) begin() error {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.timeout == 0 {
		return nil // a deadline, if there is one, is set
	}
	return l.set(l.deadline())
}

// fail gives an error of the conn beneath its promised shape.
func (c *reference) fail(op string, err error) error {
	switch {
	case c.closed.Load():
		err = net.ErrClosed
	case !isTimeout(err):
		return err
	}
	if e, ok := err.(*net.OpError); ok && errors.Is(err, os.ErrDeadlineExceeded) {
		return e
	}
	if isTimeout(err) {
		err = os.ErrDeadlineExceeded
	}
	e := &net.OpError{Op: op, Err: err, Source: c.nc.LocalAddr(), Addr: c.nc.RemoteAddr()}
	if e.Source != nil {
		e.Net = e.Source.Network()
	}
	return e
}

// isTimeout leaves out ETIMEDOUT: that peer is gone for good.
func isTimeout(err error) bool {
	var t interface{ Timeout() bool }
	return errors.Is(err, os.ErrDeadlineExceeded) ||
		errors.As(err, &t) && t.Timeout() && !errors.Is(err, syscall.ETIMEDOUT)
}

// beginRead starts an operation that has to read.
func (c *reference) beginRead() error {
	switch {
	case c.closed.Load():
		return c.fail("read", net.ErrClosed)
	case c.readErr != nil:
		return c.readErr
	}
	return c.rd.begin()
}

// read reads once from the conn beneath, and returns an error only without data.
func (c *reference) read(p []byte) (int, error) {
	if c.readErr != nil {
		return 0, c.readErr
	}
	for range maxEmptyReads + 1 {
		n, err := c.nc.Read(p)
		if n < 0 || n > len(p) {
			n, err = 0, fmt.Errorf("networktest: %T.Read returned the count %d for %d bytes", c.nc, n, len(p))
		}
		if err != nil && !isTimeout(err) && !c.closed.Load() {
			c.readErr = err
		}
		if n > 0 {
			return n, nil
		}
		if err != nil {
			return 0, c.fail("read", err)
		}
	}
	c.readErr = io.ErrNoProgress
	return 0, c.readErr
}

// fill waits until n bytes are unread.
func (c *reference) fill(n int) error {
	if len(c.unread) >= n {
		return nil
	}
	if err := c.beginRead(); err != nil {
		return err
	}
	for len(c.unread) < n {
		have := len(c.unread)
		if have == 0 && !c.held {
			c.unread = c.block[:0]
		}
		if cap(c.unread) == have {
			bigger := make([]byte, have, max(referenceBlock, 2*have))
			copy(bigger, c.unread)
			c.unread, c.block = bigger, bigger[:0]
		}
		m, err := c.read(c.unread[have:cap(c.unread)])
		c.unread = c.unread[:have+m]
		if err != nil {
			return err
		}
	}
	return nil
}

func (c *reference) Peek(n int) ([]byte, error) {
	if n < 0 {
		return nil, errNegative
	}
	c.readMu.Lock()
	defer c.readMu.Unlock()
	err := c.fill(n)
	switch {
	case err == nil:
	case err == io.EOF:
		n = len(c.unread)
	default:
		return nil, err
	}
	c.held = c.held || n > 0
	return c.unread[:n:n], err
}

func (c *reference) Skip(n int) error {
	if n < 0 {
		return errNegative
	}
	c.readMu.Lock()
	defer c.readMu.Unlock()
	m := min(n, len(c.unread))
	c.unread = c.unread[m:] // gone, also if the rest fails
	if n -= m; n > 0 {
		if err := c.beginRead(); err != nil {
			return err
		}
	}
	for ; n > 0; n -= m {
		var err error
		if m, err = c.read(make([]byte, min(n, referenceBlock))); err != nil {
			return err
		}
	}
	return nil
}

func (c *reference) Release() error {
	c.readMu.Lock()
	defer c.readMu.Unlock()
	c.held = false
	if len(c.unread) == 0 && cap(c.block) > referenceBlock {
		c.unread, c.block = nil, nil
	}
	return nil
}

func (c *reference) Len() int {
	c.readMu.Lock()
	defer c.readMu.Unlock()
	return len(c.unread)
}

func (c *reference) ReadByte() (byte, error) {
	c.readMu.Lock()
	defer c.readMu.Unlock()
	if err := c.fill(1); err != nil {
		return 0, err
	}
	b := c.unread[0]
	c.unread = c.unread[1:]
	return b, nil
}

func (c *reference) ReadBinary(n int) ([]byte, error) {
	if n < 0 {
		return nil, errNegative
	}
	c.readMu.Lock()
	defer c.readMu.Unlock()
	if err := c.fill(n); err != nil {
		return nil, err
	}
	p := make([]byte, n)
	copy(p, c.unread)
	c.unread = c.unread[n:]
	return p, nil
}

func (c *reference) Read(p []byte) (int, error) {
	if len(p) == 0 {
		return 0, nil
	}
	c.readMu.Lock()
	defer c.readMu.Unlock()
	if err := c.fill(1); err != nil {
		return 0, err
	}
	n := copy(p, c.unread)
	c.unread = c.unread[n:]
	return n, nil
}

func (c *reference) Malloc(n int) ([]byte, error) {
	switch {
	case n < 0:
		return nil, errNegative
	case n > referenceMalloc:
		return nil, errTooLarge
	}
	c.writeMu.Lock()
	defer c.writeMu.Unlock()
	used := len(c.chunk)
	if cap(c.chunk)-used < n {
		c.chunk, used = make([]byte, 0, max(n, referenceBlock)), 0
	}
	c.chunk = c.chunk[:used+n]
	b := c.chunk[used : used+n : used+n]
	if n > 0 {
		c.pending = append(c.pending, b)
	}
	return b, nil
}

func (c *reference) WriteBinary(b []byte) (int, error) {
	p, err := c.Malloc(len(b))
	return copy(p, b), err
}

func (c *reference) Flush() error {
	c.writeMu.Lock()
	defer c.writeMu.Unlock()
	return c.flush()
}

// flush sends what is pending in one write. A failure stays, a timeout as well:
// what part has been sent must not be sent again [W8].
func (c *reference) flush() error {
	pending := c.pending
	c.pending = c.pending[:0]
	defer clear(pending[:cap(pending)][:len(pending)]) // what was sent is forgotten [A10]
	switch {
	case c.writeErr != nil:
		return c.writeErr
	case len(pending) == 0:
		return nil
	case c.closed.Load():
		return c.fail("write", net.ErrClosed)
	}
	all := pending[0]
	if len(pending) > 1 {
		size := 0
		for _, p := range pending {
			size += len(p)
		}
		// Pieces of one chunk lie side by side.
		if first := c.chunk[:cap(c.chunk)]; size == len(c.chunk) && &first[0] == &pending[0][0] {
			all = first[:size]
		} else {
			all = make([]byte, 0, size)
			for _, p := range pending {
				all = append(all, p...)
			}
		}
	}
	_, err := c.write(all)
	c.writeErr = err
	if cap(c.chunk) > referenceBlock {
		c.chunk = nil
	}
	c.chunk = c.chunk[:0]
	return err
}

// write writes all of p, or fails.
func (c *reference) write(p []byte) (int, error) {
	if err := c.wr.begin(); err != nil {
		return 0, err
	}
	n, err := c.nc.Write(p)
	switch {
	case n < 0 || n > len(p):
		return 0, fmt.Errorf("networktest: %T.Write returned the count %d for %d bytes", c.nc, n, len(p))
	case err != nil:
		return n, c.fail("write", err)
	case n < len(p):
		return n, io.ErrShortWrite
	}
	return n, nil
}

func (c *reference) Write(p []byte) (int, error) {
	c.writeMu.Lock()
	defer c.writeMu.Unlock()
	if err := c.flush(); err != nil {
		return 0, err
	}
	if c.closed.Load() {
		return 0, c.fail("write", net.ErrClosed)
	}
	if len(p) == 0 {
		return 0, nil
	}
	n, err := c.write(p)
	if err != nil && !isTimeout(err) {
		c.writeErr = err // after a timeout the caller may go on at n
	}
	return n, err
}

func (c *reference) Close() error {
	if c.closed.Swap(true) {
		return nil
	}
	return c.nc.Close()
}

func (c *reference) LocalAddr() net.Addr  { return c.nc.LocalAddr() }
func (c *reference) RemoteAddr() net.Addr { return c.nc.RemoteAddr() }

func (c *reference) SetReadTimeout(t time.Duration) error {
	if c.closed.Load() {
		return c.fail("set", net.ErrClosed)
	}
	return c.rd.setTimeout(t)
}

func (c *reference) SetWriteTimeout(t time.Duration) error {
	if c.closed.Load() {
		return c.fail("set", net.ErrClosed)
	}
	return c.wr.setTimeout(t)
}

func (c *reference) SetReadDeadline(t time.Time) error {
	if c.closed.Load() {
		return c.fail("set", net.ErrClosed)
	}
	return c.rd.setDeadline(t)
}

func (c *reference) SetWriteDeadline(t time.Time) error {
	if c.closed.Load() {
		return c.fail("set", net.ErrClosed)
	}
	return c.wr.setDeadline(t)
}

func (c *reference) SetDeadline(t time.Time) error {
	if err := c.SetReadDeadline(t); err != nil {
		return err
	}
	return c.SetWriteDeadline(t)
}

// CloseWrite closes the sending side of the conn beneath.
func (c *reference) CloseWrite() error {
	if h, ok := c.nc.(interface{ CloseWrite() error }); ok {
		return h.CloseWrite()
	}
	return fmt.Errorf("networktest: a %T has no CloseWrite", c.nc)
}

// SetLinger is that of the conn beneath.
func (c *reference) SetLinger(sec int) error {
	if l, ok := c.nc.(interface{ SetLinger(int) error }); ok {
		return l.SetLinger(sec)
	}
	return fmt.Errorf("networktest: a %T has no SetLinger", c.nc)
}
