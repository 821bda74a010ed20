package standard

import (
	"errors"
	"io"
	"net"
	"os"
	"sync/atomic"
)

// Stats is what a Transporter has counted since it was made. Each connection that was
// accepted is at any time in one of these places: rejected, open in one state, ended for
// one reason, or about to end. Bytes are those of the protocol: with TLS, before
// encryption and after decryption. docs/OPERATIONS.md says of each figure when to worry.
// To export them, for package expvar:
//
//	expvar.Publish("hertznet", expvar.Func(func() any { return t.Stats() }))
//
// and for Prometheus, examples/prometheus.
type Stats struct {
	Accepted     uint64 // connections, those that were rejected included
	AcceptErrors uint64 // failures of Accept after which accepting went on
	Rejected     uint64 // closed at once, by MaxConns with RejectOverMaxConns or by MaxConnsPerIP

	// Connections that are open now, by state.
	New, Handshaking, Active, Idle, Parked, Hijacked int

	// Connections that have ended, by the reason that came first.
	ClosedByPeer    uint64 // it closed its end or its sending side
	ClosedByHandler uint64 // OnData closed it, returned an error or panicked, or a hook did
	ClosedByServer  uint64 // Close or Shutdown
	ClosedIdle      uint64 // IdleTimeout
	ClosedSlow      uint64 // a read or write timeout, or MinReadRate
	ClosedByError   uint64 // any other error of reading or writing, such as a reset

	Parks   uint64 // an idle connection gave up its goroutine
	Resumes uint64 // and got one again

	Handshakes      uint64 // TLS handshakes that were completed
	HandshakeErrors uint64
	Panics          uint64 // recovered from hooks and handlers, logged or not
	TooSlow         uint64 // reads that MinReadRate ended
	Overflows       uint64 // reads that MaxReadBuffer ended

	BytesRead    uint64 // of the protocol: under TLS, what was decrypted
	BytesWritten uint64 // the same, before it was encrypted
	Flushes      uint64 // that had something to send; FlushSoon is one
	WritesSaved  uint64 // system calls, or TLS records, saved by sending slices, and Flushes, together

	// PoolBytes is the memory of this package's buffers in this process, of every
	// connection: those in use, and those that wait in a pool until the garbage
	// collector takes them.
	PoolBytes int64
}

// Open returns how many connections are open.
func (s Stats) Open() int {
	return s.New + s.Handshaking + s.Active + s.Idle + s.Parked + s.Hijacked
}

// counts are a connection's own, so that no two connections share a cache line on the
// way of their data. The Transporter adds them up.
type counts struct{ read, written, flushes, saved atomic.Uint64 }

// totals are of the connections that have ended, and of what is rare.
type totals struct {
	accepted, acceptErrors, rejected    atomic.Uint64
	tooSlow, overflows                  atomic.Uint64
	parks, resumes                      atomic.Uint64
	handshakes, handshakeErrors, panics atomic.Uint64
	counts                              counts
	closed                              [closeReasons]atomic.Uint64
}

// closeReason is why a connection ended.
type closeReason int32

const (
	closedByHandler closeReason = iota // unless something else was noted
	closedByPeer
	closedByServer
	closedIdle
	closedSlow
	closedByError
	closeReasons = iota
)

// because notes why the connection ends.
func (a *accepted) because(r closeReason) { a.reason.CompareAndSwap(int32(closedByHandler), int32(r)) }

// failed notes the error after which nothing more is read or written.
func (a *accepted) failed(err error) {
	switch {
	case a == nil:
	case err == io.EOF || err == io.ErrUnexpectedEOF:
		a.because(closedByPeer)
	case errors.Is(err, net.ErrClosed): // here: it has a reason, or it was the handler
	case errors.Is(err, os.ErrDeadlineExceeded):
		a.because(closedSlow)
	default:
		a.because(closedByError)
	}
}

// timedOut notes that an operation timed out, which is a reason only if nothing is read after it.
func (a *accepted) timedOut(tooSlow bool) {
	switch {
	case a == nil:
	case tooSlow:
		a.because(closedSlow)
		a.t.totals.tooSlow.Add(1)
		a.t.slow.warn(a.t, "a peer sends more slowly than MinReadRate; if it is no attack, lower the rate or raise MinReadGrace",
			"remote", a.base.RemoteAddr(), "bytesPerSecond", a.t.MinReadRate)
	case a.is(StateIdle):
		a.waited.Store(int32(closedIdle))
	default:
		a.waited.Store(int32(closedSlow))
	}
}

// overflowed notes that MaxReadBuffer was reached, and returns the error for it.
func (a *accepted) overflowed() error {
	a.t.totals.overflows.Add(1)
	a.t.overflows.warn(a.t, "a message does not fit MaxReadBuffer; if it is no attack, raise it",
		"remote", a.base.RemoteAddr(), "bytes", a.t.MaxReadBuffer)
	return ErrReadBufferFull
}

// read counts input.
func (a *accepted) read(n int) {
	if a == nil {
		return
	}
	a.counts.read.Add(uint64(n))
	if a.waited.Load() != 0 {
		a.waited.Store(0)
	}
}

// wrote counts output.
func (a *accepted) wrote(n int) {
	if a != nil && n > 0 {
		a.counts.written.Add(uint64(n))
	}
}

// add adds the counts of a connection.
func (c *counts) add(more *counts) {
	c.read.Add(more.read.Load())
	c.written.Add(more.written.Load())
	c.flushes.Add(more.flushes.Load())
	c.saved.Add(more.saved.Load())
}

// count adds a connection that has ended to the totals.
func (t *totals) count(a *accepted) {
	a.because(closeReason(a.waited.Load()))
	t.closed[a.reason.Load()].Add(1)
	t.counts.add(&a.counts)
}

// Stats returns what has been counted so far. It may be called at any time and from any
// goroutine. It looks at each open connection, about a tenth of a millisecond for ten
// thousand, in which none can begin or end; counting costs a connection a few nanoseconds,
// and no lock, where it reads and writes.
func (t *Transporter) Stats() Stats {
	n := &t.totals
	var open [StateClosed + 1]int
	t.mu.Lock()
	defer t.mu.Unlock() // so that one that ends now is either open or not
	read, written := n.counts.read.Load(), n.counts.written.Load()
	flushes, saved := n.counts.flushes.Load(), n.counts.saved.Load()
	for _, a := range t.conns {
		open[a.state.Load()]++
		read += a.counts.read.Load()
		written += a.counts.written.Load()
		flushes += a.counts.flushes.Load()
		saved += a.counts.saved.Load()
	}
	return Stats{
		Accepted:        n.accepted.Load(),
		AcceptErrors:    n.acceptErrors.Load(),
		Rejected:        n.rejected.Load(),
		New:             open[StateNew],
		Handshaking:     open[StateHandshaking],
		Active:          open[StateActive],
		Idle:            open[StateIdle],
		Parked:          open[StateParked],
		Hijacked:        open[StateHijacked],
		ClosedByPeer:    n.closed[closedByPeer].Load(),
		ClosedByHandler: n.closed[closedByHandler].Load(),
		ClosedByServer:  n.closed[closedByServer].Load(),
		ClosedIdle:      n.closed[closedIdle].Load(),
		ClosedSlow:      n.closed[closedSlow].Load(),
		ClosedByError:   n.closed[closedByError].Load(),
		Parks:           n.parks.Load(),
		Resumes:         n.resumes.Load(),
		Handshakes:      n.handshakes.Load(),
		HandshakeErrors: n.handshakeErrors.Load(),
		Panics:          n.panics.Load(),
		TooSlow:         n.tooSlow.Load(),
		Overflows:       n.overflows.Load(),
		BytesRead:       read,
		BytesWritten:    written,
		Flushes:         flushes,
		WritesSaved:     saved,
		PoolBytes:       blockBytes.Load(),
	}
}
