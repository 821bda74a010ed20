package standard

import (
	"context"
	"io"
	"net"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/hertznet/hertznet/tlsconn"
)

// A message that is read by one operation is held to MinReadRate like any other: what has
// come in the course of it counts. On the clock of a bubble, over a conn that a timer which
// fires early ends for good, and over TLS, which bears one.
func TestMinReadRateWithinOneOperation(t *testing.T) {
	for _, kind := range []string{"brittle", "tls"} {
		for _, test := range []struct {
			name  string
			every time.Duration // between two bytes of a message of 100
			end   time.Duration // when it is cut; 0 is never
		}{
			// 10 bytes a second, 2 s of grace. n bytes have come at n*every, and have earned n/10 s.
			{"fast", 50 * time.Millisecond, 0},
			{"just fast enough", 100 * time.Millisecond, 0},
			{"slow", 400 * time.Millisecond, 2600 * time.Millisecond},
			{"silent", time.Hour, 2 * time.Second},
		} {
			t.Run(kind+", "+test.name, func(t *testing.T) {
				synctest.Test(t, func(t *testing.T) {
					var logs logged
					tr := &Transporter{MinReadRate: 10, MinReadGrace: 2 * time.Second, ReadTimeout: time.Hour, Logger: logs.logger()}
					ln := newScriptListener()
					c, accepted := pipePair(t)
					if kind == "tls" {
						cc, sc := tlsConfigs(t)
						tr.TLSConfig = sc
						tr.MinReadRate *= 23 // each byte has a record of TLS 1.3
						c = tlsconn.Client(c, cc)
					} else {
						accepted = &brittleConn{Conn: accepted}
					}
					ln.answers <- accepting{conn: accepted}
					type outcome struct {
						err   error
						after time.Duration
					}
					done := make(chan outcome, 1)
					s := serveOn(t, tr, ln, func(_ context.Context, conn any) error {
						start := time.Now()
						_, err := baseOf(conn).Peek(101)
						done <- outcome{err, time.Since(start)}
						return io.EOF
					})
					sent := make(chan struct{})
					go func() {
						defer close(sent)
						for range 101 {
							if _, err := c.Write([]byte("x")); err != nil {
								return
							}
							time.Sleep(test.every)
						}
					}()
					got := <-done
					switch {
					case test.end == 0 && got.err != nil:
						t.Errorf("cut after %v: %v", got.after, got.err)
					case test.end != 0:
						isTimeoutShape(t, got.err)
						if off := (got.after - test.end).Abs(); off > time.Millisecond {
							t.Errorf("cut after %v, want %v", got.after, test.end)
						}
					}
					if n, logged := s.Stats().TooSlow, strings.Contains(logs.String(), "MinReadRate"); n != uint64(one(test.end != 0)) || logged != (test.end != 0) {
						t.Errorf("%d reads were too slow, logged: %v", n, logged)
					}
					c.Close()
					<-sent
					s.close(t)
				})
			})
		}
	}
}

// brittleConn ends at its first timeout.
type brittleConn struct {
	net.Conn
	err error
}

func (c *brittleConn) Read(p []byte) (int, error) {
	if c.err != nil {
		return 0, c.err
	}
	n, err := c.Conn.Read(p)
	if err != nil {
		c.err = err
	}
	return n, err
}

// baseOf returns the Conn of what OnData gets.
func baseOf(conn any) *Conn {
	if c, ok := conn.(*TLSConn); ok {
		return &c.Conn
	}
	return conn.(*Conn)
}

// Over a socket, too. There the timer is set when it has fired, and not for each piece
// that comes.
func TestMinReadRateFollowsWhatComes(t *testing.T) {
	const pieces, size = 1000, 1000
	armed := make(chan int, 1)
	errs := make(chan error, 1)
	s := serve(t, &Transporter{MinReadRate: size, MinReadGrace: 300 * time.Millisecond, ReadTimeout: late},
		func(_ context.Context, conn any) error {
			c := conn.(*Conn)
			stop := make(chan struct{})
			go func() {
				settings, last := 0, int64(0)
				for {
					if now := c.rd.armed.Load(); now != last {
						settings, last = settings+1, now
					}
					select {
					case <-stop:
						armed <- settings
						return
					case <-time.After(100 * time.Microsecond):
					}
				}
			}()
			_, err := c.Peek(pieces * size)
			close(stop)
			errs <- err
			return io.EOF
		})
	c := dialServer(t, s)
	go func() {
		for range pieces {
			if _, err := c.Write(make([]byte, size)); err != nil {
				return
			}
			time.Sleep(time.Millisecond)
		}
	}()
	if err := <-errs; err != nil {
		t.Errorf("a peer that is a thousand times as fast as it must be: %v", err)
	}
	// The first bytes earn a second, and each further time it fires they have earned more.
	if n := <-armed; n > 20 {
		t.Errorf("the timer was set %d times", n)
	}
	if n := s.Stats().TooSlow; n != 0 {
		t.Errorf("%d reads were too slow", n)
	}
}

// Who sends a byte at a time to one operation over a socket is cut, counted and logged.
func TestMinReadRateCutsSingleBytes(t *testing.T) {
	const grace = 200 * time.Millisecond
	type outcome struct {
		err   error
		after time.Duration
	}
	done := make(chan outcome, 1)
	var logs logged
	s := serve(t, &Transporter{MinReadRate: 1000, MinReadGrace: grace, ReadTimeout: late, Logger: logs.logger()},
		func(_ context.Context, conn any) error {
			start := time.Now()
			_, err := conn.(*Conn).Peek(1 << 20)
			done <- outcome{err, time.Since(start)}
			return err
		})
	c := dialServer(t, s)
	go func() {
		for {
			if _, err := c.Write([]byte("x")); err != nil {
				return
			}
			time.Sleep(5 * time.Millisecond)
		}
	}()
	got := <-done
	wantTimeout(t, got.err)
	if got.after < grace || got.after > late/2 {
		t.Errorf("cut after %v", got.after)
	}
	if n := s.Stats().TooSlow; n != 1 {
		t.Errorf("%d reads were too slow, want 1", n)
	}
	if !strings.Contains(logs.String(), "MinReadRate") {
		t.Errorf("logged %q", logs.String())
	}
	settles(t, "connections that ended because they were slow", 1, func() int { return int(s.Stats().ClosedSlow) })
}

// Over TLS what counts is what has come, and not what could be decrypted: a peer that
// sends a record of 16 KiB fast enough has not sent nothing until it is whole.
func TestMinReadRateCountsPartsOfRecords(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		const rate, record = 1000, 16 << 10 // sixteen seconds at the rate
		cc, sc := tlsConfigs(t)
		ln := newScriptListener()
		var wire slowWire
		wire.Conn = ln.connect(t)
		c := tlsconn.Client(&wire, cc)
		errs := make(chan error, 1)
		s := serveOn(t, &Transporter{TLSConfig: sc, MinReadRate: rate, MinReadGrace: time.Second, ReadTimeout: time.Hour}, ln,
			func(_ context.Context, conn any) error {
				_, err := conn.(*TLSConn).Peek(1 + record)
				errs <- err
				return io.EOF
			})
		if _, err := c.Write([]byte("x")); err != nil {
			t.Fatal(err)
		}
		synctest.Wait() // the message has begun
		wire.pause, wire.piece = 100*time.Millisecond, rate/10*2
		if _, err := c.Write(make([]byte, record)); err != nil {
			t.Errorf("sending twice as fast as the rate: %v", err)
		}
		if err := <-errs; err != nil {
			t.Errorf("a peer that is twice as fast as it must be: %v", err)
		}
		if n := s.Stats().TooSlow; n != 0 {
			t.Errorf("%d reads were too slow", n)
		}
		c.Close()
		s.close(t)
	})
}

// slowWire sends piece bytes, pauses, and so on.
type slowWire struct {
	net.Conn
	piece int
	pause time.Duration
}

func (w *slowWire) Write(p []byte) (n int, err error) {
	for n < len(p) && err == nil {
		size := len(p) - n
		if w.piece > 0 {
			size = min(size, w.piece)
			time.Sleep(w.pause)
		}
		var m int
		m, err = w.Conn.Write(p[n : n+size])
		n += m
	}
	return n, err
}

// The bound holds also for an operation that at first meets a timer of an earlier one.
func TestMinReadRateBehindAnOldTimer(t *testing.T) {
	done := make(chan error, 1)
	s := serve(t, &Transporter{MinReadRate: 1000, MinReadGrace: 100 * time.Millisecond}, func(_ context.Context, conn any) error {
		c := conn.(*Conn)
		c.LimitReadRate(false)
		_ = c.SetReadTimeout(50 * time.Millisecond)
		_, err := c.Peek(c.Len() + 1)
		isTimeoutShape(t, err)
		_ = c.SetReadTimeout(0) // the timer has fired, and stays as it is
		c.LimitReadRate(true)
		_, err = c.Peek(c.Len() + 1)
		done <- err
		return err
	})
	c := dialServer(t, s)
	if _, err := c.Write([]byte("x")); err != nil {
		t.Fatal(err)
	}
	isTimeoutShape(t, ends(t, done))
	if n := s.Stats().TooSlow; n != 1 {
		t.Errorf("%d reads were too slow, want 1", n)
	}
}

// A grace without end, and earnings without end, are no overflow [T13].
func TestMinReadRateDoesNotOverflow(t *testing.T) {
	for _, p := range []*pace{newPace(1, 1<<63-1), newPace(1, time.Second)} {
		p.limit(true)
		if p.grace == int64(time.Second) {
			p.got = 1 << 62
		}
		p.follow()
		if until := p.until.Load(); until != 0 && until < moment()+int64(time.Hour) {
			t.Errorf("grace %v, %d bytes: it ends at %d", time.Duration(p.grace), p.got, until)
		}
	}
}

// T15, C7: a deadline that another goroutine sets or lifts while an operation waits is the
// user's alone: the pace ends the operation all the same.
func TestT15_MinReadRateBesideADeadline(t *testing.T) {
	for _, limit := range []time.Time{{}, time.Now().Add(late)} {
		const grace = 200 * time.Millisecond
		done := make(chan error, 1)
		s := serve(t, &Transporter{MinReadRate: 1000, MinReadGrace: grace, ReadTimeout: late},
			func(_ context.Context, conn any) error {
				c := conn.(*Conn)
				go func() {
					time.Sleep(grace / 4)
					_ = c.SetReadDeadline(limit)
				}()
				_, err := c.Peek(100)
				done <- err
				return err
			})
		c := dialServer(t, s)
		if _, err := c.Write([]byte("x")); err != nil {
			t.Fatal(err)
		}
		select {
		case err := <-done:
			isTimeoutShape(t, err)
		case <-time.After(20 * grace):
			t.Errorf("deadline %v: a silent peer is waited for", limit)
			c.Close()
		}
	}
}

// MinReadRate holds also for a protocol that returns from OnData until a message is whole.
func TestMinReadRateBetweenCallsOfOnData(t *testing.T) {
	const grace = 200 * time.Millisecond
	onData := func(_ context.Context, conn any) error {
		c := conn.(*Conn)
		if c.Len() < 1000 {
			return nil
		}
		_ = c.Skip(c.Len())
		_, err := c.Write([]byte("whole\n"))
		return err
	}
	s := serve(t, &Transporter{MinReadRate: 1 << 20, MinReadGrace: grace, IdleTimeout: late}, onData)
	c := dialServer(t, s)
	// Between two messages nothing is owed.
	for range 2 {
		if _, err := c.Write(make([]byte, 1000)); err != nil {
			t.Fatal(err)
		}
		if _, err := io.ReadFull(c, make([]byte, len("whole\n"))); err != nil {
			t.Fatal(err)
		}
		time.Sleep(2 * grace)
	}
	for start := time.Now(); s.Stats().TooSlow == 0; time.Sleep(20 * time.Millisecond) {
		if time.Since(start) > 20*grace {
			t.Fatal("a peer that sends 50 bytes a second is not cut")
		}
		_, _ = c.Write([]byte("x"))
	}
}
