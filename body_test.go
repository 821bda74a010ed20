package hertznet_test

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/cloudwego/hertz/pkg/app"
	"github.com/cloudwego/hertz/pkg/app/client"
	"github.com/cloudwego/hertz/pkg/app/server"
	"github.com/cloudwego/hertz/pkg/protocol"
	"github.com/cloudwego/hertz/pkg/protocol/http1/resp"
	"github.com/cloudwego/hertz/pkg/protocol/sse"
)

// Chunked bodies go both ways, whatever the sizes of the chunks are.
func TestChunkedBothWays(t *testing.T) {
	eachMode(t, allModes, func(t *testing.T, m mode) {
		s := run(t, m, func(h *server.Hertz) {
			h.POST("/", func(_ context.Context, ctx *app.RequestContext) {
				if ctx.Request.Header.ContentLength() < 0 {
					t.Error("the body was streamed to a handler that did not ask for it")
				}
				w := resp.NewChunkedBodyWriter(&ctx.Response, ctx.GetWriter())
				ctx.Response.HijackWriter(w)
				body := ctx.Request.Body()
				for n := 1; len(body) > 0; n *= 3 {
					n = min(n, len(body))
					if _, err := w.Write(body[:n]); err != nil {
						t.Error(err)
					}
					if err := w.Flush(); err != nil {
						t.Error(err)
					}
					body = body[n:]
				}
			})
		})
		c := s.client(t)
		for i, size := range []int{0, 1, 4095, 4096, 100_000, 3 << 20} {
			body := pattern(size, i)
			resp := do(t, c, "POST", s.url+"/", func(req *protocol.Request) {
				req.SetBodyStream(onlyReader{bytes.NewReader(body)}, -1)
			})
			if te := resp.Header.Get("Transfer-Encoding"); te != "chunked" && resp.Header.ContentLength() < 0 {
				t.Errorf("the answer is not chunked: %q", te)
			}
			sameBytes(t, fmt.Sprint(size, " bytes echoed"), resp.Body(), body)
		}

		// Chunks that arrive byte by byte.
		raw := s.raw(t)
		for _, b := range []byte("POST / HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n0a\r\n0123456789\r\n0\r\n\r\n") {
			raw.send(string(b))
		}
		if _, got := raw.answer("POST"); got != "abc0123456789" {
			t.Errorf("chunks byte by byte: got %q", got)
		}
	})
}

// onlyReader hides what else a reader can do.
type onlyReader struct{ io.Reader }

// Expect: 100-continue: the body is sent only after the server asked for it.
func TestExpectContinue(t *testing.T) {
	eachMode(t, allModes, func(t *testing.T, m mode) {
		for _, streamed := range []bool{false, true} {
			s := run(t, m, func(h *server.Hertz) {
				h.POST("/", func(_ context.Context, ctx *app.RequestContext) {
					ctx.Response.SetBody(ctx.Request.Body())
				})
			}, server.WithStreamBody(streamed))
			c := s.raw(t)
			for i := range 3 {
				body := strings.Repeat("x", 1<<(8*i))
				c.send(fmt.Sprintf("POST / HTTP/1.1\r\nHost: x\r\nExpect: 100-continue\r\nContent-Length: %d\r\n\r\n", len(body)))
				c.expect("HTTP/1.1 100 Continue\r\n\r\n")
				c.send(body)
				if resp, got := c.answer("POST"); resp.StatusCode != 200 || got != body {
					t.Fatalf("streamed %v: status %d, %d bytes, want %d", streamed, resp.StatusCode, len(got), len(body))
				}
			}
		}
	})
}

// A handler may answer with the request's body itself, which is the connection's
// memory: 16 clients at once all get their own bytes back.
func TestEchoOfBorrowedBodiesBy16Clients(t *testing.T) {
	// One after the other, and beside no other test: it takes all the processors,
	// and a gigabyte.
	for _, m := range allModes {
		t.Run(m.name, func(t *testing.T) {
			size, rounds := 1<<20, 2
			if m == tcpMode {
				size, rounds = 16<<20, 1
			}
			s := run(t, m, func(h *server.Hertz) {
				h.POST("/", func(_ context.Context, ctx *app.RequestContext) {
					ctx.Response.SetBodyRaw(ctx.Request.Body())
				})
			}, server.WithMaxRequestBodySize(64<<20))
			c := s.client(t)
			var wg sync.WaitGroup
			for i := range 16 {
				wg.Go(func() {
					body := pattern(size, i)
					for range rounds {
						resp, err := attempt(c, "POST", s.url+"/", func(req *protocol.Request) { req.SetBodyRaw(body) })
						if err != nil {
							t.Errorf("client %d: %v", i, err)
							return
						}
						sameBytes(t, fmt.Sprint("client ", i), resp.Body(), body)
					}
				})
			}
			wg.Wait()
		})
	}
}

// With WithStreamBody a handler reads the body while the client still sends it,
// and what it leaves unread does not harm the next request.
func TestRequestBodyStream(t *testing.T) {
	eachMode(t, allModes, func(t *testing.T, m mode) {
		const size = 2 << 20
		reached := make(chan struct{}, 1)
		s := run(t, m, func(h *server.Hertz) {
			h.POST("/hash", func(_ context.Context, ctx *app.RequestContext) {
				got, err := io.ReadAll(ctx.RequestBodyStream())
				if err != nil {
					t.Error(err)
				}
				ctx.Response.SetBody(got)
			})
			h.POST("/gated", func(_ context.Context, ctx *app.RequestContext) {
				head := make([]byte, 100)
				if _, err := io.ReadFull(ctx.RequestBodyStream(), head); err != nil {
					t.Error(err)
				}
				reached <- struct{}{}
				rest, err := io.ReadAll(ctx.RequestBodyStream())
				if err != nil {
					t.Error(err)
				}
				ctx.Response.SetBody(append(head, rest...))
			})
			h.POST("/ignore", text("ignored"))
		}, server.WithStreamBody(true), server.WithMaxRequestBodySize(64<<20))
		c := s.client(t)
		for i, chunked := range []bool{false, true} {
			body := pattern(size, i)
			prepare := func(r io.Reader) func(*protocol.Request) {
				length := len(body)
				if chunked {
					length = -1
				}
				return func(req *protocol.Request) { req.SetBodyStream(r, length) }
			}
			resp := do(t, c, "POST", s.url+"/hash", prepare(bytes.NewReader(body)))
			sameBytes(t, "stream", resp.Body(), body)

			// A server that waits for the whole body would never let the rest go.
			pr, pw := io.Pipe()
			go func() {
				_, _ = pw.Write(body[:size/2])
				select {
				case <-reached:
				case <-time.After(guard):
				}
				_, err := pw.Write(body[size/2:])
				pw.CloseWithError(err)
			}()
			resp = do(t, c, "POST", s.url+"/gated", prepare(pr))
			sameBytes(t, "gated stream", resp.Body(), body)

			resp = do(t, c, "POST", s.url+"/ignore", prepare(bytes.NewReader(body)))
			if string(resp.Body()) != "ignored" {
				t.Errorf("got %q", resp.Body())
			}
		}
	})
}

// A response body that the handler streams reaches a client that streams it as it
// is written, and one that does not as a whole.
func TestResponseBodyStream(t *testing.T) {
	eachMode(t, allModes, func(t *testing.T, m mode) {
		const size = 2 << 20
		body := pattern(size, 7)
		gate := make(chan struct{})
		s := run(t, m, func(h *server.Hertz) {
			h.GET("/sized", func(_ context.Context, ctx *app.RequestContext) {
				ctx.SetBodyStream(bytes.NewReader(body), size)
			})
			h.GET("/chunked", func(_ context.Context, ctx *app.RequestContext) {
				ctx.SetBodyStream(onlyReader{bytes.NewReader(body)}, -1)
			})
			h.GET("/gated", func(_ context.Context, ctx *app.RequestContext) {
				pr, pw := io.Pipe()
				go func() {
					_, _ = pw.Write(body[:1000])
					<-gate
					_, _ = pw.Write(body[1000:])
					pw.Close()
				}()
				ctx.SetBodyStream(pr, -1)
			})
		})
		streaming, whole := s.client(t, client.WithResponseBodyStream(true)), s.client(t)
		for range 2 {
			for _, path := range []string{"/sized", "/chunked"} {
				resp := do(t, whole, "GET", s.url+path, nil)
				sameBytes(t, path, resp.Body(), body)
				resp = do(t, streaming, "GET", s.url+path, nil)
				got, err := io.ReadAll(resp.BodyStream())
				if err != nil {
					t.Fatal(err)
				}
				sameBytes(t, path+" streamed", got, body)
				if err := resp.CloseBodyStream(); err != nil {
					t.Error(err)
				}
			}
		}
		resp := do(t, streaming, "GET", s.url+"/gated", nil)
		got := make([]byte, size)
		if _, err := io.ReadFull(resp.BodyStream(), got[:1000]); err != nil {
			t.Fatal(err)
		}
		close(gate)
		if _, err := io.ReadFull(resp.BodyStream(), got[1000:]); err != nil {
			t.Fatal(err)
		}
		sameBytes(t, "gated", got, body)
		if err := resp.CloseBodyStream(); err != nil {
			t.Error(err)
		}
	})
}

// Trailers go both ways, in streamed and in whole bodies.
func TestTrailersBothWays(t *testing.T) {
	eachMode(t, allModes, func(t *testing.T, m mode) {
		for _, streamed := range []bool{false, true} {
			s := run(t, m, func(h *server.Hertz) {
				h.POST("/", func(_ context.Context, ctx *app.RequestContext) {
					body, err := io.ReadAll(ctx.RequestBodyStream())
					if !streamed {
						body, err = ctx.Request.Body(), nil
					}
					if err != nil {
						t.Error(err)
					}
					got := ctx.Request.Header.Trailer().Get("X-Sum")
					ctx.SetBodyStream(onlyReader{bytes.NewReader(body)}, -1)
					if err := ctx.Response.Header.Trailer().Set("X-Seen", got+"!"); err != nil {
						t.Error(err)
					}
				})
			}, server.WithStreamBody(streamed))
			c := s.client(t, client.WithResponseBodyStream(streamed))
			for i := range 3 {
				resp := do(t, c, "POST", s.url+"/", func(req *protocol.Request) {
					req.SetBodyStream(strings.NewReader("the body"), -1)
					if err := req.Header.Trailer().Set("X-Sum", fmt.Sprint("sum", i)); err != nil {
						t.Error(err)
					}
				})
				body := resp.Body()
				if got := resp.Header.Trailer().Get("X-Seen"); string(body) != "the body" || got != fmt.Sprintf("sum%d!", i) {
					t.Errorf("streamed %v: body %q, trailer %q", streamed, body, got)
				}
				if err := resp.CloseBodyStream(); err != nil {
					t.Error(err)
				}
			}
		}
	})
}

// Server-sent events arrive one by one, as they are written.
func TestServerSentEvents(t *testing.T) {
	eachMode(t, allModes, func(t *testing.T, m mode) {
		next := make(chan struct{})
		s := run(t, m, func(h *server.Hertz) {
			h.GET("/events", func(_ context.Context, ctx *app.RequestContext) {
				w := sse.NewWriter(ctx)
				for i := range 3 {
					if err := w.WriteEvent(fmt.Sprint(i), "tick", fmt.Appendf(nil, "event %d\nof 3", i)); err != nil {
						t.Error(err)
					}
					<-next // the client has it
				}
				if err := w.Close(); err != nil {
					t.Error(err)
				}
			})
			h.GET("/after", text("still here"))
		})
		c := s.client(t)
		resp := do(t, c, "GET", s.url+"/events", nil)
		r, err := sse.NewReader(resp)
		if err != nil {
			t.Fatal(err)
		}
		n := 0
		err = r.ForEach(context.Background(), func(e *sse.Event) error {
			if want := fmt.Sprintf("event %d\nof 3", n); string(e.Data) != want || e.Type != "tick" || e.ID != fmt.Sprint(n) {
				t.Errorf("event %d is %q %q %q", n, e.ID, e.Type, e.Data)
			}
			n++
			next <- struct{}{}
			return nil
		})
		if err != nil || n != 3 {
			t.Errorf("%d events, %v", n, err)
		}
		if err := r.Close(); err != nil {
			t.Error(err)
		}
		if got := get(t, c, s.url+"/after"); got != "still here" {
			t.Errorf("got %q", got)
		}
	})
}

// ctx.File: small files, large ones, which leave by sendfile where there is no
// TLS, ranges of both, and HEAD.
func TestStaticFile(t *testing.T) {
	dir := t.TempDir()
	small, large := pattern(100, 1), pattern(5<<20, 2)
	for name, content := range map[string][]byte{"small": small, "large": large} {
		if err := os.WriteFile(filepath.Join(dir, name), content, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	eachMode(t, allModes, func(t *testing.T, m mode) {
		s := run(t, m, func(h *server.Hertz) {
			serve := func(_ context.Context, ctx *app.RequestContext) {
				ctx.File(filepath.Join(dir, ctx.Param("name")))
			}
			h.GET("/:name", serve)
			h.HEAD("/:name", serve)
		})
		c := s.client(t)
		for range 2 {
			for _, test := range []struct {
				path, ranges string
				status       int
				want         []byte
			}{
				{"/small", "", 200, small},
				{"/large", "", 200, large},
				{"/small", "bytes=10-19", 206, small[10:20]},
				{"/large", "bytes=1000-2000999", 206, large[1000:2001000]},
				{"/large", "bytes=-70000", 206, large[len(large)-70000:]},
				{"/large", "bytes=1000-1009", 206, large[1000:1010]},
			} {
				resp := do(t, c, "GET", s.url+test.path, func(req *protocol.Request) {
					if test.ranges != "" {
						req.Header.Set("Range", test.ranges)
					}
				})
				if resp.StatusCode() != test.status {
					t.Errorf("%s %s: status %d, want %d", test.path, test.ranges, resp.StatusCode(), test.status)
				}
				sameBytes(t, test.path+" "+test.ranges, resp.Body(), test.want)
			}
			resp := do(t, c, "HEAD", s.url+"/large", nil)
			if n := resp.Header.ContentLength(); n != len(large) || len(resp.Body()) != 0 {
				t.Errorf("HEAD: length %d, %d bytes of body", n, len(resp.Body()))
			}
		}
	})
}
