package tlsconn

import (
	"net"
	"sync"
	"sync/atomic"
	"time"
)

// deadlines keeps what the user asked for apart from what the handshake and close_notify
// need. The conn beneath always has the effective ones:
//
//	read:  the earlier of the user's and the handshake's
//	write: the same, or the alert's alone while close_notify is written
//
// A handshake that a Read or Write runs both reads and writes, and the limit of that call
// is one for both.
type deadlines struct {
	dmu sync.Mutex

	userRead, userWrite time.Time

	budget   time.Duration // of the handshake; <= 0: none
	shaking  int           // calls of Handshake that are running
	start    time.Time     // of the first of them
	complete bool          // the handshake is done, whoever still waits to hear it

	shakingReads, shakingWrites int // Reads and Writes that wait for the handshake

	alert   time.Time // overrides the write deadline
	closing bool      // the alert's deadline stays

	answer time.Time // the limit of what crypto/tls writes by itself in a Read; zero: none

	expired atomic.Bool // a conn that knows no deadlines was closed in their place
}

// earlier treats the zero time as never.
func earlier(a, b time.Time) time.Time {
	if a.IsZero() || !b.IsZero() && b.Before(a) {
		return b
	}
	return a
}

// limit is the handshake's deadline, zero outside of one.
func (d *deadlines) limit() time.Time {
	if d.shaking == 0 || d.complete || d.budget <= 0 {
		return time.Time{}
	}
	return d.start.Add(d.budget)
}

// apply sets the effective deadlines on the conn beneath. It is called with dmu held: the
// last call to be recorded must be the last to reach the conn [T8].
func (d *deadlines) apply(raw net.Conn, read, write bool) error {
	limit := d.limit()
	r, w := earlier(d.userRead, limit), earlier(d.userWrite, limit)
	if !d.complete && d.shakingWrites > 0 {
		r = earlier(r, d.userWrite)
	}
	if !d.complete && d.shakingReads > 0 {
		w = earlier(w, d.userRead)
	}
	w = earlier(w, d.answer)
	if !d.alert.IsZero() {
		w = d.alert
	}
	if read && write && r.Equal(w) {
		return raw.SetDeadline(r)
	}
	if read {
		if err := raw.SetReadDeadline(r); err != nil {
			return err
		}
	}
	if write {
		return raw.SetWriteDeadline(w)
	}
	return nil
}

// setUser records deadlines of the user, and puts them in force where nothing stands before
// them.
func (l *layer) setUser(t time.Time, read, write bool) error {
	l.dmu.Lock()
	defer l.dmu.Unlock()
	if read {
		l.userRead = t
	}
	if write {
		l.userWrite = t
	}
	if !l.complete && l.shakingReads+l.shakingWrites > 0 {
		read, write = true, true
	}
	err := l.apply(l.raw, read, write && l.alert.IsZero())
	if l.closed.Load() {
		err = l.opError("set", net.ErrClosed)
	}
	return err
}

// tooLate reports whether the user's deadline has passed, that of writes or of reads.
// crypto/tls would make the error permanent although nothing has been written, or the
// handshake not begun [L6].
func (l *layer) tooLate(read bool) bool {
	l.dmu.Lock()
	t := l.userWrite
	if read {
		t = l.userRead
	}
	l.dmu.Unlock()
	return !t.IsZero() && !time.Now().Before(t)
}

func (l *layer) setBudget(d time.Duration) {
	l.dmu.Lock()
	defer l.dmu.Unlock()
	l.budget = d
	if l.shaking > 0 {
		l.apply(l.raw, true, true)
	}
}

// beginHandshake puts the handshake's deadline in force. Concurrent calls share the budget
// of the first, since they wait for its handshake. stop, if not nil, must be called at the
// end.
func (l *layer) beginHandshake() (stop func()) {
	l.dmu.Lock()
	defer l.dmu.Unlock()
	l.shaking++
	if l.shaking > 1 {
		return nil
	}
	l.start = time.Now()
	if l.budget <= 0 {
		return nil
	}
	return l.orClose(l.apply(l.raw, true, true), l.budget)
}

// orClose stands in for a deadline that could not be set: some conns, a tunnel through SSH
// for one, know none. It closes the conn at the time.
func (l *layer) orClose(err error, d time.Duration) (stop func()) {
	if err == nil || isClosed(err) {
		return nil
	}
	timer := time.AfterFunc(d, func() {
		l.expired.Store(true)
		l.Close()
	})
	return func() { timer.Stop() }
}

// endHandshake gives the user's deadlines back to the conn: after a success at once, for
// the caller is about to use it; after a failure when no other caller is left that may be
// running one.
func (l *layer) endHandshake(complete bool) {
	l.dmu.Lock()
	defer l.dmu.Unlock()
	l.shaking--
	inForce := l.budget > 0 && !l.complete
	l.complete = l.complete || complete
	if inForce && (l.complete || l.shaking == 0) {
		l.apply(l.raw, true, true) // fails on a conn that has ended, which the next call reports
	}
}

// awaitHandshake notes that n more Reads or Writes wait for the handshake.
func (l *layer) awaitHandshake(count *int, n int) {
	l.dmu.Lock()
	defer l.dmu.Unlock()
	*count += n
	if !(l.userRead.IsZero() && l.userWrite.IsZero()) {
		l.apply(l.raw, true, l.alert.IsZero()) // fails on a conn that has ended, as above
	}
}

// unlessShaking calls f, and lets no handshake begin meanwhile, unless one is running.
func (l *layer) unlessShaking(f func()) bool {
	l.dmu.Lock()
	defer l.dmu.Unlock()
	if l.shaking > 0 {
		return false
	}
	f()
	return true
}

// beginAlert bounds the writing of close_notify, whatever the user's write deadline is: one
// that was meant for an earlier response has often passed. end restores it, unless the conn
// is closing.
func (l *layer) beginAlert(d time.Duration, closing bool) (end func()) {
	l.dmu.Lock()
	defer l.dmu.Unlock()
	if l.closing {
		return func() {}
	}
	l.closing = closing
	l.alert = time.Now().Add(d)
	stop := l.orClose(l.apply(l.raw, false, true), d)
	return func() {
		if stop != nil {
			stop()
		}
		l.dmu.Lock()
		defer l.dmu.Unlock()
		if !l.closing {
			l.alert = time.Time{}
			l.apply(l.raw, false, true)
		}
	}
}

// beginAnswer bounds what crypto/tls writes by itself once the handshake is complete: the
// answer to a KeyUpdate, an alert. It writes these in a Read, to a peer that may take
// nothing, and no deadline of a Read would end that.
func (l *layer) beginAnswer() (end func()) {
	l.dmu.Lock()
	defer l.dmu.Unlock()
	if !l.complete || !l.alert.IsZero() {
		return func() {}
	}
	l.answer = time.Now().Add(answerTimeout)
	stop := l.orClose(l.apply(l.raw, false, true), answerTimeout)
	return func() {
		if stop != nil {
			stop()
		}
		l.dmu.Lock()
		defer l.dmu.Unlock()
		l.answer = time.Time{}
		l.apply(l.raw, false, true)
	}
}

func (l *layer) alerting() bool {
	l.dmu.Lock()
	defer l.dmu.Unlock()
	return !l.alert.IsZero()
}
