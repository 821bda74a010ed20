package hertznet

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"reflect"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"github.com/cloudwego/hertz/pkg/common/config"
	errs "github.com/cloudwego/hertz/pkg/common/errors"
	"github.com/cloudwego/hertz/pkg/network"
	"github.com/hertznet/hertznet/standard"
	"github.com/hertznet/hertznet/tlsconn"
)

// opErr is an error as package net makes it.
func opErr(op string, err error) error {
	if errno, ok := err.(syscall.Errno); ok {
		err = os.NewSyscallError(op, errno)
	}
	return &net.OpError{Op: op, Net: "tcp", Err: err}
}

// ToHertzError gives Hertz's client the errors that it knows: a write to a peer
// that has gone is ErrConnectionClosed, a timeout ErrTimeout, anything else itself.
func TestToHertzError(t *testing.T) {
	own := errors.New("something else")
	for _, test := range []struct {
		name string
		err  error
		want error // nil is the error itself
	}{
		{"no error", nil, nil},
		{"EOF", io.EOF, nil},
		{"cut TLS", io.ErrUnexpectedEOF, nil},
		{"another error", own, nil},
		{"another write error", opErr("write", syscall.EINVAL), nil},
		{"write: EPIPE", opErr("write", syscall.EPIPE), errs.ErrConnectionClosed},
		{"write: ENOTCONN", opErr("write", syscall.ENOTCONN), errs.ErrConnectionClosed},
		{"write: ECONNRESET", opErr("write", syscall.ECONNRESET), errs.ErrConnectionClosed},
		{"write: ECONNABORTED", opErr("write", syscall.ECONNABORTED), errs.ErrConnectionClosed},
		{"write: closed here", opErr("write", net.ErrClosed), errs.ErrConnectionClosed},
		{"writev", opErr("writev", syscall.EPIPE), errs.ErrConnectionClosed},
		{"sendfile", opErr("sendfile", syscall.ECONNRESET), errs.ErrConnectionClosed},
		{"wrapped", fmt.Errorf("body: %w", opErr("write", syscall.EPIPE)), errs.ErrConnectionClosed},
		{"read: ECONNRESET", opErr("read", syscall.ECONNRESET), nil},
		{"read: closed here", opErr("read", net.ErrClosed), nil},
		{"bare ECONNRESET, of a read", syscall.ECONNRESET, nil},
		{"read timeout", opErr("read", os.ErrDeadlineExceeded), errs.ErrTimeout},
		{"write timeout", opErr("write", os.ErrDeadlineExceeded), errs.ErrTimeout},
		{"wrapped timeout", fmt.Errorf("body: %w", opErr("read", os.ErrDeadlineExceeded)), errs.ErrTimeout},
	} {
		for _, c := range []network.ErrorNormalization{&serverConn{}, &serverTLSConn{}, &clientConn{}, &clientTLSConn{}, &sensingConn{}, &sensingTLSConn{}} {
			want := test.want
			if want == nil {
				want = test.err
			}
			// Hertz compares the one of a read with ==.
			if got := c.ToHertzError(test.err); got != want {
				t.Errorf("%s on a %T: %v, want %v", test.name, c, got, want)
			}
		}
	}
}

// HandleSpecificError keeps out of the log what peers do every day, and nothing
// that the operator should know.
func TestHandleSpecificError(t *testing.T) {
	for _, test := range []struct {
		name   string
		err    error
		ignore bool
	}{
		{"no error", nil, false},
		{"another error", errors.New("something else"), false},
		{"another read error", opErr("read", syscall.EIO), false},
		{"a body too large", errs.ErrBodyTooLarge, false},
		{"EPIPE", opErr("write", syscall.EPIPE), true},
		{"ECONNRESET", opErr("read", syscall.ECONNRESET), true},
		{"ECONNABORTED", opErr("read", syscall.ECONNABORTED), true},
		{"ENOTCONN", opErr("write", syscall.ENOTCONN), true},
		{"closed here", opErr("read", net.ErrClosed), true},
		{"cut TLS", io.ErrUnexpectedEOF, true},
		{"wrapped cut", fmt.Errorf("body: %w", io.ErrUnexpectedEOF), true},
		{"read timeout", opErr("read", os.ErrDeadlineExceeded), true},
		{"write timeout", opErr("write", os.ErrDeadlineExceeded), true},
	} {
		plain, secure, sensing, secureSensing := new(serverConn), new(serverTLSConn), new(sensingConn), new(sensingTLSConn)
		for _, c := range []*serverConn{plain, &secure.serverConn, &sensing.serverConn, &secureSensing.serverConn} {
			c.Conn = new(standard.Conn)
		}
		for _, c := range []network.HandleSpecificError{plain, secure, sensing, secureSensing, &clientConn{}, &clientTLSConn{}} {
			if got := c.HandleSpecificError(test.err, "192.0.2.1:80"); got != test.ignore {
				t.Errorf("%s on a %T: %v", test.name, c, got)
			}
		}
	}
}

// Hertz wraps the end of a request's stream in texts of its own. A request that
// was cut is silent; the next one is looked at afresh.
func TestHandleSpecificErrorAfterACutRequest(t *testing.T) {
	parse := errors.New("error when reading request headers: EOF")
	for _, read := range []struct {
		name string
		f    func(c *serverConn) error
	}{
		{"Peek", func(c *serverConn) error { _, err := c.Peek(10); return err }},
		{"Skip", func(c *serverConn) error { return c.Skip(10) }},
		{"Read", func(c *serverConn) error {
			_, err := io.ReadFull(c, make([]byte, 10))
			return err
		}},
	} {
		t.Run(read.name, func(t *testing.T) {
			a, b := net.Pipe()
			defer b.Close()
			c := &serverConn{conn: conn{standard.NewConn(a)}}
			go func() {
				_, _ = b.Write([]byte("half"))
				b.Close()
			}()
			if c.HandleSpecificError(parse, "") {
				t.Error("ignored before anything was read")
			}
			if err := read.f(c); err == nil {
				t.Fatal("no error at the end of the stream")
			}
			// What is buffered can be read still, as Hertz's parser does.
			if n := c.Len(); n > 0 {
				if _, err := c.Peek(n); err != nil {
					t.Error(err)
				}
			}
			if !c.HandleSpecificError(parse, "") {
				t.Error("a request that was cut is logged")
			}
			if c.HandleSpecificError(nil, "") {
				t.Error("no error is ignored")
			}
		})
	}
	t.Run("the next request", func(t *testing.T) {
		a, b := net.Pipe()
		defer b.Close()
		c := &serverConn{conn: conn{standard.NewConn(a)}, idle: time.Minute}
		if err := c.SetReadTimeout(time.Millisecond); err != nil {
			t.Fatal(err)
		}
		if _, err := c.Peek(1); err == nil {
			t.Fatal("no timeout")
		}
		if !c.HandleSpecificError(parse, "") {
			t.Error("a request that came too slowly is logged")
		}
		go func() { _, _ = b.Write([]byte("next")) }()
		for _, err := range []error{c.Flush(), c.SetReadTimeout(time.Minute)} {
			if err != nil {
				t.Fatal(err)
			}
		}
		if _, err := c.Peek(4); err != nil {
			t.Fatal(err)
		}
		if c.HandleSpecificError(parse, "") {
			t.Error("the next request's error is ignored")
		}
	})
}

// errConn is a net.Conn whose reads give data and then an error.
type errConn struct {
	net.Conn
	data string
	err  error
}

func (c *errConn) Read(p []byte) (int, error) {
	if c.data != "" {
		n := copy(p, c.data)
		c.data = c.data[n:]
		return n, nil
	}
	return 0, c.err
}

func (c *errConn) Write(p []byte) (int, error)      { return len(p), nil }
func (c *errConn) Close() error                     { return nil }
func (c *errConn) LocalAddr() net.Addr              { return &net.TCPAddr{} }
func (c *errConn) RemoteAddr() net.Addr             { return &net.TCPAddr{} }
func (c *errConn) SetReadDeadline(time.Time) error  { return nil }
func (c *errConn) SetWriteDeadline(time.Time) error { return nil }

// Hertz's client knows a stale pooled connection by io.EOF and ECONNRESET from the
// first Peek, and compares with ==. A TLS stream that is cut before the answer's
// first byte is stale too; one that is cut later is cut.
func TestClientPeekErrors(t *testing.T) {
	for _, test := range []struct {
		name, data string
		err, want  error
		before     func(c *clientConn) // with a request sent
	}{
		{"EOF", "", io.EOF, io.EOF, nil},
		{"reset", "", opErr("read", syscall.ECONNRESET), syscall.ECONNRESET, nil},
		{"cut before the answer", "", io.ErrUnexpectedEOF, io.EOF, nil},
		{"cut in the answer", "HT", io.ErrUnexpectedEOF, io.ErrUnexpectedEOF, func(c *clientConn) { _, _ = c.Peek(1) }},
		{"cut behind what was read", "HT", io.ErrUnexpectedEOF, io.ErrUnexpectedEOF, func(c *clientConn) { _, _ = c.Peek(2); _ = c.Skip(2) }},
		{"cut with bytes of the answer unread", "HT", io.ErrUnexpectedEOF, io.ErrUnexpectedEOF, func(c *clientConn) { _, _ = c.Peek(10); c.phase.Store(sent) }},
		{"reset in the answer", "HT", opErr("read", syscall.ECONNRESET), syscall.ECONNRESET, func(c *clientConn) { _, _ = c.Peek(1) }},
	} {
		c := &clientConn{conn: conn{standard.NewConn(&errConn{data: test.data, err: test.err})}}
		if err := c.Flush(); err != nil {
			t.Fatal(err)
		}
		if test.before != nil {
			test.before(c)
		}
		for range 2 { // the error stays
			if _, err := c.Peek(20); err != test.want {
				t.Errorf("%s: %v, want %v", test.name, err, test.want)
			}
		}
	}
	// Without a request nothing is stale.
	c := &clientConn{conn: conn{standard.NewConn(&errConn{err: io.ErrUnexpectedEOF})}}
	if _, err := c.Peek(1); err != io.ErrUnexpectedEOF {
		t.Errorf("cut before a request: %v", err)
	}
}

// The client's read timeout is one moment for all that is read until the next
// call, where the server's is a limit of each operation. Zero and less lift both.
func TestReadTimeoutOfClientAndServer(t *testing.T) {
	type settable interface {
		network.Conn
		SetReadTimeout(time.Duration) error
	}
	for _, test := range []struct {
		name string
		wrap func(*standard.Conn) settable
		want time.Duration // of the whole
	}{
		{"client", func(c *standard.Conn) settable { return &clientConn{conn: conn{c}} }, time.Second},
		{"server", func(c *standard.Conn) settable { return &serverConn{conn: conn{c}} }, 600*time.Millisecond + time.Second},
	} {
		t.Run(test.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				a, b := net.Pipe()
				c := test.wrap(standard.NewConn(a))
				defer b.Close()
				defer c.Close()
				start := time.Now()
				if err := c.SetReadTimeout(time.Second); err != nil {
					t.Fatal(err)
				}
				go func() {
					time.Sleep(600 * time.Millisecond)
					_, _ = b.Write([]byte("a"))
				}()
				if _, err := c.Peek(1); err != nil {
					t.Fatal(err)
				}
				_, err := c.Peek(2)
				if took := time.Since(start); !errors.Is(err, os.ErrDeadlineExceeded) || took != test.want {
					t.Errorf("after %v: %v, want a timeout after %v", took, err, test.want)
				}
				for _, lifted := range []time.Duration{0, -1} {
					if err := c.SetReadTimeout(lifted); err != nil {
						t.Fatal(err)
					}
					go func() {
						time.Sleep(time.Hour)
						_, _ = b.Write([]byte("b"))
					}()
					if _, err := c.Peek(c.Len() + 1); err != nil {
						t.Errorf("SetReadTimeout(%d): %v", lifted, err)
					}
				}
			})
		})
	}
}

// Hertz limits a TLS handshake by SetDeadline, and before the request sets only
// timeouts, which may be 0: the handshake's limit must not outlive it.
func TestHandshakeDeadlineEndsWithTheRequestsTimeouts(t *testing.T) {
	for _, secure := range []bool{false, true} {
		t.Run(fmt.Sprint("tls ", secure), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				a, b := net.Pipe()
				var c, peer network.Conn = newClientConn(standard.NewConn(a)), newClientConn(standard.NewConn(b))
				if secure {
					cert, pool, err := tlsconn.SelfSigned("test")
					if err != nil {
						t.Fatal(err)
					}
					c = newClientConn(standard.NewTLSConn(tlsconn.Client(a, &tls.Config{ServerName: "test", RootCAs: pool})))
					peer = newClientConn(standard.NewTLSConn(tlsconn.Server(b, &tls.Config{Certificates: []tls.Certificate{cert}})))
				}
				defer c.Close()
				defer peer.Close()
				go func() {
					for {
						if _, err := peer.ReadByte(); err != nil {
							return
						}
						time.Sleep(time.Hour)
						if _, err := peer.Write([]byte("a")); err != nil {
							return
						}
					}
				}()
				if err := c.SetDeadline(time.Now().Add(time.Second)); err != nil {
					t.Fatal(err)
				}
				if tc, ok := c.(network.ConnTLSer); ok {
					if err := tc.Handshake(); err != nil {
						t.Fatal(err)
					}
				}
				for range 3 {
					_, err := c.WriteBinary([]byte("q"))
					for _, e := range []error{err, c.SetWriteTimeout(0), c.Flush(), c.SetReadTimeout(0)} {
						if e != nil {
							t.Fatal(e)
						}
					}
					if _, err := c.ReadByte(); err != nil {
						t.Fatalf("an answer after an hour: %v", err)
					}
				}
			})
		})
	}
}

// Hertz finds out by type assertions what a connection can do: a plain one must not
// look like a TLS one, and only one that was asked to senses disconnections.
func TestOptionalInterfaces(t *testing.T) {
	a, b := net.Pipe()
	defer a.Close()
	defer b.Close()
	plain := standard.NewConn(a)
	secure := standard.NewTLSConn(tlsconn.Server(a, nil))
	cancel := func() {}
	for _, test := range []struct {
		name        string
		c           network.Conn
		tls, senses bool
	}{
		{"server", newServerConn(plain, time.Minute, nil), false, false},
		{"server, tls", newServerConn(secure, time.Minute, nil), true, false},
		{"server, sensing", newServerConn(plain, time.Minute, cancel), false, true},
		{"server, tls, sensing", newServerConn(secure, time.Minute, cancel), true, true},
		{"client", newClientConn(plain), false, false},
		{"client, tls", newClientConn(secure), true, false},
	} {
		if _, ok := test.c.(network.ConnTLSer); ok != test.tls {
			t.Errorf("%s: a %T is a ConnTLSer: %v", test.name, test.c, ok)
		}
		_, ok := test.c.(interface {
			network.Conn
			DetectConnectionClose()
			AbortBlockingRead()
		})
		if ok != test.senses {
			t.Errorf("%s: a %T senses: %v", test.name, test.c, ok)
		}
		if _, ok := test.c.(io.ReaderFrom); !ok {
			t.Errorf("%s: a %T is no io.ReaderFrom: there would be no sendfile", test.name, test.c)
		}
		if _, ok := test.c.(network.ErrorNormalization); !ok {
			t.Errorf("%s: a %T is no ErrorNormalization", test.name, test.c)
		}
		if _, ok := test.c.(network.HandleSpecificError); !ok {
			t.Errorf("%s: a %T is no HandleSpecificError", test.name, test.c)
		}
	}
}

// The server's options arrive in the standard.Transporter, and IdleTimeout 0 becomes
// no limit in both.
func TestOptionsArriveInTheTransporter(t *testing.T) {
	lc := new(net.ListenConfig)
	o := config.NewOptions([]config.Option{{F: func(o *config.Options) {
		o.Network, o.Addr, o.ListenConfig = "tcp4", "127.0.0.1:0", lc
		o.ReadTimeout, o.WriteTimeout, o.KeepAliveTimeout, o.IdleTimeout = 1, 2, 3, 0
		o.ReadBufferSize = 5
		o.OnAccept = func(net.Conn) context.Context { return nil }
		o.OnConnect = func(ctx context.Context, _ network.Conn) context.Context { return ctx }
	}}})
	var got *standard.Transporter
	calls := 0
	Transport(func(t *standard.Transporter) { got = t; calls++ })(o)
	if calls != 1 {
		t.Fatalf("configure was called %d times", calls)
	}
	if got.Network != "tcp4" || got.Addr != "127.0.0.1:0" || got.ListenConfig != lc ||
		got.ReadTimeout != 1 || got.WriteTimeout != 2 || got.KeepAlive != 3 || got.ReadBufferSize != 5 ||
		reflect.ValueOf(got.OnAccept).Pointer() != reflect.ValueOf(o.OnAccept).Pointer() || got.OnConnect == nil {
		t.Error("an option did not arrive")
	}
	if got.IdleTimeout >= 0 || o.IdleTimeout >= 0 {
		t.Errorf("IdleTimeout 0 became %v in the transporter, %v in the options", got.IdleTimeout, o.IdleTimeout)
	}
}
