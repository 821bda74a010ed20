package quic

import (
	"bytes"
	"errors"
	"io"
	"net"
	"syscall"
	"testing"
	"time"

	"golang.org/x/net/nettest"

	"github.com/hertznet/hertznet/network/networktest"
	"github.com/hertznet/hertznet/standard"
)

// netConns returns both ends of a stream as net.Conns.
func netConns(tb testing.TB) (a, b net.Conn) {
	client, server := pair(tb, nil)
	x, y := streams(tb, client, server)
	return NetConn(x), NetConn(y)
}

func TestNetConn_Nettest(t *testing.T) {
	client, server := pair(t, nil)
	nettest.TestConn(t, func() (a, b net.Conn, stop func(), err error) {
		x, y := streams(t, client, server)
		a, b = NetConn(x), NetConn(y)
		return a, b, func() { a.Close(); b.Close() }, nil
	})
}

// A protocol for network.Conn, over a stream.
func TestNetConn_StandardConn(t *testing.T) {
	a, b := netConns(t)
	client, server := standard.NewConn(a), standard.NewConn(b)
	served := make(chan error, 1)
	go func() {
		served <- func() error {
			for {
				head, err := server.Peek(4)
				if err != nil {
					if err == io.EOF && len(head) == 0 {
						return server.Close()
					}
					return err
				}
				n := 4 + int(head[0])<<16 + int(head[1])<<8 + int(head[2])
				message, err := server.Peek(n)
				if err != nil {
					return err
				}
				if _, err := server.WriteBinary(message); err != nil {
					return err
				}
				if err := server.Skip(n); err != nil {
					return err
				}
				server.Release()
				if err := server.Flush(); err != nil {
					return err
				}
			}
		}()
	}()
	for _, n := range []int{0, 1, 5000, 1 << 20} {
		body := bytes.Repeat([]byte{byte(n + 7)}, n)
		head, err := client.Malloc(4)
		if err != nil {
			t.Fatal(err)
		}
		copy(head, []byte{byte(n >> 16), byte(n >> 8), byte(n), 0})
		want := append(bytes.Clone(head), body...)
		if _, err := client.WriteBinary(body); err != nil {
			t.Fatal(err)
		}
		if err := client.Flush(); err != nil {
			t.Fatal(err)
		}
		got, err := client.Peek(4 + n)
		if err != nil || !bytes.Equal(got, want) {
			t.Fatalf("%d bytes came back as %d bytes and %v", n, len(got), err)
		}
		if err := client.Skip(4 + n); err != nil {
			t.Fatal(err)
		}
		client.Release()
	}
	if err := a.(interface{ CloseWrite() error }).CloseWrite(); err != nil {
		t.Fatal(err)
	}
	if err := <-served; err != nil {
		t.Fatal(err)
	}
	if _, err := client.Peek(1); err != io.EOF {
		t.Errorf("Peek after the server closed: %v, want io.EOF", err)
	}
	client.Close()
}

// What was written before Close is delivered, and the end after it.
func TestNetConn_CloseDelivers(t *testing.T) {
	a, b := netConns(t)
	data := bytes.Repeat([]byte("0123456789"), 20_000)
	wrote := make(chan error, 1)
	go func() {
		_, err := a.Write(data)
		wrote <- errors.Join(err, a.Close())
	}()
	got, err := io.ReadAll(b)
	if err != nil || !bytes.Equal(got, data) {
		t.Errorf("%d bytes and %v, want %d and the end", len(got), err, len(data))
	}
	if err := <-wrote; err != nil {
		t.Error(err)
	}
	for _, err := range []error{second(a.Read(make([]byte, 1))), second(a.Write([]byte("x"))), a.SetDeadline(time.Time{}), a.Close()} {
		if !errors.Is(err, net.ErrClosed) {
			t.Errorf("after Close: %v, want net.ErrClosed", err)
		}
	}
}

func second(_ int, err error) error { return err }

// Close while a Write is blocked resets the stream, and does not pass a part for the
// whole.
func TestNetConn_CloseDuringWrite(t *testing.T) {
	a, b := netConns(t)
	wrote := make(chan error, 1)
	go func() {
		_, err := a.Write(make([]byte, 32<<20))
		wrote <- err
	}()
	if _, err := io.ReadFull(b, make([]byte, 1000)); err != nil {
		t.Fatal(err)
	}
	if err := a.Close(); err != nil {
		t.Error(err)
	}
	if err := <-wrote; !errors.Is(err, net.ErrClosed) {
		t.Errorf("Write: %v, want net.ErrClosed", err)
	}
	_, err := io.Copy(io.Discard, b)
	var op *net.OpError
	if !errors.Is(err, syscall.ECONNRESET) || !errors.As(err, &op) {
		t.Errorf("the peer's Read: %v, want a *net.OpError that is ECONNRESET", err)
	}
}

// Close frees a blocked Read, and the peer, which goes on writing, learns of it.
func TestNetConn_CloseDuringRead(t *testing.T) {
	a, b := netConns(t)
	reading := make(chan error, 1)
	go func() { reading <- second(a.Read(make([]byte, 1))) }()
	time.Sleep(10 * time.Millisecond) // so that Read is blocked; if not, it fails the same
	if err := a.Close(); err != nil {
		t.Error(err)
	}
	select {
	case err := <-reading:
		if !errors.Is(err, net.ErrClosed) {
			t.Errorf("Read: %v, want net.ErrClosed", err)
		}
	case <-testContext(t).Done():
		t.Fatal("Close left Read blocked")
	}
	b.SetWriteDeadline(time.Now().Add(20 * time.Second))
	var err error
	for err == nil {
		_, err = b.Write(make([]byte, 1000))
	}
	if !errors.Is(err, syscall.ECONNRESET) {
		t.Errorf("the peer's Write: %v, want ECONNRESET", err)
	}
	if err := b.Close(); err != nil {
		t.Errorf("the peer's Close: %v", err)
	}
}

func TestNetConn_Addresses(t *testing.T) {
	client, server := pair(t, nil)
	x, _ := streams(t, client, server)
	c := NetConn(x)
	if got, want := c.RemoteAddr().String(), server.LocalAddr().String(); got != want {
		t.Errorf("RemoteAddr is %s, want %s", got, want)
	}
	a, b := networktest.StreamPipe(networktest.StreamOptions{})
	s, _ := streams(t, a, b)
	if got := NetConn(s).LocalAddr().String(); got != "stream 0" {
		t.Errorf("LocalAddr of a foreign stream is %q", got)
	}
}
