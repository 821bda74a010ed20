package standard

import (
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"syscall"
)

var (
	// ErrNegativeCount is returned by Peek, Skip, ReadBinary and Malloc for n < 0.
	// Nothing was read, skipped or reserved.
	ErrNegativeCount = errors.New("standard: negative count")

	// ErrTooLarge is returned by Malloc for more than MaxMalloc bytes.
	ErrTooLarge = errors.New("standard: too many bytes asked for at once")

	// ErrReadBufferFull is returned by Peek and ReadBinary of more bytes than
	// Transporter.MaxReadBuffer, if not all of them have come. Those that have stay
	// buffered.
	ErrReadBufferFull = errors.New("standard: more bytes would have to be buffered than MaxReadBuffer")
)

// maxEmptyReads is how many reads of (0, nil) in a row are borne before
// io.ErrNoProgress [F1].
const maxEmptyReads = 100

// opError gives err the shape that package net gives its errors, unless it has
// it already. Callers that know only net.Conn look for *net.OpError by type.
func opError(op string, c net.Conn, err error) error {
	if _, ok := err.(*net.OpError); ok {
		return err
	}
	e := &net.OpError{Op: op, Err: err, Source: c.LocalAddr(), Addr: c.RemoteAddr()}
	if e.Source != nil {
		e.Net = e.Source.Network()
	}
	return e
}

// isTimeout reports whether err is a timeout by its own word. ETIMEDOUT says so
// too, but means that the peer is gone: what follows it is no recovery but an EOF
// that would pass a stream that was cut for a whole one.
func isTimeout(err error) bool {
	if errors.Is(err, os.ErrDeadlineExceeded) {
		return true
	}
	var t interface{ Timeout() bool }
	return errors.As(err, &t) && t.Timeout() && !errors.Is(err, syscall.ETIMEDOUT)
}

// timeoutError gives a timeout the one shape that it always has here: a
// *net.OpError with Timeout() true that is os.ErrDeadlineExceeded [R28].
func timeoutError(op string, c net.Conn, err error) error {
	if e, ok := opError(op, c, err).(*net.OpError); ok && e.Timeout() && errors.Is(e, os.ErrDeadlineExceeded) {
		return e
	}
	return opError(op, c, foreignTimeout{err})
}

// foreignTimeout is a timeout of a conn beneath that does not know
// os.ErrDeadlineExceeded, or that has wrapped it.
type foreignTimeout struct{ error }

func (e foreignTimeout) Unwrap() error        { return e.error }
func (e foreignTimeout) Is(target error) bool { return target == os.ErrDeadlineExceeded }
func (e foreignTimeout) Timeout() bool        { return true }

// countError names the conn beneath that returned an impossible count [F5, W10].
func countError(op string, c net.Conn, n, size int) error {
	return fmt.Errorf("standard: %T.%s returned the count %d for %d bytes", c, op, n, size)
}

// checkWrite holds a Write of the conn beneath to the contract of io.Writer.
func checkWrite(c net.Conn, n, size int, err error) (int, error) {
	if n < 0 || n > size {
		return 0, countError("Write", c, n, size)
	}
	if n < size && err == nil {
		err = io.ErrShortWrite
	}
	return n, err
}
