package standard

import (
	"io"
	"net"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/hertznet/hertznet/network"
	"github.com/hertznet/hertznet/tlsconn"
)

// Conn buffers a [net.Conn] in both directions: a [network.Conn].
//
// # Ownership
//
// Peek returns the connection's own memory. It stays as it is, and may be read,
// until Release, whatever else is called in between, Close included [A1, A5].
// Malloc returns memory that the caller fills until Flush. A slice given to
// WriteBinary must not change until Flush has returned; then, success or
// failure, the Conn has forgotten it [A10]. A slice that Peek returned may be
// given to WriteBinary and released before the Flush: it is sent as it was [A13].
//
// # Concurrency
//
// One goroutine may use the reader's methods (Peek, Skip, Release, Len,
// ReadByte, ReadBinary, Read) while one other uses the writer's (Malloc,
// WriteBinary, Flush, FlushSoon, Write, ReadFrom). Close, the methods that set a
// timeout or a deadline and the addresses may be called from any goroutine at any
// time; all others say where they belong. A Conn of which only Read and Write are used
// is a net.Conn for any number of goroutines.
//
// # Errors
//
// A timeout is a *net.OpError with Timeout() true that is
// os.ErrDeadlineExceeded. After a read timeout nothing is lost, but for what Skip
// had passed over, and the next call may succeed. The same holds if the conn
// beneath refuses a deadline, whose error is returned [F6]. Every other error of
// the conn beneath stays, as io.EOF does, which is returned bare; bytes that are
// buffered can be read all the same. A Flush that fails, also by a timeout, may
// have sent a part of what was pending: its error stays, and no byte is sent
// twice [W8]. After Close, operations that need the connection fail with
// net.ErrClosed; bytes that are buffered can still be read.
type Conn struct {
	nc     net.Conn
	sys    syscall.RawConn // of nc if it is a socket; nil where nothing is read from it or written to it directly
	socket bool            // nc is one

	closed  atomic.Bool
	overTLS bool // until bytes have come: then the handshake is complete

	// The reader's.
	in      ring
	rd      deadline
	pace    *pace      // what reading may take besides; nil is no limit
	readErr error      // sticky; found when everything before it has been read
	readMu  sync.Mutex // lets any number of goroutines use Read alone
	raw     *rawReader // of a socket, from the first read on, but not while it is parked

	// The writer's.
	out      *output // what waits for Flush; nil is nothing
	wr       deadline
	writeErr error      // sticky
	writeMu  sync.Mutex // lets any number of goroutines use Write alone
	held     atomic.Pointer[hold]

	accepted *accepted // what the Transporter knows of it; nil for other conns
}

var (
	_ network.Conn  = (*Conn)(nil)
	_ io.ReaderFrom = (*Conn)(nil)
)

// NewConn returns a Conn that buffers c and owns it from now on.
//
// Over a *net.TCPConn or a unix stream socket, Flush is one system call if the socket
// has room, and on unix systems a blocked read holds no buffer. Over any other net.Conn,
// Flush calls Write for each piece of the output: a slice that WriteBinary did not copy,
// or a block of what was copied and of Malloc's. A c with a method
// WriteBuffers(*net.Buffers) (int64, error) is given all pieces at once and consumes them
// as net.Buffers.WriteTo does; [tlsconn.Conn] has it. A c that is a TLS connection is
// better given to [NewTLSConn].
func NewConn(c net.Conn) *Conn {
	conn := new(Conn)
	conn.init(c)
	return conn
}

func (c *Conn) init(nc net.Conn) {
	c.nc = nc
	c.wr.write = true
	// Only the types themselves: one that embeds a socket may have its own Read.
	if c.socket = isStreamSocket(nc); c.socket {
		if canRaw {
			c.sys = socketOf(nc)
		}
		return
	}
	// Some conns end for good at a timeout, so theirs must not fire early. That
	// of a read is harmless to TLS once the handshake is complete, see readTo.
	c.wr.mark(timerExact, true)
	c.rd.mark(timerExact, true)
	_, c.overTLS = nc.(*tlsconn.Conn)
}

// buffersWriter is what a conn beneath has that sends many slices at once.
type buffersWriter interface {
	WriteBuffers(v *net.Buffers) (n int64, err error)
}

// isStreamSocket reports whether c is a socket of package net that carries a
// stream.
func isStreamSocket(c net.Conn) bool {
	switch c := c.(type) {
	case *net.TCPConn:
		return true
	case *net.UnixConn:
		return c.LocalAddr().Network() == "unix"
	}
	return false
}

// NetConn returns the connection beneath: what was given to [NewConn] or [NewTLSConn].
// Reading from it, writing to it or setting its deadlines while the Conn is in use
// spoils the stream, or the timeouts.
func (c *Conn) NetConn() net.Conn { return c.nc }

// closedError is what every operation after Close returns [C6].
func (c *Conn) closedError(op string) error {
	return opError(op, c.nc, net.ErrClosed)
}

// Close closes the connection and drops what was not flushed. Blocked operations
// end with net.ErrClosed [C2, C3]. Slices from Peek stay valid [A5]. The first
// call returns the error of the conn beneath; any other is nil [C5]. What
// [Conn.FlushSoon] held back is sent, for which a peer that does not read has a quarter
// of a second.
//
// If a Transporter accepted the connection, and bytes that the peer sent are unread or
// 64 KiB of what was flushed have not been acknowledged, its socket stays open for at
// most two seconds longer, so that what was flushed last arrives [S22]. Close does not
// wait for that; the connection counts as open meanwhile. The first is known on unix
// systems only, the second on Linux.
func (c *Conn) Close() error {
	if !c.closed.CompareAndSwap(false, true) {
		return nil
	}
	c.closeHeld()
	a := c.accepted
	if a == nil {
		return c.nc.Close()
	}
	if l := a.linger(); l != nil {
		defer l.begin(a)
	}
	err := c.nc.Close()
	if a.state.CompareAndSwap(int32(StateParked), int32(StateClosed)) {
		// By somebody who has kept it: nobody else would notice. Parking fails from
		// now on, for the socket is closed.
		go a.closed(StateParked)
	}
	return err
}

// LocalAddr returns the local address; also after Close [C8].
func (c *Conn) LocalAddr() net.Addr { return c.nc.LocalAddr() }

// RemoteAddr returns the peer's address; also after Close [C8].
func (c *Conn) RemoteAddr() net.Addr { return c.nc.RemoteAddr() }

// SetReadTimeout limits every reading operation from now on, each as a whole, to
// t; zero or less lifts the limit. An operation that is blocked now has t from
// now on. The last of SetReadTimeout, SetReadDeadline and SetDeadline holds.
// Between operations it costs a few nanoseconds and sets no timer.
//
// The error, of this and of the other Set methods, is net.ErrClosed after Close, or
// what the conn beneath says when its timer is set.
func (c *Conn) SetReadTimeout(t time.Duration) error {
	if c.closed.Load() {
		return c.closedError("set")
	}
	return c.rd.setTimeout(c, t)
}

// SetWriteTimeout is to writing what [Conn.SetReadTimeout] is to reading. A Flush that
// ran out of time has failed for good, and over TLS every write that had begun [L6].
func (c *Conn) SetWriteTimeout(t time.Duration) error {
	if c.closed.Load() {
		return c.closedError("set")
	}
	return c.wr.setTimeout(c, t)
}

// SetDeadline is [Conn.SetReadDeadline] and [Conn.SetWriteDeadline], as net.Conn
// describes.
func (c *Conn) SetDeadline(t time.Time) error {
	if err := c.SetReadDeadline(t); err != nil {
		return err
	}
	return c.SetWriteDeadline(t)
}

// SetReadDeadline limits reading to the moment t, for a blocked operation too.
// Buffered bytes can be read after it [T6]. The zero time lifts the limit.
func (c *Conn) SetReadDeadline(t time.Time) error {
	if c.closed.Load() {
		return c.closedError("set")
	}
	return c.rd.setDeadline(c, t)
}

// SetWriteDeadline limits writing to the moment t. After it every write fails,
// also one that would not block [T11]. The zero time lifts the limit.
func (c *Conn) SetWriteDeadline(t time.Time) error {
	if c.closed.Load() {
		return c.closedError("set")
	}
	return c.wr.setDeadline(c, t)
}
