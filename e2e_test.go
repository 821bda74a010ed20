package hertznet_test

import (
	"bufio"
	"bytes"
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"flag"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/cloudwego/hertz/pkg/app"
	"github.com/cloudwego/hertz/pkg/app/client"
	"github.com/cloudwego/hertz/pkg/app/server"
	"github.com/cloudwego/hertz/pkg/common/config"
	"github.com/cloudwego/hertz/pkg/common/hlog"
	"github.com/cloudwego/hertz/pkg/network"
	"github.com/cloudwego/hertz/pkg/protocol"
	"github.com/hertznet/hertznet"
	"github.com/hertznet/hertznet/standard"
	"github.com/hertznet/hertznet/tlsconn"
)

// guard ends what would otherwise hang. No test waits for it.
const guard = 30 * time.Second

func TestMain(m *testing.M) {
	hlog.SetOutput(&logs)
	hlog.SetLevel(hlog.LevelDebug)
	// Most tests here wait for timeouts and other ends of connections: unless the
	// caller has a wish, more may run at once than there are processors.
	flag.Parse()
	chosen := false
	flag.Visit(func(f *flag.Flag) { chosen = chosen || f.Name == "test.parallel" })
	if !chosen {
		if err := flag.Set("test.parallel", "8"); err != nil {
			panic(err)
		}
	}
	code := m.Run()
	// Hertz says so itself when a transport has handed it memory that changes.
	for _, line := range logs.since(0) {
		if strings.Contains(line, "Race detected") || strings.Contains(line, "BUG") {
			fmt.Fprintln(os.Stderr, "logged:", line)
			code = 1
		}
	}
	os.Exit(code)
}

// logs is where Hertz logs to.
var logs logSink

type logSink struct {
	mu    sync.Mutex
	lines []string
}

func (s *logSink) Write(p []byte) (int, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.lines = append(s.lines, string(p))
	return len(p), nil
}

func (s *logSink) len() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return len(s.lines)
}

// since returns what was logged after the first n lines.
func (s *logSink) since(n int) []string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.lines[n:len(s.lines):len(s.lines)]
}

// mode is a way to reach a server.
type mode struct {
	name                    string
	unix, tls, alpn, mutual bool
	bare                    bool // the server's conns hide that they are sockets
}

var (
	tcpMode  = mode{name: "tcp"}
	unixMode = mode{name: "unix", unix: true}
	tlsMode  = mode{name: "tls", tls: true}
	alpnMode = mode{name: "tls, h1 by ALPN", tls: true, alpn: true}
	mtlsMode = mode{name: "mutual tls", tls: true, alpn: true, mutual: true}

	// senseModes have both ways to see a client go away: by the socket, and by a read.
	senseModes = append(slices.Clone(allModes), mode{name: "a bare net.Conn", bare: true}, mode{name: "tls over a bare net.Conn", tls: true, bare: true})

	allModes = []mode{tcpMode, unixMode, tlsMode, alpnMode, mtlsMode, {name: "tls over unix", unix: true, tls: true}}
)

// eachMode runs f once for each of the modes, all at the same time.
func eachMode(t *testing.T, modes []mode, f func(t *testing.T, m mode)) {
	t.Parallel()
	for _, m := range modes {
		t.Run(m.name, func(t *testing.T) {
			t.Parallel()
			f(t, m)
		})
	}
}

// certs are made once for all tests.
var certs = sync.OnceValue(func() (c struct {
	ca             *tlsconn.DevCA
	pool           *x509.CertPool
	server, client tls.Certificate
}) {
	var err error
	must := func() {
		if err != nil {
			panic(err)
		}
	}
	c.ca, err = tlsconn.NewDevCA()
	must()
	c.pool = c.ca.Pool()
	c.server, err = c.ca.Server()
	must()
	c.client, err = c.ca.Client("tester")
	must()
	return c
})

// serverTLS returns a config of its own: Hertz appends to NextProtos.
func (m mode) serverTLS() *tls.Config {
	c := &tls.Config{Certificates: []tls.Certificate{certs().server}}
	if m.mutual {
		c = tlsconn.MutualTLS(c, certs().pool)
	}
	return c
}

func (m mode) clientTLS() *tls.Config {
	c := &tls.Config{RootCAs: certs().pool, ServerName: "localhost"}
	if m.alpn {
		c.NextProtos = []string{"http/1.1"}
	}
	if m.mutual {
		c.Certificates = []tls.Certificate{certs().client}
	}
	return c
}

// socketPath is short: a unix socket's path has about 100 bytes.
func socketPath(t testing.TB) string {
	t.Helper()
	dir, err := os.MkdirTemp("", "hn")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	return filepath.Join(dir, "s")
}

// site is a Hertz server on hertznet that runs.
type site struct {
	*server.Hertz
	mode
	transport *standard.Transporter
	addr      net.Addr
	url       string // without a path
	ended     chan error
}

// run starts a server and stops it at the end of the test. Its handshakes have
// time, however short the test makes the read timeout.
func run(t testing.TB, m mode, routes func(h *server.Hertz), opts ...config.Option) *site {
	t.Helper()
	return runWith(t, m, func(t *standard.Transporter) { t.HandshakeTimeout = guard }, routes, opts...)
}

// bareListener accepts conns that have no methods but those of net.Conn.
type bareListener struct{ net.Listener }

func (l bareListener) Accept() (net.Conn, error) {
	c, err := l.Listener.Accept()
	if err != nil {
		return nil, err
	}
	return struct{ net.Conn }{c}, nil
}

func runWith(t testing.TB, m mode, configure func(*standard.Transporter), routes func(h *server.Hertz), opts ...config.Option) *site {
	t.Helper()
	s := &site{mode: m, ended: make(chan error, 1)}
	all := []config.Option{
		server.WithTransport(hertznet.Transport(func(t *standard.Transporter) { s.transport = t }, configure)),
		server.WithExitWaitTime(5 * time.Second),
		server.WithHostPorts("127.0.0.1:0"),
		server.WithDisablePrintRoute(true),
	}
	if m.unix {
		all = append(all, server.WithNetwork("unix"), server.WithHostPorts(socketPath(t)))
	}
	if m.tls {
		all = append(all, server.WithTLS(m.serverTLS()), server.WithALPN(m.alpn))
	}
	if m.bare {
		ln, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			t.Fatal(err)
		}
		all = append(all, server.WithListener(bareListener{ln}))
	}
	s.Hertz = server.New(append(all, opts...)...)
	if s.transport == nil {
		t.Fatal("the transport was not made by hertznet.Transport")
	}
	routes(s.Hertz)
	go func() { s.ended <- s.Run() }()
	t.Cleanup(func() {
		ctx, cancel := context.WithTimeout(context.Background(), time.Second)
		defer cancel()
		_ = s.Shutdown(ctx) // the test may have done it already
		_ = s.Close()
		select {
		case err := <-s.ended:
			if err != nil {
				t.Errorf("the server ended with: %v", err)
			}
		case <-time.After(guard):
			t.Error("the server does not end")
		}
	})
	eventually(t, "the server listens", func() bool {
		select {
		case err := <-s.ended:
			s.ended <- err
			t.Fatalf("the server ended with: %v", err)
		default:
		}
		return s.transport.Listener() != nil
	})
	s.addr = s.transport.Listener().Addr()
	s.url = m.url(s.addr)
	return s
}

// shutdown begins a Shutdown and returns when the server accepts no more.
func (s *site) shutdown(t testing.TB) (ended <-chan error) {
	t.Helper()
	ch := make(chan error, 1)
	go func() { ch <- s.Shutdown(context.Background()) }()
	eventually(t, "no more connections are accepted", func() bool {
		c, err := net.Dial(s.addr.Network(), s.addr.String())
		if err == nil {
			c.Close()
		}
		return err != nil
	})
	return ch
}

func (m mode) url(addr net.Addr) string {
	scheme := "http://"
	if m.tls {
		scheme = "https://"
	}
	if m.unix {
		return scheme + "localhost"
	}
	return scheme + addr.String()
}

// gate keeps each connection from being read until it is opened for it, so that
// what the client sends first is there before a timeout begins.
func gate() (hook config.Option, open func()) {
	ch := make(chan struct{}, 100)
	return server.WithOnConnect(func(ctx context.Context, _ network.Conn) context.Context {
		select {
		case <-ch:
		case <-time.After(guard):
		}
		return ctx
	}), func() { ch <- struct{}{} }
}

// dial connects without TLS.
func (s *site) dial(t testing.TB) net.Conn {
	t.Helper()
	c, err := net.Dial(s.addr.Network(), s.addr.String())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	_ = c.SetDeadline(time.Now().Add(guard))
	return c
}

// raw connects as the mode says, without any code of this module.
func (s *site) raw(t testing.TB) *rawConn {
	t.Helper()
	c := s.dial(t)
	if s.tls {
		tc := tls.Client(c, s.clientTLS())
		if err := tc.Handshake(); err != nil {
			t.Fatal(err)
		}
		c = tc
	}
	return &rawConn{Conn: c, r: bufio.NewReader(c), t: t}
}

// rawConn is a client of which a test sees every byte.
type rawConn struct {
	net.Conn
	r *bufio.Reader
	t testing.TB
}

func (c *rawConn) Read(p []byte) (int, error) { return c.r.Read(p) }

func (c *rawConn) send(s string) {
	c.t.Helper()
	if _, err := io.WriteString(c.Conn, s); err != nil {
		c.t.Fatal(err)
	}
}

// answer reads one answer with the parser of net/http.
func (c *rawConn) answer(method string) (*http.Response, string) {
	c.t.Helper()
	resp, err := http.ReadResponse(c.r, &http.Request{Method: method})
	if err != nil {
		c.t.Fatalf("reading an answer: %v", err)
	}
	body, err := io.ReadAll(resp.Body)
	if err != nil {
		c.t.Fatalf("reading an answer's body: %v", err)
	}
	return resp, string(body)
}

func (c *rawConn) expect(want string) {
	c.t.Helper()
	got := make([]byte, len(want))
	n, err := io.ReadFull(c.r, got)
	if string(got[:n]) != want {
		c.t.Fatalf("read %q, %v, want %q", got[:n], err, want)
	}
}

// get sends a GET and returns the answer's body.
func (c *rawConn) get(path string) string {
	c.t.Helper()
	c.send("GET " + path + " HTTP/1.1\r\nHost: test\r\n\r\n")
	resp, body := c.answer("GET")
	if resp.StatusCode != 200 {
		c.t.Fatalf("GET %s: status %d", path, resp.StatusCode)
	}
	return body
}

// atEnd fails unless the server closes the connection, and returns what it sent
// before.
func (c *rawConn) atEnd() string {
	c.t.Helper()
	rest, err := io.ReadAll(c.r)
	if errors.Is(err, os.ErrDeadlineExceeded) {
		c.t.Fatal("the server keeps the connection open")
	}
	return string(rest)
}

// reset closes the connection in such a way that the server reads ECONNRESET.
func reset(c net.Conn) {
	switch c := c.(type) {
	case *rawConn:
		reset(c.Conn)
		return
	case *tls.Conn:
		reset(c.NetConn())
		return
	case *net.TCPConn:
		_ = c.SetLinger(0)
	}
	c.Close()
}

// dialer is for unix sockets too: Hertz's client asks for "tcp" only.
func (m mode) dialer(addr net.Addr, configure ...func(*standard.Dialer)) config.ClientOption {
	return client.WithDialer(hertznet.NewDialer(append(configure, func(d *standard.Dialer) {
		if m.unix {
			d.DialContext = func(ctx context.Context, _, _ string) (net.Conn, error) {
				var nd net.Dialer
				return nd.DialContext(ctx, "unix", addr.String())
			}
		}
	})...))
}

// newClient returns a Hertz client on hertznet.
func newClient(t testing.TB, m mode, addr net.Addr, opts ...config.ClientOption) *client.Client {
	t.Helper()
	// WithTLSConfig overwrites an earlier WithDialer.
	all := []config.ClientOption{client.WithTLSConfig(m.clientTLS()), m.dialer(addr), client.WithDialTimeout(guard)}
	c, err := client.NewClient(append(all, opts...)...)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(c.CloseIdleConnections)
	return c
}

func (s *site) client(t testing.TB, opts ...config.ClientOption) *client.Client {
	t.Helper()
	return newClient(t, s.mode, s.addr, opts...)
}

// do sends a request that prepare has filled in and returns the answer.
func do(t testing.TB, c *client.Client, method, url string, prepare func(*protocol.Request)) *protocol.Response {
	t.Helper()
	req, resp := new(protocol.Request), new(protocol.Response)
	req.SetMethod(method)
	req.SetRequestURI(url)
	if prepare != nil {
		prepare(req)
	}
	if err := c.Do(context.Background(), req, resp); err != nil {
		t.Fatalf("%s %s: %v", method, url, err)
	}
	return resp
}

// get returns the body of a GET.
func get(t testing.TB, c *client.Client, url string) string {
	t.Helper()
	status, body, err := c.Get(context.Background(), nil, url)
	if err != nil || status != 200 {
		t.Fatalf("GET %s: status %d, %v", url, status, err)
	}
	return string(body)
}

// pattern returns n bytes in which a shift or a loss of any length shows, and
// that differ from those of any other seed.
func pattern(n, seed int) []byte {
	p := make([]byte, n)
	r := rand.NewChaCha8([32]byte{byte(seed), byte(seed >> 8)})
	_, _ = r.Read(p)
	return p
}

// sameBytes says where two large slices differ, without printing them.
func sameBytes(t testing.TB, what string, got, want []byte) {
	t.Helper()
	if bytes.Equal(got, want) {
		return
	}
	at := 0
	for at < min(len(got), len(want)) && got[at] == want[at] {
		at++
	}
	t.Errorf("%s: %d bytes, want %d; the first difference is at %d", what, len(got), len(want), at)
}

// eventually polls for what other goroutines are about to bring about.
func eventually(t testing.TB, what string, f func() bool) {
	t.Helper()
	for end := time.Now().Add(guard); !f(); time.Sleep(time.Millisecond) {
		if time.Now().After(end) {
			t.Fatalf("not in %v: %s", guard, what)
		}
	}
}

// receive waits for a value.
func receive[T any](t testing.TB, what string, ch <-chan T) T {
	t.Helper()
	select {
	case v := <-ch:
		return v
	case <-time.After(guard):
		t.Fatalf("not in %v: %s", guard, what)
		panic("unreachable")
	}
}

// text is a handler that answers with s.
func text(s string) app.HandlerFunc {
	return func(_ context.Context, ctx *app.RequestContext) { ctx.String(200, "%s", s) }
}

// plainDialer is for clients that need nothing but TCP.
func plainDialer() config.ClientOption { return client.WithDialer(hertznet.NewDialer()) }

// newStranger returns the config of a server that no client here trusts.
func newStranger(t testing.TB) *tls.Config {
	t.Helper()
	cert, _, err := tlsconn.SelfSigned()
	if err != nil {
		t.Fatal(err)
	}
	return &tls.Config{Certificates: []tls.Certificate{cert}}
}
