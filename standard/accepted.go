package standard

import (
	"context"
	"fmt"
	"slices"
	"sync/atomic"
	"syscall"

	"github.com/hertznet/hertznet/network"
)

// ConnState is where an accepted connection is in its life:
//
//	handshaking <---> new ---> active <---> idle <---> parked
//	                            |  ^         ^
//	                            v  |         |
//	                          hijacked ------+
//
//	any of them ---> closed
//
// docs/ARCHITECTURE.md has who makes which step.
type ConnState int32

const (
	StateNew         ConnState = iota // nothing has been read, but for a TLS handshake
	StateHandshaking                  // TLS is being negotiated
	StateActive                       // OnData runs
	StateIdle                         // between two messages, in a goroutine
	StateParked                       // between two messages, without one
	StateHijacked                     // OnData runs and has called SetHijacked
	StateClosed                       // by either side, for whatever reason
)

var stateNames = [...]string{"new", "handshaking", "active", "idle", "parked", "hijacked", "closed"}

// String returns the state's name in lower case, such as "idle".
func (s ConnState) String() string {
	if s < 0 || int(s) >= len(stateNames) {
		return fmt.Sprintf("ConnState(%d)", int32(s))
	}
	return stateNames[s]
}

// accepted is what a Transporter knows of one of its connections.
type accepted struct {
	t         *Transporter
	id        uint64                    // its key in t.conns, and what the poller knows it by
	base      *Conn                     // what OnData gets, or within it
	tls       *TLSConn                  // what OnData gets; nil without TLS
	lingering atomic.Pointer[lingering] // what keeps the socket open after Close

	ctx    context.Context // for OnData
	cancel func()          // of ctx; nil if there is nothing to cancel

	counts  counts
	state   atomic.Int32
	reason  atomic.Int32 // why it ends, a closeReason; what is noted first counts
	lingers atomic.Bool  // DrainOnClose was called
	waited  atomic.Int32 // the reason why it would end now, if a read has timed out

	// The goroutine's, or the poller's while the connection is parked.
	resumed    bool // OnData has been called before
	registered bool // its socket is in the epoll instance
	parks      bool // its socket is one that the poller can wait for
	parked     parking
	patient    bool  // the last message came within ParkAfter of the one before
	idleFrom   int64 // the moment at which the idle time began; 0 if it has not, or is short
}

// conn returns what OnData gets.
func (a *accepted) conn() network.Conn {
	if a.tls != nil {
		return a.tls
	}
	return a.base
}

// change makes the step from one state to another, if that is where it is.
func (a *accepted) change(from, to ConnState) bool {
	if !a.state.CompareAndSwap(int32(from), int32(to)) {
		return false
	}
	a.tell(to)
	return true
}

// tell calls the hook, if there is one.
func (a *accepted) tell(s ConnState) {
	if a.t.ConnState != nil {
		a.call(s)
	}
}

// call calls the hook, which must not end the process, nor what it is called for.
func (a *accepted) call(s ConnState) {
	defer func() {
		if p := recover(); p != nil {
			a.t.panicked(&a.t.hookPanics, p, "the ConnState hook panicked", "remote", a.base.RemoteAddr(), "state", s)
		}
	}()
	a.t.ConnState(a.conn(), s)
}

func (a *accepted) is(s ConnState) bool { return a.state.Load() == int32(s) }

// unread reports whether bytes lie in the connection's socket: a message has begun
// to arrive, and a reader is about to take it.
func (a *accepted) unread() bool {
	nc := a.socket()
	s, ok := nc.(syscall.Conn)
	return ok && isStreamSocket(nc) && unread(s)
}

// dismiss ends the connection if it is in one of the states and no message is arriving
// on it. One that changes from one of them to another at this moment is not missed.
//
// Where a goroutine waits for a message, only that goroutine knows whether it has just
// read one. So it is interrupted at first, and closed if it still waits the next time.
func (a *accepted) dismiss(states ...ConnState) {
	for {
		s := ConnState(a.state.Load())
		if !slices.Contains(states, s) || a.unread() {
			return
		}
		if rd := &a.base.rd; (s == StateNew || s == StateIdle) && !rd.is(interrupted) {
			rd.interrupt(a.base)
			if a.is(s) {
				return
			}
		} else if a.closeFrom(s) {
			return
		}
	}
}

// dismissed reports, when a read has timed out, whether dismiss is why, and no message
// has come since.
func (c *Conn) dismissed() bool {
	a := c.accepted
	if a == nil || !c.rd.is(interrupted) || !a.is(StateNew) && !a.is(StateIdle) || a.unread() {
		return false
	}
	a.because(closedByServer)
	return true
}

// closeFrom closes the connection if it is in the state.
func (a *accepted) closeFrom(s ConnState) bool {
	if !a.state.CompareAndSwap(int32(s), int32(StateClosed)) {
		return false
	}
	a.because(closedByServer)
	a.closed(s)
	return true
}

// closed ends a connection that was in a state until the caller made it closed.
// A parked one has no goroutine that would do the rest.
func (a *accepted) closed(was ConnState) {
	if was == StateParked {
		a.t.parking.remove(a)
		a.t.finish(a)
		return
	}
	a.base.Close()
}

// SetIdle tells the Transporter that accepted the connection whether its protocol
// waits for a new message, so that Shutdown need not wait for it: an idle
// connection is closed at once. It reports whether the connection is still open.
//
// A protocol that returns from OnData between messages needs no SetIdle. One that
// keeps waiting inside of OnData calls SetIdle(true) before it waits, when Len is 0:
// Shutdown does not look at what is buffered. It calls SetIdle(false) when the first
// byte has come; if that reports false, Shutdown was faster, and the message must not
// be acted on, since no answer can be sent. IdleTimeout does not hold inside of OnData:
// SetReadTimeout limits that wait. A protocol that returns from OnData while it is idle
// has waited long enough: the connection is parked at once, and not after
// [Transporter].ParkAfter.
//
// SetIdle(true) first sends what [Conn.FlushSoon] held back, within the write timeout.
// SetIdle changes nothing for a connection that no Transporter accepted, and belongs to
// the reader's goroutine.
func (c *Conn) SetIdle(idle bool) (open bool) {
	a := c.accepted
	if a == nil {
		return !c.closed.Load()
	}
	c.pace.limit(!idle)
	if idle {
		_ = c.FlushHeld() // before, as an answer is on its way; the read that follows tells its error
	}
	if !idle {
		if a.change(StateIdle, StateActive) {
			a.patient = true // else it would have come back to be parked
		}
	} else if (a.change(StateActive, StateIdle) || a.change(StateHijacked, StateIdle)) && a.t.stopping.Load() && !a.unread() {
		a.closeFrom(StateIdle)
	}
	if a.is(StateClosed) {
		a.because(closedByServer) // who closes it may not have come to note it
		return false
	}
	return !c.closed.Load()
}

// SetHijacked tells the Transporter that OnData has given the connection to
// another protocol, which keeps it until OnData returns: it counts as hijacked,
// and MinReadRate does not hold for it any more. The timeouts and MaxReadBuffer do.
// Shutdown waits for it as for an active one. It changes nothing for a connection that
// no Transporter accepted or that is idle, and belongs to the reader's goroutine.
func (c *Conn) SetHijacked() {
	if a := c.accepted; a != nil {
		a.change(StateActive, StateHijacked)
		c.pace.limit(false)
	}
}

// DrainOnClose has [Conn.Close] keep the socket open for at most two seconds although
// nothing is unread: what the peer still sends is dropped, so that the answer arrives
// [S22]. It is for a protocol that has answered a message before all of it has come, such
// as one that is too large. It changes nothing for a connection that no Transporter
// accepted, and is promised on unix systems only. Any goroutine may call it.
func (c *Conn) DrainOnClose() {
	if c.accepted != nil {
		c.accepted.lingers.Store(true)
	}
}

// Resumed reports whether OnData has been called for the connection before this
// call of it. It belongs to the goroutine of OnData.
func (c *Conn) Resumed() bool { return c.accepted != nil && c.accepted.resumed }

// Watched reports whether the context that OnData has is cancelled when the peer
// goes away: [Transporter].CancelOnDisconnect is set, and works for this connection.
func (c *Conn) Watched() bool { return c.accepted != nil && c.accepted.cancel != nil }
