package standard

import (
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
	t.Cleanup(func() { a.Close(); b.Close() })
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
	block    chan struct{} // if not nil, a Read after the script waits for it
}

func (c *scriptConn) Read(p []byte) (int, error) {
	c.mu.Lock()
	c.nreads++
	if len(c.reads) == 0 {
		block := c.block
		c.mu.Unlock()
		if block != nil {
			<-block
		}
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
