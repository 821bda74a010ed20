package standard

import (
	"bytes"
	"context"
	"crypto/aes"
	"crypto/cipher"
	"crypto/hkdf"
	"crypto/sha256"
	"crypto/tls"
	"crypto/x509"
	"encoding/binary"
	"encoding/hex"
	"encoding/pem"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/hertznet/hertznet/network"
	"github.com/hertznet/hertznet/tlsconn"
)

// trustConfigs returns configs of a server and of a client that trusts it. A bubble
// of synctest needs configs of its own: certificates follow its clock.
func trustConfigs(t testing.TB) (server, client *tls.Config) {
	t.Helper()
	cert, pool, err := tlsconn.SelfSigned()
	if err != nil {
		t.Fatal(err)
	}
	return &tls.Config{Certificates: []tls.Certificate{cert}}, &tls.Config{RootCAs: pool}
}

// secure puts TLS on the two ends, without a handshake. There are no session
// tickets, for which a net.Pipe would need a reader.
func secure(t testing.TB, a, b net.Conn) (client, server *TLSConn) {
	t.Helper()
	sc, cc := trustConfigs(t)
	sc.SessionTicketsDisabled = true
	return NewTLSConn(tlsconn.Client(a, tlsconn.ClientConfig(cc, "localhost:1"))),
		NewTLSConn(tlsconn.Server(b, tlsconn.ServerConfig(sc)))
}

// shakeHands performs the handshake on both sides.
func shakeHands(t testing.TB, client, server network.ConnTLSer) {
	t.Helper()
	done := make(chan error, 1)
	go func() { done <- server.Handshake() }()
	if err := client.Handshake(); err != nil {
		t.Fatalf("client's handshake: %v", err)
	}
	if err := <-done; err != nil {
		t.Fatalf("server's handshake: %v", err)
	}
}

// eachTLSPair runs f with two ends over each kind of connection, after the handshake.
func eachTLSPair(t *testing.T, f func(t *testing.T, client, server *TLSConn)) {
	for _, s := range sockets {
		t.Run(s.name, func(t *testing.T) {
			a, b := s.pair(t)
			client, server := secure(t, a, b)
			shakeHands(t, client, server)
			t.Cleanup(func() { client.Close(); server.Close() })
			f(t, client, server)
		})
	}
}

// "Any goroutine may call Handshake, any number of times; the outcome is kept", also
// while another one peeks, which shakes hands by itself.
func TestL1_HandshakeFromManyGoroutinesWhileAnotherPeeks(t *testing.T) {
	for _, s := range sockets {
		t.Run(s.name, func(t *testing.T) {
			a, b := s.pair(t)
			client, server := secure(t, a, b)
			var wg sync.WaitGroup
			for _, c := range []*TLSConn{client, server} {
				// The limits make each call touch the deadlines, which are shared.
				if err := c.SetReadTimeout(time.Minute); err != nil {
					t.Fatal(err)
				}
				if err := c.SetWriteTimeout(time.Minute); err != nil {
					t.Fatal(err)
				}
				wg.Go(func() {
					if b, err := c.Peek(5); string(b) != "hello" || err != nil {
						t.Errorf("Peek: %q, %v", b, err)
					}
				})
				for range 16 {
					wg.Go(func() {
						if err := c.Handshake(); err != nil {
							t.Errorf("Handshake: %v", err)
						}
						if !c.ConnectionState().HandshakeComplete {
							t.Error("Handshake returned nil and the handshake is not complete")
						}
					})
				}
				wg.Go(func() {
					if _, err := c.Write([]byte("hello")); err != nil {
						t.Errorf("Write: %v", err)
					}
				})
			}
			wg.Wait()
		})
	}
}

// "Cheap when done": no allocation and no call to the connection beneath.
func TestL1_HandshakeIsFreeWhenComplete(t *testing.T) {
	a, b := tcpPair(t)
	client, server := secure(t, a, b)
	shakeHands(t, client, server)
	a.Close()
	if n := testing.AllocsPerRun(100, func() {
		if err := client.Handshake(); err != nil {
			t.Fatal(err)
		}
	}); n != 0 {
		t.Errorf("%v allocations", n)
	}
}

// "The outcome is kept": a failure is as final as a success.
func TestL1_FailedHandshakeStays(t *testing.T) {
	a, b := tcpPair(t)
	_, server := secure(t, a, b)
	if _, err := a.Write([]byte("GET / HTTP/1.1\r\n\r\n")); err != nil {
		t.Fatal(err)
	}
	first := server.Handshake()
	if first == nil {
		t.Fatal("a handshake with plain text succeeded")
	}
	if second := server.Handshake(); second == nil || second.Error() != first.Error() {
		t.Errorf("second Handshake: %v, the first was %v", second, first)
	}
	if _, err := server.Peek(1); err == nil {
		t.Error("Peek succeeded after a failed handshake")
	}
	if _, err := server.Write([]byte("x")); err == nil {
		t.Error("Write succeeded after a failed handshake")
	}
}

// "Each operation has t for itself" (T4): a Handshake that ends beside a blocked read
// or write does not take its limit away, nor the new ones that it may get (T15).
func TestT4_HandshakeLeavesTheLimitsOfOthersAlone(t *testing.T) {
	for _, first := range []string{"Handshake", "the operation"} {
		for _, op := range []string{"Read", "Write"} {
			t.Run(op+"/"+first+" first", func(t *testing.T) {
				a, b := tcpPair(t)
				client, server := secure(t, a, b)
				shaken := make(chan error, 2)
				done := make(chan error, 1)
				handshake := func() {
					go func() { shaken <- client.Handshake() }()
				}
				operate := func() {
					go func() {
						var err error
						if op == "Read" {
							_, err = client.Read(make([]byte, 1))
						} else {
							_, err = client.Write(make([]byte, 32<<20))
						}
						done <- err
					}()
					mu := &client.readMu
					if op == "Write" {
						mu = &client.writeMu
					}
					settles(t, "operations", 1, func() int {
						if mu.TryLock() {
							mu.Unlock()
							return 0
						}
						return 1
					})
				}
				if first == "Handshake" {
					handshake()
					operate()
				} else {
					operate()
					handshake()
				}
				go func() { shaken <- server.Handshake() }()
				for range 2 {
					if err := <-shaken; err != nil {
						t.Fatal(err)
					}
				}
				set := client.SetReadTimeout
				if op == "Write" {
					set = client.SetWriteTimeout
				}
				if err := set(20 * time.Millisecond); err != nil {
					t.Fatal(err)
				}
				select {
				case err := <-done:
					isTimeoutShape(t, err)
				case <-time.After(10 * time.Second):
					t.Error("the operation does not know its limit")
					client.Close()
				}
			})
		}
	}
}

// A handshake sets no timer over that of an operation beside it, and lifts its own only:
// one that stayed would cut off what TLS writes by itself later.
func TestT4_HandshakeLiftsItsOwnTimerOnly(t *testing.T) {
	newDeadline := func() *deadline {
		d := &deadline{conn: new(scriptConn), write: true}
		d.exact.Store(true)
		if err := d.setTimeout(time.Hour); err != nil {
			t.Fatal(err)
		}
		return d
	}
	d := newDeadline()
	if err := d.beginShake(); err != nil || d.armed.Load() == 0 {
		t.Errorf("the handshake has no timer: %v", err)
	}
	d.endShake()
	if d.armed.Load() != 0 {
		t.Error("the handshake's timer has stayed")
	}

	d = newDeadline()
	if err := d.begin(); err != nil {
		t.Fatal(err)
	}
	armed := d.armed.Load()
	if err := d.beginShake(); err != nil {
		t.Fatal(err)
	}
	d.endShake()
	if d.armed.Load() != armed {
		t.Error("the operation's timer has gone or was moved")
	}

	d = newDeadline()
	if err := d.beginShake(); err != nil {
		t.Fatal(err)
	}
	if err := d.begin(); err != nil { // while the handshake is running
		t.Fatal(err)
	}
	d.endShake()
	if d.armed.Load() == 0 {
		t.Error("the operation has lost its timer")
	}

	d = newDeadline()
	if err := d.setDeadline(time.Now().Add(time.Hour)); err != nil {
		t.Fatal(err)
	}
	if err := d.beginShake(); err != nil {
		t.Fatal(err)
	}
	d.endShake()
	if d.armed.Load() == 0 {
		t.Error("the user's deadline has gone")
	}
}

// "An operation that is blocked now gets the new limit too" (T15): Handshake is one.
func TestT15_NewTimeoutReachesABlockedHandshake(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		a, b := net.Pipe()
		defer a.Close()
		defer b.Close()
		_, server := secure(t, a, b)
		start := time.Now()
		done := make(chan error, 1)
		go func() { done <- server.Handshake() }()
		time.Sleep(time.Second)
		if err := server.SetReadTimeout(2 * time.Second); err != nil {
			t.Fatal(err)
		}
		isTimeoutShape(t, <-done)
		if got := time.Since(start); got != 3*time.Second {
			t.Errorf("ended after %v, want 3s", got)
		}
	})
}

// "ALPN and ConnectionState": what was negotiated, on both sides.
func TestL2_ALPNAndConnectionState(t *testing.T) {
	for _, test := range []struct {
		server, client []string
		want           string
	}{
		{[]string{"h2", "http/1.1"}, []string{"http/1.1", "h2"}, "h2"},
		{[]string{"http/1.1"}, []string{"h2", "http/1.1"}, "http/1.1"},
		{nil, []string{"h2"}, ""},
	} {
		t.Run("want "+test.want, func(t *testing.T) {
			a, b := tcpPair(t)
			sc, cc := trustConfigs(t)
			sc.NextProtos, cc.NextProtos = test.server, test.client
			client := NewTLSConn(tlsconn.Client(a, tlsconn.ClientConfig(cc, "localhost:1")))
			server := NewTLSConn(tlsconn.Server(b, tlsconn.ServerConfig(sc)))
			for _, c := range []*TLSConn{client, server} {
				if s := c.ConnectionState(); s.HandshakeComplete || s.NegotiatedProtocol != "" {
					t.Errorf("before the handshake: %+v", s)
				}
			}
			shakeHands(t, client, server)
			for _, c := range []*TLSConn{client, server} {
				s := c.ConnectionState()
				if !s.HandshakeComplete || s.NegotiatedProtocol != test.want || s.Version != tls.VersionTLS13 || s.ServerName != "localhost" {
					t.Errorf("complete %v, protocol %q, version %x, name %q", s.HandshakeComplete, s.NegotiatedProtocol, s.Version, s.ServerName)
				}
			}
			if certs := client.ConnectionState().PeerCertificates; len(certs) != 1 {
				t.Errorf("%d peer certificates", len(certs))
			}
		})
	}
}

// "ConnectionState does not block on the network", while a handshake does least of all.
func TestL2_ConnectionStateDoesNotWaitForAHandshake(t *testing.T) {
	a, b := tcpPair(t)
	client, _ := secure(t, a, b)
	ended := make(chan error, 1)
	go func() { ended <- client.Handshake() }()
	// The client's hello has come, so the handshake is running.
	if _, err := b.Read(make([]byte, 1)); err != nil {
		t.Fatal(err)
	}
	done := make(chan tls.ConnectionState, 1)
	go func() { done <- client.ConnectionState() }()
	select {
	case s := <-done:
		if s.HandshakeComplete {
			t.Error("complete without a peer")
		}
	case <-time.After(5 * time.Second):
		t.Error("it waits for the handshake")
	}
	client.Close()
	if err := <-ended; !errors.Is(err, net.ErrClosed) {
		t.Errorf("the handshake ended with %v", err)
	}
}

// "Handshake blocks until it ends or its time is over", on both sides and to the
// moment, whichever of the three limits is the shortest.
func TestL3_StalledHandshakeEnds(t *testing.T) {
	const short = 3 * time.Second
	for _, side := range []string{"client", "server"} {
		for _, limit := range []string{"handshake timeout", "read timeout", "write timeout", "deadline"} {
			t.Run(side+"/"+limit, func(t *testing.T) {
				synctest.Test(t, func(t *testing.T) {
					a, b := net.Pipe()
					defer a.Close()
					defer b.Close()
					client, server := secure(t, a, b)
					c, peer := client, b
					if side == "server" {
						c, peer = server, a
					}
					// The client's hello is taken; then comes nothing.
					go func() { _, _ = io.Copy(io.Discard, peer) }()
					nc := c.NetConn().(*tlsconn.Conn)
					nc.SetHandshakeTimeout(time.Hour)
					var err error
					switch limit {
					case "handshake timeout":
						nc.SetHandshakeTimeout(short)
					case "read timeout":
						err = c.SetReadTimeout(short)
					case "deadline":
						err = c.SetDeadline(time.Now().Add(short))
					case "write timeout":
						// It limits writes alone: a peer that is silent is none of its business.
						nc.SetHandshakeTimeout(short)
						err = c.SetWriteTimeout(time.Second)
					}
					if err != nil {
						t.Fatal(err)
					}
					start := time.Now()
					isTimeoutShape(t, c.Handshake())
					if got := time.Since(start); got != short {
						t.Errorf("ended after %v, want %v", got, short)
					}
				})
			})
		}
	}
}

// "A client that speaks plain text is a bare tls.RecordHeaderError value with Conn
// set"; Hertz asserts the type and writes an answer to it.
func TestL4_PlaintextClientIsABareRecordHeaderError(t *testing.T) {
	a, b := tcpPair(t)
	_, server := secure(t, a, b)
	if _, err := a.Write([]byte("GET / HTTP/1.1\r\n\r\n")); err != nil {
		t.Fatal(err)
	}
	err := server.Handshake()
	re, ok := err.(tls.RecordHeaderError)
	if !ok || re.Conn == nil || string(re.RecordHeader[:]) != "GET /" {
		t.Fatalf("got %T %v", err, err)
	}
	if _, err := io.WriteString(re.Conn, "plain"); err != nil {
		t.Fatal(err)
	}
	server.Close()
	if got := make([]byte, 5); true {
		if _, err := io.ReadFull(a, got); err != nil || string(got) != "plain" {
			t.Errorf("the client read %q, %v", got, err)
		}
	}
}

// A peer that connects and leaves is a bare io.EOF: Hertz compares with == to stay
// silent about it.
func TestL4_PeerThatLeavesIsABareEOF(t *testing.T) {
	a, b := tcpPair(t)
	_, server := secure(t, a, b)
	a.Close()
	if err := server.Handshake(); err != io.EOF {
		t.Errorf("got %T %v, want io.EOF", err, err)
	}
}

// "close_notify is EOF, truncation io.ErrUnexpectedEOF", both bare and both sticky, and
// the bytes before it can be had.
func TestL5_EndOfTheStream(t *testing.T) {
	for _, test := range []struct {
		name string
		end  func(server *TLSConn) error
		want error
	}{
		{"close_notify", (*TLSConn).Close, io.EOF},
		{"truncation", func(s *TLSConn) error { return s.NetConn().(*tlsconn.Conn).NetConn().Close() }, io.ErrUnexpectedEOF},
	} {
		t.Run(test.name, func(t *testing.T) {
			for _, s := range sockets[:2] {
				t.Run(s.name, func(t *testing.T) {
					a, b := s.pair(t)
					client, server := secure(t, a, b)
					shakeHands(t, client, server)
					if _, err := server.Write([]byte("abc")); err != nil {
						t.Fatal(err)
					}
					if err := test.end(server); err != nil {
						t.Fatal(err)
					}
					got, err := client.Peek(10)
					if err != test.want {
						t.Fatalf("Peek: %T %v, want %v by ==", err, err, test.want)
					}
					if short := string(got); test.want == io.EOF && short != "abc" || test.want != io.EOF && got != nil {
						t.Errorf("Peek returned %q with %v", short, err)
					}
					if b, err := client.Peek(3); string(b) != "abc" || err != nil {
						t.Errorf("Peek(Len): %q, %v", b, err)
					}
					if err := client.Skip(3); err != nil {
						t.Error(err)
					}
					for range 3 {
						if _, err := client.Peek(1); err != test.want {
							t.Errorf("again: %v", err)
						}
						if _, err := client.ReadByte(); err != test.want {
							t.Errorf("ReadByte: %v", err)
						}
						if _, err := client.Read(make([]byte, 1)); err != test.want {
							t.Errorf("Read: %v", err)
						}
						if _, err := client.Read(make([]byte, 64<<10)); err != test.want {
							t.Errorf("Read of a large slice: %v", err)
						}
					}
				})
			}
		})
	}
}

// "A write that timed out has left a TLS connection useless: every later write fails",
// with a timeout, and reading goes on.
func TestL6_WriteTimeoutIsPermanent(t *testing.T) {
	for _, how := range []string{"Flush", "Write", "ReadFrom"} {
		t.Run(how, func(t *testing.T) {
			a, b := tcpPair(t)
			client, server := secure(t, a, b)
			shakeHands(t, client, server)
			const timeout = 100 * time.Millisecond
			if err := server.SetWriteTimeout(timeout); err != nil {
				t.Fatal(err)
			}
			big := make([]byte, 32<<20) // more than any socket buffer
			start := time.Now()
			var err error
			switch how {
			case "Flush":
				if _, err := server.WriteBinary(big); err != nil {
					t.Fatal(err)
				}
				err = server.Flush()
			case "Write":
				_, err = server.Write(big)
			case "ReadFrom":
				_, err = server.ReadFrom(bytes.NewReader(big))
			}
			isTimeoutShape(t, err)
			if got := time.Since(start); got < timeout {
				t.Errorf("timed out after %v, before %v", got, timeout)
			}
			if err := server.SetWriteTimeout(0); err != nil {
				t.Fatal(err)
			}
			go func() { _, _ = io.Copy(io.Discard, a) }() // from now on there is room
			for range 3 {
				_, err := server.Write([]byte("x"))
				isTimeoutShape(t, err)
				if _, err := server.WriteBinary([]byte("x")); err == nil {
					isTimeoutShape(t, server.Flush())
				}
			}
			if _, err := client.Write([]byte("still")); err != nil {
				t.Fatal(err)
			}
			if b, err := server.Peek(5); string(b) != "still" || err != nil {
				t.Errorf("reading after it: %q, %v", b, err)
			}
		})
	}
}

// A write timeout ends with the operation that it was for. Reading TLS may have to write
// too, an answer to a KeyUpdate (RFC 8446, section 4.6.3): the limit of a Flush long ago
// must not cut that off, since a failed write is permanent.
func TestL6_WriteTimeoutOfTheLastFlushDoesNotBreakAKeyUpdate(t *testing.T) {
	a, b := tcpPair(t)
	sc, cc := trustConfigs(t)
	var secrets bytes.Buffer
	cc.KeyLogWriter = &secrets
	client := NewTLSConn(tlsconn.Client(a, tlsconn.ClientConfig(cc, "localhost:1")))
	server := NewTLSConn(tlsconn.Server(b, tlsconn.ServerConfig(sc)))
	shakeHands(t, client, server)
	if s := client.ConnectionState(); s.CipherSuite != tls.TLS_AES_128_GCM_SHA256 {
		t.Skipf("the records that this test makes are for TLS_AES_128_GCM_SHA256, not %s", tls.CipherSuiteName(s.CipherSuite))
	}
	const timeout = 20 * time.Millisecond
	if err := server.SetWriteTimeout(timeout); err != nil {
		t.Fatal(err)
	}
	if _, err := server.Write([]byte("1")); err != nil {
		t.Fatal(err)
	}
	if b, err := client.Peek(1); string(b) != "1" || err != nil {
		t.Fatalf("%q, %v", b, err)
	}
	time.Sleep(2 * timeout) // an idle time longer than the write timeout

	_, line, ok := strings.Cut(secrets.String(), "CLIENT_TRAFFIC_SECRET_0 ")
	if !ok {
		t.Fatal("no secret was logged")
	}
	secret, err := hex.DecodeString(strings.Fields(line)[1])
	if err != nil {
		t.Fatal(err)
	}
	const handshakeRecord, dataRecord = 22, 23
	wire := sealRecord(t, secret, 0, handshakeRecord, []byte{24, 0, 0, 1, 1}) // update_requested
	next := expandLabel(t, secret, "traffic upd", 32)
	wire = append(wire, sealRecord(t, next, 0, dataRecord, []byte("x"))...)
	if _, err := a.Write(wire); err != nil {
		t.Fatal(err)
	}
	if b, err := server.Peek(1); string(b) != "x" || err != nil {
		t.Fatalf("after the KeyUpdate: %q, %v", b, err)
	}
	if _, err := server.Write([]byte("2")); err != nil {
		t.Errorf("the first write after the KeyUpdate: %v", err)
	}
	if b, err := client.Peek(2); string(b) != "12" || err != nil {
		t.Errorf("the client read %q, %v", b, err)
	}
}

// sealRecord returns the record of TLS 1.3 that has the number seq under a traffic secret.
func sealRecord(t testing.TB, secret []byte, seq uint64, contentType byte, content []byte) []byte {
	t.Helper()
	block, err := aes.NewCipher(expandLabel(t, secret, "key", 16))
	if err != nil {
		t.Fatal(err)
	}
	aead, err := cipher.NewGCM(block)
	if err != nil {
		t.Fatal(err)
	}
	inner := append(bytes.Clone(content), contentType)
	header := binary.BigEndian.AppendUint16([]byte{23, 3, 3}, uint16(len(inner)+aead.Overhead()))
	nonce := expandLabel(t, secret, "iv", 12)
	binary.BigEndian.PutUint64(nonce[4:], binary.BigEndian.Uint64(nonce[4:])^seq)
	return aead.Seal(header, nonce, inner, header)
}

// expandLabel is HKDF-Expand-Label of RFC 8446, section 7.1, without a context.
func expandLabel(t testing.TB, secret []byte, label string, n int) []byte {
	t.Helper()
	label = "tls13 " + label
	info := binary.BigEndian.AppendUint16(nil, uint16(n))
	info = append(append(append(info, byte(len(label))), label...), 0)
	key, err := hkdf.Expand(sha256.New, secret, string(info), n)
	if err != nil {
		t.Fatal(err)
	}
	return key
}

// "Close with a blocked write returns", at once, and so does the write.
func TestL7_CloseWithABlockedWriteReturns(t *testing.T) {
	eachTLSPair(t, func(t *testing.T, client, server *TLSConn) {
		done := make(chan error, 1)
		go func() {
			_, err := server.Write(make([]byte, 32<<20))
			done <- err
		}()
		// A byte has come: the write is running, and nobody makes room for the rest.
		if _, err := client.Peek(1); err != nil {
			t.Fatal(err)
		}
		start := time.Now()
		if err := server.Close(); err != nil {
			t.Errorf("Close: %v", err)
		}
		if got := time.Since(start); got > 4*time.Second {
			t.Errorf("Close took %v", got)
		}
		if err := <-done; !errors.Is(err, net.ErrClosed) {
			t.Errorf("the write ended with %v, want net.ErrClosed", err)
		}
		if err := server.Close(); err != nil {
			t.Errorf("the second Close: %v", err)
		}
	})
}

// "Peek over records": one slice over many records, whatever their sizes.
func TestL8_PeekAcrossRecords(t *testing.T) {
	eachTLSPair(t, func(t *testing.T, client, server *TLSConn) {
		want := pattern(200_000)
		go func() {
			// Each Write is at least one record.
			for rest, n := want, 1; len(rest) > 0; n = n*3 + 1 {
				n = min(n, len(rest))
				if _, err := server.Write(rest[:n]); err != nil {
					t.Errorf("Write: %v", err)
					return
				}
				rest = rest[n:]
			}
		}()
		first, err := client.Peek(10)
		if err != nil {
			t.Fatal(err)
		}
		all, err := client.Peek(len(want))
		if err != nil || !bytes.Equal(all, want) {
			t.Fatalf("Peek of all: %d bytes, %v", len(all), err)
		}
		if !bytes.Equal(first, want[:10]) {
			t.Error("the slice of the first Peek has changed")
		}
	})
}

// "Floods of empty and one-byte records" neither lose bytes nor spin for ever.
func TestL9_FloodOfRecords(t *testing.T) {
	t.Run("one byte", func(t *testing.T) {
		a, b := tcpPair(t)
		client, server := secure(t, a, b)
		shakeHands(t, client, server)
		want := pattern(5000)
		go func() {
			for i := range want {
				if _, err := server.Write(want[i : i+1]); err != nil {
					t.Errorf("Write: %v", err)
					return
				}
			}
		}()
		if got, err := client.ReadBinary(len(want)); err != nil || !bytes.Equal(got, want) {
			t.Errorf("%d bytes, %v", len(got), err)
		}
	})
	t.Run("empty", func(t *testing.T) {
		a, b := tcpPair(t)
		sc, cc := trustConfigs(t)
		var secrets bytes.Buffer
		cc.KeyLogWriter = &secrets
		client := NewTLSConn(tlsconn.Client(a, tlsconn.ClientConfig(cc, "localhost:1")))
		server := NewTLSConn(tlsconn.Server(b, tlsconn.ServerConfig(sc)))
		shakeHands(t, client, server)
		if s := client.ConnectionState(); s.CipherSuite != tls.TLS_AES_128_GCM_SHA256 {
			t.Skipf("the records that this test makes are for TLS_AES_128_GCM_SHA256, not %s", tls.CipherSuiteName(s.CipherSuite))
		}
		_, line, _ := strings.Cut(secrets.String(), "CLIENT_TRAFFIC_SECRET_0 ")
		secret, err := hex.DecodeString(strings.Fields(line)[1])
		if err != nil {
			t.Fatal(err)
		}
		go func() {
			for seq := uint64(0); ; seq++ {
				if _, err := a.Write(sealRecord(t, secret, seq, 23, nil)); err != nil {
					return // the server has had enough
				}
			}
		}()
		if err := server.SetReadTimeout(10 * time.Second); err != nil {
			t.Fatal(err)
		}
		_, err = server.Peek(1)
		if err == nil || err == io.EOF || isTimeout(err) || strings.Contains(err.Error(), "bad record") {
			t.Errorf("got %v, want that there are too many", err)
		}
		server.Close()
	})
}

// "Mutual TLS": the server sees who the client is, and refuses one without a certificate.
func TestL10_MutualTLS(t *testing.T) {
	ca, err := tlsconn.NewDevCA()
	if err != nil {
		t.Fatal(err)
	}
	serverCert, err := ca.Server()
	if err != nil {
		t.Fatal(err)
	}
	clientCert, err := ca.Client("gopher")
	if err != nil {
		t.Fatal(err)
	}
	s := serve(t, &Transporter{TLSConfig: tlsconn.MutualTLS(&tls.Config{Certificates: []tls.Certificate{serverCert}}, ca.Pool())},
		func(_ context.Context, conn any) error {
			c := conn.(*TLSConn)
			return answer(c, c.ConnectionState().PeerCertificates[0].Subject.CommonName)
		})

	var d Dialer
	c, err := d.DialConnection("tcp", s.addr, time.Minute, &tls.Config{RootCAs: ca.Pool(), Certificates: []tls.Certificate{clientCert}})
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	if got := ask(t, c, "who am I?"); got != "gopher" {
		t.Errorf("the server knows %q", got)
	}

	// In TLS 1.3 the client's handshake is over before the server looks at the certificate.
	c2, err := d.DialConnection("tcp", s.addr, time.Minute, &tls.Config{RootCAs: ca.Pool()})
	if err == nil {
		defer c2.Close()
		_, err = c2.Peek(1)
	}
	if err == nil || err == io.EOF {
		t.Errorf("a client without a certificate got %v", err)
	}
}

// "Session resumption": connections of one Transporter share the ticket keys.
func TestL10_SessionsAreResumed(t *testing.T) {
	sc, cc := trustConfigs(t)
	var server []bool
	s := serve(t, &Transporter{TLSConfig: sc}, func(_ context.Context, conn any) error {
		c := conn.(*TLSConn)
		server = append(server, c.ConnectionState().DidResume) // one connection at a time
		return answer(c, "hello")
	})
	cc.ClientSessionCache = tls.NewLRUClientSessionCache(1)
	var d Dialer
	for i := range 3 {
		c, err := d.DialConnection("tcp", s.addr, time.Minute, cc)
		if err != nil {
			t.Fatal(err)
		}
		if got := ask(t, c, "hello?"); got != "hello" { // the ticket comes before the answer
			t.Errorf("got %q", got)
		}
		if got := c.(*TLSConn).ConnectionState().DidResume; got != (i > 0) {
			t.Errorf("connection %d: the client resumed: %v", i, got)
		}
		c.Close()
	}
	s.close(t)
	if want := []bool{false, true, true}; fmt.Sprint(server) != fmt.Sprint(want) {
		t.Errorf("the server resumed: %v, want %v", server, want)
	}
}

// "Certificate reload without a restart": new connections get the new one, old ones go on.
func TestL10_CertificateReload(t *testing.T) {
	dir := t.TempDir()
	certFile, keyFile := filepath.Join(dir, "cert.pem"), filepath.Join(dir, "key.pem")
	first := writeKeyPair(t, certFile, keyFile)
	reloader, err := tlsconn.NewReloader(certFile, keyFile)
	if err != nil {
		t.Fatal(err)
	}
	reloader.Interval = 1
	s := serve(t, &Transporter{TLSConfig: &tls.Config{GetCertificate: reloader.GetCertificate}}, echo)

	var d Dialer
	old, err := d.DialConnection("tcp", s.addr, time.Minute, &tls.Config{RootCAs: first})
	if err != nil {
		t.Fatal(err)
	}
	defer old.Close()
	second := writeKeyPair(t, certFile, keyFile)
	c, err := d.DialConnection("tcp", s.addr, time.Minute, &tls.Config{RootCAs: second})
	if err != nil {
		t.Fatalf("the new certificate is not there: %v", err)
	}
	defer c.Close()
	for _, c := range []network.Conn{c, old} {
		if got := ask(t, c, "still there?"); got != "still there?" {
			t.Errorf("got %q", got)
		}
	}
}

// writeKeyPair writes a new certificate to files and returns the pool that trusts it.
func writeKeyPair(t testing.TB, certFile, keyFile string) *x509.CertPool {
	t.Helper()
	cert, pool, err := tlsconn.SelfSigned()
	if err != nil {
		t.Fatal(err)
	}
	key, err := x509.MarshalPKCS8PrivateKey(cert.PrivateKey)
	if err != nil {
		t.Fatal(err)
	}
	for name, block := range map[string]*pem.Block{
		certFile: {Type: "CERTIFICATE", Bytes: cert.Certificate[0]},
		keyFile:  {Type: "PRIVATE KEY", Bytes: key},
	} {
		if err := os.WriteFile(name, pem.EncodeToMemory(block), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	return pool
}

// A TLS connection is a network.ConnTLSer and a plain one is not: Hertz finds out by a
// type assertion whether there is a handshake to make (D6).
func TestD6_OnlyATLSConnIsAConnTLSer(t *testing.T) {
	a, b := tcpPair(t)
	client, _ := secure(t, a, b)
	if _, ok := network.Conn(client).(network.ConnTLSer); !ok {
		t.Error("a TLSConn is no ConnTLSer")
	}
	if _, ok := any(NewConn(b)).(network.ConnTLSer); ok {
		t.Error("a Conn is a ConnTLSer")
	}
}
