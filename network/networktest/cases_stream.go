package networktest

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"runtime"
	"slices"
	"strings"
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

// M3 at both ends, whichever of them closes, and with a stream that nobody has
// accepted yet.
func acceptAfterTheEnd(t *streamCheck) {
	for range 2 {
		a, b := t.pair(StreamOptions{})
		x, err := a.OpenStream()
		t.noError(err)
		t.spawn(func() { _, _ = x.Write([]byte("nobody accepts it")) })
		t.bidi(b, a)
		t.step("CloseWithError by one end")
		t.noError(a.CloseWithError(streamCode(1), "over"))
		t.done(a.Context())
		t.done(b.Context())
		for i, end := range []string{"the end that closed", "the other end"} {
			c := []network.StreamConn{a, b}[i]
			for range 2 {
				t.step("AcceptStream after the connection has ended, at %s", end)
				s, err := c.AcceptStream(t.ctx)
				t.expect(err != nil && s == nil, "an error and no stream", "%v and %s", s, describeError(err))
				t.step("AcceptUniStream after the connection has ended, at %s", end)
				r, err := c.AcceptUniStream(t.ctx)
				t.expect(err != nil && r == nil, "an error and no stream", "%v and %s", r, describeError(err))
			}
		}
	}
}

func cancelRead(t *streamCheck) {
	a, b := t.pair(StreamOptions{})
	check := func(r network.ReceiveStream, w network.SendStream) {
		t.step("CancelRead while Read is blocked")
		o := t.spawn(func() {
			n, err := r.Read(make([]byte, 10))
			t.expect(n == 0 && err != nil, "Read to return an error", "%d and %s", n, describeError(err))
		})
		time.Sleep(toBlock)
		r.CancelRead(streamCode(0x31))
		t.wait(o)
		t.step("a second CancelRead, with another code")
		r.CancelRead(streamCode(0x32))
		t.step("Read after CancelRead")
		n, err := r.Read(make([]byte, 10))
		t.expect(n == 0 && err != nil, "an error", "%d and %s", n, describeError(err))
		t.step("Write by the peer after CancelRead")
		t.hasCode(failingWrite(w), 0x31)
		r.CancelRead(nil)
	}
	x, y := t.bidi(a, b)
	check(x, y)
	x, y = t.bidi(a, b)
	check(y, x)
	s, r := t.uni(a, b)
	check(r, s)

	x, y = t.bidi(a, b)
	_ = x.Close()
	_, before := failingRead(y)
	t.step("CancelRead after Read returned the end of the stream, and Read once more")
	y.CancelRead(streamCode(0x33))
	n, err := y.Read(make([]byte, 10))
	t.expect(n == 0 && errors.Is(err, io.EOF) == errors.Is(before, io.EOF), describeError(before)+", as before", "%d and %s", n, describeError(err))

	x, y = t.bidi(a, b)
	t.step("CancelRead without an ApplicationError")
	y.CancelRead(nil)
	t.hasCode(failingWrite(x), 0)
}

func cancelWrite(t *streamCheck) {
	a, b := t.pair(StreamOptions{})
	check := func(w network.SendStream, r network.ReceiveStream) {
		t.step("Context of a stream that is open")
		t.expect(notDone(w.Context()), "it not to be done", "%v", context.Cause(w.Context()))
		t.step("CancelWrite while a Write of %d bytes is blocked", streamOverflow)
		o := t.spawn(func() {
			n, err := w.Write(streamFlood())
			t.expect(n < streamOverflow && err != nil, "Write to return an error", "%d and %s", n, describeError(err))
		})
		time.Sleep(toBlock)
		w.CancelWrite(streamCode(0x41))
		t.wait(o)
		t.step("Context after CancelWrite")
		t.done(w.Context())
		t.step("a second CancelWrite, with another code")
		w.CancelWrite(streamCode(0x42))
		t.step("Write after CancelWrite")
		n, err := w.Write([]byte("late"))
		t.expect(n == 0 && err != nil, "an error", "%d and %s", n, describeError(err))
		t.step("Read by the peer after CancelWrite")
		_, err = failingRead(r)
		t.hasCode(err, 0x41)
	}
	x, y := t.bidi(a, b)
	check(x, y)
	x, y = t.bidi(a, b)
	check(y, x)
	s, r := t.uni(a, b)
	check(s, r)

	x, _ = t.bidi(a, b)
	t.step("Context after Close")
	_ = x.Close()
	t.done(x.Context())
	x, y = t.bidi(a, b)
	t.step("Context after the peer's CancelRead")
	y.CancelRead(streamCode(0x43))
	t.done(x.Context())

	// The first size fits into the smallest buffers, so that all of it is still on
	// the way when it is cancelled; the second may not.
	for _, size := range []int{10_000, 200_000} {
		s, r := t.uni(a, b)
		data := pattern(size)
		t.step("Write of %d bytes, Close, CancelWrite, and then the peer reads", size)
		o := t.spawn(func() {
			_, _ = s.Write(data)
			_ = s.Close()
			s.CancelWrite(streamCode(0x44))
			s.CancelWrite(nil)
		})
		select {
		case <-o.done:
		case <-time.After(2 * toBlock):
		}
		got, err := failingRead(r)
		t.equal(got, data)
		t.expect(errors.Is(err, io.EOF), "the end of the stream after them", "%s", describeError(err))
		t.wait(o)
	}
}

func writeAfterStreamClose(t *streamCheck) {
	a, b := t.pair(StreamOptions{})
	data := pattern(1000)
	check := func(w network.SendStream, r network.ReceiveStream) {
		o := t.spawn(func() {
			_, _ = w.Write(data)
			_ = w.Close()
		})
		got, _ := failingRead(r)
		t.wait(o)
		for range 2 {
			t.step("Write after Close")
			n, err := w.Write([]byte("late"))
			t.expect(n == 0 && err != nil, "an error", "%d and %s", n, describeError(err))
		}
		t.step("Write of 1000 bytes and Close")
		t.equal(got, data)
	}
	x, y := t.bidi(a, b)
	check(x, y)
	x, y = t.bidi(a, b)
	check(y, x)
	s, r := t.uni(a, b)
	check(s, r)

	s, _ = t.uni(a, b)
	t.step("Close, and at once Write")
	_ = s.Close()
	n, err := s.Write([]byte("late"))
	t.expect(n == 0 && err != nil, "an error", "%d and %s", n, describeError(err))
}

// M7 also for a stream on which nothing was ever sent but its end.
func endOfStream(t *streamCheck) {
	a, b := t.pair(StreamOptions{})
	check := func(r network.ReceiveStream, want []byte) {
		got, err := failingRead(r)
		t.equal(got, want)
		for range 3 {
			t.expect(err == io.EOF, "a bare io.EOF, again and again", "%s", describeError(err))
			_, err = r.Read(make([]byte, 10))
		}
	}
	data := pattern(3000)
	for range 2 {
		for _, end := range []string{"opened", "accepted"} {
			x, y := t.bidi(a, b)
			if end == "accepted" {
				x, y = y, x
			}
			t.step("Read of 3000 bytes and the end of a bidirectional stream, from the end that %s it", end)
			o := t.spawn(func() {
				_, _ = x.Write(data)
				_ = x.Close()
			})
			check(y, data)
			t.wait(o)
		}
		s, r := t.uni(a, b)
		t.step("Read of 3000 bytes and the end of a unidirectional stream")
		o := t.spawn(func() {
			_, _ = s.Write(data)
			_ = s.Close()
		})
		check(r, data)
		t.wait(o)

		s, err := a.OpenUniStream()
		t.noError(err)
		t.step("Read of the end of a stream that was opened and closed")
		_ = s.Close()
		check(t.acceptUni(b), nil)
		a, b = b, a
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

func streamLimit(t *streamCheck) {
	const limit = 3
	for _, kind := range []struct {
		name, sync string
		open       func(c network.StreamConn) (network.SendStream, error)
		openSync   func(c network.StreamConn, ctx context.Context) (network.SendStream, error)
		accept     func(c network.StreamConn) network.ReceiveStream
		other      func(c network.StreamConn) error // opens one of the other kind
	}{
		{
			"OpenStream", "OpenStreamSync",
			func(c network.StreamConn) (network.SendStream, error) { return nilSend(c.OpenStream()) },
			func(c network.StreamConn, ctx context.Context) (network.SendStream, error) {
				return nilSend(c.OpenStreamSync(ctx))
			},
			func(c network.StreamConn) network.ReceiveStream { return t.accept(c) },
			func(c network.StreamConn) error { _, err := c.OpenUniStream(); return err },
		},
		{
			"OpenUniStream", "OpenUniStreamSync",
			func(c network.StreamConn) (network.SendStream, error) { return c.OpenUniStream() },
			func(c network.StreamConn, ctx context.Context) (network.SendStream, error) {
				return c.OpenUniStreamSync(ctx)
			},
			func(c network.StreamConn) network.ReceiveStream { return t.acceptUni(c) },
			func(c network.StreamConn) error { _, err := c.OpenStream(); return err },
		},
	} {
		a, b := t.pair(StreamOptions{MaxStreams: limit})
		var streams []network.SendStream
		for i := range limit {
			t.step("%s with %d of %d streams open", kind.name, i, limit)
			s, err := kind.open(a)
			t.expect(err == nil && s != nil, "a stream", "%v and %s", s, describeError(err))
			streams = append(streams, s)
		}
		atLimit := func() {
			for range 2 {
				t.step("%s with %d of %d streams open", kind.name, limit, limit)
				s, err := kind.open(a)
				var temporary interface{ Temporary() bool }
				t.expect(s == nil && errors.As(err, &temporary) && temporary.Temporary(), "no stream, and an error with Temporary() true", "%v and %s", s, describeError(err))
			}
		}
		atLimit()

		t.step("streams of the other kind and the other direction, with %d of %d open", limit, limit)
		t.noError(kind.other(a))
		_, err := kind.open(b)
		t.noError(err)

		t.step("%s at the limit with a context that is cancelled meanwhile", kind.sync)
		ctx, cancel := context.WithCancel(t.ctx)
		o := t.spawn(func() {
			s, err := kind.openSync(a, ctx)
			t.expect(s == nil && err != nil, "no stream and an error", "%v and %s", s, describeError(err))
		})
		time.Sleep(toBlock)
		t.expect(!o.returned(), "it to block", "it returned")
		cancel()
		t.wait(o)

		t.step("%s at the limit, and a stream ends meanwhile", kind.sync)
		o = t.spawn(func() {
			s, err := kind.openSync(a, t.ctx)
			t.expect(s != nil && err == nil, "a stream", "%v and %s", s, describeError(err))
		})
		time.Sleep(toBlock)
		t.expect(!o.returned(), "it to block", "it returned")
		x := streams[0]
		w := t.spawn(func() {
			_, _ = x.Write([]byte("x"))
			_ = x.Close()
		})
		y := kind.accept(b)
		if s, ok := y.(network.SendStream); ok {
			_ = s.Close()
		}
		_, _ = failingRead(y)
		t.wait(w)
		if r, ok := x.(network.ReceiveStream); ok {
			_, _ = failingRead(r)
		}
		t.wait(o)
		atLimit()
	}
}

// nilSend makes a nil Stream a nil SendStream.
func nilSend(s network.Stream, err error) (network.SendStream, error) {
	if s == nil {
		return nil, err
	}
	return s, err
}

// streamWaiter is a call that blocks until the connection ends.
type streamWaiter struct {
	name string
	call func() error
	op   *op
	err  error
}

// waiters blocks in every way that there is, at both ends of a connection with a
// limit of two streams.
func (t *streamCheck) waiters(a, b network.StreamConn) []*streamWaiter {
	x, y := t.bidi(a, b) // both ends read it
	w, v := t.bidi(b, a) // both ends write to it
	s, _ := t.uni(a, b)
	r, _ := t.uni(b, a)
	for _, c := range []network.StreamConn{a, b} {
		_, err := c.OpenStream()
		t.noError(err)
		_, err = c.OpenUniStream()
		t.noError(err)
	}
	write := func(w io.Writer) error {
		_, err := w.Write(streamFlood())
		return err
	}
	read := func(r io.Reader) error {
		_, err := r.Read(make([]byte, 10))
		return err
	}
	var all []*streamWaiter
	add := func(name string, call func() error) {
		all = append(all, &streamWaiter{name: name, call: call})
	}
	for i, end := range []string{"the first end", "the second end"} {
		c := []network.StreamConn{a, b}[i]
		add("AcceptStream at "+end, func() error { _, err := c.AcceptStream(t.ctx); return err })
		add("AcceptUniStream at "+end, func() error { _, err := c.AcceptUniStream(t.ctx); return err })
		add("OpenStreamSync at "+end, func() error { _, err := c.OpenStreamSync(t.ctx); return err })
		add("OpenUniStreamSync at "+end, func() error { _, err := c.OpenUniStreamSync(t.ctx); return err })
		add("Read at "+end, func() error { return read([]io.Reader{x, y}[i]) })
		add("Write to a bidirectional stream at "+end, func() error { return write([]io.Writer{v, w}[i]) })
		add("Write to a unidirectional stream at "+end, func() error { return write([]io.Writer{s, r}[i]) })
	}
	var started sync.WaitGroup
	for _, w := range all {
		started.Add(1)
		w.op = t.spawn(func() {
			started.Done()
			w.err = w.call()
		})
	}
	started.Wait()
	time.Sleep(toBlock)
	return all
}

func closeWithError(t *streamCheck) {
	const code, text = streamCode(0x1234_5678), "going away, für immer"
	for i, end := range []string{"first", "second"} {
		a, b := t.pair(StreamOptions{MaxStreams: 2})
		all := t.waiters(a, b)
		closer, peer, accept := a, b, all[len(all)/2]
		if i == 1 {
			closer, peer, accept = b, a, all[0]
		}
		t.step("CloseWithError(%v, %q) by the %s end", code, text, end)
		t.noError(closer.CloseWithError(code, text))
		t.step("a second CloseWithError with another code by the %s end", end)
		_ = closer.CloseWithError(code+1, "again")
		for _, w := range all {
			t.step("%s, blocked when the %s end closed", w.name, end)
			t.wait(w.op)
			t.expect(w.err != nil, "an error", "none")
		}
		t.step("Context after CloseWithError by the %s end", end)
		t.done(closer.Context())
		t.done(peer.Context())
		err := accept.err
		t.step("AcceptStream, blocked when the peer called CloseWithError(%v, %q)", code, text)
		came, ok := codeOf(err)
		t.expect(ok && came == uint64(code), "an error in which errors.As finds a network.ApplicationError with "+code.String(), "%s (found: %v, code %#x)", describeError(err), ok, came)
		t.expect(strings.Contains(err.Error(), text), "an error whose text contains the message", "%s", describeError(err))
		_ = peer.CloseWithError(code+2, "late")
	}
	a, b := t.pair(StreamOptions{})
	t.step("CloseWithError without an ApplicationError and without a text")
	t.noError(a.CloseWithError(nil, ""))
	t.done(b.Context())
}

// M11 has them all open at once, and then some more in the place of those.
func thousandStreams(t *streamCheck) {
	const streams, size = 1000, 100
	a, b := t.pair(StreamOptions{})
	data := pattern(streams + size)
	rounds := []int{streams, 200}
	if t.short {
		rounds = rounds[:1]
	}
	for _, n := range rounds {
		t.step("%d streams, all open at once, that each echo %d bytes", n, size)
		echo := t.spawn(func() {
			for range n {
				y := t.accept(b)
				t.spawn(func() {
					p := t.receive(y, size)
					_, _ = y.Write(p)
					_, _ = failingRead(y)
					_ = y.Close()
				})
			}
		})
		all := make([]network.Stream, n)
		for i := range all {
			x, err := a.OpenStreamSync(t.ctx)
			t.expect(err == nil && x != nil, fmt.Sprintf("%d streams", n), "%s after %d", describeError(err), i)
			all[i] = x
			t.transmit(x, data[i:i+size])
		}
		for i, x := range all {
			t.equal(t.receive(x, size), data[i:i+size])
		}
		t.wait(echo)
		for _, x := range all {
			_ = x.Close()
		}
		for _, x := range all {
			_, _ = failingRead(x)
		}
	}
}

// M12 with a stream whose receiver does not read at all while its sender has more
// than any buffer takes.
func slowStream(t *streamCheck) {
	a, b := t.pair(StreamOptions{})
	data := pattern(100_000)
	for _, end := range []string{"opened", "accepted"} {
		x, y := t.bidi(a, b)
		z, w := t.bidi(a, b)
		if end == "accepted" {
			x, y, z, w = y, x, w, z
		}
		t.spawn(func() { _, _ = x.Write(streamFlood()) })
		t.spawn(func() { _, _ = x.Read(make([]byte, 10)) })
		time.Sleep(toBlock)
		t.step("data on other streams, while Read and Write are blocked on one that the end %s", end)
		t.arrives(z, w, data)
		t.arrives(w, z, data)
		t.step("new streams, while Read and Write are blocked on one that the end %s", end)
		for range 2 {
			z, w = t.bidi(a, b)
			t.arrives(z, w, data)
			s, r := t.uni(a, b)
			t.arrives(s, r, data)
			a, b = b, a
		}
		// So that the second round has the connection's flow control for itself.
		x.CancelWrite(streamCode(1))
		x.CancelRead(streamCode(1))
		y.CancelRead(streamCode(1))
	}
}

func streamIDs(t *streamCheck) {
	a, b := t.pair(StreamOptions{})
	type numbered interface{ StreamID() int64 }
	type both struct {
		x, y numbered
		id   int64
	}
	var all []both
	var sends []network.SendStream
	seen := map[int64]bool{}
	add := func(x, y numbered, id int64) {
		t.expect(x.StreamID() == id, fmt.Sprintf("StreamID to stay %d after a Write", id), "%d", x.StreamID())
		t.expect(y.StreamID() == id, fmt.Sprintf("StreamID %d, as where the stream was opened", id), "%d", y.StreamID())
		t.expect(!seen[id], "an id that no other stream has", "%d again", id)
		seen[id] = true
		all = append(all, both{x, y, id})
	}
	for range 2 {
		for range 5 {
			t.step("StreamID of bidirectional streams")
			x, err := a.OpenStream()
			t.noError(err)
			id := x.StreamID()
			t.transmit(x, []byte{1})
			y := t.accept(b)
			t.receive(y, 1)
			add(x, y, id)
			sends = append(sends, x, y)

			t.step("StreamID of unidirectional streams")
			s, err := a.OpenUniStream()
			t.noError(err)
			id = s.StreamID()
			t.transmit(s, []byte{1})
			r := t.acceptUni(b)
			t.receive(r, 1)
			add(s, r, id)
			sends = append(sends, s)
		}
		a, b = b, a
	}
	stay := func() {
		for _, s := range all {
			x, y := s.x.StreamID(), s.y.StreamID()
			t.expect(x == s.id && y == s.id, fmt.Sprintf("StreamID to stay %d at both ends", s.id), "%d and %d", x, y)
		}
	}
	t.step("StreamID after Close of half of the streams and CancelWrite of the others")
	for i, s := range sends {
		if i%2 == 0 {
			_ = s.Close()
		} else {
			s.CancelWrite(streamCode(1))
		}
	}
	stay()
	t.step("StreamID after the connection has ended")
	_ = a.CloseWithError(streamCode(1), "")
	t.done(b.Context())
	stay()
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

// M15 gives each of ten connections to a check of its own, so that what the
// factory has to clean up is gone as well when goroutines and descriptors are
// counted. Less than one per connection may be somebody else's.
func streamsLeaveNothing(t *streamCheck) {
	const conns = 10
	t.step("use and close of %d connections", conns)
	before, files := goroutineStacks(), openDescriptors()
	for range conns {
		sub := &streamCheck{newCheck(clauseOf(t.id), t.short), t.subject}
		t.track(closerFunc(sub.free))
		o := t.spawn(func() {
			defer sub.catch()
			useStreams(sub)
		})
		t.wait(o)
		sub.finish(o.done)
		sub.mu.Lock()
		r := sub.result
		sub.mu.Unlock()
		switch r.Outcome {
		case Failed:
			t.step("%s", r.Did)
			t.expect(false, r.Expected, "%s", r.Came)
		case NotApplicable:
			t.notApplicable("%s", r.Came)
		}
	}
	var left []string
	gone := settles(func() bool {
		left = left[:0]
		for id, stack := range goroutineStacks() {
			if _, ok := before[id]; !ok {
				left = append(left, stack)
			}
		}
		return len(left) < conns
	})
	slices.Sort(left)
	t.expect(gone, "the goroutines to end", "%d are left, such as\n%s", len(left), strings.Join(left[:min(1, len(left))], ""))
	t.expect(settles(func() bool { return openDescriptors() < files+conns }), "the descriptors to be closed", "%d are left", openDescriptors()-files)
}

// useStreams leaves a connection with all kinds of unfinished business.
func useStreams(t *streamCheck) {
	a, b := t.pair(StreamOptions{})
	x, y := t.bidi(b, a)
	_ = x.Close()
	_, _ = failingRead(y)
	_ = y.Close()
	_, _ = failingRead(x)

	x, y = t.bidi(a, b)
	blocked := t.spawn(func() { _, _ = x.Read(make([]byte, 10)) })
	writing := t.spawn(func() { _, _ = y.Write(streamFlood()) })
	time.Sleep(time.Millisecond)
	x.CancelRead(streamCode(1))
	y.CancelWrite(streamCode(1))
	t.wait(blocked)
	t.wait(writing)

	x, _ = t.bidi(a, b)
	_ = x.SetReadDeadline(time.Now().Add(time.Hour))
	_ = x.SetWriteDeadline(time.Now().Add(time.Hour))
	t.uni(a, b)
	ctx, cancel := context.WithCancel(t.ctx)
	blocked = t.spawn(func() { _, _ = a.AcceptStream(ctx) })
	time.Sleep(time.Millisecond)
	cancel()
	t.wait(blocked)
	if s, err := a.OpenStream(); err == nil {
		_, _ = s.Write([]byte("nobody accepts it"))
	}
	_ = a.CloseWithError(streamCode(1), "over")
	t.done(b.Context())
}

// goroutineStacks returns the stack of each goroutine by its number.
func goroutineStacks() map[string]string {
	buf := make([]byte, 1<<20)
	for {
		if n := runtime.Stack(buf, true); n < len(buf) {
			buf = buf[:n]
			break
		}
		buf = make([]byte, 2*len(buf))
	}
	all := map[string]string{}
	for stack := range strings.SplitSeq(string(buf), "\n\n") {
		id, rest, _ := strings.Cut(strings.TrimPrefix(stack, "goroutine "), " ")
		all[id] = rest
	}
	return all
}

// isNetError ends the check unless err itself is a net.Error.
func (t *streamCheck) isNetError(err error) net.Error {
	ne, ok := err.(net.Error)
	t.expect(ok, "a net.Error, by a type assertion on the error itself", "%s", describeError(err))
	return ne
}

// isCanceled ends the check unless err itself says that the peer cancelled.
func (t *streamCheck) isCanceled(err error) {
	c, ok := err.(interface{ Canceled() bool })
	t.expect(ok && c.Canceled(), "an error with a method Canceled() that reports true, by a type assertion on the error itself", "%s", describeError(err))
}

// M16 looks at each error where the interface says something of it. That it
// comes at all is the business of other clauses.
func streamErrors(t *streamCheck) {
	a, b := t.pair(StreamOptions{MaxStreams: 1})
	x, y := t.bidi(a, b)
	s, r := t.uni(a, b)
	openErrors := func(when string, c network.StreamConn, ctx context.Context) {
		t.step("OpenStream %s", when)
		if _, err := c.OpenStream(); err != nil {
			t.isNetError(err)
		}
		t.step("OpenUniStream %s", when)
		if _, err := c.OpenUniStream(); err != nil {
			t.isNetError(err)
		}
		t.step("OpenStreamSync %s", when)
		if _, err := c.OpenStreamSync(ctx); err != nil {
			t.isNetError(err)
		}
		t.step("OpenUniStreamSync %s", when)
		if _, err := c.OpenUniStreamSync(ctx); err != nil {
			t.isNetError(err)
		}
	}
	ctx, cancel := context.WithCancel(t.ctx)
	cancel()
	openErrors("at the limit of streams, with a context that is cancelled", a, ctx)
	// The deadline passes while they block.
	ctx, cancel = context.WithTimeout(t.ctx, 10*time.Millisecond)
	defer cancel()
	openErrors("at the limit of streams, with a context whose deadline passes", a, ctx)

	for _, w := range []network.SendStream{x, s} {
		t.step("Write with a deadline in the past")
		t.noError(w.SetWriteDeadline(time.Now().Add(-time.Second)))
		if _, err := w.Write([]byte("late")); err != nil {
			t.expect(t.isNetError(err).Timeout(), "Timeout() true", "%s", describeError(err))
		}
		t.step("Write of %d bytes with a deadline 10 ms ahead", streamOverflow)
		t.noError(w.SetWriteDeadline(time.Now().Add(10 * time.Millisecond)))
		if _, err := w.Write(streamFlood()); err != nil {
			t.expect(t.isNetError(err).Timeout(), "Timeout() true", "%s", describeError(err))
		}
		t.noError(w.SetWriteDeadline(time.Time{}))
	}

	t.step("Write after the peer's CancelRead on a bidirectional stream")
	y.CancelRead(streamCode(1))
	t.isCanceled(failingWrite(x))
	t.step("Read after the peer's CancelWrite on a bidirectional stream")
	y.CancelWrite(streamCode(1))
	_, err := failingRead(x)
	t.isCanceled(err)
	t.step("Read after the peer's CancelWrite on a unidirectional stream")
	s.CancelWrite(streamCode(1))
	_, err = failingRead(r)
	t.isCanceled(err)

	_ = a.CloseWithError(streamCode(1), "over")
	t.done(a.Context())
	t.done(b.Context())
	openErrors("after CloseWithError", a, t.ctx)
	openErrors("after the peer's CloseWithError", b, t.ctx)

	idleErrors(t)
}

// idleErrors has a connection end by its idle timeout. The blocked calls are made
// in a check of its own, since on a slow machine the connection may end before
// all of them are; a longer timeout is tried then.
func idleErrors(t *streamCheck) {
	for _, idle := range []time.Duration{200 * time.Millisecond, time.Second, 4 * time.Second} {
		var all []*streamWaiter
		sub := &streamCheck{newCheck(clauseOf(t.id), t.short), t.subject}
		t.track(closerFunc(sub.free))
		o := t.spawn(func() {
			defer sub.catch()
			all = sub.waiters(sub.pair(StreamOptions{MaxStreams: 2, IdleTimeout: idle}))
		})
		t.Cleanup(func() { sub.finish(o.done) })
		t.wait(o)
		if sub.outcome() != Passed {
			t.step("%s, with an idle timeout of %v", sub.did, idle)
			t.expect(idle < 4*time.Second, sub.result.Expected, "%s", sub.result.Came)
			continue
		}
		// What does not block has something else to say.
		all = slices.DeleteFunc(all, func(w *streamWaiter) bool { return w.op.returned() })
		for _, w := range all {
			t.step("%s, blocked when an idle timeout of %v ended the connection", w.name, idle)
			t.wait(w.op)
			t.expect(w.err != nil, "an error", "none")
			t.expect(t.isNetError(w.err).Timeout(), "Timeout() true", "%s", describeError(w.err))
		}
		return
	}
}
