package networktest

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"sync"
	"testing"
	"time"

	"github.com/hertznet/hertznet/network"
)

// streamMutant is StreamPipe with one thing broken.
type streamMutant struct {
	id   string // the clause that must catch it
	what string // what is broken

	// also are further clauses that it cannot help breaking.
	also []string

	// wrap puts the mutant over each end.
	wrap func(c network.StreamConn) network.StreamConn
}

// TestStreamMutants is TestConnMutants for streams.
func TestStreamMutants(t *testing.T) {
	for _, m := range streamMutants {
		t.Run(fmt.Sprint(m.id, " ", m.what), func(t *testing.T) {
			judgeMutant(t, StreamConn{
				Pair: func(_ testing.TB, o StreamOptions) (a, b network.StreamConn) {
					a, b = StreamPipe(o)
					return m.wrap(a), m.wrap(b)
				},
				FailedHandshake: func(tb testing.TB) network.StreamConn {
					return m.wrap(streamPipes.FailedHandshake(tb))
				},
			}, m.id, m.also)
		})
	}
}

var streamMutants = []streamMutant{
	{
		id: "M1", what: "Close closes both directions",
		wrap: bidiMutant(func(s pipeStreamEnd) network.Stream {
			return &streamOtherClose{s, func() error {
				s.CancelRead(nil)
				return s.Close()
			}}
		}),
	},
	{
		id: "M1", what: "CancelRead ends writing, too",
		wrap: bidiMutant(func(s pipeStreamEnd) network.Stream {
			return &streamOtherCancelRead{s, func(err network.ApplicationError) {
				s.CancelRead(err)
				s.CancelWrite(err)
			}}
		}),
	},
	{
		id: "M2", what: "a cancelled AcceptStream leaves a goroutine that takes the next stream",
		wrap: func(c network.StreamConn) network.StreamConn { return &streamAcceptsBehind{StreamConn: c} },
	},
	{
		id: "M3", what: "AcceptStream returns no error from a closed channel",
		wrap: func(c network.StreamConn) network.StreamConn { return streamAcceptsNil{c} },
	},
	{
		id: "M4", what: "a second CancelRead closes a channel again",
		wrap: bidiMutant(func(s pipeStreamEnd) network.Stream {
			freed := make(chan struct{})
			return &streamOtherCancelRead{s, func(err network.ApplicationError) {
				close(freed)
				s.CancelRead(err)
			}}
		}),
	},
	{
		id: "M4", what: "CancelRead makes of the end of the stream a cancelled one",
		wrap: bidiMutant(func(s pipeStreamEnd) network.Stream {
			m := &streamOtherCancelRead{pipeStreamEnd: s}
			m.cancel = func(err network.ApplicationError) {
				defer s.pipeReceiver.h.lock()()
				if h := s.pipeReceiver.h; h.readErr == io.EOF {
					h.readErr, _ = h.canceled(err)
				}
			}
			return streamAndThen{m, s}
		}),
	},
	{
		id: "M5", what: "CancelWrite after Close resets the stream",
		wrap: uniMutant(func(s *pipeSender) network.SendStream { return streamResetsAfterClose{s} }),
	},
	{
		id: "M5", what: "Context of a stream ends only with the connection",
		wrap: func(c network.StreamConn) network.StreamConn {
			return bidiMutant(func(s pipeStreamEnd) network.Stream { return streamOtherContext{s, c.Context()} })(c)
		},
	},
	{
		id: "M6", what: "Write after Close drops the bytes and reports success",
		wrap: bidiMutant(func(s pipeStreamEnd) network.Stream {
			return &streamOtherWrite{s, func(p []byte) (int, error) {
				if n, err := s.Write(p); !errors.Is(err, io.ErrClosedPipe) {
					return n, err
				}
				return len(p), nil
			}}
		}),
	},
	{
		id: "M7", what: "the end of the stream is wrapped",
		wrap: streamReadErrors(func(err error) error {
			if err == io.EOF {
				return fmt.Errorf("read: %w", err)
			}
			return err
		}),
	},
	{
		id: "M8", what: "SetReadDeadline sets both deadlines",
		wrap: bidiMutant(func(s pipeStreamEnd) network.Stream {
			return streamOtherReadDeadline{s, func(d time.Time) error {
				_ = s.SetWriteDeadline(d)
				return s.SetReadDeadline(d)
			}}
		}),
	},
	{
		id: "M8", what: "a deadline does not reach the Read that is blocked",
		wrap: bidiMutant(func(s pipeStreamEnd) network.Stream {
			var busy sync.Mutex
			return &streamOtherRead{streamOtherReadDeadline{s, func(d time.Time) error {
				go func() { // when the Read has returned
					busy.Lock()
					defer busy.Unlock()
					_ = s.SetReadDeadline(d)
				}()
				return nil
			}}, func(p []byte) (int, error) {
				busy.Lock()
				defer busy.Unlock()
				return s.Read(p)
			}}
		}),
	},
	{
		id: "M9", what: "OpenStreamSync fails at the limit",
		wrap: func(c network.StreamConn) network.StreamConn {
			return &streamOtherOpen{c, c.OpenStream, func(context.Context) (network.Stream, error) { return c.OpenStream() }}
		},
	},
	{
		id: "M9", what: "the limit is not Temporary",
		wrap: func(c network.StreamConn) network.StreamConn {
			return &streamOtherOpen{c, func() (network.Stream, error) {
				s, err := c.OpenStream()
				if err != nil {
					return nil, &pipeError{text: err.Error()}
				}
				return s, nil
			}, c.OpenStreamSync}
		},
	},
	{
		id: "M9", what: "a stream never makes room for another one",
		wrap: func(c network.StreamConn) network.StreamConn { return streamNeverFrees(c) },
	},
	{
		id: "M10", what: "the text is not sent",
		wrap: func(c network.StreamConn) network.StreamConn {
			return streamOtherCloser{c, func(err network.ApplicationError, _ string) error { return c.CloseWithError(err, "") }}
		},
	},
	{
		id: "M10", what: "the peer sees only that the connection is closed",
		wrap: streamAcceptErrors(func(err error) error {
			if errors.Is(err, net.ErrClosed) {
				return net.ErrClosed
			}
			return err
		}),
	},
	{
		id: "M11", what: "a connection has room for 512 streams",
		wrap: func(c network.StreamConn) network.StreamConn {
			n := 0
			return &streamOtherOpen{c, c.OpenStream, func(ctx context.Context) (network.Stream, error) {
				if n++; n > 512 {
					return nil, &pipeError{text: "too many streams", temporary: true}
				}
				return c.OpenStreamSync(ctx)
			}}
		},
	},
	{
		id: "M12", what: "one lock for the Writes of all streams",
		wrap: func(c network.StreamConn) network.StreamConn {
			var writing sync.Mutex
			return bidiMutant(func(s pipeStreamEnd) network.Stream {
				return &streamOtherWrite{s, func(p []byte) (int, error) {
					writing.Lock()
					defer writing.Unlock()
					return s.Write(p)
				}}
			})(c)
		},
	},
	{
		id: "M13", what: "StreamID counts the streams of each kind",
		wrap: bidiMutant(func(s pipeStreamEnd) network.Stream { return streamOtherID{s, s.StreamID() >> 1} }),
	},
	{
		id: "M14", what: "HandshakeComplete does not tell failure from success",
		wrap: func(c network.StreamConn) network.StreamConn { return streamPlainHandshake{c} },
	},
	{
		id: "M14", what: "HandshakeComplete is the connection's context on success",
		wrap: func(c network.StreamConn) network.StreamConn { return streamHandshakeOfConn{c} },
	},
	{
		id: "M15", what: "a goroutine per stream outlives it",
		wrap: bidiMutant(func(s pipeStreamEnd) network.Stream {
			go time.Sleep(20 * time.Second)
			return s
		}),
	},
	{
		id: "M16", what: "the limit's error is wrapped",
		wrap: func(c network.StreamConn) network.StreamConn {
			return &streamOtherOpen{c, func() (network.Stream, error) {
				s, err := c.OpenStream()
				if err != nil {
					return nil, fmt.Errorf("open: %w", err)
				}
				return s, nil
			}, c.OpenStreamSync}
		},
	},
	{
		id: "M16", what: "OpenStreamSync returns the context's bare error",
		wrap: func(c network.StreamConn) network.StreamConn {
			return &streamOtherOpen{c, c.OpenStream, func(ctx context.Context) (network.Stream, error) {
				s, err := c.OpenStreamSync(ctx)
				if err != nil && ctx.Err() != nil {
					return nil, ctx.Err()
				}
				return s, err
			}}
		},
	},
	{
		id: "M16", what: "the error of a stream that the peer cancelled is wrapped",
		wrap: streamReadErrors(func(err error) error {
			if _, ok := err.(*pipeCanceledError); ok {
				return fmt.Errorf("read: %w", err)
			}
			return err
		}),
	},
	{
		id: "M16", what: "an idle timeout looks like a closed connection",
		wrap: streamAcceptErrors(func(err error) error {
			if looksLikeTimeout(err) {
				return net.ErrClosed
			}
			return err
		}),
	},
}

// What breaks the streams, wherever they come from. The connection's methods
// return them as they are in StreamPipe, or with mutate over them.

// pipeStreamEnd is an end of a bidirectional stream of StreamPipe.
type pipeStreamEnd = *pipeBidiStream

type streamOtherStreams struct {
	network.StreamConn
	bidi func(s pipeStreamEnd) network.Stream
	send func(s *pipeSender) network.SendStream
}

func bidiMutant(f func(s pipeStreamEnd) network.Stream) func(network.StreamConn) network.StreamConn {
	return func(c network.StreamConn) network.StreamConn {
		return &streamOtherStreams{c, f, func(s *pipeSender) network.SendStream { return s }}
	}
}

func uniMutant(f func(s *pipeSender) network.SendStream) func(network.StreamConn) network.StreamConn {
	return func(c network.StreamConn) network.StreamConn {
		return &streamOtherStreams{c, func(s pipeStreamEnd) network.Stream { return s }, f}
	}
}

func (c *streamOtherStreams) AcceptStream(ctx context.Context) (network.Stream, error) {
	return c.mutate(c.StreamConn.AcceptStream(ctx))
}

func (c *streamOtherStreams) OpenStream() (network.Stream, error) {
	return c.mutate(c.StreamConn.OpenStream())
}

func (c *streamOtherStreams) OpenStreamSync(ctx context.Context) (network.Stream, error) {
	return c.mutate(c.StreamConn.OpenStreamSync(ctx))
}

func (c *streamOtherStreams) mutate(s network.Stream, err error) (network.Stream, error) {
	if err != nil {
		return nil, err
	}
	return c.bidi(s.(pipeStreamEnd)), nil
}

func (c *streamOtherStreams) OpenUniStream() (network.SendStream, error) {
	return c.mutateSend(c.StreamConn.OpenUniStream())
}

func (c *streamOtherStreams) OpenUniStreamSync(ctx context.Context) (network.SendStream, error) {
	return c.mutateSend(c.StreamConn.OpenUniStreamSync(ctx))
}

func (c *streamOtherStreams) mutateSend(s network.SendStream, err error) (network.SendStream, error) {
	if err != nil {
		return nil, err
	}
	return c.send(s.(*pipeSender)), nil
}

type streamOtherClose struct {
	pipeStreamEnd
	close func() error
}

func (s *streamOtherClose) Close() error { return s.close() }

type streamOtherCancelRead struct {
	pipeStreamEnd
	cancel func(err network.ApplicationError)
}

func (s *streamOtherCancelRead) CancelRead(err network.ApplicationError) { s.cancel(err) }

// streamAndThen has CancelRead do what a mutant does and what it should.
type streamAndThen struct {
	network.Stream
	sound network.Stream
}

func (s streamAndThen) CancelRead(err network.ApplicationError) {
	s.Stream.CancelRead(err)
	s.sound.CancelRead(err)
}

type streamOtherWrite struct {
	pipeStreamEnd
	write func(p []byte) (int, error)
}

func (s *streamOtherWrite) Write(p []byte) (int, error) { return s.write(p) }

type streamOtherRead struct {
	network.Stream
	read func(p []byte) (int, error)
}

func (s *streamOtherRead) Read(p []byte) (int, error) { return s.read(p) }

// streamReadErrors changes the errors of Read.
func streamReadErrors(f func(err error) error) func(network.StreamConn) network.StreamConn {
	return bidiMutant(func(s pipeStreamEnd) network.Stream {
		return &streamOtherRead{s, func(p []byte) (int, error) {
			n, err := s.Read(p)
			return n, f(err)
		}}
	})
}

type streamOtherReadDeadline struct {
	pipeStreamEnd
	set func(d time.Time) error
}

func (s streamOtherReadDeadline) SetReadDeadline(d time.Time) error { return s.set(d) }

type streamOtherContext struct {
	pipeStreamEnd
	ctx context.Context
}

func (s streamOtherContext) Context() context.Context { return s.ctx }

type streamOtherID struct {
	pipeStreamEnd
	id int64
}

func (s streamOtherID) StreamID() int64 { return s.id }

// streamResetsAfterClose takes back what it has sent and nobody has read.
type streamResetsAfterClose struct{ *pipeSender }

func (s streamResetsAfterClose) CancelWrite(err network.ApplicationError) {
	s.pipeSender.CancelWrite(err)
	defer s.h.lock()()
	if s.h.fin {
		_, there := s.h.canceled(err)
		s.h.endRead(there)
	}
}

// What breaks the connection.

type streamAcceptsBehind struct{ network.StreamConn }

func (c *streamAcceptsBehind) AcceptStream(ctx context.Context) (network.Stream, error) {
	type result struct {
		s   network.Stream
		err error
	}
	accepted := make(chan result, 1)
	go func() {
		s, err := c.StreamConn.AcceptStream(context.WithoutCancel(ctx))
		accepted <- result{s, err}
	}()
	select {
	case r := <-accepted:
		return r.s, r.err
	case <-ctx.Done():
		return nil, ctx.Err()
	}
}

type streamAcceptsNil struct{ network.StreamConn }

func (c streamAcceptsNil) AcceptStream(ctx context.Context) (network.Stream, error) {
	if c.Context().Err() != nil {
		return nil, nil
	}
	return c.StreamConn.AcceptStream(ctx)
}

type streamOtherAccept struct {
	network.StreamConn
	change func(err error) error
}

// streamAcceptErrors changes the errors of AcceptStream.
func streamAcceptErrors(f func(err error) error) func(network.StreamConn) network.StreamConn {
	return func(c network.StreamConn) network.StreamConn { return streamOtherAccept{c, f} }
}

func (c streamOtherAccept) AcceptStream(ctx context.Context) (network.Stream, error) {
	s, err := c.StreamConn.AcceptStream(ctx)
	if err != nil {
		return nil, c.change(err)
	}
	return s, nil
}

type streamOtherOpen struct {
	network.StreamConn
	open     func() (network.Stream, error)
	openSync func(ctx context.Context) (network.Stream, error)
}

func (c *streamOtherOpen) OpenStream() (network.Stream, error) { return c.open() }

func (c *streamOtherOpen) OpenStreamSync(ctx context.Context) (network.Stream, error) {
	return c.openSync(ctx)
}

// streamNeverFrees has the limit count streams that are over.
func streamNeverFrees(c network.StreamConn) network.StreamConn {
	e := c.(*pipeEnd)
	count := func(s network.Stream, err error) (network.Stream, error) {
		if err == nil {
			e.pipe.mu.Lock()
			defer e.pipe.mu.Unlock()
			s.(pipeStreamEnd).pipeSender.h.stream.over = true
		}
		return s, err
	}
	return &streamOtherOpen{
		c,
		func() (network.Stream, error) { return count(c.OpenStream()) },
		func(ctx context.Context) (network.Stream, error) { return count(c.OpenStreamSync(ctx)) },
	}
}

type streamOtherCloser struct {
	network.StreamConn
	close func(err network.ApplicationError, text string) error
}

func (c streamOtherCloser) CloseWithError(err network.ApplicationError, text string) error {
	return c.close(err, text)
}

type streamPlainHandshake struct{ network.StreamConn }

func (c streamPlainHandshake) HandshakeComplete() context.Context {
	<-c.StreamConn.HandshakeComplete().Done()
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	return ctx
}

type streamHandshakeOfConn struct{ network.StreamConn }

func (c streamHandshakeOfConn) HandshakeComplete() context.Context {
	if c.Context().Err() == nil {
		return c.StreamConn.HandshakeComplete()
	}
	return c.Context()
}
