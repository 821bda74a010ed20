package quic

import (
	"context"
	"errors"
	"net"
	"sync"
	"time"

	"github.com/quic-go/quic-go"

	"github.com/hertznet/hertznet/network"
)

// ReceiveStream is a direction of a stream on which the peer sends: a
// [network.ReceiveStream]. One goroutine at a time may Read; any may call the other
// methods.
type ReceiveStream struct {
	raw interface { // of a *quic.ReceiveStream or a *quic.Stream
		StreamID() quic.StreamID
		Read([]byte) (int, error)
		CancelRead(quic.StreamErrorCode)
		SetReadDeadline(time.Time) error
	}
}

// SendStream is a direction of a stream on which this end sends: a
// [network.SendStream]. One goroutine at a time may Write or Close; any may call the
// other methods.
type SendStream struct {
	raw interface { // of a *quic.SendStream or a *quic.Stream
		StreamID() quic.StreamID
		Write([]byte) (int, error)
		Close() error
		CancelWrite(quic.StreamErrorCode)
		Context() context.Context
		SetWriteDeadline(time.Time) error
	}

	drain    *drain // is told when this direction ends; may be nil
	accepted bool   // and so to be waited for

	mu     sync.Mutex
	closed bool // by Close
	over   bool // drain knows
}

// Stream is a bidirectional stream: a [network.Stream]. Its methods are those of its two
// directions, which are independent.
type Stream struct {
	ReceiveStream
	SendStream
	conn *Conn
}

var _ network.Stream = (*Stream)(nil)

func newStream(c *Conn, raw *quic.Stream, accepted bool) *Stream {
	return &Stream{ReceiveStream{raw}, SendStream{raw: raw, drain: c.drain, accepted: accepted}, c}
}

// StreamID returns the stream's number.
func (s *Stream) StreamID() int64 { return s.SendStream.StreamID() }

// LocalAddr returns the local address of the connection.
func (s *Stream) LocalAddr() net.Addr { return s.conn.LocalAddr() }

// RemoteAddr returns the peer's address.
func (s *Stream) RemoteAddr() net.Addr { return s.conn.RemoteAddr() }

// StreamID returns the stream's number.
func (s *ReceiveStream) StreamID() int64 { return int64(s.raw.StreamID()) }

// Read fills p. It may return bytes together with an error, io.EOF included. When the
// connection has ended, bytes that have not been read are lost.
func (s *ReceiveStream) Read(p []byte) (int, error) {
	n, err := s.raw.Read(p)
	if err != nil {
		err = wrap("read", err)
	}
	return n, err
}

// CancelRead asks the peer to stop sending, with the code of err; a nil err is code 0. A
// blocked Read ends, with a [StreamError]. Nothing happens after Read returned an error
// that stays, such as io.EOF.
func (s *ReceiveStream) CancelRead(err network.ApplicationError) {
	s.raw.CancelRead(quic.StreamErrorCode(code(err)))
}

// SetReadDeadline sets the time at which Read ends with a timeout, after which Read
// may be called again. Its error is nil.
func (s *ReceiveStream) SetReadDeadline(t time.Time) error { return s.raw.SetReadDeadline(t) }

// StreamID returns the stream's number.
func (s *SendStream) StreamID() int64 { return int64(s.raw.StreamID()) }

// Write sends p. It returns when all of it has left for the network but for the end, of
// up to one packet; see Close. A Write that has timed out may be resumed at n.
func (s *SendStream) Write(p []byte) (int, error) {
	n, err := s.raw.Write(p)
	if err != nil {
		err = wrap("write", err)
	}
	return n, err
}

// Context returns a context that is cancelled as soon as this direction is over. Its
// context.Cause is an error of quic-go, quic.ErrStreamClosed after Close.
func (s *SendStream) Context() context.Context { return s.raw.Context() }

// SetWriteDeadline sets the time at which Write ends with a timeout, after which it may be
// called again. Its error is nil.
func (s *SendStream) SetWriteDeadline(t time.Time) error { return s.raw.SetWriteDeadline(t) }

// Close ends this direction, and what was written is delivered before. It returns nil
// also if the peer has cancelled, since then nothing is left to deliver; after
// CancelWrite and after the end of the connection it returns an error. A second Close
// returns nil.
func (s *SendStream) Close() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.closed {
		return nil
	}
	s.closed = true
	defer s.end()
	// A cancelled stream has to be closed, too: before, it counts against the limit.
	_ = s.raw.Close()
	err := context.Cause(s.raw.Context())
	var canceled *quic.StreamError
	if err == nil || err == quic.ErrStreamClosed || errors.As(err, &canceled) && canceled.Remote {
		return nil
	}
	return wrap("close stream", err)
}

// CancelWrite gives up sending, with the code of err; a nil err is code 0. A blocked Write
// ends, with a [StreamError]. What was written may be lost. After Close it does nothing.
func (s *SendStream) CancelWrite(err network.ApplicationError) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.closed {
		return // quic-go would drop what Close promised to deliver
	}
	defer s.end()
	s.raw.CancelWrite(quic.StreamErrorCode(code(err)))
}

// end tells the drain, once. s.mu is held.
func (s *SendStream) end() {
	switch {
	case s.over:
	case s.accepted:
		s.drain.leave(true)
	default:
		s.drain.note()
	}
	s.over = true
}
