package quic

import (
	"context"
	"sync"
	"time"

	"github.com/quic-go/quic-go"
)

// drain lets a Transporter end a connection without losing an answer: it counts the
// bidirectional streams that were accepted and whose answers have not ended. All but
// start may be called on nil, which counts nothing.
type drain struct {
	begun context.Context // done when no more streams are accepted
	begin context.CancelFunc
	empty chan struct{} // closed when then the last stream has ended

	mu     sync.Mutex
	active int       // streams, and calls that wait for one
	last   time.Time // when a sending direction ended last
}

func newDrain() *drain {
	d := &drain{empty: make(chan struct{})}
	d.begun, d.begin = context.WithCancel(context.Background())
	return d
}

// start ends accepting.
func (d *drain) start() {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.begun.Err() != nil {
		return
	}
	d.begin()
	if d.active == 0 {
		close(d.empty)
	}
}

// enter begins a call that waits for a stream. The context that it returns ends with
// ctx, and when draining starts; stop frees it. ok is false if it has started.
func (d *drain) enter(ctx context.Context) (_ context.Context, stop func(), ok bool) {
	if d == nil {
		return ctx, func() {}, true
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.begun.Err() != nil {
		return nil, nil, false
	}
	d.active++
	ctx, cancel := context.WithCancel(ctx)
	unhook := context.AfterFunc(d.begun, cancel)
	return ctx, func() { unhook(); cancel() }, true
}

// leave says that a stream's answer has ended, or that a call has returned none to wait
// for.
func (d *drain) leave(answered bool) {
	if d == nil {
		return
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	d.active--
	if answered {
		d.last = time.Now()
	}
	if d.active == 0 && d.begun.Err() != nil {
		close(d.empty)
	}
}

// note says that a stream that was not counted has ended.
func (d *drain) note() {
	if d == nil {
		return
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	d.last = time.Now()
}

// readTime is how long a peer has to read the last answer. What it has received but
// not read when the connection closes is lost to it, with quic-go at least.
const readTime = 500 * time.Millisecond

// settle waits until the peer has the answers that have ended.
func (d *drain) settle(ctx context.Context, c *quic.Conn) {
	d.mu.Lock()
	last := d.last
	d.mu.Unlock()
	settle(ctx, c, last)
}

// settle waits until the peer has what was sent, the end of it at last, as far as one can
// know, or until ctx or the connection ends. quic-go does not tell what was
// acknowledged, but it sends again whatever was not, after one PTO, then after two
// more, and so on (RFC 9002, section 6.2): when nothing was sent for longer than that,
// nothing is missing.
func settle(ctx context.Context, c *quic.Conn, last time.Time) {
	readBy := last.Add(readTime)
	if time.Since(readBy) > 10*pto(c) {
		return // nothing was sent for long
	}
	sent, since := c.ConnectionStats().PacketsSent, time.Now()
	quiet := 3 * pto(c)
	timer := time.NewTimer(quiet)
	defer timer.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-c.Context().Done():
			return
		case <-timer.C:
		}
		now := time.Now()
		if n := c.ConnectionStats().PacketsSent; n != sent {
			// The pauses between probes double.
			quiet = max(3*pto(c), 2*now.Sub(since))
			sent, since = n, now
		}
		left := max(quiet-now.Sub(since), readBy.Sub(now))
		if left <= 0 {
			return
		}
		timer.Reset(min(left, quiet/4))
	}
}

// maxPTO bounds what is waited for a peer that may be gone.
const maxPTO = time.Second

// pto returns the probe timeout (RFC 9002, section 6.2.1): after that time without an
// acknowledgement, quic-go sends once more.
func pto(c *quic.Conn) time.Duration {
	const maxAckDelay = 25 * time.Millisecond
	s := c.ConnectionStats()
	return min(s.SmoothedRTT+max(4*s.MeanDeviation, time.Millisecond)+maxAckDelay, maxPTO)
}
