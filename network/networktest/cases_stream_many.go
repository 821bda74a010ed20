package networktest

import (
	"context"
	"errors"
	"fmt"
	"runtime"
	"slices"
	"strings"
	"time"

	"github.com/hertznet/hertznet/network"
)

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
