package networktest

import (
	"bytes"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"time"

	"github.com/hertznet/hertznet/network"
)

// gateConn delivers what has been let through, then a timeout, and at the end of its
// content io.EOF. So what an operation on it does is settled, however its bytes are
// read from it.
type gateConn struct {
	scriptConn
	content []byte
	arrived int // of the content
	taken   int
}

func (g *gateConn) Read(p []byte) (int, error) {
	n := copy(p, g.content[g.taken:g.arrived])
	g.taken += n
	switch {
	case n > 0 || len(p) == 0:
		return n, nil
	case g.taken == len(g.content):
		return 0, io.EOF
	}
	return 0, os.ErrDeadlineExceeded
}

// outcome is what the contract settles of an operation's results: whether it fails,
// and the bytes. How it fails has clauses of its own.
type outcome struct {
	bytes  []byte
	failed bool
}

func (o outcome) String() string {
	if o.failed {
		return fmt.Sprintf("an error and %d bytes", len(o.bytes))
	}
	return fmt.Sprintf("success and %d bytes", len(o.bytes))
}

// twins are the implementation and the reference, each over a conn of its own that
// does the same.
type twins struct {
	t       *connCheck
	name    string
	r       *rand.Rand
	conns   [2]network.Conn // the one that is judged, and the reference
	beneath [2]*gateConn
	pos     int
	ops     int
	number  int
}

func newTwins(t *connCheck, name string, r *rand.Rand) *twins {
	content := modelContent()[:1+r.IntN(200_000)]
	w := &twins{t: t, name: name, r: r}
	for i := range w.beneath {
		w.beneath[i] = &gateConn{content: content}
	}
	w.conns = [2]network.Conn{t.wrap(w.beneath[0]), Reference(w.beneath[1])}
	return w
}

// both does one operation on each and compares.
func (w *twins) both(op string, do func(c network.Conn) outcome) outcome {
	w.ops++
	g := w.beneath[1]
	w.t.step("%s, operation %d: %s at %d, with %d of %d bytes arrived", w.name, w.ops, op, w.pos, g.arrived, len(g.content))
	came, want := do(w.conns[0]), do(w.conns[1])
	w.t.expect(came.failed == want.failed && len(came.bytes) == len(want.bytes), fmt.Sprintf("as of the reference, %v", want), "%v", came)
	w.t.equal(came.bytes, want.bytes)
	return want
}

// size is a count of which most have arrived, and some not. Counts of nothing have
// clauses of their own.
func (w *twins) size() int { return max(w.anySize(), 1) }

func (w *twins) anySize() int {
	left := w.beneath[1].arrived - w.pos
	switch w.r.IntN(8) {
	case 0:
		return left
	case 1:
		return left + 1 + w.r.IntN(3)
	case 2:
		return left + w.r.IntN(20_000)
	case 3, 4:
		return min(left, w.r.IntN(100))
	case 5:
		return min(left, modelBlock-1+w.r.IntN(3))
	}
	return w.r.IntN(left + 1)
}

func (w *twins) step() {
	switch g := w.beneath[1]; w.r.IntN(16) {
	case 0, 1, 2:
		n := w.r.IntN([]int{2, 100, 5000, 30_000}[w.r.IntN(4)])
		for _, g := range w.beneath {
			g.arrived = min(g.arrived+n, len(g.content))
		}
	case 3, 4:
		n := w.size()
		w.both(fmt.Sprintf("Peek(%d)", n), func(c network.Conn) outcome { return peeked(c, n) })
	case 5, 6:
		n := w.size()
		if w.t.behavior().SkipWithinBuffer && w.both(fmt.Sprintf("Peek(%d), for a Skip", n), func(c network.Conn) outcome { return peeked(c, n) }).failed {
			return
		}
		o := w.both(fmt.Sprintf("Skip(%d)", n), func(c network.Conn) outcome { return outcome{nil, c.Skip(n) != nil} })
		if o.failed {
			w.pos = g.arrived
		} else {
			w.pos += n
		}
	case 7:
		o := w.both("ReadByte", func(c network.Conn) outcome {
			b, err := c.ReadByte()
			if err != nil {
				return outcome{failed: true}
			}
			return outcome{bytes: []byte{b}}
		})
		w.pos += len(o.bytes)
	case 8, 9:
		n := w.size()
		o := w.both(fmt.Sprintf("ReadBinary(%d)", n), func(c network.Conn) outcome {
			b, err := c.ReadBinary(n)
			if err != nil {
				return outcome{failed: true}
			}
			return outcome{bytes: b}
		})
		w.pos += len(o.bytes)
	case 10:
		n := w.size()
		o := w.both(fmt.Sprintf("Read until there are %d bytes", n), func(c network.Conn) outcome {
			// How much one Read returns is open.
			p := make([]byte, n)
			n, err := io.ReadFull(readerOf(c), p)
			return outcome{p[:n], err != nil}
		})
		w.pos += len(o.bytes)
	case 11:
		w.both("Release", func(c network.Conn) outcome { return outcome{nil, c.Release() != nil} })
	case 12:
		b := w.some()
		w.both(fmt.Sprintf("Malloc(%d)", len(b)), func(c network.Conn) outcome {
			p, err := c.Malloc(len(b))
			if len(p) == len(b) {
				copy(p, b)
			}
			return outcome{p, err != nil}
		})
	case 13:
		b := w.some()
		w.both(fmt.Sprintf("WriteBinary of %d bytes", len(b)), func(c network.Conn) outcome {
			n, err := c.WriteBinary(b)
			return outcome{b[:min(max(n, 0), len(b))], err != nil}
		})
	case 14:
		w.both("Flush", func(c network.Conn) outcome { return outcome{nil, c.Flush() != nil} })
		w.sameWire()
	case 15:
		b := w.some()
		w.both(fmt.Sprintf("Write of %d bytes", len(b)), func(c network.Conn) outcome {
			n, err := c.Write(b)
			return outcome{b[:min(max(n, 0), len(b))], err != nil}
		})
		w.sameWire()
	}
}

func peeked(c network.Conn, n int) outcome {
	b, err := c.Peek(n)
	if err != nil {
		return outcome{failed: true} // what comes with it is the business of R6 and R28
	}
	return outcome{bytes: b}
}

// some returns bytes to write, other ones each time.
func (w *twins) some() []byte {
	w.number++
	n := 1 + w.r.IntN([]int{8, 500, 9000}[w.r.IntN(3)])
	at := w.number * 7919 % (1 << 19)
	return modelContent()[at : at+n]
}

// sameWire compares what has been sent, save for what may be held back while the
// next request is already there.
func (w *twins) sameWire() {
	came, want := w.beneath[0].sent(), w.beneath[1].sent()
	if w.conns[0].Len() > 0 {
		w.t.isPrefix(came, want)
		return
	}
	w.t.equal(came, want)
}

// finish has everything arrive and be read.
func (w *twins) finish() {
	for _, g := range w.beneath {
		g.arrived = len(g.content)
	}
	if n := len(w.beneath[1].content) - w.pos; n > 0 {
		o := w.both("ReadBinary of the rest", func(c network.Conn) outcome {
			b, err := c.ReadBinary(n)
			return outcome{b, err != nil}
		})
		w.pos += len(o.bytes)
	}
	w.both("Peek(1) at the end", func(c network.Conn) outcome { return peeked(c, 1) })
	w.both("the last Flush", func(c network.Conn) outcome { return outcome{nil, c.Flush() != nil} })
	w.both("Close", func(c network.Conn) outcome { return outcome{nil, c.Close() != nil} })
	w.t.equal(w.beneath[0].sent(), w.beneath[1].sent())
}

// The two directions of a connection at once, each end with one goroutine that reads
// and one that writes, as the contract allows.

const duplexLimit = time.Hour // a time limit that is never reached

// duplexWrite writes all of p in random ways.
func duplexWrite(t *connCheck, name string, c network.Conn, p []byte, r *rand.Rand) {
	for at := 0; at < len(p); {
		n := min(1+r.IntN([]int{2, 50, 1000, 9000, 40_000}[r.IntN(5)]), len(p)-at)
		b := p[at : at+n]
		var op string
		var err error
		switch r.IntN(8) {
		case 0, 1:
			var m []byte
			if m, err = c.Malloc(n); err == nil {
				t.expect(len(m) == n, fmt.Sprintf("%d bytes from Malloc(%d)", n, n), "%d", len(m))
				copy(m, b)
			}
			op = "Malloc"
		case 2, 3:
			_, err = c.WriteBinary(b)
			op = "WriteBinary"
		case 4:
			_, err = c.Write(b)
			op = "Write"
		case 5:
			_ = c.SetWriteTimeout(time.Duration(r.IntN(2)) * duplexLimit)
			continue
		default:
			err = c.Flush()
			n = 0
			op = "Flush"
		}
		if err != nil {
			t.step("%s writes: %s of %d bytes at %d of %d", name, op, n, at, len(p))
			t.noError(err)
		}
		at += n
	}
	if err := c.Flush(); err != nil {
		t.step("%s writes: the last Flush", name)
		t.noError(err)
	}
}

// duplexRead reads as many bytes as p has in random ways and compares them with it.
func duplexRead(t *connCheck, name string, c network.Conn, p []byte, r *rand.Rand) {
	var held []heldSlice
	at := 0
	differs := func(op string, expected, came string, args ...any) {
		t.step("%s reads: %s at %d of %d", name, op, at, len(p))
		t.expect(false, expected, came, args...)
	}
	for at < len(p) {
		n := min(1+r.IntN([]int{2, 50, 1000, 9000, 40_000}[r.IntN(5)]), len(p)-at)
		want := p[at : at+n]
		var b []byte
		var op string
		var err error
		switch r.IntN(12) {
		case 0, 1, 2:
			op = fmt.Sprintf("Peek(%d) and Skip", n)
			if b, err = c.Peek(n); err == nil {
				if len(b) == n && len(held) < 8 {
					held = append(held, heldSlice{b, want})
				}
				err = c.Skip(n)
			}
		case 3:
			op = fmt.Sprintf("Peek(%d)", n)
			if b, err = c.Peek(n); err == nil && bytes.Equal(b, want) {
				continue
			}
		case 4, 5:
			op = fmt.Sprintf("ReadBinary(%d)", n)
			b, err = c.ReadBinary(n)
		case 6, 7:
			op = fmt.Sprintf("Read of %d bytes", n)
			b = make([]byte, n)
			k := 0
			k, err = c.Read(b)
			if k < 0 || k > n || k == 0 && err == nil {
				differs(op, "a possible count", "%d", k)
			}
			b = b[:k]
			want = want[:k]
		case 8:
			op = "ReadByte"
			var one byte
			one, err = c.ReadByte()
			b, want = []byte{one}, want[:1]
		case 9:
			op = fmt.Sprintf("Skip(%d)", n)
			if t.behavior().SkipWithinBuffer {
				_, err = c.Peek(n)
			}
			if err == nil {
				err = c.Skip(n)
			}
			b = want
		case 10:
			_ = c.SetReadTimeout(time.Duration(r.IntN(2)) * duplexLimit)
			continue
		case 11:
			for _, h := range held {
				if !bytes.Equal(h.slice, h.want) {
					differs("Release", "every slice from Peek to be as it was", "one has become %s", describeBytes(h.slice, h.want))
				}
			}
			held = nil
			if err := c.Release(); err != nil {
				differs("Release", "no error", "%s", describeError(err))
			}
			continue
		}
		switch {
		case err != nil:
			differs(op, "no error", "%s", describeError(err))
		case !bytes.Equal(b, want):
			differs(op, fmt.Sprintf("%d bytes as they were sent", len(want)), "%s", describeBytes(b, want))
		}
		at += len(want)
	}
}
