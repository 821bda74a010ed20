//go:build unix

package standard

import (
	"io"
	"net"
	"os"
	"sync"
	"syscall"
)

// maxSyscallRead is what one read asks for at most: Darwin and FreeBSD refuse 2 GiB
// and more, as package internal/poll knows.
const maxSyscallRead = 1 << 30

// canRaw: reads can wait for a socket's readiness without holding a buffer, and what is
// known not to block need not be announced to the scheduler.
const canRaw = true

// rawReader is what it takes to read from a socket when it is ready. It belongs to the
// reader's goroutine of one Conn, from the Conn's first read until it is parked, and in
// between to nobody: it waits in rawReaders and holds nothing of any connection's.
type rawReader struct {
	c     *Conn
	ready func(fd uintptr) bool // r.readReady, made once

	// One read.
	dst  []byte // where it goes; nil is c's ring
	need int    // what the ring is asked for
	got  int
	err  error
}

var rawReaders = sync.Pool{New: func() any {
	r := new(rawReader)
	r.ready = r.readReady
	return r
}}

// dropRaw gives the rawReader back, before the reader's goroutine ends.
func (c *Conn) dropRaw() {
	if r := c.raw; r != nil {
		c.raw, r.c, r.err = nil, nil, nil
		rawReaders.Put(r)
	}
}

// readRaw reads once, to p or to the ring. It takes the buffer only when the
// socket has something to read, and arms the timeout only when it has not.
func (c *Conn) readRaw(p []byte, need int) (int, error) {
	if c.raw == nil {
		c.raw = rawReaders.Get().(*rawReader)
		c.raw.c = c
	}
	r := c.raw
	r.dst, r.need, r.got, r.err = p, need, 0, nil
	err := c.sys.Read(r.ready)
	r.dst = nil
	if err == nil {
		err = r.err
	} else if op, ok := err.(*net.OpError); ok {
		err = op.Err // "raw-read", and without the peer
	}
	if err != nil && err != io.EOF {
		err = opError("read", c.nc, err)
	}
	return r.got, err
}

// readReady is called by the runtime's poller whenever the socket may be
// readable. It reports whether it is done.
func (r *rawReader) readReady(fd uintptr) bool {
	c, p := r.c, r.dst
	if p == nil {
		p = c.in.space(r.need)
	}
	if len(p) > maxSyscallRead {
		p = p[:maxSyscallRead]
	}
	for {
		n, err := recv(fd, p)
		switch {
		case n > 0:
			r.got = n
		case err == nil:
			_ = c.sendHeld() // the peer may go on reading, and what follows may be Close
			r.err = io.EOF
		case err == syscall.EINTR:
			continue
		case err == syscall.EAGAIN:
			if r.err = c.sendHeld(); r.err != nil {
				return true
			}
			c.in.vacate()
			if r.err = c.beginRead(); r.err == nil {
				return false
			}
		default:
			r.err = os.NewSyscallError("read", err)
		}
		return true
	}
}
