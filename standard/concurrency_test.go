package standard

import (
	"bytes"
	"errors"
	"io"
	"math/rand/v2"
	"net"
	"runtime"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"
)

// 4 MiB each way at once, through every way to read and to write: each direction
// has one goroutine on either end.
func TestC1_BothWaysAtOnce(t *testing.T) {
	body := pattern(4 << 20)
	eachTransport(t, func(t *testing.T, a, b *Conn) {
		var wg sync.WaitGroup
		for i, c := range []*Conn{a, b} {
			wg.Go(func() {
				r := rand.New(rand.NewPCG(uint64(i), 1))
				for p := body; len(p) > 0; {
					n := min(len(p), 1+r.IntN(200<<10))
					if err := writeSome(c, p[:n], r); err != nil {
						t.Errorf("write: %v", err)
						return
					}
					p = p[n:]
				}
			})
			wg.Go(func() {
				r := rand.New(rand.NewPCG(uint64(i), 2))
				for at := 0; at < len(body); {
					n, err := readSome(c, body[at:], r)
					if err != nil {
						t.Errorf("read at %d: %v", at, err)
						c.Close()
						return
					}
					at += n
				}
				c.Release()
			})
		}
		wg.Wait()
	})
}

// writeSome sends p in one of the ways there are.
func writeSome(c *Conn, p []byte, r *rand.Rand) error {
	switch r.IntN(4) {
	case 0:
		_, err := c.Write(p)
		return err
	case 1:
		_, err := c.ReadFrom(onlyReader{bytes.NewReader(p)})
		return err
	case 2:
		b, err := c.Malloc(len(p))
		if err != nil {
			return err
		}
		copy(b, p)
		return c.Flush()
	}
	for len(p) > 0 {
		n := min(len(p), 1+r.IntN(8<<10))
		if _, err := c.WriteBinary(p[:n]); err != nil {
			return err
		}
		p = p[n:]
	}
	return c.Flush()
}

var errOtherBytes = errors.New("other bytes than were sent")

// readSome takes some bytes in one of the ways there are and compares them with
// what must come next. A timeout is returned with the count that was taken.
func readSome(c *Conn, want []byte, r *rand.Rand) (int, error) {
	n := min(len(want), 1+r.IntN(100<<10))
	check := func(p []byte) error {
		if !bytes.HasPrefix(want, p) {
			return errOtherBytes
		}
		return nil
	}
	switch r.IntN(6) {
	case 0:
		p, err := c.Peek(n)
		if err != nil {
			return 0, err
		}
		if err := check(p); err != nil {
			return 0, err
		}
		return n, c.Skip(n)
	case 1:
		p, err := c.ReadBinary(n)
		if err != nil {
			return 0, err
		}
		return n, check(p)
	case 2:
		x, err := c.ReadByte()
		if err != nil {
			return 0, err
		}
		return 1, check([]byte{x})
	case 3:
		c.Release()
		fallthrough
	case 4:
		p := make([]byte, n)
		n, err := c.Read(p)
		if err != nil {
			return n, err
		}
		return n, check(p[:n])
	}
	// Skip passes over what came, also when it fails: the ring counts all.
	before := c.in.taken()
	err := c.Skip(n)
	return int(c.in.taken() - before), err
}

// Close ends a blocked reading operation with net.ErrClosed, whatever limit it has.
func TestC2_CloseDuringARead(t *testing.T) {
	for _, op := range readOps {
		t.Run(op.name, func(t *testing.T) {
			for _, limit := range []time.Duration{0, time.Hour} {
				eachTransport(t, func(t *testing.T, a, b *Conn) {
					a.SetReadTimeout(limit)
					ended := inside(t, &a.rd, func() error { _, err := op.do(a); return err })
					if err := a.Close(); err != nil {
						t.Errorf("Close: %v", err)
					}
					wantClosed(t, ends(t, ended))
				})
			}
		})
	}
}

// wantClosed fails unless err is net.ErrClosed and no timeout.
func wantClosed(t testing.TB, err error) {
	t.Helper()
	if !errors.Is(err, net.ErrClosed) || isTimeout(err) {
		t.Errorf("got %v, want net.ErrClosed", err)
	}
}

// Close ends a blocked writing operation with net.ErrClosed, and does not wait for
// the peer.
func TestC3_CloseDuringAFlush(t *testing.T) {
	for _, op := range writeOps {
		t.Run(op.name, func(t *testing.T) {
			for _, limit := range []time.Duration{0, time.Hour} {
				eachTransport(t, func(t *testing.T, a, b *Conn) {
					stalled(a, b)
					a.SetWriteTimeout(limit)
					ended := inside(t, &a.wr, func() error { return op.do(a, make([]byte, 4<<20)) })
					if err := a.Close(); err != nil {
						t.Errorf("Close: %v", err)
					}
					wantClosed(t, ends(t, ended))
					_, err := a.Write([]byte("more"))
					wantClosed(t, err)
				})
			}
		})
	}
}

// Close races with the start of operations that have a limit: whatever they were
// about to do, setting the timer included, they end with net.ErrClosed.
func TestC2_CloseRacesTheStartOfAnOperation(t *testing.T) {
	for _, s := range sockets {
		t.Run(s.name, func(t *testing.T) { closeRaces(t, s.pair) })
	}
}

func closeRaces(t *testing.T, pair func(testing.TB) (a, b net.Conn)) {
	for i := range 100 {
		an, bn := pair(t)
		a, b := NewConn(an), NewConn(bn)
		a.SetReadTimeout(time.Hour)
		a.SetWriteTimeout(time.Hour)
		var wg sync.WaitGroup
		wg.Go(func() {
			// The second read of a Peek sets the timer before it reads.
			_, err := readOps[i%len(readOps)].do(a)
			for err == nil {
				_, err = a.Peek(a.Len() + 1)
			}
			wantClosed(t, err)
		})
		wg.Go(func() {
			var err error
			for err == nil {
				err = writeOps[i%len(writeOps)].do(a, []byte("12345678"))
			}
			wantClosed(t, err)
		})
		wg.Go(func() { _, _ = io.Copy(io.Discard, onlyReader{bn}) })
		_, _ = bn.Write([]byte("x"))
		if i%2 == 0 {
			runtime.Gosched()
		}
		a.Close()
		wg.Wait()
		b.Close()
	}
}

// Any number of goroutines may call Close at once: the conn beneath is closed once,
// and one of them gets its error.
func TestC4_ConcurrentClose(t *testing.T) {
	errClose := errors.New("cannot close")
	sc := &scriptConn{closeErr: errClose}
	c := NewConn(sc)
	var wg sync.WaitGroup
	var failed atomic.Int32
	for range 50 {
		wg.Go(func() {
			if err := c.Close(); err == errClose {
				failed.Add(1)
			} else if err != nil {
				t.Error(err)
			}
		})
	}
	wg.Wait()
	if sc.closes != 1 || failed.Load() != 1 {
		t.Errorf("closed %d times, and the error came out %d times", sc.closes, failed.Load())
	}
	eachTransport(t, func(t *testing.T, a, b *Conn) {
		for _, c := range []*Conn{a, b} {
			wg.Go(func() { _, _ = c.Peek(1) })
			wg.Go(func() { _, _ = c.Write(make([]byte, 4<<20)) })
			for range 20 {
				wg.Go(func() {
					if err := c.Close(); err != nil {
						t.Error(err)
					}
				})
			}
		}
		wg.Wait()
	})
}

// A second Close is nil.
func TestC5_SecondClose(t *testing.T) {
	eachTransport(t, func(t *testing.T, a, b *Conn) {
		for i := range 3 {
			if err := a.Close(); err != nil {
				t.Errorf("Close number %d: %v", i+1, err)
			}
		}
	})
}

// After Close, every operation that needs the connection is net.ErrClosed, none
// panics, and those that need it not go on [R23, W4].
func TestC6_OperationsAfterClose(t *testing.T) {
	for _, buffered := range []bool{false, true} {
		eachTransport(t, func(t *testing.T, a, b *Conn) {
			buffered := buffered // of this connection
			if buffered {
				go writeAllOf(b, "abc")
				if _, err := a.Peek(3); err != nil {
					t.Fatal(err)
				}
			}
			if _, err := a.Malloc(10); err != nil {
				t.Fatal(err)
			}
			a.WriteBinary(make([]byte, 10<<10))
			a.Close()
			wantClosed(t, a.Flush())
			if err := a.Flush(); err != nil {
				t.Errorf("an empty Flush: %v", err)
			}
			for range 2 {
				for _, op := range readOps {
					if buffered && (op.name == "ReadByte" || strings.HasPrefix(op.name, "Read")) && op.name != "ReadBinary" {
						continue // takes what is buffered
					}
					p, err := op.do(a)
					wantClosed(t, err)
					if len(p) > 0 {
						t.Errorf("%s returned %q", op.name, p)
					}
					if op.name == "Skip" && buffered {
						buffered = false // what had come is passed over
					}
				}
				for _, op := range writeOps {
					wantClosed(t, op.do(a, []byte("x")))
					wantClosed(t, op.do(a, make([]byte, 100<<10)))
				}
				_, err := a.Malloc(1)
				wantClosed(t, err)
				for _, set := range []func(time.Time) error{a.SetDeadline, a.SetReadDeadline, a.SetWriteDeadline} {
					wantClosed(t, set(time.Time{}))
					wantClosed(t, set(time.Now()))
				}
				for _, set := range []func(time.Duration) error{a.SetReadTimeout, a.SetWriteTimeout} {
					wantClosed(t, set(0))
					wantClosed(t, set(time.Second))
				}
				if p, err := a.Peek(0); len(p) != 0 || err != nil {
					t.Errorf("Peek(0): %q, %v", p, err)
				}
				if err := a.Release(); err != nil {
					t.Errorf("Release: %v", err)
				}
				if err := a.Flush(); err != nil {
					t.Errorf("an empty Flush: %v", err)
				}
				if err := a.Close(); err != nil {
					t.Errorf("Close: %v", err)
				}
			}
		})
	}
}

// The Set methods, Close's siblings and the addresses may be called from any number
// of goroutines during I/O, and no byte is lost by it.
func TestC7_SetMethodsDuringIO(t *testing.T) {
	eachTransport(t, func(t *testing.T, a, b *Conn) {
		const size = 2 << 20
		body := pattern(size)
		stop := make(chan struct{})
		var setters, wg sync.WaitGroup
		for i := range 4 {
			setters.Go(func() {
				r := rand.New(rand.NewPCG(uint64(i), 3))
				for {
					select {
					case <-stop:
						return
					default:
					}
					short := time.Duration(r.IntN(2000)) * time.Microsecond
					switch r.IntN(8) {
					case 0:
						b.SetReadTimeout(short)
					case 1:
						b.SetReadTimeout(0)
					case 2:
						b.SetReadDeadline(time.Now().Add(short))
					case 3:
						b.SetReadDeadline(time.Time{})
					case 4:
						// Generous, for a write that timed out is the end of a Flush.
						a.SetWriteTimeout(time.Hour + short)
					case 5:
						a.SetWriteDeadline(time.Now().Add(time.Hour))
					case 6:
						a.SetDeadline(time.Time{})
					case 7:
						_, _, _, _ = a.LocalAddr(), a.RemoteAddr(), b.LocalAddr(), b.RemoteAddr()
					}
					time.Sleep(20 * time.Microsecond) // leaves the processor to the I/O
				}
			})
		}
		wg.Go(func() {
			r := rand.New(rand.NewPCG(1, 4))
			for p := body; len(p) > 0; {
				n := min(len(p), 1+r.IntN(64<<10))
				if err := writeSome(a, p[:n], r); err != nil {
					t.Errorf("write: %v", err)
					b.Close()
					return
				}
				p = p[n:]
			}
		})
		wg.Go(func() {
			r := rand.New(rand.NewPCG(1, 5))
			for at := 0; at < size; {
				n, err := readSome(b, body[at:], r)
				at += n
				if err != nil && !isTimeout(err) {
					t.Errorf("read at %d: %v", at, err)
					a.Close()
					return
				}
			}
		})
		wg.Wait()
		close(stop)
		setters.Wait()
		b.SetReadTimeout(0)
		go writeAllOf(a, "x")
		if p, err := b.Peek(1); string(p) != "x" || err != nil {
			t.Errorf("afterwards: %q, %v", p, err)
		}
	})
}

// The addresses stay after Close.
func TestC8_AddressesAfterClose(t *testing.T) {
	eachTransport(t, func(t *testing.T, a, b *Conn) {
		local, remote := a.LocalAddr().String(), a.RemoteAddr().String()
		a.Close()
		b.Close()
		if a.LocalAddr().String() != local || a.RemoteAddr().String() != remote {
			t.Errorf("%v and %v became %v and %v", local, remote, a.LocalAddr(), a.RemoteAddr())
		}
	})
}

// When the peer closes its sending side alone, reads end and writes go on.
func TestC9_HalfClose(t *testing.T) {
	eachTransport(t, func(t *testing.T, a, b *Conn) {
		half, ok := b.nc.(interface{ CloseWrite() error })
		if !ok {
			t.Skip("a pipe has no halves")
		}
		writeAllOf(b, "last")
		if err := half.CloseWrite(); err != nil {
			t.Fatal(err)
		}
		a.SetReadTimeout(late)
		if p, err := a.Peek(8); string(p) != "last" || err != io.EOF {
			t.Fatalf("Peek: %q, %v", p, err)
		}
		for _, op := range writeOps {
			if err := op.do(a, []byte("12345678")); err != nil {
				t.Errorf("%s: %v", op.name, err)
			}
			if p, err := b.ReadBinary(8); string(p) != "12345678" || err != nil {
				t.Errorf("%s: the peer got %q, %v", op.name, p, err)
			}
		}
		if p, err := a.Peek(8); string(p) != "last" || err != io.EOF {
			t.Errorf("Peek afterwards: %q, %v", p, err)
		}
	})
}

// A connection that the peer reset fails with ECONNRESET, in a *net.OpError, again
// and again. Bytes that are buffered stay readable.
func TestC10_Reset(t *testing.T) {
	reset := func(t *testing.T, c net.Conn) {
		if err := c.(*net.TCPConn).SetLinger(0); err != nil {
			t.Fatal(err)
		}
		c.Close()
	}
	for _, op := range readOps {
		t.Run(op.name, func(t *testing.T) {
			for _, blocked := range []bool{false, true} {
				an, bn := tcpPair(t)
				a := NewConn(an)
				writeAllOf(bn, "abc")
				if _, err := a.Peek(3); err != nil {
					t.Fatal(err)
				}
				a.SetReadTimeout(late)
				do := func() error {
					if strings.HasPrefix(op.name, "Read") && op.name != "ReadBinary" {
						a.Skip(a.Len()) // these take what is buffered
					}
					_, err := op.do(a)
					return err
				}
				var err error
				if blocked {
					ended := inside(t, &a.rd, do)
					reset(t, bn)
					err = ends(t, ended)
				} else {
					reset(t, bn)
					err = do()
				}
				for range 3 {
					if _, ok := err.(*net.OpError); !ok || !errors.Is(err, syscall.ECONNRESET) || isTimeout(err) {
						t.Fatalf("got %T: %v, want ECONNRESET in a *net.OpError", err, err)
					}
					_, err = a.Peek(a.Len() + 1)
				}
				if n := a.Len(); op.name == "Peek" || op.name == "ReadBinary" {
					if p, err := a.Peek(3); string(p) != "abc" || n != 3 || err != nil {
						t.Errorf("the bytes before the reset: %q, %v", p, err)
					}
				}
			}
		})
	}
	for _, op := range writeOps {
		t.Run(op.name, func(t *testing.T) {
			an, bn := tcpPair(t)
			a := NewConn(an)
			ended := inside(t, &a.wr, func() error { return op.do(a, make([]byte, 32<<20)) })
			reset(t, bn)
			err := ends(t, ended)
			if !errors.Is(err, syscall.ECONNRESET) && !errors.Is(err, syscall.EPIPE) {
				t.Errorf("got %v", err)
			}
			a.WriteBinary([]byte("x"))
			if again := a.Flush(); again != err {
				t.Errorf("the next Flush: %v, want the same error as before", again)
			}
		})
	}
}

// Any number of goroutines may Read one Conn: each byte comes to one of them, and a
// past deadline, or Close, frees them all.
func TestC11_ManyReaders(t *testing.T) {
	eachTransport(t, func(t *testing.T, a, b *Conn) {
		const size, readers = 256 << 10, 8
		var sum [256]int
		for i := range size {
			sum[byte(i)]++
		}
		var mu sync.Mutex
		var wg sync.WaitGroup
		var got atomic.Int64
		for i := range readers {
			wg.Go(func() {
				p := make([]byte, 1<<(6+i)) // on both sides of a block
				for {
					n, err := a.Read(p)
					mu.Lock()
					for _, x := range p[:n] {
						sum[x]--
					}
					mu.Unlock()
					if got.Add(int64(n)) == size {
						a.SetReadDeadline(longAgo)
					}
					if err != nil {
						if got.Load() != size || !isTimeout(err) {
							t.Errorf("after %d bytes: %v", got.Load(), err)
							a.Close()
						}
						return
					}
				}
			})
		}
		p := make([]byte, size)
		for i := range p {
			p[i] = byte(i)
		}
		if _, err := b.Write(p); err != nil {
			t.Fatal(err)
		}
		wg.Wait()
		for x, n := range sum {
			if n != 0 {
				t.Fatalf("the byte %d came %d times too few", x, n)
			}
		}
		a.SetReadDeadline(time.Time{})
		for range readers {
			wg.Go(func() {
				_, err := a.Read(make([]byte, 10))
				wantClosed(t, err)
			})
		}
		a.Close()
		wg.Wait()
	})
}

// Each of many readers has the timeout for itself, from when it is its turn.
func TestC11_ManyReadersTimeOut(t *testing.T) {
	eachTransport(t, func(t *testing.T, a, b *Conn) {
		const readers = 5
		a.SetReadTimeout(soon)
		start := time.Now()
		ended := make(chan error, readers)
		for range readers {
			go func() {
				_, err := a.Read(make([]byte, 1))
				ended <- err
			}()
		}
		for range readers {
			wantTimeout(t, ends(t, ended))
		}
		if d := time.Since(start); d < readers*soon {
			t.Errorf("%d reads in turn took %v", readers, d)
		}
	})
}

// Writes of many goroutines do not mix: each p leaves in one piece.
func TestC11_ManyWriters(t *testing.T) {
	eachTransport(t, func(t *testing.T, a, b *Conn) {
		const writers, each, size = 8, 50, 5000
		var wg sync.WaitGroup
		for i := range writers {
			wg.Go(func() {
				p := bytes.Repeat([]byte{byte(i)}, size)
				for range each {
					if n, err := a.Write(p); n != size || err != nil {
						t.Errorf("%d, %v", n, err)
						return
					}
				}
			})
		}
		var count [writers]int
		for range writers * each {
			p, err := b.ReadBinary(size)
			if err != nil {
				t.Fatal(err)
			}
			if !bytes.Equal(p, bytes.Repeat(p[:1], size)) {
				t.Fatal("two writes have mixed")
			}
			count[p[0]]++
		}
		wg.Wait()
		for i, n := range count {
			if n != each {
				t.Errorf("writer %d: %d writes arrived, want %d", i, n, each)
			}
		}
	})
}

// A Conn that is dropped without Close is collected, whatever state it is in, and
// no goroutine of it stays.
func TestC12_DroppedConnIsCollected(t *testing.T) {
	before := runtime.NumGoroutine()
	for name, use := range map[string]func(a, b *Conn){
		"fresh": func(a, b *Conn) {},
		"used": func(a, b *Conn) {
			go writeAllOf(b, "12345678")
			_, _ = a.Peek(3)
			_, _ = a.Malloc(10)
			_, _ = a.WriteBinary(make([]byte, 10<<10))
		},
		"timed out": func(a, b *Conn) {
			a.SetReadTimeout(time.Millisecond)
			_, _ = a.Peek(1)
		},
		"with a timer": func(a, b *Conn) {
			a.SetReadTimeout(time.Hour)
			a.SetWriteTimeout(time.Hour)
			go writeAllOf(b, "12345678")
			_, _ = a.Peek(8)
			a.SetDeadline(time.Now().Add(time.Hour))
		},
	} {
		t.Run(name, func(t *testing.T) {
			eachTransport(t, func(t *testing.T, a, b *Conn) {
				var dropped atomic.Int32
				func() {
					c := NewConn(a.nc)
					use(c, b)
					runtime.AddCleanup(c, func(n *atomic.Int32) { n.Add(1) }, &dropped)
				}()
				settles(t, "collected Conns", 1, func() int {
					runtime.GC()
					return int(dropped.Load())
				})
			})
		})
	}
	noMoreGoroutines(t, before)
}
