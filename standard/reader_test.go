package standard

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"math"
	"net"
	"os"
	"runtime"
	"runtime/debug"
	"slices"
	"syscall"
	"testing"
	"testing/iotest"
	"time"
)

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
	r     io.Reader
	calls int
}

func (c *sourceConn) Read(p []byte) (int, error) {
	c.calls++
	return c.r.Read(p)
}

func readerOf(r io.Reader) (*Conn, *sourceConn) {
	s := &sourceConn{r: r}
	return NewConn(s), s
}

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
	for _, b := range c.in.aside {
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

// R1: what is buffered can be peeked at without I/O and without failing, also
// when the next read is known to fail; length and capacity are n.
func TestR1_PeekOfBufferedBytesNeverFails(t *testing.T) {
	data := pattern(5000)
	for _, end := range []error{io.EOF, syscall.ECONNRESET, os.ErrDeadlineExceeded} {
		t.Run(end.Error(), func(t *testing.T) {
			c, s := scripted(step{data: data, err: end})
			s.block = make(chan struct{}) // one read too many hangs
			defer close(s.block)
			mustPeek(t, c, 1, data)
			reads := s.nreads
			buffered := c.Len()
			for n := 0; n <= buffered; n++ {
				mustPeek(t, c, n, data)
			}
			if s.nreads != reads {
				t.Errorf("%d reads of the conn beneath", s.nreads-reads)
			}
		})
	}
	eachStream(t, data, func(t *testing.T, c *Conn) {
		mustPeek(t, c, len(data), data)
		if _, err := c.Peek(len(data) + 1); err != io.EOF {
			t.Fatalf("Peek beyond the end: %v", err)
		}
		for n := 1; n <= len(data); n += 37 {
			mustPeek(t, c, n, data)
		}
		c.Close()
		mustPeek(t, c, len(data), data)
	})
}

// R2: bytes that come one in a read are put together.
func TestR2_PeekOverOneByteReads(t *testing.T) {
	data := pattern(3*minBlockSize + 1)
	for _, n := range []int{1, 2, 100, minBlockSize - 1, minBlockSize, minBlockSize + 1, len(data)} {
		c, s := readerOf(iotest.OneByteReader(bytes.NewReader(data)))
		mustPeek(t, c, n, data)
		if s.calls != n {
			t.Errorf("Peek(%d) took %d reads", n, s.calls)
		}
	}
}

// R3: Peek does not advance.
func TestR3_PeekDoesNotAdvance(t *testing.T) {
	data := pattern(3 * minBlockSize)
	eachStream(t, data, func(t *testing.T, c *Conn) {
		for _, n := range []int{10, 1, minBlockSize + 1, 2, len(data), 5} {
			mustPeek(t, c, n, data)
			if c.Len() < n {
				t.Fatalf("Len %d after Peek(%d)", c.Len(), n)
			}
		}
		got, err := io.ReadAll(readOnly{c})
		if err != nil || !bytes.Equal(got, data) {
			t.Fatalf("after the Peeks %d bytes came (%v), equal %t", len(got), err, bytes.Equal(got, data))
		}
	})
}

// readOnly hides everything but Read.
type readOnly struct{ io.Reader }

// R4: Peek(0) is empty and nil in every state. R5: Peek(-1), R14: Skip(-1) and
// R18: ReadBinary(-1) are errors that change nothing, and ReadBinary(0) is empty.
// R24: Read of an empty p is (0, nil), always.
func TestCountsOfZeroAndLess(t *testing.T) {
	data := pattern(100)
	check := func(t *testing.T, c *Conn, s *scriptConn) {
		reads, had := s.nreads, c.Len()
		t.Run("R4 Peek(0)", func(t *testing.T) {
			if b, err := c.Peek(0); len(b) != 0 || err != nil {
				t.Errorf("%d bytes, %v", len(b), err)
			}
		})
		for _, n := range []int{-1, -7, math.MinInt, math.MinInt + 1} {
			t.Run("R5 Peek(-1)", func(t *testing.T) {
				if b, err := c.Peek(n); b != nil || err != ErrNegativeCount {
					t.Errorf("Peek(%d): %d bytes, %v", n, len(b), err)
				}
			})
			t.Run("R14 Skip(-1)", func(t *testing.T) {
				if err := c.Skip(n); err != ErrNegativeCount {
					t.Errorf("Skip(%d): %v", n, err)
				}
			})
			t.Run("R18 ReadBinary(-1)", func(t *testing.T) {
				if b, err := c.ReadBinary(n); b != nil || err != ErrNegativeCount {
					t.Errorf("ReadBinary(%d): %d bytes, %v", n, len(b), err)
				}
			})
		}
		t.Run("R13 Skip(0)", func(t *testing.T) {
			if err := c.Skip(0); err != nil {
				t.Error(err)
			}
		})
		t.Run("R18 ReadBinary(0)", func(t *testing.T) {
			if b, err := c.ReadBinary(0); len(b) != 0 || err != nil {
				t.Errorf("%d bytes, %v", len(b), err)
			}
		})
		t.Run("R24 Read(nil)", func(t *testing.T) {
			for _, p := range [][]byte{nil, {}} {
				if n, err := c.Read(p); n != 0 || err != nil {
					t.Errorf("%d, %v", n, err)
				}
			}
		})
		if s.nreads != reads {
			t.Errorf("%d reads of the conn beneath", s.nreads-reads)
		}
		if c.Len() != had {
			t.Errorf("Len went from %d to %d", had, c.Len())
		}
	}
	state := func(name string, end error, prepare func(c *Conn)) {
		t.Run(name, func(t *testing.T) {
			c, s := scripted(step{data: data}, step{err: end})
			prepare(c)
			check(t, c, s)
		})
	}
	state("fresh", io.EOF, func(c *Conn) {})
	state("buffered", io.EOF, func(c *Conn) { mustPeek(t, c, 10, data) })
	state("part read", io.EOF, func(c *Conn) { mustSkip(t, c, 10) })
	state("drained", io.EOF, func(c *Conn) { mustSkip(t, c, len(data)) })
	state("pending EOF", io.EOF, func(c *Conn) { _, _ = c.Peek(len(data) + 1) })
	state("at EOF", io.EOF, func(c *Conn) { _ = c.Skip(len(data) + 1) })
	state("failed", syscall.ECONNRESET, func(c *Conn) { _ = c.Skip(len(data) + 1) })
	state("timed out", os.ErrDeadlineExceeded, func(c *Conn) { _ = c.Skip(len(data) + 1) })
	state("released", io.EOF, func(c *Conn) { mustSkip(t, c, len(data)); mustRelease(t, c) })
	state("closed", io.EOF, func(c *Conn) { mustPeek(t, c, 1, data); c.Close() })
}

// R6: a Peek that meets the end returns the bytes there are and a bare io.EOF.
// R7: they can be peeked at again after it. R8: the end stays the end.
func TestR6_ShortPeekIsBareEOF(t *testing.T) {
	for _, size := range []int{0, 1, 100, minBlockSize - 1, minBlockSize, minBlockSize + 1, 70000} {
		data := pattern(size)
		t.Run(fmt.Sprint(size), func(t *testing.T) {
			eachStream(t, data, func(t *testing.T, c *Conn) {
				for _, n := range []int{size + 1, size + lookahead + 1, math.MaxInt} {
					b, err := c.Peek(n)
					if err != io.EOF {
						t.Fatalf("Peek(%d): %v, want io.EOF itself", n, err)
					}
					if !bytes.Equal(b, data) || cap(b) != len(b) {
						t.Fatalf("Peek(%d): %d bytes of cap %d, want all %d", n, len(b), cap(b), size)
					}
				}
				if c.Len() != size {
					t.Fatalf("R7 Len %d, want %d", c.Len(), size)
				}
				mustPeek(t, c, c.Len(), data)
				if b, err := c.ReadBinary(size + 1); b != nil || err != io.EOF {
					t.Fatalf("R19 ReadBinary beyond the end: %d bytes, %v", len(b), err)
				}
				if err := c.Skip(size + 1); err != io.EOF {
					t.Fatalf("Skip beyond the end: %v", err)
				}
				if c.Len() != 0 {
					t.Fatalf("Skip left %d bytes", c.Len())
				}
				for range 3 { // R8
					for _, op := range readerOps {
						if b, err := op.do(c, 1); len(b) != 0 || err != io.EOF {
							t.Fatalf("R8 %s at the end: %d bytes, %v", op.name, len(b), err)
						}
					}
					mustRelease(t, c)
				}
			})
		})
	}
}

// A timeout that is set must not hide the end of a stream which came before the
// read did: net.Pipe then refuses to set a deadline.
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

// R7: whatever error came, Peek(Len()) is there.
func TestR7_PeekLenAfterAnyError(t *testing.T) {
	data := pattern(6000)
	for _, end := range []error{io.EOF, io.ErrUnexpectedEOF, syscall.ECONNRESET, os.ErrDeadlineExceeded, errors.New("own")} {
		for _, with := range []bool{false, true} {
			for _, op := range readerOps[:3] {
				steps := inChunks(data, 1000)
				if with {
					steps[len(steps)-1].err = end
				}
				// The timeout comes twice: the one that came with bytes is not reported.
				steps = append(steps, step{err: end})
				c, _ := scripted(steps...)
				if op.name == "Skip" {
					mustPeek(t, c, 3500, data)
				}
				if _, err := op.do(c, 6001); !errors.Is(err, end) {
					t.Fatalf("%s met %v, want %v", op.name, err, end)
				}
				want := data
				if op.name == "Skip" {
					want = nil
				}
				if c.Len() != len(want) {
					t.Fatalf("%s met %v: Len %d, want %d", op.name, end, c.Len(), len(want))
				}
				mustPeek(t, c, c.Len(), want)
			}
		}
	}
}

// R9: from every offset in a block, peeks around the block's size are right, and
// a slice that is held from before stays as it was. R10: also when they make the
// block grow.
func TestR9_EveryOffsetTimesSizesAroundABlock(t *testing.T) {
	const block = minBlockSize
	data := pattern(5 * block)
	stride := 1
	if scaled(8) < 8 {
		stride = 61
	}
	offsets := []int{0, 1, block - 1, block, block + 1}
	for o := 2; o < block-1; o += stride {
		offsets = append(offsets, o)
	}
	for _, n := range []int{block - 1, block, block + 1, 2*block + 1} {
		for _, held := range []bool{false, true} {
			for _, offset := range offsets {
				// The first read fills the block, the next ones bring what they can.
				c, _ := scripted(step{data: data[:min(block, offset+1)]}, step{data: data[min(block, offset+1):]})
				var before []byte
				if held {
					before = mustPeek(t, c, min(offset+1, block), data)
				}
				mustSkip(t, c, offset)
				got := mustPeek(t, c, n, data[offset:])
				mustSkip(t, c, n-1)
				mustPeek(t, c, block, data[offset+n-1:])
				if !bytes.Equal(got, data[offset:offset+n]) || !bytes.Equal(before, data[:len(before)]) {
					t.Fatalf("R9 offset %d, n %d, held %t: a slice changed", offset, n, held)
				}
				mustRelease(t, c)
				mustPeek(t, c, block, data[offset+n-1:])
				mustSkip(t, c, block)
				mustRelease(t, c)
			}
		}
	}
}

// R10: a block grows while its beginning is read already and its end is reached.
func TestR10_GrowthFromTheMiddleOfABlock(t *testing.T) {
	data := pattern(40 * minBlockSize)
	eachStream(t, data, func(t *testing.T, c *Conn) {
		at := 0
		for _, n := range []int{100, minBlockSize, 3*minBlockSize + 7, minBlockSize - 1, 9 * minBlockSize, 1} {
			mustPeek(t, c, n, data[at:])
			skip := n/2 + 1
			if c.Len() < skip {
				t.Fatalf("Len %d", c.Len())
			}
			mustSkip(t, c, skip)
			at += skip
			mustPeek(t, c, n+1, data[at:])
			if n == 3*minBlockSize+7 {
				mustRelease(t, c)
			}
		}
		rest, err := c.ReadBinary(len(data) - at)
		if err != nil || !bytes.Equal(rest, data[at:]) {
			t.Fatalf("the rest: %v, equal %t", err, bytes.Equal(rest, data[at:]))
		}
	})
}

// R11: a count that comes from the wire costs memory only as bytes arrive.
// R20: so does ReadBinary's.
func TestR11_HugeCountsGrowWithWhatArrives(t *testing.T) {
	for _, size := range []int{0, 1, 100, minBlockSize, 100000, 1 << 20} {
		data := pattern(size)
		for _, n := range []int{math.MaxInt, math.MaxInt - 1, math.MaxInt / 2, math.MaxInt/512 + 1} {
			t.Run(fmt.Sprintf("%d of %d", size, n), func(t *testing.T) {
				for _, open := range streams {
					if open.name == "one byte reads" && size > 100000 {
						continue
					}
					var c *Conn
					for name, do := range map[string]func() ([]byte, error){
						"Peek":           func() ([]byte, error) { return c.Peek(n) },
						"R20 ReadBinary": func() ([]byte, error) { return c.ReadBinary(n) },
					} {
						c = NewConn(open.open(t, data))
						var before, after runtime.MemStats
						runtime.ReadMemStats(&before)
						b, err := do()
						runtime.ReadMemStats(&after)
						want := data
						if name != "Peek" {
							want = nil
						}
						if err != io.EOF || !bytes.Equal(b, want) || c.Len() != size {
							t.Fatalf("%s: %s: %d bytes, %v, Len %d", open.name, name, len(b), err, c.Len())
						}
						if got, most := heldBytes(c), 2*max(size, lookahead); got > most {
							t.Errorf("%s: %s holds %d bytes for %d, want at most %d", open.name, name, got, size, most)
						}
						// Growing by doubling allocates all sizes up to the last.
						if got, most := after.TotalAlloc-before.TotalAlloc, uint64(4*max(size, lookahead)+1<<18); got > most {
							t.Errorf("%s: %s allocated %d bytes for %d, want at most %d", open.name, name, got, size, most)
						}
					}
					// And when the end is known already.
					if b, err := c.ReadBinary(n); b != nil || err != io.EOF || c.Len() != size {
						t.Fatalf("%s: R20 ReadBinary at the end: %d bytes, %v, Len %d", open.name, len(b), err, c.Len())
					}
					if err := c.Skip(n); err != io.EOF || c.Len() != 0 {
						t.Fatalf("%s: Skip: %v, Len %d", open.name, err, c.Len())
					}
				}
			})
		}
	}
}

// R11: while the bytes trickle in, too: memory follows them at every moment, and
// growing moves each of them a bounded number of times.
func TestR11_MemoryFollowsTheBytes(t *testing.T) {
	data := pattern(scaled(16 << 20))
	c, s := readerOf(nil)
	arrived, moved := 0, 0
	var was *block
	s.r = readFunc(func(p []byte) (int, error) {
		if got, most := heldBytes(c), 4*max(arrived, lookahead); got > most {
			t.Fatalf("holds %d bytes when %d have come", got, arrived)
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
	if b, err := c.Peek(math.MaxInt); err != io.EOF || !bytes.Equal(b, data) {
		t.Fatalf("%d bytes, %v", len(b), err)
	}
	if moved > 2*len(data) {
		t.Errorf("moved %d bytes to read %d", moved, len(data))
	}
}

type readFunc func(p []byte) (int, error)

func (f readFunc) Read(p []byte) (int, error) { return f(p) }

// R12: Hertz's loop over a header (peek 1, then one more than there are, again
// and again) copies and holds a bounded amount and reads each byte once.
func TestR12_HeaderLoopOverOneMiB(t *testing.T) {
	size := scaled(1 << 20)
	data := pattern(size)
	for _, chunk := range []int{1, 1400, minBlockSize, 65536} {
		t.Run(fmt.Sprint(chunk), func(t *testing.T) {
			// The request before ended just so, that the header begins inside of a block.
			c, s := scripted(append([]step{{data: data[:1001]}}, inChunks(data[1001:], chunk)...)...)
			mustPeek(t, c, 1000, data)
			mustSkip(t, c, 1000)
			data := data[1000:]
			moved, peeks := 0, 0
			var first []byte
			for n := 1; ; n = c.Len() + 1 {
				was := c.in.cur
				unread := c.Len()
				b, err := c.Peek(n)
				if err == io.EOF && len(b) == len(data) {
					break
				}
				if err != nil || len(b) < n {
					t.Fatalf("Peek(%d): %d bytes, %v", n, len(b), err)
				}
				if c.in.cur != was {
					moved += unread
				}
				if b, err = c.Peek(c.Len()); err != nil { // the whole is parsed
					t.Fatal(err)
				}
				if peeks++; peeks == 1 {
					first = b
				}
			}
			if !bytes.Equal(first, data[:len(first)]) {
				t.Error("the first slice changed")
			}
			mustPeek(t, c, len(data), data)
			if moved > 2*size {
				t.Errorf("moved %d bytes", moved)
			}
			if got := heldBytes(c); got > 5*size {
				t.Errorf("holds %d bytes", got)
			}
			if got := len(c.in.aside); got > 10 {
				t.Errorf("keeps %d blocks aside", got)
			}
			// A read that meets the end of a block returns less than the chunk.
			if most := len(data)/chunk + 16; s.nreads > most {
				t.Errorf("%d reads for %d peeks, want at most %d", s.nreads, peeks, most)
			}
			mustSkip(t, c, len(data))
			mustRelease(t, c)
			if got := heldBytes(c); got != 0 {
				t.Errorf("holds %d bytes after Release", got)
			}
		})
	}
}

// R13: Skip passes over exactly n bytes, whether they are buffered or not.
func TestR13_SkipIsExact(t *testing.T) {
	data := pattern(60000)
	for _, peeked := range []int{0, 1, 100, 5000} {
		for _, n := range []int{0, 1, 99, 100, 101, minBlockSize - 1, minBlockSize, minBlockSize + 1, 5000, 59998} {
			t.Run(fmt.Sprintf("%d after Peek(%d)", n, peeked), func(t *testing.T) {
				eachStream(t, data, func(t *testing.T, c *Conn) {
					held := mustPeek(t, c, peeked, data)
					mustSkip(t, c, n)
					if b, err := c.ReadByte(); err != nil || b != data[n] {
						t.Fatalf("the next byte is %d (%v), want %d", b, err, data[n])
					}
					mustPeek(t, c, 1, data[n+1:])
					if !bytes.Equal(held, data[:peeked]) {
						t.Fatal("a held slice changed")
					}
				})
			})
		}
	}
}

// R15: a Skip of more than is buffered reads and discards, with one block, and
// what it discards is not buffered.
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

// R16: ReadByte gives every byte in its order and io.EOF at the end.
func TestR16_ReadByte(t *testing.T) {
	data := pattern(2*minBlockSize + 3)
	eachStream(t, data, func(t *testing.T, c *Conn) {
		for i := range data {
			if got := c.Len(); got > len(data)-i {
				t.Fatalf("Len %d with %d bytes to come", got, len(data)-i)
			}
			if b, err := c.ReadByte(); b != data[i] || err != nil {
				t.Fatalf("byte %d is %d (%v), want %d", i, b, err, data[i])
			}
		}
		for range 3 {
			if b, err := c.ReadByte(); b != 0 || err != io.EOF {
				t.Fatalf("at the end: %d, %v", b, err)
			}
		}
	})
}

// R17: what ReadBinary returns is the caller's own: it outlives Release and
// whatever comes, and changing it changes nothing else.
func TestR17_ReadBinaryIsTheCallersOwn(t *testing.T) {
	data := pattern(20 * minBlockSize)
	eachStream(t, data, func(t *testing.T, c *Conn) {
		var all [][]byte
		at := 0
		for _, n := range []int{1, 10, minBlockSize - 1, minBlockSize, 2*minBlockSize + 1, 5000} {
			peeked := mustPeek(t, c, n, data[at:])
			b, err := c.ReadBinary(n)
			if err != nil || !bytes.Equal(b, data[at:at+n]) {
				t.Fatalf("ReadBinary(%d): %v", n, err)
			}
			clear(b)
			if !bytes.Equal(peeked, data[at:at+n]) {
				t.Fatal("it is memory of the connection")
			}
			copy(b, peeked)
			all = append(all, b)
			at += n
			mustRelease(t, c)
			stirPools()
		}
		mustSkip(t, c, len(data)-at)
		mustRelease(t, c)
		c.Close()
		stirPools()
		if got := bytes.Join(all, nil); !bytes.Equal(got, data[:at]) {
			t.Error("what ReadBinary returned has changed")
		}
	})
}

// stirPools writes over every block that is free.
func stirPools() {
	var all []*block
	for size := minBlockSize; size <= len(junk); size *= 2 { // the larger ones cost too much time
		for range 3 {
			b := getBlock(size)
			copy(b.buf, junk)
			all = append(all, b)
		}
	}
	for _, b := range all {
		b.drop()
	}
}

var junk = bytes.Repeat([]byte{0xdb}, 1<<16)

// R19: a ReadBinary that does not get all consumes nothing.
func TestR19_ShortReadBinaryConsumesNothing(t *testing.T) {
	data := pattern(9000)
	for _, end := range []error{io.EOF, syscall.ECONNRESET, os.ErrDeadlineExceeded} {
		c, _ := scripted(append(inChunks(data, 1000), step{err: end})...)
		if b, err := c.ReadBinary(9001); b != nil || !errors.Is(err, end) {
			t.Fatalf("%d bytes, %v; want %v", len(b), err, end)
		}
		if b, err := c.ReadBinary(9000); err != nil || !bytes.Equal(b, data) {
			t.Fatalf("after %v: %d bytes, %v", end, len(b), err)
		}
	}
	eachPair(t, func(t *testing.T, a, b *Conn) {
		go a.NetConn().Write(data[:5000])
		mustPeek(t, b, 5000, data)
		if err := b.SetReadTimeout(10 * time.Millisecond); err != nil {
			t.Fatal(err)
		}
		p, err := b.ReadBinary(9000)
		if p != nil {
			t.Fatalf("%d bytes", len(p))
		}
		wantTimeout(t, err)
		if err := b.SetReadTimeout(0); err != nil {
			t.Fatal(err)
		}
		go a.NetConn().Write(data[5000:])
		if p, err := b.ReadBinary(9000); err != nil || !bytes.Equal(p, data) {
			t.Fatalf("then %d bytes, %v", len(p), err)
		}
	})
}

// R20: a ReadBinary of many megabytes is whole.
func TestR20_HugeReadBinary(t *testing.T) {
	data := pattern(scaled(16<<20) + 1)
	for _, s := range streams[:6] {
		t.Run(s.name, func(t *testing.T) {
			c := NewConn(s.open(t, data))
			mustSkip(t, c, 1)
			b, err := c.ReadBinary(len(data) - 1)
			if err != nil || !bytes.Equal(b, data[1:]) {
				t.Fatalf("%d bytes, %v", len(b), err)
			}
		})
	}
}

// R21: Len is what has come and was not consumed, and asking costs no I/O.
func TestR21_Len(t *testing.T) {
	data := pattern(3000)
	c, s := scripted(inChunks(data, 1000)...)
	want := func(n, reads int) {
		t.Helper()
		if c.Len() != n || s.nreads != reads {
			t.Fatalf("Len %d after %d reads, want %d after %d", c.Len(), s.nreads, n, reads)
		}
	}
	want(0, 0)
	mustPeek(t, c, 1, data)
	want(1000, 1)
	mustSkip(t, c, 1)
	want(999, 1)
	mustPeek(t, c, 1000, data[1:])
	want(1999, 2)
	if _, err := c.ReadByte(); err != nil {
		t.Fatal(err)
	}
	want(1998, 2)
	if _, err := c.ReadBinary(98); err != nil {
		t.Fatal(err)
	}
	want(1900, 2)
	if n, err := c.Read(make([]byte, minBlockSize)); n != 1900 || err != nil {
		t.Fatalf("Read: %d, %v", n, err)
	}
	want(0, 2)
	mustRelease(t, c)
	want(0, 2)
	mustSkip(t, c, 600)
	want(400, 3)
	mustRelease(t, c)
	want(400, 3)
	c.Close()
	want(400, 3)
}

// R22: Release keeps the unread bytes. R23: it may be called at any time.
func TestR22_ReleaseKeepsUnreadBytes(t *testing.T) {
	data := pattern(30000)
	eachStream(t, data, func(t *testing.T, c *Conn) {
		mustRelease(t, c) // R23: fresh
		mustRelease(t, c) // R23: twice
		at := 0
		for i := 1; at+2*i < len(data); i += 97 {
			mustPeek(t, c, 2*i, data[at:])
			mustSkip(t, c, i)
			at += i
			before := c.Len()
			mustRelease(t, c)
			mustRelease(t, c)
			if c.Len() != before {
				t.Fatalf("Release took Len from %d to %d", before, c.Len())
			}
			stirPools()
			mustPeek(t, c, i, data[at:])
		}
		rest, err := c.ReadBinary(len(data) - at)
		if err != nil || !bytes.Equal(rest, data[at:]) {
			t.Fatalf("the rest: %v", err)
		}
		if _, err := c.Peek(1); err != io.EOF {
			t.Fatal(err)
		}
		mustRelease(t, c) // R23: at the end
		c.Close()
		mustRelease(t, c) // R23: after Close
		mustRelease(t, c)
	})

	t.Run("R23 after Close with unread bytes", func(t *testing.T) {
		c, _ := scripted(step{data: data})
		held := mustPeek(t, c, 100, data)
		c.Close()
		stirPools()
		if !bytes.Equal(held, data[:100]) {
			t.Fatal("Close recycled a held slice")
		}
		mustRelease(t, c)
		mustPeek(t, c, 100, data)
	})
}

// R24: Read returns what is buffered without blocking, and never (0, nil).
func TestR24_ReadReturnsWhatIsBuffered(t *testing.T) {
	data := pattern(1000)
	eachPair(t, func(t *testing.T, a, b *Conn) {
		for _, size := range []int{1, 999, 1000, 1001, minBlockSize, 1 << 16} {
			go a.NetConn().Write(data)
			mustPeek(t, b, len(data), data)
			// Nothing more comes: a Read that waits for more than there is hangs.
			p := make([]byte, size)
			n, err := b.Read(p)
			if n != min(size, len(data)) || err != nil || !bytes.Equal(p[:n], data[:n]) {
				t.Fatalf("Read of %d: %d, %v", size, n, err)
			}
			mustSkip(t, b, len(data)-n)
			mustRelease(t, b)
		}
	})
	for _, size := range []int{1, 2, minBlockSize, 2 * minBlockSize} {
		// Empty reads beneath are nothing to tell the caller.
		c, _ := scripted(step{}, step{}, step{data: data[:1]}, step{}, step{err: os.ErrDeadlineExceeded}, step{}, step{data: data[1:2], err: io.EOF})
		for i := 0; i < 4; i++ {
			n, err := c.Read(make([]byte, size))
			if n == 0 && err == nil {
				t.Fatalf("Read of %d returned (0, nil)", size)
			}
			if i == 1 {
				wantTimeout(t, err)
			} else if i == 3 && err != io.EOF || i != 3 && (n != 1 || err != nil) {
				t.Fatalf("Read %d of %d: %d, %v", i, size, n, err)
			}
		}
	}
}

// R25: Read may come between Peek and Skip, and consumes what Peek showed.
func TestR25_ReadBetweenPeekAndSkip(t *testing.T) {
	data := pattern(40000)
	eachStream(t, data, func(t *testing.T, c *Conn) {
		at := 0
		for _, n := range []int{10, 100, 1000, minBlockSize, minBlockSize + 1, 9000} {
			held := mustPeek(t, c, n, data[at:])
			p := make([]byte, n/2)
			m, err := c.Read(p)
			if m != n/2 || err != nil || !bytes.Equal(p, data[at:at+m]) {
				t.Fatalf("Read after Peek(%d): %d, %v", n, m, err)
			}
			mustSkip(t, c, n-m)
			mustPeek(t, c, 10, data[at+n:])
			if !bytes.Equal(held, data[at:at+n]) {
				t.Fatalf("the slice of Peek(%d) changed", n)
			}
			at += n
		}
	})
}

// R26: testing/iotest's own test of a reader passes.
func TestR26_IotestTestReader(t *testing.T) {
	for _, size := range []int{0, 1, 100, minBlockSize, 3*minBlockSize + 1} {
		data := pattern(size)
		eachStream(t, data, func(t *testing.T, c *Conn) {
			if err := iotest.TestReader(c, data); err != nil {
				t.Error(err)
			}
		})
	}
}

// R27: readers that deliver in strange ways x ways to read x sizes.
func TestR27_StrangeReadersTimesReadStyles(t *testing.T) {
	makers := []struct {
		name string
		make func(io.Reader) io.Reader
	}{
		{"full", func(r io.Reader) io.Reader { return r }},
		{"byte", iotest.OneByteReader},
		{"half", iotest.HalfReader},
		{"data and error", iotest.DataErrReader},
		{"half, data and error", func(r io.Reader) io.Reader { return iotest.DataErrReader(iotest.HalfReader(r)) }},
		{"timeout", func(r io.Reader) io.Reader { return realTimeout{iotest.TimeoutReader(r)} }},
		{"timeouts", func(r io.Reader) io.Reader { return &everyOther{r: iotest.HalfReader(r)} }},
		{"empty", func(r io.Reader) io.Reader { return &everyOther{r: r, empty: true} }},
	}
	type style struct {
		name string
		// next reads more of what must come; it returns nil and an error at the end.
		next func(c *Conn, i int) ([]byte, error)
	}
	styles := []style{
		{"ReadByte", func(c *Conn, i int) ([]byte, error) {
			b, err := c.ReadByte()
			if err != nil {
				return nil, err
			}
			return []byte{b}, nil
		}},
		{"mixed", func(c *Conn, i int) ([]byte, error) {
			p := make([]byte, 1+i%7)
			switch i % 4 {
			case 0:
				n, err := c.Read(p)
				return p[:n], err
			case 1:
				return c.ReadBinary(1)
			case 2:
				b, err := c.Peek(1)
				if err == nil {
					err = c.Skip(1)
				}
				return b, err
			}
			b, err := c.ReadByte()
			if err != nil {
				return nil, err
			}
			return []byte{b}, nil
		}},
	}
	for _, size := range []int{1, 2, 3, 7, 13, 64, 1000, minBlockSize - 1, minBlockSize, minBlockSize + 1, 10000} {
		styles = append(styles,
			style{fmt.Sprint("Read ", size), func(c *Conn, i int) ([]byte, error) {
				p := make([]byte, size)
				n, err := c.Read(p)
				return p[:n], err
			}},
			style{fmt.Sprint("ReadBinary ", size), func(c *Conn, i int) ([]byte, error) {
				b, err := c.ReadBinary(size)
				if err == io.EOF && c.Len() > 0 {
					return c.ReadBinary(c.Len())
				}
				return b, err
			}},
			style{fmt.Sprint("Peek and Skip ", size), func(c *Conn, i int) ([]byte, error) {
				b, err := c.Peek(size)
				if err != nil && (err != io.EOF || len(b) == 0) {
					return nil, err
				}
				if i%3 == 0 {
					defer c.Release()
					b = bytes.Clone(b)
				}
				return b, c.Skip(len(b))
			}})
	}
	sizes := []int{0, 1, 2, 5, 63, 64, 65, 1000, minBlockSize - 1, minBlockSize, minBlockSize + 1, 3*minBlockSize + 1}
	for _, m := range makers {
		t.Run(m.name, func(t *testing.T) {
			for _, s := range styles {
				for _, size := range sizes {
					data := pattern(size)
					c, _ := readerOf(m.make(bytes.NewReader(data)))
					var got []byte
					for i := 0; ; i++ {
						b, err := s.next(c, i)
						got = append(got, b...)
						if err == nil {
							continue
						}
						if errors.Is(err, os.ErrDeadlineExceeded) {
							wantTimeout(t, err)
							continue
						}
						if err != io.EOF {
							t.Fatalf("%s of %d bytes: %v", s.name, size, err)
						}
						break
					}
					if !bytes.Equal(got, data) {
						t.Fatalf("%s of %d bytes: got %d, or other ones", s.name, size, len(got))
					}
				}
			}
		})
	}
}

// realTimeout makes iotest's timeout, which is none by its type, a real one.
type realTimeout struct{ r io.Reader }

func (t realTimeout) Read(p []byte) (int, error) {
	n, err := t.r.Read(p)
	if err == iotest.ErrTimeout {
		err = os.ErrDeadlineExceeded
	}
	return n, err
}

// everyOther fails every other read with a timeout, or with nothing at all.
type everyOther struct {
	r     io.Reader
	empty bool
	n     int
}

func (e *everyOther) Read(p []byte) (int, error) {
	if e.n++; e.n%2 == 0 {
		return e.r.Read(p)
	}
	if e.empty {
		return 0, nil
	}
	return 0, os.ErrDeadlineExceeded
}

// R28: a timeout is a nil slice and a *net.OpError that says so in every way and
// names the connection; the bytes that had come stay.
func TestR28_TimeoutShape(t *testing.T) {
	data := pattern(6000)
	eachPair(t, func(t *testing.T, a, b *Conn) {
		go a.NetConn().Write(data[:5000])
		mustPeek(t, b, 5000, data)
		if err := b.SetReadTimeout(5 * time.Millisecond); err != nil {
			t.Fatal(err)
		}
		for range 3 {
			p, err := b.Peek(5001)
			wantTimeout(t, err)
			if p != nil || b.Len() != 5000 {
				t.Fatalf("%d bytes; Len %d", len(p), b.Len())
			}
			if b.LocalAddr().Network() == "pipe" {
				continue // its errors come without addresses
			}
			if op := err.(*net.OpError); op.Op != "read" || op.Net != b.LocalAddr().Network() || op.Source != b.LocalAddr() || op.Addr != b.RemoteAddr() {
				t.Fatalf("%#v does not tell the operation and the connection", op)
			}
		}
		if err := b.SetReadTimeout(0); err != nil {
			t.Fatal(err)
		}
		go a.NetConn().Write(data[5000:])
		mustPeek(t, b, 6000, data)
		mustSkip(t, b, 6000)
		if err := b.SetReadTimeout(5 * time.Millisecond); err != nil {
			t.Fatal(err)
		}
		for _, op := range readerOps {
			p, err := op.do(b, 1)
			wantTimeout(t, err)
			if p != nil {
				t.Fatalf("%s: %d bytes", op.name, len(p))
			}
		}
	})
}

// P2: after a message of 64 MiB the connection holds what small messages need,
// also when the first bytes of the next one came with it.
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
				c.out.reset() // the peer is gone
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

// P6: a gigabyte that is read by the copying methods alone, or skipped, holds
// bounded memory though Release is never called.
func TestP6_BoundedMemoryWithoutRelease(t *testing.T) {
	const most = 4 * maxReadSize
	total := scaled(1 << 30)
	p := make([]byte, 1<<16)
	for _, test := range []struct {
		name string
		do   func(c *Conn) (int, error)
		part int // of the total, where each call is small
	}{
		{"Read 1000", func(c *Conn) (int, error) { return c.Read(p[:1000]) }, 1},
		{"Read 4096", func(c *Conn) (int, error) { return c.Read(p[:4096]) }, 1},
		{"Read 65536", func(c *Conn) (int, error) { return c.Read(p) }, 1},
		{"ReadByte", func(c *Conn) (int, error) { _, err := c.ReadByte(); return 1, err }, 32},
		{"ReadBinary 5", func(c *Conn) (int, error) { b, err := c.ReadBinary(5); return len(b), err }, 32},
		{"ReadBinary 50000", func(c *Conn) (int, error) { b, err := c.ReadBinary(50000); return len(b), err }, 2},
		{"Skip 3", func(c *Conn) (int, error) { return 3, c.Skip(3) }, 8},
		{"Skip 100000", func(c *Conn) (int, error) { return 100000, c.Skip(100000) }, 1},
	} {
		t.Run(test.name, func(t *testing.T) {
			c, _ := readerOf(readFunc(func(p []byte) (int, error) { return len(p), nil }))
			// One slice is handed out in the beginning and never released.
			if _, err := c.Peek(10); err != nil {
				t.Fatal(err)
			}
			base := outstanding.Load()
			for done, i := 0, 0; done < total/test.part; i++ {
				n, err := test.do(c)
				if err != nil || n == 0 {
					t.Fatalf("%d, %v", n, err)
				}
				done += n
				if i%64 != 0 {
					continue
				}
				if got := heldBytes(c); got > most {
					t.Fatalf("holds %d bytes after %d", got, done)
				}
				if got := outstanding.Load() - base; got > 2 {
					t.Fatalf("%d more blocks are out", got)
				}
			}
		})
	}
}
