package standard

import (
	"bytes"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"os"
	"path/filepath"
	"runtime"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/hertznet/hertznet/tlsconn"
)

// outstanding counts the blocks that were handed out and have not come back [P4].
var outstanding atomic.Int64

func TestMain(m *testing.M) {
	blockAccount = func(delta int) { outstanding.Add(int64(delta)) }
	os.Exit(m.Run())
}

// sockets are the kinds of connections that most tests run over.
var sockets = []struct {
	name string
	pair func(testing.TB) (a, b net.Conn)
}{
	{"tcp", tcpPair},
	{"unix", unixPair},
	{"pipe", pipePair},
}

// eachPair runs f with two ends of a connection of each kind, both buffered.
func eachPair(t *testing.T, f func(t *testing.T, a, b *Conn)) {
	for _, s := range sockets {
		t.Run(s.name, func(t *testing.T) {
			a, b := s.pair(t)
			f(t, NewConn(a), NewConn(b))
		})
	}
}

func tcpPair(t testing.TB) (a, b net.Conn) { return dialedPair(t, "tcp", "127.0.0.1:0") }

func unixPair(t testing.TB) (a, b net.Conn) {
	return dialedPair(t, "unix", filepath.Join(socketDir(t), "s"))
}

// socketDir is a short directory: a unix socket's path has about 100 bytes.
func socketDir(t testing.TB) string {
	t.Helper()
	dir, err := os.MkdirTemp("", "hn")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	return dir
}

func dialedPair(t testing.TB, network, addr string) (a, b net.Conn) {
	t.Helper()
	a, b = dialed(t, network, addr)
	t.Cleanup(func() { a.Close(); b.Close() })
	return a, b
}

// dialed returns a pair that the caller closes.
func dialed(t testing.TB, network, addr string) (a, b net.Conn) {
	t.Helper()
	ln, err := net.Listen(network, addr)
	if err != nil {
		t.Fatal(err)
	}
	defer ln.Close()
	accepted := make(chan net.Conn, 1)
	go func() {
		c, _ := ln.Accept()
		accepted <- c
	}()
	a, err = net.Dial(network, ln.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	if b = <-accepted; b == nil {
		t.Fatal("accept failed")
	}
	return a, b
}

func pipePair(t testing.TB) (a, b net.Conn) {
	a, b = net.Pipe()
	t.Cleanup(func() { a.Close(); b.Close() })
	return a, b
}

// pattern returns n bytes in which a shift or a loss of any length shows.
func pattern(n int) []byte {
	p := make([]byte, n)
	r := rand.NewChaCha8([32]byte{1})
	_, _ = r.Read(p)
	return p
}

// step is one answer of a scriptConn's Read or Write.
type step struct {
	data []byte // read: what arrives; write: ignored
	n    int    // write: how many bytes are taken; -1 is all
	err  error
	raw  bool // n is returned as it is, impossible or not
}

// scriptConn is a net.Conn that answers reads and writes by a script, and with EOF
// or full success after its end. It is for faults that no socket shows on demand.
type scriptConn struct {
	mu       sync.Mutex
	reads    []step
	writes   []step
	wire     []byte // what Write took
	nreads   int
	nwrites  int
	setErr   error // what the Set methods return
	closeErr error
	closes   int
}

func (c *scriptConn) Read(p []byte) (int, error) {
	c.mu.Lock()
	c.nreads++
	if len(c.reads) == 0 {
		c.mu.Unlock()
		return 0, io.EOF
	}
	defer c.mu.Unlock()
	s := &c.reads[0]
	if s.raw {
		n, err := s.n, s.err
		c.reads = c.reads[1:]
		return n, err
	}
	n := copy(p, s.data)
	if n < len(s.data) {
		s.data = s.data[n:]
		return n, nil
	}
	err := s.err
	c.reads = c.reads[1:]
	return n, err
}

func (c *scriptConn) Write(p []byte) (int, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.nwrites++
	s := step{n: -1}
	if len(c.writes) > 0 {
		s = c.writes[0]
		c.writes = c.writes[1:]
	}
	n := s.n
	if n < 0 && !s.raw {
		n = len(p)
	}
	if s.raw {
		return n, s.err
	}
	n = min(n, len(p))
	c.wire = append(c.wire, p[:n]...)
	return n, s.err
}

func (c *scriptConn) Close() error {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.closes++
	return c.closeErr
}

type scriptAddr struct{}

func (scriptAddr) Network() string { return "script" }
func (scriptAddr) String() string  { return "script" }

func (c *scriptConn) LocalAddr() net.Addr              { return scriptAddr{} }
func (c *scriptConn) RemoteAddr() net.Addr             { return scriptAddr{} }
func (c *scriptConn) SetDeadline(time.Time) error      { return c.setErr }
func (c *scriptConn) SetReadDeadline(time.Time) error  { return c.setErr }
func (c *scriptConn) SetWriteDeadline(time.Time) error { return c.setErr }

// settles fails the test unless f returns want within a few seconds: for counts
// that goroutines which are just ending bring about.
func settles(t testing.TB, what string, want int, f func() int) {
	t.Helper()
	var got int
	for range 500 {
		if got = f(); got == want {
			return
		}
		runtime.Gosched()
		time.Sleep(10 * time.Millisecond)
	}
	t.Fatalf("%s: got %d, want %d", what, got, want)
}

const (
	// soon is a timeout that tests wait for. late is when one gives up on what should
	// have ended at once, and no measure of time.
	soon = 10 * time.Millisecond
	late = time.Minute
)

var longAgo = time.Unix(1, 0)

// wantTimeout ends the test unless err has the one shape of a timeout [R28, T1].
func wantTimeout(t testing.TB, err error) {
	t.Helper()
	if wrong := notTimeout(err); wrong != "" {
		t.Fatal(wrong)
	}
}

// isTimeoutShape is wantTimeout for goroutines beside the test's own, which Fatal is
// not for, and for tests that can go on.
func isTimeoutShape(t testing.TB, err error) {
	t.Helper()
	if wrong := notTimeout(err); wrong != "" {
		t.Error(wrong)
	}
}

// notTimeout tells what err lacks to be a timeout.
func notTimeout(err error) string {
	e, ok := err.(*net.OpError)
	if !ok {
		return fmt.Sprintf("got %T: %v, want a *net.OpError", err, err)
	}
	if is := errors.Is(err, os.ErrDeadlineExceeded); !is || !e.Timeout() {
		return fmt.Sprintf("%v: Timeout() is %v, os.ErrDeadlineExceeded %v", err, e.Timeout(), is)
	}
	return ""
}

// inside runs f in a goroutine and returns when its operation may block and has
// said so to d, or has ended; the channel gets its result.
func inside(t testing.TB, d *deadline, f func() error) <-chan error {
	t.Helper()
	ended := make(chan error, 1)
	go func() { ended <- f() }()
	for start := time.Now(); !d.is(opWaiting) && len(ended) == 0; time.Sleep(100 * time.Microsecond) {
		if time.Since(start) > late {
			t.Fatal("the operation does not wait")
		}
	}
	return ended
}

// ends waits for an operation that must end now.
func ends(t testing.TB, ended <-chan error) error {
	t.Helper()
	select {
	case err := <-ended:
		return err
	case <-time.After(late):
		t.Fatal("the operation does not end")
		return nil
	}
}

// overTLS puts TLS on both ends and runs the handshake.
func overTLS(t testing.TB, a, b net.Conn) (client, server *TLSConn) {
	t.Helper()
	client, server = unshaken(t, a, b)
	done := make(chan error, 1)
	go func() { done <- server.Handshake() }()
	if err := client.Handshake(); err != nil {
		t.Fatal(err)
	}
	if err := <-done; err != nil {
		t.Fatal(err)
	}
	return client, server
}

// unshaken is overTLS without the handshake.
func unshaken(t testing.TB, a, b net.Conn) (client, server *TLSConn) {
	t.Helper()
	cc, sc := tlsConfigs(t)
	return NewTLSConn(tlsconn.Client(a, cc)), NewTLSConn(tlsconn.Server(b, sc))
}

// bareTLS is unshaken with nothing but crypto/tls.
func bareTLS(t testing.TB, a, b net.Conn) (client, server *tls.Conn) {
	t.Helper()
	cc, sc := tlsConfigs(t)
	return tls.Client(a, cc), tls.Server(b, sc)
}

func tlsConfigs(t testing.TB) (client, server *tls.Config) {
	t.Helper()
	cert, pool, err := tlsconn.SelfSigned("localhost")
	if err != nil {
		t.Fatal(err)
	}
	return tlsconn.ClientConfig(&tls.Config{RootCAs: pool}, "localhost:443"),
		tlsconn.ServerConfig(&tls.Config{Certificates: []tls.Certificate{cert}})
}

// noMoreGoroutines waits until there are at most as many as before.
func noMoreGoroutines(t testing.TB, before int) {
	t.Helper()
	settles(t, "goroutines left behind", 0, func() int { return max(0, runtime.NumGoroutine()-before) })
}

// eachTransport is eachPair and a pair over TLS.
func eachTransport(t *testing.T, f func(t *testing.T, a, b *Conn)) {
	eachPair(t, f)
	t.Run("tls", func(t *testing.T) {
		a, b := overTLS2(t)
		f(t, a, b)
	})
}

func overTLS2(t testing.TB) (a, b *Conn) {
	ac, bc := tcpPair(t)
	client, server := overTLS(t, ac, bc)
	return &client.Conn, &server.Conn
}

// stalled makes the buffers between a and b small.
func stalled(a, b *Conn) {
	for _, c := range []*Conn{a, b} {
		nc := c.nc
		if tc, ok := nc.(*tlsconn.Conn); ok {
			nc = tc.NetConn()
		}
		if s, ok := nc.(interface {
			SetWriteBuffer(int) error
			SetReadBuffer(int) error
		}); ok {
			_ = s.SetWriteBuffer(64 << 10)
			_ = s.SetReadBuffer(64 << 10)
		}
	}
}

// The model of the ring draws its operations from a string of bytes, so that the
// fuzzer can choose them.

// modelStream is what the ring under the model reads.
var modelStream = pattern(1 << 20)

// dice are numbers from a string of bytes; at its end it begins again.
type dice struct {
	p    []byte
	at   int
	laps int
}

func (d *dice) next() int {
	if len(d.p) == 0 {
		d.laps++
		return 0
	}
	b := d.p[d.at]
	if d.at++; d.at == len(d.p) {
		d.at = 0
		d.laps++
	}
	return int(b)
}

// size is a count as readers ask for it: small, or near a block's size, or any.
// have is what is buffered.
func (d *dice) size(have int) int {
	b := d.next()
	v := b >> 3
	switch b & 7 {
	case 0:
		return v
	case 1:
		return have + v - 8 // around what is there; may be negative
	case 2:
		return (v%4+1)*minBlockSize - 2 + v/8 // around a block's edges
	case 3:
		return lookahead - 2 + v%5
	case 4:
		return v * 97
	case 5:
		return have / 2
	case 6:
		return v<<8 | d.next()
	}
	if v == 0 {
		return 1 << 30
	}
	return v * 3001
}

// kept is a slice of the connection's memory and what it must go on to contain.
type kept struct{ slice, want []byte }

func checkKept(t testing.TB, op string, all []kept) {
	for _, k := range all {
		if !bytes.Equal(k.slice, k.want) {
			t.Fatalf("after %s a slice of %d bytes that is still held has changed", op, len(k.want))
		}
	}
}

func scramble(r *rand.Rand, p []byte) {
	for i := range p {
		p[i] = byte(r.Uint32())
	}
}
