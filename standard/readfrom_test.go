package standard

import (
	"bytes"
	"errors"
	"io"
	"math"
	"net"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"testing"
	"testing/iotest"
	"time"
)

// contents opens a file that contains b.
func contents(t testing.TB, b []byte) *os.File {
	t.Helper()
	name := filepath.Join(t.TempDir(), "file")
	if err := os.WriteFile(name, b, 0o600); err != nil {
		t.Fatal(err)
	}
	f, err := os.Open(name)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { f.Close() })
	return f
}

// staticFile is shaped as Hertz's reader of large static files: Read is for those
// who copy, WriteTo for those who can send a file.
type staticFile struct {
	f     *os.File
	r     io.Reader
	lr    io.LimitedReader
	reads int
}

func (s *staticFile) UpdateByteRange(start, end int) error {
	if _, err := s.f.Seek(int64(start), io.SeekStart); err != nil {
		return err
	}
	s.lr = io.LimitedReader{R: s.f, N: int64(end - start + 1)}
	s.r = &s.lr
	return nil
}

func (s *staticFile) Read(p []byte) (int, error) {
	s.reads++
	return s.r.Read(p)
}

func (s *staticFile) WriteTo(w io.Writer) (int64, error) {
	if rf, ok := w.(io.ReaderFrom); ok {
		return rf.ReadFrom(s.r)
	}
	return io.Copy(w, s.r)
}

// smallFile is shaped as Hertz's reader of small static files, which offers itself.
type smallFile struct{ *strings.Reader }

func (s smallFile) UpdateByteRange(start, end int) error { return nil }
func (s smallFile) WriteTo(w io.Writer) (int64, error) {
	return w.(io.ReaderFrom).ReadFrom(s)
}

// dirIndex is shaped as the same reader with a page that was made up.
type dirIndex struct{ *strings.Reader }

func (s dirIndex) UpdateByteRange(start, end int) error { return nil }
func (s dirIndex) WriteTo(w io.Writer) (int64, error) {
	n, err := w.Write([]byte("an index"))
	return int64(n), err
}

// source is a reader for W13 and what must come of it.
type source struct {
	name string
	open func(t testing.TB, b []byte) io.Reader
	want func(b []byte) []byte
}

func all(b []byte) []byte  { return b }
func some(b []byte) []byte { return b[:len(b)/3] }

var sources = []source{
	{"bytes.Reader", func(_ testing.TB, b []byte) io.Reader { return bytes.NewReader(b) }, all},
	{"one byte at a time", func(_ testing.TB, b []byte) io.Reader {
		return iotest.OneByteReader(bytes.NewReader(b[:min(len(b), 3000)]))
	}, func(b []byte) []byte { return b[:min(len(b), 3000)] }},
	{"halves", func(_ testing.TB, b []byte) io.Reader { return iotest.HalfReader(bytes.NewReader(b)) }, all},
	{"data with EOF", func(_ testing.TB, b []byte) io.Reader { return iotest.DataErrReader(bytes.NewReader(b)) }, all},
	{"io.LimitedReader", func(_ testing.TB, b []byte) io.Reader {
		return io.LimitReader(bytes.NewReader(b), int64(len(b)/3))
	}, some},
	{"file", func(t testing.TB, b []byte) io.Reader { return contents(t, b) }, all},
	{"file from the middle", func(t testing.TB, b []byte) io.Reader {
		f := contents(t, b)
		if _, err := f.Seek(int64(len(b)/4), io.SeekStart); err != nil {
			t.Fatal(err)
		}
		return f
	}, func(b []byte) []byte { return b[len(b)/4:] }},
	{"io.LimitedReader of a file", func(t testing.TB, b []byte) io.Reader {
		return io.LimitReader(contents(t, b), int64(len(b)/3))
	}, some},
	{"io.LimitedReader larger than its file", func(t testing.TB, b []byte) io.Reader {
		return io.LimitReader(contents(t, b), math.MaxInt64)
	}, all},
	{"io.LimitedReader of nothing", func(t testing.TB, b []byte) io.Reader {
		return io.LimitReader(contents(t, b), 0)
	}, func([]byte) []byte { return nil }},
	{"io.LimitedReader below zero", func(t testing.TB, b []byte) io.Reader {
		return io.LimitReader(contents(t, b), -5)
	}, func([]byte) []byte { return nil }},
	{"two io.LimitedReaders", func(t testing.TB, b []byte) io.Reader {
		return io.LimitReader(io.LimitReader(contents(t, b), int64(len(b)/3)), int64(len(b)/2))
	}, some},
	{"static file", func(t testing.TB, b []byte) io.Reader {
		f := contents(t, b)
		return &staticFile{f: f, r: f}
	}, all},
	{"io.LimitedReader of a static file", func(t testing.TB, b []byte) io.Reader {
		f := contents(t, b)
		return io.LimitReader(&staticFile{f: f, r: f}, int64(len(b)))
	}, all},
	{"io.LimitedReader of a range of a static file", func(t testing.TB, b []byte) io.Reader {
		s := &staticFile{f: contents(t, b)}
		if err := s.UpdateByteRange(len(b)/3, len(b)/2-1); err != nil {
			t.Fatal(err)
		}
		return io.LimitReader(s, int64(len(b)/2-len(b)/3))
	}, func(b []byte) []byte { return b[len(b)/3 : len(b)/2] }},
	{"io.LimitedReader of a larger range of a static file", func(t testing.TB, b []byte) io.Reader {
		s := &staticFile{f: contents(t, b)}
		if err := s.UpdateByteRange(0, len(b)/2); err != nil {
			t.Fatal(err)
		}
		return io.LimitReader(s, int64(len(b)/3))
	}, some},
	{"small file", func(_ testing.TB, b []byte) io.Reader { return smallFile{strings.NewReader(string(b))} }, all},
	{"io.LimitedReader of a small file", func(_ testing.TB, b []byte) io.Reader {
		return io.LimitReader(smallFile{strings.NewReader(string(b))}, int64(len(b)/3))
	}, some},
	{"index page", func(_ testing.TB, b []byte) io.Reader { return dirIndex{strings.NewReader(string(b))} }, all},
	{"pipe", func(t testing.TB, b []byte) io.Reader {
		r, w, err := os.Pipe()
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { r.Close() })
		go func() { _, _ = w.Write(b); w.Close() }()
		return r
	}, all},
}

// W13: ReadFrom writes all that its source has and counts it; the end of the
// source is no error; what was pending goes first. The limits of an
// io.LimitedReader and the place in a file are afterwards what they would be had
// they been read.
func TestW13_EverySourceArrives(t *testing.T) {
	run := func(t *testing.T, a, b *Conn) {
		_, isTCP := a.NetConn().(*net.TCPConn)
		stream := make(chan []byte, 1)
		go func() {
			p, _ := io.ReadAll(b)
			stream <- p
		}()
		var want []byte
		for _, size := range []int{0, 1, copySize + 1, partSize + 12345} {
			if size > partSize && !isTCP {
				break // only a TCP socket gets files in parts
			}
			body := pattern(size)
			for _, s := range sources {
				r := s.open(t, body)
				part := s.want(body)
				var limit, left int64
				lr, limited := r.(*io.LimitedReader)
				if limited {
					limit = lr.N
				}
				put(t, a, []byte("pending "))
				add(t, a, body[:min(size, borrowFrom)])
				want = append(append(append(want, "pending "...), body[:min(size, borrowFrom)]...), part...)

				n, err := a.ReadFrom(r)
				if n != int64(len(part)) || err != nil {
					t.Fatalf("%s of %d bytes: ReadFrom: %d, %v; want %d", s.name, size, n, err, len(part))
				}
				if limited {
					left = lr.N
					if limit-left != n {
						t.Errorf("%s of %d bytes: N went from %d to %d with %d bytes", s.name, size, limit, left, n)
					}
				}
				if static, ok := r.(*staticFile); ok && static.reads > 0 && isTCP {
					t.Errorf("%s of %d bytes: the process copied it", s.name, size)
				}
			}
			f := contents(t, body)
			if n, err := a.ReadFrom(io.LimitReader(f, int64(size/2))); n != int64(size/2) || err != nil {
				t.Fatalf("ReadFrom: %d, %v", n, err)
			}
			if n, err := a.ReadFrom(f); n != int64(size-size/2) || err != nil {
				t.Fatalf("ReadFrom of the rest: %d, %v", n, err)
			}
			want = append(want, body...)
		}
		a.Close()
		sameBytes(t, "stream", <-stream, want)
	}
	eachPair(t, run)
	t.Run("tls", func(t *testing.T) {
		a, b := secureEnds(t, nil)
		run(t, &a.Conn, &b.Conn)
	})
}

// W13: over TCP, a file inside of a static file's reader is sent without a Read
// of that reader, with and without a range.
func TestW13_StaticFileIsNotCopied(t *testing.T) {
	body := pattern(3 << 20)
	for _, test := range []struct {
		name       string
		start, end int
		ranged     bool
	}{
		{"whole", 0, len(body) - 1, false},
		{"range", 1000, 2 << 20, true},
	} {
		t.Run(test.name, func(t *testing.T) {
			x, y := tcpPair(t)
			a, b := NewConn(x), NewConn(y)
			f := contents(t, body)
			s := &staticFile{f: f, r: f}
			if test.ranged {
				if err := s.UpdateByteRange(test.start, test.end); err != nil {
					t.Fatal(err)
				}
			}
			size := test.end - test.start + 1
			got := collect(b, size)
			lr := &io.LimitedReader{R: s, N: int64(size)}
			if n, err := a.ReadFrom(lr); n != int64(size) || err != nil || lr.N != 0 {
				t.Fatalf("ReadFrom: %d, %v; %d are left", n, err, lr.N)
			}
			if s.reads > 0 {
				t.Errorf("%d Reads: the process copied the file", s.reads)
			}
			if test.ranged && s.lr.N != 0 {
				t.Errorf("%d bytes are left of the range", s.lr.N)
			}
			sameBytes(t, "wire", <-got, body[test.start:test.end+1])
		})
	}
}

// W13: what fileOf finds is the file itself; what is no regular file is copied.
func TestW13_WhichSourcesAreFiles(t *testing.T) {
	body := pattern(100)
	isFile := map[string]bool{
		"file": true, "file from the middle": true, "static file": true, "two io.LimitedReaders": true,
		"io.LimitedReader of a file": true, "io.LimitedReader larger than its file": true,
		"io.LimitedReader of nothing": true, "io.LimitedReader below zero": true,
		"io.LimitedReader of a static file":                   true,
		"io.LimitedReader of a range of a static file":        true,
		"io.LimitedReader of a larger range of a static file": true,
	}
	for _, s := range sources {
		if f, _ := fileOf(s.open(t, body)); (f != nil) != isFile[s.name] {
			t.Errorf("%s: found the file: %v, want %v", s.name, f != nil, isFile[s.name])
		}
	}
	closed := contents(t, body)
	closed.Close()
	dir, err := os.Open(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	defer dir.Close()
	for name, r := range map[string]io.Reader{
		"closed file": closed, "directory": dir, "no file": (*os.File)(nil), "nothing": nil, "io.LimitedReader of nil": &io.LimitedReader{N: 5},
	} {
		if f, _ := fileOf(r); f != nil {
			t.Errorf("%s is taken for a file", name)
		}
	}
}

// W13: an error of the source comes out as it is, with the count of what was
// written before it, and leaves the connection usable.
func TestW13_SourceError(t *testing.T) {
	boom := errors.New("boom")
	body := pattern(50_000)
	eachPair(t, func(t *testing.T, a, b *Conn) {
		stream := make(chan []byte, 1)
		go func() {
			p, _ := io.ReadAll(b)
			stream <- p
		}()
		n, err := a.ReadFrom(io.MultiReader(bytes.NewReader(body), iotest.ErrReader(boom)))
		if n != int64(len(body)) || err != boom {
			t.Errorf("ReadFrom: %d, %v", n, err)
		}
		if n, err := a.ReadFrom(iotest.ErrReader(boom)); n != 0 || err != boom {
			t.Errorf("ReadFrom: %d, %v", n, err)
		}
		// Data and an error at once: the data count.
		n, err = a.ReadFrom(&errWithData{data: body[:10], err: boom})
		if n != 10 || err != boom {
			t.Errorf("ReadFrom: %d, %v", n, err)
		}
		// A file that cannot be read is an error of the source, too.
		f := contents(t, body)
		f.Close()
		var perr *os.PathError
		if n, err := a.ReadFrom(f); n != 0 || !errors.Is(err, os.ErrClosed) || !errors.As(err, &perr) {
			t.Errorf("ReadFrom of a closed file: %d, %v", n, err)
		}
		dir, err := os.Open(t.TempDir())
		if err != nil {
			t.Fatal(err)
		}
		defer dir.Close()
		if n, err := a.ReadFrom(dir); n != 0 || err == nil {
			t.Errorf("ReadFrom of a directory: %d, %v", n, err)
		}
		f, err = os.OpenFile(contents(t, body).Name(), os.O_WRONLY, 0)
		if err != nil {
			t.Fatal(err)
		}
		defer f.Close()
		for _, r := range []io.Reader{f, io.LimitReader(f, 5)} {
			if n, err := a.ReadFrom(r); n != 0 || !errors.As(err, &perr) {
				t.Errorf("ReadFrom of a file that cannot be read: %d, %v", n, err)
			}
		}
		put(t, a, []byte("go on"))
		mustFlush(t, a)
		a.Close()
		sameBytes(t, "stream", <-stream, append(append(bytes.Clone(body), body[:10]...), "go on"...))
	})
}

// errWithData returns data and an error with its first Read.
type errWithData struct {
	data []byte
	err  error
}

func (r *errWithData) Read(p []byte) (int, error) {
	n := copy(p, r.data)
	r.data = nil
	return n, r.err
}

// emptyReader returns (0, nil) so many times before each byte.
type emptyReader struct {
	times, left int
	r           io.Reader
}

func (e *emptyReader) Read(p []byte) (int, error) {
	if e.left > 0 {
		e.left--
		return 0, nil
	}
	e.left = e.times
	return e.r.Read(p[:1])
}

// W13: a source that returns (0, nil) a hundred times in a row is borne; one that
// never stops is io.ErrNoProgress, and an impossible count is an error.
func TestW13_SourceWithoutProgress(t *testing.T) {
	sink := new(scriptConn)
	c := NewConn(sink)
	body := pattern(10)
	if n, err := c.ReadFrom(&emptyReader{times: maxEmptyReads, left: maxEmptyReads, r: bytes.NewReader(body)}); n != 10 || err != nil {
		t.Errorf("ReadFrom: %d, %v", n, err)
	}
	if n, err := c.ReadFrom(&emptyReader{left: math.MaxInt}); n != 0 || err != io.ErrNoProgress {
		t.Errorf("ReadFrom: %d, %v", n, err)
	}
	if n, err := c.ReadFrom(io.MultiReader(bytes.NewReader(body), &emptyReader{left: math.MaxInt})); n != 10 || err != io.ErrNoProgress {
		t.Errorf("ReadFrom: %d, %v", n, err)
	}
	for _, n := range []int{-1, copySize + 1, math.MaxInt} {
		if m, err := c.ReadFrom(impossible(n)); m != 0 || err == nil {
			t.Errorf("count %d: ReadFrom: %d, %v", n, m, err)
		}
	}
	put(t, c, body)
	mustFlush(t, c)
	sameBytes(t, "wire", sink.wire, bytes.Repeat(body, 3))
}

// impossible is a reader that returns this count.
type impossible int

func (n impossible) Read([]byte) (int, error) { return int(n), nil }

// W13: when writing fails, the count is exact, the error stays, and pending
// output that fails keeps the source untouched.
func TestW13_WriteError(t *testing.T) {
	boom := errors.New("boom")
	body := pattern(3 * copySize)
	onSinks(t, func(t *testing.T, open func(...step) (*Conn, *scriptConn)) {
		c, sink := open(step{n: -1}, step{n: -1}, step{n: 77, err: boom})
		put(t, c, body[:5])
		n, err := c.ReadFrom(bytes.NewReader(body[5:]))
		if n != copySize+77 || err != boom {
			t.Errorf("ReadFrom: %d, %v", n, err)
		}
		sameBytes(t, "wire", sink.wire, body[:5+copySize+77])
		sticks(t, c, sink, boom)

		c, sink = open(step{n: 3, err: boom})
		put(t, c, body[:5])
		r := bytes.NewReader(body[5:])
		if n, err := c.ReadFrom(r); n != 0 || err != boom || r.Len() != len(body)-5 {
			t.Errorf("ReadFrom with a failing Flush: %d, %v; the source has %d bytes left", n, err, r.Len())
		}
		sticks(t, c, sink, boom)
	})
}

// W13: a file to a peer that does not read ends at the write timeout: the count,
// the limit, the place in the file and what the peer gets all agree.
func TestW13_FileToAStalledPeer(t *testing.T) {
	body := pattern(16 << 20)
	for _, limited := range []bool{false, true} {
		x, y := tcpPair(t)
		a, b := NewConn(x), NewConn(y)
		f := contents(t, body)
		_ = a.SetWriteTimeout(20 * time.Millisecond)
		var r io.Reader = f
		lr := &io.LimitedReader{R: f, N: int64(len(body))}
		if limited {
			r = lr
		}
		n, err := a.ReadFrom(r)
		if e, ok := err.(*net.OpError); !ok || !e.Timeout() || !errors.Is(err, os.ErrDeadlineExceeded) || n == int64(len(body)) {
			t.Fatalf("ReadFrom: %d, %v", n, err)
		}
		if limited && lr.N != int64(len(body))-n {
			t.Errorf("%d bytes were sent, and N is %d", n, lr.N)
		}
		if at, err := f.Seek(0, io.SeekCurrent); at != n || err != nil {
			t.Errorf("%d bytes were sent, and the file is at %d (%v)", n, at, err)
		}
		if again := a.Flush(); again != err {
			t.Errorf("Flush: %v, want %v", again, err)
		}
		a.Close()
		got, err := io.ReadAll(b)
		if int64(len(got)) != n || err != nil {
			t.Fatalf("%d bytes were sent, and the peer read %d (%v)", n, len(got), err)
		}
		sameBytes(t, "wire", got, body[:n])
	}
}

// W13: a timer that an earlier write left behind and that has passed meanwhile
// costs no byte of the file.
func TestW13_FileAfterAnOldTimer(t *testing.T) {
	body := pattern(3*partSize + 5)
	for _, timeout := range []time.Duration{0, time.Minute} {
		x, y := tcpPair(t)
		a, b := NewConn(x), NewConn(y)
		put(t, a, body[:1])
		_ = a.SetWriteTimeout(5 * time.Millisecond)
		mustFlush(t, a)
		_ = a.SetWriteTimeout(timeout)
		settles(t, "the timer has fired", 1, func() int {
			if _, err := x.Write(nil); isTimeout(err) {
				return 1
			}
			return 0
		})
		got := collect(b, len(body))
		f := contents(t, body)
		if _, err := f.Seek(1, io.SeekStart); err != nil {
			t.Fatal(err)
		}
		lr := &io.LimitedReader{R: f, N: int64(len(body) - 1)}
		if n, err := a.ReadFrom(lr); n != int64(len(body)-1) || err != nil || lr.N != 0 {
			t.Errorf("timeout %v: ReadFrom: %d, %v; %d are left", timeout, n, err, lr.N)
		}
		a.Close()
		sameBytes(t, "wire", <-got, body)
	}
}

// W13: the write timeout is for each write of at most 1 MiB, not for the whole
// file: a peer that is slow and steady gets all of it.
func TestW13_TimeoutIsNotForTheWholeFile(t *testing.T) {
	const size = 64 << 20 // far more than fits the sockets' buffers
	f := contents(t, nil)
	if err := os.Truncate(f.Name(), size); err != nil {
		t.Fatal(err)
	}
	x, y := tcpPair(t)
	// Or the system lets it grow to more than half of the file.
	if err := y.(*net.TCPConn).SetReadBuffer(1 << 20); err != nil {
		t.Fatal(err)
	}
	a, b := NewConn(x), NewConn(y)
	_ = a.SetWriteTimeout(time.Minute)
	half := make(chan int64, 1)
	go func() {
		_ = b.Skip(size / 2)
		half <- moment()
		_ = b.Skip(size)
	}()
	if n, err := a.ReadFrom(f); n != size || err != nil {
		t.Errorf("ReadFrom: %d, %v", n, err)
	}
	a.wr.mu.Lock()
	defer a.wr.mu.Unlock()
	if a.wr.start <= <-half {
		t.Error("the timeout of the last write counts from before the peer had half of the file")
	}
}

// W13: a source that waits is not a write that waits: its pauses do not run into
// the write timeout.
func TestW13_SlowSourceIsNoTimeout(t *testing.T) {
	eachPair(t, func(t *testing.T, a, b *Conn) {
		got := collect(b, 6)
		pr, pw, err := os.Pipe()
		if err != nil {
			t.Fatal(err)
		}
		defer pr.Close()
		go func() {
			for _, s := range []string{"ab", "cd", "ef"} {
				time.Sleep(10 * time.Millisecond)
				_, _ = pw.WriteString(s)
			}
			pw.Close()
		}()
		_ = a.SetWriteTimeout(5 * time.Millisecond)
		if n, err := a.ReadFrom(pr); n != 6 || err != nil {
			t.Errorf("ReadFrom: %d, %v", n, err)
		}
		sameBytes(t, "wire", <-got, []byte("abcdef"))
	})
}

// W13: the memory does not grow with the source.
func TestW13_BoundedMemory(t *testing.T) {
	allBack := blocksComeBack(t)
	sink := &discardConn{}
	c := NewConn(sink)
	const size = 64 << 20
	var before, after runtime.MemStats
	runtime.ReadMemStats(&before)
	n, err := c.ReadFrom(io.LimitReader(zeros{}, size))
	runtime.ReadMemStats(&after)
	if n != size || err != nil || sink.n != size {
		t.Errorf("ReadFrom: %d, %v; %d bytes arrived", n, err, sink.n)
	}
	if grown := after.TotalAlloc - before.TotalAlloc; grown > 1<<20 {
		t.Errorf("%d bytes were allocated", grown)
	}
	if sink.largest > copySize {
		t.Errorf("a write of %d bytes", sink.largest)
	}
	allBack()
}

type zeros struct{}

func (zeros) Read(p []byte) (int, error) { clear(p); return len(p), nil }

// discardConn counts what it is given.
type discardConn struct {
	scriptConn
	n, largest int
}

func (c *discardConn) Write(p []byte) (int, error) {
	c.n += len(p)
	c.largest = max(c.largest, len(p))
	return len(p), nil
}

// W13: a conn may be the source of another one, and Close ends a ReadFrom that
// waits for its peer.
func TestW13_FromConnToConn(t *testing.T) {
	body := pattern(1 << 20)
	eachPair(t, func(t *testing.T, a, b *Conn) {
		x, y := tcpPair(t)
		in, out := NewConn(x), NewConn(y)
		got := collect(b, len(body))
		go func() {
			_, _ = in.Write(body)
			in.Close()
		}()
		if n, err := a.ReadFrom(out); n != int64(len(body)) || err != nil {
			t.Errorf("ReadFrom: %d, %v", n, err)
		}
		sameBytes(t, "stream", <-got, body)

		closed := make(chan error, 1)
		go func() {
			_, err := a.ReadFrom(zeros{})
			closed <- err
		}()
		if _, err := b.Peek(1); err != nil {
			t.Fatal(err)
		}
		a.Close()
		if err := <-closed; !errors.Is(err, net.ErrClosed) {
			t.Errorf("ReadFrom that Close ended: %v", err)
		}
	})
}
