package standard

import (
	"bytes"
	"context"
	"errors"
	"io"
	"net"
	"runtime"
	"syscall"
	"testing"
	"time"

	"github.com/hertznet/hertznet/network"
)

// The peer that goes while OnData runs [S17], and the one that still sends when it is
// over [S22], beyond what the kit sees.

// The peer's end is seen behind bytes that nobody has read, which alone are none, over
// TCP and unix sockets; a half-close is an end too.
func TestS17_DisconnectBehindUnreadBytes(t *testing.T) {
	if runtime.GOOS != "linux" {
		t.Skip("only Linux tells")
	}
	for _, kind := range []string{"tcp", "unix"} {
		for _, how := range []string{"close", "half-close"} {
			t.Run(kind+" "+how, func(t *testing.T) {
				running, alive, ended := make(chan bool), make(chan bool), make(chan error, 1)
				addr := "127.0.0.1:0"
				if kind == "unix" {
					addr = socketDir(t) + "/s"
				}
				tr := &Transporter{Network: kind, Addr: addr, CancelOnDisconnect: true}
				ln, err := tr.Listen()
				if err != nil {
					t.Fatal(err)
				}
				serveOn(t, tr, ln, func(ctx context.Context, _ any) error {
					running <- true
					select {
					case <-ctx.Done():
						ended <- errors.New("cancelled by bytes")
						return nil
					case <-alive:
					}
					<-ctx.Done()
					ended <- nil
					return nil
				})
				c, err := net.Dial(kind, ln.Addr().String())
				if err != nil {
					t.Fatal(err)
				}
				defer c.Close()
				if _, err := c.Write(pattern(100)); err != nil {
					t.Fatal(err)
				}
				<-running
				if _, err := c.Write(pattern(100)); err != nil { // the next, pipelined
					t.Fatal(err)
				}
				select {
				case alive <- true:
				case err := <-ended:
					t.Fatal(err)
				}
				if how == "half-close" {
					err = c.(interface{ CloseWrite() error }).CloseWrite()
				} else {
					err = c.Close()
				}
				if err != nil {
					t.Fatal(err)
				}
				if err := ends(t, ended); err != nil {
					t.Error(err)
				}
			})
		}
	}
}

// What has ended leaves nothing in the watcher.
func TestS17_NothingIsLeft(t *testing.T) {
	s := serve(t, &Transporter{CancelOnDisconnect: true}, func(context.Context, any) error { return io.EOF })
	for range 50 {
		c := s.dial(t)
		_, _ = c.Write([]byte("x"))
		peerCloses(t, c)
	}
	s.close(t)
	s.mu.Lock()
	w := s.watch
	s.mu.Unlock()
	if w == nil {
		t.Skip("nothing watches on this system")
	}
	settles(t, "watched connections", 0, func() int { return watched(w) })
}

// A peer that never ends cannot hold Shutdown longer than its context says, nor its
// connection beyond that.
func TestS22_LingeringIsCutByShutdown(t *testing.T) {
	if runtime.GOOS == "windows" {
		t.Skip("nothing lingers there")
	}
	closed := make(chan bool)
	s := serve(t, &Transporter{}, func(_ context.Context, conn any) error {
		c := conn.(network.Conn)
		for !unread(c.(*Conn).NetConn().(syscall.Conn)) {
			runtime.Gosched()
		}
		defer close(closed)
		_ = c.Skip(c.Len())
		_ = c.Release()
		return c.Close()
	})
	c := s.dial(t)
	go c.Write(pattern(1 << 20)) // more than the block that is read into
	<-closed
	all := s.all()
	if len(all) != 1 {
		t.Fatalf("%d connections, want the lingering one", len(all))
	}
	l := all[0].lingering.Load()
	if l == nil {
		t.Fatal("it does not linger")
	}
	_ = l.SetReadDeadline(time.Time{}) // it shall not end by itself
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if err := s.Shutdown(ctx); err != context.Canceled {
		t.Errorf("Shutdown: %v", err)
	}
	settles(t, "connections", 0, s.open)
}

// S22: what the peer sends after the close must not cost it an answer that it has not
// taken yet, though nothing lay unread at the close.
func TestS22_UntakenAnswerArrives(t *testing.T) {
	if runtime.GOOS != "linux" {
		t.Skip("only Linux tells how much is untaken")
	}
	answer := pattern(1 << 20)
	closed := make(chan bool)
	tr := &Transporter{}
	s := serve(t, tr, func(_ context.Context, c any) error {
		defer close(closed)
		conn := c.(*Conn)
		_ = conn.NetConn().(*net.TCPConn).SetWriteBuffer(2 << 20)
		if _, err := conn.Write(answer); err != nil {
			t.Error(err)
		}
		return conn.Close()
	})
	c := s.dial(t)
	_ = c.NetConn().(*net.TCPConn).SetReadBuffer(64 << 10)
	for _, b := range []string{"now", "and later"} {
		if _, err := c.Write([]byte(b)); err != nil {
			t.Fatal(err)
		}
		<-closed
	}
	got, err := io.ReadAll(readOnly{c})
	if !bytes.Equal(got, answer) || err != nil {
		t.Errorf("%d of %d bytes, %v", len(got), len(answer), err)
	}
}
