package hertznet_test

import (
	"bytes"
	"context"
	"crypto/tls"
	"fmt"
	"io"
	"log/slog"
	"net"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/cloudwego/hertz/pkg/app"
	"github.com/cloudwego/hertz/pkg/app/middlewares/server/recovery"
	"github.com/cloudwego/hertz/pkg/app/server"
	"github.com/cloudwego/hertz/pkg/common/config"
	hertzstd "github.com/cloudwego/hertz/pkg/network/standard"
	"github.com/hertznet/hertznet"
	"github.com/hertznet/hertznet/standard"
)

type countingTracer struct{ starts, finishes atomic.Int64 }

func (c *countingTracer) Start(ctx context.Context, _ *app.RequestContext) context.Context {
	c.starts.Add(1)
	return ctx
}

func (c *countingTracer) Finish(context.Context, *app.RequestContext) { c.finishes.Add(1) }

// Tracers see as many starts and finishes as on Hertz's own transport.
func TestTracing(t *testing.T) {
	t.Parallel()
	scenarios := []struct {
		name string
		play func(c *rawConn)
	}{
		{"three requests, then the client closes", func(c *rawConn) {
			for range 3 {
				c.get("/")
			}
			c.Close()
		}},
		{"Connection: close", func(c *rawConn) {
			c.send("GET / HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
			c.answer("GET")
			c.atEnd()
		}},
		{"idle timeout", func(c *rawConn) { c.get("/"); c.atEnd() }},
		{"half a request", func(c *rawConn) { c.send("GET / HTTP/1.1\r\nHo"); c.Close() }},
		{"no HTTP", func(c *rawConn) { c.send("()()\r\n\r\n"); c.atEnd() }},
		{"two pipelined requests", func(c *rawConn) {
			c.send(strings.Repeat("GET / HTTP/1.1\r\nHost: x\r\n\r\n", 2))
			c.answer("GET")
			c.answer("GET")
			c.Close()
		}},
		{"an unknown path", func(c *rawConn) {
			c.send("GET /nowhere HTTP/1.1\r\nHost: x\r\n\r\n")
			c.answer("GET")
			c.Close()
		}},
	}
	for _, sc := range scenarios {
		t.Run(sc.name, func(t *testing.T) {
			t.Parallel()
			idle := time.Minute
			if sc.name == "idle timeout" {
				idle = 50 * time.Millisecond
			}
			count := func(transport config.Option) [2]int64 {
				ln, err := net.Listen("tcp", "127.0.0.1:0")
				if err != nil {
					t.Fatal(err)
				}
				tracer := new(countingTracer)
				accepted := make(chan struct{}, 1)
				h := server.New(transport, server.WithListener(ln), server.WithTracer(tracer),
					server.WithOnAccept(func(net.Conn) context.Context {
						accepted <- struct{}{}
						return context.Background()
					}),
					server.WithIdleTimeout(idle), server.WithExitWaitTime(guard))
				h.GET("/", text(""))
				ended := make(chan error, 1)
				go func() { ended <- h.Run() }()
				s := &site{Hertz: h, addr: ln.Addr()}
				sc.play(s.raw(t))
				// From now on Shutdown waits until the connection is gone.
				receive(t, "the connection is accepted", accepted)
				eventually(t, "the server runs", h.IsRunning)
				if err := h.Shutdown(context.Background()); err != nil {
					t.Error(err)
				}
				receive(t, "the server ends", ended)
				return [2]int64{tracer.starts.Load(), tracer.finishes.Load()}
			}
			want := count(server.WithTransport(hertzstd.NewTransporter))
			got := count(server.WithTransport(hertznet.NewTransporter))
			if got != want {
				t.Errorf("starts and finishes: %v, on Hertz's own transport %v", got, want)
			}
		})
	}
}

// A panic that nobody recovers closes its own connection and nothing else.
func TestPanicOutsideRecovery(t *testing.T) {
	eachMode(t, allModes, func(t *testing.T, m mode) {
		started, release := make(chan struct{}), make(chan struct{})
		s := run(t, m, func(h *server.Hertz) {
			h.GET("/panic", func(context.Context, *app.RequestContext) { panic("on purpose") })
			h.GET("/slow", func(_ context.Context, ctx *app.RequestContext) {
				close(started)
				<-release
				ctx.String(200, "finished")
			})
			h.GET("/", text("alive"))
		})
		slow := s.raw(t)
		slow.send("GET /slow HTTP/1.1\r\nHost: x\r\n\r\n")
		receive(t, "the slow handler starts", started)
		bad := s.raw(t)
		bad.send("GET /panic HTTP/1.1\r\nHost: x\r\n\r\n")
		if rest := bad.atEnd(); rest != "" {
			t.Errorf("the panicking handler answered %q", rest)
		}
		close(release)
		if _, got := slow.answer("GET"); got != "finished" {
			t.Errorf("got %q", got)
		}
		if got := s.raw(t).get("/"); got != "alive" {
			t.Errorf("got %q", got)
		}
	})
}

// A request at which Hertz itself panics, before any middleware, lets nobody flood the log
// [S10].
func TestS10_RequestsThatPanicDoNotFloodTheLog(t *testing.T) {
	t.Parallel()
	var log logSink
	s := runWith(t, tcpMode, func(t *standard.Transporter) {
		t.Logger = slog.New(slog.NewTextHandler(&log, nil))
	}, func(h *server.Hertz) {
		h.Use(recovery.Recovery())
		h.GET("/", text("alive"))
	})
	const times = 20
	for range times {
		c := s.raw(t)
		c.send("CONNECT localhost:1 HTTP/1.1\r\n\r\n")
		c.atEnd()
	}
	eventually(t, "each panic is counted", func() bool { return s.transport.Stats().Panics == times })
	lines := log.since(0)
	if len(lines) != 1 || !strings.Contains(lines[0], "panicked") || !strings.Contains(lines[0], "cloudwego/hertz") {
		t.Errorf("%d lines were logged: %.1000q", len(lines), lines)
	}
	if got := s.raw(t).get("/"); got != "alive" {
		t.Errorf("got %q", got)
	}
}

// What peers do every day is no error in the log: resets, port scans, noise on the
// TLS port, requests that end half-way.
func TestNoErrorLinesFromEverydayPeers(t *testing.T) {
	// Not parallel: the log is the whole process's.
	for i, m := range slices.Concat(allModes, []mode{tcpMode, tlsMode}) {
		streamed := i >= len(allModes)
		t.Run(fmt.Sprintf("%s, bodies streamed %v", m.name, streamed), func(t *testing.T) {
			before := logs.len()
			started := make(chan struct{}, 1)
			gone := make(chan struct{})
			large := make([]byte, 8<<20)
			routes := func(h *server.Hertz) {
				h.GET("/", text("ok"))
				h.POST("/", text("ok"))
				h.POST("/read", func(_ context.Context, ctx *app.RequestContext) { _, _ = ctx.Body() })
				h.GET("/large", func(_ context.Context, ctx *app.RequestContext) { ctx.Response.SetBodyRaw(large) })
				h.GET("/late", func(_ context.Context, ctx *app.RequestContext) {
					started <- struct{}{}
					<-gone
					ctx.Response.SetBodyRaw(large)
				})
				h.GET("/stream", func(_ context.Context, ctx *app.RequestContext) {
					ctx.SetBodyStream(bytes.NewReader(large), len(large))
				})
				h.GET("/chunked", func(_ context.Context, ctx *app.RequestContext) {
					ctx.SetBodyStream(onlyReader{bytes.NewReader(large)}, -1)
				})
			}
			s := run(t, m, routes, server.WithExitWaitTime(guard), server.WithStreamBody(streamed))
			impatient := run(t, m, routes, server.WithExitWaitTime(guard), server.WithStreamBody(streamed),
				server.WithReadTimeout(100*time.Millisecond))

			halves := []string{
				"G", "GET / HT", "GET / HTTP/1.1\r\nHost: x\r\n", "GET / HTTP/1.1\r\nHost: x\r\nX-Half:",
				"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 10\r\n\r\nhalf",
				"POST / HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\na\r\nhalf",
				"POST / HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\na\r\n0123456789\r\n",
				"POST / HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\na\r\n0123456789\r\n0\r\n",
				"POST / HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n",
				"POST /read HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\na\r\nhalf",
				"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 100000\r\n\r\n" + strings.Repeat("h", 50_000),
				"POST /read HTTP/1.1\r\nHost: x\r\nContent-Length: 100000\r\n\r\n" + strings.Repeat("h", 50_000),
				"POST / HTTP/1.1\r\nHost: x\r\nContent-Type: multipart/form-data; boundary=b\r\nContent-Length: 500\r\n\r\n--b\r\nContent-Disposition: form-data; name=\"a\"\r\n\r\nhal",
			}
			ends := []func(net.Conn){
				func(c net.Conn) { c.Close() },
				reset,
				func(c net.Conn) { // over TLS, without a close_notify
					if tc, ok := c.(*tls.Conn); ok {
						c = tc.NetConn()
					}
					c.Close()
				},
			}
			for _, end := range ends {
				end(s.dial(t)) // a port scan
				idle := s.raw(t)
				end(idle.Conn)
				idle = s.raw(t)
				idle.get("/")
				end(idle.Conn)
				for _, half := range halves {
					c := s.raw(t)
					c.send(half)
					end(c.Conn)
					// As a later request of its connection.
					c = s.raw(t)
					c.get("/")
					c.send(half)
					end(c.Conn)
				}
				for _, path := range []string{"/large", "/stream", "/chunked"} {
					c := s.raw(t)
					c.send("GET " + path + " HTTP/1.1\r\nHost: x\r\n\r\n")
					if _, err := c.r.Peek(100); err != nil {
						t.Error(err)
					}
					end(c.Conn)
				}
			}
			// Closing both ways but one: the peer's FIN, and it still reads.
			if hc, ok := s.dial(t).(interface{ CloseWrite() error }); ok && !m.tls {
				_, _ = hc.(net.Conn).Write([]byte(halves[4]))
				_ = hc.CloseWrite()
			}
			late := s.raw(t)
			late.send("GET /late HTTP/1.1\r\nHost: x\r\n\r\n")
			receive(t, "the handler starts", started)
			reset(late.Conn)
			close(gone)

			for _, half := range halves { // until the read timeout
				slow := impatient.raw(t)
				// The server's patience may end before all of it is sent.
				_, _ = io.WriteString(slow.Conn, half)
			}

			if m.tls {
				for i, noise := range []string{string(pattern(1000, 5)), "GET / HTTP/1.1\r\n\r\n", "SSH-2.0-x\r\n", "\x16\x03\x01", "\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03"} {
					c := s.dial(t)
					if _, err := io.WriteString(c, noise); err != nil {
						t.Error(err)
					}
					ends[i%2](c)
				}
				stranger := tls.Client(s.dial(t), &tls.Config{ServerName: "localhost"}) // who does not trust us
				if err := stranger.Handshake(); err == nil {
					t.Error("the handshake succeeded without a root certificate")
				}
				stranger.Close()
			}
			// Shutdown returns when the last connection is gone.
			for _, s := range []*site{s, impatient} {
				if err := s.Shutdown(context.Background()); err != nil {
					t.Error(err)
				}
			}
			for _, line := range logs.since(before) {
				if strings.Contains(line, "[Error]") || strings.Contains(line, "[Fatal]") {
					t.Errorf("logged: %.300s", line)
				}
			}
		})
	}
}

// What the transporter logs goes to Hertz's system logger, at the level it has
// there, with its attributes.
func TestLogsGoToHertzsSystemLogger(t *testing.T) {
	// Not parallel: the log is the whole process's.
	var l *slog.Logger
	hertznet.Transport(func(t *standard.Transporter) { l = t.Logger })(config.NewOptions(nil))
	before := logs.len()
	l.Error("bad", "error", io.EOF, "n", 3)
	l.Warn("odd", slog.Group("peer", "addr", "here", slog.Group("", "inline", true)))
	l.With("a", 1).WithGroup("g").With("b", 2).Info("fine", "c", 3)
	l.Debug("detail", slog.Attr{}, "d", time.Second)
	got := logs.since(before)
	want := []string{
		"[Error] HERTZ: bad error=EOF n=3",
		"[Warn] HERTZ: odd peer.addr=here peer.inline=true",
		"[Info] HERTZ: fine a=1 g.b=2 g.c=3",
		"[Debug] HERTZ: detail d=1s",
	}
	if len(got) != len(want) {
		t.Fatalf("logged %q", got)
	}
	for i := range want {
		if !strings.HasSuffix(strings.TrimSpace(got[i]), want[i]) {
			t.Errorf("logged %q, want %q", got[i], want[i])
		}
	}
}
