package tlsconn

import (
	"bufio"
	"bytes"
	"context"
	"crypto/tls"
	"errors"
	"io"
	"net"
	"net/http"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/hertznet/hertznet/network"
)

var (
	_ net.Conn          = (*Conn)(nil)
	_ network.ConnTLSer = (*Conn)(nil)
)

func TestL1_HandshakeIsIdempotentAndConcurrent(t *testing.T) {
	for _, nw := range networks {
		t.Run(nw.name, func(t *testing.T) {
			cn, sn := nw.pair(t)
			sc, cc := devConfigs(t)
			c, s := Client(cn, cc), Server(sn, sc)
			c.SetHandshakeTimeout(10 * time.Second)
			s.SetHandshakeTimeout(10 * time.Second)
			var wg sync.WaitGroup
			for range 8 {
				for _, x := range []*Conn{c, s} {
					wg.Add(1)
					go func() {
						defer wg.Done()
						for range 3 {
							if err := x.Handshake(); err != nil {
								t.Error(err)
							}
						}
					}()
				}
			}
			wg.Wait()
			for _, x := range []*Conn{c, s} {
				if !x.ConnectionState().HandshakeComplete {
					t.Error("handshake is not complete")
				}
				if !x.layer.limit().IsZero() {
					t.Error("the handshake's deadline is still in force")
				}
			}
		})
	}
}

func TestL1_HandshakeIsCheapWhenDone(t *testing.T) {
	cn, sn := tcpPair(t)
	c, _ := connect(t, cn, sn, nil)
	ctx, cancel := context.WithCancel(t.Context())
	cancel() // too late to matter
	if n := testing.AllocsPerRun(100, func() {
		if c.Handshake() != nil || c.HandshakeContext(ctx) != nil {
			t.Error("Handshake failed")
		}
	}); n != 0 {
		t.Errorf("%v allocations", n)
	}
}

func TestL1_HandshakeFailureIsKept(t *testing.T) {
	cn, sn := tcpPair(t)
	sc, _ := devConfigs(t)
	s := Server(sn, sc)
	cn.Close()
	for range 3 {
		if err := s.Handshake(); err != io.EOF {
			t.Errorf("got %v, want a bare io.EOF", err)
		}
	}
	if err := s.Close(); err != nil {
		t.Error(err)
	}
}

func TestL2_ALPNAndConnectionState(t *testing.T) {
	cn, sn := tcpPair(t)
	sc, cc := devConfigs(t)
	sc.NextProtos = []string{"h2", "http/1.1"}
	cc.NextProtos = []string{"http/1.1"}
	c, s := Client(cn, cc), Server(sn, sc)
	if s.ConnectionState().HandshakeComplete {
		t.Error("complete before the handshake")
	}
	shake(t, c, s)
	for _, x := range []*Conn{c, s} {
		st := x.ConnectionState()
		if !st.HandshakeComplete || st.NegotiatedProtocol != "http/1.1" || st.Version != tls.VersionTLS13 {
			t.Errorf("%+v", st)
		}
	}
	if got := s.ConnectionState().ServerName; got != "localhost" {
		t.Errorf("server name %q", got)
	}
	if s.NetConn() != net.Conn(sn) || c.NetConn() != net.Conn(cn) {
		t.Error("NetConn is not the conn that was given")
	}
	if s.LocalAddr() != sn.LocalAddr() || s.RemoteAddr() != sn.RemoteAddr() {
		t.Error("other addresses than the conn's")
	}
}

func TestL4_PlaintextClientIsRecordHeaderError(t *testing.T) {
	cn, sn := tcpPair(t)
	sc, _ := devConfigs(t)
	s := Server(sn, sc)
	s.SetHandshakeTimeout(5 * time.Second)
	io.WriteString(cn, "GET / HTTP/1.1\r\nHost: localhost\r\n\r\n")
	for range 2 {
		re, ok := s.Handshake().(tls.RecordHeaderError)
		if !ok || re.Conn == nil || string(re.RecordHeader[:]) != "GET /" {
			t.Fatalf("got %#v", re)
		}
	}
	re := s.Handshake().(tls.RecordHeaderError)
	if nc, ok := re.Conn.(interface{ NetConn() net.Conn }); !ok || nc.NetConn() != net.Conn(sn) {
		t.Error("RecordHeaderError.Conn hides the conn beneath")
	}
	// As net/http answers: in small pieces too, nothing may wait in a buffer.
	for _, part := range []string{"HTT", "P/1.0 400 Bad Request\r\n", "\r\n", "https, please\n"} {
		if n, err := io.WriteString(re.Conn, part); n != len(part) || err != nil {
			t.Fatal(n, err)
		}
	}
	if err := re.Conn.Close(); err != nil {
		t.Fatal(err)
	}
	resp, err := http.ReadResponse(bufio.NewReader(cn), nil)
	if err != nil || resp.StatusCode != 400 {
		t.Fatal(resp, err)
	}
	if err := s.Close(); err != nil {
		t.Errorf("Close after RecordHeaderError.Conn.Close: %v", err)
	}
	if _, err := s.Read(make([]byte, 1)); !errors.Is(err, net.ErrClosed) {
		t.Error(err)
	}
}

func TestL4_FirstReadReturnsTheRecordHeaderErrorBare(t *testing.T) {
	cn, sn := tcpPair(t)
	sc, _ := devConfigs(t)
	io.WriteString(cn, "GET / HTTP/1.1\r\n\r\n")
	_, err := Server(sn, sc).Read(make([]byte, 10))
	if re, ok := err.(tls.RecordHeaderError); !ok || re.Conn == nil {
		t.Errorf("got %T %v", err, err)
	}
}

func TestL4_SilentClientThatClosesIsBareEOF(t *testing.T) {
	for _, nw := range networks {
		t.Run(nw.name, func(t *testing.T) {
			cn, sn := nw.pair(t)
			sc, _ := devConfigs(t)
			s := Server(sn, sc)
			s.SetHandshakeTimeout(5 * time.Second)
			cn.Close()
			if err := s.Handshake(); err != io.EOF {
				t.Errorf("got %T %v, want io.EOF by ==", err, err)
			}
		})
	}
}

func TestD7_BadCertificateIsBare(t *testing.T) {
	cn, sn := tcpPair(t)
	sc, _ := devConfigs(t)
	_, cc := devConfigs(t) // trusts another certificate
	c, s := Client(cn, cc), Server(sn, sc)
	done := make(chan error, 1)
	go func() { done <- s.Handshake() }()
	err := c.Handshake()
	if _, ok := err.(*tls.CertificateVerificationError); !ok {
		t.Errorf("client: got %T %v", err, err)
	}
	var alert tls.AlertError
	if err := <-done; err == nil || !strings.Contains(err.Error(), "bad certificate") && !errors.As(err, &alert) {
		t.Errorf("server: got %T %v", err, err)
	}
	if c.Close() != nil || s.Close() != nil {
		t.Error("Close failed")
	}
}

func TestD11_MissingServerNameIsNamed(t *testing.T) {
	for _, cfg := range []*tls.Config{nil, {}} {
		cn, _ := net.Pipe()
		err := Client(cn, cfg).Handshake()
		if err == nil || !strings.Contains(err.Error(), "ServerName") {
			t.Errorf("got %v", err)
		}
	}
}

func TestL2_ConnectionStateDoesNotWaitForTheHandshake(t *testing.T) {
	_, sn := tcpPair(t)
	sc, _ := devConfigs(t)
	s := Server(sn, sc)
	ended := make(chan error, 1)
	go func() { ended <- s.Handshake() }()
	time.Sleep(20 * time.Millisecond)
	within(t, 3*time.Second, "ConnectionState", func() {
		if s.ConnectionState().HandshakeComplete {
			t.Error("complete without a peer")
		}
	})
	s.Close()
	<-ended
	if s.ConnectionState().HandshakeComplete {
		t.Error("complete after a failure")
	}
}

// TLS inside TLS, as through an HTTPS proxy.
func TestD9_TLSInTLS(t *testing.T) {
	cn, sn := tcpPair(t)
	sc, cc := devConfigs(t)
	outerC, outerS := connectWith(t, cn, sn, sc, cc)
	c, s := Client(outerC, cc), Server(outerS, sc)
	c.SetHandshakeTimeout(10 * time.Second)
	s.SetHandshakeTimeout(10 * time.Second)
	shake(t, c, s)
	c.SetReadDeadline(time.Now().Add(10 * time.Millisecond))
	_, err := c.Read(make([]byte, 1))
	wantTimeout(t, err)
	c.SetReadDeadline(time.Time{})
	want := pattern(200000)
	go func() {
		s.Write(want)
		s.Close()
	}()
	if got, err := io.ReadAll(c); err != nil || !bytes.Equal(got, want) {
		t.Errorf("%d bytes, %v", len(got), err)
	}
	if _, err := outerC.Read(make([]byte, 1)); err != io.EOF {
		t.Errorf("the outer stream ended with %v", err)
	}
	if err := c.Close(); err != nil {
		t.Error(err)
	}
}

func TestHandshakeContextEndsWithTheContext(t *testing.T) {
	for _, nw := range networks {
		for _, side := range []string{"client", "server"} {
			t.Run(nw.name+"/"+side, func(t *testing.T) {
				cn, sn := nw.pair(t)
				sc, cc := devConfigs(t)
				c := Server(sn, sc)
				if side == "client" {
					c = Client(cn, cc)
				}
				ctx, cancel := context.WithTimeout(t.Context(), 20*time.Millisecond)
				defer cancel()
				if err := c.HandshakeContext(ctx); err != context.DeadlineExceeded {
					t.Errorf("got %v", err)
				}
				if err := c.Handshake(); !errors.Is(err, net.ErrClosed) {
					t.Errorf("afterwards: %v", err)
				}
				if err := c.Close(); err != nil {
					t.Errorf("Close: %v", err)
				}
			})
		}
	}
}

func TestC2_CloseDuringTheHandshake(t *testing.T) {
	for _, nw := range networks {
		for _, how := range []string{"Handshake", "Read", "Write"} {
			t.Run(nw.name+"/"+how, func(t *testing.T) {
				_, sn := nw.pair(t)
				sc, _ := devConfigs(t)
				s := Server(sn, sc)
				s.SetHandshakeTimeout(time.Minute)
				done := make(chan error, 1)
				go func() {
					var err error
					switch how {
					case "Handshake":
						err = s.Handshake()
					case "Read":
						_, err = s.Read(make([]byte, 1))
					case "Write":
						_, err = s.Write([]byte("x"))
					}
					done <- err
				}()
				time.Sleep(10 * time.Millisecond)
				within(t, 3*time.Second, "Close", func() {
					if err := s.Close(); err != nil {
						t.Error(err)
					}
					if err := <-done; !errors.Is(err, net.ErrClosed) {
						t.Errorf("got %v", err)
					}
				})
			})
		}
	}
}
