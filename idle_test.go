package hertznet_test

import (
	"context"
	"io"
	"net"
	"testing"
	"time"

	"github.com/cloudwego/hertz/pkg/app"
	"github.com/cloudwego/hertz/pkg/app/server"
	"github.com/cloudwego/hertz/pkg/common/config"
	"github.com/cloudwego/hertz/pkg/network"
	"github.com/hertznet/hertznet"
	"github.com/hertznet/hertznet/standard"
)

// stillRuns fails if the handler, which waits for the client's bytes, has ended:
// Shutdown has been given time to close what it takes for idle.
func stillRuns(t *testing.T, ended <-chan error) {
	t.Helper()
	select {
	case err := <-ended:
		t.Fatalf("Shutdown closed a connection in use: %v", err)
	case <-time.After(50 * time.Millisecond):
	}
}

// S6: a hijacker whose messages have a length of four bytes in front is not idle.
func TestShutdownWaitsForAHijackerThatPeeks4(t *testing.T) {
	ended := make(chan error, 1)
	s := run(t, tcpMode, func(h *server.Hertz) {
		h.GET("/", func(_ context.Context, ctx *app.RequestContext) {
			ctx.Hijack(func(c network.Conn) {
				_, _ = c.WriteBinary([]byte("hello"))
				_ = c.Flush()
				_ = c.SetReadTimeout(10 * time.Second)
				b, err := c.Peek(4)
				ended <- err
				if err == nil {
					_, _ = c.Write(b)
				}
			})
		})
	}, server.WithExitWaitTime(guard))
	c := s.raw(t)
	c.get("/")
	c.expect("hello")
	s.shutdown(t)
	stillRuns(t, ended)
	c.send("last")
	c.expect("last")
}

// S6: neither is a handler that answers in the middle of a streamed body.
func TestShutdownWaitsForAStreamedBodyThatIsAnswered(t *testing.T) {
	ended := make(chan error, 1)
	s := run(t, tcpMode, func(h *server.Hertz) {
		h.POST("/", func(_ context.Context, ctx *app.RequestContext) {
			body, b := ctx.RequestBodyStream(), make([]byte, 4)
			if _, err := io.ReadFull(body, b); err != nil {
				ended <- err
				return
			}
			c := ctx.GetConn()
			_, _ = c.WriteBinary([]byte("one!"))
			_ = c.Flush()
			_ = c.SetReadTimeout(10 * time.Second)
			_, err := io.ReadFull(body, b)
			ended <- err
		})
	}, server.WithExitWaitTime(guard), server.WithStreamBody(true))
	c := s.raw(t)
	c.send("POST / HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n8\r\nabcd")
	c.expect("one!")
	s.shutdown(t)
	stillRuns(t, ended)
	c.send("efgh\r\n0\r\n\r\n")
	if err := receive(t, "the handler's second read", ended); err != nil {
		t.Fatal(err)
	}
}

// S6: a connection is idle although Hertz dropped the rest of a streamed body after
// its answer, and although the client sent a line end too many.
func TestShutdownClosesWhatIsIdleAfterABody(t *testing.T) {
	for name, request := range map[string]string{
		"chunked":  "POST / HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n4\r\nabcd\r\n0\r\n\r\n",
		"large":    "POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 100000\r\n\r\n" + string(make([]byte, 100000)),
		"line end": "POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 4\r\n\r\nbody\r\n",
	} {
		t.Run(name, func(t *testing.T) {
			s := run(t, tcpMode, func(h *server.Hertz) { h.POST("/", text("ok")) },
				server.WithExitWaitTime(guard), server.WithStreamBody(true))
			c := s.raw(t)
			c.send(request)
			c.answer("POST")
			start := time.Now()
			err := receive(t, "Shutdown", s.shutdown(t))
			if d := time.Since(start); err != nil || d > guard/2 {
				t.Errorf("Shutdown with one idle connection: %v after %v", err, d)
			}
		})
	}
}

// S5: after Close the transporter does not even listen.
func TestListenAndServeAfterClose(t *testing.T) {
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer ln.Close()
	o := config.NewOptions([]config.Option{server.WithHostPorts(ln.Addr().String())})
	tr := hertznet.NewTransporter(o)
	_ = tr.Close()
	if err := tr.ListenAndServe(func(context.Context, any) error { return nil }); err != nil {
		t.Errorf("ListenAndServe after Close: %v", err)
	}
}

// With SenseClientDisconnection the answer is sent though a goroutine of the handler's
// sets limits of its own on the connection while the watch is being ended.
func TestSenseClientDisconnectionAgainstASetter(t *testing.T) {
	s := run(t, mode{name: "a bare net.Conn", bare: true}, func(h *server.Hertz) {
		h.GET("/", func(_ context.Context, ctx *app.RequestContext) {
			c, stop := ctx.GetConn(), make(chan struct{})
			go func() {
				for {
					select {
					case <-stop:
						return
					default:
						_ = c.SetDeadline(time.Now().Add(time.Hour))
					}
				}
			}()
			time.AfterFunc(20*time.Millisecond, func() { close(stop) })
			ctx.String(200, "ok")
		})
	}, server.WithSenseClientDisconnection(true))
	for range 3 {
		s.raw(t).get("/")
	}
}

// S6: a connection is idle after an answer whose handler has flushed a part of it and lifted
// the read timeout.
func TestS6_IdleAfterAHandlerLiftedTheReadTimeout(t *testing.T) {
	for name, after := range map[string]time.Duration{"never parked": -1, "parked": 50 * time.Millisecond} {
		t.Run(name, func(t *testing.T) {
			s := runWith(t, tcpMode, func(t *standard.Transporter) { t.ParkAfter = after }, func(h *server.Hertz) {
				h.GET("/", func(_ context.Context, ctx *app.RequestContext) {
					_, _ = ctx.GetWriter().WriteBinary([]byte("HTTP/1.1 103 Early Hints\r\n\r\n"))
					_ = ctx.GetWriter().Flush()
					_ = ctx.GetConn().SetReadTimeout(0)
					ctx.String(200, "ok")
				})
			}, server.WithExitWaitTime(guard), server.WithReadTimeout(guard))
			c := s.raw(t)
			c.send("GET / HTTP/1.1\r\nHost: x\r\n\r\n")
			c.expect("HTTP/1.1 103 Early Hints\r\n\r\n")
			c.answer("GET")
			eventually(t, "the connection is idle or parked", func() bool {
				n := s.transport.Stats()
				return n.Idle+n.Parked == 1
			})
			ended := s.shutdown(t)
			if err := receive(t, "Shutdown returns", ended); err != nil {
				t.Error(err)
			}
		})
	}
}
