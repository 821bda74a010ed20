package standard

import (
	"bytes"
	"fmt"
	"io"
	"math"
	"os"
	"runtime"
	"syscall"
	"testing"
	"time"
)

// countingRaw counts how often the calls of socket_linux.go are made on a socket: the
// kernel counts only read and write and their like.
type countingRaw struct {
	syscall.RawConn
	reads, writes int
}

func (r *countingRaw) Read(f func(uintptr) bool) error {
	return r.RawConn.Read(func(fd uintptr) bool { r.reads++; return f(fd) })
}

// Write counts one call for each time that there is room: enough, in these tests.
func (r *countingRaw) Write(f func(uintptr) bool) error {
	return r.RawConn.Write(func(fd uintptr) bool { r.writes++; return f(fd) })
}

// syscalls returns how many system calls of the read and of the write family f
// makes on c on its own thread (sendfile is one of both), as the kernel counts them, and
// countingRaw. The runtime adds a few of its own: it writes to its poller to wake it.
func syscalls(t *testing.T, c *Conn, f func()) (reads, writes int) {
	t.Helper()
	if maxGather > 0 {
		raw := &countingRaw{RawConn: c.sys}
		c.sys = raw
		defer func() {
			c.sys = raw.RawConn
			reads, writes = reads+raw.reads, writes+raw.writes
		}()
	}
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	count := func() (r, w int) {
		b, err := os.ReadFile("/proc/thread-self/io")
		if err != nil {
			t.Skip("the system does not count system calls: ", err)
		}
		for line := range bytes.Lines(b) {
			_, _ = fmt.Sscanf(string(line), "syscr: %d", &r)
			_, _ = fmt.Sscanf(string(line), "syscw: %d", &w)
		}
		return r, w
	}
	costR, costW := math.MaxInt, math.MaxInt // of counting itself
	for range 5 {
		r0, w0 := count()
		r1, w1 := count()
		costR, costW = min(costR, r1-r0), min(costW, w1-w0)
	}
	r0, w0 := count()
	f()
	r1, w1 := count()
	return r1 - r0 - costR, w1 - w0 - costW
}

// W4, W11, W15: Flush is one system call, however many pieces there are; with
// nothing pending it is none.
func TestW15_FlushIsOneSystemCall(t *testing.T) {
	for _, s := range sockets[:2] {
		t.Run(s.name, func(t *testing.T) {
			x, y := s.pair(t)
			c := NewConn(x)
			if err := x.(interface{ SetWriteBuffer(int) error }).SetWriteBuffer(1 << 20); err != nil {
				t.Fatal(err)
			}
			_ = c.SetWriteTimeout(time.Minute)
			header, body := pattern(200), pattern(100<<10)
			for _, test := range []struct {
				name   string
				size   int
				writes int
				write  func()
			}{
				{"nothing", 0, 0, func() { add(t, c, nil) }},
				{"a small answer", 300, 1, func() { put(t, c, header); add(t, c, header[:100]) }},
				{"a header and a body of 100 KiB", 200 + 100<<10, 1, func() { put(t, c, header); add(t, c, body) }},
				{"ten thousand Mallocs", 100_000, 1, func() {
					for range 10_000 {
						put(t, c, header[:10])
					}
				}},
			} {
				const rounds = 20
				reads, writes := 0, 0
				for range rounds {
					r, w := syscalls(t, c, func() {
						test.write()
						mustFlush(t, c)
					})
					reads, writes = reads+r, writes+w
					if _, err := io.ReadFull(y, make([]byte, test.size)); err != nil {
						t.Fatal(err)
					}
				}
				if slack := rounds / 4; reads > slack || writes < test.writes*rounds || writes > test.writes*rounds+slack {
					t.Errorf("%s, %d times: %d reads and %d writes, want %d writes", test.name, rounds, reads, writes, test.writes*rounds)
				}
			}
		})
	}
}

// P1: a small request and its answer are one read and one write, beside the read
// that finds nothing and waits.
func TestP1_SystemCallsOfAnExchange(t *testing.T) {
	for _, s := range sockets[:2] {
		t.Run(s.name, func(t *testing.T) {
			x, y := s.pair(t)
			server := NewConn(x)
			const rounds = 100
			request, answer := pattern(200), pattern(300)
			go func() { // answers come before the next request is sent
				p := make([]byte, len(answer))
				for range rounds {
					time.Sleep(50 * time.Microsecond) // so that the server waits
					if _, err := y.Write(request); err != nil {
						return
					}
					if _, err := io.ReadFull(y, p); err != nil {
						return
					}
				}
			}()
			reads, writes := syscalls(t, server, func() {
				for range rounds {
					_ = server.SetReadTimeout(time.Minute)
					if _, err := server.Peek(4); err != nil {
						t.Fatal(err)
					}
					_ = server.SetReadTimeout(time.Minute)
					_ = server.SetWriteTimeout(time.Minute)
					if _, err := server.Peek(len(request)); err != nil {
						t.Fatal(err)
					}
					_ = server.Skip(len(request))
					put(t, server, answer[:150])
					add(t, server, answer[150:])
					_ = server.Release()
					mustFlush(t, server)
				}
			})
			t.Logf("%d exchanges: %d reads, %d writes", rounds, reads, writes)
			if slack := rounds / 4; writes < rounds || writes > rounds+slack || reads < rounds || reads > 2*rounds+slack {
				t.Errorf("%d exchanges: %d reads and %d writes", rounds, reads, writes)
			}
		})
	}
}

// W13: a file goes to a TCP socket by sendfile, also behind readers: it takes one
// call where copying takes one for each 32 KiB, twice.
func TestW13_FilesGoBySendfile(t *testing.T) {
	body := pattern(partSize)
	for _, s := range sources {
		if f, _ := fileOf(s.open(t, body)); f == nil || len(s.want(body)) == 0 {
			continue
		}
		t.Run(s.name, func(t *testing.T) {
			x, y := tcpPair(t)
			c := NewConn(x)
			got := collect(y, len(s.want(body)))
			r := s.open(t, body)
			reads, writes := syscalls(t, c, func() {
				if n, err := c.ReadFrom(r); n != int64(len(s.want(body))) || err != nil {
					t.Errorf("ReadFrom: %d, %v", n, err)
				}
			})
			sameBytes(t, "wire", <-got, s.want(body))
			if copies := len(s.want(body)) / copySize; reads < 1 || reads > copies/2 || writes > copies/2 {
				t.Errorf("%d reads and %d writes for %d bytes", reads, writes, len(s.want(body)))
			}
		})
	}
}

// KeepAlive is the silence before the first probe.
func TestKeepAliveIdle(t *testing.T) {
	for _, test := range []struct{ listener, keepAlive, want time.Duration }{
		{time.Hour, time.Minute, time.Minute},
		{time.Hour, 90 * time.Second, 90 * time.Second},
		{0, 1500 * time.Millisecond, 2 * time.Second},
		{time.Hour, 0, time.Hour},
		{0, 0, 15 * time.Second}, // package net's
	} {
		for i, nc := range withKeepAlive(t, test.listener, test.keepAlive) {
			for name, opt := range map[string]struct {
				option int
				want   time.Duration
			}{
				"TCP_KEEPIDLE":  {syscall.TCP_KEEPIDLE, test.want},
				"TCP_KEEPINTVL": {syscall.TCP_KEEPINTVL, 15 * time.Second},
				"TCP_KEEPCNT":   {syscall.TCP_KEEPCNT, 9 * time.Second},
			} {
				if name == "TCP_KEEPINTVL" && test.listener == time.Hour && test.keepAlive == 0 {
					continue // of the listener, too
				}
				got := time.Duration(sockopt(t, nc, syscall.IPPROTO_TCP, opt.option)) * time.Second
				if got != opt.want {
					t.Errorf("the listener's %v, KeepAlive %v, listener %d: %s is %v, want %v", test.listener, test.keepAlive, i, name, got, opt.want)
				}
			}
		}
	}
}
