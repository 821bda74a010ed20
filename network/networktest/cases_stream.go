package networktest

import (
	"context"
	"errors"
	"fmt"
	"io"
	"runtime"
	"sync"
	"time"

	"github.com/hertznet/hertznet/network"
)

var streamCases = []streamCase{
	{"M1", 0, streamDirections},
	{"M2", 0, canceledAccept},
	{"M3", 0, acceptAfterTheEnd},
	{"M4", 0, cancelRead},
	{"M5", 0, cancelWrite},
	{"M6", 0, writeAfterStreamClose},
	{"M7", 0, endOfStream},
	{"M8", 0, streamDeadlines},
	{"M9", 0, streamLimit},
	{"M10", 0, closeWithError},
	{"M11", 0, thousandStreams},
	{"M12", 0, slowStream},
	{"M13", 0, streamIDs},
	{"M14", 0, handshakeComplete},
	{"M15", 30 * time.Second, streamsLeaveNothing},
	{"M16", 30 * time.Second, streamErrors},
}

const (
	// streamOverflow is how many bytes nobody's buffers take whole.
	streamOverflow = 32 << 20

	// toBlock is how long a call has to become blocked before something frees it. If
	// it comes too late it meets the same thing a little later.
	toBlock = 20 * time.Millisecond
)

// streamFlood returns that many bytes for a Write, always the same ones.
var streamFlood = sync.OnceValue(func() []byte { return make([]byte, streamOverflow) })

// streamCode is the kit's ApplicationError.
type streamCode uint64

func (c streamCode) ErrCode() uint64 { return uint64(c) }
func (c streamCode) String() string  { return fmt.Sprintf("code %#x", uint64(c)) }

// streamCloser closes a StreamConn as an io.Closer.
type streamCloser struct{ network.StreamConn }

func (c streamCloser) Close() error { return c.CloseWithError(streamCode(0), "") }

type closerFunc func()

func (f closerFunc) Close() error {
	f()
	return nil
}

// pair returns two ends of a connection.
func (t *streamCheck) pair(o StreamOptions) (a, b network.StreamConn) {
	if t.subject.Pair == nil {
		t.Fatal("StreamConn.Pair is nil")
	}
	a, b = t.subject.Pair(t, o)
	if a == nil || b == nil {
		t.Fatal("StreamConn.Pair returned a nil connection")
	}
	t.track(streamCloser{a})
	t.track(streamCloser{b})
	return a, b
}

// transmit writes p in a goroutine, since the stream may take nothing before
// somebody reads.
func (t *streamCheck) transmit(w io.Writer, p []byte) *op {
	return t.spawn(func() {
		n, err := w.Write(p)
		t.expect(n == len(p) && err == nil, fmt.Sprintf("a Write of %d bytes to take all", len(p)), "%d and %s", n, describeError(err))
	})
}

// arrives ends the check unless p comes from r when it is written to w.
func (t *streamCheck) arrives(w io.Writer, r io.Reader, p []byte) {
	o := t.transmit(w, p)
	t.equal(t.receive(r, len(p)), p)
	t.wait(o)
}

// bidi returns both ends of a new stream that a opens. A byte has gone over it,
// since the peer does not see it before.
func (t *streamCheck) bidi(a, b network.StreamConn) (x, y network.Stream) {
	x, err := a.OpenStreamSync(t.ctx)
	t.expect(err == nil && x != nil, "OpenStreamSync to return a stream", "%v and %s", x, describeError(err))
	o := t.transmit(x, []byte{1})
	y = t.accept(b)
	t.equal(t.receive(y, 1), []byte{1})
	t.wait(o)
	return x, y
}

func (t *streamCheck) accept(b network.StreamConn) network.Stream {
	y, err := b.AcceptStream(t.ctx)
	t.expect(err == nil && y != nil, "AcceptStream to return the peer's stream", "%v and %s", y, describeError(err))
	return y
}

// uni does the same for a unidirectional stream.
func (t *streamCheck) uni(a, b network.StreamConn) (x network.SendStream, y network.ReceiveStream) {
	x, err := a.OpenUniStreamSync(t.ctx)
	t.expect(err == nil && x != nil, "OpenUniStreamSync to return a stream", "%v and %s", x, describeError(err))
	o := t.transmit(x, []byte{1})
	y = t.acceptUni(b)
	t.equal(t.receive(y, 1), []byte{1})
	t.wait(o)
	return x, y
}

func (t *streamCheck) acceptUni(b network.StreamConn) network.ReceiveStream {
	y, err := b.AcceptUniStream(t.ctx)
	t.expect(err == nil && y != nil, "AcceptUniStream to return the peer's stream", "%v and %s", y, describeError(err))
	return y
}

// failingRead reads until an error comes and returns it with the bytes before it.
func failingRead(r io.Reader) ([]byte, error) {
	var all []byte
	p := make([]byte, 4096)
	for {
		n, err := r.Read(p)
		all = append(all, p[:n]...)
		if err != nil {
			return all, err
		}
	}
}

// failingWrite writes until an error comes, for one that is on its way.
func failingWrite(w io.Writer) error {
	p := make([]byte, 100)
	for {
		if _, err := w.Write(p); err != nil {
			return err
		}
		time.Sleep(time.Millisecond)
	}
}

// codeOf returns the application's code in an error.
func codeOf(err error) (uint64, bool) {
	var app network.ApplicationError
	if errors.As(err, &app) {
		return app.ErrCode(), true
	}
	return 0, false
}

// hasCode ends the check if err has a code and it is not want.
func (t *streamCheck) hasCode(err error, want streamCode) {
	if code, ok := codeOf(err); ok {
		t.expect(code == uint64(want), want.String(), "code %#x in %s", code, describeError(err))
	}
}

// done waits for ctx. The watchdog names the step if it never comes.
func (t *streamCheck) done(ctx context.Context) {
	select {
	case <-ctx.Done():
	case <-t.ctx.Done(): // the watchdog
		runtime.Goexit()
	}
}

func notDone(ctx context.Context) bool {
	select {
	case <-ctx.Done():
		return false
	case <-time.After(toBlock):
		return true
	}
}

// M1 asks that one direction goes on, whichever way and at whichever end the other
// one is over.
func streamDirections(t *streamCheck) {
	a, b := t.pair(StreamOptions{})
	data := pattern(200_000)
	for _, opener := range []string{"first", "second"} {
		t.step("200000 bytes each way at once, on a stream that the %s end opened", opener)
		x, y := t.bidi(a, b)
		o1, o2 := t.transmit(x, data), t.transmit(y, data)
		o3 := t.spawn(func() { t.equal(t.receive(y, len(data)), data) })
		t.equal(t.receive(x, len(data)), data)
		for _, o := range []*op{o1, o2, o3} {
			t.wait(o)
		}

		t.step("200000 bytes on a unidirectional stream that the %s end opened", opener)
		s, r := t.uni(a, b)
		t.arrives(s, r, data)

		for _, end := range []string{"opened", "accepted"} {
			streams := func() (x, y network.Stream) {
				t.step("a byte goes over a new stream")
				x, y = t.bidi(a, b)
				if end == "accepted" {
					x, y = y, x
				}
				return x, y
			}
			x, y := streams()
			t.step("Close of the end that %s a stream, and data in the other direction", end)
			_ = x.Close()
			t.arrives(y, x, data[:1000])
			t.step("Close of the end that %s a stream, the peer reads to the end, and data in the other direction", end)
			_, _ = failingRead(y)
			t.arrives(y, x, data[:1000])

			x, y = streams()
			t.step("CancelRead by the end that %s a stream, and data in the other direction", end)
			x.CancelRead(streamCode(1))
			t.arrives(x, y, data[:1000])

			x, y = streams()
			t.step("CancelWrite by the end that %s a stream, and data in the other direction", end)
			x.CancelWrite(streamCode(1))
			_, _ = failingRead(y)
			t.arrives(y, x, data[:1000])
		}
		a, b = b, a
	}
}

// M2 by a call that is blocked, one whose context was done before, and calls that
// race with the stream's arrival. Each stream is told by the byte it carries.
func canceledAccept(t *streamCheck) {
	for _, kind := range []struct {
		name   string
		open   func(c network.StreamConn) (io.Writer, error)
		accept func(c network.StreamConn, ctx context.Context) (io.Reader, error)
	}{
		{
			"AcceptStream",
			func(c network.StreamConn) (io.Writer, error) { return c.OpenStreamSync(t.ctx) },
			func(c network.StreamConn, ctx context.Context) (io.Reader, error) { return c.AcceptStream(ctx) },
		},
		{
			"AcceptUniStream",
			func(c network.StreamConn) (io.Writer, error) { return c.OpenUniStreamSync(t.ctx) },
			func(c network.StreamConn, ctx context.Context) (io.Reader, error) { return c.AcceptUniStream(ctx) },
		},
	} {
		a, b := t.pair(StreamOptions{})
		send := func(i int) *op {
			x, err := kind.open(a)
			t.noError(err)
			return t.transmit(x, []byte{byte(i)})
		}
		number := func(r io.Reader) int {
			p := t.receive(r, 1)
			t.expect(len(p) == 1, "a byte from the accepted stream", "none")
			return int(p[0])
		}

		t.step("%s with a context that is cancelled while it blocks", kind.name)
		ctx, cancel := context.WithCancel(t.ctx)
		o := t.spawn(func() {
			_, err := kind.accept(b, ctx)
			t.expect(err != nil, "an error", "none")
		})
		time.Sleep(toBlock)
		cancel()
		t.wait(o)
		t.step("%s after one that was cancelled before the stream came", kind.name)
		o = send(0)
		s, err := kind.accept(b, t.ctx)
		t.noError(err)
		n := number(s)
		t.wait(o)
		t.expect(n == 0, "the only stream", "another one, with the byte %d", n)

		const streams = 50
		seen := map[int]bool{}
		take := func(r io.Reader) {
			n := number(r)
			t.expect(!seen[n], "each stream once", "stream %d twice", n)
			seen[n] = true
		}
		for i := range streams {
			t.step("%s with a context that is cancelled at the moment when a stream comes, %d times", kind.name, streams)
			ctx, cancel := context.WithCancel(t.ctx)
			o := t.spawn(func() {
				if s, err := kind.accept(b, ctx); err == nil {
					take(s)
				}
			})
			sent := send(i)
			for range i % 5 {
				runtime.Gosched()
			}
			if i%2 == 0 {
				t.wait(sent) // the stream is nearer than with the odd ones
			}
			cancel()
			t.wait(o)
			// Done from the start.
			if s, err := kind.accept(b, ctx); err == nil {
				take(s)
			}
		}
		for len(seen) < streams {
			t.step("%s once more after %d calls that were cancelled when a stream came; %d of %d streams are missing", kind.name, streams, streams-len(seen), streams)
			s, err := kind.accept(b, t.ctx)
			t.noError(err)
			take(s)
		}
	}
}

// M8 has a connection for each end, since the streams that nobody reads use up
// the flow control of the whole connection.
func streamDeadlines(t *streamCheck) {
	data := pattern(1000)
	past := time.Now().Add(-time.Second)
	for _, end := range []string{"opened", "accepted"} {
		a, b := t.pair(StreamOptions{})
		streams := func() (x, y network.Stream) {
			t.step("a byte goes over a new stream")
			x, y = t.bidi(a, b)
			if end == "accepted" {
				x, y = y, x
			}
			return x, y
		}
		other, otherPeer := streams()

		x, y := streams()
		t.step("SetReadDeadline in the past at the end that %s a stream while Read and Write are blocked", end)
		reading := t.spawn(func() {
			_, err := x.Read(make([]byte, 10))
			t.isTimeout(err)
		})
		big := pattern(1 << 20)
		writing := t.transmit(x, big)
		time.Sleep(toBlock)
		t.noError(x.SetReadDeadline(past))
		t.wait(reading)
		t.step("the peer reads what Write was blocked with when SetReadDeadline ended Read")
		t.equal(t.receive(y, len(big)), big)
		t.wait(writing)
		t.step("Read after a read deadline in the past")
		_, err := x.Read(make([]byte, 10))
		t.isTimeout(err)
		t.step("another stream after a read deadline in the past")
		t.arrives(otherPeer, other, data)
		t.arrives(other, otherPeer, data)
		t.step("SetReadDeadline(zero) after a timeout, and Read")
		t.noError(x.SetReadDeadline(time.Time{}))
		t.arrives(y, x, data)

		x, y = streams()
		t.step("SetWriteDeadline in the past at the end that %s a stream while Write and Read are blocked", end)
		writing = t.spawn(func() {
			n, err := x.Write(streamFlood())
			t.expect(n < streamOverflow, "a count below that of all bytes", "%d", n)
			t.isTimeout(err)
		})
		reading = t.spawn(func() { t.equal(t.receive(x, len(data)), data) })
		time.Sleep(toBlock)
		t.noError(x.SetWriteDeadline(past))
		t.wait(writing)
		t.step("the peer writes what Read was blocked for when SetWriteDeadline ended Write")
		t.wait(t.transmit(y, data))
		t.wait(reading)
		t.step("another stream after a write deadline in the past")
		t.arrives(other, otherPeer, data)
		t.arrives(otherPeer, other, data)

		x, y = streams()
		t.step("SetWriteDeadline in the past, then SetWriteDeadline(zero), and Write")
		t.noError(x.SetWriteDeadline(past))
		t.noError(x.SetWriteDeadline(time.Time{}))
		t.arrives(x, y, data)

		t.step("SetReadDeadline 30 ms ahead, and Read of nothing")
		start := time.Now()
		t.noError(x.SetReadDeadline(start.Add(30 * time.Millisecond)))
		_, err = x.Read(make([]byte, 10))
		t.isTimeout(err)
		t.expect(time.Since(start) >= 30*time.Millisecond, "no timeout before the time", "one after %v", time.Since(start))
		t.step("SetWriteDeadline 30 ms ahead, and Write of %d bytes that nobody reads", streamOverflow)
		start = time.Now()
		t.noError(x.SetWriteDeadline(start.Add(30 * time.Millisecond)))
		_, err = x.Write(streamFlood())
		t.isTimeout(err)
		t.expect(time.Since(start) >= 30*time.Millisecond, "no timeout before the time", "one after %v", time.Since(start))
	}
}

func handshakeComplete(t *streamCheck) {
	a, b := t.pair(StreamOptions{})
	success := func() {
		for _, c := range []network.StreamConn{a, b} {
			ctx := c.HandshakeComplete()
			t.expect(ctx != nil, "a context", "nil")
			t.done(ctx)
			t.expect(context.Cause(ctx) == context.Canceled, "context.Canceled as its context.Cause", "%s", describeError(context.Cause(ctx)))
		}
	}
	t.step("HandshakeComplete after success")
	success()
	t.step("HandshakeComplete after success and CloseWithError")
	_ = a.CloseWithError(streamCode(1), "over")
	t.done(b.Context())
	success()
	if t.subject.FailedHandshake == nil {
		t.measured("success only: StreamConn.FailedHandshake is nil")
		return
	}
	c := t.subject.FailedHandshake(t)
	if c == nil {
		t.Fatal("StreamConn.FailedHandshake returned nil")
	}
	t.track(streamCloser{c})
	t.step("HandshakeComplete of a handshake that fails")
	ctx := c.HandshakeComplete()
	t.expect(ctx != nil, "a context", "nil")
	t.done(ctx)
	cause := context.Cause(ctx)
	t.expect(cause != nil && cause != context.Canceled, "the handshake's error as its context.Cause", "%s", describeError(cause))
}
