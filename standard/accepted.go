package standard

import (
	"slices"
	"sync/atomic"

	"github.com/hertznet/hertznet/network"
)

// connState is where an accepted connection is in its life. The order is that of
// a life: new, handshaking, then active and idle in turn, closed.
type connState int32

const (
	stateNew         connState = iota // no byte of it has been read
	stateHandshaking                  // TLS is being negotiated
	stateActive                       // OnData runs
	stateIdle                         // between two messages
	stateClosed                       // by the transporter, or gone
)

func (s connState) String() string {
	return [...]string{"new", "handshaking", "active", "idle", "closed"}[s]
}

// accepted is what a Transporter knows of one of its connections.
type accepted struct {
	t     *Transporter
	conn  network.Conn // a *Conn or a *TLSConn: what OnData gets
	base  *Conn        // the Conn in it
	tls   *TLSConn     // nil without TLS
	state atomic.Int32
	late  atomic.Pointer[lingering] // what keeps the socket open after Close
}

func (a *accepted) set(s connState) { a.state.Store(int32(s)) }

// closeIf closes the connection if it is in one of the states. One that changes
// from one of them to another at this moment is not missed.
func (a *accepted) closeIf(states ...connState) {
	for {
		s := a.state.Load()
		if !slices.Contains(states, connState(s)) {
			return
		}
		if a.state.CompareAndSwap(s, int32(stateClosed)) {
			a.conn.Close()
			return
		}
	}
}

// SetIdle tells the Transporter that accepted the connection whether its protocol
// waits for a new message, so that Shutdown need not wait for it: an idle
// connection is closed at once. It reports whether the connection is still open.
//
// A protocol that returns from OnData between messages needs no SetIdle. One that
// keeps waiting inside of OnData calls SetIdle(true) before it waits and
// SetIdle(false) when the first byte has come; if that reports false, Shutdown was
// faster, and the message must not be acted on, since no answer can be sent. It
// changes nothing for a connection that no Transporter accepted, and belongs to
// the reader's goroutine.
func (c *Conn) SetIdle(idle bool) (open bool) {
	a := c.accepted
	if a == nil {
		return !c.closed.Load()
	}
	if !idle {
		a.state.CompareAndSwap(int32(stateIdle), int32(stateActive))
	} else if a.state.CompareAndSwap(int32(stateActive), int32(stateIdle)) && a.t.stopping.Load() {
		a.closeIf(stateIdle)
	}
	return connState(a.state.Load()) != stateClosed && !c.closed.Load()
}
