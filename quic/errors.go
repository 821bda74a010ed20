package quic

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"unicode/utf8"

	"github.com/quic-go/quic-go"

	"github.com/hertznet/hertznet/network"
)

var (
	// ErrShutdown is the error of AcceptStream and AcceptUniStream, by errors.Is, on a
	// connection of a Transporter that shuts down.
	ErrShutdown = errors.New("the server is shutting down")

	// ErrEarlyDataRejected is the error, by errors.Is, of a stream that a client opened
	// before the end of the handshake, if the server has refused early data. Nothing
	// of that stream was looked at. The connection lives, and new streams can be
	// opened on it.
	ErrEarlyDataRejected = quic.Err0RTTRejected
)

// StreamError is the error of Read and Write, by a type assertion, on a stream that
// either side has cancelled.
type StreamError interface {
	net.Error
	network.ApplicationError

	// StreamID returns the stream's number.
	StreamID() int64

	// Canceled reports whether it was the peer that cancelled.
	Canceled() bool
}

// wrap makes an error of quic-go one of this package. The interfaces ask for a
// net.Error by a type assertion. errors.As would not do: quic-go's errors wrap
// net.ErrClosed, which is a net.Error and says that nothing has timed out.
func wrap(op string, err error) error {
	switch e := err.(type) {
	case nil:
		return nil
	case *opError, *closedError, *canceledError:
		return err
	case *quic.StreamError:
		return &canceledError{opError{op: op, err: e}, e}
	case *quic.ApplicationError:
		return &closedError{opError{op: op, err: e}, e}
	case *quic.StreamLimitReachedError:
		return &opError{op: op, err: e, temporary: true}
	}
	if err == io.EOF {
		return err
	}
	// A stateless reset and context.DeadlineExceeded claim to be temporary, as the
	// limit of streams is, and are not believed.
	ne, ok := err.(net.Error)
	return &opError{op: op, err: err, timeout: ok && ne.Timeout()}
}

// opError is an error for which no application gave a code.
type opError struct {
	op                 string
	err                error
	timeout, temporary bool
}

func (e *opError) Error() string   { return "quic: " + e.op + ": " + e.err.Error() }
func (e *opError) Unwrap() error   { return e.err }
func (e *opError) Timeout() bool   { return e.timeout }
func (e *opError) Temporary() bool { return e.temporary }

// closedError is the error of a connection that an application has closed.
type closedError struct {
	opError
	app *quic.ApplicationError
}

func (e *closedError) ErrCode() uint64 { return uint64(e.app.ErrorCode) }
func (e *closedError) String() string  { return e.app.ErrorMessage }
func (e *closedError) Error() string {
	text := fmt.Sprintf("quic: %s: the connection was closed by %s with code %#x", e.op, side(e.app.Remote), e.ErrCode())
	if e.app.ErrorMessage != "" {
		text += ": " + e.app.ErrorMessage
	}
	return text
}

// canceledError is the error of a stream that an application has cancelled.
type canceledError struct {
	opError
	stream *quic.StreamError
}

var _ StreamError = (*canceledError)(nil)

func (e *canceledError) ErrCode() uint64 { return uint64(e.stream.ErrorCode) }
func (e *canceledError) String() string  { return e.Error() }
func (e *canceledError) StreamID() int64 { return int64(e.stream.StreamID) }
func (e *canceledError) Canceled() bool  { return e.stream.Remote }
func (e *canceledError) Error() string {
	return fmt.Sprintf("quic: %s: stream %d was cancelled by %s with code %#x", e.op, e.StreamID(), side(e.stream.Remote), e.ErrCode())
}

func side(remote bool) string {
	if remote {
		return "the peer"
	}
	return "this end"
}

const (
	// maxCode is the largest code that QUIC can carry (RFC 9000, section 16). quic-go
	// panics at a larger one, in a goroutine of its own.
	maxCode = 1<<62 - 1

	// maxText is how many bytes of a text are sent. A CONNECTION_CLOSE is one packet,
	// of 1200 bytes at least, and what does not fit is not sent at all.
	maxText = 1000
)

// code returns the code of err that can be sent.
func code(err network.ApplicationError) uint64 {
	if err == nil {
		return 0
	}
	return min(err.ErrCode(), maxCode)
}

// cut shortens a text to what can be sent, between two runes.
func cut(text string) string {
	if len(text) <= maxText {
		return text
	}
	end := maxText
	for end > maxText-utf8.UTFMax && !utf8.RuneStart(text[end]) {
		end--
	}
	return text[:end]
}

// isRejected reports whether the server has refused the early data.
func isRejected(err error) bool { return errors.Is(err, quic.Err0RTTRejected) }

// cause returns the reason for which ctx ended, as an error of this package.
func cause(op string, ctx context.Context) error { return wrap(op, context.Cause(ctx)) }
