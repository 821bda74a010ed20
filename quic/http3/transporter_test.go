package http3

import (
	"bufio"
	"bytes"
	"context"
	"crypto/tls"
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
	"github.com/cloudwego/hertz/pkg/app/server"
	"github.com/cloudwego/hertz/pkg/common/config"
	hertz "github.com/cloudwego/hertz/pkg/network"
	"github.com/cloudwego/hertz/pkg/protocol/sse"
	quicgo "github.com/quic-go/quic-go"
	"github.com/quic-go/quic-go/http3"

	"github.com/hertznet/hertznet/network"
	"github.com/hertznet/hertznet/quic"
	"github.com/hertznet/hertznet/standard"
)

// HTTPS says where HTTP/3 is, with the port that came out of ":0"; HTTP/3 itself, and
// plain HTTP, do not.
func TestAltSvc(t *testing.T) {
	app := func(h *server.Hertz) {
		h.Use(AltSvc(time.Hour + time.Millisecond))
		h.GET("/", hello)
	}
	s := serve(t, app)
	_, port, _ := net.SplitHostPort(s.addr)
	want := fmt.Sprintf(`h3=":%s"; ma=3600`, port)
	if got := must(t, newH1(t), "GET", s.url("/"), "").header.Get("Alt-Svc"); got != want {
		t.Errorf("HTTPS: Alt-Svc is %q, want %q", got, want)
	}
	if got := must(t, newH3(t), "GET", s.url("/"), "").header.Values("Alt-Svc"); len(got) > 0 {
		t.Errorf("HTTP/3: Alt-Svc is %q", got)
	}
	plain := servePlain(t, app)
	if got := must(t, newH1(t), "GET", "http://"+plain.addr+"/", "").header.Values("Alt-Svc"); len(got) > 0 {
		t.Errorf("HTTP: Alt-Svc is %q", got)
	}
}

func TestAltSvcDefault(t *testing.T) {
	s := serve(t, func(h *server.Hertz) { h.Use(AltSvc(0)); h.GET("/", hello) })
	if got := must(t, newH1(t), "GET", s.url("/"), "").header.Get("Alt-Svc"); !strings.HasSuffix(got, "; ma=86400") {
		t.Errorf("Alt-Svc is %q", got)
	}
}

// The client that follows Alt-Svc finds the same server: TCP and UDP have one port, also
// on a listener that was given.
func TestGivenListener(t *testing.T) {
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	s := serve(t, handle(hello), server.WithListener(ln))
	if s.addr != ln.Addr().String() {
		t.Errorf("it listens on %s, not on %s", s.addr, ln.Addr())
	}
	for _, rt := range []http.RoundTripper{newH1(t), newH3(t)} {
		if a := must(t, rt, "GET", s.url("/"), ""); a.body != "hello" {
			t.Errorf("got %v", a)
		}
	}
	s.stop(t)
}

func TestListenErrors(t *testing.T) {
	busy, err := net.ListenPacket("udp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer busy.Close()
	busyTCP, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer busyTCP.Close()
	tests := []struct {
		name    string
		options []config.Option
		want    string
	}{
		{"no TLS", nil, "server.WithTLS"},
		{"unix", []config.Option{server.WithTLS(serverTLS()), server.WithNetwork("unix"), server.WithHostPorts("/tmp/x:1")}, `"unix"`},
		{"no address", []config.Option{server.WithTLS(serverTLS()), server.WithHostPorts("nonsense")}, "nonsense"},
		{"UDP port in use", []config.Option{server.WithTLS(serverTLS()), server.WithHostPorts(busy.LocalAddr().String())}, "in use"},
		{"TCP port in use", []config.Option{server.WithTLS(serverTLS()), server.WithHostPorts(busyTCP.Addr().String())}, "in use"},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			h := server.New(append(test.options, server.WithTransport(NewTransporter))...)
			err := h.Run()
			if err == nil || !strings.Contains(err.Error(), test.want) && test.want != "in use" {
				t.Errorf("Run: %v, want an error with %q", err, test.want)
			}
		})
	}
	// Nothing was left bound.
	pc, err := net.ListenPacket("udp", busyTCP.Addr().String())
	if err != nil {
		t.Fatalf("the UDP socket beside the TCP port in use: %v", err)
	}
	pc.Close()
}

// ClientHellos for both protocols are answered from one config, to which Hertz adds its
// own.
func TestALPN(t *testing.T) {
	s := serve(t, handle(hello), server.WithALPN(true))
	conn, err := tls.Dial("tcp", s.addr, &tls.Config{RootCAs: clientTLS().RootCAs, NextProtos: []string{"h3", "http/1.1"}})
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	if got := conn.ConnectionState().NegotiatedProtocol; got != "http/1.1" {
		t.Errorf("over TCP the protocol is %q", got)
	}
	if a := must(t, newH3(t), "GET", s.url("/"), ""); a.body != "hello" {
		t.Errorf("HTTP/3: %v", a)
	}
}

// Without the protocol a connection is closed, and what Hertz's engine returns is no
// reason to stop.
func TestProtocolNotAdded(t *testing.T) {
	var transport hertz.Transporter
	h := server.New(server.WithTLS(serverTLS()), server.WithHostPorts("127.0.0.1:0"), server.WithTransport(func(o *config.Options) hertz.Transporter {
		transport = NewTransporter(o)
		return transport
	}))
	h.GET("/", hello)
	go h.Run()
	defer h.Close()
	l := transport.(interface{ Listener() net.Listener })
	for l.Listener() == nil {
		time.Sleep(time.Millisecond)
	}
	url := "https://" + l.Listener().Addr().String() + "/"
	if a, err := do(t, newH3(t), "GET", url, ""); !h3error(err, http3.ErrCodeInternalError) {
		t.Errorf("HTTP/3: %v, %v; want H3_INTERNAL_ERROR", a, err)
	}
	if a := must(t, newH1(t), "GET", url, ""); a.body != "hello" {
		t.Errorf("HTTPS: %v", a)
	}
}

type hookKey struct{}

// The transporters' own settings, and the context of OnConnect.
func TestSettings(t *testing.T) {
	s := serveWith(t, handle(func(c context.Context, ctx *app.RequestContext) {
		ctx.String(200, "%v", c.Value(hookKey{}))
	}), func(q *quic.Transporter, tcp *standard.Transporter) {
		q.MaxConns = 1
		q.OnConnect = func(ctx context.Context, c network.StreamConn) context.Context {
			return context.WithValue(ctx, hookKey{}, "from OnConnect")
		}
		tcp.OnConnect = func(ctx context.Context, _ network.Conn) context.Context {
			return context.WithValue(ctx, hookKey{}, "from TCP")
		}
	})
	rt := newH3(t)
	if a := must(t, rt, "GET", s.url("/"), ""); a.body != "from OnConnect" {
		t.Errorf("HTTP/3: %q", a.body)
	}
	if a := must(t, newH1(t), "GET", s.url("/"), ""); a.body != "from TCP" {
		t.Errorf("HTTPS: %q", a.body)
	}
	if a, err := do(t, newH3(t), "GET", s.url("/"), ""); err == nil {
		t.Errorf("a connection beyond MaxConns: %v", a)
	}
}

// Shutdown waits for what is served on both protocols.
func TestShutdownWaits(t *testing.T) {
	begun, release := make(chan struct{}, 2), make(chan struct{})
	s := serve(t, handle(func(_ context.Context, ctx *app.RequestContext) {
		begun <- struct{}{}
		<-release
		ctx.SetBodyStream(strings.NewReader(strings.Repeat("x", 300000)), -1)
	}))
	answers := make(chan error, 2)
	for _, rt := range []http.RoundTripper{newH1(t), newH3(t)} {
		go func() {
			a, err := do(t, rt, "GET", s.url("/"), "")
			if err == nil && len(a.body) != 300000 {
				err = fmt.Errorf("%d bytes of 300000", len(a.body))
			}
			answers <- err
		}()
		<-begun
	}
	down := make(chan struct{})
	go func() {
		defer close(down)
		s.stop(t)
	}()
	select {
	case <-down:
		t.Error("Shutdown has not waited")
	case <-time.After(time.Second): // an idle connection is closed before
	}
	close(release)
	for range 2 {
		if err := <-answers; err != nil {
			t.Error(err)
		}
	}
	<-down
}

// A request that has begun to come before Shutdown is served, too.
func TestShutdownHalfRequest(t *testing.T) {
	s := serve(t, handle(func(_ context.Context, ctx *app.RequestContext) {
		if ctx.Query("slow") != "" {
			time.Sleep(time.Second) // an idle connection is closed before
		}
		ctx.String(200, "hello")
	}))
	// quic-go's client would close a connection on which it knows of no request.
	config := clientTLS()
	config.NextProtos = []string{Protocol}
	conn, err := quicgo.DialAddr(testContext(t), s.addr, config, nil)
	if err != nil {
		t.Fatal(err)
	}
	defer conn.CloseWithError(0x100, "")
	// A HEADERS frame (RFC 9114, section 7.2.2): GET, https, localhost, /?slow=1.
	frame := append([]byte{1, 0, 0, 0, 0xd1, 0xd7, 0x50, 9}, "localhost\x51\x08/?slow=1"...)
	frame[1] = byte(len(frame) - 2)
	str, err := conn.OpenStream()
	if err != nil {
		t.Fatal(err)
	}
	if _, err := str.Write(frame[:5]); err != nil {
		t.Fatal(err)
	}
	// Streams are accepted in their order.
	second, err := conn.OpenStream()
	if err != nil {
		t.Fatal(err)
	}
	if _, err := second.Write(bytes.Replace(frame, []byte("slow"), []byte("fast"), 1)); err != nil {
		t.Fatal(err)
	}
	second.Close()
	if b, err := io.ReadAll(second); err != nil || !bytes.HasSuffix(b, []byte("hello")) {
		t.Fatalf("the first answer: %q, %v", b, err)
	}
	down := make(chan struct{})
	go func() {
		defer close(down)
		s.stop(t)
	}()
	for s.IsRunning() {
		time.Sleep(time.Millisecond)
	}
	if _, err := str.Write(frame[5:]); err != nil {
		t.Fatal(err)
	}
	str.Close()
	if b, err := io.ReadAll(str); err != nil || !strings.HasSuffix(string(b), "hello") {
		t.Errorf("the answer: %q, %v", b, err)
	}
	<-down
}

// Shutdown ends when its time is over.
func TestShutdownInTime(t *testing.T) {
	begun := make(chan struct{}, 1)
	ended := make(chan struct{})
	s := serve(t, handle(func(c context.Context, ctx *app.RequestContext) {
		defer close(ended)
		begun <- struct{}{}
		<-c.Done()
	}), server.WithExitWaitTime(300*time.Millisecond))
	go func() { _, _ = do(t, newH3(t), "GET", s.url("/"), "") }()
	<-begun
	begin := time.Now()
	s.stop(t)
	if took := time.Since(begin); took < 300*time.Millisecond || took > 5*time.Second {
		t.Errorf("it took %v", took)
	}
	select {
	case <-ended:
	case <-time.After(5 * time.Second):
		t.Error("the handler's context goes on")
	}
}

// Idle connections do not make it wait, whether their peer reacts to GOAWAY or not.
func TestShutdownIdle(t *testing.T) {
	s := serve(t, handle(hello))
	rt := newH3(t)
	must(t, rt, "GET", s.url("/"), "")
	config := clientTLS()
	config.NextProtos = []string{Protocol}
	deaf, err := quicgo.DialAddr(testContext(t), s.addr, config, nil)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := deaf.AcceptUniStream(testContext(t)); err != nil { // the server serves it
		t.Fatal(err)
	}
	begin := time.Now()
	s.stop(t)
	if took := time.Since(begin); took > 4*time.Second { // of the 5 that it may take
		t.Errorf("it took %v", took)
	}
	var e *quicgo.ApplicationError
	awaitEnd(t, deaf)
	if err := context.Cause(deaf.Context()); !errors.As(err, &e) || e.ErrorCode != quicgo.ApplicationErrorCode(http3.ErrCodeNoError) {
		t.Errorf("an idle connection ended with %v, want H3_NO_ERROR", err)
	}
}

// Under load, a request that a handler has begun gets its whole answer, and any other an
// error by which the client knows that it may send it elsewhere.
func TestShutdownUnderLoad(t *testing.T) {
	const clients, workers = 4, 4
	body := strings.Repeat("0123456789", 5000)
	for round := range 3 {
		var accepted, answered, lost atomic.Int64
		s := serve(t, handle(func(_ context.Context, ctx *app.RequestContext) {
			accepted.Add(1)
			if len(ctx.Query("events")) > 0 {
				w := sse.NewWriter(ctx)
				for range 5 {
					_ = w.WriteEvent("", "", []byte(body[:100]))
				}
				_ = w.Close()
				return
			}
			ctx.String(200, body)
		}))
		stop := make(chan struct{})
		var wg sync.WaitGroup
		for range clients {
			rt := newH3(t)
			rt.QUICConfig.HandshakeIdleTimeout = time.Second // with nobody there
			for worker := range workers {
				wg.Go(func() {
					path, length := "/", len(body)
					if worker == 0 {
						path, length = "/?events=1", 5*(len("data: \n\n")+100)
					}
					for {
						select {
						case <-stop:
							return
						default:
						}
						a, err := do(t, rt, "GET", s.url(path), "")
						switch {
						case err == nil && a.status == 200 && len(a.body) == length:
							answered.Add(1)
						case err == nil:
							t.Errorf("an answer of %d bytes: %v", len(a.body), a)
						case a != nil:
							lost.Add(1)
							t.Errorf("after %d bytes of an answer: %v", len(a.body), err)
						default:
							return // refused, or nobody listens
						}
					}
				})
			}
		}
		for deadline := time.Now().Add(10 * time.Second); answered.Load() < 100; time.Sleep(time.Millisecond) {
			if time.Now().After(deadline) {
				t.Fatal("the load gets no answers")
			}
		}
		begin := time.Now()
		s.stop(t)
		if took := time.Since(begin); took > 4*time.Second { // of the 5 that it may take
			t.Errorf("round %d: Shutdown took %v", round, took)
		}
		close(stop)
		wg.Wait()
		if accepted.Load() != answered.Load() {
			t.Errorf("round %d: %d requests were accepted, and %d answered", round, accepted.Load(), answered.Load())
		}
	}
}

// Close ends what runs at once.
func TestClose(t *testing.T) {
	begun := make(chan struct{}, 1)
	s := serve(t, handle(func(c context.Context, ctx *app.RequestContext) {
		begun <- struct{}{}
		<-c.Done()
	}))
	failed := make(chan error, 1)
	go func() {
		_, err := do(t, newH3(t), "GET", s.url("/"), "")
		failed <- err
	}()
	<-begun
	s.Close()
	select {
	case err := <-failed:
		if err == nil {
			t.Error("there is an answer")
		}
	case <-time.After(10 * time.Second):
		t.Error("the request goes on")
	}
	select {
	case <-s.done:
	case <-time.After(10 * time.Second):
		t.Error("Run goes on")
	}
}

// Before it serves: then it does not even bind.
func TestShutdownFirst(t *testing.T) {
	busy, err := net.ListenPacket("udp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer busy.Close()
	tr := NewTransporter(config.NewOptions([]config.Option{server.WithTLS(serverTLS()), server.WithHostPorts(busy.LocalAddr().String())}))
	if err := tr.Shutdown(testContext(t)); err != nil {
		t.Errorf("Shutdown: %v", err)
	}
	if err := tr.ListenAndServe(func(context.Context, any) error { return nil }); err != nil {
		t.Errorf("ListenAndServe: %v", err)
	}
	if l := tr.(interface{ Listener() net.Listener }).Listener(); l != nil {
		t.Errorf("it has listened on %v", l.Addr())
	}
}

// The connection that Hertz gets is one of its interface in every method: a protocol that
// is not HTTP/3 can use it.
func TestStreamConnection(t *testing.T) {
	ctx := testContext(t)
	result := make(chan error, 1)
	tr := Transport()(config.NewOptions([]config.Option{server.WithTLS(serverTLS()), server.WithHostPorts("127.0.0.1:0")}))
	go tr.ListenAndServe(func(ctx context.Context, c any) error {
		conn, ok := c.(hertz.StreamConn)
		if !ok {
			return nil // TCP
		}
		err := func() error {
			in, err := conn.AcceptStream(ctx)
			if err != nil {
				return err
			}
			line, err := bufio.NewReader(in).ReadString('\n')
			if err != nil {
				return err
			}
			if _, err := io.WriteString(in, line); err != nil {
				return err
			}
			in.CancelRead(appError(1))
			if err := in.Close(); err != nil {
				return err
			}
			uni, err := conn.AcceptUniStream(ctx)
			if err != nil {
				return err
			}
			uni.CancelRead(appError(2))
			out, err := conn.OpenUniStreamSync(ctx)
			if err != nil {
				return err
			}
			_, _ = io.WriteString(out, "x")
			out.CancelWrite(appError(3))
			both, err := conn.OpenStreamSync(ctx)
			if err != nil {
				return err
			}
			both.CancelWrite(appError(4))
			if _, err := conn.OpenStream(); err != nil {
				return err
			}
			if _, err := conn.OpenUniStream(); err != nil {
				return err
			}
			return conn.CloseWithError(appError(5), "bye")
		}()
		result <- err
		return err
	})
	defer tr.Close()
	l := tr.(interface{ Listener() net.Listener })
	for l.Listener() == nil {
		time.Sleep(time.Millisecond)
	}
	tlsConfig := clientTLS()
	tlsConfig.NextProtos = []string{Protocol}
	conn, err := quic.Dial(ctx, l.Listener().Addr().String(), tlsConfig, nil)
	if err != nil {
		t.Fatal(err)
	}
	s, err := conn.OpenStreamSync(ctx)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := io.WriteString(s, "line\n"); err != nil {
		t.Fatal(err)
	}
	if b, err := io.ReadAll(s); string(b) != "line\n" || err != nil {
		t.Errorf("got %q, %v", b, err)
	}
	u, err := conn.OpenUniStreamSync(ctx)
	if err != nil {
		t.Fatal(err)
	}
	_, _ = io.WriteString(u, "x")
	if err := <-result; err != nil {
		t.Error(err)
	}
	<-conn.Context().Done()
	var app network.ApplicationError
	if err := context.Cause(conn.Context()); !errors.As(err, &app) || app.ErrCode() != 5 {
		t.Errorf("the connection ended with %v", err)
	}
}

type appError uint64

func (e appError) ErrCode() uint64 { return uint64(e) }
func (e appError) String() string  { return "" }
