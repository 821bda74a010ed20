package standard

import (
	"errors"
	"io"
	"math"
	"net"
	"os"
	"sync"
	"sync/atomic"
	"time"
)

// epoch is what deadlines are counted from, so that one fits an atomic integer.
// It lies so far in the past that a moment is positive also on the clock of a
// testing/synctest bubble, which starts in the year 2000.
var epoch = time.Now().Add(-60 * 365 * 24 * time.Hour)

// moment returns the nanoseconds from epoch to now.
func moment() int64 { return int64(time.Since(epoch)) }

// deadline keeps the time limit of one direction of a connection.
//
// Setting a timeout between operations stores a number. The timer of the conn
// beneath is touched by an operation that is about to block, and only when it
// would fire too late; one that fires too early is set again by the operation that
// it woke. A keep-alive connection so sets a timer once in a timeout, not once a
// request.
//
// setTimeout, setDeadline, setFinal and interrupt may be called from any goroutine,
// beginShake and endShake from the one that runs the handshake, the rest only from
// the one that runs the operation.
type deadline struct {
	// limit is what the user set last: 0 is no limit, a positive number a
	// timeout in nanoseconds, a negative one the moment of a deadline.
	limit atomic.Int64
	armed atomic.Int64 // the moment the timer beneath fires at; 0 is never
	start int64        // the moment from which a timeout counts

	mu    sync.Mutex // serializes changes of armed and start
	write bool
	flags atomic.Uint32
}

// The flags of a deadline.
const (
	// timerExact says that a timer that fires too early does harm: a TLS connection
	// cannot go on after a write or a handshake that timed out [L6]. Such a timer
	// is always set to the very moment, and lifted after the operation, for the
	// conn beneath may write by itself later: TLS answers a key update in a read.
	timerExact uint32 = 1 << iota
	opWaiting         // an operation is running that may block
	tlsShaking        // a TLS handshake is running, perhaps beside one
	// timerLate says that a timer was replaced which had fired already: the operation
	// may be about to report it.
	timerLate
	// interrupted says that the server stops: an operation that waits for a message is to
	// end, unless one has come.
	interrupted
	// final says that Close has set the limit, and that nobody else does any more.
	final
)

func (d *deadline) is(flag uint32) bool { return d.flags.Load()&flag != 0 }

func (d *deadline) mark(flag uint32, on bool) {
	if on {
		d.flags.Or(flag)
	} else {
		d.flags.And(^flag)
	}
}

// setTimeout limits every operation to t; t <= 0 lifts the limit. An operation
// that is blocked now has t from now on [T15].
func (d *deadline) setTimeout(c *Conn, t time.Duration) error {
	limit := max(int64(t), 0)
	if !d.busy() {
		d.store(limit)
		if !d.busy() {
			return nil
		}
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	if !d.store(limit) { // together with start, for expired
		return nil
	}
	d.start = moment()
	err := d.arm(c)
	if d.is(timerExact) && !d.busy() && d.armed.Load() != 0 {
		_ = d.set(c, 0) // the operation has just ended, and end found nothing to lift
	}
	return unlessEnded(err)
}

// store sets the limit, unless Close has set the last one.
func (d *deadline) store(limit int64) bool {
	for {
		old := d.limit.Load()
		if d.is(final) {
			return false
		}
		if d.limit.CompareAndSwap(old, limit) {
			return true
		}
	}
}

func (d *deadline) busy() bool { return d.is(opWaiting | tlsShaking) }

// setDeadline limits operations, a blocked one included, to the moment t; the
// zero time lifts the limit.
func (d *deadline) setDeadline(c *Conn, t time.Time) error {
	limit := limitAt(t)
	d.mu.Lock()
	defer d.mu.Unlock()
	if !d.store(limit) {
		return nil
	}
	at := -limit
	if pace := d.paceEnds(c); pace != 0 && (at == 0 || pace < at) {
		at = pace // of the operation that is running
	}
	return d.set(c, at)
}

// setFinal is setDeadline for Close: a SetWriteTimeout that has begun already must not
// undo it.
func (d *deadline) setFinal(c *Conn, t time.Time) error {
	limit := limitAt(t)
	d.mu.Lock()
	defer d.mu.Unlock()
	d.mark(final, true)
	d.limit.Store(limit)
	return d.set(c, -limit)
}

// limitAt returns the limit for the moment t, 0 for the zero time.
func limitAt(t time.Time) (limit int64) {
	if !t.IsZero() {
		// Not t.Sub(epoch): the wall clock, by which a t without a monotonic reading
		// is compared, may have been set since the process started.
		now, left := moment(), int64(time.Until(t))
		limit = -max(now+min(left, math.MaxInt64-now), 1)
	}
	return limit
}

// begin is called by an operation that may block, before it does. Calling it
// again during the same operation does nothing: the limit holds for the whole.
func (d *deadline) begin(c *Conn) error {
	if d.is(opWaiting) {
		return nil
	}
	d.mark(opWaiting, true)
	if d.is(timerLate) {
		d.mark(timerLate, false)
	}
	limit, armed, pace := d.limit.Load(), d.armed.Load(), d.paceEnds(c)
	if limit == 0 && armed == 0 && pace == 0 {
		return nil
	}
	if limit < 0 && armed == -limit && pace == 0 {
		if d.write && moment() >= armed {
			// The timer beneath may be a little late, and a write that does not
			// block would slip through [T11].
			return timeoutError("write", c.nc, os.ErrDeadlineExceeded)
		}
		return nil
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	d.start = moment()
	return unlessEnded(d.arm(c))
}

// follow sets the timer anew of an operation that is running and whose end has moved.
func (d *deadline) follow(c *Conn) error {
	d.mu.Lock()
	defer d.mu.Unlock()
	return unlessEnded(d.arm(c))
}

// interrupt wakes the operation that is running, or the next one that blocks, if it is
// one that bears a timer which fires too early.
func (d *deadline) interrupt(c *Conn) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.mark(interrupted, true)
	_ = d.set(c, 1) // long ago
}

// end ends the operation.
func (d *deadline) end(c *Conn) {
	if !d.is(opWaiting) {
		return
	}
	d.mark(opWaiting, false)
	if !d.is(timerExact) || d.armed.Load() == 0 {
		return
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.limit.Load() >= 0 { // else it is the user's own deadline
		_ = d.set(c, 0)
	}
}

// beginShake limits a handshake, which may run beside an operation in the same
// direction: then that one's limit holds for both, and is left alone.
func (d *deadline) beginShake(c *Conn) error {
	d.mark(tlsShaking, true)
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.is(opWaiting) {
		return nil
	}
	d.start = moment()
	return unlessEnded(d.arm(c))
}

// endShake lifts what beginShake set, unless it is needed.
func (d *deadline) endShake(c *Conn) {
	d.mark(tlsShaking, false)
	d.mu.Lock()
	defer d.mu.Unlock()
	if !d.is(opWaiting) && d.limit.Load() >= 0 && d.armed.Load() != 0 {
		_ = d.set(c, 0) // fails only on a conn that has ended
	}
}

// expired is called when the conn beneath reports a timeout. It reports whether
// the operation's limit has passed; if not, the timer was an old one, has been
// set again, and the operation goes on.
func (d *deadline) expired(c *Conn) (bool, error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	now := moment()
	if !d.is(opWaiting) {
		d.mark(opWaiting, true)
		d.start = now
	}
	due, armed := d.due(c), d.armed.Load()
	if due != 0 && now >= due {
		return true, nil
	}
	if !d.is(timerLate) && (armed == 0 || armed > now+int64(time.Millisecond)) {
		return true, nil // not our timer: the conn beneath has reasons of its own
	}
	err := d.set(c, due)
	d.mark(timerLate, false)
	return false, unlessEnded(err)
}

// paceEnds returns the moment at which the running operation ends besides, for the
// peer's pace; 0 is never.
func (d *deadline) paceEnds(c *Conn) int64 {
	if d.write {
		return 0
	}
	return c.pace.ends()
}

// due returns the moment at which the running operation ends; 0 is never.
func (d *deadline) due(c *Conn) int64 {
	due := d.limit.Load()
	switch {
	case due <= 0:
		due = -due
	case due > math.MaxInt64-d.start:
		due = 0 // beyond the end of time [T13]
	default:
		due += d.start
	}
	if pace := d.paceEnds(c); pace != 0 && (due == 0 || pace < due) {
		due = pace
	}
	return due
}

// arm sets the timer beneath unless what is set serves. d.mu is held.
func (d *deadline) arm(c *Conn) error {
	due, armed := d.due(c), d.armed.Load()
	if due == armed || !d.is(timerExact) && (due == 0 || armed != 0 && armed < due) {
		return nil
	}
	return d.set(c, due)
}

// set sets the timer beneath to the moment at. d.mu is held.
func (d *deadline) set(c *Conn, at int64) error {
	if was := d.armed.Load(); was != 0 && was <= moment() {
		d.mark(timerLate, true)
	}
	var t time.Time
	if at != 0 {
		t = epoch.Add(time.Duration(at))
	}
	var err error
	if d.write {
		err = c.nc.SetWriteDeadline(t)
	} else {
		err = c.nc.SetReadDeadline(t)
	}
	switch {
	case err == nil:
		d.armed.Store(at)
	case unlessEnded(err) == nil:
		d.armed.Store(0)
	}
	return err
}

// unlessEnded drops the error of a timer that cannot be set because the conn
// beneath has ended: an operation cannot block on it, and tells better how it
// ended, io.EOF for one. A net.Pipe has ended when either side was closed.
func unlessEnded(err error) error {
	if errors.Is(err, net.ErrClosed) || errors.Is(err, io.ErrClosedPipe) {
		return nil
	}
	return err
}
