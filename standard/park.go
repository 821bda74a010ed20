package standard

import (
	"math"
	"net"
	"sync"
	"syscall"
	"time"
)

// Parking: an idle connection first waits in its goroutine, since the next request of
// a busy one is about to come. Then it gives up goroutine, stack and
// buffer, and one poller waits for all that do. The state is what decides who
// owns such a connection: whoever makes the step from StateParked, and nobody
// else, goes on with it or finishes it.

// parkingLot has the poller of a Transporter, which is made for the first connection
// that is parked: a server of other conns than sockets has none.
type parkingLot struct {
	mu     sync.Mutex
	poller *poller
	closed bool
}

// open returns the poller, or nil if there can be none.
func (l *parkingLot) open(t *Transporter) *poller {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.poller != nil || l.closed {
		return l.poller
	}
	var err error
	if l.poller, err = newPoller(t); err != nil {
		// Descriptors are scarce, say. The connection waits as it would elsewhere, and
		// the next one tries again.
		t.log().Debug("an idle connection cannot be parked and keeps its goroutine", "error", err)
	}
	return l.poller
}

// remove takes a connection out that was parked and is closed.
func (l *parkingLot) remove(a *accepted) {
	l.mu.Lock()
	p := l.poller
	l.mu.Unlock()
	p.remove(a)
}

// close is called when no connection is left.
func (l *parkingLot) close() {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.closed = true
	if l.poller != nil {
		l.poller.close()
	}
}

// impatience divides ParkAfter for a connection that is not patient.
const impatience = 64

// parkAfter returns ParkAfter with its default, 0 for never.
func (t *Transporter) parkAfter() time.Duration {
	if t.ParkAfter == 0 {
		return DefaultParkAfter
	}
	return max(t.ParkAfter, 0)
}

// patience returns for how long an idle connection waits in its goroutine, 0 for as
// long as it is idle. To wait for all of ParkAfter pays if the next message then comes,
// which is thought likely of a connection whose last one did. A short wait also costs
// more: the kernel has to set its clock for a timer that is near.
func (a *accepted) patience() time.Duration {
	after := a.t.parkAfter()
	switch {
	case !a.parks || after == 0:
		return 0
	case a.patient:
		return after
	}
	return max(after/impatience, 1)
}

// ParkAfter returns for how long a protocol that waits inside of OnData should wait for
// a message before it returns, so that the Transporter can park the connection, see
// [Transporter].ParkAfter: that time if its last message came within it, else a 64th of
// it. 0 is for ever: nobody would park it. It belongs to the reader's goroutine.
func (c *Conn) ParkAfter() time.Duration {
	if c.accepted == nil {
		return 0
	}
	return c.accepted.patience()
}

// socket returns what lies beneath, without TLS.
func (a *accepted) socket() net.Conn {
	if a.tls != nil {
		return a.tls.tls.NetConn()
	}
	return a.base.nc
}

// socketOf returns the socket of a connection whose readiness says whether there is
// something to read, and nil for others: a conn that only wraps a socket may hold bytes
// of its own.
func socketOf(nc net.Conn) syscall.RawConn {
	if !isStreamSocket(nc) {
		return nil
	}
	raw, err := nc.(syscall.Conn).SyscallConn()
	if err != nil {
		return nil
	}
	return raw
}

// await waits for an idle connection's next message, of which need bytes must be
// unread, or parks the connection. waited says that it has waited for its patience already.
func (t *Transporter) await(a *accepted, need int, waited bool) (parked bool, err error) {
	c, after := a.base, a.patience()
	if waited {
		a.beginIdle(after)
		if a.tls != nil {
			// Whoever waited need not have read, and crypto/tls may hold a record: see below.
			after, waited = time.Nanosecond, false
		}
	}
	can := a.parks && need == 1 && c.in.len() == 0
	for {
		if can && waited {
			a.waited.Store(0) // it did not wait for too long
			if p := t.parking.open(t); p != nil {
				c.dropRaw()
				if p.park(a) {
					return true, nil
				}
			}
			can = false
		}
		limit := t.IdleTimeout
		if limit > 0 && a.idleFrom != 0 {
			// After the end a nanosecond is left, for 0 would be no limit.
			limit = time.Duration(max(a.idleEnd()-moment(), 1))
		}
		thenPark := can && (limit <= 0 || after < limit)
		if thenPark {
			limit = after
		}
		_ = c.rd.setTimeout(c, limit)
		err := c.fill(need)
		if err == nil {
			a.endIdle()
			return false, nil
		}
		// Over TLS a read that ended so proves that no record waits inside of it.
		if !thenPark || !isTimeout(err) {
			return false, err
		}
		waited = true
		a.beginIdle(after)
	}
}

// beginIdle notes when the idle time began, of which some has passed. It is noted
// once: bytes that are no message, such as a part of a TLS record, wake a
// connection and prolong nothing.
func (a *accepted) beginIdle(passed time.Duration) {
	if a.idleFrom == 0 {
		a.idleFrom = moment() - int64(passed)
	}
}

// endIdle is called when a message has come.
func (a *accepted) endIdle() {
	a.patient = a.idleFrom == 0 || moment()-a.idleFrom <= int64(a.t.parkAfter())
	a.idleFrom = 0
}

// idleEnd returns the moment at which the idle time ends that began at idleFrom, if
// there is an IdleTimeout: the last one there is, if that lies beyond.
func (a *accepted) idleEnd() int64 {
	return a.idleFrom + min(int64(a.t.IdleTimeout), math.MaxInt64-a.idleFrom)
}

// expire closes a connection whose idle time ended while it was parked. The caller
// has made it closed.
func (t *Transporter) expire(a *accepted) {
	a.because(closedIdle)
	if a.base.socket {
		t.finish(a)
	} else {
		go t.finish(a) // TLS may take its time to say good-bye
	}
}
