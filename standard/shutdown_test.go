package standard

import (
	"context"
	"crypto/tls"
	"errors"
	"io"
	"net"
	"testing"
	"testing/synctest"
	"time"

	"github.com/hertznet/hertznet/network"
)

// Close and Shutdown, beyond what the kit sees: to the moment, in all states of a
// connection, and with listeners and connections that misbehave.

var stops = map[string]func(*Transporter) error{
	"Close":    (*Transporter).Close,
	"Shutdown": func(tr *Transporter) error { return tr.Shutdown(context.Background()) },
}

// What is begun after Close or Shutdown ends at once, without an error: nothing is
// accepted, and the listener that came too late is closed.
func TestS5_ServingAfterTheEnd(t *testing.T) {
	for name, stop := range stops {
		t.Run(name, func(t *testing.T) {
			tr := &Transporter{Addr: "127.0.0.1:0", OnAccept: func(net.Conn) context.Context {
				t.Error("a connection was accepted")
				return nil
			}}
			for range 2 {
				if err := stop(tr); err != nil {
					t.Error(err)
				}
			}
			if err := tr.ListenAndServe(echo); err != nil {
				t.Errorf("ListenAndServe: %v", err)
			}
			ln := newScriptListener()
			ln.connect(t)
			if err := tr.Serve(ln, echo); err != nil {
				t.Errorf("Serve: %v", err)
			}
			if n := ln.closes.Load(); n != 1 {
				t.Errorf("the listener that came too late was closed %d times", n)
			}
		})
	}
}

// Close reaches a connection in a handshake, and one whose OnData has returned; the kit
// has neither.
func TestS5_CloseReachesHandshakesAndIdle(t *testing.T) {
	sc, _ := trustConfigs(t)
	for _, test := range []struct {
		state  ConnState
		config *tls.Config
	}{
		{StateHandshaking, sc},
		{StateIdle, nil},
	} {
		s := serve(t, &Transporter{TLSConfig: test.config}, echo)
		c := s.dial(t)
		if test.state == StateIdle {
			ask(t, c, "x")
		}
		settles(t, test.state.String(), 1, func() int { return s.inState(test.state) })
		if err := s.Close(); err != nil {
			t.Error(err)
		}
		peerCloses(t, c)
	}
}

// At once is without the grace of new connections, both for those that wait for OnData
// to be called again and for those whose OnData says that it is between messages.
func TestS6_ShutdownClosesIdleConnectionsAtOnce(t *testing.T) {
	handlers := map[string]network.OnData{
		"OnData returned": echo,
		"SetIdle in OnData": func(ctx context.Context, conn any) error {
			c := conn.(*Conn)
			for {
				if err := echo(ctx, conn); err != nil {
					return err
				}
				c.SetIdle(true)
				_, err := c.Peek(1)
				if !c.SetIdle(false) {
					return net.ErrClosed
				}
				if err != nil {
					return err
				}
			}
		},
	}
	for name, onData := range handlers {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				ln := newScriptListener()
				s := serveOn(t, &Transporter{IdleTimeout: time.Hour}, ln, onData)
				var conns []*Conn
				for range 50 {
					c := ln.connect(t)
					for range 3 { // idle, active and idle again
						if got := ask(t, c, "alive"); got != "alive" {
							t.Fatalf("got %q", got)
						}
					}
					conns = append(conns, c)
				}
				synctest.Wait()
				if n := s.inState(StateIdle); n != len(conns) {
					t.Errorf("%d of %d connections are idle", n, len(conns))
				}
				start := time.Now()
				if err := s.Shutdown(t.Context()); err != nil {
					t.Error(err)
				}
				if got := time.Since(start); got != 0 {
					t.Errorf("Shutdown took %v", got)
				}
				for _, c := range conns {
					if _, err := c.Peek(1); err != io.EOF {
						t.Errorf("a client got %v, want io.EOF", err)
					}
				}
			})
		})
	}
}

// A handler that turns idle after Shutdown began is closed then, and told so.
func TestS6_TurningIdleDuringShutdown(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ln := newScriptListener()
		idle := make(chan bool, 2)
		s := serveOn(t, &Transporter{}, ln, func(_ context.Context, conn any) error {
			c := conn.(*Conn)
			time.Sleep(time.Second)
			idle <- c.SetIdle(true)
			idle <- c.SetIdle(false)
			_, err := c.Peek(10)
			return err
		})
		c := ln.connect(t)
		if _, err := c.Write([]byte("x")); err != nil {
			t.Fatal(err)
		}
		synctest.Wait()
		start := time.Now()
		if err := s.Shutdown(t.Context()); err != nil {
			t.Error(err)
		}
		if d := time.Since(start); d != time.Second {
			t.Errorf("Shutdown took %v, want 1s", d)
		}
		if first, second := <-idle, <-idle; first || second {
			t.Errorf("SetIdle reported an open connection: %v, %v", first, second)
		}
	})
}

// A message that is buffered when Shutdown begins is answered: its connection is not
// idle.
func TestS6_ShutdownAnswersBufferedMessages(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ln := newScriptListener()
		s := serveOn(t, &Transporter{}, ln, func(_ context.Context, conn any) error {
			c := conn.(*Conn)
			b, err := c.ReadBinary(2)
			if err != nil {
				return err
			}
			time.Sleep(time.Second)
			_, err = c.Write(b)
			return err
		})
		c := ln.connect(t)
		if _, err := c.Write([]byte("1\n2\n3\n")); err != nil {
			t.Fatal(err)
		}
		synctest.Wait()
		done := make(chan error, 1)
		go func() { done <- s.Shutdown(t.Context()) }()
		if got, err := c.ReadBinary(6); string(got) != "1\n2\n3\n" {
			t.Errorf("got %q, %v", got, err)
		}
		if err := <-done; err != nil {
			t.Error(err)
		}
	})
}

// A connection that has not sent a byte yet gets a moment: its first request may be on
// its way. One whose request comes in that time is served.
func TestS6_NewConnectionsGetAShortGrace(t *testing.T) {
	t.Run("silent", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			ln := newScriptListener()
			s := serveOn(t, &Transporter{}, ln, echo)
			c := ln.connect(t)
			synctest.Wait()
			start := time.Now()
			if err := s.Shutdown(t.Context()); err != nil {
				t.Error(err)
			}
			if got := time.Since(start); got != newGrace {
				t.Errorf("Shutdown took %v, want %v", got, newGrace)
			}
			if _, err := c.Peek(1); err != io.EOF {
				t.Errorf("the client got %v", err)
			}
		})
	})
	t.Run("handshake", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			sc, _ := trustConfigs(t)
			ln := newScriptListener()
			s := serveOn(t, &Transporter{TLSConfig: sc}, ln, echo)
			ln.connect(t)
			synctest.Wait()
			start := time.Now()
			if err := s.Shutdown(t.Context()); err != nil {
				t.Error(err)
			}
			if got := time.Since(start); got != newGrace {
				t.Errorf("Shutdown took %v, want %v", got, newGrace)
			}
		})
	})
	t.Run("in time", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			ln := newScriptListener()
			s := serveOn(t, &Transporter{}, ln, func(_ context.Context, conn any) error {
				time.Sleep(time.Second) // longer than the grace
				return answer(conn.(network.Conn), "served")
			})
			c := ln.connect(t)
			synctest.Wait()
			start := time.Now()
			done := make(chan error, 1)
			go func() { done <- s.Shutdown(t.Context()) }()
			time.Sleep(newGrace / 2)
			if got := ask(t, c, "?"); got != "served" {
				t.Errorf("got %q", got)
			}
			if err := <-done; err != nil {
				t.Error(err)
			}
			if got, want := time.Since(start), newGrace/2+time.Second; got != want {
				t.Errorf("Shutdown took %v, want %v", got, want)
			}
		})
	})
}

// The kit sees exactly ctx.Err(). Beyond that, it comes to the moment, and what is left
// is closed.
func TestS7_ShutdownAtExpiry(t *testing.T) {
	for _, test := range []struct {
		name string
		ctx  func(context.Context) (context.Context, context.CancelFunc)
		want error
		took time.Duration
	}{
		{"timeout", func(ctx context.Context) (context.Context, context.CancelFunc) {
			return context.WithTimeout(ctx, 2*time.Second)
		}, context.DeadlineExceeded, 2 * time.Second},
		{"cancel", func(ctx context.Context) (context.Context, context.CancelFunc) {
			ctx, cancel := context.WithCancelCause(ctx)
			time.AfterFunc(time.Second, func() { cancel(errors.New("another reason")) })
			return ctx, func() { cancel(nil) }
		}, context.Canceled, time.Second},
		{"already over", func(ctx context.Context) (context.Context, context.CancelFunc) {
			ctx, cancel := context.WithCancel(ctx)
			cancel()
			return ctx, cancel
		}, context.Canceled, 0},
	} {
		t.Run(test.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				ln := newScriptListener()
				ended := make(chan error, 1)
				s := serveOn(t, &Transporter{}, ln, func(_ context.Context, conn any) error {
					_, err := conn.(network.Conn).Peek(10)
					ended <- err
					return err
				})
				c := ln.connect(t)
				if _, err := c.Write([]byte("x")); err != nil {
					t.Fatal(err)
				}
				synctest.Wait()
				ctx, cancel := test.ctx(t.Context())
				defer cancel()
				start := time.Now()
				if err := s.Shutdown(ctx); err != test.want {
					t.Errorf("got %v, want %v by ==", err, test.want)
				}
				if got := time.Since(start); got != test.took {
					t.Errorf("it took %v, want %v", got, test.took)
				}
				if err := <-ended; !errors.Is(err, net.ErrClosed) {
					t.Errorf("the handler got %v, want net.ErrClosed", err)
				}
				if _, err := c.Peek(1); err != io.EOF {
					t.Errorf("the client got %v", err)
				}
				synctest.Wait()
				if n := s.open(); n != 0 {
					t.Errorf("%d connections are left", n)
				}
			})
		})
	}
}

// One Shutdown whose time is over does not end another's wait before the connections end.
func TestS8_ExpiryIsOnesOwn(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ln := newScriptListener()
		s := serveOn(t, &Transporter{}, ln, func(context.Context, any) error {
			time.Sleep(time.Second)
			return io.EOF
		})
		if _, err := ln.connect(t).Write([]byte("x")); err != nil {
			t.Fatal(err)
		}
		synctest.Wait()
		start := time.Now()
		go func() {
			ctx, cancel := context.WithTimeout(t.Context(), 500*time.Millisecond)
			defer cancel()
			_ = s.Shutdown(ctx)
		}()
		if err := s.Shutdown(t.Context()); err != nil {
			t.Errorf("Shutdown: %v", err)
		}
		if got := time.Since(start); got != time.Second {
			t.Errorf("Shutdown took %v, want 1s", got)
		}
	})
}

// The kit counts the calls of the listener's Close. Its error comes out of the call that
// closed it, and a Serve that fails at once closes its listener too.
func TestS9_ListenerThatCannotBeClosed(t *testing.T) {
	for name, stop := range stops {
		ln := newScriptListener()
		want := errors.New("cannot close")
		ln.onClose = func() error { return want }
		s := serveOn(t, &Transporter{}, ln, echo)
		if err := stop(s.Transporter); err != want {
			t.Errorf("%s: got %v, want %v", name, err, want)
		}
		if err := <-s.served; err != nil {
			t.Errorf("%s: Serve: %v", name, err)
		}
	}
	s := serve(t, &Transporter{}, echo)
	for name, f := range map[string]func(net.Listener) error{
		"without OnData": func(ln net.Listener) error { return new(Transporter).Serve(ln, nil) },
		"a second Serve": func(ln net.Listener) error { return s.Serve(ln, echo) },
	} {
		ln := newScriptListener()
		if err := f(ln); err == nil {
			t.Errorf("%s: no error", name)
		}
		if n := ln.closes.Load(); n != 1 {
			t.Errorf("%s: the listener was closed %d times", name, n)
		}
	}
	if got := ask(t, s.dial(t), "alive"); got != "alive" {
		t.Errorf("the first one serves no more: %q", got)
	}
}

// meetingCloser is a conn whose Close waits until others are closing too.
type meetingCloser struct {
	net.Conn
	meet func()
}

func (c meetingCloser) Close() error {
	c.meet()
	return c.Conn.Close()
}

type wrappingListener struct {
	net.Listener
	wrap    func(net.Conn) net.Conn
	closing func()
}

func (l wrappingListener) Accept() (net.Conn, error) {
	c, err := l.Listener.Accept()
	if err != nil {
		return nil, err
	}
	return l.wrap(c), nil
}

func (l wrappingListener) Close() error {
	l.closing()
	return l.Listener.Close()
}

// S7: the connections of a foreign listener, whose Close may take its time, are
// closed side by side when the time of Shutdown is over.
func TestS7_SlowClosesDoNotAddUp(t *testing.T) {
	const conns = 10
	met := make(chan struct{}, conns)
	all := make(chan struct{})
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	in := make(chan struct{}, conns)
	tr := &Transporter{}
	go tr.Serve(wrappingListener{
		Listener: ln,
		closing:  func() {},
		wrap: func(c net.Conn) net.Conn {
			return meetingCloser{c, func() {
				if met <- struct{}{}; len(met) == conns {
					close(all)
				}
				<-all
			}}
		},
	}, func(ctx context.Context, c any) error {
		in <- struct{}{}
		<-all
		return nil
	})
	for range conns {
		c, err := net.Dial("tcp", ln.Addr().String())
		if err != nil {
			t.Fatal(err)
		}
		defer c.Close()
		_, _ = c.Write([]byte("x"))
		<-in
	}
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	ended := make(chan error, 1)
	go func() { ended <- tr.Shutdown(ctx) }()
	select {
	case err := <-ended:
		if err != ctx.Err() {
			t.Errorf("Shutdown: %v", err)
		}
	case <-time.After(late):
		t.Fatal("each Close waits for the one before")
	}
}

// S9: a listener may ask its transporter while it is being closed.
func TestS9_ListenerThatCallsBack(t *testing.T) {
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	tr := &Transporter{}
	var inner net.Listener
	wrapped := wrappingListener{
		Listener: ln,
		wrap:     func(c net.Conn) net.Conn { return c },
		closing:  func() { inner = tr.Listener() },
	}
	served := make(chan error, 1)
	go func() { served <- tr.Serve(wrapped, func(context.Context, any) error { return nil }) }()
	settles(t, "listeners", 1, func() int {
		if tr.Listener() == nil {
			return 0
		}
		return 1
	})
	closed := make(chan error, 1)
	go func() { closed <- tr.Close() }()
	if err := ends(t, closed); err != nil {
		t.Error(err)
	}
	if err := ends(t, served); err != nil {
		t.Error(err)
	}
	if _, ok := inner.(wrappingListener); !ok {
		t.Errorf("Listener returned a %T, not what Serve was given", inner)
	}
}
