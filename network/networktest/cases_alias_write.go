package networktest

import (
	"bytes"
	"fmt"
	"io"
	"runtime"
	"time"
	"weak"

	"github.com/hertznet/hertznet/network"
)

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
