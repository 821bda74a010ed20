package standard

import (
	"sync"
	"unsafe"
)

const (
	// lookahead is how far beyond the bytes that arrived a block may be sized
	// because a reader asked for that many: a count that comes from the wire
	// must not decide how much memory is taken [R11].
	lookahead = 16 << 10
	// growth is how many times the bytes that arrived a block may hold, because a
	// reader asked for that many. With 4, a large message is copied by a third.
	growth = 4
	// maxReadSize bounds the block that a connection starts a message with,
	// however large its last messages were [P2].
	maxReadSize = 64 << 10
)

// ring is the memory of the read side: a block of which buf[r:w] is unread.
//
// Bytes are added behind w and leave at r. They never wrap, so that a peek is a
// slice and never a copy; when nothing is unread the cursors go round to the
// front of the block again. What peek handed out is pinned: until release, no
// byte of it is moved or written over. A block that has no room left while slices
// of it are out is set aside with them, and the unread bytes are copied to another,
// of at least twice their number.
//
// A ring that is empty when it is released or vacated owns no block, so a connection
// that waits costs no buffer.
//
// The zero value is ready for use. All methods belong to the reader's goroutine,
// except lend, which the writer's goroutine calls.
type ring struct {
	r, w  int
	cur   *block
	since int   // bytes added since the last release
	floor int   // the least that size may shrink to
	total int64 // bytes ever added

	pinned bool  // a slice of cur was handed out since the last release
	size   int32 // follows the sizes of messages, up to maxPooledSize

	mu    sync.Mutex // guards cur and aside where they change, for lend
	aside *block     // replaced blocks that slices still point into, a list by next
}

// len returns how many bytes are unread.
func (g *ring) len() int { return g.w - g.r }

// taken returns how many bytes have left, ever.
func (g *ring) taken() int64 { return g.total - int64(g.len()) }

// peek returns the next n unread bytes, n <= len, and pins them.
func (g *ring) peek(n int) []byte {
	if n == 0 {
		return nil
	}
	g.pinned = true
	return g.cur.buf[g.r : g.r+n : g.r+n]
}

// skip passes over the next n unread bytes, n <= len.
func (g *ring) skip(n int) {
	g.r += n
	if g.r == g.w && !g.pinned {
		g.rewind()
	}
}

// rewind starts an empty block from its front, if no slice of it is out.
func (g *ring) rewind() {
	switch {
	case g.cur == nil:
	case len(g.cur.buf) > max(maxPooledSize, g.floor):
		g.dropCur() // it has served its message, and Release may never come [P2, P6]
	case !g.lent():
		g.r, g.w = 0, 0
	}
}

// lent reports whether a slice of cur waits in the output: its bytes must stay as
// they are. More cannot be lent meanwhile, unless slices are out: cur is pinned.
func (g *ring) lent() bool { return g.cur.refs.Load() > 1 }

// read copies unread bytes to p and passes over them.
func (g *ring) read(p []byte) int {
	if g.r == g.w {
		return 0
	}
	n := copy(p, g.cur.buf[g.r:g.w])
	g.skip(n)
	return n
}

// readByte takes the next unread byte; there must be one.
func (g *ring) readByte() byte {
	b := g.cur.buf[g.r]
	g.skip(1)
	return b
}

// space returns memory right behind the unread bytes, at least one byte of it,
// for a reader that wants need bytes to be unread together. It grows with what
// has arrived, now or for earlier messages, and not with need alone. Follow it with
// commit.
func (g *ring) space(need int) []byte {
	unread := g.w - g.r
	want := need
	if need > lookahead {
		need = max(min(want, max(lookahead, growth*unread, int(g.size))), unread+1)
	}
	if g.cur != nil {
		// A block that cannot hold all that is wanted is filled before it is replaced, so
		// that it is replaced less often.
		if g.w < len(g.cur.buf) && (g.r+need <= len(g.cur.buf) || need < want) {
			return g.cur.buf[g.w:]
		}
		if 2*unread <= len(g.cur.buf) && need <= len(g.cur.buf) && !g.pinned && !g.lent() {
			// Nobody looks at the bytes in front: use the block from there.
			copy(g.cur.buf, g.cur.buf[g.r:g.w])
			g.r, g.w = 0, unread
			return g.cur.buf[g.w:]
		}
	}
	g.replace(max(need, 2*unread, g.start()))
	return g.cur.buf[g.w:]
}

// start returns the least size of a block. A message larger than maxReadSize is begun
// in a small one: when its reader says how large it is, little has to be copied.
func (g *ring) start() int {
	size := int(g.size)
	if size > maxReadSize {
		size = lookahead
	}
	return max(size, g.floor, minBlockSize)
}

// commit adds the first n bytes of what space returned to the unread ones.
func (g *ring) commit(n int) {
	g.w += n
	g.since += n
	g.total += int64(n)
}

// replace moves the unread bytes to a new block of at least size bytes.
func (g *ring) replace(size int) {
	b := getBlock(size)
	old, unread := g.cur, g.w-g.r
	if old != nil {
		copy(b.buf, old.buf[g.r:g.w])
	}
	g.mu.Lock()
	g.cur = b
	if old != nil && g.pinned {
		old.next, g.aside = g.aside, old
		old = nil
	}
	g.mu.Unlock()
	g.r, g.w, g.pinned = 0, unread, false
	if old != nil {
		old.drop()
	}
}

// vacate gives an empty block back before a wait that may be long.
func (g *ring) vacate() {
	if g.cur != nil && g.r == g.w && !g.pinned {
		g.dropCur()
	}
}

func (g *ring) dropCur() {
	old := g.cur
	g.mu.Lock()
	g.cur = nil
	g.mu.Unlock()
	g.r, g.w, g.pinned = 0, 0, false
	old.drop()
}

// release ends the life of every slice that peek handed out. Unread bytes stay.
func (g *ring) release() {
	if g.cur == nil && g.aside == nil {
		return
	}
	if g.aside != nil {
		g.mu.Lock()
		aside := g.aside
		g.aside = nil
		g.mu.Unlock()
		for aside != nil {
			b := aside
			aside, b.next = b.next, nil
			b.drop()
		}
	}
	g.adapt()
	switch {
	case g.cur == nil:
	case g.r == g.w:
		g.dropCur()
	default:
		g.pinned = false
		// The beginning of a message must not hold what the last one needed [P2].
		size := max(2*g.len(), g.start())
		if len(g.cur.buf) > maxReadSize && size <= len(g.cur.buf)/4 {
			g.replace(size)
		}
	}
}

// adapt lets the size of the next block follow the messages': it doubles when
// one did not fit and halves when three quarters of it were wasted.
func (g *ring) adapt() {
	size := max(int(g.size), minBlockSize)
	switch {
	case g.since >= size:
		g.size = int32(min(2*size, maxPooledSize))
	case g.since > 0 && g.since <= size/4:
		g.size = int32(max(size/2, minBlockSize))
	}
	g.since = 0
}

// lend finds the block that b is a slice of and adds an owner to it, so that a
// release cannot recycle b before it has been sent [A13]. It returns nil if b is
// no memory of this ring. It is the one method that the writer's goroutine calls.
func (g *ring) lend(b []byte) *block {
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.cur != nil && g.cur.contains(b) {
		g.cur.refs.Add(1)
		return g.cur
	}
	for old := g.aside; old != nil; old = old.next {
		if old.contains(b) {
			old.refs.Add(1)
			return old
		}
	}
	return nil
}

// contains reports whether p, which is not empty, begins inside of b's memory.
func (b *block) contains(p []byte) bool {
	first := uintptr(unsafe.Pointer(unsafe.SliceData(b.buf)))
	at := uintptr(unsafe.Pointer(unsafe.SliceData(p)))
	return at >= first && at-first < uintptr(len(b.buf))
}
