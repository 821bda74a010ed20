package standard

import (
	"context"
	"errors"
	"io"
	"net"
	"time"
)

// serve is the first part of a connection's life, until it is parked or ends.
func (t *Transporter) serve(a *accepted, nc net.Conn) {
	t.run(a, func() (parked bool) { return t.greet(a, nc) && t.loop(a, StateNew) })
}

// resume goes on with a connection that was parked.
func (t *Transporter) resume(a *accepted) {
	t.totals.resumes.Add(1)
	t.run(a, func() (parked bool) {
		if parked, err := t.await(a, 1, false); parked || err != nil {
			t.quiet("no more to read", a, err)
			return parked
		}
		return t.loop(a, StateIdle)
	})
}

// run finishes the connection after f, unless that has parked it.
func (t *Transporter) run(a *accepted, f func() (parked bool)) {
	growStack(0)
	parked := false
	defer func() {
		if p := recover(); p != nil {
			t.panicked(&t.panics, p, "a handler panicked; its connection is closed", "remote", a.base.RemoteAddr())
		}
		if !parked {
			t.finish(a)
		}
	}()
	parked = f()
}

// finish ends a connection. It is called once: by the connection's goroutine, or by
// whoever closed it while it was parked.
func (t *Transporter) finish(a *accepted) {
	a.base.Close()
	a.end()
	if a.cancel != nil {
		a.cancel()
	}
	a.state.Store(int32(StateClosed))
	a.tell(StateClosed)
	t.forget(a)
}

// greet does what comes before the first byte, and reports whether it went well.
func (t *Transporter) greet(a *accepted, nc net.Conn) bool {
	a.tell(StateNew)
	a.ctx = context.Background()
	if t.OnAccept != nil {
		if got := t.OnAccept(nc); got != nil {
			a.ctx = got
		}
		if isClosed(nc) {
			return false
		}
	}
	if a.tls != nil {
		a.change(StateNew, StateHandshaking)
		if err := a.tls.Handshake(); err != nil {
			t.totals.handshakeErrors.Add(1)
			a.failed(err)
			if t.OnHandshakeError != nil {
				t.OnHandshakeError(nc, err)
			}
			t.quiet("TLS handshake failed", a, err)
			return false
		}
		t.totals.handshakes.Add(1)
		a.change(StateHandshaking, StateNew)
	}
	// Nothing is blocked yet, so these cannot fail.
	_ = a.base.rd.setTimeout(a.base, t.ReadTimeout)
	_ = a.base.wr.setTimeout(a.base, t.WriteTimeout)
	if t.OnConnect != nil {
		if got := t.OnConnect(a.ctx, a.conn()); got != nil {
			a.ctx = got
		}
	}
	if t.watch != nil {
		ctx, cancel := context.WithCancel(a.ctx)
		if remove := t.watch.add(nc, cancel); remove == nil {
			cancel()
		} else {
			a.ctx, a.cancel = ctx, func() {
				cancel()
				remove()
			}
		}
	}
	if err := a.base.fill(1); err != nil {
		t.quiet("no more to read", a, err)
		return false
	}
	return true
}

// loop calls onData for what has come, as often as there is more, and reports
// whether the connection was parked in the end.
func (t *Transporter) loop(a *accepted, state ConnState) (parked bool) {
	c := a.base
	partial := false // OnData waits for more of a message
	for {
		if state != StateActive && !a.change(state, StateActive) {
			a.because(closedByServer)
			return false // Shutdown was faster
		}
		_ = c.rd.setTimeout(c, t.ReadTimeout)
		if !partial {
			c.pace.limit(true)
		}
		before := c.in.taken()
		if err := t.onData(a.ctx, a.conn()); err != nil {
			t.quiet("the handler ended the connection", a, err)
			return false
		}
		if c.closed.Load() {
			return false
		}
		a.resumed = true
		// What the handler left although it took something may be a message that it
		// has not looked at. If it took nothing, it waits for more.
		need := 1
		if partial = c.in.taken() == before && c.in.len() > 0; partial {
			need = c.in.len() + 1
		} else {
			c.pace.limit(false)
		}
		waited := a.is(StateIdle)
		if c.in.len() >= need {
			// Shutdown must not take it for idle.
			a.change(StateIdle, StateActive)
			a.change(StateHijacked, StateActive)
			state = StateActive
			continue
		}
		// A peer that is slow to take an answer makes nobody idle.
		if err := c.sendHeld(); err != nil {
			t.quiet("what was held back cannot be sent", a, err)
			return false
		}
		if !waited && !a.change(StateActive, StateIdle) {
			a.change(StateHijacked, StateIdle)
		}
		state = StateIdle
		if t.stopping.Load() && !a.unread() {
			a.because(closedByServer)
			return false
		}
		if parked, err := t.await(a, need, waited); parked || err != nil {
			t.quiet("no more to read", a, err)
			return parked
		}
	}
}

// isClosed reports whether a hook has closed nc, which has no deadline yet.
func isClosed(nc net.Conn) bool {
	err := nc.SetDeadline(time.Time{})
	return errors.Is(err, net.ErrClosed) || errors.Is(err, io.ErrClosedPipe)
}

func (t *Transporter) forget(a *accepted) {
	t.freeSlot()
	t.mu.Lock()
	defer t.mu.Unlock()
	t.totals.count(a)
	t.leave(a.socket())
	delete(t.conns, a.id)
	t.checkDrained()
}
