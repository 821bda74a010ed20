package networktest

import (
	"bytes"
	"fmt"
	"io"
	"net"
	"runtime"
	"time"
	"weak"

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

func mallocsAreDisjoint(t *connCheck) {
	a, b := t.pair()
	stir := t.stirMemory()
	for range 2 { // the second time over what the first has left
		var bufs [][]byte
		var want []byte
		for i, n := range []int{1, 10, 4000, 100, 5000, usualBlock, 1, 70_000, 3, 3} {
			t.step("Malloc(%d), after others of %d bytes", n, len(want))
			p, err := a.Malloc(n)
			t.noError(err)
			t.expect(len(p) == n, fmt.Sprintf("%d bytes", n), "%d", len(p))
			bufs = append(bufs, p)
			want = append(want, bytes.Repeat([]byte{byte(i + 1)}, n)...)
			if i%3 == 2 {
				t.writeBinary(a, junk[:5000])
				want = append(want, junk[:5000]...)
			}
		}
		stir()
		// Backwards: where two share a place, the wrong one writes it last.
		for i := len(bufs) - 1; i >= 0; i-- {
			for j := range bufs[i] {
				bufs[i][j] = byte(i + 1)
			}
		}
		for i, p := range bufs {
			t.step("looking at the slice of Malloc %d, after all of them were filled", i+1)
			t.expect(bytes.Count(p, []byte{byte(i + 1)}) == len(p), "what was written to it", "what was written to another one")
		}
		got := t.collect(b, len(want))
		t.flush(a)
		t.step("receiving the Mallocs, which were filled when all had been made")
		t.equal(got(), want)
	}
}

func mallocsCapacity(t *connCheck) {
	a, b := t.pair()
	total := 0
	for range 2 {
		for _, n := range []int{1, 7, 100, 5000, 8, usualBlock - 1, usualBlock, usualBlock + 1, 100_000, 3} {
			t.step("Malloc(%d) with %d bytes pending", n, total)
			p, err := a.Malloc(n)
			t.noError(err)
			t.expect(cap(p) == n, fmt.Sprintf("the capacity %d", n), "%d", cap(p))
			total += n
		}
		got := t.collect(b, total)
		t.flush(a)
		got()
		total = 0
	}
}

func lateWritesToMalloc(t *connCheck) {
	a, b := t.pair()
	for _, n := range []int{10, usualBlock, 150_000} {
		want := pattern(n)
		flushed := make(chan struct{})
		var got []byte
		received := t.spawn(func() {
			// Late, but not for ever: without a buffer beneath, Flush needs a reader.
			select {
			case <-flushed:
				time.Sleep(time.Millisecond)
			case <-time.After(20 * time.Millisecond):
			}
			got = t.receive(b, n)
		})
		p := t.malloc(a, want)
		t.flush(a)
		clear(p)
		close(flushed)
		t.step("receiving the %d bytes of a Malloc that was written to again after Flush", n)
		t.wait(received)
		t.equal(got, want)
	}
}

func writeBinaryLeavesItsArgument(t *connCheck) {
	a, b := t.pair()
	var args keptSlices
	total := 0
	for _, n := range []int{1, 100, usualBlock - 1, usualBlock, 16 << 10, 100_000} {
		p := pattern(n)
		args.add(p, "WriteBinary(%d)", n)
		total += n
	}
	intact := func(after string) {
		for _, p := range args {
			t.step("looking at the argument of %s after %s", p.how, after)
			t.equal(p.got, p.want)
		}
	}
	got := t.collect(b, total)
	for _, p := range args {
		t.writeBinary(a, p.got)
	}
	intact("WriteBinary")
	t.flush(a)
	intact("Flush")
	got()

	b.Close()
	for range 50 {
		for _, p := range args {
			_, _ = a.WriteBinary(p.got)
		}
		t.step("Flush to a peer that has closed")
		if a.Flush() != nil {
			break
		}
	}
	intact("a Flush that failed")
	if !t.canWrap() {
		return
	}
	c, s := t.scripted()
	s.writes = []Step{{N: 5000, Err: io.ErrClosedPipe}}
	for _, p := range args {
		_, _ = c.WriteBinary(p.got)
	}
	_ = c.Flush()
	intact("a Flush that failed after 5000 bytes")
}

// lent is what A10 watches: too large for the allocator to put beside others, and
// long enough to be borrowed.
type lent [32 << 10]byte

func nothingIsRetained(t *connCheck) {
	// In a call of its own, so that no slice stays on the stack.
	write := func(c network.Conn) (watched []weak.Pointer[lent], err error) {
		for i := range 4 {
			b := new(lent)
			watched = append(watched, weak.Make(b))
			if _, err = c.WriteBinary(b[:]); err != nil {
				return watched, err
			}
			if i%2 == 0 {
				_, _ = c.WriteBinary(junk[:10])
			}
		}
		if err = c.Flush(); err != nil {
			return watched, err
		}
		b := new(lent)
		watched = append(watched, weak.Make(b))
		_, _ = c.WriteBinary(b[:])
		return watched, c.Flush()
	}
	forgotten := func(c network.Conn, watched []weak.Pointer[lent], after string) {
		t.step("looking for the arguments of %d WriteBinarys after %s and a garbage collection", len(watched), after)
		held := 0
		settles(func() bool {
			runtime.GC()
			held = 0
			for _, w := range watched {
				if w.Value() != nil {
					held++
				}
			}
			return held == 0
		})
		t.expect(held == 0, "none to be reachable", "%d of them", held)
		runtime.KeepAlive(c)
	}
	a, b := t.pair()
	discarded := t.discard(b)
	watched, err := write(a)
	t.noError(err)
	forgotten(a, watched, "Flush")
	b.Close()
	t.wait(discarded)
	for range 50 {
		if watched, err = write(a); err != nil {
			break
		}
	}
	forgotten(a, watched, fmt.Sprintf("a Flush to a peer that has closed, with the error %v", err))

	a, b = t.pair()
	t.discard(b)
	func() {
		p := new(lent)
		watched = []weak.Pointer[lent]{weak.Make(p)}
		t.writeBinary(a, p[:])
	}()
	a.Close()
	err = a.Flush()
	forgotten(a, watched, fmt.Sprintf("Close and a Flush with the error %v", err))
	if !t.canWrap() {
		return
	}
	for k := range 6 { // which of the writes fails
		c, s := t.scripted()
		for range k {
			s.writes = append(s.writes, Step{N: -1})
		}
		s.writes = append(s.writes, Step{N: 1, Err: io.ErrClosedPipe})
		watched, err = write(c)
		forgotten(c, watched, fmt.Sprintf("a Flush with the error %v at write %d", err, k+1))
		runtime.KeepAlive(s)
	}
}

func aroundTheCopyThreshold(t *connCheck) {
	a, b := t.pair()
	for size := 256; size <= 64<<10; size *= 2 {
		for _, n := range []int{size - 1, size, size + 1} {
			want := pattern(20 + 3*n)
			p := bytes.Clone(want)
			t.malloc(a, p[:10])
			for i := range 3 {
				t.writeBinary(a, p[10+i*n:10+(i+1)*n])
			}
			t.malloc(a, p[10+3*n:])
			got := t.collect(b, len(want))
			t.flush(a)
			clear(p)
			t.step("receiving three WriteBinary(%d) between two Malloc(10), which were overwritten after Flush", n)
			t.equal(got(), want)
		}
	}

	// Whether an argument is copied shows when it is changed before Flush, which
	// nobody else may do.
	changed := func(n int) (got, was, is []byte, cost int64) {
		was = pattern(n)
		is = bytes.Clone(was)
		cost = allocatedBy(func() { t.writeBinary(a, is) })
		for i := range is {
			is[i] ^= 0xFF
		}
		receive := t.collect(b, n)
		t.flush(a)
		return receive(), was, is, cost
	}
	const long = 4 << 20
	if t.behavior().CopiesWriteBinary {
		for _, n := range []int{10, usualBlock, 64 << 10, long} {
			got, was, _, _ := changed(n)
			t.step("receiving a WriteBinary(%d) that was changed before Flush, where CopiesWriteBinary is declared", n)
			t.equal(got, was)
		}
		return
	}
	got, was, is, cost := changed(long)
	t.step("WriteBinary(%d), where CopiesWriteBinary is not declared", long)
	t.expect(raceEnabled || cost < long/2, "no copy of the argument", "%d bytes were allocated", cost)
	t.expect(bytes.Equal(got, is), "no copy of the argument", "%s", func() string {
		if bytes.Equal(got, was) {
			return "one: a change between WriteBinary and Flush did not reach the peer"
		}
		return describeBytes(got, is)
	}())
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

func writeBinaryOfPeeked(t *connCheck) {
	const more = 100_000
	sizes := []int{10, usualBlock - 1, usualBlock, 20_000, 100_000}
	if t.short {
		sizes = []int{10, 20_000}
	}
	// Each way reads on by more bytes, or looks at them; it returns what it consumed.
	type way struct {
		name string
		do   func(c network.Conn) (int, error)
	}
	inSteps := func(step func() error) (n int, err error) {
		for ; n < more && err == nil; n += 1000 {
			err = step()
		}
		return n, err
	}
	ways := []way{
		{"nothing", func(network.Conn) (int, error) { return 0, nil }},
		{"Peek and Release", func(c network.Conn) (int, error) {
			_, err := c.Peek(more)
			_ = c.Release()
			return 0, err
		}},
		{"growing Peeks, each with a Release", func(c network.Conn) (_ int, err error) {
			for c.Len() < more && err == nil {
				_, err = c.Peek(c.Len() + 1)
				_ = c.Release()
			}
			return 0, err
		}},
		{"Peeks and Skips, each with a Release", func(c network.Conn) (int, error) {
			return inSteps(func() error {
				_, err := c.Peek(1000)
				if err == nil {
					err = c.Skip(1000)
				}
				_ = c.Release()
				return err
			})
		}},
		{"ReadBinary", func(c network.Conn) (int, error) { _, err := c.ReadBinary(more); return more, err }},
		{"Skip", func(c network.Conn) (int, error) { return skipBeyond(c, more) }},
		{"large Reads", func(c network.Conn) (int, error) { return io.ReadFull(readerOf(c), make([]byte, more)) }},
		{"small Reads", func(c network.Conn) (int, error) {
			return inSteps(func() error {
				_, err := io.ReadFull(readerOf(c), make([]byte, 1000))
				return err
			})
		}},
	}
	header := []byte("header")
	later := bytes.Repeat([]byte{0xEE}, more)
	stir := t.stirMemory()
	a, b := t.pair()
	for _, n := range sizes {
		want := pattern(n + 100)
		for _, way := range ways {
			t.feed(b, append(bytes.Clone(want), later...))
			p := t.peek(a, want[:n])
			t.malloc(a, header)
			t.writeBinary(a, p)
			t.writeBinary(a, p[n/3:]) // a part of it once more
			t.skip(a, n)
			q := t.peek(a, want[n:])
			t.writeBinary(a, q)
			t.skip(a, 100)
			t.release(a)
			t.step("reading on by %s after WriteBinary of the slice of Peek(%d), Skip and Release", way.name, n)
			consumed, err := way.do(a)
			t.noError(err)
			stir()
			wire := bytes.Join([][]byte{header, want[:n], want[n/3 : n], want[n:]}, nil)
			got := t.collect(b, len(wire))
			t.flush(a)
			t.step("receiving the slice of Peek(%d), given to WriteBinary and released before Flush; in between, what came next was read by %s", n, way.name)
			t.equal(got(), wire)
			t.receive(a, more-consumed)
		}
	}

	// The slice of memory that a larger Peek has outgrown since.
	for _, sizes := range [][2]int{{100, 20_000}, {usualBlock, 20_000}, {20_000, 300_000}} {
		want := pattern(sizes[1])
		t.feed(b, want[:sizes[0]])
		p := t.peek(a, want[:sizes[0]])
		t.feed(b, want[sizes[0]:])
		t.peek(a, want)
		t.writeBinary(a, p)
		t.skip(a, len(want))
		t.release(a)
		stir()
		got := t.collect(b, len(p))
		t.flush(a)
		t.step("receiving the slice of Peek(%d), given to WriteBinary after Peek(%d) and released before Flush", sizes[0], sizes[1])
		t.equal(got(), want[:sizes[0]])
	}
}
