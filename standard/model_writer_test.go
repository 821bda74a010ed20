package standard

import (
	"bytes"
	"errors"
	"io"
	"math"
	"math/rand/v2"
	"net"
	"slices"
	"testing"
)

// The faults that a faultySink shows at one of its writes.
const (
	faultError    = iota // an error after some bytes
	faultTimeout         // the same, and it is a timeout
	faultShort           // fewer bytes, and no error
	faultNegative        // an impossible count
	faultTooMany
	faultKinds
)

var errFault = errors.New("the fault")

// faultySink is a conn beneath that fails at one write, and whose reader never ends.
type faultySink struct {
	scriptConn
	after int // how many writes succeed first; negative is all
	kind  int
	taken int // of the failing write
	calls int
	read  int // the place in the stream that Read returns
	chunk int // how much of it at once
}

func streamByte(at int) byte { return byte(at*31 ^ at>>8) }

func (s *faultySink) Read(p []byte) (int, error) {
	n := min(len(p), s.chunk)
	for i := range n {
		p[i] = streamByte(s.read + i)
	}
	s.read += n
	return n, nil
}

func (s *faultySink) Write(p []byte) (int, error) {
	s.calls++
	if s.after != s.calls-1 {
		s.wire = append(s.wire, p...)
		return len(p), nil
	}
	taken := min(s.taken, len(p))
	switch s.kind {
	case faultNegative:
		return -1 - taken, nil
	case faultTooMany:
		return len(p) + 1 + taken, nil
	}
	s.wire = append(s.wire, p[:taken]...)
	switch {
	case s.kind == faultTimeout:
		return taken, foreignTimeout{errFault}
	case s.kind == faultShort && taken < len(p):
		return taken, nil
	}
	return taken, errFault
}

// gatheringSink takes all slices at once.
type gatheringSink struct{ faultySink }

func (s *gatheringSink) WriteBuffers(v *net.Buffers) (int64, error) {
	n, err := s.Write(bytes.Join(*v, nil))
	*v = nil
	return int64(n), err
}

// program hands out the bytes of a fuzzer's input.
type program []byte

func (p *program) next() int {
	if len(*p) == 0 {
		return 0
	}
	b := (*p)[0]
	*p = (*p)[1:]
	return int(b)
}

// size is mostly small, and sometimes several blocks.
func (p *program) size() int {
	n := p.next()
	return n >> 2 << (3 * (n & 3)) // 0 to 63, or that times 8, 64, 512
}

// writerModel is a Conn beside what its output must be.
type writerModel struct {
	t      testing.TB
	c      *Conn
	sink   *faultySink
	want   []byte // every byte that was accepted, in order
	fills  []fill
	lent   [][]byte // given to WriteBinary since the last Flush
	failed error    // what every operation must return
	closed bool
	number int // of the bytes that were made up
}

// fill is what a Malloc gets just before the Flush, so that two Mallocs that
// share a byte show.
type fill struct{ buf, with []byte }

func (m *writerModel) bytes(n int) []byte {
	b := make([]byte, n)
	for i := range b {
		b[i] = byte(m.number ^ m.number>>8)
		m.number++
	}
	return b
}

// accepts checks the result of an operation that sends nothing, and reports
// whether it added its bytes.
func (m *writerModel) accepts(op string, err error) bool {
	m.t.Helper()
	switch {
	case m.closed:
		if !errors.Is(err, net.ErrClosed) {
			m.t.Fatalf("%s after Close: %v", op, err)
		}
	case err != m.failed:
		m.t.Fatalf("%s: %v, want %v", op, err, m.failed)
	}
	return err == nil
}

// sends runs an operation that flushes, writes the n bytes of p after that, and
// returns how many it did.
func (m *writerModel) sends(op string, p []byte, do func() (int, error)) {
	m.t.Helper()
	for i := len(m.fills) - 1; i >= 0; i-- {
		copy(m.fills[i].buf, m.fills[i].with)
	}
	m.fills = nil
	wire, calls, flushed := len(m.sink.wire), m.sink.calls, len(m.want)
	pending := flushed - wire
	n, err := do()
	for _, b := range m.lent { // they are the caller's again
		clear(b)
	}
	m.lent = nil
	switch {
	case m.closed:
		if op == "Flush" && pending == 0 {
			if err != m.failed {
				m.t.Fatalf("empty Flush after Close: %v, want %v", err, m.failed)
			}
		} else if n != 0 || !errors.Is(err, net.ErrClosed) && (m.failed == nil || err != m.failed) {
			m.t.Fatalf("%s after Close: %d, %v", op, n, err)
		}
		m.want = m.want[:wire]
	case m.failed != nil:
		if n != 0 || err != m.failed {
			m.t.Fatalf("%s after the failure: %d, %v, want %v", op, n, err, m.failed)
		}
	case err == nil:
		if n != len(p) {
			m.t.Fatalf("%s returned %d of %d bytes without an error", op, n, len(p))
		}
		m.want = append(m.want, p...)
		if pending+n == 0 && m.sink.calls != calls {
			m.t.Fatalf("%s of nothing made a call", op)
		}
		m.equal(op)
	default:
		if m.sink.after < 0 || m.sink.calls != m.sink.after+1 {
			m.t.Fatalf("%s: %v after %d writes of which number %d fails", op, err, m.sink.calls, m.sink.after)
		}
		switch m.sink.kind {
		case faultTimeout:
			if e, ok := err.(*net.OpError); !ok || !e.Timeout() || !errors.Is(err, errFault) {
				m.t.Fatalf("%s: %v, want a timeout", op, err)
			}
		case faultError:
			if err != errFault {
				m.t.Fatalf("%s: %v", op, err)
			}
		case faultShort:
			if err != io.ErrShortWrite && err != errFault {
				m.t.Fatalf("%s: %v", op, err)
			}
		}
		m.want = append(m.want, p...)
		if n > 0 && len(m.sink.wire) < flushed {
			m.t.Fatalf("%s counts %d of its own bytes, and not all that was pending has left", op, n)
		}
		if len(m.sink.wire) >= flushed && len(m.sink.wire) != flushed+n {
			m.t.Fatalf("%s counts %d bytes, and %d have left", op, n, len(m.sink.wire)-flushed)
		}
		m.want = m.want[:min(len(m.sink.wire), len(m.want))]
		m.equal(op)
		// A Write that ran out of time can be taken up again, unless what was
		// pending has been cut.
		if op != "Write" || m.sink.kind != faultTimeout || len(m.sink.wire) < flushed || m.brokeFlush(flushed, pending) {
			m.failed = err
		}
	}
}

// brokeFlush reports whether the write that failed was of pending bytes, all of
// which it took. It is told by the conn's own word: there is no other way to see
// it from here.
func (m *writerModel) brokeFlush(flushed, pending int) bool {
	return pending > 0 && len(m.sink.wire) == flushed && m.c.writeErr != nil
}

func (m *writerModel) equal(op string) {
	m.t.Helper()
	sameBytes(m.t, "the wire after "+op, m.sink.wire, m.want)
}

// runWriter runs operations as input says, on a conn beneath that fails as it
// says, and compares what reaches the wire with a model: equal, or a prefix.
func runWriter(t testing.TB, input []byte) {
	allBack := blocksComeBack(t)
	p := program(input)
	var sink *faultySink
	var nc net.Conn
	if p.next()%2 == 0 {
		sink = new(faultySink)
		nc = sink
	} else {
		g := new(gatheringSink)
		sink, nc = &g.faultySink, g
	}
	sink.after = p.next()%64 - 1
	sink.kind = p.next() % faultKinds
	sink.taken = p.size()
	sink.chunk = 1 + p.size()
	c := NewConn(nc)
	m := &writerModel{t: t, c: c, sink: sink}
	read := 0 // the place in the stream that c has reached
	peek := func(n int) []byte {
		b, err := c.Peek(n)
		if err != nil || len(b) != n {
			t.Fatalf("Peek(%d): %d bytes, %v", n, len(b), err)
		}
		return b
	}
	for len(p) > 0 {
		switch op := p.next() % 12; op {
		case 0, 1: // Malloc
			n := p.size() + op
			b, err := c.Malloc(n)
			if m.accepts("Malloc", err) {
				if len(b) != n || cap(b) != n {
					t.Fatalf("Malloc(%d): len %d, cap %d", n, len(b), cap(b))
				}
				with := m.bytes(n)
				m.fills = append(m.fills, fill{b, with})
				m.want = append(m.want, with...)
			}
		case 2, 3: // WriteBinary, at both sides of the threshold
			b := m.bytes(p.size() + (op-2)*(borrowFrom-32))
			n, err := c.WriteBinary(b)
			if m.accepts("WriteBinary", err) {
				if n != len(b) {
					t.Fatalf("WriteBinary of %d: %d", len(b), n)
				}
				m.want = append(m.want, b...)
				m.lent = append(m.lent, b)
			}
		case 4: // WriteBinary of what was Peeked, as an echo does
			b := peek(p.size())
			_, err := c.WriteBinary(b)
			if m.accepts("WriteBinary", err) {
				m.want = append(m.want, b...)
			}
			fallthrough
		case 5: // reading on
			n := p.size()
			b := peek(n)
			for i := range b {
				if b[i] != streamByte(read+i) {
					t.Fatalf("byte %d of the stream is wrong", read+i)
				}
			}
			if !m.closed || n <= c.Len() {
				if err := c.Skip(n); err != nil {
					t.Fatalf("Skip: %v", err)
				}
			}
			read += n
			_ = c.Release()
		case 6, 7:
			m.sends("Flush", nil, func() (int, error) { return 0, c.Flush() })
		case 8:
			b := m.bytes(p.size())
			m.sends("Write", b, func() (int, error) { return c.Write(b) })
		case 9:
			b := m.bytes(p.size())
			m.sends("ReadFrom", b, func() (int, error) {
				n, err := c.ReadFrom(bytes.NewReader(b))
				return int(n), err
			})
		case 10: // counts that cannot be
			for _, n := range []int{-1, math.MinInt, MaxMalloc + 1, math.MaxInt} {
				if b, err := c.Malloc(n); b != nil || err != ErrNegativeCount && err != ErrTooLarge {
					t.Fatalf("Malloc(%d): %d bytes, %v", n, len(b), err)
				}
			}
		case 11:
			if p.next() == 0 {
				// The reader's side must work on with what it has.
				_ = c.Close()
				m.closed = true
				peek = func(n int) []byte {
					b, err := c.Peek(min(n, c.Len()))
					if err != nil {
						t.Fatalf("Peek after Close: %v", err)
					}
					return b
				}
			}
		}
		if m.closed { // nothing but errors from here: a few are enough
			p = p[:min(len(p), 20)]
			read = sink.read - c.Len()
		}
		if m.failed == nil && !bytes.HasPrefix(m.want, sink.wire) {
			t.Fatalf("%d bytes on the wire are no prefix of the %d accepted", len(sink.wire), len(m.want))
		}
	}
	m.sends("Flush", nil, func() (int, error) { return 0, c.Flush() })
	m.equal("the end")
	_ = c.Skip(c.Len())
	_ = c.Release()
	allBack()
}

// Z2: random operations of the writer against a plain list of bytes, over conns
// that fail in every way: the wire is equal to it, or a prefix of it.
func TestZ2_WriterAgainstAModel(t *testing.T) {
	for seed := range 300 {
		r := rand.New(rand.NewPCG(uint64(seed), 2))
		input := make([]byte, 5+r.IntN(120))
		for i := range input {
			input[i] = byte(r.Uint32())
		}
		if seed%3 > 0 {
			input[1] = 0 // no fault
		}
		runWriter(&seeded{TB: t, input: input}, input)
	}
}

// seeded prints the input with a failure.
type seeded struct {
	testing.TB
	input []byte
}

func (s *seeded) Fatalf(format string, args ...any) {
	s.Helper()
	s.Logf("input: []byte(%q)", s.input)
	s.TB.Fatalf(format, args...)
}

func FuzzWriter(f *testing.F) {
	for _, input := range writerSeeds {
		f.Add(slices.Concat(input...))
	}
	f.Fuzz(func(t *testing.T, input []byte) {
		if len(input) > 400 {
			return // a long input finds nothing that short ones do not
		}
		runWriter(t, input)
	})
}

// writerSeeds are a head (sink, failing write, kind, bytes taken, read size) and
// operations.
var writerSeeds = [][][]byte{
	{{0, 0, 0, 0, 0}, {0, 40, 2, 40, 6}},
	{{1, 0, 0, 0, 0}, {0, 40, 3, 255, 0, 3, 6, 0, 9, 8, 20, 9, 20}},
	{{0, 2, faultError, 20, 9}, {1, 200, 3, 77, 1, 5, 6, 6, 8, 5}},
	{{1, 2, faultTimeout, 20, 9}, {8, 255, 8, 254, 2, 90, 8, 12, 6}},
	{{1, 1, faultShort, 41, 255}, {0, 10, 3, 10, 7, 2, 3, 6}},
	{{0, 3, faultNegative, 4, 255}, {9, 255, 9, 255, 9, 255}},
	{{1, 3, faultTooMany, 4, 255}, {1, 1, 1, 1, 6, 8, 90, 9, 90, 6}},
	{{1, 0, 0, 0, 255}, {4, 23, 23, 5, 255, 4, 255, 255, 5, 90, 6, 4, 7, 7, 5, 255, 6}},
	{{0, 0, 0, 0, 99}, {0, 30, 4, 39, 39, 10, 11, 0, 0, 3, 2, 9, 6, 8, 7}},
}
