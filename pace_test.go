package hertznet_test

import (
	"context"
	"fmt"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/cloudwego/hertz/pkg/app"
	"github.com/cloudwego/hertz/pkg/app/server"
	"github.com/cloudwego/hertz/pkg/common/adaptor"

	"github.com/hertznet/hertznet/standard"
)

// MinReadRate leaves an upload alone that is fast enough, though it takes many times
// MinReadGrace: Hertz reads a body with a length by one Peek.
func TestMinReadRateOfUploads(t *testing.T) {
	const (
		rate, grace = 1000, 500 * time.Millisecond
		piece       = 1000
		pieces      = 100
	)
	eachMode(t, allModes, func(t *testing.T, m mode) {
		var tr *standard.Transporter
		s := runWith(t, m, func(t *standard.Transporter) {
			t.HandshakeTimeout, t.MinReadRate, t.MinReadGrace = guard, rate, grace
			tr = t
		}, func(h *server.Hertz) {
			h.POST("/", func(_ context.Context, ctx *app.RequestContext) {
				ctx.String(200, "%d bytes", len(ctx.Request.Body()))
			})
		}, server.WithReadTimeout(guard))
		want := fmt.Sprintf("%d bytes", pieces*piece)
		body := strings.Repeat("x", piece)

		c := s.raw(t)
		c.send("GET / HTTP/1.1\r\nHost: x\r\n\r\n")
		c.answer("GET")
		for _, kind := range []struct{ name, header, before, after, end string }{
			{"length", fmt.Sprintf("Content-Length: %d", pieces*piece), "", "", ""},
			{"chunked", "Transfer-Encoding: chunked", fmt.Sprintf("%x\r\n", piece), "\r\n", "0\r\n\r\n"},
			{"one chunk", "Transfer-Encoding: chunked", "", "", "\r\n0\r\n\r\n"},
		} {
			head := "POST / HTTP/1.1\r\nHost: x\r\n" + kind.header + "\r\n\r\n"
			if kind.name == "one chunk" {
				head += fmt.Sprintf("%x\r\n", pieces*piece)
			}
			start := time.Now()
			c.send(head)
			for range pieces {
				c.send(kind.before + body + kind.after)
				time.Sleep(10 * time.Millisecond)
			}
			c.send(kind.end)
			resp, got := c.answer("POST")
			if resp.StatusCode != 200 || got != want {
				t.Fatalf("%s, %v: status %d, %q", kind.name, time.Since(start), resp.StatusCode, got)
			}
		}
		if n := tr.Stats().TooSlow; n != 0 {
			t.Errorf("%d reads were too slow", n)
		}

		// And who is too slow is cut, in the middle of a body.
		slow := s.raw(t)
		slow.send("POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 100000\r\n\r\n")
		done := make(chan struct{})
		go func() {
			defer close(done)
			for {
				if _, err := slow.Conn.Write([]byte("x")); err != nil {
					return
				}
				// Over TLS each byte has a record of 23.
				time.Sleep(50 * time.Millisecond)
			}
		}()
		start := time.Now()
		resp, _ := slow.answer("POST")
		if took := time.Since(start); resp.StatusCode != 408 || took > guard/2 {
			t.Errorf("a slow peer: status %d after %v, want 408", resp.StatusCode, took)
		}
		if n := tr.Stats().TooSlow; n != 1 {
			t.Errorf("%d reads were too slow, want 1", n)
		}
		slow.Close()
		receive(t, "the slow peer ends", done)
	})
}

// T12: a message that has begun to arrive behind another one is held to MinReadRate for
// itself. What the one before has earned, or that a watch for the client's end turned it off, does
// not count.
func TestT12_MinReadRateOfPipelinedRequests(t *testing.T) {
	const rate, grace = 1000, 300 * time.Millisecond
	const first = 1_000_000 // earns a quarter of an hour
	bare := mode{name: "a sensor", bare: true}
	eachMode(t, []mode{tcpMode, tlsMode, bare}, func(t *testing.T, m mode) {
		s := runWith(t, m, func(t *standard.Transporter) {
			t.HandshakeTimeout, t.MinReadRate, t.MinReadGrace = guard, rate, grace
		}, func(h *server.Hertz) {
			h.POST("/", func(_ context.Context, ctx *app.RequestContext) {
				ctx.String(200, "%d bytes", len(ctx.Request.Body()))
			})
		}, server.WithReadTimeout(guard), server.WithSenseClientDisconnection(m.bare))
		const head = "POST / HTTP/1.1\r\nHost: x\r\n"
		c := s.raw(t)
		c.send(fmt.Sprintf("%sContent-Length: %d\r\n\r\n%s", head, first, strings.Repeat("x", first)) + head)
		c.answer("POST")
		for start := time.Now(); s.transport.Stats().TooSlow == 0; time.Sleep(50 * time.Millisecond) {
			if time.Since(start) > 20*grace {
				t.Fatal("a slow header behind another request is not cut")
			}
			_, _ = c.Conn.Write([]byte("x")) // over TLS a record of 23
		}
	})
}

// HTTP/2 without TLS waits inside of OnData, as that over TLS does: MinReadRate, which is of
// messages, does not hold for it.
func TestMinReadRateAndHTTP2WithoutTLS(t *testing.T) {
	const grace = 100 * time.Millisecond
	s := runWith(t, tcpMode, func(t *standard.Transporter) {
		t.MinReadRate, t.MinReadGrace = 1000, grace
	}, func(h *server.Hertz) {
		h.AddProtocol("h2", fakeH2{})
	}, server.WithH2C(true), server.WithReadTimeout(guard))
	c := s.raw(t)
	c.send("PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n")
	const answers = "h2:PRI *h2: HTTPh2:/2.0\rh2:\n\r\nSM"
	c.expect(answers)
	time.Sleep(5 * grace)
	c.send("h")
	c.expect("h2:\r\n\r\nh")
	if n := s.transport.Stats().TooSlow; n != 0 {
		t.Errorf("%d reads were too slow", n)
	}
}

// MinReadRate is of requests: it does not hold for who has taken the connection with Hertz's
// adaptor of net/http, as WebSocket libraries for net/http do.
func TestMinReadRateAndANetHTTPHijacker(t *testing.T) {
	const grace = 100 * time.Millisecond
	for name, readTimeout := range map[string]time.Duration{"a read timeout": guard, "none": 0} {
		t.Run(name, func(t *testing.T) {
			s := runWith(t, tcpMode, func(t *standard.Transporter) {
				t.MinReadRate, t.MinReadGrace = 1000, grace
			}, func(h *server.Hertz) {
				h.GET("/", text("ok"))
				h.GET("/take", adaptor.HertzHandler(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
					c, _, err := w.(http.Hijacker).Hijack()
					if err != nil {
						t.Error(err)
						return
					}
					defer c.Close()
					_, _ = c.Write([]byte("yours"))
					var b [1]byte
					if _, err := c.Read(b[:]); err != nil {
						t.Errorf("the hijacker reads: %v", err)
						return
					}
					_, _ = c.Write(b[:])
				})))
			}, server.WithReadTimeout(readTimeout))
			for _, first := range []bool{true, false} {
				c := s.raw(t)
				if !first {
					c.get("/")
				}
				c.send("GET /take HTTP/1.1\r\nHost: x\r\n\r\n")
				c.expect("yours")
				time.Sleep(5 * grace)
				c.send("x")
				c.expect("x")
			}
		})
	}
}

// C11: a limit may be set from any goroutine, also while a request is read that is held to
// MinReadRate. It is a test of the race detector.
func TestReadTimeoutIsLiftedBesideARead(t *testing.T) {
	s := runWith(t, tcpMode, func(t *standard.Transporter) {
		t.MinReadRate, t.MinReadGrace = 1, guard
	}, func(h *server.Hertz) {
		h.POST("/", func(_ context.Context, ctx *app.RequestContext) {
			_, _ = ctx.GetWriter().WriteBinary([]byte("HTTP/1.1 103 Early Hints\r\n\r\n"))
			_ = ctx.GetWriter().Flush()
			c, done := ctx.GetConn(), make(chan struct{})
			go func() {
				defer close(done)
				_ = c.SetReadTimeout(0)
			}()
			ctx.String(200, "%d", len(ctx.Request.Body()))
			<-done
		})
	}, server.WithReadTimeout(guard), server.WithStreamBody(true))
	c := s.raw(t)
	c.send("POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 20000\r\n\r\n" + strings.Repeat("x", 10000))
	c.expect("HTTP/1.1 103 Early Hints\r\n\r\n")
	time.Sleep(50 * time.Millisecond)
	c.send(strings.Repeat("x", 10000))
	if _, body := c.answer("POST"); body != "20000" {
		t.Error(body)
	}
}
