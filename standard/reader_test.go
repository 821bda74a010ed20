package standard

import (
	"bytes"
	"fmt"
	"io"
	"math"
	"net"
	"os"
	"runtime/debug"
	"slices"
	"testing"
	"testing/iotest"
	"time"
)

// What the reader does is what the kit checks, see kit_test.go. Here is how it does
// it: with how many blocks, of which sizes, and with how many reads beneath; and the
// errors' identity, which the contract leaves open.

// underRace says that memory accesses cost ten times as much.
var underRace = func() bool {
	info, ok := debug.ReadBuildInfo()
	return ok && slices.Contains(info.Settings, debug.BuildSetting{Key: "-race", Value: "true"})
}()

// scaled is n, or an eighth of it where that takes long enough.
func scaled(n int) int {
	if underRace || testing.Short() {
		return n / 8
	}
	return n
}

// sourceConn is a net.Conn that reads from r.
type sourceConn struct {
	scriptConn
	r io.Reader
}

func (c *sourceConn) Read(p []byte) (int, error) { return c.r.Read(p) }

func readerOf(r io.Reader) (*Conn, *sourceConn) {
	s := &sourceConn{r: r}
	return NewConn(s), s
}

type readFunc func(p []byte) (int, error)

func (f readFunc) Read(p []byte) (int, error) { return f(p) }

// readOnly hides everything but Read.
type readOnly struct{ io.Reader }

// scripted returns a Conn over a script of reads, which ends in io.EOF.
func scripted(steps ...step) (*Conn, *scriptConn) {
	s := &scriptConn{reads: steps}
	return NewConn(s), s
}

// inChunks cuts data into reads of size bytes.
func inChunks(data []byte, size int) (steps []step) {
	for len(data) > 0 {
		n := min(size, len(data))
		steps = append(steps, step{data: data[:n:n]})
		data = data[n:]
	}
	return steps
}

// streams are the ways in which the same bytes, and then the end, can come.
var streams = []struct {
	name string
	open func(t testing.TB, data []byte) net.Conn
}{
	{"tcp", func(t testing.TB, data []byte) net.Conn { return sent(t, tcpPair, data) }},
	{"unix", func(t testing.TB, data []byte) net.Conn { return sent(t, unixPair, data) }},
	{"pipe", func(t testing.TB, data []byte) net.Conn { return sent(t, pipePair, data) }},
	{"whole", func(t testing.TB, data []byte) net.Conn {
		return &scriptConn{reads: []step{{data: data}}}
	}},
	{"whole with EOF", func(t testing.TB, data []byte) net.Conn {
		return &scriptConn{reads: []step{{data: data, err: io.EOF}}}
	}},
	{"odd chunks", func(t testing.TB, data []byte) net.Conn {
		return &scriptConn{reads: inChunks(data, 1237)}
	}},
	{"one byte reads", func(t testing.TB, data []byte) net.Conn {
		return &sourceConn{r: iotest.OneByteReader(bytes.NewReader(data))}
	}},
}

func sent(t testing.TB, pair func(testing.TB) (a, b net.Conn), data []byte) net.Conn {
	a, b := pair(t)
	go func() {
		_, _ = a.Write(data)
		a.Close()
	}()
	return b
}

// eachStream runs f with a Conn that reads data and then the end, in every way.
func eachStream(t *testing.T, data []byte, f func(t *testing.T, c *Conn)) {
	for _, s := range streams {
		t.Run(s.name, func(t *testing.T) { f(t, NewConn(s.open(t, data))) })
	}
}

// heldBytes is the memory that the read side owns.
func heldBytes(c *Conn) (n int) {
	if c.in.cur != nil {
		n = len(c.in.cur.buf)
	}
	for b := c.in.aside; b != nil; b = b.next {
		n += len(b.buf)
	}
	return n
}

func mustPeek(t testing.TB, c *Conn, n int, want []byte) []byte {
	t.Helper()
	b, err := c.Peek(n)
	if err != nil {
		t.Fatalf("Peek(%d): %v", n, err)
	}
	if len(b) != n || n > 0 && cap(b) != n {
		t.Fatalf("Peek(%d): len %d, cap %d", n, len(b), cap(b))
	}
	if !bytes.Equal(b, want[:n]) {
		t.Fatalf("Peek(%d): wrong bytes", n)
	}
	return b
}

func mustSkip(t testing.TB, c *Conn, n int) {
	t.Helper()
	if err := c.Skip(n); err != nil {
		t.Fatalf("Skip(%d): %v", n, err)
	}
}

func mustRelease(t testing.TB, c *Conn) {
	t.Helper()
	if err := c.Release(); err != nil {
		t.Fatalf("Release: %v", err)
	}
}

// readerOps are the reader's methods, for when asking for n bytes must fail: do
// returns the slice that came nevertheless, and the error.
var readerOps = []struct {
	name string
	do   func(c *Conn, n int) ([]byte, error)
}{
	{"Peek", func(c *Conn, n int) ([]byte, error) { return c.Peek(n) }},
	{"Skip", func(c *Conn, n int) ([]byte, error) { return nil, c.Skip(n) }},
	{"ReadBinary", func(c *Conn, n int) ([]byte, error) { return c.ReadBinary(n) }},
	{"ReadByte", func(c *Conn, n int) ([]byte, error) {
		_, err := c.ReadByte()
		return nil, err
	}},
	{"Read", func(c *Conn, n int) ([]byte, error) {
		m, err := c.Read(make([]byte, n))
		if m != 0 {
			err = fmt.Errorf("Read returned %d bytes", m)
		}
		return nil, err
	}},
	{"large Read", func(c *Conn, n int) ([]byte, error) {
		m, err := c.Read(make([]byte, 2*minBlockSize))
		if m != 0 {
			err = fmt.Errorf("Read returned %d bytes", m)
		}
		return nil, err
	}},
}

var junk = bytes.Repeat([]byte{0xdb}, 1<<16)

// R5, R14, R18, W5: a negative count is ErrNegativeCount itself, in every state.
func TestR5_ErrNegativeCount(t *testing.T) {
	c, s := scripted(step{data: pattern(100)}, step{err: io.ErrUnexpectedEOF})
	for _, state := range []string{"fresh", "buffered", "failed", "closed"} {
		switch state {
		case "buffered":
			mustPeek(t, c, 100, pattern(100))
		case "failed":
			_, _ = c.Peek(101)
		case "closed":
			c.Close()
		}
		reads := s.nreads
		for _, n := range []int{-1, math.MinInt, math.MinInt + 1} {
			for _, op := range readerOps[:3] { // those with a count
				if b, err := op.do(c, n); b != nil || err != ErrNegativeCount {
					t.Errorf("%s: %s(%d): %d bytes, %v", state, op.name, n, len(b), err)
				}
			}
			if b, err := c.Malloc(n); b != nil || err != ErrNegativeCount {
				t.Errorf("%s: Malloc(%d): %d bytes, %v", state, n, len(b), err)
			}
		}
		if s.nreads != reads {
			t.Errorf("%s: %d reads of the conn beneath", state, s.nreads-reads)
		}
	}
}

// R8: a timeout that is set must not hide the end of a stream which came before the
// read did: net.Pipe then refuses to set a deadline. The kit sets none before an end.
func TestR8_EndBeforeTheReadWithATimeoutSet(t *testing.T) {
	for _, s := range sockets {
		for _, op := range readerOps {
			t.Run(s.name+" "+op.name, func(t *testing.T) {
				a, b := s.pair(t)
				a.Close()
				c := NewConn(b)
				if err := c.SetReadTimeout(time.Minute); err != nil {
					t.Fatal(err)
				}
				for range 3 {
					if b, err := op.do(c, 1); len(b) != 0 || err != io.EOF {
						t.Fatalf("%d bytes, %v; want io.EOF", len(b), err)
					}
				}
			})
		}
	}
}

// R11, R20: memory follows the bytes at every moment, however many are asked for,
// and growing moves each of them a bounded number of times. The kit allows some
// megabytes; here it is what lookahead says.
func TestR11_MemoryFollowsTheBytes(t *testing.T) {
	data := pattern(scaled(16 << 20))
	for _, op := range []string{"Peek", "ReadBinary"} {
		c, s := readerOf(nil)
		arrived, moved := 0, 0
		var was *block
		s.r = readFunc(func(p []byte) (int, error) {
			if got, most := heldBytes(c), 2*max(growth*arrived, 2*lookahead); got > most {
				t.Fatalf("%s holds %d bytes when %d have come", op, got, arrived)
			}
			if c.in.cur != was {
				was = c.in.cur
				moved += arrived
			}
			n := copy(p, data[arrived:min(arrived+999, len(data))])
			arrived += n
			if n == 0 {
				return 0, io.EOF
			}
			return n, nil
		})
		var err error
		if op == "Peek" {
			_, err = c.Peek(math.MaxInt)
		} else {
			_, err = c.ReadBinary(math.MaxInt)
		}
		if err != io.EOF || c.Len() != len(data) {
			t.Fatalf("%s: %v with %d bytes", op, err, c.Len())
		}
		if moved > 2*len(data) {
			t.Errorf("%s moved %d bytes to read %d", op, moved, len(data))
		}
	}
}

// R12: Hertz's loop over a header (peek 1, then one more than there are, again and
// again) sets few blocks aside and reads each byte once. The kit sees that it copies
// and holds a bounded amount, with wider bounds.
func TestR12_HeaderLoop(t *testing.T) {
	size := scaled(1 << 20)
	data := pattern(size)
	for _, chunk := range []int{1, 1400, minBlockSize, 65536} {
		t.Run(fmt.Sprint(chunk), func(t *testing.T) {
			// The request before ended just so, that the header begins inside of a block.
			c, s := scripted(append([]step{{data: data[:1001]}}, inChunks(data[1001:], chunk)...)...)
			mustPeek(t, c, 1000, data)
			mustSkip(t, c, 1000)
			moved := 0
			for {
				was, unread := c.in.cur, c.Len()
				if _, err := c.Peek(unread + 1); err != nil {
					break
				}
				if c.in.cur != was {
					moved += unread
				}
				if _, err := c.Peek(c.Len()); err != nil { // the whole is parsed
					t.Fatal(err)
				}
			}
			mustPeek(t, c, size-1000, data[1000:])
			if moved > 2*size {
				t.Errorf("moved %d bytes", moved)
			}
			if got := heldBytes(c); got > 5*size {
				t.Errorf("holds %d bytes", got)
			}
			aside := 0
			for b := c.in.aside; b != nil; b = b.next {
				aside++
			}
			if aside > 10 {
				t.Errorf("keeps %d blocks aside", aside)
			}
			// A read that meets the end of a block returns less than the chunk.
			if most := size/chunk + 16; s.nreads > most {
				t.Errorf("%d reads, want at most %d", s.nreads, most)
			}
			mustSkip(t, c, c.Len())
			mustRelease(t, c)
			if got := heldBytes(c); got != 0 {
				t.Errorf("holds %d bytes after Release", got)
			}
		})
	}
}

// R15: a Skip of more than is buffered holds one block of the smallest size, where
// the kit allows megabytes; and when it fails, it has passed over what came.
func TestR15_LongSkipHoldsOneBlock(t *testing.T) {
	const size = 8 << 20
	steps := inChunks(make([]byte, size), 7919)
	for _, pinned := range []int{0, 100} {
		c, s := scripted(append(steps[:len(steps):len(steps)], step{data: []byte("end")})...)
		base := outstanding.Load()
		mustPeek(t, c, pinned, make([]byte, pinned))
		most, mostBytes := int64(0), 0
		probe := &probeConn{scriptConn: s, before: func() {
			most = max(most, outstanding.Load()-base)
			mostBytes = max(mostBytes, heldBytes(c))
		}}
		c.nc = probe
		mustSkip(t, c, size)
		blocks := int64(1)
		if pinned > 0 {
			blocks = 2 // the one that the held slice is in
		}
		if most > blocks || mostBytes > int(blocks)*minBlockSize {
			t.Errorf("pinned %d: held %d blocks and %d bytes", pinned, most, mostBytes)
		}
		if b, err := c.ReadBinary(3); string(b) != "end" || err != nil {
			t.Errorf("pinned %d: after the Skip came %q, %v", pinned, b, err)
		}
		mustRelease(t, c)
	}

	// When it fails, what came is gone and the rest is not.
	c, _ := scripted(step{data: pattern(5000)}, step{err: os.ErrDeadlineExceeded}, step{data: []byte("xyz")})
	wantTimeout(t, c.Skip(5001))
	if c.Len() != 0 {
		t.Errorf("Len %d after a Skip that failed", c.Len())
	}
	if b, err := c.ReadBinary(3); string(b) != "xyz" || err != nil {
		t.Errorf("then came %q, %v", b, err)
	}
}

// probeConn calls before at every Read.
type probeConn struct {
	*scriptConn
	before func()
}

func (c *probeConn) Read(p []byte) (int, error) {
	c.before()
	return c.scriptConn.Read(p)
}

// R28: a timeout tells the operation and the connection, as those of package net
// do. The kit looks at the type alone.
func TestR28_TimeoutNamesTheConnection(t *testing.T) {
	for _, s := range sockets[:2] { // the errors of a pipe come without addresses
		_, b := s.pair(t)
		c := NewConn(b)
		if err := c.SetReadTimeout(time.Millisecond); err != nil {
			t.Fatal(err)
		}
		_, err := c.Peek(1)
		if op, ok := err.(*net.OpError); !ok || op.Op != "read" || op.Net != s.name || op.Source != b.LocalAddr() || op.Addr != b.RemoteAddr() {
			t.Errorf("%s: %#v", s.name, err)
		}
	}
}

// P2: after a message of 64 MiB the connection holds what small messages need, to the
// byte, also when the first bytes of the next one came with it.
func TestP2_MemoryShrinksAfterALargePeek(t *testing.T) {
	size := scaled(64<<20) - 1000 // a block of 64 MiB has room for the tail
	large := make([]byte, size)
	small := pattern(100)
	for _, tail := range []int{0, 1, 100} {
		c, s := scripted(step{data: append(large[:size:size], small[:tail]...)})
		if _, err := c.Peek(size); err != nil {
			t.Fatal(err)
		}
		if c.Len() != size+tail {
			t.Fatalf("Len %d: the tail did not come along", c.Len())
		}
		if got := heldBytes(c); got > 4*size {
			t.Errorf("tail %d: holds %d bytes for a message of %d", tail, got, size)
		}
		mustSkip(t, c, size)
		mustRelease(t, c)
		mustPeek(t, c, tail, small)
		if got := heldBytes(c); got > 2*maxReadSize {
			t.Errorf("tail %d: holds %d bytes after the large message", tail, got)
		}
		mustSkip(t, c, c.Len())
		mustRelease(t, c)
		// Small messages bring the blocks back to the smallest.
		for range 10 {
			s.reads = []step{{data: small}}
			mustPeek(t, c, 100, small)
			mustSkip(t, c, 100)
			mustRelease(t, c)
		}
		s.reads = []step{{data: small}}
		mustPeek(t, c, 100, small)
		if got := heldBytes(c); got != minBlockSize {
			t.Errorf("tail %d: in the end small messages get %d bytes", tail, got)
		}
	}

	t.Run("ReadBinary, never released", func(t *testing.T) {
		c, s := scripted(step{data: large})
		if _, err := c.ReadBinary(size); err != nil {
			t.Fatal(err)
		}
		s.reads = []step{{data: small}}
		mustPeek(t, c, 100, small)
		if got := heldBytes(c); got > maxPooledSize {
			t.Errorf("holds %d bytes after the large message", got)
		}
	})
}

// P2: blocks follow the messages' size, up as well as down: a large message moves
// while the first few come, and then no more.
func TestP2_BlocksFollowTheMessages(t *testing.T) {
	const size = 50000
	data := pattern(size)
	c, s := scripted()
	for i := range 20 {
		s.reads = inChunks(data, 1400)
		mustPeek(t, c, 1, data)
		first := c.in.cur
		for n := c.Len(); n < size; n = c.Len() {
			mustPeek(t, c, n+1, data)
		}
		if i >= 5 && c.in.cur != first {
			t.Fatalf("message %d of %d bytes began in a block of %d", i, size, len(first.buf))
		}
		mustSkip(t, c, size)
		mustRelease(t, c)
	}
}

// P4: what was taken from the pools comes back, whatever was done with it.
func TestP4_BlocksComeBack(t *testing.T) {
	data := pattern(200000)
	base := outstanding.Load()
	eachStream(t, data, func(t *testing.T, c *Conn) {
		at := 0
		for i := 0; at < len(data); i++ {
			n := min(1+i*i*13%9000, len(data)-at)
			b := mustPeek(t, c, n, data[at:])
			switch i % 4 {
			case 0:
				mustSkip(t, c, n)
			case 1:
				// It goes out again over the same connection.
				if _, err := c.WriteBinary(b); err != nil {
					t.Fatal(err)
				}
				mustSkip(t, c, n)
				mustRelease(t, c)
				c.dropPending() // the peer is gone
			case 2:
				if _, err := c.ReadBinary(n); err != nil {
					t.Fatal(err)
				}
			case 3:
				n, _ = c.Read(make([]byte, n))
				mustRelease(t, c)
			}
			at += n
		}
		if _, err := c.Peek(1); err != io.EOF {
			t.Fatal(err)
		}
		mustRelease(t, c)
		if got := heldBytes(c); got != 0 {
			t.Errorf("the read side holds %d bytes", got)
		}
	})
	settles(t, "blocks outstanding", int(base), func() int { return int(outstanding.Load()) })
}

// P6: what is read by the copying methods alone, or skipped, keeps one block in use
// beside that of a slice which is never released. The kit has no such slice, and
// wider bounds.
func TestP6_BoundedMemoryBesideAHeldSlice(t *testing.T) {
	const most = 4 * maxReadSize
	total := scaled(64 << 20)
	p := make([]byte, 1<<16)
	for _, test := range []struct {
		name string
		do   func(c *Conn) (int, error)
	}{
		{"Read 1000", func(c *Conn) (int, error) { return c.Read(p[:1000]) }},
		{"Read 65536", func(c *Conn) (int, error) { return c.Read(p) }},
		{"ReadByte", func(c *Conn) (int, error) { _, err := c.ReadByte(); return 1, err }},
		{"ReadBinary 5", func(c *Conn) (int, error) { b, err := c.ReadBinary(5); return len(b), err }},
		{"ReadBinary 50000", func(c *Conn) (int, error) { b, err := c.ReadBinary(50000); return len(b), err }},
		{"Skip 3", func(c *Conn) (int, error) { return 3, c.Skip(3) }},
		{"Skip 100000", func(c *Conn) (int, error) { return 100000, c.Skip(100000) }},
	} {
		t.Run(test.name, func(t *testing.T) {
			c, _ := readerOf(readFunc(func(p []byte) (int, error) { return len(p), nil }))
			if _, err := c.Peek(10); err != nil {
				t.Fatal(err)
			}
			base := outstanding.Load()
			for done, i := 0, 0; done < total; i++ {
				n, err := test.do(c)
				if err != nil || n == 0 {
					t.Fatalf("%d, %v", n, err)
				}
				done += n
				if i%64 != 0 {
					continue
				}
				if got, blocks := heldBytes(c), outstanding.Load()-base; got > most || blocks > 2 {
					t.Fatalf("holds %d bytes after %d, and %d more blocks are out", got, done, blocks)
				}
			}
		})
	}
}
