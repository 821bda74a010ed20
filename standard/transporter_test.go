package standard

import (
	"bytes"
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"os"
	"runtime"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"github.com/hertznet/hertznet/network"
)

// server is a Transporter that serves for the time of a test.
type server struct {
	*Transporter
	addr   string
	served chan error // what Serve returned
}

// serve runs tr on a free port of the loopback interface.
func serve(t testing.TB, tr *Transporter, onData network.OnData) *server {
	t.Helper()
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	return serveOn(t, tr, ln, onData)
}

func serveOn(t testing.TB, tr *Transporter, ln net.Listener, onData network.OnData) *server {
	t.Helper()
	if tr.Logger == nil {
		tr.Logger = slog.New(slog.DiscardHandler)
	}
	s := &server{Transporter: tr, addr: ln.Addr().String(), served: make(chan error, 1)}
	go func() { s.served <- tr.Serve(ln, onData) }()
	settles(t, "listeners", 1, func() int { return one(tr.Listener() != nil) })
	t.Cleanup(func() { s.Close() })
	return s
}

// one counts a condition, for settles.
func one(ok bool) int {
	if ok {
		return 1
	}
	return 0
}

// close closes the server and waits for the last of its connections.
func (s *server) close(t testing.TB) {
	t.Helper()
	if err := s.Close(); err != nil {
		t.Errorf("Close: %v", err)
	}
	if err := <-s.served; err != nil {
		t.Errorf("Serve: %v", err)
	}
	settles(t, "connections", 0, s.open)
}

// open counts the connections that the transporter knows.
func (s *server) open() int { return openConns(s.Transporter) }

func openConns(tr *Transporter) int {
	tr.mu.Lock()
	defer tr.mu.Unlock()
	return len(tr.conns)
}

// inState counts the connections in a state.
func (s *server) inState(want connState) int {
	s.mu.Lock()
	defer s.mu.Unlock()
	n := 0
	for a := range s.conns {
		n += one(connState(a.state.Load()) == want)
	}
	return n
}

func (s *server) dial(t testing.TB) *Conn {
	t.Helper()
	nc, err := net.Dial("tcp", s.addr)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { nc.Close() })
	return NewConn(nc)
}

// answer ends a message of one line with another.
func answer(c network.Conn, text string) error {
	for n := 1; ; n++ {
		b, err := c.Peek(n)
		if err != nil {
			return err
		}
		if b[n-1] == '\n' {
			break
		}
	}
	if err := c.Skip(c.Len()); err != nil {
		return err
	}
	if err := c.Release(); err != nil {
		return err
	}
	if _, err := c.WriteBinary([]byte(text + "\n")); err != nil {
		return err
	}
	return c.Flush()
}

// echo sends back what is there.
func echo(_ context.Context, conn any) error {
	c := conn.(network.Conn)
	b, err := c.Peek(c.Len())
	if err != nil {
		return err
	}
	if _, err := c.WriteBinary(b); err != nil {
		return err
	}
	if err := c.Skip(len(b)); err != nil {
		return err
	}
	if err := c.Release(); err != nil {
		return err
	}
	return c.Flush()
}

// ask sends a line and returns the line that comes back.
func ask(t testing.TB, c network.Conn, text string) string {
	t.Helper()
	if _, err := c.WriteBinary([]byte(text + "\n")); err != nil {
		t.Fatal(err)
	}
	if err := c.Flush(); err != nil {
		t.Fatal(err)
	}
	return line(t, c)
}

// line reads a line.
func line(t testing.TB, c network.Conn) string {
	t.Helper()
	var text []byte
	for {
		b, err := c.ReadByte()
		if err != nil {
			t.Fatalf("after %q: %v", text, err)
		}
		if b == '\n' {
			return string(text)
		}
		text = append(text, b)
	}
}

// peerCloses fails the test unless the peer of c closes it within a few seconds.
func peerCloses(t testing.TB, c *Conn) {
	t.Helper()
	if err := c.SetReadTimeout(10 * time.Second); err != nil {
		t.Fatal(err)
	}
	if b, err := c.Peek(1); err == nil || isTimeout(err) {
		t.Errorf("the connection lives: Peek: %q, %v", b, err)
	}
}

// scriptListener is a listener whose Accept answers what a test puts in.
type scriptListener struct {
	answers chan accepting
	onClose func() error
	closed  chan struct{}
	closes  atomic.Int32
	accepts atomic.Int32
}

type accepting struct {
	conn net.Conn
	err  error
}

func newScriptListener(errs ...error) *scriptListener {
	ln := &scriptListener{answers: make(chan accepting, 1000), closed: make(chan struct{})}
	for _, err := range errs {
		ln.answers <- accepting{err: err}
	}
	return ln
}

// connect returns the client's end of a connection that Accept will return.
func (l *scriptListener) connect(t testing.TB) *Conn {
	a, b := net.Pipe()
	t.Cleanup(func() { a.Close(); b.Close() })
	l.answers <- accepting{conn: b}
	return NewConn(a)
}

func (l *scriptListener) Accept() (net.Conn, error) {
	l.accepts.Add(1)
	select {
	case a := <-l.answers:
		return a.conn, a.err
	default:
	}
	select {
	case a := <-l.answers:
		return a.conn, a.err
	case <-l.closed:
		return nil, acceptError(net.ErrClosed)
	}
}

func (l *scriptListener) Close() error {
	if l.closes.Add(1) > 1 {
		return acceptError(net.ErrClosed)
	}
	close(l.closed)
	if l.onClose != nil {
		return l.onClose()
	}
	return nil
}

func (l *scriptListener) Addr() net.Addr { return scriptAddr{} }

// acceptError wraps an error as package net does.
func acceptError(err error) error {
	if errno, ok := err.(syscall.Errno); ok {
		err = os.NewSyscallError("accept4", errno)
	}
	return &net.OpError{Op: "accept", Net: "tcp", Addr: scriptAddr{}, Err: err}
}

// logged is what a Transporter logged.
type logged struct {
	mu   sync.Mutex
	text bytes.Buffer
}

func (l *logged) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.text.Write(p)
}

func (l *logged) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.text.String()
}

func (l *logged) logger() *slog.Logger {
	return slog.New(slog.NewTextHandler(l, nil))
}

// "Listener returns nil before the listener is open and the listener from then on".
// Hertz takes nil for a server that is shutting down and answers with Connection: close.
func TestS1_Listener(t *testing.T) {
	tr := &Transporter{Addr: "127.0.0.1:0", Logger: slog.New(slog.DiscardHandler)}
	if ln := tr.Listener(); ln != nil {
		t.Errorf("before: %v", ln)
	}
	served := make(chan error, 1)
	inside := make(chan net.Listener, 1)
	go func() {
		served <- tr.ListenAndServe(func(_ context.Context, conn any) error {
			inside <- tr.Listener()
			return io.EOF
		})
	}()
	settles(t, "listeners", 1, func() int { return one(tr.Listener() != nil) })
	c, err := net.Dial("tcp", tr.Listener().Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	if _, err := c.Write([]byte("x")); err != nil {
		t.Fatal(err)
	}
	if ln := <-inside; ln == nil {
		t.Error("nil while OnData runs")
	}
	if err := tr.Close(); err != nil {
		t.Error(err)
	}
	if err := <-served; err != nil {
		t.Errorf("ListenAndServe: %v", err)
	}
}

// "OnData gets a Conn and a non-nil ctx", the one that the hooks made.
func TestS2_OnDataGetsAConnAndTheContext(t *testing.T) {
	type key string
	sc, cc := trustConfigs(t)
	for _, test := range []struct {
		name  string
		tls   bool
		hooks bool
	}{
		{"plain", false, false}, {"plain with hooks", false, true},
		{"TLS", true, false}, {"TLS with hooks", true, true},
	} {
		t.Run(test.name, func(t *testing.T) {
			tr := &Transporter{}
			var d Dialer
			var config *tls.Config
			if test.tls {
				tr.TLSConfig, config = sc, cc
			}
			if test.hooks {
				tr.OnAccept = func(net.Conn) context.Context {
					return context.WithValue(context.Background(), key("accept"), 1)
				}
				tr.OnConnect = func(ctx context.Context, _ network.Conn) context.Context {
					return context.WithValue(ctx, key("connect"), 2)
				}
			}
			s := serve(t, tr, func(ctx context.Context, conn any) error {
				if ctx == nil {
					t.Error("the context is nil")
				} else if test.hooks && (ctx.Value(key("accept")) != 1 || ctx.Value(key("connect")) != 2) {
					t.Errorf("the context is not the hooks': %v", ctx)
				}
				if _, ok := conn.(*TLSConn); ok != test.tls {
					t.Errorf("the connection is a %T", conn)
				}
				if _, ok := conn.(network.ConnTLSer); ok != test.tls {
					t.Errorf("the connection is a ConnTLSer: %v", ok)
				}
				return answer(conn.(network.Conn), "ok")
			})
			c, err := d.DialConnection("tcp", s.addr, time.Minute, config)
			if err != nil {
				t.Fatal(err)
			}
			defer c.Close()
			for range 2 { // a new call has the same context
				if got := ask(t, c, "?"); got != "ok" {
					t.Errorf("got %q", got)
				}
			}
		})
	}
}

// transients are the errors from which a Transporter has to recover.
var transients = []struct {
	name string
	err  error
}{
	{"EMFILE", syscall.EMFILE},
	{"ENFILE", syscall.ENFILE},
	{"ECONNABORTED", syscall.ECONNABORTED},
	{"ECONNRESET", syscall.ECONNRESET},
	{"EPROTO", syscall.EPROTO},
	{"EINTR", syscall.EINTR},
	{"ENOBUFS", syscall.ENOBUFS},
	{"ENOMEM", syscall.ENOMEM},
}

// "Transient errors back off from 5 ms to 1 s" and a success starts again at 5 ms.
func TestS3_TransientErrorsBackOffAndGoOn(t *testing.T) {
	for _, test := range transients {
		t.Run(test.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				const failures = 11
				var errs []error
				for range failures {
					errs = append(errs, acceptError(test.err))
				}
				ln := newScriptListener(errs...)
				c := ln.connect(t)
				ln.answers <- accepting{err: acceptError(test.err)}
				c2 := ln.connect(t)
				start := time.Now()
				var logs logged
				s := serveOn(t, &Transporter{Logger: logs.logger()}, ln, echo)
				if got := ask(t, c, "alive"); got != "alive" {
					t.Errorf("got %q", got)
				}
				// 5, 10, 20, 40, 80, 160, 320, 640 ms, and 1 s three times.
				want := 1275*time.Millisecond + 3*time.Second
				// One that stands in line for a backoff is asked for nothing in between.
				if got := time.Since(start).Truncate(5 * time.Millisecond); got != want {
					t.Errorf("%d failures took %v, want %v", failures, got, want)
				}
				start = time.Now()
				if got := ask(t, c2, "alive"); got != "alive" {
					t.Errorf("got %q", got)
				}
				if got := time.Since(start); got > 5*time.Millisecond {
					t.Errorf("the backoff after a success is %v", got)
				}
				if n := strings.Count(logs.String(), "accepting a connection failed"); n != failures+1 {
					t.Errorf("%d log entries for %d failures", n, failures+1)
				}
				s.close(t)
				if n := ln.closes.Load(); n != 1 {
					t.Errorf("the listener was closed %d times", n)
				}
			})
		})
	}
}

// Stopping ends a backoff at once.
func TestS3_StoppingEndsTheBackoff(t *testing.T) {
	for _, how := range []string{"Close", "Shutdown"} {
		t.Run(how, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				var errs []error
				for range 500 {
					errs = append(errs, acceptError(syscall.EMFILE))
				}
				ln := newScriptListener(errs...)
				s := serveOn(t, &Transporter{}, ln, echo)
				time.Sleep(10*time.Second + 500*time.Millisecond) // in the middle of a second
				before := ln.accepts.Load()
				start := time.Now()
				var err error
				if how == "Close" {
					err = s.Close()
				} else {
					err = s.Shutdown(t.Context())
				}
				if err != nil {
					t.Errorf("%s: %v", how, err)
				}
				if err := <-s.served; err != nil {
					t.Errorf("Serve: %v", err)
				}
				if got := time.Since(start); got != 0 {
					t.Errorf("it took %v", got)
				}
				if after := ln.accepts.Load(); after != before {
					t.Errorf("Accept was called %d more times", after-before)
				}
			})
		})
	}
}

// "A permanent error is returned, never a panic"; the connections that are there are
// served on, and can be shut down.
func TestS4_PermanentAcceptErrorIsReturned(t *testing.T) {
	for _, err := range []error{
		acceptError(syscall.EINVAL),
		acceptError(syscall.EBADF),
		acceptError(net.ErrClosed), // by somebody else than us
		errors.New("no more"),
		io.EOF,
	} {
		t.Run(err.Error(), func(t *testing.T) {
			ln := newScriptListener()
			var logs logged
			s := serveOn(t, &Transporter{Logger: logs.logger()}, ln, echo)
			c := ln.connect(t)
			if got := ask(t, c, "alive"); got != "alive" {
				t.Fatalf("got %q", got)
			}
			ln.answers <- accepting{err: err}
			if got := <-s.served; got != err {
				t.Errorf("Serve returned %v, want %v", got, err)
			}
			if n := ln.closes.Load(); n != 1 {
				t.Errorf("the listener was closed %d times", n)
			}
			if !strings.Contains(logs.String(), err.Error()) {
				t.Errorf("the reason was not logged: %s", logs.String())
			}
			if got := ask(t, c, "still alive"); got != "still alive" {
				t.Errorf("got %q", got)
			}
			if err := s.Shutdown(t.Context()); err != nil {
				t.Errorf("Shutdown afterwards: %v", err)
			}
			peerCloses(t, c)
		})
	}
}

// "Close may be called before, during and after serving", and so may Shutdown. Serving
// after it returns nil and listens on nothing.
func TestS5_Close(t *testing.T) {
	stops := map[string]func(*Transporter) error{
		"Close":    (*Transporter).Close,
		"Shutdown": func(tr *Transporter) error { return tr.Shutdown(context.Background()) },
	}
	for name, stop := range stops {
		t.Run(name+" before serving", func(t *testing.T) {
			accepted := false
			tr := &Transporter{Addr: "127.0.0.1:0", OnAccept: func(net.Conn) context.Context {
				accepted = true
				return nil
			}}
			for range 2 {
				if err := stop(tr); err != nil {
					t.Error(err)
				}
			}
			if err := tr.ListenAndServe(echo); err != nil {
				t.Errorf("ListenAndServe: %v", err)
			}
			ln := newScriptListener()
			ln.connect(t)
			if err := tr.Serve(ln, echo); err != nil {
				t.Errorf("Serve: %v", err)
			}
			if n := ln.closes.Load(); n != 1 {
				t.Errorf("the listener that came too late was closed %d times", n)
			}
			if accepted {
				t.Error("a connection was accepted")
			}
		})
		t.Run(name+" during and after", func(t *testing.T) {
			s := serve(t, &Transporter{}, echo)
			c := s.dial(t)
			if got := ask(t, c, "alive"); got != "alive" {
				t.Fatalf("got %q", got)
			}
			if err := stop(s.Transporter); err != nil {
				t.Error(err)
			}
			if err := <-s.served; err != nil {
				t.Errorf("Serve: %v", err)
			}
			peerCloses(t, c)
			if nc, err := net.Dial("tcp", s.addr); err == nil {
				nc.Close()
				t.Error("the port is still open")
			}
			for _, again := range stops {
				if err := again(s.Transporter); err != nil {
					t.Errorf("afterwards: %v", err)
				}
			}
			if err := s.Serve(newScriptListener(), echo); err != nil {
				t.Errorf("Serve afterwards: %v", err)
			}
		})
	}
}

// "Close closes every connection, whatever they are doing".
func TestS5_CloseReachesConnectionsInEveryState(t *testing.T) {
	sc, _ := trustConfigs(t)
	release := make(chan struct{})
	defer close(release)
	for _, test := range []struct {
		name  string
		state connState
		tls   bool
		send  string
	}{
		{"new", stateNew, false, ""},
		{"handshaking", stateHandshaking, true, ""},
		{"active", stateActive, false, "block\n"},
		{"idle", stateIdle, false, "x\n"},
	} {
		t.Run(test.name, func(t *testing.T) {
			tr := &Transporter{}
			if test.tls {
				tr.TLSConfig = sc
			}
			s := serve(t, tr, func(ctx context.Context, conn any) error {
				if b, _ := conn.(network.Conn).Peek(1); b[0] == 'b' {
					<-release
				}
				return echo(ctx, conn)
			})
			c := s.dial(t)
			if _, err := c.Write([]byte(test.send)); err != nil {
				t.Fatal(err)
			}
			settles(t, test.state.String(), 1, func() int { return s.inState(test.state) })
			if test.state == stateIdle {
				line(t, c)
			}
			if err := s.Close(); err != nil {
				t.Error(err)
			}
			peerCloses(t, c)
		})
	}
}

// "Shutdown closes idle conns at once": those that wait for OnData to be called again
// and those whose OnData says that it is between messages.
func TestS6_ShutdownClosesIdleConnectionsAtOnce(t *testing.T) {
	handlers := map[string]network.OnData{
		"OnData returned": echo,
		"SetIdle in OnData": func(ctx context.Context, conn any) error {
			c := conn.(*Conn)
			for {
				if err := echo(ctx, conn); err != nil {
					return err
				}
				c.SetIdle(true)
				_, err := c.Peek(1)
				if !c.SetIdle(false) {
					return net.ErrClosed
				}
				if err != nil {
					return err
				}
			}
		},
	}
	for name, onData := range handlers {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				ln := newScriptListener()
				s := serveOn(t, &Transporter{IdleTimeout: time.Hour}, ln, onData)
				var conns []*Conn
				for range 50 {
					c := ln.connect(t)
					for range 3 { // idle, active and idle again
						if got := ask(t, c, "alive"); got != "alive" {
							t.Fatalf("got %q", got)
						}
					}
					conns = append(conns, c)
				}
				synctest.Wait()
				if n := s.inState(stateIdle); n != len(conns) {
					t.Errorf("%d of %d connections are idle", n, len(conns))
				}
				start := time.Now()
				if err := s.Shutdown(t.Context()); err != nil {
					t.Error(err)
				}
				if got := time.Since(start); got != 0 {
					t.Errorf("Shutdown took %v", got)
				}
				for _, c := range conns {
					if _, err := c.Peek(1); err != io.EOF {
						t.Errorf("a client got %v, want io.EOF", err)
					}
				}
			})
		})
		t.Run(name+" over TCP", func(t *testing.T) {
			s := serve(t, &Transporter{}, onData)
			var conns []*Conn
			for range 20 {
				c := s.dial(t)
				if got := ask(t, c, "alive"); got != "alive" {
					t.Fatalf("got %q", got)
				}
				conns = append(conns, c)
			}
			ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
			defer cancel()
			if err := s.Shutdown(ctx); err != nil {
				t.Error(err)
			}
			for _, c := range conns {
				if _, err := c.Peek(1); err != io.EOF {
					t.Errorf("a client got %v, want io.EOF", err)
				}
			}
		})
	}
}

// "Shutdown waits for active ones": until the answer has gone out, and no longer.
func TestS6_ShutdownWaitsForActiveConnections(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ln := newScriptListener()
		s := serveOn(t, &Transporter{}, ln, func(_ context.Context, conn any) error {
			time.Sleep(3 * time.Second)
			return answer(conn.(network.Conn), "late")
		})
		c := ln.connect(t)
		got := make(chan string, 1)
		go func() { got <- ask(t, c, "slow") }()
		synctest.Wait()
		start := time.Now()
		if err := s.Shutdown(t.Context()); err != nil {
			t.Error(err)
		}
		if d := time.Since(start); d != 3*time.Second {
			t.Errorf("Shutdown took %v, want 3s", d)
		}
		if a := <-got; a != "late" {
			t.Errorf("the answer is %q", a)
		}
		if _, err := c.Peek(1); err != io.EOF {
			t.Errorf("after the answer: %v", err)
		}
	})
}

// A handler that turns idle after Shutdown began is closed then, and told so.
func TestS6_TurningIdleDuringShutdown(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ln := newScriptListener()
		idle := make(chan bool, 2)
		s := serveOn(t, &Transporter{}, ln, func(_ context.Context, conn any) error {
			c := conn.(*Conn)
			time.Sleep(time.Second)
			idle <- c.SetIdle(true)
			idle <- c.SetIdle(false)
			_, err := c.Peek(10)
			return err
		})
		c := ln.connect(t)
		if _, err := c.Write([]byte("x")); err != nil {
			t.Fatal(err)
		}
		synctest.Wait()
		start := time.Now()
		if err := s.Shutdown(t.Context()); err != nil {
			t.Error(err)
		}
		if d := time.Since(start); d != time.Second {
			t.Errorf("Shutdown took %v, want 1s", d)
		}
		if first, second := <-idle, <-idle; first || second {
			t.Errorf("SetIdle reported an open connection: %v, %v", first, second)
		}
	})
}

// A message that is buffered when Shutdown begins is answered: its connection is not
// idle.
func TestS6_ShutdownAnswersBufferedMessages(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ln := newScriptListener()
		s := serveOn(t, &Transporter{}, ln, func(_ context.Context, conn any) error {
			c := conn.(*Conn)
			b, err := c.ReadBinary(2)
			if err != nil {
				return err
			}
			time.Sleep(time.Second)
			_, err = c.Write(b)
			return err
		})
		c := ln.connect(t)
		if _, err := c.Write([]byte("1\n2\n3\n")); err != nil {
			t.Fatal(err)
		}
		synctest.Wait()
		done := make(chan error, 1)
		go func() { done <- s.Shutdown(t.Context()) }()
		if got, err := c.ReadBinary(6); string(got) != "1\n2\n3\n" {
			t.Errorf("got %q, %v", got, err)
		}
		if err := <-done; err != nil {
			t.Error(err)
		}
	})
}

// A connection that has not sent a byte yet gets a moment: its first request may be on
// its way. One whose request comes in that time is served.
func TestS6_NewConnectionsGetAShortGrace(t *testing.T) {
	t.Run("silent", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			ln := newScriptListener()
			s := serveOn(t, &Transporter{}, ln, echo)
			c := ln.connect(t)
			synctest.Wait()
			start := time.Now()
			if err := s.Shutdown(t.Context()); err != nil {
				t.Error(err)
			}
			if got := time.Since(start); got != newGrace {
				t.Errorf("Shutdown took %v, want %v", got, newGrace)
			}
			if _, err := c.Peek(1); err != io.EOF {
				t.Errorf("the client got %v", err)
			}
		})
	})
	t.Run("handshake", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			sc, _ := trustConfigs(t)
			ln := newScriptListener()
			s := serveOn(t, &Transporter{TLSConfig: sc}, ln, echo)
			ln.connect(t)
			synctest.Wait()
			start := time.Now()
			if err := s.Shutdown(t.Context()); err != nil {
				t.Error(err)
			}
			if got := time.Since(start); got != newGrace {
				t.Errorf("Shutdown took %v, want %v", got, newGrace)
			}
		})
	})
	t.Run("in time", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			ln := newScriptListener()
			s := serveOn(t, &Transporter{}, ln, func(_ context.Context, conn any) error {
				time.Sleep(time.Second) // longer than the grace
				return answer(conn.(network.Conn), "served")
			})
			c := ln.connect(t)
			synctest.Wait()
			start := time.Now()
			done := make(chan error, 1)
			go func() { done <- s.Shutdown(t.Context()) }()
			time.Sleep(newGrace / 2)
			if got := ask(t, c, "?"); got != "served" {
				t.Errorf("got %q", got)
			}
			if err := <-done; err != nil {
				t.Error(err)
			}
			if got, want := time.Since(start), newGrace/2+time.Second; got != want {
				t.Errorf("Shutdown took %v, want %v", got, want)
			}
		})
	})
}

// "At expiry exactly ctx.Err()", which Hertz compares with !=, and what is left is closed.
func TestS7_ShutdownAtExpiry(t *testing.T) {
	for _, test := range []struct {
		name string
		ctx  func(context.Context) (context.Context, context.CancelFunc)
		want error
		took time.Duration
	}{
		{"timeout", func(ctx context.Context) (context.Context, context.CancelFunc) {
			return context.WithTimeout(ctx, 2*time.Second)
		}, context.DeadlineExceeded, 2 * time.Second},
		{"cancel", func(ctx context.Context) (context.Context, context.CancelFunc) {
			ctx, cancel := context.WithCancelCause(ctx)
			time.AfterFunc(time.Second, func() { cancel(errors.New("another reason")) })
			return ctx, func() { cancel(nil) }
		}, context.Canceled, time.Second},
		{"already over", func(ctx context.Context) (context.Context, context.CancelFunc) {
			ctx, cancel := context.WithCancel(ctx)
			cancel()
			return ctx, cancel
		}, context.Canceled, 0},
	} {
		t.Run(test.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				ln := newScriptListener()
				ended := make(chan error, 1)
				s := serveOn(t, &Transporter{}, ln, func(_ context.Context, conn any) error {
					_, err := conn.(network.Conn).Peek(10)
					ended <- err
					return err
				})
				c := ln.connect(t)
				if _, err := c.Write([]byte("x")); err != nil {
					t.Fatal(err)
				}
				synctest.Wait()
				ctx, cancel := test.ctx(t.Context())
				defer cancel()
				start := time.Now()
				if err := s.Shutdown(ctx); err != test.want {
					t.Errorf("got %v, want %v by ==", err, test.want)
				}
				if got := time.Since(start); got != test.took {
					t.Errorf("it took %v, want %v", got, test.took)
				}
				if err := <-ended; !errors.Is(err, net.ErrClosed) {
					t.Errorf("the handler got %v, want net.ErrClosed", err)
				}
				if _, err := c.Peek(1); err != io.EOF {
					t.Errorf("the client got %v", err)
				}
				synctest.Wait()
				if n := s.open(); n != 0 {
					t.Errorf("%d connections are left", n)
				}
			})
		})
	}
}

// "Shutdown twice, concurrently", and beside Close: each returns when all is over.
func TestS8_ShutdownTwiceAndConcurrently(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ln := newScriptListener()
		s := serveOn(t, &Transporter{}, ln, func(_ context.Context, conn any) error {
			time.Sleep(time.Second)
			return io.EOF
		})
		c := ln.connect(t)
		if _, err := c.Write([]byte("x")); err != nil {
			t.Fatal(err)
		}
		synctest.Wait()
		start := time.Now()
		var wg sync.WaitGroup
		for range 8 {
			wg.Go(func() {
				if err := s.Shutdown(t.Context()); err != nil {
					t.Errorf("Shutdown: %v", err)
				}
				if got := time.Since(start); got != time.Second {
					t.Errorf("Shutdown took %v, want 1s", got)
				}
			})
		}
		// One whose time is over does not end the others' wait before the connections end.
		wg.Go(func() {
			ctx, cancel := context.WithTimeout(t.Context(), 500*time.Millisecond)
			defer cancel()
			_ = s.Shutdown(ctx)
		})
		wg.Wait()
		if err := s.Shutdown(t.Context()); err != nil {
			t.Errorf("afterwards: %v", err)
		}
		if err := s.Close(); err != nil {
			t.Errorf("Close afterwards: %v", err)
		}
		if err := <-s.served; err != nil {
			t.Errorf("Serve: %v", err)
		}
	})
}

// "The listener is closed once", and its error comes out of the call that closed it.
func TestS9_ListenerIsClosedOnce(t *testing.T) {
	t.Run("many stops", func(t *testing.T) {
		ln := newScriptListener()
		s := serveOn(t, &Transporter{}, ln, echo)
		var wg sync.WaitGroup
		for range 8 {
			wg.Go(func() {
				if err := s.Close(); err != nil {
					t.Errorf("Close: %v", err)
				}
			})
			wg.Go(func() {
				if err := s.Shutdown(t.Context()); err != nil {
					t.Errorf("Shutdown: %v", err)
				}
			})
		}
		wg.Wait()
		if err := <-s.served; err != nil {
			t.Errorf("Serve: %v", err)
		}
		if n := ln.closes.Load(); n != 1 {
			t.Errorf("closed %d times", n)
		}
	})
	for name, stop := range map[string]func(*Transporter) error{
		"error of Close":    (*Transporter).Close,
		"error of Shutdown": func(tr *Transporter) error { return tr.Shutdown(context.Background()) },
	} {
		t.Run(name, func(t *testing.T) {
			ln := newScriptListener()
			want := errors.New("cannot close")
			ln.onClose = func() error { return want }
			s := serveOn(t, &Transporter{}, ln, echo)
			if err := stop(s.Transporter); err != want {
				t.Errorf("got %v, want %v", err, want)
			}
			if err := <-s.served; err != nil {
				t.Errorf("Serve: %v", err)
			}
			if n := ln.closes.Load(); n != 1 {
				t.Errorf("closed %d times", n)
			}
		})
	}
	t.Run("without OnData", func(t *testing.T) {
		ln := newScriptListener()
		if err := new(Transporter).Serve(ln, nil); err == nil {
			t.Error("no error")
		}
		if n := ln.closes.Load(); n != 1 {
			t.Errorf("closed %d times", n)
		}
	})
	t.Run("a second Serve", func(t *testing.T) {
		s := serve(t, &Transporter{}, echo)
		ln := newScriptListener()
		if err := s.Serve(ln, echo); err == nil {
			t.Error("no error")
		}
		if n := ln.closes.Load(); n != 1 {
			t.Errorf("closed %d times", n)
		}
		if got := ask(t, s.dial(t), "alive"); got != "alive" {
			t.Errorf("the first one serves no more: %q", got)
		}
	})
}

// "A panic in OnData is logged and closes that conn only"; so does one in a hook, and a
// handler that ends its goroutine.
func TestS10_PanicClosesThatConnectionOnly(t *testing.T) {
	var logs logged
	var where atomic.Value
	where.Store("")
	blow := func(place string) {
		if where.Load() == place {
			panic("blown in " + place)
		}
	}
	s := serve(t, &Transporter{
		Logger: logs.logger(),
		OnAccept: func(net.Conn) context.Context {
			blow("OnAccept")
			return nil
		},
		OnConnect: func(context.Context, network.Conn) context.Context {
			blow("OnConnect")
			return nil
		},
	}, func(ctx context.Context, conn any) error {
		blow("OnData")
		if where.Load() == "Goexit" {
			runtime.Goexit()
		}
		return echo(ctx, conn)
	})
	other := s.dial(t)
	if got := ask(t, other, "alive"); got != "alive" {
		t.Fatalf("got %q", got)
	}
	for _, place := range []string{"OnAccept", "OnConnect", "OnData", "Goexit"} {
		where.Store(place)
		c := s.dial(t)
		// The server may be gone before the byte comes.
		_, _ = c.Write([]byte("x\n"))
		peerCloses(t, c)
		settles(t, "connections", 1, s.open)
		where.Store("")
		if place != "Goexit" && (!strings.Contains(logs.String(), "blown in "+place) || !strings.Contains(logs.String(), "TestS10")) {
			t.Errorf("%s: the panic and its stack are not in the log:\n%s", place, logs.String())
		}
		if got := ask(t, other, "alive"); got != "alive" {
			t.Errorf("%s: the other connection: %q", place, got)
		}
		fresh := s.dial(t)
		if got := ask(t, fresh, "alive"); got != "alive" {
			t.Errorf("%s: a new connection: %q", place, got)
		}
		fresh.Close()
		settles(t, "connections", 1, s.open)
	}
	if n := strings.Count(logs.String(), "level=ERROR"); n != 3 {
		t.Errorf("%d entries of errors, want 3:\n%s", n, logs.String())
	}
}

// "A slow hook or handshake does not hold up Accept": others are served meanwhile.
func TestS11_SlowConnectionsDoNotHoldUpAccept(t *testing.T) {
	sc, cc := trustConfigs(t)
	for _, place := range []string{"OnAccept", "OnConnect", "OnData", "handshake"} {
		t.Run(place, func(t *testing.T) {
			release := make(chan struct{})
			defer close(release)
			var first atomic.Pointer[string]
			entered := make(chan struct{}, 100)
			slow := func(at, remote string) {
				if at == place && first.CompareAndSwap(nil, &remote) || at == place && *first.Load() == remote {
					entered <- struct{}{}
					<-release
				}
			}
			tr := &Transporter{
				OnAccept: func(c net.Conn) context.Context {
					slow("OnAccept", c.RemoteAddr().String())
					return nil
				},
				OnConnect: func(_ context.Context, c network.Conn) context.Context {
					slow("OnConnect", c.RemoteAddr().String())
					return nil
				},
			}
			var config *tls.Config
			if place == "handshake" {
				tr.TLSConfig, config = sc, cc
			}
			s := serve(t, tr, func(ctx context.Context, conn any) error {
				slow("OnData", conn.(network.Conn).RemoteAddr().String())
				return echo(ctx, conn)
			})
			stuck := s.dial(t)
			if place == "handshake" {
				settles(t, "handshakes", 1, func() int { return s.inState(stateHandshaking) })
			} else {
				if _, err := stuck.Write([]byte("x\n")); err != nil {
					t.Fatal(err)
				}
				<-entered
			}
			var d Dialer
			for range 5 {
				c, err := d.DialConnection("tcp", s.addr, 30*time.Second, config)
				if err != nil {
					t.Fatal(err)
				}
				if err := c.SetReadTimeout(30 * time.Second); err != nil {
					t.Fatal(err)
				}
				if got := ask(t, c, "alive"); got != "alive" {
					t.Errorf("got %q", got)
				}
				c.Close()
			}
		})
	}
}

// "OnAccept before TLS, OnConnect after the handshake", both before OnData; the first
// gets what was accepted, the second what OnData gets.
func TestS12_OrderOfTheHooks(t *testing.T) {
	var mu sync.Mutex
	var order []string
	note := func(what string) {
		mu.Lock()
		order = append(order, what)
		mu.Unlock()
	}
	sc, cc := trustConfigs(t)
	sc.GetConfigForClient = func(*tls.ClientHelloInfo) (*tls.Config, error) {
		note("hello")
		return nil, nil
	}
	hold := make(chan struct{})
	var connected network.Conn
	s := serve(t, &Transporter{
		TLSConfig: sc,
		OnAccept: func(c net.Conn) context.Context {
			<-hold
			if _, ok := c.(*net.TCPConn); !ok {
				t.Errorf("OnAccept got a %T", c)
			}
			note("accept")
			return nil
		},
		OnConnect: func(_ context.Context, c network.Conn) context.Context {
			note("connect")
			connected = c
			if s := c.(network.ConnTLSer).ConnectionState(); !s.HandshakeComplete {
				t.Error("OnConnect before the handshake is complete")
			}
			return nil
		},
	}, func(_ context.Context, conn any) error {
		note("data")
		if conn != any(connected) {
			t.Error("OnConnect and OnData got different connections")
		}
		return answer(conn.(network.Conn), "ok")
	})
	go func() {
		// The client's hello is there before OnAccept returns.
		time.Sleep(20 * time.Millisecond)
		close(hold)
	}()
	c, err := new(Dialer).DialConnection("tcp", s.addr, time.Minute, cc)
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	for range 2 {
		if got := ask(t, c, "?"); got != "ok" {
			t.Errorf("got %q", got)
		}
	}
	mu.Lock()
	defer mu.Unlock()
	if want := []string{"accept", "hello", "connect", "data", "data"}; !slices.Equal(order, want) {
		t.Errorf("got %v, want %v", order, want)
	}
}

// A handshake that fails is reported before the connection is closed, can be answered in
// plain text, and calls neither OnConnect nor OnData.
func TestS12_FailedHandshake(t *testing.T) {
	sc, _ := trustConfigs(t)
	failed := make(chan error, 1)
	s := serve(t, &Transporter{
		TLSConfig: sc,
		OnConnect: func(context.Context, network.Conn) context.Context {
			t.Error("OnConnect was called")
			return nil
		},
		OnHandshakeError: func(_ net.Conn, err error) {
			if re, ok := err.(tls.RecordHeaderError); ok && re.Conn != nil {
				_, _ = io.WriteString(re.Conn, "this is a TLS port\n")
			}
			failed <- err
		},
	}, func(context.Context, any) error {
		t.Error("OnData was called")
		return nil
	})
	c := s.dial(t)
	// As much as the record header that the server looks at: unread bytes would reset the connection.
	if _, err := c.Write([]byte("GET /")); err != nil {
		t.Fatal(err)
	}
	if got := line(t, c); got != "this is a TLS port" {
		t.Errorf("got %q", got)
	}
	if err := <-failed; err == nil {
		t.Error("no error")
	}
	peerCloses(t, c)
}

// "Closing the connection refuses it": nothing more is called for it.
func TestS12_OnAcceptRefuses(t *testing.T) {
	sc, _ := trustConfigs(t)
	for name, config := range map[string]*tls.Config{"plain": nil, "TLS": sc} {
		t.Run(name, func(t *testing.T) {
			s := serve(t, &Transporter{
				TLSConfig: config,
				OnAccept: func(c net.Conn) context.Context {
					c.Close()
					return nil
				},
				OnConnect: func(context.Context, network.Conn) context.Context {
					t.Error("OnConnect was called")
					return nil
				},
				OnHandshakeError: func(net.Conn, error) { t.Error("OnHandshakeError was called") },
			}, func(context.Context, any) error {
				t.Error("OnData was called")
				return nil
			})
			peerCloses(t, s.dial(t))
			settles(t, "connections", 0, s.open)
		})
	}
}

// "A nil ctx from a hook": OnAccept's is context.Background(), OnConnect's leaves what
// was there.
func TestS13_NilContextFromAHook(t *testing.T) {
	type key struct{}
	for _, test := range []struct {
		name   string
		accept context.Context
		want   any
	}{
		{"both nil", nil, nil},
		{"OnConnect's nil", context.WithValue(context.Background(), key{}, "accept"), "accept"},
	} {
		t.Run(test.name, func(t *testing.T) {
			s := serve(t, &Transporter{
				OnAccept: func(net.Conn) context.Context { return test.accept },
				OnConnect: func(ctx context.Context, _ network.Conn) context.Context {
					if ctx == nil {
						t.Error("OnConnect got a nil context")
					}
					return nil
				},
			}, func(ctx context.Context, conn any) error {
				if ctx == nil {
					t.Error("OnData got a nil context")
				} else if got := ctx.Value(key{}); got != test.want {
					t.Errorf("OnData's context has %v, want %v", got, test.want)
				}
				return echo(ctx, conn)
			})
			if got := ask(t, s.dial(t), "alive"); got != "alive" {
				t.Errorf("got %q", got)
			}
		})
	}
}

// "Ten thousand connects return to the baseline": goroutines, descriptors, blocks of
// memory and the transporter's own table, however the connections end.
func TestS14_ManyConnectsReturnToTheBaseline(t *testing.T) {
	total := 10_000
	if testing.Short() || underRace {
		total = 1000
	}
	sc, cc := trustConfigs(t)
	plain := serve(t, &Transporter{}, echo)
	secure := serve(t, &Transporter{TLSConfig: sc, HandshakeTimeout: time.Minute}, echo)
	fds := openDescriptors()
	goroutines, blocks := runtime.NumGoroutine(), outstanding.Load()

	var next, failed atomic.Int64
	var wg sync.WaitGroup
	for range 16 {
		wg.Go(func() {
			for {
				i := next.Add(1)
				if i > int64(total) {
					return
				}
				if err := connectOnce(int(i), plain.addr, secure.addr, cc); err != nil && failed.Add(1) < 5 {
					t.Errorf("connection %d: %v", i, err)
				}
			}
		})
	}
	wg.Wait()
	above := func(base int, f func() int) func() int {
		return func() int { return max(f()-base, 0) }
	}
	settles(t, "plain connections", 0, plain.open)
	settles(t, "TLS connections", 0, secure.open)
	settles(t, "goroutines above the baseline", 0, above(goroutines, runtime.NumGoroutine))
	settles(t, "descriptors above the baseline", 0, above(fds, openDescriptors))
	settles(t, "blocks above the baseline", 0, above(int(blocks), func() int { return int(outstanding.Load()) }))
}

// connectOnce makes one connection of many, each in another manner.
func connectOnce(i int, plain, secure string, config *tls.Config) error {
	var d Dialer
	addr := plain
	if i%16 < 2 {
		addr = secure
	} else {
		config = nil
	}
	if i%16 == 1 { // a stalled handshake
		config = nil
	}
	c, err := d.DialConnection("tcp", addr, 30*time.Second, config)
	if err != nil {
		return err
	}
	defer c.Close()
	if nc, ok := c.(interface{ NetConn() net.Conn }).NetConn().(*net.TCPConn); ok {
		nc.SetLinger(0) // many tests in a row would run out of ports
	}
	if i%16 == 1 || i%4 == 3 { // leaves without a word
		return nil
	}
	if _, err := c.Write([]byte("hello")); err != nil {
		return err
	}
	if i%4 == 2 { // leaves before the answer
		return nil
	}
	if _, err := c.ReadBinary(5); err != nil {
		return err
	}
	return c.Release()
}

// openDescriptors counts the process's open files where the system tells, else 0.
func openDescriptors() int {
	dir, err := os.Open("/proc/self/fd")
	if err != nil {
		return 0
	}
	defer dir.Close()
	names, _ := dir.Readdirnames(-1)
	return len(names)
}

// "Accept racing Shutdown": a connection is served or closed, and never left behind.
func TestS16_AcceptRacingShutdown(t *testing.T) {
	t.Run("a last connection from Close", func(t *testing.T) {
		// The listener gives out one more connection while it is being closed.
		for _, how := range []string{"Close", "Shutdown"} {
			ln := newScriptListener()
			var last *Conn
			ln.onClose = func() error {
				last = ln.connect(t)
				return nil
			}
			s := serveOn(t, &Transporter{OnAccept: func(net.Conn) context.Context {
				t.Error("it was accepted")
				return nil
			}}, ln, echo)
			if how == "Close" {
				s.Close()
			} else if err := s.Shutdown(t.Context()); err != nil {
				t.Error(err)
			}
			if err := <-s.served; err != nil {
				t.Errorf("Serve: %v", err)
			}
			// Accept may have seen the closed listener first; then nobody owns it.
			if len(ln.answers) == 0 {
				peerCloses(t, last)
			}
			if n := s.open(); n != 0 {
				t.Errorf("%d connections", n)
			}
		}
	})
	t.Run("over TCP", func(t *testing.T) {
		rounds := 15
		if testing.Short() {
			rounds = 5
		}
		for range rounds {
			s := serve(t, &Transporter{}, echo)
			var wg sync.WaitGroup
			var served atomic.Int32
			for range 8 {
				wg.Go(func() {
					for {
						nc, err := net.Dial("tcp", s.addr)
						if err != nil {
							return // the listener is closed
						}
						nc.(*net.TCPConn).SetLinger(0)
						nc.SetDeadline(time.Now().Add(30 * time.Second))
						_, _ = nc.Write([]byte("x"))
						_, err = nc.Read(make([]byte, 1))
						if isTimeout(err) {
							t.Error("a connection was left behind")
						} else if err == nil {
							served.Add(1)
						}
						nc.Close()
					}
				})
			}
			settles(t, "served", 1, func() int { return min(int(served.Load()), 1) })
			if err := s.Shutdown(t.Context()); err != nil {
				t.Error(err)
			}
			if n := s.open(); n != 0 {
				t.Errorf("%d connections after Shutdown", n)
			}
			wg.Wait()
			if err := <-s.served; err != nil {
				t.Errorf("Serve: %v", err)
			}
		}
	})
}

// "A silent first connection and a stalled handshake are closed at the read timeout".
func TestS18_SilentConnectionsAreClosed(t *testing.T) {
	const limit = 3 * time.Second
	for _, test := range []struct {
		name      string
		tr        *Transporter
		tls, drip bool
		want      time.Duration
	}{
		{"silent", &Transporter{ReadTimeout: limit, IdleTimeout: time.Hour}, false, false, limit},
		{"silent handshake", &Transporter{ReadTimeout: limit}, true, false, limit},
		{"dripping handshake", &Transporter{ReadTimeout: limit}, true, true, limit},
		{"handshake timeout", &Transporter{ReadTimeout: time.Hour, HandshakeTimeout: limit}, true, true, limit},
		{"default handshake timeout", &Transporter{}, true, false, DefaultHandshakeTimeout},
	} {
		t.Run(test.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				tr := test.tr
				if test.tls {
					tr.TLSConfig, _ = trustConfigs(t)
				}
				ln := newScriptListener()
				s := serveOn(t, tr, ln, func(context.Context, any) error {
					t.Error("OnData was called")
					return nil
				})
				start := time.Now()
				c := ln.connect(t)
				var wg sync.WaitGroup
				defer wg.Wait()
				if test.drip {
					wg.Go(func() {
						for _, b := range []byte{22, 3, 1, 1, 0} { // a record that never gets whole
							if _, err := c.Write([]byte{b}); err != nil {
								return
							}
							time.Sleep(time.Second)
						}
					})
				}
				if _, err := c.Peek(1); err != io.EOF {
					t.Errorf("the client got %v", err)
				}
				if got := time.Since(start); got != test.want {
					t.Errorf("closed after %v, want %v", got, test.want)
				}
				synctest.Wait()
				if n := s.open(); n != 0 {
					t.Errorf("%d connections are left", n)
				}
			})
		})
	}
}

// The read timeout is that of each operation in OnData, and begins anew after a handshake.
func TestS18_ReadTimeoutInOnData(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		sc, cc := trustConfigs(t)
		sc.SessionTicketsDisabled = true
		ln := newScriptListener()
		ended := make(chan time.Time, 1)
		s := serveOn(t, &Transporter{TLSConfig: sc, ReadTimeout: 3 * time.Second, IdleTimeout: time.Hour}, ln,
			func(_ context.Context, conn any) error {
				_, err := conn.(network.Conn).Peek(10)
				isTimeoutShape(t, err)
				ended <- time.Now()
				return err
			})
		c, err := new(Dialer).AddTLS(ln.connect(t), withName(cc))
		if err != nil {
			t.Fatal(err)
		}
		time.Sleep(2 * time.Second)
		if _, err := c.Write([]byte("x")); err != nil {
			t.Fatal(err)
		}
		start := time.Now()
		if got := (<-ended).Sub(start); got != 3*time.Second {
			t.Errorf("the operation ended after %v, want 3s", got)
		}
		go func() { _, _ = c.Peek(1) }() // takes the close_notify
		s.close(t)
	})
}

// It is so in every call, whatever the handler or the idle wait left set.
func TestS18_ReadTimeoutInEveryCall(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ln := newScriptListener()
		took := make(chan time.Duration, 1)
		s := serveOn(t, &Transporter{ReadTimeout: 3 * time.Second, IdleTimeout: time.Hour}, ln,
			func(ctx context.Context, conn any) error {
				c := conn.(network.Conn)
				if b, _ := c.Peek(1); b[0] != 'x' {
					defer c.SetReadTimeout(time.Minute)
					return echo(ctx, conn)
				}
				start := time.Now()
				_, err := c.Peek(10)
				isTimeoutShape(t, err)
				took <- time.Since(start)
				return err
			})
		c := ln.connect(t)
		for range 2 {
			if got := ask(t, c, "alive"); got != "alive" {
				t.Fatalf("got %q", got)
			}
			time.Sleep(10 * time.Minute)
		}
		if _, err := c.Write([]byte("x")); err != nil {
			t.Fatal(err)
		}
		if got := <-took; got != 3*time.Second {
			t.Errorf("the operation ended after %v, want 3s", got)
		}
		s.close(t)
	})
}

// withName returns the config with the name that trustConfigs' certificate has.
func withName(config *tls.Config) *tls.Config {
	config = config.Clone()
	config.ServerName = "localhost"
	return config
}

// "Idle timeout": it limits the wait between two calls of OnData and nothing else.
func TestS20_IdleTimeout(t *testing.T) {
	const idle = 5 * time.Second
	for _, test := range []struct {
		name string
		idle time.Duration
		want time.Duration // 0 is never
	}{
		{"set", idle, idle},
		{"zero", 0, 0},
		{"negative", -1, 0},
	} {
		t.Run(test.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				ln := newScriptListener()
				s := serveOn(t, &Transporter{ReadTimeout: time.Second, IdleTimeout: test.idle}, ln, echo)
				c := ln.connect(t)
				for range 3 {
					if got := ask(t, c, "alive"); got != "alive" {
						t.Fatalf("got %q", got)
					}
					time.Sleep(idle - 1) // each exchange begins the wait anew
				}
				if got := ask(t, c, "alive"); got != "alive" {
					t.Fatalf("got %q", got)
				}
				start := time.Now()
				if err := c.SetReadTimeout(time.Hour); err != nil {
					t.Fatal(err)
				}
				_, err := c.Peek(1)
				if test.want == 0 {
					isTimeoutShape(t, err)
				} else if err != io.EOF {
					t.Errorf("the client got %v", err)
				} else if got := time.Since(start); got != test.want {
					t.Errorf("closed after %v, want %v", got, test.want)
				}
				s.close(t)
			})
		})
	}
	t.Run("over TCP", func(t *testing.T) {
		const idle = 50 * time.Millisecond
		s := serve(t, &Transporter{IdleTimeout: idle}, echo)
		c := s.dial(t)
		start := time.Now()
		if got := ask(t, c, "alive"); got != "alive" {
			t.Fatalf("got %q", got)
		}
		peerCloses(t, c)
		if got := time.Since(start); got < idle {
			t.Errorf("closed after %v, before %v", got, idle)
		}
	})
}

// "A write timeout frees a handler from a peer that does not read".
func TestS21_WriteTimeoutFreesAHandler(t *testing.T) {
	sc, cc := trustConfigs(t)
	const timeout = 100 * time.Millisecond
	for name, config := range map[string]*tls.Config{"plain": nil, "TLS": cc} {
		t.Run(name, func(t *testing.T) {
			tr := &Transporter{WriteTimeout: timeout}
			if config != nil {
				tr.TLSConfig = sc
			}
			ended := make(chan error, 1)
			var took time.Duration
			s := serve(t, tr, func(_ context.Context, conn any) error {
				c := conn.(network.Conn)
				start := time.Now()
				_, err := c.WriteBinary(make([]byte, 64<<20))
				if err == nil {
					err = c.Flush()
				}
				took = time.Since(start)
				ended <- err
				return err
			})
			c, err := new(Dialer).DialConnection("tcp", s.addr, time.Minute, config)
			if err != nil {
				t.Fatal(err)
			}
			defer c.Close()
			if _, err := c.Write([]byte("x")); err != nil {
				t.Fatal(err)
			}
			select {
			case err := <-ended:
				isTimeoutShape(t, err)
			case <-time.After(20 * time.Second):
				t.Fatal("the handler is stuck")
			}
			if took < timeout {
				t.Errorf("it took %v, less than %v", took, timeout)
			}
			settles(t, "connections", 0, s.open)
		})
	}
}

// OnData is called when bytes are there, again at once when it took some and left
// others, and not before more have come when it took none.
func TestOnDataIsCalledForBytes(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		type call struct{ had, took int }
		var calls []call
		take := []int{1, 1, 2, 0, 0, 3, 0, 4}
		ln := newScriptListener()
		s := serveOn(t, &Transporter{}, ln, func(_ context.Context, conn any) error {
			c := conn.(*Conn)
			if len(calls) == len(take) {
				t.Fatalf("called again with %d bytes", c.Len())
			}
			n := take[len(calls)]
			calls = append(calls, call{c.Len(), n})
			return c.Skip(n)
		})
		c := ln.connect(t)
		expect := func(want ...call) {
			t.Helper()
			synctest.Wait()
			time.Sleep(time.Minute) // no call comes of itself
			if !slices.Equal(calls, want) {
				t.Fatalf("calls with what was there and what was taken: %v, want %v", calls, want)
			}
		}
		send := func(text string) {
			t.Helper()
			if _, err := c.Write([]byte(text)); err != nil {
				t.Fatal(err)
			}
		}
		expect()
		send("abcd") // all of it is taken, in three calls
		expect(call{4, 1}, call{3, 1}, call{2, 2})
		send("e") // nothing is taken
		expect(call{4, 1}, call{3, 1}, call{2, 2}, call{1, 0})
		send("f") // nothing again
		expect(call{4, 1}, call{3, 1}, call{2, 2}, call{1, 0}, call{2, 0})
		send("g") // all three
		expect(call{4, 1}, call{3, 1}, call{2, 2}, call{1, 0}, call{2, 0}, call{3, 3})
		send("hi")
		expect(call{4, 1}, call{3, 1}, call{2, 2}, call{1, 0}, call{2, 0}, call{3, 3}, call{2, 0})
		send("jk")
		expect(call{4, 1}, call{3, 1}, call{2, 2}, call{1, 0}, call{2, 0}, call{3, 3}, call{2, 0}, call{4, 4})
		s.close(t)
	})
}

// A handler that takes nothing from a buffer that is full of unread bytes is not called
// in a loop, and the end of the stream ends the connection.
func TestOnDataThatTakesNothing(t *testing.T) {
	var calls atomic.Int32
	s := serve(t, &Transporter{}, func(context.Context, any) error {
		calls.Add(1)
		return nil
	})
	c := s.dial(t)
	for i := range 10 {
		if _, err := c.Write([]byte("x")); err != nil {
			t.Fatal(err)
		}
		settles(t, "calls", i+1, func() int { return int(calls.Load()) })
	}
	time.Sleep(20 * time.Millisecond) // a loop would make thousands of calls
	if n := calls.Load(); n != 10 {
		t.Errorf("%d calls for 10 bytes", n)
	}
	c.Close()
	settles(t, "connections", 0, s.open)
	if n := calls.Load(); n != 10 {
		t.Errorf("%d calls for 10 bytes and the end", n)
	}
}

// An error closes the connection, and so does OnData itself; neither is called again.
func TestOnDataEndsTheConnection(t *testing.T) {
	for name, end := range map[string]func(network.Conn) error{
		"by an error": func(network.Conn) error { return errors.New("enough") },
		"by EOF":      func(network.Conn) error { return io.EOF },
		"by Close":    func(c network.Conn) error { return c.Close() },
		"by both": func(c network.Conn) error {
			c.Close()
			return c.Close()
		},
	} {
		t.Run(name, func(t *testing.T) {
			var calls atomic.Int32
			s := serve(t, &Transporter{}, func(_ context.Context, conn any) error {
				calls.Add(1)
				return end(conn.(network.Conn))
			})
			c := s.dial(t)
			if _, err := c.Write([]byte("more than is taken")); err != nil {
				t.Fatal(err)
			}
			peerCloses(t, c)
			settles(t, "connections", 0, s.open)
			if n := calls.Load(); n != 1 {
				t.Errorf("%d calls", n)
			}
		})
	}
}

// The end of the stream is no message: OnData is not called for it.
func TestOnDataIsNotCalledForTheEnd(t *testing.T) {
	var calls atomic.Int32
	s := serve(t, &Transporter{}, func(ctx context.Context, conn any) error {
		calls.Add(1)
		return echo(ctx, conn)
	})
	s.dial(t).Close()
	settles(t, "connections", 0, s.open)
	c := s.dial(t)
	if got := ask(t, c, "alive"); got != "alive" {
		t.Errorf("got %q", got)
	}
	before := calls.Load()
	c.Close()
	settles(t, "connections", 0, s.open)
	if n := calls.Load(); n != before {
		t.Errorf("%d calls for the end", n-before)
	}
}

// The states have names, for a debugger.
func TestConnStateString(t *testing.T) {
	if got := fmt.Sprint(stateNew, stateHandshaking, stateActive, stateIdle, stateClosed); got != "new handshaking active idle closed" {
		t.Errorf("got %q", got)
	}
}

// ReadBufferSize is the least size of the block that a connection reads into: one
// byte is enough to take it.
func TestReadBufferSize(t *testing.T) {
	for _, useTLS := range []bool{false, true} {
		for _, size := range []int{-1, 0, 1, minBlockSize, minBlockSize + 1, 64 << 10, maxPooledSize, 2*maxPooledSize + 1} {
			held := make(chan int, 1)
			tr := &Transporter{ReadBufferSize: size}
			sc, cc := trustConfigs(t)
			if useTLS {
				tr.TLSConfig = sc
			}
			s := serve(t, tr, func(_ context.Context, conn any) error {
				c, ok := conn.(*Conn)
				if !ok {
					c = &conn.(*TLSConn).Conn
				}
				held <- len(c.in.cur.buf)
				return io.EOF
			})
			config := cc
			if !useTLS {
				config = nil
			}
			c, err := new(Dialer).DialConnection("tcp", s.addr, time.Minute, config)
			if err != nil {
				t.Fatal(err)
			}
			if _, err := c.Write([]byte("x")); err != nil {
				t.Fatal(err)
			}
			least := max(size, minBlockSize)
			if got := <-held; got < least || got > 2*least {
				t.Errorf("TLS %v, ReadBufferSize %d: the block has %d bytes", useTLS, size, got)
			}
			c.Close()
			s.close(t)
		}
	}
}
