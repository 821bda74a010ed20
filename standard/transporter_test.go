package standard

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net"
	"runtime"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/hertznet/hertznet/network"
)

// The kit's TestTransporter judges what any Transporter does. Here is what this one
// adds: its settings, its limits to the moment, when it calls OnData, and what it keeps.
// Stopping is in shutdown_test.go, listening and accepting in listen_test.go.

// The kit sees a context that is not nil. Here it is that of the hooks, in every call,
// and OnConnect's nil leaves what was there [S13]. OnAccept gets the socket, OnConnect
// what OnData gets: a ConnTLSer over TLS and not without, for Hertz asks its type.
func TestS2_WhatHooksAndOnDataGet(t *testing.T) {
	type key string
	sc, cc := trustConfigs(t)
	for _, config := range []*tls.Config{nil, cc} {
		for _, set := range []bool{false, true} {
			t.Run(fmt.Sprintf("TLS %v, context from OnConnect %v", config != nil, set), func(t *testing.T) {
				var connected network.Conn
				tr := &Transporter{
					OnAccept: func(c net.Conn) context.Context {
						if _, ok := c.(*net.TCPConn); !ok {
							t.Errorf("OnAccept got a %T", c)
						}
						return context.WithValue(context.Background(), key("accept"), 1)
					},
					OnConnect: func(ctx context.Context, c network.Conn) context.Context {
						connected = c
						if set {
							return context.WithValue(ctx, key("connect"), 2)
						}
						return nil
					},
				}
				if config != nil {
					tr.TLSConfig = sc
				}
				s := serve(t, tr, func(ctx context.Context, conn any) error {
					if ctx.Value(key("accept")) != 1 || (ctx.Value(key("connect")) == 2) != set {
						t.Errorf("the context is not the hooks': %v", ctx)
					}
					if conn != any(connected) {
						t.Error("OnConnect and OnData got different connections")
					}
					if c, ok := conn.(network.ConnTLSer); ok != (config != nil) || ok && !c.ConnectionState().HandshakeComplete {
						t.Errorf("OnData got a %T", conn)
					}
					return answer(conn.(network.Conn), "ok")
				})
				c, err := new(Dialer).DialConnection("tcp", s.addr, time.Minute, config)
				if err != nil {
					t.Fatal(err)
				}
				defer c.Close()
				for range 2 {
					if got := ask(t, c, "?"); got != "ok" {
						t.Errorf("got %q", got)
					}
				}
			})
		}
	}
}

// Peers may bring panics about as often as they like. One of them in a while is logged, with its
// stack, and the next line says how many were left out; each is counted, and closes its
// connection.
func TestS10_PanicsAreLoggedOnceInAWhile(t *testing.T) {
	for _, place := range []string{"a handler", "the ConnState hook"} {
		t.Run(place, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				var logs logged
				tr := &Transporter{Logger: logs.logger()}
				onData := func(context.Context, any) error { panic("blown") }
				if place == "the ConnState hook" {
					onData = func(context.Context, any) error { return io.EOF }
					tr.ConnState = func(_ network.Conn, s ConnState) {
						if s == StateActive {
							panic("blown")
						}
					}
				}
				ln := newScriptListener()
				s := serveOn(t, tr, ln, onData)
				attack := func() {
					t.Helper()
					c := ln.connect(t)
					if _, err := c.Write([]byte("x")); err != nil {
						t.Fatal(err)
					}
					peerCloses(t, c)
				}
				for range 100 {
					attack()
				}
				time.Sleep(logPause)
				attack()
				lines := strings.Split(strings.TrimSpace(logs.String()), "\n")
				if len(lines) != 2 || !strings.Contains(lines[1], "alsoNotLogged=99") {
					t.Errorf("logged %d lines: %.500s", len(lines), lines)
				}
				for _, l := range lines {
					if !strings.Contains(l, place+" panicked") || !strings.Contains(l, "panic=blown") || !strings.Contains(l, "TestS10_PanicsAre") {
						t.Errorf("without the panic or its stack: %s", l)
					}
				}
				if n := s.Stats().Panics; n != 101 {
					t.Errorf("%d panics, want 101", n)
				}
				s.close(t)
			})
		})
	}
}

// The kit sees a panic in OnData. One in a hook closes that connection only as well, and
// so does a handler that ends its goroutine; the log has the panic once, with its stack.
func TestS10_PanicInAHook(t *testing.T) {
	for _, place := range []string{"OnAccept", "OnConnect", "OnData", "Goexit"} {
		var logs logged
		var broken atomic.Bool
		broken.Store(true)
		blow := func(where string) {
			if where == place && broken.Load() {
				panic("blown in " + place)
			}
		}
		s := serve(t, &Transporter{
			Logger: logs.logger(),
			OnAccept: func(net.Conn) context.Context {
				blow("OnAccept")
				return nil
			},
			OnConnect: func(context.Context, network.Conn) context.Context {
				blow("OnConnect")
				return nil
			},
		}, func(ctx context.Context, conn any) error {
			blow("OnData")
			if place == "Goexit" && broken.Load() {
				runtime.Goexit()
			}
			return echo(ctx, conn)
		})
		c := s.dial(t)
		// The server may be gone before the byte comes.
		_, _ = c.Write([]byte("x\n"))
		peerCloses(t, c)
		settles(t, "connections", 0, s.open)
		broken.Store(false)
		if place != "Goexit" && (!strings.Contains(logs.String(), "blown in "+place) || !strings.Contains(logs.String(), "TestS10")) {
			t.Errorf("%s: the panic and its stack are not in the log:\n%s", place, logs.String())
		}
		if got := ask(t, s.dial(t), "alive"); got != "alive" {
			t.Errorf("%s: a new connection: %q", place, got)
		}
		if n := strings.Count(logs.String(), "level=ERROR"); n != one(place != "Goexit") {
			t.Errorf("%s: %d entries of errors:\n%s", place, n, logs.String())
		}
		s.close(t)
	}
}

// A handshake that fails is reported before the connection is closed, can be answered in
// plain text, and calls neither OnConnect nor OnData.
func TestS12_FailedHandshake(t *testing.T) {
	sc, _ := trustConfigs(t)
	failed := make(chan error, 1)
	s := serve(t, &Transporter{
		TLSConfig: sc,
		OnConnect: func(context.Context, network.Conn) context.Context {
			t.Error("OnConnect was called")
			return nil
		},
		OnHandshakeError: func(_ net.Conn, err error) {
			if re, ok := err.(tls.RecordHeaderError); ok && re.Conn != nil {
				_, _ = io.WriteString(re.Conn, "this is a TLS port\n")
			}
			failed <- err
		},
	}, func(context.Context, any) error {
		t.Error("OnData was called")
		return nil
	})
	c := s.dial(t)
	// As much as the record header that the server looks at: unread bytes would reset the connection.
	if _, err := c.Write([]byte("GET /")); err != nil {
		t.Fatal(err)
	}
	if got := line(t, c); got != "this is a TLS port" {
		t.Errorf("got %q", got)
	}
	if err := <-failed; err == nil {
		t.Error("no error")
	}
	peerCloses(t, c)
}

// "Closing the connection refuses it": nothing more is called for it.
func TestS12_OnAcceptRefuses(t *testing.T) {
	sc, _ := trustConfigs(t)
	for name, config := range map[string]*tls.Config{"plain": nil, "TLS": sc} {
		t.Run(name, func(t *testing.T) {
			s := serve(t, &Transporter{
				TLSConfig: config,
				OnAccept: func(c net.Conn) context.Context {
					c.Close()
					return nil
				},
				OnConnect: func(context.Context, network.Conn) context.Context {
					t.Error("OnConnect was called")
					return nil
				},
				OnHandshakeError: func(net.Conn, error) { t.Error("OnHandshakeError was called") },
			}, func(context.Context, any) error {
				t.Error("OnData was called")
				return nil
			})
			peerCloses(t, s.dial(t))
			settles(t, "connections", 0, s.open)
		})
	}
}

// The kit counts goroutines and descriptors. Blocks of memory come back too [P4], and
// the transporter's own table is empty, however the connections end.
func TestS14_ManyConnectsLeaveNoBlocks(t *testing.T) {
	total := 10_000
	if testing.Short() || underRace {
		total = 1000
	}
	sc, cc := trustConfigs(t)
	plain := serve(t, &Transporter{}, echo)
	secure := serve(t, &Transporter{TLSConfig: sc, HandshakeTimeout: time.Minute}, echo)
	blocks := outstanding.Load()
	var next, failed atomic.Int64
	var wg sync.WaitGroup
	for range 16 {
		wg.Go(func() {
			for i := next.Add(1); i <= int64(total); i = next.Add(1) {
				if err := connectOnce(int(i), plain.addr, secure.addr, cc); err != nil && failed.Add(1) < 5 {
					t.Errorf("connection %d: %v", i, err)
				}
			}
		})
	}
	wg.Wait()
	settles(t, "plain connections", 0, plain.open)
	settles(t, "TLS connections", 0, secure.open)
	settles(t, "blocks above the baseline", 0, func() int { return int(max(outstanding.Load()-blocks, 0)) })
}

// connectOnce makes one connection of many, each in another manner.
func connectOnce(i int, plain, secure string, config *tls.Config) error {
	var d Dialer
	addr := plain
	if i%16 < 2 {
		addr = secure
	} else {
		config = nil
	}
	if i%16 == 1 { // a stalled handshake
		config = nil
	}
	c, err := d.DialConnection("tcp", addr, 30*time.Second, config)
	if err != nil {
		return err
	}
	defer c.Close()
	if nc, ok := c.(interface{ NetConn() net.Conn }).NetConn().(*net.TCPConn); ok {
		nc.SetLinger(0) // many tests in a row would run out of ports
	}
	if i%16 == 1 || i%4 == 3 { // leaves without a word
		return nil
	}
	if _, err := c.Write([]byte("hello")); err != nil {
		return err
	}
	if i%4 == 2 { // leaves before the answer
		return nil
	}
	if _, err := c.ReadBinary(5); err != nil {
		return err
	}
	return c.Release()
}

// The kit sees that such connections are closed. Here is when, to the moment, and by
// which of the settings.
func TestS18_SilentConnectionsAreClosed(t *testing.T) {
	const limit = 3 * time.Second
	for _, test := range []struct {
		name      string
		tr        *Transporter
		tls, drip bool
		want      time.Duration
	}{
		{"silent", &Transporter{ReadTimeout: limit, IdleTimeout: time.Hour}, false, false, limit},
		{"silent handshake", &Transporter{ReadTimeout: limit}, true, false, limit},
		{"dripping handshake", &Transporter{ReadTimeout: limit}, true, true, limit},
		{"handshake timeout", &Transporter{ReadTimeout: time.Hour, HandshakeTimeout: limit}, true, true, limit},
		{"default handshake timeout", &Transporter{}, true, false, DefaultHandshakeTimeout},
	} {
		t.Run(test.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				tr := test.tr
				if test.tls {
					tr.TLSConfig, _ = trustConfigs(t)
				}
				ln := newScriptListener()
				s := serveOn(t, tr, ln, func(context.Context, any) error {
					t.Error("OnData was called")
					return nil
				})
				start := time.Now()
				c := ln.connect(t)
				var wg sync.WaitGroup
				defer wg.Wait()
				if test.drip {
					wg.Go(func() {
						for _, b := range []byte{22, 3, 1, 1, 0} { // a record that never gets whole
							if _, err := c.Write([]byte{b}); err != nil {
								return
							}
							time.Sleep(time.Second)
						}
					})
				}
				if _, err := c.Peek(1); err != io.EOF {
					t.Errorf("the client got %v", err)
				}
				if got := time.Since(start); got != test.want {
					t.Errorf("closed after %v, want %v", got, test.want)
				}
				synctest.Wait()
				if n := s.open(); n != 0 {
					t.Errorf("%d connections are left", n)
				}
			})
		})
	}
}

// ReadTimeout is that of each operation in OnData, and begins anew after a handshake.
func TestS18_ReadTimeoutInOnData(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		sc, cc := trustConfigs(t)
		sc.SessionTicketsDisabled = true
		ln := newScriptListener()
		ended := make(chan time.Time, 1)
		s := serveOn(t, &Transporter{TLSConfig: sc, ReadTimeout: 3 * time.Second, IdleTimeout: time.Hour}, ln,
			func(_ context.Context, conn any) error {
				_, err := conn.(network.Conn).Peek(10)
				isTimeoutShape(t, err)
				ended <- time.Now()
				return err
			})
		c, err := new(Dialer).AddTLS(ln.connect(t), withName(cc))
		if err != nil {
			t.Fatal(err)
		}
		time.Sleep(2 * time.Second)
		if _, err := c.Write([]byte("x")); err != nil {
			t.Fatal(err)
		}
		start := time.Now()
		if got := (<-ended).Sub(start); got != 3*time.Second {
			t.Errorf("the operation ended after %v, want 3s", got)
		}
		go func() { _, _ = c.Peek(1) }() // takes the close_notify
		s.close(t)
	})
}

// It is so in every call, whatever the handler or the idle wait left set.
func TestS18_ReadTimeoutInEveryCall(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ln := newScriptListener()
		took := make(chan time.Duration, 1)
		s := serveOn(t, &Transporter{ReadTimeout: 3 * time.Second, IdleTimeout: time.Hour}, ln,
			func(ctx context.Context, conn any) error {
				c := conn.(network.Conn)
				if b, _ := c.Peek(1); b[0] != 'x' {
					defer c.SetReadTimeout(time.Minute)
					return echo(ctx, conn)
				}
				start := time.Now()
				_, err := c.Peek(10)
				isTimeoutShape(t, err)
				took <- time.Since(start)
				return err
			})
		c := ln.connect(t)
		for range 2 {
			if got := ask(t, c, "alive"); got != "alive" {
				t.Fatalf("got %q", got)
			}
			time.Sleep(10 * time.Minute)
		}
		if _, err := c.Write([]byte("x")); err != nil {
			t.Fatal(err)
		}
		if got := <-took; got != 3*time.Second {
			t.Errorf("the operation ended after %v, want 3s", got)
		}
		s.close(t)
	})
}

// IdleTimeout limits the wait between two calls of OnData and nothing else, to the
// moment, and not at all if it is zero or less.
func TestS20_IdleTimeout(t *testing.T) {
	const idle = 5 * time.Second
	for _, test := range []struct {
		name string
		idle time.Duration
		want time.Duration // 0 is never
	}{
		{"set", idle, idle},
		{"zero", 0, 0},
		{"negative", -1, 0},
	} {
		t.Run(test.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				ln := newScriptListener()
				s := serveOn(t, &Transporter{ReadTimeout: time.Second, IdleTimeout: test.idle}, ln, echo)
				c := ln.connect(t)
				for range 3 {
					if got := ask(t, c, "alive"); got != "alive" {
						t.Fatalf("got %q", got)
					}
					time.Sleep(idle - 1) // each exchange begins the wait anew
				}
				if got := ask(t, c, "alive"); got != "alive" {
					t.Fatalf("got %q", got)
				}
				start := time.Now()
				if err := c.SetReadTimeout(time.Hour); err != nil {
					t.Fatal(err)
				}
				_, err := c.Peek(1)
				if test.want == 0 {
					isTimeoutShape(t, err)
				} else if err != io.EOF {
					t.Errorf("the client got %v", err)
				} else if got := time.Since(start); got != test.want {
					t.Errorf("closed after %v, want %v", got, test.want)
				}
				s.close(t)
			})
		})
	}
}

// OnData is called when bytes are there, again at once when it took some and left
// others, and not before more have come when it took none. The end of the stream is no
// message, even if there are bytes that it did not take.
func TestOnDataIsCalledForBytes(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		type call struct{ had, took int }
		var calls []call
		take := []int{1, 1, 2, 0, 0, 3, 0, 4, 0}
		ln := newScriptListener()
		s := serveOn(t, &Transporter{}, ln, func(_ context.Context, conn any) error {
			c := conn.(*Conn)
			if len(calls) == len(take) {
				t.Fatalf("called again with %d bytes", c.Len())
			}
			n := take[len(calls)]
			calls = append(calls, call{c.Len(), n})
			return c.Skip(n)
		})
		c := ln.connect(t)
		var want []call
		send := func(text string, more ...call) {
			t.Helper()
			if _, err := c.Write([]byte(text)); err != nil {
				t.Fatal(err)
			}
			synctest.Wait()
			time.Sleep(time.Minute) // no call comes of itself
			if want = append(want, more...); !slices.Equal(calls, want) {
				t.Fatalf("calls with what was there and what was taken: %v, want %v", calls, want)
			}
		}
		send("")
		send("abcd", call{4, 1}, call{3, 1}, call{2, 2}) // all of it is taken, in three calls
		send("e", call{1, 0})                            // nothing is taken
		send("f", call{2, 0})                            // nothing again
		send("g", call{3, 3})                            // all three
		send("hi", call{2, 0})
		send("jk", call{4, 4})
		send("l", call{1, 0})
		c.Close() // and no call for the end
		synctest.Wait()
		if n := s.open(); n != 0 || len(calls) != len(want) {
			t.Errorf("after the end: %d connections, %d calls", n, len(calls)-len(want))
		}
		s.close(t)
	})
}

// An error closes the connection, and so may OnData itself; it is not called again, nor
// for a connection that comes and goes.
func TestOnDataEndsTheConnection(t *testing.T) {
	for name, end := range map[string]func(network.Conn) error{
		"by an error": func(network.Conn) error { return errors.New("enough") },
		"by EOF":      func(network.Conn) error { return io.EOF },
		"by Close":    func(c network.Conn) error { return c.Close() },
		"by both": func(c network.Conn) error {
			c.Close()
			return c.Close()
		},
	} {
		t.Run(name, func(t *testing.T) {
			var calls atomic.Int32
			s := serve(t, &Transporter{}, func(_ context.Context, conn any) error {
				calls.Add(1)
				return end(conn.(network.Conn))
			})
			s.dial(t).Close()
			c := s.dial(t)
			if _, err := c.Write([]byte("more than is taken")); err != nil {
				t.Fatal(err)
			}
			peerCloses(t, c)
			settles(t, "connections", 0, s.open)
			if n := calls.Load(); n != 1 {
				t.Errorf("%d calls", n)
			}
		})
	}
}

// The states have names, for a debugger.
func TestConnStateString(t *testing.T) {
	if got := fmt.Sprint(StateNew, StateHandshaking, StateActive, StateIdle, StateClosed, ConnState(-1), ConnState(7)); got != "new handshaking active idle closed ConnState(-1) ConnState(7)" {
		t.Errorf("got %q", got)
	}
}

// ReadBufferSize is the least size of the block that a connection reads into: one
// byte is enough to take it.
func TestReadBufferSize(t *testing.T) {
	for _, useTLS := range []bool{false, true} {
		for _, size := range []int{-1, 0, 1, minBlockSize, minBlockSize + 1, 64 << 10, maxPooledSize, 2*maxPooledSize + 1} {
			held := make(chan int, 1)
			tr := &Transporter{ReadBufferSize: size}
			sc, cc := trustConfigs(t)
			if useTLS {
				tr.TLSConfig = sc
			}
			s := serve(t, tr, func(_ context.Context, conn any) error {
				c, ok := conn.(*Conn)
				if !ok {
					c = &conn.(*TLSConn).Conn
				}
				held <- len(c.in.cur.buf)
				return io.EOF
			})
			config := cc
			if !useTLS {
				config = nil
			}
			c, err := new(Dialer).DialConnection("tcp", s.addr, time.Minute, config)
			if err != nil {
				t.Fatal(err)
			}
			if _, err := c.Write([]byte("x")); err != nil {
				t.Fatal(err)
			}
			least := max(size, minBlockSize)
			if got := <-held; got < least || got > 2*least {
				t.Errorf("TLS %v, ReadBufferSize %d: the block has %d bytes", useTLS, size, got)
			}
			c.Close()
			s.close(t)
		}
	}
}
