package network

import "io"

// Writer is the buffered write side of a connection. Malloc and WriteBinary
// add output to the end of what is pending, in the order of the calls [W3], and
// nothing of it is sent before a Flush, or a Write or ReadFrom of the same
// connection, which flush first [W2].
//
// One goroutine at a time may call these methods, while another one uses the
// methods of the [Reader] of the same connection [C1].
type Writer interface {
	// Malloc adds n bytes to the pending output and returns their memory, for
	// the caller to fill before the next Flush. The length and the capacity of
	// buf are n [A7], and its content is not defined until it is written.
	//
	// Several slices may be outstanding: they are disjoint, and each stays
	// writable until Flush [A6]. After Flush the memory is no longer the
	// caller's: a write to it does not change what that Flush sent [A8], but may
	// spoil later output, of any connection. Malloc(0) returns an empty slice; a
	// negative n, or one too large to provide, is an error and never a panic [W5].
	Malloc(n int) (buf []byte, err error)

	// WriteBinary adds b to the pending output, without a copy where b is long
	// enough to make that worthwhile [A11]. So b must stay unchanged until
	// Flush returns. b may also be a slice from Peek on the same connection:
	// the bytes are sent right even if Release comes before Flush [A13].
	//
	// WriteBinary never modifies b, and b is not retained once Flush has
	// returned, whether it succeeded or failed [A9, A10]. It returns len(b),
	// or an error with 0; an empty b adds nothing [W6].
	WriteBinary(b []byte) (n int, err error)

	// Flush sends the pending output and blocks until it has been handed to the
	// layer beneath or the write timeout passes [T10]. An implementation may
	// hold back the end of an answer while the peer's next request is already
	// buffered, for a bounded time; it then sends it before it blocks in a read,
	// and at Close.
	//
	// With nothing pending, Flush makes no system call and returns nil, also
	// after Close [W4]. If it fails, a timeout included, the output not sent is
	// dropped, and every later write and Flush returns the same error, a Flush
	// with nothing pending too: no byte is sent twice, and none after a gap, so
	// the peer has a prefix of the output [W8, W9]. A layer beneath that takes fewer bytes
	// than it was given without an error is io.ErrShortWrite [W7].
	Flush() error
}

// ReadWriter is a [Reader] and a [Writer].
type ReadWriter interface {
	Reader
	Writer
}

// ExtWriter writes the body of an HTTP response that its handler streams. It
// sits on a [Writer], and one goroutine at a time may call its methods.
type ExtWriter interface {
	// Write adds p to the body, in the framing of the response. It may keep p
	// in the output until Flush, so p must not change before that.
	io.Writer

	// Flush sends what was written to the peer at once. Its errors are those of
	// [Writer].
	Flush() error

	// Finalize ends the body: it writes what the framing owes, such as the last
	// chunk and the trailer. Hertz calls it before it lets go of the writer, also
	// where a handler has already done so; a second call must write nothing.
	Finalize() error
}
