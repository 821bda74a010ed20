package standard

import (
	"bytes"
	"fmt"
	"math/rand/v2"
	"runtime"
	"slices"
	"testing"
)

// ringModel is a ring beside a slice of what is unread in it.
type ringModel struct {
	t      testing.TB
	g      ring
	stream []byte // what will be added next
	unread []byte
	held   []kept // by peek, until release
	heldN  int    // bytes in held
	lent   map[*block][]kept
	added  int64
}

// owners is how many have a share in b.
func (m *ringModel) owners(b *block) int {
	n := len(m.lent[b])
	if b == m.g.cur {
		n++
	}
	for old := m.g.aside; old != nil; old = old.next {
		if b == old {
			n++
		}
	}
	return n
}

func (m *ringModel) check(op string) {
	t, g := m.t, &m.g
	checkKept(t, op, m.held)
	for b, all := range m.lent {
		checkKept(t, op, all)
		if got := int(b.refs.Load()); got != m.owners(b) {
			t.Fatalf("after %s a lent block has %d owners, want %d", op, got, m.owners(b))
		}
	}
	if g.len() != len(m.unread) || g.taken() != m.added-int64(len(m.unread)) {
		t.Fatalf("after %s: len %d, taken %d; want %d, %d", op, g.len(), g.taken(), len(m.unread), m.added-int64(len(m.unread)))
	}
	if g.cur == nil {
		if g.r != 0 || g.w != 0 || g.pinned {
			t.Fatalf("after %s a ring without a block has r %d, w %d, pinned %t", op, g.r, g.w, g.pinned)
		}
	} else {
		if g.r > g.w || g.w > len(g.cur.buf) || len(g.cur.buf) != cap(g.cur.buf) {
			t.Fatalf("after %s: r %d, w %d of %d", op, g.r, g.w, len(g.cur.buf))
		}
		if !bytes.Equal(g.cur.buf[g.r:g.w], m.unread) {
			t.Fatalf("after %s the unread bytes are other ones", op)
		}
		if got := int(g.cur.refs.Load()); got != m.owners(g.cur) {
			t.Fatalf("after %s the block has %d owners, want %d", op, got, m.owners(g.cur))
		}
	}
	for b := g.aside; b != nil; b = b.next {
		if got := int(b.refs.Load()); got != m.owners(b) {
			t.Fatalf("after %s a block aside has %d owners, want %d", op, got, m.owners(b))
		}
		if !slices.ContainsFunc(m.held, func(k kept) bool { return b.contains(k.slice) }) {
			t.Fatalf("after %s a block is aside that nobody looks at", op)
		}
	}
}

func (m *ringModel) peek(n int) {
	b := m.g.peek(n)
	if len(b) != n || n > 0 && cap(b) != n || !bytes.Equal(b, m.unread[:n]) {
		m.t.Fatalf("peek(%d): %d bytes of cap %d, or other ones", n, len(b), cap(b))
	}
	if n > 0 {
		m.held = append(m.held, kept{b, bytes.Clone(b)})
		m.heldN += n
	}
}

// add has the ring make space for need unread bytes, writes over all of it, and
// commits what brings brings.
func (m *ringModel) add(need int, brings func(space int) int) {
	t, g := m.t, &m.g
	unread := len(m.unread)
	was := g.cur
	p := g.space(need)
	if len(p) == 0 {
		t.Fatalf("space(%d) with %d unread is empty", need, unread)
	}
	if need <= lookahead && unread+len(p) < need {
		t.Fatalf("space(%d) with %d unread has %d bytes", need, unread, len(p))
	}
	// A new block is as large as what is there and what was asked for within reason,
	// twice for a power of two; or as messages need.
	most := 2 * max(2*(unread+1), min(need, max(growth*unread, 2*lookahead, int(g.size))), 2*g.floor, maxReadSize/2)
	if got := len(g.cur.buf); g.cur != was && got > most {
		t.Fatalf("space(%d) with %d unread took a block of %d bytes", need, unread, got)
	}
	copy(p, junk) // all of it, up to 64 KiB
	copy(p[max(0, len(p)-len(junk)):], junk)
	n := min(max(brings(len(p)), 0), len(p), len(m.stream))
	copy(p, m.stream[:n])
	m.unread = append(m.unread[:len(m.unread):len(m.unread)], m.stream[:n]...)
	m.stream = m.stream[n:]
	m.added += int64(n)
	g.commit(n)
}

func (m *ringModel) step(d *dice) {
	g := &m.g
	op, name := d.next(), ""
	have := len(m.unread)
	switch op % 16 {
	case 0, 1, 2:
		n := min(max(d.size(have), 0), have)
		name = fmt.Sprintf("peek(%d)", n)
		if m.heldN+n < 1<<16 && len(m.held) < 64 { // or checking them costs too much
			m.peek(n)
		}
	case 3, 4:
		n := min(max(d.size(have), 0), have)
		name = fmt.Sprintf("skip(%d)", n)
		g.skip(n)
		m.unread = m.unread[n:]
	case 5:
		n := min(max(d.size(have), 0), 1<<16)
		name = fmt.Sprintf("read(%d)", n)
		p := make([]byte, n)
		k := g.read(p)
		if k != min(n, have) || !bytes.Equal(p[:k], m.unread[:k]) {
			m.t.Fatalf("%s of %d: %d bytes, or other ones", name, have, k)
		}
		m.unread = m.unread[k:]
	case 6:
		if name = "readByte"; have > 0 {
			if b := g.readByte(); b != m.unread[0] {
				m.t.Fatalf("readByte: %#x, want %#x", b, m.unread[0])
			}
			m.unread = m.unread[1:]
		}
	case 7, 8, 9, 10:
		need := max(d.size(have), have+1)
		name = fmt.Sprintf("space(%d)", need)
		m.add(need, func(space int) int { return d.size(space) })
	case 11:
		name = "release"
		m.release()
	case 12:
		name = "vacate"
		g.vacate()
		if have == 0 && len(m.held) == 0 && g.cur != nil {
			m.t.Fatal("vacate left an empty block where it was")
		}
	case 13:
		if name = "lend"; len(m.held) > 0 {
			m.lend(m.held[d.next()%len(m.held)])
		}
	case 14:
		name = "drop of what was lent"
		m.dropLent(d.next())
	case 15:
		name = "another ring's work"
		b := getBlock(minBlockSize << (d.next() % 5))
		copy(b.buf, junk)
		b.drop()
	}
	m.check(name)
}

func (m *ringModel) release() {
	m.g.release()
	m.held, m.heldN = nil, 0
	if m.g.aside != nil {
		m.t.Fatal("release left blocks aside")
	}
	if len(m.unread) == 0 && m.g.cur != nil {
		m.t.Fatal("release left an empty block")
	}
	// A block that was taken for a large message is not kept for a small rest.
	if m.g.cur != nil {
		if got, most := len(m.g.cur.buf), 4*max(maxReadSize, 2*len(m.unread), m.g.floor); got > most {
			m.t.Fatalf("release kept a block of %d bytes for %d", got, len(m.unread))
		}
	}
}

func (m *ringModel) lend(k kept) {
	b := m.g.lend(k.slice)
	if b == nil || !b.contains(k.slice) {
		m.t.Fatal("lend does not know a slice that is held")
	}
	m.lent[b] = append(m.lent[b], k)
}

// dropLent gives back every block that was lent and whose turn it is.
func (m *ringModel) dropLent(turn int) {
	var blocks []*block
	for b := range m.lent {
		blocks = append(blocks, b)
	}
	// By their contents: the order of a map would differ from run to run.
	slices.SortFunc(blocks, func(a, b *block) int { return bytes.Compare(m.lent[a][0].want, m.lent[b][0].want) })
	for i, b := range blocks {
		if i%2 == turn%2 {
			for range m.lent[b] {
				b.drop()
			}
			delete(m.lent, b)
		}
	}
}

// runRing runs the operations that ops choose. floor is that of the ring.
func runRing(t testing.TB, floor uint16, ops []byte) {
	m := &ringModel{t: t, stream: modelStream[:1<<18], lent: make(map[*block][]kept)}
	m.g.floor = int(floor) * 32
	for d := (dice{p: ops}); d.laps == 0; {
		m.step(&d)
	}
	m.g.skip(len(m.unread))
	m.unread = nil
	m.check("the last skip")
	m.release()
	m.check("the last release")
	for len(m.lent) > 0 {
		m.dropLent(0)
	}
}

// Z3: the ring alone against a slice: whatever is done to it, what is unread is
// right, what is held or lent stays, and every block has the owners that it has.
func TestZ3_RingAgainstModel(t *testing.T) {
	base := outstanding.Load()
	for seed := range uint64(scaled(160)) {
		t.Run(fmt.Sprint(seed), func(t *testing.T) {
			r := rand.New(rand.NewPCG(seed, 4))
			ops := make([]byte, 800)
			scramble(r, ops)
			floor := uint16(0)
			if seed%4 == 0 {
				floor = uint16(r.IntN(1 << 12))
			}
			runRing(t, floor, ops)
		})
	}
	settles(t, "blocks outstanding", int(base), func() int { return int(outstanding.Load()) })
}

// FuzzRing is Z3 with the operations that the fuzzer finds.
func FuzzRing(f *testing.F) {
	grow := bytes.Repeat([]byte{7, 1 | 9<<3, 7, 0, 1 | 8<<3}, 30) // one more than there is, held
	f.Add(uint16(0), grow)
	f.Add(uint16(0), slices.Concat(grow, []byte{13, 0, 11, 15, 0, 15, 1, 14, 0, 12}))
	f.Add(uint16(4095), []byte{7, 0, 7, 0, 0, 3, 0, 8, 2, 7, 11, 12, 5, 7, 12})
	f.Add(uint16(0), []byte{7, 7, 7 | 31<<3, 3, 6 | 15<<3, 255, 11, 7, 0, 0, 3, 1 | 8<<3, 12})
	f.Fuzz(func(t *testing.T, floor uint16, ops []byte) {
		if len(ops) > 1500 {
			return // too slow
		}
		base := outstanding.Load()
		runRing(t, floor, ops)
		if got := outstanding.Load(); got != base {
			t.Fatalf("%d blocks did not come back", got-base)
		}
	})
}

// R9, R12: a window that slides over the stream byte by byte, nearly as large as a
// block, is not moved with every step.
func TestZ3_SlidingWindow(t *testing.T) {
	const steps = 20000
	for _, window := range []int{100, minBlockSize/2 + 1, minBlockSize - 6, minBlockSize, lookahead - 1, lookahead} {
		for _, pinned := range []bool{false, true} {
			var g ring
			moved := 0
			for added := 0; added < window+steps; added++ {
				if g.len() == window {
					if pinned {
						g.peek(window)
						g.release()
					}
					g.skip(1)
				}
				cur, r, unread := g.cur, g.r, g.len()
				g.space(window)[0] = modelStream[added]
				if g.cur != cur || g.r != r {
					moved += unread
				}
				g.commit(1)
			}
			if moved > 3*(window+steps) {
				t.Errorf("window of %d: moved %d bytes in %d steps", window, moved, steps)
			}
			if b := g.peek(window); !bytes.Equal(b, modelStream[steps:steps+window]) {
				t.Errorf("window of %d: wrong bytes", window)
			}
			g.skip(window)
			g.release()
		}
	}
}

// A slice that a block only touches is not in it, and one in its middle is.
func TestZ3_Contains(t *testing.T) {
	all := make([]byte, 3*minBlockSize)
	b := &block{buf: all[minBlockSize : 2*minBlockSize : 2*minBlockSize]}
	for i := 0; i < len(all); i++ {
		if got, want := b.contains(all[i:i+1]), i >= minBlockSize && i < 2*minBlockSize; got != want {
			t.Fatalf("byte %d: %t", i, got)
		}
	}
	var g ring
	if g.lend(all) != nil {
		t.Error("an empty ring lends")
	}
	copy(g.space(1), "abc")
	g.commit(3)
	if g.lend(all) != nil {
		t.Error("a ring lends what is not its own")
	}
	if lent := g.lend(g.peek(2)); lent != g.cur {
		t.Error("a ring does not lend its own")
	} else {
		lent.drop()
	}
	g.skip(3)
	g.release()
}

// The sizes of blocks are powers of two that hold what was asked for, and the
// pools have one place for each.
func TestZ3_BlockClasses(t *testing.T) {
	for class := range blockPools {
		size := minBlockSize << class
		for _, n := range []int{size - 1, size, size/2 + 1} {
			if class == 0 && n == size/2+1 {
				n = 1
			}
			if got := blockClass(n); got != class {
				t.Errorf("blockClass(%d) is %d, want %d", n, got, class)
			}
			b := getBlock(n)
			if len(b.buf) != size || cap(b.buf) != size || b.refs.Load() != 1 {
				t.Errorf("getBlock(%d): len %d, cap %d, %d owners", n, len(b.buf), cap(b.buf), b.refs.Load())
			}
			b.drop()
		}
	}
	if n := minBlockSize << (len(blockPools) - 1); n != maxPooledSize {
		t.Errorf("the largest pool has blocks of %d, want %d", n, maxPooledSize)
	}
	for _, n := range []int{maxPooledSize + 1, 3*maxPooledSize + 5} {
		b := getBlock(n)
		if len(b.buf) < n || len(b.buf) > n+minBlockSize {
			t.Errorf("getBlock(%d): len %d", n, len(b.buf))
		}
		b.drop()
		if b.refs.Load() != 0 {
			t.Errorf("%d owners after the last let go", b.refs.Load())
		}
	}
}

// The writer's goroutine may ask for a block while the reader's grows, sets aside,
// releases and reads on [C1, A13].
func TestZ3_LendBesideTheReader(t *testing.T) {
	base := outstanding.Load()
	var g ring
	slicesOut, done := make(chan []byte, 8), make(chan int)
	go func() {
		n := 0
		for b := range slicesOut {
			if b == nil {
				done <- 0 // the reader may release: everything is lent
				continue
			}
			want := bytes.Clone(b)
			lent := g.lend(b)
			if lent == nil {
				t.Error("lend does not know a slice that is held")
				continue
			}
			runtime.Gosched()
			if !bytes.Equal(b, want) {
				t.Error("a lent slice has changed")
			}
			lent.drop()
			n++
		}
		done <- n
	}()
	r := rand.New(rand.NewPCG(5, 6))
	sent, out := 0, modelStream
	for i := range 5000 {
		n := copy(g.space(g.len()+1), out[:1+r.IntN(9000)])
		g.commit(n)
		b := g.peek(1 + r.IntN(g.len()))
		slicesOut <- b
		sent++
		g.skip(r.IntN(g.len()) + 1)
		if i%7 == 0 {
			slicesOut <- nil
			<-done
			g.release()
		}
	}
	close(slicesOut)
	if got := <-done; got != sent {
		t.Errorf("%d slices were lent, want %d", got, sent)
	}
	g.skip(g.len())
	g.release()
	settles(t, "blocks outstanding", int(base), func() int { return int(outstanding.Load()) })
}
