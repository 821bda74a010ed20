package http3

import (
	"context"
	"crypto/tls"
	"io"
	"net"
	"net/http"
	"net/http/httptrace"
	"net/textproto"
	"os"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/cloudwego/hertz/pkg/app/server"
	"github.com/cloudwego/hertz/pkg/common/config"
	"github.com/cloudwego/hertz/pkg/common/hlog"
	hertz "github.com/cloudwego/hertz/pkg/network"
	quicgo "github.com/quic-go/quic-go"
	"github.com/quic-go/quic-go/http3"

	"github.com/hertznet/hertznet"
	"github.com/hertznet/hertznet/quic"
	"github.com/hertznet/hertznet/standard"
	"github.com/hertznet/hertznet/tlsconn"
)

func TestMain(m *testing.M) {
	hlog.SetOutput(&logs)
	hlog.SetLevel(hlog.LevelWarn)
	os.Setenv("QUIC_GO_DISABLE_RECEIVE_BUFFER_WARNING", "true")
	os.Exit(m.Run())
}

// logs has what is logged, Warn and above.
var logs logSink

type logSink struct {
	mu  sync.Mutex
	all strings.Builder
}

func (l *logSink) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.all.Write(p)
}

// of returns the lines that contain a text.
func (l *logSink) of(text string) (lines []string) {
	l.mu.Lock()
	defer l.mu.Unlock()
	for line := range strings.Lines(l.all.String()) {
		if strings.Contains(line, text) {
			lines = append(lines, line)
		}
	}
	return lines
}

// tlsConfigs returns a client's and a server's.
var tlsConfigs = sync.OnceValues(func() (client, server *tls.Config) {
	cert, pool, err := tlsconn.SelfSigned("localhost", "127.0.0.1")
	if err != nil {
		panic(err)
	}
	return &tls.Config{RootCAs: pool}, &tls.Config{Certificates: []tls.Certificate{cert}}
})

func serverTLS() *tls.Config {
	_, c := tlsConfigs()
	return c.Clone()
}

func clientTLS() *tls.Config {
	c, _ := tlsConfigs()
	return c.Clone()
}

// testContext ends what hangs.
func testContext(tb testing.TB) context.Context {
	ctx, cancel := context.WithTimeout(context.Background(), 30*time.Second)
	tb.Cleanup(cancel)
	return ctx
}

// site is a server that runs.
type site struct {
	*server.Hertz
	addr string
	done chan struct{} // closed when Run has returned
	err  error         // its error
}

func (s *site) url(path string) string { return "https://" + s.addr + path }

// stop shuts the server down and waits for the end of Run.
func (s *site) stop(tb testing.TB) {
	tb.Helper()
	if err := s.Shutdown(context.Background()); err != nil {
		tb.Errorf("Shutdown: %v", err)
	}
	select {
	case <-s.done:
	case <-time.After(10 * time.Second):
		tb.Error("Run goes on after Shutdown")
	}
	if s.err != nil {
		tb.Errorf("Run: %v", s.err)
	}
}

// run runs a server on a free port. newer makes its transporter, which has a Listener.
func run(tb testing.TB, app func(*server.Hertz), newer func(*config.Options) hertz.Transporter, options ...config.Option) *site {
	tb.Helper()
	var transport hertz.Transporter
	options = append([]config.Option{
		server.WithHostPorts("127.0.0.1:0"),
		server.WithDisablePrintRoute(true),
		server.WithTransport(func(o *config.Options) hertz.Transporter {
			transport = newer(o)
			return transport
		}),
	}, options...)
	s := &site{Hertz: server.New(options...), done: make(chan struct{})}
	s.AddProtocol(Protocol, NewServerFactory(s.Engine))
	app(s.Hertz)
	go func() {
		defer close(s.done)
		s.err = s.Run()
	}()
	tb.Cleanup(func() { s.Close() })
	l := transport.(interface{ Listener() net.Listener })
	for deadline := time.Now().Add(10 * time.Second); l.Listener() == nil; time.Sleep(time.Millisecond) {
		select {
		case <-s.done:
			tb.Fatalf("Run: %v", s.err)
		default:
		}
		if time.Now().After(deadline) {
			tb.Fatal("the server does not listen")
		}
	}
	s.addr = l.Listener().Addr().String()
	return s
}

// serve runs a server on HTTPS and HTTP/3.
func serve(tb testing.TB, app func(*server.Hertz), options ...config.Option) *site {
	tb.Helper()
	return run(tb, app, NewTransporter, append([]config.Option{server.WithTLS(serverTLS())}, options...)...)
}

// serveWith has settings of quic's.
func serveWith(tb testing.TB, app func(*server.Hertz), set func(*quic.Transporter, *standard.Transporter), options ...config.Option) *site {
	tb.Helper()
	return run(tb, app, Transport(set), append([]config.Option{server.WithTLS(serverTLS())}, options...)...)
}

// servePlain runs one on HTTP/1.1 without TLS.
func servePlain(tb testing.TB, app func(*server.Hertz), options ...config.Option) *site {
	tb.Helper()
	return run(tb, app, hertznet.NewTransporter, options...)
}

// newH3 returns quic-go's client.
func newH3(tb testing.TB) *http3.Transport {
	t := &http3.Transport{
		TLSClientConfig:    clientTLS(),
		QUICConfig:         &quicgo.Config{MaxIdleTimeout: 20 * time.Second},
		DisableCompression: true,
	}
	tb.Cleanup(func() { t.Close() })
	return t
}

// newH1 returns net/http's client.
func newH1(tb testing.TB) *http.Transport {
	t := &http.Transport{TLSClientConfig: clientTLS(), DisableCompression: true}
	tb.Cleanup(t.CloseIdleConnections)
	return t
}

// answer is what a client has got.
type answer struct {
	status  int
	proto   string
	header  http.Header
	trailer http.Header
	body    string
	length  int64
}

// do makes a request; alternating names and values are the header.
func do(tb testing.TB, rt http.RoundTripper, method, url, body string, header ...string) (*answer, error) {
	tb.Helper()
	var r io.Reader
	if body != "" {
		r = strings.NewReader(body)
	}
	req, err := http.NewRequestWithContext(testContext(tb), method, url, r)
	if err != nil {
		tb.Fatal(err)
	}
	for i := 0; i < len(header); i += 2 {
		req.Header.Add(header[i], header[i+1])
	}
	rsp, err := rt.RoundTrip(req)
	if err != nil {
		return nil, err
	}
	defer rsp.Body.Close()
	b, err := io.ReadAll(rsp.Body)
	return &answer{rsp.StatusCode, rsp.Proto, rsp.Header, rsp.Trailer, string(b), rsp.ContentLength}, err
}

func must(tb testing.TB, rt http.RoundTripper, method, url, body string, header ...string) *answer {
	tb.Helper()
	a, err := do(tb, rt, method, url, body, header...)
	if err != nil {
		tb.Fatalf("%s %s: %v", method, url, err)
	}
	return a
}

// withTrace has f called with interim answers.
func withTrace(ctx context.Context, f func(code int, header http.Header)) context.Context {
	return httptrace.WithClientTrace(ctx, &httptrace.ClientTrace{
		Got1xxResponse: func(code int, header textproto.MIMEHeader) error {
			f(code, http.Header(header))
			return nil
		},
	})
}
