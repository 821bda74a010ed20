//go:build unix

package standard

import (
	"io"
	"net"
	"os"
	"sync"
	"syscall"
)

// rawWriter is what it takes to write to a socket when it has room. It belongs to one write
// at a time, and in between waits in rawWriters and holds nothing of any connection's.
type rawWriter struct {
	ready func(fd uintptr) bool // w.writeReady, made once

	// One write, of one slice or of those in vec.
	one        []byte
	vec        gather
	left, sent int
	op         string // as package net calls it
	err        error
}

var rawWriters = sync.Pool{New: func() any {
	w := new(rawWriter)
	w.ready = w.writeReady
	return w
}}

// writeRaw writes p to the socket, as Write of package net does, but for telling the
// scheduler. A call that it is told of may block, for all that it knows, and one that takes
// 20 microseconds keeps a thread of the runtime waking every 20 to take the processor away
// from it: a tenth of the time of small requests. p has maxRawWrite bytes at most.
func (c *Conn) writeRaw(p []byte) (int, error) {
	w := rawWriters.Get().(*rawWriter)
	w.one, w.left, w.op = p, len(p), "write"
	return c.finishRaw(w)
}

// writevRaw does the same for several slices, of size bytes together, and takes from v what
// was sent.
func (c *Conn) writevRaw(v *net.Buffers, size int) (int64, error) {
	w := rawWriters.Get().(*rawWriter)
	w.vec.set(*v)
	w.left, w.op = size, "writev"
	n, err := c.finishRaw(w)
	consume(v, n)
	return int64(n), err
}

// finishRaw sends what is left, and gives the rawWriter back.
func (c *Conn) finishRaw(w *rawWriter) (int, error) {
	err := c.sys.Write(w.ready)
	if err == nil {
		err = w.err
	} else if op, ok := err.(*net.OpError); ok {
		err = op.Err // "raw-write", and without the peer
	}
	sent, op := w.sent, w.op
	w.one, w.left, w.sent, w.err = nil, 0, 0, nil
	w.vec.reset()
	rawWriters.Put(w)
	if err != nil {
		err = opError(op, c.nc, err)
	}
	return sent, err
}

// writeReady is called by the runtime's poller whenever the socket may have room. It
// reports whether it is done.
func (w *rawWriter) writeReady(fd uintptr) bool {
	for w.left > 0 {
		var n int
		var err error
		if w.one != nil {
			n, err = send(fd, w.one[w.sent:])
		} else {
			n, err = w.vec.send(fd)
		}
		switch {
		case n > 0:
			w.sent += n
			w.left -= n
		case err == syscall.EAGAIN:
			return false
		case err == syscall.EINTR:
		case err == nil:
			w.err = io.ErrUnexpectedEOF // as package net has it
			return true
		default:
			w.err = os.NewSyscallError(w.op, err)
			return true
		}
	}
	return true
}

// consume takes the first n bytes from v.
func consume(v *net.Buffers, n int) {
	for len(*v) > 0 && n >= len((*v)[0]) {
		n -= len((*v)[0])
		*v = (*v)[1:]
	}
	if n > 0 {
		(*v)[0] = (*v)[0][n:]
	}
}
