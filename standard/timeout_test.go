package standard

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"math"
	"net"
	"os"
	"sync"
	"syscall"
	"testing"
	"testing/iotest"
	"testing/synctest"
	"time"
)

// What the cases T1 to T15 of package networktest leave open: ends at the exact time,
// in bubbles; timers that are set late and not lifted; TLS, which a timer that fires
// early would break; and how much of the conn beneath is touched.

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

// bubblePair returns two ends of a pipe, with TLS or without, for a bubble.
func bubblePair(t testing.TB, secure bool) (a, b *Conn) {
	an, bn := pipePair(t)
	if !secure {
		return NewConn(an), NewConn(bn)
	}
	client, server := overTLS(t, an, bn)
	return &client.Conn, &server.Conn
}

// A limit ends every operation at its very time, over TLS too, and also a write of
// which the peer has taken a part.
func TestT1_ExactTimes(t *testing.T) {
	const limit = 1234567 * time.Microsecond
	body := pattern(1 << 20)
	check := func(name string, do func(a *Conn) error) {
		for _, secure := range []bool{false, true} {
			for _, by := range []string{"timeout", "deadline"} {
				t.Run(fmt.Sprintf("%s/%s/tls=%v", name, by, secure), func(t *testing.T) {
					synctest.Test(t, func(t *testing.T) {
						a, b := bubblePair(t, secure)
						go b.Skip(100_000)
						time.Sleep(time.Millisecond)
						start := time.Now()
						if by == "timeout" {
							a.SetReadTimeout(limit)
							a.SetWriteTimeout(limit)
						} else {
							a.SetDeadline(start.Add(limit))
						}
						wantTimeout(t, do(a))
						if d := time.Since(start); d != limit {
							t.Errorf("ended after %v, want exactly %v", d, limit)
						}
						a.nc.Close()
						b.nc.Close()
					})
				})
			}
		}
	}
	for _, op := range readOps {
		check(op.name, func(a *Conn) error { _, err := op.do(a); return err })
	}
	for _, op := range writeOps {
		check(op.name, func(a *Conn) error { return op.do(a, body) })
	}
}

// Whatever says in the conn beneath that it is a timeout comes out in the one
// shape; what is none stays what it is and is kept, whatever timer is set.
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

// writeAllOf writes through c; for goroutines that feed a reader.
func writeAllOf(c net.Conn, s string) { _, _ = c.Write([]byte(s)) }

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

// A conn that takes deadlines and does not heed them, as a socket whose timer is a
// little late: the deadline is looked at before anything is written, and the error
// tells the operation and the connection.
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

// A write that the peer takes little by little has its limit as a whole, as the reads
// of the kit have.
func TestT12_SlowlyTakenWrite(t *testing.T) {
	const limit = 105 * time.Millisecond
	for _, op := range writeOps {
		for _, secure := range []bool{false, true} {
			synctest.Test(t, func(t *testing.T) {
				a, b := bubblePair(t, secure)
				var wg sync.WaitGroup
				wg.Go(func() {
					for p := make([]byte, 512); ; time.Sleep(10 * time.Millisecond) {
						if _, err := b.nc.Read(p); err != nil {
							return
						}
					}
				})
				a.SetWriteTimeout(limit)
				start := time.Now()
				wantTimeout(t, op.do(a, make([]byte, 1<<20)))
				if d := time.Since(start); d != limit {
					t.Errorf("%s, tls=%v: ended after %v, want exactly %v", op.name, secure, d, limit)
				}
				a.nc.Close()
				b.nc.Close()
				wg.Wait()
			})
		}
	}
}

// All the bytes are there, so no read blocks, and the time is over after the first:
// a peer that floods cannot stretch an operation either.
func TestT12_ReadsThatNeverBlock(t *testing.T) {
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
}

// A changed timeout reaches the operation that is blocked now, which has it from
// now on and to the very end.
func TestT15_ChangeDuringAnOperation(t *testing.T) {
	for _, tc := range []struct {
		name           string
		before, change time.Duration
		want           time.Duration // from the start; the change comes after 1 s
	}{
		{"none to a limit", 0, 5 * time.Second, 6 * time.Second},
		{"shorter", time.Hour, 5 * time.Second, 6 * time.Second},
		{"much shorter", time.Hour, 1, time.Second + 1},
		{"longer", 2 * time.Second, time.Hour, time.Hour + time.Second},
		{"none", 2 * time.Second, 0, 0},
		{"negative", 2 * time.Second, -1, 0},
		{"the same", 2 * time.Second, 2 * time.Second, 3 * time.Second},
		{"for ever", 2 * time.Second, math.MaxInt64, 0},
	} {
		for _, write := range []bool{false, true} {
			for _, secure := range []bool{false, true} {
				t.Run(fmt.Sprintf("%s/write=%v/tls=%v", tc.name, write, secure), func(t *testing.T) {
					synctest.Test(t, func(t *testing.T) {
						a, b := bubblePair(t, secure)
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
						a.nc.Close()
						b.nc.Close()
					})
				})
			}
		}
	}
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

// Without a timer, an operation with a limit could block for ever: it fails before it
// sends anything, each of them [F6].
func TestF6_NothingIsSentWithoutATimer(t *testing.T) {
	errSet := errors.New("cannot set")
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
