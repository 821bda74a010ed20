package hertznet_test

import (
	"bufio"
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"io"
	"net"
	"net/http"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/cloudwego/hertz/pkg/app"
	"github.com/cloudwego/hertz/pkg/app/client"
	"github.com/cloudwego/hertz/pkg/app/server"
	"github.com/cloudwego/hertz/pkg/protocol"
)

// proxy is a small HTTP proxy: it tunnels CONNECT requests and answers others
// itself.
type proxy struct {
	url     string
	tunnels atomic.Int32 // that were opened
	open    atomic.Int32 // that are open now
	mu      sync.Mutex
	auth    string // the last Proxy-Authorization
	target  string // of the last request line
}

func (p *proxy) last() (auth, target string) {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.auth, p.target
}

// newProxy starts a proxy that is reached over TLS if m says so. answer writes the
// answer to CONNECT, and reports whether a tunnel is to be made.
func newProxy(t testing.TB, m mode, answer func(c net.Conn) (tunnel bool)) *proxy {
	p := new(proxy)
	addr := rawServer(t, m, func(_ int, c *rawConn) {
		defer c.Close()
		for {
			req, _, err := c.request()
			if err != nil {
				return
			}
			p.mu.Lock()
			p.auth, p.target = req.Header.Get("Proxy-Authorization"), req.RequestURI
			p.mu.Unlock()
			if req.Method != http.MethodConnect {
				c.respond("for " + req.URL.String())
				continue
			}
			p.open.Add(1)
			defer p.open.Add(-1)
			if answer(c.Conn) {
				p.tunnels.Add(1)
				tunnel(c, req.Host)
			} else {
				_, _ = io.Copy(io.Discard, c) // until the client gives up
			}
			return
		}
	})
	p.url = m.url(addr)
	return p
}

// tunnel copies both ways until either side ends.
func tunnel(c *rawConn, target string) {
	t, err := net.Dial("tcp", target)
	if err != nil {
		return
	}
	_ = t.SetDeadline(time.Now().Add(guard))
	done := make(chan struct{})
	go func() {
		defer close(done)
		_, _ = io.Copy(t, c)
		t.Close()
	}()
	_, _ = io.Copy(c.Conn, t)
	c.Close()
	<-done
}

const established = "HTTP/1.1 200 Connection established\r\n\r\n"

func accept(c net.Conn) bool {
	_, err := io.WriteString(c, established)
	return err == nil
}

// through returns a client of s that goes through p.
func (p *proxy) through(t testing.TB, m mode, user string) *client.Client {
	t.Helper()
	c, err := client.NewClient(client.WithTLSConfig(m.clientTLS()), plainDialer(), client.WithDialTimeout(guard))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(c.CloseIdleConnections)
	uri := p.url
	if user != "" {
		uri = strings.Replace(uri, "://", "://"+user+"@", 1)
	}
	c.SetProxy(protocol.ProxyURI(protocol.ParseURI(uri)))
	return c
}

// proxyModes are the ways to reach a proxy; the targets are HTTPS servers, so the
// second is TLS in TLS.
var proxyModes = []mode{{name: "HTTP proxy"}, {name: "HTTPS proxy", tls: true}}

// A TLS server is reached through a CONNECT tunnel, whose connection is kept.
func TestCONNECTProxy(t *testing.T) {
	eachMode(t, proxyModes, func(t *testing.T, pm mode) {
		p := newProxy(t, pm, accept)
		for _, m := range []mode{tlsMode, alpnMode, mtlsMode} {
			s := run(t, m, func(h *server.Hertz) {
				h.POST("/", func(_ context.Context, ctx *app.RequestContext) { ctx.Response.SetBody(ctx.Request.Body()) })
			})
			p.tunnels.Store(0)
			c := p.through(t, m, "user:secret")
			for i := range 5 {
				body := pattern(300_000*i, i)
				resp := do(t, c, "POST", s.url+"/", func(req *protocol.Request) { req.SetBody(body) })
				sameBytes(t, m.name, resp.Body(), body)
			}
			if n := p.tunnels.Load(); n != 1 {
				t.Errorf("%s: %d tunnels for one connection", m.name, n)
			}
			if auth, target := p.last(); target != s.addr.String() || auth != "Basic dXNlcjpzZWNyZXQ=" {
				t.Errorf("%s: the proxy was asked for %q with %q", m.name, target, auth)
			}
		}
	})
}

// The proxy's answer may come in any pieces.
func TestCONNECTProxyAnswersInPieces(t *testing.T) {
	eachMode(t, proxyModes, func(t *testing.T, pm mode) {
		p := newProxy(t, pm, func(c net.Conn) bool {
			for _, b := range []byte("HTTP/1.1 200 OK\r\nVia: 1.1 test\r\nX-Long: " + strings.Repeat("l", 200) + "\r\n\r\n") {
				if _, err := c.Write([]byte{b}); err != nil {
					return false
				}
			}
			return true
		})
		s := run(t, tlsMode, func(h *server.Hertz) { h.GET("/", text("hi")) })
		if got := get(t, p.through(t, tlsMode, ""), s.url+"/"); got != "hi" {
			t.Errorf("got %q", got)
		}
	})
}

// The first bytes of the TLS stream may come in one piece with the proxy's answer:
// they are the target's, and none is lost. A server speaks first in TLS only to
// refuse, so it is an alert that is glued here.
func TestCONNECTProxyGluesTheFirstTLSBytes(t *testing.T) {
	eachMode(t, proxyModes, func(t *testing.T, pm mode) {
		const alert = "\x15\x03\x03\x00\x02\x02\x28" // fatal, handshake_failure
		for cut := range len(alert) + 1 {
			p := newProxy(t, pm, func(c net.Conn) bool {
				if _, err := io.WriteString(c, established+alert[:cut]); err != nil {
					t.Error(err)
				}
				// The rest follows what the client says after the proxy's answer.
				if _, err := io.ReadFull(c, make([]byte, 5)); err != nil {
					t.Error(err)
				}
				_, _ = io.WriteString(c, alert[cut:])
				return false
			})
			_, err := attempt(p.through(t, tlsMode, ""), "GET", "https://localhost:1/", nil)
			if err == nil || !strings.Contains(err.Error(), "handshake failure") {
				t.Errorf("%d bytes glued: %v, want the target's alert", cut, err)
			}
			eventually(t, "the tunnel is closed", func() bool { return p.open.Load() == 0 })
		}
	})
}

// A tunnel that cannot be used is closed: one that the proxy refused, and one to a
// target that cannot be trusted.
func TestCONNECTProxyFailureClosesTheTunnel(t *testing.T) {
	eachMode(t, proxyModes, func(t *testing.T, pm mode) {
		refusing := newProxy(t, pm, func(c net.Conn) bool {
			_, _ = io.WriteString(c, "HTTP/1.1 407 Proxy Authentication Required\r\nContent-Length: 0\r\n\r\n")
			return false
		})
		_, err := attempt(refusing.through(t, tlsMode, ""), "GET", "https://localhost:1/", nil)
		if err == nil || !strings.Contains(err.Error(), "Proxy Authentication Required") {
			t.Errorf("refused: %v", err)
		}
		eventually(t, "the refused connection is closed", func() bool { return refusing.open.Load() == 0 })

		// The proxy's certificate is good, the target's is somebody else's.
		ln, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			t.Fatal(err)
		}
		stranger := newStranger(t)
		go func() {
			for {
				c, err := ln.Accept()
				if err != nil {
					return
				}
				go func() { _ = tls.Server(c, stranger).Handshake(); c.Close() }()
			}
		}()
		t.Cleanup(func() { ln.Close() })
		p := newProxy(t, pm, accept)
		_, err = attempt(p.through(t, tlsMode, ""), "GET", "https://"+ln.Addr().String()+"/", nil)
		var unknown x509.UnknownAuthorityError
		if !errors.As(err, &unknown) {
			t.Errorf("a stranger: %v", err)
		}
		eventually(t, "the tunnel is closed", func() bool { return p.open.Load() == 0 })
	})
}

// A plain HTTP request goes to the proxy with its whole URL.
func TestProxyOfPlainHTTP(t *testing.T) {
	eachMode(t, proxyModes, func(t *testing.T, pm mode) {
		p := newProxy(t, pm, accept)
		c := p.through(t, tlsMode, "user:secret")
		for range 2 {
			if got := get(t, c, "http://example.test/path?q=1"); got != "for http://example.test/path?q=1" {
				t.Errorf("got %q", got)
			}
		}
		if auth, target := p.last(); target != "http://example.test/path?q=1" || auth != "Basic dXNlcjpzZWNyZXQ=" {
			t.Errorf("the proxy was asked for %q with %q", target, auth)
		}
	})
}

// A proxy that ends the connection, at whatever point, is an error of the request
// at once, and leaves nothing open.
func TestCONNECTProxyThatCloses(t *testing.T) {
	eachMode(t, proxyModes, func(t *testing.T, pm mode) {
		for name, end := range map[string]func(net.Conn){
			"without an answer": func(c net.Conn) { c.Close() },
			"with half of one":  func(c net.Conn) { _, _ = io.WriteString(c, established[:20]); c.Close() },
			"after its answer":  func(c net.Conn) { _, _ = io.WriteString(c, established); c.Close() },
			"by a reset":        func(c net.Conn) { reset(&rawConn{Conn: c, r: bufio.NewReader(c), t: t}) },
		} {
			p := newProxy(t, pm, func(c net.Conn) bool { end(c); return false })
			if resp, err := attempt(p.through(t, tlsMode, ""), "GET", "https://localhost:1/", nil); err == nil {
				t.Errorf("%s: status %d", name, resp.StatusCode())
			}
			eventually(t, "the connection is closed", func() bool { return p.open.Load() == 0 })
		}
	})
}
