package standard

import (
	"bytes"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"math"
	"net"
	"runtime"
	"strconv"
	"strings"
	"testing"

	"github.com/hertznet/hertznet/tlsconn"
)

// What the writer does is what the kit checks, see kit_test.go. Here is how it does
// it: which blocks it takes and gives back, with how many writes beneath, all pieces
// at once where the conn beneath can do that, which those of the kit cannot; and the
// errors' identity, which the contract leaves open.

// gatherConn is a scriptConn that takes many slices at once, as tlsconn.Conn
// does. One step of the script answers one WriteBuffers.
type gatherConn struct {
	scriptConn
	calls int // of WriteBuffers
}

func (c *gatherConn) WriteBuffers(v *net.Buffers) (int64, error) {
	c.calls++
	var all []byte
	for _, b := range *v {
		all = append(all, b...)
	}
	n, err := c.Write(all)
	for left := n; left > 0 && len(*v) > 0; {
		k := min(left, len((*v)[0]))
		left -= k
		if (*v)[0] = (*v)[0][k:]; len((*v)[0]) == 0 {
			*v = (*v)[1:]
		}
	}
	return int64(n), err
}

// sinks are conns beneath that write by a script: piece by piece, or all pieces
// at once.
var sinks = []struct {
	name string
	make func(writes ...step) (net.Conn, *scriptConn)
}{
	{"write", func(writes ...step) (net.Conn, *scriptConn) {
		c := &scriptConn{writes: writes}
		return c, c
	}},
	{"gather", func(writes ...step) (net.Conn, *scriptConn) {
		c := &gatherConn{scriptConn: scriptConn{writes: writes}}
		return c, &c.scriptConn
	}},
}

// onSinks runs f over both kinds of sink, with a script of its own for each.
func onSinks(t *testing.T, f func(t *testing.T, open func(writes ...step) (*Conn, *scriptConn))) {
	for _, s := range sinks {
		t.Run(s.name, func(t *testing.T) {
			f(t, func(writes ...step) (*Conn, *scriptConn) {
				nc, sink := s.make(writes...)
				return NewConn(nc), sink
			})
		})
	}
}

// secureEnds are two TLS ends over TCP. wrap, if not nil, is put around the conn
// beneath the first of them.
func secureEnds(t testing.TB, wrap func(net.Conn) net.Conn) (a, b *TLSConn) {
	t.Helper()
	cert, roots, err := tlsconn.SelfSigned("localhost")
	if err != nil {
		t.Fatal(err)
	}
	x, y := tcpPair(t)
	if wrap != nil {
		x = wrap(x)
	}
	a = NewTLSConn(tlsconn.Client(x, tlsconn.ClientConfig(&tls.Config{RootCAs: roots}, "localhost:0")))
	b = NewTLSConn(tlsconn.Server(y, tlsconn.ServerConfig(&tls.Config{Certificates: []tls.Certificate{cert}})))
	done := make(chan error, 1)
	go func() { done <- b.Handshake() }()
	if err := a.Handshake(); err != nil {
		t.Fatal(err)
	}
	if err := <-done; err != nil {
		t.Fatal(err)
	}
	return a, b
}

// mustFlush flushes c.
func mustFlush(t testing.TB, c *Conn) {
	t.Helper()
	if err := c.Flush(); err != nil {
		t.Fatalf("Flush: %v", err)
	}
}

// put adds b to the output by Malloc.
func put(t testing.TB, c *Conn, b []byte) {
	t.Helper()
	p, err := c.Malloc(len(b))
	if err != nil {
		t.Fatalf("Malloc(%d): %v", len(b), err)
	}
	if len(p) != len(b) {
		t.Fatalf("Malloc(%d) has %d bytes", len(b), len(p))
	}
	copy(p, b)
}

// add adds b to the output by WriteBinary.
func add(t testing.TB, c *Conn, b []byte) {
	t.Helper()
	if n, err := c.WriteBinary(b); n != len(b) || err != nil {
		t.Fatalf("WriteBinary of %d bytes: %d, %v", len(b), n, err)
	}
}

// sameBytes compares without printing megabytes.
func sameBytes(t testing.TB, what string, got, want []byte) {
	t.Helper()
	if bytes.Equal(got, want) {
		return
	}
	at := 0
	for at < min(len(got), len(want)) && got[at] == want[at] {
		at++
	}
	t.Fatalf("%s: got %d bytes, want %d; they differ at %d", what, len(got), len(want), at)
}

// blocksComeBack returns a check that no more blocks are out than are now [P4].
// Fewer may be: an earlier test's goroutine gave its own back.
func blocksComeBack(t testing.TB) func() {
	before := int(outstanding.Load())
	return func() {
		t.Helper()
		settles(t, "blocks that did not come back", 0, func() int { return max(int(outstanding.Load())-before, 0) })
	}
}

// collect reads n bytes from r in the background.
func collect(r io.Reader, n int) <-chan []byte {
	got := make(chan []byte, 1)
	go func() {
		p := make([]byte, n)
		k, _ := io.ReadFull(r, p)
		got <- p[:k]
	}()
	return got
}

// stir makes other conns use the blocks of every pool, so that one which came back
// too early is written over.
func stir() {
	var blocks []*block
	for size := minBlockSize; size <= len(junk); size *= 2 {
		for range 3 {
			b := getBlock(size)
			copy(b.buf, junk)
			blocks = append(blocks, b)
		}
	}
	for _, b := range blocks {
		b.drop()
	}
}

// P4: every block that the output holds comes back: its own, those of slices that
// were Peeked, and that which ReadFrom copies through; when all went well, when a
// write failed, and when the connection was closed first.
func TestP4_BlocksOfTheOutputComeBack(t *testing.T) {
	allBack := blocksComeBack(t)
	data := pattern(2*maxPooledSize + 3)
	onSinks(t, func(t *testing.T, open func(...step) (*Conn, *scriptConn)) {
		for _, end := range []string{"Flush", "a Flush that fails", "Close and Flush"} {
			c, sink := open()
			sink.reads = []step{{data: data[:2*borrowFrom]}}
			put(t, c, data[:10])
			if n, err := c.ReadFrom(bytes.NewReader(data[:100_000])); n != 100_000 || err != nil {
				t.Fatalf("ReadFrom: %d, %v", n, err)
			}
			for _, size := range []int{1, minBlockSize - 1, minBlockSize, 50_000, maxPooledSize + 1, len(data)} {
				put(t, c, data[:size])
				add(t, c, data[:size])
			}
			p := mustPeek(t, c, 2*borrowFrom, data)
			add(t, c, p)
			add(t, c, p[borrowFrom:])
			mustSkip(t, c, len(p))
			mustRelease(t, c)
			switch end {
			case "a Flush that fails":
				sink.writes = []step{{n: 5000, err: io.ErrClosedPipe}}
			case "Close and Flush":
				c.Close()
			}
			if err := c.Flush(); (err == nil) != (end == "Flush") {
				t.Errorf("%s: %v", end, err)
			}
		}
	})
	allBack()
}

// W4, C6: what Close left unflushed is dropped: Flush says net.ErrClosed once, and has
// then nothing pending.
func TestW4_CloseDropsWhatWasNotFlushed(t *testing.T) {
	onSinks(t, func(t *testing.T, open func(...step) (*Conn, *scriptConn)) {
		c, sink := open()
		put(t, c, []byte("never sent"))
		add(t, c, pattern(borrowFrom))
		c.Close()
		if err := c.Flush(); !errors.Is(err, net.ErrClosed) {
			t.Errorf("Flush after Close: %v", err)
		}
		if err := c.Flush(); err != nil {
			t.Errorf("empty Flush after Close: %v", err)
		}
		if _, err := c.ReadFrom(strings.NewReader("x")); !errors.Is(err, net.ErrClosed) {
			t.Errorf("ReadFrom after Close: %v", err)
		}
		if sink.nwrites != 0 {
			t.Errorf("%d writes beneath", sink.nwrites)
		}
	})
}

// A6: the memory of a Malloc is the caller's until its own Flush, even when
// another goroutine closes the connection in between: no other conn gets it.
func TestA6_CloseElsewhereDoesNotRecycleMallocs(t *testing.T) {
	for _, after := range []struct {
		name string
		do   func(c *Conn)
	}{
		{"Malloc", func(c *Conn) { _, _ = c.Malloc(10) }},
		{"WriteBinary", func(c *Conn) { _, _ = c.WriteBinary([]byte("x")) }},
	} {
		t.Run(after.name, func(t *testing.T) {
			c := NewConn(new(scriptConn))
			small, _ := c.Malloc(100)
			large, _ := c.Malloc(20_000)
			copy(small, pattern(100))
			copy(large, pattern(20_000))
			c.Close()
			after.do(c)
			stir()
			sameBytes(t, "a small Malloc", small, pattern(100))
			sameBytes(t, "a large Malloc", large, pattern(20_000))
			_ = c.Flush()
		})
	}
}

// A11: WriteBinary borrows from borrowFrom on, and copies what is shorter.
func TestA11_BorrowsFrom4KiB(t *testing.T) {
	for _, n := range []int{borrowFrom - 1, borrowFrom} {
		sink := new(scriptConn)
		c := NewConn(sink)
		p, want := make([]byte, n), make([]byte, n)
		add(t, c, p)
		for i := range p { // nobody may but a test
			p[i] = 1
		}
		mustFlush(t, c)
		if n >= borrowFrom {
			want = p
		}
		sameBytes(t, fmt.Sprintf("WriteBinary of %d bytes", n), sink.wire, want)
	}
}

// W5: the counts that are refused are those above MaxMalloc; they are ErrTooLarge
// itself and take no memory.
func TestW5_MaxMalloc(t *testing.T) {
	c := NewConn(new(scriptConn))
	huge := []int{MaxMalloc + 1, math.MaxInt32, math.MaxInt - 1, math.MaxInt}
	if strconv.IntSize == 64 {
		n := int64(1) << 40
		huge = append(huge, int(n))
	}
	var before, after runtime.MemStats
	runtime.ReadMemStats(&before)
	for _, n := range huge {
		if b, err := c.Malloc(n); b != nil || err != ErrTooLarge {
			t.Errorf("Malloc(%d): %d bytes, %v", n, len(b), err)
		}
	}
	runtime.ReadMemStats(&after)
	if grown := after.TotalAlloc - before.TotalAlloc; grown > 1<<20 {
		t.Errorf("counts that are refused took %d bytes of memory", grown)
	}
}

// sticks checks that every later write returns err and writes nothing.
func sticks(t *testing.T, c *Conn, sink *scriptConn, err error) {
	t.Helper()
	calls, wire := sink.nwrites, len(sink.wire)
	for range 2 {
		for name, f := range map[string]func() error{
			"Flush":                  c.Flush,
			"Malloc":                 func() error { _, err := c.Malloc(3); return err },
			"WriteBinary":            func() error { _, err := c.WriteBinary([]byte("abc")); return err },
			"WriteBinary (borrowed)": func() error { _, err := c.WriteBinary(make([]byte, borrowFrom)); return err },
			"Write":                  func() error { n, err := c.Write([]byte("abc")); return countOf(n, err) },
			"ReadFrom": func() error {
				n, err := c.ReadFrom(strings.NewReader("abc"))
				return countOf(int(n), err)
			},
		} {
			if got := f(); got != err {
				t.Errorf("%s after the failure: %v, want %v", name, got, err)
			}
		}
	}
	if sink.nwrites != calls || len(sink.wire) != wire {
		t.Errorf("%d more writes beneath after the failure, of %d bytes", sink.nwrites-calls, len(sink.wire)-wire)
	}
}

// countOf makes a count that should be zero part of the error.
func countOf(n int, err error) error {
	if n != 0 {
		return fmt.Errorf("count %d with %w", n, err)
	}
	return err
}

// W7 to W10, W12: what comes of every kind of failing write, piece by piece and for
// all pieces at once: the error is the very value that the conn beneath returned, or
// says what that did; the count is exact; the wire has what was taken; and the error
// stays, for all methods. The kit knows no conn that takes all pieces at once.
func TestW8_WriteErrorsStay(t *testing.T) {
	allBack := blocksComeBack(t)
	boom := errors.New("boom")
	want := pattern(10 + borrowFrom)
	is := func(want error) func(error) bool { return func(err error) bool { return err == want } }
	impossible := func(n int) func(error) bool {
		return func(err error) bool {
			return err != nil && strings.Contains(err.Error(), "Conn.Write") && strings.Contains(err.Error(), strconv.Itoa(n))
		}
	}
	type test struct {
		name  string
		fails step
		ok    func(error) bool
	}
	var tests []test
	for _, n := range []int{0, 1, 9} { // of 10 bytes, the first piece
		tests = append(tests,
			test{fmt.Sprint("an error after ", n), step{n: n, err: boom}, is(boom)},
			test{fmt.Sprint("a short write of ", n), step{n: n}, is(io.ErrShortWrite)})
	}
	for _, n := range []int{-1, math.MinInt, 1 << 20, math.MaxInt} {
		tests = append(tests,
			test{fmt.Sprint("the count ", n), step{raw: true, n: n}, impossible(n)},
			test{fmt.Sprint("an error with the count ", n), step{raw: true, n: n, err: boom}, impossible(n)})
	}
	onSinks(t, func(t *testing.T, open func(...step) (*Conn, *scriptConn)) {
		for _, test := range tests {
			taken := test.fails.n
			if test.fails.raw {
				taken = 0
			}
			for _, way := range []struct {
				name    string
				pending int // bytes that the failing write comes after
				do      func(c *Conn) (int, error)
			}{
				{"Flush", 0, func(c *Conn) (int, error) {
					put(t, c, want[:10])
					add(t, c, want[10:])
					return taken, c.Flush()
				}},
				{"Write", 0, func(c *Conn) (int, error) { return c.Write(want[:10]) }},
				{"Write with pending output", 7, func(c *Conn) (int, error) {
					put(t, c, want[:7])
					return c.Write(want[7:17])
				}},
				{"Write whose pending output fails", 0, func(c *Conn) (int, error) {
					put(t, c, want[:10])
					n, err := c.Write(want)
					return taken + n, err
				}},
				{"ReadFrom with pending output", 7, func(c *Conn) (int, error) {
					put(t, c, want[:7])
					n, err := c.ReadFrom(bytes.NewReader(want[7:17]))
					return int(n), err
				}},
				{"ReadFrom whose pending output fails", 0, func(c *Conn) (int, error) {
					put(t, c, want[:10])
					r := bytes.NewReader(want)
					n, err := c.ReadFrom(r)
					if r.Len() != len(want) {
						t.Error("the source was read before the pending output was sent")
					}
					return taken + int(n), err
				}},
			} {
				script := []step{test.fails}
				if way.pending > 0 {
					script = []step{{n: -1}, test.fails}
				}
				c, sink := open(script...)
				n, err := way.do(c)
				if n != taken || !test.ok(err) {
					t.Errorf("%s, %s: %d, %v", test.name, way.name, n, err)
				}
				sameBytes(t, "wire", sink.wire, want[:way.pending+taken])
				sticks(t, c, sink, err)
			}
		}
		// A timeout of a Flush, in our shape.
		c, sink := open(step{n: 4, err: foreignTimeout{boom}})
		put(t, c, want[:10])
		err := c.Flush()
		if e, ok := err.(*net.OpError); !ok || !e.Timeout() || !errors.Is(err, boom) {
			t.Errorf("Flush: %v", err)
		}
		sticks(t, c, sink, err)
	})
	allBack()
}

// W11, W15: all pieces leave in one call of a conn beneath that takes many; else small
// Mallocs fill whole blocks.
func TestW15_WritesBeneath(t *testing.T) {
	data := pattern(100_000)
	for _, s := range sinks {
		nc, sink := s.make()
		c := NewConn(nc)
		for i := 0; i < len(data); i += 10 {
			put(t, c, data[i:i+10])
		}
		add(t, c, data)
		mustFlush(t, c)
		most := len(data)/(minBlockSize/10*10) + 2 // the last block, and what is borrowed
		if s.name == "gather" {
			most = 1
		}
		if sink.nwrites > most {
			t.Errorf("%s: 10000 Mallocs of 10 bytes and a body took %d writes, want %d", s.name, sink.nwrites, most)
		}
		sameBytes(t, s.name, sink.wire, append(data[:len(data):len(data)], data...))
	}
}
