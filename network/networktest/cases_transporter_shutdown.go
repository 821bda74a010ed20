package networktest

import (
	"context"
	"fmt"
	"net"
	"sync/atomic"
	"time"

	"github.com/hertznet/hertznet/network"
)

func closeAtAnyTime(t *transporterCheck) {
	ln := t.listenTCP()
	tr := t.make(TransporterOptions{Listener: ln})
	t.step("Close before ListenAndServe")
	t.within(t.spawn(func() { tr.Close() }), "Close to return")
	s := t.start(tr, ln.Addr(), t.onData(answerOnce))
	t.step("ListenAndServe after Close")
	t.within(s.done, "ListenAndServe to return")

	busy := newHold()
	s = t.serve(TransporterOptions{}, t.onData(func(ctx context.Context, c network.Conn) error {
		m, err := receiveMessage(c)
		switch {
		case err != nil:
			c.Close()
			return err
		case m[0] == 'b':
			busy.here(t)
			c.Close()
			return nil
		}
		_ = sendMessage(c, m)
		return answerAll(ctx, c)
	}))
	t.step("connect three times: one says nothing, one waits for the answer to its message, one has got it")
	silent, waiting, answered := t.dial(s), t.dial(s), t.dial(s)
	t.ask(s, answered, 'm')
	t.send(waiting, 'b')
	t.signalled(s, busy.entered, "OnData to be called")
	t.step("Close while serving")
	closed := t.spawn(func() { s.Close() })
	t.within(closed, "Close to return, though a handler does not")
	t.within(s.done, "ListenAndServe to return after Close")
	for what, c := range map[string]net.Conn{"that said nothing": silent, "whose message is being handled": waiting, "whose message was answered": answered} {
		t.step("read from the connection %s, after Close", what)
		t.ends(c, "the connection to be closed")
	}
	t.step("connect after Close")
	if c, err := net.DialTimeout("tcp", s.addr.String(), endTime()); err == nil {
		t.track(c)
		_ = c.SetDeadline(time.Now().Add(20 * time.Millisecond))
		t.expect(exchange(c, 'm') != nil, "nobody to answer", "an answer")
	}
	busy.let()
	for range 2 {
		t.step("Close after serving")
		t.within(t.spawn(func() { s.Close() }), "Close to return")
	}
}

// What is idle is judged in two ways: a handler that has returned from OnData
// between messages, and one that waits inside of it, as Hertz's does. Neither may
// hold up Shutdown, whether it is idle when Shutdown begins or becomes so later.
func shutdownIdleAndActive(t *transporterCheck) {
	const idleTimeout = time.Minute
	busy, turning, inside := newHold(), newHold(), make(chan struct{}, 10)
	h := t.onData(func(_ context.Context, c network.Conn) error {
		m, err := receiveMessage(c)
		if err != nil {
			c.Close()
			return err
		}
		if m[0] == 'R' || m[0] == 'W' { // busy at first, and then as their small ones
			turning.here(t)
		}
		switch m[0] {
		case 'r', 'R':
			return sendMessage(c, m) // and so returns between two messages
		case 'b':
			busy.here(t)
			defer c.Close()
			return sendMessage(c, m)
		}
		defer c.Close()
		told, _ := c.(interface{ SetIdle(bool) bool })
		for {
			if err := sendMessage(c, m); err != nil {
				return err
			}
			_ = c.SetReadTimeout(idleTimeout)
			if told != nil {
				told.SetIdle(true)
			}
			inside <- struct{}{}
			_, err := c.Peek(4)
			if told != nil && !told.SetIdle(false) || err != nil {
				return errHandler
			}
			if m, err = receiveMessage(c); err != nil {
				return err
			}
		}
	})
	s := t.optionalServe(TransporterOptions{IdleTimeout: idleTimeout}, h)
	if s == nil {
		t.missing = nil
		s = t.serve(TransporterOptions{}, h)
	}

	t.step("connect three times; one says nothing, one is answered by a handler that then waits in Peek for the next message, one by a handler that does not answer yet")
	silent, waiting, active := t.dial(s), t.dial(s), t.dial(s)
	for range 2 {
		t.ask(s, waiting, 'w')
		t.signalled(s, inside, "the handler to wait for the next message")
	}
	t.send(active, 'b')
	t.signalled(s, busy.entered, "OnData to be called")

	t.step("on a connection whose OnData has returned nil after a message, send another one")
	returned := t.dial(s)
	t.ask(s, returned, 'r')
	_, _ = returned.Write(message('r'))
	_ = returned.SetReadDeadline(time.Now().Add(endTime() / 4))
	err := receiveAnswer(returned, message('r'))
	forgotten := looksLikeTimeout(err)
	kept := err == nil
	_ = returned.SetReadDeadline(time.Now().Add(endTime()))

	turned := []struct {
		net.Conn
		kind byte
		what string
	}{{t.dial(s), 'R', "answers and returns nil from OnData"}, {t.dial(s), 'W', "answers and waits in Peek for the next message"}}
	for _, c := range turned {
		t.step("connect, and send a message that takes its time")
		t.send(c, c.kind)
		t.signalled(s, turning.entered, "OnData to be called")
	}

	t.step("Shutdown, while one connection has a message that is being handled")
	down, late := t.shutdown(s)
	t.step("Shutdown; meanwhile read from a connection whose handler waits in Peek for the next message")
	t.ends(waiting, "the connection to be closed at once")
	t.expect(!forgotten, "a connection whose OnData has returned nil to be closed, or OnData to be called again for the next message", "neither")
	if kept {
		t.step("Shutdown; meanwhile read from a connection whose OnData has returned nil")
		t.ends(returned, "the connection to be closed at once")
	}
	t.step("Shutdown; meanwhile read from a connection that has never sent anything")
	t.ends(silent, "the connection to be closed after a short grace")
	t.expect(!down.returned(), "Shutdown to wait for those that have a message", "Shutdown has returned")
	turning.let()
	for _, c := range turned {
		t.step("Shutdown; meanwhile a handler that was busy %s", c.what)
		_ = c.SetDeadline(time.Now().Add(endTime()))
		err = receiveAnswer(c, message(c.kind))
		t.expect(err == nil, "the answer", "%s", describeError(err))
		t.ends(c, "the connection to be closed, since it is idle now")
	}
	time.Sleep(20 * time.Millisecond)
	t.step("Shutdown, while one connection has a message that is being handled")
	t.expect(!down.returned(), "Shutdown to wait for it", "Shutdown has returned")
	busy.let()
	t.step("Shutdown; meanwhile the handler that was busy answers and closes")
	err = receiveAnswer(active, message('b'))
	t.expect(err == nil, "the answer", "%s", describeError(err))
	t.within(down, "Shutdown to return when the last connection has ended")
	t.expect(!late(), "Shutdown to return when the last connection has ended", "it returned when its context ended")
}

func shutdownExpires(t *transporterCheck) {
	for _, test := range []struct {
		what string
		ctx  func() (context.Context, context.CancelFunc)
	}{
		{"its context's deadline passes", func() (context.Context, context.CancelFunc) {
			return context.WithTimeout(context.Background(), 30*time.Millisecond)
		}},
		{"its context is cancelled", func() (context.Context, context.CancelFunc) {
			ctx, cancel := context.WithCancel(context.Background())
			time.AfterFunc(30*time.Millisecond, cancel)
			return ctx, cancel
		}},
		{"its context is cancelled with a cause", func() (context.Context, context.CancelFunc) {
			ctx, cancel := context.WithCancelCause(context.Background())
			time.AfterFunc(30*time.Millisecond, func() { cancel(errHandler) })
			return ctx, func() { cancel(nil) }
		}},
	} {
		busy := newHold()
		s := t.serve(TransporterOptions{}, t.onData(func(_ context.Context, c network.Conn) error {
			defer c.Close()
			if _, err := receiveMessage(c); err != nil {
				return err
			}
			busy.here(t)
			return nil
		}))
		t.step("connect, and send a message to a handler that does not return")
		c := t.dial(s)
		t.send(c, 'b')
		t.signalled(s, busy.entered, "OnData to be called")
		ctx, cancel := test.ctx()
		t.Cleanup(cancel)
		t.step("Shutdown, while a handler is busy; %s", test.what)
		var err error
		t.within(t.spawn(func() { err = s.Shutdown(ctx) }), "Shutdown to return when its context has ended")
		t.expect(err == ctx.Err(), fmt.Sprintf("exactly ctx.Err(), %v", ctx.Err()), "%s", describeError(err))
		t.step("the connection of the busy handler, after a Shutdown that returned since %s", test.what)
		t.ends(c, "it to be closed")
		busy.let()
	}
}

func shutdownByMany(t *transporterCheck) {
	ln := t.listenTCP()
	early := &served{Transporter: t.make(TransporterOptions{Listener: ln}), addr: ln.Addr()}
	for range 2 {
		t.step("Shutdown before ListenAndServe")
		down, _ := t.shutdown(early)
		t.within(down, "Shutdown to return, since there is nothing to wait for")
	}
	t.step("ListenAndServe after Shutdown")
	early = t.start(early.Transporter, ln.Addr(), t.onData(answerOnce))
	t.within(early.done, "ListenAndServe to return")

	busy := newHold()
	s := t.serve(TransporterOptions{}, t.onData(func(_ context.Context, c network.Conn) error {
		defer c.Close()
		m, err := receiveMessage(c)
		if err != nil {
			return err
		}
		busy.here(t)
		return sendMessage(c, m)
	}))
	c := t.dial(s)
	t.send(c, 'b')
	t.signalled(s, busy.entered, "OnData to be called")
	t.step("Shutdown by eight goroutines at once, while a handler is busy")
	var all []*op
	for range 8 {
		down, _ := t.shutdown(s)
		all = append(all, down)
	}
	t.within(s.done, "ListenAndServe to return")
	busy.let()
	for _, down := range all {
		t.within(down, "each of eight concurrent Shutdowns to return when the handler has")
	}
	t.step("Shutdown again, when all is over")
	down, _ := t.shutdown(s)
	t.within(down, "Shutdown to return")
	t.step("Shutdown and Close at once, when all is over")
	down, _ = t.shutdown(s)
	closed := t.spawn(func() { s.Close() })
	t.within(down, "Shutdown to return")
	t.within(closed, "Close to return")
}

func listenerClosedOnce(t *transporterCheck) {
	for _, test := range []struct {
		what string
		end  func(s *served)
	}{
		{"Close twice", func(s *served) {
			s.Close()
			s.Close()
		}},
		{"Shutdown, then Shutdown again and Close", func(s *served) {
			for range 2 {
				down, _ := t.shutdown(s)
				t.within(down, "Shutdown to return")
			}
			s.Close()
		}},
		{"Close by four goroutines at once", func(s *served) {
			var all []*op
			for range 4 {
				all = append(all, t.spawn(func() { s.Close() }))
			}
			for _, o := range all {
				t.within(o, "Close to return")
			}
		}},
	} {
		ln := &kitListener{Listener: t.listenTCP()}
		s := t.serve(TransporterOptions{Listener: ln}, t.onData(answerOnce))
		t.step("connect and send a message")
		t.ask(s, t.dial(s), 'm')
		t.step("%s, and count the calls of the listener's Close", test.what)
		test.end(s)
		t.within(s.done, "ListenAndServe to return")
		n := ln.closes.Load()
		t.expect(n == 1, "one", "%d", n)
	}
}

func acceptRacesShutdown(t *transporterCheck) {
	rounds := 40
	if t.short {
		rounds = 8
	}
	random := t.rand()
	for range rounds {
		var running, began atomic.Int32
		s := t.serve(TransporterOptions{}, t.onData(func(ctx context.Context, c network.Conn) error {
			began.Add(1)
			running.Add(1)
			defer running.Add(-1)
			return answerOnce(ctx, c)
		}))
		t.step("connect from four goroutines all the time, and Shutdown meanwhile")
		t.ask(s, t.dial(s), 'm')
		var clients []*op
		for range 4 {
			clients = append(clients, t.spawn(func() {
				for !t.Failed() {
					c, err := net.DialTimeout("tcp", s.addr.String(), endTime())
					if err != nil {
						return // the listener is closed
					}
					_ = c.SetDeadline(time.Now().Add(endTime()))
					err = exchange(c, 'm')
					c.Close()
					if looksLikeTimeout(err) {
						t.fail("each connection to be answered or closed", fmt.Sprintf("one was left open for %v", endTime()))
					}
				}
			}))
		}
		time.Sleep(time.Duration(random.IntN(3000)) * time.Microsecond)
		down, _ := t.shutdown(s)
		t.within(down, "Shutdown to return")
		n := began.Load()
		ended := settles(func() bool { return running.Load() == 0 })
		t.expect(ended, "no OnData to run when Shutdown has returned", "%d", running.Load())
		t.within(s.done, "ListenAndServe to return")
		for _, o := range clients {
			t.wait(o)
		}
		t.expect(began.Load() == n, "no OnData to begin after Shutdown has returned", "%d", began.Load()-n)
	}

	for _, how := range []string{"Close", "Shutdown"} {
		ln := &lastListener{Listener: t.listenTCP(), check: t}
		var began atomic.Int32
		s := t.optionalServe(TransporterOptions{Listener: ln}, t.onData(func(ctx context.Context, c network.Conn) error {
			began.Add(1)
			return answerOnce(ctx, c)
		}))
		if s == nil {
			return
		}
		t.step("connect and send a message")
		t.ask(s, t.dial(s), 'm')
		ln.arm()
		t.step("%s, while the listener's Accept returns one more connection", how)
		down := t.spawn(func() { s.Close() })
		if how == "Shutdown" {
			down, _ = t.shutdown(s)
		}
		t.within(down, how+" to return")
		t.within(s.done, "ListenAndServe to return")
		if ln.taken.Load() {
			t.ends(ln.client, "the connection to be closed")
		}
	}
}

// lastListener hands out one more connection when it is closed.
type lastListener struct {
	net.Listener
	check  *transporterCheck
	client net.Conn
	server net.Conn
	armed  atomic.Bool
	taken  atomic.Bool
}

// arm makes the connection. Accept is blocked in the listener beneath meanwhile.
func (l *lastListener) arm() {
	x, y := tcpPair(l.check.check)
	_ = x.SetDeadline(time.Now().Add(endTime()))
	l.client, l.server = x, y
	l.armed.Store(true)
}

func (l *lastListener) Accept() (net.Conn, error) {
	c, err := l.Listener.Accept()
	if err != nil && l.armed.CompareAndSwap(true, false) {
		l.taken.Store(true)
		return l.server, nil
	}
	return c, err
}
