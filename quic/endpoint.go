package quic

import (
	"context"
	"net"
	"sync"
	"time"

	"github.com/quic-go/quic-go"
)

// endpoint is a socket and quic-go's Transport on it. It is closed when the last one
// who uses it, a connection or a listener, has let it go.
type endpoint struct {
	tr   *quic.Transport
	once sync.Once
	done chan struct{} // closed when the socket is closed

	mu    sync.Mutex
	users int
}

// newEndpoint returns an endpoint with one user. It owns pc.
func newEndpoint(pc net.PacketConn) *endpoint {
	return &endpoint{tr: &quic.Transport{Conn: pc}, users: 1, done: make(chan struct{})}
}

// carry makes the connection a user until it has ended.
func (e *endpoint) carry(c *quic.Conn) *Conn {
	e.mu.Lock()
	e.users++
	e.mu.Unlock()
	context.AfterFunc(c.Context(), func() {
		if app, ok := context.Cause(c.Context()).(*quic.ApplicationError); ok && !app.Remote {
			// The word that the connection is closed may be lost. quic-go says it again
			// to a peer that goes on sending (RFC 9000, section 10.2), if it can.
			time.AfterFunc(3*pto(c), e.release)
			return
		}
		e.release()
	})
	return NewConn(c)
}

// release lets the endpoint go.
func (e *endpoint) release() {
	e.mu.Lock()
	e.users--
	last := e.users == 0
	e.mu.Unlock()
	if last {
		e.close()
	}
}

// close closes the socket, whoever uses it. Connections that are open are lost, and
// their peers are not told.
func (e *endpoint) close() {
	e.once.Do(func() {
		// First the socket, which ends reading whatever kind of net.PacketConn it is.
		_ = e.tr.Conn.Close()
		_ = e.tr.Close()
		close(e.done)
	})
}
