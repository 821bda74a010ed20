package standard

import (
	"errors"
	"io"
	"net"
	"sync"
)

const (
	// MaxMalloc is the most that one Malloc reserves, in bytes. A larger count is
	// an accident or an attack and must not end the process [W5].
	MaxMalloc = 1 << 30

	// borrowFrom is the size from which WriteBinary borrows a slice instead of
	// copying it. Below, a copy is cheaper than another piece for writev.
	borrowFrom = 4 << 10

	// maxKeptPieces bounds what an empty output keeps for its next Flush.
	maxKeptPieces = 16
)

// output is what waits for Flush: slices in their order, some of pooled blocks
// that Malloc hands out, some borrowed from callers. The zero value is empty and
// owns no memory.
//
// It belongs to the goroutine of one Conn's writer from the first byte that is added until
// Flush has sent or given up the last; or to a hold. Write and ReadFrom take one for its
// rawWriter alone. In between it waits in outputs, empty: most connections have nothing to
// send, so that none need keep it.
type output struct {
	pieces net.Buffers
	n      int         // bytes in pieces
	owned  []*block    // to be dropped once the pieces are sent or given up
	open   *block      // the one of owned that Malloc may take more of
	off    int         // how much of open is taken
	joint  bool        // the last of pieces ends at open's off
	vec    net.Buffers // what is left of pieces during a Flush
	raw    rawWriter   // sends them to a socket; empty between two writes
}

var outputs = sync.Pool{New: func() any {
	o := new(output)
	o.raw.init()
	return o
}}

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

// free gives up an output, and what is in it.
func (o *output) free() {
	o.reset()
	outputs.Put(o)
}

// join adds all of more at the end, and gives that up: a copy if it is small, else its
// pieces. It returns by how many pieces there are fewer now.
func (o *output) join(more *output) (fewer int) {
	before := len(o.pieces) + len(more.pieces)
	if more.n < borrowFrom {
		p := o.malloc(more.n)
		for _, b := range more.pieces {
			p = p[copy(p, b):]
		}
	} else {
		o.pieces = append(o.pieces, more.pieces...)
		o.owned = append(o.owned, more.owned...)
		o.n += more.n
		o.open, o.joint = nil, false
		clear(more.owned)
		more.owned = more.owned[:0]
	}
	more.free()
	return before - len(o.pieces)
}

// malloc reserves n > 0 bytes at the end.
func (o *output) malloc(n int) []byte {
	if o.open == nil || len(o.open.buf)-o.off < n {
		o.open, o.off, o.joint = getBlock(n), 0, false
		o.owned = append(o.owned, o.open)
	}
	end := o.off + n
	b := o.open.buf[o.off:end:end]
	if last := len(o.pieces) - 1; o.joint {
		piece := o.pieces[last]
		o.pieces[last] = piece[:len(piece)+n]
	} else {
		o.pieces = append(o.pieces, o.open.buf[o.off:end])
		o.joint = true
	}
	o.off = end
	o.n += n
	return b
}

// borrow adds b itself at the end. A lent block is kept until b has been sent.
func (o *output) borrow(b []byte, lent *block) {
	o.pieces = append(o.pieces, b)
	o.joint = false
	o.n += len(b)
	if lent != nil {
		o.owned = append(o.owned, lent)
	}
}

// reset forgets everything that was pending.
func (o *output) reset() {
	clear(o.pieces)
	o.pieces, o.vec = o.pieces[:0], nil
	for i, b := range o.owned {
		b.drop()
		o.owned[i] = nil
	}
	o.owned = o.owned[:0]
	if cap(o.pieces) > maxKeptPieces {
		o.pieces, o.owned = nil, nil
	}
	o.open, o.off, o.joint, o.n = nil, 0, false, 0
}

// Malloc reserves the next n bytes of the output and returns them to be filled
// until Flush; more than one may be outstanding [A6]. The capacity is n, the
// contents are arbitrary. Malloc(0) is empty; n < 0 is [ErrNegativeCount], more
// than [MaxMalloc] is [ErrTooLarge]. After a failed write or Close it returns
// that error.
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
// [A10]. Smaller slices are copied. It never modifies b [A9].
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
// pending it makes no system call, and after Close returns nil [W4]. When it
// fails, what was pending is given up and every later write returns the same
// error: some of the bytes may have been sent, and none is sent twice [W8]. It
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
// alone. Without TLS a timeout leaves the connection usable, unless bytes that were
// pending have been cut; over TLS see [TLSConn]. Other errors stay. It is safe for any
// number of goroutines that use no other writer's method. p is not kept [A12].
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
