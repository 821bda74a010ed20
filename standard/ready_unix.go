//go:build unix

package standard

import (
	"io"
	"net"
	"os"
	"syscall"
)

// maxSyscallRead is what one read asks for at most: Darwin and FreeBSD refuse 2 GiB
// and more, as package internal/poll knows.
const maxSyscallRead = 1 << 30

// initRaw lets reads wait for the socket's readiness without holding a buffer.
func (c *Conn) initRaw(s syscall.Conn) {
	if raw, err := s.SyscallConn(); err == nil {
		c.raw, c.onRead = raw, c.readReady
	}
}

// readRaw reads once, to p or to the ring. It takes the buffer only when the
// socket has something to read, and arms the timeout only when it has not.
func (c *Conn) readRaw(p []byte, need int) (int, error) {
	c.dst, c.need, c.got, c.gotErr = p, need, 0, nil
	err := c.raw.Read(c.onRead)
	c.dst = nil
	if err == nil {
		err = c.gotErr
	} else if op, ok := err.(*net.OpError); ok {
		err = op.Err // "raw-read", and without the peer
	}
	if err != nil && err != io.EOF {
		err = opError("read", c.nc, err)
	}
	return c.got, err
}

// readReady is called by the runtime's poller whenever the socket may be
// readable. It reports whether it is done.
func (c *Conn) readReady(fd uintptr) bool {
	p := c.dst
	if p == nil {
		p = c.in.space(c.need)
	}
	if len(p) > maxSyscallRead {
		p = p[:maxSyscallRead]
	}
	for {
		n, err := syscall.Read(int(fd), p)
		switch {
		case n > 0:
			c.got = n
		case err == nil:
			c.gotErr = io.EOF
		case err == syscall.EINTR:
			continue
		case err == syscall.EAGAIN:
			c.in.vacate()
			if c.gotErr = c.beginRead(); c.gotErr == nil {
				return false
			}
		default:
			c.gotErr = os.NewSyscallError("read", err)
		}
		return true
	}
}

// unread reports whether the socket holds bytes that nobody has read.
func unread(s syscall.Conn) bool {
	raw, err := s.SyscallConn()
	if err != nil {
		return false
	}
	n := 0
	_ = raw.Control(func(fd uintptr) { // it fails on a closed socket only
		var b [1]byte
		n, _, _ = syscall.Recvfrom(int(fd), b[:], syscall.MSG_PEEK)
	})
	return n > 0
}
