package standard

import "github.com/hertznet/hertznet/tlsconn"

// Probe looks at the socket without blocking and without reading from it. It is
// for connections that wait to be used again: what it finds may have come at any
// time since the last read.
//
// readable says that the socket holds something to read, be it bytes or the end.
// Over TLS these may be bytes of TLS itself: a session ticket, a key update. ended
// says that the peer has closed the connection, at least its sending side, or has
// reset it; bytes may be left in front of that end. What Len counts is not looked at.
//
// It is one system call on TCP and unix sockets of unix systems, and TLS straight
// over one. On those other than Linux, ended is known only once no bytes are left in
// front of it, which over TLS hides a close that was announced. On Windows, over any
// other net.Conn, and after Close both are false. It may be called from any goroutine.
func (c *Conn) Probe() (readable, ended bool) {
	nc := c.nc
	if t, ok := nc.(*tlsconn.Conn); ok {
		nc = t.NetConn()
	}
	raw := socketOf(nc)
	if raw == nil {
		return false, false
	}
	return probe(raw)
}
