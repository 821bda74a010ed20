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

// serving starts a transporter on a kind of socket; it is closed at the end.
func serving(t *testing.T, tr *Transporter, kind string, onData network.OnData) net.Addr {
	t.Helper()
	tr.Network, tr.Addr = "tcp", "127.0.0.1:0"
	if kind == "unix" {
		tr.Network, tr.Addr = "unix", socketDir(t)+"/s"
	}
	ln, err := tr.Listen()
	if err != nil {
		t.Fatal(err)
	}
	done := make(chan error, 1)
	go func() { done <- tr.Serve(ln, onData) }()
	t.Cleanup(func() {
		tr.Close()
		if err := <-done; err != nil {
			t.Error(err)
		}
	})
	return ln.Addr()
}

func dialTo(t *testing.T, a net.Addr) net.Conn {
	t.Helper()
	c, err := net.Dial(a.Network(), a.String())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	return c
}

// S17: the peer's end cancels the context of the handler that runs, bytes that
// nobody has read notwithstanding; bytes alone do not.
func TestS17_DisconnectCancels(t *testing.T) {
	if runtime.GOOS != "linux" {
		t.Skip("only Linux tells")
	}
	for _, kind := range []string{"tcp", "unix"} {
		for _, how := range []string{"close", "half-close", "reset"} {
			if kind == "unix" && how == "reset" {
				continue
			}
			t.Run(kind+" "+how, func(t *testing.T) {
				running, ended := make(chan bool), make(chan error, 1)
				addr := serving(t, &Transporter{CancelOnDisconnect: true}, kind, func(ctx context.Context, c any) error {
					running <- true
					select {
					case <-ctx.Done():
						ended <- errors.New("cancelled by bytes")
						return nil
					case <-running:
					}
					<-ctx.Done()
					ended <- nil
					return nil
				})
				c := dialTo(t, addr)
				if _, err := c.Write(pattern(100)); err != nil {
					t.Fatal(err)
				}
				<-running
				if _, err := c.Write(pattern(100)); err != nil { // the next, pipelined
					t.Fatal(err)
				}
				running <- true
				switch how {
				case "half-close":
					c.(interface{ CloseWrite() error }).CloseWrite()
				case "reset":
					c.(*net.TCPConn).SetLinger(0)
					fallthrough
				case "close":
					c.Close()
				}
				if err := <-ended; err != nil {
					t.Fatal(err)
				}
			})
		}
	}
}

// S17: what has ended leaves nothing in the watcher.
func TestS17_NothingIsLeft(t *testing.T) {
	tr := &Transporter{CancelOnDisconnect: true}
	addr := serving(t, tr, "tcp", func(ctx context.Context, c any) error { return io.EOF })
	for range 50 {
		c := dialTo(t, addr)
		c.Write([]byte("x"))
		io.Copy(io.Discard, c)
	}
	tr.Close()
	tr.mu.Lock()
	w := tr.watch
	tr.mu.Unlock()
	if w == nil {
		t.Skip("nothing watches on this system")
	}
	settles(t, "watched connections", 0, func() int { return watched(w) })
}

// S19: no more connections than MaxConns are served at a time, and the next one
// comes in when one has ended.
func TestS19_MaxConns(t *testing.T) {
	begun, end := make(chan bool, 10), make(chan bool)
	addr := serving(t, &Transporter{MaxConns: 2}, "tcp", func(_ context.Context, c any) error {
		begun <- true
		<-end
		return io.EOF
	})
	for range 4 {
		if _, err := dialTo(t, addr).Write([]byte("x")); err != nil {
			t.Fatal(err)
		}
	}
	<-begun
	<-begun
	for range 2 {
		select {
		case <-begun:
			t.Fatal("three connections are served")
		case <-time.After(30 * time.Millisecond):
		}
		end <- true
		<-begun
	}
	end <- true
	end <- true
}

// S22: an answer that is sent while the peer is still sending arrives whole,
// though it fits no socket buffer and the peer reads it late.
func TestS22_LateAnswerArrives(t *testing.T) {
	answer := pattern(1 << 20)
	for _, kind := range []string{"tcp", "unix"} {
		for _, size := range []int{100, len(answer)} {
			addr := serving(t, &Transporter{}, kind, func(_ context.Context, c any) error {
				conn := c.(*Conn)
				if _, err := conn.Peek(10); err != nil {
					return err
				}
				if _, err := conn.Write(answer[:size]); err != nil {
					t.Error(err)
				}
				return conn.Close() // as Hertz's engine does
			})
			c := dialTo(t, addr)
			sent := make(chan error, 1)
			go func() {
				for {
					if _, err := c.Write(pattern(1 << 16)); err != nil {
						sent <- err
						return
					}
				}
			}()
			time.Sleep(20 * time.Millisecond) // most of the answer is on its way
			got, err := io.ReadAll(c)
			if !bytes.Equal(got, answer[:size]) || err != nil && !errors.Is(err, syscall.ECONNRESET) {
				t.Errorf("%s: %d of %d bytes, %v", kind, len(got), size, err)
			}
			c.Close()
			<-sent
		}
	}
}

// S22: a peer that never ends cannot hold a connection for longer than the bounds
// say, nor Close and Shutdown.
func TestS22_LingeringIsCutByClose(t *testing.T) {
	closed := make(chan bool)
	tr := &Transporter{}
	addr := serving(t, tr, "tcp", func(_ context.Context, c any) error {
		for !unread(c.(*Conn).NetConn().(syscall.Conn)) {
			runtime.Gosched()
		}
		defer close(closed)
		c.(*Conn).Skip(c.(*Conn).Len())
		c.(*Conn).Release()
		return c.(*Conn).Close()
	})
	c := dialTo(t, addr)
	go c.Write(pattern(1 << 20)) // more than the block that is read into
	<-closed
	if n := len(tr.all()); n != 1 {
		t.Fatalf("%d connections, want the lingering one", n)
	}
	start := time.Now()
	ctx, cancel := context.WithTimeout(context.Background(), 20*time.Millisecond)
	defer cancel()
	if err := tr.Shutdown(ctx); err != context.DeadlineExceeded {
		t.Errorf("Shutdown: %v", err)
	}
	settles(t, "connections", 0, func() int { return len(tr.all()) })
	if took := time.Since(start); took >= lingerTime {
		t.Errorf("it took %v", took)
	}
}
