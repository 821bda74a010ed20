package standard

import "io"

// Len returns the number of bytes that Peek and Skip can have without I/O [R21].
func (c *Conn) Len() int { return c.in.len() }

// Peek returns the next n bytes without passing over them, reading until they
// are there. The slice is the connection's memory: it is valid and unchanged
// until Release, and its capacity is n [R1, A1].
//
// Peek of n <= Len never fails and does no I/O. At the end of the stream it
// returns the bytes that are left, fewer than n, and a bare io.EOF [R6]. On any
// other error it returns nil, and the bytes that came stay buffered [R28]. Memory
// grows with the bytes that arrive, not with n [R11]; a Peek that would need more
// than [Transporter].MaxReadBuffer ends with [ErrReadBufferFull]. n < 0 is
// [ErrNegativeCount]; Peek(0) is an empty slice and no error, always [R4, R5].
func (c *Conn) Peek(n int) ([]byte, error) {
	if uint(n) <= uint(c.in.len()) {
		return c.in.peek(n), nil
	}
	return c.peekMore(n)
}

func (c *Conn) peekMore(n int) ([]byte, error) {
	if n < 0 {
		return nil, ErrNegativeCount
	}
	err := c.fill(n)
	if err == nil {
		return c.in.peek(n), nil
	}
	if err == io.EOF {
		return c.in.peek(c.in.len()), err
	}
	return nil, err
}

// Skip passes over the next n bytes, reading those that are not buffered yet. It
// holds one block at most, however large n is [R15]. When it fails, with a bare
// io.EOF at the end, the bytes that had come are passed over and the rest are not.
// n < 0 is [ErrNegativeCount] and skips nothing [R14].
func (c *Conn) Skip(n int) error {
	if uint(n) <= uint(c.in.len()) {
		c.in.skip(n)
		return nil
	}
	if n < 0 {
		return ErrNegativeCount
	}
	defer c.endRead()
	for first := true; ; first = false {
		have := min(n, c.in.len())
		c.in.skip(have)
		n -= have
		if n == 0 {
			return nil
		}
		if err := c.readMore(1, first); err != nil {
			return err
		}
	}
}

// ReadByte returns the next byte and passes over it; a bare io.EOF at the end [R16].
func (c *Conn) ReadByte() (byte, error) {
	if c.in.len() == 0 {
		if err := c.fill(1); err != nil {
			return 0, err
		}
	}
	return c.in.readByte(), nil
}

// ReadBinary returns a copy of the next n bytes, which is the caller's own and
// outlives Release, and passes over them [R17]. If they do not all come it
// returns nil and the error (a bare io.EOF at the end), and passes over none
// [R19]. Memory and errors are otherwise as for [Conn.Peek]. n < 0 is
// [ErrNegativeCount].
func (c *Conn) ReadBinary(n int) ([]byte, error) {
	if n < 0 {
		return nil, ErrNegativeCount
	}
	if n > c.in.len() {
		if err := c.fill(n); err != nil {
			return nil, err
		}
	}
	p := make([]byte, n)
	c.in.read(p)
	return p, nil
}

// Read implements net.Conn. It returns what is buffered without blocking, else
// waits for at least one byte; it never returns (0, nil) for a non-empty p, and no
// byte with an error [R24]. It is safe for any number of goroutines that use no other
// reader's method. p is not kept [A12].
func (c *Conn) Read(p []byte) (int, error) {
	if len(p) == 0 {
		return 0, nil
	}
	c.readMu.Lock()
	defer c.readMu.Unlock()
	if n := c.in.read(p); n > 0 {
		return n, nil
	}
	if len(p) >= minBlockSize {
		// As large as a block: reading straight to p saves the copy.
		defer c.endRead()
		return c.readTo(p, 0, true)
	}
	if err := c.fill(1); err != nil {
		return 0, err
	}
	return c.in.read(p), nil
}

// Release ends the life of every slice that Peek returned and gives back the
// memory that holds nothing unread. Unread bytes stay. It may be called at any
// time and never fails [R22, R23]. A stream of which nothing is Peeked needs no
// Release.
func (c *Conn) Release() error {
	c.in.release()
	return nil
}

// fill reads until n bytes are unread.
func (c *Conn) fill(n int) error {
	defer c.endRead()
	for first := true; c.in.len() < n; first = false {
		if err := c.readMore(n, first); err != nil {
			return err
		}
	}
	return nil
}

// readMore reads once into the ring, for an operation that wants need bytes to be
// unread. Only the first read of an operation may find out by itself that it
// blocks: a peer that is never late by a byte must not outlive the limit [T12].
func (c *Conn) readMore(need int, first bool) error {
	if a := c.accepted; a != nil && a.t.MaxReadBuffer > 0 && need > a.t.MaxReadBuffer {
		return a.overflowed()
	}
	n, err := c.readTo(nil, need, first)
	c.in.commit(n)
	if err != nil {
		c.in.vacate() // a connection that has ended may never be Released
	}
	return err
}

// readTo reads at least one byte to p, or to the ring if p is nil, and returns an
// error only with no byte.
func (c *Conn) readTo(p []byte, need int, first bool) (int, error) {
	if c.closed.Load() {
		return 0, c.closedError("read")
	}
	if c.readErr != nil {
		return 0, c.readErr
	}
	if !c.readsRaw() {
		// Only the conn beneath knows whether it is going to block.
		switch err := c.sendHeld(); {
		case err == nil:
		case c.closed.Load():
			return 0, c.closedError("read")
		default:
			c.readErr = opError("read", c.nc, err)
			return 0, c.readErr
		}
	}
	if !first || !c.readsRaw() { // else the rawReader begins, if the read blocks
		if err := c.beginRead(); err != nil {
			return 0, err // nothing was read, nothing is lost [F6]
		}
	}
	for empty := 0; empty <= maxEmptyReads; empty++ {
		n, err := c.readOnce(p, need)
		switch {
		case n > 0:
			if c.overTLS {
				c.overTLS = false
				c.rd.mark(timerExact, false)
			}
			if err != nil && !isTimeout(err) {
				c.readErr = err // the data first [F2, F3]
			}
			c.accepted.read(n)
			if p := c.pace; p != nil {
				p.got += int64(n)
			}
			return n, nil
		case err == nil:
			continue
		case c.closed.Load():
			return 0, c.closedError("read")
		case isTimeout(err) && c.dismissed():
			return 0, c.closedError("read")
		case isTimeout(err):
			over, armErr := c.expired()
			if armErr != nil {
				return 0, armErr
			}
			if over {
				c.accepted.timedOut(c.pace.tooSlow())
				return 0, timeoutError("read", c.nc, err)
			}
			empty = -1
		default:
			c.readErr = err
			c.accepted.failed(err)
			return 0, err
		}
	}
	c.readErr = io.ErrNoProgress
	c.accepted.failed(c.readErr)
	return 0, c.readErr
}

// readOnce is one read of the conn beneath, held to the contract of io.Reader.
func (c *Conn) readOnce(p []byte, need int) (int, error) {
	if c.readsRaw() {
		return c.readRaw(p, need)
	}
	if p == nil {
		p = c.in.space(need)
	}
	n, err := c.nc.Read(p)
	if n < 0 || n > len(p) {
		return 0, countError("Read", c.nc, n, len(p))
	}
	return n, err
}

// readsRaw reports whether reads wait for readiness, without a buffer.
func (c *Conn) readsRaw() bool { return c.sys != nil }

// beginRead is called by a reading operation before it may block.
func (c *Conn) beginRead() error {
	if p := c.pace; p != nil {
		exact := p.on.Load() && c.rd.is(timerExact)
		if p.since == 0 || exact {
			p.follow()
		}
		if exact && c.rd.is(opWaiting) {
			return c.rd.follow(c) // one that may fire early is set again when it has
		}
	}
	return c.rd.begin(c)
}

// expired is that of c.rd for a read.
func (c *Conn) expired() (bool, error) {
	if c.pace != nil {
		c.pace.follow()
	}
	return c.rd.expired(c)
}

// endRead ends a reading operation.
func (c *Conn) endRead() {
	if p := c.pace; p != nil && p.since != 0 {
		if p.on.Load() {
			p.waited += moment() - p.since
		}
		p.since = 0
		p.until.Store(0)
	}
	c.rd.end(c)
}
