package networktest

import (
	"errors"
	"fmt"
	"math"
	"os"
	"slices"
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
		t.expect(took >= limit/2, fmt.Sprintf("a timeout after another %v", limit), "a timeout after %v", took)
	}

	// An empty buffer and a large p may have a way of their own to the conn beneath.
	p := make([]byte, 64<<10)
	for i := 0; i < attempts && !oneShot; i++ {
		a, b := t.pair()
		t.readTimeout(a, limit)
		t.feed(b, pattern(1))
		t.step("Read into 64 KiB under a read timeout of %v, with 1 byte sent", limit)
		if _, err := a.Read(p); looksLikeTimeout(err) {
			continue
		} else {
			t.noError(err)
		}
		time.Sleep(limit + time.Millisecond)
		t.step("SetReadTimeout(%v), Read into 64 KiB of a byte that came, %[1]v without a call, then Read into 64 KiB", limit)
		start := time.Now()
		_, err := a.Read(p)
		took := time.Since(start)
		t.isTimeout(err)
		t.expect(took >= limit/2, fmt.Sprintf("a timeout after another %v", limit), "a timeout after %v", took)
		break
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

// T12. A peer that pauses for the whole limit, as it does on a busy machine, is no test, and
// is tried again under a longer one.
func drippingPeer(t *connCheck) {
	for _, r := range t.blockingReads() {
		if !r.whole {
			continue // it ends with the first byte
		}
		for limit := aWhile; limit < time.Second && t.drip(r, limit) >= limit; {
			limit *= 2
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
