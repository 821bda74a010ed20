package standard

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"sync"
	"testing"
	"testing/synctest"
	"time"
)

// duplexEnd is one end of a connection in a schedule, with the models of both of
// its directions.
type duplexEnd struct {
	name string
	conn *Conn
	peer *duplexEnd

	pending []byte // added and not flushed
	sent    []byte // flushed, and not yet taken by the peer
	held    []heldSlice
}

// heldSlice is what Peek returned, and what it must stay until Release [A1].
type heldSlice struct{ got, want []byte }

// Random operations on both ends in turn, of which none can block: each end's
// reads must be what a model of the other's writes says, whatever is between
// [Z5]. Time passes at random, so that old timers fire between operations and
// during them.
func TestZ5_DuplexSchedule(t *testing.T) {
	for _, s := range sockets[:2] { // a pipe's Flush blocks until the peer reads
		for seed := range uint64(15) {
			t.Run(fmt.Sprint(s.name, "/", seed), func(t *testing.T) {
				an, bn := s.pair(t)
				duplexSchedule(t, NewConn(an), NewConn(bn), seed)
			})
		}
	}
	for seed := range uint64(5) {
		t.Run(fmt.Sprint("tls/", seed), func(t *testing.T) {
			a, b := overTLS2(t)
			duplexSchedule(t, a, b, seed)
		})
	}
}

func duplexSchedule(t *testing.T, a, b *Conn, seed uint64) {
	r := rand.New(rand.NewPCG(seed, 5))
	x, y := &duplexEnd{name: "a", conn: a}, &duplexEnd{name: "b", conn: b}
	x.peer, y.peer = y, x
	source := pattern(1 << 20)
	var log []string
	defer func() {
		if t.Failed() {
			t.Logf("schedule: %q", log)
		}
	}()
	for range 200 {
		e := x
		if r.IntN(2) == 0 {
			e = y
		}
		log = append(log, e.name+" "+e.step(t, r, source))
		e.checkHeld(t)
		if t.Failed() {
			return
		}
	}
	for _, e := range []*duplexEnd{x, y} {
		e.flush(t)
		log = append(log, e.peer.name+" reads the rest")
		e.conn.SetDeadline(time.Time{})
		e.peer.conn.SetReadTimeout(late)
		if got, err := e.peer.conn.ReadBinary(len(e.sent)); err != nil || !bytes.Equal(got, e.sent) {
			t.Errorf("%s: the last %d bytes: %v", e.peer.name, len(e.sent), err)
		}
		e.checkHeld(t)
	}
	a.Close()
	b.SetReadTimeout(late)
	if p, err := b.Peek(1); len(p) != 0 || err != io.EOF {
		t.Errorf("after Close the peer got %q, %v", p, err)
	}
}

// maxInFlight keeps what is sent and not read within any socket's buffers, so that
// no Flush blocks.
const maxInFlight = 24 << 10

// step performs one operation and returns what it was.
func (e *duplexEnd) step(t *testing.T, r *rand.Rand, source []byte) string {
	c, p := e.conn, e.peer
	room := maxInFlight - len(e.sent) - len(e.pending)
	size := func() int { // small ones, and ones about the copy threshold
		if r.IntN(3) > 0 {
			return min(room, r.IntN(64))
		}
		return min(room, r.IntN(3*borrowFrom))
	}
	some := func(n int) []byte {
		at := r.IntN(len(source) - n)
		return source[at : at+n]
	}
	// How many of the bytes that are on their way to take.
	count := func() int {
		if len(p.sent) == 0 || r.IntN(3) == 0 {
			return min(len(p.sent), r.IntN(16))
		}
		return 1 + r.IntN(len(p.sent))
	}
	switch r.IntN(18) {
	case 0, 1:
		b := some(size())
		m, err := c.Malloc(len(b))
		if err != nil {
			t.Errorf("Malloc: %v", err)
		}
		copy(m, b)
		e.pending = append(e.pending, b...)
		return fmt.Sprintf("Malloc(%d)", len(b))
	case 2, 3:
		b := some(size())
		if n, err := c.WriteBinary(b); n != len(b) || err != nil {
			t.Errorf("WriteBinary: %d, %v", n, err)
		}
		e.pending = append(e.pending, b...)
		return fmt.Sprintf("WriteBinary(%d)", len(b))
	case 4, 5:
		e.flush(t)
		return "Flush"
	case 6:
		b := some(size())
		if n, err := c.Write(b); n != len(b) || err != nil {
			t.Errorf("Write: %d, %v", n, err)
		}
		e.sent = append(append(e.sent, e.pending...), b...)
		e.pending = nil
		return fmt.Sprintf("Write(%d)", len(b))
	case 7:
		b := some(size())
		if n, err := c.ReadFrom(bytes.NewReader(b)); n != int64(len(b)) || err != nil {
			t.Errorf("ReadFrom: %d, %v", n, err)
		}
		e.sent = append(append(e.sent, e.pending...), b...)
		e.pending = nil
		return fmt.Sprintf("ReadFrom(%d)", len(b))
	case 8: // an echo of what was peeked, released before the Flush
		n := min(c.Len(), max(room, 0))
		b, err := c.Peek(n)
		if err != nil || !bytes.Equal(b, p.sent[:n]) {
			t.Errorf("Peek(%d) of buffered bytes: %v", n, err)
		}
		if _, err := c.WriteBinary(b); err != nil {
			t.Errorf("WriteBinary: %v", err)
		}
		e.pending = append(e.pending, p.sent[:n]...)
		e.release(t)
		return fmt.Sprintf("echo(%d)", n)
	case 9, 10:
		n := count()
		b, err := c.Peek(n)
		if err != nil || !bytes.Equal(b, p.sent[:n]) {
			t.Errorf("Peek(%d): %d bytes, %v", n, len(b), err)
		}
		e.held = append(e.held, heldSlice{b, bytes.Clone(b)})
		return fmt.Sprintf("Peek(%d)", n)
	case 11:
		n := count()
		if err := c.Skip(n); err != nil {
			t.Errorf("Skip(%d): %v", n, err)
		}
		p.sent = p.sent[n:]
		return fmt.Sprintf("Skip(%d)", n)
	case 12:
		n := count()
		b, err := c.ReadBinary(n)
		if err != nil || !bytes.Equal(b, p.sent[:n]) {
			t.Errorf("ReadBinary(%d): %d bytes, %v", n, len(b), err)
		}
		p.sent = p.sent[n:]
		return fmt.Sprintf("ReadBinary(%d)", n)
	case 13:
		if len(p.sent) == 0 {
			return "nothing"
		}
		b := make([]byte, 1+r.IntN(2*minBlockSize))
		n, err := c.Read(b)
		if n == 0 || err != nil || !bytes.HasPrefix(p.sent, b[:n]) {
			t.Errorf("Read(%d): %d, %v", len(b), n, err)
		}
		p.sent = p.sent[n:]
		return fmt.Sprintf("Read(%d)", len(b))
	case 14:
		if len(p.sent) == 0 {
			return "nothing"
		}
		b, err := c.ReadByte()
		if err != nil || b != p.sent[0] {
			t.Errorf("ReadByte: %v", err)
		}
		p.sent = p.sent[1:]
		return "ReadByte"
	case 15:
		e.release(t)
		return "Release"
	case 16: // more than there is, with little time
		c.SetReadTimeout(time.Duration(1 + r.IntN(int(time.Millisecond))))
		n := len(p.sent) + 1 + r.IntN(10)
		b, err := c.Peek(n)
		if b != nil || !isTimeout(err) {
			t.Errorf("Peek(%d) of %d: %d bytes, %v", n, len(p.sent), len(b), err)
		}
		what := fmt.Sprintf("Peek(%d) in vain, ", n)
		return what + e.setLimit(r)
	}
	return e.setLimit(r)
}

// setLimit leaves a limit that no operation of the schedule can reach, after others.
func (e *duplexEnd) setLimit(r *rand.Rand) string {
	c := e.conn
	if r.IntN(2) == 0 {
		c.SetDeadline(time.Now().Add(time.Duration(r.IntN(int(time.Millisecond)))))
	}
	switch r.IntN(3) {
	case 0:
		c.SetReadTimeout(0)
		c.SetWriteTimeout(0)
		return "no limit"
	case 1:
		c.SetReadTimeout(late)
		c.SetWriteTimeout(late)
		return "timeouts"
	}
	c.SetDeadline(time.Now().Add(time.Hour))
	return "a deadline"
}

func (e *duplexEnd) flush(t *testing.T) {
	if err := e.conn.Flush(); err != nil {
		t.Errorf("%s: Flush: %v", e.name, err)
	}
	e.sent = append(e.sent, e.pending...)
	e.pending = nil
}

func (e *duplexEnd) release(t *testing.T) {
	e.checkHeld(t)
	e.held = nil
	if err := e.conn.Release(); err != nil {
		t.Errorf("Release: %v", err)
	}
}

func (e *duplexEnd) checkHeld(t *testing.T) {
	for _, h := range e.held {
		if !bytes.Equal(h.got, h.want) {
			t.Errorf("%s: a held slice of %d bytes has changed", e.name, len(h.got))
		}
	}
}

// Both ends read and write at once, in random ways, with limits that are too short
// for reading and change all the time: every timeout is recovered from and no byte
// is lost, doubled or moved [Z5, T2]. The write limits are long: a Flush that timed
// out has failed for good.
func TestZ5_ConcurrentDuplex(t *testing.T) {
	for seed := range uint64(5) {
		t.Run(fmt.Sprint(seed), func(t *testing.T) {
			eachTransport(t, func(t *testing.T, a, b *Conn) { concurrentDuplex(t, a, b, seed) })
		})
	}
}

func concurrentDuplex(t *testing.T, a, b *Conn, seed uint64) {
	const size = 512 << 10
	body := pattern(size)
	var wg sync.WaitGroup
	for i, c := range []*Conn{a, b} {
		wg.Go(func() { // the writer's goroutine
			r := rand.New(rand.NewPCG(seed, uint64(10+i)))
			for p := body; len(p) > 0; {
				n := min(len(p), 1+r.IntN(40<<10))
				switch r.IntN(4) {
				case 0:
					c.SetWriteTimeout(0)
				case 1:
					c.SetWriteTimeout(late + time.Duration(r.IntN(1000)))
				}
				if err := writeSome(c, p[:n], r); err != nil {
					t.Errorf("write: %v", err)
					c.Close()
					return
				}
				if p = p[n:]; r.IntN(8) == 0 {
					time.Sleep(time.Duration(r.IntN(300)) * time.Microsecond)
				}
			}
		})
		wg.Go(func() { // the reader's
			r := rand.New(rand.NewPCG(seed, uint64(20+i)))
			timeouts := 0
			for at := 0; at < size; {
				switch r.IntN(4) {
				case 0:
					c.SetReadTimeout(time.Duration(1+r.IntN(200)) * time.Microsecond)
				case 1:
					c.SetReadTimeout(late)
				case 2:
					c.SetReadDeadline(time.Now().Add(time.Duration(r.IntN(200)) * time.Microsecond))
				}
				n, err := readSome(c, body[at:], r)
				at += n
				switch {
				case isTimeout(err):
					isTimeoutShape(t, err)
					if timeouts++; timeouts%100 == 0 {
						c.SetReadTimeout(late) // the writer may be slow: get on
					}
				case err != nil:
					t.Errorf("read at %d: %v", at, err)
					c.Close()
					return
				}
			}
		})
	}
	wg.Wait()
	for _, c := range []*Conn{a, b} {
		if n := c.Len(); n != 0 {
			t.Errorf("%d bytes too many", n)
		}
	}
}

// On a pipe, where everything happens at an exact time, two ends hold a conversation
// in random steps with random pauses. Each side's timeout is shorter or longer than
// the pause of the other: it ends at its time or not at all [Z5, T1, T4].
func TestZ5_ConversationAtExactTimes(t *testing.T) {
	for seed := range uint64(100) {
		synctest.Test(t, func(t *testing.T) {
			r := rand.New(rand.NewPCG(seed, 30))
			an, bn := pipePair(t)
			a, b := NewConn(an), NewConn(bn)
			source := pattern(64 << 10)
			for range 30 {
				n := 1 + r.IntN(20000)
				pause := time.Duration(r.IntN(1000)) * time.Millisecond
				limit := time.Duration(r.IntN(1000))*time.Millisecond + time.Millisecond/2
				body := source[:n]
				done := make(chan error, 1)
				go func() {
					time.Sleep(pause)
					_, err := b.WriteBinary(body)
					done <- errors.Join(err, b.Flush())
				}()
				start := time.Now()
				a.SetReadTimeout(limit)
				p, err := a.Peek(n)
				took := time.Since(start)
				if limit < pause {
					wantTimeout(t, err)
					if took != limit {
						t.Fatalf("seed %d: a limit of %v ended after %v", seed, limit, took)
					}
					p, err = readUntil(a, n)
				} else if took != pause {
					t.Fatalf("seed %d: a pause of %v ended after %v", seed, pause, took)
				}
				if err != nil || !bytes.Equal(p, body) {
					t.Fatalf("seed %d: %d of %d bytes, %v", seed, len(p), n, err)
				}
				if err := <-done; err != nil {
					t.Fatalf("seed %d: %v", seed, err)
				}
				a.Skip(n)
				if r.IntN(2) == 0 {
					a.Release()
				}
				if r.IntN(2) == 0 {
					a, b = b, a
				}
			}
		})
	}
}

// readUntil peeks n bytes, however many timeouts that takes.
func readUntil(c *Conn, n int) ([]byte, error) {
	for {
		p, err := c.Peek(n)
		if !isTimeout(err) {
			return p, err
		}
	}
}
