package standard

import (
	"bytes"
	"errors"
	"io"
	"math/rand/v2"
	"net"
	"runtime"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"
)

// What the cases C1 to C12 and Z5 of package networktest leave open about a Conn that
// several goroutines use.

// writeSome sends p in one of the ways there are.
func writeSome(c *Conn, p []byte, r *rand.Rand) error {
	switch r.IntN(4) {
	case 0:
		_, err := c.Write(p)
		return err
	case 1:
		_, err := c.ReadFrom(readOnly{bytes.NewReader(p)})
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

// wantClosed fails unless err is net.ErrClosed and no timeout.
func wantClosed(t testing.TB, err error) {
	t.Helper()
	if !errors.Is(err, net.ErrClosed) || isTimeout(err) {
		t.Errorf("got %v, want net.ErrClosed", err)
	}
}

// Both ends read and write at once, in random ways, while limits that are too short
// for reading pass and are changed by the readers and by other goroutines: no byte is
// lost, doubled or moved [Z5, T2, C7]. The limits in the kit do not pass. Those for
// writing do not here: a Flush that timed out has failed for good.
func TestZ5_LimitsThatPass(t *testing.T) {
	for seed := range uint64(2) {
		eachTransport(t, func(t *testing.T, a, b *Conn) { limitsThatPass(t, a, b, seed) })
	}
}

func limitsThatPass(t *testing.T, a, b *Conn, seed uint64) {
	const size = 1 << 20
	body := pattern(size)
	var over atomic.Bool
	var setters, wg sync.WaitGroup
	for i, c := range []*Conn{a, b, a, b} {
		setters.Go(func() {
			for r := rand.New(rand.NewPCG(seed, uint64(i))); !over.Load(); {
				short := time.Duration(r.IntN(2000)) * time.Microsecond
				switch r.IntN(8) {
				case 0:
					c.SetReadTimeout(short)
				case 1:
					c.SetReadTimeout(0)
				case 2:
					c.SetReadDeadline(time.Now().Add(short))
				case 3:
					c.SetReadDeadline(time.Time{})
				case 4:
					c.SetWriteTimeout(time.Hour + short)
				case 5:
					c.SetWriteDeadline(time.Now().Add(time.Hour))
				case 6:
					c.SetDeadline(time.Time{})
				case 7:
					_, _ = c.LocalAddr(), c.RemoteAddr()
				}
				time.Sleep(20 * time.Microsecond) // leaves the processor to the I/O
			}
		})
	}
	for i, c := range []*Conn{a, b} {
		wg.Go(func() {
			r := rand.New(rand.NewPCG(seed, uint64(10+i)))
			for p := body; len(p) > 0; {
				n := min(len(p), 1+r.IntN(40<<10))
				if err := writeSome(c, p[:n], r); err != nil {
					t.Errorf("write: %v", err)
					c.Close()
					return
				}
				p = p[n:]
			}
		})
		wg.Go(func() {
			r := rand.New(rand.NewPCG(seed, uint64(20+i)))
			for at := 0; at < size; {
				if r.IntN(8) == 0 {
					c.SetReadTimeout(time.Duration(1+r.IntN(200)) * time.Microsecond)
				}
				n, err := readSome(c, body[at:], r)
				at += n
				switch {
				case isTimeout(err):
					isTimeoutShape(t, err)
				case err != nil:
					t.Errorf("read at %d: %v", at, err)
					c.Close()
					return
				}
			}
		})
	}
	wg.Wait()
	over.Store(true)
	setters.Wait()
	for _, c := range []*Conn{a, b} {
		if n := c.Len(); n != 0 {
			t.Errorf("%d bytes too many", n)
		}
	}
}

// On a pipe, where everything happens at an exact time, two ends hold a conversation
// in random steps with random pauses. Each side's timeout is shorter or longer than
// the pause of the other: it ends at its time or not at all [Z5, T1, T4].
func TestZ5_ConversationAtExactTimes(t *testing.T) {
	for seed := range uint64(100) {
		synctest.Test(t, func(t *testing.T) {
			r := rand.New(rand.NewPCG(seed, 30))
			an, bn := pipePair(t)
			a, b := NewConn(an), NewConn(bn)
			source := pattern(64 << 10)
			for range 30 {
				n := 1 + r.IntN(20000)
				pause := time.Duration(r.IntN(1000)) * time.Millisecond
				limit := time.Duration(r.IntN(1000))*time.Millisecond + time.Millisecond/2
				body := source[:n]
				done := make(chan error, 1)
				go func() {
					time.Sleep(pause)
					_, err := b.WriteBinary(body)
					done <- errors.Join(err, b.Flush())
				}()
				start := time.Now()
				a.SetReadTimeout(limit)
				p, err := a.Peek(n)
				took := time.Since(start)
				if limit < pause {
					wantTimeout(t, err)
					if took != limit {
						t.Fatalf("seed %d: a limit of %v ended after %v", seed, limit, took)
					}
					p, err = readUntil(a, n)
				} else if took != pause {
					t.Fatalf("seed %d: a pause of %v ended after %v", seed, pause, took)
				}
				if err != nil || !bytes.Equal(p, body) {
					t.Fatalf("seed %d: %d of %d bytes, %v", seed, len(p), n, err)
				}
				if err := <-done; err != nil {
					t.Fatalf("seed %d: %v", seed, err)
				}
				a.Skip(n)
				if r.IntN(2) == 0 {
					a.Release()
				}
				if r.IntN(2) == 0 {
					a, b = b, a
				}
			}
		})
	}
}

// readUntil peeks n bytes, however many timeouts that takes.
func readUntil(c *Conn, n int) ([]byte, error) {
	for {
		p, err := c.Peek(n)
		if !isTimeout(err) {
			return p, err
		}
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
		wg.Go(func() { _, _ = io.Copy(io.Discard, readOnly{bn}) })
		_, _ = bn.Write([]byte("x"))
		if i%2 == 0 {
			runtime.Gosched()
		}
		a.Close()
		wg.Wait()
		b.Close()
	}
}

// However many goroutines call Close at once, the conn beneath is closed once, and
// one of them gets its error.
func TestC4_OneCloseBeneath(t *testing.T) {
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
}

// Any number of goroutines may Read one Conn, through its ring and past it: each byte
// comes to exactly one of them, which the kit does not count.
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
	})
}

// Each of many readers has the timeout for itself, from when it is its turn [T4].
func TestC11_ManyReadersTimeOut(t *testing.T) {
	eachTransport(t, func(t *testing.T, a, _ *Conn) {
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

// Writes of many goroutines do not mix: each p leaves in one piece. The kit counts
// their bytes.
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
