package networktest

import (
	"fmt"
	"math"
	"runtime"
	"time"

	"github.com/hertznet/hertznet/network"
)

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

	for _, first := range reads[1:] {
		a, b := t.pair()
		t.step("%s to a time in the past, then SetReadTimeout(0), then Peek(10) with nothing sent", first.name)
		t.noError(first.short(a))
		t.noError(a.SetReadTimeout(0))
		o := t.beginPeek(a)
		t.mustStayBlocked(o, aWhile)
		t.feed(b, data)
		t.mustSucceed(o)
	}

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
	for _, first := range writes[1:] {
		a, b := t.pair()
		t.swallow(b)
		t.step("%s to a time in the past, then SetWriteTimeout(0), then Write of 10 bytes", first.name)
		t.noError(first.short(a))
		t.noError(a.SetWriteTimeout(0))
		_, err := a.Write(data)
		t.noError(err)
	}
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
