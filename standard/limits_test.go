package standard

import (
	"bytes"
	"context"
	"errors"
	"io"
	"log/slog"
	"net"
	"net/netip"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/hertznet/hertznet/network"
)

// S19: with RejectOverMaxConns a client knows at once, and a place that is free again is
// given to the next.
func TestS19_RejectOverMaxConns(t *testing.T) {
	s := serve(t, &Transporter{MaxConns: 2, RejectOverMaxConns: true}, echo)
	held := []network.Conn{s.dial(t), s.dial(t)}
	for _, c := range held {
		ask(t, c, "hello")
	}
	for range 3 {
		wantRejected(t, dialServer(t, s))
	}
	held[0].Close()
	settles(t, "connections", 1, s.open)
	ask(t, s.dial(t), "hello")
	got := s.Stats()
	if got.Rejected != 3 || got.Accepted != 6 {
		t.Errorf("rejected %d of %d, want 3 of 6", got.Rejected, got.Accepted)
	}
}

// An address has no more connections than MaxConnsPerIP; another one does not suffer.
func TestMaxConnsPerIP(t *testing.T) {
	s := serve(t, &Transporter{MaxConnsPerIP: 2}, echo)
	from := func(ip string) net.Conn {
		t.Helper()
		d := net.Dialer{LocalAddr: &net.TCPAddr{IP: net.ParseIP(ip)}}
		c, err := d.Dial("tcp", s.addr)
		if err != nil {
			t.Skip("no second loopback address here:", err)
		}
		t.Cleanup(func() { c.Close() })
		return c
	}
	first := from("127.0.0.2")
	askByteOf(t, first)
	askByteOf(t, from("127.0.0.2"))
	wantRejected(t, from("127.0.0.2"))
	askByteOf(t, from("127.0.0.3"))
	first.Close()
	settles(t, "connections", 2, s.open)
	askByteOf(t, from("127.0.0.2"))
	if got := s.Stats().Rejected; got != 1 {
		t.Errorf("rejected %d, want 1", got)
	}
	s.close(t)
	if n := len(s.perIP); n != 0 {
		t.Errorf("%d addresses are kept of connections that have ended", n)
	}
}

// The two limits on connections are two kinds of lines: the one keeps no line of the other
// back.
func TestS19_LinesOfRejections(t *testing.T) {
	log := new(logged)
	s := serve(t, &Transporter{MaxConns: 2, RejectOverMaxConns: true, MaxConnsPerIP: 1,
		Logger: log.logger()}, echo)
	from := func(ip string) net.Conn {
		t.Helper()
		d := net.Dialer{LocalAddr: &net.TCPAddr{IP: net.ParseIP(ip)}}
		c, err := d.Dial("tcp", s.addr)
		if err != nil {
			t.Skip("no second loopback address here:", err)
		}
		t.Cleanup(func() { c.Close() })
		return c
	}
	askByteOf(t, from("127.0.0.2"))
	for range 3 {
		wantRejected(t, from("127.0.0.2"))
	}
	askByteOf(t, from("127.0.0.3"))
	for range 3 {
		wantRejected(t, from("127.0.0.4"))
	}
	for _, text := range []string{"MaxConnsPerIP", "MaxConns connections"} {
		if n := strings.Count(log.String(), text); n != 1 {
			t.Errorf("%d lines speak of %s, want 1:\n%s", n, text, log.String())
		}
	}
}

// A peer counts as its address, in whichever way that is written; of IPv6 as its /64.
func TestPeerOf(t *testing.T) {
	for addr, want := range map[string]string{
		"192.0.2.1":           "192.0.2.1",
		"::ffff:192.0.2.1":    "192.0.2.1",
		"2001:db8:1:2:3::4":   "2001:db8:1:2::",
		"2001:db8:1:2:ffff::": "2001:db8:1:2::",
		"fe80::1%eth0":        "fe80::",
	} {
		ap := netip.AddrPortFrom(netip.MustParseAddr(addr), 1)
		if got := peerOf(addrConn{addr: net.TCPAddrFromAddrPort(ap)}); got.String() != want {
			t.Errorf("%s counts as %s, want %s", addr, got, want)
		}
	}
	if got := peerOf(addrConn{addr: &net.UnixAddr{Name: "/s"}}); got.IsValid() {
		t.Errorf("a unix socket counts as %s", got)
	}
}

type addrConn struct {
	net.Conn
	addr net.Addr
}

func (c addrConn) RemoteAddr() net.Addr { return c.addr }

// What is larger by a byte is refused, though all of it may have come, and what came stays.
// What is as large as the limit is served.
func TestMaxReadBuffer(t *testing.T) {
	const limit = 10_000
	errs := make(chan error, 1)
	s := serve(t, &Transporter{MaxReadBuffer: limit}, func(_ context.Context, conn any) error {
		c := conn.(network.Conn)
		_, err := c.Peek(limit + 1)
		if b, peekErr := c.Peek(limit); peekErr != nil || len(b) != limit {
			t.Errorf("Peek of MaxReadBuffer afterwards: %d bytes and %v", len(b), peekErr)
		}
		errs <- err
		return errors.New("the handler ends the connection")
	})
	c := dialServer(t, s)
	go c.Write(make([]byte, 6*limit)) // the server closes before it has taken all
	if err := <-errs; err != ErrReadBufferFull {
		t.Errorf("Peek of more than MaxReadBuffer: %v, want ErrReadBufferFull", err)
	}
	if got := s.Stats().Overflows; got != 1 {
		t.Errorf("%d overflows, want 1", got)
	}
}

// MinReadRate, on the clock of a bubble: who is too slow for it is cut when the grace and
// what its bytes have earned is over, and nobody else.
func TestMinReadRate(t *testing.T) {
	for _, test := range []struct {
		name  string
		every time.Duration // between two bytes of a message of 100
		serve func(c *Conn) // before it is read
		end   time.Duration // when it is cut; 0 is never
	}{
		// 10 bytes a second, 2 s of grace. n bytes have come at n*every, and have earned n/10 s.
		{"fast", 50 * time.Millisecond, nil, 0},
		{"just fast enough", 100 * time.Millisecond, nil, 0},
		{"slow", 400 * time.Millisecond, nil, 2600 * time.Millisecond},
		{"silent", time.Hour, nil, 2 * time.Second},
		{"silent, to a handler that waits for it", 3 * time.Second, func(c *Conn) { c.LimitReadRate(false) }, 0},
		{"silent, hijacked", 3 * time.Second, (*Conn).SetHijacked, 0},
		{"slow, while the handler works", 50 * time.Millisecond, func(*Conn) { time.Sleep(time.Minute) }, 0},
	} {
		t.Run(test.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				type outcome struct {
					err   error
					after time.Duration
				}
				done := make(chan outcome, 1)
				ln := newScriptListener()
				s := serveOn(t, &Transporter{MinReadRate: 10, MinReadGrace: 2 * time.Second, ReadTimeout: time.Hour}, ln,
					func(_ context.Context, conn any) error {
						c := conn.(*Conn)
						start := time.Now()
						if test.serve != nil {
							test.serve(c)
						}
						// A byte at a time, as a header is read: no one operation takes long.
						for n := 1; n <= 101; n++ {
							if _, err := c.Peek(n); err != nil {
								done <- outcome{err, time.Since(start)}
								return err
							}
						}
						done <- outcome{}
						return c.Skip(c.Len())
					})
				c := ln.connect(t)
				var wg sync.WaitGroup
				wg.Go(func() {
					for range 101 {
						if _, err := c.Write([]byte("x")); err != nil {
							return
						}
						time.Sleep(test.every)
					}
				})
				got := <-done
				switch {
				case test.end == 0 && got.err != nil:
					t.Errorf("cut after %v: %v", got.after, got.err)
				case test.end != 0:
					wantTimeout(t, got.err)
					if got.after < test.end-test.every || got.after > test.end+test.every {
						t.Errorf("cut after %v, want about %v", got.after, test.end)
					}
				}
				if n := s.Stats().TooSlow; n != uint64(one(test.end != 0)) {
					t.Errorf("%d reads were too slow", n)
				}
				c.Close()
				wg.Wait()
				s.close(t)
			})
		})
	}
}

// The wait between two messages is not held against a peer.
func TestMinReadRateIsOfMessages(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ln := newScriptListener()
		s := serveOn(t, &Transporter{MinReadRate: 1000, MinReadGrace: time.Second}, ln, echo)
		c := ln.connect(t)
		for range 5 {
			time.Sleep(time.Minute)
			askByteOf(t, c)
		}
		if n := s.Stats().TooSlow; n != 0 {
			t.Errorf("%d reads were too slow", n)
		}
		c.Close()
		s.close(t)
	})
}

// What a peer can bring about as often as it likes is logged once in a while, and the
// next line says how much was left out.
func TestRejectionsAreLoggedOnceInAWhile(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var out bytes.Buffer
		tr := &Transporter{Logger: slog.New(slog.NewTextHandler(&out, nil))}
		var o occasional
		for range 100 {
			o.warn(tr, "too many", "limit", 3)
		}
		time.Sleep(logPause)
		o.warn(tr, "too many", "limit", 3)
		lines := strings.Split(strings.TrimSpace(out.String()), "\n")
		if len(lines) != 2 || !strings.Contains(lines[1], "alsoNotLogged=99") || !strings.Contains(lines[0], "limit=3") {
			t.Errorf("logged %q", lines)
		}
	})
}

// askByteOf sends a byte and wants it back.
func askByteOf(t testing.TB, c net.Conn) {
	t.Helper()
	if _, err := c.Write([]byte("x")); err != nil {
		t.Fatal(err)
	}
	if _, err := io.ReadFull(c, make([]byte, 1)); err != nil {
		t.Fatal(err)
	}
}

// wantRejected wants c closed by the server before it has said anything.
func wantRejected(t testing.TB, c net.Conn) {
	t.Helper()
	if err := c.SetReadDeadline(time.Now().Add(10 * time.Second)); err != nil {
		t.Fatal(err)
	}
	if n, err := c.Read(make([]byte, 1)); err == nil || isTimeout(err) || errors.Is(err, net.ErrClosed) {
		t.Errorf("Read: %d bytes and %v, want the end", n, err)
	}
}
