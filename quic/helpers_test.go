package quic

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"log/slog"
	"math/big"
	"net"
	"sync"
	"testing"
	"time"

	"github.com/hertznet/hertznet/network"
)

const proto = "hertznet-test"

var certificate = sync.OnceValues(func() (tls.Certificate, error) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return tls.Certificate{}, err
	}
	template := &x509.Certificate{
		SerialNumber:          big.NewInt(1),
		Subject:               pkix.Name{CommonName: "localhost"},
		DNSNames:              []string{"localhost"},
		IPAddresses:           []net.IP{net.IPv4(127, 0, 0, 1), net.IPv6loopback},
		NotBefore:             time.Now().Add(-time.Hour),
		NotAfter:              time.Now().Add(time.Hour),
		KeyUsage:              x509.KeyUsageDigitalSignature | x509.KeyUsageCertSign,
		ExtKeyUsage:           []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth, x509.ExtKeyUsageClientAuth},
		IsCA:                  true,
		BasicConstraintsValid: true,
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
	if err != nil {
		return tls.Certificate{}, err
	}
	leaf, err := x509.ParseCertificate(der)
	return tls.Certificate{Certificate: [][]byte{der}, PrivateKey: key, Leaf: leaf}, err
})

// tlsConfigs returns a client's and a server's.
func tlsConfigs(tb testing.TB) (client, server *tls.Config) {
	tb.Helper()
	cert, err := certificate()
	if err != nil {
		tb.Fatal(err)
	}
	pool := x509.NewCertPool()
	pool.AddCert(cert.Leaf)
	return &tls.Config{RootCAs: pool, NextProtos: []string{proto}},
		&tls.Config{Certificates: []tls.Certificate{cert}, NextProtos: []string{proto}}
}

// testContext ends what hangs.
func testContext(tb testing.TB) context.Context {
	ctx, cancel := context.WithTimeout(context.Background(), 30*time.Second)
	tb.Cleanup(cancel)
	return ctx
}

func listen(tb testing.TB, server *tls.Config, config *Config) *Listener {
	tb.Helper()
	l, err := Listen("udp", "127.0.0.1:0", server, config)
	if err != nil {
		tb.Fatal(err)
	}
	tb.Cleanup(func() { l.Close() })
	return l
}

// pair returns both ends of a connection. They are closed by the end of the test.
func pair(tb testing.TB, config *Config) (client, server *Conn) {
	tb.Helper()
	ct, st := tlsConfigs(tb)
	l := listen(tb, st, config)
	return connect(tb, l, ct, config)
}

func connect(tb testing.TB, l *Listener, ct *tls.Config, config *Config) (client, server *Conn) {
	tb.Helper()
	ctx := testContext(tb)
	client, err := Dial(ctx, l.Addr().String(), ct, config)
	if err != nil {
		tb.Fatal(err)
	}
	tb.Cleanup(func() { client.CloseWithError(nil, "") })
	server, err = l.Accept(ctx)
	if err != nil {
		tb.Fatal(err)
	}
	tb.Cleanup(func() { server.CloseWithError(nil, "") })
	return client, server
}

// streams returns both ends of a stream, over which a byte has gone.
func streams(tb testing.TB, a, b network.StreamConn) (x, y network.Stream) {
	tb.Helper()
	ctx := testContext(tb)
	x, err := a.OpenStreamSync(ctx)
	if err != nil {
		tb.Fatal(err)
	}
	if _, err = x.Write([]byte{1}); err != nil {
		tb.Fatal(err)
	}
	if y, err = b.AcceptStream(ctx); err != nil {
		tb.Fatal(err)
	}
	if _, err = y.Read(make([]byte, 1)); err != nil {
		tb.Fatal(err)
	}
	return x, y
}

// isTemporary asks without naming net.Error's deprecated method.
func isTemporary(err error) bool {
	e, ok := err.(interface{ Temporary() bool })
	return ok && e.Temporary()
}

// appCode is an ApplicationError.
type appCode uint64

func (c appCode) ErrCode() uint64 { return uint64(c) }
func (c appCode) String() string  { return "a test's" }

// records is a slog.Handler that keeps what is logged.
type records struct {
	mu  sync.Mutex
	all []slog.Record
}

func (r *records) Enabled(context.Context, slog.Level) bool { return true }
func (r *records) WithAttrs([]slog.Attr) slog.Handler       { return r }
func (r *records) WithGroup(string) slog.Handler            { return r }
func (r *records) Handle(_ context.Context, record slog.Record) error {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.all = append(r.all, record)
	return nil
}

func (r *records) messages(level slog.Level) (all []string) {
	r.mu.Lock()
	defer r.mu.Unlock()
	for _, record := range r.all {
		if record.Level >= level {
			all = append(all, record.Message)
		}
	}
	return all
}
