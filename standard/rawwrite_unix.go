//go:build unix

package standard

import (
	"io"
	"net"
	"os"
	"syscall"
)

// rawWriter is what it takes to write to a socket when it has room. It is a part of an
// output, which sends with it.
type rawWriter struct {
	ready func(fd uintptr) bool // w.writeReady, made once

	// One write, of one slice or of those in vec.
	one        []byte
	vec        gather
	left, sent int
	op         string // as package net calls it
	err        error
}

func (w *rawWriter) init() { w.ready = w.writeReady }

// write writes p to the socket, as Write of package net does, but without telling the
// scheduler. A call that it is told of may block, for all that it knows, and one that takes
// 20 microseconds keeps a thread of the runtime waking every 20 to take the processor away
// from it: a tenth of the time of small requests. p has maxRawWrite bytes at most.
func (w *rawWriter) write(c *Conn, p []byte) (int, error) {
	w.one, w.left, w.op = p, len(p), "write"
	return w.run(c)
}

// writev does the same for several slices, of size bytes together, and takes from v what
// was sent.
func (w *rawWriter) writev(c *Conn, v *net.Buffers, size int) (int64, error) {
	w.vec.set(*v)
	w.left, w.op = size, "writev"
	n, err := w.run(c)
	consume(v, n)
	return int64(n), err
}

// run sends what is left, and keeps nothing of it.
func (w *rawWriter) run(c *Conn) (int, error) {
	err := c.sys.Write(w.ready)
	if err == nil {
		err = w.err
	} else if op, ok := err.(*net.OpError); ok {
		err = op.Err // "raw-write", and without the peer
	}
	if err != nil {
		err = opError(w.op, c.nc, err)
	}
	sent := w.sent
	w.one, w.left, w.sent, w.err = nil, 0, 0, nil
	w.vec.reset()
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
