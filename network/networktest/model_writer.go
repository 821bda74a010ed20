package networktest

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"os"

	"github.com/hertznet/hertznet/network"
)

// The model of a writer is the list of the bytes that it has accepted.

// The faults that a faultySink shows at one of its writes.
const (
	sinkError    = iota // an error after some bytes
	sinkTimeout         // the same, and it is a timeout
	sinkShort           // fewer bytes, and no error
	sinkNegative        // an impossible count
	sinkTooMany
	sinkFaults
)

var errSink = errors.New("networktest: the sink broke")

// faultySink is a conn beneath that fails at one write, and whose stream to read
// never ends.
type faultySink struct {
	scriptConn
	after    int // how many writes succeed first; negative is all
	kind     int
	taken    int // of the failing write
	calls    int
	failedAt int // the bytes on the wire before the failing write
	read     int // the place in the stream that Read returns
	chunk    int // how much of it at once
}

// sinkStream returns n bytes of what a sink has to read, from a place in it.
func sinkStream(at, n int) []byte {
	at %= 1 << 19
	return modelContent()[at : at+n]
}

func (s *faultySink) Read(p []byte) (int, error) {
	n := copy(p, sinkStream(s.read, s.chunk))
	s.read += n
	return n, nil
}

func (s *faultySink) Write(p []byte) (int, error) {
	s.calls++
	if s.after != s.calls-1 {
		s.wire = append(s.wire, p...)
		return len(p), nil
	}
	s.failedAt = len(s.wire)
	taken := min(s.taken, len(p))
	switch s.kind {
	case sinkNegative:
		return -1 - taken, nil
	case sinkTooMany:
		return len(p) + 1 + taken, nil
	}
	s.wire = append(s.wire, p[:taken]...)
	switch {
	case s.kind == sinkTimeout:
		return taken, os.ErrDeadlineExceeded
	case s.kind == sinkShort && taken < len(p):
		return taken, nil
	}
	return taken, errSink
}

// hasFailed reports whether the failing write has come.
func (s *faultySink) hasFailed() bool { return s.after >= 0 && s.calls > s.after }

// gatheringSink takes all slices at once, from an implementation that looks for
// such a method.
type gatheringSink struct{ faultySink }

func (s *gatheringSink) WriteBuffers(v *net.Buffers) (int64, error) {
	n, err := s.Write(bytes.Join(*v, nil))
	*v = nil
	return int64(n), err
}

// program hands out the bytes of an input once.
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
//
// By itself it judges the bytes on the wire, up to the first failure. With exact, it
// judges also what has clauses of its own: the errors, the counts, and what is said
// and done after a failure and after Close.
type writerModel struct {
	t     *connCheck
	name  string
	c     network.Conn
	exact bool
	sink  *faultySink // nil over a real connection

	ops    int
	want   []byte // every byte that was accepted, in order
	fills  []lateFill
	lent   [][]byte // given to WriteBinary since the last Flush
	failed error    // what every operation must return
	maybe  error    // what every operation may return instead of going on
	closed bool
	number int // of the bytes that were made up
}

// lateFill is what a Malloc gets just before the Flush, so that two Mallocs that
// share a byte show.
type lateFill struct{ buf, with []byte }

func (m *writerModel) begin(format string, args ...any) {
	m.ops++
	m.t.step("%s, operation %d: %s after %d bytes of output", m.name, m.ops, fmt.Sprintf(format, args...), len(m.want))
}

func (m *writerModel) bytes(n int) []byte {
	b := bytes.Clone(sinkStream(m.number, n))
	m.number += n
	return b
}

// size makes a count fit for a judge of bytes alone.
func (m *writerModel) size(n int) int {
	if m.exact {
		return n
	}
	return max(n, 1)
}

// accepted judges the error of an operation that sends nothing, and reports whether
// its bytes are to arrive.
func (m *writerModel) accepted(err error) bool {
	switch {
	case m.closed:
		m.t.expect(err == nil || errors.Is(err, net.ErrClosed) || sameError(err, m.failed) || sameError(err, m.maybe), "net.ErrClosed or no error", "%s", describeError(err))
		return false
	case m.failed != nil:
		m.t.expect(err == nil || sameError(err, m.failed), fmt.Sprintf("%v again, or no error", m.failed), "%s", describeError(err))
		return false
	case err != nil && sameError(err, m.maybe):
		m.failed = err
		return false
	}
	m.t.noError(err)
	return true
}

func sameError(a, b error) bool { return a != nil && b != nil && (a == b || a.Error() == b.Error()) }

func (m *writerModel) malloc(n int) {
	m.begin("Malloc(%d)", n)
	b, err := m.c.Malloc(n)
	if err == nil {
		m.t.expect(len(b) == n, "as many bytes", "%d bytes", len(b))
		m.t.expect(!m.exact || cap(b) == n, "a capacity as the length", "cap %d for len %d", cap(b), n)
	}
	if m.accepted(err) {
		with := m.bytes(n)
		m.fills = append(m.fills, lateFill{b, with})
		m.want = append(m.want, with...)
	}
}

func (m *writerModel) writeBinary(b []byte, own bool) {
	m.begin("WriteBinary of %d bytes", len(b))
	n, err := m.c.WriteBinary(b)
	if err == nil {
		m.t.expect(n == len(b), "the count of all of them", "%d", n)
	}
	if m.accepted(err) {
		m.want = append(m.want, b...)
	}
	if own {
		m.lent = append(m.lent, b)
	}
}

// send runs an operation that sends what is pending and then the bytes of p, of
// which it returns how many it sent.
func (m *writerModel) send(op string, p []byte, do func() (int, error)) {
	for i := len(m.fills) - 1; i >= 0; i-- {
		copy(m.fills[i].buf, m.fills[i].with)
	}
	m.fills = nil
	m.begin("%s of %d bytes", op, len(p))
	n, err := do()
	for _, b := range m.lent { // they are the caller's again
		clear(b)
	}
	m.lent = nil
	if m.sink == nil || !m.exact {
		m.judgeBytes(p, n, err)
	} else {
		m.judgeSend(op, p, n, err)
	}
}

// judgeBytes judges a send by what has reached the wire.
func (m *writerModel) judgeBytes(p []byte, n int, err error) {
	m.want = append(m.want, p...)
	if m.sink != nil && m.sink.hasFailed() {
		// Anything goes from here on, save that the wire has a prefix.
		m.failed = errSink
		m.prefix()
		return
	}
	m.t.noError(err)
	m.t.expect(n == len(p), "the count of all of them", "%d", n)
	m.equal()
}

// judgeSend judges a send in all its consequences.
func (m *writerModel) judgeSend(op string, p []byte, n int, err error) {
	t, sink := m.t, m.sink
	flushed := len(m.want)
	switch {
	case m.closed:
		t.expect(n == 0, "a count of 0", "%d", n)
		t.expect(err == nil && op == "Flush" || errors.Is(err, net.ErrClosed) || sameError(err, m.failed) || sameError(err, m.maybe), "net.ErrClosed", "%s", describeError(err))
		m.prefix()
	case m.failed == nil && err != nil && sameError(err, m.maybe):
		m.failed = err
		m.want = m.want[:min(len(m.want), len(sink.wire))]
		fallthrough
	case m.failed != nil:
		t.expect(n == 0 && sameError(err, m.failed), fmt.Sprintf("0 and %v again", m.failed), "%d and %s", n, describeError(err))
		m.prefix()
	case err == nil:
		t.expect(n == len(p), "the count of all of them", "%d", n)
		m.want = append(m.want, p...)
		m.maybe = nil
		m.equal()
	default:
		t.expect(sink.hasFailed(), "success", "%s", describeError(err))
		switch sink.kind {
		case sinkTimeout:
			e, ok := err.(*net.OpError)
			t.expect(ok && e.Timeout() && errors.Is(err, os.ErrDeadlineExceeded), "a *net.OpError with Timeout() true", "%s", describeError(err))
		case sinkError:
			t.expect(errors.Is(err, errSink), "the error of the conn beneath", "%s", describeError(err))
		case sinkShort:
			t.expect(errors.Is(err, io.ErrShortWrite) || errors.Is(err, errSink), "io.ErrShortWrite", "%s", describeError(err))
		}
		m.want = append(m.want, p...)
		m.prefix()
		t.expect(n == max(0, len(sink.wire)-flushed), fmt.Sprintf("a count of %d, as many of its bytes have left", max(0, len(sink.wire)-flushed)), "%d", n)
		m.want = m.want[:len(sink.wire)]
		switch {
		case op != "Write" || sink.kind != sinkTimeout || len(sink.wire) < flushed:
			m.failed = err
		case sink.failedAt < flushed:
			m.maybe = err // the write that failed was of pending bytes as well
		}
	}
}

// prefix ends the check unless the wire has the beginning of the output.
func (m *writerModel) prefix() {
	m.t.isPrefix(m.sink.wire, m.want)
}

// isPrefix ends the check unless wire is the beginning of output.
func (t *connCheck) isPrefix(wire, output []byte) {
	if !bytes.HasPrefix(output, wire) {
		t.expect(false, fmt.Sprintf("a prefix of the %d bytes of output on the wire", len(output)), "%s", describeBytes(wire, output))
	}
}

// equal ends the check unless the wire has all the output, save for what may be held
// back while the next request is already there.
func (m *writerModel) equal() {
	switch {
	case m.sink == nil:
	case m.c.Len() > 0:
		m.prefix()
	default:
		m.t.equal(m.sink.wire, m.want)
	}
}

// read passes over n bytes of the stream that comes in, and checks them.
func (m *writerModel) read(n, at int) []byte {
	if m.closed {
		n = min(n, m.c.Len())
	}
	m.begin("Peek(%d) between writes", n)
	b, err := m.c.Peek(n)
	if !m.exact && (err != nil || len(b) != n) {
		return nil // that is the reader's business
	}
	m.t.noError(err)
	m.t.equal(b, sinkStream(at, n))
	return b
}

// runWriter runs operations as input says, on a conn beneath that fails as it says,
// and compares what reaches the wire with the model: equal, or a prefix.
func runWriter(t *connCheck, name string, input []byte, exact bool) {
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
	sink.kind = p.next() % sinkFaults
	sink.taken = p.size()
	sink.chunk = 1 + p.size()
	c := t.wrap(nc)
	m := &writerModel{t: t, name: name, c: c, exact: exact, sink: sink}
	m.run(p)
	if m.failed != nil && !exact {
		return
	}
	m.send("Flush", nil, func() (int, error) { return 0, c.Flush() })
	if n := c.Len(); n > 0 {
		m.begin("the last Skip(%d)", n)
		t.noError(c.Skip(n))
	}
	_ = c.Release()
	m.begin("Close")
	_ = c.Close()
	if m.failed == nil && !m.closed {
		t.equal(sink.wire, m.want)
	}
}

// run runs what is left of the program.
func (m *writerModel) run(p program) {
	c, exact := m.c, m.exact
	at := 0 // the place in the stream that c has reached
	for len(p) > 0 && (exact || m.failed == nil) {
		switch op := p.next() % 12; op {
		case 0, 1:
			m.malloc(m.size(p.size() + op))
		case 2, 3: // on both sides of the size from which a slice may be borrowed
			m.writeBinary(m.bytes(m.size(p.size()+(op-2)*(modelBlock-32))), true)
		case 4: // what was Peeked, as an echo does
			n := p.size()
			switch {
			case exact:
				m.writeBinary(m.read(n, at), false)
			case m.sink != nil:
				if b := bytes.Clone(m.read(m.size(n), at)); len(b) > 0 {
					m.writeBinary(b, true)
				}
			}
			fallthrough
		case 5: // reading on
			n := p.size()
			if m.sink == nil {
				continue // the peer sends nothing
			}
			n = len(m.read(n, at))
			m.begin("Skip(%d) between writes", n)
			m.t.noError(c.Skip(n))
			at += n
			_ = c.Release()
		case 6, 7:
			m.send("Flush", nil, func() (int, error) { return 0, c.Flush() })
		case 8, 9:
			b := m.bytes(m.size(p.size()))
			r, ok := c.(io.ReaderFrom)
			if op == 8 || !ok || !exact {
				m.send("Write", b, func() (int, error) { return c.Write(b) })
				continue
			}
			m.send("ReadFrom", b, func() (int, error) {
				n, err := r.ReadFrom(bytes.NewReader(b))
				return int(n), err
			})
		case 10: // counts that cannot be
			for _, n := range []int{-1, minInt, maxInt} {
				if exact {
					m.begin("Malloc(%d)", n)
					b, err := c.Malloc(n)
					m.t.expect(err != nil && b == nil, "nil and an error", "%d bytes and %s", len(b), describeError(err))
				}
			}
		case 11:
			if p.next() == 0 && exact {
				m.begin("Close")
				_ = c.Close()
				m.closed = true
			}
		}
		if m.closed { // nothing but errors from here: a few are enough
			p = p[:min(len(p), 20)]
		}
		if m.sink != nil && m.failed == nil {
			m.prefix()
		}
	}
}

// randomWriter runs the model over a conn of the kit that r decides on.
func randomWriter(t *connCheck, name string, r *rand.Rand, faulty bool) {
	input := make([]byte, 5+r.IntN(120))
	scramble(r, input)
	input[1] = 0
	if faulty {
		input[1] = byte(1 + r.IntN(12))
	}
	input[2] = byte(r.IntN(sinkTimeout + 1)) // the other faults have clauses of their own
	runWriter(t, name, input, false)
}

// randomWriterOverPair runs the model over a connection whose peer reads all the
// time.
func randomWriterOverPair(t *connCheck, name string, r *rand.Rand) {
	a, b := t.pair()
	input := make([]byte, 150)
	scramble(r, input)
	var got []byte
	received := t.spawn(func() { got, _ = io.ReadAll(readerOf(b)) })
	m := &writerModel{t: t, name: name, c: a}
	m.run(input)
	m.send("Flush", nil, func() (int, error) { return 0, a.Flush() })
	m.begin("Close, and reading the peer to the end")
	a.Close()
	t.wait(received)
	t.equal(got, m.want)
}
