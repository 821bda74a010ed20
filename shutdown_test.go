package hertznet_test

import (
	"context"
	"testing"
	"time"

	"github.com/cloudwego/hertz/pkg/app"
	"github.com/cloudwego/hertz/pkg/app/server"
	"github.com/cloudwego/hertz/pkg/network"
)

// Shutdown closes idle keep-alive connections at once [S6].
func TestShutdownWithIdleConnections(t *testing.T) {
	eachMode(t, []mode{tcpMode, tlsMode, unixMode}, func(t *testing.T, m mode) {
		s := run(t, m, func(h *server.Hertz) { h.GET("/", text("")) }, server.WithExitWaitTime(guard))
		conns := make([]*rawConn, 50)
		for i := range conns {
			conns[i] = s.raw(t)
			conns[i].get("/")
		}
		start := time.Now()
		if err := s.Shutdown(context.Background()); err != nil {
			t.Error(err)
		}
		if took := time.Since(start); took > guard/3 {
			t.Errorf("Shutdown took %v", took)
		}
		for _, c := range conns {
			if rest := c.atEnd(); rest != "" {
				t.Errorf("an idle connection got %q", rest)
			}
		}
	})
}

// Shutdown waits for the request that runs, until its whole answer is out.
func TestShutdownWaitsForTheActiveRequest(t *testing.T) {
	eachMode(t, []mode{tcpMode, tlsMode, unixMode}, func(t *testing.T, m mode) {
		body := pattern(8<<20, 1)
		started, release := make(chan struct{}), make(chan struct{})
		s := run(t, m, func(h *server.Hertz) {
			h.GET("/", func(_ context.Context, ctx *app.RequestContext) {
				close(started)
				<-release
				ctx.Response.SetBodyRaw(body)
			})
		}, server.WithExitWaitTime(guard))
		c := s.raw(t)
		c.send("GET / HTTP/1.1\r\nHost: x\r\n\r\n")
		receive(t, "the handler starts", started)
		ended := s.shutdown(t)
		select {
		case err := <-ended:
			t.Fatalf("Shutdown did not wait: %v", err)
		default:
		}
		close(release)
		resp, got := c.answer("GET")
		sameBytes(t, "the answer", []byte(got), body)
		if !resp.Close {
			t.Error("the last answer does not say Connection: close")
		}
		if err := receive(t, "Shutdown returns", ended); err != nil {
			t.Error(err)
		}
		c.atEnd()
	})
}

// A hijacked connection is not idle, whatever its handler waits for.
func TestShutdownWaitsForAHijackedConnection(t *testing.T) {
	eachMode(t, []mode{tcpMode, tlsMode}, func(t *testing.T, m mode) {
		s := run(t, m, func(h *server.Hertz) {
			h.GET("/", func(_ context.Context, ctx *app.RequestContext) {
				ctx.Hijack(func(c network.Conn) {
					b, err := c.Peek(4) // as the server itself does between requests
					if err != nil {
						return
					}
					_, _ = c.Write(b)
				})
			})
		}, server.WithExitWaitTime(guard))
		c := s.raw(t)
		c.get("/")
		ended := s.shutdown(t)
		c.send("last")
		c.expect("last")
		if err := receive(t, "Shutdown returns", ended); err != nil {
			t.Error(err)
		}
	})
}

// Nor is one whose request's body was asked for by 100 Continue.
func TestShutdownWaitsForABodyAfter100Continue(t *testing.T) {
	eachMode(t, []mode{tcpMode, tlsMode}, func(t *testing.T, m mode) {
		s := run(t, m, func(h *server.Hertz) {
			h.POST("/", func(_ context.Context, ctx *app.RequestContext) { ctx.Response.SetBody(ctx.Request.Body()) })
		}, server.WithExitWaitTime(guard))
		c := s.raw(t)
		c.send("POST / HTTP/1.1\r\nHost: x\r\nExpect: 100-continue\r\nContent-Length: 4\r\n\r\n")
		c.expect("HTTP/1.1 100 Continue\r\n\r\n")
		ended := s.shutdown(t)
		c.send("body")
		if _, got := c.answer("POST"); got != "body" {
			t.Errorf("got %q", got)
		}
		if err := receive(t, "Shutdown returns", ended); err != nil {
			t.Error(err)
		}
	})
}
