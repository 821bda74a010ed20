package networktest

import (
	"fmt"
	"io"
	"net"
	"runtime"
	"sync"
	"time"

	"github.com/hertznet/hertznet/network"
)

var resourceCases = []connCase{
	{"P1", 0, exchangeAllocatesNothing},
	{"P2", 0, memoryShrinks},
	{"P3", 0, idleConnectionCost},
	{"P5", 0, noGoroutineLeft},
	{"P6", 60 * time.Second, boundedMemoryUnreleased},
}

// lightConn is a net.Conn that costs next to nothing and never allocates: reads
// return what was let through and wait for more, writes succeed.
type lightConn struct {
	mu      sync.Mutex
	more    sync.Cond
	avail   int  // bytes that reads may return
	endless bool // there is always more; set before use
	closed  bool
}

func newLightConn(avail int) *lightConn {
	c := &lightConn{avail: avail}
	c.more.L = &c.mu
	return c
}

// deliver lets n more bytes through.
func (c *lightConn) deliver(n int) {
	c.mu.Lock()
	c.avail += n
	c.mu.Unlock()
	c.more.Signal()
}

// Read leaves p as it is: nobody looks at the bytes.
func (c *lightConn) Read(p []byte) (int, error) {
	if c.endless {
		return len(p), nil
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	for c.avail == 0 && !c.closed {
		c.more.Wait()
	}
	if c.closed {
		return 0, net.ErrClosed
	}
	n := min(len(p), c.avail)
	c.avail -= n
	return n, nil
}

func (c *lightConn) Write(p []byte) (int, error) { return len(p), nil }

func (c *lightConn) Close() error {
	c.mu.Lock()
	c.closed = true
	c.mu.Unlock()
	c.more.Broadcast()
	return nil
}

func (c *lightConn) LocalAddr() net.Addr              { return scriptAddr{} }
func (c *lightConn) RemoteAddr() net.Addr             { return scriptAddr{} }
func (c *lightConn) SetDeadline(time.Time) error      { return nil }
func (c *lightConn) SetReadDeadline(time.Time) error  { return nil }
func (c *lightConn) SetWriteDeadline(time.Time) error { return nil }

// The exchange of a keep-alive connection.
const (
	exchangeRequest = 200
	exchangeHeader  = 150
	exchangeBody    = 100
	exchangeTimeout = time.Minute
)

var exchangeBytes = make([]byte, exchangeBody)

// ok ends the check unless err is nil, and allocates nothing if it is.
func (t *connCheck) ok(err error) {
	if err != nil {
		t.noError(err)
	}
}

// answer serves one request on c as Hertz does it: with both timeouts set.
func (t *connCheck) answer(c network.Conn) {
	t.ok(c.SetReadTimeout(exchangeTimeout)) // the idle timeout
	_, err := c.Peek(4)
	t.ok(err)
	t.ok(c.SetReadTimeout(2 * exchangeTimeout))
	t.ok(c.SetWriteTimeout(exchangeTimeout))
	_, err = c.Peek(exchangeRequest)
	t.ok(err)
	t.ok(c.Skip(exchangeRequest))
	b, err := c.Malloc(exchangeHeader)
	t.ok(err)
	clear(b)
	_, err = c.WriteBinary(exchangeBytes)
	t.ok(err)
	t.ok(c.Release())
	t.ok(c.Flush())
}

// allocations returns how many an f takes, once it has run often enough for pools
// and sizes to settle. It is testing.AllocsPerRun, which panics when tests run in
// parallel, and takes the best of several attempts since others may allocate.
func allocations(f func()) int {
	defer runtime.GOMAXPROCS(runtime.GOMAXPROCS(1))
	const runs = 200
	for range 100 {
		f()
	}
	best := maxInt
	for range 5 {
		var before, after runtime.MemStats
		runtime.ReadMemStats(&before)
		for range runs {
			f()
		}
		runtime.ReadMemStats(&after)
		if best = min(best, int(after.Mallocs-before.Mallocs)/runs); best == 0 {
			break
		}
	}
	return best
}

// foreignAllocations are allowed of an exchange where what lies beneath is not the
// kit's: crypto/tls takes one for each record that is read.
const foreignAllocations = 4

// P1 over a conn of the kit, which allocates nothing. Without Wrap, over a pair,
// where what lies beneath may allocate.
func exchangeAllocatesNothing(t *connCheck) {
	if raceEnabled {
		t.notApplicable("under the race detector sync.Pool drops at random, so there is nothing to count")
	}
	const exchange = "exchanges of a keep-alive connection: SetReadTimeout, Peek, Skip, SetWriteTimeout, Malloc, WriteBinary, Release, Flush"
	n, allowed, where := 0, 0, "over a conn that allocates nothing"
	if t.canWrap() {
		beneath := newLightConn(0)
		c := t.wrap(beneath)
		t.step("%s", exchange)
		n = allocations(func() {
			beneath.deliver(exchangeRequest)
			t.answer(c)
		})
	} else {
		allowed, where = foreignAllocations, fmt.Sprintf("over a pair, of which up to %d count as those of the layer beneath and of the peer", foreignAllocations)
		n = t.pairAllocations(exchange)
	}
	t.step("%s, %s", exchange, where)
	if t.behavior().Allocates {
		t.expect(n > 0, "allocations, as Behavior.Allocates declares", "none")
	} else {
		t.expect(n <= allowed, fmt.Sprintf("at most %d allocations in each", allowed), "%d", n)
	}
	t.measured("%d allocations in an exchange %s", n, where)
}

// pairAllocations returns how many allocations an exchange over a pair takes, both
// ends in one goroutine.
func (t *connCheck) pairAllocations(exchange string) int {
	a, b := t.pair()
	request, answer := make([]byte, exchangeRequest), make([]byte, exchangeHeader+exchangeBody)
	ask := func() {
		_, err := b.Write(request)
		t.ok(err)
	}
	take := func() {
		for at := 0; at < len(answer); {
			n, err := b.Read(answer[at:])
			t.ok(err)
			at += n
		}
	}
	t.step("one exchange over the pair") // a TLS handshake needs both ends at once
	o := t.spawn(func() {
		ask()
		take()
	})
	t.answer(a)
	t.wait(o)
	t.step("a small write to the peer, which does not read it")
	o = t.spawn(ask)
	if !settles(o.returned) {
		t.notApplicable("a small write over this pair waits for its reader, so that an exchange takes two goroutines, which cannot be counted")
	}
	t.answer(a)
	take()
	t.step("%s", exchange)
	return allocations(func() {
		ask()
		t.answer(a)
		take()
	})
}

// liveHeap returns the bytes of the heap that are in use, without what pools keep.
func liveHeap() int64 {
	var m runtime.MemStats
	for range 3 { // a sync.Pool keeps things for two collections
		runtime.GC()
	}
	runtime.ReadMemStats(&m)
	return int64(m.HeapAlloc)
}

// P2 over a pair, and over a conn of the kit.
func memoryShrinks(t *connCheck) {
	size := 64 << 20
	if t.short || raceEnabled {
		size = 8 << 20
	}
	a, b := t.pair()
	t.shrinks("over a pair", a, size, func(n int) *op {
		return t.spawn(func() {
			p := make([]byte, 64<<10)
			for n > 0 {
				k, err := b.Write(p[:min(n, len(p))])
				if err != nil {
					return
				}
				n -= k
			}
		})
	})
	runtime.KeepAlive(b)
	a.Close()
	b.Close()
	t.shrinksAtEnd(size)
	if !t.canWrap() {
		return
	}
	t.shrinksAfterClose(size)
	beneath := newLightConn(0)
	c := t.wrap(beneath)
	t.shrinks("over a conn of the kit", c, size, func(n int) *op {
		return t.spawn(func() { beneath.deliver(n) })
	})
}

// shrinksAtEnd judges the memory of a connection that is kept after a Peek that the
// end of the stream has cut short.
func (t *connCheck) shrinksAtEnd(size int) {
	a, b := t.pair()
	most := mostHeld(size)
	before := liveHeap()
	sent := t.feedAndClose(b, make([]byte, size))
	t.step("Peek(%d) of a stream of %d bytes", size+1, size)
	_, err := a.Peek(size + 1)
	t.expect(err != nil, "an error", "none")
	t.wait(sent)
	n := a.Len()
	t.skip(a, n)
	t.release(a)
	t.step("Peek(%d) of a stream of %d bytes, Skip(%d), and Release", size+1, size, n)
	kept := liveHeap() - before
	t.expect(kept < most, fmt.Sprintf("less than %s more than before to be held", byteCount(most)), "%s", byteCount(kept))
	runtime.KeepAlive(a)
	runtime.KeepAlive(b)
	a.Close()
}

// shrinksAfterClose judges what is left of a connection that was closed with unread
// and unflushed bytes. It must be out of reach of the check as well, see C12: as
// long as it is not, the unread bytes may be asked for.
func (t *connCheck) shrinksAfterClose(size int) {
	most := mostHeld(size)
	before := liveHeap()
	t.step("Peek(%d) and Malloc(%d) over a conn of the kit, and Close without Skip, Release and Flush; then the connection is dropped", size, size/4)
	used := t.spawn(func() {
		beneath := newLightConn(size)
		t.track(beneath)
		c := t.subject.Wrap(t, beneath)
		if c == nil {
			t.fail("a connection", "Conn.Wrap returned nil")
			return
		}
		_, _ = c.Peek(size)
		_, _ = c.Malloc(size / 4)
		c.Close()
	})
	t.mustEnd(used, "the operations to end")
	kept := int64(0)
	settles(func() bool {
		kept = liveHeap() - before
		return kept < most
	})
	t.expect(kept < most, fmt.Sprintf("less than %s more than before to be held (unless Conn.Wrap itself keeps it)", byteCount(most)), "%s", byteCount(kept))
}

// mostHeld is what may be held after a message of size bytes.
func mostHeld(size int) int64 { return max(int64(size)/8, 2<<20) }

// shrinks judges the memory of c before and after a message of size bytes.
func (t *connCheck) shrinks(where string, c network.Conn, size int, deliver func(n int) *op) {
	message := func(n int) {
		o := deliver(n)
		t.step("Peek(%d) %s", n, where)
		p, err := c.Peek(n)
		t.noError(err)
		t.expect(len(p) == n, "as many bytes", "%d", len(p))
		t.skip(c, n)
		t.release(c)
		t.wait(o)
	}
	message(100)
	before := liveHeap()
	message(size)
	message(100) // whoever shrinks with the next message is in time
	kept := liveHeap() - before
	t.step("Peek(%d), Skip, Release %s, and a small message after it", size, where)
	most := mostHeld(size)
	t.expect(kept < most, fmt.Sprintf("less than %s more than before to be held", byteCount(most)), "%s", byteCount(kept))
	runtime.KeepAlive(c)
}

// byteCount writes a number of bytes for people.
func byteCount(n int64) string {
	switch {
	case n >= 10<<20:
		return fmt.Sprintf("%d MiB", n>>20)
	case n >= 10<<10:
		return fmt.Sprintf("%d KiB", n>>10)
	}
	return fmt.Sprintf("%d bytes", n)
}

// idleBytes is what an idle connection may cost.
const idleBytes = 64 << 10

// P3: connections that have had one exchange and wait for the next request, each in
// a goroutine of its own, as a server waits. Over the pair both ends are counted.
func idleConnectionCost(t *connCheck) {
	pairs, conns := 40, 400
	if t.short || raceEnabled {
		pairs, conns = 15, 100
	}
	cost := func(n int, open func() network.Conn) int64 {
		t.answerOnce(open()) // what the first connection of all sets up
		runtime.GC()
		before := liveHeap() + stackBytes()
		all := make([]network.Conn, n)
		for i := range all {
			all[i] = open()
			t.answerOnce(all[i])
			t.spawn(func() { _, _ = all[i].Peek(1) })
		}
		time.Sleep(20 * time.Millisecond) // for the last of them to begin to wait
		cost := (liveHeap() + stackBytes() - before) / int64(n)
		runtime.KeepAlive(all)
		return max(cost, 0)
	}

	var peers []network.Conn
	each := cost(pairs, func() network.Conn {
		a, b := t.pair()
		peers = append(peers, b)
		t.spawn(func() {
			_, _ = b.Write(make([]byte, exchangeRequest))
			_, _ = io.ReadFull(readerOf(b), make([]byte, exchangeHeader+exchangeBody))
		})
		return a
	}) / 2
	runtime.KeepAlive(peers)
	t.step("%d pairs of connections, an exchange on each, then Peek(1) blocked on one end", pairs)
	t.expect(each <= idleBytes, fmt.Sprintf("at most %s for each end", byteCount(idleBytes)), "%s", byteCount(each))
	measured := fmt.Sprintf("an idle connection costs %s, the mean of both ends of %d pairs", byteCount(each), pairs)
	if t.canWrap() {
		light := cost(conns, func() network.Conn { return t.wrap(newLightConn(exchangeRequest)) })
		t.step("%d connections over conns of the kit, an exchange on each, then Peek(1) blocked", conns)
		t.expect(light <= idleBytes, fmt.Sprintf("at most %s for each", byteCount(idleBytes)), "%s", byteCount(light))
		measured += fmt.Sprintf("; over %d conns of the kit %s", conns, byteCount(light))
	}
	t.measured("%s, with the stack of the goroutine that waits", measured)
}

func (t *connCheck) answerOnce(c network.Conn) {
	t.step("one exchange")
	t.answer(c)
}

func stackBytes() int64 {
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	return int64(m.StackInuse)
}

// P5: connections that were used and closed, in the ways that they end.
func noGoroutineLeft(t *connCheck) {
	const each = 8 // of four ways
	use := func(way int) {
		a, b := t.pair()
		t.ok(a.SetReadTimeout(exchangeTimeout))
		t.ok(a.SetWriteTimeout(exchangeTimeout))
		fed := t.feed(b, make([]byte, exchangeRequest))
		t.step("Peek, Skip and Release")
		_, err := a.Peek(exchangeRequest)
		t.ok(err)
		t.wait(fed)
		t.ok(a.Skip(exchangeRequest))
		t.ok(a.Release())
		var blocked *op
		switch way {
		case 0: // this end first
			t.step("Close, and then of the peer")
			a.Close()
			b.Close()
		case 1: // the peer first
			t.step("Close of the peer, and then of the connection")
			b.Close()
			a.Close()
		case 2:
			t.step("Close during a Peek that waits")
			blocked = t.spawn(func() { _, _ = a.Peek(1) })
			time.Sleep(time.Millisecond)
			a.Close()
			b.Close()
		case 3:
			t.step("a Peek that times out, and Close")
			t.ok(a.SetReadTimeout(time.Millisecond))
			blocked = t.spawn(func() { _, _ = a.Peek(1) })
			time.Sleep(2 * time.Millisecond)
			b.Close()
			a.Close()
		}
		if blocked != nil {
			t.wait(blocked)
		}
	}
	for way := range 4 {
		use(way) // what the first of all sets up may stay
	}
	before, left := 0, 0
	for range 3 { // others in the process may start some, too
		before = runtime.NumGoroutine()
		for i := range 4 * each {
			use(i % 4)
		}
		for range 50 { // what is just ending may take its time
			if left = runtime.NumGoroutine() - before; left < each/2 {
				return
			}
			time.Sleep(10 * time.Millisecond)
		}
	}
	t.step("using and closing %d pairs: this end first, the peer first, during a Peek, after a timeout", 4*each)
	t.expect(false, fmt.Sprintf("as many goroutines as before, %d, or a few more", before), "%d more", left)
}

// P6 over a pair, and over a conn of the kit that has data without end.
func boundedMemoryUnreleased(t *connCheck) {
	most := int64(4 << 20) // what may be held at any time beyond the beginning
	total, inPair := 1<<30, 64<<20
	if !t.canWrap() {
		inPair = 256 << 20
	}
	if t.short || raceEnabled {
		total, inPair = 32<<20, 32<<20
	}
	scratch := make([]byte, 64<<10)
	ways := []struct {
		name string
		part int // of the total, where each call does little
		do   func(c network.Conn) (int, error)
	}{
		{"Read of 4096 bytes", 4, func(c network.Conn) (int, error) { return c.Read(scratch[:4096]) }},
		{"Read of 65536 bytes", 4, func(c network.Conn) (int, error) { return c.Read(scratch) }},
		{"ReadByte", 64, func(c network.Conn) (int, error) { _, err := c.ReadByte(); return 1, err }},
		{"ReadBinary(1000)", 8, func(c network.Conn) (int, error) { b, err := c.ReadBinary(1000); return len(b), err }},
		{"ReadBinary(50000)", 8, func(c network.Conn) (int, error) { b, err := c.ReadBinary(50000); return len(b), err }},
		{"Skip(100)", 64, func(c network.Conn) (int, error) { return 100, t.skipAny(c, 100) }},
		{"Skip(100000)", 4, func(c network.Conn) (int, error) { return 100_000, t.skipAny(c, 100_000) }},
	}
	consume := func(where string, c network.Conn, total int, again bool) {
		for _, way := range ways {
			if again && way.part == 64 && (raceEnabled || t.short) {
				continue // small steps take long, and have been taken
			}
			n := max(total/way.part, 6<<20)
			t.step("%s, again and again, %s, without Release", way.name, where)
			before := liveHeap()
			for done, next := 0, n/8; done < n; {
				k, err := way.do(c)
				if err != nil || k <= 0 {
					t.expect(false, "bytes", "%d and %s after %d bytes", k, describeError(err), done)
				}
				if done += k; done >= next || done >= n {
					next += max(n/8, 8<<20)
					held := liveHeap() - before
					t.expect(held <= most, fmt.Sprintf("at most %s to be held", byteCount(most)), "%s after %d bytes", byteCount(held), done)
				}
			}
		}
	}
	a, b := t.pair()
	t.spawn(func() {
		p := make([]byte, 64<<10)
		for {
			if _, err := b.Write(p); err != nil {
				return
			}
		}
	})
	consume("over a pair", a, inPair, false)
	a.Close()
	b.Close()
	if t.canWrap() {
		beneath := newLightConn(0)
		beneath.endless = true
		consume("over a conn of the kit", t.wrap(beneath), total, true)
	}
}

// skipAny is Skip(n), of what is buffered where the implementation can do no more.
func (t *connCheck) skipAny(c network.Conn, n int) error {
	if !t.behavior().SkipWithinBuffer {
		return c.Skip(n)
	}
	for n > 0 {
		if c.Len() == 0 {
			if _, err := c.ReadByte(); err != nil {
				return err
			}
			n--
			continue
		}
		k := min(n, c.Len())
		if err := c.Skip(k); err != nil {
			return err
		}
		n -= k
	}
	return nil
}
