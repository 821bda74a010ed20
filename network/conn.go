package network

import (
	"crypto/tls"
	"net"
	"time"
)

// Conn is a [net.Conn] with buffers on both sides.
//
// All the ways to read consume one stream, and all the ways to write append to
// one:
//
//   - Read copies what is buffered without blocking, and waits for the network
//     only when there is nothing. It returns (0, nil) for an empty p alone,
//     and does no I/O for it [R24]. It may come between Peek and Skip [R25].
//   - Write sends the pending output, then p, and returns how much of p was
//     sent, exactly, also with an error [W12]. A Write that times out on plain
//     TCP may be resumed from there, and one on TLS only if its deadline had
//     passed before it began [L6]. An empty p adds nothing; with nothing
//     pending no system call is made [W4].
//   - Neither touches p after it has returned, not even after a timeout [A12].
//   - Close drops what Malloc and WriteBinary left unflushed, sends what a
//     Flush held back, if the implementation does that (see [Writer]), and ends
//     blocked operations in both directions [C2, C3]. Slices that Peek returned
//     stay valid [A5]. A second Close returns nil [C5].
//   - The addresses stay available after Close [C8].
//
// One goroutine may use the reader's methods while another one uses the
// writer's. Close, the Set methods and the addresses may be called by any
// goroutine at any time [C4, C7]. A Conn used only through Read, Write and
// these is a net.Conn that any number of goroutines may share [C11]. The errors
// are those of the package comment.
//
// When the peer shuts down its sending side alone, reads end and writes go on
// [C9]. A connection the peer reset fails with an error for which
// errors.Is(err, syscall.ECONNRESET) holds [C10], on Windows
// syscall.WSAECONNRESET.
type Conn interface {
	// Deadlines are absolute and hold for pending and future operations, as the
	// net package says; a zero time clears. SetDeadline, SetReadDeadline and
	// SetReadTimeout set one and the same limit for reading, as their
	// counterparts do for writing: the last call wins [T8].
	net.Conn
	Reader
	Writer

	// SetReadTimeout limits every read operation from now on, until it is
	// changed: each has t for itself [T4], and t bounds the whole of it, not
	// each system call in it, so a peer that drips single bytes cannot extend it
	// [T12]. An operation that is blocked now gets the new limit too [T15].
	//
	// Zero and negative values mean no limit [T5]. Bytes that are buffered are
	// returned even though the limit has passed [T6]. An implementation may,
	// if it says so, read t as one limit for all operations together, as this
	// module's root package does for Hertz's client.
	SetReadTimeout(t time.Duration) error

	// SetWriteTimeout does the same for write operations. Neither direction
	// affects the other [T9].
	SetWriteTimeout(t time.Duration) error
}

// ConnTLSer is what a [Conn] over TLS implements in addition. A Conn that is
// not encrypted must not implement it: Hertz asks for it by a type assertion to
// find out whether there is a handshake to make [D6].
type ConnTLSer interface {
	// Handshake runs the TLS handshake unless it has been run, and blocks until
	// it ends or its time is over [L3]. Any goroutine may call it, any number
	// of times; the outcome is kept and returned at once later on [L1]. A Conn
	// that is read or written first does it by itself.
	//
	// Errors come bare: io.EOF where the peer closed, and a value of type
	// tls.RecordHeaderError, its Conn set, where the peer does not speak TLS
	// [L4].
	Handshake() error

	// ConnectionState describes the TLS connection and does not block on the
	// network. Its HandshakeComplete is false until a handshake has succeeded;
	// from then on NegotiatedProtocol holds what ALPN chose [L2].
	ConnectionState() tls.ConnectionState
}

// HandleSpecificError is an optional interface of a [Conn]: it tells Hertz
// which errors are everyday events that are not worth a line in the log.
type HandleSpecificError interface {
	// HandleSpecificError reports whether the error err, with which serving the
	// peer at address rip ended, needs no log entry. It reports false for a nil
	// err. rip is empty where the address is unknown.
	HandleSpecificError(err error, rip string) (needIgnore bool)
}

// ErrorNormalization is an optional interface of a [Conn]: it translates the
// errors of the connection into those that Hertz's client knows, which decide
// whether it retries and whether it reads an early answer.
type ErrorNormalization interface {
	// ToHertzError returns Hertz's ErrConnectionClosed for a write to a
	// connection that the peer has closed or reset, its ErrTimeout for a
	// timeout, and err itself for everything else, nil included.
	ToHertzError(err error) error
}
