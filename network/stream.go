package network

import (
	"context"
	"fmt"
	"io"
	"net"
	"time"
)

// StreamConn is a connection that carries many streams, as QUIC does. Any
// goroutine may call its methods.
//
// When the connection ends, every blocked call on it and on its streams
// returns. If a timeout ended it, their error is a net.Error whose Timeout
// method reports true, by a type assertion on the error itself [M16].
type StreamConn interface {
	// GetRawConnection returns the connection beneath, of whatever type the
	// implementation is built on, or nil if it has none to show.
	GetRawConnection() interface{}

	// HandshakeComplete returns at once with a context that is done when the
	// handshake has succeeded or failed. Its context.Cause tells which:
	// context.Canceled after success, the handshake's error otherwise [M14].
	HandshakeComplete() context.Context

	// GetVersion returns the version of the protocol, such as [Version1].
	GetVersion() uint32

	// CloseWithError closes the connection and tells the peer why: the code and
	// the text reach it, and every waiter on both sides is freed [M10]. The peer
	// finds them in the errors of its calls: by errors.As an [ApplicationError]
	// with the code, and the text in the error's. A second call changes nothing.
	CloseWithError(err ApplicationError, errMsg string) error

	// LocalAddr returns the local address, also after closing.
	LocalAddr() net.Addr

	// RemoteAddr returns the peer's address, also after closing.
	RemoteAddr() net.Addr

	// Context returns the connection's context, which is cancelled when the
	// connection is closed by either side or lost.
	Context() context.Context

	Streamer
}

// Streamer opens and accepts the streams of a connection. Any goroutine may
// call its methods. An error comes with a nil interface.
//
// Opening a stream sends nothing: the peer can accept it only after the opener
// has written to it or ended it. A slow stream never holds up another one [M12].
type Streamer interface {
	// AcceptStream returns the next bidirectional stream that the peer opened,
	// and blocks until there is one, ctx is done or the connection ends. A
	// call that ctx ends takes no stream with it: the next call gets it [M2].
	// On a connection that has ended it fails [M3].
	AcceptStream(context.Context) (Stream, error)

	// AcceptUniStream does the same for streams on which only the peer sends.
	AcceptUniStream(context.Context) (ReceiveStream, error)

	// OpenStream opens a bidirectional stream and never blocks. Its error is a
	// net.Error; at the peer's limit of streams its Temporary method reports
	// true [M9].
	OpenStream() (Stream, error)

	// OpenStreamSync does the same, but at the limit it blocks until a stream
	// may be opened, ctx is done or the connection ends [M9]. Its error is a
	// net.Error.
	OpenStreamSync(context.Context) (Stream, error)

	// OpenUniStream opens a stream on which only this side sends, with the
	// errors of OpenStream.
	OpenUniStream() (SendStream, error)

	// OpenUniStreamSync does the same, but blocks as OpenStreamSync does.
	OpenUniStreamSync(context.Context) (SendStream, error)
}

// Stream is a bidirectional stream. Its two directions are independent: one
// goroutine may read while another one writes, and closing or cancelling one
// leaves the other as it is [M1].
type Stream interface {
	ReceiveStream
	SendStream
}

// ReceiveStream is the receiving direction of a stream. One goroutine at a time
// may Read; any may call the other methods meanwhile.
type ReceiveStream interface {
	// StreamID returns the stream's number, which is unique in its connection
	// and never changes [M13].
	StreamID() int64

	// Read fills p from the stream. Once the peer has closed its direction and
	// everything is read, it returns io.EOF itself, again and again [M7]. A
	// timeout is a net.Error whose Timeout method reports true. After
	// the peer cancelled the stream, the error has a method Canceled() bool
	// that reports true [M16].
	io.Reader

	// CancelRead gives up receiving and asks the peer to stop sending, with the
	// code of err. A blocked Read returns, and later ones fail. Called again, or
	// after Read returned io.EOF, it does nothing [M4].
	CancelRead(err ApplicationError)

	// SetReadDeadline sets the time at which the Read that is blocked now and
	// future ones end with a timeout. A zero t means never. It does not touch
	// the sending direction, nor other streams [M8].
	SetReadDeadline(t time.Time) error
}

// SendStream is the sending direction of a stream. One goroutine at a time may
// Write or Close; any may call the other methods meanwhile.
type SendStream interface {
	// StreamID returns the stream's number, which is unique in its connection
	// and never changes [M13].
	StreamID() int64

	// Write sends p and blocks until the stream has taken all of it. With an
	// error it returns how much it took, which may be more than 0 after a
	// timeout. A timeout is a net.Error whose Timeout method reports true.
	// After the peer cancelled the stream, the error has a method
	// Canceled() bool that reports true [M16]. After Close it fails [M6].
	io.Writer

	// CancelWrite gives up sending: a blocked Write returns, later ones fail,
	// and Context is done [M5]. The peer learns the code of err, but data on
	// the way may be lost. Called again, or after Close, it does nothing.
	CancelWrite(err ApplicationError)

	// Close ends this direction once everything written has been delivered;
	// the peer then reads io.EOF. It does not wait for that. It must not be
	// called at the same time as Write, nor after CancelWrite.
	io.Closer

	// Context returns a context that is cancelled as soon as this direction is
	// over: by Close, by CancelWrite, or because the peer stopped reading [M5].
	Context() context.Context

	// SetWriteDeadline sets the time at which the Write that is blocked now and
	// future ones end with a timeout. A zero t means never. It does not touch
	// the receiving direction, nor other streams [M8].
	SetWriteDeadline(t time.Time) error
}

// ApplicationError is the reason for which an application cancels a stream or
// closes a connection. The code travels to the peer; its meaning is that of
// the protocol on top, such as HTTP/3.
type ApplicationError interface {
	// ErrCode returns the code: 0 to 1<<62 - 1 in QUIC, RFC 9000 section 16.
	ErrCode() uint64

	// String returns a text for people; an implementation need not send it.
	fmt.Stringer
}
