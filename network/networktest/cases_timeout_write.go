package networktest

import (
	"fmt"
	"io"
	"net"
	"sync/atomic"
	"time"

	"github.com/hertznet/hertznet/network"
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
	if !t.canWrap() {
		return
	}
	// A peer that reads slowly is no reason to begin again with the timeout.
	const limit, rate = 5 * aWhile, 1 << 20
	for _, pieces := range []int{1, 3, 300} {
		x, y := tcpPair(t.check)
		t.swallow(y)
		a := t.wrap(FaultSlow(x, 0, rate))
		t.writeTimeout(a, limit)
		p := pattern(rate / pieces)
		for range pieces {
			t.writeBinary(a, p)
		}
		t.step("Flush of %d x %d bytes to a conn beneath that takes %d bytes a second, under a write timeout of %v", pieces, len(p), rate, limit)
		t.mustTimeOut(t.begin(a.Flush))
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

const (
	stallChunk = 1 << 20
	stallMax   = 64 // chunks: no socket's buffers hold as much
)
