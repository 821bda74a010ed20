package networktest

import (
	"net"
	"path/filepath"
	"testing"

	"github.com/hertznet/hertznet/network"
)

// referenceConn is the reference over a kind of connection.
func referenceConn(pair func(t testing.TB) (a, b net.Conn)) Conn {
	return Conn{
		Wrap: func(_ testing.TB, c net.Conn) network.Conn { return Reference(c) },
		Pair: func(t testing.TB) (network.Conn, network.Conn) {
			a, b := pair(t)
			return Reference(a), Reference(b)
		},
		Behavior: Behavior{CopiesWriteBinary: true},
	}
}

func tcpSockets(t testing.TB) (a, b net.Conn) { return sockets(t, "tcp", "127.0.0.1:0") }

func unixSockets(t testing.TB) (a, b net.Conn) {
	return sockets(t, "unix", filepath.Join(t.TempDir(), "s"))
}

func pipe(testing.TB) (a, b net.Conn) { return net.Pipe() }

func sockets(t testing.TB, network, addr string) (a, b net.Conn) {
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

// Z4: the reference passes everything.
func TestReference(t *testing.T)         { TestConn(t, referenceConn(tcpSockets)) }
func TestReferenceOverUnix(t *testing.T) { TestConn(t, referenceConn(unixSockets)) }
func TestReferenceOverPipe(t *testing.T) { TestConn(t, referenceConn(pipe)) }
