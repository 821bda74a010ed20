package networktest

import (
	"io"
	"net"
	"os"
	"runtime"
	"time"
	"weak"
)

// C12. What is dropped must be out of reach of the check as well: nothing here is
// tracked, and each connection is made in a goroutine that has ended.
func droppedWithoutClose(t *connCheck) {
	const conns = 10
	if t.subject.Pair != nil {
		t.droppedPairs(conns)
	}
	if t.canWrap() {
		for _, state := range []string{"fresh", "used", "after a timeout", "with limits of an hour"} {
			t.droppedWraps(conns, state)
		}
	}
}

// droppedPairs counts descriptors, where the system tells them, and goroutines.
func (t *connCheck) droppedPairs(conns int) {
	t.step("Pair")
	drop := func() {
		a, b := t.subject.Pair(t)
		if a == nil || b == nil {
			t.fail("two connections", "Conn.Pair returned a nil connection")
			return
		}
		t.feed(b, pattern(10))
		_, _ = a.Peek(10)
	}
	t.mustEnd(t.spawn(drop), "Pair to return") // what is started once is there now
	goroutines, descriptors := runtime.NumGoroutine(), openDescriptors()
	t.step("%d pairs of connections that are used once and dropped without Close", conns)
	for range conns {
		t.mustEnd(t.spawn(drop), "Pair to return")
	}
	var g, d int
	settles(func() bool {
		runtime.GC()
		g, d = runtime.NumGoroutine(), openDescriptors()
		return g < goroutines+conns/2 && d < descriptors+conns/2
	})
	t.expect(g < goroutines+conns/2, "the goroutines that there were", "%d goroutines where there were %d", g, goroutines)
	t.expect(d < descriptors+conns/2, "the descriptors that there were (unless Conn.Pair itself keeps them)", "%d open descriptors where there were %d", d, descriptors)
}

// droppedWraps asks for the conn beneath, which must be collected, and its peer,
// which must meet the end of the stream.
func (t *connCheck) droppedWraps(conns int, state string) {
	t.step("%d sockets with a connection over each that is %s, dropped without Close", conns, state)
	goroutines := runtime.NumGoroutine()
	var beneath []weak.Pointer[net.TCPConn]
	var peers []net.Conn
	for range conns {
		t.mustEnd(t.spawn(func() {
			x, y := untrackedPair(t.check)
			peers = append(peers, y)
			beneath = append(beneath, weak.Make(x))
			c := t.subject.Wrap(t, x)
			if c == nil {
				t.fail("a connection", "Conn.Wrap returned nil")
				return
			}
			switch state {
			case "used":
				_, _ = y.Write(pattern(10))
				_, _ = c.Peek(10)
				_, _ = c.Malloc(10)
				_, _ = c.WriteBinary(pattern(10 << 10))
			case "after a timeout":
				_ = c.SetReadTimeout(time.Millisecond)
				_, _ = c.Peek(1)
			case "with limits of an hour":
				_ = c.SetReadTimeout(anHour)
				_ = c.SetWriteTimeout(anHour)
				_, _ = y.Write(pattern(10))
				_, _ = c.Peek(10)
				_ = c.SetDeadline(time.Now().Add(anHour))
			}
		}), "the operations to end")
	}
	var g, alive int
	settles(func() bool {
		runtime.GC()
		g, alive = runtime.NumGoroutine(), 0
		for _, p := range beneath {
			if p.Value() != nil {
				alive++
			}
		}
		return g < goroutines+conns/2 && alive < conns/2
	})
	t.expect(g < goroutines+conns/2, "the goroutines that there were", "%d goroutines where there were %d", g, goroutines)
	t.expect(alive < conns/2, "the garbage collector to take the sockets (unless Conn.Wrap itself keeps them)", "%d of %d are still held", alive, conns)
	var open int
	settles(func() bool {
		runtime.GC()
		open = 0
		for _, y := range peers {
			if !metEnd(y) {
				open++
			}
		}
		return open < conns/2
	})
	t.expect(open < conns/2, "the peers to meet the end of the stream", "%d of %d are still connected", open, conns)
}

// untrackedPair is tcpPair without a hold on a, which the caller drops.
func untrackedPair(t *check) (a, b *net.TCPConn) {
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer ln.Close()
	x, err := net.Dial("tcp", ln.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	y, err := ln.Accept()
	if err != nil {
		t.Fatal(err)
	}
	t.track(y)
	return x.(*net.TCPConn), y.(*net.TCPConn)
}

// metEnd reports whether c has nothing more to read, by whatever error.
func metEnd(c net.Conn) bool {
	_ = c.SetReadDeadline(time.Now().Add(time.Millisecond))
	_, err := io.Copy(io.Discard, readerOf(c))
	return !looksLikeTimeout(err)
}

// openDescriptors counts them where /proc tells; elsewhere it returns 0.
func openDescriptors() int {
	all, _ := os.ReadDir("/proc/self/fd")
	return len(all)
}
