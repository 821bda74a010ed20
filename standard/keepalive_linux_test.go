package standard

import (
	"context"
	"math"
	"net"
	"syscall"
	"testing"
	"time"
)

// A KeepAlive that is longer than the system can count is the longest that it can.
func TestHugeKeepAlive(t *testing.T) {
	const most = 32767 // seconds; MAX_TCP_KEEPIDLE of Linux
	for _, idle := range []time.Duration{10 * time.Hour, math.MaxInt64} {
		for _, own := range []bool{true, false} {
			accepted := make(chan net.Conn, 1)
			tr := &Transporter{Addr: "127.0.0.1:0", KeepAlive: idle, OnAccept: func(c net.Conn) context.Context {
				accepted <- c
				return nil
			}}
			var ln net.Listener
			var err error
			if own {
				ln, err = tr.Listen()
			} else {
				ln, err = net.Listen("tcp", "127.0.0.1:0")
			}
			if err != nil {
				t.Fatal(err)
			}
			askByte(t, dialServer(t, serveOn(t, tr, ln, echoByte)), 'a')
			raw, err := (<-accepted).(syscall.Conn).SyscallConn()
			if err != nil {
				t.Fatal(err)
			}
			var got int
			_ = raw.Control(func(fd uintptr) {
				got, err = syscall.GetsockoptInt(int(fd), syscall.IPPROTO_TCP, syscall.TCP_KEEPIDLE)
			})
			if err != nil || got != most {
				t.Errorf("KeepAlive %v, own listener %v: probes after %d s, %v; want %d", idle, own, got, err, most)
			}
		}
	}
}
