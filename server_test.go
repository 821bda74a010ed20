package hertznet_test

import (
	"bufio"
	"bytes"
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/cloudwego/hertz/pkg/app"
	"github.com/cloudwego/hertz/pkg/app/client"
	"github.com/cloudwego/hertz/pkg/app/middlewares/server/recovery"
	"github.com/cloudwego/hertz/pkg/app/server"
	"github.com/cloudwego/hertz/pkg/common/config"
	"github.com/cloudwego/hertz/pkg/common/utils"
	"github.com/cloudwego/hertz/pkg/network"
	hertzstd "github.com/cloudwego/hertz/pkg/network/standard"
	"github.com/cloudwego/hertz/pkg/protocol"
	"github.com/cloudwego/hertz/pkg/protocol/http1/resp"
	"github.com/cloudwego/hertz/pkg/protocol/sse"
	"github.com/hertznet/hertznet"
	"github.com/hertznet/hertznet/standard"
)

// connID returns an option that numbers the server's connections, and the header
// that tells which one an answer came on: unix sockets have no remote address.
func connID() (config.Option, app.HandlerFunc) {
	type key struct{}
	var n atomic.Int64
	return server.WithOnConnect(func(ctx context.Context, _ network.Conn) context.Context {
			return context.WithValue(ctx, key{}, n.Add(1))
		}), func(ctx context.Context, c *app.RequestContext) {
			c.Header("X-Conn", fmt.Sprint(ctx.Value(key{}), " ", c.RemoteAddr()))
		}
}

// A GET gets its answer, and none says `Connection: close` while the server runs:
// a transporter without a listener would make every one of them say so.
func TestGETAndNoConnectionClose(t *testing.T) {
	eachMode(t, allModes, func(t *testing.T, m mode) {
		s := run(t, m, func(h *server.Hertz) { h.GET("/hello", text("world")) })
		c := s.client(t)
		for range 5 {
			resp := do(t, c, "GET", s.url+"/hello", nil)
			if resp.StatusCode() != 200 || string(resp.Body()) != "world" {
				t.Fatalf("status %d, body %q", resp.StatusCode(), resp.Body())
			}
			if resp.ConnectionClose() {
				t.Fatalf("the answer says Connection: close:\n%s", resp.Header.Header())
			}
		}
	})
}

// A JSON document goes through Hertz's binding and rendering.
func TestJSONPost(t *testing.T) {
	type order struct {
		Name  string `json:"name"`
		Count int    `json:"count"`
	}
	eachMode(t, allModes, func(t *testing.T, m mode) {
		s := run(t, m, func(h *server.Hertz) {
			h.POST("/order", func(_ context.Context, ctx *app.RequestContext) {
				var o order
				if err := ctx.BindJSON(&o); err != nil {
					ctx.String(400, "%v", err)
					return
				}
				ctx.JSON(201, utils.H{"name": strings.ToUpper(o.Name), "count": o.Count + 1})
			})
		})
		c := s.client(t)
		for i := range 20 {
			resp := do(t, c, "POST", s.url+"/order", func(req *protocol.Request) {
				req.Header.SetContentTypeBytes([]byte("application/json"))
				req.SetBodyString(fmt.Sprintf(`{"name":"%s","count":%d}`, strings.Repeat("a", 300*i), i))
			})
			want := fmt.Sprintf(`{"count":%d,"name":"%s"}`, i+1, strings.Repeat("A", 300*i))
			if resp.StatusCode() != 201 || string(resp.Body()) != want {
				t.Fatalf("status %d, body %.200q, want %.200q", resp.StatusCode(), resp.Body(), want)
			}
		}
	})
}

// Requests that follow each other use one connection.
func TestKeepAlive(t *testing.T) {
	eachMode(t, allModes, func(t *testing.T, m mode) {
		opt, id := connID()
		s := run(t, m, func(h *server.Hertz) { h.Use(id); h.GET("/", text("")) }, opt)
		c := s.client(t)
		first := ""
		for i := range 50 {
			got := do(t, c, "GET", s.url+"/", nil).Header.Get("X-Conn")
			if i == 0 {
				first = got
			}
			if got != first || got == "" {
				t.Fatalf("request %d came on connection %q, the first on %q", i, got, first)
			}
		}
	})
}

// With IdleTimeout 0 Hertz's engine would close after each request on a transport
// that is not its own: hertznet keeps the connection.
func TestIdleTimeoutZeroKeepsTheConnection(t *testing.T) {
	eachMode(t, allModes, func(t *testing.T, m mode) {
		s := run(t, m, func(h *server.Hertz) { h.GET("/", text("here")) }, server.WithIdleTimeout(0))
		c := s.raw(t)
		for range 2 {
			if got := c.get("/"); got != "here" {
				t.Fatalf("got %q", got)
			}
		}
	})
}

// Hertz logs the transport by the name of its package, and IsRunning by its
// listener, which is nil before there is one.
func TestTransporterNameAndListener(t *testing.T) {
	t.Parallel()
	h := server.New(server.WithTransport(hertznet.NewTransporter), server.WithHostPorts("127.0.0.1:0"))
	if got := h.GetTransporterName(); got != "hertznet" {
		t.Errorf("the transporter's name is %q", got)
	}
	tr := hertznet.NewTransporter(config.NewOptions([]config.Option{server.WithHostPorts("127.0.0.1:0")}))
	listener := tr.(interface{ Listener() net.Listener }).Listener
	if ln := listener(); ln != nil {
		t.Errorf("before serving, Listener() is %v", ln)
	}
	ended := make(chan error, 1)
	go func() { ended <- tr.ListenAndServe(func(context.Context, any) error { return nil }) }()
	eventually(t, "Listener() is there", func() bool { return listener() != nil })
	if _, port, _ := net.SplitHostPort(listener().Addr().String()); port == "0" || port == "" {
		t.Errorf("Listener() is at %v", listener().Addr())
	}
	if err := tr.Close(); err != nil {
		t.Error(err)
	}
	if err := receive(t, "ListenAndServe returns", ended); err != nil {
		t.Error(err)
	}
}

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

// After its answer a hijacked connection is the handler's in both directions: also
// the bytes that came with the request, and without the server's timeouts.
func TestHijack(t *testing.T) {
	eachMode(t, allModes, func(t *testing.T, m mode) {
		const limit = 50 * time.Millisecond
		ended := make(chan error, 1)
		routes := func(h *server.Hertz) {
			h.GET("/up", func(_ context.Context, ctx *app.RequestContext) {
				ctx.SetStatusCode(101)
				ctx.Header("Connection", "Upgrade")
				ctx.Hijack(func(c network.Conn) {
					ended <- func() error {
						head, err := c.ReadBinary(5)
						if err != nil {
							return err
						}
						if _, err := c.WriteBinary(bytes.ToUpper(head)); err != nil {
							return err
						}
						if err := c.Flush(); err != nil {
							return err
						}
						_, err = io.Copy(c, c)
						return err
					}()
				})
			})
		}
		hook, open := gate()
		s := run(t, m, routes, hook, server.WithReadTimeout(limit), server.WithIdleTimeout(limit))
		c := s.raw(t)
		c.send("GET /up HTTP/1.1\r\nHost: x\r\nConnection: Upgrade\r\nUpgrade: echo\r\n\r\nhello")
		open()
		if resp, _ := c.answer("GET"); resp.StatusCode != 101 {
			t.Fatalf("status %d", resp.StatusCode)
		}
		c.expect("HELLO")
		time.Sleep(2 * limit) // no limit of the server's may hold any more
		body := pattern(1<<20, 3)
		written := make(chan error, 1)
		go func() {
			_, err := c.Conn.Write(body)
			written <- err
		}()
		got := make([]byte, len(body))
		if _, err := io.ReadFull(c, got); err != nil {
			t.Fatal(err)
		}
		sameBytes(t, "echo", got, body)
		// crypto/tls sends no close_notify while a Write has not returned.
		if err := receive(t, "the client has written", written); err != nil {
			t.Fatal(err)
		}
		c.Close()
		if err := receive(t, "the hijacker ends", ended); err != nil {
			t.Errorf("the hijacker's copy: %v", err)
		}

		// Hertz's client on the other side.
		s = run(t, m, routes)
		resp := do(t, s.client(t), "GET", s.url+"/up", func(req *protocol.Request) {
			req.Header.Set("Connection", "Upgrade")
			req.Header.Set("Upgrade", "echo")
		})
		hc, err := resp.Hijack()
		if err != nil {
			t.Fatal(err)
		}
		if _, err := hc.Write([]byte("howdy, partner")); err != nil {
			t.Fatal(err)
		}
		if got, err := hc.ReadBinary(14); string(got) != "HOWDY, partner" {
			t.Errorf("got %q, %v", got, err)
		}
		hc.Close()
		_ = receive(t, "the hijacker ends", ended)
		runtime.KeepAlive(resp) // its finalizer closes the connection
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

// A hundred requests in one write are answered in their order.
func TestPipelinedRequests(t *testing.T) {
	eachMode(t, allModes, func(t *testing.T, m mode) {
		for _, sense := range []bool{false, true} {
			s := run(t, m, func(h *server.Hertz) {
				h.POST("/:n", func(_ context.Context, ctx *app.RequestContext) {
					ctx.Response.SetBody(append([]byte(ctx.Param("n")+":"), ctx.Request.Body()...))
				})
			}, server.WithSenseClientDisconnection(sense))
			c := s.raw(t)
			var all strings.Builder
			for i := range 100 {
				fmt.Fprintf(&all, "POST /%d HTTP/1.1\r\nHost: x\r\nContent-Length: %d\r\n\r\n%s", i, i*7, strings.Repeat("b", i*7))
			}
			c.send(all.String())
			for i := range 100 {
				if _, got := c.answer("POST"); got != fmt.Sprintf("%d:%s", i, strings.Repeat("b", i*7)) {
					t.Fatalf("answer %d is %q", i, got)
				}
			}
		}
	})
}

// With H2C set Hertz peeks for HTTP/2's preface: HTTP/1 goes on as before.
func TestH2COptionAndHTTP1(t *testing.T) {
	eachMode(t, []mode{tcpMode, unixMode, tlsMode, alpnMode}, func(t *testing.T, m mode) {
		s := run(t, m, func(h *server.Hertz) {
			h.POST("/", func(_ context.Context, ctx *app.RequestContext) {
				ctx.Response.SetBody(ctx.Request.Body())
			})
		}, server.WithH2C(true))
		c := s.client(t)
		for i := range 5 {
			body := pattern(10_000*i, i)
			resp := do(t, c, "POST", s.url+"/", func(req *protocol.Request) { req.SetBody(body) })
			sameBytes(t, "echo", resp.Body(), body)
		}
		// Byte by byte.
		raw := s.raw(t)
		for _, b := range []byte("POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 2\r\n\r\nok") {
			raw.send(string(b))
		}
		if _, got := raw.answer("POST"); got != "ok" {
			t.Errorf("got %q", got)
		}
	})
}

// A client that speaks HTTP to an HTTPS port is told so in plain text.
func TestPlainHTTPOnHTTPSPort(t *testing.T) {
	eachMode(t, []mode{tlsMode, alpnMode, mtlsMode}, func(t *testing.T, m mode) {
		s := run(t, m, func(h *server.Hertz) { h.GET("/", text("never")) })
		for _, method := range []string{"GET", "HEAD", "POST", "PUT", "OPTIONS"} {
			c := &rawConn{Conn: s.dial(t), t: t}
			c.r = bufio.NewReader(c.Conn)
			c.send(method + " / HTTP/1.1\r\nHost: x\r\n\r\n")
			const want = "HTTP/1.0 400 Bad Request\r\n\r\nClient sent an HTTP request to an HTTPS server.\n"
			if got := c.atEnd(); got != want {
				t.Errorf("%s: got %q", method, got)
			}
		}
	})
}

// OnAccept comes before the TLS handshake and OnConnect after it; what they put
// into the context reaches the handlers of all requests.
func TestHooksAndTheirContext(t *testing.T) {
	eachMode(t, allModes, func(t *testing.T, m mode) {
		type acceptKey struct{}
		type connectKey struct{}
		s := run(t, m, func(h *server.Hertz) {
			h.GET("/", func(ctx context.Context, c *app.RequestContext) {
				c.String(200, "%v %v", ctx.Value(acceptKey{}), ctx.Value(connectKey{}))
			})
		}, server.WithOnAccept(func(c net.Conn) context.Context {
			switch c.(type) {
			case *net.TCPConn, *net.UnixConn:
			default:
				t.Errorf("OnAccept got a %T", c)
			}
			return context.WithValue(context.Background(), acceptKey{}, "accepted")
		}), server.WithOnConnect(func(ctx context.Context, c network.Conn) context.Context {
			tc, ok := c.(network.ConnTLSer)
			if ok != m.tls {
				t.Errorf("OnConnect's %T is a ConnTLSer: %v", c, ok)
			}
			if ok {
				state := tc.ConnectionState()
				if !state.HandshakeComplete || m.mutual && state.PeerCertificates[0].Subject.CommonName != "tester" {
					t.Errorf("OnConnect came too early: %+v", state)
				}
				if want := map[bool]string{true: "http/1.1"}[m.alpn]; state.NegotiatedProtocol != want {
					t.Errorf("negotiated %q, want %q", state.NegotiatedProtocol, want)
				}
			}
			return context.WithValue(ctx, connectKey{}, ctx.Value(acceptKey{}).(string)+", connected")
		}))
		c := s.raw(t)
		for range 2 {
			if got := c.get("/"); got != "accepted accepted, connected" {
				t.Errorf("the handler's context has %q", got)
			}
		}
	})
}

// A listener that was passed in is served as it is: its socket file is there while
// it serves, and after, if it was to stay.
func TestWithListener(t *testing.T) {
	t.Parallel()
	for _, network := range []string{"tcp", "unix"} {
		t.Run(network, func(t *testing.T) {
			addr, m := "127.0.0.1:0", tcpMode
			if network == "unix" {
				addr, m = socketPath(t), unixMode
			}
			ln, err := net.Listen(network, addr)
			if err != nil {
				t.Fatal(err)
			}
			if ul, ok := ln.(*net.UnixListener); ok {
				ul.SetUnlinkOnClose(false)
			}
			s := run(t, m, func(h *server.Hertz) { h.GET("/", text("hi")) }, server.WithListener(ln))
			if got, want := s.addr.String(), ln.Addr().String(); got != want {
				t.Errorf("served on %s, want %s", got, want)
			}
			if got := get(t, s.client(t), s.url+"/"); got != "hi" {
				t.Errorf("got %q", got)
			}
			if network == "tcp" {
				return
			}
			if _, err := os.Stat(addr); err != nil {
				t.Errorf("while serving: %v", err)
			}
			if err := s.Shutdown(context.Background()); err != nil {
				t.Error(err)
			}
			if _, err := os.Stat(addr); err != nil {
				t.Errorf("after serving: %v", err)
			}
		})
	}
}

// WithListenConfig's config is what listens.
func TestWithListenConfig(t *testing.T) {
	eachMode(t, []mode{tcpMode, unixMode}, func(t *testing.T, m mode) {
		var called atomic.Int32
		s := run(t, m, func(h *server.Hertz) { h.GET("/", text("hi")) },
			server.WithListenConfig(&net.ListenConfig{Control: func(_, _ string, _ syscall.RawConn) error {
				called.Add(1)
				return nil
			}}))
		if got := get(t, s.client(t), s.url+"/"); got != "hi" {
			t.Errorf("got %q", got)
		}
		if called.Load() != 1 {
			t.Errorf("Control was called %d times", called.Load())
		}
	})
}

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

// With SenseClientDisconnection the handler's context ends when the client goes
// away, however it does [S17].
func TestSenseClientDisconnection(t *testing.T) {
	eachMode(t, senseModes, func(t *testing.T, m mode) {
		const limit = 50 * time.Millisecond
		hook, open := gate()
		started, ended := make(chan struct{}, 1), make(chan error, 1)
		s := run(t, m, func(h *server.Hertz) {
			h.POST("/", func(ctx context.Context, c *app.RequestContext) {
				body := bytes.Clone(c.Request.Body())
				started <- struct{}{}
				select {
				case <-ctx.Done():
					sameBytes(t, "the body in the meantime", c.Request.Body(), body)
					ended <- ctx.Err()
				case <-time.After(guard):
					ended <- nil
				}
			})
			h.GET("/", text("ok"))
		}, server.WithSenseClientDisconnection(true), server.WithReadTimeout(limit), server.WithIdleTimeout(time.Minute), hook)
		for name, leave := range map[string]func(net.Conn){"close": func(c net.Conn) { c.Close() }, "reset": reset} {
			c := s.raw(t)
			const first = "GET / HTTP/1.1\r\nHost: x\r\n\r\n" // it is sensed for, and leaves no trace
			c.send(first + first + "POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 5000\r\n\r\n" + strings.Repeat("z", 5000))
			open()
			c.answer("GET")
			c.answer("GET")
			receive(t, "the handler starts", started)
			time.Sleep(2 * limit) // which is no limit of the watch
			leave(c)
			if err := receive(t, "the context ends", ended); !errors.Is(err, context.Canceled) {
				t.Errorf("%s: the handler's context: %v", name, err)
			}
		}
	})
}

// What a client sends ahead is no disconnection.
func TestSenseClientDisconnectionAndPipelining(t *testing.T) {
	eachMode(t, senseModes, func(t *testing.T, m mode) {
		started, release := make(chan struct{}, 10), make(chan struct{})
		s := run(t, m, func(h *server.Hertz) {
			h.POST("/:n", func(ctx context.Context, c *app.RequestContext) {
				started <- struct{}{}
				select {
				case <-release:
				case <-ctx.Done():
					t.Errorf("request %s was cancelled", c.Param("n"))
				}
				if c.Param("n") == "0" {
					// Whoever took the bytes sent ahead for an end has had time to say so.
					select {
					case <-ctx.Done():
						t.Error("the context ended by a pipelined request")
					case <-time.After(50 * time.Millisecond):
					}
				}
				c.Response.SetBody(c.Request.Body())
			})
		}, server.WithSenseClientDisconnection(true))
		c := s.raw(t)
		request := func(i int) (req, body string) {
			body = fmt.Sprint("body ", i, strings.Repeat("-", 3000*i))
			return fmt.Sprintf("POST /%d HTTP/1.1\r\nHost: x\r\nContent-Length: %d\r\n\r\n%s", i, len(body), body), body
		}
		first, _ := request(0)
		c.send(first)
		receive(t, "the handler starts", started)
		for i := 1; i < 5; i++ {
			req, _ := request(i)
			c.send(req)
		}
		close(release)
		for i := range 5 {
			if _, want := request(i); true {
				if _, got := c.answer("POST"); got != want {
					t.Errorf("answer %d is %.20q (%d bytes), want %.20q (%d)", i, got, len(got), want, len(want))
				}
			}
		}
	})
}

// A handler that panics, or whose answer cannot be written, ends while the
// connection is being watched: nothing of it may be touched by two.
func TestSenseClientDisconnectionAndFailure(t *testing.T) {
	eachMode(t, senseModes, func(t *testing.T, m mode) {
		s := run(t, m, func(h *server.Hertz) {
			h.POST("/panic", func(context.Context, *app.RequestContext) {
				time.Sleep(time.Millisecond) // the watch has most likely begun: that is the bad case
				panic("on purpose")
			})
			h.POST("/write", func(_ context.Context, ctx *app.RequestContext) {
				time.Sleep(time.Millisecond)
				ctx.SetBodyStream(bytes.NewReader(make([]byte, 100)), 5000) // less than promised
			})
		}, server.WithSenseClientDisconnection(true))
		for i := range 20 {
			path := []string{"/panic", "/write"}[i%2]
			c := s.raw(t)
			c.send("POST " + path + " HTTP/1.1\r\nHost: x\r\nContent-Length: 5\r\n\r\n12345" + []string{"", "POST"}[i/2%2])
			c.atEnd()
		}
	})
}

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
