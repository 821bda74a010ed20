package standard

import (
	"bytes"
	"fmt"
	"io"
	"math"
	"math/rand/v2"
	"net"
	"runtime"
	"sync"
	"testing"
	"time"
	"weak"
)

// held is a slice from Peek and what it must still show.
type held struct {
	got, want []byte
	how       string
}

// hold keeps b together with a copy of it.
func hold(how string, b []byte) held { return held{b, bytes.Clone(b), how} }

func checkHeld(t testing.TB, after string, all []held) {
	t.Helper()
	for _, h := range all {
		sameBytes(t, fmt.Sprintf("a slice of %s after %s", h.how, after), h.got, h.want)
	}
}

// feed writes p so many times to nc in the background, in pieces of no regular
// size.
func feed(nc net.Conn, p []byte, times int) {
	go func() {
		r := rand.New(rand.NewPCG(1, 2))
		for ; times > 0; times-- {
			for rest := p; len(rest) > 0; {
				n := min(len(rest), 1+r.IntN(9000))
				if _, err := nc.Write(rest[:n]); err != nil {
					return
				}
				rest = rest[n:]
			}
		}
	}()
}

// stir makes other conns use the blocks of every pool, so that one which came back
// too early is written over.
func stir(t testing.TB) {
	t.Helper()
	junk := bytes.Repeat([]byte{0xEE}, maxPooledSize)
	var blocks []*block
	for size := minBlockSize; size <= maxPooledSize; size *= 2 {
		for range 3 {
			b := getBlock(size)
			copy(b.buf, junk)
			blocks = append(blocks, b)
		}
	}
	for _, b := range blocks {
		b.drop()
	}
	for _, size := range []int{100, borrowFrom, 20 << 10} {
		sink := new(scriptConn)
		sink.reads = []step{{data: junk[:size]}}
		c := NewConn(sink)
		p, err := c.Malloc(size)
		if err != nil {
			t.Fatal(err)
		}
		copy(p, junk)
		if _, err := c.Peek(size); err != nil {
			t.Fatal(err)
		}
		mustFlush(t, c)
		if err := c.Skip(size); err != nil {
			t.Fatal(err)
		}
		_ = c.Release()
	}
}

// A1: a slice from Peek stays as it is whatever is read after it, until Release.
func TestA1_HeldSlicesStayUntilRelease(t *testing.T) {
	ops := []struct {
		name string
		do   func(c *Conn) (int, error) // how many bytes it passed over
	}{
		{"Peek", func(c *Conn) (int, error) { _, err := c.Peek(1); return 0, err }},
		{"a larger Peek", func(c *Conn) (int, error) { _, err := c.Peek(c.Len() + 1); return 0, err }},
		{"a much larger Peek", func(c *Conn) (int, error) { _, err := c.Peek(c.Len() + 10_000); return 0, err }},
		{"Skip", func(c *Conn) (int, error) { return 3, c.Skip(3) }},
		{"Skip past the buffer", func(c *Conn) (int, error) { n := c.Len() + 5000; return n, c.Skip(n) }},
		{"Skip of all", func(c *Conn) (int, error) { n := c.Len(); return n, c.Skip(n) }},
		{"ReadByte", func(c *Conn) (int, error) { _, err := c.ReadByte(); return 1, err }},
		{"ReadBinary", func(c *Conn) (int, error) { n := c.Len() + 700; _, err := c.ReadBinary(n); return n, err }},
		{"Read", func(c *Conn) (int, error) { return c.Read(make([]byte, 100)) }},
		{"a large Read", func(c *Conn) (int, error) { return c.Read(make([]byte, 2*minBlockSize)) }},
	}
	const period = 1 << 20
	stream := pattern(period)
	stream = append(stream, stream[:16<<10]...)
	eachPair(t, func(t *testing.T, a, b *Conn) {
		defer a.Close()
		feed(a.NetConn(), stream[:period], math.MaxInt)
		at := 0
		for _, sizes := range [][]int{{1}, {1, 100, minBlockSize, 10_000}} {
			for _, first := range ops {
				for _, second := range ops {
					var all []held
					for _, size := range sizes {
						p, err := b.Peek(size)
						if err != nil {
							t.Fatal(err)
						}
						sameBytes(t, "Peek", p, stream[at:at+size])
						all = append(all, hold(fmt.Sprintf("%d bytes", size), p))
					}
					for _, op := range []struct {
						name string
						do   func(*Conn) (int, error)
					}{first, second, first} {
						n, err := op.do(b)
						if err != nil {
							t.Fatalf("%s: %v", op.name, err)
						}
						at = (at + n) % period
						checkHeld(t, op.name, all)
						if p, _ := b.Peek(min(b.Len(), 50)); len(p) > 0 {
							sameBytes(t, "the stream after "+op.name, p, stream[at:at+len(p)])
							all = append(all, hold("what was next after "+op.name, p))
						}
					}
					_ = b.Release()
				}
			}
			stir(t)
		}
	})
}

// A2: a Peeked slice has no capacity beyond its length, so appending to it cannot
// reach the stream.
func TestA2_AppendCannotReachTheStream(t *testing.T) {
	stream := pattern(10_000)
	eachPair(t, func(t *testing.T, a, b *Conn) {
		feed(a.NetConn(), stream, 1)
		if _, err := b.Peek(len(stream)); err != nil {
			t.Fatal(err)
		}
		for _, n := range []int{1, 100, minBlockSize, len(stream) - 1} {
			p, err := b.Peek(n)
			if err != nil || cap(p) != n {
				t.Fatalf("Peek(%d): cap %d, %v", n, cap(p), err)
			}
			_ = append(p, "overwritten"...)
			_ = append(p[:0:n], p...)
		}
		rest, err := b.ReadBinary(len(stream))
		if err != nil {
			t.Fatal(err)
		}
		sameBytes(t, "stream", rest, stream)
	})
}

// A3: writing on the same conn does not touch a Peeked slice.
func TestA3_WritingDoesNotTouchHeldSlices(t *testing.T) {
	stream := pattern(50_000)
	eachPair(t, func(t *testing.T, a, b *Conn) {
		go func() { _, _ = io.Copy(io.Discard, a.NetConn()) }()
		feed(a.NetConn(), stream, 1)
		p, err := b.Peek(len(stream) / 2)
		if err != nil {
			t.Fatal(err)
		}
		all := []held{hold("the stream", p)}
		junk := bytes.Repeat([]byte{0xEE}, 30_000)
		for range 20 {
			for _, n := range []int{10, 3000, minBlockSize, len(junk)} {
				put(t, b, junk[:n])
				add(t, b, junk[:n])
				checkHeld(t, "Malloc and WriteBinary", all)
				mustFlush(t, b)
				checkHeld(t, "Flush", all)
				if _, err := b.Write(junk[:n]); err != nil {
					t.Fatal(err)
				}
				if _, err := b.ReadFrom(bytes.NewReader(junk[:n])); err != nil {
					t.Fatal(err)
				}
				checkHeld(t, "Write and ReadFrom", all)
			}
		}
		b.Close()
	})
}

// A4: other conns that pump data do not touch a Peeked slice: no block is in two
// hands. Half of the conns hold slices of blocks that they have outgrown.
func TestA4_OtherConnsDoNotTouchHeldSlices(t *testing.T) {
	const holders, pumps = 24, 4
	stream := pattern(300_000)
	var all []held
	var conns []*Conn
	for i := range holders {
		a, b := sockets[i%2].pair(t)
		feed(a, stream, 1)
		c := NewConn(b)
		for _, n := range []int{1 + 100*i, minBlockSize + i, 20_000 + i, 100_000} {
			p, err := c.Peek(n)
			if err != nil {
				t.Fatal(err)
			}
			all = append(all, hold(fmt.Sprintf("conn %d", i), p))
			if i%2 == 0 {
				if err := c.Skip(n / 2); err != nil {
					t.Fatal(err)
				}
			}
		}
		conns = append(conns, c)
	}
	var wg sync.WaitGroup
	for i := range pumps {
		x, y := sockets[i%2].pair(t)
		a, b := NewConn(x), NewConn(y)
		junk := bytes.Repeat([]byte{byte(i)}, 200_000)
		wg.Go(func() {
			for n := 1; n < len(junk); n = n*3 + 1 {
				for range 3 {
					add(t, a, junk[:n/2])
					put(t, a, junk[n/2:n])
					if err := a.Flush(); err != nil {
						t.Errorf("pump: %v", err)
						return
					}
				}
			}
			a.Close()
		})
		wg.Go(func() {
			for n := 1; ; n = n%50_000*2 + 1 {
				p, err := b.Peek(n)
				if len(bytes.Trim(p, string(byte(i)))) > 0 {
					t.Error("a pump got bytes of another conn")
				}
				_ = b.Skip(len(p))
				_ = b.Release()
				if err != nil {
					return
				}
			}
		})
	}
	wg.Wait()
	stir(t)
	checkHeld(t, "other conns' traffic", all)
	for _, c := range conns {
		_ = c.Release()
	}
}

// A5: neither side's Close recycles what a Peeked slice points to.
func TestA5_CloseDoesNotRecycleHeldSlices(t *testing.T) {
	stream := pattern(40_000)
	for _, who := range []string{"own side", "peer", "both"} {
		t.Run(who, func(t *testing.T) {
			eachPair(t, func(t *testing.T, a, b *Conn) {
				feed(a.NetConn(), stream, 1)
				var all []held
				for _, n := range []int{10, 5000, len(stream)} {
					p, err := b.Peek(n)
					if err != nil {
						t.Fatal(err)
					}
					all = append(all, hold(fmt.Sprintf("%d bytes", n), p))
				}
				if who != "own side" {
					a.Close()
					if _, err := b.Peek(len(stream) + 1); err != io.EOF {
						t.Fatalf("Peek past the end: %v", err)
					}
				}
				if who != "peer" {
					b.Close()
				}
				stir(t)
				checkHeld(t, "Close", all)
				if err := b.Skip(len(stream)); err != nil {
					t.Fatal(err)
				}
				stir(t)
				checkHeld(t, "Close and Skip", all)
				_ = b.Release()
			})
		})
	}
}

// A6: Mallocs are disjoint, and an earlier one stays writable until Flush.
func TestA6_MallocsAreDisjointAndStayWritable(t *testing.T) {
	eachPair(t, func(t *testing.T, a, b *Conn) {
		sizes := []int{1, 10, 4000, 100, 5000, minBlockSize, 1, 70_000, 3, 3}
		var want []byte
		var bufs [][]byte
		for i, n := range sizes {
			p, err := a.Malloc(n)
			if err != nil || len(p) != n {
				t.Fatalf("Malloc(%d): %d bytes, %v", n, len(p), err)
			}
			bufs = append(bufs, p)
			want = append(want, bytes.Repeat([]byte{byte(i + 1)}, n)...)
			if i%3 == 2 { // a borrowed piece between them
				q := bytes.Repeat([]byte{0xFF}, borrowFrom)
				add(t, a, q)
				want = append(want, q...)
			}
		}
		stir(t)
		// Backwards, the last bytes written to a place that two share would be
		// the wrong ones.
		for i := len(bufs) - 1; i >= 0; i-- {
			for j := range bufs[i] {
				bufs[i][j] = byte(i + 1)
			}
		}
		got := collect(b, len(want))
		mustFlush(t, a)
		sameBytes(t, "wire", <-got, want)
	})
}

// A6: the memory of a Malloc is the caller's until its own Flush, even when
// another goroutine closes the connection in between: no other conn gets it.
func TestA6_CloseElsewhereDoesNotRecycleMallocs(t *testing.T) {
	for _, after := range []struct {
		name string
		do   func(c *Conn)
	}{
		{"Malloc", func(c *Conn) { _, _ = c.Malloc(10) }},
		{"WriteBinary", func(c *Conn) { _, _ = c.WriteBinary([]byte("x")) }},
	} {
		t.Run(after.name, func(t *testing.T) {
			c := NewConn(new(scriptConn))
			small, _ := c.Malloc(100)
			large, _ := c.Malloc(20_000)
			copy(small, pattern(100))
			copy(large, pattern(20_000))
			c.Close()
			after.do(c)
			stir(t)
			sameBytes(t, "a small Malloc", small, pattern(100))
			sameBytes(t, "a large Malloc", large, pattern(20_000))
			_ = c.Flush()
		})
	}
}

// A7: the capacity of a Malloc is its length: appending to it cannot reach the
// next one.
func TestA7_MallocsCapacityIsClipped(t *testing.T) {
	sink := new(scriptConn)
	c := NewConn(sink)
	want := pattern(3 * 5000)
	var bufs [][]byte
	for range 3 {
		p, err := c.Malloc(5000)
		if err != nil || cap(p) != 5000 {
			t.Fatalf("Malloc(5000): cap %d, %v", cap(p), err)
		}
		bufs = append(bufs, p)
	}
	q, _ := c.Malloc(7)
	r, _ := c.Malloc(8)
	if cap(q) != 7 || cap(r) != 8 {
		t.Fatalf("Malloc(7), Malloc(8): caps %d, %d", cap(q), cap(r))
	}
	for i, p := range bufs {
		copy(p, want[i*5000:])
	}
	copy(r, "the next")
	_ = append(q[:0], "the one plus too much"...)
	copy(q, "the one")
	for i := len(bufs) - 1; i >= 0; i-- {
		_ = append(bufs[i], "too much"...)
	}
	mustFlush(t, c)
	sameBytes(t, "wire", sink.wire, append(want, "the onethe next"...))
}

// A8: a late write into a Malloc after its Flush does not reach the wire.
func TestA8_LateWritesDoNotReachTheWire(t *testing.T) {
	run := func(t *testing.T, a, b *Conn) {
		for _, n := range []int{10, minBlockSize, 150_000} {
			want := pattern(n)
			got := make(chan []byte, 1)
			go func() { // reads only what was flushed, and late
				_, _ = b.Peek(1)
				p, _ := b.ReadBinary(n)
				got <- p
			}()
			p, err := a.Malloc(n)
			if err != nil {
				t.Fatal(err)
			}
			copy(p, want)
			mustFlush(t, a)
			clear(p)
			sameBytes(t, "wire", <-got, want)
		}
	}
	eachPair(t, run)
	t.Run("tls", func(t *testing.T) {
		a, b := secureEnds(t, nil)
		run(t, &a.Conn, &b.Conn)
	})
}

// A9: WriteBinary and Flush never modify what they are given, not even over TLS
// and not when they fail.
func TestA9_WriteBinaryDoesNotModifyItsArgument(t *testing.T) {
	check := func(t *testing.T, a, b *Conn) {
		sizes := []int{1, borrowFrom - 1, borrowFrom, 16 << 10, 100_000}
		var all []held
		total := 0
		for _, n := range sizes {
			all = append(all, hold("WriteBinary", pattern(n)))
			total += n
		}
		got := collect(b, total)
		for _, h := range all {
			add(t, a, h.got)
			checkHeld(t, "WriteBinary", all)
		}
		mustFlush(t, a)
		checkHeld(t, "Flush", all)
		<-got
		b.Close()
		a.SetWriteTimeout(time.Second)
		for range 100 {
			for _, h := range all {
				_, _ = a.WriteBinary(h.got)
			}
			if a.Flush() != nil {
				checkHeld(t, "a failed Flush", all)
				return
			}
		}
		t.Error("Flush to a closed peer never failed")
	}
	eachPair(t, check)
	t.Run("tls", func(t *testing.T) {
		a, b := secureEnds(t, nil)
		check(t, &a.Conn, &b.Conn)
	})
}

// lent is what A10 watches: too large for the tiny allocator, and borrowed.
type lent [2 * borrowFrom]byte

// A10: once Flush has returned, the conn has forgotten what WriteBinary and Write
// were given, whether it succeeded or failed: the memory can be collected.
func TestA10_NothingIsRetainedAfterFlush(t *testing.T) {
	small := pattern(10)
	write := func(c *Conn) (watch []weak.Pointer[lent], err error) {
		for i := range 5 { // several pieces: one of many is as good as one alone
			b := new(lent)
			watch = append(watch, weak.Make(b))
			if _, err = c.WriteBinary(b[:]); err != nil {
				return watch, err
			}
			if i%2 == 0 {
				if _, err = c.WriteBinary(small); err != nil {
					return watch, err
				}
			}
		}
		if err = c.Flush(); err != nil {
			return watch, err
		}
		one := new(lent)
		watch = append(watch, weak.Make(one))
		if _, err = c.WriteBinary(one[:]); err != nil {
			return watch, err
		}
		if err = c.Flush(); err != nil {
			return watch, err
		}
		p := new(lent)
		watch = append(watch, weak.Make(p))
		_, err = c.Write(p[:])
		return watch, err
	}
	collectable := func(t *testing.T, c *Conn, watch []weak.Pointer[lent]) {
		t.Helper()
		settles(t, "slices that are still held", 0, func() (n int) {
			runtime.GC()
			for _, w := range watch {
				if w.Value() != nil {
					n++
				}
			}
			return n
		})
		runtime.KeepAlive(c)
	}
	run := func(t *testing.T, a, b *Conn) {
		go func() {
			// One round, and then the peer stops reading.
			_, _ = io.ReadFull(b, make([]byte, 7*len(lent{})+3*len(small)))
		}()
		watch, err := write(a)
		if err != nil {
			t.Fatal(err)
		}
		collectable(t, a, watch)
		_ = a.SetWriteTimeout(10 * time.Millisecond)
		for err == nil {
			watch, err = write(a)
		}
		collectable(t, a, watch)
	}
	eachPair(t, run)
	t.Run("tls", func(t *testing.T) {
		a, b := secureEnds(t, nil)
		run(t, &a.Conn, &b.Conn)
	})
	onSinks(t, func(t *testing.T, open func(...step) (*Conn, *scriptConn)) {
		// The first, a middle and the last piece fail.
		for k := range 8 {
			script := make([]step, k)
			for i := range script {
				script[i].n = -1
			}
			c, sink := open(append(script, step{n: 1, err: io.ErrClosedPipe})...)
			watch, _ := write(c)
			collectable(t, c, watch)
			runtime.KeepAlive(sink)
		}
		c, _ := open()
		b := new(lent)
		w := weak.Make(b)
		add(t, c, b[:])
		c.Close()
		if err := c.Flush(); err == nil {
			t.Error("Flush after Close succeeded")
		}
		collectable(t, c, []weak.Pointer[lent]{w})
	})
}

// A11: on both sides of the size from which WriteBinary borrows, the bytes and
// their order are the same; below, the slice is free at once.
func TestA11_BothSidesOfTheCopyThreshold(t *testing.T) {
	eachPair(t, func(t *testing.T, a, b *Conn) {
		for _, n := range []int{borrowFrom - 2, borrowFrom - 1, borrowFrom, borrowFrom + 1} {
			want := pattern(3*n + 20)
			p := bytes.Clone(want)
			put(t, a, want[:10])
			for i := range 3 {
				q := p[10+i*n : 10+(i+1)*n]
				add(t, a, q)
				if n < borrowFrom {
					clear(q)
				}
			}
			put(t, a, want[10+3*n:])
			got := collect(b, len(want))
			mustFlush(t, a)
			sameBytes(t, fmt.Sprintf("pieces of %d bytes", n), <-got, want)
			clear(p)
		}
	})
}

// A12: Read does not touch p after it has returned, not even when it ran out of
// time and the bytes come later.
func TestA12_ReadDoesNotTouchPAfterwards(t *testing.T) {
	run := func(t *testing.T, a, b *Conn) {
		for _, n := range []int{1, 100, minBlockSize, 64 << 10} {
			p := make([]byte, n)
			if err := b.SetReadTimeout(time.Millisecond); err != nil {
				t.Fatal(err)
			}
			if k, err := b.Read(p); k != 0 || !isTimeout(err) {
				t.Fatalf("Read: %d, %v", k, err)
			}
			_ = b.SetReadTimeout(0)
			sent := bytes.Repeat([]byte{0xEE}, n)
			done := make(chan error, 1)
			go func() { _, err := a.Write(sent); done <- err }()
			q := make([]byte, n)
			if _, err := io.ReadFull(b, q); err != nil {
				t.Fatal(err)
			}
			if err := <-done; err != nil {
				t.Fatal(err)
			}
			sameBytes(t, "what came late", q, sent)
			sameBytes(t, "p of the Read that ran out of time", p, make([]byte, n))
		}
		// And after success: the next bytes go elsewhere.
		p := make([]byte, 5000)
		go func() { _, _ = a.Write(bytes.Repeat([]byte{1}, 9000)) }()
		k, err := b.Read(p)
		if err != nil {
			t.Fatal(err)
		}
		want := bytes.Clone(p)
		for at := k; at < 9000; {
			n, err := b.Read(make([]byte, 5000))
			if err != nil {
				t.Fatal(err)
			}
			at += n
		}
		sameBytes(t, "p of the first Read", p, want)
	}
	eachPair(t, run)
	t.Run("tls", func(t *testing.T) {
		a, b := secureEnds(t, nil)
		run(t, &a.Conn, &b.Conn)
	})
}

// A12: neither does Write look at p after it has returned: when it ran out of
// time, what the peer reads later is what p was.
func TestA12_WriteDoesNotReadPAfterwards(t *testing.T) {
	run := func(t *testing.T, a, b *Conn) {
		want := pattern(16 << 20)
		p := bytes.Clone(want)
		_ = a.SetWriteTimeout(10 * time.Millisecond)
		n, err := a.Write(p)
		if !isTimeout(err) || n >= len(p) {
			t.Fatalf("Write: %d, %v", n, err)
		}
		clear(p)
		a.Close()
		got, _ := io.ReadAll(b)
		if len(got) < n {
			t.Fatalf("the peer read %d bytes of %d", len(got), n)
		}
		sameBytes(t, "wire", got, want[:len(got)])
	}
	eachPair(t, run)
	t.Run("tls", func(t *testing.T) {
		a, b := secureEnds(t, nil)
		run(t, &a.Conn, &b.Conn)
	})
}

// A13: a Peeked slice may be given to WriteBinary and released before the Flush:
// what is read meanwhile does not change what is sent.
func TestA13_WriteBinaryOfAPeekedSlice(t *testing.T) {
	more := bytes.Repeat([]byte{0xEE}, 300_000)
	for _, n := range []int{10, borrowFrom - 1, borrowFrom, 20_000, 100_000} {
		for _, next := range []struct {
			name string
			do   func(t *testing.T, c *Conn)
		}{
			{"nothing", func(*testing.T, *Conn) {}},
			{"Peek", func(t *testing.T, c *Conn) { _, _ = c.Peek(len(more)) }},
			{"Peek and Release", func(t *testing.T, c *Conn) {
				for c.Len() < len(more) {
					_, _ = c.Peek(c.Len() + 1)
					_ = c.Release()
				}
			}},
			{"Skip", func(t *testing.T, c *Conn) { _ = c.Skip(len(more)) }},
			{"Skip in steps", func(t *testing.T, c *Conn) {
				for range len(more) / 1000 {
					_ = c.Skip(1000)
					_ = c.Release()
				}
			}},
			{"ReadBinary", func(t *testing.T, c *Conn) { _, _ = c.ReadBinary(len(more)) }},
			{"Read", func(t *testing.T, c *Conn) { _, _ = io.ReadFull(c, make([]byte, len(more))) }},
			{"small Reads", func(t *testing.T, c *Conn) {
				p := make([]byte, 1000)
				for range len(more) / len(p) {
					_, _ = io.ReadFull(c, p)
				}
			}},
		} {
			t.Run(fmt.Sprintf("%d bytes, then %s", n, next.name), func(t *testing.T) {
				allBack := blocksComeBack(t)
				want := pattern(n + 100)
				nc := &gatherConn{scriptConn: scriptConn{reads: []step{
					{data: want[:n/2]}, {data: append(bytes.Clone(want[n/2:]), more...)},
				}}}
				c := NewConn(nc)
				p, err := c.Peek(n)
				if err != nil {
					t.Fatal(err)
				}
				put(t, c, []byte("header"))
				add(t, c, p)
				// A part of it once more, and the rest of the request.
				add(t, c, p[n/3:])
				if err := c.Skip(n); err != nil {
					t.Fatal(err)
				}
				q, err := c.Peek(100)
				if err != nil {
					t.Fatal(err)
				}
				add(t, c, q)
				if err := c.Skip(100); err != nil {
					t.Fatal(err)
				}
				_ = c.Release()
				next.do(t, c)
				_ = c.Release()
				stir(t)
				mustFlush(t, c)
				wire := append([]byte("header"), want[:n]...)
				wire = append(append(wire, want[n/3:n]...), want[n:]...)
				sameBytes(t, "wire", nc.wire, wire)

				if err := c.Skip(2 * len(more)); err != io.EOF {
					t.Fatal(err)
				}
				_ = c.Release()
				allBack()
			})
		}
	}
}

// A13: also when the slice is of a block that a larger Peek has replaced since.
func TestA13_WriteBinaryOfAnOutgrownSlice(t *testing.T) {
	for _, sizes := range [][2]int{{borrowFrom, 20_000}, {borrowFrom + 1, 300_000}, {50_000, 1 << 20}} {
		allBack := blocksComeBack(t)
		want := pattern(sizes[1])
		sink := &scriptConn{reads: []step{{data: want[:sizes[0]]}, {data: want[sizes[0]:]}}}
		c := NewConn(sink)
		small, err := c.Peek(sizes[0])
		if err != nil {
			t.Fatal(err)
		}
		if _, err := c.Peek(sizes[1]); err != nil {
			t.Fatal(err)
		}
		add(t, c, small)
		if err := c.Skip(sizes[1]); err != nil {
			t.Fatal(err)
		}
		_ = c.Release()
		stir(t)
		mustFlush(t, c)
		sameBytes(t, "wire", sink.wire, want[:sizes[0]])
		allBack()
	}
}

// A13: on many conns at once, each an echo that gives Peeked bodies back, releases
// them and reads on before it flushes.
func TestA13_ManyEchoes(t *testing.T) {
	const conns, rounds = 16, 30
	var wg sync.WaitGroup
	for i := range conns {
		x, y := sockets[i%2].pair(t)
		client, server := NewConn(x), NewConn(y)
		size := 3000 + 1500*i
		request := func(round int) []byte { return bytes.Repeat([]byte{byte(i*rounds + round)}, size) }
		wg.Go(func() { // two requests are always on the way
			defer client.Close()
			for round := range rounds + 1 {
				if round < rounds {
					add(t, client, request(round))
					if err := client.Flush(); err != nil {
						t.Errorf("conn %d: %v", i, err)
						return
					}
				}
				if round == 0 {
					continue
				}
				p, err := client.Peek(size)
				if err != nil || !bytes.Equal(p, request(round-1)) {
					t.Errorf("conn %d got a wrong answer in round %d (%v)", i, round, err)
					return
				}
				_ = client.Skip(size)
				_ = client.Release()
			}
		})
		wg.Go(func() {
			defer server.Close()
			for range rounds {
				p, err := server.Peek(size)
				if err != nil {
					t.Errorf("conn %d: %v", i, err)
					return
				}
				if n, err := server.WriteBinary(p); n != size || err != nil {
					t.Errorf("conn %d: WriteBinary: %d, %v", i, n, err)
				}
				_ = server.Skip(size)
				_ = server.Release()
				// The next request may overwrite the one that is not sent yet.
				_ = server.SetReadTimeout(200 * time.Microsecond)
				_, _ = server.Peek(size)
				_ = server.SetReadTimeout(0)
				if err := server.Flush(); err != nil {
					t.Errorf("conn %d: %v", i, err)
					return
				}
			}
		})
	}
	wg.Wait()
}

// A13: the reader and the writer may be two goroutines: one Peeks and releases,
// the other sends what it was passed.
func TestA13_ReaderAndWriterGoroutines(t *testing.T) {
	run := func(t *testing.T, a, b *Conn) {
		const frame, frames = 6000, 200
		stream := pattern(frame)
		feed(a.NetConn(), stream, frames)
		echoed := collect(a.NetConn(), frame*frames)

		taken, lent := make(chan []byte), make(chan struct{})
		go func() { // the writer: borrows first, sends when three have come
			defer close(lent)
			n := 0
			for p := range taken {
				if _, err := b.WriteBinary(p); err != nil {
					t.Errorf("WriteBinary: %v", err)
				}
				lent <- struct{}{}
				if n++; n%3 == 0 {
					if err := b.Flush(); err != nil {
						t.Errorf("Flush: %v", err)
					}
				}
			}
			if err := b.Flush(); err != nil {
				t.Errorf("Flush: %v", err)
			}
		}()
		for range frames {
			p, err := b.Peek(frame)
			if err != nil {
				t.Fatal(err)
			}
			taken <- p
			<-lent
			_ = b.Skip(frame)
			_ = b.Release()
		}
		close(taken)
		for range lent {
		}
		sameBytes(t, "echo", <-echoed, bytes.Repeat(stream, frames))
	}
	for _, s := range sockets[:2] { // a pipe has no room for the echo
		t.Run(s.name, func(t *testing.T) {
			x, y := s.pair(t)
			run(t, NewConn(x), NewConn(y))
		})
	}
}
