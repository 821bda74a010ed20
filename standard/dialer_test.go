package standard

import (
	"bytes"
	"context"
	"crypto/tls"
	"errors"
	"io"
	"net"
	"path/filepath"
	"reflect"
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

// refusedAddr is an address that nobody listens on.
func refusedAddr(t testing.TB) string {
	t.Helper()
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer ln.Close()
	return ln.Addr().String()
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

// "tcp4, tcp6, unix", by a path and as unix:///path on any network.
func TestD1_Networks(t *testing.T) {
	path := filepath.Join(socketDir(t), "s")
	for _, test := range []struct {
		listen, on, network, address string
	}{
		{"tcp4", "127.0.0.1:0", "tcp4", ""},
		{"tcp4", "127.0.0.1:0", "tcp", ""},
		{"tcp6", "[::1]:0", "tcp6", ""},
		{"tcp6", "[::1]:0", "tcp", ""},
		{"unix", path, "unix", path},
		{"unix", path, "unix", "unix://" + path},
		{"unix", path, "tcp", "unix://" + path},
	} {
		t.Run(test.listen+" as "+test.network+" "+strings.TrimSuffix(test.address, path), func(t *testing.T) {
			ln, err := net.Listen(test.listen, test.on)
			if err != nil && test.listen == "tcp6" {
				t.Skip(err)
			}
			if err != nil {
				t.Fatal(err)
			}
			serveOn(t, &Transporter{}, ln, echo)
			address := test.address
			if address == "" {
				address = ln.Addr().String()
			}
			for _, way := range dials {
				c, err := way.dial(new(Dialer), test.network, address, time.Minute, nil)
				if err != nil {
					t.Fatalf("%s: %v", way.name, err)
				}
				if got := ask(t, c.(network.Conn), "hello"); got != "hello" {
					t.Errorf("%s: got %q", way.name, got)
				}
				if err := c.Close(); err != nil {
					t.Errorf("%s: Close: %v", way.name, err)
				}
			}
		})
	}
}

// "An error comes with a nil interface", from all three methods.
func TestD2_ErrorMeansANilInterface(t *testing.T) {
	_, trusting := trustConfigs(t)
	refused := refusedAddr(t)
	for _, config := range []*tls.Config{nil, trusting} {
		name := "plain"
		if config != nil {
			name = "TLS"
		}
		t.Run("DialConnection "+name, func(t *testing.T) {
			c, err := new(Dialer).DialConnection("tcp", refused, time.Minute, config)
			if c != nil || !errors.Is(err, syscall.ECONNREFUSED) {
				t.Errorf("got %#v, %v", c, err)
			}
		})
		t.Run("DialTimeout "+name, func(t *testing.T) {
			c, err := new(Dialer).DialTimeout("tcp", refused, time.Minute, config)
			if c != nil || !errors.Is(err, syscall.ECONNREFUSED) {
				t.Errorf("got %#v, %v", c, err)
			}
		})
	}
	plain := func(c net.Conn) {
		_, _ = io.WriteString(c, "I speak plain text\n")
		_, _ = io.Copy(io.Discard, c)
	}
	t.Run("DialConnection, failing handshake", func(t *testing.T) {
		c, err := new(Dialer).DialConnection("tcp", acceptOne(t, "tcp", "127.0.0.1:0", plain), time.Minute, trusting)
		if _, ok := err.(tls.RecordHeaderError); c != nil || !ok {
			t.Errorf("got %#v, %T %v", c, err, err)
		}
	})
	t.Run("DialTimeout, failing handshake", func(t *testing.T) {
		c, err := new(Dialer).DialTimeout("tcp", acceptOne(t, "tcp", "127.0.0.1:0", plain), time.Minute, trusting)
		if _, ok := err.(tls.RecordHeaderError); c != nil || !ok {
			t.Errorf("got %#v, %T %v", c, err, err)
		}
	})
	t.Run("AddTLS, failing handshake", func(t *testing.T) {
		conn, err := new(Dialer).DialConnection("tcp", acceptOne(t, "tcp", "127.0.0.1:0", plain), time.Minute, nil)
		if err != nil {
			t.Fatal(err)
		}
		c, err := new(Dialer).AddTLS(conn, trusting)
		if _, ok := err.(tls.RecordHeaderError); c != nil || !ok {
			t.Errorf("got %#v, %T %v", c, err, err)
		}
	})
	t.Run("AddTLS, no connection", func(t *testing.T) {
		if c, err := new(Dialer).AddTLS(nil, trusting); c != nil || err == nil {
			t.Errorf("got %#v, %v", c, err)
		}
	})
	t.Run("DialContext returns neither", func(t *testing.T) {
		d := &Dialer{DialContext: func(context.Context, string, string) (net.Conn, error) { return nil, nil }}
		for _, way := range dials {
			if c, err := way.dial(d, "tcp", "localhost:1", time.Minute, trusting); c != nil || err == nil {
				t.Errorf("%s: got %#v, %v", way.name, c, err)
			}
		}
	})
}

// "The timeout covers looking up the name, connecting and the TLS handshake, all
// together": a server that accepts and never answers, over real sockets.
func TestD3_TimeoutCoversTheHandshake(t *testing.T) {
	_, config := trustConfigs(t)
	const timeout = 50 * time.Millisecond
	for _, way := range dials {
		t.Run(way.name, func(t *testing.T) {
			saw := make(chan error, 1)
			addr := acceptOne(t, "tcp", "127.0.0.1:0", func(c net.Conn) {
				_, err := io.Copy(io.Discard, c)
				saw <- err
			})
			start := time.Now()
			c, err := way.dial(new(Dialer), "tcp", addr, timeout, config)
			if c != nil {
				t.Errorf("got a connection: %#v", c)
			}
			isTimeoutError(t, err)
			if got := time.Since(start); got < timeout {
				t.Errorf("it took %v, less than %v", got, timeout)
			}
			if err := <-saw; err != nil {
				t.Errorf("the server saw %v, want the end", err)
			}
		})
	}
}

// The same for a name that is not resolved: here the DNS server cannot be reached.
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

// "Timeout <= 0: none": nothing has a deadline.
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

// "The connection itself has no timeout set when it is returned".
func TestD4_ConnectionHasNoTimeout(t *testing.T) {
	for _, way := range []string{"plain", "TLS", "AddTLS"} {
		t.Run(way, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				sc, cc := trustConfigs(t)
				sc.SessionTicketsDisabled = true
				tr := &Transporter{}
				config := (*tls.Config)(nil)
				if way != "plain" {
					tr.TLSConfig, config = sc, cc
				}
				dialConfig := config
				if way == "AddTLS" {
					dialConfig = nil
				}
				ln := newScriptListener()
				s := serveOn(t, tr, ln, func(_ context.Context, conn any) error {
					time.Sleep(time.Hour)
					return answer(conn.(network.Conn), "late")
				})
				d := &Dialer{DialContext: func(context.Context, string, string) (net.Conn, error) {
					return ln.connect(t).NetConn(), nil
				}}
				c, err := d.DialConnection("tcp", "localhost:1", time.Second, dialConfig)
				if err != nil {
					t.Fatal(err)
				}
				if way == "AddTLS" {
					if err := c.SetReadTimeout(time.Second); err != nil {
						t.Fatal(err)
					}
					if c, err = d.AddTLS(c, withName(config)); err != nil {
						t.Fatal(err)
					}
				}
				time.Sleep(time.Hour)
				if got := ask(t, c, "?"); got != "late" {
					t.Errorf("got %q", got)
				}
				go func() { _, _ = c.Peek(1) }() // takes the close_notify
				s.close(t)
			})
		})
	}
}

// "An unknown network is an error", and so is an address that is none.
func TestD5_BadNetworkOrAddress(t *testing.T) {
	_, config := trustConfigs(t)
	for _, way := range dials {
		for _, test := range []struct{ network, address string }{
			{"tcp7", "127.0.0.1:1"},
			{"", "127.0.0.1:1"},
			{"tcp 4", "127.0.0.1:1"},
			{"tcp", "127.0.0.1"},
			{"tcp", ""},
			{"tcp", "127.0.0.1:99999"},
			{"unix", ""},
			{"tcp", "unix://"},
			{"unix", filepath.Join(t.TempDir(), "nobody")},
		} {
			c, err := way.dial(new(Dialer), test.network, test.address, time.Minute, config)
			if c != nil || err == nil {
				t.Errorf("%s(%q, %q): %#v, %v", way.name, test.network, test.address, c, err)
			}
			var unknown net.UnknownNetworkError
			if wantUnknown := test.network != "tcp" && test.network != "unix"; errors.As(err, &unknown) != wantUnknown {
				t.Errorf("%s(%q, %q): %v", way.name, test.network, test.address, err)
			}
		}
	}
}

// "With a tlsConfig the connection is a ConnTLSer; without, it is not".
func TestD6_DialedConnections(t *testing.T) {
	sc, cc := trustConfigs(t)
	plain := serve(t, &Transporter{}, echo)
	secure := serve(t, &Transporter{TLSConfig: sc}, echo)
	var d Dialer
	c, err := d.DialConnection("tcp", plain.addr, time.Minute, nil)
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	if _, ok := c.(network.ConnTLSer); ok {
		t.Errorf("a plain connection is a ConnTLSer: %T", c)
	}
	c, err = d.DialConnection("tcp", secure.addr, time.Minute, cc)
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	if s, ok := c.(network.ConnTLSer); !ok || !s.ConnectionState().HandshakeComplete {
		t.Errorf("a TLS connection is no ConnTLSer whose handshake is complete: %T", c)
	}
	tunnel, err := d.DialConnection("tcp", secure.addr, time.Minute, nil)
	if err != nil {
		t.Fatal(err)
	}
	c, err = d.AddTLS(tunnel, cc)
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	if s, ok := c.(network.ConnTLSer); !ok || !s.ConnectionState().HandshakeComplete {
		t.Errorf("AddTLS returned no ConnTLSer whose handshake is complete: %T", c)
	}
}

// "A certificate that is refused is the error of crypto/tls, bare", "and nothing is left
// open behind it": the server sees the end, and no descriptor stays.
func TestD7_BadCertificate(t *testing.T) {
	sc, cc := trustConfigs(t)
	_, stranger := trustConfigs(t)
	wrongName := cc.Clone()
	wrongName.ServerName = "example.test"
	for _, method := range []string{"DialConnection", "DialTimeout", "AddTLS"} {
		for name, config := range map[string]*tls.Config{"unknown authority": stranger, "wrong name": wrongName} {
			t.Run(method+"/"+name, func(t *testing.T) {
				ended := make(chan error, 1)
				addr := acceptOne(t, "tcp", "127.0.0.1:0", func(c net.Conn) {
					_ = tls.Server(c, sc).Handshake()
					_, err := io.Copy(io.Discard, c)
					ended <- err
				})
				fds := openDescriptors()
				var d Dialer
				var err error
				isNil := true
				switch method {
				case "DialConnection":
					var c network.Conn
					c, err = d.DialConnection("tcp", addr, time.Minute, config)
					isNil = c == nil
				case "DialTimeout":
					var c net.Conn
					c, err = d.DialTimeout("tcp", addr, time.Minute, config)
					isNil = c == nil
				case "AddTLS":
					tunnel, derr := d.DialConnection("tcp", addr, time.Minute, nil)
					if derr != nil {
						t.Fatal(derr)
					}
					var c network.Conn
					c, err = d.AddTLS(tunnel, config)
					isNil = c == nil
				}
				if _, ok := err.(*tls.CertificateVerificationError); !isNil || !ok {
					t.Errorf("nil: %v; got %T %v, want a bare *tls.CertificateVerificationError", isNil, err, err)
				}
				// A reset tells that the client left the rest of the handshake unread.
				if err := <-ended; err != nil && !errors.Is(err, syscall.ECONNRESET) {
					t.Errorf("the server saw %v, want the end", err)
				}
				settles(t, "descriptors above the baseline", 0, func() int { return max(openDescriptors()-fds, 0) })
			})
		}
	}
}

// A TLS record that is an alert: a warning, user_canceled, and a fatal one.
var (
	warning = []byte{21, 3, 1, 0, 2, 1, 90}
	failure = []byte{21, 3, 3, 0, 2, 2, 40}
)

// "Bytes that conn has buffered belong to the TLS stream, and none is lost": a proxy
// whose answer and the first bytes of TLS come in one segment.
func TestD8_AddTLSWithBufferedBytes(t *testing.T) {
	sc, cc := trustConfigs(t)
	for _, test := range []struct {
		name         string
		glued, later []byte
		ok           bool
	}{
		{"nothing", nil, nil, true},
		{"a warning", warning, nil, true}, // it is passed over, and the handshake goes on
		{"three warnings, cut", slices.Concat(warning, warning, warning[:3]), warning[3:], true},
		{"a failure", failure, nil, false},
		{"half a failure", failure[:2], failure[2:], false},
	} {
		t.Run(test.name, func(t *testing.T) {
			addr := acceptOne(t, "tcp", "127.0.0.1:0", func(c net.Conn) {
				if _, err := io.ReadFull(c, make([]byte, 8)); err != nil {
					t.Errorf("the proxy: %v", err)
					return
				}
				_, _ = c.Write(append([]byte("OK\n"), test.glued...))
				// The client's hello: it has taken over what was glued.
				b := NewConn(c)
				if _, err := b.Peek(1); err != nil {
					t.Errorf("the proxy: %v", err)
					return
				}
				_, _ = c.Write(test.later)
				if !test.ok {
					return
				}
				s := NewTLSConn(tlsconn.Server(b, sc))
				for s.Handshake() == nil {
					if echo(context.Background(), s) != nil {
						return
					}
					if _, err := s.Peek(1); err != nil {
						return
					}
				}
			})
			conn, err := new(Dialer).DialConnection("tcp", addr, time.Minute, nil)
			if err != nil {
				t.Fatal(err)
			}
			if got := ask(t, conn, "CONNECT"); got != "OK" {
				t.Fatalf("the proxy answered %q", got)
			}
			if got, err := conn.Peek(len(test.glued)); err != nil || !bytes.Equal(got, test.glued) {
				t.Fatalf("not glued: %x, %v", got, err)
			}
			if conn.Len() != len(test.glued) {
				t.Fatalf("%d bytes are buffered, want %d", conn.Len(), len(test.glued))
			}
			c, err := new(Dialer).AddTLS(conn, cc)
			if !test.ok {
				var alert tls.AlertError
				if c != nil || err == nil || !strings.Contains(err.Error(), "handshake failure") && !errors.As(err, &alert) {
					t.Errorf("got %v, %v, want the alert that was buffered", c, err)
				}
				return
			}
			if err != nil {
				t.Fatal(err)
			}
			want := pattern(100_000)
			go func() { _, _ = c.Write(want) }()
			if got, err := c.ReadBinary(len(want)); err != nil || !bytes.Equal(got, want) {
				t.Errorf("%d bytes, %v", len(got), err)
			}
			if err := c.Close(); err != nil {
				t.Errorf("Close: %v", err)
			}
		})
	}
}

// foreign hides that a network.Conn is this package's.
type foreign struct{ network.Conn }

// "conn may itself be encrypted": TLS to an HTTPS proxy, and TLS through it, also over a
// network.Conn that somebody else made.
func TestD9_TLSInTLS(t *testing.T) {
	sc, cc := trustConfigs(t)
	inner, innerTrust := trustConfigs(t)
	for _, wrap := range []func(network.Conn) network.Conn{
		func(c network.Conn) network.Conn { return c },
		func(c network.Conn) network.Conn { return foreign{c} },
	} {
		ended := make(chan error, 1)
		s := serve(t, &Transporter{TLSConfig: sc}, func(_ context.Context, conn any) error {
			proxy := conn.(*TLSConn)
			if err := answer(proxy, "OK"); err != nil {
				return err
			}
			target := NewTLSConn(tlsconn.Server(proxy, inner))
			for {
				if _, err := target.Peek(1); err != nil {
					ended <- err
					return err
				}
				if err := echo(context.Background(), target); err != nil {
					return err
				}
			}
		})
		var d Dialer
		conn, err := d.DialConnection("tcp", s.addr, time.Minute, cc)
		if err != nil {
			t.Fatal(err)
		}
		if got := ask(t, conn, "CONNECT"); got != "OK" {
			t.Fatalf("the proxy answered %q", got)
		}
		c, err := d.AddTLS(wrap(conn), innerTrust)
		if err != nil {
			t.Fatal(err)
		}
		if state := c.(network.ConnTLSer).ConnectionState(); len(state.PeerCertificates) == 0 || !bytes.Equal(state.PeerCertificates[0].Raw, inner.Certificates[0].Certificate[0]) {
			t.Error("the certificate is not the inner server's")
		}
		want := pattern(1 << 20)
		go func() { _, _ = c.Write(want) }()
		if got, err := c.ReadBinary(len(want)); err != nil || !bytes.Equal(got, want) {
			t.Errorf("%d bytes, %v", len(got), err)
		}
		if err := c.Close(); err != nil {
			t.Errorf("Close: %v", err)
		}
		if err := <-ended; err != io.EOF {
			t.Errorf("the inner server saw %v, want io.EOF", err)
		}
		settles(t, "connections", 0, s.open)
	}
}

// "AddTLS closes the conn when it fails", for whatever reason, and the conn knows it.
func TestD10_FailingAddTLSCloses(t *testing.T) {
	sc, cc := trustConfigs(t)
	_, stranger := trustConfigs(t)
	for _, test := range []struct {
		name   string
		server func(net.Conn)
		config *tls.Config
	}{
		{"no config", func(net.Conn) {}, nil},
		{"bad certificate", func(c net.Conn) { _ = tls.Server(c, sc).Handshake() }, stranger},
		{"plain text", func(c net.Conn) { _, _ = io.WriteString(c, "hello, I speak plain text") }, cc},
	} {
		for _, buffered := range []string{"", "\x15"} { // the latter begins an alert
			t.Run(test.name+" "+map[string]string{"": "", "\x15": "and buffered bytes"}[buffered], func(t *testing.T) {
				ended := make(chan struct{})
				addr := acceptOne(t, "tcp", "127.0.0.1:0", func(c net.Conn) {
					_, _ = io.WriteString(c, "\n"+buffered)
					test.server(c)
					_, _ = io.Copy(io.Discard, c)
					close(ended)
				})
				conn, err := new(Dialer).DialConnection("tcp", addr, time.Minute, nil)
				if err != nil {
					t.Fatal(err)
				}
				line(t, conn)
				c, err := new(Dialer).AddTLS(conn, test.config)
				if c != nil || err == nil {
					t.Errorf("got %#v, %v", c, err)
				}
				<-ended
				if err := conn.Close(); err != nil {
					t.Errorf("Close after a failed AddTLS: %v", err)
				}
				if _, err := conn.Write([]byte("x")); !errors.Is(err, net.ErrClosed) {
					t.Errorf("Write after a failed AddTLS: %v", err)
				}
			})
		}
	}
	t.Run("failing flush", func(t *testing.T) {
		nc := &scriptConn{writes: []step{{err: syscall.EPIPE}}}
		conn := NewConn(nc)
		if _, err := conn.WriteBinary([]byte("pending")); err != nil {
			t.Fatal(err)
		}
		if c, err := new(Dialer).AddTLS(conn, cc); c != nil || !errors.Is(err, syscall.EPIPE) {
			t.Errorf("got %#v, %v", c, err)
		}
		if nc.closes == 0 {
			t.Error("the connection beneath is open")
		}
	})
}

// "Its time is limited even if nobody set a timeout": the handshake's, and that of the
// output that has to leave before it. Limits of what came before do not count.
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

// AddTLS sends what is pending before the handshake, in the clear.
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

// "The tls.Config is not changed": none of its fields, nor what they point to.
func TestD11_ConfigIsNotChanged(t *testing.T) {
	sc, cc := trustConfigs(t)
	s := serve(t, &Transporter{TLSConfig: sc}, echo)
	clientCert := sc.Certificates[0]
	cc.Certificates = append(make([]tls.Certificate, 0, 4), clientCert)
	cc.NextProtos = append(make([]string, 0, 8), "h2", "http/1.1")
	cc.CipherSuites = append(make([]uint16, 0, 8), tls.TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256)
	cc.ClientSessionCache = tls.NewLRUClientSessionCache(4)
	before := exported(cc)
	protos := slices.Clone(cc.NextProtos[:cap(cc.NextProtos)])
	check := func(when string) {
		t.Helper()
		for name, value := range exported(cc) {
			if !reflect.DeepEqual(value, before[name]) {
				t.Errorf("%s: %s is %v, was %v", when, name, value, before[name])
			}
		}
		if got := cc.NextProtos[:cap(cc.NextProtos)]; !slices.Equal(got, protos) {
			t.Errorf("%s: the array behind NextProtos is %q", when, got)
		}
	}
	var d Dialer
	for _, way := range dials {
		c, err := way.dial(&d, "tcp", s.addr, time.Minute, cc)
		if err != nil {
			t.Fatal(err)
		}
		check(way.name)
		c.Close()
	}
	tunnel, err := d.DialConnection("tcp", s.addr, time.Minute, nil)
	if err != nil {
		t.Fatal(err)
	}
	c, err := d.AddTLS(tunnel, cc)
	if err != nil {
		t.Fatal(err)
	}
	c.Close()
	check("AddTLS")
	if _, err := d.DialConnection("tcp", refusedAddr(t), time.Minute, cc); err == nil {
		t.Error("connected to nobody")
	}
	check("a failed dial")
}

// exported returns the fields of a config; functions, which cannot be compared, by
// whether they are there.
func exported(config *tls.Config) map[string]any {
	fields := make(map[string]any)
	v := reflect.ValueOf(config).Elem()
	for i := range v.NumField() {
		f := v.Type().Field(i)
		switch {
		case !f.IsExported():
		case f.Type.Kind() == reflect.Func:
			fields[f.Name] = !v.Field(i).IsNil()
		case f.Type.Kind() == reflect.Slice:
			fields[f.Name] = reflect.AppendSlice(reflect.MakeSlice(f.Type, 0, 0), v.Field(i)).Interface()
		default:
			fields[f.Name] = v.Field(i).Interface()
		}
	}
	return fields
}

// "ServerName is taken from the address when empty": it is what is sent and verified.
func TestD11_ServerNameFromTheAddress(t *testing.T) {
	sc, cc := trustConfigs(t)
	names := make(chan string, 1)
	sc.GetConfigForClient = func(hello *tls.ClientHelloInfo) (*tls.Config, error) {
		names <- hello.ServerName
		return nil, nil
	}
	s := serve(t, &Transporter{TLSConfig: sc}, echo)
	_, port, _ := net.SplitHostPort(s.addr)
	toServer := func(ctx context.Context, _, _ string) (net.Conn, error) {
		return new(net.Dialer).DialContext(ctx, "tcp", s.addr)
	}
	for _, test := range []struct {
		address, configured string
		want                string // sent; empty for an IP address
		ok                  bool
	}{
		{"localhost:" + port, "", "localhost", true},
		{"127.0.0.1:" + port, "", "", true},
		{"[::1]:" + port, "", "", true},
		{"example.test:" + port, "localhost", "localhost", true},
		{"example.test:" + port, "", "example.test", false},
		{"10.0.0.1:" + port, "", "", false},
		{"localhost:" + port, "example.test", "example.test", false},
	} {
		t.Run(test.address+" "+test.configured, func(t *testing.T) {
			config := cc.Clone()
			config.ServerName = test.configured
			c, err := (&Dialer{DialContext: toServer}).DialConnection("tcp", test.address, time.Minute, config)
			if (err == nil) != test.ok {
				t.Errorf("got %v", err)
			}
			if c != nil {
				c.Close()
			}
			if got := <-names; got != test.want {
				t.Errorf("the server was asked for %q, want %q", got, test.want)
			}
			if config.ServerName != test.configured {
				t.Errorf("the config's ServerName is now %q", config.ServerName)
			}
		})
	}
	t.Run("unix socket", func(t *testing.T) {
		// There is no host to verify: a handshake that verifies nothing must not come of it.
		c, err := (&Dialer{DialContext: toServer}).DialConnection("unix", "unix:///tmp/s", time.Minute, cc)
		if c != nil || err == nil || !strings.Contains(err.Error(), "ServerName") {
			t.Errorf("got %v, %v", c, err)
		}
	})
}

// "A hundred dials at once", failing ones among them: no descriptor and no goroutine is
// left behind.
func TestD12_AHundredDialsAtOnce(t *testing.T) {
	sc, cc := trustConfigs(t)
	_, stranger := trustConfigs(t)
	secure := serve(t, &Transporter{TLSConfig: sc}, echo)
	plain := serve(t, &Transporter{}, echo)
	silent := serve(t, &Transporter{}, func(context.Context, any) error { return nil })
	refused := refusedAddr(t)
	fds, goroutines := openDescriptors(), runtime.NumGoroutine()
	var d Dialer
	var wg sync.WaitGroup
	for i := range 100 {
		wg.Go(func() {
			addr, config, timeout, ok := plain.addr, (*tls.Config)(nil), time.Minute, true
			switch i % 6 {
			case 1:
				addr, config = secure.addr, cc
			case 2:
				addr, config, ok = secure.addr, stranger, false
			case 3:
				addr, ok = refused, false
			case 4:
				addr, config, timeout, ok = silent.addr, cc, 100*time.Millisecond, false
			case 5:
				addr, config, ok = plain.addr, cc, false // it echoes the client's hello
			}
			way := dials[i/6%len(dials)]
			c, err := way.dial(&d, "tcp", addr, timeout, config)
			if (err == nil) != ok || (c == nil) == ok {
				t.Errorf("dial %d: %v, %v", i, c, err)
			}
			if c == nil {
				return
			}
			// t.Fatal is not for this goroutine, so nothing that calls it either.
			if _, err := c.Write([]byte("hello")); err != nil {
				t.Errorf("dial %d: Write: %v", i, err)
			}
			if b, err := c.(network.Conn).ReadBinary(5); string(b) != "hello" {
				t.Errorf("dial %d: %q, %v", i, b, err)
			}
			c.Close()
		})
	}
	wg.Wait()
	for _, s := range []*server{secure, plain, silent} {
		settles(t, "connections", 0, s.open)
	}
	settles(t, "descriptors above the baseline", 0, func() int { return max(openDescriptors()-fds, 0) })
	noMoreGoroutines(t, goroutines)
}

// "DialTimeout honours the tls.Config": what it sends is encrypted, and what it trusts is
// the config's.
func TestD13_DialTimeoutHonoursTheConfig(t *testing.T) {
	sc, cc := trustConfigs(t)
	_, stranger := trustConfigs(t)
	sc.NextProtos, cc.NextProtos = []string{"hn"}, []string{"hn"}
	s := serve(t, &Transporter{TLSConfig: sc}, func(_ context.Context, conn any) error {
		return answer(conn.(network.Conn), conn.(network.ConnTLSer).ConnectionState().NegotiatedProtocol)
	})
	var d Dialer
	c, err := d.DialTimeout("tcp", s.addr, time.Minute, cc)
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	if _, err := c.Write([]byte("?\n")); err != nil {
		t.Fatal(err)
	}
	got := make([]byte, 3)
	if _, err := io.ReadFull(c, got); err != nil || string(got) != "hn\n" {
		t.Errorf("got %q, %v", got, err)
	}
	if c, err := d.DialTimeout("tcp", s.addr, time.Minute, stranger); c != nil || err == nil {
		t.Errorf("with another's authority: %v, %v", c, err)
	}
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
