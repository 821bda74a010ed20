package standard

import (
	"bytes"
	"context"
	"crypto/tls"
	"errors"
	"io"
	"math"
	"math/rand/v2"
	"net"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/hertznet/hertznet/network"
	"github.com/hertznet/hertznet/tlsconn"
)

// parkSoon is a ParkAfter for tests that want connections parked.
const parkSoon = time.Millisecond

// echoByte answers each byte with itself.
func echoByte(_ context.Context, conn any) error {
	c := conn.(network.Conn)
	for c.Len() > 0 {
		b, err := c.ReadByte()
		if err != nil {
			return err
		}
		if _, err := c.Write([]byte{b}); err != nil {
			return err
		}
	}
	return nil
}

// askByte sends a byte and wants it back.
func askByte(t testing.TB, c net.Conn, b byte) {
	t.Helper()
	if _, err := c.Write([]byte{b}); err != nil {
		t.Fatal(err)
	}
	answer := make([]byte, 1)
	if _, err := io.ReadFull(c, answer); err != nil || answer[0] != b {
		t.Fatalf("answer %q, %v, to %q", answer, err, b)
	}
}

func (s *server) parked() int { return s.inState(StateParked) }

// An idle connection has no goroutine, and the next byte gives it one; again and again,
// over TCP, unix sockets and TLS.
func TestParkAndResume(t *testing.T) {
	cc, sc := tlsConfigs(t)
	for _, kind := range []string{"tcp", "unix", "tls"} {
		t.Run(kind, func(t *testing.T) {
			tr := &Transporter{ParkAfter: parkSoon}
			if kind == "tls" {
				tr.TLSConfig = sc
			}
			network, addr := "tcp", "127.0.0.1:0"
			if kind == "unix" {
				network, addr = "unix", socketDir(t)+"/s"
			}
			ln, err := net.Listen(network, addr)
			if err != nil {
				t.Fatal(err)
			}
			s := serveOn(t, tr, ln, echoByte)
			var conns []net.Conn
			for range 20 {
				c, err := net.Dial(network, s.addr)
				if err != nil {
					t.Fatal(err)
				}
				defer c.Close()
				if kind == "tls" {
					c = tlsconn.Client(c, cc)
				}
				conns = append(conns, c)
			}
			for round := range byte(3) {
				for _, c := range conns {
					askByte(t, c, 'a'+round)
				}
				settles(t, "parked connections", len(conns), s.parked)
			}
		})
	}
}

// A connection waits for all of ParkAfter if it had to be resumed within that time, and for
// a small part of it otherwise.
func TestParkAfterFollowsTheLastIdleTime(t *testing.T) {
	const parkAfter = 800 * time.Millisecond
	s := serve(t, &Transporter{ParkAfter: parkAfter}, echoByte)
	c := dialServer(t, s)
	// ask has an answer and tells for how long the connection then is not parked.
	ask := func() time.Duration {
		t.Helper()
		askByte(t, c, 'x')
		start := time.Now()
		settles(t, "parked connections", 1, s.parked)
		return time.Since(start)
	}
	if got := ask(); got >= parkAfter {
		t.Errorf("a new connection was parked after %v, want ParkAfter/64 = %v", got, parkAfter/impatience)
	}
	if got := ask(); got < parkAfter*3/4 { // at once after it was parked
		t.Errorf("a connection that was resumed soon was parked after %v, want ParkAfter = %v", got, parkAfter)
	}
	time.Sleep(parkAfter / 4) // so that its idle time is longer than ParkAfter
	if got := ask(); got >= parkAfter {
		t.Errorf("a connection that was resumed late was parked after %v, want ParkAfter/64 = %v", got, parkAfter/impatience)
	}
	time.Sleep(parkAfter)
	askByte(t, c, 'x')
	if got := ask(); got < parkAfter*3/4 {
		t.Errorf("a connection with two messages at once was parked after %v, want ParkAfter = %v", got, parkAfter)
	}
}

// S20: the idle time of a parked connection ends when it should, not when the next one's
// does.
func TestS20_IdleTimeoutWhileParked(t *testing.T) {
	s := serve(t, &Transporter{ParkAfter: parkSoon, IdleTimeout: 300 * time.Millisecond}, echoByte)
	var wg sync.WaitGroup
	for i := range 10 {
		wg.Go(func() {
			c, err := net.Dial("tcp", s.addr)
			if err != nil {
				t.Error(err)
				return
			}
			defer c.Close()
			for range i {
				time.Sleep(20 * time.Millisecond) // so that their times end one after the other
				askByte(t, c, 'x')
			}
			askByte(t, c, 'y')
			start := time.Now()
			_, err = c.Read(make([]byte, 1))
			if d := time.Since(start); err != io.EOF || d < 250*time.Millisecond {
				t.Errorf("Read of an idle connection: %v after %v, want EOF after 300ms", err, d)
			}
		})
	}
	wg.Wait()
	settles(t, "connections", 0, s.open)
}

// A parked connection that the peer ends is forgotten at once, whatever way it ends.
func TestPeerEndsWhileParked(t *testing.T) {
	s := serve(t, &Transporter{ParkAfter: parkSoon}, echoByte)
	for name, end := range map[string]func(*net.TCPConn) error{
		"close":      (*net.TCPConn).Close,
		"half-close": (*net.TCPConn).CloseWrite,
		"reset": func(c *net.TCPConn) error {
			if err := c.SetLinger(0); err != nil {
				return err
			}
			return c.Close()
		},
	} {
		c := dialServer(t, s)
		askByte(t, c, 'x')
		settles(t, "parked connections", 1, s.parked)
		if err := end(c.(*net.TCPConn)); err != nil {
			t.Fatal(name, err)
		}
		settles(t, "connections after a "+name, 0, s.open)
	}
}

// S6: Shutdown closes parked connections at once; Close does, too.
func TestS6_ShutdownWhileParked(t *testing.T) {
	for _, how := range []string{"Shutdown", "Close"} {
		s := serve(t, &Transporter{ParkAfter: parkSoon}, echoByte)
		var conns []net.Conn
		for range 50 {
			c := dialServer(t, s)
			askByte(t, c, 'x')
			conns = append(conns, c)
		}
		settles(t, "parked connections", len(conns), s.parked)
		var err error
		if how == "Close" {
			err = s.Close()
		} else {
			err = s.Shutdown(context.Background())
		}
		if err != nil {
			t.Errorf("%s: %v", how, err)
		}
		if n := s.open(); n != 0 {
			t.Errorf("%d connections are left after %s", n, how)
		}
		for _, c := range conns {
			if _, err := c.Read(make([]byte, 1)); err != io.EOF && !errors.Is(err, syscall.ECONNRESET) {
				t.Errorf("Read after %s: %v", how, err)
			}
		}
	}
}

// Somebody who has kept the connection may close it while it is parked.
func TestCloseWhileParked(t *testing.T) {
	kept := make(chan network.Conn, 1)
	s := serve(t, &Transporter{ParkAfter: parkSoon}, func(ctx context.Context, conn any) error {
		kept <- conn.(network.Conn)
		return echoByte(ctx, conn)
	})
	c := dialServer(t, s)
	askByte(t, c, 'x')
	settles(t, "parked connections", 1, s.parked)
	if err := (<-kept).Close(); err != nil {
		t.Error(err)
	}
	settles(t, "connections", 0, s.open)
	if _, err := c.Read(make([]byte, 1)); err != io.EOF {
		t.Errorf("Read: %v, want EOF", err)
	}
}

// Connections that are closed by everybody at once, while they are parked and resumed,
// are finished once each: what is counted comes out even.
func TestClosersRaceWithParking(t *testing.T) {
	var opened, closed atomic.Int64
	var kept sync.Map
	s := serve(t, &Transporter{
		ParkAfter:   time.Nanosecond,
		IdleTimeout: 3 * time.Millisecond,
		ConnState: func(_ network.Conn, state ConnState) {
			switch state {
			case StateNew:
				opened.Add(1)
			case StateClosed:
				closed.Add(1)
			}
		},
	}, func(ctx context.Context, conn any) error {
		kept.Store(conn, nil)
		return echoByte(ctx, conn)
	})
	n := 2000
	if testing.Short() {
		n = 300
	}
	var wg sync.WaitGroup
	for range 8 {
		wg.Go(func() {
			for i := range n / 8 {
				c, err := net.Dial("tcp", s.addr)
				if err != nil {
					t.Error(err)
					return
				}
				r := rand.New(rand.NewPCG(uint64(i), 1))
				for range r.IntN(4) {
					if _, err := c.Write([]byte("x")); err != nil {
						break
					}
					time.Sleep(time.Duration(r.IntN(4)) * time.Millisecond)
				}
				if r.IntN(2) == 0 {
					kept.Range(func(k, _ any) bool {
						kept.Delete(k)
						k.(network.Conn).Close()
						return r.IntN(4) > 0
					})
				}
				c.Close()
			}
		})
	}
	wg.Wait()
	settles(t, "connections", 0, s.open)
	s.close(t)
	if o, c := opened.Load(), closed.Load(); o != c || o == 0 {
		t.Errorf("%d connections came and %d went", o, c)
	}
}

// A byte that comes in the instant of parking is served: the gaps between the bytes lie
// around ParkAfter.
func TestByteInTheInstantOfParking(t *testing.T) {
	const after = 200 * time.Microsecond
	s := serve(t, &Transporter{ParkAfter: after}, echoByte)
	rounds := 3000
	if testing.Short() {
		rounds = 300
	}
	var wg sync.WaitGroup
	for i := range 8 {
		wg.Go(func() {
			c := dialServer(t, s)
			r := rand.New(rand.NewPCG(uint64(i), 2))
			for n := range rounds {
				askByte(t, c, byte(n))
				for end := time.Now().Add(time.Duration(r.Int64N(int64(3 * after)))); time.Now().Before(end); {
					time.Sleep(after / 4)
				}
			}
		})
	}
	wg.Wait()
}

// A thousand connections are resumed at once.
func TestManyResumesAtOnce(t *testing.T) {
	s := serve(t, &Transporter{ParkAfter: parkSoon}, echoByte)
	conns := make([]net.Conn, 1000)
	for i := range conns {
		conns[i] = dialServer(t, s)
		askByte(t, conns[i], 'x')
	}
	settles(t, "parked connections", len(conns), s.parked)
	for round := range byte(3) {
		for _, c := range conns {
			if _, err := c.Write([]byte{round}); err != nil {
				t.Fatal(err)
			}
		}
		for _, c := range conns {
			b := make([]byte, 1)
			if _, err := io.ReadFull(c, b); err != nil || b[0] != round {
				t.Fatalf("answer %v, %v, to %d", b, err, round)
			}
		}
	}
	settles(t, "parked connections", len(conns), s.parked)
}

// Each step is told in order.
func TestConnStates(t *testing.T) {
	states := make(chan ConnState, 100)
	s := serve(t, &Transporter{
		ParkAfter: parkSoon,
		ConnState: func(_ network.Conn, state ConnState) { states <- state },
	}, echoByte)
	c := dialServer(t, s)
	want := func(all ...ConnState) {
		t.Helper()
		for _, w := range all {
			if got := <-states; got != w {
				t.Fatalf("state %v, want %v", got, w)
			}
		}
	}
	want(StateNew)
	askByte(t, c, 'x')
	want(StateActive, StateIdle, StateParked)
	askByte(t, c, 'x')
	want(StateActive, StateIdle, StateParked)
	c.Close()
	want(StateClosed)
}

// joiningConn joins writes until it is let go.
type joiningConn struct {
	net.Conn
	hold bool
	buf  bytes.Buffer
}

func (c *joiningConn) Write(p []byte) (int, error) {
	if c.hold {
		return c.buf.Write(p)
	}
	return c.Conn.Write(p)
}

// A protocol that returns idle without having waited: a second record, which crypto/tls
// holds already, is served all the same, for the socket would never tell of it.
func TestParkingDoesNotForgetARecord(t *testing.T) {
	cc, sc := tlsConfigs(t)
	s := serve(t, &Transporter{ParkAfter: parkSoon, TLSConfig: sc}, func(_ context.Context, conn any) error {
		c := conn.(*TLSConn)
		b, err := c.ReadByte()
		if err != nil {
			return err
		}
		if _, err := network.Conn(c).Write([]byte{b}); err != nil {
			return err
		}
		c.SetIdle(true)
		return nil
	})
	jc := &joiningConn{Conn: dialServer(t, s)}
	c := tls.Client(jc, cc)
	askByte(t, c, 'a')
	jc.hold = true
	for _, b := range []string{"b", "c"} {
		if _, err := io.WriteString(c, b); err != nil {
			t.Fatal(err)
		}
	}
	if _, err := jc.Conn.Write(jc.buf.Bytes()); err != nil {
		t.Fatal(err)
	}
	_ = c.SetReadDeadline(time.Now().Add(5 * time.Second))
	b := make([]byte, 2)
	if n, err := io.ReadFull(c, b); string(b) != "bc" {
		t.Errorf("read %q, %v", b[:n], err)
	}
}

// S20: an IdleTimeout near the end of time is as good as none, for a parked connection too.
func TestS20_HugeIdleTimeoutWhileParked(t *testing.T) {
	for _, idle := range []time.Duration{math.MaxInt64, math.MaxInt64 - 1, 250 * 365 * 24 * time.Hour} {
		s := serve(t, &Transporter{IdleTimeout: idle, ParkAfter: time.Millisecond}, echoByte)
		c := dialServer(t, s)
		askByte(t, c, 'a')
		settles(t, "parked, or closed", 1, func() int { return s.Stats().Parked + int(s.Stats().ClosedIdle) })
		time.Sleep(20 * time.Millisecond)
		if n := s.Stats().ClosedIdle; n != 0 {
			t.Fatalf("IdleTimeout %v: %d connections were closed as idle", idle, n)
		}
		askByte(t, c, 'b')
	}
}
