package standard

import (
	"math"
	"sync/atomic"
	"time"

	"github.com/hertznet/hertznet/tlsconn"
)

// DefaultMinReadGrace is the default of Transporter.MinReadGrace.
const DefaultMinReadGrace = 5 * time.Second

// pace holds a peer to Transporter.MinReadRate. What counts is the time in which a
// handler waits for bytes of a message, and no other: not the handler's own work, not
// the wait between two messages. It belongs to the reader's goroutine.
type pace struct {
	rate, grace int64         // bytes a second, nanoseconds
	wire        *tlsconn.Conn // counts the bytes, parts of a record among them; nil: got does
	on          atomic.Bool   // any goroutine may turn it off
	got         int64         // bytes of the message
	before      int64         // those that wire had counted when it began
	waited      int64         // nanoseconds of waiting for them, before the running operation
	since       int64         // the moment from which the running operation waits; 0 is none

	// until is the moment at which the running operation is too slow, if nothing more comes;
	// 0 is never. Whoever sets the timer reads it. It lags behind the bytes, save where
	// a timer must not fire early.
	until atomic.Int64
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
	if p == nil {
		return
	}
	p.on.Store(on)
	if !on {
		return // perhaps from beside a read
	}
	p.got, p.waited = 0, 0
	if p.wire != nil {
		p.before = p.wire.BytesReceived()
	}
}

// follow brings until up to what has come. The first call in an operation begins its wait.
func (p *pace) follow() {
	if p.since == 0 {
		p.since = moment()
	}
	if !p.on.Load() {
		p.until.Store(0)
		return
	}
	got := p.got
	if p.wire != nil {
		got = p.wire.BytesReceived() - p.before
	}
	until := int64(0) // beyond the end of time
	left := float64(p.grace) + float64(got)/float64(p.rate)*float64(time.Second) - float64(p.waited)
	if left < float64(math.MaxInt64-p.since) {
		until = p.since + int64(left)
	}
	p.until.Store(until)
}

// ends returns the moment at which the running operation is too slow; 0 is never.
func (p *pace) ends() int64 {
	if p == nil {
		return 0
	}
	return p.until.Load()
}

// tooSlow reports whether an operation that timed out did so for the peer's pace.
func (p *pace) tooSlow() bool {
	until := p.ends()
	return until != 0 && moment() >= until
}

// LimitReadRate turns [Transporter].MinReadRate off, or on again, for what is read from
// now on; on begins a new message, with a MinReadGrace of its own. It is on at the
// beginning of each message: when OnData is called, and at SetIdle(false). A handler that
// waits for bytes which the peer need not send soon turns it off, and any goroutine may; to
// turn it on belongs to the reader's. It changes nothing for a connection that no
// Transporter accepted.
func (c *Conn) LimitReadRate(on bool) { c.pace.limit(on) }
