package hertznet_test

import (
	"context"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/cloudwego/hertz/pkg/app"
	"github.com/cloudwego/hertz/pkg/app/server"
	"github.com/cloudwego/hertz/pkg/common/config"
	"github.com/cloudwego/hertz/pkg/network"
	"github.com/cloudwego/hertz/pkg/protocol/http1/resp"
	"github.com/hertznet/hertznet/standard"
)

// runDelayed starts a server that holds the ends of answers back for that long.
func runDelayed(t testing.TB, m mode, delay time.Duration, routes func(h *server.Hertz), opts ...config.Option) *site {
	t.Helper()
	return runWith(t, m, func(t *standard.Transporter) { t.HandshakeTimeout, t.FlushDelay = guard, delay }, routes, opts...)
}

// requests are GETs in one piece.
func requests(paths ...string) string {
	var all strings.Builder
	for _, p := range paths {
		fmt.Fprintf(&all, "GET %s HTTP/1.1\r\nHost: x\r\n\r\n", p)
	}
	return all.String()
}

// countingListener counts the writes on its connections, which are no sockets to anybody.
type countingListener struct {
	net.Listener
	writes atomic.Int64
}

type countingConn struct {
	net.Conn
	writes *atomic.Int64
}

func (l *countingListener) Accept() (net.Conn, error) {
	c, err := l.Listener.Accept()
	if err != nil {
		return nil, err
	}
	return countingConn{c, &l.writes}, nil
}

func (c countingConn) Write(p []byte) (int, error) {
	c.writes.Add(1)
	return c.Conn.Write(p)
}

// 16 requests that come together are answered with one write; with FlushDelay below 0,
// and with StreamRequestBody, with 16.
func TestSixteenPipelinedAnswersAreOneWrite(t *testing.T) {
	t.Parallel()
	for _, test := range []struct {
		name   string
		delay  time.Duration
		opts   []config.Option
		writes int64
	}{
		{"on", time.Hour, nil, 1},
		{"off", -1, nil, 16},
		{"streamed bodies", time.Hour, []config.Option{server.WithStreamBody(true)}, 16},
	} {
		t.Run(test.name, func(t *testing.T) {
			t.Parallel()
			tcp, err := net.Listen("tcp", "127.0.0.1:0")
			if err != nil {
				t.Fatal(err)
			}
			ln := &countingListener{Listener: tcp}
			s := runDelayed(t, tcpMode, test.delay, func(h *server.Hertz) { h.GET("/:n", echoPath) },
				append(test.opts, server.WithListener(ln))...)
			c := s.raw(t)
			c.get("/first") // of which nobody knows yet that it is HTTP/1
			before := ln.writes.Load()
			paths := make([]string, 16)
			for i := range paths {
				paths[i] = fmt.Sprintf("/%d", i)
			}
			c.send(requests(paths...))
			for i := range paths {
				if _, got := c.answer("GET"); got != fmt.Sprint(i) {
					t.Fatalf("answer %d is %q", i, got)
				}
			}
			if got := ln.writes.Load() - before; got != test.writes {
				t.Errorf("%d writes, want %d", got, test.writes)
			}
			stats := s.transport.Stats()
			if joined := 16 - uint64(test.writes); stats.Flushes != 17 || test.delay > 0 && stats.WritesSaved < joined {
				t.Errorf("%d flushes, %d writes saved", stats.Flushes, stats.WritesSaved)
			}
		})
	}
}

func echoPath(_ context.Context, ctx *app.RequestContext) { ctx.String(200, ctx.Param("n")) }

// Bunches of any size, answers of any size, and handlers that take their time.
func TestPipelinedAnswersComeInOrder(t *testing.T) {
	eachMode(t, append(allModes[:len(allModes):len(allModes)], mode{name: "a bare net.Conn", bare: true}), func(t *testing.T, m mode) {
		s := run(t, m, func(h *server.Hertz) {
			h.POST("/:n", func(_ context.Context, ctx *app.RequestContext) {
				var pause, size int
				fmt.Sscanf(ctx.Param("n"), "%d-%d", &pause, &size)
				time.Sleep(time.Duration(pause) * time.Microsecond)
				ctx.Response.SetBody(append(ctx.Request.Body(), strings.Repeat("b", size)...))
			})
		}, server.WithSenseClientDisconnection(m.bare))
		r := rand.New(rand.NewPCG(1, uint64(len(m.name))))
		c := s.raw(t)
		const n = 300
		var sizes [n]int
		var pieces []string
		for i := range n {
			pause := 0
			if r.IntN(10) == 0 {
				pause = r.IntN(3000)
			}
			sizes[i] = r.IntN(300)
			if r.IntN(10) == 0 {
				sizes[i] = r.IntN(20_000)
			}
			body := fmt.Sprint(i)
			pieces = append(pieces, fmt.Sprintf("POST /%d-%d HTTP/1.1\r\nHost: x\r\nContent-Length: %d\r\n\r\n%s", pause, sizes[i], len(body), body))
		}
		go func() {
			bunches := rand.New(rand.NewPCG(2, 2))
			for all := strings.Join(pieces, ""); all != ""; {
				k := min(len(all), 1+bunches.IntN(4000))
				if _, err := io.WriteString(c.Conn, all[:k]); err != nil {
					return
				}
				all = all[k:]
				time.Sleep(time.Duration(bunches.IntN(500)) * time.Microsecond)
			}
		}()
		for i := range n {
			if _, got := c.answer("POST"); got != fmt.Sprint(i)+strings.Repeat("b", sizes[i]) {
				t.Fatalf("answer %d has %d bytes, want %d", i, len(got), sizes[i])
			}
		}
	})
}

// The answer to a request does not wait for the handler of the next one, which may never
// return.
func TestHeldAnswerDoesNotWaitForTheNextHandler(t *testing.T) {
	eachMode(t, []mode{tcpMode, unixMode, tlsMode}, func(t *testing.T, m mode) {
		stuck, free := make(chan struct{}), make(chan struct{})
		s := run(t, m, func(h *server.Hertz) {
			h.GET("/n/:n", echoPath)
			h.GET("/stuck", func(context.Context, *app.RequestContext) {
				close(stuck)
				<-free
			})
		})
		defer close(free)
		c := s.raw(t)
		c.get("/n/first")
		c.send(requests("/n/1", "/n/2", "/stuck"))
		receive(t, "the last handler", stuck)
		for _, want := range []string{"1", "2"} {
			if _, got := c.answer("GET"); got != want {
				t.Fatalf("got %q, want %q", got, want)
			}
		}
	})
}

// A part of an answer that a handler flushes leaves at once, though the next request is
// there; so does what came before it. No time passes here for what is held.
func TestAPartOfAnAnswerIsNotHeld(t *testing.T) {
	eachMode(t, []mode{tcpMode, unixMode, tlsMode}, func(t *testing.T, m mode) {
		for _, streamed := range []bool{false, true} {
			next := make(chan struct{})
			s := runDelayed(t, m, time.Hour, func(h *server.Hertz) {
				h.GET("/n/:n", echoPath)
				h.POST("/part", func(_ context.Context, ctx *app.RequestContext) {
					if streamed { // read it between a write and its Flush
						ctx.Response.HijackWriter(resp.NewChunkedBodyWriter(&ctx.Response, ctx.GetWriter()))
						_, _ = ctx.Write([]byte("part"))
						_, _ = io.ReadAll(ctx.RequestBodyStream())
					} else {
						ctx.Response.HijackWriter(resp.NewChunkedBodyWriter(&ctx.Response, ctx.GetWriter()))
						_, _ = ctx.Write([]byte("part"))
					}
					if err := ctx.Flush(); err != nil {
						t.Error(err)
					}
					select {
					case <-next:
					case <-time.After(guard):
						t.Error("the part did not arrive")
					}
				})
			}, server.WithStreamBody(streamed))
			c := s.raw(t)
			c.get("/n/first")
			c.send(requests("/n/1") + "POST /part HTTP/1.1\r\nHost: x\r\nContent-Length: 4\r\n\r\nbody" + requests("/n/2"))
			c.expect("HTTP/1.1 200 OK\r\n")
			for line := ""; !strings.HasPrefix(line, "part"); {
				var err error
				if line, err = c.r.ReadString('\n'); err != nil {
					t.Fatal(err)
				}
			}
			close(next)
			c.expect("0\r\n\r\n")
			if _, got := c.answer("GET"); got != "2" {
				t.Errorf("got %q", got)
			}
		}
	})
}

// The answer that changes the protocol leaves before the hijacker begins, although
// bytes of the new protocol came with the request.
func TestAnswerBeforeAHijackIsNotHeld(t *testing.T) {
	eachMode(t, []mode{tcpMode, tlsMode}, func(t *testing.T, m mode) {
		next := make(chan struct{})
		s := runDelayed(t, m, time.Hour, func(h *server.Hertz) {
			h.GET("/n/:n", echoPath)
			h.GET("/hijack", func(_ context.Context, ctx *app.RequestContext) {
				ctx.SetStatusCode(101)
				ctx.Hijack(func(c network.Conn) {
					select {
					case <-next:
					case <-time.After(guard):
						t.Error("the answer did not arrive")
					}
					b, err := c.Peek(5)
					if err == nil {
						_, err = c.WriteBinary(b)
					}
					_ = c.Release()
					if err == nil {
						err = c.Flush()
					}
					if err != nil {
						t.Error(err)
					}
				})
			})
		})
		c := s.raw(t)
		c.get("/n/first")
		c.send(requests("/n/1", "/hijack") + "frame")
		if _, got := c.answer("GET"); got != "1" {
			t.Fatalf("got %q", got)
		}
		c.expect("HTTP/1.1 101 Switching Protocols\r\n")
		for line := ""; line != "\r\n"; {
			var err error
			if line, err = c.r.ReadString('\n'); err != nil {
				t.Fatal(err)
			}
		}
		close(next)
		c.expect("frame")
	})
}

// An answer after which Hertz closes the connection arrives, with those before it.
func TestHeldAnswersLeaveBeforeTheConnectionIsClosed(t *testing.T) {
	eachMode(t, allModes, func(t *testing.T, m mode) {
		s := runDelayed(t, m, time.Hour, func(h *server.Hertz) {
			h.GET("/n/:n", echoPath)
			h.GET("/close", func(_ context.Context, ctx *app.RequestContext) {
				ctx.SetConnectionClose()
				ctx.String(200, "last")
			})
		})
		for _, end := range []string{requests("/close", "/n/never"), "no request\r\n\r\n" + requests("/n/never")} {
			c := s.raw(t)
			c.get("/n/first")
			c.send(requests("/n/1", "/n/2") + end)
			for _, want := range []string{"1", "2"} {
				if _, got := c.answer("GET"); got != want {
					t.Fatalf("got %q, want %q", got, want)
				}
			}
			if r, got := c.answer("GET"); r.StatusCode == 200 && got != "last" || !r.Close {
				t.Errorf("status %d, %q", r.StatusCode, got)
			}
			if rest := c.atEnd(); rest != "" {
				t.Errorf("behind the last answer: %q", rest)
			}
		}
	})
}

// stuff writes to a socket until its peer, who does not read, has no room left, and returns
// how much that was.
func stuff(nc net.Conn) (n int) {
	for sent := true; sent; { // once more if some has gone on from one buffer to the other
		sent = false
		for p := make([]byte, 64<<10); len(p) > 0; p = p[:len(p)/2] {
			_ = nc.SetWriteDeadline(time.Now().Add(10 * time.Millisecond))
			m, _ := nc.Write(p)
			n += m
			sent = sent || m > 0
		}
	}
	_ = nc.SetWriteDeadline(time.Time{})
	return n
}

// Answers before one that ends the connection reach a client that takes its time, as they
// would if each were flushed for itself.
func TestHeldAnswersReachASlowClientBeforeTheConnectionIsClosed(t *testing.T) {
	for _, test := range []struct {
		name  string
		delay time.Duration
		stop  bool
	}{
		{"the answer closes", time.Hour, false},
		{"Shutdown", time.Hour, true},
		{"nothing is held", -1, false},
	} {
		t.Run(test.name, func(t *testing.T) {
			t.Parallel()
			const answers, size = 10, 3900
			sockets := make(chan net.Conn, 9)
			entered, next := make(chan int, 1), make(chan bool)
			s := runDelayed(t, tcpMode, test.delay, func(h *server.Hertz) {
				h.GET("/fill", func(_ context.Context, ctx *app.RequestContext) {
					entered <- stuff(<-sockets)
					<-next
				})
				h.GET("/n", func(_ context.Context, ctx *app.RequestContext) { ctx.String(200, strings.Repeat("x", size)) })
				h.GET("/close", func(_ context.Context, ctx *app.RequestContext) {
					if !test.stop {
						ctx.SetConnectionClose()
					}
					ctx.String(200, "last")
				})
			}, server.WithOnAccept(func(nc net.Conn) context.Context {
				sockets <- nc
				return context.Background()
			}))
			c := s.raw(t)
			c.get("/n")
			paths := []string{"/fill"}
			for range answers {
				paths = append(paths, "/n")
			}
			if test.stop {
				paths = []string{"/fill", "/close"} // the first that is answered during Shutdown is the last
			}
			c.send(requests(append(paths, "/close", "/n")...))
			n := <-entered
			if test.stop {
				s.shutdown(t)
			}
			close(next)
			time.Sleep(time.Second) // longer than Close waits
			_, _ = io.CopyN(io.Discard, c, int64(n))
			got, _ := io.ReadAll(c)
			if test.stop {
				if !strings.Contains(string(got), "Connection: close") {
					t.Errorf("the answer that closes did not arrive: %q", got)
				}
				return
			}
			if n := strings.Count(string(got), strings.Repeat("x", size)); n != answers || !strings.HasSuffix(string(got), "last") {
				t.Errorf("%d of %d answers arrived, and the last: %v", n, answers, strings.HasSuffix(string(got), "last"))
			}
		})
	}
}
