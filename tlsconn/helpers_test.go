package tlsconn

import (
	"bytes"
	"crypto/tls"
	"errors"
	"io"
	"net"
	"os"
	"sync"
	"testing"
	"time"
)

// devConfigs returns configs that trust each other. Inside a synctest bubble it must be
// called there: the certificate's validity follows the clock.
func devConfigs(t testing.TB) (server, client *tls.Config) {
	t.Helper()
	cert, pool, err := SelfSigned("localhost", "127.0.0.1")
	if err != nil {
		t.Fatal(err)
	}
	return ServerConfig(&tls.Config{Certificates: []tls.Certificate{cert}}),
		ClientConfig(&tls.Config{RootCAs: pool}, "localhost:443")
}

// tcpPair returns the two ends of a loopback connection, closed when the test ends.
func tcpPair(t testing.TB) (client, server *net.TCPConn) {
	t.Helper()
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer ln.Close()
	c, err := net.Dial("tcp", ln.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	s, err := ln.Accept()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close(); s.Close() })
	return c.(*net.TCPConn), s.(*net.TCPConn)
}

// networks are the conns beneath that most tests run over.
var networks = []struct {
	name string
	pair func(t testing.TB) (client, server net.Conn)
}{
	{"tcp", func(t testing.TB) (net.Conn, net.Conn) { return tcpPair(t) }},
	{"pipe", func(t testing.TB) (net.Conn, net.Conn) {
		c, s := net.Pipe()
		t.Cleanup(func() { c.Close(); s.Close() })
		return c, s
	}},
}

// connect puts TLS on both ends and runs the handshake. wrap, if not nil, goes beneath the
// server.
func connect(t testing.TB, client, server net.Conn, wrap func(net.Conn) net.Conn) (c, s *Conn) {
	t.Helper()
	sc, cc := devConfigs(t)
	if wrap != nil {
		server = wrap(server)
	}
	return connectWith(t, client, server, sc, cc)
}

func connectWith(t testing.TB, client, server net.Conn, sc, cc *tls.Config) (c, s *Conn) {
	t.Helper()
	c, s = Client(client, cc), Server(server, sc)
	shake(t, c, s)
	return c, s
}

func shake(t testing.TB, c, s interface{ Handshake() error }) {
	t.Helper()
	done := make(chan error, 1)
	go func() { done <- s.Handshake() }()
	if err := c.Handshake(); err != nil {
		t.Fatalf("client: %v", err)
	}
	if err := <-done; err != nil {
		t.Fatalf("server: %v", err)
	}
}

// recorder is a net.Conn that keeps what is written through it.
type recorder struct {
	net.Conn
	mu     sync.Mutex
	wire   bytes.Buffer
	writes []int
}

func (r *recorder) Write(p []byte) (int, error) {
	r.mu.Lock()
	r.wire.Write(p)
	r.writes = append(r.writes, len(p))
	r.mu.Unlock()
	return r.Conn.Write(p)
}

// take returns the payload sizes of the records since the last take, and the number of
// write calls.
func (r *recorder) take(t testing.TB) (records []int, writes int) {
	t.Helper()
	r.mu.Lock()
	defer r.mu.Unlock()
	for b := r.wire.Bytes(); len(b) > 0; {
		if len(b) < recordHeaderLen {
			t.Fatalf("%d stray bytes on the wire", len(b))
		}
		n := int(b[3])<<8 | int(b[4])
		if len(b) < recordHeaderLen+n {
			t.Fatalf("half a record on the wire: %d of %d bytes", len(b), n)
		}
		records = append(records, n)
		b = b[recordHeaderLen+n:]
	}
	writes = len(r.writes)
	r.wire.Reset()
	r.writes = nil
	return records, writes
}

// hooked is a net.Conn whose methods can be replaced once it is in use.
type hooked struct {
	net.Conn
	mu          sync.Mutex
	read, write func(p []byte) (int, error)
	setDeadline func(t time.Time) error
	close       func() error
}

func (h *hooked) hook(f func(h *hooked)) {
	h.mu.Lock()
	f(h)
	h.mu.Unlock()
}

func (h *hooked) Read(p []byte) (int, error) {
	h.mu.Lock()
	f := h.read
	h.mu.Unlock()
	if f != nil {
		return f(p)
	}
	return h.Conn.Read(p)
}

func (h *hooked) Write(p []byte) (int, error) {
	h.mu.Lock()
	f := h.write
	h.mu.Unlock()
	if f != nil {
		return f(p)
	}
	return h.Conn.Write(p)
}

func (h *hooked) Close() error {
	h.mu.Lock()
	f := h.close
	h.mu.Unlock()
	if f != nil {
		h.Conn.Close()
		return f()
	}
	return h.Conn.Close()
}

func (h *hooked) deadline(t time.Time, set func(time.Time) error) error {
	h.mu.Lock()
	f := h.setDeadline
	h.mu.Unlock()
	if f != nil {
		return f(t)
	}
	return set(t)
}

func (h *hooked) SetDeadline(t time.Time) error      { return h.deadline(t, h.Conn.SetDeadline) }
func (h *hooked) SetReadDeadline(t time.Time) error  { return h.deadline(t, h.Conn.SetReadDeadline) }
func (h *hooked) SetWriteDeadline(t time.Time) error { return h.deadline(t, h.Conn.SetWriteDeadline) }

// wantTimeout checks an error's shape, not only that there is one [T1].
func wantTimeout(t testing.TB, err error) {
	t.Helper()
	op, ok := err.(*net.OpError)
	if !ok {
		t.Fatalf("got %T %v, want *net.OpError", err, err)
	}
	if !op.Timeout() {
		t.Errorf("Timeout() is false: %v", op)
	}
	if !isDeadline(op) {
		t.Errorf("not os.ErrDeadlineExceeded: %v", op)
	}
}

func isDeadline(err error) bool { return errors.Is(err, os.ErrDeadlineExceeded) }

// patience tells what is blocked from what is slow, and nothing else.
const patience = 20 * time.Second

// ends waits for what must not be blocked.
func ends(t testing.TB, what string, f func()) {
	t.Helper()
	done := make(chan bool)
	go func() { defer close(done); f() }()
	select {
	case <-done:
	case <-time.After(patience):
		t.Fatalf("%s is blocked", what)
	}
}

func readAll(c io.Reader, n int) ([]byte, error) {
	b := make([]byte, n)
	m, err := io.ReadFull(c, b)
	return b[:m], err
}

func pattern(n int) []byte {
	b := make([]byte, n)
	for i := range b {
		b[i] = byte(i*7 + i>>8)
	}
	return b
}
