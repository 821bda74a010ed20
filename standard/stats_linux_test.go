package standard

import (
	"context"
	"errors"
	"io"
	"net"
	"runtime"
	"testing"
	"time"

	"github.com/hertznet/hertznet/network"
)

// Each connection is counted once, by what ended it, and every byte is.
func TestStats(t *testing.T) {
	type closes struct{ Peer, Handler, Server, Idle, Slow, Error uint64 }
	closesOf := func(s Stats) closes {
		return closes{s.ClosedByPeer, s.ClosedByHandler, s.ClosedByServer, s.ClosedIdle, s.ClosedSlow, s.ClosedByError}
	}
	newTransporter := func() *Transporter { return &Transporter{} }
	for _, test := range []struct {
		name   string
		tr     *Transporter
		onData network.OnData
		end    func(t *testing.T, s *server, c *net.TCPConn)
		want   closes
	}{
		{"the peer", newTransporter(), echo, func(_ *testing.T, _ *server, c *net.TCPConn) { c.Close() }, closes{Peer: 1}},
		{"the peer's sending side", newTransporter(), echo, func(_ *testing.T, _ *server, c *net.TCPConn) { c.CloseWrite() }, closes{Peer: 1}},
		{"a reset", newTransporter(), echo, func(t *testing.T, _ *server, c *net.TCPConn) {
			if err := c.SetLinger(0); err != nil {
				t.Error(err)
			}
			c.Close()
		}, closes{Error: 1}},
		{"the handler", newTransporter(), func(ctx context.Context, conn any) error {
			if err := echo(ctx, conn); err != nil {
				return err
			}
			return conn.(network.Conn).Close()
		}, nil, closes{Handler: 1}},
		{"an error of the handler", newTransporter(), func(ctx context.Context, conn any) error {
			return errors.Join(echo(ctx, conn), errors.New("no more"))
		}, nil, closes{Handler: 1}},
		{"the idle time, parked", &Transporter{ParkAfter: parkSoon, IdleTimeout: 20 * time.Millisecond}, echo, nil, closes{Idle: 1}},
		{"the idle time, not parked", &Transporter{ParkAfter: -1, IdleTimeout: 20 * time.Millisecond}, echo, nil, closes{Idle: 1}},
		{"a slow peer", &Transporter{ReadTimeout: 20 * time.Millisecond}, func(ctx context.Context, conn any) error {
			if err := echo(ctx, conn); err != nil {
				return err
			}
			_, err := conn.(network.Conn).Peek(1)
			return err
		}, nil, closes{Slow: 1}},
		{"Shutdown", newTransporter(), echo, func(t *testing.T, s *server, _ *net.TCPConn) {
			if err := s.Shutdown(context.Background()); err != nil {
				t.Error(err)
			}
		}, closes{Server: 1}},
	} {
		t.Run(test.name, func(t *testing.T) {
			s := serve(t, test.tr, test.onData)
			c := dialServer(t, s).(*net.TCPConn)
			if _, err := c.Write([]byte("hello")); err != nil {
				t.Fatal(err)
			}
			if _, err := io.ReadFull(c, make([]byte, 5)); err != nil {
				t.Fatal(err)
			}
			if test.end != nil {
				test.end(t, s, c)
			}
			settles(t, "connections", 0, s.open)
			got := s.Stats()
			if closesOf(got) != test.want {
				t.Errorf("closed by %+v, want %+v", closesOf(got), test.want)
			}
			if got.Accepted != 1 || got.Open() != 0 {
				t.Errorf("accepted %d, open %d, want 1 and 0", got.Accepted, got.Open())
			}
			if got.BytesRead != 5 || got.BytesWritten != 5 || got.Flushes != 1 {
				t.Errorf("read %d, wrote %d in %d flushes, want 5, 5 and 1", got.BytesRead, got.BytesWritten, got.Flushes)
			}
			if got.PoolBytes <= 0 {
				t.Errorf("PoolBytes is %d after an exchange", got.PoolBytes)
			}
		})
	}
}

// What ended a connection is what ended it, and not what happened to it before.
func TestStatsOfUncommonEnds(t *testing.T) {
	for _, test := range []struct {
		name string
		tr   *Transporter
		// more is called by the handler after the first exchange. What it returns, the
		// handler returns.
		more func(c *Conn, told chan struct{}) error
		end  func(t *testing.T, s *server, peer net.Conn, told chan struct{})
		want func(Stats) uint64
	}{
		{"a read timeout that the handler bore",
			&Transporter{},
			func(c *Conn, told chan struct{}) error {
				if err := c.SetReadTimeout(time.Millisecond); err != nil {
					return err
				}
				if _, err := c.Peek(1); !isTimeout(err) {
					return err
				}
				close(told)
				if err := c.SetReadTimeout(0); err != nil {
					return err
				}
				if _, err := c.Peek(1); err != nil {
					return err
				}
				return c.Close()
			},
			func(t *testing.T, _ *server, peer net.Conn, told chan struct{}) {
				<-told
				if _, err := peer.Write([]byte("more")); err != nil {
					t.Error(err)
				}
			},
			func(s Stats) uint64 { return s.ClosedByHandler }},
		{"a Write that timed out",
			&Transporter{WriteTimeout: 20 * time.Millisecond},
			func(c *Conn, told chan struct{}) error {
				defer close(told)
				_, err := c.Write(make([]byte, 64<<20))
				return err
			},
			func(_ *testing.T, _ *server, peer net.Conn, told chan struct{}) {
				<-told
				peer.Close()
			},
			func(s Stats) uint64 { return s.ClosedSlow }},
		{"a Close while a Flush is blocked",
			&Transporter{},
			func(c *Conn, told chan struct{}) error {
				if _, err := c.WriteBinary(make([]byte, 64<<20)); err != nil {
					return err
				}
				go func() {
					<-told
					c.Close()
				}()
				return c.Flush()
			},
			func(t *testing.T, _ *server, peer net.Conn, told chan struct{}) {
				if _, err := peer.Read(make([]byte, 1)); err != nil { // so it has begun
					t.Error(err)
				}
				close(told)
			},
			func(s Stats) uint64 { return s.ClosedByHandler }},
		{"Shutdown while the handler runs",
			&Transporter{},
			func(_ *Conn, told chan struct{}) error {
				<-told
				return nil
			},
			func(t *testing.T, s *server, _ net.Conn, told chan struct{}) {
				done := make(chan error)
				go func() { done <- s.Shutdown(context.Background()) }()
				settles(t, "servers that stop", 1, func() int { return one(s.stopping.Load()) })
				close(told)
				if err := <-done; err != nil {
					t.Error(err)
				}
			},
			func(s Stats) uint64 { return s.ClosedByServer }},
		{"a Close by one who kept it while it was parked",
			&Transporter{ParkAfter: parkSoon, IdleTimeout: time.Hour},
			func(c *Conn, told chan struct{}) error {
				go func() {
					<-told
					c.Close()
				}()
				return nil
			},
			func(t *testing.T, s *server, _ net.Conn, told chan struct{}) {
				settles(t, "parked connections", 1, func() int { return s.Stats().Parked })
				close(told)
			},
			func(s Stats) uint64 { return s.ClosedByHandler }},
	} {
		t.Run(test.name, func(t *testing.T) {
			told := make(chan struct{})
			s := serve(t, test.tr, func(ctx context.Context, conn any) error {
				if err := echo(ctx, conn); err != nil {
					return err
				}
				return test.more(conn.(*Conn), told)
			})
			c := dialServer(t, s)
			if _, err := c.Write([]byte("hello")); err != nil {
				t.Fatal(err)
			}
			if _, err := io.ReadFull(c, make([]byte, 5)); err != nil {
				t.Fatal(err)
			}
			test.end(t, s, c, told)
			settles(t, "connections", 0, s.open)
			if got := s.Stats(); test.want(got) != 1 {
				t.Errorf("the one connection is not among those that ended so: %+v", got)
			}
		})
	}
}

// PoolBytes falls when blocks are collected.
func TestStatsPoolBytes(t *testing.T) {
	const size = 32 << 20
	poolBytes := func() int { return int(new(Transporter).Stats().PoolBytes) }
	nc, _ := tcpPair(t)
	c := NewConn(nc)
	if _, err := c.Malloc(size); err != nil {
		t.Fatal(err)
	}
	if got := poolBytes(); got < size {
		t.Errorf("PoolBytes is %d with a Malloc of %d", got, size)
	}
	c.Close()
	_ = c.Flush() // it fails and gives up what was pending
	settles(t, "a fall of PoolBytes", 1, func() int {
		runtime.GC()
		return one(poolBytes() < size)
	})
}

// The states are those of the connections that are open.
func TestStatsOfOpenConnections(t *testing.T) {
	hold := make(chan bool)
	s := serve(t, &Transporter{ParkAfter: parkSoon}, func(ctx context.Context, conn any) error {
		c := conn.(*Conn)
		b, err := c.Peek(1)
		if err != nil {
			return err
		}
		switch b[0] {
		case 'w':
			<-hold
		case 'h':
			c.SetHijacked()
			<-hold
		}
		return echo(ctx, conn)
	})
	defer close(hold)
	dialServer(t, s)
	for _, first := range "pwh" {
		c := dialServer(t, s)
		if _, err := c.Write([]byte(string(first))); err != nil {
			t.Fatal(err)
		}
	}
	want := Stats{New: 1, Parked: 1, Active: 1, Hijacked: 1}
	settles(t, "connections in their states", 1, func() int {
		got := s.Stats()
		return one(got.New == want.New && got.Parked == want.Parked && got.Active == want.Active && got.Hijacked == want.Hijacked && got.Open() == 4)
	})
}
