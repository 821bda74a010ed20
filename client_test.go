package hertznet_test

import (
	"bufio"
	"bytes"
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/cloudwego/hertz/pkg/app"
	"github.com/cloudwego/hertz/pkg/app/client"
	"github.com/cloudwego/hertz/pkg/app/server"
	errs "github.com/cloudwego/hertz/pkg/common/errors"
	"github.com/cloudwego/hertz/pkg/protocol"
	"github.com/hertznet/hertznet"
	"github.com/hertznet/hertznet/standard"
)

// rawServer calls serve for each connection, the first of which has number 0, in
// its own goroutine. It uses no code of this module. serve need not close.
func rawServer(t testing.TB, m mode, serve func(n int, c *rawConn)) net.Addr {
	t.Helper()
	network, addr := "tcp", "127.0.0.1:0"
	if m.unix {
		network, addr = "unix", socketPath(t)
	}
	ln, err := net.Listen(network, addr)
	if err != nil {
		t.Fatal(err)
	}
	var mu sync.Mutex
	var conns []net.Conn
	var wg sync.WaitGroup
	wg.Go(func() {
		for n := 0; ; n++ {
			c, err := ln.Accept()
			if err != nil {
				return
			}
			_ = c.SetDeadline(time.Now().Add(guard))
			mu.Lock()
			conns = append(conns, c)
			mu.Unlock()
			if m.tls {
				c = tls.Server(c, m.serverTLS())
			}
			wg.Go(func() { serve(n, &rawConn{Conn: c, r: bufio.NewReader(c), t: t}) })
		}
	})
	t.Cleanup(func() {
		ln.Close()
		mu.Lock()
		for _, c := range conns {
			c.Close()
		}
		mu.Unlock()
		wg.Wait()
	})
	return ln.Addr()
}

// request reads a request with its body.
func (c *rawConn) request() (*http.Request, string, error) {
	req, err := http.ReadRequest(c.r)
	if err != nil {
		return nil, "", err
	}
	body, err := io.ReadAll(req.Body)
	return req, string(body), err
}

func (c *rawConn) respond(body string) {
	// The client may be gone.
	_, _ = fmt.Fprintf(c.Conn, "HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n%s", len(body), body)
}

// attempt sends a request and returns its error.
func attempt(c *client.Client, method, url string, prepare func(*protocol.Request)) (*protocol.Response, error) {
	req, resp := new(protocol.Request), new(protocol.Response)
	req.SetMethod(method)
	req.SetRequestURI(url)
	if prepare != nil {
		prepare(req)
	}
	return resp, c.Do(context.Background(), req, resp)
}

// A dial that fails is an error of the request, with the cause in it: Hertz panics
// when a dialer returns neither a connection nor an error.
func TestClientDialErrors(t *testing.T) {
	t.Parallel()
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	refusing := ln.Addr()
	ln.Close()
	for _, m := range []mode{tcpMode, tlsMode} {
		if _, err := attempt(newClient(t, m, refusing), "GET", m.url(refusing), nil); !errors.Is(err, syscall.ECONNREFUSED) {
			t.Errorf("%s, refused: %v", m.name, err)
		}
	}
	addr := rawServer(t, tlsMode, func(_ int, c *rawConn) { _, _, _ = c.request() })
	c := newClient(t, tlsMode, addr, client.WithTLSConfig(&tls.Config{RootCAs: x509.NewCertPool()}), tlsMode.dialer(addr))
	var bad *tls.CertificateVerificationError
	if _, err := attempt(c, "GET", tlsMode.url(addr), nil); !errors.As(err, &bad) {
		t.Errorf("a certificate of nobody's: %v", err)
	}
}

// The dial timeout ends a connect and a TLS handshake that do not come to an end.
func TestClientDialTimeout(t *testing.T) {
	t.Parallel()
	const limit = 80 * time.Millisecond
	silent := rawServer(t, tcpMode, func(_ int, c *rawConn) { _, _ = io.Copy(io.Discard, c) })
	for name, c := range map[string]*client.Client{
		"connect": newClient(t, tcpMode, silent, client.WithDialTimeout(limit),
			tcpMode.dialer(silent, func(d *standard.Dialer) {
				d.DialContext = func(ctx context.Context, _, _ string) (net.Conn, error) {
					<-ctx.Done() // an address that drops every packet
					return nil, ctx.Err()
				}
			})),
		"handshake": newClient(t, tlsMode, silent, client.WithDialTimeout(limit)),
	} {
		url := "http://" + silent.String()
		if name == "handshake" {
			url = "https://" + silent.String()
		}
		start := time.Now()
		_, err := attempt(c, "GET", url, nil)
		var timeout net.Error
		if !errors.As(err, &timeout) || !timeout.Timeout() {
			t.Errorf("%s: %v", name, err)
		}
		if took := time.Since(start); took < limit {
			t.Errorf("%s: gave up after %v", name, took)
		}
	}
}

// The client's ReadTimeout is the limit of the whole answer: a server that is
// never late by a byte cannot extend it.
func TestClientReadTimeoutIsOneDeadline(t *testing.T) {
	eachMode(t, []mode{tcpMode, tlsMode, unixMode}, func(t *testing.T, m mode) {
		const limit, every = 150 * time.Millisecond, 5 * time.Millisecond
		const size = 2000 // times every: ten seconds
		for _, test := range []struct {
			name, at, drip string
			streamed       bool
		}{
			{"body", "HTTP/1.1 200 OK\r\nContent-Length: 2000\r\n\r\n", "x", false},
			{"chunks", "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n", "1\r\nx\r\n", false},
			{"streamed body", "HTTP/1.1 200 OK\r\nContent-Length: 2000\r\n\r\n", "x", true},
			{"streamed chunks", "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n", "1\r\nx\r\n", true},
			{"header", "HTTP/1.1 200 OK\r\nX-Long: ", "x", false},
			{"events", "HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n", "1\r\nx\r\n", false},
		} {
			t.Run(test.name, func(t *testing.T) {
				t.Parallel()
				addr := rawServer(t, m, func(_ int, c *rawConn) {
					if _, _, err := c.request(); err != nil {
						t.Error(err)
					}
					_, err := io.WriteString(c.Conn, test.at)
					for i := 0; i < size && err == nil; i++ {
						_, err = io.WriteString(c.Conn, test.drip)
						time.Sleep(every)
					}
				})
				c := newClient(t, m, addr, client.WithClientReadTimeout(limit), client.WithResponseBodyStream(test.streamed))
				start := time.Now()
				resp, err := attempt(c, "GET", m.url(addr), nil)
				if err == nil && resp.IsBodyStream() {
					_, err = io.Copy(io.Discard, resp.BodyStream())
				}
				took := time.Since(start)
				if !errors.Is(err, os.ErrDeadlineExceeded) && !errors.Is(err, errs.ErrTimeout) {
					t.Errorf("got %v", err)
				}
				if took < limit || took > size*every {
					t.Errorf("after %v", took)
				}
				_ = resp.CloseBodyStream()
			})
		}
		t.Run("nothing", func(t *testing.T) {
			t.Parallel()
			addr := rawServer(t, m, func(_ int, c *rawConn) { _, _ = io.Copy(io.Discard, c) })
			c := newClient(t, m, addr, client.WithClientReadTimeout(limit))
			start := time.Now()
			_, err := attempt(c, "GET", m.url(addr), nil)
			if took := time.Since(start); !errors.Is(err, errs.ErrTimeout) || took < limit {
				t.Errorf("after %v: %v", took, err)
			}
		})
	})
}

// The client's WriteTimeout ends a request to a server that does not read.
func TestClientWriteTimeout(t *testing.T) {
	eachMode(t, []mode{tcpMode, tlsMode, unixMode}, func(t *testing.T, m mode) {
		const limit = 80 * time.Millisecond
		release := make(chan struct{})
		addr := rawServer(t, m, func(_ int, c *rawConn) {
			if tc, ok := c.Conn.(*tls.Conn); ok {
				_ = tc.Handshake()
			}
			<-release
		})
		t.Cleanup(func() { close(release) }) // before rawServer's own
		c := newClient(t, m, addr, client.WithWriteTimeout(limit))
		start := time.Now()
		_, err := attempt(c, "POST", m.url(addr), func(req *protocol.Request) { req.SetBodyRaw(make([]byte, 64<<20)) })
		if took := time.Since(start); !errors.Is(err, errs.ErrTimeout) || took < limit {
			t.Errorf("after %v: %v", took, err)
		}
	})
}

// Without redialling, a GET on a pooled connection that the server has closed is sent
// again on a new one, however the server closed it. A POST is not. With it, that is
// left of connections that the server closes when the request comes.
func TestStalePooledConnectionIsRetried(t *testing.T) {
	cut := func(c *rawConn) { // without a close_notify
		if tc, ok := c.Conn.(*tls.Conn); ok {
			tc.NetConn().Close()
			return
		}
		c.Close()
	}
	ends := map[string]func(*rawConn){
		"closed":                             func(c *rawConn) { c.Close() },
		"cut":                                cut,
		"reset":                              func(c *rawConn) { reset(c.Conn) },
		"closed when the next request comes": func(c *rawConn) { _, _, _ = c.request(); c.Close() },
		"cut when the next request comes":    func(c *rawConn) { _, _, _ = c.request(); cut(c) },
		"reset when the next request comes":  func(c *rawConn) { _, _, _ = c.request(); reset(c.Conn) },
	}
	eachMode(t, allModes, func(t *testing.T, m mode) {
		for name, end := range ends {
			t.Run(name, func(t *testing.T) {
				t.Parallel()
				const rounds = 10
				waits := strings.Contains(name, "next request")
				ended := make(chan struct{}, 2*rounds+5)
				addr := rawServer(t, m, func(n int, c *rawConn) {
					if _, _, err := c.request(); err != nil {
						return
					}
					c.respond(fmt.Sprint("connection ", n))
					end(c)
					ended <- struct{}{}
				})
				c := newClient(t, m, addr, client.WithClientReadTimeout(guard),
					m.dialer(addr, func(d *standard.Dialer) { d.DisableRedial = !waits }))
				for i := range rounds {
					if got := get(t, c, m.url(addr)); got != fmt.Sprint("connection ", i) {
						t.Fatalf("round %d: got %q", i, got)
					}
					if !waits {
						receive(t, "the server ends the connection", ended)
					}
				}
				_, err := attempt(c, "POST", m.url(addr), func(req *protocol.Request) { req.SetBodyString("once") })
				if !errors.Is(err, errs.ErrBadPoolConn) {
					t.Errorf("a POST on a stale connection: %v", err)
				}
			})
		}
	})
}

// The same between hertznet's own server, at its idle timeout, and its client.
func TestIdleTimeoutAndPooledConnections(t *testing.T) {
	eachMode(t, allModes, func(t *testing.T, m mode) {
		const limit = 20 * time.Millisecond
		opt, id := connID()
		s := run(t, m, func(h *server.Hertz) { h.Use(id); h.GET("/", text("")) }, opt, server.WithIdleTimeout(limit))
		c := s.client(t)
		seen := make(map[string]bool)
		for i := range 8 {
			// Around the moment at which the server closes.
			seen[do(t, c, "GET", s.url+"/", nil).Header.Get("X-Conn")] = true
			time.Sleep(limit/2 + time.Duration(i)*limit/4)
		}
		if len(seen) < 2 {
			t.Errorf("the server has closed none of %v", seen)
		}
	})
}

// An answer that is cut after its first byte is an error, and over TLS
// io.ErrUnexpectedEOF: nobody may shorten what is protected.
func TestCutAnswerIsAnError(t *testing.T) {
	eachMode(t, []mode{tcpMode, tlsMode}, func(t *testing.T, m mode) {
		for _, test := range []struct {
			answer    string
			unwrapped bool // Hertz passes the connection's error on
		}{
			{"HTTP/1.1 200 OK\r\nContent-Le", false},
			{"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\nonly this", true},
			{"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n64\r\nonly this", true},
		} {
			addr := rawServer(t, m, func(_ int, c *rawConn) {
				if _, _, err := c.request(); err != nil {
					t.Error(err)
				}
				_, _ = io.WriteString(c.Conn, test.answer)
				if tc, ok := c.Conn.(*tls.Conn); ok {
					tc.NetConn().Close()
				}
				c.Close()
			})
			_, err := attempt(newClient(t, m, addr), "GET", m.url(addr), nil)
			if err == nil || test.unwrapped && !errors.Is(err, io.ErrUnexpectedEOF) {
				t.Errorf("%q: %v", test.answer, err)
			}
		}
	})
}

// A server that answers 4xx and closes while the request is still being sent is
// understood.
func TestEarlyAnswerReachesTheClient(t *testing.T) {
	eachMode(t, []mode{tcpMode, tlsMode, unixMode}, func(t *testing.T, m mode) {
		addr := rawServer(t, m, func(_ int, c *rawConn) {
			_, _ = http.ReadRequest(c.r)
			_, _ = io.WriteString(c.Conn, "HTTP/1.1 413 Request Entity Too Large\r\nConnection: close\r\nContent-Length: 9\r\n\r\ntoo large")
			c.Close()
		})
		c := newClient(t, m, addr)
		body := make([]byte, 16<<20) // more than sockets hold
		for range 5 {
			resp, err := attempt(c, "POST", m.url(addr), func(req *protocol.Request) { req.SetBodyRaw(body) })
			if err != nil || resp.StatusCode() != 413 || string(resp.Body()) != "too large" {
				t.Errorf("status %d, body %q, %v", resp.StatusCode(), resp.Body(), err)
			}
		}
	})
}

// A connection that has bytes beyond its answer is not used again.
func TestBytesBeyondAnAnswer(t *testing.T) {
	eachMode(t, []mode{tcpMode, tlsMode}, func(t *testing.T, m mode) {
		addr := rawServer(t, m, func(n int, c *rawConn) {
			for {
				if _, _, err := c.request(); err != nil {
					return
				}
				_, _ = fmt.Fprintf(c.Conn, "HTTP/1.1 200 OK\r\nContent-Length: 1\r\n\r\n%dHTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nevil", n)
			}
		})
		c := newClient(t, m, addr)
		for i := range 3 {
			if got := get(t, c, m.url(addr)); got != fmt.Sprint(i) {
				t.Errorf("got %q, want the first answer of connection %d", got, i)
			}
		}
	})
}

// DialTimeout is for a plain net.Conn, and honours the TLS config, unlike Hertz's.
func TestDialTimeoutHonoursTheTLSConfig(t *testing.T) {
	eachMode(t, []mode{tcpMode, tlsMode, unixMode}, func(t *testing.T, m mode) {
		s := run(t, m, func(h *server.Hertz) { h.GET("/", text("hi")) })
		d := hertznet.NewDialer()
		var config *tls.Config
		if m.tls {
			config = m.clientTLS()
		}
		nc, err := d.DialTimeout(s.addr.Network(), s.addr.String(), guard, config)
		if err != nil {
			t.Fatal(err)
		}
		defer nc.Close()
		c := &rawConn{Conn: nc, r: bufio.NewReader(nc), t: t}
		if got := c.get("/"); got != "hi" {
			t.Errorf("got %q", got)
		}
	})
}

// A dialer that is shared leaves the config that it is given alone, and one that
// fails returns nil interfaces.
func TestDialerReturnsNilWithAnError(t *testing.T) {
	t.Parallel()
	d := hertznet.NewDialer()
	if c, err := d.DialConnection("tcp", "127.0.0.1:1", time.Second, nil); c != nil || err == nil {
		t.Errorf("DialConnection: %v, %v", c, err)
	}
	if c, err := d.DialTimeout("tcp", "127.0.0.1:1", time.Second, nil); c != nil || err == nil {
		t.Errorf("DialTimeout: %v, %v", c, err)
	}
	closed := make(chan struct{})
	addr := rawServer(t, tcpMode, func(_ int, c *rawConn) {
		c.send("no TLS")
		_, _ = io.Copy(io.Discard, c)
		close(closed)
	})
	c, err := d.DialConnection("tcp", addr.String(), guard, nil)
	if err != nil {
		t.Fatal(err)
	}
	// Bytes that are buffered belong to the TLS stream; Hertz leaves it to AddTLS to
	// close what it was given.
	if _, err := c.Peek(6); err != nil {
		t.Fatal(err)
	}
	if added, err := d.AddTLS(c, &tls.Config{ServerName: "localhost"}); added != nil || err == nil {
		t.Errorf("AddTLS: %v, %v", added, err)
	} else if re := (tls.RecordHeaderError{}); !errors.As(err, &re) {
		t.Errorf("AddTLS: %v, want a RecordHeaderError about the bytes that were buffered", err)
	}
	receive(t, "AddTLS closes the connection", closed)
}

// One client serves many goroutines.
func TestClientByManyGoroutines(t *testing.T) {
	eachMode(t, []mode{tcpMode, tlsMode, unixMode}, func(t *testing.T, m mode) {
		var inUse, most atomic.Int32
		s := run(t, m, func(h *server.Hertz) {
			h.POST("/", func(_ context.Context, ctx *app.RequestContext) {
				n := inUse.Add(1)
				for old := most.Load(); n > old && !most.CompareAndSwap(old, n); old = most.Load() {
				}
				ctx.Response.SetBody(ctx.Request.Body())
				inUse.Add(-1)
			})
		})
		c := s.client(t, client.WithMaxConnsPerHost(8), client.WithMaxConnWaitTimeout(guard))
		var wg sync.WaitGroup
		for i := range 32 {
			wg.Go(func() {
				for j := range 10 {
					body := pattern(1000*j, i)
					resp, err := attempt(c, "POST", s.url+"/", func(req *protocol.Request) { req.SetBody(body) })
					if err != nil || !bytes.Equal(resp.Body(), body) {
						t.Errorf("goroutine %d: %d bytes, %v", i, len(resp.Body()), err)
						return
					}
				}
			})
		}
		wg.Wait()
		if most.Load() > 8 {
			t.Errorf("%d connections at once, want no more than 8", most.Load())
		}
	})
}
