package networktest

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"strconv"
	"strings"
	"time"

	"github.com/hertznet/hertznet/network"
)

func shortWrite(t *connCheck) {
	p := pattern(6000)
	for _, taken := range []int{0, 1, 9} {
		for _, way := range []string{"Flush of 10 and 5990 bytes", "Write of 6000 bytes", "ReadFrom of 6000 bytes"} {
			c, s := t.scripted()
			s.writes = []Step{{N: taken}}
			var err error
			switch rf, ok := c.(io.ReaderFrom); {
			case way[0] == 'F':
				t.malloc(c, p[:10])
				t.writeBinary(c, p[10:])
				t.step("%s, of which the conn beneath takes %d without an error", way, taken)
				err = c.Flush()
			case way[0] == 'W':
				t.step("%s, of which the conn beneath takes %d without an error", way, taken)
				_, err = c.Write(p)
			case ok:
				t.step("%s, of which the conn beneath takes %d without an error", way, taken)
				_, err = rf.ReadFrom(readerOf(bytes.NewReader(p)))
			default:
				continue
			}
			t.expect(errors.Is(err, io.ErrShortWrite), "io.ErrShortWrite", "%s", describeError(err))
		}
	}
}

// stays checks that a connection whose Flush has failed writes nothing any more.
func (t *connCheck) stays(c network.Conn, after string) {
	for range 2 {
		for _, try := range []struct {
			what string
			do   func() error
		}{
			{"a second Flush", c.Flush},
			{"Malloc and Flush", func() error {
				p, err := c.Malloc(3)
				if err == nil {
					copy(p, "abc")
					err = c.Flush()
				}
				return err
			}},
			{"WriteBinary and Flush", func() error {
				_, err := c.WriteBinary(make([]byte, 5000))
				if err == nil {
					err = c.Flush()
				}
				return err
			}},
			{"Write", func() error {
				_, err := c.Write([]byte("abc"))
				return err
			}},
		} {
			t.step("%s, after %s", try.what, after)
			t.expect(try.do() != nil, "an error again", "none")
		}
	}
}

// stallFlush fills c, whose peer does not read, until a Flush runs out of time,
// and returns the bytes that were meant to be sent. It reports false where that
// does not come about in some seconds: timeouts are the business of group T.
func (t *connCheck) stallFlush(c, peer network.Conn) (sent []byte, ok bool) {
	first := t.spawn(func() { t.receive(peer, 1) }) // a handshake there may be is over then
	_, err := c.Write([]byte{1})
	t.noError(err)
	t.wait(first)
	t.step("Flush to a peer that does not read, with a write timeout of 20ms")
	if c.SetWriteTimeout(20*time.Millisecond) != nil {
		return nil, false
	}
	p := pattern(1 << 20)
	flush := t.spawn(func() {
		for range 8 {
			for range 4 {
				if _, err = c.WriteBinary(p); err != nil {
					return
				}
				sent = append(sent, p...)
			}
			if err = c.Flush(); err != nil {
				return
			}
		}
	})
	select {
	case <-flush.done:
		return sent, err != nil
	case <-time.After(3 * time.Second):
		c.Close()
		t.wait(flush)
		return nil, false
	}
}

// W8: after a timeout, a peer that is gone, and a failure of the conn beneath.
func failedFlushStays(t *connCheck) {
	a, b := t.pair()
	if _, ok := t.stallFlush(a, b); ok {
		t.outflow(a, b)
		_ = a.SetWriteTimeout(0)
		t.stays(a, "a Flush that ran out of time")
	}

	a, b = t.pair()
	t.step("Flush again and again to a peer that has closed")
	b.Close()
	var err error
	for i := 0; i < 500 && err == nil; i++ {
		var p []byte
		if p, err = a.Malloc(1000); err == nil {
			copy(p, "to nobody")
			err = a.Flush()
			time.Sleep(time.Millisecond)
		}
	}
	if err != nil {
		t.stays(a, "a Flush to a peer that has closed")
	}
	if !t.canWrap() {
		return
	}
	p := pattern(6000)
	for _, taken := range []int{0, 1, 10} {
		c, s := t.scripted()
		s.writes = []Step{{N: taken, Err: errFault}}
		t.malloc(c, p[:10])
		t.writeBinary(c, p[10:])
		t.step("Flush of 6000 bytes, of which the conn beneath takes %d and fails", taken)
		err := c.Flush()
		t.expect(err != nil, "an error", "none")
		before := s.sent()
		t.stays(c, fmt.Sprintf("a Flush that failed when %d of 6000 bytes were sent", taken))
		now := s.sent()
		t.step("Flush and other writes, after a Flush that failed when %d of 6000 bytes were sent", taken)
		t.expect(len(now) == len(before), "nothing more to be sent", "%d more bytes", len(now)-len(before))
	}
	// A Write and a ReadFrom that failed by anything but a timeout stay failed, too.
	for _, way := range []string{"Write", "ReadFrom"} {
		c, s := t.scripted()
		s.writes = []Step{{N: 10, Err: errFault}}
		var err error
		t.step("%s of 6000 bytes, of which the conn beneath takes 10 and fails", way)
		if rf, ok := c.(io.ReaderFrom); way == "Write" {
			_, err = c.Write(p)
		} else if ok {
			_, err = rf.ReadFrom(readerOf(bytes.NewReader(p)))
		} else {
			continue
		}
		t.expect(err != nil, "an error", "none")
		before := s.sent()
		t.stays(c, fmt.Sprintf("a %s that failed when 10 of 6000 bytes were sent", way))
		t.step("Flush and other writes, after a %s that failed when 10 of 6000 bytes were sent", way)
		now := s.sent()
		t.expect(len(now) == len(before), "nothing more to be sent", "%d more bytes", len(now)-len(before))
	}
}

// W9: on sockets by a timeout, over a conn of the kit at every write that there is.
func prefixOfOutput(t *connCheck) {
	a, b := t.pair()
	if sent, ok := t.stallFlush(a, b); ok {
		var got []byte
		reading := t.spawn(func() { got, _ = io.ReadAll(readerOf(b)) })
		a.Close()
		t.wait(reading)
		t.expect(bytes.HasPrefix(sent, got), fmt.Sprintf("a prefix of the %d bytes to reach the peer", len(sent)), "%s", describeBytes(got, sent))
	}
	if !t.canWrap() {
		return
	}
	source := pattern(128 << 10)
	run := func(script ...Step) ([]byte, int, error) {
		c, s := t.scripted()
		s.writes = script
		at := 0
		next := func(n int) []byte {
			at += n
			return source[at-n : at]
		}
		act := func() error {
			for range 3 {
				for range 2 {
					for _, n := range []int{120, 300} {
						p, err := c.Malloc(n)
						if err != nil {
							return err
						}
						copy(p, next(n))
						if _, err := c.WriteBinary(next(5000 + n)); err != nil {
							return err
						}
					}
				}
				if err := c.Flush(); err != nil {
					return err
				}
				if _, err := c.Write(next(200)); err != nil {
					return err
				}
				if rf, ok := c.(io.ReaderFrom); ok {
					if _, err := rf.ReadFrom(readerOf(bytes.NewReader(next(400)))); err != nil {
						return err
					}
				}
			}
			return nil
		}
		err := act()
		c.Close()
		_, writes := s.calls()
		return s.sent(), writes, err
	}
	t.step("Malloc, WriteBinary, Flush, Write and so on")
	output, writes, err := run()
	t.noError(err)
	for k := range writes {
		for _, taken := range []int{0, 1, 100} {
			script := make([]Step, k+1)
			for i := range k {
				script[i].N = -1
			}
			script[k] = Step{N: taken, Err: errFault}
			t.step("Malloc, WriteBinary, Flush, Write and so on up to an error, with write %d of %d failing after %d bytes", k+1, writes, taken)
			wire, _, _ := run(script...)
			t.expect(bytes.HasPrefix(output, wire), fmt.Sprintf("a prefix of the %d bytes that are sent without the failure", len(output)), "%s", describeBytes(wire, output))
		}
	}
}

func impossibleWriteCount(t *connCheck) {
	p := pattern(6000)
	for _, n := range []int{-1, minInt, 1 << 20, maxInt} {
		for _, way := range []string{"Flush", "Write"} {
			c, s := t.scripted()
			s.writes = []Step{{N: n, Exact: true}}
			m := 0
			var err error
			if way == "Flush" {
				t.malloc(c, p[:10])
				t.writeBinary(c, p[10:])
			}
			t.step("%s of 6000 bytes, with a conn beneath that says it took %d", way, n)
			if way == "Flush" {
				err = c.Flush()
			} else {
				m, err = c.Write(p)
			}
			t.expect(err != nil, "an error", "none")
			t.expect(namesConn(err, n), "an error that names the conn beneath (*networktest.scriptConn) or the count", "%s", describeError(err))
			t.expect(m >= 0 && m <= len(p), "a count that can be", "%d", m)
		}
	}
}

// namesConn reports whether an error says who returned an impossible count.
func namesConn(err error, n int) bool {
	return strings.Contains(err.Error(), "scriptConn") || strings.Contains(err.Error(), strconv.Itoa(n))
}
