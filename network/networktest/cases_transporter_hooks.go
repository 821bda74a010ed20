package networktest

import (
	"context"
	"crypto/tls"
	"net"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/hertznet/hertznet/network"
)

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

// hookKey is that of a value in the context which tells where it came by.
type hookKey struct{}

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
				return context.WithValue(context.Background(), hookKey{}, "OnAccept")
			},
			OnConnect: func(ctx context.Context, _ network.Conn) context.Context {
				note("OnConnect")
				if ctx.Value(hookKey{}) == nil {
					t.fail("OnConnect to get the context that OnAccept returned, or one made from it", "another one")
				}
				return context.WithValue(ctx, hookKey{}, "OnConnect")
			},
		}, t.onData(func(ctx context.Context, c network.Conn) error {
			note("OnData")
			if ctx.Value(hookKey{}) != "OnConnect" {
				t.fail("OnData to get the context that OnConnect returned, or one made from it", "another one")
			}
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
