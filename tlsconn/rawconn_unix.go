//go:build unix

package tlsconn

import (
	"io"
	"net"
	"os"
	"syscall"
)

// rawConn reads from a socket and writes to it as its net.Conn does, but without telling
// the scheduler: see rawwrite_unix.go of package standard, which does the same.
type rawConn struct {
	syscall.RawConn
	in, out rawOp
}

// rawOp is one direction, of which there is one call at a time.
type rawOp struct {
	ready func(fd uintptr) bool // made once
	p     []byte
	n     int
	err   error
}

// newRawConn returns nil unless c is a stream socket of package net.
func newRawConn(c net.Conn) *rawConn {
	switch u := c.(type) {
	case *net.TCPConn:
	case *net.UnixConn:
		if u.LocalAddr().Network() != "unix" {
			return nil
		}
	default:
		return nil
	}
	raw, err := c.(syscall.Conn).SyscallConn()
	if err != nil {
		return nil // closed, which its own methods tell best
	}
	r := &rawConn{RawConn: raw}
	r.in.ready, r.out.ready = r.in.readReady, r.out.writeReady
	return r
}

// Read reads what is there, or waits for it.
func (r *rawConn) Read(p []byte) (int, error) { return r.in.run(p, r.RawConn.Read) }

// Write writes all of p.
func (r *rawConn) Write(p []byte) (int, error) { return r.out.run(p, r.RawConn.Write) }

func (o *rawOp) run(p []byte, when func(func(uintptr) bool) error) (int, error) {
	o.p, o.n, o.err = p, 0, nil
	err := when(o.ready)
	o.p = nil
	if err == nil {
		err = o.err
	} else if op, ok := err.(*net.OpError); ok {
		err = op.Err // "raw-read" or "raw-write", and without the peer
	}
	return o.n, err
}

// readReady is called by the runtime's poller whenever the socket may be readable. It
// reports whether it is done.
func (o *rawOp) readReady(fd uintptr) bool {
	for {
		n, err := recv(fd, o.p)
		switch {
		case n > 0:
			o.n = n
		case err == nil:
			o.err = io.EOF
		case err == syscall.EINTR:
			continue
		case err == syscall.EAGAIN:
			return false
		default:
			o.err = os.NewSyscallError("read", err)
		}
		return true
	}
}

// writeReady is called whenever the socket may have room.
func (o *rawOp) writeReady(fd uintptr) bool {
	for o.n < len(o.p) {
		n, err := send(fd, o.p[o.n:])
		switch {
		case n > 0:
			o.n += n
		case err == syscall.EAGAIN:
			return false
		case err == syscall.EINTR:
		case err == nil:
			o.err = io.ErrUnexpectedEOF // as package net has it
			return true
		default:
			o.err = os.NewSyscallError("write", err)
			return true
		}
	}
	return true
}
