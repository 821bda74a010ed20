package standard

import (
	"errors"
	"fmt"
	"io"
	"math"
	"os"
	"strings"
	"syscall"
	"testing"
	"time"
)

// What faults of the conn beneath come to is what group F of the kit checks. Here is
// what this implementation promises beyond that: exact numbers of reads, that errors
// stay, and what they are called.

// F1: a hundred reads in a row may bring nothing, and one more is the end. The kit
// checks the number from one side only.
func TestF1_ExactlyAHundredEmptyReads(t *testing.T) {
	data := []byte("abc")
	for _, large := range []bool{false, true} { // large reads go past the ring
		read := func(c *Conn) error {
			if !large {
				_, err := c.Peek(3)
				return err
			}
			_, err := c.Read(make([]byte, 2*minBlockSize))
			return err
		}
		c, s := scripted(append(make([]step, maxEmptyReads), step{data: data})...)
		if err := read(c); err != nil || s.nreads != maxEmptyReads+1 {
			t.Errorf("a hundred empty reads: %v after %d reads", err, s.nreads)
		}
		// A timeout begins the count again.
		c, _ = scripted(append(append(make([]step, maxEmptyReads), step{err: os.ErrDeadlineExceeded}), append(make([]step, maxEmptyReads), step{data: data})...)...)
		wantTimeout(t, read(c))
		if err := read(c); err != nil {
			t.Errorf("after a timeout: %v", err)
		}
		c, s = scripted(append(make([]step, maxEmptyReads+1), step{data: data})...)
		for range 3 {
			if err := read(c); err != io.ErrNoProgress {
				t.Errorf("%d empty reads: %v", maxEmptyReads+1, err)
			}
		}
		if s.nreads != maxEmptyReads+1 {
			t.Errorf("%d reads, want %d: the error stays", s.nreads, maxEmptyReads+1)
		}
	}
}

// F2 to F5, R7, R8: any error but a timeout stays, whoever asks and whatever might
// come after it: it is the very value that the conn beneath returned, and the conn
// is not read again. What is buffered stays too.
func TestF4_ReadErrorsStay(t *testing.T) {
	data := pattern(100)
	for _, end := range []error{io.EOF, io.ErrUnexpectedEOF, syscall.ECONNRESET, errors.New("own")} {
		for _, with := range []bool{false, true} { // it comes with the last bytes
			for first := range readerOps {
				steps := []step{{data: data[:50]}, {data: data[50:]}, {err: end}, {data: data}}
				reads := 3
				if with {
					steps, reads = []step{{data: data[:50]}, {data: data[50:], err: end}, {data: data}}, 2
				}
				c, s := scripted(steps...)
				mustPeek(t, c, 100, data)
				if first < 3 { // with a count: ask for more than there is
					if _, err := readerOps[first].do(c, 101); err != end {
						t.Fatalf("%s met %v, want %v", readerOps[first].name, err, end)
					}
					mustPeek(t, c, c.Len(), data)
				}
				mustSkip(t, c, c.Len())
				for i := range 2 * len(readerOps) {
					op := readerOps[(first+i)%len(readerOps)]
					if b, err := op.do(c, 1); len(b) != 0 || err != end {
						t.Fatalf("%s after %v: %d bytes, %v", op.name, end, len(b), err)
					}
				}
				if s.nreads != reads {
					t.Errorf("%v: %d reads, want %d", end, s.nreads, reads)
				}
			}
		}
	}
}

// F3: a timeout that comes with bytes is none.
func TestF3_TimeoutWithBytes(t *testing.T) {
	c, _ := scripted(step{data: []byte("ab"), err: os.ErrDeadlineExceeded}, step{data: []byte("c"), err: os.ErrDeadlineExceeded}, step{data: []byte("next")})
	for _, want := range []string{"abc", "next"} {
		if b, err := c.ReadBinary(len(want)); err != nil || string(b) != want {
			t.Fatalf("%q, %v; want %q", b, err, want)
		}
	}
}

// F5: the error of an impossible count tells the conn beneath, its method and the
// count, whatever error came with the count, and stays. The kit is content with less.
func TestF5_ImpossibleCounts(t *testing.T) {
	for _, n := range []int{-1, math.MinInt, math.MaxInt, 1 << 24} {
		for _, with := range []error{nil, io.EOF, os.ErrDeadlineExceeded} {
			for _, op := range readerOps {
				c, s := scripted(step{raw: true, n: n, err: with}, step{data: pattern(100)})
				_, first := op.do(c, 1)
				if first == nil || !strings.Contains(first.Error(), fmt.Sprintf("*standard.scriptConn.Read returned the count %d", n)) {
					t.Errorf("%s with %v: %v", op.name, with, first)
				}
				if _, err := op.do(c, 1); err != first || s.nreads != 1 || c.Len() != 0 {
					t.Errorf("%s, then %v after %d reads with Len %d", op.name, err, s.nreads, c.Len())
				}
			}
		}
	}
}

// F6: a read whose time limit the conn beneath refuses is not made, so nothing is
// lost: without a limit it goes on.
func TestF6_RefusedReadTimerLosesNothing(t *testing.T) {
	errSet := errors.New("cannot set")
	data := pattern(100)
	c, s := scripted(step{data: data}, step{data: data})
	mustPeek(t, c, 100, data)
	s.setErr = errSet
	// A timeout is set by the operation that needs it.
	if err := c.SetReadTimeout(time.Hour); err != nil {
		t.Errorf("SetReadTimeout: %v", err)
	}
	mustPeek(t, c, 100, data)
	for _, op := range readerOps[:3] {
		if b, err := op.do(c, 101); b != nil || err != errSet {
			t.Errorf("%s: %d bytes, %v; want %v", op.name, len(b), err, errSet)
		}
		if op.name == "Skip" {
			break // it took what was there
		}
		mustPeek(t, c, 100, data)
	}
	if s.nreads != 1 {
		t.Errorf("%d reads: one was made without its time limit", s.nreads)
	}
	if err := c.SetReadTimeout(0); err != nil {
		t.Fatal(err)
	}
	mustPeek(t, c, 100, data)
}
