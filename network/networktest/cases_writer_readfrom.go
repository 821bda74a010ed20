package networktest

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"runtime"
	"testing/iotest"
	"time"

	"github.com/hertznet/hertznet/network"
)

// W13, where there is a ReadFrom.
func readFrom(t *connCheck) {
	a, b := t.pair()
	if _, ok := a.(io.ReaderFrom); !ok {
		t.notApplicable("a %T has no ReadFrom", a)
	}
	t.readFromSources(a, b)
	t.readFromErrors()
	t.readFromSlowSource()
	t.readFromBounded()
	if !t.canWrap() {
		return
	}
	p := pattern(100_000)
	for _, quota := range []int{0, 9, 10, 11, 99_999} {
		s := &quotaConn{quota: quota}
		c := t.wrap(s)
		t.malloc(c, p[:10])
		t.step("Malloc of 10 bytes, then ReadFrom of %d, with a conn beneath that takes %d and fails", len(p)-10, quota)
		n, err := c.(io.ReaderFrom).ReadFrom(bytes.NewReader(p[10:]))
		want := int64(max(quota-10, 0))
		t.expect(err != nil && n == want, fmt.Sprintf("%d and an error", want), "%d and %s", n, describeError(err))
	}
	s := &sizedConn{}
	c := t.wrap(s)
	t.step("ReadFrom of 3 MiB of memory")
	n, err := c.(io.ReaderFrom).ReadFrom(bytes.NewReader(make([]byte, 3<<20)))
	t.expect(err == nil && n == 3<<20, "all of it", "%d and %s", n, describeError(err))
	t.expect(s.largest <= 1<<20, "writes of at most 1 MiB", "one of %d bytes", s.largest)
	t.readFromSendsFiles()
}

// sizedConn takes everything and notes how large the largest write is.
type sizedConn struct {
	scriptConn
	largest int
}

func (c *sizedConn) Write(p []byte) (int, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.largest = max(c.largest, len(p))
	return len(p), nil
}

// tempFile opens a file with the bytes given.
func (t *connCheck) tempFile(p []byte) *os.File {
	name := filepath.Join(t.TempDir(), "file")
	if err := os.WriteFile(name, p, 0o600); err != nil {
		t.Fatal(err)
	}
	f, err := os.Open(name)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { f.Close() })
	return f
}

// readFromSources reads from every kind of source, with output pending.
func (t *connCheck) readFromSources(a, b network.Conn) {
	o := t.outflow(a, b)
	send := func(name string, r io.Reader, p []byte) {
		o.mark("Malloc of 3 bytes, then ReadFrom of %s of %d bytes", name, len(p))
		t.malloc(a, o.next(3))
		o.want = append(o.want, p...)
		t.step("%s", o.marks[len(o.marks)-1].what)
		n, err := a.(io.ReaderFrom).ReadFrom(r)
		t.expect(err == nil && n == int64(len(p)), fmt.Sprintf("%d and no error", len(p)), "%d and %s", n, describeError(err))
	}
	sizes := []int{0, 1, 32<<10 + 1, 200_000}
	if !t.short {
		sizes = append(sizes, 1<<20)
	}
	for _, size := range sizes {
		p := o.source[:size]
		few, half := p[:min(size, 1000)], p[:size/2]
		send("a bytes.Reader", bytes.NewReader(p), p)
		send("a plain reader", readerOf(bytes.NewReader(p)), p)
		send("a reader of one byte at a time", iotest.OneByteReader(bytes.NewReader(few)), few)
		send("a reader of data with EOF", iotest.DataErrReader(bytes.NewReader(p)), p)
		send("a reader that returns nothing at times", &emptySource{r: bytes.NewReader(few), times: 10}, few)
		send("an io.LimitedReader", io.LimitReader(bytes.NewReader(p), int64(len(half))), half)
		send("a file", t.tempFile(p), p)
		send("an io.LimitedReader larger than its file", io.LimitReader(t.tempFile(p), 1<<60), p)
		f := t.tempFile(p)
		send("an io.LimitedReader of a file, used up", io.LimitReader(f, 0), nil)
		first := &io.LimitedReader{R: f, N: int64(len(half))}
		send("an io.LimitedReader of the first half of a file", first, half)
		t.expect(first.N == 0, "the io.LimitedReader to be used up", "N is %d", first.N)
		send("the second half of a file", f, p[len(half):])
		r, w, err := os.Pipe()
		if err != nil {
			t.Fatal(err)
		}
		t.track(r)
		t.spawn(func() {
			_, _ = w.Write(p)
			w.Close()
		})
		send("a pipe", r, p)
	}
	o.end()
}

// emptySource returns (0, nil) so many times before each byte; for ever if times is
// less than zero, but not so long that a caller who never gives up hangs.
type emptySource struct {
	r     io.Reader
	times int
	left  int
	calls int
}

var errStillAsked = errors.New("networktest: it was read again and again")

func (e *emptySource) Read(p []byte) (int, error) {
	if e.calls++; e.calls > 100_000 {
		return 0, errStillAsked
	}
	if e.times < 0 {
		return 0, nil
	}
	if e.left > 0 {
		e.left--
		return 0, nil
	}
	e.left = e.times
	return e.r.Read(p[:min(len(p), 1)])
}

// readFromErrors checks what comes of sources that fail, after which the
// connection goes on.
func (t *connCheck) readFromErrors() {
	a, b := t.pair()
	rf := a.(io.ReaderFrom)
	o := t.outflow(a, b)
	for _, n := range []int{0, 10, 50_000} {
		for _, test := range []struct {
			what string
			end  io.Reader
			want error
		}{
			{"fails", iotest.ErrReader(errFault), errFault},
			{"returns nothing for ever", &emptySource{times: -1}, io.ErrNoProgress},
		} {
			o.mark("ReadFrom of a source that %s after %d bytes", test.what, n)
			m, err := rf.ReadFrom(io.MultiReader(bytes.NewReader(o.next(n)), test.end))
			t.expect(m == int64(n) && errors.Is(err, test.want), fmt.Sprintf("%d and %v", n, test.want), "%d and %s", m, describeError(err))
		}
	}
	o.mark("ReadFrom of a source whose data come with its error")
	script := &scriptConn{reads: []Step{{Data: o.next(10), Err: errFault}}}
	m, err := rf.ReadFrom(readerOf(script))
	t.expect(m == 10 && errors.Is(err, errFault), "10 and its error", "%d and %s", m, describeError(err))
	name := filepath.Join(t.TempDir(), "unreadable")
	f, err := os.OpenFile(name, os.O_CREATE|os.O_WRONLY, 0o600)
	if err == nil {
		_, err = f.Write(pattern(100))
	}
	if err == nil {
		_, err = f.Seek(0, io.SeekStart)
	}
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	o.mark("ReadFrom of a file that is open for writing alone")
	m, err = rf.ReadFrom(f)
	t.expect(m == 0 && err != nil, "0 and an error", "%d and %s", m, describeError(err))
	o.mark("Malloc and Flush, after sources that failed")
	t.malloc(a, o.next(10))
	t.flush(a)
	o.end()
}

// readFromSlowSource has a source that takes longer than the write timeout, which
// is for each write alone. The best of several attempts counts.
func (t *connCheck) readFromSlowSource() {
	var n int64
	var err error
	for _, timeout := range []time.Duration{20 * time.Millisecond, 100 * time.Millisecond, 500 * time.Millisecond} {
		a, b := t.pair()
		t.outflow(a, b)
		if a.SetWriteTimeout(timeout) != nil {
			return
		}
		t.step("ReadFrom of a source that pauses for %v in all, with a write timeout of %v", timeout*3, timeout)
		n, err = a.(io.ReaderFrom).ReadFrom(&slowSource{left: 6, pause: timeout / 2})
		if err == nil && n == 6 {
			return
		}
	}
	t.expect(false, "6 and no error: each write has the timeout for itself", "%d and %s", n, describeError(err))
}

type slowSource struct {
	left  int
	pause time.Duration
}

func (s *slowSource) Read(p []byte) (int, error) {
	if s.left == 0 {
		return 0, io.EOF
	}
	s.left--
	time.Sleep(s.pause)
	p[0] = 'x'
	return 1, nil
}

// readFromBounded looks at the memory while a large source is read.
func (t *connCheck) readFromBounded() {
	size := int64(32 << 20)
	if t.short {
		size = 16 << 20
	}
	var grown int64
	for range 2 { // something else in the process may have grown
		a, b := t.pair()
		t.spawn(func() { _, _ = io.Copy(io.Discard, readerOf(b)) })
		t.step("ReadFrom of %d MiB", size>>20)
		s := &meteredSource{left: size, size: size}
		n, err := a.(io.ReaderFrom).ReadFrom(s)
		t.expect(err == nil && n == size, "all of it", "%d and %s", n, describeError(err))
		a.Close()
		if grown = s.grown; grown < size/2 {
			return
		}
	}
	t.expect(false, fmt.Sprintf("memory that does not grow with the source of %d MiB", size>>20), "%d MiB more in use", grown>>20)
}

// meteredSource looks how much memory is in use when it is read.
type meteredSource struct {
	left, size int64
	base, next int64
	grown      int64
}

func (s *meteredSource) Read(p []byte) (int, error) {
	if done := s.size - s.left; done >= s.next {
		runtime.GC()
		var m runtime.MemStats
		runtime.ReadMemStats(&m)
		if done == 0 {
			s.base = int64(m.HeapAlloc)
		}
		s.grown = max(s.grown, int64(m.HeapAlloc)-s.base)
		s.next += s.size / 4
		if s.left == 0 {
			s.next = s.size + 1
		}
	}
	if s.left == 0 {
		return 0, io.EOF
	}
	n := int(min(int64(len(p)), s.left))
	clear(p[:n])
	s.left -= int64(n)
	return n, nil
}

// readFromSendsFiles notes how many system calls a file takes. It is no verdict,
// since there may be something between the socket and what is judged.
func (t *connCheck) readFromSendsFiles() {
	x, y := tcpPair(t.check)
	c := t.wrap(x)
	t.spawn(func() { _, _ = io.Copy(io.Discard, readerOf(y)) })
	t.step("ReadFrom of an io.LimitedReader of a file over TCP")
	r := io.LimitReader(t.tempFile(make([]byte, 4<<20)), 4<<20)
	reads, writes, ok := systemCalls(func() {
		_, err := c.(io.ReaderFrom).ReadFrom(r)
		t.noError(err)
	})
	if ok && writes > 0 {
		t.measured("a file of 4 MiB took %d system calls for reading and %d for writing; sendfile, which counts as both, takes a few", reads, writes)
	}
}
