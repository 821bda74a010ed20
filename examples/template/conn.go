// Package template is the start of a network library for Hertz: the smallest
// honest implementation of network.Conn, network.Dialer and network.Transporter
// over package net. It has no pools and no tricks, and it passes the conformance
// kit. Copy it, rename it, run the kit, then make it fast.
//
// One idea keeps it both short and right: memory that was handed out is never used
// again. Peek's slices stay as they are because nothing ever writes there a second
// time, and the garbage collector frees them when the last one is dropped. Whoever
// wants blocks back for reuse has to know when nobody looks at them any more; most
// libraries get their first hard bug there.
//
// Ids in brackets, such as [R6], are clauses of docs/CONTRACT.md.
package template

import (
	"bytes"
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

const (
	blockSize     = 4 << 10 // bytes that a read asks the conn beneath for
	maxMalloc     = 1 << 30 // bytes that one Malloc gives at most
	maxEmptyReads = 100     // reads of (0, nil) in a row that are borne [F1]
)

var (
	// ErrNegativeCount is what Peek, Skip, ReadBinary and Malloc return for n < 0.
	ErrNegativeCount = errors.New("template: negative count")

	// ErrTooLarge is what Malloc returns for more than 1 GiB.
	ErrTooLarge = errors.New("template: too many bytes asked for at once")
)

// Conn is a network.Conn over any net.Conn.
//
// The methods of the reader lock one mutex and those of the writer another one, so
// the two sides work at the same time, and as a plain net.Conn it may be shared
// [C11]. Close and the Set methods lock neither: they must get through while others
// are blocked [C2, T15].
type Conn struct {
	nc     net.Conn
	closed atomic.Bool

	readLimit, writeLimit limit

	readMu sync.Mutex
	// unread is what has arrived and was not consumed. Data is appended in the free
	// capacity behind it, and it moves forward as it is consumed; nothing is ever
	// written at or before its start.
	unread  []byte
	readErr error // the end of the stream, or whatever else ended it: it stays [R8]

	writeMu  sync.Mutex
	pending  [][]byte // the output since the last Flush, in its order
	writeErr error    // what ended the output: it stays [W8]

	setIdle func(bool) bool // of the Transporter that accepted it, or nil
}

var _ network.Conn = (*Conn)(nil)

// NewConn puts a Conn over nc, which belongs to it from now on.
func NewConn(nc net.Conn) *Conn {
	c := new(Conn)
	c.init(nc)
	return c
}

func (c *Conn) init(nc net.Conn) {
	c.nc = nc
	c.readLimit.set = nc.SetReadDeadline
	c.writeLimit.set = nc.SetWriteDeadline
}

// The reader.

// fill waits until n bytes are unread. It is one operation for the read timeout,
// however many reads it makes [T12]. Without a need to wait it cannot fail [R1].
func (c *Conn) fill(n int) error {
	if n <= len(c.unread) {
		return nil
	}
	if err := c.beginRead(); err != nil {
		return err
	}
	for len(c.unread) < n {
		if err := c.readMore(); err != nil {
			return err
		}
	}
	return nil
}

// beginRead starts an operation that needs the conn beneath.
func (c *Conn) beginRead() error {
	if c.closed.Load() {
		return c.shape("read", net.ErrClosed)
	}
	if c.readErr != nil {
		return c.readErr
	}
	if err := c.readLimit.begin(); err != nil {
		return c.shape("read", err)
	}
	return nil
}

// readMore reads once and appends to unread. A full block is left to whoever holds
// slices of it, and what is unread moves to a new one of twice its size: the blocks
// grow with what has arrived, never with what was asked for [R11].
func (c *Conn) readMore() error {
	have := len(c.unread)
	if have == cap(c.unread) {
		block := make([]byte, have, max(blockSize, 2*have))
		copy(block, c.unread)
		c.unread = block
	}
	n, err := c.read(c.unread[have:cap(c.unread)])
	c.unread = c.unread[:have+n]
	return err
}

// read reads from the conn beneath, either data or an error.
func (c *Conn) read(p []byte) (int, error) {
	if c.readErr != nil {
		return 0, c.readErr // it came along with the data before
	}
	for range maxEmptyReads + 1 {
		n, err := c.nc.Read(p)
		if n < 0 || n > len(p) {
			n, err = 0, fmt.Errorf("template: %T.Read returned the count %d for %d bytes", c.nc, n, len(p)) // [F5]
		}
		if err != nil && !isTimeout(err) && !c.closed.Load() {
			c.readErr = err // all but a timeout ends the stream [T2]
		}
		switch {
		case n > 0:
			return n, nil // the data first [F2, F3]
		case err != nil:
			return 0, c.shape("read", err)
		}
	}
	c.readErr = io.ErrNoProgress
	return 0, c.readErr
}

// take consumes n unread bytes.
func (c *Conn) take(n int) []byte {
	b := c.unread[:n:n]
	c.unread = c.unread[n:]
	return b
}

// Peek implements network.Reader.
func (c *Conn) Peek(n int) ([]byte, error) {
	if n < 0 {
		return nil, ErrNegativeCount
	}
	c.readMu.Lock()
	defer c.readMu.Unlock()
	err := c.fill(n)
	if err == io.EOF {
		n = len(c.unread) // what there is, with the bare io.EOF [R6]
	} else if err != nil {
		return nil, err
	}
	return c.unread[:n:n], err // append must not reach the stream [A2]
}

// Skip implements network.Reader.
func (c *Conn) Skip(n int) error {
	if n < 0 {
		return ErrNegativeCount
	}
	c.readMu.Lock()
	defer c.readMu.Unlock()
	n -= len(c.take(min(n, len(c.unread)))) // gone, even if the rest does not come
	if n == 0 {
		return nil
	}
	if err := c.beginRead(); err != nil {
		return err
	}
	// What is dropped can have one place for all of it [R15].
	dropped := make([]byte, min(n, blockSize))
	for n > 0 {
		m, err := c.read(dropped[:min(n, blockSize)])
		if err != nil {
			return err
		}
		n -= m
	}
	return nil
}

// Release implements network.Reader. Memory is never used again here, so there is
// only one thing to do: not to hold a block of which nothing is unread [P2].
func (c *Conn) Release() error {
	c.readMu.Lock()
	defer c.readMu.Unlock()
	if len(c.unread) == 0 {
		c.unread = nil
	}
	return nil
}

// Len implements network.Reader.
func (c *Conn) Len() int {
	c.readMu.Lock()
	defer c.readMu.Unlock()
	return len(c.unread)
}

// ReadByte implements network.Reader.
func (c *Conn) ReadByte() (byte, error) {
	c.readMu.Lock()
	defer c.readMu.Unlock()
	if err := c.fill(1); err != nil {
		return 0, err
	}
	return c.take(1)[0], nil
}

// ReadBinary implements network.Reader. It copies, since a Peeked slice, which the
// caller may modify, could share the bytes [R17].
func (c *Conn) ReadBinary(n int) ([]byte, error) {
	if n < 0 {
		return nil, ErrNegativeCount
	}
	c.readMu.Lock()
	defer c.readMu.Unlock()
	if err := c.fill(n); err != nil {
		return nil, err // nothing is consumed [R19]
	}
	p := make([]byte, n)
	copy(p, c.take(n))
	return p, nil
}

// Read implements net.Conn.
func (c *Conn) Read(p []byte) (int, error) {
	if len(p) == 0 {
		return 0, nil
	}
	c.readMu.Lock()
	defer c.readMu.Unlock()
	if err := c.fill(1); err != nil {
		return 0, err
	}
	return copy(p, c.take(min(len(p), len(c.unread)))), nil
}

// The writer.

// Malloc implements network.Writer.
func (c *Conn) Malloc(n int) ([]byte, error) {
	switch {
	case n < 0:
		return nil, ErrNegativeCount
	case n > maxMalloc:
		return nil, ErrTooLarge
	}
	b := make([]byte, n)
	_, err := c.WriteBinary(b)
	return b, err
}

// WriteBinary implements network.Writer. It keeps b itself until Flush, as the
// contract allows. That b may be a Peeked slice which is released before costs
// nothing here: released memory is not written to either [A13].
func (c *Conn) WriteBinary(b []byte) (int, error) {
	c.writeMu.Lock()
	defer c.writeMu.Unlock()
	if len(b) > 0 {
		c.pending = append(c.pending, b)
	}
	return len(b), nil
}

// Flush implements network.Writer.
func (c *Conn) Flush() error {
	c.writeMu.Lock()
	defer c.writeMu.Unlock()
	return c.flush()
}

// flush sends what is pending in one write, so that a header and its body leave in
// one packet or TLS record [W15]. When it fails, a timeout included, part of it may
// have been sent; nothing may follow, or the peer would see a gap [W8].
func (c *Conn) flush() error {
	pending := c.pending
	c.pending = nil // nothing of it is held any longer than this call [A10]
	if c.writeErr != nil || len(pending) == 0 {
		return c.writeErr
	}
	_, err := c.write(bytes.Join(pending, nil))
	c.writeErr = err
	return err
}

// Write implements net.Conn. After a timeout, and only then, the caller may go on
// at n [W12]; where crypto/tls is beneath it does not let him [L6].
func (c *Conn) Write(p []byte) (int, error) {
	c.writeMu.Lock()
	defer c.writeMu.Unlock()
	if err := c.flush(); err != nil {
		return 0, err
	}
	if len(p) == 0 && !c.closed.Load() {
		return 0, nil
	}
	n, err := c.write(p)
	if err != nil && !isTimeout(err) {
		c.writeErr = err
	}
	return n, err
}

// write sends all of p or fails. It is one operation for the write timeout.
func (c *Conn) write(p []byte) (int, error) {
	if c.closed.Load() {
		return 0, c.shape("write", net.ErrClosed)
	}
	if err := c.writeLimit.begin(); err != nil {
		return 0, c.shape("write", err)
	}
	n, err := c.nc.Write(p)
	switch {
	case n < 0 || n > len(p):
		return 0, fmt.Errorf("template: %T.Write returned the count %d for %d bytes", c.nc, n, len(p)) // [W10]
	case err != nil:
		return n, c.shape("write", err)
	case n < len(p):
		return n, io.ErrShortWrite // [W7]
	}
	return n, nil
}

// Close implements net.Conn. It frees what is blocked in both directions, by
// closing the conn beneath.
func (c *Conn) Close() error {
	if c.closed.Swap(true) {
		return nil // [C5]
	}
	return c.nc.Close()
}

// SetIdle is for a protocol that waits for its next message inside of OnData, as
// Hertz's HTTP/1 does. It calls SetIdle(true) before it waits, so that Shutdown need
// not wait for it, and SetIdle(false) after; if that is false, Shutdown was faster.
func (c *Conn) SetIdle(idle bool) (open bool) {
	return !c.closed.Load() && (c.setIdle == nil || c.setIdle(idle))
}

// LocalAddr implements net.Conn.
func (c *Conn) LocalAddr() net.Addr { return c.nc.LocalAddr() }

// RemoteAddr implements net.Conn.
func (c *Conn) RemoteAddr() net.Addr { return c.nc.RemoteAddr() }

// Errors.

// shape gives errors the form that callers compare with: of Close and of timeouts
// they expect a *net.OpError, whatever the conn beneath says [C6, R28]. All others
// go through as they are, above all io.EOF, which Hertz compares with ==.
func (c *Conn) shape(op string, err error) error {
	switch {
	case c.closed.Load():
		err = net.ErrClosed
	case isTimeout(err):
		err = os.ErrDeadlineExceeded
	default:
		return err
	}
	addr := c.nc.LocalAddr()
	e := &net.OpError{Op: op, Source: addr, Addr: c.nc.RemoteAddr(), Err: err}
	if addr != nil {
		e.Net = addr.Network()
	}
	return e
}

// isTimeout leaves out ETIMEDOUT, by which TCP says that the peer is gone for good.
func isTimeout(err error) bool {
	var t interface{ Timeout() bool }
	return errors.As(err, &t) && t.Timeout() && !errors.Is(err, syscall.ETIMEDOUT)
}

// The limits.

// limit is the time limit of one direction. A timeout is turned into a deadline of
// the conn beneath when an operation begins, so each has all of it [T4].
type limit struct {
	set func(time.Time) error // SetReadDeadline or SetWriteDeadline of the conn beneath

	mu      sync.Mutex
	timeout time.Duration // for each operation, or 0
	at      time.Time     // the deadline that is set; zero is none
}

func (l *limit) setTimeout(t time.Duration) error {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.timeout = max(t, 0)
	if l.timeout == 0 {
		return l.move(time.Time{})
	}
	return l.move(time.Now().Add(t)) // for the operation that is blocked now [T15]
}

func (l *limit) setDeadline(at time.Time) error {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.timeout = 0 // the last call wins [T8]
	return l.move(at)
}

// begin starts an operation. One whose deadline has passed fails before the conn
// beneath is touched: TLS would not survive that [L6].
func (l *limit) begin() error {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.timeout > 0 {
		return l.move(time.Now().Add(l.timeout))
	}
	if !l.at.IsZero() && !time.Now().Before(l.at) {
		return os.ErrDeadlineExceeded
	}
	return nil
}

func (l *limit) move(at time.Time) error {
	l.at = at
	return l.set(at)
}

// SetReadTimeout implements network.Conn.
func (c *Conn) SetReadTimeout(t time.Duration) error {
	return c.setResult(c.readLimit.setTimeout(t))
}

// SetWriteTimeout implements network.Conn.
func (c *Conn) SetWriteTimeout(t time.Duration) error {
	return c.setResult(c.writeLimit.setTimeout(t))
}

// SetReadDeadline implements net.Conn.
func (c *Conn) SetReadDeadline(at time.Time) error {
	return c.setResult(c.readLimit.setDeadline(at))
}

// SetWriteDeadline implements net.Conn.
func (c *Conn) SetWriteDeadline(at time.Time) error {
	return c.setResult(c.writeLimit.setDeadline(at))
}

// SetDeadline implements net.Conn.
func (c *Conn) SetDeadline(at time.Time) error {
	return errors.Join(c.SetReadDeadline(at), c.SetWriteDeadline(at))
}

// setResult is the result of a Set method, which fails after Close whatever the
// conn beneath thinks of it [C6].
func (c *Conn) setResult(err error) error {
	if c.closed.Load() {
		err = net.ErrClosed
	}
	if err == nil {
		return nil
	}
	return c.shape("set", err)
}
