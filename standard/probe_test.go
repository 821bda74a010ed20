package standard

import (
	"crypto/tls"
	"net"
	"runtime"
	"testing"
	"time"

	"github.com/hertznet/hertznet/tlsconn"
)

// probesTo waits until Probe finds what the peer did.
func probesTo(t *testing.T, c *Conn, readable, ended bool) {
	t.Helper()
	var r, e bool
	for end := time.Now().Add(10 * time.Second); time.Now().Before(end); time.Sleep(time.Millisecond) {
		if r, e = c.Probe(); r == readable && e == ended {
			return
		}
	}
	t.Fatalf("readable %v, ended %v, want %v, %v", r, e, readable, ended)
}

func needProbe(t testing.TB) {
	t.Helper()
	if runtime.GOOS == "windows" {
		t.Skip("Probe knows nothing here")
	}
}

func TestProbe(t *testing.T) {
	needProbe(t)
	// Others than Linux do not see an end behind bytes.
	behind := runtime.GOOS == "linux"
	for _, s := range sockets[:2] {
		t.Run(s.name, func(t *testing.T) {
			a, b := s.pair(t)
			c := NewConn(a)
			probesTo(t, c, false, false)
			if _, err := b.Write([]byte("ab")); err != nil {
				t.Fatal(err)
			}
			probesTo(t, c, true, false)
			if p, err := c.Peek(2); string(p) != "ab" {
				t.Fatalf("Probe took bytes: %q, %v", p, err)
			}
			probesTo(t, c, false, false) // they are in the buffer, which is not looked at
			if _, err := b.Write([]byte("c")); err != nil {
				t.Fatal(err)
			}
			b.Close()
			probesTo(t, c, true, behind)
			if p, err := c.Peek(3); string(p) != "abc" {
				t.Fatalf("%q, %v", p, err)
			}
			probesTo(t, c, true, true)
			c.Close()
			probesTo(t, c, false, false)
		})
	}
	t.Run("reset", func(t *testing.T) {
		a, b := tcpPair(t)
		c := NewConn(a)
		_ = b.(*net.TCPConn).SetLinger(0)
		b.Close()
		probesTo(t, c, true, true)
	})
	t.Run("half closed", func(t *testing.T) {
		a, b := tcpPair(t)
		c := NewConn(a)
		_ = b.(*net.TCPConn).CloseWrite()
		probesTo(t, c, true, true)
	})
	t.Run("no socket", func(t *testing.T) {
		a, b := pipePair(t)
		b.Close()
		if r, e := NewConn(a).Probe(); r || e {
			t.Errorf("a pipe: readable %v, ended %v", r, e)
		}
	})
}

// A session ticket, which TLS 1.3 sends behind the handshake, is there to be read and
// no end. A close is one, although a close_notify lies in front of it.
func TestProbeTLS(t *testing.T) {
	needProbe(t)
	cert, pool, err := tlsconn.SelfSigned("localhost")
	if err != nil {
		t.Fatal(err)
	}
	a, b := tcpPair(t)
	// A server that asks for the client's certificate sends the ticket only afterwards,
	// so it is not read with the handshake.
	server := tls.Server(b, &tls.Config{
		Certificates: []tls.Certificate{cert}, MinVersion: tls.VersionTLS13, ClientAuth: tls.RequestClientCert,
	})
	shaken := make(chan error, 1)
	go func() { shaken <- server.Handshake() }()
	c := NewTLSConn(tlsconn.Client(a, &tls.Config{
		RootCAs: pool, ServerName: "localhost", ClientSessionCache: tls.NewLRUClientSessionCache(1),
	}))
	if err := c.Handshake(); err != nil {
		t.Fatal(err)
	}
	if err := <-shaken; err != nil {
		t.Fatal(err)
	}
	probesTo(t, &c.Conn, true, false)
	server.Close()
	probesTo(t, &c.Conn, true, runtime.GOOS == "linux")
}

// What a look costs.
func BenchmarkProbe(b *testing.B) {
	a, peer := tcpPair(b)
	over := map[string]*Conn{"tcp": NewConn(a), "tls": &NewTLSConn(tlsconn.Client(a, nil)).Conn}
	defer peer.Close()
	for name, c := range over {
		b.Run(name, func(b *testing.B) {
			b.ReportAllocs()
			for b.Loop() {
				c.Probe()
			}
		})
	}
}
