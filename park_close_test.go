package hertznet_test

import (
	"context"
	"crypto/tls"
	"io"
	"math/rand/v2"
	"runtime"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/cloudwego/hertz/pkg/app"
	"github.com/cloudwego/hertz/pkg/app/server"
	"github.com/cloudwego/hertz/pkg/network"
)

// However the peer ends a parked connection, it is forgotten at once.
func TestPeerEndsParkedConnection(t *testing.T) {
	eachMode(t, []mode{tcpMode, unixMode, tlsMode}, func(t *testing.T, m mode) {
		s := runPark(t, m, parkSoon, func(h *server.Hertz) { h.GET("/", text("ok")) }, server.WithIdleTimeout(0))
		for name, end := range map[string]func(c *rawConn){
			"close": func(c *rawConn) { c.Close() },
			"reset": func(c *rawConn) { reset(c) },
			"half-close": func(c *rawConn) {
				_ = c.Conn.(interface{ CloseWrite() error }).CloseWrite()
				if rest := c.atEnd(); rest != "" {
					t.Errorf("half-close: got %q", rest)
				}
			},
			"cut": func(c *rawConn) { // over TLS: no close_notify
				if tc, ok := c.Conn.(*tls.Conn); ok {
					tc.NetConn().Close()
				}
				c.Close()
			},
			"a request and a half-close": func(c *rawConn) {
				c.send("GET / HTTP/1.1\r\nHost: x\r\n\r\n")
				_ = c.Conn.(interface{ CloseWrite() error }).CloseWrite()
				if _, body := c.answer("GET"); body != "ok" {
					t.Errorf("half-close after a request: got %q", body)
				}
				c.atEnd()
			},
			"a piece of a request and a half-close": func(c *rawConn) {
				c.send("GE")
				_ = c.Conn.(interface{ CloseWrite() error }).CloseWrite()
				c.atEnd()
			},
		} {
			c := s.raw(t)
			c.get("/")
			s.waitParked(t, 1)
			end(c)
			s.waitGone(t)
			if t.Failed() {
				t.Fatal(name)
			}
		}
	})
}

// S6, S5: Shutdown and Close end parked connections at once.
func TestShutdownAndCloseOfParkedConnections(t *testing.T) {
	eachMode(t, []mode{tcpMode, unixMode, tlsMode}, func(t *testing.T, m mode) {
		for name, end := range map[string]func(s *parkSite) error{
			"Shutdown": func(s *parkSite) error { return s.Shutdown(context.Background()) },
			"Close":    func(s *parkSite) error { return s.Close() },
		} {
			s := runPark(t, m, parkSoon, func(h *server.Hertz) { h.GET("/", text("")) }, server.WithExitWaitTime(guard))
			conns := make([]*rawConn, 30)
			for i := range conns {
				conns[i] = s.raw(t)
				conns[i].get("/")
			}
			s.waitParked(t, len(conns))
			start := time.Now()
			if err := end(s); err != nil {
				t.Errorf("%s: %v", name, err)
			}
			if d := time.Since(start); d > guard/3 {
				t.Errorf("%s took %v", name, d)
			}
			for _, c := range conns {
				c.atEnd()
			}
			s.waitGone(t)
		}
	})
}

// keeper is a handler that keeps its connection for somebody else.
func keeper(kept chan network.Conn) app.HandlerFunc {
	return func(_ context.Context, ctx *app.RequestContext) {
		kept <- ctx.GetConn()
		ctx.String(200, "ok")
	}
}

// A Close by whoever has kept the connection closes it, whenever it comes: none is
// taken for the engine's, which only gives a lease back.
func TestCloseByAHandler(t *testing.T) {
	eachMode(t, []mode{tcpMode, unixMode, tlsMode}, func(t *testing.T, m mode) {
		kept := make(chan network.Conn, 10)
		s := runPark(t, m, parkSoon, func(h *server.Hertz) {
			h.GET("/", keeper(kept))
			h.GET("/now", func(_ context.Context, ctx *app.RequestContext) { _ = ctx.GetConn().Close() })
		}, server.WithIdleTimeout(0))
		t.Run("in the handler, after parking", func(t *testing.T) {
			c := s.raw(t)
			c.get("/")
			<-kept
			s.waitParked(t, 1)
			c.send("GET /now HTTP/1.1\r\nHost: x\r\n\r\n")
			if rest := c.atEnd(); rest != "" {
				t.Errorf("got %q", rest)
			}
			s.waitGone(t)
		})
		t.Run("while parked", func(t *testing.T) {
			for range 20 {
				c := s.raw(t)
				c.get("/")
				s.waitParked(t, 1)
				if err := (<-kept).Close(); err != nil {
					t.Error(err)
				}
				c.atEnd()
				s.waitGone(t)
			}
		})
		t.Run("by the first request's, in the second's idle time", func(t *testing.T) {
			c := s.raw(t)
			c.get("/")
			s.waitParked(t, 1)
			c.get("/")
			first, second := <-kept, <-kept
			if err := first.Close(); err != nil {
				t.Error(err)
			}
			c.atEnd()
			s.waitGone(t)
			if err := second.Close(); err != nil {
				t.Errorf("a second Close: %v", err)
			}
		})
		t.Run("around parking", func(t *testing.T) {
			r := rand.New(rand.NewPCG(1, 2))
			for range 100 {
				c := s.raw(t)
				c.get("/")
				pause(parkSoon/2 + time.Duration(r.Int64N(int64(parkSoon))))
				if err := (<-kept).Close(); err != nil {
					t.Error(err)
				}
				c.atEnd()
			}
			s.waitGone(t)
		})
	})
}

// pause is time.Sleep, and more exact.
func pause(d time.Duration) {
	end := time.Now().Add(d)
	if d > 2*time.Millisecond {
		time.Sleep(d - time.Millisecond)
	}
	for time.Now().Before(end) {
		runtime.Gosched()
	}
}

// A Close races with the request that resumes the connection: it is answered whole or
// not at all, its handler runs once at most, and the connection is gone.
func TestCloseWhileResuming(t *testing.T) {
	eachMode(t, []mode{tcpMode, tlsMode}, func(t *testing.T, m mode) {
		kept := make(chan network.Conn, 1)
		var served atomic.Int64
		s := runPark(t, m, parkSoon, func(h *server.Hertz) {
			h.GET("/keep", keeper(kept))
			h.GET("/", func(_ context.Context, ctx *app.RequestContext) {
				served.Add(1)
				ctx.String(200, "answer")
			})
		})
		answered := int64(0)
		for i := range 100 {
			c := s.raw(t)
			c.get("/keep")
			s.waitParked(t, 1)
			conn, closed := <-kept, make(chan struct{})
			go func() {
				pause(time.Duration(i) * 2 * time.Microsecond)
				conn.Close()
				close(closed)
			}()
			if _, err := io.WriteString(c.Conn, "GET / HTTP/1.1\r\nHost: x\r\n\r\n"); err == nil {
				if rest := c.atEnd(); strings.HasSuffix(rest, "\r\n\r\nanswer") {
					answered++
				} else if rest != "" {
					t.Fatalf("a piece of an answer: %q", rest)
				}
			}
			<-closed
			s.waitGone(t)
		}
		if n := served.Load(); n < answered || n > 100 {
			t.Errorf("%d requests served, %d answered", n, answered)
		}
	})
}

// A connection that was parked can be asked to close.
func TestConnectionCloseAfterParking(t *testing.T) {
	eachMode(t, []mode{tcpMode, unixMode, tlsMode}, func(t *testing.T, m mode) {
		s := runPark(t, m, parkSoon, func(h *server.Hertz) { h.GET("/", text("ok")) })
		c := s.raw(t)
		c.get("/")
		s.waitParked(t, 1)
		c.send("GET / HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
		if resp, body := c.answer("GET"); !resp.Close || body != "ok" {
			t.Errorf("close %t, body %q", resp.Close, body)
		}
		c.atEnd()
		s.waitGone(t)
	})
}
