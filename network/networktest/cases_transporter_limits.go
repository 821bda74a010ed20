package networktest

import (
	"bytes"
	"context"
	"crypto/tls"
	"fmt"
	"io"
	"net"
	"os"
	"runtime"
	"sync/atomic"
	"time"

	"github.com/hertznet/hertznet/network"
)

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

	s := t.optionalServe(TransporterOptions{TLS: server, ReadTimeout: timeout}, t.onData(answerAll))
	if s == nil {
		return
	}
	for i := range attempts {
		t.step("with a read timeout of %v, make a TLS handshake and say nothing after it", timeout)
		c := t.dialTLS(s)
		if err := c.Handshake(); err != nil { // a busy machine, which takes its time
			t.expect(i < attempts-1, "the handshake to be made", "%s%s", describeError(err), s.state())
			continue
		}
		t.ends(c, fmt.Sprintf("the connection to be closed after %v", timeout))
		break
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

	if s = t.optionalServe(TransporterOptions{TLS: kitServerConfig(t), MaxConns: limit}, t.onData(answerOnce)); s != nil {
		for range 2 * limit {
			t.step("with a limit of %d connections, connect %d times to a server with TLS and send GET / HTTP/1.1 in plain text", limit, 2*limit)
			c := t.dial(s)
			_, _ = c.Write([]byte("GET / HTTP/1.1\r\n\r\n"))
			t.ends(c, "the connection to be closed")
			c.Close()
		}
		t.step("with a limit of %d connections, send a message over TLS after %d handshakes that failed", limit, 2*limit)
		t.ask(s, t.dialTLS(s), 'm')
	}

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
// earlyAnswerTLS is the same over TLS, as far as the answer goes: what is beneath
// close_notify is a socket with unread bytes as well.
func (t *transporterCheck) earlyAnswerTLS() {
	text := pattern(1 << 20)
	s := t.optionalServe(TransporterOptions{TLS: kitServerConfig(t)}, t.onData(func(_ context.Context, c network.Conn) error {
		if _, err := receiveMessage(c); err != nil {
			return err
		}
		if _, err := c.WriteBinary(text); err != nil {
			return err
		}
		if err := c.Flush(); err != nil {
			return err
		}
		return errHandler
	}))
	if s == nil {
		return
	}
	var got []byte
	var err error
	for range 3 {
		t.step("over TLS, send a message and more without end; OnData reads the message, Flushes an answer of %d bytes, and returns an error", len(text))
		raw := t.dial(s).(*net.TCPConn)
		_ = raw.SetReadBuffer(64 << 10)
		c := tls.Client(raw, kitClientConfig(t))
		t.send(c, 'm')
		more := t.spawn(func() {
			for p := make([]byte, 32<<10); ; {
				if _, err := c.Write(p); err != nil {
					return
				}
			}
		})
		got, err = nil, nil
		for p := make([]byte, 32<<10); err == nil && len(got) < len(text); time.Sleep(time.Millisecond) {
			var n int
			n, err = io.ReadFull(c, p) // however long the records are
			got = append(got, p[:n]...)
		}
		raw.Close()
		t.wait(more)
		if bytes.Equal(got, text) {
			return
		}
	}
	t.expect(false, fmt.Sprintf("the %d bytes of the answer, at best of 3 times", len(text)), "%s, and then %s", describeBytes(got, text), describeError(err))
}

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

	t.earlyAnswerTLS()

	t.step("Shutdown, with a connection whose handler has given it up, and whose peer neither reads nor sends nor closes")
	down, late := t.shutdown(toQuiet)
	t.within(down, "Shutdown to return, since waiting for the peer is bounded")
	t.expect(!late(), "Shutdown to return, since waiting for the peer is bounded", "it returned when its context ended")
}
