package standard

import (
	"bytes"
	"errors"
	"io"
	"math"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// The kit checks what ReadFrom makes of any source; here are files, which the kernel
// copies to a TCP socket.

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

	start, ranged int64 // of UpdateByteRange
}

func (s *staticFile) UpdateByteRange(start, end int) error {
	if _, err := s.f.Seek(int64(start), io.SeekStart); err != nil {
		return err
	}
	s.lr = io.LimitedReader{R: s.f, N: int64(end - start + 1)}
	s.r, s.start, s.ranged = &s.lr, int64(start), s.lr.N
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

// source is a reader for ReadFrom and what must come of it.
type source struct {
	name string
	open func(t testing.TB, b []byte) io.Reader
	want func(b []byte) []byte
}

func all(b []byte) []byte  { return b }
func some(b []byte) []byte { return b[:len(b)/3] }

var sources = []source{
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

// W13: files, and what Hertz reads static files by, arrive whole and are counted, behind
// any readers that limit them; the limits and the place in the file are afterwards
// what they would be had they been read. Over TCP nobody Reads a static file: the
// kernel copies it. The kit has other sources, and looks at the bytes alone.
func TestW13_FilesArrive(t *testing.T) {
	eachPair(t, func(t *testing.T, a, b *Conn) {
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
				put(t, a, []byte("pending "))
				want = append(append(want, "pending "...), part...)

				lr, limited := r.(*io.LimitedReader)
				var limit int64
				static, _ := r.(*staticFile)
				if limited {
					limit = lr.N
					static, _ = lr.R.(*staticFile)
				}
				n, err := a.ReadFrom(r)
				if n != int64(len(part)) || err != nil {
					t.Fatalf("%s of %d bytes: ReadFrom: %d, %v; want %d", s.name, size, n, err, len(part))
				}
				if limited && limit-lr.N != n {
					t.Errorf("%s of %d bytes: N went from %d to %d with %d bytes", s.name, size, limit, lr.N, n)
				}
				if static == nil {
					continue
				}
				if static.reads > 0 && isTCP {
					t.Errorf("%s of %d bytes: the process copied it", s.name, size)
				}
				if at, err := static.f.Seek(0, io.SeekCurrent); err != nil || at != static.start+n {
					t.Errorf("%s of %d bytes: %d were sent from %d on, and the file is at %d (%v)", s.name, size, n, static.start, at, err)
				}
				if static.r == &static.lr && static.ranged-static.lr.N != n {
					t.Errorf("%s of %d bytes: %d of %d are left of the range", s.name, size, static.lr.N, static.ranged)
				}
			}
		}
		a.Close()
		sameBytes(t, "stream", <-stream, want)
	})
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

// W13: a file that cannot be read is an error of the source, not of the connection,
// which goes on.
func TestW13_FileError(t *testing.T) {
	eachPair(t, func(t *testing.T, a, b *Conn) {
		got := collect(b, 5)
		closed := contents(t, pattern(10))
		closed.Close()
		writeOnly, err := os.OpenFile(contents(t, pattern(10)).Name(), os.O_WRONLY, 0)
		if err != nil {
			t.Fatal(err)
		}
		defer writeOnly.Close()
		dir, err := os.Open(t.TempDir())
		if err != nil {
			t.Fatal(err)
		}
		defer dir.Close()
		var perr *os.PathError
		for _, r := range []io.Reader{closed, writeOnly, io.LimitReader(writeOnly, 5), dir} {
			if n, err := a.ReadFrom(r); n != 0 || !errors.As(err, &perr) {
				t.Errorf("ReadFrom: %d, %v", n, err)
			}
		}
		put(t, a, []byte("go on"))
		mustFlush(t, a)
		sameBytes(t, "stream", <-got, []byte("go on"))
	})
}

// W13: a source may return (0, nil) a hundred times in a row and not once more, as a
// conn beneath [F1], and its impossible counts are errors that leave the connection
// usable. The kit asks for an end at some time, and has no such counts.
func TestW13_SourceWithoutProgress(t *testing.T) {
	sink := new(scriptConn)
	c := NewConn(sink)
	body := pattern(10)
	for empty, want := range map[int]error{maxEmptyReads: nil, maxEmptyReads + 1: io.ErrNoProgress} {
		source := &scriptConn{reads: append(append(make([]step, maxEmptyReads), step{data: body}), make([]step, empty)...)}
		if n, err := c.ReadFrom(source); n != 10 || err != want {
			t.Errorf("ReadFrom: %d, %v; want %v", n, err, want)
		}
	}
	for _, n := range []int{-1, copySize + 1, math.MaxInt} {
		if m, err := c.ReadFrom(&scriptConn{reads: []step{{raw: true, n: n}}}); m != 0 || err == nil {
			t.Errorf("count %d: ReadFrom: %d, %v", n, m, err)
		}
	}
	put(t, c, body)
	mustFlush(t, c)
	sameBytes(t, "wire", sink.wire, bytes.Repeat(body, 3))
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

// W13, C3: Close ends a file that waits for its peer.
func TestW13_CloseEndsAFile(t *testing.T) {
	x, y := tcpPair(t)
	a, b := NewConn(x), NewConn(y)
	ended := make(chan error, 1)
	f := contents(t, nil)
	if err := os.Truncate(f.Name(), 64<<20); err != nil { // far more than fits the sockets' buffers
		t.Fatal(err)
	}
	go func() {
		_, err := a.ReadFrom(f)
		ended <- err
	}()
	if _, err := b.Peek(1); err != nil {
		t.Fatal(err)
	}
	a.Close()
	if err := <-ended; !errors.Is(err, net.ErrClosed) {
		t.Errorf("ReadFrom that Close ended: %v", err)
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
