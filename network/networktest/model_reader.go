package networktest

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"os"
	"sync"

	"github.com/hertznet/hertznet/network"
)

// The model of a reader is a slice and a position. Operations are drawn from a
// string of bytes, and so are the sizes in which the stream arrives, so that a
// fuzzer can choose both.

// modelContent is the stream that readers under the model read.
var modelContent = sync.OnceValue(func() []byte { return pattern(1 << 20) })

// modelJunk is what a conn beneath leaves in the rest of a reader's buffer, as an
// io.Reader may.
var modelJunk = bytes.Repeat([]byte{0xE5}, 512)

// Sizes at whose edges implementations are likely to change their ways: the block
// that they read into, and a larger one.
const (
	modelBlock      = 4 << 10
	modelLargeBlock = 16 << 10
)

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
		return (v%4+1)*modelBlock - 2 + v/8 // around a block's edges
	case 3:
		return modelLargeBlock - 2 + v%5
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

var errModelEnd = errors.New("networktest: the stream broke")

// chunkConn delivers rest in the sizes that its dice say, with empty reads and
// timeouts between, and then end.
type chunkConn struct {
	scriptConn
	rest    []byte
	dice    dice
	end     error
	early   bool // end comes with the last bytes
	empty   int  // reads in a row that brought nothing
	reads   int
	faults  int // empty reads, timeouts and ends
	expired int // timeouts, with and without bytes
	ended   int // how often end came
}

func (d *chunkConn) Read(p []byte) (int, error) {
	d.reads++
	copy(p, modelJunk[:200])
	copy(p[max(0, len(p)-200):], modelJunk)
	b := d.dice.next()
	kind, v := b&7, b>>3
	if kind == 0 && d.empty < maxEmptyReads {
		d.empty++
		d.faults++
		return 0, nil
	}
	d.empty = 0
	if kind == 1 {
		d.faults++
		d.expired++
		return 0, os.ErrDeadlineExceeded
	}
	if len(d.rest) == 0 {
		d.faults++
		d.ended++
		return 0, d.end
	}
	n := [...]int{1, 1 + v, 100 * v, 1460, modelBlock - 1 + v%3, 2*modelBlock - 1 + v%3, modelLargeBlock - 1 + v%3, len(d.rest)}[v%8]
	if d.reads > 3000 {
		n = len(d.rest) // or large streams take too long byte by byte
	}
	n = copy(p, d.rest[:max(1, min(n, len(d.rest)))])
	d.rest = d.rest[n:]
	switch {
	case kind == 2:
		d.faults++
		d.expired++
		return n, os.ErrDeadlineExceeded
	case len(d.rest) == 0 && d.early:
		d.faults++
		d.ended++
		return n, d.end
	}
	return n, nil
}

// heldSlice is what Peek returned, and what it must go on to contain.
type heldSlice struct{ slice, want []byte }

// readerModel runs operations on a Conn and on the model beside it.
//
// By itself it judges the bytes: that each operation gives those at its position,
// and that held slices stay as they are. Which operation may fail, and how, has
// clauses of its own; with exact, it judges these as well.
type readerModel struct {
	t       *connCheck
	name    string // of the run, for failures
	c       network.Conn
	content []byte
	exact   bool

	// d is the conn beneath; nil over a real connection, of which no one knows what
	// has arrived. calm says that it has no faults before the end.
	d    *chunkConn
	calm bool

	// stir has another connection of the implementation work with memory that may
	// have been recycled too early.
	stir func(n int)

	ops      int
	op       string
	pos      int
	timeouts int // that operations have reported
	held     []heldSlice
	heldSize int
	sent     []byte // what must leave by Flush
}

// begin names the operation that follows.
func (m *readerModel) begin(format string, args ...any) {
	m.ops++
	m.op = fmt.Sprintf(format, args...)
	m.t.step("%s, operation %d: %s at %d of %d, with %d bytes buffered", m.name, m.ops, m.op, m.pos, len(m.content), m.c.Len())
}

// size makes a count fit for a judge of bytes alone: neither a negative one nor one
// for which a careless implementation takes all the memory there is.
func (m *readerModel) size(n int) int {
	if m.exact {
		return n
	}
	return min(max(n, 0), len(m.content)-m.pos+5000)
}

// came returns how many bytes of the stream the Conn can have taken from below.
func (m *readerModel) came() int {
	if m.d == nil {
		return len(m.content)
	}
	return len(m.content) - len(m.d.rest)
}

// sound ends the check if an operation that wanted n bytes had no reason for err.
func (m *readerModel) sound(n int, err error) {
	beyond := m.pos+n > len(m.content)
	if !m.exact {
		m.t.expect(beyond || m.d != nil && m.d.faults > 0, "success", "%s", describeError(err))
		return
	}
	switch {
	case errors.Is(err, os.ErrDeadlineExceeded):
		e, ok := err.(*net.OpError)
		m.t.expect(ok && e.Timeout(), "a timeout to be a *net.OpError", "%s", describeError(err))
		m.t.expect(m.timeouts < m.d.expired, "no timeout, since the conn beneath had none", "%s", describeError(err))
		m.timeouts++
	case m.d.ended > 0 && (err == m.d.end || m.d.end != io.EOF && errors.Is(err, m.d.end)):
		m.t.expect(beyond, "success", "%s", describeError(err))
	default:
		m.t.expect(false, "no error but one of the conn beneath", "%s", describeError(err))
	}
}

// took ends the check unless got are the next bytes.
func (m *readerModel) took(got []byte) {
	at := m.content[m.pos:]
	m.t.expect(len(got) <= len(at), fmt.Sprintf("an error, with %d bytes left", len(at)), "%d bytes", len(got))
	m.t.equal(got, at[:len(got)])
}

// step runs one operation that the dice choose and compares.
func (m *readerModel) step(d *dice) {
	t, c := m.t, m.c
	had := c.Len()
	reads := 0
	if m.d != nil {
		reads = m.d.reads
	}
	quiet := true // it may do no I/O and cannot fail
	switch d.next() % 16 {
	case 0, 1, 2, 3:
		n := m.size(d.size(had))
		quiet = n <= had
		m.peek(n, quiet)
	case 4, 5:
		n := m.size(d.size(had))
		quiet = n <= had
		m.skip(n, quiet)
	case 6:
		m.begin("ReadByte")
		quiet = had > 0
		b, err := c.ReadByte()
		if err == nil {
			m.took([]byte{b})
			m.pos++
		} else {
			m.sound(1, err)
		}
	case 7, 8:
		n := m.size(d.size(had))
		quiet = n <= had
		m.readBinary(n, quiet)
	case 9, 10:
		n := min(max(d.size(had), 0), 1<<16)
		quiet = n == 0 || had > 0
		m.read(n, had)
	case 11, 12:
		m.begin("Release")
		err := c.Release()
		m.held, m.heldSize = nil, 0
		t.noError(err)
		t.expect(!m.exact || c.Len() == had, fmt.Sprintf("Len to stay %d", had), "%d", c.Len())
	case 13:
		m.begin("the work of another connection")
		m.stir(modelBlock<<(d.next()%5) - 100)
	case 14: // an answer with the request's own bytes
		if len(m.held) == 0 || !m.exact {
			break
		}
		k := m.held[d.next()%len(m.held)]
		m.begin("WriteBinary of a held slice of %d bytes", len(k.slice))
		n, err := c.WriteBinary(k.slice)
		t.noError(err)
		t.expect(n == len(k.slice), "the count of all of them", "%d", n)
		m.sent = append(m.sent, k.want...)
	case 15:
		if m.exact {
			m.flush()
		}
	}
	m.check(quiet, reads)
}

func (m *readerModel) peek(n int, buffered bool) {
	m.begin("Peek(%d)", n)
	b, err := m.c.Peek(n)
	switch {
	case n < 0:
		m.t.expect(err != nil && b == nil, "nil and an error", "%d bytes and %s", len(b), describeError(err))
		return
	case err == nil:
		m.t.expect(len(b) == n, fmt.Sprintf("%d bytes or an error", n), "%d bytes", len(b))
		m.took(b)
		m.t.expect(!m.exact || n == 0 || cap(b) == n, "a capacity as the length", "cap %d for len %d", cap(b), n)
	default:
		m.sound(n, err)
		m.took(b)
		if m.exact {
			want := 0
			if err == io.EOF {
				want = len(m.content) - m.pos
			}
			m.t.expect(!buffered, "success", "%s", describeError(err))
			m.t.expect(len(b) == want && (want > 0 || err == io.EOF || b == nil), fmt.Sprintf("%d bytes with %v", want, err), "%d bytes", len(b))
			m.t.expect(want == 0 || cap(b) == want, "a capacity as the length", "cap %d for len %d", cap(b), want)
		}
	}
	// To check all of them again and again would take too long.
	if len(b) > 0 && m.heldSize+len(b) < 1<<16 && len(m.held) < 64 {
		m.held = append(m.held, heldSlice{b, m.content[m.pos : m.pos+len(b)]})
		m.heldSize += len(b)
	}
}

func (m *readerModel) skip(n int, buffered bool) {
	if !m.exact && !buffered && (!m.calm || m.t.behavior().SkipWithinBuffer || m.pos+n > len(m.content)) {
		// Of one that fails a judge of bytes could not tell how far it came.
		m.begin("Peek(%d), for a Skip", n)
		b, err := m.c.Peek(n)
		if err != nil {
			m.sound(n, err)
			return
		}
		m.took(b)
	}
	m.begin("Skip(%d)", n)
	err := m.c.Skip(n)
	switch {
	case n < 0:
		m.t.expect(err != nil, "an error", "none")
	case err == nil:
		m.t.expect(m.pos+n <= len(m.content), fmt.Sprintf("an error, with %d bytes left", len(m.content)-m.pos), "none")
		m.pos += n
	default:
		m.sound(n, err)
		if !m.exact {
			return
		}
		// What came is passed over, and nothing else.
		came := m.came()
		m.t.expect(!buffered && came-m.pos < n, "success", "%s", describeError(err))
		m.t.expect(m.c.Len() == 0, "what had come to be gone", "Len %d", m.c.Len())
		m.pos = came
	}
}

func (m *readerModel) readBinary(n int, buffered bool) {
	m.begin("ReadBinary(%d)", n)
	b, err := m.c.ReadBinary(n)
	switch {
	case n < 0:
		m.t.expect(err != nil && b == nil, "nil and an error", "%d bytes and %s", len(b), describeError(err))
	case err == nil:
		m.t.expect(len(b) == n, fmt.Sprintf("%d bytes or an error", n), "%d bytes", len(b))
		m.took(b)
		m.pos += n
		clear(b) // it is the caller's own
	default:
		m.sound(n, err)
		if m.exact {
			m.t.expect(!buffered, "success", "%s", describeError(err))
			m.t.expect(b == nil, "nil with the error", "%d bytes", len(b))
		}
	}
}

func (m *readerModel) read(n, had int) {
	m.begin("Read of %d bytes", n)
	p := make([]byte, n)
	k, err := m.c.Read(p)
	m.t.expect(k >= 0 && k <= n, "a possible count", "%d", k)
	m.took(p[:k])
	m.pos += k
	if err != nil {
		m.sound(1, err)
		if m.exact {
			m.t.expect(n > 0 && had == 0, "success", "%s", describeError(err))
			m.t.expect(k == 0, "a count of 0 with the error", "%d", k)
		}
		return
	}
	if m.exact {
		m.t.expect(had == 0 || k == min(n, had), "what is buffered", "%d bytes", k)
	}
	if n > 0 && k == 0 {
		m.t.expect(!m.exact && m.d != nil && m.d.faults > 0, "a byte or an error", "neither")
	}
}

func (m *readerModel) flush() {
	m.begin("Flush")
	m.t.noError(m.c.Flush())
	wire := m.d.sent()
	if m.c.Len() > 0 {
		// It may hold back what it sends at the latest before it blocks in a read.
		m.t.isPrefix(wire, m.sent)
		return
	}
	m.t.equal(wire, m.sent)
}

// check is what holds after every operation.
func (m *readerModel) check(quiet bool, reads int) {
	for _, k := range m.held {
		if !bytes.Equal(k.slice, k.want) {
			m.t.expect(false, "every slice from Peek to stay as it was, until Release", "one of %d bytes that Peek returned earlier has become %s", len(k.want), describeBytes(k.slice, k.want))
		}
	}
	n, most := m.c.Len(), m.came()-m.pos
	m.t.expect(n >= 0 && n <= most, fmt.Sprintf("Len to be at most %d, as many as are unread", most), "Len is %d", n)
	if m.exact {
		m.t.expect(n == most, fmt.Sprintf("Len to be %d", most), "%d", n)
		m.t.expect(!quiet || m.d.reads == reads, "no I/O", "%d reads of the conn beneath", m.d.reads-reads)
	}
}

// finish takes what is left and gives everything back.
func (m *readerModel) finish() {
	for m.calm {
		m.begin("Read to the end")
		p := make([]byte, 1<<15)
		n, err := m.c.Read(p)
		m.took(p[:n])
		m.pos += n
		if err != nil {
			m.t.expect(m.pos == len(m.content), "the rest of the stream", "%s", describeError(err))
			break
		}
	}
	m.begin("Peek of what is buffered at last")
	b, err := m.c.Peek(m.c.Len())
	if m.exact {
		m.t.noError(err)
	}
	m.took(b)
	m.pos += len(b)
	m.begin("the last Skip(%d)", len(b))
	m.t.noError(m.c.Skip(len(b)))
	m.check(false, 0)
	m.begin("the last Release")
	m.t.noError(m.c.Release())
	if m.exact {
		m.flush()
	}
}

// stirrer returns a function that has one more connection of the implementation
// read, peek and release about n bytes.
func (t *connCheck) stirrer() func(n int) {
	var c network.Conn
	return func(n int) {
		if c == nil {
			c = t.wrap(&junkConn{})
		}
		if _, err := c.Peek(n); err != nil {
			return // it is not the one that is judged
		}
		_ = c.Skip(n)
		_ = c.Release()
	}
}

// junkConn is an endless stream of what nobody wants to find elsewhere.
type junkConn struct{ scriptConn }

func (c *junkConn) Read(p []byte) (int, error) {
	for n := 0; n < len(p); n += copy(p[n:], modelJunk) {
	}
	return len(p), nil
}

// runReader runs the operations that ops choose over a stream that arrives as
// chunks choose; setup chooses how long it is and how it ends.
func runReader(t *connCheck, name string, setup uint32, ops, chunks []byte, exact bool) {
	content := modelContent()
	content = content[:int(setup>>2)%(len(content)+1)]
	d := &chunkConn{rest: content, dice: dice{p: chunks}, end: io.EOF, early: setup&1 != 0}
	if len(chunks) == 0 {
		d.dice.p = []byte{7 | 7<<3} // all at once
	}
	if setup&2 != 0 {
		d.end = errModelEnd
	}
	calm := !exact
	for _, b := range d.dice.p {
		calm = calm && b&7 > 2
	}
	m := &readerModel{
		t: t, name: name, c: t.wrap(d), content: content, exact: exact,
		d: d, calm: calm, stir: t.stirrer(),
	}
	for o := (dice{p: ops}); o.laps == 0; {
		m.step(&o)
	}
	m.finish()
}

// randomReader runs the model over a conn of the kit that r decides on.
func randomReader(t *connCheck, name string, r *rand.Rand, calm bool) {
	ops, chunks := make([]byte, 400), make([]byte, 1+r.IntN(50))
	scramble(r, ops)
	scramble(r, chunks)
	if calm {
		for i := range chunks {
			chunks[i] |= 4
		}
	}
	runReader(t, name, r.Uint32(), ops, chunks, false)
}

// randomReaderOverPair runs the model over a connection whose bytes come when they
// come.
func randomReaderOverPair(t *connCheck, name string, r *rand.Rand) {
	a, b := t.pair()
	content := modelContent()[:1<<17+r.IntN(1<<17)]
	pieces := rand.New(rand.NewPCG(r.Uint64(), 1))
	t.spawn(func() {
		defer b.Close()
		for p := content; len(p) > 0; {
			n := min(1+pieces.IntN([]int{2, 100, 5000, 40000}[pieces.IntN(4)]), len(p))
			if _, err := b.Write(p[:n]); err != nil {
				return
			}
			p = p[n:]
		}
	})
	m := &readerModel{t: t, name: name, c: a, content: content, calm: true, stir: func(int) {}}
	if t.canWrap() {
		m.stir = t.stirrer()
	}
	ops := make([]byte, 400)
	scramble(r, ops)
	for o := (dice{p: ops}); o.laps == 0; {
		m.step(&o)
	}
	m.finish()
}

func scramble(r *rand.Rand, p []byte) {
	for i := range p {
		p[i] = byte(r.Uint32())
	}
}
