package networktest

import (
	"bytes"
	"fmt"
	"io"
	"time"
)

func writeFlushesFirst(t *connCheck) {
	a, b := t.pair()
	o := t.outflow(a, b)
	for _, n := range []int{1, 5000, 70_000} {
		o.mark("Malloc of 10 bytes, then Write of %d", n)
		t.malloc(a, o.next(10))
		m, err := a.Write(o.next(n))
		t.expect(err == nil && m == n, fmt.Sprintf("%d and no error", n), "%d and %s", m, describeError(err))
	}
	o.end()
	for _, p := range [][]byte{nil, {}} {
		a, b = t.pair()
		pending := pattern(10)
		got := t.begin(func() error {
			_, err := io.ReadFull(readerOf(b), make([]byte, len(pending)))
			return err
		})
		t.malloc(a, pending)
		t.step("Malloc of 10 bytes, then Write of no bytes")
		n, err := a.Write(p)
		t.expect(err == nil && n == 0, "0 and no error", "%d and %s", n, describeError(err))
		t.expect(got.within(endLimit), "the 10 bytes to be sent", "none at the peer after %v", endLimit)
	}
	t.writeOutOfTime()
	t.pendingOutOfTime()
	if !t.canWrap() {
		return
	}
	p := pattern(80_000)
	for _, size := range []int{10, 70_000} {
		for _, quota := range []int{0, 7, 10, 11, 15, 19, size + 9, size + 10} {
			s := &quotaConn{quota: quota}
			c := t.wrap(s)
			t.malloc(c, p[:10])
			t.step("Malloc of 10 bytes, then Write of %d, with a conn beneath that takes %d and fails", size, quota)
			n, err := c.Write(p[10 : 10+size])
			want := max(min(quota, size+10)-10, 0)
			t.expect(n == want && (err == nil) == (want == size), fmt.Sprintf("a count of %d, and an error for less than %d", want, size), "%d and %s", n, describeError(err))
		}
	}
}

// writeOutOfTime is W12 for a timeout, from which a Write may go on at n, or may
// not where that is declared.
func (t *connCheck) writeOutOfTime() {
	const first = 10_000 // what the peer reads before it pauses
	a, b := t.pair()
	all := pattern(16 << 20)
	var got []byte
	goOn := make(chan struct{})
	reading := t.spawn(func() {
		got = t.receive(b, first)
		select {
		case <-goOn:
		case <-t.ctx.Done():
			return
		}
		rest, _ := io.ReadAll(readerOf(b))
		got = append(got, rest...)
	})
	if a.SetWriteTimeout(30*time.Millisecond) != nil {
		return
	}
	n := 0
	var err error
	t.step("Write of 16 MiB to a peer that reads %d bytes, with a write timeout of 30ms", first)
	write := t.spawn(func() { n, err = a.Write(all) })
	select {
	case <-write.done:
	case <-time.After(3 * time.Second):
		return // timeouts are the business of group T
	}
	if !looksLikeTimeout(err) {
		return
	}
	t.expect(n >= 0 && n < len(all), "fewer than all bytes", "%d", n)
	close(goOn)
	t.noError(a.SetWriteTimeout(0))
	t.step("Write of the rest, after one of 16 MiB that ran out of time at %d", n)
	m, err := a.Write(all[n:])
	if t.behavior().PermanentWriteTimeout {
		t.expect(err != nil, "an error, since Behavior.PermanentWriteTimeout is declared", "none")
		return
	}
	t.expect(err == nil && m == len(all)-n, fmt.Sprintf("%d and no error", len(all)-n), "%d and %s", m, describeError(err))
	a.Close()
	t.wait(reading)
	t.equal(got, all)
}

// pendingOutOfTime has a Write run out of time while it sends what is pending. The
// caller may take its n, which is 0, for leave to go on.
func (t *connCheck) pendingOutOfTime() {
	const first, pending = 10_000, 16 << 20
	a, b := t.pair()
	all := pattern(pending + 10)
	var got []byte
	goOn := make(chan struct{})
	reading := t.spawn(func() {
		got = t.receive(b, first)
		select {
		case <-goOn:
		case <-t.ctx.Done():
			return
		}
		rest, _ := io.ReadAll(readerOf(b))
		got = append(got, rest...)
	})
	if a.SetWriteTimeout(30*time.Millisecond) != nil {
		return
	}
	t.writeBinary(a, all[:pending])
	n := 0
	var err error
	t.step("WriteBinary of 16 MiB, then Write of 10 bytes to a peer that reads %d, with a write timeout of 30ms", first)
	write := t.spawn(func() { n, err = a.Write(all[pending:]) })
	select {
	case <-write.done:
	case <-time.After(3 * time.Second):
		return // timeouts are the business of group T
	}
	if !looksLikeTimeout(err) {
		return
	}
	t.expect(n == 0, "a count of 0", "%d", n)
	close(goOn)
	t.noError(a.SetWriteTimeout(0))
	t.step("Write of 10 bytes again, after one that ran out of time in the 16 MiB that were pending")
	_, err = a.Write(all[pending:])
	a.Close()
	t.wait(reading)
	t.expect(bytes.HasPrefix(all, got), "a prefix of the output at the peer, whether that Write fails or not", "%s, after a Write with %s", describeBytes(got, all), describeError(err))
}
