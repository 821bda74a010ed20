package networktest

import (
	"bytes"
	"fmt"
	"io"
	"net"

	"github.com/hertznet/hertznet/network"
)

var aliasCases = []connCase{
	{"A1", 0, keptSlicesStay},
	{"A2", 0, appendToPeeked},
	{"A3", 0, writingBesideKeptSlices},
	{"A4", 0, othersBesideKeptSlices},
	{"A5", 0, closeWithHeldSlices},
	{"A6", 0, mallocsAreDisjoint},
	{"A7", 0, mallocsCapacity},
	{"A8", 0, lateWritesToMalloc},
	{"A9", 0, writeBinaryLeavesItsArgument},
	{"A10", 0, nothingIsRetained},
	{"A11", 0, aroundTheCopyThreshold},
	{"A12", 0, pAfterReadAndWrite},
	{"A13", 0, writeBinaryOfPeeked},
}

// junk is what other data is made of, that it shows where it does not belong.
var junk = bytes.Repeat([]byte{0xEE}, 70_000)

// keptSlice is a slice from Peek and what it must still show.
type keptSlice struct {
	got, want []byte
	how       string
}

// keptSlices are the slices that were Peeked since the last Release.
type keptSlices []keptSlice

func (h *keptSlices) add(p []byte, how string, args ...any) {
	*h = append(*h, keptSlice{p, bytes.Clone(p), fmt.Sprintf(how, args...)})
}

// unchanged ends the check unless the slices are what they were. after names what
// was done since.
func (t *connCheck) unchanged(h keptSlices, after string, args ...any) {
	for _, s := range h {
		if !bytes.Equal(s.got, s.want) {
			t.step("looking at the slice of %s; since then came %s, and no Release", s.how, fmt.Sprintf(after, args...))
			t.equal(s.got, s.want)
		}
	}
}

// stirMemory returns a function that passes junk through other connections of the
// implementation, so that memory which has come back to a pool too early is
// written over. What it meets itself is the business of other clauses.
func (t *connCheck) stirMemory() func() {
	x, y := t.pair()
	return func() {
		for _, n := range []int{100, usualBlock, 20_000, 40_000, len(junk)} {
			t.feed(y, junk[:n])
			if p, err := x.Peek(n); err != nil || len(p) != n {
				return
			}
			_ = x.Skip(n)
			p, _ := x.Malloc(n)
			copy(p, junk)
			got := t.collect(y, len(p))
			_ = x.Flush()
			got()
			_ = x.Release()
		}
	}
}

// collect reads n bytes from b in a goroutine and returns a function that waits
// for them.
func (t *connCheck) collect(b net.Conn, n int) func() []byte {
	var p []byte
	o := t.spawn(func() { p = t.receive(b, n) })
	return func() []byte {
		t.wait(o)
		return p
	}
}

// discard reads from b to the end.
func (t *connCheck) discard(b net.Conn) *op {
	return t.spawn(func() { _, _ = io.Copy(io.Discard, readerOf(b)) })
}

// consumer is a way to go on in a stream: do returns how many bytes it consumed,
// of ask(buffered) or fewer that come. More may have come since buffered was asked
// for, where something reads in the background.
type consumer struct {
	name string
	ask  func(buffered int) int
	do   func(c network.Conn, buffered int) (int, error)
}

var consumers = []consumer{
	{"Peek(1)", func(n int) int { return 1 }, func(c network.Conn, n int) (int, error) { _, err := c.Peek(1); return 0, err }},
	{"Peek(Len()+1)", func(n int) int { return n + 1 }, func(c network.Conn, n int) (int, error) { _, err := c.Peek(n + 1); return 0, err }},
	{"Peek(Len()+10000)", func(n int) int { return n + 10_000 }, func(c network.Conn, n int) (int, error) { _, err := c.Peek(n + 10_000); return 0, err }},
	{"Skip(1)", func(n int) int { return n }, func(c network.Conn, n int) (int, error) { n = min(1, n); return n, c.Skip(n) }},
	{"Skip(Len())", func(n int) int { return n }, func(c network.Conn, n int) (int, error) { return n, c.Skip(n) }},
	{"Skip(Len()+5000)", func(n int) int { return n + 5000 }, func(c network.Conn, n int) (int, error) { return skipBeyond(c, n+5000) }},
	{"ReadByte", func(n int) int { return 1 }, func(c network.Conn, n int) (int, error) { _, err := c.ReadByte(); return 1, err }},
	{"ReadBinary(Len()+700)", func(n int) int { return n + 700 }, func(c network.Conn, n int) (int, error) { _, err := c.ReadBinary(n + 700); return n + 700, err }},
	{"Read of 100 bytes", func(n int) int { return 1 }, func(c network.Conn, n int) (int, error) { return c.Read(make([]byte, 100)) }},
	{"Read of 8 KiB", func(n int) int { return 1 }, func(c network.Conn, n int) (int, error) { return c.Read(make([]byte, 8<<10)) }},
}

// skipBeyond skips n bytes and returns n, or 0 where Skip does not go beyond the
// buffer: that is the business of R15.
func skipBeyond(c network.Conn, n int) (int, error) {
	before := c.Len()
	if err := c.Skip(n); err == nil || c.Len() != before {
		return n, err
	}
	return 0, nil
}

func keptSlicesStay(t *connCheck) {
	a, b := t.pair()
	stream := t.pump(b)
	var held keptSlices
	consume := func(o consumer, before string) {
		buffered := a.Len()
		stream.ask(o.ask(buffered))
		t.step("%s, after %s", o.name, before)
		n, err := o.do(a, buffered)
		t.noError(err)
		stream.skip(n)
		t.unchanged(held, "%s, after %s", o.name, before)
	}
	peek := func(n int, how string) {
		want := stream.next(n)
		t.step("Peek(%d) %s", n, how)
		p, err := a.Peek(n)
		t.noError(err)
		t.equal(p, want)
		held.add(p, "Peek(%d) %s", n, how)
	}
	for _, sizes := range [][]int{{1}, {1, 100, usualBlock, 10_000}} {
		for _, first := range consumers {
			for _, second := range consumers {
				how := fmt.Sprintf("Peek of %v bytes", sizes)
				for _, n := range sizes {
					peek(n, "after Release and smaller Peeks")
				}
				consume(first, how)
				peek(50, "after "+first.name)
				how += ", " + first.name + ", Peek(50)"
				consume(second, how)
				peek(50, "after "+second.name)
				how += ", " + second.name + ", Peek(50)"
				consume(first, how)
				t.release(a)
				held = held[:0]
			}
		}
	}
	readsBesideKeptSlices(t)
}

// readsBesideKeptSlices has Read empty what is buffered, and go on: memory that it gives
// back too early is soon filled with what comes next.
func readsBesideKeptSlices(t *connCheck) {
	const peeked, size = 3000, 30_000
	for range 20 {
		a, b := t.pair()
		stream := t.pump(b)
		var held keptSlices
		want := stream.next(peeked)
		t.step("Peek(%d)", peeked)
		p, err := a.Peek(peeked)
		t.noError(err)
		t.equal(p, want)
		held.add(p, "Peek(%d)", peeked)
		for round := range 3 {
			stream.ask(2 * size)
			t.step("Read of %d bytes in all, round %d, after Peek(%d)", size, round+1, peeked)
			for buf := make([]byte, size); len(buf) > 0; {
				n, err := a.Read(buf)
				t.noError(err)
				buf = buf[n:]
				stream.skip(n)
			}
			t.unchanged(held, "Read of %d bytes in all, %d times, after Peek(%d)", size, round+1, peeked)
		}
		t.release(a)
		a.Close()
	}
}

func appendToPeeked(t *connCheck) {
	data := pattern(10_000)
	a, _ := t.buffered(data)
	for _, n := range []int{1, 100, usualBlock, len(data) - 1} {
		p := t.peek(a, data[:n])
		t.step("appending to the slice of Peek(%d), with 10000 bytes buffered", n)
		_ = append(p, "overwritten"...)
		q, err := a.Peek(len(data))
		t.noError(err)
		t.equal(q, data)
	}
	t.equal(t.receive(a, len(data)), data)
}

func writingBesideKeptSlices(t *connCheck) {
	data := pattern(50_000)
	a, b := t.buffered(data)
	var held keptSlices
	for _, n := range []int{100, usualBlock, len(data)} {
		held.add(t.peek(a, data[:n]), "Peek(%d)", n)
	}
	t.discard(b)
	for range 5 {
		for _, n := range []int{10, 3000, usualBlock, 30_000} {
			t.malloc(a, junk[:n])
			t.writeBinary(a, junk[:n])
			t.unchanged(held, "Malloc and WriteBinary of %d bytes", n)
			t.flush(a)
			t.unchanged(held, "Malloc, WriteBinary and Flush of %d bytes", n)
			t.step("Write of %d bytes", n)
			_, err := a.Write(junk[:n])
			t.noError(err)
			t.unchanged(held, "Write of %d bytes", n)
		}
		t.skip(a, 100)
	}
	t.skip(a, a.Len())
	t.malloc(a, junk)
	t.flush(a)
	t.unchanged(held, "Skip of all, Malloc and Flush of %d bytes", len(junk))
}

// A4: half of the holders hold slices of memory that they have outgrown.
func othersBesideKeptSlices(t *connCheck) {
	holders, rounds := 8, 3
	if t.short {
		holders, rounds = 4, 1
	}
	data := pattern(300_000)
	var held keptSlices
	for i := range holders {
		a, b := t.pair()
		t.feed(b, data)
		at := 0
		var own [][]byte
		for _, n := range []int{1 + 100*i, usualBlock + i, 20_000 + i, 100_000} {
			own = append(own, t.peek(a, data[at:at+n]))
			switch i % 4 {
			case 1: // half is consumed
				t.skip(a, n/2)
				at += n / 2
			case 3: // all is
				t.skip(a, n)
				at += n
			}
		}
		for _, p := range own { // what the connection itself has spoiled is the business of A1
			held.add(p, "Peek(%d) on connection %d", len(p), i)
		}
	}
	var pumps []*op
	for range 2 {
		x, y := t.pair()
		pumps = append(pumps, t.spawn(func() {
			for range rounds {
				for n := 1; n < len(junk); n = n*3 + 1 {
					p, _ := y.Malloc(n)
					copy(p, junk)
					_, _ = y.WriteBinary(junk[:n])
					_ = y.Flush()
				}
			}
			y.Close()
		}), t.spawn(func() {
			for n := 1; ; n = n%30_000*3 + 1 {
				p, err := x.Peek(n)
				_ = x.Skip(len(p))
				_ = x.Release()
				if err != nil {
					return
				}
			}
		}))
	}
	t.step("passing data through two other connections")
	for _, o := range pumps {
		t.wait(o)
	}
	t.stirMemory()()
	t.unchanged(held, "other connections' traffic")
}

func closeWithHeldSlices(t *connCheck) {
	data := pattern(40_000)
	stir := t.stirMemory()
	for _, who := range []string{"Close", "the peer's Close", "Close by both sides"} {
		for _, consumed := range []int{0, 5000, len(data)} {
			if consumed > 0 && who != "Close" {
				continue // to see the peer's is to read on, which is the business of A1
			}
			a, b := t.pair()
			var held keptSlices
			t.feed(b, data[:100]) // what memory it has for these is soon outgrown
			held.add(t.peek(a, data[:100]), "Peek(100), before more came")
			t.feed(b, data[100:])
			t.peek(a, data)
			for _, n := range []int{10, 5000, len(data)} {
				held.add(t.peek(a, data[:n]), "Peek(%d)", n)
			}
			t.skip(a, consumed)
			if who != "Close" {
				b.Close()
				t.step("reading to the end")
				_, _ = a.Peek(a.Len() + 1)
			}
			if who != "the peer's Close" {
				a.Close()
			}
			stir()
			t.unchanged(held, "%s with %d bytes consumed", who, consumed)
			_ = a.Release()
		}
	}
}

func pAfterReadAndWrite(t *connCheck) {
	for _, n := range []int{1, 100, usualBlock, 64 << 10} {
		a, b := t.pair()
		p := make([]byte, n)
		t.step("SetReadTimeout(%v)", shortWait)
		t.noError(a.SetReadTimeout(shortWait))
		t.step("Read of %d bytes when none come, after SetReadTimeout(%v)", n, shortWait)
		m, err := a.Read(p)
		t.expect(m == 0 && err != nil, "a timeout", "%d bytes and %s", m, describeError(err))
		t.step("SetReadTimeout(0)")
		t.noError(a.SetReadTimeout(0))
		data := pattern(n)
		t.feed(b, data)
		t.step("receiving %d bytes after a Read that timed out", n)
		got := t.receive(a, n)
		t.step("looking at p of a Read of %d bytes that timed out, after as many bytes came", n)
		t.equal(p, make([]byte, n))
		if len(got) == 0 {
			continue // the business of T2
		}
		// And after a Read that did not fail.
		t.feed(b, junk[:9000])
		t.step("Read of 5000 bytes with 9000 to come")
		q := make([]byte, 5000)
		m, err = a.Read(q)
		t.noError(err)
		want := bytes.Clone(q)
		t.receive(a, 9000-m)
		t.step("looking at p of a Read of 5000 bytes, after others")
		t.equal(q, want)
	}

	a, b := t.pair()
	for _, n := range []int{1, 100, usualBlock, 100_000} {
		want := pattern(n)
		p := bytes.Clone(want)
		got := t.collect(b, n)
		t.step("Write of %d bytes", n)
		_, err := a.Write(p)
		t.noError(err)
		clear(p)
		t.step("receiving the %d bytes of a Write whose p was cleared after it", n)
		t.equal(got(), want)
	}
	// When time runs out, what arrives later is what p was.
	want := pattern(16 << 20)
	p := bytes.Clone(want)
	t.step("SetWriteTimeout(%v)", 2*shortWait)
	t.noError(a.SetWriteTimeout(2 * shortWait))
	t.step("Write of 16 MiB to a peer that does not read, after SetWriteTimeout(%v)", 2*shortWait)
	_, _ = a.Write(p)
	clear(p)
	closed := t.spawn(func() { a.Close() })
	got := t.receive(b, len(want))
	t.wait(closed)
	t.step("receiving what was sent of a Write that timed out and whose p was cleared after it")
	t.equal(got, want[:len(got)])
}
