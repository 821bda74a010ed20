package standard

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"os"
	"slices"
	"testing"
	"time"
)

// The model of a reader is a slice and a position. Operations are drawn from a
// string of bytes, and so are the sizes in which the stream arrives, so that the
// fuzzer can choose both.

// modelStream is what readers under the model read.
var modelStream = pattern(1 << 20)

// dice are numbers from a string of bytes; at its end it begins again.
type dice struct {
	p    []byte
	at   int
	laps int
}

func (d *dice) next() int {
	if len(d.p) == 0 {
		d.laps++
		return 0
	}
	b := d.p[d.at]
	if d.at++; d.at == len(d.p) {
		d.at = 0
		d.laps++
	}
	return int(b)
}

// size is a count as readers ask for it: small, or near a block's size, or any.
// have is what is buffered.
func (d *dice) size(have int) int {
	b := d.next()
	v := b >> 3
	switch b & 7 {
	case 0:
		return v
	case 1:
		return have + v - 8 // around what is there; may be negative
	case 2:
		return (v%4+1)*minBlockSize - 2 + v/8 // around a block's edges
	case 3:
		return lookahead - 2 + v%5
	case 4:
		return v * 97
	case 5:
		return have / 2
	case 6:
		return v<<8 | d.next()
	}
	if v == 0 {
		return 1 << 30
	}
	return v * 3001
}

var errModelEnd = errors.New("the stream broke")

// drip delivers rest in the sizes that its dice say, with empty reads and timeouts
// between, and then end. It uses p as scratch space.
type drip struct {
	scriptConn
	rest    []byte
	dice    dice
	end     error
	early   bool // end comes with the last bytes
	empty   int  // reads in a row that brought nothing
	reads   int
	expired int // timeouts that came without a byte
	ended   int // how often end came
	tight   int // reads into less than a byte
}

func (d *drip) Read(p []byte) (int, error) {
	d.reads++
	if len(p) == 0 {
		d.tight++
		return 0, io.ErrShortBuffer
	}
	copy(p, junk[:200])
	copy(p[max(0, len(p)-200):], junk)
	b := d.dice.next()
	kind, v := b&7, b>>3
	if kind == 0 && d.empty < maxEmptyReads {
		d.empty++
		return 0, nil
	}
	d.empty = 0
	if kind == 1 {
		d.expired++
		return 0, os.ErrDeadlineExceeded
	}
	if len(d.rest) == 0 {
		d.ended++
		return 0, d.end
	}
	n := [...]int{1, 1 + v, 100 * v, 1460, minBlockSize - 1 + v%3, 2*minBlockSize - 1 + v%3, lookahead - 1 + v%3, len(d.rest)}[v%8]
	if d.reads > 3000 {
		n = len(d.rest) // or large streams take too long byte by byte
	}
	n = copy(p, d.rest[:max(1, min(n, len(d.rest)))])
	d.rest = d.rest[n:]
	switch {
	case kind == 2:
		return n, os.ErrDeadlineExceeded
	case len(d.rest) == 0 && d.early:
		d.ended++
		return n, d.end
	}
	return n, nil
}

// kept is a slice of the connection's memory and what it must go on to contain.
type kept struct{ slice, want []byte }

func checkKept(t testing.TB, op string, all []kept) {
	for _, k := range all {
		if !bytes.Equal(k.slice, k.want) {
			t.Fatalf("after %s a slice of %d bytes that is still held has changed", op, len(k.want))
		}
	}
}

// readerModel runs operations on a Conn and on the model beside it.
type readerModel struct {
	t       testing.TB
	c       *Conn
	content []byte
	pos     int
	held    []kept // by Peek, until Release
	heldN   int    // bytes in held
	pending []kept // by WriteBinary, until Flush
	sent    []byte // what must have left by Flush

	d *drip // nil over a socket, where no one knows what has arrived
}

// allowed fails the test unless err can be what the conn beneath did just now.
func (m *readerModel) allowed(op string, n int, err error, expired int) {
	m.t.Helper()
	switch {
	case errors.Is(err, os.ErrDeadlineExceeded):
		wantTimeout(m.t, err)
		if m.d != nil && m.d.expired == expired {
			m.t.Fatalf("%s(%d): %v, and there was no timeout", op, n, err)
		}
	case m.d == nil && err == io.EOF, m.d != nil && m.d.ended > 0 && err == m.d.end:
		if m.pos+n <= len(m.content) {
			m.t.Fatalf("%s(%d): %v at %d of %d", op, n, err, m.pos, len(m.content))
		}
	default:
		m.t.Fatalf("%s(%d): %v", op, n, err)
	}
}

// step runs one operation that the dice choose and compares.
func (m *readerModel) step(d *dice) {
	t, c := m.t, m.c
	op := d.next()
	name := fmt.Sprint("operation ", op%16)
	had := c.Len()
	reads, expired := 0, 0
	if m.d != nil {
		reads, expired = m.d.reads, m.d.expired
	}
	at := m.content[m.pos:]
	quiet := true // it may do no I/O
	switch op % 16 {
	case 0, 1, 2, 3: // Peek
		n := d.size(had)
		name = fmt.Sprintf("Peek(%d)", n)
		b, err := c.Peek(n)
		quiet = n <= had
		switch {
		case n < 0:
			if b != nil || err != ErrNegativeCount {
				t.Fatalf("%s: %d bytes, %v", name, len(b), err)
			}
		case err == nil:
			if len(b) != n || n > 0 && cap(b) != n || !bytes.Equal(b, at[:n]) {
				t.Fatalf("%s at %d: %d bytes of cap %d, or other ones", name, m.pos, len(b), cap(b))
			}
		default:
			m.allowed("Peek", n, err, expired)
			want := at
			if err != io.EOF {
				want = nil
			}
			if quiet || !bytes.Equal(b, want) || err != io.EOF && b != nil {
				t.Fatalf("%s with %v: %d bytes, want %d; Len was %d", name, err, len(b), len(want), had)
			}
		}
		// Checking all of them again and again costs too much when they are large.
		if len(b) > 0 && m.heldN+len(b) < 1<<17 && len(m.held) < 64 {
			m.held = append(m.held, kept{b, at[:len(b)]})
			m.heldN += len(b)
		}
	case 4, 5: // Skip
		n := d.size(had)
		name = fmt.Sprintf("Skip(%d)", n)
		err := c.Skip(n)
		quiet = n <= had
		switch {
		case n < 0:
			if err != ErrNegativeCount {
				t.Fatalf("%s: %v", name, err)
			}
		case err == nil:
			m.pos += n
		default:
			m.allowed("Skip", n, err, expired)
			// What came is passed over, and nothing else.
			came := len(m.content) - len(m.d.rest)
			if quiet || c.Len() != 0 || came-m.pos >= n {
				t.Fatalf("%s: %v; Len went from %d to %d, and %d have come", name, err, had, c.Len(), came-m.pos)
			}
			m.pos = came
		}
	case 6: // ReadByte
		name = "ReadByte"
		b, err := c.ReadByte()
		quiet = had > 0
		if err == nil {
			if b != at[0] {
				t.Fatalf("%s at %d: %#x, want %#x", name, m.pos, b, at[0])
			}
			m.pos++
		} else {
			m.allowed(name, 1, err, expired)
		}
	case 7, 8: // ReadBinary
		n := d.size(had)
		name = fmt.Sprintf("ReadBinary(%d)", n)
		b, err := c.ReadBinary(n)
		quiet = n <= had
		switch {
		case n < 0:
			if b != nil || err != ErrNegativeCount {
				t.Fatalf("%s: %d bytes, %v", name, len(b), err)
			}
		case err == nil:
			if !bytes.Equal(b, at[:n]) {
				t.Fatalf("%s at %d: wrong bytes", name, m.pos)
			}
			m.pos += n
			clear(b) // it is ours
		default:
			m.allowed("ReadBinary", n, err, expired)
			if quiet || b != nil {
				t.Fatalf("%s: %d bytes, %v; Len was %d", name, len(b), err, had)
			}
		}
	case 9, 10: // Read
		n := min(max(d.size(had), 0), 1<<16)
		name = fmt.Sprintf("Read(%d)", n)
		p := make([]byte, n)
		k, err := c.Read(p)
		quiet = n == 0 || had > 0
		switch {
		case err == nil:
			if k > n || k == 0 && n > 0 || had > 0 && k != min(n, had) || !bytes.Equal(p[:k], at[:k]) {
				t.Fatalf("%s at %d: %d bytes with %d buffered, or other ones", name, m.pos, k, had)
			}
			m.pos += k
		default:
			m.allowed("Read", 1, err, expired)
			if quiet || k != 0 {
				t.Fatalf("%s: %d, %v; Len was %d", name, k, err, had)
			}
		}
	case 11, 12: // Release
		name = "Release"
		mustRelease(t, c)
		m.held, m.heldN = nil, 0
		if c.Len() != had {
			t.Fatalf("Release took Len from %d to %d", had, c.Len())
		}
	case 13: // what was recycled wrongly is written over
		name = "another conn's work"
		b := getBlock(minBlockSize << (d.next() % 5))
		copy(b.buf, junk)
		b.drop()
	case 14: // WriteBinary of a held slice
		name = "WriteBinary"
		if len(m.held) == 0 || m.d == nil {
			break
		}
		k := m.held[d.next()%len(m.held)]
		if n, err := c.WriteBinary(k.slice); n != len(k.slice) || err != nil {
			t.Fatalf("WriteBinary: %d, %v", n, err)
		}
		m.sent = append(m.sent, k.want...)
		if len(k.want) >= borrowFrom {
			m.pending = append(m.pending, k)
		}
	case 15: // Flush
		name = "Flush"
		m.flush()
	}
	m.check(name, quiet, reads)
}

func (m *readerModel) flush() {
	if err := m.c.Flush(); err != nil {
		m.t.Fatalf("Flush: %v", err)
	}
	if m.d != nil && !bytes.Equal(m.d.wire, m.sent) {
		m.t.Fatalf("Flush sent %d bytes, or other ones than the %d", len(m.d.wire), len(m.sent))
	}
	if m.d != nil {
		m.d.wire, m.sent, m.pending = m.d.wire[:0], m.sent[:0], nil
	}
}

func (m *readerModel) check(op string, quiet bool, reads int) {
	checkKept(m.t, op, m.held)
	checkKept(m.t, op, m.pending)
	if m.d == nil {
		return
	}
	if want := len(m.content) - len(m.d.rest) - m.pos; m.c.Len() != want {
		m.t.Fatalf("after %s at %d: Len %d, want %d", op, m.pos, m.c.Len(), want)
	}
	if quiet && m.d.reads != reads {
		m.t.Fatalf("%s read from the conn beneath", op)
	}
	if m.d.tight > 0 {
		m.t.Fatalf("%s read into no space", op)
	}
}

// finish drains the reader and looks that nothing is held any more.
func (m *readerModel) finish() {
	got, err := m.c.Peek(m.c.Len())
	if err != nil || !bytes.Equal(got, m.content[m.pos:m.pos+len(got)]) {
		m.t.Fatalf("what was left at %d: %v", m.pos, err)
	}
	m.pos += len(got)
	mustSkip(m.t, m.c, len(got))
	m.check("the last Skip", false, 0)
	mustRelease(m.t, m.c)
	m.held = nil
	checkKept(m.t, "the last Release", m.pending)
	m.flush()
	if m.c.in.cur != nil || len(m.c.in.aside) > 0 || len(m.c.out.owned) > 0 {
		m.t.Fatalf("at the end %d bytes are held to read and %d blocks to write", heldBytes(m.c), len(m.c.out.owned))
	}
}

// runReader runs the operations that ops choose over a stream that arrives as
// chunks choose; setup chooses how long it is and how it ends.
func runReader(t testing.TB, setup uint32, ops, chunks []byte) {
	size := int(setup>>2) % (len(modelStream) + 1)
	d := &drip{
		rest:  modelStream[:size],
		dice:  dice{p: chunks},
		end:   io.EOF,
		early: setup&1 != 0,
	}
	if len(chunks) == 0 {
		d.dice.p = []byte{7 | 7<<3} // all at once
	}
	if setup&2 != 0 {
		d.end = errModelEnd
	}
	m := &readerModel{t: t, c: NewConn(d), content: modelStream[:size], d: d}
	for o := (dice{p: ops}); o.laps == 0; {
		m.step(&o)
	}
	m.finish()
}

// Z1: any sequence of operations gives what a slice and a position give, and
// after each of them every slice that is held is what it was.
func TestZ1_ReaderAgainstModel(t *testing.T) {
	for seed := range uint64(scaled(320)) {
		t.Run(fmt.Sprint(seed), func(t *testing.T) {
			r := rand.New(rand.NewPCG(seed, 1))
			ops, chunks := make([]byte, 600), make([]byte, 1+r.IntN(50))
			scramble(r, ops)
			scramble(r, chunks)
			if seed%3 == 0 { // a stream without faults, which goes on for longer
				for i := range chunks {
					chunks[i] |= 4
				}
			}
			runReader(t, r.Uint32(), ops, chunks)
		})
	}
}

func scramble(r *rand.Rand, p []byte) {
	for i := range p {
		p[i] = byte(r.Uint32())
	}
}

// Z1, over sockets: the bytes come when they come, and timeouts as well.
func TestZ1_ReaderAgainstModelOverSockets(t *testing.T) {
	for _, s := range sockets {
		for seed := range uint64(4) {
			t.Run(fmt.Sprint(s.name, " ", seed), func(t *testing.T) {
				r := rand.New(rand.NewPCG(seed, 2))
				a, b := s.pair(t)
				content := modelStream[:1<<18+r.IntN(1<<18)]
				go dribble(a, content, rand.New(rand.NewPCG(seed, 3)))
				m := &readerModel{t: t, c: NewConn(b), content: content}
				ops := make([]byte, 1500)
				scramble(r, ops)
				for o := (dice{p: ops}); o.laps == 0; {
					if err := m.c.SetReadTimeout([]time.Duration{0, time.Minute, 100 * time.Microsecond}[r.IntN(3)]); err != nil {
						t.Fatal(err)
					}
					m.stepOverSocket(&o)
				}
				if err := m.c.SetReadTimeout(time.Minute); err != nil {
					t.Fatal(err)
				}
				rest, err := io.ReadAll(readOnly{m.c})
				if err != nil || !bytes.Equal(rest, content[m.pos:]) {
					t.Fatalf("the rest from %d: %d bytes, %v", m.pos, len(rest), err)
				}
				m.pos = len(content)
				m.finish()
			})
		}
	}
}

// stepOverSocket is step without what needs to know how much has arrived: of a
// Skip that fails only the ring can say how much it took.
func (m *readerModel) stepOverSocket(d *dice) {
	if op := d.p[d.at] % 16; op == 4 || op == 5 {
		d.next()
		n := min(max(d.size(m.c.Len()), 0), 20000)
		before := m.c.in.taken()
		err := m.c.Skip(n)
		took := int(m.c.in.taken() - before)
		if err != nil {
			m.allowed("Skip", n, err, 0)
		}
		if err == nil && took != n || took > n || err != nil && m.c.Len() != 0 {
			m.t.Fatalf("Skip(%d) took %d: %v; Len %d", n, took, err, m.c.Len())
		}
		m.pos += took
		checkKept(m.t, "Skip", m.held)
		return
	}
	m.step(d)
}

// dribble writes p in pieces of many sizes and closes.
func dribble(w net.Conn, p []byte, r *rand.Rand) {
	defer w.Close()
	for len(p) > 0 {
		n := min(1+r.IntN([]int{2, 100, 5000, 40000}[r.IntN(4)]), len(p))
		if _, err := w.Write(p[:n]); err != nil {
			return
		}
		p = p[n:]
	}
}

// FuzzReader is Z1 with the operations and the chunks that the fuzzer finds.
func FuzzReader(f *testing.F) {
	peekMore := bytes.Repeat([]byte{0, 1 | 9<<3}, 40) // Peek(Len()+1), as for a header
	f.Add(uint32(100000<<2), peekMore, []byte{4, 4 | 1<<3, 4 | 4<<3})
	f.Add(uint32(9000<<2|1), []byte{0, 2, 4, 5, 14, 0, 11, 13, 0, 0, 2, 15}, []byte{4 | 7<<3})
	f.Add(uint32(70000<<2|2), slices.Concat(peekMore, []byte{9, 7 | 4<<3, 4, 7 | 9<<3, 11, 7, 2 | 9<<3, 12}), []byte{0, 1, 2 | 3<<3, 4 | 5<<3})
	f.Add(uint32(1<<22), []byte{7, 7 | 31<<3, 9, 7 | 8<<3, 4, 7 | 20<<3, 6, 10, 8, 13, 0}, []byte{})
	f.Add(uint32(0), []byte{0, 0, 1, 8, 6, 9, 8, 11, 4, 8}, []byte{1, 0, 4})
	f.Fuzz(func(t *testing.T, setup uint32, ops, chunks []byte) {
		if len(ops) > 1000 {
			return // too slow
		}
		runReader(t, setup, ops, chunks)
	})
}
