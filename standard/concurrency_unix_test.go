//go:build unix

package standard

import (
	"net"
	"path/filepath"
	"runtime"
	"syscall"
	"testing"
	"time"
)

// Conns that are dropped without Close leave no descriptor open: every peer sees
// the end of the stream.
func TestC12_DroppedConnLeaksNoDescriptor(t *testing.T) {
	for _, network := range []string{"tcp", "unix", "tls"} {
		t.Run(network, func(t *testing.T) {
			var ln net.Listener
			var err error
			if network == "unix" {
				ln, err = net.Listen("unix", filepath.Join(socketDir(t), "s"))
			} else {
				ln, err = net.Listen("tcp", "127.0.0.1:0")
			}
			if err != nil {
				t.Fatal(err)
			}
			defer ln.Close()
			const conns = 10
			peers := make(chan net.Conn, conns)
			for range conns {
				nc, err := net.Dial(ln.Addr().Network(), ln.Addr().String())
				if err != nil {
					t.Fatal(err)
				}
				peer, err := ln.Accept()
				if err != nil {
					t.Fatal(err)
				}
				peers <- peer
				c := NewConn(nc)
				if network == "tls" {
					client, server := unshaken(t, nc, peer)
					shaken := make(chan struct{})
					go func() { defer close(shaken); _ = server.Handshake() }()
					if err := client.Handshake(); err != nil {
						t.Fatal(err)
					}
					<-shaken
					c = &client.Conn
				}
				// In the state of a connection that waits for its next message.
				c.SetReadTimeout(time.Millisecond)
				_, err = c.Peek(1)
				wantTimeout(t, err)
				c.SetReadTimeout(time.Hour)
				c.SetWriteDeadline(time.Now().Add(time.Hour))
			}
			close(peers)
			for peer := range peers {
				// The descriptor of the dropped end is closed when the peer reads its end.
				settles(t, "open connections", 0, func() int {
					runtime.GC()
					if sawEnd(t, peer) {
						return 0
					}
					return 1
				})
				peer.Close()
			}
		})
	}
}

// sawEnd reports whether a read of c would find the end of the stream.
func sawEnd(t *testing.T, c net.Conn) bool {
	t.Helper()
	raw, err := c.(syscall.Conn).SyscallConn()
	if err != nil {
		t.Fatal(err)
	}
	ended := false
	p := make([]byte, 1<<10)
	if err := raw.Read(func(fd uintptr) bool {
		for {
			n, err := syscall.Read(int(fd), p)
			if n > 0 {
				continue // of the handshake
			}
			ended = err == nil || err == syscall.ECONNRESET
			return true
		}
	}); err != nil {
		t.Fatal(err)
	}
	return ended
}
