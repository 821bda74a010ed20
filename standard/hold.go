package standard

import (
	"fmt"
	"sync"
	"time"
)

const (
	// DefaultFlushDelay is the default of Transporter.FlushDelay, and what holds for a
	// Conn that no Transporter accepted.
	DefaultFlushDelay = time.Millisecond

	// holdMost is how many bytes are held back at most.
	holdMost = 64 << 10

	// closeFlush bounds how long Close waits for a peer that does not read to take what
	// is held. It is what tlsconn gives its close_notify.
	closeFlush = 250 * time.Millisecond
)

// hold is what FlushSoon held back on one Conn, as a copy: nothing of the caller's is
// kept. A Conn has one from the first time on.
//
// Whoever holds mu may send it: the writer with its next Flush, the reader before it
// blocks, the timer, FlushHeld and Close. The writer alone adds to it. While out is nil
// nobody but the writer sends anything, so it needs mu only to look.
type hold struct {
	c     *Conn
	mu    sync.Mutex
	out   *output // nil is nothing
	timer *time.Timer
	err   error // sticky: why it could not be sent
}

// FlushSoon is a [Conn.Flush] that may be put off, so that many answers leave with one
// write. It is for the end of an answer when the next message is already buffered, that
// is when Len is not 0: the answer to that one then leaves together with this one.
//
// Output of less than 4 KiB is held back until the next Flush, Write or ReadFrom, until
// a read that would block or finds the end, until SetIdle(true), until OnData has returned
// nil and is not called again at once, until 64 KiB are held, until Close, or for
// [Transporter].FlushDelay, whichever is first. Whether a read would block is known of
// sockets on unix systems only: elsewhere, and over TLS, each read that the buffer does
// not serve counts as one. All other output is flushed at once. Nothing that was given to
// WriteBinary is kept [A10], and what Malloc returned is no longer the caller's, as after
// Flush.
//
// An error of what was held back is returned by the next Flush, FlushSoon, Write or ReadFrom,
// and stays [W8]. A read that would block fails then too, for no answer can be sent any
// more.
//
// It is a writer's method, for a protocol that reads and writes in one goroutine: a
// read may have to wait until the peer has taken what is held, within the write timeout.
func (c *Conn) FlushSoon() error {
	if c.out == nil || c.out.n >= borrowFrom || c.writeErr != nil {
		return c.Flush()
	}
	delay := DefaultFlushDelay
	if a := c.accepted; a != nil && a.t.FlushDelay != 0 {
		if delay = a.t.FlushDelay; delay < 0 {
			return c.Flush()
		}
	}
	h := c.held.Load()
	if h == nil {
		h = &hold{c: c}
		c.held.Store(h)
	}
	if h.add(delay) {
		return nil
	}
	return c.Flush()
}

// add moves what is pending to what is held. It reports false if that must be flushed.
func (h *hold) add(delay time.Duration) bool {
	c := h.c
	h.mu.Lock()
	defer h.mu.Unlock()
	// closed is looked at with mu held, so that either Close finds it here or Flush fails.
	if h.err != nil || c.closed.Load() || h.out != nil && h.out.n+c.out.n > holdMost {
		return false
	}
	if h.out == nil {
		h.out = outputs.Get().(*output)
		if h.timer == nil {
			h.timer = time.AfterFunc(delay, h.expire)
		} else {
			h.timer.Reset(delay)
		}
	}
	if a := c.accepted; a != nil {
		a.counts.flushes.Add(1)
	}
	h.join(h.out)
	return true
}

// expire is the timer's: the next message takes longer to answer.
func (h *hold) expire() {
	h.mu.Lock()
	defer h.mu.Unlock()
	_ = h.send() // it is kept
}

// take returns what is held, which is not nil, and holds nothing any more. mu is held.
func (h *hold) take() *output {
	o := h.out
	h.out = nil
	h.timer.Stop()
	return o
}

// send sends what is held. mu is held.
func (h *hold) send() error {
	if h.out == nil {
		return h.err
	}
	o := h.take()
	err := h.c.send(o)
	o.free()
	if err != nil {
		h.err = err
		h.c.accepted.failed(err)
	}
	return err
}

// flush is the writer's Flush on a connection that has a hold: what is held leaves first,
// and what is pending with it.
func (h *hold) flush() error {
	c := h.c
	h.mu.Lock()
	if h.out == nil || c.closed.Load() { // what is held then is Close's to send
		if c.writeErr == nil {
			c.writeErr = h.err
		}
		h.mu.Unlock()
		return c.flush()
	}
	defer h.mu.Unlock()
	if c.out == nil {
		c.writeErr = h.send()
		return c.writeErr
	}
	o := h.take()
	h.join(o)
	c.out = o
	return c.flush()
}

// join moves what is pending behind what o holds.
func (h *hold) join(o *output) {
	fewer := o.join(h.c.out)
	h.c.out = nil
	if a := h.c.accepted; a != nil {
		a.counts.saved.Add(uint64(fewer))
	}
}

// FlushHeld sends at once what [Conn.FlushSoon] held back, and nothing else: it may be
// called from any goroutine, while another one uses the writer's methods. An error is also
// that of the next Flush.
func (c *Conn) FlushHeld() error {
	h := c.held.Load()
	if h == nil {
		return nil
	}
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.send()
}

// sendHeld is FlushHeld before a read blocks.
func (c *Conn) sendHeld() error {
	if err := c.FlushHeld(); err != nil {
		// Not wrapped: it is no error of reading, and above all no timeout, after which
		// one might read again.
		return fmt.Errorf("output that was held back could not be sent: %v", err)
	}
	return nil
}

// holds reports whether something may be held.
func (c *Conn) holds() bool { return c.held.Load() != nil }

// closeHeld sends what is held, also what another goroutine is sending now, or gives it
// up when it has waited for closeFlush. The connection is marked as closed.
func (c *Conn) closeHeld() {
	h := c.held.Load()
	if h == nil {
		return
	}
	if !h.mu.TryLock() {
		if c.wr.setFinal(c, time.Now().Add(closeFlush)) != nil {
			return // nothing would bound it
		}
		h.mu.Lock()
	}
	defer h.mu.Unlock()
	if h.out == nil {
		return
	}
	if c.wr.setFinal(c, time.Now().Add(closeFlush)) != nil {
		h.take().free()
		return
	}
	_ = h.send() // whoever held it back has gone on
}
