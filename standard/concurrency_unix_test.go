//go:build unix

package standard

import (
	"errors"
	"net"
	"syscall"
	"testing"
)

// A reset comes out of our own reads of a socket in the shape of package net's, stays,
// and leaves what was buffered.
func TestC10_ResetHasTheShapeOfNet(t *testing.T) {
	for _, size := range []int{8, minBlockSize} { // through the ring and past it
		for _, blocked := range []bool{false, true} {
			an, bn := tcpPair(t)
			a := NewConn(an)
			read := func() error {
				_, err := a.Read(make([]byte, size))
				return err
			}
			var ended <-chan error
			if blocked {
				ended = inside(t, &a.rd, read)
			}
			if err := bn.(*net.TCPConn).SetLinger(0); err != nil {
				t.Fatal(err)
			}
			bn.Close()
			if !blocked {
				ended = inside(t, &a.rd, read)
			}
			err := ends(t, ended)
			op, ok := err.(*net.OpError)
			if !ok || op.Op != "read" || op.Addr == nil || !errors.Is(err, syscall.ECONNRESET) || isTimeout(err) {
				t.Fatalf("got %T: %v, want ECONNRESET of a read in a *net.OpError with the peer", err, err)
			}
			if _, again := a.Peek(1); again != err {
				t.Errorf("then %v, want the same error", again)
			}
		}
	}
}
