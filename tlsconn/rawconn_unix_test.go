//go:build unix

package tlsconn

import (
	"bytes"
	"net"
	"os"
	"path/filepath"
	"testing"
)

// W1: records that a socket takes only piece by piece arrive as they were, over TCP and
// unix sockets, be they few enough for a rawConn or not.
func TestW1_RecordsPassASmallSocketBuffer(t *testing.T) {
	for name, pair := range map[string]func(testing.TB) (net.Conn, net.Conn){"tcp": networks[0].pair, "unix": unixPair} {
		t.Run(name, func(t *testing.T) {
			x, y := pair(t)
			c, s := connect(t, x, y, nil)
			if c.layer.sock == nil || s.layer.sock == nil {
				t.Fatal("a socket has no rawConn")
			}
			if err := x.(interface{ SetWriteBuffer(int) error }).SetWriteBuffer(1); err != nil {
				t.Fatal(err)
			}
			for _, size := range []int{1, maxPlaintext, 3 * maxPlaintext, 5 * maxPlaintext} {
				p := pattern(size)
				sent := make(chan error, 1)
				go func() {
					_, err := c.Write(p)
					sent <- err
				}()
				got, err := readAll(s, size)
				if err != nil || !bytes.Equal(got, p) {
					t.Fatalf("%d of %d bytes, %v", len(got), size, err)
				}
				if err := <-sent; err != nil {
					t.Fatal(err)
				}
			}
		})
	}
}

// Only a socket of a stream is read and written raw: one of packets would lose what does
// not fit.
func TestRawConnIsForStreamSockets(t *testing.T) {
	near, far := net.Pipe()
	defer near.Close()
	defer far.Close()
	x, _ := tcpPair(t)
	u, err := net.ListenUnixgram("unixgram", &net.UnixAddr{Name: socketPath(t), Net: "unixgram"})
	if err != nil {
		t.Fatal(err)
	}
	defer u.Close()
	for _, c := range []net.Conn{near, u, struct{ net.Conn }{x}} {
		if newRawConn(c) != nil {
			t.Errorf("a %T has a rawConn", c)
		}
	}
}

// unixPair returns the two ends of a connection over a unix socket, closed when the test
// ends.
func unixPair(t testing.TB) (client, server net.Conn) {
	t.Helper()
	ln, err := net.Listen("unix", socketPath(t))
	if err != nil {
		t.Fatal(err)
	}
	defer ln.Close()
	if client, err = net.Dial("unix", ln.Addr().String()); err != nil {
		t.Fatal(err)
	}
	if server, err = ln.Accept(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { client.Close(); server.Close() })
	return client, server
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
