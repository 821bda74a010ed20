package standard

import (
	"net"
	"net/netip"
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
func (t *Transporter) reject(nc net.Conn, o *occasional, why string, limit int) {
	t.totals.rejected.Add(1)
	o.warn(t, why, "remote", nc.RemoteAddr(), "limit", limit)
	nc.Close()
}
