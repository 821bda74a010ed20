package hertznet

import (
	"net"
	"testing"
	"time"

	"github.com/hertznet/hertznet/standard"
)

// C2: a Close that sends an answer which was held back, to a peer that reads nothing, is ended
// by another one.
func TestC2_CloseBesideACloseThatSendsWhatIsHeld(t *testing.T) {
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer ln.Close()
	peer, err := net.Dial("tcp", ln.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	defer peer.Close()
	nc, err := ln.Accept()
	if err != nil {
		t.Fatal(err)
	}
	defer nc.Close()
	for size := 1 << 20; size > 0; size /= 2 {
		for err = nil; err == nil; {
			_ = nc.SetWriteDeadline(time.Now().Add(50 * time.Millisecond))
			_, err = nc.Write(make([]byte, size))
		}
	}
	_ = nc.SetWriteDeadline(time.Time{})

	c := newServerConn(standard.NewConn(nc), time.Minute, nil).server()
	c.phase.Store(released)
	if _, err := c.WriteBinary([]byte("an answer")); err != nil {
		t.Fatal(err)
	}
	if err := c.Flush(); err != nil {
		t.Fatal(err)
	}
	closed := make(chan error, 2)
	go func() { closed <- c.Close() }()
	time.Sleep(100 * time.Millisecond)
	go func() { closed <- c.Close() }()
	for range 2 {
		select {
		case <-closed:
		case <-time.After(10 * time.Second):
			t.Fatal("a second Close does not end the first")
		}
	}
}
