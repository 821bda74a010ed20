package tlsconn

import (
	"errors"
	"io"
	"net"
	"os"
	"syscall"
)

var (
	errWriteClosed = errors.New("tlsconn: write after CloseWrite")
	errServerName  = errors.New("tlsconn: the client's tls.Config has neither ServerName nor InsecureSkipVerify: " +
		"set ServerName to the host that was dialed, or use ClientConfig")
	errEarlyCloseWrite = errors.New("tlsconn: CloseWrite before the handshake is complete")
)

// isTimeout says whether err is a deadline that passed. ETIMEDOUT is not: it also says
// Timeout() and Temporary(), but means that the peer is gone for good.
func isTimeout(err error) bool {
	if errors.Is(err, os.ErrDeadlineExceeded) {
		return true
	}
	ne, ok := err.(net.Error)
	if !ok || !ne.Timeout() {
		return false
	}
	var errno syscall.Errno
	return !errors.As(err, &errno)
}

// timeoutError returns err as package net has it: a *net.OpError, os.ErrDeadlineExceeded by
// errors.Is [T1]. crypto/tls makes every error permanent that is not Temporary, so a read
// timeout must say that it is [L6].
func (l *layer) timeoutError(op string, err error, temporary bool) error {
	if e, ok := err.(*net.OpError); ok {
		if e.Op == op && e.Temporary() == temporary && errors.Is(e, os.ErrDeadlineExceeded) {
			return e
		}
		err = e.Err // its addresses are in ours
	}
	return l.opError(op, &timeout{err, temporary})
}

// timeout is the cause inside a *net.OpError.
type timeout struct {
	cause     error
	temporary bool
}

func (e *timeout) Error() string        { return e.cause.Error() }
func (e *timeout) Unwrap() error        { return e.cause }
func (e *timeout) Timeout() bool        { return true }
func (e *timeout) Temporary() bool      { return e.temporary }
func (e *timeout) Is(target error) bool { return target == os.ErrDeadlineExceeded }

// isClosed says whether err is that of a conn which has ended, on either side.
func isClosed(err error) bool {
	return errors.Is(err, net.ErrClosed) || errors.Is(err, io.ErrClosedPipe)
}
