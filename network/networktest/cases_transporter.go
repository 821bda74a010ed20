package networktest

import (
	"bytes"
	"cmp"
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/hertznet/hertznet/network"
)

var transporterCases = []transporterCase{
	{"S1", 0, listenerMethod},
	{"S2", 0, onDataArguments},
	{"S3", 0, transientAcceptFailures},
	{"S4", 0, permanentFailures},
	{"S5", 0, closeAtAnyTime},
	{"S6", 30 * time.Second, shutdownIdleAndActive},
	{"S7", 0, shutdownExpires},
	{"S8", 0, shutdownByMany},
	{"S9", 0, listenerClosedOnce},
	{"S10", 0, panicInOnData},
	{"S11", 0, slowHooks},
	{"S12", 0, orderOfHooks},
	{"S13", 0, nilContexts},
	{"S14", 30 * time.Second, manyConnections},
	{"S15", 0, unixSocketFiles},
	{"S16", 30 * time.Second, acceptRacesShutdown},
	{"S17", 30 * time.Second, disconnectCancels},
	{"S18", 0, silentConnections},
	{"S19", 30 * time.Second, connectionLimit},
	{"S20", 0, idleConnections},
	{"S21", 0, writeTimeoutFreesHandler},
	{"S22", 30 * time.Second, earlyAnswer},
}

// What the cases share: messages of messageSize bytes, whose first byte may tell a
// handler what to do, and which are answered with themselves.

const messageSize = 8

// transporterPatience is how long what must end at some time may take. It tells
// blocked from slow and nothing else.
var transporterPatience = 5 * time.Second

func endTime() time.Duration {
	if raceEnabled {
		return 4 * transporterPatience
	}
	return transporterPatience
}

// optional is the testing.TB of a factory whose Skip ends one part of a case.
type optional struct {
	*check
	reason string
}

func (t *optional) Skip(args ...any)                 { t.skip(strings.TrimSuffix(fmt.Sprintln(args...), "\n")) }
func (t *optional) Skipf(format string, args ...any) { t.skip(fmt.Sprintf(format, args...)) }
func (t *optional) SkipNow()                         { t.skip("the factory says so") }

func (t *optional) skip(reason string) {
	t.reason = cmp.Or(reason, "the factory says so")
	runtime.Goexit()
}

// optionalNew returns a transporter with the settings o, or nil if the
// implementation has no such settings.
func (t *transporterCheck) optionalNew(o TransporterOptions) network.Transporter {
	tb := &optional{check: t.check}
	var tr network.Transporter
	done := t.spawn(func() { tr = t.subject.New(tb, o) })
	t.wait(done)
	switch {
	case tr != nil:
		t.applied++
		t.track(tr)
	case tb.reason != "":
		if !slices.Contains(t.missing, tb.reason) {
			t.missing = append(t.missing, tb.reason)
		}
	default:
		t.fail("the factory to return a transporter", "nil")
		runtime.Goexit()
	}
	return tr
}

// sum makes a case that found nothing to check one that does not apply.
func (t *transporterCheck) sum() {
	switch reasons := strings.Join(t.missing, "; "); {
	case reasons == "":
	case t.applied == 0:
		t.notApplicable("%s", reasons)
	case t.outcome() == Passed:
		t.measured("not all was checked: %s", reasons)
	}
}

// make is optionalNew for cases that have nothing else to check.
func (t *transporterCheck) make(o TransporterOptions) network.Transporter {
	tr := t.optionalNew(o)
	if tr == nil {
		t.notApplicable("%s", t.missing[len(t.missing)-1])
	}
	return tr
}

// served is a transporter that serves.
type served struct {
	network.Transporter
	addr net.Addr
	done *op   // ListenAndServe
	err  error // what it returned
}

// listen opens a listener for a transporter.
func (t *transporterCheck) listen(network, address string) net.Listener {
	ln, err := net.Listen(network, address)
	if err != nil {
		t.Skipf("the kit cannot listen on %s %s: %v", network, address, err)
	}
	t.track(ln)
	return ln
}

func (t *transporterCheck) listenTCP() net.Listener { return t.listen("tcp", "127.0.0.1:0") }

// start has tr serve what ln hands out, or it opens by itself at addr.
func (t *transporterCheck) start(tr network.Transporter, addr net.Addr, onData network.OnData) *served {
	s := &served{Transporter: tr, addr: addr}
	s.done = t.spawn(func() { s.err = tr.ListenAndServe(onData) })
	return s
}

// optionalServe serves with the settings o, on a listener of its own if they name
// none; it returns nil if the implementation has no such settings.
func (t *transporterCheck) optionalServe(o TransporterOptions, onData network.OnData) *served {
	if o.Listener == nil {
		o.Listener = t.listenTCP()
	}
	tr := t.optionalNew(o)
	if tr == nil {
		return nil
	}
	return t.start(tr, o.Listener.Addr(), onData)
}

// serve is optionalServe for cases that have nothing else to check.
func (t *transporterCheck) serve(o TransporterOptions, onData network.OnData) *served {
	s := t.optionalServe(o, onData)
	if s == nil {
		t.notApplicable("%s", t.missing[len(t.missing)-1])
	}
	return s
}

// onData makes f an OnData. f must not end its goroutine, which is the subject's.
func (t *transporterCheck) onData(f func(ctx context.Context, c network.Conn) error) network.OnData {
	return func(ctx context.Context, conn any) error {
		defer t.catch()
		c, ok := conn.(network.Conn)
		if !ok {
			t.fail("OnData to get a network.Conn", fmt.Sprintf("%T", conn))
			return errHandler
		}
		return f(ctx, c)
	}
}

var errHandler = errors.New("networktest: the handler ends the connection")

// receiveMessage reads a message as a handler does.
func receiveMessage(c network.Conn) (string, error) {
	p, err := c.Peek(messageSize)
	if err != nil {
		return "", err
	}
	m := string(p)
	if err := c.Skip(messageSize); err != nil {
		return "", err
	}
	return m, c.Release()
}

// sendMessage answers as a handler does.
func sendMessage(c network.Conn, m string) error {
	if _, err := c.WriteBinary([]byte(m)); err != nil {
		return err
	}
	return c.Flush()
}

// answer serves one message.
func answer(c network.Conn) error {
	m, err := receiveMessage(c)
	if err != nil {
		return err
	}
	return sendMessage(c, m)
}

// answerOnce serves one message and closes the connection, as Hertz's server does.
func answerOnce(_ context.Context, c network.Conn) error {
	defer c.Close()
	return answer(c)
}

// answerAll stays in OnData until the peer has no more messages.
func answerAll(_ context.Context, c network.Conn) error {
	defer c.Close()
	for {
		if err := answer(c); err != nil {
			return err
		}
	}
}

// dial connects to s. Whatever is done with the connection ends at last.
func (t *transporterCheck) dial(s *served) net.Conn {
	c, err := net.DialTimeout(s.addr.Network(), s.addr.String(), endTime())
	t.expect(err == nil, "a connection to be accepted", "%s%s", describeError(err), s.state())
	t.track(c)
	_ = c.SetDeadline(time.Now().Add(endTime()))
	return c
}

// state tells why nobody answers, if it is known.
func (s *served) state() string {
	if s.done.returned() {
		return fmt.Sprintf("; ListenAndServe has returned %v", s.err)
	}
	return ""
}

// ask sends a message on c and reads its answer.
func (t *transporterCheck) ask(s *served, c net.Conn, kind byte) {
	err := exchange(c, kind)
	t.expect(err == nil, "the message to be answered", "%s%s", describeError(err), s.state())
}

func exchange(c net.Conn, kind byte) error {
	m := message(kind)
	if _, err := c.Write(m); err != nil {
		return err
	}
	return receiveAnswer(c, m)
}

func message(kind byte) []byte { return append([]byte{kind}, "essage\n"...) }

func receiveAnswer(c net.Conn, m []byte) error {
	got := make([]byte, len(m))
	if _, err := io.ReadFull(c, got); err != nil {
		return err
	}
	if !bytes.Equal(got, m) {
		return fmt.Errorf("the answer to %q is %q", m, got)
	}
	return nil
}

// send sends a message whose answer takes its time.
func (t *transporterCheck) send(c net.Conn, kind byte) {
	_, err := c.Write(message(kind))
	t.expect(err == nil, "a message to be sent", "%s", describeError(err))
}

// ends waits for the subject to close the other end of c.
func (t *transporterCheck) ends(c net.Conn, expected string) {
	n, err := io.Copy(io.Discard, readerOf(c))
	t.expect(!looksLikeTimeout(err), expected, "it was still open after %v, with %d bytes received", endTime(), n)
}

// within waits for an op that must end.
func (t *transporterCheck) within(o *op, expected string) {
	select {
	case <-o.done:
	case <-t.failed:
		runtime.Goexit()
	case <-time.After(endTime()):
		t.expect(false, expected, "it was still blocked after %v", endTime())
	}
}

// signalled waits for a handler or a hook to tell that it runs.
func (t *transporterCheck) signalled(s *served, c <-chan struct{}, expected string) {
	select {
	case <-c:
	case <-t.failed:
		runtime.Goexit()
	case <-time.After(endTime()):
		t.expect(false, expected, "it was not after %v%s", endTime(), s.state())
	}
}

// hold is what a handler is busy with until the case lets it go on.
type hold struct {
	entered chan struct{}
	release chan struct{}
	once    sync.Once
}

func newHold() *hold { return &hold{entered: make(chan struct{}, 100), release: make(chan struct{})} }

// here blocks until the hold is let go or the check is over.
func (h *hold) here(t *transporterCheck) {
	h.entered <- struct{}{}
	select {
	case <-h.release:
	case <-t.ctx.Done():
	}
}

func (h *hold) let() { h.once.Do(func() { close(h.release) }) }

// shutdown calls Shutdown in a goroutine, with a context that ends later than
// everything else.
func (t *transporterCheck) shutdown(s *served) (done *op, late func() bool) {
	ctx, cancel := context.WithTimeout(context.Background(), 3*endTime())
	t.Cleanup(cancel)
	return t.spawn(func() { _ = s.Shutdown(ctx) }), func() bool { return ctx.Err() != nil }
}

// dialTLS is dial with TLS over it; nothing is sent yet.
func (t *transporterCheck) dialTLS(s *served) *tls.Conn {
	return tls.Client(t.dial(s), kitClientConfig(t))
}

// kitListener is a listener whose Accept fails when the case wants it to.
type kitListener struct {
	net.Listener
	fail    func(nth int) error // nil: never
	accepts atomic.Int32
	closes  atomic.Int32
}

func (l *kitListener) Accept() (net.Conn, error) {
	if l.fail != nil {
		if err := l.fail(int(l.accepts.Add(1))); err != nil {
			return nil, &net.OpError{Op: "accept", Net: "tcp", Addr: l.Addr(), Err: err}
		}
	}
	return l.Listener.Accept()
}

func (l *kitListener) Close() error {
	l.closes.Add(1)
	return l.Listener.Close()
}

func listenerMethod(t *transporterCheck) {
	type hasListener interface{ Listener() net.Listener }
	tr := t.make(TransporterOptions{Network: "tcp", Address: "127.0.0.1:0"})
	l, ok := tr.(hasListener)
	if !ok {
		t.notApplicable("a %T has no method Listener", tr)
	}
	t.step("Listener() before ListenAndServe on 127.0.0.1:0")
	ln := l.Listener()
	t.expect(ln == nil, "nil, as a nil interface", "a %T", ln)
	s := t.start(tr, nil, t.onData(answerOnce))
	t.step("Listener() while ListenAndServe runs on 127.0.0.1:0")
	settles(func() bool {
		ln = l.Listener()
		return ln != nil || s.done.returned()
	})
	t.expect(ln != nil, "a listener", "nil%s", s.state())
	s.addr = ln.Addr()
	t.step("connect to the address of Listener(), %v, and send a message", s.addr)
	t.ask(s, t.dial(s), 'm')

	o := TransporterOptions{Listener: t.listenTCP()}
	if tr = t.optionalNew(o); tr == nil {
		return
	}
	s = t.start(tr, o.Listener.Addr(), t.onData(answerOnce))
	t.ask(s, t.dial(s), 'm')
	t.step("Listener() while a listener that was passed in is served")
	ln = tr.(hasListener).Listener()
	t.expect(ln != nil && ln.Addr().String() == s.addr.String(), "that listener", "%v", ln)
}

func onDataArguments(t *transporterCheck) {
	s := t.serve(TransporterOptions{}, func(ctx context.Context, conn any) error {
		defer t.catch()
		if ctx == nil {
			t.fail("a context that is not nil", "nil")
		}
		c, ok := conn.(network.Conn)
		if !ok {
			t.fail("a network.Conn", fmt.Sprintf("%T", conn))
			return errHandler
		}
		return answerOnce(ctx, c)
	})
	for range 3 {
		t.step("connect and send a message; OnData looks at its arguments")
		t.ask(s, t.dial(s), 'm')
	}
}

func transientAcceptFailures(t *transporterCheck) {
	const inRow = 3
	for _, errno := range transientAcceptErrors() {
		err := os.NewSyscallError("accept", errno)
		ln := &kitListener{Listener: t.listenTCP(), fail: func(nth int) error {
			if nth > 1 && nth <= 1+inRow {
				return err
			}
			return nil
		}}
		s := t.serve(TransporterOptions{Listener: ln}, t.onData(answerOnce))
		t.step("connect and send a message")
		t.ask(s, t.dial(s), 'm')
		t.step("connect and send a message while Accept fails %d times in a row with %v", inRow, err)
		t.ask(s, t.dial(s), 'm')
		t.expect(!s.done.returned(), "ListenAndServe to go on", "it has returned %v", s.err)

		const more = 20
		t.step("connect and send a message %d times, when Accept does not fail any more", more)
		start := time.Now()
		for i := range more {
			t.ask(s, t.dial(s), 'm')
			took := time.Since(start)
			t.expect(took < endTime(), "no more pauses", "the first %d took %v", i+1, took)
		}
	}

	began := make(chan struct{}, 1)
	ln := &kitListener{Listener: t.listenTCP(), fail: func(nth int) error {
		if nth == 1 {
			began <- struct{}{}
		}
		return os.NewSyscallError("accept", transientAcceptErrors()[0])
	}}
	s := t.serve(TransporterOptions{Listener: ln}, t.onData(answerOnce))
	t.step("let Accept fail with %v all the time, for 50 ms", transientAcceptErrors()[0])
	t.signalled(s, began, "Accept to be called")
	time.Sleep(50 * time.Millisecond)
	n := ln.accepts.Load()
	t.expect(n < 500, "pauses between the attempts", "Accept was called %d times", n)
	t.expect(!s.done.returned(), "ListenAndServe to go on", "it has returned %v", s.err)
}

func permanentFailures(t *transporterCheck) {
	taken := t.listenTCP()
	for _, o := range []TransporterOptions{
		{Network: "tcp", Address: taken.Addr().String()},
		{Network: "nonsense", Address: "127.0.0.1:0"},
		{Network: "tcp", Address: "127.0.0.1:nonsense"},
	} {
		tr := t.optionalNew(o)
		if tr == nil {
			continue
		}
		t.step("ListenAndServe on network %q at %q", o.Network, o.Address)
		if o.Address == taken.Addr().String() {
			t.step("ListenAndServe on network %q at %q, where another listener is", o.Network, o.Address)
		}
		s := t.start(tr, nil, t.onData(answerOnce))
		t.within(s.done, "ListenAndServe to return")
		t.expect(s.err != nil, "an error", "nil")
	}
	// The text of the second one is a trap for who takes any "closed" for his own Close.
	for _, err := range []error{errors.New("networktest: broken for good"), errors.New("networktest: the tunnel closed")} {
		ln := &kitListener{Listener: t.listenTCP(), fail: func(nth int) error {
			if nth == 1 {
				return nil
			}
			return err
		}}
		s := t.optionalServe(TransporterOptions{Listener: ln}, t.onData(answerOnce))
		if s == nil {
			return
		}
		t.step("ListenAndServe, where the second Accept fails with %q", err)
		t.ask(s, t.dial(s), 'm')
		t.within(s.done, "ListenAndServe to return")
		t.expect(errors.Is(s.err, err), "that error", "%s", describeError(s.err))
	}
}

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

func panicInOnData(t *transporterCheck) {
	h := func(ctx context.Context, conn any) error {
		c := conn.(network.Conn)
		for {
			m, err := receiveMessage(c)
			if err != nil {
				c.Close()
				return err
			}
			if m[0] == 'p' {
				panic("deliberate-panic-of-a-handler")
			}
			if m[0] == 'n' {
				var none *int
				*none = 1
			}
			_ = sendMessage(c, m)
		}
	}
	s := t.serve(TransporterOptions{}, h)
	t.step("connect and send a message")
	other := t.dial(s)
	t.ask(s, other, 'm')
	for _, kind := range []byte{'p', 'n'} {
		c := t.dial(s)
		t.step("send a message on which OnData panics (%c)", kind)
		t.send(c, kind)
		t.ends(c, "its connection to be closed")
		t.step("send a message on another connection after OnData has panicked")
		t.ask(s, other, 'm')
		t.step("connect and send a message after OnData has panicked")
		t.ask(s, t.dial(s), 'm')
		t.expect(!s.done.returned(), "ListenAndServe to go on", "it has returned %v", s.err)
	}

	var log lockedBuffer
	s = t.optionalServe(TransporterOptions{Logger: slog.New(slog.NewTextHandler(&log, nil))}, h)
	if s == nil {
		return
	}
	c := t.dial(s)
	t.step(`send a message on which OnData panics with "deliberate-panic-of-a-handler"`)
	t.send(c, 'p')
	t.ends(c, "its connection to be closed")
	logged := settles(func() bool { return strings.Contains(log.String(), "deliberate-panic-of-a-handler") })
	t.expect(logged, "a record with that text in the log", "the log holds %q", log.String())
}

type lockedBuffer struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (l *lockedBuffer) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.Write(p)
}

func (l *lockedBuffer) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.String()
}

func slowHooks(t *transporterCheck) {
	server := kitServerConfig(t)
	for _, place := range []string{"OnAccept", "OnConnect"} {
		slow := newHold()
		var calls atomic.Int32
		hook := func() {
			if calls.Add(1) == 1 {
				slow.here(t)
			}
		}
		o := TransporterOptions{OnAccept: func(net.Conn) context.Context {
			hook()
			return context.Background()
		}}
		if place == "OnConnect" {
			o = TransporterOptions{OnConnect: func(ctx context.Context, _ network.Conn) context.Context {
				hook()
				return ctx
			}}
		}
		s := t.optionalServe(o, t.onData(answerOnce))
		if s == nil {
			continue
		}
		t.step("connect, with a hook %s that does not return for this connection", place)
		first := t.dial(s)
		t.send(first, 'm')
		t.signalled(s, slow.entered, place+" to be called")
		t.step("connect and send a message while %s has not returned for another connection", place)
		t.ask(s, t.dial(s), 'm')
		slow.let()
		t.step("let %s return", place)
		err := receiveAnswer(first, message('m'))
		t.expect(err == nil, "the message on its connection to be answered", "%s", describeError(err))
	}

	s := t.optionalServe(TransporterOptions{TLS: server}, t.onData(answerOnce))
	if s == nil {
		return
	}
	t.step("connect to a server with TLS and send nothing")
	t.dial(s)
	t.step("connect, make the handshake, and send a message while another handshake stalls")
	t.ask(s, t.dialTLS(s), 'm')
}

func orderOfHooks(t *transporterCheck) {
	server, config := kitServerConfig(t), kitClientConfig(t)
	for _, secure := range []*tls.Config{nil, server} {
		var mu sync.Mutex
		var order []string
		note := func(s string) {
			mu.Lock()
			order = append(order, s)
			mu.Unlock()
		}
		seen := func() string {
			mu.Lock()
			defer mu.Unlock()
			return strings.Join(order, ", ")
		}
		accepting := newHold()
		s := t.optionalServe(TransporterOptions{
			TLS: secure,
			OnAccept: func(net.Conn) context.Context {
				note("OnAccept")
				accepting.here(t)
				return context.Background()
			},
			OnConnect: func(ctx context.Context, _ network.Conn) context.Context {
				note("OnConnect")
				return ctx
			},
		}, t.onData(func(ctx context.Context, c network.Conn) error {
			note("OnData")
			return answerOnce(ctx, c)
		}))
		if s == nil {
			continue
		}
		raw := t.dial(s)
		c := raw
		if secure != nil {
			tc := tls.Client(raw, config)
			c = tc
			t.step("connect to a server with TLS, and make the handshake while OnAccept has not returned")
			shaken := t.spawn(func() { _ = tc.Handshake() })
			t.signalled(s, accepting.entered, "OnAccept to be called without waiting for a handshake")
			time.Sleep(20 * time.Millisecond)
			t.expect(!shaken.returned(), "OnAccept to run before the handshake", "the handshake is over")
			accepting.let()
			t.within(shaken, "the handshake to end")
		} else {
			t.step("connect, and send a message")
			accepting.let()
		}
		t.ask(s, c, 'm')
		t.expect(seen() == "OnAccept, OnConnect, OnData", "OnAccept, OnConnect, OnData", "%s", seen())
		if secure == nil {
			continue
		}
		t.step("connect to a server with TLS, and do not begin the handshake for 30 ms")
		raw = t.dial(s)
		settles(func() bool { return strings.HasPrefix(seen(), "OnAccept, OnConnect, OnData, OnAccept") })
		time.Sleep(30 * time.Millisecond)
		t.expect(seen() == "OnAccept, OnConnect, OnData, OnAccept", "OnAccept alone", "%s", strings.TrimPrefix(seen(), "OnAccept, OnConnect, OnData, "))
		t.step("make the handshake on that connection and send a message")
		t.ask(s, tls.Client(raw, config), 'm')
		t.expect(strings.HasSuffix(seen(), "OnAccept, OnConnect, OnData"), "OnConnect, then OnData", "%s", seen())
	}

	// Where there is no handshake there is nothing after it. Without TLS the clause says
	// nothing about a connection that OnAccept has closed.
	for _, refused := range []bool{true, false} {
		var connected atomic.Int32
		s := t.optionalServe(TransporterOptions{
			TLS: server,
			OnAccept: func(c net.Conn) context.Context {
				if refused {
					c.Close()
				}
				return context.Background()
			},
			OnConnect: func(ctx context.Context, _ network.Conn) context.Context {
				connected.Add(1)
				return ctx
			},
		}, t.onData(answerOnce))
		if s == nil {
			return
		}
		c := t.dial(s)
		if refused {
			t.step("connect to a server with TLS whose OnAccept closes the connection")
			_ = tls.Client(c, config).Handshake()
		} else {
			t.step("connect to a server with TLS and send GET / HTTP/1.1 in plain text")
			_, _ = c.Write([]byte("GET / HTTP/1.1\r\n\r\n"))
		}
		t.ends(c, "the connection to be closed")
		time.Sleep(10 * time.Millisecond)
		n := connected.Load()
		t.expect(n == 0, "no OnConnect, since there was no handshake", "it was called")
		t.expect(!s.done.returned(), "ListenAndServe to go on", "it has returned %v", s.err)
		t.step("connect once more")
		c = t.dial(s)
		if refused {
			t.ends(c, "the connection to be closed")
			continue
		}
		t.ask(s, tls.Client(c, config), 'm')
	}
}

func nilContexts(t *transporterCheck) {
	onAccept := func(net.Conn) context.Context { return nil }
	onConnect := func(context.Context, network.Conn) context.Context { return nil }
	for _, test := range []struct {
		what string
		o    TransporterOptions
	}{
		{"OnAccept", TransporterOptions{OnAccept: onAccept}},
		{"OnConnect", TransporterOptions{OnConnect: onConnect}},
		{"OnAccept, with an OnConnect that returns what it is given,", TransporterOptions{OnAccept: onAccept, OnConnect: func(ctx context.Context, _ network.Conn) context.Context {
			if ctx == nil {
				t.fail("OnConnect to get a context that is not nil", "nil")
			}
			return ctx
		}}},
		{"OnAccept and from OnConnect", TransporterOptions{OnAccept: onAccept, OnConnect: onConnect}},
	} {
		s := t.optionalServe(test.o, t.onData(func(ctx context.Context, c network.Conn) error {
			if ctx == nil {
				t.fail("OnData to get a context that is not nil", "nil")
			}
			return answerOnce(ctx, c)
		}))
		if s == nil {
			continue
		}
		t.step("connect and send a message, with a nil context from %s", test.what)
		t.ask(s, t.dial(s), 'm')
	}
}

func manyConnections(t *transporterCheck) {
	many := 1000
	if t.short {
		many = 200
	}
	server, config := kitServerConfig(t), kitClientConfig(t)
	plain := t.serve(TransporterOptions{}, t.onData(answerAll))
	secure := t.optionalServe(TransporterOptions{TLS: server}, t.onData(answerAll))

	visit := func(i int) {
		s := plain
		if secure != nil && i%10 == 9 {
			s = secure
		}
		c, err := net.DialTimeout("tcp", s.addr.String(), endTime())
		if err != nil {
			t.fail("a connection to be accepted", describeError(err)+s.state())
			return
		}
		defer c.Close()
		_ = c.SetDeadline(time.Now().Add(endTime()))
		if s == secure {
			if i%20 == 19 {
				_, _ = c.Write([]byte("this is not a handshake\r\n"))
				return
			}
			c = tls.Client(c, config)
		}
		switch i % 4 {
		case 0: // it comes and goes
		case 1:
			_, _ = c.Write(message('m')[:3])
			if h, ok := c.(*net.TCPConn); ok {
				_ = h.SetLinger(0)
			}
		default:
			if err := exchange(c, 'm'); err != nil {
				t.fail("the message to be answered", describeError(err)+s.state())
			}
			c.Close()
		}
	}
	visitAll := func(n int) {
		var next atomic.Int32
		var all []*op
		for range 8 {
			all = append(all, t.spawn(func() {
				for {
					i := int(next.Add(1)) - 1
					if i >= n || t.Failed() {
						return
					}
					visit(i)
				}
			}))
		}
		for _, o := range all {
			t.wait(o)
		}
	}
	t.step("connect 40 times, to see what the transporter keeps in any case")
	visitAll(40)
	const slack = 10 // what the Go runtime and others may start meanwhile
	// Goroutines of the first connections may still be ending.
	goroutines, files := runtime.NumGoroutine(), transporterFiles()
	settles(func() bool {
		g, f := runtime.NumGoroutine(), transporterFiles()
		steady := g >= goroutines && f >= files
		goroutines, files = min(g, goroutines), min(f, files)
		return steady
	})
	t.step("connect %d times: messages, half messages, silence, resets, failed handshakes", many)
	visitAll(many)
	var g, f int
	back := settles(func() bool {
		g, f = runtime.NumGoroutine(), transporterFiles()
		return g <= goroutines+slack && f <= files+slack
	})
	t.expect(back, fmt.Sprintf("about %d goroutines and %d descriptors, as before", goroutines, files), "%d and %d", g, f)
}

// transporterFiles returns how many descriptors are open, or 0 where nobody tells.
func transporterFiles() int {
	dir := "/dev/fd"
	if runtime.GOOS == "linux" {
		dir = "/proc/self/fd"
	}
	all, err := os.ReadDir(dir)
	if err != nil {
		return 0
	}
	return len(all)
}

func unixSocketFiles(t *transporterCheck) {
	listen := func(path string) *net.UnixListener {
		ln, ok := t.listen("unix", path).(*net.UnixListener)
		if !ok {
			t.Skip("there are no unix sockets")
		}
		ln.SetUnlinkOnClose(false)
		return ln
	}
	exists := func(path string) bool {
		_, err := os.Lstat(path)
		return err == nil
	}
	dir := t.TempDir()

	// A stale file.
	path := filepath.Join(dir, "a")
	listen(path).Close()
	if !exists(path) {
		t.Skip("a unix socket leaves no file here")
	}
	if tr := t.optionalNew(TransporterOptions{Network: "unix", Address: path}); tr != nil {
		t.step("ListenAndServe on a unix socket whose file is there though nobody listens any more")
		s := t.start(tr, &net.UnixAddr{Net: "unix", Name: path}, t.onData(answerOnce))
		answered := settles(func() bool {
			c, err := net.Dial("unix", path)
			if err != nil {
				return s.done.returned()
			}
			defer c.Close()
			_ = c.SetDeadline(time.Now().Add(endTime()))
			return exchange(c, 'm') == nil
		})
		t.expect(answered && !s.done.returned(), "messages to be answered there", "nobody answers%s", s.state())
		s.Close()
	}

	// A live one.
	path = filepath.Join(dir, "b")
	other := listen(path)
	t.spawn(func() {
		for {
			c, err := other.Accept()
			if err != nil {
				return
			}
			t.track(c)
			t.spawn(func() { _ = exchange(c, 'o') })
		}
	})
	othersAnswers := func() error {
		c, err := net.Dial("unix", path)
		if err != nil {
			return err
		}
		defer c.Close()
		_ = c.SetDeadline(time.Now().Add(endTime()))
		return receiveAnswer(c, message('o'))
	}
	if tr := t.optionalNew(TransporterOptions{Network: "unix", Address: path}); tr != nil {
		t.step("ListenAndServe on a unix socket that another server listens on")
		s := t.start(tr, nil, t.onData(answerOnce))
		settles(func() bool { return s.done.returned() || othersAnswers() != nil })
		err := othersAnswers()
		t.expect(err == nil, "the other server to stay reachable", "%s", describeError(err))
		t.within(s.done, "ListenAndServe to return")
		t.expect(s.err != nil, "an error", "nil")
		s.Close()
		err = othersAnswers()
		t.expect(err == nil, "the other server to stay reachable after Close", "%s", describeError(err))
	}

	// What is no socket's file at all.
	path = filepath.Join(dir, "c")
	if err := os.WriteFile(path, []byte("precious"), 0o600); err != nil {
		t.Fatal(err)
	}
	if tr := t.optionalNew(TransporterOptions{Network: "unix", Address: path}); tr != nil {
		t.step("ListenAndServe on a unix socket at a path where a regular file is")
		s := t.start(tr, nil, t.onData(answerOnce))
		t.within(s.done, "ListenAndServe to return")
		s.Close()
		got, err := os.ReadFile(path)
		t.expect(err == nil && string(got) == "precious", "the file to be left alone", "%q and %s", got, describeError(err))
	}

	// One that was passed in.
	path = filepath.Join(dir, "d")
	ln := listen(path)
	s := t.optionalServe(TransporterOptions{Listener: ln}, t.onData(answerOnce))
	if s == nil {
		return
	}
	t.step("ListenAndServe on a unix listener that was passed in; connect to its path and send a message")
	c := t.dial(s)
	t.ask(s, c, 'm')
	t.expect(exists(path), "the socket's file to be left alone", "it is gone")
	t.ask(s, t.dial(s), 'm')
	t.step("Shutdown, with a unix listener that was passed in and does not remove its file itself")
	down, _ := t.shutdown(s)
	t.within(down, "Shutdown to return")
	t.expect(exists(path), "the socket's file to be left alone", "it is gone")
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

func disconnectCancels(t *transporterCheck) {
	server := kitServerConfig(t)
	const (
		attempts  = 5
		exact     = 20 * time.Millisecond
		unnoticed = 100 * time.Millisecond
	)
	type seen struct {
		at        time.Time
		cancelled bool
	}
	for _, test := range []struct {
		what  string
		tls   bool
		leave func(raw, c net.Conn)
	}{
		{"closes the connection", false, func(raw, _ net.Conn) { raw.Close() }},
		{"resets the connection", false, func(raw, _ net.Conn) {
			_ = raw.(*net.TCPConn).SetLinger(0)
			raw.Close()
		}},
		{"closes the connection over TLS", true, func(_, c net.Conn) { c.Close() }},
		{"closes the socket beneath TLS", true, func(raw, _ net.Conn) { raw.Close() }},
	} {
		entered, left := make(chan context.Context, 1), make(chan seen, 1)
		h := t.onData(func(ctx context.Context, c network.Conn) error {
			defer c.Close()
			if _, err := receiveMessage(c); err != nil {
				return err
			}
			if ctx == nil {
				t.fail("a context that is cancelled", "a nil context")
				return errHandler
			}
			entered <- ctx
			select {
			case <-ctx.Done():
				left <- seen{time.Now(), true}
			case <-t.ctx.Done():
			case <-time.After(endTime()):
				left <- seen{time.Now(), false}
			}
			return nil
		})
		if t.subject.NoDisconnect {
			h = t.onData(func(ctx context.Context, c network.Conn) error {
				defer c.Close()
				if _, err := receiveMessage(c); err != nil {
					return err
				}
				entered <- ctx
				timer := time.After(20*time.Millisecond + unnoticed)
				var done <-chan struct{}
				if ctx != nil {
					done = ctx.Done()
				}
				select {
				case <-done:
					left <- seen{time.Now(), true}
				case <-timer:
					left <- seen{time.Now(), false}
				}
				return nil
			})
		}
		o := TransporterOptions{}
		if test.tls {
			o.TLS = server
		}
		s := t.optionalServe(o, h)
		if s == nil {
			continue
		}
		best := time.Duration(1 << 62)
		for range attempts {
			raw := t.dial(s)
			c := raw
			if test.tls {
				c = tls.Client(raw, kitClientConfig(t))
			}
			t.step("send a message, and leave while OnData handles it: the peer %s", test.what)
			t.send(c, 'm')
			var ctx context.Context
			select {
			case ctx = <-entered:
			case <-t.failed:
				runtime.Goexit()
			case <-time.After(endTime()):
				t.expect(false, "OnData to be called", "it was not after %v%s", endTime(), s.state())
			}
			time.Sleep(10 * time.Millisecond)
			if ctx != nil {
				err := ctx.Err()
				t.expect(err == nil, "the context to be alive while the peer is there", "%v", err)
			}
			gone := time.Now()
			test.leave(raw, c)
			var got seen
			select {
			case got = <-left:
			case <-t.failed:
				runtime.Goexit()
			}
			if t.subject.NoDisconnect {
				t.expect(!got.cancelled, "that the context is not cancelled, as Transporter.NoDisconnect declares", "it was after %v", got.at.Sub(gone))
				break
			}
			t.expect(got.cancelled, "the context to be cancelled", "it was not after %v", endTime())
			if best = min(best, got.at.Sub(gone)); best <= exact {
				break
			}
		}
		if !t.subject.NoDisconnect {
			t.expect(best <= exact, fmt.Sprintf("the context to be cancelled within %v, at best of %d times", exact, attempts), "%v", best)
		}
	}
}

func silentConnections(t *transporterCheck) {
	const timeout = 50 * time.Millisecond
	server := kitServerConfig(t)
	for _, test := range []struct {
		what string
		tls  *tls.Config
		send []byte
	}{
		{"a connection that sends nothing", nil, nil},
		{"a connection that sends nothing to a server with TLS", server, nil},
		// The header of a handshake record and the first bytes of a ClientHello.
		{"a handshake that stalls after 9 bytes", server, []byte{22, 3, 1, 1, 0, 1, 0, 0, 252}},
	} {
		s := t.optionalServe(TransporterOptions{TLS: test.tls, ReadTimeout: timeout}, t.onData(answerAll))
		if s == nil {
			continue
		}
		t.step("with a read timeout of %v, wait for the end of %s", timeout, test.what)
		start := time.Now()
		all := []net.Conn{t.dial(s), t.dial(s), t.dial(s)}
		for _, c := range all {
			_, _ = c.Write(test.send)
		}
		best := time.Duration(1 << 62)
		for _, c := range all {
			t.ends(c, fmt.Sprintf("the connection to be closed after %v", timeout))
			took := time.Since(start)
			t.expect(took >= timeout, fmt.Sprintf("the connection to be closed after %v", timeout), "it was after %v", took)
			best = min(best, took)
		}
		t.expect(best <= timeout+time.Second, fmt.Sprintf("one of 3 connections to be closed about %v after it began", timeout), "%v", best)
	}
}

// Whether a connection too many waits or is closed is the implementation's choice.
func connectionLimit(t *transporterCheck) {
	const limit = 2
	busy := newHold()
	var running, most atomic.Int32
	s := t.serve(TransporterOptions{MaxConns: limit}, t.onData(func(_ context.Context, c network.Conn) error {
		for n := running.Add(1); ; {
			m := most.Load()
			if n <= m || most.CompareAndSwap(m, n) {
				break
			}
		}
		defer c.Close()
		defer running.Add(-1) // before the connection is closed, which may make room
		m, err := receiveMessage(c)
		if err != nil {
			return err
		}
		if m[0] == 'b' {
			busy.here(t)
		}
		return sendMessage(c, m)
	}))
	t.step("with a limit of %d connections, send a message on as many, and have both handlers busy", limit)
	first, second := t.dial(s), t.dial(s)
	for _, c := range []net.Conn{first, second} {
		t.send(c, 'b')
		t.signalled(s, busy.entered, "OnData to be called")
	}
	t.step("with a limit of %d connections, and as many busy, connect %d times more and send messages", limit, limit)
	var waiting []net.Conn
	for range limit {
		c, err := net.DialTimeout("tcp", s.addr.String(), 100*time.Millisecond)
		if err != nil {
			continue // it is refused
		}
		t.track(c)
		_ = c.SetDeadline(time.Now().Add(50 * time.Millisecond))
		err = exchange(c, 'm')
		t.expect(err != nil, "no answer", "an answer")
		if looksLikeTimeout(err) {
			waiting = append(waiting, c)
		}
	}
	busy.let()
	for _, c := range []net.Conn{first, second} {
		err := receiveAnswer(c, message('b'))
		t.expect(err == nil, "the answers to the first two", "%s", describeError(err))
		c.Close()
	}
	for _, c := range waiting {
		t.step("when the first connections have ended, read from one that was waiting")
		_ = c.SetDeadline(time.Now().Add(endTime()))
		err := receiveAnswer(c, message('m'))
		// It may have been closed meanwhile, as one that waited too long.
		t.expect(!looksLikeTimeout(err), "an answer, or its end", "%s", describeError(err))
		c.Close()
	}

	clients := 20
	t.step("with a limit of %d connections, connect from %d goroutines at once, again and again until served", limit, clients)
	end := time.Now().Add(endTime())
	var all []*op
	for range clients {
		all = append(all, t.spawn(func() {
			for {
				var err error
				if c, e := net.DialTimeout("tcp", s.addr.String(), endTime()); e != nil {
					err = e
				} else {
					_ = c.SetDeadline(end)
					err = exchange(c, 'm')
					c.Close()
				}
				switch {
				case err == nil || t.Failed():
					return
				case time.Now().After(end):
					t.fail("each to be served at last", describeError(err)+s.state())
					return
				}
				time.Sleep(time.Millisecond)
			}
		}))
	}
	for _, o := range all {
		t.wait(o)
	}
	n := most.Load()
	t.expect(n <= limit, fmt.Sprintf("at most %d handlers at a time", limit), "%d", n)

	const failures = 2 * limit
	ln := &kitListener{Listener: t.listenTCP(), fail: func(nth int) error {
		if nth <= failures {
			return os.NewSyscallError("accept", transientAcceptErrors()[0])
		}
		return nil
	}}
	if s = t.optionalServe(TransporterOptions{Listener: ln, MaxConns: limit}, t.onData(answerOnce)); s == nil {
		return
	}
	t.step("with a limit of %d connections, connect and send a message after Accept has failed %d times", limit, failures)
	for range limit {
		t.ask(s, t.dial(s), 'm')
	}
}

// A connection that is closed whenever OnData returns is never idle.
func idleConnections(t *transporterCheck) {
	const timeout = 100 * time.Millisecond
	s := t.serve(TransporterOptions{IdleTimeout: timeout}, t.onData(func(_ context.Context, c network.Conn) error {
		m, err := receiveMessage(c)
		if err != nil {
			return err
		}
		if m[0] == 's' {
			time.Sleep(3 * timeout)
		}
		return sendMessage(c, m)
	}))
	t.step("with an idle timeout of %v, send a message that takes %v to handle", timeout, 3*timeout)
	c := t.dial(s)
	t.ask(s, c, 's')
	t.step("with an idle timeout of %v, wait for the end of a connection whose OnData has returned nil", timeout)
	t.ends(c, fmt.Sprintf("the connection to be closed about %v later", timeout))
}

func writeTimeoutFreesHandler(t *transporterCheck) {
	const timeout = 50 * time.Millisecond
	server := kitServerConfig(t)
	chunk := make([]byte, 1<<20)
	for _, secure := range []*tls.Config{nil, server} {
		over := ""
		if secure != nil {
			over = " over TLS"
		}
		freed := make(chan error, 1)
		s := t.optionalServe(TransporterOptions{TLS: secure, WriteTimeout: timeout}, t.onData(func(_ context.Context, c network.Conn) error {
			defer c.Close()
			_, err := receiveMessage(c)
			for i := 0; i < 64 && err == nil; i++ {
				if _, err = c.WriteBinary(chunk); err == nil {
					err = c.Flush()
				}
			}
			freed <- err
			return err
		}))
		if s == nil {
			continue
		}
		t.step("with a write timeout of %v, have a handler Flush 64 MiB to a peer that does not read%s", timeout, over)
		c := t.dial(s)
		if secure != nil {
			c = tls.Client(c, kitClientConfig(t))
		}
		t.send(c, 'm')
		select {
		case err := <-freed:
			t.expect(err != nil, "Flush to fail", "it has sent everything")
		case <-t.failed:
			runtime.Goexit()
		case <-time.After(endTime()):
			t.expect(false, "Flush to fail", "it was still blocked after %v", endTime())
		}
	}
}

// The peer does not stop to send before it has the answer, and the answer is longer
// than what its window takes at once: one that is not waited for is lost. How long
// an implementation waits is its own choice, so the peer has three attempts to be
// quick. What tells the peer that the answer is whole is the half-close.
func earlyAnswer(t *transporterCheck) {
	serving := func(text []byte, more <-chan struct{}) *served {
		return t.serve(TransporterOptions{}, t.onData(func(_ context.Context, c network.Conn) error {
			if _, err := receiveMessage(c); err != nil {
				return err
			}
			select {
			case <-more:
			case <-t.Context().Done():
			}
			if _, err := c.WriteBinary(text); err != nil {
				return err
			}
			if err := c.Flush(); err != nil {
				return err
			}
			return errHandler
		}))
	}
	// A peer that neither reads nor sends nor closes, while the others have their turn.
	atOnce := make(chan struct{})
	close(atOnce)
	toQuiet := serving(pattern(100), atOnce)
	quiet := t.dial(toQuiet)
	t.send(quiet, 'm')
	_ = quiet.SetWriteDeadline(time.Now().Add(100 * time.Millisecond)) // its buffers are small
	_, _ = quiet.Write(make([]byte, 512<<10))

	for _, size := range []int{100, 1 << 20} {
		text := pattern(size)
		more := make(chan struct{}, 3)
		s := serving(text, more)
		for attempt := range 3 {
			t.step("send a message and more without end; OnData reads the message, waits until more is there, Flushes an answer of %d bytes, and returns an error", size)
			c := t.dial(s).(*net.TCPConn)
			_ = c.SetReadBuffer(128 << 10)
			t.send(c, 'm')
			var enough atomic.Bool
			var writes atomic.Int32
			much := make(chan struct{})
			sent := t.spawn(func() {
				// At first more than is read ahead, so that there is something unread.
				for i, more := 0, make([]byte, 32<<10); !enough.Load(); i++ {
					if i == 16 {
						close(much)
					}
					if i >= 16 {
						time.Sleep(500 * time.Microsecond)
					}
					if _, err := c.Write(more); err != nil {
						if looksLikeTimeout(err) {
							t.fail("the connection to be closed at last, though the peer does not stop to send", fmt.Sprintf("it was still open after %v", endTime()))
						}
						return
					}
					writes.Add(1)
				}
			})
			select {
			case <-much:
			case <-time.After(100 * time.Millisecond): // its buffers are small
			}
			more <- struct{}{}
			var got []byte
			var err error
			for p := make([]byte, 128<<10); err == nil && len(got) < size; time.Sleep(time.Millisecond) {
				var n int
				n, err = c.Read(p[:min(len(p), size-len(got))])
				got = append(got, p[:n]...)
			}
			var end error
			if err == nil {
				_, end = c.Read(make([]byte, 1))
			}
			whole := bytes.Equal(got, text)
			// What comes after a half-close is taken, or at least not refused.
			halfClose := end == io.EOF
			for i, before := 0, writes.Load(); halfClose && i < 20 && writes.Load() < before+3; i++ {
				halfClose = !sent.within(time.Millisecond)
			}
			if (!whole || !halfClose) && attempt < 2 {
				c.Close()
				continue
			}
			t.expect(whole, fmt.Sprintf("the %d bytes of the answer, at best of 3 times", size), "%s, and then %s", describeBytes(got, text), describeError(err))
			t.step("go on sending, and read the end of the stream after the answer of %d bytes", size)
			t.expect(end == io.EOF, "io.EOF, at best of 3 times", "%s", describeError(end))
			t.step("send more after the end of the stream that comes after the answer of %d bytes", size)
			t.expect(halfClose, "a half-close, which lets it be sent, at best of 3 times", "the next writes failed")
			if size > 100 || t.short {
				enough.Store(true)
			}
			t.within(sent, "the connection to be closed at last, though the peer does not stop to send")
			break
		}
	}

	t.step("Shutdown, with a connection whose handler has given it up, and whose peer neither reads nor sends nor closes")
	down, late := t.shutdown(toQuiet)
	t.within(down, "Shutdown to return, since waiting for the peer is bounded")
	t.expect(!late(), "Shutdown to return, since waiting for the peer is bounded", "it returned when its context ended")
}
