package standard

import (
	"bytes"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"math"
	"net"
	"os"
	"runtime"
	"sync"
	"syscall"
	"testing"
	"testing/iotest"
	"testing/synctest"
	"time"

	"github.com/hertznet/hertznet/tlsconn"
)

const (
	// soon is a timeout that tests wait for, late an upper bound for anything that
	// should have ended at once.
	soon = 10 * time.Millisecond
	late = 10 * time.Second
)

var longAgo = time.Unix(1, 0)

// wantTimeout ends the test unless err has the one shape of a timeout [R28, T1].
func wantTimeout(t testing.TB, err error) {
	t.Helper()
	if wrong := notTimeout(err); wrong != "" {
		t.Fatal(wrong)
	}
}

// isTimeoutShape is wantTimeout for goroutines beside the test's own, which Fatal is
// not for, and for tests that can go on.
func isTimeoutShape(t testing.TB, err error) {
	t.Helper()
	if wrong := notTimeout(err); wrong != "" {
		t.Error(wrong)
	}
}

// notTimeout tells what err lacks to be a timeout.
func notTimeout(err error) string {
	e, ok := err.(*net.OpError)
	if !ok {
		return fmt.Sprintf("got %T: %v, want a *net.OpError", err, err)
	}
	if is := errors.Is(err, os.ErrDeadlineExceeded); !is || !e.Timeout() {
		return fmt.Sprintf("%v: Timeout() is %v, os.ErrDeadlineExceeded %v", err, e.Timeout(), is)
	}
	return ""
}

// readOp is a reading operation that blocks until eight bytes are there, or one.
type readOp struct {
	name string
	do   func(c *Conn) ([]byte, error)
}

var readOps = []readOp{
	{"Peek", func(c *Conn) ([]byte, error) { return c.Peek(c.Len() + 8) }},
	{"Skip", func(c *Conn) ([]byte, error) { return nil, c.Skip(c.Len() + 8) }},
	{"ReadBinary", func(c *Conn) ([]byte, error) { return c.ReadBinary(c.Len() + 8) }},
	{"ReadByte", func(c *Conn) ([]byte, error) { _, err := c.ReadByte(); return nil, err }},
	{"Read", func(c *Conn) ([]byte, error) { n, err := c.Read(make([]byte, 8)); return make([]byte, n), err }},
	{"ReadLarge", func(c *Conn) ([]byte, error) { n, err := c.Read(make([]byte, 64<<10)); return make([]byte, n), err }},
}

// writeOp is an operation that writes p and may block.
type writeOp struct {
	name string
	do   func(c *Conn, p []byte) error
}

var writeOps = []writeOp{
	{"Flush", func(c *Conn, p []byte) error {
		if _, err := c.WriteBinary(p); err != nil {
			return err
		}
		return c.Flush()
	}},
	{"FlushPieces", func(c *Conn, p []byte) error {
		for len(p) > 0 {
			n := min(len(p), 60<<10)
			if _, err := c.WriteBinary(p[:n]); err != nil {
				return err
			}
			p = p[n:]
		}
		return c.Flush()
	}},
	{"Write", func(c *Conn, p []byte) error { _, err := c.Write(p); return err }},
	{"ReadFrom", func(c *Conn, p []byte) error { _, err := c.ReadFrom(bytes.NewReader(p)); return err }},
}

// inside runs f in a goroutine and returns when its operation may block and has
// said so to d, or has ended; the channel gets its result.
func inside(t testing.TB, d *deadline, f func() error) <-chan error {
	t.Helper()
	ended := make(chan error, 1)
	go func() { ended <- f() }()
	for start := time.Now(); !d.waiting.Load() && len(ended) == 0; time.Sleep(100 * time.Microsecond) {
		if time.Since(start) > late {
			t.Fatal("the operation does not wait")
		}
	}
	return ended
}

// ends waits for an operation that must end now.
func ends(t testing.TB, ended <-chan error) error {
	t.Helper()
	select {
	case err := <-ended:
		return err
	case <-time.After(late):
		t.Fatal("the operation does not end")
		return nil
	}
}

// overTLS puts TLS on both ends and runs the handshake.
func overTLS(t testing.TB, a, b net.Conn) (client, server *TLSConn) {
	t.Helper()
	client, server = unshaken(t, a, b)
	done := make(chan error, 1)
	go func() { done <- server.Handshake() }()
	if err := client.Handshake(); err != nil {
		t.Fatal(err)
	}
	if err := <-done; err != nil {
		t.Fatal(err)
	}
	return client, server
}

// unshaken is overTLS without the handshake.
func unshaken(t testing.TB, a, b net.Conn) (client, server *TLSConn) {
	t.Helper()
	cc, sc := tlsConfigs(t)
	return NewTLSConn(tlsconn.Client(a, cc)), NewTLSConn(tlsconn.Server(b, sc))
}

// bareTLS is unshaken with nothing but crypto/tls.
func bareTLS(t testing.TB, a, b net.Conn) (client, server *tls.Conn) {
	t.Helper()
	cc, sc := tlsConfigs(t)
	return tls.Client(a, cc), tls.Server(b, sc)
}

func tlsConfigs(t testing.TB) (client, server *tls.Config) {
	t.Helper()
	cert, pool, err := tlsconn.SelfSigned("localhost")
	if err != nil {
		t.Fatal(err)
	}
	return tlsconn.ClientConfig(&tls.Config{RootCAs: pool}, "localhost:443"),
		tlsconn.ServerConfig(&tls.Config{Certificates: []tls.Certificate{cert}})
}

// noMoreGoroutines waits until there are at most as many as before.
func noMoreGoroutines(t testing.TB, before int) {
	t.Helper()
	settles(t, "goroutines left behind", 0, func() int { return max(0, runtime.NumGoroutine()-before) })
}

// eachTransport is eachPair and a pair over TLS.
func eachTransport(t *testing.T, f func(t *testing.T, a, b *Conn)) {
	eachPair(t, f)
	t.Run("tls", func(t *testing.T) {
		a, b := overTLS2(t)
		f(t, a, b)
	})
}

func overTLS2(t testing.TB) (a, b *Conn) {
	ac, bc := tcpPair(t)
	client, server := overTLS(t, ac, bc)
	return &client.Conn, &server.Conn
}

// A timeout ends an operation at its time, to the precision of the scheduler, and
// is a *net.OpError that is os.ErrDeadlineExceeded; the slice is nil.
func TestT1_TimeoutIsExact(t *testing.T) {
	for _, op := range readOps {
		t.Run(op.name, func(t *testing.T) {
			for i, by := range []string{"timeout", "deadline"} {
				eachTransport(t, func(t *testing.T, a, b *Conn) {
					if i > 0 && op.name != "Peek" {
						return // the operations share what waits
					}
					start := time.Now()
					if by == "timeout" {
						a.SetReadTimeout(soon)
					} else {
						a.SetReadDeadline(start.Add(soon))
					}
					p, err := op.do(a)
					wantTimeout(t, err)
					if len(p) != 0 {
						t.Errorf("%d bytes with a timeout", len(p))
					}
					if d := time.Since(start); d < soon || d > late {
						t.Errorf("%s: ended after %v", by, d)
					}
				})
				t.Run("bubble", func(t *testing.T) {
					synctest.Test(t, func(t *testing.T) {
						a, _ := pipePair(t)
						c := NewConn(a)
						const limit = 1234567 * time.Microsecond
						time.Sleep(time.Millisecond)
						start := time.Now()
						if by == "timeout" {
							c.SetReadTimeout(limit)
						} else {
							c.SetReadDeadline(start.Add(limit))
						}
						_, err := op.do(c)
						wantTimeout(t, err)
						if d := time.Since(start); d != limit {
							t.Errorf("%s: ended after %v, want exactly %v", by, d, limit)
						}
					})
				})
			}
		})
	}
}

// Whatever says in the conn beneath that it is a timeout comes out in the one
// shape; what is none stays what it is and is kept.
func TestR28_ShapesOfErrors(t *testing.T) {
	op := func(err error) error { return &net.OpError{Op: "read", Net: "tcp", Err: err} }
	for _, tc := range []struct {
		name    string
		err     error
		timeout bool
	}{
		{"os.ErrDeadlineExceeded", os.ErrDeadlineExceeded, true},
		{"of package net", op(os.ErrDeadlineExceeded), true},
		{"wrapped", fmt.Errorf("layer: %w", os.ErrDeadlineExceeded), true},
		{"wrapped in a net.OpError", op(fmt.Errorf("layer: %w", os.ErrDeadlineExceeded)), true},
		{"net.OpError wrapped", fmt.Errorf("layer: %w", op(os.ErrDeadlineExceeded)), true},
		{"by its own word", iotest.ErrTimeout, false}, // it does not say so, in spite of its name
		{"by Timeout()", saysTimeout{}, true},
		{"by Timeout() wrapped", fmt.Errorf("layer: %w", saysTimeout{}), true},
		{"by Timeout() in a net.OpError", op(saysTimeout{}), true},
		{"joined", errors.Join(io.ErrNoProgress, os.ErrDeadlineExceeded), true},
		// The system's word for a peer that answers no more: what follows it is an EOF.
		{"ETIMEDOUT", op(os.NewSyscallError("read", syscall.ETIMEDOUT)), false},
		{"bare ETIMEDOUT", syscall.ETIMEDOUT, false},
		{"ECONNRESET", op(os.NewSyscallError("read", syscall.ECONNRESET)), false},
		{"io.ErrUnexpectedEOF", io.ErrUnexpectedEOF, false},
		{"io.ErrClosedPipe", io.ErrClosedPipe, false},
		{"plain", errors.New("broken"), false},
	} {
		// Every reader's method, where nothing has come.
		for _, op := range readerOps {
			t.Run(tc.name+"/"+op.name, func(t *testing.T) {
				data := pattern(100)
				c, _ := scripted(step{err: tc.err}, step{data: data})
				p, err := op.do(c, 1)
				if p != nil || !errors.Is(err, tc.err) {
					t.Fatalf("%q, %v; want nil and %v", p, err, tc.err)
				}
				if tc.timeout {
					wantTimeout(t, err)
					mustPeek(t, c, len(data), data)
				} else if p, again := c.Peek(1); p != nil || again != err {
					t.Errorf("then %q, %v; want nil, and that %v stays", p, again, err)
				}
			})
		}
		limits := []string{"no limit", "a limit", "a stale timer"}
		if tc.timeout {
			limits = limits[:2] // it would look the same as the timer's
		}
		for _, limit := range limits {
			for _, kind := range []string{"read", "write"} {
				t.Run(tc.name+"/"+limit+"/"+kind, func(t *testing.T) {
					sc := &scriptConn{
						reads:  []step{{data: []byte("abc")}, {err: tc.err}, {data: []byte("defghijk")}},
						writes: []step{{n: 3, err: tc.err}},
					}
					c := NewConn(sc)
					if limit == "a stale timer" {
						c.SetDeadline(longAgo)
					}
					if limit != "no limit" {
						c.SetReadTimeout(time.Hour)
						c.SetWriteTimeout(time.Hour)
					}
					if kind == "write" {
						c.WriteBinary([]byte("abcdef"))
						err := c.Flush()
						if tc.timeout {
							wantTimeout(t, err)
						} else if !errors.Is(err, tc.err) || errors.Is(err, os.ErrDeadlineExceeded) {
							t.Fatalf("Flush: %v, want %v", err, tc.err)
						}
						if string(sc.wire) != "abc" {
							t.Errorf("the wire has %q", sc.wire)
						}
						return
					}
					p, err := c.Peek(8)
					if p != nil {
						t.Errorf("Peek returned %q with %v, want nil", p, err)
					}
					if c.Len() != 3 {
						t.Errorf("%d bytes are buffered, want the 3 that came", c.Len())
					}
					if tc.timeout {
						wantTimeout(t, err)
						if !errors.Is(err, tc.err) {
							t.Errorf("%v hides its cause %v", err, tc.err)
						}
						if p, err := c.Peek(8); string(p) != "abcdefgh" || err != nil {
							t.Errorf("the next Peek: %q, %v", p, err)
						}
						return
					}
					for range 2 {
						if !errors.Is(err, tc.err) || errors.Is(err, os.ErrDeadlineExceeded) {
							t.Fatalf("Peek: %v, want %v, and to stay", err, tc.err)
						}
						_, err = c.Peek(8)
					}
					mustPeek(t, c, 3, []byte("abc"))
				})
			}
		}
	}
}

type saysTimeout struct{}

func (saysTimeout) Error() string { return "too slow" }
func (saysTimeout) Timeout() bool { return true }

// After a timeout the next call may succeed, again and again.
func TestT2_Recovery(t *testing.T) {
	for _, op := range readOps {
		t.Run(op.name, func(t *testing.T) {
			eachTransport(t, func(t *testing.T, a, b *Conn) {
				a.SetReadTimeout(time.Millisecond)
				for range 3 {
					for range 3 {
						_, err := op.do(a)
						wantTimeout(t, err)
					}
					go writeAllOf(b, "12345678")
					a.SetReadTimeout(late)
					if _, err := op.do(a); err != nil {
						t.Fatal(err)
					}
					a.Skip(8 - consumed(op, 8))
					a.Release()
					a.SetReadTimeout(time.Millisecond)
				}
			})
		})
	}
}

// writeAllOf writes through c; for goroutines that feed a reader.
func writeAllOf(c net.Conn, s string) { _, _ = c.Write([]byte(s)) }

// consumed returns how many of n bytes that were sent together op passed over.
func consumed(op readOp, n int) int {
	switch op.name {
	case "Peek":
		return 0
	case "ReadByte":
		return 1
	}
	return n
}

// Bytes that came before a timeout stay, and are the first of the next call; only
// Skip has passed over them.
func TestT3_BytesBeforeATimeoutStay(t *testing.T) {
	eachTransport(t, func(t *testing.T, a, b *Conn) {
		go writeAllOf(b, "abc")
		if p, err := a.Peek(3); string(p) != "abc" || err != nil {
			t.Fatalf("%q, %v", p, err)
		}
		a.SetReadTimeout(time.Millisecond)
		for range 2 {
			p, err := a.Peek(8)
			wantTimeout(t, err)
			if p != nil || a.Len() != 3 {
				t.Fatalf("Peek %q, Len %d", p, a.Len())
			}
			p, err = a.ReadBinary(8)
			wantTimeout(t, err)
			if p != nil || a.Len() != 3 {
				t.Fatalf("ReadBinary %q, Len %d", p, a.Len())
			}
		}
		go writeAllOf(b, "defghij")
		a.SetReadTimeout(late)
		if p, err := a.Peek(8); string(p) != "abcdefgh" || err != nil {
			t.Fatalf("%q, %v", p, err)
		}
		if p, err := a.ReadBinary(10); string(p) != "abcdefghij" || err != nil {
			t.Fatalf("%q, %v", p, err)
		}
		go writeAllOf(b, "xyz")
		a.Peek(3)
		a.SetReadTimeout(time.Millisecond)
		wantTimeout(t, a.Skip(8))
		if a.Len() != 0 {
			t.Errorf("Skip left %d of the bytes that had come", a.Len())
		}
	})
}

// Each operation has the timeout for itself, from its own start.
func TestT4_EachOperationHasItsOwn(t *testing.T) {
	t.Run("bubble", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			an, bn := pipePair(t)
			a, b := NewConn(an), NewConn(bn)
			a.SetReadTimeout(100 * time.Millisecond)
			for range 20 {
				go func() { time.Sleep(80 * time.Millisecond); writeAllOf(b, "12345678") }()
				if _, err := a.Peek(8); err != nil {
					t.Fatal(err)
				}
				a.Skip(8)
			}
			start := time.Now()
			_, err := a.Peek(8)
			wantTimeout(t, err)
			if d := time.Since(start); d != 100*time.Millisecond {
				t.Errorf("the last one ended after %v", d)
			}
		})
	})
	for _, s := range sockets {
		// Each wait is longer than what an older timer leaves of its time.
		t.Run(s.name, func(t *testing.T) {
			an, bn := s.pair(t)
			a, b := NewConn(an), NewConn(bn)
			a.SetReadTimeout(soon)
			_, err := a.Peek(8)
			wantTimeout(t, err)
			for range 5 {
				// Arm a timer, and be done with most of its time to spare.
				a.SetReadTimeout(soon)
				go writeAllOf(b, "12345678")
				if _, err := readUntil(a, 8); err != nil {
					t.Fatal(err)
				}
				a.Skip(8)
				start := time.Now()
				_, err := a.Peek(8)
				wantTimeout(t, err)
				if d := time.Since(start); d < soon {
					t.Fatalf("a Peek after another one had %v", d)
				}
			}
		})
	}
}

// An older timer that is still set must not end a later operation with a longer
// limit, or with none.
func TestT4_StaleReadTimer(t *testing.T) {
	for name, change := range map[string]func(c *Conn) error{
		"longer":       func(c *Conn) error { return c.SetReadTimeout(time.Hour) },
		"zero":         func(c *Conn) error { return c.SetReadTimeout(0) },
		"negative":     func(c *Conn) error { return c.SetReadTimeout(-1) },
		"far deadline": func(c *Conn) error { return c.SetReadDeadline(time.Now().Add(time.Hour)) },
		"no deadline":  func(c *Conn) error { return c.SetDeadline(time.Time{}) },
	} {
		for _, op := range readOps {
			if name != "longer" && op.name != "Peek" {
				continue
			}
			t.Run(name+"/"+op.name, func(t *testing.T) {
				t.Parallel()
				eachTransport(t, func(t *testing.T, a, b *Conn) {
					// The operation arms the timer and ends before it fires.
					a.SetReadTimeout(soon)
					first := inside(t, &a.rd, func() error { _, err := a.Peek(1); return err })
					go writeAllOf(b, "x")
					if err := ends(t, first); err != nil && !isTimeout(err) {
						t.Fatal(err)
					}
					if _, err := readUntil(a, 1); err != nil {
						t.Fatal(err)
					}
					a.Skip(1)
					a.Release()
					if err := change(a); err != nil {
						t.Fatal(err)
					}
					second := inside(t, &a.rd, func() error { _, err := op.do(a); return err })
					select {
					case err := <-second:
						t.Fatalf("ended early: %v", err)
					case <-time.After(2 * soon):
					}
					writeAllOf(b, "12345678")
					if err := ends(t, second); err != nil {
						t.Fatal(err)
					}
				})
			})
		}
	}
}

// Zero and negative timeouts lift the limit.
func TestT5_ZeroAndNegativeClear(t *testing.T) {
	for _, none := range []time.Duration{0, -1, -time.Hour, math.MinInt64} {
		synctest.Test(t, func(t *testing.T) {
			an, bn := pipePair(t)
			a, b := NewConn(an), NewConn(bn)
			a.SetReadTimeout(time.Millisecond)
			_, err := a.Peek(8)
			wantTimeout(t, err)
			a.SetReadTimeout(none)
			b.SetWriteTimeout(time.Millisecond)
			b.SetWriteTimeout(none)
			go func() { time.Sleep(1000 * time.Hour); writeAllOf(b, "12345678") }()
			if _, err := a.Peek(8); err != nil {
				t.Errorf("%v: %v", none, err)
			}
			a.Skip(8)
			go func() { time.Sleep(1000 * time.Hour); a.Skip(8) }()
			b.WriteBinary([]byte("12345678"))
			if err := b.Flush(); err != nil {
				t.Errorf("%v: %v", none, err)
			}
		})
	}
}

// Buffered bytes are returned although the deadline passed.
func TestT6_BufferedBytesAfterTheDeadline(t *testing.T) {
	eachTransport(t, func(t *testing.T, a, b *Conn) {
		go writeAllOf(b, "123456789")
		if _, err := a.Peek(9); err != nil {
			t.Fatal(err)
		}
		a.SetReadDeadline(longAgo)
		if p, err := a.Peek(9); len(p) != 9 || err != nil {
			t.Errorf("Peek: %q, %v", p, err)
		}
		if x, err := a.ReadByte(); x != '1' || err != nil {
			t.Errorf("ReadByte: %q, %v", x, err)
		}
		if p, err := a.ReadBinary(2); string(p) != "23" || err != nil {
			t.Errorf("ReadBinary: %q, %v", p, err)
		}
		if err := a.Skip(2); err != nil {
			t.Errorf("Skip: %v", err)
		}
		p := make([]byte, 2)
		if n, err := a.Read(p); string(p[:n]) != "67" || err != nil {
			t.Errorf("Read: %q, %v", p[:n], err)
		}
		p = make([]byte, 64<<10)
		if n, err := a.Read(p); string(p[:n]) != "89" || err != nil {
			t.Errorf("large Read: %q, %v", p[:n], err)
		}
		_, err := a.Read(p)
		wantTimeout(t, err)
	})
}

// A deadline in the past wakes an operation that is blocked.
func TestT7_PastDeadlineWakes(t *testing.T) {
	for _, op := range readOps {
		t.Run(op.name, func(t *testing.T) {
			eachTransport(t, func(t *testing.T, a, b *Conn) {
				for i, set := range []func() error{
					func() error { return a.SetReadDeadline(longAgo) },
					func() error { return a.SetDeadline(time.Now()) },
				} {
					a.SetReadTimeout(time.Duration(i) * time.Hour) // none, a long one
					ended := inside(t, &a.rd, func() error { _, err := op.do(a); return err })
					if err := set(); err != nil {
						t.Fatal(err)
					}
					wantTimeout(t, ends(t, ended))
					// And it holds until it is changed.
					_, err := op.do(a)
					wantTimeout(t, err)
				}
				a.SetReadTimeout(late)
				b.SetWriteTimeout(late)
				go writeAllOf(b, "12345678")
				if _, err := op.do(a); err != nil {
					t.Fatal(err)
				}
			})
		})
	}
	for _, op := range writeOps {
		t.Run(op.name, func(t *testing.T) {
			eachTransport(t, func(t *testing.T, a, b *Conn) {
				ended := inside(t, &a.wr, func() error { return op.do(a, make([]byte, 16<<20)) })
				a.SetWriteDeadline(longAgo)
				wantTimeout(t, ends(t, ended))
			})
		})
	}
}

// limitCall is a call that sets the limit for reading or for writing; limit is
// what holds after it: less than zero is in the past, zero is none.
type limitCall struct {
	name  string
	do    func(c *Conn, write bool) error
	limit time.Duration
}

func limitCalls(soon time.Duration) []limitCall {
	timeout := func(d time.Duration) func(c *Conn, write bool) error {
		return func(c *Conn, write bool) error {
			if write {
				return c.SetWriteTimeout(d)
			}
			return c.SetReadTimeout(d)
		}
	}
	deadline := func(at func() time.Time) func(c *Conn, write bool) error {
		return func(c *Conn, write bool) error {
			if write {
				return c.SetWriteDeadline(at())
			}
			return c.SetReadDeadline(at())
		}
	}
	both := func(at func() time.Time) func(c *Conn, write bool) error {
		return func(c *Conn, _ bool) error { return c.SetDeadline(at()) }
	}
	in := func(d time.Duration) func() time.Time {
		return func() time.Time { return time.Now().Add(d) }
	}
	never := func() time.Time { return time.Time{} }
	return []limitCall{
		{"timeout soon", timeout(soon), soon},
		{"timeout 1h", timeout(time.Hour), time.Hour},
		{"timeout 0", timeout(0), 0},
		{"deadline past", deadline(in(-time.Second)), -1},
		{"deadline soon", deadline(in(soon)), soon},
		{"deadline 1h", deadline(in(time.Hour)), time.Hour},
		{"deadline zero", deadline(never), 0},
		{"both past", both(in(-time.Second)), -1},
		{"both soon", both(in(soon)), soon},
		{"both zero", both(never), 0},
	}
}

// The last of SetReadTimeout, SetReadDeadline and SetDeadline holds, whatever was
// set before and whether an operation ran in between; the same for writing.
func TestT8_LastCallWins(t *testing.T) {
	t.Run("bubble", func(t *testing.T) {
		calls := limitCalls(soon)
		for _, first := range calls {
			for _, second := range calls {
				for _, last := range calls {
					synctest.Test(t, func(t *testing.T) {
						for _, write := range []bool{false, true} {
							an, bn := pipePair(t)
							a, b := NewConn(an), NewConn(bn)
							first.do(a, write)
							if !write {
								// A read timeout is recoverable: let the first one act.
								a.SetReadDeadline(longAgo)
								_, err := a.Peek(1)
								wantTimeout(t, err)
								first.do(a, write)
							}
							second.do(a, write)
							last.do(a, write)
							start := time.Now()
							// In two hours, the peer does its part.
							peer := time.AfterFunc(2*time.Hour, func() {
								if write {
									_, _ = b.ReadByte()
								} else {
									writeAllOf(b, "x")
								}
							})
							var err error
							if write {
								a.WriteBinary([]byte("x"))
								err = a.Flush()
							} else {
								_, err = a.Peek(1)
							}
							took := time.Since(start)
							want := max(last.limit, 0)
							if last.limit == 0 {
								want = 2 * time.Hour
							}
							if took != want || (err == nil) != (last.limit == 0) {
								t.Errorf("%s, %s, %s, write=%v: ended with %v after %v, want %v",
									first.name, second.name, last.name, write, err, took, want)
							}
							peer.Stop()
						}
					})
				}
			}
		}
	})
	for _, s := range sockets[:2] {
		t.Run(s.name, func(t *testing.T) {
			var wg sync.WaitGroup
			calls := limitCalls(soon)
			for _, first := range calls {
				for _, last := range calls {
					an, bn := s.pair(t)
					wg.Go(func() { // all together: half of them wait
						a, b := NewConn(an), NewConn(bn)
						first.do(a, false)
						start := time.Now()
						last.do(a, false)
						if last.limit == 0 || last.limit == time.Hour {
							timer := time.AfterFunc(2*soon, func() { writeAllOf(b, "x") })
							defer timer.Stop()
							if _, err := a.Peek(1); err != nil {
								t.Errorf("%s, %s: %v", first.name, last.name, err)
							}
							return
						}
						_, err := a.Peek(1)
						if !errors.Is(err, os.ErrDeadlineExceeded) || time.Since(start) < last.limit {
							t.Errorf("%s, %s: %v after %v", first.name, last.name, err, time.Since(start))
						}
					})
				}
			}
			wg.Wait()
		})
	}
}

// A limit for one direction does not touch the other.
func TestT9_DirectionsAreIndependent(t *testing.T) {
	eachTransport(t, func(t *testing.T, a, b *Conn) {
		a.SetReadDeadline(longAgo)
		go func() { _ = b.Skip(8) }()
		if _, err := a.Write([]byte("12345678")); err != nil {
			t.Fatalf("a past read deadline: Write: %v", err)
		}
		_, err := a.Peek(1)
		wantTimeout(t, err)

		a.SetReadTimeout(0)
		ended := inside(t, &a.rd, func() error { _, err := a.Peek(8); return err })
		if err := a.SetWriteDeadline(longAgo); err != nil {
			t.Fatal(err)
		}
		if err := a.SetWriteTimeout(time.Nanosecond); err != nil {
			t.Fatal(err)
		}
		select {
		case err := <-ended:
			t.Fatalf("a write deadline ended a Peek: %v", err)
		case <-time.After(soon):
		}
		b.SetReadTimeout(time.Nanosecond)
		writeAllOf(b, "12345678")
		if err := ends(t, ended); err != nil {
			t.Error(err)
		}
		a.WriteBinary([]byte("x"))
		wantTimeout(t, a.Flush())
		if _, err := a.Peek(8); err != nil {
			t.Errorf("after a failed Flush: Peek: %v", err)
		}
	})
}

// stalled makes the buffers between a and b small.
func stalled(a, b *Conn) {
	for _, c := range []*Conn{a, b} {
		nc := c.nc
		if tc, ok := nc.(*tlsconn.Conn); ok {
			nc = tc.NetConn()
		}
		if s, ok := nc.(interface {
			SetWriteBuffer(int) error
			SetReadBuffer(int) error
		}); ok {
			_ = s.SetWriteBuffer(64 << 10)
			_ = s.SetReadBuffer(64 << 10)
		}
	}
}

// A Flush to a peer that does not read ends at the write timeout. Output that was
// cut stays lost, and the error stays.
func TestT10_StalledPeer(t *testing.T) {
	body := pattern(4 << 20)
	for _, op := range writeOps {
		for _, by := range []string{"timeout", "deadline"} {
			t.Run(op.name+"/"+by, func(t *testing.T) {
				eachTransport(t, func(t *testing.T, a, b *Conn) {
					stalled(a, b)
					start := time.Now()
					if by == "timeout" {
						a.SetWriteTimeout(soon)
					} else {
						a.SetWriteDeadline(start.Add(soon))
					}
					err := op.do(a, body)
					wantTimeout(t, err)
					if d := time.Since(start); d < soon || d > late {
						t.Errorf("ended after %v", d)
					}
					if op.name == "Write" {
						return // W12: may be resumed on plain sockets
					}
					a.SetWriteTimeout(0)
					a.WriteBinary([]byte("more"))
					again := a.Flush()
					if _, werr := a.Write([]byte("more")); again != nil && werr != again && again != err {
						t.Errorf("then Flush: %v, Write: %v; first was %v", again, werr, err)
					}
					a.Close()
					got, _ := io.ReadAll(onlyReader{b})
					if !bytes.HasPrefix(body, got) {
						t.Errorf("the peer's %d bytes are no prefix of the output", len(got))
					}
				})
			})
		}
	}
	t.Run("bubble", func(t *testing.T) {
		for _, op := range writeOps {
			synctest.Test(t, func(t *testing.T) {
				an, bn := pipePair(t)
				a, b := NewConn(an), NewConn(bn)
				a.SetWriteTimeout(time.Second)
				go b.Skip(100000) // takes a part and then stalls
				start := time.Now()
				wantTimeout(t, op.do(a, body))
				if d := time.Since(start); d != time.Second {
					t.Errorf("%s ended after %v", op.name, d)
				}
			})
		}
	})
}

// onlyReader hides every method but Read.
type onlyReader struct{ io.Reader }

// A write deadline that has passed fails a write that would fit, and no byte of it
// leaves.
func TestT11_PassedWriteDeadline(t *testing.T) {
	for _, op := range writeOps {
		for name, set := range map[string]func(c *Conn){
			"set in the past": func(c *Conn) { c.SetWriteDeadline(longAgo) },
			"SetDeadline":     func(c *Conn) { c.SetDeadline(longAgo) },
			"passed since": func(c *Conn) {
				at := time.Now().Add(time.Millisecond)
				c.SetWriteDeadline(at)
				time.Sleep(time.Until(at) + time.Millisecond)
			},
		} {
			t.Run(op.name+"/"+name, func(t *testing.T) {
				eachTransport(t, func(t *testing.T, a, b *Conn) {
					set(a)
					wantTimeout(t, op.do(a, []byte("x")))
					a.Close()
					if p, err := b.Peek(1); len(p) > 0 {
						t.Errorf("the peer got %q, %v", p, err)
					}
				})
			})
		}
	}
}

// The same over a conn that takes deadlines and does not heed them, as a socket whose
// timer is a little late: the deadline is looked at before anything is written.
func TestT11_PassedWriteDeadlineOverAConnWithoutTimers(t *testing.T) {
	for _, op := range writeOps {
		for _, size := range []int{1, 100 << 10} {
			for name, set := range map[string]func(c *Conn){
				"set in the past": func(c *Conn) { c.SetWriteDeadline(longAgo) },
				"SetDeadline":     func(c *Conn) { c.SetDeadline(longAgo) },
				"passes now": func(c *Conn) {
					c.SetWriteDeadline(time.Now().Add(time.Second))
					time.Sleep(time.Second)
				},
			} {
				t.Run(fmt.Sprintf("%s/%d/%s", op.name, size, name), func(t *testing.T) {
					synctest.Test(t, func(t *testing.T) {
						sc := new(scriptConn)
						c := NewConn(sc)
						set(c)
						err := op.do(c, make([]byte, size))
						wantTimeout(t, err)
						if e := err.(*net.OpError); e.Op != "write" || e.Net != "script" || e.Addr != (scriptAddr{}) {
							t.Errorf("%#v does not tell the operation and the connection", e)
						}
						if sc.nwrites != 0 {
							t.Errorf("%d writes, %d bytes", sc.nwrites, len(sc.wire))
						}
					})
				})
			}
		}
	}
}

// The timeout bounds the whole operation: a peer that drips single bytes, or one
// that floods so that nothing ever blocks, cannot extend it.
func TestT12_WholeOperation(t *testing.T) {
	t.Run("bubble", func(t *testing.T) {
		for _, op := range []readOp{
			{"Peek", func(c *Conn) ([]byte, error) { return c.Peek(1000) }},
			{"ReadBinary", func(c *Conn) ([]byte, error) { return c.ReadBinary(1000) }},
			{"Skip", func(c *Conn) ([]byte, error) { return nil, c.Skip(1000) }},
		} {
			synctest.Test(t, func(t *testing.T) {
				an, bn := pipePair(t)
				a := NewConn(an)
				var wg sync.WaitGroup
				defer wg.Wait()
				wg.Go(func() {
					for {
						time.Sleep(10 * time.Millisecond)
						if _, err := bn.Write([]byte("x")); err != nil {
							return
						}
					}
				})
				a.SetReadTimeout(105 * time.Millisecond)
				start := time.Now()
				_, err := op.do(a)
				wantTimeout(t, err)
				if d := time.Since(start); d != 105*time.Millisecond {
					t.Errorf("%s: ended after %v", op.name, d)
				}
				if want := 10; op.name != "Skip" && a.Len() != want {
					t.Errorf("%s: %d bytes came, want %d", op.name, a.Len(), want)
				}
				bn.Close()
			})
		}
	})
	for _, how := range []struct {
		name  string
		chunk []byte
		pause time.Duration
	}{{"drip", []byte("x"), time.Millisecond}, {"flood", make([]byte, 256<<10), 0}} {
		t.Run(how.name, func(t *testing.T) {
			eachTransport(t, func(t *testing.T, a, b *Conn) {
				var wg sync.WaitGroup
				defer wg.Wait()
				defer b.Close()
				wg.Go(func() {
					for {
						if _, err := b.Write(how.chunk); err != nil {
							return
						}
						time.Sleep(how.pause)
					}
				})
				// An older timer is set that fires early, once more.
				a.SetReadTimeout(soon / 2)
				_, _ = a.Peek(1)
				a.SetReadTimeout(soon)
				start := time.Now()
				wantTimeout(t, a.Skip(math.MaxInt))
				if d := time.Since(start); d < soon || d > late {
					t.Errorf("ended after %v", d)
				}
			})
		})
	}
	// All the bytes are there, so no read blocks, and the time is over after the first.
	t.Run("never blocks", func(t *testing.T) {
		for _, s := range sockets[:2] {
			an, bn := s.pair(t)
			a := NewConn(an)
			const size = 64 << 10 // many blocks, and within the socket's buffers
			if _, err := bn.Write(make([]byte, size)); err != nil {
				t.Fatal(err)
			}
			a.SetReadTimeout(1)
			wantTimeout(t, a.Skip(size))
			_, err := a.ReadBinary(size)
			wantTimeout(t, err)
			if n := a.in.taken() + int64(a.Len()); n == 0 || n >= size {
				t.Errorf("%s: %d bytes of %d were read", s.name, n, size)
			}
		}
	})
	t.Run("write", func(t *testing.T) {
		eachTransport(t, func(t *testing.T, a, b *Conn) {
			stalled(a, b)
			var wg sync.WaitGroup
			defer wg.Wait()
			defer b.Close()
			wg.Go(func() { // a peer that takes a little again and again
				p := make([]byte, 512)
				for {
					if _, err := b.nc.Read(p); err != nil {
						return
					}
					time.Sleep(time.Millisecond)
				}
			})
			a.SetWriteTimeout(soon)
			a.WriteBinary(make([]byte, 32<<20))
			start := time.Now()
			wantTimeout(t, a.Flush())
			if d := time.Since(start); d < soon || d > late {
				t.Errorf("ended after %v", d)
			}
		})
	})
}

// The longest duration is a limit that never passes.
func TestT13_MaxInt64(t *testing.T) {
	eachTransport(t, func(t *testing.T, a, b *Conn) {
		for _, c := range []*Conn{a, b} {
			for _, err := range []error{c.SetReadTimeout(math.MaxInt64), c.SetWriteTimeout(math.MaxInt64)} {
				if err != nil {
					t.Fatal(err)
				}
			}
		}
		ended := inside(t, &a.rd, func() error { _, err := a.Peek(8); return err })
		writeAllOf(b, "12345678")
		if err := ends(t, ended); err != nil {
			t.Fatal(err)
		}
		a.SetDeadline(time.Unix(1<<60, 0))
		go func() { _ = b.Skip(1) }()
		if _, err := a.Write([]byte("x")); err != nil {
			t.Fatal(err)
		}
	})
}

// Ten thousand changes leave no goroutines behind, and those of a timeout allocate
// nothing. For the timers see TestT14_ChangesAreCounted.
func TestT14_NothingIsLeftBehind(t *testing.T) {
	eachTransport(t, func(t *testing.T, a, b *Conn) {
		before := runtime.NumGoroutine()
		if n := testing.AllocsPerRun(10000, func() {
			a.SetReadTimeout(time.Hour)
			a.SetWriteTimeout(time.Hour)
			a.SetReadTimeout(0)
			a.SetWriteTimeout(0)
		}); n != 0 {
			t.Errorf("%v allocations a change of timeouts", n)
		}
		ended := inside(t, &a.rd, func() error { _, err := a.Peek(1); return err })
		for i := range 10000 {
			d := time.Hour + time.Duration(i)
			if i%2 == 0 {
				a.SetReadTimeout(d)
			} else {
				a.SetDeadline(time.Now().Add(d))
			}
		}
		writeAllOf(b, "x")
		if err := ends(t, ended); err != nil {
			t.Fatal(err)
		}
		noMoreGoroutines(t, before)
	})
}

// A changed timeout reaches the operation that is blocked now, which has it from
// now on.
func TestT15_ChangeDuringAnOperation(t *testing.T) {
	t.Run("bubble", func(t *testing.T) {
		const hour = time.Hour
		for _, tc := range []struct {
			name           string
			before, change time.Duration
			want           time.Duration // from the start; the change comes after 1 s
		}{
			{"none to a limit", 0, 5 * time.Second, 6 * time.Second},
			{"shorter", hour, 5 * time.Second, 6 * time.Second},
			{"much shorter", hour, 1, time.Second + 1},
			{"longer", 2 * time.Second, hour, hour + time.Second},
			{"none", 2 * time.Second, 0, 0},
			{"negative", 2 * time.Second, -1, 0},
			{"the same", 2 * time.Second, 2 * time.Second, 3 * time.Second},
			{"for ever", 2 * time.Second, math.MaxInt64, 0},
		} {
			for _, kind := range []string{"read", "write", "tls read", "tls write"} {
				t.Run(tc.name+"/"+kind, func(t *testing.T) {
					synctest.Test(t, func(t *testing.T) {
						an, bn := pipePair(t)
						a, b := NewConn(an), NewConn(bn)
						if kind == "tls read" || kind == "tls write" {
							at, bt := overTLS(t, an, bn)
							a, b = &at.Conn, &bt.Conn
						}
						write := kind == "write" || kind == "tls write"
						set := a.SetReadTimeout
						if write {
							set = a.SetWriteTimeout
						}
						set(tc.before)
						start := time.Now()
						time.AfterFunc(time.Second, func() { set(tc.change) })
						const end = 24 * time.Hour // when the peer does its part
						peer := time.AfterFunc(end, func() {
							if write {
								_, _ = b.ReadByte()
							} else {
								writeAllOf(b, "x")
							}
						})
						defer peer.Stop()
						var err error
						if write {
							a.WriteBinary([]byte("x"))
							err = a.Flush()
						} else {
							_, err = a.Peek(1)
						}
						took, want := time.Since(start), tc.want
						if want == 0 {
							want = end
						}
						if took != want || (err == nil) != (tc.want == 0) {
							t.Errorf("ended with %v after %v, want %v", err, took, want)
						}
						bn.Close()
						an.Close()
					})
				})
			}
		}
	})
	// A socket's timer is another one than a pipe's.
	for _, op := range readOps {
		t.Run("tcp/"+op.name, func(t *testing.T) {
			t.Parallel()
			an, bn := tcpPair(t)
			a, b := NewConn(an), NewConn(bn)
			for _, before := range []time.Duration{0, time.Hour} {
				a.SetReadTimeout(before)
				ended := inside(t, &a.rd, func() error { _, err := op.do(a); return err })
				start := time.Now()
				a.SetReadTimeout(soon)
				wantTimeout(t, ends(t, ended))
				if d := time.Since(start); d < soon {
					t.Errorf("shorter: ended after %v", d)
				}
			}
			for _, after := range []time.Duration{0, time.Hour} {
				// The timer fires while the operation has a longer limit.
				first, start := 30*soon, time.Now()
				a.SetReadTimeout(first)
				ended := inside(t, &a.rd, func() error { _, err := op.do(a); return err })
				a.SetReadTimeout(after)
				if time.Since(start) >= first {
					t.Skip("the machine is too busy to change a limit before it has passed")
				}
				select {
				case err := <-ended:
					t.Fatalf("longer: ended with %v", err)
				case <-time.After(first + soon):
				}
				writeAllOf(b, "12345678")
				if err := ends(t, ended); err != nil {
					t.Fatal(err)
				}
				a.Skip(a.Len())
				a.Release()
			}
		})
	}
	for _, op := range writeOps {
		t.Run(op.name, func(t *testing.T) {
			eachTransport(t, func(t *testing.T, a, b *Conn) {
				a.SetWriteTimeout(time.Hour)
				ended := inside(t, &a.wr, func() error { return op.do(a, make([]byte, 16<<20)) })
				a.SetWriteTimeout(soon)
				wantTimeout(t, ends(t, ended))
			})
		})
	}
}

// A Flush is not cut short by an older timer that fires during it, and no byte is
// sent twice when it goes on. Over TLS, where a write that timed out is the end, no
// older timer may be set at all.
func TestT4_StaleWriteTimer(t *testing.T) {
	body := pattern(4 << 20)
	ops := append([]writeOp{
		{"ReadFromFile", func(c *Conn, p []byte) error {
			f, err := os.CreateTemp("", "hn")
			if err != nil {
				return err
			}
			defer os.Remove(f.Name())
			defer f.Close()
			if _, err := f.Write(p); err != nil {
				return err
			}
			if _, err := f.Seek(0, io.SeekStart); err != nil {
				return err
			}
			_, err = c.ReadFrom(io.LimitReader(f, int64(len(p))))
			return err
		}},
		// An *os.File that the system cannot send from: the copy that stands in for
		// sendfile has read more than it could write.
		{"ReadFromPipe", func(c *Conn, p []byte) error {
			r, w, err := os.Pipe()
			if err != nil {
				return err
			}
			defer r.Close()
			go func() { defer w.Close(); _, _ = w.Write(p) }()
			_, err = c.ReadFrom(r)
			return err
		}},
	}, writeOps...)
	for _, op := range ops {
		for name, change := range map[string]func(c *Conn) error{
			"longer": func(c *Conn) error { return c.SetWriteTimeout(time.Hour) },
			"none":   func(c *Conn) error { return c.SetWriteTimeout(0) },
			"far":    func(c *Conn) error { return c.SetWriteDeadline(time.Now().Add(time.Hour)) },
		} {
			if name != "longer" && op.name != "FlushPieces" {
				continue
			}
			t.Run(op.name+"/"+name, func(t *testing.T) {
				// A unix socket is written to as TCP is, and a pipe's timers are exact as
				// those of TLS are.
				for _, kind := range []string{"tcp", "tls"} {
					var a, b *Conn
					if kind == "tls" {
						a, b = overTLS2(t)
					} else {
						an, bn := tcpPair(t)
						a, b = NewConn(an), NewConn(bn)
					}
					stalled(a, b)
					// A timer that nothing has lifted.
					a.SetWriteDeadline(time.Now().Add(soon))
					if err := change(a); err != nil {
						t.Fatal(err)
					}
					ended := inside(t, &a.wr, func() error { return op.do(a, body) })
					// The operation is stuck while the first timer fires.
					select {
					case err := <-ended:
						t.Fatalf("ended early: %v", err)
					case <-time.After(2 * soon):
					}
					b.SetReadTimeout(late)
					got := make([]byte, len(body))
					_, err := io.ReadFull(b, got)
					if werr := ends(t, ended); werr != nil || err != nil {
						t.Fatalf("write %v, read %v", werr, err)
					}
					if !bytes.Equal(got, body) {
						t.Error(kind, "the peer got other bytes than were sent")
					}
				}
			})
		}
	}
}

// A read timer that is still set from before must not fire during a TLS handshake,
// which could not go on after it: the handshake has the limit that holds now.
func TestT4_StaleTimerDuringAHandshake(t *testing.T) {
	for name, do := range map[string]func(c *TLSConn) error{
		"Handshake": func(c *TLSConn) error { return c.Handshake() },
		"Peek":      func(c *TLSConn) error { return nil }, // it runs the handshake by itself
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				an, bn := pipePair(t)
				client, server := unshaken(t, an, bn)
				if err := server.SetReadDeadline(time.Now().Add(time.Second)); err != nil {
					t.Fatal(err)
				}
				if err := server.SetReadTimeout(time.Hour); err != nil {
					t.Fatal(err)
				}
				sent := make(chan error, 1)
				go func() {
					time.Sleep(2 * time.Second)
					_, err := client.Write([]byte("x"))
					sent <- err
				}()
				if err := do(server); err != nil {
					t.Errorf("Handshake: %v", err)
				}
				if p, err := server.Peek(1); string(p) != "x" || err != nil {
					t.Errorf("Peek: %q, %v", p, err)
				}
				bn.Close() // frees the client if the handshake failed
				if err := <-sent; err != nil {
					t.Errorf("the client: %v", err)
				}
				client.Close()
				server.Close()
			})
		})
	}
}

// Over TLS a Flush after one that had little time is not cut short, and between the
// two no timer is set: TLS answers a key update in a read, and a timeout there would
// be the end of writing.
func TestT4_NoWriteTimerIsLeftOverTLS(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		an, bn := pipePair(t)
		a, b := overTLS(t, an, bn)
		go func() { // takes one message at once and the next after a minute
			for b.Skip(8) == nil {
				time.Sleep(time.Minute)
				_ = b.Skip(8)
			}
		}()
		for range 3 {
			a.SetWriteTimeout(time.Second)
			a.WriteBinary([]byte("12345678"))
			if err := a.Flush(); err != nil {
				t.Fatal(err)
			}
			if armed := a.wr.armed.Load(); armed != 0 {
				t.Error("the write timer is set after the Flush")
			}
			a.SetWriteTimeout(time.Hour)
			a.WriteBinary([]byte("12345678"))
			if err := a.Flush(); err != nil {
				t.Fatal(err)
			}
		}
		an.Close()
		bn.Close()
	})
}

// Handshake may be called by any goroutine while a Peek, which runs the handshake
// too, is blocked: it must not take the limit from under it.
func TestT15_HandshakeBesideAPeek(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		an, bn := pipePair(t)
		client, server := unshaken(t, an, bn)
		peek := make(chan error, 1)
		go func() { _, err := client.Peek(1); peek <- err }()
		synctest.Wait()
		shaken := make(chan error, 2)
		go func() { shaken <- client.Handshake() }()
		go func() { shaken <- server.Handshake() }()
		for range 2 {
			if err := <-shaken; err != nil {
				t.Fatal(err)
			}
		}
		synctest.Wait()
		start := time.Now()
		client.SetReadTimeout(time.Second)
		guard := time.AfterFunc(time.Minute, func() { bn.Close() })
		wantTimeout(t, <-peek)
		if d := time.Since(start); d != time.Second {
			t.Errorf("ended after %v", d)
		}
		guard.Stop()
		client.Close()
		server.Close()
	})
}

// An error of the conn's Set and Close comes out, to whom it belongs.
func TestF6_SetAndCloseErrorsComeOut(t *testing.T) {
	errSet, errClose := errors.New("cannot set"), errors.New("cannot close")
	sc := &scriptConn{setErr: errSet, closeErr: errClose}
	c := NewConn(sc)
	for name, err := range map[string]error{
		"SetDeadline":      c.SetDeadline(time.Now()),
		"SetReadDeadline":  c.SetReadDeadline(time.Now()),
		"SetWriteDeadline": c.SetWriteDeadline(time.Now()),
	} {
		if err != errSet {
			t.Errorf("%s: %v, want %v", name, err, errSet)
		}
	}
	if err := c.Close(); err != errClose {
		t.Errorf("Close: %v", err)
	}
	if err := c.Close(); err != nil {
		t.Errorf("a second Close: %v [C5]", err)
	}
	if sc.closes != 1 {
		t.Errorf("the conn beneath was closed %d times", sc.closes)
	}

	// Without a timer, an operation with a limit could block for ever: it fails
	// before it sends anything.
	for _, op := range writeOps {
		sc := &scriptConn{setErr: errSet}
		c := NewConn(sc)
		c.SetWriteTimeout(time.Second)
		if err := op.do(c, []byte("x")); !errors.Is(err, errSet) {
			t.Errorf("%s: %v", op.name, err)
		}
		if len(sc.wire) != 0 {
			t.Errorf("%s sent %q without a timer", op.name, sc.wire)
		}
	}
	for _, op := range readOps {
		c := NewConn(&scriptConn{setErr: errSet, reads: []step{{data: []byte("12345678")}}})
		c.SetReadTimeout(time.Second)
		if _, err := op.do(c); !errors.Is(err, errSet) {
			t.Errorf("%s: %v", op.name, err)
		}
	}
}

// A pipe that the peer has closed takes no deadlines any more; a read with a
// timeout still ends with io.EOF, and a write with the pipe's own error.
func TestF6_EndOfAPipeWithATimeout(t *testing.T) {
	for _, op := range readOps {
		an, bn := pipePair(t)
		a := NewConn(an)
		a.SetReadTimeout(time.Hour)
		bn.Close()
		for range 2 {
			if _, err := op.do(a); err != io.EOF {
				t.Errorf("%s: %v, want io.EOF", op.name, err)
			}
		}
	}
	for _, op := range writeOps {
		an, bn := pipePair(t)
		a := NewConn(an)
		a.SetWriteTimeout(time.Hour)
		bn.Close()
		if err := op.do(a, []byte("x")); !errors.Is(err, io.ErrClosedPipe) {
			t.Errorf("%s: %v, want io.ErrClosedPipe", op.name, err)
		}
		// In between, the pipe may be closed by this side: see C6.
	}
}
