package tlsconn

import (
	"bufio"
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/hertznet/hertznet/network"
)

var (
	_ net.Conn          = (*Conn)(nil)
	_ network.ConnTLSer = (*Conn)(nil)
)

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

// A client that says nothing and closes is a bare io.EOF, for Hertz compares with ==, and
// as final as any failure.
func TestL1_L4_SilentClientIsEOFForGood(t *testing.T) {
	for _, nw := range networks {
		t.Run(nw.name, func(t *testing.T) {
			cn, sn := nw.pair(t)
			sc, _ := devConfigs(t)
			s := Server(sn, sc)
			cn.Close()
			for range 3 {
				if err := s.Handshake(); err != io.EOF {
					t.Errorf("got %T %v, want io.EOF by ==", err, err)
				}
			}
			if err := s.Close(); err != nil {
				t.Error(err)
			}
		})
	}
}

func TestNetConnAndAddresses(t *testing.T) {
	_, sn := tcpPair(t)
	s := Server(sn, nil)
	if s.NetConn() != net.Conn(sn) {
		t.Error("NetConn is not the conn that was given")
	}
	if s.LocalAddr() != sn.LocalAddr() || s.RemoteAddr() != sn.RemoteAddr() {
		t.Error("other addresses than the conn's")
	}
}

// The kit sees a bare tls.RecordHeaderError. Its Conn can be written to and closed, and
// hides nothing.
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

// What a tls.RecordHeaderError has is a net.Conn: two goroutines may read from it.
func TestL4_C11_ConnOfARecordHeaderErrorHasManyReaders(t *testing.T) {
	client, server := tcpPair(t)
	sc, _ := devConfigs(t)
	s := Server(server, sc)
	if _, err := client.Write([]byte("hello")); err != nil {
		t.Fatal(err)
	}
	var re tls.RecordHeaderError
	if err := s.Handshake(); !errors.As(err, &re) || re.Conn == nil {
		t.Fatalf("Handshake: %v", err)
	}
	const readers = 2
	got := make(chan string, readers)
	for range readers {
		go func() {
			p := make([]byte, 1)
			n, err := re.Conn.Read(p)
			got <- fmt.Sprintf("%d byte %q, %v", n, p, err)
		}()
		time.Sleep(20 * time.Millisecond) // it blocks, or is behind one that does
	}
	for range readers {
		if _, err := client.Write([]byte("x")); err != nil {
			t.Fatal(err)
		}
		ends(t, "a Read", func() {
			if s := <-got; s != `1 byte "x", <nil>` {
				t.Errorf("read %s", s)
			}
		})
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

func TestD11_MissingServerNameIsNamed(t *testing.T) {
	for _, cfg := range []*tls.Config{nil, {}} {
		cn, _ := net.Pipe()
		err := Client(cn, cfg).Handshake()
		if err == nil || !strings.Contains(err.Error(), "ServerName") {
			t.Errorf("got %v", err)
		}
	}
}

// The kit puts TLS inside of TLS [D9]. A read timeout is recoverable there too, through both
// layers [L6].
func TestD9_ReadTimeoutInsideOfTLS(t *testing.T) {
	cn, sn := tcpPair(t)
	sc, cc := devConfigs(t)
	outerC, outerS := connectWith(t, cn, sn, sc, cc)
	c, s := connectWith(t, outerC, outerS, sc, cc)
	c.SetReadDeadline(time.Now().Add(10 * time.Millisecond))
	_, err := c.Read(make([]byte, 1))
	wantTimeout(t, err)
	c.SetReadDeadline(time.Time{})
	go s.Write([]byte("late"))
	if b, err := readAll(c, 4); string(b) != "late" || err != nil {
		t.Errorf("got %q, %v", b, err)
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
				ends(t, "Close", func() {
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
