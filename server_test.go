package hertznet_test

import (
	"bufio"
	"bytes"
	"context"
	"fmt"
	"io"
	"net"
	"os"
	"runtime"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/cloudwego/hertz/pkg/app"
	"github.com/cloudwego/hertz/pkg/app/server"
	"github.com/cloudwego/hertz/pkg/common/config"
	"github.com/cloudwego/hertz/pkg/common/utils"
	"github.com/cloudwego/hertz/pkg/network"
	"github.com/cloudwego/hertz/pkg/protocol"
	"github.com/hertznet/hertznet"
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
