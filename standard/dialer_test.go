package standard

import (
	"context"
	"crypto/tls"
	"errors"
	"io"
	"net"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"github.com/hertznet/hertznet/network"
	"github.com/hertznet/hertznet/tlsconn"
)

// The kit's TestDialer judges what any Dialer does. Here is what this one adds: its
// fields, its limits to the moment, unix:///path, and AddTLS over whatever there is.

// dials are the ways to a connection, with the methods of a Dialer that lead there.
var dials = []struct {
	name string
	dial func(d *Dialer, network, address string, timeout time.Duration, config *tls.Config) (net.Conn, error)
}{
	{"DialConnection", func(d *Dialer, network, address string, timeout time.Duration, config *tls.Config) (net.Conn, error) {
		c, err := d.DialConnection(network, address, timeout, config)
		if c == nil { // a nil interface stays one
			return nil, err
		}
		return c, err
	}},
	{"DialTimeout", (*Dialer).DialTimeout},
}

// acceptOne runs f with the first connection that a listener on the address accepts.
func acceptOne(t testing.TB, network, address string, f func(net.Conn)) (addr string) {
	t.Helper()
	ln, err := net.Listen(network, address)
	if err != nil {
		t.Fatal(err)
	}
	var wg sync.WaitGroup
	wg.Go(func() {
		c, err := ln.Accept()
		if err != nil {
			return // nobody came
		}
		defer c.Close()
		f(c)
	})
	t.Cleanup(func() {
		ln.Close()
		wg.Wait()
	})
	return ln.Addr().String()
}

// isTimeoutError fails the test unless err is a net.Error that is a timeout.
func isTimeoutError(t testing.TB, err error) {
	t.Helper()
	if ne, ok := err.(net.Error); !ok || !ne.Timeout() {
		t.Errorf("got %T %v, want a net.Error with Timeout() true", err, err)
	}
}

// An address unix:///path is a unix socket on any network.
func TestD1_UnixAddress(t *testing.T) {
	path := filepath.Join(socketDir(t), "s")
	ln, err := net.Listen("unix", path)
	if err != nil {
		t.Fatal(err)
	}
	serveOn(t, &Transporter{}, ln, echo)
	for _, on := range []string{"unix", "tcp"} {
		for _, way := range dials {
			c, err := way.dial(new(Dialer), on, "unix://"+path, time.Minute, nil)
			if err != nil {
				t.Fatalf("%s(%q): %v", way.name, on, err)
			}
			if got := ask(t, c.(network.Conn), "hello"); got != "hello" {
				t.Errorf("%s(%q): got %q", way.name, on, got)
			}
			c.Close()
			if c, err := way.dial(new(Dialer), on, "unix://", time.Minute, nil); c != nil || err == nil {
				t.Errorf("%s(%q), no path: %v, %v", way.name, on, c, err)
			}
		}
	}
}

// Beyond the kit: what the system said is found by errors.Is, and nothing to connect
// or to put TLS on is an error too.
func TestD2_ErrorsAndNothing(t *testing.T) {
	_, config := trustConfigs(t)
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	ln.Close() // nobody listens there now
	neither := &Dialer{DialContext: func(context.Context, string, string) (net.Conn, error) { return nil, nil }}
	for _, way := range dials {
		if c, err := way.dial(new(Dialer), "tcp", ln.Addr().String(), time.Minute, config); c != nil || !errors.Is(err, syscall.ECONNREFUSED) {
			t.Errorf("%s: got %v, %v, want ECONNREFUSED", way.name, c, err)
		}
		if c, err := way.dial(neither, "tcp", "localhost:1", time.Minute, config); c != nil || err == nil {
			t.Errorf("%s, DialContext returns neither: got %v, %v", way.name, c, err)
		}
	}
	if c, err := new(Dialer).AddTLS(nil, config); c != nil || err == nil {
		t.Errorf("AddTLS(nil): got %v, %v", c, err)
	}
}

// The timeout covers looking up the name, which the kit leaves out: here the DNS
// server cannot be reached.
func TestD3_TimeoutCoversTheLookup(t *testing.T) {
	const timeout = 50 * time.Millisecond
	asked := make(chan struct{}, 100)
	d := &Dialer{Resolver: &net.Resolver{
		PreferGo: true,
		Dial: func(ctx context.Context, _, _ string) (net.Conn, error) {
			asked <- struct{}{}
			<-ctx.Done()
			return nil, ctx.Err()
		},
	}}
	for _, way := range dials {
		t.Run(way.name, func(t *testing.T) {
			start := time.Now()
			c, err := way.dial(d, "tcp", "nobody.test:80", timeout, nil)
			if c != nil {
				t.Errorf("got a connection: %#v", c)
			}
			isTimeoutError(t, err)
			if got := time.Since(start); got < timeout {
				t.Errorf("it took %v, less than %v", got, timeout)
			}
			if len(asked) == 0 {
				t.Error("the Resolver was not asked")
			}
		})
	}
}

// The parts share one limit, to the moment; Dialer.Timeout and HandshakeTimeout are
// limits of their own.
func TestD3_OneTimeoutForAll(t *testing.T) {
	const never = 0
	for _, test := range []struct {
		name      string
		d         Dialer
		timeout   time.Duration
		connect   time.Duration // how long DialContext takes; the handshake never ends
		wrapped   bool          // it hides the context's error
		wantAfter time.Duration
	}{
		{"connect blocks", Dialer{}, 3 * time.Second, time.Hour, false, 3 * time.Second},
		{"connect blocks, error of its own", Dialer{}, 3 * time.Second, time.Hour, true, 3 * time.Second},
		{"rest for the handshake", Dialer{}, 3 * time.Second, 2 * time.Second, false, 3 * time.Second},
		{"handshake timeout", Dialer{HandshakeTimeout: time.Second}, 30 * time.Second, 2 * time.Second, false, 3 * time.Second},
		{"handshake timeout beyond the rest", Dialer{HandshakeTimeout: time.Minute}, 3 * time.Second, 2 * time.Second, false, 3 * time.Second},
		{"default handshake timeout", Dialer{}, never, time.Second, false, time.Second + DefaultHandshakeTimeout},
		{"no handshake timeout", Dialer{HandshakeTimeout: -1}, time.Minute, 2 * time.Second, false, time.Minute},
		{"Dialer.Timeout", Dialer{Timeout: 3 * time.Second}, never, time.Hour, false, 3 * time.Second},
		{"Dialer.Timeout shorter", Dialer{Timeout: 3 * time.Second}, time.Minute, 2 * time.Second, false, 3 * time.Second},
		{"Dialer.Timeout longer", Dialer{Timeout: time.Minute}, 3 * time.Second, 2 * time.Second, false, 3 * time.Second},
	} {
		t.Run(test.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				_, config := trustConfigs(t)
				var server net.Conn
				d := &test.d
				d.DialContext = func(ctx context.Context, _, _ string) (net.Conn, error) {
					select {
					case <-time.After(test.connect):
						var client net.Conn
						client, server = net.Pipe()
						go func() { _, _ = io.Copy(io.Discard, server) }()
						return client, nil
					case <-ctx.Done():
						if test.wrapped {
							return nil, errors.New("gave up")
						}
						return nil, ctx.Err()
					}
				}
				start := time.Now()
				c, err := d.DialConnection("tcp", "localhost:1", test.timeout, config)
				if c != nil {
					t.Errorf("got a connection: %#v", c)
				}
				isTimeoutError(t, err)
				if got := time.Since(start); got != test.wantAfter {
					t.Errorf("it took %v, want %v", got, test.wantAfter)
				}
				if server != nil {
					if _, err := server.Write([]byte("x")); err != io.ErrClosedPipe {
						t.Errorf("the connection beneath is open: %v", err)
					}
				}
			})
		})
	}
}

// A DialContext that does not heed its context cannot lead past the timeout: what it
// brings too late is closed where there is still a handshake to make.
func TestD3_ConnectionThatComesTooLate(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		_, config := trustConfigs(t)
		client, server := net.Pipe()
		d := &Dialer{DialContext: func(context.Context, string, string) (net.Conn, error) {
			time.Sleep(time.Minute)
			return client, nil
		}}
		c, err := d.DialConnection("tcp", "localhost:1", time.Second, config)
		if c != nil {
			t.Errorf("got a connection: %#v", c)
		}
		isTimeoutError(t, err)
		if _, err := server.Read(make([]byte, 1)); err != io.EOF {
			t.Errorf("the server saw %v, want the end", err)
		}
	})
}

// The kit's dials without a timeout last a moment. Here nothing has a deadline at all.
func TestD4_NoTimeout(t *testing.T) {
	for _, timeout := range []time.Duration{0, -1, -time.Hour} {
		t.Run(timeout.String(), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				sc, cc := trustConfigs(t)
				sc.SessionTicketsDisabled = true
				d := &Dialer{
					HandshakeTimeout: -1,
					DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
						if _, ok := ctx.Deadline(); ok {
							t.Error("the context has a deadline")
						}
						time.Sleep(time.Hour)
						client, server := net.Pipe()
						go func() {
							time.Sleep(time.Hour)
							_ = tlsconn.Server(server, sc).Handshake()
						}()
						return client, nil
					},
				}
				c, err := d.DialConnection("tcp", "localhost:1", timeout, cc)
				if err != nil {
					t.Fatal(err)
				}
				c.(*TLSConn).NetConn().(*tlsconn.Conn).NetConn().Close()
			})
		})
	}
}

// A connection that AddTLS returns has no timeout: neither one that was set before,
// nor that of the handshake.
func TestD4_AddTLSLeavesNoTimeout(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		sc, cc := trustConfigs(t)
		sc.SessionTicketsDisabled = true
		ln := newScriptListener()
		s := serveOn(t, &Transporter{TLSConfig: sc, HandshakeTimeout: -1}, ln, func(_ context.Context, conn any) error {
			time.Sleep(time.Hour)
			return answer(conn.(network.Conn), "late")
		})
		conn := ln.connect(t)
		if err := errors.Join(conn.SetReadTimeout(time.Second), conn.SetWriteTimeout(time.Second)); err != nil {
			t.Fatal(err)
		}
		c, err := new(Dialer).AddTLS(conn, withName(cc))
		if err != nil {
			t.Fatal(err)
		}
		time.Sleep(time.Hour)
		if got := ask(t, c, "?"); got != "late" {
			t.Errorf("got %q", got)
		}
		go func() { _, _ = c.Peek(1) }() // takes the close_notify
		s.close(t)
	})
}

// The kit has the server see the end. Beyond that, the conn that was given knows that
// it is closed, and so it is when AddTLS fails before the handshake.
func TestD10_FailedAddTLS(t *testing.T) {
	_, cc := trustConfigs(t)
	for _, test := range []struct {
		name    string
		beneath *scriptConn
		config  *tls.Config
		want    error
	}{
		{"no config", &scriptConn{}, nil, nil},
		{"failing flush", &scriptConn{writes: []step{{err: syscall.EPIPE}}}, cc, syscall.EPIPE},
		{"end of the stream", &scriptConn{}, withName(cc), io.EOF},
	} {
		conn := NewConn(test.beneath)
		if _, err := conn.WriteBinary([]byte("pending")); err != nil {
			t.Fatal(err)
		}
		c, err := new(Dialer).AddTLS(conn, test.config)
		if c != nil || err == nil || test.want != nil && !errors.Is(err, test.want) {
			t.Errorf("%s: got %v, %v, want %v", test.name, c, err, test.want)
		}
		if test.beneath.closes == 0 {
			t.Errorf("%s: the connection beneath is open", test.name)
		}
		if err := conn.Close(); err != nil {
			t.Errorf("%s: Close afterwards: %v", test.name, err)
		}
	}
}

// The kit sees that AddTLS has a limit. Here it is, to the moment: for the handshake and
// the output that has to leave before it. Limits of what came before do not count.
func TestD10_StallingAddTLS(t *testing.T) {
	for _, test := range []struct {
		name    string
		limit   time.Duration
		pending int
		reads   bool // whether the peer takes what is sent
		want    time.Duration
	}{
		{"default", 0, 0, true, DefaultHandshakeTimeout},
		{"set", 3 * time.Second, 0, true, 3 * time.Second},
		{"peer does not read", 3 * time.Second, 0, false, 3 * time.Second},
		{"pending output", 3 * time.Second, 10, false, 3 * time.Second},
	} {
		t.Run(test.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				_, cc := trustConfigs(t)
				a, b := net.Pipe()
				if test.reads {
					go func() { _, _ = io.Copy(io.Discard, b) }()
				}
				conn := NewConn(a)
				if _, err := conn.WriteBinary(make([]byte, test.pending)); err != nil {
					t.Fatal(err)
				}
				if err := conn.SetReadTimeout(time.Second); err != nil {
					t.Fatal(err)
				}
				start := time.Now()
				c, err := (&Dialer{HandshakeTimeout: test.limit}).AddTLS(conn, withName(cc))
				if c != nil {
					t.Errorf("got a connection: %#v", c)
				}
				isTimeoutError(t, err)
				if got := time.Since(start); got != test.want {
					t.Errorf("it took %v, want %v", got, test.want)
				}
				if _, err := b.Write([]byte("x")); err != io.ErrClosedPipe {
					t.Errorf("the connection beneath is open: %v", err)
				}
			})
		})
	}
}

// AddTLS sends what is pending before the handshake, in the clear. Nothing is pending
// in the kit's cases.
func TestD10_AddTLSFlushesFirst(t *testing.T) {
	sc, cc := trustConfigs(t)
	addr := acceptOne(t, "tcp", "127.0.0.1:0", func(c net.Conn) {
		got := make([]byte, 8)
		if _, err := io.ReadFull(c, got); err != nil || string(got) != "STARTTLS" {
			t.Errorf("the server read %q, %v", got, err)
			return
		}
		s := NewTLSConn(tlsconn.Server(c, sc))
		_ = answer(s, "secret")
	})
	conn, err := new(Dialer).DialConnection("tcp", addr, time.Minute, nil)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := conn.WriteBinary([]byte("STARTTLS")); err != nil {
		t.Fatal(err)
	}
	c, err := new(Dialer).AddTLS(conn, cc)
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	if got := ask(t, c, "?"); got != "secret" {
		t.Errorf("got %q", got)
	}
}

// A unix socket has no host to verify: a handshake that verifies nothing must not come
// of it.
func TestD11_UnixSocketHasNoServerName(t *testing.T) {
	_, cc := trustConfigs(t)
	addr := acceptOne(t, "tcp", "127.0.0.1:0", func(net.Conn) {})
	d := &Dialer{DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
		return new(net.Dialer).DialContext(ctx, "tcp", addr)
	}}
	c, err := d.DialConnection("unix", "unix:///tmp/s", time.Minute, cc)
	if c != nil || err == nil || !strings.Contains(err.Error(), "ServerName") {
		t.Errorf("got %v, %v", c, err)
	}
}

// The kit counts descriptors and connections after dials that fail. No goroutine stays
// either.
func TestD12_FailedDialsLeaveNoGoroutine(t *testing.T) {
	_, stranger := trustConfigs(t)
	sc, _ := trustConfigs(t)
	secure, plain := serve(t, &Transporter{TLSConfig: sc}, echo), serve(t, &Transporter{}, echo)
	before := runtime.NumGoroutine()
	for range 10 {
		for _, way := range dials {
			for addr, config := range map[string]*tls.Config{secure.addr: stranger, plain.addr: stranger, "127.0.0.1:-1": nil} {
				if c, err := way.dial(new(Dialer), "tcp", addr, time.Minute, config); c != nil || err == nil {
					t.Fatalf("%s: got %v, %v", way.name, c, err)
				}
			}
		}
	}
	noMoreGoroutines(t, before)
}

// DialContext gets the network and the address as the caller passed them, and its error
// comes out as it is.
func TestDialContextGetsWhatWasPassed(t *testing.T) {
	want := errors.New("not today")
	var gotNetwork, gotAddress string
	d := &Dialer{DialContext: func(_ context.Context, network, address string) (net.Conn, error) {
		gotNetwork, gotAddress = network, address
		return nil, want
	}}
	for _, test := range []struct{ network, address string }{
		{"tcp", "example.test:80"}, {"made up", "anything"}, {"unix", "unix:///s"},
	} {
		for _, way := range dials {
			if c, err := way.dial(d, test.network, test.address, time.Minute, nil); c != nil || err != want {
				t.Errorf("%s: %v, %v", way.name, c, err)
			}
			if gotNetwork != test.network || gotAddress != test.address {
				t.Errorf("%s: DialContext got %q, %q", way.name, gotNetwork, gotAddress)
			}
		}
	}
}

// Control and LocalAddr mean what they mean in a net.Dialer.
func TestDialerPassesOnItsFields(t *testing.T) {
	s := serve(t, &Transporter{}, echo)
	var networks []string
	d := &Dialer{
		LocalAddr: &net.TCPAddr{IP: net.IPv4(127, 0, 0, 1)},
		Control: func(network, _ string, _ syscall.RawConn) error {
			networks = append(networks, network)
			return nil
		},
		KeepAliveConfig: net.KeepAliveConfig{Idle: -1},
	}
	c, err := d.DialConnection("tcp", s.addr, time.Minute, nil)
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	if !slices.Equal(networks, []string{"tcp4"}) {
		t.Errorf("Control was called for %v", networks)
	}
	d.LocalAddr = &net.UnixAddr{Name: "x", Net: "unix"}
	if c, err := d.DialConnection("tcp", s.addr, time.Minute, nil); c != nil || err == nil {
		t.Errorf("from a local address of another kind: %v, %v", c, err)
	}
}
