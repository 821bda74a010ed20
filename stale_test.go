package hertznet_test

import (
	"bufio"
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"runtime"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/cloudwego/hertz/pkg/app/client"
	"github.com/cloudwego/hertz/pkg/common/config"
	errs "github.com/cloudwego/hertz/pkg/common/errors"
	"github.com/cloudwego/hertz/pkg/network"
	hertzstandard "github.com/cloudwego/hertz/pkg/network/standard"
	"github.com/cloudwego/hertz/pkg/protocol"
	"github.com/hertznet/hertznet"
	"github.com/hertznet/hertznet/standard"
)

// needRedial skips where stale connections are not known. Where a test closes TLS
// with a close_notify, that is everywhere but on Linux.
func needRedial(t testing.TB, m mode) {
	t.Helper()
	if runtime.GOOS == "windows" || m.tls && runtime.GOOS != "linux" {
		t.Skip("a stale connection is not known as such here")
	}
}

// dials keeps what a dialer dialled.
type dials struct {
	mu    sync.Mutex
	conns []net.Conn
	fail  func(ctx context.Context, n int) error // of the dial number n
}

func (d *dials) dial(ctx context.Context, addr net.Addr) (net.Conn, error) {
	if d.fail != nil {
		if err := d.fail(ctx, d.count()); err != nil {
			d.mu.Lock()
			defer d.mu.Unlock()
			d.conns = append(d.conns, nil)
			return nil, err
		}
	}
	var nd net.Dialer
	c, err := nd.DialContext(ctx, addr.Network(), addr.String())
	if err == nil {
		d.mu.Lock()
		defer d.mu.Unlock()
		d.conns = append(d.conns, c)
	}
	return c, err
}

// to makes a standard.Dialer dial through d, and addr only.
func (d *dials) to(addr net.Addr) func(*standard.Dialer) {
	return func(sd *standard.Dialer) {
		sd.DialContext = func(ctx context.Context, _, _ string) (net.Conn, error) { return d.dial(ctx, addr) }
	}
}

// dialer is a client's dialer that does so.
func (d *dials) dialer(addr net.Addr, configure ...func(*standard.Dialer)) config.ClientOption {
	return client.WithDialer(hertznet.NewDialer(append(configure, d.to(addr))...))
}

func (d *dials) count() int {
	d.mu.Lock()
	defer d.mu.Unlock()
	return len(d.conns)
}

func (d *dials) last() net.Conn {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.conns[len(d.conns)-1]
}

// stale waits until what the server did to the last connection has come to this end.
func (d *dials) stale(t testing.TB) {
	t.Helper()
	c := standard.NewConn(d.last())
	eventually(t, "the end of the connection arrives", func() bool { _, ended := c.Probe(); return ended })
}

// open counts the connections that are not closed.
func (d *dials) open() (n int) {
	d.mu.Lock()
	defer d.mu.Unlock()
	for _, c := range d.conns {
		if c != nil && !errors.Is(c.SetDeadline(time.Time{}), net.ErrClosed) {
			n++
		}
	}
	return n
}

// The servers of TestPOSTsOnStaleConnections. Each answers "last" and then ends the
// connection, perhaps only after it was idle for a short time.
var endings = []struct {
	name     string
	requests int // on each connection
	end      func(c *rawConn)
}{
	{"closes idle connections", 1, func(c *rawConn) {
		_ = c.SetReadDeadline(time.Now().Add(200 * time.Microsecond))
		_, _ = c.r.Peek(1)
		c.Close()
	}},
	{"closes after 3 requests", 3, func(c *rawConn) { c.Close() }},
	{"resets after 3 requests", 3, func(c *rawConn) { reset(c) }},
}

// A POST on a pooled connection that the server has closed, or reset, meanwhile does
// not fail: none of 10,000. It does with redialling off, and with Hertz's own dialer.
func TestPOSTsOnStaleConnections(t *testing.T) {
	eachMode(t, []mode{tcpMode, unixMode, tlsMode, mtlsMode}, func(t *testing.T, m mode) {
		needRedial(t, m)
		for _, ending := range endings {
			t.Run(ending.name, func(t *testing.T) {
				t.Parallel()
				many, few := 10_000, 300
				if testing.Short() || m != tcpMode {
					many = 1000
				}
				var served atomic.Int32
				ended := make(chan struct{}, 1)
				addr := rawServer(t, m, func(_ int, c *rawConn) {
					for i := 1; ; i++ {
						req, _, err := c.request()
						if err != nil {
							return
						}
						if req.Method != http.MethodPost {
							t.Error("the server got a ", req.Method)
						}
						served.Add(1)
						if i == ending.requests {
							c.respond("last")
							ending.end(c)
							ended <- struct{}{}
							return
						}
						c.respond("more")
					}
				})
				// posts returns how many of n POSTs failed.
				posts := func(c *client.Client, n int, stale func()) (failed int, first error) {
					for range n {
						resp, err := attempt(c, "POST", m.url(addr), func(req *protocol.Request) { req.SetBodyString("once") })
						if err != nil {
							if failed++; first == nil {
								first = err
							}
						} else if string(resp.Body()) == "last" {
							receive(t, "the server ends the connection", ended)
							stale()
						}
					}
					return failed, first
				}

				var pool atomic.Value
				var d, off dials
				c := newClient(t, m, addr, d.dialer(addr), client.WithMaxConnsPerHost(1),
					client.WithConnStateObserve(func(hs config.HostClientState) { pool.Store(hs.ConnPoolState()) }, time.Millisecond))
				failed, err := posts(c, many, func() { d.stale(t) })
				if n := int(served.Load()); failed != 0 || n != many {
					t.Errorf("%d of %d POSTs failed, the server has seen %d: %v", failed, many, n, err)
				}
				// A redial is nothing that the pool sees, and closes what it replaces.
				if n := d.count(); n != (many+ending.requests-1)/ending.requests {
					t.Errorf("%d dials", n)
				}
				if n := d.open(); n != 1 {
					t.Errorf("%d connections are open, want the last", n)
				}
				eventually(t, "the pool is seen with its one connection", func() bool {
					s, _ := pool.Load().(config.ConnPoolState)
					return s.TotalConnNum == 1 && s.PoolConnNum == 1
				})

				c = newClient(t, m, addr, off.dialer(addr, func(d *standard.Dialer) { d.DisableRedial = true }))
				failedOff, err := posts(c, few, func() { off.stale(t) })
				if failedOff == 0 || !errors.Is(err, errs.ErrBadPoolConn) {
					t.Errorf("redialling off: %d failures, %v", failedOff, err)
				}
				if m.unix {
					t.Logf("POSTs that failed: %d of %d; redialling off %d of %d", failed, many, failedOff, few)
					return // Hertz's own client has no unix sockets
				}
				c = newClient(t, m, addr, client.WithDialer(hertzstandard.NewDialer()))
				failedHertz, _ := posts(c, few, func() {})
				if failedHertz == 0 {
					t.Error("Hertz's dialer: no failures, so this test shows nothing")
				}
				t.Logf("POSTs that failed: %d of %d; redialling off %d of %d; Hertz's standard dialer %d of %d",
					failed, many, failedOff, few, failedHertz, few)
			})
		}
	})
}

// Bytes that came unasked are never the answer to the next request.
func TestUnsolicitedAnswer(t *testing.T) {
	eachMode(t, []mode{tcpMode, unixMode}, func(t *testing.T, m mode) {
		needRedial(t, m)
		for _, closes := range []bool{false, true} {
			var d dials
			received := make(chan struct{}, 1)
			addr := rawServer(t, m, func(n int, c *rawConn) {
				if _, _, err := c.request(); err != nil {
					return
				}
				c.respond(fmt.Sprint("connection ", n))
				if n > 0 {
					return
				}
				<-received
				c.send("HTTP/1.1 408 Request Timeout\r\nConnection: close\r\nContent-Length: 0\r\n\r\n")
				if closes {
					c.Close()
				}
			})
			c := newClient(t, m, addr, d.dialer(addr))
			for i := range 2 {
				resp, err := attempt(c, "POST", m.url(addr), nil)
				if want := fmt.Sprint("connection ", i); err != nil || string(resp.Body()) != want {
					t.Errorf("closes %v: status %d, body %q, %v, want %q", closes, resp.StatusCode(), resp.Body(), err, want)
				}
				if i == 0 {
					received <- struct{}{}
					raw := standard.NewConn(d.last())
					eventually(t, "the 408 arrives", func() bool { readable, _ := raw.Probe(); return readable })
				}
			}
		}
	})
}

// early sends the first bytes of what is written next ahead of time.
type early struct {
	net.Conn
	mu   sync.Mutex
	held bool
	rest []byte
}

func (e *early) Write(p []byte) (int, error) {
	e.mu.Lock()
	defer e.mu.Unlock()
	if !e.held {
		return e.Conn.Write(p)
	}
	e.rest = append(e.rest, p[3:]...)
	_, err := e.Conn.Write(p[:3])
	return len(p), err
}

func (e *early) release() {
	e.mu.Lock()
	defer e.mu.Unlock()
	e.held = false
	_, _ = e.Conn.Write(e.rest)
}

// Bytes of TLS, as a session ticket's, are no staleness: the connection is used.
func TestBytesOfTLSAreNoStaleness(t *testing.T) {
	t.Parallel()
	needRedial(t, tlsMode)
	var d dials
	received := make(chan struct{}, 1)
	addr := rawServer(t, tcpMode, func(n int, raw *rawConn) {
		if n > 0 {
			raw.Close()
			return
		}
		e := &early{Conn: raw.Conn}
		c := &rawConn{Conn: tls.Server(e, tlsMode.serverTLS()), t: t}
		c.r = raw.r
		c.r.Reset(c.Conn)
		if _, _, err := c.request(); err != nil {
			t.Error(err)
		}
		c.respond("one")
		<-received
		e.mu.Lock()
		e.held = true
		e.mu.Unlock()
		c.respond("two") // of its record, three bytes
		if _, _, err := c.request(); err != nil {
			t.Error(err)
		}
		e.release()
		_, _ = io.Copy(io.Discard, c.r)
	})
	c := newClient(t, tlsMode, addr, d.dialer(addr))
	for i, want := range []string{"one", "two"} {
		resp, err := attempt(c, "POST", tlsMode.url(addr), nil)
		if err != nil || string(resp.Body()) != want {
			t.Fatalf("body %q, %v, want %q", resp.Body(), err, want)
		}
		if i == 0 {
			received <- struct{}{}
			raw := standard.NewConn(d.last())
			eventually(t, "bytes are there", func() bool { readable, _ := raw.Probe(); return readable })
		}
	}
	if n := d.count(); n != 1 {
		t.Errorf("%d dials for one connection that was not stale", n)
	}
}

// closing returns a server that closes each connection after its first answer.
func closing(t testing.TB, m mode, served *atomic.Int32) net.Addr {
	return rawServer(t, m, func(_ int, c *rawConn) {
		if _, _, err := c.request(); err != nil {
			return
		}
		served.Add(1)
		c.respond("ok")
		c.Close()
	})
}

// A redial that is refused is the error of a POST, with what was dialled and why in
// it. A GET is repeated as it was before, and may find another way.
func TestRedialRefused(t *testing.T) {
	eachMode(t, []mode{tcpMode, tlsMode}, func(t *testing.T, m mode) {
		needRedial(t, m)
		refused := &net.OpError{Op: "dial", Net: "tcp", Err: os.NewSyscallError("connect", syscall.ECONNREFUSED)}
		d := dials{fail: func(_ context.Context, n int) error {
			if n%2 == 1 {
				return refused
			}
			return nil
		}}
		var served atomic.Int32
		addr := closing(t, m, &served)
		c := newClient(t, m, addr, d.dialer(addr), client.WithMaxConnsPerHost(1))
		post := func() error { _, err := attempt(c, "POST", m.url(addr), nil); return err }
		if err := post(); err != nil {
			t.Fatal(err)
		}
		d.stale(t)
		err := post()
		if !errors.Is(err, syscall.ECONNREFUSED) || !strings.Contains(err.Error(), "dial tcp") {
			t.Errorf("a POST: %v", err)
		}
		if n, s := d.count(), served.Load(); n != 2 || s != 1 {
			t.Errorf("%d dials and %d requests, want one redial and no second request", n, s)
		}
		// The pool has let go of it: there would be no free connection.
		if err := post(); err != nil {
			t.Errorf("the POST after it: %v", err)
		}
		d.stale(t)
		if got := get(t, c, m.url(addr)); got != "ok" {
			t.Errorf("a GET: %q", got)
		}
		if n := d.count(); n != 5 {
			t.Errorf("%d dials, want one redial refused for the GET, and one more", n)
		}
	})
}

// A server that is gone for good is a clear error of every request.
func TestRedialToAServerThatIsGone(t *testing.T) {
	t.Parallel()
	needRedial(t, tcpMode)
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	addr := ln.Addr()
	go func() {
		c, err := ln.Accept()
		ln.Close()
		if err == nil {
			rc := &rawConn{Conn: c, r: bufio.NewReader(c), t: t}
			_, _, _ = rc.request()
			rc.respond("ok")
			c.Close()
		}
	}()
	var d dials
	c := newClient(t, tcpMode, addr, d.dialer(addr), client.WithMaxConnsPerHost(1))
	if _, err := attempt(c, "POST", tcpMode.url(addr), nil); err != nil {
		t.Fatal(err)
	}
	d.stale(t)
	for _, method := range []string{"POST", "POST", "GET"} {
		_, err := attempt(c, method, tcpMode.url(addr), nil)
		if !errors.Is(err, syscall.ECONNREFUSED) || !strings.Contains(err.Error(), addr.String()) {
			t.Errorf("%s: %v", method, err)
		}
	}
}

// A redial has the dial timeout, or the write timeout if that is shorter; having run
// out of time it is not repeated, whatever the method.
func TestRedialTimeout(t *testing.T) {
	t.Parallel()
	needRedial(t, tcpMode)
	const limit = 80 * time.Millisecond
	for _, test := range []struct {
		name        string
		dial, write time.Duration
	}{
		{"dial timeout", limit, 0},
		{"dial timeout before the write timeout", limit, guard},
		{"write timeout before the dial timeout", guard, limit},
	} {
		t.Run(test.name, func(t *testing.T) {
			t.Parallel()
			d := dials{fail: func(ctx context.Context, n int) error {
				if n == 0 {
					return nil
				}
				select {
				case <-ctx.Done():
				case <-time.After(guard):
				}
				return context.DeadlineExceeded
			}}
			var served atomic.Int32
			addr := closing(t, tcpMode, &served)
			c := newClient(t, tcpMode, addr, d.dialer(addr),
				client.WithDialTimeout(test.dial), client.WithWriteTimeout(test.write))
			if got := get(t, c, tcpMode.url(addr)); got != "ok" {
				t.Fatal(got)
			}
			d.stale(t)
			start := time.Now()
			_, err := attempt(c, "GET", tcpMode.url(addr), nil)
			took := time.Since(start)
			var timeout net.Error
			if !errors.As(err, &timeout) || !timeout.Timeout() || errors.Is(err, errs.ErrBadPoolConn) {
				t.Errorf("got %v", err)
			}
			if n := d.count(); n != 2 || took < limit || took > guard/2 {
				t.Errorf("%d dials, %v, want one redial within %v", n, took, limit)
			}
		})
	}
}

// byHand is a connection of a hertznet dialer that a test drives as Hertz does.
type byHand struct {
	network.Conn
	t testing.TB
}

func (d *dials) byHand(t testing.TB, m mode, addr net.Addr) byHand {
	t.Helper()
	var config *tls.Config
	if m.tls {
		config = m.clientTLS()
	}
	c, err := hertznet.NewDialer(d.to(addr)).DialConnection("tcp", addr.String(), guard, config)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	return byHand{c, t}
}

// exchange sends a request, expects the answer, and puts the connection into the pool.
func (c byHand) exchange(answer string) {
	c.t.Helper()
	_, _ = c.WriteBinary([]byte("POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 0\r\n\r\n"))
	if err := c.Flush(); err != nil {
		c.t.Fatal(err)
	}
	for n := 1; n <= len(answer); n = c.Len() + 1 {
		if b, err := c.Peek(n); err != nil || !strings.HasPrefix(answer, string(b)) {
			c.t.Fatalf("%q, %v", b, err)
		}
	}
	_ = c.Skip(len(answer))
	_ = c.Release()
	if c.Len() != 0 {
		c.t.Fatal("there is more than an answer")
	}
}

// Only a connection that speaks HTTP/1, and goes on to, is dialled again: behind any
// other there is a state that a new connection does not have.
func TestRedialsNothingButHTTP1(t *testing.T) {
	t.Parallel()
	needRedial(t, tcpMode)
	for name, test := range map[string]struct {
		pieces  []string
		redials bool
	}{
		"HTTP/1.1":                {[]string{"HTTP/1.1 200 OK\r\n\r\n"}, true},
		"HTTP/1.0":                {[]string{"HTTP/1.0 404 Not Found\r\n\r\n"}, true},
		"in pieces":               {[]string{"H", "TTP/1.1 2", "00", " OK\r\n\r\n"}, true},
		"after an interim answer": {[]string{"HTTP/1.1 100 Continue\r\n\r\n", "HTTP/1.1 200 OK\r\n\r\n"}, true},
		"upgraded":                {[]string{"HTTP/1.1 101 Switching Protocols\r\n\r\n"}, false},
		"upgraded to HTTP":        {[]string{"HTTP/1.1 101 Switching Protocols\r\n\r\n", "HTTP/1.1 200 OK\r\n\r\n"}, false},
		"an interim answer only":  {[]string{"HTTP/1.1 100 Continue\r\n\r\n"}, false},
		"another protocol":        {[]string{"a protocol of its own"}, false},
		"short":                   {[]string{"HTTP/1.1"}, false},
	} {
		var d dials
		next := make(chan struct{})
		addr := rawServer(t, tcpMode, func(n int, c *rawConn) {
			if _, _, err := c.request(); err != nil {
				return
			}
			for _, piece := range test.pieces {
				c.send(piece)
				<-next
			}
			c.Close()
		})
		c := d.byHand(t, tcpMode, addr)
		_, _ = c.WriteBinary([]byte("POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 0\r\n\r\n"))
		if err := c.Flush(); err != nil {
			t.Fatal(err)
		}
		for _, piece := range test.pieces {
			for have := c.Len(); c.Len() < have+len(piece); {
				if _, err := c.Peek(c.Len() + 1); err != nil {
					t.Fatal(err)
				}
			}
			if strings.HasSuffix(piece, "\r\n\r\n") && !strings.HasPrefix(piece, " ") {
				_ = c.Skip(len(piece)) // a header is skipped whole
			}
			next <- struct{}{}
		}
		_ = c.Skip(c.Len())
		_ = c.Release()
		_ = c.Len()
		d.stale(t)
		if err := c.SetWriteTimeout(0); err != nil {
			t.Errorf("%s: %v", name, err)
		}
		if redialled := d.count() == 2; redialled != test.redials {
			t.Errorf("%s: redialled %v", name, redialled)
		}
	}
}

const noContent = "HTTP/1.1 204 No Content\r\n\r\n"

// answering closes after one answer, and keeps every connection after the first open.
func answering(t testing.TB, m mode) net.Addr {
	return rawServer(t, m, func(n int, c *rawConn) {
		if _, _, err := c.request(); err == nil && n == 0 {
			c.send(noContent)
			c.Close()
		}
		_, _ = io.Copy(io.Discard, c.r)
		c.Close()
	})
}

// A connection is looked at once for each request, and not before its first.
func TestRedialHappensBetweenRequestsOnly(t *testing.T) {
	t.Parallel()
	needRedial(t, tcpMode)
	var d dials
	addr := rawServer(t, tcpMode, func(_ int, c *rawConn) { c.Close() })
	c := d.byHand(t, tcpMode, addr)
	d.stale(t)
	_ = c.Len()
	for range 2 {
		_ = c.SetWriteTimeout(0)
	}
	if n := d.count(); n != 1 {
		t.Errorf("a connection that was never used: %d dials", n)
	}

	d = dials{}
	end := make(chan struct{})
	c = d.byHand(t, tcpMode, rawServer(t, tcpMode, func(_ int, c *rawConn) {
		if _, _, err := c.request(); err == nil {
			c.send(noContent)
			<-end
			c.Close()
		}
	}))
	c.exchange(noContent)
	_ = c.SetWriteTimeout(0) // the next request begins
	close(end)
	d.stale(t)
	if err := c.SetWriteTimeout(0); err != nil || d.count() != 1 {
		t.Errorf("in the middle of a request: %v, %d dials", err, d.count())
	}
}

// The limit of reading holds for the connection that comes instead.
func TestRedialKeepsTheReadTimeout(t *testing.T) {
	eachMode(t, []mode{tcpMode, tlsMode}, func(t *testing.T, m mode) {
		needRedial(t, m)
		for name, set := range map[string]func(c network.Conn) error{
			"SetReadTimeout":  func(c network.Conn) error { return c.SetReadTimeout(200 * time.Millisecond) },
			"SetReadDeadline": func(c network.Conn) error { return c.SetReadDeadline(time.Now().Add(200 * time.Millisecond)) },
			"SetDeadline":     func(c network.Conn) error { return c.SetDeadline(time.Now().Add(200 * time.Millisecond)) },
		} {
			var d dials
			c := d.byHand(t, m, answering(t, m))
			c.exchange(noContent)
			d.stale(t)
			if err := set(c); err != nil {
				t.Fatal(err)
			}
			before := c.LocalAddr().String()
			if err := c.SetWriteTimeout(guard); err != nil || d.count() != 2 || c.LocalAddr().String() == before {
				t.Fatalf("%s: %v, %d dials, from %v and then %v", name, err, d.count(), before, c.LocalAddr())
			}
			if _, err := c.Peek(1); !errors.Is(err, os.ErrDeadlineExceeded) {
				t.Errorf("%s: %v", name, err)
			}
		}
	})
}

// What was put on by AddTLS may lie in a tunnel, which a dial would not make again.
func TestAddedTLSIsNotRedialled(t *testing.T) {
	t.Parallel()
	needRedial(t, tlsMode)
	var d dials
	addr := answering(t, tlsMode)
	dialer := hertznet.NewDialer(d.to(addr))
	plain, err := dialer.DialConnection("tcp", addr.String(), guard, nil)
	if err != nil {
		t.Fatal(err)
	}
	added, err := dialer.AddTLS(plain, tlsMode.clientTLS())
	if err != nil {
		t.Fatal(err)
	}
	c := byHand{added, t}
	defer c.Close()
	c.exchange(noContent)
	d.stale(t)
	if err := c.SetWriteTimeout(0); err != nil || d.count() != 1 {
		t.Errorf("%v, %d dials", err, d.count())
	}
}

// Close wins over a redial that is on its way, and nothing stays open. What may be
// called from any goroutine may be called meanwhile.
func TestCloseDuringARedial(t *testing.T) {
	eachMode(t, []mode{tcpMode, tlsMode}, func(t *testing.T, m mode) {
		needRedial(t, m)
		for _, closes := range []bool{false, true} {
			dialling, goOn := make(chan struct{}), make(chan struct{})
			d := dials{fail: func(_ context.Context, n int) error {
				if n > 0 {
					close(dialling)
					<-goOn
				}
				return nil
			}}
			c := d.byHand(t, m, answering(t, m))
			c.exchange(noContent)
			d.stale(t)
			set := make(chan error, 1)
			go func() { set <- c.SetWriteTimeout(0) }()
			receive(t, "the redial begins", dialling)
			var others sync.WaitGroup
			stop := make(chan struct{})
			for _, call := range []func(){
				func() { _ = c.LocalAddr() },
				func() { _ = c.RemoteAddr() },
				func() { _ = c.SetDeadline(time.Now().Add(guard)) },
				func() { _ = c.SetReadTimeout(guard) },
				func() { _ = c.SetWriteDeadline(time.Time{}) },
				func() {
					if s, ok := c.Conn.(network.ConnTLSer); ok {
						_ = s.ConnectionState()
					}
				},
			} {
				others.Go(func() {
					for {
						select {
						case <-stop:
							return
						default:
							call()
							runtime.Gosched()
						}
					}
				})
			}
			if closes {
				c.Close()
			}
			close(goOn)
			err := receive(t, "SetWriteTimeout", set)
			close(stop)
			others.Wait()
			switch {
			case !closes && (err != nil || d.open() != 1):
				t.Errorf("%v, %d connections are open", err, d.open())
			case closes && !errors.Is(err, net.ErrClosed):
				t.Errorf("after Close: %v", err)
			case closes && d.open() != 0:
				t.Errorf("%d connections are open after Close", d.open())
			}
			// A closed connection stays closed.
			_ = c.Close()
			if err := c.SetWriteTimeout(0); !errors.Is(err, net.ErrClosed) || d.count() != 2 {
				t.Errorf("%v, %d dials", err, d.count())
			}
		}
	})
}

// Goroutines share a pool that is emptied all the time, by the server and by
// CloseIdleConnections. A request may meet a close that was on its way; nothing else
// may go wrong, and none is sent twice.
func TestRedialByManyGoroutines(t *testing.T) {
	eachMode(t, []mode{tcpMode, tlsMode}, func(t *testing.T, m mode) {
		needRedial(t, m)
		var served, bad, good atomic.Int32
		addr := closing(t, m, &served)
		var d dials
		c := newClient(t, m, addr, d.dialer(addr), client.WithMaxConnsPerHost(4), client.WithMaxConnWaitTimeout(guard))
		var wg sync.WaitGroup
		for range 8 {
			wg.Go(func() {
				for i := range 50 {
					resp, err := attempt(c, "POST", m.url(addr), nil)
					switch {
					case err == nil && string(resp.Body()) == "ok":
						good.Add(1)
					case errors.Is(err, errs.ErrBadPoolConn):
						bad.Add(1)
					default:
						t.Errorf("%q, %v", resp.Body(), err)
					}
					if i%10 == 9 {
						c.CloseIdleConnections()
					}
				}
			})
		}
		wg.Wait()
		if served.Load() != good.Load() {
			t.Errorf("%d requests served, %d answers", served.Load(), good.Load())
		}
		if good.Load() == 0 {
			t.Error("nothing succeeded")
		}
		c.CloseIdleConnections()
		if n := d.open(); n != 0 {
			t.Errorf("%d connections are open", n)
		}
		t.Logf("%d answers on %d connections, %d POSTs met a close", good.Load(), d.count(), bad.Load())
	})
}
