package standard

import (
	"sync/atomic"
	"time"
)

// DefaultMinReadGrace is the default of Transporter.MinReadGrace.
const DefaultMinReadGrace = 5 * time.Second

// pace holds a peer to Transporter.MinReadRate. What counts is the time in which a
// handler waits for bytes of a message, and no other: not the handler's own work, not
// the wait between two messages. It belongs to the reader's goroutine.
type pace struct {
	rate, grace int64 // bytes a second, nanoseconds
	on          bool
	got         int64 // bytes of the message
	waited      int64 // nanoseconds of waiting for them
	since       int64 // the moment from which the running operation waits; 0 is none

	// bound is what the running operation may take, in nanoseconds, for whoever sets its
	// timer; 0 is no bound.
	bound atomic.Int64
}

// newPace returns nil for no limit.
func newPace(rate int, grace time.Duration) *pace {
	if rate <= 0 {
		return nil
	}
	if grace == 0 {
		grace = DefaultMinReadGrace
	}
	return &pace{rate: int64(rate), grace: int64(max(grace, 0))}
}

// limit begins a message, or lifts the limit until the next one.
func (p *pace) limit(on bool) {
	if p != nil {
		p.on, p.got, p.waited = on, 0, 0
	}
}

// left returns how long the peer may still be waited for; never 0, which is for ever.
func (p *pace) left() int64 {
	return max(p.grace+int64(float64(p.got)/float64(p.rate)*float64(time.Second))-p.waited, 1)
}

// limits returns the bound of the running operation; 0 is none.
func (p *pace) limits() int64 {
	if p == nil {
		return 0
	}
	return p.bound.Load()
}

// beginRead is called by a reading operation before it may block.
func (c *Conn) beginRead() error {
	if p := c.pace; p != nil && p.since == 0 {
		p.since = moment()
		if p.on {
			p.bound.Store(p.left())
		} else {
			p.bound.Store(0)
		}
	}
	return c.rd.begin(c)
}

// endRead ends a reading operation.
func (c *Conn) endRead() {
	if p := c.pace; p != nil && p.since != 0 {
		if p.on {
			p.waited += moment() - p.since
		}
		p.since = 0
		p.bound.Store(0)
	}
	c.rd.end(c)
}

// tooSlow reports whether an operation that timed out did so for the peer's pace.
func (p *pace) tooSlow() bool {
	return p != nil && p.on && p.since != 0 && moment()-p.since >= p.left()
}

// LimitReadRate turns Transporter.MinReadRate off, or on again, for what is read from
// now on. It is on at the beginning of each message: when OnData is called, and at
// SetIdle(false). A handler that waits for bytes which the peer need not send soon
// turns it off. It belongs to the reader's goroutine.
func (c *Conn) LimitReadRate(on bool) { c.pace.limit(on) }
