package standard

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"math"
	"math/rand/v2"
	"net"
	"os"
	"strings"
	"syscall"
	"testing"
	"time"
)

// wants are ways to ask for the next three bytes of a stream.
var wants = []struct {
	name string
	do   func(c *Conn) ([]byte, error)
}{
	{"Peek", func(c *Conn) ([]byte, error) {
		b, err := c.Peek(3)
		if err == nil {
			err = c.Skip(3)
		}
		return b, err
	}},
	{"ReadBinary", func(c *Conn) ([]byte, error) { return c.ReadBinary(3) }},
	{"Read", func(c *Conn) ([]byte, error) {
		p := make([]byte, 3)
		_, err := io.ReadFull(readOnly{c}, p)
		return p, err
	}},
	{"large Read", func(c *Conn) ([]byte, error) {
		p := make([]byte, 2*minBlockSize)
		n := 0
		for n < 3 {
			m, err := c.Read(p[n:])
			if err != nil {
				return nil, err
			}
			n += m
		}
		return p[:n], nil
	}},
	{"ReadByte", func(c *Conn) (p []byte, err error) {
		for len(p) < 3 && err == nil {
			var b byte
			b, err = c.ReadByte()
			p = append(p, b)
		}
		return p, err
	}},
	{"Skip", func(c *Conn) ([]byte, error) { return []byte("abc"), c.Skip(3) }},
}

func nothings(n int) []step { return make([]step, n) }

// F1: a hundred reads in a row may bring nothing; one more is io.ErrNoProgress.
func TestF1_EmptyReads(t *testing.T) {
	for _, want := range wants {
		t.Run(want.name, func(t *testing.T) {
			// A hundred before every byte: only those in a row count.
			var steps []step
			for _, b := range []string{"a", "b", "c"} {
				steps = append(append(steps, nothings(100)...), step{data: []byte(b)})
			}
			c, s := scripted(steps...)
			if b, err := want.do(c); err != nil || string(b) != "abc" {
				t.Fatalf("a hundred empty reads: %q, %v", b, err)
			}
			if s.nreads != 303 {
				t.Errorf("%d reads, want 303", s.nreads)
			}

			// A timeout that was not ours to report is no progress, and no end either.
			c, _ = scripted(append(nothings(100), step{err: os.ErrDeadlineExceeded}, step{data: []byte("abc")})...)
			if _, err := want.do(c); !errors.Is(err, os.ErrDeadlineExceeded) {
				t.Fatalf("a timeout after a hundred empty reads: %v", err)
			}
			if b, err := want.do(c); err != nil || string(b) != "abc" {
				t.Fatalf("after the timeout: %q, %v", b, err)
			}

			c, s = scripted(append(nothings(101), step{data: []byte("abc")})...)
			for range 3 {
				if _, err := want.do(c); err != io.ErrNoProgress {
					t.Fatalf("%d empty reads: %v, want io.ErrNoProgress", 101, err)
				}
			}
			if s.nreads != 101 {
				t.Errorf("%d reads, want 101: the error stays", s.nreads)
			}

			c, _ = readerOf(readFunc(func([]byte) (int, error) { return 0, nil }))
			if _, err := want.do(c); err != io.ErrNoProgress {
				t.Fatalf("endless empty reads: %v", err)
			}
		})
	}
}

// F2: bytes that come together with io.EOF are all read before it. F3: so are
// those that come with any other error, and a timeout with bytes is no error.
func TestF2_DataWithTheError(t *testing.T) {
	for _, end := range []error{io.EOF, syscall.ECONNRESET, errors.New("own")} {
		name := "F3 "
		if end == io.EOF {
			name = "F2 "
		}
		t.Run(name+end.Error(), func(t *testing.T) {
			for _, want := range wants {
				c, s := scripted(step{data: []byte("ab")}, step{data: []byte("c"), err: end}, step{data: []byte("lost")})
				if b, err := want.do(c); err != nil || string(b) != "abc" {
					t.Fatalf("%s: %q, %v", want.name, b, err)
				}
				for range 3 {
					for _, op := range readerOps {
						if b, err := op.do(c, 1); len(b) != 0 || err != end {
							t.Fatalf("%s, then %s: %d bytes, %v; want %v", want.name, op.name, len(b), err, end)
						}
					}
				}
				if s.nreads != 2 {
					t.Errorf("%s: %d reads, want 2: the error stays", want.name, s.nreads)
				}

				// Too few bytes: they come before the error all the same.
				c, _ = scripted(step{data: []byte("ab"), err: end})
				if _, err := want.do(c); err != end && err != io.ErrUnexpectedEOF {
					t.Fatalf("%s of two bytes: %v, want %v", want.name, err, end)
				}
			}
		})
	}
	t.Run("F3 timeout", func(t *testing.T) {
		for _, want := range wants {
			timeout := step{data: []byte("ab"), err: os.ErrDeadlineExceeded}
			c, _ := scripted(timeout, step{data: []byte("c"), err: os.ErrDeadlineExceeded}, step{data: []byte("next")})
			if b, err := want.do(c); err != nil || string(b) != "abc" {
				t.Fatalf("%s: %q, %v", want.name, b, err)
			}
			if b, err := c.ReadBinary(4); err != nil || string(b) != "next" {
				t.Fatalf("%s, then %q, %v", want.name, b, err)
			}
		}
	})
}

// F4: a read that fails at the k-th call, for every k: a timeout loses nothing and
// the call can be made again; any other error stays, after the bytes before it.
func TestF4_EveryReadFailsOnce(t *testing.T) {
	data := pattern(3 * minBlockSize)
	chunks := inChunks(data, 1111)
	sizes := []int{1, 3, 1000, minBlockSize, 2*minBlockSize + 5}
	for k := range len(chunks) + 1 {
		for _, end := range []error{os.ErrDeadlineExceeded, syscall.ECONNRESET} {
			for _, style := range []string{"Peek", "ReadBinary", "Read", "ReadByte", "Skip"} {
				steps := append(append(chunks[:k:k], step{err: end}), chunks[k:]...)
				c, _ := scripted(steps...)
				var got []byte
				timeouts := 0
				var err error
				for i := 0; ; i++ {
					var b []byte
					n := min(sizes[i%len(sizes)], len(data)-len(got))
					if n == 0 {
						break
					}
					if b, err = takeSome(c, style, n); style == "Skip" {
						// What is passed over must be counted exactly: the rest tells.
						got = data[:len(data)-restOf(c)]
					} else {
						got = append(got, b...)
					}
					if err == nil {
						continue
					}
					if end != os.ErrDeadlineExceeded {
						break
					}
					wantTimeout(t, err)
					if timeouts++; timeouts > 1 {
						t.Fatalf("k %d, %s: the timeout came twice", k, style)
					}
				}
				if end == os.ErrDeadlineExceeded {
					if !bytes.Equal(got, data) {
						t.Fatalf("k %d, %s with a timeout: %d bytes, or other ones", k, style, len(got))
					}
					continue
				}
				want := data[:min(k*1111, len(data))]
				if len(want) == len(data) {
					err = nil
					if _, err = c.Peek(1); err != end {
						t.Fatalf("k %d, %s: then %v, want %v", k, style, err, end)
					}
				}
				if !errors.Is(err, end) {
					t.Fatalf("k %d, %s: %v, want %v", k, style, err, end)
				}
				left, _ := c.Peek(c.Len())
				if got = append(got[:len(got):len(got)], left...); !bytes.Equal(got, want) {
					t.Fatalf("k %d, %s: %d bytes before the error, want %d", k, style, len(got), len(want))
				}
			}
		}
	}
}

// takeSome takes up to n bytes in the style that is named.
func takeSome(c *Conn, style string, n int) ([]byte, error) {
	switch style {
	case "Peek":
		b, err := c.Peek(n)
		if err != nil {
			return nil, err
		}
		b = bytes.Clone(b)
		defer c.Release()
		return b, c.Skip(n)
	case "ReadBinary":
		return c.ReadBinary(n)
	case "Read":
		p := make([]byte, n)
		m, err := c.Read(p)
		return p[:m], err
	case "Skip":
		return nil, c.Skip(n)
	}
	b, err := c.ReadByte()
	if err != nil {
		return nil, err
	}
	return []byte{b}, nil
}

// restOf counts what is still to come of a script.
func restOf(c *Conn) int {
	n := c.Len()
	for _, s := range c.nc.(*scriptConn).reads {
		n += len(s.data)
	}
	return n
}

// F5: a count that cannot be is refused by an error that names the conn beneath,
// what it did, and the count; the buffer is as it was, and the error stays.
func TestF5_ImpossibleCounts(t *testing.T) {
	data := pattern(100)
	for _, n := range []int{-1, math.MinInt, math.MaxInt, 1 << 24} {
		for _, with := range []error{nil, io.EOF, os.ErrDeadlineExceeded} {
			for _, op := range readerOps {
				t.Run(fmt.Sprintf("%s %d %v", op.name, n, with), func(t *testing.T) {
					c, s := scripted(step{data: data}, step{raw: true, n: n, err: with}, step{data: data})
					held := mustPeek(t, c, 100, data)
					ask := 101
					if !strings.HasPrefix(op.name, "Peek") && op.name != "ReadBinary" {
						mustSkip(t, c, 100)
						ask = 1
					}
					before := c.Len()
					for range 3 {
						b, err := op.do(c, ask)
						if err == nil || b != nil {
							t.Fatalf("%d bytes, %v", len(b), err)
						}
						if msg := err.Error(); !strings.Contains(msg, "scriptConn") || !strings.Contains(msg, "Read") || !strings.Contains(msg, fmt.Sprint(n)) {
							t.Fatalf("the error does not say what happened: %v", err)
						}
						if c.Len() != before {
							t.Fatalf("Len went from %d to %d", before, c.Len())
						}
					}
					if s.nreads != 2 {
						t.Errorf("%d reads, want 2", s.nreads)
					}
					if !bytes.Equal(held, data) {
						t.Error("a held slice changed")
					}
					mustPeek(t, c, c.Len(), data)
				})
			}
		}
	}
}

// F6: a read whose time limit the conn beneath refuses is not made, so nothing is
// lost: without a limit it goes on.
func TestF6_RefusedReadTimerLosesNothing(t *testing.T) {
	errSet := errors.New("cannot set")
	data := pattern(100)
	c, s := scripted(step{data: data}, step{data: data})
	mustPeek(t, c, 100, data)
	s.setErr = errSet
	// A timeout is set by the operation that needs it.
	if err := c.SetReadTimeout(time.Hour); err != nil {
		t.Errorf("SetReadTimeout: %v", err)
	}
	mustPeek(t, c, 100, data)
	for _, op := range readerOps[:3] {
		if b, err := op.do(c, 101); b != nil || err != errSet {
			t.Errorf("%s: %d bytes, %v; want %v", op.name, len(b), err, errSet)
		}
		if op.name == "Skip" {
			break // it took what was there
		}
		mustPeek(t, c, 100, data)
	}
	if s.nreads != 1 {
		t.Errorf("%d reads: one was made without its time limit", s.nreads)
	}
	if err := c.SetReadTimeout(0); err != nil {
		t.Fatal(err)
	}
	mustPeek(t, c, 100, data)
}

// A reset comes after the bytes before it, is what package net says it is, and
// stays. A peer that half-closes has ended its stream.
func TestF4_ResetAfterSomeBytes(t *testing.T) {
	data := pattern(5000)
	reset := &net.OpError{Op: "read", Net: "tcp", Source: scriptAddr{}, Addr: scriptAddr{}, Err: os.NewSyscallError("read", syscall.ECONNRESET)}
	for _, at := range []int{0, 1, 4095, 4096, 4097, 5000} {
		c, _ := scripted(step{data: data[:at]}, step{err: reset}, step{data: data})
		for range 3 {
			b, err := c.Peek(at + 1)
			if b != nil || err != error(reset) {
				t.Fatalf("reset after %d: %d bytes, %v", at, len(b), err)
			}
			mustPeek(t, c, at, data)
		}
		if got, err := io.ReadAll(readOnly{c}); !bytes.Equal(got, data[:at]) || !errors.Is(err, syscall.ECONNRESET) {
			t.Fatalf("reset after %d: read %d bytes, %v", at, len(got), err)
		}
	}
	t.Run("tcp", func(t *testing.T) {
		a, b := tcpPair(t)
		c := NewConn(b)
		if _, err := a.Write(data); err != nil {
			t.Fatal(err)
		}
		mustPeek(t, c, len(data), data)
		if err := a.(*net.TCPConn).SetLinger(0); err != nil {
			t.Fatal(err)
		}
		a.Close()
		for range 3 {
			p, err := c.Peek(len(data) + 1)
			if _, ok := err.(*net.OpError); !ok || p != nil || !errors.Is(err, syscall.ECONNRESET) {
				t.Fatalf("%d bytes, %v", len(p), err)
			}
			mustPeek(t, c, len(data), data)
		}
	})
}

// scratchConn uses all of p as scratch space, as io.Reader allows, before it
// returns fewer bytes.
type scratchConn struct {
	scriptConn
	rest []byte
	r    *rand.Rand
}

func (c *scratchConn) Read(p []byte) (int, error) {
	if len(c.rest) == 0 {
		return 0, io.EOF
	}
	for i := range p {
		p[i] = 0xa5
	}
	n := copy(p, c.rest[:min(1+c.r.IntN(3000), len(c.rest))])
	c.rest = c.rest[n:]
	return n, nil
}

// A conn beneath may write over the whole of the buffer that it is given; what is
// unread or held must not lie in it.
func TestF4_ConnThatScribbles(t *testing.T) {
	data := pattern(300000)
	r := rand.New(rand.NewPCG(1, 2))
	c := NewConn(&scratchConn{rest: data, r: r})
	var held, copies [][]byte
	for at := 0; at < len(data); {
		n := min(1+r.IntN(9000), len(data)-at)
		b := mustPeek(t, c, n, data[at:])
		held, copies = append(held, b), append(copies, data[at:at+n])
		n = r.IntN(n + 1)
		mustSkip(t, c, n)
		at += n
		for i := range held {
			if !bytes.Equal(held[i], copies[i]) {
				t.Fatalf("at %d: a held slice changed", at)
			}
		}
		if r.IntN(5) == 0 {
			mustRelease(t, c)
			held, copies = nil, nil
		}
	}
}
