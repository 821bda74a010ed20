package networktest

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"strings"
	"syscall"
	"time"

	"github.com/hertznet/hertznet/network"
)

var faultCases = []connCase{
	{"F1", 0, emptyReads},
	{"F2", 0, dataWithEOF},
	{"F3", 0, dataWithError},
	{"F4", 0, everyReadFails},
	{"F5", 0, impossibleReadCount},
	{"F6", 0, failingSetAndClose},
}

// faultTake is a way to take the next n bytes. What Skip passes over is not seen.
type faultTake struct {
	name string
	do   func(c network.Conn, n int) ([]byte, error)
}

var faultTakes = []faultTake{
	{"Peek", func(c network.Conn, n int) ([]byte, error) {
		p, err := c.Peek(n)
		if err != nil {
			return nil, err
		}
		p = bytes.Clone(p)
		if err := c.Skip(n); err != nil {
			return nil, err
		}
		return p, c.Release()
	}},
	{"ReadBinary", func(c network.Conn, n int) ([]byte, error) { return c.ReadBinary(n) }},
	{"Read", func(c network.Conn, n int) ([]byte, error) {
		p := make([]byte, n)
		n, err := io.ReadFull(readerOf(c), p)
		return p[:n], err
	}},
	{"ReadByte", func(c network.Conn, n int) (p []byte, err error) {
		for len(p) < n && err == nil {
			var b byte
			if b, err = c.ReadByte(); err == nil {
				p = append(p, b)
			}
		}
		return p, err
	}},
	{"Skip", func(c network.Conn, n int) ([]byte, error) { return nil, c.Skip(n) }},
}

// faultTakes leaves out Skip where it does not read: that is the business of R15.
func (t *connCheck) faultTakes() []faultTake {
	c, _ := t.scripted(Step{Data: []byte("abc")})
	t.step("Skip of 3 bytes that have arrived")
	if c.Skip(3) != nil {
		return faultTakes[:len(faultTakes)-1]
	}
	return faultTakes
}

// F1. No script is endless, but no one should ask ten thousand times.
func emptyReads(t *connCheck) {
	for _, take := range t.faultTakes() {
		var script []Step
		for _, b := range []string{"a", "b", "c"} {
			script = append(append(script, make([]Step, 100)...), Step{Data: []byte(b)})
		}
		c, _ := t.scripted(script...)
		t.step("%s of 3 bytes, each after 100 reads of (0, nil)", take.name)
		p, err := take.do(c, 3)
		t.expect(err == nil && (take.name == "Skip" || string(p) == "abc"), "the 3 bytes", "%q and %s", p, describeError(err))

		c, s := t.scripted(append(make([]Step, 10_000), Step{Err: errStillAsked})...)
		t.step("%s of 3 bytes, with reads of (0, nil) without end", take.name)
		p, err = take.do(c, 3)
		reads, _ := s.calls()
		t.expect(errors.Is(err, io.ErrNoProgress) && len(p) == 0, "io.ErrNoProgress", "%d bytes and %s, after %d reads", len(p), describeError(err), reads)
	}
}

func dataWithEOF(t *connCheck) { t.dataWith(io.EOF) }

func dataWithError(t *connCheck) { t.dataWith(errFault) }

// dataWith has the last bytes come with an error, after which there is nothing to
// be had but an error.
func (t *connCheck) dataWith(end error) {
	for _, take := range t.faultTakes() {
		for _, script := range [][]Step{
			{{Data: []byte("abc"), Err: end}},
			{{Data: []byte("ab")}, {Data: []byte("c"), Err: end}},
		} {
			c, _ := t.scripted(append(script, Step{Data: []byte("lost")})...)
			t.step("%s of 3 bytes that come together with %v", take.name, end)
			p, err := take.do(c, 3)
			t.expect(err == nil && (take.name == "Skip" || string(p) == "abc"), "the 3 bytes without an error", "%q and %s", p, describeError(err))
			t.step("%s of one byte more, after all of them came together with %v", take.name, end)
			p, err = take.do(c, 1)
			t.expect(err != nil && len(p) == 0, "the error", "%q and %s", p, describeError(err))
		}
	}
	c, _ := t.scripted(Step{Data: []byte("abc"), Err: end})
	t.step("Peek(4) where 3 bytes come together with %v", end)
	_, err := c.Peek(4)
	t.expect(err != nil, "the error", "none")
	t.step("ReadByte, after a Peek(4) where 3 bytes came together with %v", end)
	for _, want := range []byte("abc") {
		b, err := c.ReadByte()
		t.expect(err == nil && b == want, fmt.Sprintf("%q", want), "%q and %s", b, describeError(err))
	}
}

// F4: a read that fails at the k-th call, for every k. After a timeout the stream
// goes on; any other error comes after the bytes before it, which stay.
func everyReadFails(t *connCheck) {
	t.lostPeer()
	const size = 1111
	data := pattern(12_000)
	var chunks []Step
	for at := 0; at < len(data); at += size {
		chunks = append(chunks, Step{Data: data[at:min(at+size, len(data))]})
	}
	sizes := []int{1, 3, 1000, 4096, 3000}
	for k := range len(chunks) {
		for _, take := range faultTakes[:4] {
			for _, end := range []error{os.ErrDeadlineExceeded, errFault} {
				script := append(append(chunks[:k:k], Step{Err: end}), chunks[k:]...)
				c, _ := t.scripted(script...)
				var got []byte
				var err error
				failures := 0
				for i := 0; len(got) < len(data); i++ {
					n := min(sizes[i%len(sizes)], len(data)-len(got))
					t.step("%s of %d bytes at byte %d, where the conn beneath fails at read %d, after %d bytes, with %v", take.name, n, len(got), k+1, k*size, end)
					var p []byte
					p, err = take.do(c, n)
					got = append(got, p...)
					if err == nil {
						continue
					}
					failures++
					if end == errFault || failures > 3 {
						break
					}
				}
				if end != errFault {
					t.expect(bytes.Equal(got, data), "all bytes, with the calls made again after the timeout", "%s, and then %s", describeBytes(got, data), describeError(err))
					continue
				}
				t.expect(errors.Is(err, errFault), "the error", "%s, at byte %d", describeError(err), len(got))
				rest, err := c.Peek(c.Len())
				t.noError(err)
				got = append(got, rest...)
				t.expect(bytes.Equal(got, data[:k*size]), fmt.Sprintf("the %d bytes before the error", k*size), "%s", describeBytes(got, data))
			}
		}
	}
}

// lostPeer is a read that fails with ETIMEDOUT, by which TCP gives up a peer. It says
// Timeout() true, and is no time limit's.
func (t *connCheck) lostPeer() {
	lost := &net.OpError{Op: "read", Net: "tcp", Err: os.NewSyscallError("read", syscall.ETIMEDOUT)}
	data := pattern(10)
	for _, take := range faultTakes[:4] {
		c, _ := t.scripted(Step{Data: data[:5]}, Step{Err: lost}, Step{Data: data[5:]})
		_, err := take.do(c, 5)
		t.noError(err)
		for range 2 {
			t.step("%s of 1 byte, again and again, where the conn beneath fails once with %v", take.name, lost)
			p, err := take.do(c, 1)
			t.expect(len(p) == 0 && errors.Is(err, syscall.ETIMEDOUT) && !errors.Is(err, os.ErrDeadlineExceeded), "that error each time, since it is not the read timeout's", "%d bytes and %s", len(p), describeError(err))
		}
	}
}

func impossibleReadCount(t *connCheck) {
	data := pattern(100)
	takes := t.faultTakes()
	for _, n := range []int{-1, minInt, 1 << 24, maxInt} {
		for _, take := range takes {
			for _, before := range []int{0, 100} {
				c, _ := t.scripted(Step{Data: data[:before]}, Step{N: n, Exact: true}, Step{Data: data})
				if before > 0 {
					t.peek(c, data)
					if take.name != "Peek" && take.name != "ReadBinary" {
						t.skip(c, before)
					}
				}
				have := c.Len()
				t.step("%s of %d bytes with %d buffered, where the conn beneath returns the count %d", take.name, have+1, have, n)
				p, err := take.do(c, have+1)
				t.expect(err != nil && len(p) == 0, "an error and no bytes", "%d bytes and %s", len(p), describeError(err))
				t.expect(namesConn(err, n), "an error that names the conn beneath (*networktest.scriptConn) or the count", "%s", describeError(err))
				t.expect(c.Len() == have, fmt.Sprintf("Len to stay %d", have), "%d", c.Len())
			}
		}
	}
}

// F6. A timeout may be given to the conn beneath as late as in the operation that
// needs it, whose error it then is.
func failingSetAndClose(t *connCheck) {
	later := time.Now().Add(time.Hour)
	for _, set := range []struct {
		name        string
		do          func(c network.Conn) error
		read, write bool
	}{
		{"SetReadTimeout(1h)", func(c network.Conn) error { return c.SetReadTimeout(time.Hour) }, true, false},
		{"SetWriteTimeout(1h)", func(c network.Conn) error { return c.SetWriteTimeout(time.Hour) }, false, true},
		{"SetReadDeadline in 1h", func(c network.Conn) error { return c.SetReadDeadline(later) }, true, false},
		{"SetWriteDeadline in 1h", func(c network.Conn) error { return c.SetWriteDeadline(later) }, false, true},
		{"SetDeadline in 1h", func(c network.Conn) error { return c.SetDeadline(later) }, true, true},
	} {
		c, s := t.scripted(Step{Data: []byte("abc")})
		s.mu.Lock()
		s.setErr = errFault
		s.mu.Unlock()
		did := []string{set.name}
		err := set.do(c)
		if err == nil && set.read {
			did = append(did, "Peek(1)")
			_, err = c.Peek(1)
		}
		if err == nil && set.write {
			did = append(did, "Write")
			_, err = c.Write([]byte("abc"))
		}
		s.mu.Lock()
		asked := s.nsets > 0
		s.mu.Unlock()
		if !asked {
			continue // timers of its own, perhaps: there is nothing that it could pass on
		}
		t.step("%s, where the conn beneath refuses deadlines", strings.Join(did, ", then "))
		t.expect(errors.Is(err, errFault), "its error", "%s", describeError(err))
	}
	c, s := t.scripted()
	s.closeErr = errFault
	t.step("Close, where Close of the conn beneath fails")
	err := c.Close()
	t.expect(errors.Is(err, errFault), "its error", "%s", describeError(err))
}
