package http3

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/cloudwego/hertz/pkg/app"
	"github.com/cloudwego/hertz/pkg/app/client"
	"github.com/cloudwego/hertz/pkg/app/server"
	"github.com/cloudwego/hertz/pkg/common/config"
	errs "github.com/cloudwego/hertz/pkg/common/errors"
	"github.com/cloudwego/hertz/pkg/protocol"
	hclient "github.com/cloudwego/hertz/pkg/protocol/client"
	"github.com/cloudwego/hertz/pkg/protocol/sse"
	"github.com/quic-go/quic-go/http3"

	"github.com/hertznet/hertznet"
)

// newClient returns a Hertz client on HTTP/3.
func newClient(tb testing.TB, options ...config.ClientOption) *client.Client {
	tb.Helper()
	c := newClientH1(tb, options...)
	c.SetClientFactory(NewClientFactory(c.GetOptions()))
	return c
}

// newClientH1 returns one on HTTP/1.1.
func newClientH1(tb testing.TB, options ...config.ClientOption) *client.Client {
	tb.Helper()
	c, err := client.NewClient(append([]config.ClientOption{client.WithTLSConfig(clientTLS()), client.WithDialer(hertznet.NewDialer())}, options...)...)
	if err != nil {
		tb.Fatal(err)
	}
	tb.Cleanup(c.CloseIdleConnections)
	return c
}

func request(method, url, body string) (*protocol.Request, *protocol.Response) {
	req, resp := new(protocol.Request), new(protocol.Response)
	req.SetMethod(method)
	req.SetRequestURI(url)
	if body != "" {
		req.SetBodyString(body)
	}
	return req, resp
}

// dump is a handler that answers with what it has got.
func dump(_ context.Context, ctx *app.RequestContext) {
	var b bytes.Buffer
	fmt.Fprintf(&b, "%s %s %s\n", ctx.Method(), ctx.URI().RequestURI(), ctx.Host())
	for _, name := range []string{"Content-Type", "Content-Length", "Cookie", "User-Agent", "X-A", "Authorization"} {
		fmt.Fprintf(&b, "%s: %s\n", name, ctx.Request.Header.GetAll(name))
	}
	if form, err := ctx.MultipartForm(); err == nil {
		fmt.Fprintf(&b, "%v %d files\n", form.Value, len(form.File["f"]))
	} else {
		body, err := ctx.Body()
		fmt.Fprintf(&b, "%s %v\n", body, err)
	}
	ctx.Response.Header.Add("X-B", "1")
	ctx.Response.Header.Add("X-B", "2")
	ctx.SetCookie("c", "d", 0, "", "", protocol.CookieSameSiteDefaultMode, false, false)
	ctx.Data(200, "text/dump", b.Bytes())
}

// boundary is random.
var boundary = regexp.MustCompile("boundary=[0-9a-f]*")

// What Hertz's client sends over HTTP/1.1 it sends over HTTP/3, and so with what it gets.
func TestClientSame(t *testing.T) {
	file := filepath.Join(t.TempDir(), "file.txt")
	if err := os.WriteFile(file, []byte("the file"), 0o644); err != nil {
		t.Fatal(err)
	}
	s := serve(t, func(h *server.Hertz) {
		h.Any("/dump", dump)
		h.GET("/empty", func(_ context.Context, ctx *app.RequestContext) { ctx.SetStatusCode(204) })
		h.GET("/stream", func(_ context.Context, ctx *app.RequestContext) {
			ctx.SetBodyStream(strings.NewReader(strings.Repeat("x", 100000)), -1)
		})
	})
	tests := []struct {
		name, method, path string
		set                func(*protocol.Request)
	}{
		{"GET", "GET", "/dump?a=b%20c", func(r *protocol.Request) { r.Header.Add("X-A", "1"); r.Header.Add("X-A", "2") }},
		{"HEAD", "HEAD", "/dump", nil},
		{"cookies", "GET", "/dump", func(r *protocol.Request) { r.SetCookie("k", "v"); r.SetCookie("l", "w") }},
		{"POST", "POST", "/dump", func(r *protocol.Request) { r.SetBodyString("body"); r.Header.SetContentTypeBytes([]byte("text/x")) }},
		{"POST without a type", "POST", "/dump", func(r *protocol.Request) { r.SetBodyString("body") }},
		{"POST without a body", "POST", "/dump", nil},
		{"form", "POST", "/dump", func(r *protocol.Request) { r.SetFormData(map[string]string{"x": "1 2"}) }},
		{"multipart", "POST", "/dump", func(r *protocol.Request) {
			r.SetMultipartFormData(map[string]string{"x": "1"})
			r.SetFile("f", file)
		}},
		{"stream of known length", "PUT", "/dump", func(r *protocol.Request) { r.SetBodyStream(strings.NewReader("streamed"), 8) }},
		{"stream of unknown length", "PUT", "/dump", func(r *protocol.Request) { r.SetBodyStream(strings.NewReader("streamed"), -1) }},
		{"basic authorization", "GET", "/dump", func(r *protocol.Request) { r.SetBasicAuth("u", "p") }},
		{"another host", "GET", "/dump", func(r *protocol.Request) { r.Header.SetHost("other.example") }},
		{"no content", "GET", "/empty", nil},
		{"streamed answer", "GET", "/stream", nil},
		{"nothing there", "GET", "/nowhere", nil},
		{"path that is normalized", "GET", "/x/../dump//", nil},
	}
	for _, streaming := range []bool{false, true} {
		h1, h3 := newClientH1(t, client.WithResponseBodyStream(streaming)), newClient(t, client.WithResponseBodyStream(streaming))
		for _, test := range tests {
			t.Run(fmt.Sprintf("%s, ResponseBodyStream=%v", test.name, streaming), func(t *testing.T) {
				var answers [2]string
				for i, c := range []*client.Client{h1, h3} {
					req, resp := request(test.method, s.url(test.path), "")
					if test.set != nil {
						test.set(req)
					}
					if err := c.Do(testContext(t), req, resp); err != nil {
						t.Fatal(err)
					}
					body, err := resp.BodyE()
					answers[i] = fmt.Sprintf("%d %s %s %s %s %d\n%.1000s %d %v", resp.StatusCode(), resp.Header.ContentType(), resp.Header.GetAll("X-B"),
						resp.Header.Server(), resp.Header.Get("Set-Cookie"), resp.Header.ContentLength(), body, len(body), err)
					answers[i] = boundary.ReplaceAllString(answers[i], "")
				}
				if answers[0] != answers[1] {
					t.Errorf("HTTP/1.1: %s\nHTTP/3:   %s", answers[0], answers[1])
				}
			})
		}
	}
}

func TestClientProtocol(t *testing.T) {
	s := serve(t, handle(func(_ context.Context, ctx *app.RequestContext) { ctx.String(200, ctx.Request.Header.GetProtocol()) }))
	c := newClient(t)
	req, resp := request("GET", s.url("/"), "")
	if err := c.Do(testContext(t), req, resp); err != nil {
		t.Fatal(err)
	}
	if got := string(resp.Body()); got != "HTTP/3.0" || resp.Header.GetProtocol() != "HTTP/3.0" {
		t.Errorf("the server has %q, the client %q", got, resp.Header.GetProtocol())
	}
	// Redirects, and what else is on top.
	status, body, err := c.Get(testContext(t), nil, s.url("/"))
	if status != 200 || string(body) != "HTTP/3.0" || err != nil {
		t.Errorf("Get: %d %q %v", status, body, err)
	}
}

func TestClientTrailers(t *testing.T) {
	s := serve(t, handle(func(_ context.Context, ctx *app.RequestContext) {
		body, _ := ctx.Body()
		sum := ctx.Request.Header.Trailer().Get("X-Sum")
		_ = ctx.Response.Header.Trailer().Set("X-Answer", sum)
		ctx.SetBodyStream(bytes.NewReader(body), -1)
	}))
	for _, body := range []string{"body", ""} {
		for _, streaming := range []bool{false, true} {
			req, resp := request("POST", s.url("/"), body)
			_ = req.Header.Trailer().Set("X-Sum", "42")
			if err := newClient(t, client.WithResponseBodyStream(streaming)).Do(testContext(t), req, resp); err != nil {
				t.Fatal(err)
			}
			if got := string(resp.Body()); got != body {
				t.Errorf("body %q, want %q", got, body)
			}
			if got := resp.Header.Trailer().Get("X-Answer"); got != "42" {
				t.Errorf("body %q, ResponseBodyStream=%v: trailer %q", body, streaming, got)
			}
		}
	}
}

// Events are read as they come, with any options, by Hertz's own reader.
func TestClientEvents(t *testing.T) {
	next := make(chan struct{})
	s := serve(t, handle(func(c context.Context, ctx *app.RequestContext) {
		w := sse.NewWriter(ctx)
		defer w.Close()
		for i := range 3 {
			_ = w.WriteEvent("", "", fmt.Append(nil, i))
			select {
			case <-next:
			case <-c.Done():
				return
			}
		}
	}))
	req, resp := request("GET", s.url("/"), "")
	if err := newClient(t).Do(testContext(t), req, resp); err != nil {
		t.Fatal(err)
	}
	r, err := sse.NewReader(resp)
	if err != nil {
		t.Fatal(err)
	}
	n := 0
	err = r.ForEach(testContext(t), func(e *sse.Event) error {
		if string(e.Data) != fmt.Sprint(n) {
			t.Errorf("event %q, want %d", e.Data, n)
		}
		n++
		next <- struct{}{}
		return nil
	})
	if err != nil || n != 3 {
		t.Errorf("%d events, %v", n, err)
	}
}

func TestClientLimitsAndTimeouts(t *testing.T) {
	s := serve(t, func(h *server.Hertz) {
		h.GET("/large", func(_ context.Context, ctx *app.RequestContext) { ctx.String(200, strings.Repeat("x", 1001)) })
		h.GET("/larger", func(_ context.Context, ctx *app.RequestContext) {
			ctx.SetBodyStream(strings.NewReader(strings.Repeat("x", 1001)), -1)
		})
		h.GET("/never", func(c context.Context, ctx *app.RequestContext) { <-c.Done() })
		h.GET("/stalls", func(c context.Context, ctx *app.RequestContext) {
			ctx.Response.ImmediateHeaderFlush = true
			ctx.SetBodyStream(readerFunc(func([]byte) (int, error) { <-c.Done(); return 0, io.EOF }), -1)
		})
	})
	c := newClient(t, config.ClientOption{F: func(o *config.ClientOptions) { o.MaxResponseBodySize = 1000 }})
	for _, path := range []string{"/large", "/larger"} {
		req, resp := request("GET", s.url(path), "")
		if err := c.Do(testContext(t), req, resp); !errors.Is(err, errs.ErrBodyTooLarge) {
			t.Errorf("%s: %v, want ErrBodyTooLarge", path, err)
		}
	}
	for _, path := range []string{"/never", "/stalls"} {
		for name, option := range map[string]config.RequestOption{
			"ReadTimeout":    config.WithReadTimeout(50 * time.Millisecond),
			"RequestTimeout": config.WithRequestTimeout(50 * time.Millisecond),
		} {
			req, resp := request("GET", s.url(path), "")
			req.SetOptions(option)
			if err := c.Do(testContext(t), req, resp); !errors.Is(err, errs.ErrTimeout) {
				t.Errorf("%s, %s: %v, want ErrTimeout", path, name, err)
			}
		}
		ctx, cancel := context.WithCancel(testContext(t))
		time.AfterFunc(50*time.Millisecond, cancel)
		req, resp := request("GET", s.url(path), "")
		if err := c.Do(ctx, req, resp); !errors.Is(err, context.Canceled) {
			t.Errorf("%s: %v, want context.Canceled", path, err)
		}
	}
}

func TestClientErrors(t *testing.T) {
	c := newClient(t, client.WithDialTimeout(200*time.Millisecond))
	req, resp := request("GET", "http://127.0.0.1:1/", "")
	if err := c.Do(testContext(t), req, resp); err == nil || !strings.Contains(err.Error(), "https") {
		t.Errorf("http: %v", err)
	}
	req, resp = request("GET", "https://127.0.0.1:1/", "")
	if err := c.Do(testContext(t), req, resp); err == nil {
		t.Error("there is an answer of nobody")
	}
	c.SetProxy(protocol.ProxyURI(protocol.ParseURI("http://127.0.0.1:2")))
	req, resp = request("GET", "https://127.0.0.2:1/", "")
	if err := c.Do(testContext(t), req, resp); err == nil || !strings.Contains(err.Error(), "proxy") {
		t.Errorf("proxy: %v", err)
	}
	// A server that cannot prove who it is.
	s := serve(t, handle(hello))
	c, _ = client.NewClient()
	c.SetClientFactory(NewClientFactory(nil))
	req, resp = request("GET", s.url("/"), "")
	if err := c.Do(testContext(t), req, resp); err == nil || !strings.Contains(err.Error(), "certificate") {
		t.Errorf("an unknown certificate: %v", err)
	}
}

// A request may be reused as soon as Do has returned, although quic-go may still send it.
func TestClientBodyIsItsOwners(t *testing.T) {
	early := make(chan struct{})
	sums := make(chan bool, 1)
	s := serve(t, handle(func(_ context.Context, ctx *app.RequestContext) {
		body := ctx.RequestBodyStream()
		ctx.SetBodyStream(readerFunc(func(p []byte) (int, error) {
			select {
			case <-early: // the request was reused
				b, _ := io.ReadAll(body)
				sums <- len(b) == 4<<20 && bytes.Count(b, []byte("x")) == len(b)
				return 0, io.EOF
			default:
				p[0] = '.'
				return 1, nil
			}
		}), -1)
	}), server.WithStreamBody(true))
	c := newClient(t, client.WithResponseBodyStream(true))
	req, resp := request("POST", s.url("/"), "")
	body := bytes.Repeat([]byte("x"), 4<<20)
	req.SetBodyRaw(body)
	if err := c.Do(testContext(t), req, resp); err != nil {
		t.Fatal(err)
	}
	copy(body, bytes.Repeat([]byte("y"), len(body)))
	go func() { _, _ = io.Copy(io.Discard, resp.BodyStream()) }()
	close(early)
	if !<-sums {
		t.Error("the server has got what was written over the body")
	}
	resp.CloseBodyStream()
}

// A server that shuts down refuses what it has not begun, and the client sends it again.
func TestClientSurvivesGoAway(t *testing.T) {
	var mu sync.Mutex
	var current *site
	addr := ""
	start := func(options ...config.Option) {
		if addr != "" {
			options = append(options, server.WithHostPorts(addr))
		}
		s := serve(t, handle(hello), options...)
		mu.Lock()
		defer mu.Unlock()
		current, addr = s, s.addr
	}
	start()
	c := newClient(t)
	for round := range 3 {
		req, resp := request("POST", current.url("/"), "body")
		if err := c.Do(testContext(t), req, resp); err != nil || string(resp.Body()) != "hello" {
			t.Fatalf("round %d: %q, %v", round, resp.Body(), err)
		}
		current.stop(t)
		start()
	}
}

// Idle hosts give their sockets back.
func TestClientIdle(t *testing.T) {
	s := serve(t, handle(hello))
	hc, err := NewClientFactory(config.NewClientOptions([]config.ClientOption{
		client.WithTLSConfig(clientTLS()), client.WithMaxIdleConnDuration(50 * time.Millisecond)}),
		func(t *http3.Transport) { t.QUICConfig.KeepAlivePeriod = time.Second }).NewHostClient()
	if err != nil {
		t.Fatal(err)
	}
	hc.SetDynamicConfig(&hclient.DynamicConfig{Addr: s.addr, IsTLS: true})
	if hc.ShouldRemove() {
		t.Error("a new host is to be removed")
	}
	req, _ := request("GET", s.url("/"), "")
	if err := hc.Do(testContext(t), req, nil); err != nil {
		t.Fatal(err)
	}
	for deadline := time.Now().Add(5 * time.Second); !hc.ShouldRemove(); time.Sleep(time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatal("an idle host stays")
		}
	}
	hc.CloseIdleConnections()
	if n := hc.ConnectionCount(); n != 0 {
		t.Errorf("%d connections", n)
	}
	if err := hc.(io.Closer).Close(); err != nil {
		t.Errorf("Close: %v", err)
	}
	if err := hc.Do(testContext(t), req, nil); !errors.Is(err, http3.ErrTransportClosed) {
		t.Errorf("after Close: %v", err)
	}
}
