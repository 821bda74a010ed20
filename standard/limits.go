package standard

import (
	"net"
	"net/netip"
	"runtime/debug"
	"sync"
	"time"
)

// takeSlot waits until one more connection may be open; false says that there
// will be none.
func (t *Transporter) takeSlot() bool {
	if t.slots == nil || t.RejectOverMaxConns {
		return true
	}
	select {
	case t.slots <- struct{}{}:
		return true
	case <-t.stopped:
		return false
	}
}

func (t *Transporter) freeSlot() {
	if t.slots != nil {
		<-t.slots
	}
}

// enter counts a connection for its peer's address, and reports whether there is room
// for it. t.mu is held.
func (t *Transporter) enter(nc net.Conn) bool {
	if t.perIP == nil {
		return true
	}
	ip := peerOf(nc)
	if ip.IsValid() && t.perIP[ip] >= t.MaxConnsPerIP {
		return false
	}
	t.perIP[ip]++
	return true
}

// leave undoes enter. t.mu is held.
func (t *Transporter) leave(nc net.Conn) {
	if t.perIP == nil {
		return
	}
	ip := peerOf(nc)
	if t.perIP[ip]--; t.perIP[ip] <= 0 {
		delete(t.perIP, ip)
	}
}

// peerOf returns the address that a peer counts as, the zero Addr for one without.
func peerOf(nc net.Conn) netip.Addr {
	a, ok := nc.RemoteAddr().(*net.TCPAddr)
	if !ok {
		return netip.Addr{}
	}
	ip := a.AddrPort().Addr().Unmap().WithZone("")
	if ip.Is6() {
		if p, err := ip.Prefix(64); err == nil {
			ip = p.Addr()
		}
	}
	return ip
}

// reject closes a connection that is one too many.
func (t *Transporter) reject(nc net.Conn, why string, limit int) {
	t.totals.rejected.Add(1)
	t.rejects.warn(t, why, "remote", nc.RemoteAddr(), "limit", limit)
	nc.Close()
}

// logPause is how long a message of one kind is not repeated.
const logPause = 10 * time.Second

// occasional logs what a peer can bring about as often as it likes.
type occasional struct {
	mu      sync.Mutex
	last    int64 // the moment of the last line
	skipped int
}

// warn logs the message, unless one of its kind was logged a moment ago.
func (o *occasional) warn(t *Transporter, msg string, args ...any) {
	if o.due(&args) {
		t.log().Warn(msg, args...)
	}
}

// due reports whether a message is to be logged now. If others were left out before it, it adds
// their number to its args.
func (o *occasional) due(args *[]any) bool {
	now := moment()
	o.mu.Lock()
	defer o.mu.Unlock()
	if o.last != 0 && now-o.last < int64(logPause) {
		o.skipped++
		return false
	}
	o.last = now
	if o.skipped > 0 {
		*args = append(*args, "alsoNotLogged", o.skipped)
		o.skipped = 0
	}
	return true
}

// panicked counts the panic p that was recovered, and logs it with its stack, unless one
// was logged a moment ago: a peer may know of a message that brings it about.
func (t *Transporter) panicked(o *occasional, p any, msg string, args ...any) {
	t.totals.panics.Add(1)
	if o.due(&args) {
		t.log().Error(msg, append(args, "panic", p, "stack", string(debug.Stack()))...)
	}
}
