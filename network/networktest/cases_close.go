package networktest

import (
	"bytes"
	"errors"
	"fmt"
	"math/rand/v2"
	"net"
	"sync/atomic"
	"time"

	"github.com/hertznet/hertznet/network"
)

var closeCases = []connCase{
	{"C1", 0, bothWaysAtOnce},
	{"C2", 0, closeDuringPeek},
	{"C3", 0, closeDuringFlush},
	{"C4", 0, closeByMany},
	{"C5", 0, secondClose},
	{"C6", 0, operationsAfterClose},
	{"C7", 0, setMethodsDuringIO},
	{"C8", 0, addressesAfterClose},
	{"C9", 0, halfClosedByPeer},
	{"C10", 0, resetByPeer},
	{"C11", 0, usedAsNetConn},
	{"C12", 0, droppedWithoutClose},
}

// C1. The subject has one goroutine for each direction, and its peer is used by
// Read and Write alone.
func bothWaysAtOnce(t *connCheck) {
	const size = 4 << 20
	out, in := pattern(size), pattern(size)
	for i := range in {
		in[i] ^= 0xff
	}
	seeds := t.rand()
	a, b := t.pair()
	t.step("4 MiB from the connection by all ways to write, and 4 MiB to it by all ways to read, at once")
	wr, rr := rand.New(rand.NewPCG(seeds.Uint64(), 1)), rand.New(rand.NewPCG(seeds.Uint64(), 2))
	writes := t.begin(func() error { return writeInAllWays(a, out, wr) })
	reads := t.begin(func() error { return readInAllWays(a, in, rr) })
	t.feed(b, in)
	received := make(chan []byte, 1)
	peer := t.spawn(func() { received <- t.receive(b, size) })
	t.wait(writes.op)
	t.noError(writes.err)
	t.wait(reads.op)
	t.noError(reads.err)
	t.wait(peer)
	t.equal(<-received, out)

	// The same in an order: whole messages go out while a Peek has got a half of its
	// bytes and waits for the others.
	for _, size := range []int{10, 5000, 1 << 20} {
		a, b := t.pair()
		t.feed(b, in[:500])
		t.peek(a, in[:500])
		t.step("Peek(1000) with 500 bytes sent")
		var got []byte
		o := t.beginBlocked(func() (err error) {
			got, err = a.Peek(1000)
			return err
		})
		peer := t.spawn(func() { received <- t.receive(b, 2*size) })
		t.step("Malloc(%d), WriteBinary of as many bytes and Flush, while a Peek(1000) is blocked", size)
		p, err := a.Malloc(size)
		t.noError(err)
		copy(p, out)
		_, err = a.WriteBinary(out[size : 2*size])
		t.noError(err)
		t.noError(a.Flush())
		t.wait(peer)
		t.equal(<-received, out[:2*size])
		t.feed(b, in[500:1000])
		t.step("Peek(1000) with 1000 bytes sent, during which %d bytes were flushed", 2*size)
		t.mustSucceed(o)
		t.equal(got, in[:1000])
	}
}

func writeInAllWays(c network.Conn, p []byte, r *rand.Rand) error {
	for len(p) > 0 {
		n := min(len(p), 1+r.IntN(200<<10))
		var err error
		switch part := p[:n]; r.IntN(3) {
		case 0:
			_, err = c.Write(part)
		case 1:
			var buf []byte
			if buf, err = c.Malloc(n); err == nil {
				copy(buf, part)
				err = c.Flush()
			}
		default:
			for len(part) > 0 && err == nil {
				m := min(len(part), 1+r.IntN(16<<10))
				_, err = c.WriteBinary(part[:m])
				part = part[m:]
			}
			if err == nil {
				err = c.Flush()
			}
		}
		if err != nil {
			return fmt.Errorf("with %d bytes left to write: %w", len(p), err)
		}
		p = p[n:]
	}
	return nil
}

func readInAllWays(c network.Conn, want []byte, r *rand.Rand) error {
	for len(want) > 0 {
		n := min(len(want), 1+r.IntN(100<<10))
		var got []byte
		var err error
		switch r.IntN(4) {
		case 0:
			if got, err = c.Peek(n); err == nil {
				got = bytes.Clone(got)
				err = c.Skip(n)
			}
		case 1:
			got, err = c.ReadBinary(n)
		case 2:
			var x byte
			x, err = c.ReadByte()
			got = []byte{x}
		default:
			_ = c.Release()
			got = make([]byte, n)
			n, err = c.Read(got)
			got = got[:max(0, min(n, len(got)))]
		}
		if err != nil {
			return fmt.Errorf("with %d bytes left to read: %w", len(want), err)
		}
		if !bytes.HasPrefix(want, got) {
			return fmt.Errorf("with %d bytes left to read: other bytes than were sent", len(want))
		}
		want = want[len(got):]
	}
	return nil
}

// isClosed wants net.ErrClosed.
func (t *connCheck) isClosed(err error) {
	t.expect(errors.Is(err, net.ErrClosed), "an error that is net.ErrClosed by errors.Is", "%s", describeError(err))
}

// C2, and the other ways to read.
func closeDuringPeek(t *connCheck) {
	for _, r := range t.blockingReads() {
		for _, limit := range []time.Duration{0, anHour} {
			if t.short && limit > 0 {
				continue
			}
			a, _ := t.pair()
			under := "no read timeout"
			if limit > 0 {
				t.readTimeout(a, limit)
				under = "a read timeout of an hour"
			}
			t.step("%s with nothing sent, under %s", r.called(8), under)
			o := t.beginBlocked(func() error {
				_, _, err := r.do(a, 8)
				return err
			})
			t.mustStayBlocked(o, 0)
			t.step("Close while another goroutine is blocked in %s, under %s", r.called(8), under)
			closed := t.begin(a.Close)
			t.mustEnd(o.op, "it to end")
			t.isClosed(o.err)
			t.mustEnd(closed.op, "Close to return")
		}
	}
}

// C3, and a Write.
func closeDuringFlush(t *connCheck) {
	for _, w := range []struct {
		name  string
		write func(c network.Conn) func(p []byte) error
		limit time.Duration
	}{{"Flush", flusher, 0}, {"Flush", flusher, anHour}, {"Write", writer, 0}} {
		a, _ := t.pair()
		under := "no write timeout"
		if w.limit > 0 {
			t.writeTimeout(a, w.limit)
			under = "a write timeout of an hour"
		}
		t.step("%s of 1 MiB, again and again, to a peer that does not read, under %s", w.name, under)
		s, ok := t.stall(w.write(a))
		if !ok {
			t.notApplicable("%s", neverFull)
		}
		t.mustStayBlocked(&s.ongoing, 0)
		t.step("Close while another goroutine is blocked in a %s, under %s", w.name, under)
		closed := t.begin(a.Close)
		t.mustEnd(s.op, "it to end")
		t.isClosed(s.err)
		t.mustEnd(closed.op, "Close to return")
	}
}

// C4, on idle connections and on those in use. What the calls return is not judged
// here, see C5.
func closeByMany(t *connCheck) {
	for _, state := range []string{"fresh", "in use"} {
		for range 5 {
			a, b := t.pair()
			if state == "in use" {
				t.spawn(func() { _, _ = a.Peek(1) })
				t.spawn(func() { _, _ = a.Write(make([]byte, stallChunk)) })
				t.receive(b, 100)
			}
			t.step("Close by 20 goroutines at once of a connection that is %s", state)
			start := make(chan struct{})
			var all []*op
			for range 20 {
				all = append(all, t.spawn(func() {
					<-start
					a.Close()
				}))
			}
			close(start)
			for _, o := range all {
				t.mustEnd(o, "each of them to return")
			}
		}
	}
}

// C5.
func secondClose(t *connCheck) {
	for _, state := range []string{"fresh", "with bytes in both buffers", "whose peer has closed"} {
		a, b := t.pair()
		switch state {
		case "with bytes in both buffers":
			t.feed(b, pattern(10))
			t.peek(a, pattern(10))
			t.malloc(a, pattern(10))
		case "whose peer has closed":
			b.Close()
		}
		t.step("Close of a connection %s", state)
		_ = a.Close()
		for range 2 {
			t.step("another Close of a connection %s", state)
			t.noError(a.Close())
		}
	}
}

// C6. An operation needs the connection if what is buffered does not serve it.
func operationsAfterClose(t *connCheck) {
	data := pattern(3)
	for _, state := range []string{"closed", "closed with 3 bytes buffered for reading", "closed with 10 bytes that were not flushed"} {
		a, b := t.pair()
		n := 0
		switch state {
		case "closed with 3 bytes buffered for reading":
			n = 3
			t.feed(b, data)
			t.peek(a, data)
		case "closed with 10 bytes that were not flushed":
			t.malloc(a, pattern(10))
		}
		t.step("Close")
		_ = a.Close()
		try := func(what string, f func() error) {
			t.step("%s on a connection that was %s", what, state)
			t.isClosed(f())
		}
		if state == "closed with 10 bytes that were not flushed" {
			try("Flush", a.Flush)
		}
		for range 2 {
			try(fmt.Sprintf("Peek(%d)", n+1), func() error {
				_, err := a.Peek(n + 1)
				return err
			})
			try(fmt.Sprintf("ReadBinary(%d)", n+1), func() error {
				_, err := a.ReadBinary(n + 1)
				return err
			})
		}
		if !t.behavior().SkipWithinBuffer {
			try(fmt.Sprintf("Skip(%d)", n+1), func() error { return a.Skip(n + 1) })
		}
		if n = a.Len(); n > 0 {
			t.skip(a, n) // a Skip that failed may have left them
		}
		for range 2 {
			try("ReadByte, with nothing buffered,", func() error {
				_, err := a.ReadByte()
				return err
			})
			try("Read, with nothing buffered,", func() error {
				_, err := a.Read(make([]byte, 10))
				return err
			})
			try("Write of 10 bytes", func() error {
				_, err := a.Write(pattern(10))
				return err
			})
			try("Malloc(10) and Flush", func() error {
				if _, err := a.Malloc(10); err != nil {
					return err
				}
				return a.Flush()
			})
			try("WriteBinary of 64 KiB and Flush", func() error {
				if _, err := a.WriteBinary(pattern(64 << 10)); err != nil {
					return err
				}
				return a.Flush()
			})
			for _, d := range []time.Duration{0, time.Second} {
				try(fmt.Sprintf("SetReadTimeout(%v)", d), func() error { return a.SetReadTimeout(d) })
				try(fmt.Sprintf("SetWriteTimeout(%v)", d), func() error { return a.SetWriteTimeout(d) })
			}
			for _, at := range []time.Time{{}, time.Now().Add(anHour)} {
				try("SetDeadline", func() error { return a.SetDeadline(at) })
				try("SetReadDeadline", func() error { return a.SetReadDeadline(at) })
				try("SetWriteDeadline", func() error { return a.SetWriteDeadline(at) })
			}
		}
		// What needs no connection must not panic, whatever it returns.
		t.step("Release, Len, Peek(0), Skip(0), Read(nil), Write(nil) and Flush on a connection that was %s", state)
		_ = a.Release()
		_ = a.Len()
		_, _ = a.Peek(0)
		_ = a.Skip(0)
		_, _ = a.Read(nil)
		_, _ = a.Write(nil)
		_ = a.Flush()
	}
}

// C7: all bytes arrive while other goroutines change limits, none of which passes;
// and what is blocked does not hold up the Set methods, nor do they end it.
func setMethodsDuringIO(t *connCheck) {
	t.setDuringTransfer()
	t.setWhileBlocked()
}

// generousSets are the Set methods with limits that do not pass.
var generousSets = []struct {
	name string
	do   func(c network.Conn) error
}{
	{"SetReadTimeout of an hour", func(c network.Conn) error { return c.SetReadTimeout(anHour) }},
	{"SetWriteTimeout of an hour", func(c network.Conn) error { return c.SetWriteTimeout(anHour) }},
	{"SetReadDeadline in an hour", func(c network.Conn) error { return c.SetReadDeadline(time.Now().Add(anHour)) }},
	{"SetWriteDeadline in an hour", func(c network.Conn) error { return c.SetWriteDeadline(time.Now().Add(anHour)) }},
	{"SetDeadline in an hour", func(c network.Conn) error { return c.SetDeadline(time.Now().Add(anHour)) }},
	{"SetDeadline to the zero time", func(c network.Conn) error { return c.SetDeadline(time.Time{}) }},
}

func (t *connCheck) setDuringTransfer() {
	a, b := t.pair()
	t.step("1 MiB each way, while other goroutines call the Set methods and the addresses")
	data := pattern(1 << 20)
	var over atomic.Bool
	defer over.Store(true)
	for i := range 2 {
		t.spawn(func() {
			for j := i; !over.Load(); j++ {
				set := generousSets[j%len(generousSets)]
				if err := set.do(a); err != nil {
					if !over.Load() {
						t.fail("no error of "+set.name, describeError(err))
					}
					return
				}
				_, _ = a.LocalAddr(), a.RemoteAddr()
				time.Sleep(20 * time.Microsecond) // leaves the processor to the I/O
			}
		})
	}
	writes := t.begin(func() (err error) {
		for p := data; len(p) > 0 && err == nil; p = p[min(len(p), 32<<10):] {
			_, err = a.Write(p[:min(len(p), 32<<10)])
		}
		return err
	})
	read, received := make(chan []byte, 1), make(chan []byte, 1)
	reader := t.spawn(func() { read <- t.receive(a, len(data)) })
	peer := t.spawn(func() { received <- t.receive(b, len(data)) })
	t.feed(b, data)
	t.wait(writes.op)
	t.noError(writes.err)
	t.wait(reader)
	t.equal(<-read, data)
	t.wait(peer)
	t.equal(<-received, data)
}

func (t *connCheck) setWhileBlocked() {
	a, b := t.pair()
	t.step("Peek(1) with nothing sent")
	o := t.beginPeek(a)
	s, full := t.stall(writer(a))
	for _, set := range generousSets {
		t.step("%s while a Peek and a Write are blocked", set.name)
		did := t.begin(func() error { return set.do(a) })
		t.mustEnd(did.op, "it to return")
		t.noError(did.err)
	}
	t.step("the Set methods, with an hour or no limit, while a Peek is blocked")
	t.mustStayBlocked(o, aWhile/2)
	if full {
		t.step("the Set methods, with an hour or no limit, while a Write is blocked")
		t.mustStayBlocked(&s.ongoing, 0)
	}
	t.drain(s, b)
	t.feed(b, pattern(1))
	t.mustSucceed(o)
}

// C8.
func addressesAfterClose(t *connCheck) {
	describe := func(addr net.Addr) string {
		if addr == nil {
			return "nil"
		}
		return addr.Network() + " " + addr.String()
	}
	a, b := t.pair()
	local, remote := describe(a.LocalAddr()), describe(a.RemoteAddr())
	t.step("Close by both sides")
	_ = a.Close()
	_ = b.Close()
	t.step("LocalAddr after Close")
	came := describe(a.LocalAddr())
	t.expect(came == local, local+", as before", "%s", came)
	t.step("RemoteAddr after Close")
	came = describe(a.RemoteAddr())
	t.expect(came == remote, remote+", as before", "%s", came)
}

// closablePeer returns the subject and a peer on which can, which closes or prepares
// it, reports true: that of Pair, or a socket of the kit.
func (t *connCheck) closablePeer(can func(peer net.Conn) bool) (a network.Conn, peer net.Conn, ok bool) {
	use := func(a network.Conn, peer net.Conn) { // there may be a handshake to make first
		t.feed(peer, pattern(1))
		t.peek(a, pattern(1))
		t.skip(a, 1)
	}
	if t.subject.Pair != nil {
		a, b := t.pair()
		use(a, b)
		if can(b) {
			return a, b, true
		}
	}
	if !t.canWrap() {
		return nil, nil, false
	}
	x, y := tcpPair(t.check)
	a = t.wrap(x)
	use(a, y)
	return a, y, can(y)
}

// C9.
func halfClosedByPeer(t *connCheck) {
	data := pattern(10)
	a, peer, ok := t.closablePeer(func(peer net.Conn) bool {
		c, ok := peer.(interface{ CloseWrite() error })
		return ok && c.CloseWrite() == nil
	})
	if !ok {
		t.notApplicable("the peer of Conn.Pair cannot close its sending side alone, and the implementation cannot be put over a socket of the kit")
	}
	t.step("Peek(1) after the peer closed its sending side")
	_, err := a.Peek(1)
	t.expect(err != nil, "the end of the stream", "no error")
	sent := 0
	for _, w := range []struct {
		name  string
		write func(p []byte) error
	}{{"Write", writer(a)}, {"WriteBinary and Flush", flusher(a)}, {"Write", writer(a)}} {
		t.step("%s of 10 bytes after the peer closed its sending side, and after the end of the stream was read", w.name)
		got := t.begin(func() error {
			if p := t.receive(peer, 10); !bytes.Equal(p, data) {
				return fmt.Errorf("after %d bytes, the peer received %s", sent, describeBytes(p, data))
			}
			return nil
		})
		t.noError(w.write(data))
		t.mustSucceed(got)
		sent += 10
	}
	t.step("Peek(1) once more, at the end of the stream")
	_, err = a.Peek(1)
	t.expect(err != nil, "the end of the stream", "no error")
}

// C10, of a Peek that is blocked and one that comes later.
func resetByPeer(t *connCheck) {
	for _, blocked := range []bool{true, false} {
		a, peer, ok := t.closablePeer(func(peer net.Conn) bool {
			c, ok := peer.(interface{ SetLinger(int) error })
			return ok && c.SetLinger(0) == nil
		})
		if !ok {
			t.notApplicable("the peer of Conn.Pair cannot reset the connection, and the implementation cannot be put over a socket of the kit")
		}
		peek := func() error {
			_, err := a.Peek(1)
			return err
		}
		var o *ongoing
		if blocked {
			t.step("a reset by the peer (SetLinger(0) and Close) while a Peek(1) is blocked")
			o = t.beginBlocked(peek)
			peer.Close()
		} else {
			t.step("Peek(1) after a reset by the peer (SetLinger(0) and Close)")
			peer.Close()
			o = t.begin(peek)
		}
		t.mustEnd(o.op, "an error")
		t.expect(errors.Is(o.err, errReset), "an error that is ECONNRESET by errors.Is", "%s", describeError(o.err))
	}
}
