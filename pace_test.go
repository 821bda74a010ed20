package hertznet_test

import (
	"context"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/cloudwego/hertz/pkg/app"
	"github.com/cloudwego/hertz/pkg/app/server"

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
