package networktest

import (
	"bytes"
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/hertznet/hertznet/network"
)

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
