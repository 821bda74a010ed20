package standard

import (
	"bytes"
	"context"
	"crypto/aes"
	"crypto/cipher"
	"crypto/hkdf"
	"crypto/sha256"
	"crypto/tls"
	"encoding/binary"
	"encoding/hex"
	"io"
	"net"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/hertznet/hertznet/network"
	"github.com/hertznet/hertznet/tlsconn"
)

// The kit's TestTLS and TestConnOverTLS judge what any connection over TLS does. Here
// is how this one limits a handshake beside other operations, and what it costs.

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

// A Handshake that is complete takes no memory; that it is fast and does no I/O is seen
// by the kit.
func TestL1_HandshakeIsFreeWhenComplete(t *testing.T) {
	a, b := tcpPair(t)
	client, server := secure(t, a, b)
	shakeHands(t, client, server)
	if n := testing.AllocsPerRun(100, func() {
		if err := client.Handshake(); err != nil {
			t.Fatal(err)
		}
	}); n != 0 {
		t.Errorf("%v allocations", n)
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
	newDeadline := func() boundDeadline {
		d := deadlineOver(new(scriptConn), true, true)
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

// The kit sees that a handshake ends. Here is when: to the moment, on both sides,
// whichever of the three limits is the shortest.
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

// A peer that connects and leaves is a bare io.EOF: Hertz compares with == to stay
// silent about it. No peer of the kit leaves before the handshake.
func TestL4_PeerThatLeavesIsABareEOF(t *testing.T) {
	a, b := tcpPair(t)
	_, server := secure(t, a, b)
	a.Close()
	if err := server.Handshake(); err != io.EOF {
		t.Errorf("got %T %v, want io.EOF", err, err)
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

// The connections of one Transporter share the ticket keys, since it clones its config
// once. The kit resumes sessions of connections that it makes itself.
func TestL10_TransporterResumesSessions(t *testing.T) {
	sc, cc := trustConfigs(t)
	var resumed []bool
	s := serve(t, &Transporter{TLSConfig: sc}, func(_ context.Context, conn any) error {
		c := conn.(*TLSConn)
		resumed = append(resumed, c.ConnectionState().DidResume) // one connection at a time
		return answer(c, "hello")
	})
	cc.ClientSessionCache = tls.NewLRUClientSessionCache(1)
	for range 3 {
		c, err := new(Dialer).DialConnection("tcp", s.addr, time.Minute, cc)
		if err != nil {
			t.Fatal(err)
		}
		if got := ask(t, c, "hello?"); got != "hello" { // the ticket comes before the answer
			t.Errorf("got %q", got)
		}
		c.Close()
	}
	s.close(t)
	if want := []bool{false, true, true}; !slices.Equal(resumed, want) {
		t.Errorf("resumed: %v, want %v", resumed, want)
	}
}
