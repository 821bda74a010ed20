package quic

import (
	"errors"
	"io"
	"net"
	"strconv"
	"sync"
	"syscall"
	"time"

	"github.com/hertznet/hertznet/network"
)

// NetConn returns a view of a stream as a net.Conn, for protocols that were written
// for TCP. With standard.NewConn it is a buffered [network.Conn]. It owns the stream,
// which must not be used beside it. Any number of goroutines may call its methods.
//
// Close closes both directions. What was written is delivered, unless a Write is
// blocked at that moment: then the stream is reset, so that the peer does not take a
// part for the whole. What the peer still sends is refused, and its Write fails. A second
// Close is net.ErrClosed. A CloseWrite method closes the sending direction alone, like
// *net.TCPConn's.
//
// Errors but io.EOF are *net.OpError. Those of a direction that the peer has cancelled are
// syscall.ECONNRESET by errors.Is, so that of a Write after the peer's Close is. The peer
// sees nothing of a stream before something was written to it: a protocol in which the
// server speaks first needs the server to open the stream.
//
// The addresses are those of the connection for a *Stream of this package, and a
// stream's number for any other.
func NetConn(s network.Stream) net.Conn {
	c := &netConn{stream: s, local: streamAddr(s.StreamID()), remote: streamAddr(s.StreamID())}
	if a, ok := s.(interface {
		LocalAddr() net.Addr
		RemoteAddr() net.Addr
	}); ok {
		c.local, c.remote = a.LocalAddr(), a.RemoteAddr()
	}
	return c
}

type netConn struct {
	stream        network.Stream
	local, remote net.Addr

	mu       sync.Mutex
	closed   bool
	writing  int // calls of Write
	writeEnd bool

	write sync.Mutex // a stream takes one Write at a time
	read  sync.Mutex
}

func (c *netConn) Read(p []byte) (int, error) {
	c.read.Lock()
	defer c.read.Unlock()
	if c.isClosed() {
		return 0, c.opError("read", net.ErrClosed)
	}
	n, err := c.stream.Read(p)
	return n, c.error("read", err)
}

func (c *netConn) Write(p []byte) (int, error) {
	c.mu.Lock()
	if c.closed || c.writeEnd {
		c.mu.Unlock()
		return 0, c.opError("write", net.ErrClosed)
	}
	c.writing++
	c.mu.Unlock()
	defer func() {
		c.mu.Lock()
		c.writing--
		c.mu.Unlock()
	}()
	c.write.Lock()
	defer c.write.Unlock()
	n, err := c.stream.Write(p)
	return n, c.error("write", err)
}

func (c *netConn) Close() error {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.closed {
		return c.opError("close", net.ErrClosed)
	}
	c.closed = true
	c.stream.CancelRead(nil)
	return c.endWriting()
}

// CloseWrite closes the sending direction.
func (c *netConn) CloseWrite() error {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.closed {
		return c.opError("close", net.ErrClosed)
	}
	return c.endWriting()
}

// endWriting ends the sending direction. c.mu is held.
func (c *netConn) endWriting() error {
	if c.writeEnd {
		return nil
	}
	c.writeEnd = true
	if c.writing > 0 {
		c.stream.CancelWrite(nil)
		return nil
	}
	// A connection that is gone is closed; what was not delivered is known from Write.
	_ = c.stream.Close()
	return nil
}

func (c *netConn) isClosed() bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.closed
}

func (c *netConn) LocalAddr() net.Addr  { return c.local }
func (c *netConn) RemoteAddr() net.Addr { return c.remote }

func (c *netConn) SetDeadline(t time.Time) error {
	return errors.Join(c.SetReadDeadline(t), c.SetWriteDeadline(t))
}

func (c *netConn) SetReadDeadline(t time.Time) error {
	if c.isClosed() {
		return c.opError("set", net.ErrClosed)
	}
	return c.stream.SetReadDeadline(t)
}

func (c *netConn) SetWriteDeadline(t time.Time) error {
	if c.isClosed() {
		return c.opError("set", net.ErrClosed)
	}
	return c.stream.SetWriteDeadline(t)
}

// error gives an error of the stream the shape that package net gives its errors.
func (c *netConn) error(op string, err error) error {
	if err == nil || err == io.EOF {
		return err
	}
	if c.isClosed() {
		err = net.ErrClosed
	}
	if e, ok := err.(StreamError); ok && e.Canceled() {
		err = resetError{e}
	}
	return c.opError(op, err)
}

func (c *netConn) opError(op string, err error) error {
	return &net.OpError{Op: op, Net: "quic", Source: c.local, Addr: c.remote, Err: err}
}

// resetError is what TCP says of a stream that the peer has cancelled.
type resetError struct{ StreamError }

func (e resetError) Unwrap() error        { return e.StreamError }
func (e resetError) Is(target error) bool { return target == syscall.ECONNRESET }

// streamAddr is the address of a stream that tells no better one: its number.
type streamAddr int64

func (streamAddr) Network() string  { return "quic" }
func (a streamAddr) String() string { return "stream " + strconv.FormatInt(int64(a), 10) }
