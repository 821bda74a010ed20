package hertznet_test

import (
	"context"
	"errors"
	"io"
	"math"
	"net"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/cloudwego/hertz/pkg/app"
	"github.com/cloudwego/hertz/pkg/app/server"
	"github.com/cloudwego/hertz/pkg/protocol/http1/resp"
	"github.com/hertznet/hertznet/standard"
)

// Half a request that goes no further is answered by 408 after the read timeout,
// the first of a connection and a later one, the header and the body.
func TestReadTimeoutOfHalfARequestIs408(t *testing.T) {
	eachMode(t, allModes, func(t *testing.T, m mode) {
		const limit = 80 * time.Millisecond
		hook, open := gate()
		s := run(t, m, func(h *server.Hertz) {
			h.POST("/", text("whole"))
			h.GET("/", text("whole"))
		}, server.WithReadTimeout(limit), hook)
		for _, test := range []struct{ name, before, half string }{
			{"one byte", "", "G"},
			{"half a header", "", "GET / HTTP/1.1\r\nHost: x\r\nX-Half:"},
			{"half a body", "", "POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 10\r\n\r\nhalf"},
			{"half a chunk", "", "POST / HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\na\r\nhalf"},
			{"a later half", "GET / HTTP/1.1\r\nHost: x\r\n\r\n", "GET / HTTP/1.1\r\nHo"},
		} {
			t.Run(test.name, func(t *testing.T) {
				c := s.raw(t)
				c.send(test.before + test.half)
				start := time.Now()
				open()
				if test.before != "" {
					c.answer("GET")
				}
				resp, _ := c.answer("POST")
				if took := time.Since(start); took < limit {
					t.Errorf("answered after %v", took)
				}
				if resp.StatusCode != 408 || !resp.Close {
					t.Errorf("status %d, closing %v", resp.StatusCode, resp.Close)
				}
				c.atEnd()
			})
		}
	})
}

// A connection that says nothing is closed: at the read timeout if it never did
// [S18], at the idle timeout after a request [S20].
func TestSilentConnectionIsClosed(t *testing.T) {
	eachMode(t, allModes, func(t *testing.T, m mode) {
		const limit, long = 60 * time.Millisecond, time.Hour
		for _, test := range []struct {
			name       string
			read, idle time.Duration
			before     string
		}{
			{"before the first request", limit, long, ""},
			{"between requests", long, limit, "GET / HTTP/1.1\r\nHost: x\r\n\r\n"},
		} {
			t.Run(test.name, func(t *testing.T) {
				t.Parallel()
				s := run(t, m, func(h *server.Hertz) { h.GET("/", text("")) },
					server.WithReadTimeout(test.read), server.WithIdleTimeout(test.idle))
				start := time.Now()
				c := s.raw(t)
				if test.before != "" {
					c.send(test.before)
					c.answer("GET")
				}
				if rest := c.atEnd(); rest != "" {
					t.Errorf("the server said %q", rest)
				}
				if took := time.Since(start); took < limit {
					t.Errorf("closed after %v", took)
				}
			})
		}
		t.Run("two hundred at once", func(t *testing.T) {
			t.Parallel()
			s := runWith(t, m, func(*standard.Transporter) {}, func(*server.Hertz) {}, server.WithReadTimeout(limit), server.WithIdleTimeout(long))
			start := time.Now()
			conns := make([]net.Conn, 200)
			for i := range conns {
				conns[i] = s.dial(t) // over TLS it is the handshake that does not come
			}
			for _, c := range conns {
				if n, err := c.Read(make([]byte, 1)); n != 0 || errors.Is(err, os.ErrDeadlineExceeded) {
					t.Errorf("read %d, %v", n, err)
				}
			}
			took := time.Since(start)
			if took < limit {
				t.Errorf("closed after %v", took)
			}
			t.Logf("gone after %v, the read timeout is %v", took, limit)
		})
		if !m.tls {
			return
		}
		t.Run("before the handshake", func(t *testing.T) {
			t.Parallel()
			s := runWith(t, m, func(*standard.Transporter) {}, func(*server.Hertz) {}, server.WithReadTimeout(limit))
			c := s.dial(t)
			if n, err := c.Read(make([]byte, 1)); n != 0 || errors.Is(err, os.ErrDeadlineExceeded) {
				t.Errorf("read %d, %v", n, err)
			}
		})
	})
}

// WriteTimeout frees a handler from a peer that does not read [S21].
func TestWriteTimeoutFreesAHandler(t *testing.T) {
	eachMode(t, allModes, func(t *testing.T, m mode) {
		const limit = 80 * time.Millisecond
		type end struct {
			err  error
			took time.Duration
		}
		freed := make(chan end, 1)
		s := run(t, m, func(h *server.Hertz) {
			h.GET("/", func(_ context.Context, ctx *app.RequestContext) {
				w := resp.NewChunkedBodyWriter(&ctx.Response, ctx.GetWriter())
				ctx.Response.HijackWriter(w)
				for piece := make([]byte, 1<<20); ; {
					start := time.Now()
					_, err := w.Write(piece)
					if err == nil {
						err = w.Flush()
					}
					if err != nil {
						freed <- end{err, time.Since(start)}
						return
					}
				}
			})
		}, server.WithWriteTimeout(limit))
		c := s.raw(t)
		c.send("GET / HTTP/1.1\r\nHost: x\r\n\r\n")
		got := receive(t, "the handler is freed", freed)
		if !errors.Is(got.err, os.ErrDeadlineExceeded) || got.took < limit {
			t.Errorf("Flush returned after %v: %v", got.took, got.err)
		}
		if _, err := io.Copy(io.Discard, c); errors.Is(err, os.ErrDeadlineExceeded) {
			t.Error("the connection is still open")
		}
	})
}

// An answer that is sent while bytes of the request are unread reaches the client
// [S22].
func TestEarlyAnswerOfTheServer(t *testing.T) {
	eachMode(t, allModes, func(t *testing.T, m mode) {
		s := run(t, m, func(h *server.Hertz) { h.POST("/", text("never")) }, server.WithMaxRequestBodySize(1000))
		for range 5 {
			c := s.raw(t)
			request := append([]byte("POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 300000\r\n\r\n"), make([]byte, 300_000)...)
			_, _ = c.Conn.Write(request) // may fail half-way: the answer counts
			if resp, _ := c.answer("POST"); resp.StatusCode != 413 {
				t.Errorf("status %d, want 413", resp.StatusCode)
			}
		}
	})
}

// So does one that was sent before the client began with what is refused [S22].
func TestEarlyAnswerBeforeTheBody(t *testing.T) {
	eachMode(t, allModes, func(t *testing.T, m mode) {
		s := run(t, m, func(h *server.Hertz) { h.POST("/", text("never")) }, server.WithMaxRequestBodySize(1000))
		for range 5 {
			c := s.raw(t)
			c.send("POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 300000\r\n\r\n")
			if _, err := c.r.Peek(1); err != nil { // it is answered, and closed
				t.Fatal(err)
			}
			for range 30 {
				c.send(strings.Repeat("x", 10_000))
			}
			if resp, _ := c.answer("POST"); resp.StatusCode != 413 {
				t.Errorf("status %d, want 413", resp.StatusCode)
			}
		}
	})
}

// Settings near the end of what there is are as good as none.
func TestHugeTimeouts(t *testing.T) {
	eachMode(t, []mode{tcpMode, tlsMode}, func(t *testing.T, m mode) {
		s := runWith(t, m, func(t *standard.Transporter) {
			t.ParkAfter = 10 * time.Millisecond
			t.HandshakeTimeout, t.FlushDelay, t.MinReadGrace = math.MaxInt64, math.MaxInt64, math.MaxInt64
			t.MinReadRate, t.MaxConns, t.MaxConnsPerIP, t.MaxReadBuffer = math.MaxInt, math.MaxInt, math.MaxInt, math.MaxInt
		}, func(h *server.Hertz) { h.GET("/", text("ok")) },
			server.WithReadTimeout(math.MaxInt64), server.WithWriteTimeout(math.MaxInt64), server.WithIdleTimeout(math.MaxInt64))
		c := s.raw(t)
		for range 5 {
			if got := c.get("/"); got != "ok" {
				t.Fatal(got)
			}
			time.Sleep(50 * time.Millisecond)
		}
	})
}

// C2: a handler's goroutine may close the connection while the server refuses a request. It is
// a test of the race detector.
func TestCloseBesideARefusal(t *testing.T) {
	begin := make(chan chan struct{}, 1)
	s := run(t, tcpMode, func(h *server.Hertz) {
		h.GET("/", func(_ context.Context, ctx *app.RequestContext) {
			c, ch := ctx.GetConn(), make(chan struct{})
			begin <- ch
			go func() {
				<-ch
				_ = c.Close()
			}()
			ctx.String(200, "ok")
		})
	}, server.WithReadTimeout(guard))
	for i := range 300 {
		c := s.raw(t)
		c.get("/")
		ch := <-begin
		c.send("no request\r\n\r\n")
		time.Sleep(time.Duration(i) * time.Microsecond)
		close(ch)
		_, _ = c.Read(make([]byte, 1000))
		c.Close()
	}
}
