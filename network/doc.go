// Package network declares the interfaces through which CloudWeGo Hertz
// reaches the network: what a connection, a dialer and a transporter must do
// for its HTTP server and client to run on them.
//
// The names and method sets are those of Hertz's own package
// github.com/cloudwego/hertz/pkg/network, and a test of this module keeps
// them equal. The comments are the contract, more exact than Hertz leaves it.
// Ids in brackets, such as [R6], name the clauses of docs/CONTRACT.md; the
// tests that check a clause carry its id.
//
// The package holds no code and imports only the standard library.
//
// # Two type identities
//
// A type whose methods are those of [Conn] implements Hertz's Conn as well,
// because these methods name none but types of the standard library. The
// methods of [Dialer], [Transporter], [StreamConn] and [Streamer], and of the
// streams, name other types of this package, so these interfaces and Hertz's
// are different types to the compiler. The root package of this module
// converts between the two.
//
// # Rules that hold for every method
//
// Counts: a negative count is an error and never a panic. A count larger than
// what the peer sends costs no more memory than the bytes that did arrive
// [R5, R11, R14, R18, R20, W5].
//
// End of the stream: it is reported as [io.EOF] itself, never wrapped and
// never as io.ErrUnexpectedEOF, since Hertz compares with == [R6]. It is
// sticky, as is every read error other than a timeout [R8]. The one exception
// is a TLS stream cut off without a close_notify: io.ErrUnexpectedEOF [L5].
//
// Timeouts: a [net.OpError] whose Timeout method reports true and for which
// errors.Is(err, os.ErrDeadlineExceeded) holds [R28, T1]. A read that times
// out loses nothing but what Skip had discarded, and the next call may succeed
// [T2, T3].
//
// Closing: after Close, and in a call that Close interrupts, every operation
// that needs the connection fails with an error for which
// errors.Is(err, net.ErrClosed) holds [C2, C3, C6].
//
// Failed constructors: a function that returns an error returns a nil
// interface with it, not an interface that holds a nil pointer [D2].
package network
