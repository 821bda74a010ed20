package standard

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/hertznet/hertznet/tlsconn"
)

// delayed gives c a FlushDelay, as a Transporter does.
func delayed(c *Conn, delay time.Duration) *Conn {
	c.accepted = &accepted{t: &Transporter{FlushDelay: delay}, base: c}
	return c
}

// eachDelayed is eachTransport with an a that holds back until something but the timer
// has it sent.
func eachDelayed(t *testing.T, f func(t *testing.T, a, b *Conn)) {
	eachTransport(t, func(t *testing.T, a, b *Conn) {
		delayed(a, time.Hour)
		if _, ok := a.nc.(*tlsconn.Conn); ok {
			a.accepted.tls = &TLSConn{tls: a.nc.(*tlsconn.Conn)}
		}
		f(t, a, b)
	})
}

// holdSoon adds p to the output and leaves it to be held back.
func holdSoon(t testing.TB, c *Conn, p []byte) {
	t.Helper()
	put(t, c, p)
	if err := c.FlushSoon(); err != nil {
		t.Fatal(err)
	}
}

// arrives reads want from c, for which it has a minute.
func arrives(t testing.TB, c *Conn, want []byte) {
	t.Helper()
	_ = c.SetReadTimeout(late)
	got, err := c.ReadBinary(len(want))
	if err != nil {
		t.Fatal(err)
	}
	sameBytes(t, "what arrived", got, want)
}

// The answers to 16 messages that came together leave with one write beneath.
func TestHeldAnswersLeaveInOneWrite(t *testing.T) {
	const n, request, answer = 16, 100, 150
	onSinks(t, func(t *testing.T, open func(writes ...step) (*Conn, *scriptConn)) {
		c, sink := open()
		delayed(c, time.Hour)
		sink.reads = []step{{data: pattern(n * request)}}
		want := pattern(n * answer)
		for i := range n {
			if _, err := c.Peek(request); err != nil {
				t.Fatal(err)
			}
			_ = c.Skip(request)
			if i < n-1 && sink.nwrites > 0 {
				t.Fatalf("answer %d has been written although message %d is buffered", i-1, i)
			}
			put(t, c, want[i*answer:i*answer+50])
			add(t, c, want[i*answer+50:(i+1)*answer])
			more := c.Len() > 0
			_ = c.Release()
			if !more {
				mustFlush(t, c)
			} else if err := c.FlushSoon(); err != nil {
				t.Fatal(err)
			}
		}
		if sink.nwrites != 1 {
			t.Errorf("%d writes for %d answers", sink.nwrites, n)
		}
		sameBytes(t, "wire", sink.wire, want)
	})
}

// Nobody does anything after FlushSoon, and the answer arrives all the same.
func TestHeldAnswerLeavesAfterTheDelay(t *testing.T) {
	eachTransport(t, func(t *testing.T, a, b *Conn) {
		for i := range 3 { // the timer serves more than once
			p := pattern(100 + i)
			holdSoon(t, a, p)
			arrives(t, b, p)
		}
	})
}

func TestHeldAnswerLeavesBeforeAReadBlocks(t *testing.T) {
	eachDelayed(t, func(t *testing.T, a, b *Conn) {
		for _, read := range []struct {
			name string
			f    func() error
		}{
			{"Peek", func() error { _, err := a.Peek(1); return err }},
			{"Skip", func() error { return a.Skip(1) }},
			{"Read", func() error { _, err := a.Read(make([]byte, minBlockSize)); return err }},
			{"the rest of a message", func() error { _, err := a.ReadBinary(a.Len() + 1); return err }},
		} {
			p := pattern(200)
			holdSoon(t, a, p)
			ended := make(chan error, 1)
			go func() { ended <- read.f() }()
			arrives(t, b, p)
			if _, err := b.Write([]byte("x")); err != nil {
				t.Fatal(err)
			}
			if err := ends(t, ended); err != nil {
				t.Fatalf("%s: %v", read.name, err)
			}
			_ = a.Skip(a.Len())
			_ = a.Release()
		}
	})
}

// What comes behind goes behind, and leaves at once.
func TestHeldAnswerLeavesWithWhateverIsWrittenNext(t *testing.T) {
	eachDelayed(t, func(t *testing.T, a, b *Conn) {
		head, body := pattern(300), pattern(20_000)
		want := append(head[:len(head):len(head)], body...)
		for _, write := range []struct {
			name string
			f    func() error
		}{
			{"Flush", func() error { put(t, a, body); return a.Flush() }},
			{"Flush of what is borrowed", func() error { add(t, a, body); return a.Flush() }},
			{"FlushSoon of much", func() error { add(t, a, body); return a.FlushSoon() }},
			{"Write", func() error { _, err := a.Write(body); return err }},
			{"ReadFrom", func() error { _, err := a.ReadFrom(bytes.NewReader(body)); return err }},
			{"ReadFrom a file", func() error { _, err := a.ReadFrom(contents(t, body)); return err }},
		} {
			holdSoon(t, a, head)
			got := collect(b, len(want))
			if err := write.f(); err != nil {
				t.Fatalf("%s: %v", write.name, err)
			}
			sameBytes(t, write.name, <-got, want)
		}
		holdSoon(t, a, head)
		got := collect(b, len(head))
		mustFlush(t, a) // of nothing else
		sameBytes(t, "Flush of nothing", <-got, head)
	})
}

// 64 KiB are held and no more.
func TestHeldBytesAreBounded(t *testing.T) {
	const size = borrowFrom - 1
	onSinks(t, func(t *testing.T, open func(writes ...step) (*Conn, *scriptConn)) {
		allBack := blocksComeBack(t)
		c, sink := open()
		delayed(c, time.Hour)
		p := pattern(size)
		n := 0
		for ; len(sink.wire) == 0 && n < 100; n++ {
			holdSoon(t, c, p)
		}
		if held := (n - 1) * size; held > holdMost || held < holdMost-size {
			t.Errorf("%d bytes were held", held)
		}
		sameBytes(t, "wire", sink.wire, bytes.Repeat(p, n))
		allBack()
	})
}

// Decision 9: Close sends what is held, and drops what was not flushed at all.
func TestCloseSendsWhatIsHeld(t *testing.T) {
	eachDelayed(t, func(t *testing.T, a, b *Conn) {
		allBack := blocksComeBack(t)
		held := pattern(1000)
		holdSoon(t, a, held)
		put(t, a, []byte("not flushed"))
		got := make(chan []byte, 1)
		go func() {
			p, _ := io.ReadAll(b)
			got <- p
		}()
		if err := a.Close(); err != nil {
			t.Fatal(err)
		}
		sameBytes(t, "what arrived", <-got, held)
		if err := a.Flush(); !errors.Is(err, net.ErrClosed) {
			t.Errorf("Flush after Close: %v", err)
		}
		allBack()
	})
}

// A peer that does not read holds up neither Close nor what waits for the hold.
func TestCloseIsBoundedWhileThePeerReadsNothing(t *testing.T) {
	for _, sent := range []bool{false, true} {
		t.Run(fmt.Sprintf("being sent %v", sent), func(t *testing.T) {
			eachTransport(t, func(t *testing.T, a, b *Conn) {
				allBack := blocksComeBack(t)
				fill(t, a, b)
				delayed(a, time.Hour) // or the timer might send while more is held, which would wait
				if tc, ok := a.nc.(*tlsconn.Conn); ok {
					a.accepted.tls = &TLSConn{tls: tc}
				}
				holdMuch(t, a)
				if sent {
					a.held.Load().timer.Reset(0)
					// Only the timer's goroutine can have the lock for long.
					eventually(t, func() bool {
						free := a.held.Load().mu.TryLock()
						if free {
							a.held.Load().mu.Unlock()
						}
						return !free
					})
				}
				closed := make(chan error, 1)
				go func() { closed <- a.Close() }()
				_ = ends(t, closed)
				b.Close()
				allBack()
			})
		})
	}
}

// muchAnswers of muchSize bytes are more than fits where fill was.
const muchAnswers, muchSize = 15, 4000

// holdMuch holds them back.
func holdMuch(t testing.TB, a *Conn) {
	t.Helper()
	for range muchAnswers {
		put(t, a, pattern(muchSize))
		if err := a.FlushSoon(); err != nil {
			return // the timer was faster
		}
	}
}

// fill writes to b until nothing more fits, and leaves a as if it had not.
func fill(t testing.TB, a, b *Conn) {
	t.Helper()
	stalled(a, b)
	raw := a.nc
	if tc, ok := raw.(*tlsconn.Conn); ok {
		raw = tc.NetConn() // b does not read what is no TLS
	}
	stuff(raw)
}

func eventually(t testing.TB, f func() bool) {
	t.Helper()
	for start := time.Now(); !f(); time.Sleep(time.Millisecond) {
		if time.Since(start) > late {
			t.Fatal("it does not happen")
		}
	}
}

// An answer that was lost is known at the next write, and for ever; no byte follows it. A
// read that would have to wait fails, too.
func TestErrorOfAHeldWriteComesOut(t *testing.T) {
	boom := errors.New("boom")
	onSinks(t, func(t *testing.T, open func(writes ...step) (*Conn, *scriptConn)) {
		for _, who := range []struct {
			name string
			f    func(c *Conn) error
		}{
			{"the next Flush", func(c *Conn) error { return c.Flush() }},
			{"a Flush of more", func(c *Conn) error { put(t, c, []byte("more")); return c.Flush() }},
			{"Write", func(c *Conn) error { _, err := c.Write([]byte("more")); return err }},
			{"ReadFrom", func(c *Conn) error { _, err := c.ReadFrom(strings.NewReader("more")); return err }},
			{"a read, and then FlushSoon", func(c *Conn) error {
				_, err := c.Peek(1)
				if err == nil || err == io.EOF || errors.Is(err, boom) || !strings.Contains(err.Error(), "boom") {
					t.Errorf("the read: %v", err)
				}
				put(t, c, []byte("more"))
				return c.FlushSoon()
			}},
			{"the timer, and then FlushSoon", func(c *Conn) error {
				c.held.Load().expire()
				put(t, c, []byte("more"))
				return c.FlushSoon()
			}},
		} {
			allBack := blocksComeBack(t)
			c, sink := open(step{n: 3, err: boom})
			delayed(c, time.Hour)
			holdSoon(t, c, []byte("answer"))
			if err := who.f(c); err != boom {
				t.Errorf("%s: %v", who.name, err)
			}
			sticks(t, c, sink, boom)
			if err := c.FlushSoon(); err != boom {
				t.Errorf("%s, FlushSoon again: %v", who.name, err)
			}
			sameBytes(t, who.name, sink.wire, []byte("ans"))
			allBack()
		}
	})
}

// T10: the write timeout holds for what is held, and is no timeout of reading, after
// which one may read again.
func TestWriteTimeoutOfWhatIsHeld(t *testing.T) {
	eachTransport(t, func(t *testing.T, a, b *Conn) {
		fill(t, a, b)
		_ = a.SetWriteTimeout(soon)
		holdMuch(t, a)
		read := make(chan error, 1)
		go func() { _, err := a.Peek(1); read <- err }()
		err := ends(t, read)
		if err == nil || isTimeout(err) || errors.Is(err, os.ErrDeadlineExceeded) {
			t.Errorf("the read: %v", err)
		}
		wantTimeout(t, a.Flush())
	})
}

// FlushDelay below 0 is never.
func TestNoFlushDelayNoHold(t *testing.T) {
	c := &scriptConn{}
	a := delayed(NewConn(c), -1)
	holdSoon(t, a, []byte("answer"))
	sameBytes(t, "wire", c.wire, []byte("answer"))
}

// The timer fires at any moment between the writer's, and nothing is lost, doubled or
// out of order.
func TestTimerAndWriterKeepTheOrder(t *testing.T) {
	eachTransport(t, func(t *testing.T, a, b *Conn) {
		delayed(a, time.Nanosecond)
		if tc, ok := a.nc.(*tlsconn.Conn); ok {
			a.accepted.tls = &TLSConn{tls: tc}
		}
		allBack := blocksComeBack(t)
		r := rand.New(rand.NewPCG(1, 7))
		want := pattern(400_000)
		got := collect(b, len(want))
		for at := 0; at < len(want); {
			n := 1 + r.IntN(300)
			if r.IntN(20) == 0 {
				n = r.IntN(10_000) // also what is borrowed
			}
			p := bytes.Clone(want[at:min(at+n, len(want))])
			at += len(p)
			cut := r.IntN(len(p) + 1)
			put(t, a, p[:cut])
			add(t, a, p[cut:])
			var err error
			if r.IntN(5) == 0 {
				err = a.Flush()
			} else {
				err = a.FlushSoon()
			}
			if err != nil {
				t.Fatal(err)
			}
			clear(p) // A10: it is forgotten
		}
		mustFlush(t, a)
		sameBytes(t, "stream", <-got, want)
		_ = b.Release()
		allBack()
	})
}

// Z2: a model of one goroutine that answers messages which come in bunches of any size,
// with every way to write and to read; the timer's time is short, long, or over.
func TestModelOfHeldAnswers(t *testing.T) {
	for seed := range uint64(8) {
		t.Run(fmt.Sprint(seed), func(t *testing.T) {
			eachTransport(t, func(t *testing.T, a, b *Conn) {
				allBack := blocksComeBack(t)
				r := rand.New(rand.NewPCG(seed, 5))
				delayed(a, []time.Duration{1, time.Millisecond, time.Hour}[seed%3])
				if tc, ok := a.nc.(*tlsconn.Conn); ok {
					a.accepted.tls = &TLSConn{tls: tc}
				}
				answerAtRandom(t, r, a, b, 300)
				a.Close()
				b.Close()
				_ = b.Release()
				allBack()
			})
		})
	}
}

// answerAtRandom sends n messages from b and answers them from a. Each is its length in
// two bytes and a body; the answer is the message.
func answerAtRandom(t *testing.T, r *rand.Rand, a, b *Conn, n int) {
	sizes := make([]int, n)
	var all []byte
	for i := range sizes {
		switch sizes[i] = r.IntN(200); r.IntN(10) {
		case 0:
			sizes[i] = borrowFrom - 4 + r.IntN(8)
		case 1:
			sizes[i] = r.IntN(30_000)
		}
		all = append(all, byte(sizes[i]>>8), byte(sizes[i]))
		all = append(all, pattern(sizes[i])...)
	}
	got := make(chan []byte, 1)
	go func() {
		p := make([]byte, len(all))
		k, _ := io.ReadFull(b, p)
		got <- p[:k]
	}()
	bunches := rand.New(rand.NewPCG(r.Uint64(), 1))
	go func() {
		for p := all; len(p) > 0; {
			k := min(len(p), 1+bunches.IntN(6000))
			if _, err := b.Write(p[:k]); err != nil {
				return
			}
			if p = p[k:]; bunches.IntN(4) == 0 {
				time.Sleep(time.Duration(bunches.IntN(300)) * time.Microsecond)
			}
		}
	}()
	fail := func(err error) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
	}
	for i, size := range sizes {
		head, err := a.Peek(2)
		fail(err)
		if n := int(head[0])<<8 | int(head[1]); n != size {
			t.Fatalf("message %d has %d bytes, want %d", i, n, size)
		}
		p, err := a.Peek(2 + size)
		fail(err)
		fail(a.Skip(2 + size))
		more := a.Len() > 0
		switch r.IntN(6) {
		case 0:
			put(t, a, p)
		case 1:
			put(t, a, p[:2])
			own := bytes.Clone(p[2:])
			add(t, a, own)
			if more {
				fail(a.FlushSoon())
			} else {
				fail(a.Flush())
			}
			clear(own)
		case 2:
			_, err := a.Write(p)
			fail(err)
		case 3:
			_, err := a.ReadFrom(bytes.NewReader(p))
			fail(err)
		case 4:
			put(t, a, p[:2])
			fail(a.Flush())
			add(t, a, p[2:]) // Peeked, and released before it is sent [A13]
		default:
			add(t, a, p)
		}
		fail(a.Release())
		switch {
		case more && r.IntN(8) > 0:
			fail(a.FlushSoon())
		case r.IntN(8) > 0 || i == n-1:
			fail(a.Flush())
		default:
			fail(a.FlushSoon()) // although a read may follow that blocks
		}
		if r.IntN(30) == 0 {
			time.Sleep(time.Duration(r.IntN(2000)) * time.Microsecond)
		}
	}
	sameBytes(t, "answers", <-got, all)
}

// Z2, W9: wherever the sink fails, it has a prefix of the output, and nothing comes after.
func TestHeldAnswersAndASinkThatFails(t *testing.T) {
	boom := errors.New("boom")
	onSinks(t, func(t *testing.T, open func(writes ...step) (*Conn, *scriptConn)) {
		for seed := range uint64(200) {
			r := rand.New(rand.NewPCG(seed, 9))
			allBack := blocksComeBack(t)
			script := make([]step, r.IntN(6))
			for i := range script {
				script[i].n = -1
			}
			c, sink := open(append(script, step{n: r.IntN(500), err: boom})...)
			delayed(c, time.Hour)
			stream := pattern(100_000)
			at := 0
			var failed error
			for range 100 {
				n := 1 + r.IntN(200)
				if r.IntN(10) == 0 {
					n = r.IntN(9000)
				}
				if p, err := c.Malloc(n); err == nil {
					copy(p, stream[at:])
					at = min(at+n, len(stream)-10_000)
				}
				var err error
				switch r.IntN(8) {
				case 0:
					err = c.Flush()
				case 1:
					c.readErr = nil
					if h := c.held.Load(); h != nil {
						h.expire()
					}
				default:
					err = c.FlushSoon()
				}
				if failed != nil && err != failed && err != nil || err != nil && err != boom {
					t.Fatalf("seed %d: %v after %v", seed, err, failed)
				}
				if failed == nil {
					failed = err
				}
			}
			writes := sink.nwrites
			if err := c.Flush(); failed != nil && err != failed {
				t.Fatalf("seed %d: %v after %v", seed, err, failed)
			}
			if failed != nil && sink.nwrites != writes {
				t.Fatalf("seed %d: bytes were sent after a failure", seed)
			}
			if !bytes.HasPrefix(stream, sink.wire) && at < len(stream)-10_000 {
				t.Fatalf("seed %d: the wire is no prefix", seed)
			}
			c.Close()
			allBack()
		}
	})
}

// A protocol that returns from OnData with an answer held: it leaves before the
// connection waits, or is parked.
func TestNothingIsHeldWhileAConnectionIsIdle(t *testing.T) {
	tr := &Transporter{Addr: "127.0.0.1:0", FlushDelay: time.Hour, ParkAfter: time.Millisecond}
	ln, err := tr.Listen()
	if err != nil {
		t.Fatal(err)
	}
	served := make(chan error, 1)
	go func() {
		served <- tr.Serve(ln, func(_ context.Context, conn any) error {
			c := conn.(*Conn)
			if _, err := c.Peek(2); err != nil {
				return err
			}
			_ = c.Skip(2)
			_, _ = c.WriteBinary([]byte("answer"))
			_ = c.Release()
			if err := c.FlushSoon(); err != nil {
				return err
			}
			c.SetIdle(true) // it may be parked at once
			return nil
		})
	}()
	t.Cleanup(func() { tr.Close(); <-served })
	nc, err := net.Dial("tcp", ln.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	defer nc.Close()
	c := NewConn(nc)
	for range 3 {
		if _, err := nc.Write([]byte("xx")); err != nil {
			t.Fatal(err)
		}
		arrives(t, c, []byte("answer"))
	}
	if n := tr.Stats().Flushes; n != 3 {
		t.Errorf("%d flushes", n)
	}
	settles(t, "bytes written", 18, func() int { return int(tr.Stats().BytesWritten) }) // counted once it is done
}

// stuff writes to a socket until its peer, who does not read, has no room left, and returns
// how much that was.
func stuff(nc net.Conn) (n int) {
	for sent := true; sent; { // once more if some has gone on from one buffer to the other
		sent = false
		for p := make([]byte, 64<<10); len(p) > 0; p = p[:len(p)/2] {
			_ = nc.SetWriteDeadline(time.Now().Add(2 * soon))
			m, _ := nc.Write(p)
			n += m
			sent = sent || m > 0
		}
	}
	_ = nc.SetWriteDeadline(time.Time{})
	return n
}

// A peer that is slow to take an answer is not idle while that is on its way: Shutdown waits
// for it, however the answer was flushed.
func TestS6_ShutdownWaitsForHeldAnswers(t *testing.T) {
	for name, setIdle := range map[string]bool{"OnData returned": false, "SetIdle": true} {
		t.Run(name, func(t *testing.T) {
			stuffed := make(chan int, 1)
			s := serve(t, &Transporter{FlushDelay: time.Hour}, func(_ context.Context, conn any) error {
				c := conn.(*Conn)
				if err := c.Skip(1); err != nil {
					return err
				}
				n := stuff(c.nc)
				holdMuch(t, c)
				stuffed <- n
				if setIdle {
					c.SetIdle(true)
					_, err := c.Peek(1)
					c.SetIdle(false)
					return err
				}
				return nil
			})
			nc, err := net.Dial("tcp", s.addr)
			if err != nil {
				t.Fatal(err)
			}
			defer nc.Close()
			if _, err := nc.Write([]byte("x")); err != nil {
				t.Fatal(err)
			}
			n := <-stuffed
			ended := make(chan error, 1)
			go func() { ended <- s.Shutdown(t.Context()) }()
			select {
			case err := <-ended:
				t.Errorf("Shutdown ended while an answer was on its way: %v", err)
			case <-time.After(4*newGrace + closeFlush):
			}
			_ = nc.SetReadDeadline(time.Now().Add(late))
			got, err := io.ReadAll(nc)
			got = got[min(n, len(got)):]
			if want := bytes.Repeat(pattern(muchSize), muchAnswers); err != nil || !bytes.Equal(got, want) {
				t.Errorf("%d of %d bytes arrived, %v", len(got), len(want), err)
			}
		})
	}
}

// Nor is what is held lost on a peer that is slow, and has said that it sends no more.
func TestHeldAnswersReachASlowPeerThatHasClosedItsSide(t *testing.T) {
	stuffed := make(chan int, 1)
	s := serve(t, &Transporter{FlushDelay: time.Hour}, func(_ context.Context, conn any) error {
		c := conn.(*Conn)
		if err := c.Skip(1); err != nil {
			return err
		}
		n := stuff(c.nc)
		holdMuch(t, c)
		stuffed <- n
		_, err := c.Peek(1)
		return err
	})
	nc, err := net.Dial("tcp", s.addr)
	if err != nil {
		t.Fatal(err)
	}
	defer nc.Close()
	if _, err := nc.Write([]byte("x")); err != nil {
		t.Fatal(err)
	}
	if err := nc.(*net.TCPConn).CloseWrite(); err != nil {
		t.Fatal(err)
	}
	n := <-stuffed
	time.Sleep(4 * closeFlush) // Close, with what it gives a peer that does not read
	_ = nc.SetReadDeadline(time.Now().Add(late))
	got, err := io.ReadAll(nc)
	got = got[min(n, len(got)):]
	if want := bytes.Repeat(pattern(muchSize), muchAnswers); err != nil || !bytes.Equal(got, want) {
		t.Errorf("%d of %d bytes arrived, %v", len(got), len(want), err)
	}
}

// Close stays bounded when a SetWriteTimeout that began before it is only now carried out.
func TestCloseIsBoundedWhileATimeoutIsSet(t *testing.T) {
	a, b := net.Pipe()
	defer b.Close() // it reads nothing
	c := delayed(NewConn(a), time.Microsecond)
	holdSoon(t, c, pattern(100))
	eventually(t, func() bool { return c.wr.is(opWaiting) }) // the timer's
	ended := make(chan error, 1)
	go func() { ended <- c.Close() }()
	eventually(t, c.closed.Load)
	for giveUp := time.After(20 * closeFlush); ; {
		select {
		case <-ended:
			return
		case <-giveUp:
			t.Fatal("Close waits for a peer that does not read")
		case <-time.After(time.Millisecond):
			_ = c.wr.setTimeout(c, time.Hour)
		}
	}
}
