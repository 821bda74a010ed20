package network

// Reader is the buffered read side of a connection. It hands out its own
// memory instead of copies: Peek shows the bytes, Skip consumes them, and
// Release gives the memory back once nobody looks at it any more.
//
// One goroutine at a time may call these methods, while another one uses the
// methods of the [Writer] of the same connection [C1].
type Reader interface {
	// Peek returns the next n bytes without advancing the reader [R3]. It
	// blocks until n bytes have arrived, the stream ends, or the read timeout
	// passes. With n <= Len() it does no I/O and never fails, whatever error is
	// pending [R1, R7].
	//
	// The slice points into the reader's memory; its capacity equals its
	// length, so appending to it cannot reach the stream [A2]. It stays
	// unchanged and valid until Release: no other Peek, Read, Skip, ReadByte,
	// ReadBinary, write or Close ends its life [A1, A3, A5]. The caller may
	// modify it until then, as Hertz does with header names, and must expect
	// the unread bytes to read back modified.
	//
	// If the stream ends before n bytes, Peek returns the bytes there are,
	// which may be none, with io.EOF [R6]. On any other error the slice is nil,
	// and the bytes that had arrived stay readable [R28]. So a slice shorter
	// than n always comes with an error.
	//
	// Peek(0) returns an empty slice and a nil error in every state [R4]; a
	// negative n is an error [R5]. Memory grows with the bytes that arrive, not
	// with n [R11].
	Peek(n int) ([]byte, error)

	// Skip discards the next n bytes, whether or not they have been peeked
	// [R13]. Where fewer are buffered it blocks to read and drop the rest, and
	// holds one block of memory at most while it does [R15]. If it fails, what
	// had arrived of the n bytes is gone; the error is io.EOF where the stream
	// ended first. With n <= Len() it does no I/O and never fails. Skip(0) does
	// nothing; a negative n is an error that discards nothing [R14].
	Skip(n int) error

	// Release ends the life of every slice that Peek has returned, so that
	// their memory may be used again. Unread bytes stay [R22]. It does no I/O
	// and may be called at any time: on a fresh reader, twice in a row, at the
	// end of the stream and after Close [R23].
	//
	// Release is owed only for Peek. A stream consumed by Read, ReadByte,
	// ReadBinary and Skip alone holds bounded memory without it [P6].
	Release() error

	// Len returns the number of unread bytes in the buffer, those that Peek can
	// return without I/O. It never blocks [R21].
	Len() int

	// ReadByte returns the next byte and advances by one. It blocks as Peek(1)
	// does, and at the end of the stream returns io.EOF [R16].
	ReadByte() (byte, error)

	// ReadBinary returns a copy of the next n bytes and advances by n. The copy
	// belongs to the caller and outlives Release [R17].
	//
	// It blocks as Peek(n) does. If it fails, it consumes nothing and returns a
	// nil slice: io.EOF means that the stream ended before n bytes, and the
	// ones there are can still be read [R19]. ReadBinary(0) returns an empty
	// slice and a nil error; a negative n is an error [R18].
	ReadBinary(n int) (p []byte, err error)
}
