package quic

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"io"
	"net"
	"strings"
	"testing"
	"time"

	"github.com/hertznet/hertznet/network"
)

// tickets is a ClientSessionCache that tells when a ticket has come.
type tickets struct {
	tls.ClientSessionCache
	came chan struct{}
}

func newTickets() *tickets {
	return &tickets{tls.NewLRUClientSessionCache(10), make(chan struct{}, 100)}
}

func (c *tickets) Put(key string, s *tls.ClientSessionState) {
	c.ClientSessionCache.Put(key, s)
	if s != nil {
		c.came <- struct{}{}
	}
}

// gatedConn is a socket that receives nothing while its gate is closed.
type gatedConn struct {
	net.PacketConn
	gate chan struct{}
}

func (c gatedConn) ReadFrom(p []byte) (int, net.Addr, error) {
	<-c.gate
	return c.PacketConn.ReadFrom(p)
}

// visit connects, exchanges a message, waits for a ticket and closes.
func visit(t *testing.T, addr string, ct *tls.Config, config *Config) *Conn {
	t.Helper()
	ctx := testContext(t)
	c, err := Dial(ctx, addr, ct, config)
	if err != nil {
		t.Fatal(err)
	}
	defer c.CloseWithError(nil, "")
	if got, err := exchange(ctx, c, []byte("hello")); err != nil || string(got) != "hello" {
		t.Fatalf("%q and %v", got, err)
	}
	select {
	case <-ct.ClientSessionCache.(*tickets).came:
	case <-ctx.Done():
		t.Fatal("no ticket has come")
	}
	return c
}

func TestDial_Resumption(t *testing.T) {
	addr, _ := serve(t, new(Transporter), echoStreams)
	ct, _ := tlsConfigs(t)
	ct.ClientSessionCache = newTickets()
	if visit(t, addr, ct, nil).State().TLS.DidResume {
		t.Error("the first connection was resumed")
	}
	if c := visit(t, addr, ct, nil); !c.State().TLS.DidResume || c.State().Used0RTT {
		t.Error("the second connection was not resumed, or has used early data without being asked")
	}
	if ct.ServerName != "" {
		t.Error("the tls.Config was changed")
	}
}

func TestDial_EarlyData(t *testing.T) {
	_, st := tlsConfigs(t)
	early := &Config{EarlyData: true}
	gate := make(chan struct{})
	close(gate)
	pc := &gatedConn{mustListen(t), gate}
	tr := &Transporter{TLSConfig: st, Config: early}
	go tr.Serve(pc, echoStreams)
	t.Cleanup(func() { tr.Close() })
	ct, _ := tlsConfigs(t)
	ct.ClientSessionCache = newTickets()
	addr := pc.LocalAddr().String()
	if visit(t, addr, ct, early).State().Used0RTT {
		t.Error("the first connection has used early data")
	}

	ctx := testContext(t)
	c, err := Dial(ctx, addr, ct, early)
	if err != nil {
		t.Fatal(err)
	}
	defer c.CloseWithError(nil, "")
	if got, err := exchange(ctx, c, []byte("early")); err != nil || string(got) != "early" {
		t.Fatalf("%q and %v", got, err)
	}
	<-c.HandshakeComplete().Done()
	if !c.State().Used0RTT {
		t.Error("no early data was used")
	}
}

// A server that refuses early data: what used it fails and says why, what waits goes on,
// and the connection can be used.
func TestDial_EarlyDataRejected(t *testing.T) {
	for name, waits := range map[string]bool{"open": false, "accept": true} {
		t.Run(name, func(t *testing.T) { earlyDataRejected(t, waits) })
	}
}

func earlyDataRejected(t *testing.T, waits bool) {
	_, st := tlsConfigs(t)
	early := &Config{EarlyData: true}
	addr, _ := serve(t, &Transporter{Config: early}, echoStreams)
	ct, _ := tlsConfigs(t)
	ct.ClientSessionCache = newTickets()
	visit(t, addr, ct, early)

	// Another server, which knows nothing of the tickets and does not answer yet.
	gate := make(chan struct{})
	pc := &gatedConn{mustListen(t), gate}
	l, err := NewListener(pc, st, nil)
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	ctx := testContext(t)
	c, err := Dial(ctx, pc.LocalAddr().String(), ct, early)
	if err != nil {
		t.Fatal(err)
	}
	defer c.CloseWithError(nil, "")
	if c.HandshakeComplete().Err() != nil {
		t.Fatal("the handshake is over before it began")
	}
	s, err := c.OpenStream()
	if err != nil {
		t.Fatal(err)
	}
	if _, err := s.Write([]byte("early")); err != nil {
		t.Fatal(err)
	}
	waiting := make(chan error, 1)
	if waits {
		go func() {
			s, err := c.AcceptStream(ctx)
			if err == nil {
				_, err = io.ReadFull(s, make([]byte, 1))
			}
			waiting <- err
		}()
	}
	close(gate)
	if _, err := s.Read(make([]byte, 1)); !errors.Is(err, ErrEarlyDataRejected) {
		t.Errorf("Read of an early stream: %v, want ErrEarlyDataRejected", err)
	}
	server, err := l.Accept(ctx)
	if err != nil {
		t.Fatal(err)
	}
	defer server.CloseWithError(nil, "")
	x, y := streams(t, c, server) // on the same connection
	if x.StreamID() != 0 || y.StreamID() != 0 {
		t.Errorf("streams %d and %d", x.StreamID(), y.StreamID())
	}
	if waits {
		o, err := server.OpenStream()
		if err != nil {
			t.Fatal(err)
		}
		o.Write([]byte{1})
		if err := <-waiting; err != nil {
			t.Errorf("AcceptStream that waited when the early data was refused: %v", err)
		}
	}
	if err := context.Cause(c.HandshakeComplete()); err != context.Canceled {
		t.Errorf("the handshake ended with %v", err)
	}
}

func TestDial_Errors(t *testing.T) {
	ct, st := tlsConfigs(t)
	l := listen(t, st, nil)
	addr := l.Addr().String()
	ctx := testContext(t)
	for name, dial := range map[string]func() (*Conn, error){
		"nil":                func() (*Conn, error) { return Dial(ctx, addr, nil, nil) },
		"NextProtos":         func() (*Conn, error) { return Dial(ctx, addr, new(tls.Config), nil) },
		"ClientSessionCache": func() (*Conn, error) { return Dial(ctx, addr, ct, &Config{EarlyData: true}) },
		"missing port":       func() (*Conn, error) { return Dial(ctx, "127.0.0.1", ct, nil) },
		"QlogDir":            func() (*Conn, error) { return Dial(ctx, addr, ct, &Config{QlogDir: "/dev/null/x"}) },
		"no application protocol": func() (*Conn, error) {
			other := ct.Clone()
			other.NextProtos = []string{"x"}
			return Dial(ctx, addr, other, nil)
		},
	} {
		c, err := dial()
		if c != nil || err == nil || !strings.Contains(err.Error(), name) {
			t.Errorf("%s: %v and %v", name, c, err)
			continue
		}
		if _, ok := err.(net.Error); !ok {
			t.Errorf("%s: %T is no net.Error", name, err)
		}
	}
	_, err := Dial(ctx, addr, &tls.Config{NextProtos: []string{proto}, RootCAs: x509.NewCertPool()}, nil)
	var unknown x509.UnknownAuthorityError
	if !errors.As(err, &unknown) {
		t.Errorf("a certificate that nobody trusts: %v", err)
	}

	silent := mustListen(t)
	defer silent.Close()
	short, cancel := context.WithTimeout(ctx, 50*time.Millisecond)
	defer cancel()
	_, err = Dial(short, silent.LocalAddr().String(), ct, nil)
	if ne, ok := err.(net.Error); !ok || !ne.Timeout() || isTemporary(err) || !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("nobody answers until the deadline: %v", err)
	}
	longer, cancel := context.WithTimeout(ctx, 4*time.Second) // quic-go's own limit is 5
	defer cancel()
	_, err = Dial(longer, silent.LocalAddr().String(), ct, &Config{HandshakeTimeout: 100 * time.Millisecond})
	if ne, ok := err.(net.Error); !ok || !ne.Timeout() || longer.Err() != nil {
		t.Errorf("nobody answers until HandshakeTimeout: %v", err)
	}
	if _, err := Listen("tcp", "127.0.0.1:0", st, nil); err == nil {
		t.Error("Listen on tcp returned no error")
	}
	if _, err := Listen("udp", "127.0.0.1:0", nil, nil); err == nil {
		t.Error("Listen without a tls.Config returned no error")
	}
}

// Addresses of both kinds, and a name, which may have more addresses than one that answers.
func TestDial_Addresses(t *testing.T) {
	ct, st := tlsConfigs(t)
	for _, addr := range []string{"127.0.0.1", "[::1]", "localhost"} {
		t.Run(addr, func(t *testing.T) {
			listenOn := addr
			if addr == "localhost" {
				listenOn = "127.0.0.1"
			}
			l, err := Listen("udp", listenOn+":0", st, nil)
			if err != nil {
				t.Skip(err)
			}
			defer l.Close()
			_, port, _ := net.SplitHostPort(l.Addr().String())
			c, err := Dial(testContext(t), addr+":"+port, ct, &Config{HandshakeTimeout: 2 * time.Second})
			if err != nil {
				t.Fatal(err)
			}
			defer c.CloseWithError(nil, "")
			server, err := l.Accept(testContext(t))
			if err != nil {
				t.Fatal(err)
			}
			if got := server.State().TLS.ServerName; got != "localhost" && addr == "localhost" {
				t.Errorf("the server was asked for %q", got)
			}
		})
	}
}

// Close of a Listener lets its connections live, and the last of them closes the socket.
func TestListener_Close(t *testing.T) {
	ct, st := tlsConfigs(t)
	l := listen(t, st, nil)
	client, server := connect(t, l, ct, nil)
	l.Close()
	l.Close()
	if _, err := l.Accept(testContext(t)); !errors.Is(err, net.ErrClosed) {
		t.Errorf("Accept after Close: %v", err)
	}
	x, y := streams(t, client, server)
	go func() {
		io.Copy(y, y)
		y.Close()
	}()
	x.Write([]byte("still there"))
	x.Close()
	if got, err := io.ReadAll(x); err != nil || string(got) != "still there" {
		t.Errorf("after the listener's Close: %q and %v", got, err)
	}
	server.CloseWithError(nil, "")
	select {
	case <-l.endpoint.done:
	case <-testContext(t).Done():
		t.Error("the socket is still open after the last connection")
	}
}

var _ network.ApplicationError = appCode(0)
