package networktest

import (
	"bytes"
	"cmp"
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
