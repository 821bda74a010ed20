package standard

import (
	"context"
	"sync"
	"time"
)

// newGrace is how long a Shutdown lets connections live that have not sent a byte
// yet: their first request may be on its way.
const newGrace = 100 * time.Millisecond

// endTaking has connections that come from now on closed. One that was accepted while
// Shutdown began has a request on its way, and nobody else to serve it [S16].
func (t *Transporter) endTaking() {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.taking = false
	t.checkDrained()
}

// checkDrained notes when the last connection is gone. t.mu is held.
func (t *Transporter) checkDrained() {
	if !t.stopping.Load() || t.taking || len(t.conns) > 0 {
		return
	}
	select {
	case <-t.drained:
	default:
		close(t.drained)
		t.parking.close()
	}
}

// stop ends accepting. It may be called before serving and any number of times.
func (t *Transporter) stop() error {
	t.mu.Lock()
	t.init()
	if t.stopping.Swap(true) {
		t.mu.Unlock()
		return nil
	}
	close(t.stopped)
	t.checkDrained()
	ln := t.closing
	t.mu.Unlock()
	if ln == nil {
		return nil
	}
	return ln.Close() // without the lock: it may be a listener that calls back, or waits
}

// all returns the connections that there are now.
func (t *Transporter) all() []*accepted {
	t.mu.Lock()
	defer t.mu.Unlock()
	all := make([]*accepted, 0, len(t.conns))
	for _, a := range t.conns {
		all = append(all, a)
	}
	return all
}

// closeEach closes connections, each by f. One over TLS may take its time to say
// close_notify to a peer that does not read, as one that holds output back may to send
// that, and the next need not wait for it.
func (t *Transporter) closeEach(f func(*accepted)) {
	var wg sync.WaitGroup
	for _, a := range t.all() {
		if a.base.socket && !a.base.holds() {
			f(a)
		} else {
			wg.Go(func() { f(a) })
		}
	}
	wg.Wait()
}

// dismiss ends the connections that are in one of the states and have no message.
func (t *Transporter) dismiss(states ...ConnState) {
	t.closeEach(func(a *accepted) { a.dismiss(states...) })
}

// closeAll closes every connection, whatever it does.
func (t *Transporter) closeAll() {
	t.endTaking()
	t.closeEach(func(a *accepted) {
		was := ConnState(a.state.Swap(int32(StateClosed)))
		a.because(closedByServer)
		a.closed(was)
		a.cut()
	})
}

// Close ends accepting and closes every connection, at once: it does not wait for
// OnData to return. TLS connections, and those that hold output back, have a quarter
// of a second to send it or close_notify. It may be called before, during and after
// serving, and again [S5]. It returns the error of closing the listener.
func (t *Transporter) Close() error {
	err := t.stop()
	t.closeAll()
	return err
}

// Shutdown ends accepting, closes idle connections at once and, after 100 ms, those that
// have not sent a byte, and waits for the active and the hijacked ones to become idle or
// end. An idle one whose socket has something to read counts as active. When ctx ends
// first it closes what is left and returns exactly ctx.Err() [S6, S7], else the error of
// closing the listener. It may be called before serving, more than once, and
// concurrently [S8].
func (t *Transporter) Shutdown(ctx context.Context) error {
	err := t.stop()
	t.dismiss(StateIdle, StateParked)
	grace := time.NewTicker(newGrace)
	defer grace.Stop()
	for {
		select {
		case <-t.drained:
			return err
		default:
		}
		select {
		case <-t.drained:
			return err
		case <-grace.C:
			t.endTaking() // of a listener whose Accept does not end by its Close
			t.dismiss(StateNew, StateHandshaking, StateIdle, StateParked)
		case <-ctx.Done():
			t.closeAll()
			return ctx.Err()
		}
	}
}
