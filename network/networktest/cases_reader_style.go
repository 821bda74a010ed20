package networktest

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"syscall"
	"testing/iotest"

	"github.com/hertznet/hertznet/network"
)

func iotestTestReader(t *connCheck) {
	for _, size := range []int{0, 1, 100, usualBlock, 3*usualBlock + 1} {
		data := pattern(size)
		t.step("iotest.TestReader with %d bytes", size)
		err := iotest.TestReader(readerOf(t.ended(data)), data)
		t.noError(err)
		if t.canWrap() {
			t.step("iotest.TestReader with %d bytes from a conn that returns the last with io.EOF", size)
			err := iotest.TestReader(readerOf(t.sourced(iotest.DataErrReader(bytes.NewReader(data)))), data)
			t.noError(err)
		}
	}
}

// readStyle is a way to read a stream to its end: next returns the bytes that it
// consumed. i counts the calls, and left is how many bytes there are.
type readStyle struct {
	name string
	next func(c network.Conn, i, left int) ([]byte, error)
}

func readStyles(counts ...int) []readStyle {
	one := func(b byte, err error) ([]byte, error) {
		if err != nil {
			return nil, err
		}
		return []byte{b}, nil
	}
	// One that comes short is the business of R6 and R19.
	within := func(size, left int) int {
		if left > 0 {
			return min(size, left)
		}
		return size
	}
	take := func(c network.Conn, size int, release bool) ([]byte, error) {
		p, err := c.Peek(size)
		if err != nil {
			return nil, err
		}
		p = bytes.Clone(p)
		if err = c.Skip(len(p)); release {
			_ = c.Release()
		}
		return p, err
	}
	read := func(c network.Conn, size int) ([]byte, error) {
		p := make([]byte, size)
		n, err := c.Read(p)
		if n < 0 || n > size {
			return nil, fmt.Errorf("Read of %d bytes returned the count %d", size, n)
		}
		return p[:n], err
	}
	styles := []readStyle{
		{"ReadByte", func(c network.Conn, _, _ int) ([]byte, error) { return one(c.ReadByte()) }},
		{"ReadByte, Read, ReadBinary, Peek and Skip in turn", func(c network.Conn, i, left int) ([]byte, error) {
			switch i % 4 {
			case 0:
				return read(c, 1+i%7)
			case 1:
				return c.ReadBinary(within(1+i%5, left))
			case 2:
				return take(c, within(1+i%11, left), i%3 == 0)
			}
			return one(c.ReadByte())
		}},
	}
	for _, n := range counts {
		styles = append(styles,
			readStyle{fmt.Sprintf("Read of %d bytes", n), func(c network.Conn, _, _ int) ([]byte, error) { return read(c, n) }},
			readStyle{fmt.Sprintf("ReadBinary(%d)", n), func(c network.Conn, _, left int) ([]byte, error) { return c.ReadBinary(within(n, left)) }},
			readStyle{fmt.Sprintf("Peek(%d) and Skip", n), func(c network.Conn, i, left int) ([]byte, error) { return take(c, within(n, left), i%3 == 0) }})
	}
	return styles
}

// readAll reads data in a style, and goes on after timeouts.
func (t *connCheck) readAll(c network.Conn, style readStyle, data []byte, from string) {
	t.step("reading %d bytes by %s, from %s", len(data), style.name, from)
	var got []byte
	for i := 0; ; i++ {
		p, err := style.next(c, i, len(data)-len(got))
		got = append(got, p...)
		if errors.Is(err, io.EOF) {
			break
		}
		// The limit ends a reader that makes no progress.
		t.expect(err == nil || looksLikeTimeout(err), "no error but timeouts", "%s after %d bytes", describeError(err), len(got))
		t.expect(i < 20*len(data)+10_000 && len(got) <= len(data), "the end", "none after %d calls and %d bytes", i, len(got))
	}
	t.equal(got, data)
}

func oddReaders(t *connCheck) {
	// What a peer can do: it writes in pieces that have nothing to do with the
	// reads.
	data := pattern(20_000)
	for _, chunk := range []int{1, 3, 1237} {
		data := data[:min(len(data), 1000*chunk)]
		for _, style := range readStyles(100, usualBlock+1) {
			a, b := t.pair()
			t.spawn(func() {
				for rest := data; len(rest) > 0; {
					n := min(chunk, len(rest))
					if _, err := b.Write(rest[:n]); err != nil {
						return
					}
					rest = rest[n:]
				}
				b.Close()
			})
			t.readAll(a, style, data, fmt.Sprintf("a peer that writes %d at a time", chunk))
		}
	}
	if !t.canWrap() {
		return
	}
	readers := []struct {
		name string
		make func(io.Reader) io.Reader
	}{
		{"a conn", func(r io.Reader) io.Reader { return r }},
		{"a conn that reads single bytes", iotest.OneByteReader},
		{"a conn that reads half of what is asked for", iotest.HalfReader},
		{"a conn that returns the last bytes with io.EOF", iotest.DataErrReader},
		{"a conn that reads half and returns the last bytes with io.EOF", func(r io.Reader) io.Reader { return iotest.DataErrReader(iotest.HalfReader(r)) }},
		{"a conn whose second read times out", func(r io.Reader) io.Reader { return &stutterReader{r: r, err: os.ErrDeadlineExceeded, only: 2} }},
		{"a conn of which every other read times out", func(r io.Reader) io.Reader {
			return &stutterReader{r: iotest.HalfReader(r), err: os.ErrDeadlineExceeded}
		}},
		{"a conn of which every other read is empty", func(r io.Reader) io.Reader { return &stutterReader{r: r} }},
	}
	sizes := []int{0, 1, 2, 64, 1000, usualBlock - 1, usualBlock, usualBlock + 1, 3*usualBlock + 1}
	counts := []int{1, 7, 64, 1000, usualBlock - 1, usualBlock, usualBlock + 1}
	if t.short || raceEnabled {
		sizes = []int{0, 1, 1000, usualBlock + 1}
		counts = []int{1, 1000, usualBlock}
	}
	for _, r := range readers {
		for _, style := range readStyles(counts...) {
			for _, size := range sizes {
				t.readAll(t.sourced(r.make(bytes.NewReader(data[:size]))), style, data[:size], r.name)
			}
		}
	}
}

// stutterReader returns err, or (0, nil), at every other Read, or at one only.
type stutterReader struct {
	r    io.Reader
	err  error
	only int
	n    int
}

func (s *stutterReader) Read(p []byte) (int, error) {
	s.n++
	if s.only == 0 && s.n%2 == 1 || s.n == s.only {
		return 0, s.err
	}
	return s.r.Read(p)
}

func timeoutsShape(t *connCheck) {
	data := pattern(5000)
	a, _ := t.buffered(data)
	shape := func(err error) {
		op, ok := err.(*net.OpError)
		t.expect(ok && op.Timeout() && errors.Is(err, os.ErrDeadlineExceeded),
			"a *net.OpError with Timeout() true that is os.ErrDeadlineExceeded", "%s", describeError(err))
	}
	limit := func() {
		t.step("SetReadTimeout(%v)", shortWait)
		t.noError(a.SetReadTimeout(shortWait))
	}
	for _, op := range []struct {
		name string
		do   func(n int) ([]byte, error)
	}{{"Peek", a.Peek}, {"ReadBinary", a.ReadBinary}} {
		limit()
		t.step("%s(5001) of a stream that stalls after 5000 bytes, after SetReadTimeout(%v)", op.name, shortWait)
		p, err := op.do(5001)
		shape(err)
		t.expect(p == nil, "nil with the error", "%d bytes", len(p))
		t.expect(a.Len() == 5000, "Len to stay 5000", "%d", a.Len())
	}
	t.peek(a, data)
	t.skip(a, len(data))
	for _, op := range readerOps {
		limit()
		t.step("%s of a stream that stalls, after SetReadTimeout(%v)", op.name, shortWait)
		_, err := op.do(a)
		if op.name == "Skip(1)" && err != nil && !looksLikeTimeout(err) {
			continue // refused: the business of R15
		}
		shape(err)
	}
	if !t.canWrap() {
		return
	}
	for _, timeout := range foreignErrors() {
		near, far := tcpPair(t.check)
		c := t.wrap(foreignTimeouts{near, timeout})
		t.feed(far, data)
		t.peek(c, data)
		t.step("SetReadTimeout(%v)", shortWait)
		t.noError(c.SetReadTimeout(shortWait))
		t.step("Peek(5001) with 5000 bytes buffered and no more to come, after SetReadTimeout(%v), over a conn whose timeout is a %s", shortWait, describeError(timeout))
		p, err := c.Peek(5001)
		shape(err)
		t.expect(p == nil, "nil with the error", "%d bytes", len(p))
		t.peek(c, data)
		t.skip(c, len(data))
		for _, op := range readerOps {
			t.step("%s of a stream that stalls, after SetReadTimeout(%v), over a conn whose timeout is a %s", op.name, shortWait, describeError(timeout))
			_, err := op.do(c)
			if op.name == "Skip(1)" && err != nil && !looksLikeTimeout(err) {
				continue
			}
			shape(err)
		}
	}
	for _, end := range []error{io.ErrUnexpectedEOF, syscall.ECONNRESET, errors.New("the kit's")} {
		for range 2 {
			c, _ := t.scripted(Step{Data: data[:2000]}, Step{Data: data[2000:]}, Step{Err: end})
			t.step("Peek(5001) over a conn that fails after 5000 bytes with %v", end)
			p, err := c.Peek(5001)
			t.expect(p == nil && err != nil, "nil and an error", "%d bytes and %s", len(p), describeError(err))
			t.unmoved(c, data)
			t.step("ReadBinary(5001) over a conn that fails after 5000 bytes with %v", end)
			p, err = c.ReadBinary(5001)
			t.expect(p == nil && err != nil, "nil and an error", "%d bytes and %s", len(p), describeError(err))
			t.unmoved(c, data)
		}
	}
}

// foreignTimeouts is a conn whose timeouts are err, as those of a library that has
// its own.
type foreignTimeouts struct {
	net.Conn
	err error
}

func (c foreignTimeouts) Read(p []byte) (int, error) {
	n, err := c.Conn.Read(p)
	return n, c.own(err)
}

func (c foreignTimeouts) Write(p []byte) (int, error) {
	n, err := c.Conn.Write(p)
	return n, c.own(err)
}

func (c foreignTimeouts) own(err error) error {
	if errors.Is(err, os.ErrDeadlineExceeded) {
		return c.err
	}
	return err
}

// foreignErrors are timeouts by their word, or by errors.Is.
func foreignErrors() []error {
	return []error{
		foreignTimeout{},
		&net.OpError{Op: "kit", Net: "kit", Err: foreignTimeout{}},
		fmt.Errorf("the kit's: %w", os.ErrDeadlineExceeded),
	}
}

type foreignTimeout struct{}

func (foreignTimeout) Error() string   { return "the kit's own timeout" }
func (foreignTimeout) Timeout() bool   { return true }
func (foreignTimeout) Temporary() bool { return true }
