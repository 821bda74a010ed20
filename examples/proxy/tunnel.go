package main

import (
	"errors"
	"io"
	"net"
	"os"
	"sync"
	"sync/atomic"
	"time"

	"github.com/cloudwego/hertz/pkg/network"
)

const (
	tunnelIdle = 5 * time.Minute
	tunnelPart = 1 << 20 // bytes that are copied between two looks at the clock
)

// counts are of all tunnels, and of requests.
type counts struct {
	forwarded      atomic.Int64 // requests
	opened, cut    atomic.Int64 // tunnels, and those of them that an error ended
	toTarget, back atomic.Int64 // bytes
}

// end is one end of a tunnel.
type end interface {
	net.Conn
	CloseWrite() error
}

// beneath returns the connection beneath a server's Conn: a *net.TCPConn, which has the
// kernel copy from socket to socket (splice on Linux), or if the proxy is reached over
// TLS a *tlsconn.Conn. What the Conn has buffered must be read from the Conn first.
func beneath(c network.Conn) (end, bool) {
	n, ok := c.(interface{ NetConn() net.Conn })
	if !ok {
		return nil, false
	}
	e, ok := n.NetConn().(end)
	return e, ok
}

// tunnel copies bytes between a client and a target.
type tunnel struct {
	client, target end
	idle           time.Duration // how long no byte may move, or a peer not read
	counts         *counts

	began time.Time
	used  atomic.Int64 // when bytes moved last, as nanoseconds since began
	once  sync.Once    // abort
}

// run returns when both have ended their sending sides, or when the tunnel is cut.
// client is the Conn above t.client.
func (t *tunnel) run(client network.Conn) {
	t.began = time.Now()
	defer t.target.Close() // Hertz closes the client's end

	var up sync.WaitGroup
	up.Go(func() {
		// The client's first bytes may have come together with its request.
		_ = t.target.SetWriteDeadline(time.Now().Add(t.idle)) // or the write fails
		n, err := io.CopyN(t.target, client, int64(client.Len()))
		t.counts.toTarget.Add(n)
		if err == nil {
			err = t.pass(t.target, t.client, &t.counts.toTarget)
		}
		t.abort(err)
	})
	t.abort(t.pass(t.client, t.target, &t.counts.back))
	up.Wait()
}

// pass copies what src sends to dst. When src ends its sending side so does pass for dst,
// and the other direction goes on.
func (t *tunnel) pass(dst, src end, bytes *atomic.Int64) error {
	for {
		// They also replace what the server's timeouts have set. If they fail, the copy does.
		writeLimit := time.Now().Add(t.idle)
		_ = src.SetReadDeadline(time.Now().Add(t.idle / 4))
		_ = dst.SetWriteDeadline(writeLimit)
		n, err := io.CopyN(dst, src, tunnelPart)
		bytes.Add(n)
		if n > 0 {
			t.used.Store(int64(time.Since(t.began)))
		}
		switch {
		case err == nil:
		case err == io.EOF:
			return dst.CloseWrite()
		case !errors.Is(err, os.ErrDeadlineExceeded) || !time.Now().Before(writeLimit):
			return err // a write that timed out has lost bytes; a read has not
		case time.Since(t.began)-time.Duration(t.used.Load()) >= t.idle:
			return errors.New("the tunnel is idle")
		}
	}
}

// abort, unless err is nil, cuts the tunnel and so ends both directions. The ends are
// reset: a stream that was cut must not look like one that has ended.
func (t *tunnel) abort(err error) {
	if err == nil {
		return
	}
	t.once.Do(func() {
		t.counts.cut.Add(1)
		for _, e := range []end{t.client, t.target} {
			if tcp, ok := e.(*net.TCPConn); ok {
				_ = tcp.SetLinger(0) // it fails on a closed one only
			}
			e.Close()
		}
	})
}
