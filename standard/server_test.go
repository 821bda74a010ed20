package standard

import (
	"bytes"
	"context"
	"crypto/tls"
	"log/slog"
	"net"
	"os"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
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
func (s *server) open() int { return len(s.all()) }

// inState counts the connections in a state.
func (s *server) inState(want ConnState) int {
	s.mu.Lock()
	defer s.mu.Unlock()
	n := 0
	for _, a := range s.conns {
		n += one(a.is(want))
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

// dialServer returns a bare client connection.
func dialServer(t testing.TB, s *server) net.Conn {
	t.Helper()
	c, err := net.Dial("tcp", s.addr)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	return c
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

// withName returns the config with the name that trustConfigs' certificate has.
func withName(config *tls.Config) *tls.Config {
	config = config.Clone()
	config.ServerName = "localhost"
	return config
}
