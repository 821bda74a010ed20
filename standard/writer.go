package standard

import (
	"errors"
	"io"
)

// MaxMalloc is the most that one Malloc reserves, in bytes. A larger count is an accident
// or an attack and must not end the process [W5].
const MaxMalloc = 1 << 30

// pending returns what waits for Flush, to be added to.
func (c *Conn) pending() *output {
	if c.out == nil {
		c.out = outputs.Get().(*output)
	}
	return c.out
}

// dropPending forgets what waits for Flush.
func (c *Conn) dropPending() {
	o := c.out
	c.out = nil
	o.free()
}

// Malloc reserves the next n bytes of the output and returns them to be filled
// before the next Flush, FlushSoon, Write or ReadFrom; more than one may be
// outstanding [A6]. The capacity is n, the contents are arbitrary. Malloc(0) is
// empty; n < 0 is [ErrNegativeCount], more than [MaxMalloc] is [ErrTooLarge]. After a
// failed write it returns the error of that, after Close net.ErrClosed.
func (c *Conn) Malloc(n int) ([]byte, error) {
	if n <= 0 || n > MaxMalloc || c.writeErr != nil || c.closed.Load() {
		return nil, c.mallocError(n)
	}
	return c.pending().malloc(n), nil
}

func (c *Conn) mallocError(n int) error {
	switch {
	case n < 0:
		return ErrNegativeCount
	case n > MaxMalloc:
		return ErrTooLarge
	}
	return c.writable()
}

// writable returns why nothing can be written any more, or nil.
func (c *Conn) writable() error {
	if c.closed.Load() {
		return c.closedError("write")
	}
	return c.writeErr
}

// WriteBinary adds b to the output. From 4 KiB up b itself is sent, without a
// copy: it must not change until Flush returns, and is not kept after that
// [A10]. Smaller slices are copied. It never modifies b [A9]. It returns len(b), or
// 0 and the error of a failed write, after Close net.ErrClosed.
func (c *Conn) WriteBinary(b []byte) (int, error) {
	if c.writeErr != nil || c.closed.Load() {
		return 0, c.writable()
	}
	switch {
	case len(b) == 0:
	case len(b) < borrowFrom:
		copy(c.pending().malloc(len(b)), b)
	default:
		c.pending().borrow(b, c.in.lend(b))
	}
	return len(b), nil
}

// Flush sends what Malloc and WriteBinary added, in its order. With nothing
// pending it makes no system call and returns nil, after Close too [W4]. When it
// fails, what was pending is given up and every later write and Flush returns the
// same error: some of the bytes may have been sent, and none is sent twice [W8]. It
// takes along what [Conn.FlushSoon] held back.
func (c *Conn) Flush() error {
	if h := c.held.Load(); h != nil {
		return h.flush()
	}
	return c.flush()
}

// flush sends what is pending.
func (c *Conn) flush() error {
	if c.out == nil {
		return c.writeErr
	}
	// Only here: another goroutine may have closed the connection while the
	// caller still fills what Malloc returned [A6].
	defer c.dropPending()
	if err := c.writable(); err != nil {
		return err
	}
	if a := c.accepted; a != nil {
		a.counts.flushes.Add(1)
	}
	err := c.send(c.out)
	if err != nil {
		c.writeErr = err
		c.accepted.failed(err)
	}
	return err
}

// send writes the pieces of o.
func (c *Conn) send(o *output) error {
	defer c.wr.end(c)
	if len(o.pieces) > 1 && c.gathers() {
		o.vec = o.pieces
		if a := c.accepted; a != nil {
			a.counts.saved.Add(uint64(len(o.pieces) - 1))
		}
		for left := int64(o.n); ; {
			if err := c.wr.begin(c); err != nil {
				return err
			}
			n, err := c.sendPieces(o, int(left))
			if n < 0 || n > left {
				return countError("WriteBuffers", c.nc, int(n), int(left))
			}
			left -= n
			c.accepted.wrote(int(n))
			if err == nil && left > 0 {
				return io.ErrShortWrite
			}
			if err = c.again(err); err != errAgain {
				return err
			}
		}
	}
	for _, b := range o.pieces {
		if _, err := c.writeAll(o, b); err != nil {
			return err
		}
	}
	return nil
}

// gathers reports whether the conn beneath sends many slices at once.
func (c *Conn) gathers() bool {
	if c.socket {
		return true
	}
	_, ok := c.nc.(buffersWriter)
	return ok
}

// sendPieces writes what is left of o.vec, size bytes, at once.
func (c *Conn) sendPieces(o *output, size int) (int64, error) {
	switch {
	case c.sys != nil && size <= maxRawWrite && len(o.vec) <= maxGather:
		return o.raw.writev(c, &o.vec, size)
	case c.socket:
		return o.vec.WriteTo(c.nc)
	}
	return c.nc.(buffersWriter).WriteBuffers(&o.vec)
}

// writeAll writes b to the conn beneath by means of o, within the running operation.
func (c *Conn) writeAll(o *output, b []byte) (written int, err error) {
	for {
		if err := c.wr.begin(c); err != nil {
			return written, err
		}
		n, err := c.writeSome(o, b[written:])
		n, err = checkWrite(c.nc, n, len(b)-written, err)
		written += n
		c.accepted.wrote(n)
		if err = c.again(err); err != errAgain {
			return written, err
		}
	}
}

// writeSome is a Write of the conn beneath.
func (c *Conn) writeSome(o *output, p []byte) (int, error) {
	if c.sys != nil && len(p) <= maxRawWrite {
		return o.raw.write(c, p)
	}
	return c.nc.Write(p)
}

// errAgain says that a timer fired too early and that the write goes on.
var errAgain = errors.New("standard: the write goes on")

// again gives an error of the conn beneath the shape that is promised.
func (c *Conn) again(err error) error {
	switch {
	case err == nil:
		return nil
	case c.closed.Load():
		return c.closedError("write")
	case isTimeout(err):
		over, armErr := c.wr.expired(c)
		if armErr != nil {
			return armErr
		}
		if over {
			return timeoutError("write", c.nc, err)
		}
		return errAgain
	}
	return err
}

// Write flushes what is pending and then writes p [W12]. n counts the bytes of p
// alone. Without TLS a timeout leaves the connection usable, and the caller may go on
// at n, unless it came while what was pending was flushed; over TLS see [TLSConn].
// Other errors stay. It is safe for any number of goroutines that use no other writer's
// method. p is not kept [A12].
func (c *Conn) Write(p []byte) (n int, err error) {
	c.writeMu.Lock()
	defer c.writeMu.Unlock()
	if err := c.Flush(); err != nil {
		return 0, err
	}
	if err := c.writable(); err != nil {
		return 0, err
	}
	if len(p) == 0 {
		return 0, nil
	}
	defer c.wr.end(c)
	o := outputs.Get().(*output)
	defer o.free()
	n, err = c.writeAll(o, p)
	switch {
	case err == nil:
	case isTimeout(err):
		c.accepted.timedOut(false)
	default:
		c.writeErr = err
		c.accepted.failed(err)
	}
	return n, err
}
