package standard

import (
	"bytes"
	"crypto/tls"
	"encoding/hex"
	"net"
	"strings"
	"testing"
	"time"

	"github.com/hertznet/hertznet/tlsconn"
)

// T1: a read's limit holds also where TLS has to write, an answer to a KeyUpdate, to a peer
// that reads nothing.
func TestT1_ReadTimeoutWhileKeyUpdatesAreAnswered(t *testing.T) {
	a, b := unixPair(t)
	sc, cc := trustConfigs(t)
	var secrets bytes.Buffer
	cc.KeyLogWriter = &secrets
	client := NewTLSConn(tlsconn.Client(a, tlsconn.ClientConfig(cc, "localhost:1")))
	server := NewTLSConn(tlsconn.Server(b, tlsconn.ServerConfig(sc)))
	shakeHands(t, client, server)
	if s := client.ConnectionState(); s.CipherSuite != tls.TLS_AES_128_GCM_SHA256 {
		t.Skip("another cipher suite")
	}

	_ = b.(*net.UnixConn).SetWriteBuffer(4 << 10)
	_, line, _ := strings.Cut(secrets.String(), "CLIENT_TRAFFIC_SECRET_0 ")
	secret, err := hex.DecodeString(strings.Fields(line)[1])
	if err != nil {
		t.Fatal(err)
	}
	if err := server.SetReadTimeout(3 * time.Second); err != nil {
		t.Fatal(err)
	}
	_ = server.SetWriteTimeout(300 * time.Millisecond)
	go func() {
		// A message that never ends, a byte at a time, with a KeyUpdate before each.
		for seq := uint64(0); ; seq = 1 {
			wire := sealRecord(t, secret, seq, 22, []byte{24, 0, 0, 1, 1})
			secret = expandLabel(t, secret, "traffic upd", 32)
			wire = append(wire, sealRecord(t, secret, 0, 23, []byte("x"))...)
			if _, err := a.Write(wire); err != nil {
				return
			}
		}
	}()
	done := make(chan error, 1)
	go func() {
		_, err := server.Peek(1 << 30)
		done <- err
	}()
	select {
	case err := <-done:
		if err == nil {
			t.Error("the Peek ended without an error")
		}
	case <-time.After(10 * time.Second):
		t.Errorf("a Peek with a timeout of 3 s is still running after 10 s, %d bytes have come", server.tls.BytesReceived())
	}
	server.Close()
}
