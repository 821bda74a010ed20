package networktest

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"strings"
	"sync"
	"testing"
	"time"
)

var errBoom = errors.New("boom")

// allFaults are the faults set so that nothing goes wrong, or late.
var allFaults = map[string]func(net.Conn) net.Conn{
	"FaultScript":        func(c net.Conn) net.Conn { return FaultScript(c, nil, nil) },
	"FaultChunks":        func(c net.Conn) net.Conn { return FaultChunks(c, 1, 1000) },
	"FaultOneByte":       FaultOneByte,
	"FaultEmptyReads":    func(c net.Conn) net.Conn { return FaultEmptyReads(c, 0) },
	"FaultDataWithError": func(c net.Conn) net.Conn { return FaultDataWithError(c, 1<<40, nil) },
	"FaultShortWrite":    func(c net.Conn) net.Conn { return FaultShortWrite(c, 1e9, 0) },
	"FaultReadError":     func(c net.Conn) net.Conn { return FaultReadError(c, 1e9, errBoom) },
	"FaultWriteError":    func(c net.Conn) net.Conn { return FaultWriteError(c, 1e9, 0, errBoom) },
	"FaultReset":         func(c net.Conn) net.Conn { return FaultReset(c, 1<<40) },
	"FaultSlow":          func(c net.Conn) net.Conn { return FaultSlow(c, 0, 0) },
	"FaultStalled":       func(c net.Conn) net.Conn { return FaultStalled(c, 1<<40, 1<<40) },
	"FaultCount":         func(c net.Conn) net.Conn { return FaultCount(c, 1e9, -1) },
	"FaultClose":         func(c net.Conn) net.Conn { return FaultClose(c, nil) },
}

// waitsFor returns how f ends once free was called, and that it did not before.
func waitsFor(t *testing.T, free func(), f func() (int, error)) (int, error) {
	t.Helper()
	type result struct {
		n   int
		err error
	}
	done := make(chan result, 1)
	go func() {
		n, err := f()
		done <- result{n, err}
	}()
	select {
	case r := <-done:
		t.Fatalf("it did not wait: %d, %v", r.n, r.err)
	case <-time.After(20 * time.Millisecond):
	}
	free()
	r := <-done
	return r.n, r.err
}

// A fault whose moment never comes is a net.Conn like the one beneath, also one
// around all the others, with both directions, deadlines and Close.
func TestFaultsPassThrough(t *testing.T) {
	all := func(c net.Conn) net.Conn {
		for _, wrap := range allFaults {
			c = wrap(c)
		}
		return c
	}
	faults := map[string]func(net.Conn) net.Conn{"all": all}
	for name, wrap := range allFaults {
		faults[name] = wrap
	}
	for name, wrap := range faults {
		t.Run(name, func(t *testing.T) {
			data := pattern(10_000)
			x, y := tcpSockets(t)
			defer y.Close()
			c := wrap(x)
			var wg sync.WaitGroup
			wg.Go(func() { _, _ = io.Copy(y, io.LimitReader(y, int64(len(data)))) })
			wg.Go(func() {
				if n, err := c.Write(data); n != len(data) || err != nil {
					t.Errorf("Write: %d, %v", n, err)
				}
			})
			got := make([]byte, len(data))
			if _, err := io.ReadFull(c, got); err != nil || !bytes.Equal(got, data) {
				t.Errorf("what came back is not what was sent: %v", err)
			}
			wg.Wait()
			if c.LocalAddr() != x.LocalAddr() || c.RemoteAddr() != x.RemoteAddr() {
				t.Error("other addresses")
			}
			if n, err := c.Write(nil); n != 0 || err != nil {
				t.Errorf("Write(nil): %d, %v", n, err)
			}

			p := make([]byte, 10)
			n, err := waitsFor(t, func() { _ = c.SetDeadline(time.Unix(1, 0)) }, func() (int, error) { return c.Read(p) })
			if n != 0 || !errors.Is(err, os.ErrDeadlineExceeded) {
				t.Errorf("Read at its deadline: %d, %v", n, err)
			}
			if n, err := c.Write(p); n != 0 || !errors.Is(err, os.ErrDeadlineExceeded) {
				t.Errorf("Write after its deadline: %d, %v", n, err)
			}
			if err := c.SetDeadline(time.Time{}); err != nil {
				t.Error(err)
			}
			if err := c.(interface{ CloseWrite() error }).CloseWrite(); err != nil {
				t.Error(err)
			}
			if n, err := y.Read(p); n != 0 || err != io.EOF {
				t.Errorf("after CloseWrite: %d, %v", n, err)
			}
			n, err = waitsFor(t, func() { c.Close() }, func() (int, error) { return c.Read(p) })
			if n != 0 || !errors.Is(err, net.ErrClosed) {
				t.Errorf("Read that Close ended: %d, %v", n, err)
			}
			if n, err := c.Write(p); n != 0 || !errors.Is(err, net.ErrClosed) {
				t.Errorf("Write after Close: %d, %v", n, err)
			}
		})
	}
}

// What a fault makes up ends with Close and with the deadline.
func TestFaultsHeedCloseAndDeadlines(t *testing.T) {
	always := map[string]func(net.Conn) net.Conn{
		"FaultScript": func(c net.Conn) net.Conn {
			return FaultScript(c, make([]Step, 10), make([]Step, 10))
		},
		"FaultEmptyReads and FaultShortWrite": func(c net.Conn) net.Conn { return FaultShortWrite(FaultEmptyReads(c, -1), 0, 0) },
		"FaultDataWithError":                  func(c net.Conn) net.Conn { return FaultDataWithError(c, 0, nil) },
		"FaultReadError and FaultWriteError": func(c net.Conn) net.Conn {
			return FaultReadError(FaultWriteError(c, 0, 0, errBoom), 0, errBoom)
		},
		"FaultReset":   func(c net.Conn) net.Conn { return FaultReset(c, 0) },
		"FaultSlow":    func(c net.Conn) net.Conn { return FaultSlow(c, time.Hour, 1) },
		"FaultStalled": func(c net.Conn) net.Conn { return FaultStalled(c, 0, 0) },
		"FaultCount":   func(c net.Conn) net.Conn { return FaultCount(c, 0, -1) },
	}
	for name, wrap := range always {
		t.Run(name, func(t *testing.T) {
			c := wrap(&scriptConn{})
			p := make([]byte, 10)
			check := func(want error) {
				t.Helper()
				n, err := c.Read(p)
				if _, ok := err.(*net.OpError); name != "FaultDataWithError" && (n != 0 || !ok || !errors.Is(err, want)) {
					t.Errorf("Read: %d, %v", n, err)
				}
				if name == "FaultDataWithError" {
					return // it writes as usual
				}
				if n, err := c.Write(p); n != 0 || !errors.Is(err, want) {
					t.Errorf("Write: %d, %v", n, err)
				}
			}
			_ = c.SetDeadline(time.Unix(1, 0))
			check(os.ErrDeadlineExceeded)
			_ = c.SetDeadline(time.Time{})
			if name == "FaultSlow" || name == "FaultStalled" {
				for op, f := range map[string]func([]byte) (int, error){"Read": c.Read, "Write": c.Write} {
					start := time.Now()
					_ = c.SetDeadline(start.Add(20 * time.Millisecond))
					n, err := f(p)
					if n != 0 || !errors.Is(err, os.ErrDeadlineExceeded) || time.Since(start) < 20*time.Millisecond {
						t.Errorf("%s: %d, %v", op, n, err)
					}
					_ = c.SetDeadline(time.Time{})
					n, err = waitsFor(t, func() { _ = c.SetDeadline(time.Unix(1, 0)) }, func() (int, error) { return f(p) })
					if n != 0 || !errors.Is(err, os.ErrDeadlineExceeded) {
						t.Errorf("%s with a deadline set meanwhile: %d, %v", op, n, err)
					}
					_ = c.SetDeadline(time.Time{})
				}
				n, err := waitsFor(t, func() { c.Close() }, func() (int, error) { return c.Read(p) })
				if n != 0 || !errors.Is(err, net.ErrClosed) {
					t.Errorf("Read that Close ended: %d, %v", n, err)
				}
			}
			c.Close()
			check(net.ErrClosed)
		})
	}
}

func TestFaultScript(t *testing.T) {
	beneath := &scriptConn{reads: []Step{{Data: []byte("beneath")}}}
	reads := []Step{{Data: []byte("abc")}, {}, {Data: []byte("d"), Err: errBoom}, {N: -5, Exact: true}}
	c := FaultScript(beneath, reads, []Step{{N: 2}, {N: -1, Err: errBoom}, {N: 99, Exact: true}, {N: 99}})
	p := make([]byte, 2)
	for i, want := range []string{"ab nil", "c nil", " nil", "d boom", "-5 nil"} {
		n, err := c.Read(p)
		got := fmt.Sprint(n)
		if n >= 0 {
			got = string(p[:n])
		}
		if got += " nil"; err != nil {
			got = strings.TrimSuffix(got, "nil") + err.Error()
		}
		if got != want {
			t.Errorf("Read %d: %q, want %q", i, got, want)
		}
	}
	if n, err := io.ReadFull(c, p); n != 2 || err != nil || string(p) != "be" {
		t.Errorf("after the script: %d, %v", n, err)
	}
	for i, want := range []struct {
		n   int
		err error
	}{{2, nil}, {3, errBoom}, {99, nil}, {3, nil}, {3, nil}} {
		if n, err := c.Write([]byte("xyz")); n != want.n || err != want.err {
			t.Errorf("Write %d: %d, %v, want %+v", i, n, err, want)
		}
	}
	if got := string(beneath.sent()); got != "xyxyzxyzxyz" {
		t.Errorf("written: %q", got)
	}
	if string(reads[0].Data) != "abc" {
		t.Error("the caller's script was changed")
	}
}

func TestFaultChunks(t *testing.T) {
	data := pattern(5000)
	sizes := func(seed uint64) (reads, writes []int, beneath *scriptConn) {
		beneath = &scriptConn{reads: []Step{{Data: data}}}
		counted := &sizesConn{Conn: beneath}
		c := FaultChunks(counted, seed, 50)
		p := make([]byte, len(data))
		for at := 0; at < len(data); {
			n, err := c.Read(p[at:])
			if err != nil {
				t.Fatal(err)
			}
			reads = append(reads, n)
			at += n
		}
		if !bytes.Equal(p, data) {
			t.Error("other bytes were read")
		}
		if n, err := c.Write(data); n != len(data) || err != nil {
			t.Errorf("Write: %d, %v", n, err)
		}
		return reads, counted.writes, beneath
	}
	r1, w1, s := sizes(7)
	if !bytes.Equal(s.sent(), data) {
		t.Error("other bytes were written")
	}
	for _, got := range [][]int{r1, w1} {
		seen := map[int]bool{}
		for i, n := range got {
			if n < 1 || n > 50 {
				t.Errorf("a piece of %d bytes at %d of %d", n, i, len(got))
			}
			seen[n] = true
		}
		if len(seen) < 20 {
			t.Errorf("only %d different sizes", len(seen))
		}
	}
	r2, w2, _ := sizes(7)
	r3, _, _ := sizes(8)
	if fmt.Sprint(r1, w1) != fmt.Sprint(r2, w2) || fmt.Sprint(r1) == fmt.Sprint(r3) {
		t.Error("the seed does not tell the sizes")
	}

	// What fails beneath has an exact count.
	s = &scriptConn{writes: []Step{{N: -1}, {N: 3, Err: errBoom}}}
	c := FaultChunks(s, 1, 50)
	if n, err := c.Write(data); n != len(s.sent()) || err != errBoom {
		t.Errorf("Write: %d, %v; %d bytes left", n, err, len(s.sent()))
	}
}

// sizesConn notes how large the writes are.
type sizesConn struct {
	net.Conn
	writes []int
}

func (c *sizesConn) Write(p []byte) (int, error) {
	c.writes = append(c.writes, len(p))
	return c.Conn.Write(p)
}

func TestFaultOneByte(t *testing.T) {
	s := &scriptConn{reads: []Step{{Data: []byte("abc")}}}
	c := FaultOneByte(s)
	p := make([]byte, 10)
	for _, want := range "abc" {
		if n, err := c.Read(p); n != 1 || err != nil || p[0] != byte(want) {
			t.Errorf("Read: %d, %v", n, err)
		}
	}
	if n, err := c.Write([]byte("abc")); n != 3 || err != nil {
		t.Errorf("Write: %d, %v", n, err)
	}
	if _, writes := s.calls(); writes != 3 || string(s.sent()) != "abc" {
		t.Errorf("%d writes of %q", writes, s.sent())
	}
}

func TestFaultEmptyReads(t *testing.T) {
	c := FaultEmptyReads(&scriptConn{reads: []Step{{Data: []byte("a")}, {Data: []byte("b")}}}, 2)
	p := make([]byte, 10)
	for i, want := range []string{"", "", "a", "", "", "b", "", ""} {
		if n, err := c.Read(p); err != nil || string(p[:n]) != want {
			t.Errorf("Read %d: %q, %v", i, p[:n], err)
		}
	}
	if n, err := c.Read(p); n != 0 || err != io.EOF {
		t.Errorf("Read: %d, %v", n, err)
	}
	s := &scriptConn{}
	c = FaultEmptyReads(s, -1)
	for range 1000 {
		if n, err := c.Read(p); n != 0 || err != nil {
			t.Fatalf("Read: %d, %v", n, err)
		}
	}
	if reads, _ := s.calls(); reads != 0 {
		t.Errorf("%d reads beneath", reads)
	}
}

func TestFaultDataWithError(t *testing.T) {
	for _, end := range []error{nil, errBoom} {
		want := end
		if want == nil {
			want = io.EOF
		}
		c := FaultDataWithError(&scriptConn{reads: []Step{{Data: []byte("abcdef")}}}, 5, end)
		p := make([]byte, 3)
		if n, err := c.Read(p); n != 3 || err != nil {
			t.Errorf("Read: %d, %v", n, err)
		}
		if n, err := c.Read(p); string(p[:n]) != "de" || err != want {
			t.Errorf("Read: %q, %v", p[:n], err)
		}
		for range 2 {
			if n, err := c.Read(p); n != 0 || err != want {
				t.Errorf("Read: %d, %v", n, err)
			}
		}
	}
	c := FaultDataWithError(&scriptConn{}, 5, errBoom)
	if n, err := c.Read(make([]byte, 3)); n != 0 || err != io.EOF {
		t.Errorf("an earlier end: %d, %v", n, err)
	}
}

func TestFaultShortWrite(t *testing.T) {
	s := &scriptConn{}
	c := FaultShortWrite(s, 2, 2)
	for _, want := range []int{3, 2, 3} {
		if n, err := c.Write([]byte("abc")); n != want || err != nil {
			t.Errorf("Write: %d, %v, want %d", n, err, want)
		}
	}
	if got := string(s.sent()); got != "abcababc" {
		t.Errorf("written: %q", got)
	}
	c = FaultShortWrite(s, 0, 100)
	for range 2 {
		if n, err := c.Write([]byte("abc")); n != 2 || err != nil {
			t.Errorf("Write: %d, %v: it is not short", n, err)
		}
	}
}

func TestFaultReadError(t *testing.T) {
	c := FaultReadError(&scriptConn{reads: []Step{{Data: []byte("a")}, {Data: []byte("b")}}}, 2, errBoom)
	p := make([]byte, 10)
	for i, want := range []string{"a", "boom", "b", "EOF", "EOF"} {
		n, err := c.Read(p)
		if got := string(p[:n]); got != want && (err == nil || err.Error() != want) {
			t.Errorf("Read %d: %q, %v", i, got, err)
		}
	}
}

func TestFaultWriteError(t *testing.T) {
	s := &scriptConn{}
	c := FaultWriteError(s, 2, 1, errBoom)
	for _, want := range []struct {
		n   int
		err error
	}{{3, nil}, {1, errBoom}, {3, nil}} {
		if n, err := c.Write([]byte("abc")); n != want.n || err != want.err {
			t.Errorf("Write: %d, %v, want %+v", n, err, want)
		}
	}
	if got := string(s.sent()); got != "abcaabc" {
		t.Errorf("written: %q", got)
	}
	if n, err := FaultWriteError(s, 0, 99, errBoom).Write([]byte("abc")); n != 3 || err != errBoom {
		t.Errorf("Write: %d, %v", n, err)
	}
}

// A reset looks as that of a socket does, frees what waits, and cuts where it says.
func TestFaultReset(t *testing.T) {
	// As the net package gives it.
	x, y := tcpSockets(t)
	if _, err := y.Write([]byte("unread")); err != nil {
		t.Fatal(err)
	}
	_ = x.(*net.TCPConn).SetLinger(0)
	x.Close()
	p := make([]byte, 100)
	_, _ = y.Read(p)
	_, want := y.Read(p)
	y.Close()

	shape := func(err error) string {
		var s string
		for ; err != nil; err = errors.Unwrap(err) {
			s += fmt.Sprintf("%T ", err)
			if e, ok := err.(*os.SyscallError); ok {
				s += e.Syscall + " "
			}
		}
		return s
	}
	isReset := func(err error) {
		t.Helper()
		var e net.Error
		if !errors.Is(err, errReset) || !errors.As(err, &e) || e.Timeout() {
			t.Errorf("no reset: %v", err)
		}
	}
	s := &scriptConn{reads: []Step{{Data: []byte("abcdefgh")}}}
	c := FaultReset(s, 6)
	if n, err := c.Read(p[:2]); n != 2 || err != nil {
		t.Errorf("Read: %d, %v", n, err)
	}
	n, err := c.Write([]byte("xyzuvw"))
	if n != 4 || string(s.sent()) != "xyzu" {
		t.Errorf("Write: %d, with %q", n, s.sent())
	}
	isReset(err)
	n, err = c.Read(p)
	if n != 0 {
		t.Errorf("Read: %d", n)
	}
	isReset(err)
	if errors.Is(want, errReset) && shape(err) != shape(want) {
		t.Errorf("the error is %s; a socket's is %s", shape(err), shape(want))
	}

	// Reading up to the limit is no error, and frees a call that waits.
	x, y = tcpSockets(t)
	defer y.Close()
	c = FaultReset(x, 3)
	if _, err := y.Write([]byte("abc")); err != nil {
		t.Fatal(err)
	}
	if n, err := io.ReadFull(c, p[:3]); n != 3 || err != nil {
		t.Errorf("Read: %d, %v", n, err)
	}
	_, err = c.Write(p)
	isReset(err)
	x, y = tcpSockets(t)
	defer y.Close()
	c = FaultReset(x, 3)
	n, err = waitsFor(t, func() { _, _ = c.Write([]byte("xyz")) }, func() (int, error) { return c.Read(p) })
	if n != 0 {
		t.Errorf("Read: %d", n)
	}
	isReset(err)
	c.Close()
	if _, err := c.Read(p); !errors.Is(err, net.ErrClosed) {
		t.Errorf("Read after Close: %v", err)
	}
}

func TestFaultSlow(t *testing.T) {
	data := pattern(200)
	s := &scriptConn{reads: []Step{{Data: data}}}
	c := FaultSlow(s, 10*time.Millisecond, 4000)
	start := time.Now()
	got := make([]byte, len(data))
	if _, err := io.ReadFull(c, got); err != nil || !bytes.Equal(got, data) {
		t.Fatalf("Read: %v", err)
	}
	// The last piece of 10 ms is not waited for.
	if d := time.Since(start); d < 45*time.Millisecond {
		t.Errorf("200 bytes at 4000/s were read in %v", d)
	}
	start = time.Now()
	if n, err := c.Write(data); n != len(data) || err != nil || !bytes.Equal(s.sent(), data) {
		t.Errorf("Write: %d, %v", n, err)
	}
	if d := time.Since(start); d < 45*time.Millisecond {
		t.Errorf("200 bytes at 4000/s were written in %v", d)
	}
	if err := c.SetWriteDeadline(time.Now().Add(30 * time.Millisecond)); err != nil {
		t.Fatal(err)
	}
	before := len(s.sent())
	n, err := c.Write(data)
	if !errors.Is(err, os.ErrDeadlineExceeded) || n == len(data) || n != len(s.sent())-before {
		t.Errorf("Write to its deadline: %d, %v; %d bytes left", n, err, len(s.sent())-before)
	}
}

func TestFaultStalled(t *testing.T) {
	s := &scriptConn{reads: []Step{{Data: []byte("abcdef")}}}
	c := FaultStalled(s, 4, 2)
	p := make([]byte, 10)
	if n, err := c.Read(p); n != 4 || err != nil {
		t.Errorf("Read: %d, %v", n, err)
	}
	n, err := waitsFor(t, func() { _ = c.SetReadDeadline(time.Unix(1, 0)) }, func() (int, error) { return c.Read(p) })
	if n != 0 || !errors.Is(err, os.ErrDeadlineExceeded) {
		t.Errorf("Read: %d, %v", n, err)
	}
	n, err = waitsFor(t, func() { c.Close() }, func() (int, error) { return c.Write([]byte("xyz")) })
	if n != 2 || !errors.Is(err, net.ErrClosed) || string(s.sent()) != "xy" {
		t.Errorf("Write: %d, %v, with %q", n, err, s.sent())
	}
	s = &scriptConn{}
	c = FaultStalled(s, 0, -1)
	if n, err := c.Write(p); n != len(p) || err != nil {
		t.Errorf("Write: %d, %v", n, err)
	}
}

func TestFaultCount(t *testing.T) {
	for _, test := range []struct{ n, want int }{{-3, -3}, {minInt, minInt}, {1, 11}, {1 << 20, 1<<20 + 10}, {maxInt, maxInt}} {
		s := &scriptConn{reads: []Step{{Data: []byte("a")}, {Data: []byte("b")}}}
		c := FaultCount(s, 2, test.n)
		p := make([]byte, 10)
		for i, want := range []int{1, test.want, 1} {
			if n, err := c.Read(p); n != want || err != nil {
				t.Errorf("Read %d: %d, %v, want %d", i, n, err, want)
			}
		}
		for i, want := range []int{10, test.want, 10} {
			if n, err := c.Write(p); n != want || err != nil {
				t.Errorf("Write %d: %d, %v, want %d", i, n, err, want)
			}
		}
		if len(s.sent()) != 20 {
			t.Errorf("%d bytes were written", len(s.sent()))
		}
	}
}

func TestFaultSetAndClose(t *testing.T) {
	s := &scriptConn{}
	c := FaultClose(FaultSet(s, errBoom), io.ErrClosedPipe)
	for name, set := range map[string]func(time.Time) error{
		"SetDeadline": c.SetDeadline, "SetReadDeadline": c.SetReadDeadline, "SetWriteDeadline": c.SetWriteDeadline,
	} {
		if err := set(time.Now()); err != errBoom {
			t.Errorf("%s: %v", name, err)
		}
	}
	if n, err := c.Write([]byte("abc")); n != 3 || err != nil {
		t.Errorf("Write: %d, %v: the deadline was set", n, err)
	}
	if err := c.Close(); err != io.ErrClosedPipe || s.closes != 1 || s.nsets != 0 {
		t.Errorf("Close: %v, %d times beneath; %d Sets", err, s.closes, s.nsets)
	}
}
