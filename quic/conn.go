package quic

import (
	"context"
	"net"
	"time"

	"github.com/quic-go/quic-go"

	"github.com/hertznet/hertznet/network"
)

// Conn is a QUIC connection: a [network.StreamConn]. Any goroutine may call its
// methods.
type Conn struct {
	raw       *quic.Conn
	ctx       context.Context
	handshake context.Context

	// A slot for the one call that waits for a stream. With several, quic-go can
	// lose a wake-up: its channel holds one, however many streams have come.
	bidi, uni chan struct{}

	drain *drain // nil but on a Transporter
}

var _ network.StreamConn = (*Conn)(nil)

// NewConn returns a Conn on a connection of quic-go, which may be used beside it. The
// Conn does not own raw's socket, and holds nothing itself that has to be closed.
func NewConn(raw *quic.Conn) *Conn {
	c := &Conn{raw: raw, bidi: make(chan struct{}, 1), uni: make(chan struct{}, 1)}
	ctx, end := context.WithCancelCause(context.WithoutCancel(raw.Context()))
	handshake, shaken := context.WithCancelCause(context.Background())
	c.ctx, c.handshake = ctx, handshake
	context.AfterFunc(raw.Context(), func() { end(cause("connection", raw.Context())) })
	select {
	case <-raw.HandshakeComplete():
		shaken(nil)
	default:
		go func() {
			select {
			case <-raw.HandshakeComplete():
				shaken(nil)
			case <-c.ctx.Done():
				select {
				case <-raw.HandshakeComplete(): // it came before the end
					shaken(nil)
				default:
					shaken(cause("handshake", c.ctx))
				}
			}
		}()
	}
	return c
}

// GetRawConnection returns the *quic.Conn of quic-go.
func (c *Conn) GetRawConnection() any { return c.raw }

// HandshakeComplete returns at once with a context that is done when the handshake has
// succeeded or failed; its context.Cause is context.Canceled after success, else the
// error [M14]. Most connections have shaken hands before anybody sees them; see
// [Config].EarlyData for those that have not.
func (c *Conn) HandshakeComplete() context.Context { return c.handshake }

// GetVersion returns the version of QUIC. RFC 9369's version 2 is 0x6b3343cf, and not
// network.Version2.
func (c *Conn) GetVersion() uint32 { return uint32(c.raw.ConnectionState().Version) }

// State describes the connection: its TLS state with the protocol that ALPN chose and
// the peer's certificates, whether early data was used, and more.
func (c *Conn) State() quic.ConnectionState { return c.raw.ConnectionState() }

// LocalAddr returns the local address, also after closing.
func (c *Conn) LocalAddr() net.Addr { return c.raw.LocalAddr() }

// RemoteAddr returns the peer's address, also after closing. It may change when the
// peer moves to another network.
func (c *Conn) RemoteAddr() net.Addr { return c.raw.RemoteAddr() }

// Context returns a context that is cancelled when the connection ends, for whatever
// reason. Its context.Cause is the error that calls on the connection return.
func (c *Conn) Context() context.Context { return c.ctx }

// CloseWithError closes the connection and every stream on it; what has not been
// delivered is dropped. The code and the text are sent to the peer, once: one who
// misses them learns from what this end answers to its packets for a moment, and else
// from its idle timeout. Codes above 1<<62 - 1 are sent as that, a nil err as 0, and of
// the text the first 1000 bytes are. It returns nil. A second call changes nothing.
func (c *Conn) CloseWithError(err network.ApplicationError, errMsg string) error {
	_ = c.raw.CloseWithError(quic.ApplicationErrorCode(code(err)), cut(errMsg)) // it is always nil
	<-c.ctx.Done()
	return nil
}

// Draining returns a channel that is closed when the connection's Transporter wants no
// more streams, nil if it has none. It is for a protocol that accepts its streams from
// GetRawConnection: that has to end by itself, and to return from OnData when its
// answers are delivered.
func (c *Conn) Draining() <-chan struct{} {
	if c.drain == nil {
		return nil
	}
	return c.drain.begun.Done()
}

// Settle waits until the peer has what was sent, as far as one can know, and has had half
// a second to read it since last, the time at which sending ended. It returns early when
// ctx or the connection ends. It is for the protocols that [Conn.Draining] is for.
func (c *Conn) Settle(ctx context.Context, last time.Time) { settle(ctx, c.raw, last) }

// AcceptStream returns the peer's next bidirectional stream: a *Stream, both of whose
// directions the caller has to end. It blocks until there is one, or ctx or the
// connection ends, or a Transporter shuts down: then the error is ErrShutdown.
func (c *Conn) AcceptStream(ctx context.Context) (network.Stream, error) {
	s, err := accept(c, ctx, "accept stream", c.bidi, c.raw.AcceptStream)
	if err != nil {
		return nil, err
	}
	return newStream(c, s, true), nil
}

// AcceptUniStream returns the next stream on which only the peer sends, a
// *ReceiveStream, and is otherwise like [Conn.AcceptStream].
func (c *Conn) AcceptUniStream(ctx context.Context) (network.ReceiveStream, error) {
	s, err := accept(c, ctx, "accept unidirectional stream", c.uni, c.raw.AcceptUniStream)
	if err != nil {
		return nil, err
	}
	c.drain.leave(false) // there is no answer to wait for
	return &ReceiveStream{s}, nil
}

// OpenStream opens a bidirectional stream, a *Stream, and does not block: at the peer's
// limit the error is one whose Temporary method reports true.
func (c *Conn) OpenStream() (network.Stream, error) {
	s, err := open(c, context.Background(), "open stream", false, c.openStream)
	if err != nil {
		return nil, err
	}
	return newStream(c, s, false), nil
}

// OpenStreamSync opens a bidirectional stream, a *Stream, as soon as the peer lets it. It
// ends when ctx or the connection does.
func (c *Conn) OpenStreamSync(ctx context.Context) (network.Stream, error) {
	s, err := open(c, ctx, "open stream", true, c.raw.OpenStreamSync)
	if err != nil {
		return nil, err
	}
	return newStream(c, s, false), nil
}

// OpenUniStream opens a stream on which only this end sends, a *SendStream, and is
// otherwise like [Conn.OpenStream].
func (c *Conn) OpenUniStream() (network.SendStream, error) {
	s, err := open(c, context.Background(), "open unidirectional stream", false, c.openUniStream)
	if err != nil {
		return nil, err
	}
	return &SendStream{raw: s, drain: c.drain}, nil
}

// OpenUniStreamSync opens a stream on which only this end sends, a *SendStream, and is
// otherwise like [Conn.OpenStreamSync].
func (c *Conn) OpenUniStreamSync(ctx context.Context) (network.SendStream, error) {
	s, err := open(c, ctx, "open unidirectional stream", true, c.raw.OpenUniStreamSync)
	if err != nil {
		return nil, err
	}
	return &SendStream{raw: s, drain: c.drain}, nil
}

func (c *Conn) openStream(context.Context) (*quic.Stream, error)        { return c.raw.OpenStream() }
func (c *Conn) openUniStream(context.Context) (*quic.SendStream, error) { return c.raw.OpenUniStream() }

// accept takes the slot and calls next. If it returns a stream, that has entered
// c.drain.
func accept[S any](c *Conn, ctx context.Context, op string, slot chan struct{}, next func(context.Context) (S, error)) (s S, err error) {
	inner, stop, ok := c.drain.enter(ctx)
	if !ok {
		return s, &opError{op: op, err: ErrShutdown}
	}
	defer stop()
	defer func() {
		if err == nil {
			return
		}
		c.drain.leave(false)
		if inner.Err() != nil && ctx.Err() == nil && c.ctx.Err() == nil {
			err = ErrShutdown
		}
		err = wrap(op, err)
	}()
	select {
	case slot <- struct{}{}:
		defer func() { <-slot }()
	case <-inner.Done():
		return s, inner.Err()
	case <-c.ctx.Done():
		return s, context.Cause(c.raw.Context())
	}
	s, err = next(inner)
	if isRejected(err) {
		if err = c.renew(inner); err == nil {
			s, err = next(inner)
		}
	}
	return s, err
}

// open calls next. A connection whose early data was refused opens streams again when
// the handshake is over, for which wait says whether to wait.
func open[S any](c *Conn, ctx context.Context, op string, wait bool, next func(context.Context) (S, error)) (s S, err error) {
	s, err = next(ctx)
	if isRejected(err) {
		if !wait && c.handshake.Err() == nil {
			return s, &opError{op: op, err: err, temporary: true}
		}
		if err = c.renew(ctx); err == nil {
			s, err = next(ctx)
		}
	}
	return s, wrap(op, err)
}

// renew makes a connection whose early data was refused usable again, after the
// handshake. Any number of goroutines may do it.
func (c *Conn) renew(ctx context.Context) error {
	_, err := c.raw.NextConnection(ctx)
	return err
}
