package networktest

import (
	"errors"
	"fmt"
	"io"
	"math"
	"net"
	"os"
	"runtime"
	"slices"
	"sync/atomic"
	"time"

	"github.com/hertznet/hertznet/network"
)

var timeoutCases = []connCase{
	{"T1", 0, exactTimeouts},
	{"T2", 0, readAfterTimeout},
	{"T3", 0, bytesBeforeTimeout},
	{"T4", 0, timeoutOfEachOperation},
	{"T5", 0, liftedTimeouts},
	{"T6", 0, bufferedAfterDeadline},
	{"T7", 0, pastDeadlineWakes},
	{"T8", 0, lastLimitWins},
	{"T9", 0, independentDirections},
	{"T10", 0, flushToStalledPeer},
	{"T11", 0, writeAfterDeadline},
	{"T12", 0, drippingPeer},
	{"T13", 0, largestTimeout},
	{"T14", 0, manyChangesOfLimits},
	{"T15", 0, changedTimeoutOfBlocked},
}

const (
	// anHour is a limit that does not pass during a check.
	anHour = time.Hour

	// aWhile is how long something is watched that must not happen.
	aWhile = 20 * time.Millisecond

	// endLimit is after what an operation that should have ended counts as blocked.
	endLimit = 5 * time.Second

	// attempts is how often something is tried that a busy machine may spoil.
	attempts = 10
)

// pastMoment is a deadline that has passed.
var pastMoment = time.Unix(1, 0)

// blockingRead is a method that waits until it has n bytes, or the first of them.
type blockingRead struct {
	name string

	// whole says that it needs all n bytes.
	whole bool

	// beyond says that it blocks only where Skip may go beyond the buffer.
	beyond bool

	// do returns the bytes it got and the count of those it has passed over.
	do func(c network.Conn, n int) (p []byte, passed int, err error)
}

var blockingReads = []blockingRead{
	{"Peek(%d)", true, false, func(c network.Conn, n int) ([]byte, int, error) {
		p, err := c.Peek(n)
		return p, 0, err
	}},
	{"Skip(%d)", true, true, func(c network.Conn, n int) ([]byte, int, error) { return nil, n, c.Skip(n) }},
	{"ReadBinary(%d)", true, false, func(c network.Conn, n int) ([]byte, int, error) {
		p, err := c.ReadBinary(n)
		return p, n, err
	}},
	{"Read of up to %d bytes", false, false, func(c network.Conn, n int) ([]byte, int, error) {
		p := make([]byte, n)
		m, err := c.Read(p)
		if m < 0 || m > n {
			return nil, 0, fmt.Errorf("Read returned the count %d for %d bytes", m, n)
		}
		return p[:m], m, err
	}},
	{"ReadByte, which needs 1 of %d bytes", false, false, func(c network.Conn, _ int) ([]byte, int, error) {
		x, err := c.ReadByte()
		return []byte{x}, 1, err
	}},
}

// blockingReads leaves out Skip where it is declared to stay within the buffer.
func (t *connCheck) blockingReads() []blockingRead {
	return slices.DeleteFunc(slices.Clone(blockingReads), func(r blockingRead) bool {
		return r.beyond && t.behavior().SkipWithinBuffer
	})
}

// called is the name of the call with the count n.
func (r blockingRead) called(n int) string { return fmt.Sprintf(r.name, n) }

// ongoing is a call that is running, and its error when it has ended.
type ongoing struct {
	*op
	err error
}

// begin runs f, which is what the last step says.
func (t *connCheck) begin(f func() error) *ongoing {
	o := new(ongoing)
	o.op = t.spawn(func() { o.err = f() })
	return o
}

// beginBlocked does the same and gives f the time to block.
func (t *connCheck) beginBlocked(f func() error) *ongoing {
	o := t.begin(f)
	o.within(aWhile)
	return o
}

// beginPeek is a Peek of one byte that has not been sent.
func (t *connCheck) beginPeek(c network.Conn) *ongoing {
	return t.beginBlocked(func() error {
		_, err := c.Peek(1)
		return err
	})
}

// within waits for the call for d at most and reports whether it has ended.
func (o *op) within(d time.Duration) bool {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-o.done:
		return true
	case <-timer.C:
		return false
	}
}

// mustEnd waits for the call. One that does not end fails the check sooner than
// the watchdog would.
func (t *connCheck) mustEnd(o *op, expected string) {
	limit := endLimit
	if raceEnabled {
		limit *= 4
	}
	t.expect(o.within(limit), expected, "it was still blocked after %v", limit)
}

// mustStayBlocked watches the call for d.
func (t *connCheck) mustStayBlocked(o *ongoing, d time.Duration) {
	if o.within(d) {
		t.expect(false, "it to go on waiting", "it ended with %s", describeError(o.err))
	}
}

// mustTimeOut waits for the call and wants a timeout of any shape.
func (t *connCheck) mustTimeOut(o *ongoing) {
	t.mustEnd(o.op, "a timeout")
	t.isTimeout(o.err)
}

// mustSucceed waits for the call.
func (t *connCheck) mustSucceed(o *ongoing) {
	t.mustEnd(o.op, "no error")
	t.noError(o.err)
}

func (t *connCheck) readTimeout(c network.Conn, d time.Duration) {
	t.step("SetReadTimeout(%v)", d)
	t.noError(c.SetReadTimeout(d))
}

func (t *connCheck) writeTimeout(c network.Conn, d time.Duration) {
	t.step("SetWriteTimeout(%v)", d)
	t.noError(c.SetWriteTimeout(d))
}

func (t *connCheck) readDeadline(c network.Conn, at time.Time) {
	t.step("SetReadDeadline(%s)", describeDeadline(at))
	t.noError(c.SetReadDeadline(at))
}

func (t *connCheck) writeDeadline(c network.Conn, at time.Time) {
	t.step("SetWriteDeadline(%s)", describeDeadline(at))
	t.noError(c.SetWriteDeadline(at))
}

func describeDeadline(at time.Time) string {
	switch d := time.Until(at); {
	case at.IsZero():
		return "the zero time"
	case d <= 0:
		return "a time in the past"
	default:
		return "in " + d.Round(time.Millisecond).String()
	}
}

const (
	stallChunk = 1 << 20
	stallMax   = 64 // chunks: no socket's buffers hold as much
)

// flusher returns a function that sends p by WriteBinary and Flush.
func flusher(c network.Conn) func(p []byte) error {
	return func(p []byte) error {
		if _, err := c.WriteBinary(p); err != nil {
			return err
		}
		return c.Flush()
	}
}

// writer returns a function that sends p by Write.
func writer(c network.Conn) func(p []byte) error {
	return func(p []byte) error {
		_, err := c.Write(p)
		return err
	}
}

// fillUp writes until one write fails, and returns its error and when it began. ok
// is false if it never does, because what is beneath takes everything.
func fillUp(write func(p []byte) error) (began time.Time, err error, ok bool) {
	p := make([]byte, stallChunk)
	for range stallMax {
		began = time.Now()
		if err := write(p); err != nil {
			return began, err, true
		}
	}
	return began, nil, false
}

// stalledWrites are writes to a peer that does not read, of which one is blocked.
type stalledWrites struct {
	ongoing
	done   atomic.Int32
	enough atomic.Bool
}

// stall writes until a write blocks. ok is false if none does.
func (t *connCheck) stall(write func(p []byte) error) (s *stalledWrites, ok bool) {
	s = new(stalledWrites)
	p := make([]byte, stallChunk)
	s.op = t.spawn(func() {
		for range stallMax {
			if s.err = write(p); s.err != nil || s.enough.Load() {
				return
			}
			s.done.Add(1)
		}
	})
	for before := int32(-1); before != s.done.Load(); {
		before = s.done.Load()
		if s.within(aWhile / 2) {
			break
		}
	}
	return s, !s.returned() || s.err != nil
}

// drain reads everything from the peer, so that the blocked write ends.
func (t *connCheck) drain(s *stalledWrites, peer net.Conn) {
	s.enough.Store(true)
	t.swallow(peer)
}

// swallow reads from the peer in a goroutine until the connection ends.
func (t *connCheck) swallow(peer net.Conn) *op {
	return t.spawn(func() { _, _ = io.Copy(io.Discard, readerOf(peer)) })
}

const neverFull = "64 MiB went out although the peer did not read: what is beneath takes everything"

// T1. What is measured begins before the limit is set, so that no operation may be
// early by anybody's clock. That it is not late is judged by the best of some.
func exactTimeouts(t *connCheck) {
	const limit = 10 * time.Millisecond
	late := 30 * time.Millisecond
	if raceEnabled {
		late *= 4
	}
	exact := func(what string, try func() (took time.Duration, err error)) {
		best := time.Duration(math.MaxInt64)
		for range attempts {
			t.step("%s", what)
			took, err := try()
			t.expect(errors.Is(err, os.ErrDeadlineExceeded), "an error that is os.ErrDeadlineExceeded by errors.Is", "%s", describeError(err))
			t.expect(took >= limit, "an end after 10ms, not before", "an end after %v", took)
			if best = min(best, took); best <= limit+late {
				return
			}
		}
		t.expect(false, fmt.Sprintf("an end at most %v after the limit of %v", late, limit), "an end after %v, in the best of %d attempts", best, attempts)
	}
	for _, r := range t.blockingReads() {
		exact(r.called(8)+" with nothing sent, under a read timeout of 10ms", func() (time.Duration, error) {
			a, _ := t.pair()
			start := time.Now()
			t.noError(a.SetReadTimeout(limit))
			_, _, err := r.do(a, 8)
			return time.Since(start), err
		})
	}
	for _, set := range []struct {
		name string
		do   func(c network.Conn, at time.Time) error
	}{{"SetReadDeadline", network.Conn.SetReadDeadline}, {"SetDeadline", network.Conn.SetDeadline}} {
		exact(set.name+" to 10ms from now, then Peek(1) with nothing sent", func() (time.Duration, error) {
			a, _ := t.pair()
			start := time.Now()
			t.noError(set.do(a, start.Add(limit)))
			_, err := a.Peek(1)
			return time.Since(start), err
		})
	}
	// Limits for writing as deadlines: that there is a write timeout is T10.
	for _, w := range []struct {
		name  string
		write func(c network.Conn) func(p []byte) error
	}{{"Write", writer}, {"WriteBinary and Flush", flusher}} {
		full := true
		exact("SetWriteDeadline to 10ms from now, then "+w.name+" of 1 MiB, again and again, to a peer that does not read", func() (time.Duration, error) {
			a, _ := t.pair()
			start := time.Now()
			t.noError(a.SetWriteDeadline(start.Add(limit)))
			_, err, ok := fillUp(w.write(a))
			took := time.Since(start)
			if full = ok; !ok {
				return limit, os.ErrDeadlineExceeded // nothing to be judged
			}
			return took, err
		})
		if !full {
			break
		}
	}
	if !t.canWrap() {
		return
	}
	for _, timeout := range foreignErrors() { // of reading, they are the business of R28
		for _, w := range []func(c network.Conn) func(p []byte) error{writer, flusher} {
			near, _ := tcpPair(t.check)
			c := t.wrap(foreignTimeouts{near, timeout})
			t.writeDeadline(c, time.Now().Add(limit))
			t.step("writes of 1 MiB, again and again, to a peer that does not read, after SetWriteDeadline to 10ms from now, over a conn whose timeout is a %s", describeError(timeout))
			if _, err, ok := fillUp(w(c)); ok {
				t.expect(errors.Is(err, os.ErrDeadlineExceeded), "an error that is os.ErrDeadlineExceeded by errors.Is", "%s", describeError(err))
			}
		}
	}
}

// T2. The limits between are changed to long ones, not lifted: that they can be is
// T5.
func readAfterTimeout(t *connCheck) {
	data := pattern(16)
	for _, r := range t.blockingReads() {
		a, b := t.pair()
		for range 2 {
			t.readTimeout(a, time.Millisecond)
			t.step("%s with nothing sent, under a read timeout of 1ms", r.called(8))
			_, _, err := r.do(a, 8)
			t.isTimeout(err)
		}
		t.readTimeout(a, anHour)
		t.feed(b, data)
		t.step("%s with 16 bytes sent, under a read timeout of an hour, after two timeouts", r.called(8))
		p, passed, err := r.do(a, 8)
		t.noError(err)
		if len(p) > 0 {
			t.equal(p, data[:len(p)])
		}
		t.peek(a, data[passed:])
	}
	a, b := t.pair()
	t.readDeadline(a, pastMoment)
	t.step("Peek(1) after a deadline in the past")
	_, err := a.Peek(1)
	t.isTimeout(err)
	t.readDeadline(a, time.Now().Add(anHour))
	t.feed(b, data)
	t.peek(a, data)
}

// T3. Skip is left out: it may have dropped what came.
func bytesBeforeTimeout(t *connCheck) {
	data := pattern(100)
	for _, r := range []blockingRead{blockingReads[0], blockingReads[2]} {
		a, b := t.pair()
		t.feed(b, data[:30])
		t.peek(a, data[:30])
		t.readTimeout(a, aWhile)
		t.step("%s with 30 bytes buffered and no more sent", r.called(60))
		_, _, err := r.do(a, 60)
		t.isTimeout(err)
		t.expect(a.Len() >= 30, "the 30 bytes still to be buffered", "%d bytes", a.Len())
		t.peek(a, data[:30])

		// Bytes that come during the wait, as far as they do on a busy machine.
		t.readTimeout(a, aWhile)
		t.feed(b, data[30:50])
		t.step("%s with 30 bytes buffered and 20 on their way", r.called(60))
		_, _, err = r.do(a, 60)
		t.isTimeout(err)
		n := a.Len()
		t.expect(n >= 30 && n <= 50, "30 to 50 bytes to be buffered", "%d bytes", n)
		t.peek(a, data[:n])
		t.readTimeout(a, anHour)
		t.feed(b, data[50:])
		t.step("Peek(100) after the timeouts, with 100 bytes sent in all")
		p, err := a.Peek(100)
		if looksLikeTimeout(err) {
			continue // that the next read may succeed is T2
		}
		t.noError(err)
		t.equal(p, data)
	}
}

// T4. An operation that begins after the time has passed, counted from when the
// timeout was set or from an earlier operation, must have all of it. Half of it
// does here: whether a timeout is exact is T1.
func timeoutOfEachOperation(t *connCheck) {
	const limit = 2 * aWhile
	oneShot := t.behavior().OneShotReadTimeout
	took, came := time.Duration(0), false
	for range attempts {
		a, b := t.pair()
		t.readTimeout(a, limit)
		t.feed(b, pattern(1))
		t.step("Peek(1) under a read timeout of %v, with 1 byte sent", limit)
		if _, err := a.Peek(1); looksLikeTimeout(err) {
			continue // a busy machine, which takes its time for the byte
		} else {
			t.noError(err)
		}
		came = true
		time.Sleep(limit + time.Millisecond)
		t.step("SetReadTimeout(%v), Peek(1) of a byte that came, %[1]v without a call, then Peek(2)", limit)
		start := time.Now()
		_, err := a.Peek(2)
		took = time.Since(start)
		t.isTimeout(err)
		if !oneShot || took < limit/2 {
			break
		}
	}
	switch {
	case !came:
		// Nothing can be said.
	case oneShot:
		t.expect(took < limit/2, "a timeout at once, since OneShotReadTimeout is declared", "a timeout after %v", took)
	default:
		t.expect(took >= limit/2, "a timeout after another 40ms", "a timeout after %v", took)
	}

	for _, w := range []struct {
		name  string
		write func(c network.Conn) error
	}{
		{"Write", func(c network.Conn) error { return writer(c)(pattern(10)) }},
		{"WriteBinary and Flush", func(c network.Conn) error { return flusher(c)(pattern(10)) }},
		{"WriteBinary of two pieces and Flush", func(c network.Conn) error {
			if _, err := c.WriteBinary(pattern(10)); err != nil {
				return err
			}
			return flusher(c)(pattern(9000))
		}},
	} {
		for i := range attempts {
			a, b := t.pair()
			t.swallow(b)
			t.writeTimeout(a, limit)
			t.step("%s under a write timeout of %v, to a peer that reads", w.name, limit)
			err := w.write(a)
			if err == nil {
				time.Sleep(limit + time.Millisecond)
				t.step("%s again, %v after SetWriteTimeout(%[2]v) and the first, to a peer that reads", w.name, limit)
				err = w.write(a)
			}
			if err == nil {
				break
			}
			t.expect(i < attempts-1, "no error", "%s, in each of %d attempts", describeError(err), attempts)
		}
	}
}

// T5.
func liftedTimeouts(t *connCheck) {
	data := pattern(10)
	values := []time.Duration{0, -1, -anHour, math.MinInt64}
	if t.short {
		values = values[:2]
	}
	for _, none := range values {
		a, b := t.pair()
		t.readTimeout(a, aWhile)
		t.readTimeout(a, none)
		t.step("SetReadTimeout(%v), SetReadTimeout(%v), then Peek(1) with nothing sent", aWhile, none)
		o := t.beginPeek(a)
		t.mustStayBlocked(o, aWhile)
		t.feed(b, data)
		t.step("SetReadTimeout(%v), SetReadTimeout(%v), then Peek(1) with bytes sent after %v", aWhile, none, 2*aWhile)
		t.mustSucceed(o)
		t.peek(a, data)
	}
	for _, none := range values[:2] {
		a, b := t.pair()
		t.writeTimeout(a, 5*time.Millisecond)
		t.writeTimeout(a, none)
		t.step("SetWriteTimeout(5ms), SetWriteTimeout(%v), then Flush of 1 MiB, again and again, to a peer that does not read", none)
		s, ok := t.stall(flusher(a))
		if !ok {
			return
		}
		t.mustStayBlocked(&s.ongoing, time.Millisecond)
		t.drain(s, b)
		t.step("SetWriteTimeout(5ms), SetWriteTimeout(%v), then Flush of 1 MiB, again and again, to a peer that reads late", none)
		t.mustSucceed(&s.ongoing)
	}
}

// T6.
func bufferedAfterDeadline(t *connCheck) {
	data := pattern(10)
	for _, pass := range []struct {
		name string
		set  func(c network.Conn) error
	}{
		{"SetReadDeadline to a time in the past", func(c network.Conn) error { return c.SetReadDeadline(pastMoment) }},
		{"SetDeadline to a time in the past", func(c network.Conn) error { return c.SetDeadline(pastMoment) }},
		{"SetReadDeadline to 1ms from now, and 5ms of waiting", func(c network.Conn) error {
			err := c.SetReadDeadline(time.Now().Add(time.Millisecond))
			time.Sleep(5 * time.Millisecond)
			return err
		}},
		{"a Peek that timed out under SetReadTimeout(1ms)", func(c network.Conn) error {
			if err := c.SetReadTimeout(time.Millisecond); err != nil {
				return err
			}
			_, _ = c.Peek(20)
			return nil
		}},
	} {
		a, b := t.pair()
		t.feed(b, data)
		t.peek(a, data)
		t.step("%s, with 10 bytes buffered", pass.name)
		t.noError(pass.set(a))
		after := " after " + pass.name

		t.step("Peek(10)%s", after)
		p, err := a.Peek(10)
		t.noError(err)
		t.equal(p, data)
		t.step("ReadByte%s", after)
		x, err := a.ReadByte()
		t.noError(err)
		t.equal([]byte{x}, data[:1])
		t.step("ReadBinary(2)%s", after)
		p, err = a.ReadBinary(2)
		t.noError(err)
		t.equal(p, data[1:3])
		t.step("Skip(2)%s", after)
		t.noError(a.Skip(2))
		t.step("Read of up to 20 bytes, with 5 buffered,%s", after)
		p = make([]byte, 20)
		n, err := a.Read(p)
		t.noError(err)
		t.expect(n > 0 && n <= 5, "1 to 5 bytes", "%d", n)
		t.equal(p[:n], data[5:5+n])
	}
}

// T7, by either method, under a timeout and without one. The same of a Flush.
func pastDeadlineWakes(t *connCheck) {
	sets := []struct {
		name  string
		read  func(c network.Conn) error
		write func(c network.Conn) error
	}{
		{"a time in 1970",
			func(c network.Conn) error { return c.SetReadDeadline(pastMoment) },
			func(c network.Conn) error { return c.SetWriteDeadline(pastMoment) }},
		{"now",
			func(c network.Conn) error { return c.SetReadDeadline(time.Now()) },
			func(c network.Conn) error { return c.SetWriteDeadline(time.Now()) }},
		{"a time in 1970 by SetDeadline",
			func(c network.Conn) error { return c.SetDeadline(pastMoment) },
			func(c network.Conn) error { return c.SetDeadline(pastMoment) }},
	}
	for _, set := range sets {
		for _, limit := range []time.Duration{0, anHour} {
			if t.short && limit == 0 {
				continue
			}
			a, _ := t.pair()
			under := "no read timeout"
			if limit > 0 {
				t.readTimeout(a, limit)
				under = "a read timeout of an hour"
			}
			t.step("Peek(1) with nothing sent, under %s", under)
			o := t.beginPeek(a)
			t.mustStayBlocked(o, 0)
			t.step("a read deadline at %s, while a Peek(1) is blocked under %s", set.name, under)
			t.noError(set.read(a))
			t.mustTimeOut(o)
		}
	}
	for i, set := range sets {
		if t.short && i == 1 {
			continue
		}
		a, _ := t.pair()
		under := "no write timeout"
		if i > 0 {
			t.writeTimeout(a, anHour)
			under = "a write timeout of an hour"
		}
		t.step("Flush of 1 MiB, again and again, to a peer that does not read")
		s, ok := t.stall(flusher(a))
		if !ok {
			return
		}
		t.mustStayBlocked(&s.ongoing, 0)
		t.step("a write deadline at %s, while a Flush is blocked under %s", set.name, under)
		t.noError(set.write(a))
		t.mustTimeOut(&s.ongoing)
	}
}

// limitCall is a call that sets the limit of one direction.
type limitCall struct {
	name        string
	short, long func(c network.Conn) error
}

// T8: whatever is called first, the limit is that of the second call.
func lastLimitWins(t *connCheck) {
	at := func(set func(network.Conn, time.Time) error, d time.Duration) func(c network.Conn) error {
		return func(c network.Conn) error { return set(c, time.Now().Add(d)) }
	}
	timeout := func(set func(network.Conn, time.Duration) error, d time.Duration) func(c network.Conn) error {
		return func(c network.Conn) error { return set(c, d) }
	}
	const ms = time.Millisecond
	both := limitCall{"SetDeadline", at(network.Conn.SetDeadline, -ms), at(network.Conn.SetDeadline, anHour)}
	reads := []limitCall{
		{"SetReadTimeout", timeout(network.Conn.SetReadTimeout, 5*ms), timeout(network.Conn.SetReadTimeout, anHour)},
		{"SetReadDeadline", at(network.Conn.SetReadDeadline, -ms), at(network.Conn.SetReadDeadline, anHour)},
		both,
	}
	data := pattern(10)
	for i, first := range reads {
		for j, last := range reads {
			if i == j {
				continue
			}
			a, b := t.pair()
			t.step("%s to a limit that is short or in the past, then %s to an hour, then Peek(10) with nothing sent", first.name, last.name)
			t.noError(first.short(a))
			t.noError(last.long(a))
			o := t.begin(func() error {
				_, err := a.Peek(10)
				return err
			})
			t.mustStayBlocked(o, aWhile)
			t.feed(b, data)
			t.mustSucceed(o)

			a, _ = t.pair()
			t.step("%s to an hour, then %s to a limit that is short or in the past, then Peek(10) with nothing sent", first.name, last.name)
			t.noError(first.long(a))
			t.noError(last.short(a))
			t.mustTimeOut(t.begin(func() error {
				_, err := a.Peek(10)
				return err
			}))
		}
	}
	a, b := t.pair()
	t.step("SetReadTimeout(5ms), then SetReadDeadline to the zero time, then Peek(10) with nothing sent")
	t.noError(a.SetReadTimeout(5 * ms))
	t.noError(a.SetReadDeadline(time.Time{}))
	o := t.begin(func() error {
		_, err := a.Peek(10)
		return err
	})
	t.mustStayBlocked(o, aWhile)
	t.feed(b, data)
	t.mustSucceed(o)

	writes := []limitCall{
		{"SetWriteTimeout", timeout(network.Conn.SetWriteTimeout, 5*ms), timeout(network.Conn.SetWriteTimeout, anHour)},
		{"SetWriteDeadline", at(network.Conn.SetWriteDeadline, -ms), at(network.Conn.SetWriteDeadline, anHour)},
		both,
	}
	for i, first := range writes {
		for j, last := range writes {
			if i == j || t.short && (i > 1 || j > 1) {
				continue
			}
			a, b := t.pair()
			t.step("%s to a limit that is short or in the past, then %s to an hour, then Write of 1 MiB, again and again, to a peer that does not read", first.name, last.name)
			t.noError(first.short(a))
			t.noError(last.long(a))
			s, ok := t.stall(writer(a))
			if !ok {
				return
			}
			t.mustStayBlocked(&s.ongoing, 0)
			t.drain(s, b)
			t.mustSucceed(&s.ongoing)

			a, _ = t.pair()
			t.step("%s to an hour, then %s to a limit that is short or in the past, then Write of 1 MiB, again and again, to a peer that does not read", first.name, last.name)
			t.noError(first.long(a))
			t.noError(last.short(a))
			t.mustTimeOut(t.begin(func() error {
				_, err, _ := fillUp(writer(a))
				return err
			}))
		}
	}
}

// T9.
func independentDirections(t *connCheck) {
	data := pattern(10)

	a, b := t.pair()
	t.readDeadline(a, pastMoment)
	got := t.begin(func() error {
		if p := t.receive(b, 10); len(p) != 10 {
			return fmt.Errorf("the peer received %d of 10 bytes", len(p))
		}
		return nil
	})
	t.step("Write of 10 bytes after a read deadline in the past")
	_, err := a.Write(data)
	t.noError(err)
	t.mustSucceed(got)

	a, b = t.pair()
	t.writeDeadline(a, pastMoment)
	t.feed(b, data)
	t.peek(a, data)

	a, b = t.pair()
	t.writeTimeout(a, 5*time.Millisecond)
	t.step("Peek(1) with nothing sent, under SetWriteTimeout(5ms)")
	o := t.beginPeek(a)
	t.mustStayBlocked(o, aWhile)
	t.feed(b, data)
	t.mustSucceed(o)

	a, _ = t.pair()
	t.readTimeout(a, 5*time.Millisecond)
	t.writeTimeout(a, anHour)
	t.step("Peek(1) with nothing sent, under SetReadTimeout(5ms) and then SetWriteTimeout of an hour")
	t.mustTimeOut(t.beginPeek(a))

	a, b = t.pair()
	t.readTimeout(a, 5*time.Millisecond)
	t.step("Write of 1 MiB, again and again, to a peer that does not read, under SetReadTimeout(5ms)")
	s, ok := t.stall(writer(a))
	if !ok {
		return
	}
	t.mustStayBlocked(&s.ongoing, 0)
	t.step("Peek(1) with nothing sent, while a Write is blocked, under SetReadTimeout(5ms)")
	_, err = a.Peek(1)
	t.isTimeout(err)
	t.step("a Write that is blocked, after a Peek that timed out")
	t.mustStayBlocked(&s.ongoing, 0)
	t.drain(s, b)
	t.mustSucceed(&s.ongoing)

	a, _ = t.pair()
	t.writeTimeout(a, 5*time.Millisecond)
	t.readTimeout(a, anHour)
	t.step("Write of 1 MiB, again and again, to a peer that does not read, under SetWriteTimeout(5ms) and then SetReadTimeout of an hour")
	t.mustTimeOut(t.begin(func() error {
		_, err, _ := fillUp(writer(a))
		return err
	}))
}

// T10.
func flushToStalledPeer(t *connCheck) {
	for _, pieces := range []int{1, 3} {
		a, _ := t.pair()
		t.writeTimeout(a, aWhile)
		t.step("WriteBinary of %d x 1 MiB and Flush, again and again, to a peer that does not read, under a write timeout of %v", pieces, aWhile)
		full := false
		o := t.begin(func() (err error) {
			_, err, full = fillUp(func(p []byte) error {
				for range pieces - 1 {
					if _, err := a.WriteBinary(p); err != nil {
						return err
					}
				}
				return flusher(a)(p)
			})
			return err
		})
		t.mustEnd(o.op, "an error after that time")
		if !full {
			t.notApplicable("%s", neverFull)
		}
	}
}

// T11. A deadline that passes by itself is given several attempts, since timers may
// be a little late.
func writeAfterDeadline(t *connCheck) {
	data := pattern(10)
	for _, pass := range []struct {
		name string
		set  func(c network.Conn) error
	}{
		{"SetWriteDeadline to a time in the past", func(c network.Conn) error { return c.SetWriteDeadline(pastMoment) }},
		{"SetDeadline to a time in the past", func(c network.Conn) error { return c.SetDeadline(pastMoment) }},
		{"SetWriteDeadline to 1ms from now, and 10ms of waiting", func(c network.Conn) error {
			err := c.SetWriteDeadline(time.Now().Add(time.Millisecond))
			time.Sleep(10 * time.Millisecond)
			return err
		}},
	} {
		for _, method := range []string{"Write", "Flush"} {
			for i := range attempts {
				a, b := t.pair()
				t.swallow(b)
				if method == "Flush" {
					t.malloc(a, data)
				}
				t.step("%s", pass.name)
				t.noError(pass.set(a))
				t.step("%s of 10 bytes, to a peer that reads, after %s", method, pass.name)
				var err error
				if method == "Flush" {
					err = a.Flush()
				} else {
					_, err = a.Write(data)
				}
				if err == nil && i < attempts-1 {
					continue
				}
				t.isTimeout(err)
				break
			}
		}
	}
}

// T12. A peer that pauses for the whole limit, as it does on a busy machine, is no test.
func drippingPeer(t *connCheck) {
	const limit = aWhile
	for _, r := range t.blockingReads() {
		if !r.whole {
			continue // it ends with the first byte
		}
		for range attempts {
			if t.drip(r, limit) < limit {
				break
			}
		}
	}
}

// drip returns the longest pause of the peer.
func (t *connCheck) drip(r blockingRead, limit time.Duration) (pause time.Duration) {
	a, b := t.pair()
	t.readTimeout(a, limit)
	t.step("%s from a peer that sends a byte each millisecond, under a read timeout of %v", r.called(1<<20), limit)
	last := time.Now()
	peer := t.spawn(func() {
		for {
			if _, err := b.Write([]byte{'x'}); err != nil {
				return
			}
			pause, last = max(pause, time.Since(last)), time.Now()
			time.Sleep(time.Millisecond)
		}
	})
	t.mustTimeOut(t.begin(func() error {
		defer b.Close() // which ends the peer
		_, _, err := r.do(a, 1<<20)
		return err
	}))
	t.wait(peer)
	return max(pause, time.Since(last))
}

// T13.
func largestTimeout(t *connCheck) {
	data := pattern(10)
	for _, d := range []time.Duration{math.MaxInt64, math.MaxInt64 - 1, math.MaxInt64 - time.Duration(time.Now().UnixNano())} {
		if t.short && d == math.MaxInt64-1 {
			continue
		}
		a, b := t.pair()
		t.readTimeout(a, d)
		t.step("Peek(1) with nothing sent, under a read timeout of %d nanoseconds", d)
		o := t.beginPeek(a)
		t.mustStayBlocked(o, 0)
		t.step("SetReadTimeout(%d) while a Peek(1) is blocked", d)
		t.noError(a.SetReadTimeout(d))
		t.mustStayBlocked(o, aWhile)
		t.feed(b, data)
		t.mustSucceed(o)
	}
	for _, far := range []time.Time{time.Now().Add(math.MaxInt64), time.Date(9999, 12, 31, 0, 0, 0, 0, time.UTC)} {
		a, b := t.pair()
		t.step("SetDeadline to the year %d", far.Year())
		t.noError(a.SetDeadline(far))
		t.step("Peek(1) with nothing sent, under a deadline in the year %d", far.Year())
		o := t.beginPeek(a)
		t.mustStayBlocked(o, aWhile)
		t.feed(b, data)
		t.mustSucceed(o)
		t.swallow(b)
		t.step("Write of 10 bytes under a deadline in the year %d", far.Year())
		_, err := a.Write(data)
		t.noError(err)
	}
	a, b := t.pair()
	t.writeTimeout(a, math.MaxInt64)
	t.step("Flush of 1 MiB, again and again, to a peer that does not read, under a write timeout of math.MaxInt64")
	s, ok := t.stall(flusher(a))
	if !ok {
		return
	}
	t.mustStayBlocked(&s.ongoing, 0)
	t.drain(s, b)
	t.mustSucceed(&s.ongoing)
}

// T14: what a change leaves behind would be found ten thousand times among the
// goroutines or the objects of the heap.
func manyChangesOfLimits(t *connCheck) {
	const changes = 10000
	a, b := t.pair()
	change := func(i int) error {
		d := anHour + time.Duration(i)
		switch i % 5 {
		case 0:
			return a.SetReadTimeout(d)
		case 1:
			return a.SetWriteTimeout(d)
		case 2:
			return a.SetReadDeadline(time.Now().Add(d))
		case 3:
			return a.SetWriteDeadline(time.Now().Add(d))
		default:
			return a.SetDeadline(time.Now().Add(d))
		}
	}
	for _, state := range []string{"without an operation", "while a Peek(1) is blocked"} {
		var o *ongoing
		if state != "without an operation" {
			t.step("Peek(1) with nothing sent")
			o = t.beginPeek(a)
		}
		for i := range 100 {
			t.step("the Set methods, each with an hour, %s", state)
			t.noError(change(i))
		}
		goroutines, objects := runtime.NumGoroutine(), heapObjects()
		t.step("%d calls of the Set methods, each with an hour, %s", changes, state)
		for i := range changes {
			if err := change(i); err != nil {
				t.noError(err)
			}
		}
		var g int
		var h uint64
		settles(func() bool {
			g, h = runtime.NumGoroutine(), heapObjects()
			return g < goroutines+changes/20 && h < objects+changes/4
		})
		t.expect(g < goroutines+changes/20, "the goroutines that there were", "%d goroutines where there were %d", g, goroutines)
		t.expect(h < objects+changes/4, "about as many objects on the heap as there were", "%d objects where there were %d", h, objects)
		if o != nil {
			t.feed(b, pattern(1))
			t.mustEnd(o.op, "an end when the byte came")
		}
	}
}

// heapObjects returns how many objects the garbage collector leaves.
func heapObjects() uint64 {
	runtime.GC()
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	return m.HeapObjects
}

// T15, in both directions. The new timeout counts from its change.
func changedTimeoutOfBlocked(t *connCheck) {
	data := pattern(10)
	const limit = 2 * aWhile
	for _, before := range []time.Duration{0, anHour} {
		if t.short && before == 0 {
			continue
		}
		a, _ := t.pair()
		if before > 0 {
			t.readTimeout(a, before)
		}
		t.step("Peek(1) with nothing sent, under a read timeout of %v", before)
		o := t.begin(func() error {
			_, err := a.Peek(1)
			return err
		})
		t.mustStayBlocked(o, limit+time.Millisecond)
		t.step("SetReadTimeout(%v) while a Peek(1) is blocked under a read timeout of %v, for %[1]v already", limit, before)
		changed := time.Now()
		t.noError(a.SetReadTimeout(limit))
		t.mustTimeOut(o)
		took := time.Since(changed)
		t.expect(took >= limit/2, fmt.Sprintf("a timeout %v after the change", limit), "a timeout %v after it", took)
	}

	for range attempts {
		a, b := t.pair()
		t.readTimeout(a, limit)
		start := time.Now()
		t.step("Peek(1) with nothing sent, under a read timeout of %v", limit)
		o := t.beginPeek(a)
		t.step("SetReadTimeout of an hour while a Peek(1) is blocked under a read timeout of %v", limit)
		t.noError(a.SetReadTimeout(anHour))
		if time.Since(start) >= limit*3/4 {
			continue // too late, on a busy machine
		}
		t.mustStayBlocked(o, limit+aWhile)
		t.feed(b, data)
		t.mustSucceed(o)
		break
	}

	a, _ := t.pair()
	t.writeTimeout(a, anHour)
	t.step("Write of 1 MiB, again and again, to a peer that does not read, under a write timeout of an hour")
	s, ok := t.stall(writer(a))
	if !ok {
		return
	}
	t.mustStayBlocked(&s.ongoing, 0)
	t.step("SetWriteTimeout(20ms) while a Write is blocked under a write timeout of an hour")
	t.noError(a.SetWriteTimeout(20 * time.Millisecond))
	t.mustTimeOut(&s.ongoing)
}
