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
	"time"

	"github.com/hertznet/hertznet/tlsconn"
)

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

// W1: output of any size arrives as it was written, at every distance from the
// edge of a block and for every way to add it.
func TestW1_SizesAroundABlocksEdge(t *testing.T) {
	allBack := blocksComeBack(t)
	var sizes []int
	for _, edge := range []int{minBlockSize, 2 * minBlockSize, 16 << 10, lookahead, maxReadSize, maxPooledSize} {
		sizes = append(sizes, edge-1, edge, edge+1)
	}
	sizes = append(sizes, 1, 2, 2*maxPooledSize+1)
	source := pattern(2*maxPooledSize + 1 + 2*minBlockSize)
	onSinks(t, func(t *testing.T, open func(...step) (*Conn, *scriptConn)) {
		for _, before := range []int{0, 1, minBlockSize - 1, minBlockSize, minBlockSize + 1} {
			for _, size := range sizes {
				for name, write := range map[string]func(testing.TB, *Conn, []byte){"Malloc": put, "WriteBinary": add} {
					c, sink := open()
					want := source[:before+size+1]
					if before > 0 {
						put(t, c, want[:before])
					}
					write(t, c, want[before:before+size])
					put(t, c, want[before+size:])
					mustFlush(t, c)
					sameBytes(t, fmt.Sprintf("%s(%d) after %d", name, size, before), sink.wire, want)
				}
			}
		}
	})
	allBack()
}

// W2: nothing reaches the wire before Flush, however much is pending; over TLS no
// record does.
func TestW2_NothingIsSentBeforeFlush(t *testing.T) {
	eachTransport(t, func(t *testing.T, a, b *Conn) {
		want := pattern(300 << 10)
		put(t, a, want[:10])
		add(t, a, want[10:20])
		add(t, a, want[20:200<<10])
		put(t, a, want[200<<10:])
		// What goes past the buffer arrives first, since nothing was sent.
		got := collect(b, 1+len(want))
		if _, err := a.NetConn().Write([]byte{0xAA}); err != nil {
			t.Fatal(err)
		}
		mustFlush(t, a)
		sameBytes(t, "wire", <-got, append([]byte{0xAA}, want...))
	})
}

// W3: Malloc, WriteBinary, Write and ReadFrom append to one stream in the order
// of the calls.
func TestW3_OrderAcrossAllWriters(t *testing.T) {
	source := pattern(64 << 10)
	ways := []struct {
		name  string
		write func(t *testing.T, c *Conn, b []byte)
	}{
		{"Malloc", func(t *testing.T, c *Conn, b []byte) { put(t, c, b) }},
		{"WriteBinary", func(t *testing.T, c *Conn, b []byte) { add(t, c, b) }},
		{"Write", func(t *testing.T, c *Conn, b []byte) {
			if n, err := c.Write(b); n != len(b) || err != nil {
				t.Fatalf("Write: %d, %v", n, err)
			}
		}},
		{"ReadFrom", func(t *testing.T, c *Conn, b []byte) {
			if n, err := c.ReadFrom(bytes.NewReader(b)); n != int64(len(b)) || err != nil {
				t.Fatalf("ReadFrom: %d, %v", n, err)
			}
		}},
	}
	run := func(t *testing.T, a, b *Conn) {
		var want []byte
		got := make(chan []byte, 1)
		go func() {
			all, _ := io.ReadAll(b)
			got <- all
		}()
		// Every way after every other, with a small and a borrowed piece of each.
		at := 0
		for _, first := range ways {
			for _, second := range ways {
				for _, size := range []int{7, borrowFrom + 3} {
					p := source[at : at+size]
					first.write(t, a, p)
					want = append(want, p...)
					p = source[at+1 : at+1+size/2]
					second.write(t, a, p)
					want = append(want, p...)
					at += 13
				}
			}
		}
		mustFlush(t, a)
		a.Close()
		sameBytes(t, "stream", <-got, want)
	}
	eachPair(t, run)
	t.Run("tls", func(t *testing.T) {
		a, b := secureEnds(t, nil)
		run(t, &a.Conn, &b.Conn)
	})
}

// W4: an empty Flush and Write(nil) make no system call; an empty Flush after
// Close is nil.
func TestW4_NothingToSendMakesNoCall(t *testing.T) {
	onSinks(t, func(t *testing.T, open func(...step) (*Conn, *scriptConn)) {
		c, sink := open()
		none := map[string]func() error{
			"Flush":            c.Flush,
			"Write(nil)":       func() error { _, err := c.Write(nil); return err },
			"Write(empty)":     func() error { _, err := c.Write([]byte{}); return err },
			"Malloc(0)":        func() error { _, err := c.Malloc(0); return err },
			"WriteBinary(nil)": func() error { _, err := c.WriteBinary(nil); return err },
			"ReadFrom(empty)":  func() error { _, err := c.ReadFrom(bytes.NewReader(nil)); return err },
		}
		for name, f := range none {
			if err := f(); err != nil {
				t.Errorf("%s: %v", name, err)
			}
			mustFlush(t, c)
		}
		// Neither does a Flush right after another one.
		put(t, c, []byte("x"))
		mustFlush(t, c)
		mustFlush(t, c)
		if sink.nwrites != 1 {
			t.Errorf("%d writes beneath, want 1", sink.nwrites)
		}
		if err := c.Close(); err != nil {
			t.Fatal(err)
		}
		for range 2 {
			if err := c.Flush(); err != nil {
				t.Errorf("empty Flush after Close: %v", err)
			}
		}
		if sink.nwrites != 1 {
			t.Errorf("%d writes beneath after Close, want 1", sink.nwrites)
		}
	})
}

// W4, W8: what Close left unflushed is dropped: Flush says net.ErrClosed once,
// writes nothing, and has then nothing pending.
func TestW4_CloseDropsWhatWasNotFlushed(t *testing.T) {
	allBack := blocksComeBack(t)
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
		for name, f := range map[string]func() error{
			"Malloc":      func() error { _, err := c.Malloc(1); return err },
			"WriteBinary": func() error { _, err := c.WriteBinary([]byte("x")); return err },
			"Write":       func() error { _, err := c.Write([]byte("x")); return err },
			"ReadFrom":    func() error { _, err := c.ReadFrom(strings.NewReader("x")); return err },
		} {
			if err := f(); !errors.Is(err, net.ErrClosed) {
				t.Errorf("%s after Close: %v", name, err)
			}
		}
		if sink.nwrites != 0 {
			t.Errorf("%d writes beneath", sink.nwrites)
		}
	})
	allBack()
}

// W5: Malloc(0) is empty; a negative count and one too large to provide are
// errors, never a panic, and leave what is pending as it is.
func TestW5_MallocOfImpossibleCounts(t *testing.T) {
	sink := new(scriptConn)
	c := NewConn(sink)
	put(t, c, []byte("before "))
	for range 2 {
		if b, err := c.Malloc(0); len(b) != 0 || err != nil {
			t.Errorf("Malloc(0): %d bytes, %v", len(b), err)
		}
	}
	for _, n := range []int{-1, math.MinInt, math.MinInt + 1} {
		if b, err := c.Malloc(n); b != nil || !errors.Is(err, ErrNegativeCount) {
			t.Errorf("Malloc(%d): %d bytes, %v", n, len(b), err)
		}
	}
	huge := []int{MaxMalloc + 1, math.MaxInt32, math.MaxInt - 1, math.MaxInt}
	if strconv.IntSize == 64 {
		n := int64(1) << 40
		huge = append(huge, int(n))
	}
	var before, after runtime.MemStats
	runtime.ReadMemStats(&before)
	for _, n := range huge {
		if b, err := c.Malloc(n); b != nil || !errors.Is(err, ErrTooLarge) {
			t.Errorf("Malloc(%d): %d bytes, %v", n, len(b), err)
		}
	}
	runtime.ReadMemStats(&after)
	if grown := after.TotalAlloc - before.TotalAlloc; grown > 1<<20 {
		t.Errorf("counts that are refused took %d bytes of memory", grown)
	}
	put(t, c, []byte("after"))
	mustFlush(t, c)
	sameBytes(t, "wire", sink.wire, []byte("before after"))
}

// W6: an empty WriteBinary adds nothing and disturbs nothing.
func TestW6_EmptyWriteBinary(t *testing.T) {
	onSinks(t, func(t *testing.T, open func(...step) (*Conn, *scriptConn)) {
		c, sink := open()
		for _, b := range [][]byte{nil, {}} {
			add(t, c, b)
			mustFlush(t, c)
		}
		if sink.nwrites != 0 {
			t.Errorf("%d writes beneath", sink.nwrites)
		}
		want := pattern(3 * borrowFrom)
		p, _ := c.Malloc(5)
		add(t, c, nil)
		q, _ := c.Malloc(5)
		add(t, c, want[10:borrowFrom+10])
		add(t, c, []byte{})
		put(t, c, want[borrowFrom+10:])
		copy(p, want)
		copy(q, want[5:])
		mustFlush(t, c)
		sameBytes(t, "wire", sink.wire, want)
	})
}

// W7: a conn beneath that takes fewer bytes than it got, without an error, is
// io.ErrShortWrite: the bytes are not lost in silence.
func TestW7_ShortWriteIsAnError(t *testing.T) {
	want := pattern(2 * borrowFrom)
	onSinks(t, func(t *testing.T, open func(...step) (*Conn, *scriptConn)) {
		for _, taken := range []int{0, 1, 9} { // of the header, which is 10 bytes
			c, sink := open(step{n: taken})
			put(t, c, want[:10])
			add(t, c, want[10:])
			if err := c.Flush(); err != io.ErrShortWrite {
				t.Errorf("%d bytes taken: Flush: %v", taken, err)
			}
			sameBytes(t, "wire", sink.wire, want[:taken])
			sticks(t, c, sink, io.ErrShortWrite)
		}
		for _, taken := range []int{0, 1, 99} {
			c, _ := open(step{n: taken})
			if n, err := c.Write(want[:100]); n != taken || err != io.ErrShortWrite {
				t.Errorf("%d of 100 bytes taken: Write: %d, %v", taken, n, err)
			}
			c, _ = open(step{n: taken})
			if n, err := c.ReadFrom(bytes.NewReader(want[:100])); n != int64(taken) || err != io.ErrShortWrite {
				t.Errorf("%d of 100 bytes taken: ReadFrom: %d, %v", taken, n, err)
			}
		}
	})
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

// W8: a failed Flush is sticky, and no byte is sent twice.
func TestW8_FailedFlushSticks(t *testing.T) {
	allBack := blocksComeBack(t)
	boom := errors.New("boom")
	want := pattern(10 + borrowFrom)
	onSinks(t, func(t *testing.T, open func(...step) (*Conn, *scriptConn)) {
		for _, taken := range []int{0, 1, 10} {
			c, sink := open(step{n: taken, err: boom})
			put(t, c, want[:10])
			add(t, c, want[10:])
			if err := c.Flush(); err != boom {
				t.Errorf("Flush: %v", err)
			}
			sticks(t, c, sink, boom)
			sameBytes(t, "wire", sink.wire, want[:taken])
		}
		t.Run("Write", func(t *testing.T) {
			c, sink := open(step{n: 1, err: boom})
			if n, err := c.Write(want[:10]); n != 1 || err != boom {
				t.Errorf("Write: %d, %v", n, err)
			}
			sticks(t, c, sink, boom)
		})
		t.Run("ReadFrom", func(t *testing.T) {
			c, sink := open(step{n: 1, err: boom})
			if n, err := c.ReadFrom(bytes.NewReader(want)); n != 1 || err != boom {
				t.Errorf("ReadFrom: %d, %v", n, err)
			}
			sticks(t, c, sink, boom)
		})
		t.Run("a timeout", func(t *testing.T) {
			c, sink := open(step{n: 4, err: foreignTimeout{boom}})
			put(t, c, want[:10])
			err := c.Flush()
			if e, ok := err.(*net.OpError); !ok || !e.Timeout() || !errors.Is(err, boom) {
				t.Errorf("Flush: %v", err)
			}
			sticks(t, c, sink, err)
			sameBytes(t, "wire", sink.wire, want[:4])
		})
	})
	allBack()
}

// W8: on a real socket, too: a Flush that ran out of time sent a prefix, and
// nothing follows when the peer reads on.
func TestW8_TimedOutFlushSendsAPrefixOnce(t *testing.T) {
	eachPair(t, func(t *testing.T, a, b *Conn) {
		want := pattern(32 << 20)
		if err := a.SetWriteTimeout(20 * time.Millisecond); err != nil {
			t.Fatal(err)
		}
		put(t, a, want[:100])
		add(t, a, want[100:])
		err := a.Flush()
		if e, ok := err.(*net.OpError); !ok || !e.Timeout() {
			t.Fatalf("Flush to a peer that does not read: %v", err)
		}
		_ = a.SetWriteTimeout(0)
		if again := a.Flush(); again != err {
			t.Errorf("second Flush: %v, want %v", again, err)
		}
		if _, again := a.WriteBinary(want); again != err {
			t.Errorf("WriteBinary: %v, want %v", again, err)
		}
		if n, again := a.Write(want); n != 0 || again != err {
			t.Errorf("Write: %d, %v, want %v", n, again, err)
		}
		if err := a.Close(); err != nil {
			t.Fatal(err)
		}
		got, err := io.ReadAll(b)
		if err != nil || len(got) >= len(want) {
			t.Fatalf("the peer read %d bytes, %v", len(got), err)
		}
		sameBytes(t, "wire", got, want[:len(got)])
	})
}

// W9: whichever write beneath fails, the wire is a prefix of what was written,
// and what the failing write took is the last of it.
func TestW9_FailAtEveryWrite(t *testing.T) {
	boom := errors.New("boom")
	source := pattern(64 << 10)
	onSinks(t, func(t *testing.T, open func(...step) (*Conn, *scriptConn)) {
		for _, taken := range []int{0, 1, 100} {
			for k := 0; ; k++ {
				script := make([]step, k+1)
				for i := range k {
					script[i].n = -1
				}
				script[k] = step{n: taken, err: boom}
				c, sink := open(script...)
				var model []byte
				next := func(n int) []byte {
					p := source[len(model) : len(model)+n]
					model = append(model, p...)
					return p
				}
				var err error
				for i := 0; i < 6 && err == nil; i++ {
					put(t, c, next(120))
					add(t, c, next(1000))
					add(t, c, next(borrowFrom))
					put(t, c, next(300))
					if err = c.Flush(); err != nil {
						break
					}
					if _, err = c.Write(next(200)); err != nil {
						break
					}
					_, err = c.ReadFrom(bytes.NewReader(next(400)))
				}
				if err == nil {
					if k < 18 {
						t.Errorf("only %d writes", k)
					}
					sameBytes(t, "wire without a failure", sink.wire, model)
					break
				}
				if err != boom {
					t.Fatalf("write %d failed: %v", k, err)
				}
				sameBytes(t, fmt.Sprintf("wire with write %d failed", k), sink.wire, model[:len(sink.wire)])
				if sink.nwrites != k+1 {
					t.Fatalf("write %d failed, and %d were made", k, sink.nwrites)
				}
				sticks(t, c, sink, boom)
			}
		}
	})
}

// W10: a count from the conn beneath that cannot be is an error that names the
// conn; it is never believed.
func TestW10_ImpossibleCountsAreErrors(t *testing.T) {
	boom := errors.New("boom")
	want := pattern(10 + borrowFrom)
	onSinks(t, func(t *testing.T, open func(...step) (*Conn, *scriptConn)) {
		for _, n := range []int{-1, math.MinInt, 1 << 20, math.MaxInt} {
			for _, cause := range []error{nil, boom} {
				bad := step{raw: true, n: n, err: cause}
				c, sink := open(bad)
				put(t, c, want[:10])
				add(t, c, want[10:])
				err := c.Flush()
				if err == nil || !strings.Contains(err.Error(), "Conn.Write") || !strings.Contains(err.Error(), strconv.Itoa(n)) {
					t.Errorf("count %d: Flush: %v", n, err)
				}
				sticks(t, c, sink, err)

				c, sink = open(bad)
				m, err := c.Write(want[:10])
				if m != 0 || err == nil || !strings.Contains(err.Error(), "Conn.Write") {
					t.Errorf("count %d: Write: %d, %v", n, m, err)
				}
				sticks(t, c, sink, err)

				c, _ = open(bad)
				k, err := c.ReadFrom(bytes.NewReader(want[:10]))
				if k != 0 || err == nil || !strings.Contains(err.Error(), "Conn.Write") {
					t.Errorf("count %d: ReadFrom: %d, %v", n, k, err)
				}
			}
		}
	})
}

// W11: many small Mallocs share few writes.
func TestW11_ManySmallMallocsFewWrites(t *testing.T) {
	want := pattern(100_000)
	for _, s := range sinks {
		t.Run(s.name, func(t *testing.T) {
			nc, sink := s.make()
			c := NewConn(nc)
			for i := 0; i < len(want); i += 10 {
				put(t, c, want[i:i+10])
			}
			mustFlush(t, c)
			limit := len(want)/(minBlockSize/10*10) + 1
			if s.name == "gather" {
				limit = 1
			}
			if sink.nwrites > limit {
				t.Errorf("10000 Mallocs of 10 bytes took %d writes, want %d", sink.nwrites, limit)
			}
			sameBytes(t, "wire", sink.wire, want)
		})
	}
}

// W12: Write sends what is pending before p, and counts the bytes of p alone.
func TestW12_WriteFlushesFirst(t *testing.T) {
	boom := errors.New("boom")
	want := pattern(20)
	onSinks(t, func(t *testing.T, open func(...step) (*Conn, *scriptConn)) {
		for _, test := range []struct {
			script []step
			n      int
			err    error
			wire   int
		}{
			{nil, 10, nil, 20},
			{[]step{{n: -1}, {n: 3, err: boom}}, 3, boom, 13},
			{[]step{{n: -1}, {n: 10, err: boom}}, 10, boom, 20},
			{[]step{{n: 7, err: boom}}, 0, boom, 7},
			{[]step{{n: -1, err: boom}}, 0, boom, 10},
			{[]step{{n: 9}}, 0, io.ErrShortWrite, 9},
		} {
			c, sink := open(test.script...)
			put(t, c, want[:10])
			n, err := c.Write(want[10:])
			if n != test.n || err != test.err {
				t.Errorf("%+v: Write: %d, %v", test, n, err)
			}
			sameBytes(t, "wire", sink.wire, want[:test.wire])
		}
	})
}

// W12: n is exact when Write runs out of time, and on a plain conn a Write may
// take up there: the peer gets every byte once.
func TestW12_TimedOutWriteIsResumable(t *testing.T) {
	eachPair(t, func(t *testing.T, a, b *Conn) {
		want := pattern(16 << 20)
		sent, timeouts := 0, 0
		var got <-chan []byte
		for sent < len(want) {
			if err := a.SetWriteTimeout(10 * time.Millisecond); err != nil {
				t.Fatal(err)
			}
			n, err := a.Write(want[sent:])
			sent += n
			if err == nil {
				break
			}
			if e, ok := err.(*net.OpError); !ok || !e.Timeout() || n >= len(want) {
				t.Fatalf("Write: %d, %v", n, err)
			}
			if timeouts++; got == nil {
				got = collect(b, len(want))
			}
		}
		if timeouts == 0 {
			t.Fatal("the peer did not read, and Write did not run out of time")
		}
		if sent != len(want) {
			t.Fatalf("the counts add up to %d, want %d", sent, len(want))
		}
		sameBytes(t, "wire", <-got, want)
	})
}

// W14: 64 MiB reach a peer that reads in small pieces.
func TestW14_SixtyFourMiBToASlowReader(t *testing.T) {
	run := func(t *testing.T, a, b *Conn) {
		chunk := pattern(1 << 20)
		const total = 64 << 20
		done := make(chan error, 1)
		go func() {
			p := make([]byte, 20_001)
			for at := 0; at < total; {
				n, err := b.Read(p)
				if err != nil {
					done <- err
					return
				}
				for q := p[:n]; len(q) > 0; {
					k := min(len(q), len(chunk)-at%len(chunk))
					if !bytes.Equal(q[:k], chunk[at%len(chunk):at%len(chunk)+k]) {
						done <- fmt.Errorf("wrong bytes near %d", at)
						return
					}
					q, at = q[k:], at+k
				}
				runtime.Gosched()
			}
			done <- nil
		}()
		put(t, a, chunk[:len(chunk)/2])
		add(t, a, chunk[len(chunk)/2:])
		for at := len(chunk); at < total; at += len(chunk) {
			add(t, a, chunk)
		}
		mustFlush(t, a)
		if err := <-done; err != nil {
			t.Fatal(err)
		}
	}
	eachPair(t, run)
	t.Run("tls", func(t *testing.T) {
		a, b := secureEnds(t, nil)
		run(t, &a.Conn, &b.Conn)
	})
}

// W15: the header and the body of an answer leave in one call of the conn beneath.
func TestW15_HeaderAndBodyLeaveTogether(t *testing.T) {
	header, body := pattern(200), pattern(100<<10)
	nc := new(gatherConn)
	c := NewConn(nc)
	put(t, c, header)
	add(t, c, body)
	mustFlush(t, c)
	if nc.calls != 1 || nc.nwrites != 1 {
		t.Errorf("%d calls of WriteBuffers, %d writes, want one", nc.calls, nc.nwrites)
	}
	sameBytes(t, "wire", nc.wire, append(header, body...))
}

// recordCounter counts the TLS records and the writes that pass.
type recordCounter struct {
	net.Conn
	writes, records int
}

func (c *recordCounter) Write(p []byte) (int, error) {
	c.writes++
	for q := p; len(q) >= 5; {
		c.records++
		q = q[min(len(q), 5+int(q[3])<<8+int(q[4])):]
	}
	return c.Conn.Write(p)
}

// W15: over TLS they share one record where they fit, and one write in any case.
func TestW15_HeaderAndBodyShareARecord(t *testing.T) {
	var counter *recordCounter
	a, b := secureEnds(t, func(nc net.Conn) net.Conn {
		counter = &recordCounter{Conn: nc}
		return counter
	})
	for _, test := range []struct{ body, records int }{
		{100, 1},
		{borrowFrom, 1},
		{16<<10 - 200, 1},
		{16<<10 - 199, 2},
		{40 << 10, 3},
	} {
		header, body := pattern(200), pattern(test.body)
		counter.writes, counter.records = 0, 0
		got := collect(b, len(header)+len(body))
		put(t, &a.Conn, header)
		add(t, &a.Conn, body)
		mustFlush(t, &a.Conn)
		if counter.writes != 1 || counter.records != test.records {
			t.Errorf("a body of %d bytes: %d writes of %d records, want 1 of %d", test.body, counter.writes, counter.records, test.records)
		}
		sameBytes(t, "plaintext", <-got, append(header, body...))
	}
}
