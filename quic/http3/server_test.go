package http3

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/cloudwego/hertz/pkg/app"
	"github.com/cloudwego/hertz/pkg/app/middlewares/server/recovery"
	"github.com/cloudwego/hertz/pkg/app/server"
	"github.com/cloudwego/hertz/pkg/common/adaptor"
	"github.com/cloudwego/hertz/pkg/common/config"
	"github.com/cloudwego/hertz/pkg/common/tracer/stats"
	"github.com/cloudwego/hertz/pkg/network"
	"github.com/cloudwego/hertz/pkg/protocol"
	"github.com/cloudwego/hertz/pkg/protocol/sse"
	quicgo "github.com/quic-go/quic-go"
	"github.com/quic-go/quic-go/http3"
)

// handle makes an application of one handler, for every method and path.
func handle(f app.HandlerFunc) func(*server.Hertz) {
	return func(h *server.Hertz) { h.Any("/*path", f) }
}

func hello(_ context.Context, ctx *app.RequestContext) { ctx.String(200, "hello") }

// h3error reports whether the stream, not the connection, was reset with a code.
func h3error(err error, code http3.ErrCode) bool {
	var e *http3.Error
	return errors.As(err, &e) && e.ErrorCode == code
}

func TestLimits(t *testing.T) {
	s := serve(t, handle(hello), server.WithMaxRequestBodySize(1000), server.WithMaxHeaderBytes(2000))
	rt := newH3(t)
	tests := []struct {
		name   string
		body   io.Reader
		header string
		want   int
	}{
		{"body of the limit", strings.NewReader(strings.Repeat("x", 1000)), "", 200},
		{"body beyond the limit", strings.NewReader(strings.Repeat("x", 1001)), "", 413},
		{"body of unknown length of the limit", io.LimitReader(strings.NewReader(strings.Repeat("x", 2000)), 1000), "", 200},
		{"body of unknown length beyond the limit", io.LimitReader(strings.NewReader(strings.Repeat("x", 2000)), 1001), "", 413},
		{"header beyond the limit", nil, strings.Repeat("x", 2000), 431},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			r, _ := http.NewRequestWithContext(testContext(t), "POST", s.url("/"), test.body)
			if test.header != "" {
				r.Header.Set("X-Long", test.header)
			}
			rsp, err := rt.RoundTrip(r)
			if err != nil {
				t.Fatal(err)
			}
			rsp.Body.Close()
			if rsp.StatusCode != test.want {
				t.Errorf("status %d, want %d", rsp.StatusCode, test.want)
			}
		})
	}
}

func TestGetOnly(t *testing.T) {
	s := serve(t, handle(hello), server.WithGetOnly(true))
	rt := newH3(t)
	if a := must(t, rt, "GET", s.url("/"), ""); a.status != 200 {
		t.Errorf("GET: status %d", a.status)
	}
	if a := must(t, rt, "POST", s.url("/"), "x"); a.status != 400 {
		t.Errorf("POST: status %d, want 400", a.status)
	}
}

// What a client sends after its body, announced and not.
func TestRequestTrailers(t *testing.T) {
	for _, streaming := range []bool{false, true} {
		t.Run(fmt.Sprintf("StreamRequestBody=%v", streaming), func(t *testing.T) {
			s := serve(t, handle(func(_ context.Context, ctx *app.RequestContext) {
				announced := string(ctx.Request.Header.Trailer().GetBytes())
				body, err := ctx.Body()
				ctx.String(200, "%s %v %s %s", body, err, ctx.Request.Header.Trailer().Get("X-Sum"), strings.Trim(announced, ", "))
			}), server.WithStreamBody(streaming))
			r, _ := http.NewRequestWithContext(testContext(t), "POST", s.url("/"), nil)
			r.Trailer = http.Header{"X-Sum": nil}
			r.Body = io.NopCloser(&hooked{strings.NewReader("body"), func() { r.Trailer.Set("X-Sum", "42") }})
			rsp, err := newH3(t).RoundTrip(r)
			if err != nil {
				t.Fatal(err)
			}
			defer rsp.Body.Close()
			b, _ := io.ReadAll(rsp.Body)
			if want := "body <nil> 42 X-Sum"; string(b) != want {
				t.Errorf("got %q, want %q", b, want)
			}
		})
	}
}

// Trailer names on which Hertz's parser panics are left out.
func TestEmptyTrailerName(t *testing.T) {
	s := serve(t, handle(hello))
	// quic-go's client would not send it: its request is one of those that it copies.
	a := must(t, newH3(t), "POST", s.url("/"), "x", "Trailer", "a,, ,b")
	if a.status != 200 {
		t.Errorf("status %d", a.status)
	}
}

// A handler reads a body and answers it part by part.
func TestFullDuplex(t *testing.T) {
	s := serve(t, handle(func(_ context.Context, ctx *app.RequestContext) {
		if !ctx.Request.IsBodyStream() {
			ctx.String(500, "no stream")
			return
		}
		ctx.Response.ImmediateHeaderFlush = true
		ctx.SetBodyStream(ctx.RequestBodyStream(), -1)
	}), server.WithStreamBody(true))
	pr, pw := io.Pipe()
	r, _ := http.NewRequestWithContext(testContext(t), "POST", s.url("/"), pr)
	rsp, err := newH3(t).RoundTrip(r)
	if err != nil {
		t.Fatal(err)
	}
	defer rsp.Body.Close()
	in := bufio.NewReader(rsp.Body)
	for i := range 3 {
		line := fmt.Sprintf("line %d\n", i)
		if _, err := io.WriteString(pw, line); err != nil {
			t.Fatal(err)
		}
		if got, err := in.ReadString('\n'); got != line {
			t.Fatalf("got %q, %v, want %q", got, err, line)
		}
	}
	pw.Close()
	if b, err := io.ReadAll(in); len(b) > 0 || err != nil {
		t.Errorf("at the end: %q, %v", b, err)
	}
}

// A part of a stream is sent when it is there, however small.
func TestPartsAreSent(t *testing.T) {
	next := make(chan struct{}, 1)
	s := serve(t, handle(func(c context.Context, ctx *app.RequestContext) {
		n := 0
		ctx.SetBodyStream(readerFunc(func(p []byte) (int, error) {
			if n++; n > 3 {
				return 0, io.EOF
			}
			if n > 1 {
				select {
				case <-next:
				case <-c.Done():
					return 0, c.Err()
				}
			}
			return copy(p, "part"), nil
		}), -1)
	}))
	r, _ := http.NewRequestWithContext(testContext(t), "GET", s.url("/"), nil)
	rsp, err := newH3(t).RoundTrip(r)
	if err != nil {
		t.Fatal(err)
	}
	defer rsp.Body.Close()
	for range 3 {
		part := make([]byte, 4)
		if _, err := io.ReadFull(rsp.Body, part); err != nil || string(part) != "part" {
			t.Fatalf("%q, %v", part, err)
		}
		next <- struct{}{}
	}
	if b, err := io.ReadAll(rsp.Body); len(b) > 0 || err != nil {
		t.Errorf("at the end: %q, %v", b, err)
	}
}

// Events reach the client when they happen.
func TestEventsAreFlushed(t *testing.T) {
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
	r, _ := http.NewRequestWithContext(testContext(t), "GET", s.url("/"), nil)
	rsp, err := newH3(t).RoundTrip(r)
	if err != nil {
		t.Fatal(err)
	}
	defer rsp.Body.Close()
	in := bufio.NewReader(rsp.Body)
	for i := range 3 {
		got, err := in.ReadString('\n')
		if want := fmt.Sprintf("data: %d\n", i); got != want {
			t.Fatalf("got %q, %v, want %q", got, err, want)
		}
		if _, err := in.ReadString('\n'); err != nil {
			t.Fatal(err)
		}
		next <- struct{}{}
	}
	if b, err := io.ReadAll(in); len(b) > 0 || err != nil {
		t.Errorf("at the end: %q, %v", b, err)
	}
}

// A client that gives a request up ends the handler's context, whether it has sent all of
// the request or not; so does the end of its connection.
func TestClientCancels(t *testing.T) {
	for _, streaming := range []bool{false, true} {
		t.Run(fmt.Sprintf("StreamRequestBody=%v", streaming), func(t *testing.T) {
			begun, ended := make(chan struct{}, 1), make(chan error, 1)
			s := serve(t, handle(func(c context.Context, ctx *app.RequestContext) {
				begun <- struct{}{}
				select {
				case <-c.Done():
					ended <- nil
				case <-time.After(10 * time.Second):
					ended <- errors.New("the context has not ended")
				}
			}), server.WithStreamBody(streaming))
			for name, end := range map[string]func(*http3.Transport, context.CancelFunc){
				"request":    func(_ *http3.Transport, cancel context.CancelFunc) { cancel() },
				"connection": func(rt *http3.Transport, _ context.CancelFunc) { rt.Close() },
			} {
				rt := newH3(t)
				ctx, cancel := context.WithCancel(testContext(t))
				r, _ := http.NewRequestWithContext(ctx, "POST", s.url("/"), strings.NewReader("body"))
				failed := make(chan error, 1)
				go func() {
					_, err := rt.RoundTrip(r)
					failed <- err
				}()
				<-begun
				end(rt, cancel)
				if err := <-ended; err != nil {
					t.Errorf("%s: %v", name, err)
				}
				if <-failed == nil {
					t.Errorf("%s: there is an answer", name)
				}
				cancel()
			}
		})
	}
}

// A panic costs its stream, and nothing else.
func TestPanic(t *testing.T) {
	app := func(h *server.Hertz) {
		h.GET("/panic", func(context.Context, *app.RequestContext) { panic("on purpose") })
		h.GET("/stream", func(_ context.Context, ctx *app.RequestContext) {
			ctx.SetBodyStream(readerFunc(func([]byte) (int, error) { panic("on purpose") }), -1)
		})
		h.GET("/ok", hello)
	}
	s := serve(t, app)
	_, rt := dialRaw(t, s.addr, newH3(t)) // one connection for all
	for _, path := range []string{"/panic", "/stream"} {
		if a, err := do(t, rt, "GET", s.url(path), ""); !h3error(err, http3.ErrCodeInternalError) {
			t.Errorf("%s: %v, %v; want a stream reset with H3_INTERNAL_ERROR", path, a, err)
		}
	}
	if a := must(t, rt, "GET", s.url("/ok"), ""); a.body != "hello" {
		t.Errorf("afterwards: %v", a)
	}

	s = serve(t, func(h *server.Hertz) { h.Use(recovery.Recovery()); app(h) })
	if a := must(t, newH3(t), "GET", s.url("/panic"), ""); a.status != 500 {
		t.Errorf("with recovery: status %d, want 500", a.status)
	}
}

// Who knows how to bring a panic about, or an answer that breaks off, cannot flood the log
// [S10].
func TestPanicsDoNotFloodTheLog(t *testing.T) {
	s := serve(t, func(h *server.Hertz) {
		h.GET("/flood/panic", func(context.Context, *app.RequestContext) { panic("on purpose") })
		h.GET("/flood/cut", func(_ context.Context, ctx *app.RequestContext) {
			ctx.SetBodyStream(readerFunc(func([]byte) (int, error) { return 0, errors.New("on purpose") }), -1)
		})
	})
	_, rt := dialRaw(t, s.addr, newH3(t))
	for _, path := range []string{"/flood/panic", "/flood/cut"} {
		for range 5 {
			if a, err := do(t, rt, "GET", s.url(path), ""); !h3error(err, http3.ErrCodeInternalError) {
				t.Errorf("%s: %v, %v; want a stream reset with H3_INTERNAL_ERROR", path, a, err)
			}
		}
	}
	s.stop(t)
	for _, path := range []string{"/flood/panic", "/flood/cut"} {
		if lines := logs.of(path); len(lines) != 1 {
			t.Errorf("%s: %d lines were logged: %q", path, len(lines), lines)
		}
	}
}

// Who wants the connection for itself learns that there is none, and so does the client.
func TestHijack(t *testing.T) {
	var failed atomic.Value
	s := serve(t, func(h *server.Hertz) {
		h.GET("/hertz", func(_ context.Context, ctx *app.RequestContext) {
			ctx.SetStatusCode(101)
			ctx.Header("X-Not", "sent")
			ctx.Hijack(func(network.Conn) { failed.Store("a hijack handler was called") })
		})
		h.GET("/nethttp", adaptor.HertzHandler(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			c, rw, err := w.(http.Hijacker).Hijack()
			if err != nil {
				failed.Store(err.Error())
				return
			}
			defer c.Close()
			_, _ = rw.WriteString("HTTP/1.1 101 Switching Protocols\r\n\r\n")
			if rw.Flush() == nil {
				failed.Store("Flush has not failed")
			}
		})))
		h.GET("/upgrade", func(_ context.Context, ctx *app.RequestContext) { ctx.SetStatusCode(101) })
	})
	rt := newH3(t)
	for _, path := range []string{"/hertz", "/nethttp", "/upgrade"} {
		a := must(t, rt, "GET", s.url(path), "")
		if a.status != 501 || a.header.Get("X-Not") != "" || a.header.Get("Server") != "hertz" {
			t.Errorf("%s: %v, want 501", path, a)
		}
	}
	if v := failed.Load(); v != nil {
		t.Error(v)
	}
}

// RFC 9220's CONNECT would need the stream, too.
func TestExtendedConnect(t *testing.T) {
	s := serve(t, handle(hello))
	r, _ := http.NewRequestWithContext(testContext(t), "CONNECT", s.url("/"), nil)
	r.Proto = "websocket"
	rsp, err := newH3(t).RoundTrip(r)
	if err != nil {
		t.Fatal(err)
	}
	rsp.Body.Close()
	if rsp.StatusCode != 501 {
		t.Errorf("status %d, want 501", rsp.StatusCode)
	}
}

// An answer that is not whole must not look as if it were.
func TestBrokenAnswers(t *testing.T) {
	s := serve(t, func(h *server.Hertz) {
		h.GET("/short", func(_ context.Context, ctx *app.RequestContext) {
			ctx.SetBodyStream(strings.NewReader("short"), 10)
		})
		h.GET("/error", func(_ context.Context, ctx *app.RequestContext) {
			ctx.SetBodyStream(io.MultiReader(strings.NewReader("begin"), readerFunc(func([]byte) (int, error) {
				return 0, errors.New("on purpose")
			})), -1)
		})
		h.GET("/written", func(_ context.Context, ctx *app.RequestContext) {
			_, _ = ctx.GetWriter().WriteBinary([]byte("HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nshort"))
			ctx.Response.HijackWriter(done{})
		})
		h.GET("/nonsense", func(_ context.Context, ctx *app.RequestContext) {
			_, _ = ctx.GetWriter().WriteBinary([]byte("hello\r\n"))
			ctx.Response.HijackWriter(done{})
		})
	})
	rt := newH3(t)
	for _, path := range []string{"/short", "/error", "/written", "/nonsense"} {
		if a, err := do(t, rt, "GET", s.url(path), ""); err == nil {
			t.Errorf("%s: a whole answer: %v", path, a)
		} else if !h3error(err, http3.ErrCodeInternalError) {
			t.Errorf("%s: %v, want H3_INTERNAL_ERROR", path, err)
		}
	}
}

// done is a hijack writer that has nothing to do.
type done struct{}

func (done) Write(p []byte) (int, error) { return len(p), nil }
func (done) Flush() error                { return nil }
func (done) Finalize() error             { return nil }

func TestStatusOutOfRange(t *testing.T) {
	s := serve(t, handle(func(_ context.Context, ctx *app.RequestContext) { ctx.SetStatusCode(1234) }))
	if a := must(t, newH3(t), "GET", s.url("/"), ""); a.status != 500 {
		t.Errorf("status %d, want 500", a.status)
	}
}

// Interim answers that a handler writes by itself come before its own.
func TestEarlyHints(t *testing.T) {
	s := serve(t, handle(func(_ context.Context, ctx *app.RequestContext) {
		w := ctx.GetWriter()
		_, _ = w.WriteBinary([]byte("HTTP/1.1 103 Early Hints\r\nLink: </x.css>; rel=preload\r\n\r\n"))
		_ = w.Flush()
		ctx.String(200, "hello")
	}))
	var interim atomic.Value
	ctx := withTrace(testContext(t), func(code int, header http.Header) { interim.Store(fmt.Sprintf("%d%v", code, header["Link"])) })
	r, _ := http.NewRequestWithContext(ctx, "GET", s.url("/"), nil)
	rsp, err := newH3(t).RoundTrip(r)
	if err != nil {
		t.Fatal(err)
	}
	defer rsp.Body.Close()
	b, _ := io.ReadAll(rsp.Body)
	if got, want := fmt.Sprint(interim.Load()), "103[</x.css>; rel=preload]"; got != want {
		t.Errorf("interim %q, want %q", got, want)
	}
	if rsp.StatusCode != 200 || string(b) != "hello" || rsp.Header.Get("Link") != "" {
		t.Errorf("got %d %v %q", rsp.StatusCode, rsp.Header, b)
	}
}

func TestContinueHandler(t *testing.T) {
	s := serve(t, func(h *server.Hertz) {
		h.ContinueHandler = func(header *protocol.RequestHeader) bool { return header.Get("X-Allowed") == "yes" }
		h.POST("/", func(_ context.Context, ctx *app.RequestContext) {
			if ctx.Response.StatusCode() == 417 {
				return
			}
			_, _ = ctx.Write(ctx.Request.Body())
		})
	})
	rt := newH3(t)
	if a := must(t, rt, "POST", s.url("/"), "body", "Expect", "100-continue"); a.status != 417 || a.body != "" {
		t.Errorf("refused: %v, want 417", a)
	}
	if a := must(t, rt, "POST", s.url("/"), "body", "Expect", "100-continue", "X-Allowed", "yes"); a.status != 200 || a.body != "body" {
		t.Errorf("allowed: %v", a)
	}
}

func TestHeaderOptions(t *testing.T) {
	empty := func(_ context.Context, ctx *app.RequestContext) { ctx.Write([]byte("x")) }
	tests := []struct {
		name                       string
		options                    []config.Option
		server, date, contentType_ bool
	}{
		{"defaults", nil, true, true, true},
		{"no server", []config.Option{{F: func(o *config.Options) { o.NoDefaultServerHeader = true }}}, false, true, true},
		{"no date", []config.Option{server.WithDisableDefaultDate(true)}, true, false, true},
		{"no content type", []config.Option{server.WithDisableDefaultContentType(true)}, true, true, false},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			s := serve(t, handle(empty), test.options...)
			a := must(t, newH3(t), "GET", s.url("/"), "")
			for name, want := range map[string]bool{"Server": test.server, "Date": test.date, "Content-Type": test.contentType_} {
				if got := a.header.Get(name) != ""; got != want {
					t.Errorf("there is a %s: %v, want %v", name, got, want)
				}
			}
			if v := a.header.Get("Date"); v != "" {
				if at, err := http.ParseTime(v); err != nil || time.Since(at).Abs() > time.Minute {
					t.Errorf("Date is %q", v)
				}
			}
		})
	}
}

func TestHeaderNamesNotNormalized(t *testing.T) {
	s := serve(t, handle(func(_ context.Context, ctx *app.RequestContext) {
		ctx.Response.Header.Set("x-lower-CASE", "1")
		ctx.String(200, "%s", ctx.Request.Header.Get("X-In"))
	}), server.WithDisableHeaderNamesNormalizing(true))
	a := must(t, newH3(t), "GET", s.url("/"), "", "X-In", "in")
	if a.body != "in" || a.header.Get("X-Lower-Case") != "1" {
		t.Errorf("got %v", a)
	}
}

// counting is a tracer.
type counting struct {
	mu              sync.Mutex
	starts, finishs int
	missing         []string
	sizes           []int
	errs            []error
}

func (c *counting) Start(ctx context.Context, _ *app.RequestContext) context.Context {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.starts++
	return context.WithValue(ctx, tracedKey{}, true)
}

type tracedKey struct{}

func (c *counting) Finish(ctx context.Context, rc *app.RequestContext) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.finishs++
	st := rc.GetTraceInfo().Stats()
	for i, e := range []stats.Event{stats.HTTPStart, stats.ReadHeaderStart, stats.ReadHeaderFinish, stats.ReadBodyStart, stats.ReadBodyFinish,
		stats.ServerHandleStart, stats.ServerHandleFinish, stats.WriteStart, stats.WriteFinish, stats.HTTPFinish} {
		if got := st.GetEvent(e); got == nil || got.IsNil() {
			c.missing = append(c.missing, fmt.Sprint("event ", i))
		}
	}
	if ctx.Value(tracedKey{}) == nil {
		c.missing = append(c.missing, "the value of Start's context")
	}
	c.sizes = append(c.sizes, st.RecvSize(), st.SendSize())
	c.errs = append(c.errs, st.Error())
}

func TestTracers(t *testing.T) {
	c := new(counting)
	s := serve(t, func(h *server.Hertz) {
		h.POST("/ok", func(c context.Context, ctx *app.RequestContext) {
			ctx.String(200, "traced %v", c.Value(tracedKey{}))
		})
		h.POST("/panic", func(context.Context, *app.RequestContext) { panic("on purpose") })
	}, server.WithTracer(c))
	rt := newH3(t)
	for range 3 {
		if a := must(t, rt, "POST", s.url("/ok"), "12345"); a.body != "traced true" {
			t.Errorf("got %q", a.body)
		}
	}
	s.stop(t)
	if c.starts != 3 || c.finishs != 3 || len(c.missing) > 0 || fmt.Sprint(c.errs) != "[<nil> <nil> <nil>]" {
		t.Errorf("%+v", c)
	}
	if got := fmt.Sprint(c.sizes); got != "[5 11 5 11 5 11]" {
		t.Errorf("sizes %s", got)
	}
}

// Finish comes after a panic, too.
func TestTracersAndPanic(t *testing.T) {
	c := new(counting)
	s := serve(t, handle(func(context.Context, *app.RequestContext) { panic("on purpose") }), server.WithTracer(c))
	_, _ = do(t, newH3(t), "GET", s.url("/"), "")
	s.stop(t)
	if c.starts != 1 || c.finishs != 1 {
		t.Errorf("%d starts, %d finishs", c.starts, c.finishs)
	}
}

// What is known of the peer.
func TestConnectionOfARequest(t *testing.T) {
	s := serve(t, handle(func(_ context.Context, ctx *app.RequestContext) {
		tlsConn := ctx.GetConn().(network.ConnTLSer)
		if err := tlsConn.Handshake(); err != nil {
			ctx.String(500, "%v", err)
			return
		}
		ctx.String(200, "%s %s %s %v %s %s", tlsConn.ConnectionState().NegotiatedProtocol, ctx.Request.Header.GetProtocol(),
			ctx.GetConn().LocalAddr(), ctx.RemoteAddr().Network(), ctx.ClientIP(), ctx.URI().FullURI())
	}))
	a := must(t, newH3(t), "GET", s.url("/p?q=1"), "")
	if want := fmt.Sprintf("h3 HTTP/3.0 %s udp 127.0.0.1 https://%s/p?q=1", s.addr, s.addr); a.body != want {
		t.Errorf("got  %s\nwant %s", a.body, want)
	}
}

// Connection: close has no place in HTTP/3: the connection takes no more requests.
func TestConnectionClose(t *testing.T) {
	s := serve(t, func(h *server.Hertz) {
		h.GET("/close", func(_ context.Context, ctx *app.RequestContext) {
			ctx.SetConnectionClose()
			ctx.String(200, "bye")
		})
		h.GET("/", hello)
	})
	rt := newH3(t)
	conn, h3 := dialRaw(t, s.addr, rt)
	a := must(t, h3, "GET", s.url("/close"), "")
	if a.body != "bye" || a.header.Get("Connection") != "" {
		t.Errorf("got %v", a)
	}
	select {
	case <-conn.Context().Done():
	case <-time.After(10 * time.Second):
		t.Fatal("the connection stays")
	}
	var app *quicgo.ApplicationError
	if err := context.Cause(conn.Context()); !errors.As(err, &app) || app.ErrorCode != quicgo.ApplicationErrorCode(http3.ErrCodeNoError) {
		t.Errorf("the connection ended with %v, want H3_NO_ERROR", err)
	}
}

// dialRaw opens a connection of which one can see the end.
func dialRaw(tb testing.TB, addr string, rt *http3.Transport) (*quicgo.Conn, http.RoundTripper) {
	tb.Helper()
	config := clientTLS()
	config.NextProtos = []string{Protocol}
	conn, err := quicgo.DialAddr(testContext(tb), addr, config, &quicgo.Config{MaxIdleTimeout: 20 * time.Second})
	if err != nil {
		tb.Fatal(err)
	}
	tb.Cleanup(func() { conn.CloseWithError(0x100, "") })
	return conn, rt.NewClientConn(conn)
}

// A body that does not come is not waited for longer than ReadTimeout.
func TestReadTimeout(t *testing.T) {
	for _, streaming := range []bool{false, true} {
		t.Run(fmt.Sprintf("StreamRequestBody=%v", streaming), func(t *testing.T) {
			s := serve(t, handle(func(_ context.Context, ctx *app.RequestContext) {
				if _, err := io.ReadAll(ctx.RequestBodyStream()); err != nil {
					ctx.String(408, "%v", err)
				}
			}), server.WithStreamBody(streaming), server.WithReadTimeout(50*time.Millisecond))
			pr, pw := io.Pipe()
			defer pw.Close()
			go func() { _, _ = io.WriteString(pw, "begin") }()
			r, _ := http.NewRequestWithContext(testContext(t), "POST", s.url("/"), pr)
			rsp, err := newH3(t).RoundTrip(r)
			if err != nil {
				t.Fatal(err)
			}
			rsp.Body.Close()
			if rsp.StatusCode != 408 {
				t.Errorf("status %d, want 408", rsp.StatusCode)
			}
		})
	}
}

// A client that does not read an answer is not waited for longer than WriteTimeout.
func TestWriteTimeout(t *testing.T) {
	ended := make(chan struct{})
	s := serve(t, handle(func(_ context.Context, ctx *app.RequestContext) {
		ctx.SetBodyStream(&hookedClose{neverEnding{}, ended}, -1)
	}), server.WithWriteTimeout(50*time.Millisecond))
	r, _ := http.NewRequestWithContext(testContext(t), "GET", s.url("/"), nil)
	rsp, err := newH3(t).RoundTrip(r)
	if err != nil {
		t.Fatal(err)
	}
	defer rsp.Body.Close()
	select {
	case <-ended:
	case <-time.After(10 * time.Second):
		t.Fatal("the server still writes")
	}
	if _, err := io.Copy(io.Discard, rsp.Body); err == nil {
		t.Error("the answer looks whole")
	}
}

type neverEnding struct{}

func (neverEnding) Read(p []byte) (int, error) { return len(p), nil }

type hookedClose struct {
	io.Reader
	closed chan struct{}
}

func (h *hookedClose) Close() error {
	close(h.closed)
	return nil
}

// A connection without requests ends after IdleTimeout, whatever else its peer sends, and
// not while a request is served.
func TestIdleTimeout(t *testing.T) {
	const idle = 300 * time.Millisecond
	s := serve(t, func(h *server.Hertz) {
		h.GET("/slow", func(_ context.Context, ctx *app.RequestContext) {
			time.Sleep(3 * idle)
			ctx.String(200, "slow")
		})
	}, server.WithIdleTimeout(idle))
	t.Run("after a request", func(t *testing.T) {
		conn, h3 := dialRaw(t, s.addr, newH3(t))
		for range 2 {
			if a := must(t, h3, "GET", s.url("/slow"), ""); a.body != "slow" {
				t.Errorf("got %v", a)
			}
		}
		awaitEnd(t, conn)
	})
	t.Run("without a request", func(t *testing.T) {
		conn, _ := dialRaw(t, s.addr, newH3(t))
		awaitEnd(t, conn)
	})
	t.Run("with half a request", func(t *testing.T) {
		config := clientTLS()
		config.NextProtos = []string{Protocol}
		conn, err := quicgo.DialAddr(testContext(t), s.addr, config, &quicgo.Config{KeepAlivePeriod: idle / 3})
		if err != nil {
			t.Fatal(err)
		}
		defer conn.CloseWithError(0, "")
		str, err := conn.OpenStream()
		if err != nil {
			t.Fatal(err)
		}
		if _, err := str.Write([]byte{1, 100, 0}); err != nil { // of a HEADERS frame
			t.Fatal(err)
		}
		awaitEnd(t, conn)
	})
}

func awaitEnd(t *testing.T, conn *quicgo.Conn) {
	t.Helper()
	select {
	case <-conn.Context().Done():
	case <-time.After(10 * time.Second):
		t.Fatal("the connection stays")
	}
}

// What a stream server cannot serve.
func TestForeignConnection(t *testing.T) {
	h := server.New(server.WithTLS(serverTLS()))
	core, err := NewServerFactory(h.Engine).New(h.Engine)
	if err != nil {
		t.Fatal(err)
	}
	if err := core.Serve(context.Background(), foreign{}); err == nil || !strings.Contains(err.Error(), "http3.foreign") && !strings.Contains(err.Error(), "quic-go") {
		t.Errorf("Serve: %v", err)
	}
	if _, err := NewServerFactory(nil).New(h.Engine); err == nil {
		t.Error("a factory without an engine makes a server")
	}
}

type foreign struct{ network.StreamConn }

func (foreign) GetRawConnection() any { return foreign{} }

var _ net.Conn = (*requestConn)(nil)
