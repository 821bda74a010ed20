package networktest

import (
	"context"
	"errors"
	"io"
	"net"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/hertznet/hertznet/network"
)

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
