package hertznet_test

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"net/http"
	"runtime"
	"strings"
	"sync"
	"testing"
	"time"
	"weak"

	"github.com/cloudwego/hertz/pkg/app"
	"github.com/cloudwego/hertz/pkg/app/server"
	"github.com/cloudwego/hertz/pkg/common/config"
	"github.com/cloudwego/hertz/pkg/network"
	"github.com/cloudwego/hertz/pkg/protocol"
	"github.com/cloudwego/hertz/pkg/protocol/sse"
	"github.com/cloudwego/hertz/pkg/protocol/suite"
	ours "github.com/hertznet/hertznet/network"
	"github.com/hertznet/hertznet/standard"
)

const (
	parkSoon = 5 * time.Millisecond
	// longGap is a gap in which a connection is parked, if it is ever to be.
	longGap = 10 * parkSoon
)

// waiting is the state in which a connection waits for long.
var waiting = func() standard.ConnState {
	if runtime.GOOS == "linux" {
		return standard.StateParked
	}
	return standard.StateIdle
}()

// parkSite is a server whose connections are parked soon, and watched.
type parkSite struct {
	*site
	mu                     sync.Mutex
	now                    map[ours.Conn]standard.ConnState
	opened, parked, closed int // how often
}

func (s *parkSite) tell(c ours.Conn, state standard.ConnState) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if _, known := s.now[c]; !known {
		s.opened++
	}
	s.now[c] = state
	switch state {
	case standard.StateParked:
		s.parked++
	case standard.StateClosed:
		s.closed++
		delete(s.now, c)
	}
}

func runPark(t testing.TB, m mode, after time.Duration, routes func(h *server.Hertz), opts ...config.Option) *parkSite {
	t.Helper()
	s := &parkSite{now: make(map[ours.Conn]standard.ConnState)}
	s.site = runWith(t, m, func(t *standard.Transporter) {
		t.ParkAfter, t.HandshakeTimeout, t.ConnState = after, guard, s.tell
	}, routes, opts...)
	return s
}

func echoBody(_ context.Context, ctx *app.RequestContext) {
	ctx.Response.SetBody(append([]byte(nil), ctx.Request.Body()...))
}

// waitParked waits until n connections, and no others, wait without a goroutine.
func (s *parkSite) waitParked(t testing.TB, n int) {
	t.Helper()
	eventually(t, fmt.Sprint(n, " connections are parked"), func() bool {
		s.mu.Lock()
		defer s.mu.Unlock()
		for _, state := range s.now {
			if state != waiting {
				return false
			}
		}
		return len(s.now) == n
	})
}

// waitGone waits until every connection has ended, and each once.
func (s *parkSite) waitGone(t testing.TB) {
	t.Helper()
	eventually(t, "every connection is closed", func() bool {
		s.mu.Lock()
		defer s.mu.Unlock()
		return len(s.now) == 0
	})
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.opened != s.closed {
		t.Errorf("%d connections came and %d went", s.opened, s.closed)
	}
}

func (s *parkSite) everParked() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.parked
}

func (s *parkSite) neverParked(t testing.TB) {
	t.Helper()
	if n := s.everParked(); n != 0 {
		t.Errorf("parked %d times", n)
	}
}

func (c *rawConn) post(path, body string) string {
	c.t.Helper()
	c.send(fmt.Sprintf("POST %s HTTP/1.1\r\nHost: x\r\nContent-Length: %d\r\n\r\n%s", path, len(body), body))
	resp, got := c.answer("POST")
	if resp.StatusCode != 200 {
		c.t.Fatalf("POST %s: status %d", path, resp.StatusCode)
	}
	return got
}

// A connection answers the same before and after it was parked, header by header, and
// the hooks' context reaches the handler as ever.
func TestParkedConnectionAnswersTheSame(t *testing.T) {
	eachMode(t, allModes, func(t *testing.T, m mode) {
		type key struct{}
		onConnect, id := connID()
		s := runPark(t, m, parkSoon, func(h *server.Hertz) {
			h.Use(id)
			h.GET("/", func(c context.Context, ctx *app.RequestContext) { ctx.String(200, "%v", c.Value(key{})) })
			h.POST("/", echoBody)
		}, onConnect, server.WithOnAccept(func(net.Conn) context.Context {
			return context.WithValue(context.Background(), key{}, "from OnAccept")
		}))
		c := s.raw(t)
		var first http.Header
		for round := range 4 { // one, and three after parking
			c.send("GET / HTTP/1.1\r\nHost: x\r\n\r\n")
			resp, body := c.answer("GET")
			resp.Header.Del("Date")
			if round == 0 {
				first = resp.Header
			}
			if body != "from OnAccept" || fmt.Sprint(resp.Header) != fmt.Sprint(first) || resp.Close || resp.StatusCode != 200 {
				t.Fatalf("round %d: %d %v %q, close %t; at first %v", round, resp.StatusCode, resp.Header, body, resp.Close, first)
			}
			body = string(pattern(10_000*round, round))
			if got := c.post("/", body); got != body {
				t.Fatalf("round %d: the echo differs", round)
			}
			s.waitParked(t, 1)
		}
		c.Close()
		s.waitGone(t)
	})
}

// S20: the idle time counts from the last answer, not from parking, and is as it was
// after a resume.
func TestParkedIdleTimeout(t *testing.T) {
	const after, idle = time.Second, 2 * time.Second
	eachMode(t, []mode{tcpMode, unixMode, tlsMode}, func(t *testing.T, m mode) {
		s := runPark(t, m, after, func(h *server.Hertz) { h.GET("/", text("")) }, server.WithIdleTimeout(idle))
		c := s.raw(t)
		for range 2 {
			c.get("/")
			s.waitParked(t, 1)
		}
		c.get("/")
		start := time.Now()
		c.atEnd()
		if d := time.Since(start); d < idle-100*time.Millisecond || d >= idle+after {
			t.Errorf("closed after %v, want %v", d, idle)
		}
		s.waitGone(t)
		if runtime.GOOS == "linux" && s.everParked() != 3 {
			t.Errorf("parked %d times, want 3", s.everParked())
		}
	})
}

// With an IdleTimeout that ends before a connection would be parked nothing is, and the
// connection is closed as ever.
func TestIdleTimeoutBeforeParking(t *testing.T) {
	t.Parallel()
	for _, idle := range []time.Duration{20 * time.Millisecond, 50 * time.Millisecond} {
		s := runPark(t, tcpMode, 64*50*time.Millisecond, func(h *server.Hertz) { h.GET("/", text("")) }, server.WithIdleTimeout(idle))
		c := s.raw(t)
		c.get("/")
		c.atEnd()
		s.waitGone(t)
		s.neverParked(t)
	}
}

// Without an idle timeout a connection stays parked.
func TestParkedWithoutIdleTimeout(t *testing.T) {
	t.Parallel()
	for _, idle := range []time.Duration{0, -1} {
		s := runPark(t, tcpMode, parkSoon, func(h *server.Hertz) { h.GET("/", text("here")) }, server.WithIdleTimeout(idle))
		c := s.raw(t)
		for range 3 {
			if got := c.get("/"); got != "here" {
				t.Fatalf("got %q", got)
			}
			s.waitParked(t, 1)
			time.Sleep(longGap)
		}
	}
}

// A hijacked connection is never parked, however long its new owner waits.
func TestHijackedConnectionIsNotParked(t *testing.T) {
	for _, idle := range []time.Duration{time.Minute, 0, -1} {
		for name, hijacker := range map[string]func(c network.Conn) ([]byte, error){
			"Read": func(c network.Conn) ([]byte, error) {
				b := make([]byte, 4)
				_, err := io.ReadFull(c, b)
				return b, err
			},
			"Peek": func(c network.Conn) ([]byte, error) { return c.Peek(4) },
			"Flush and Peek": func(c network.Conn) ([]byte, error) {
				_, _ = c.WriteBinary([]byte("hello"))
				if err := c.Flush(); err != nil {
					return nil, err
				}
				return c.Peek(4)
			},
		} {
			t.Run(fmt.Sprint(name, " ", idle), func(t *testing.T) {
				t.Parallel()
				s := runPark(t, tcpMode, parkSoon, func(h *server.Hertz) {
					h.GET("/", text(""))
					h.GET("/hijack", func(_ context.Context, ctx *app.RequestContext) {
						ctx.Hijack(func(c network.Conn) {
							for range 2 {
								b, err := hijacker(c)
								if err != nil {
									fmt.Fprintf(c, "failed: %v", err)
									return
								}
								fmt.Fprintf(c, "got %s", b)
								if c.Len() > 0 {
									_ = c.Skip(4)
								}
							}
						})
					})
				}, server.WithIdleTimeout(idle))
				c := s.raw(t)
				c.get("/")
				s.waitParked(t, 1)
				was := s.everParked()
				c.get("/hijack")
				for range 2 {
					if strings.HasPrefix(name, "Flush") {
						c.expect("hello")
					}
					time.Sleep(longGap)
					c.send("ping")
					c.expect("got ping")
				}
				c.atEnd()
				s.waitGone(t)
				if n := s.everParked(); n != was {
					t.Errorf("parked %d times more", n-was)
				}
			})
		}
	}
}

// A stream of events with long gaps is not idle.
func TestEventsWithGapsAreNotParked(t *testing.T) {
	eachMode(t, []mode{tcpMode, unixMode, tlsMode}, func(t *testing.T, m mode) {
		s := runPark(t, m, parkSoon, func(h *server.Hertz) {
			h.GET("/", func(_ context.Context, ctx *app.RequestContext) {
				w := sse.NewWriter(ctx)
				for i := range 3 {
					if err := w.WriteEvent(fmt.Sprint(i), "tick", []byte("x")); err != nil {
						t.Error(err)
					}
					time.Sleep(longGap)
				}
				_ = w.Close()
			})
		})
		c := s.raw(t)
		for range 2 {
			before := s.everParked()
			if body := c.get("/"); strings.Count(body, "event: tick") != 3 {
				t.Fatalf("got %q", body)
			}
			if n := s.everParked(); n != before {
				// The last chunk may be followed by parking before it is looked at.
				if n != before+1 {
					t.Errorf("parked %d times in a stream", n-before)
				}
			}
			s.waitParked(t, 1)
		}
	})
}

// A streamed body that its handler left unread is dropped before the connection is
// parked, and does not turn up in front of the next request.
func TestUnreadStreamedBodyAndParking(t *testing.T) {
	eachMode(t, []mode{tcpMode, unixMode, tlsMode}, func(t *testing.T, m mode) {
		s := runPark(t, m, parkSoon, func(h *server.Hertz) {
			h.POST("/", text("unread"))
			h.POST("/some", func(_ context.Context, ctx *app.RequestContext) {
				b := make([]byte, 10)
				n, _ := io.ReadFull(ctx.RequestBodyStream(), b)
				ctx.String(200, "%s", b[:n])
			})
		}, server.WithStreamBody(true))
		c := s.raw(t)
		body := strings.Repeat("0123456789", 10_000)
		for range 3 {
			if got := c.post("/", body); got != "unread" {
				t.Fatalf("got %q", got)
			}
			s.waitParked(t, 1)
			if got := c.post("/some", body); got != "0123456789" {
				t.Fatalf("got %q", got)
			}
			s.waitParked(t, 1)
			c.send("POST / HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n4\r\nabcd\r\n0\r\n\r\n")
			if _, got := c.answer("POST"); got != "unread" {
				t.Fatalf("got %q", got)
			}
			s.waitParked(t, 1)
		}
	})
}

// With H2C set the engine warns each time that it begins with a connection that has no
// HTTP/2 for it, and it would begin anew with each one that was parked: so none is, and the warning
// comes once for a connection, as on Hertz's own transports.
func TestH2CWarnsOncePerConnection(t *testing.T) {
	// Not parallel: the log is the whole process's.
	s := runPark(t, tcpMode, parkSoon, func(h *server.Hertz) { h.GET("/", text("ok")) },
		server.WithH2C(true), server.WithReadTimeout(guard), server.WithIdleTimeout(guard))
	before := logs.len()
	c := s.raw(t)
	for range 5 {
		c.get("/")
		time.Sleep(longGap)
	}
	warnings := 0
	for _, line := range logs.since(before) {
		if strings.Contains(line, "HTTP2 server is not loaded") {
			warnings++
		}
	}
	if warnings != 1 {
		t.Errorf("%d warnings for one connection", warnings)
	}
	s.neverParked(t)
}

// fakeH2 answers each line, and waits between them as Hertz's HTTP/1 server does, but
// for as many bytes as it likes.
type fakeH2 struct{}

func (fakeH2) New(suite.Core) (protocol.Server, error) { return fakeH2{}, nil }

func (fakeH2) Serve(_ context.Context, c network.Conn) error {
	for {
		_ = c.SetReadTimeout(guard)
		b, err := c.Peek(5)
		if err != nil {
			return nil
		}
		if _, err := c.WriteBinary(append([]byte("h2:"), b...)); err != nil {
			return err
		}
		_ = c.Skip(5)
		if err := c.Flush(); err != nil {
			return err
		}
	}
}

// A protocol that ALPN has chosen keeps its connection; HTTP/1 beside it is parked.
func TestALPNAndParking(t *testing.T) {
	t.Parallel()
	conf := alpnMode.serverTLS()
	conf.NextProtos = []string{"h2"}
	s := runPark(t, alpnMode, parkSoon, func(h *server.Hertz) {
		h.GET("/", text("h1"))
		h.AddProtocol("h2", fakeH2{})
	}, server.WithTLS(conf))
	cc := alpnMode.clientTLS()
	cc.NextProtos = []string{"h2"}
	h2 := tls.Client(s.dial(t), cc)
	for range 3 {
		if _, err := h2.Write([]byte("hello")); err != nil {
			t.Fatal(err)
		}
		b := make([]byte, 8)
		if _, err := io.ReadFull(h2, b); err != nil || string(b) != "h2:hello" {
			t.Fatalf("%q, %v", b, err)
		}
		time.Sleep(longGap)
	}
	s.neverParked(t)
	h2.Close()
	s.waitGone(t)

	c := s.raw(t)
	for range 3 {
		if p := c.Conn.(*tls.Conn).ConnectionState().NegotiatedProtocol; p != "http/1.1" {
			t.Fatalf("ALPN chose %q", p)
		}
		if got := c.get("/"); got != "h1" {
			t.Fatalf("got %q", got)
		}
		s.waitParked(t, 1)
	}
}

// Idling is not counted by tracers: a Start for each request, and one Finish more at
// most for each connection, as on Hertz's own transport.
func TestTracersAndIdling(t *testing.T) {
	t.Parallel()
	tracer := new(countingTracer)
	s := runPark(t, tcpMode, parkSoon, func(h *server.Hertz) { h.GET("/", text("")) }, server.WithTracer(tracer))
	c := s.raw(t)
	const requests = 4
	for range requests {
		c.get("/")
		time.Sleep(longGap)
	}
	c.Close()
	s.waitGone(t)
	if n := tracer.starts.Load(); n != requests {
		t.Errorf("%d requests were started, want %d", n, requests)
	}
	if n := tracer.finishes.Load(); n != requests && n != requests+1 {
		t.Errorf("%d requests were finished, want %d, or one more", n, requests)
	}
}

// SenseClientDisconnection watches requests of a connection that was parked, too.
func TestSenseClientDisconnectionAfterParking(t *testing.T) {
	eachMode(t, []mode{tcpMode, unixMode, tlsMode}, func(t *testing.T, m mode) {
		began, ended := make(chan struct{}), make(chan error, 1)
		s := runPark(t, m, parkSoon, func(h *server.Hertz) {
			h.GET("/", func(c context.Context, ctx *app.RequestContext) {
				if c.Err() != nil {
					t.Error("the context of a resumed request is done")
				}
				ctx.String(200, "ok")
			})
			h.GET("/wait", func(c context.Context, _ *app.RequestContext) {
				close(began)
				select {
				case <-c.Done():
					ended <- nil
				case <-time.After(guard):
					ended <- errors.New("the context is not cancelled")
				}
			})
		}, server.WithSenseClientDisconnection(true))
		c := s.raw(t)
		for range 3 {
			c.get("/")
			s.waitParked(t, 1)
		}
		c.send("GET /wait HTTP/1.1\r\nHost: x\r\n\r\n")
		<-began
		c.Close()
		if err := receive(t, "the handler's context is cancelled", ended); err != nil {
			t.Error(err)
		}
		s.waitGone(t)
	})
}

// A few bytes that are no request yet cost a parked connection nothing but its place:
// what follows is read with them, after however long.
func TestPiecesOfARequest(t *testing.T) {
	eachMode(t, []mode{tcpMode, unixMode, tlsMode}, func(t *testing.T, m mode) {
		s := runPark(t, m, parkSoon, func(h *server.Hertz) { h.POST("/", echoBody) })
		c := s.raw(t)
		const request = "POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 4\r\n\r\nbody"
		answer := func(what string) {
			t.Helper()
			if _, got := c.answer("POST"); got != "body" {
				t.Fatalf("%s: got %q", what, got)
			}
		}
		c.send(request)
		answer("first")
		for _, n := range []int{1, 3, 4, 10, len(request) - 1} {
			s.waitParked(t, 1)
			c.send(request[:n])
			time.Sleep(longGap)
			c.send(request[n:])
			answer(fmt.Sprint(n, " bytes while parked, then the rest"))

			c.send(request[:n]) // at once, while it is idle
			time.Sleep(longGap)
			c.send(request[n:])
			answer(fmt.Sprint(n, " bytes while idle, then the rest"))
		}
		s.waitParked(t, 1)
		for _, b := range []byte(request) {
			c.send(string(b))
			time.Sleep(time.Millisecond)
		}
		answer("byte by byte")
	})
}

// Hertz v0.10.4 answers a request with an empty line in front with 400, on its own
// transports too. Parking makes no difference.
func TestLineEndBeforeARequest(t *testing.T) {
	eachMode(t, []mode{tcpMode, unixMode, tlsMode}, func(t *testing.T, m mode) {
		s := runPark(t, m, parkSoon, func(h *server.Hertz) { h.GET("/", text("ok")) })
		const request = "GET / HTTP/1.1\r\nHost: x\r\n\r\n"
		for name, play := range map[string]func(c *rawConn){
			"at once":         func(c *rawConn) { c.send("\r\n" + request) },
			"while idle":      func(c *rawConn) { c.send("\r\n"); time.Sleep(longGap); c.send(request) },
			"while parked":    func(c *rawConn) { s.waitParked(t, 1); c.send("\r\n"); time.Sleep(longGap); c.send(request) },
			"with it, parked": func(c *rawConn) { s.waitParked(t, 1); c.send("\r\n" + request) },
		} {
			c := s.raw(t)
			c.get("/")
			play(c)
			if resp, _ := c.answer("GET"); resp.StatusCode != 400 || !resp.Close {
				t.Errorf("%s: status %d, close %t", name, resp.StatusCode, resp.Close)
			}
			c.atEnd()
			s.waitGone(t)
		}
	})
}

// Pipelined requests that arrive in the instant of parking are answered in order.
func TestPipelineInTheInstantOfParking(t *testing.T) {
	eachMode(t, []mode{tcpMode, unixMode, tlsMode}, func(t *testing.T, m mode) {
		const after = time.Millisecond
		s := runPark(t, m, after, func(h *server.Hertz) { h.POST("/", echoBody) })
		rounds := 300
		if testing.Short() {
			rounds = 50
		}
		r := rand.New(rand.NewPCG(3, 4))
		c := s.raw(t)
		for i := range rounds {
			pause(after/2 + time.Duration(r.Int64N(int64(after))))
			var all string
			for k := range 3 {
				all += fmt.Sprintf("POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 8\r\n\r\n%06d %d", i, k)
			}
			c.send(all)
			for k := range 3 {
				if _, got := c.answer("POST"); got != fmt.Sprintf("%06d %d", i, k) {
					t.Fatalf("round %d: answer %d is %q", i, k, got)
				}
			}
		}
		if runtime.GOOS == "linux" && s.everParked() == 0 {
			t.Error("never parked")
		}
	})
}

// TLS sessions are resumed as ever beside connections that are parked.
func TestSessionTicketsAndParking(t *testing.T) {
	t.Parallel()
	s := runPark(t, tlsMode, parkSoon, func(h *server.Hertz) { h.GET("/", text("ok")) })
	conf := tlsMode.clientTLS()
	conf.ClientSessionCache = tls.NewLRUClientSessionCache(10)
	for i := range 3 {
		tc := tls.Client(s.dial(t), conf)
		hc := &http.Client{Transport: &http.Transport{DialTLSContext: func(context.Context, string, string) (net.Conn, error) { return tc, nil }}}
		for range 3 {
			resp, err := hc.Get(s.url + "/")
			if err != nil {
				t.Fatal(err)
			}
			_, _ = io.Copy(io.Discard, resp.Body)
			resp.Body.Close()
			s.waitParked(t, i+1)
		}
		if got := tc.ConnectionState().DidResume; got != (i > 0) {
			t.Errorf("connection %d: resumed a session: %t", i, got)
		}
	}
}

// P3: a parked connection holds neither a goroutine nor a RequestContext. Where nothing
// can be parked, it holds no RequestContext all the same.
func TestParkedConnectionsHoldNothing(t *testing.T) {
	for _, m := range []mode{tcpMode, unixMode, tlsMode} {
		t.Run(m.name, func(t *testing.T) {
			const n = 100
			var mu sync.Mutex
			var contexts []weak.Pointer[app.RequestContext]
			s := runPark(t, m, parkSoon, func(h *server.Hertz) {
				h.GET("/", func(_ context.Context, ctx *app.RequestContext) {
					mu.Lock()
					contexts = append(contexts, weak.Make(ctx))
					mu.Unlock()
					ctx.String(200, "ok")
				})
			})
			first := s.raw(t)
			first.get("/") // the poller is there
			s.waitParked(t, 1)
			baseline := runtime.NumGoroutine()
			conns := make([]*rawConn, n)
			for i := range conns {
				conns[i] = s.raw(t)
				conns[i].get("/")
			}
			for range 2 {
				s.waitParked(t, n+1)
				if runtime.GOOS == "linux" {
					eventually(t, "the goroutines are gone", func() bool { return runtime.NumGoroutine() <= baseline+2 })
				}
				for _, c := range conns {
					c.get("/")
				}
			}
			s.waitParked(t, n+1)
			eventually(t, "no RequestContext is held", func() bool {
				runtime.GC()
				mu.Lock()
				defer mu.Unlock()
				for _, p := range contexts {
					if p.Value() != nil {
						return false
					}
				}
				return len(contexts) == 3*n+1
			})
			for _, c := range conns {
				c.get("/")
			}
		})
	}
}

// S20: a piece of a request does not keep a connection open beyond its idle time.
func TestPieceOfARequestAndSilence(t *testing.T) {
	eachMode(t, []mode{tcpMode, unixMode, tlsMode}, func(t *testing.T, m mode) {
		s := runPark(t, m, parkSoon, func(h *server.Hertz) { h.GET("/", text("ok")) },
			server.WithIdleTimeout(300*time.Millisecond))
		for _, parked := range []bool{false, true} {
			c := s.raw(t)
			c.get("/")
			if parked {
				s.waitParked(t, 1)
			}
			c.send("GE")
			if rest := c.atEnd(); rest != "" {
				t.Errorf("got %q", rest)
			}
			s.waitGone(t)
		}
	})
}
