package standard

import (
	"net"
	"os"
	"syscall"
	"time"
)

// A socket that is closed while bytes lie unread in it makes the system send a
// reset, which may overtake or erase the answer that was sent last: a 413 to a
// peer that is still sending never arrives. So such a socket is kept open for a
// moment after Close: its sending side is closed and what comes is dropped, until
// the peer closes too (RFC 9112, section 9.6) [S22].

const (
	lingerTime = 2 * time.Second // in all

	// So much output that the peer has not taken is worth lingering for, too: bytes that
	// come after the close would have the system drop it.
	lingerUnsent = 64 << 10

	// What comes is dropped as fast as it does only at first: a peer that sends
	// without end costs at most 12.5 MiB/s.
	lingerBlock = 64 << 10
	lingerFast  = 1 << 20
	lingerPause = 5 * time.Millisecond
)

// lingering keeps a socket open for as long as it has to linger. It holds a second
// descriptor of it, so that closing the connection ends what is blocked on it, as
// ever.
type lingering struct{ net.Conn }

// noLinger stands in the place of a lingering when the connection's goroutine has
// ended: then nobody is left to wait.
var noLinger = new(lingering)

// linger returns a lingering for the connection if bytes lie unread in its socket or are
// known to come, or there are many that the peer has not taken yet, and nil if it can be
// closed as it is.
func (a *accepted) linger() *lingering {
	if !canLinger || a.is(StateClosed) {
		return nil // the transporter closes it, for good and at once
	}
	nc := a.socket()
	s, ok := nc.(interface {
		syscall.Conn
		File() (*os.File, error)
	})
	if !ok || !isStreamSocket(nc) || !a.lingers.Load() && !unread(s) && unsent(s) < lingerUnsent {
		return nil
	}
	f, err := s.File()
	if err != nil {
		return nil
	}
	defer f.Close()
	second, err := net.FileConn(f)
	if err != nil {
		return nil
	}
	return &lingering{second}
}

// begin tells the peer that nothing more comes, and leaves the waiting to the
// goroutine that serves. The connection that l is of has been closed.
func (l *lingering) begin(a *accepted) {
	// If these fail, the socket has failed, and wait ends at once.
	_ = l.Conn.(interface{ CloseWrite() error }).CloseWrite()
	_ = l.SetReadDeadline(time.Now().Add(lingerTime))
	if !a.lingering.CompareAndSwap(nil, l) {
		l.Close()
	}
	if a.is(StateClosed) {
		l.Close() // by the transporter, meanwhile
	}
}

// end ends the connection's time: it waits for a lingering, if there is one.
func (a *accepted) end() {
	if !a.lingering.CompareAndSwap(nil, noLinger) {
		a.lingering.Load().wait()
	}
}

// cut ends a lingering at once.
func (a *accepted) cut() {
	if l := a.lingering.Load(); l != nil && l != noLinger {
		l.Close()
	}
}

// wait drops what comes until the peer has closed, too, or has had its time.
func (l *lingering) wait() {
	defer l.Close()
	buf := getBlock(lingerBlock)
	defer buf.drop()
	for n := 0; ; {
		m, err := l.Read(buf.buf)
		if err != nil {
			return
		}
		if n += m; n >= lingerFast {
			time.Sleep(lingerPause)
		}
	}
}
