package main

import (
	"context"
	"fmt"
	"io"
	"net"
	"os"
	"strings"
	"time"

	"github.com/hertznet/hertznet/standard"
)

// showBacklog has n connections wait in the queues of two listeners on one port, which
// nobody accepts from yet, closes one of them and counts whom the other one serves.
func showBacklog(n int) error {
	lc := net.ListenConfig{Control: standard.ReusePort}
	closing, err := lc.Listen(context.Background(), "tcp", "127.0.0.1:0")
	if err != nil {
		return err
	}
	defer closing.Close()
	staying, err := lc.Listen(context.Background(), "tcp", closing.Addr().String())
	if err != nil {
		return err
	}
	defer staying.Close()
	conns := make([]net.Conn, n)
	for i := range conns {
		if conns[i], err = net.DialTimeout("tcp", closing.Addr().String(), answerLimit); err != nil {
			return err
		}
		defer conns[i].Close()
	}
	closing.Close()
	go func() {
		for {
			c, err := staying.Accept()
			if err != nil {
				return
			}
			_, _ = c.Write([]byte("x")) // the client counts
			c.Close()
		}
	}()
	lost := 0
	for _, c := range conns {
		_ = c.SetReadDeadline(time.Now().Add(answerLimit)) // or the read fails
		if _, err := io.ReadFull(c, make([]byte, 1)); err != nil {
			lost++
		}
	}
	migrate := "unknown"
	if b, err := os.ReadFile("/proc/sys/net/ipv4/tcp_migrate_req"); err == nil {
		migrate = strings.TrimSpace(string(b))
	}
	fmt.Printf(`
SO_REUSEPORT is no restart without loss: each listener has a queue of its own, and what
waits in it when it is closed is reset by the system, unless net.ipv4.tcp_migrate_req is 1.
Here it is %s: of %d connections that waited in two listeners, closing one lost %d.
`, migrate, n, lost)
	return nil
}
