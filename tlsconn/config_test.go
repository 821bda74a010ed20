package tlsconn

import (
	"crypto/tls"
	"crypto/x509"
	"encoding/pem"
	"io"
	"net"
	"strings"
	"testing"
)

func TestD11_ClientConfigTakesServerNameFromTheAddress(t *testing.T) {
	for address, want := range map[string]string{
		"example.com:443":        "example.com",
		"example.com.:443":       "example.com",
		"example.com":            "example.com",
		"example.com.":           "example.com",
		"127.0.0.1:443":          "127.0.0.1",
		"127.0.0.1":              "127.0.0.1",
		"[::1]:443":              "::1",
		"[::1]":                  "::1",
		"::1":                    "::1",
		"[fe80::1%eth0]:443":     "fe80::1",
		":443":                   "",
		"":                       "",
		"/var/run/app.sock":      "",
		"@abstract":              "",
		"./relative.sock":        "",
		"xn--bcher-kva.example:": "xn--bcher-kva.example",
	} {
		if got := ClientConfig(nil, address).ServerName; got != want {
			t.Errorf("%q: got %q, want %q", address, got, want)
		}
	}
	own := &tls.Config{ServerName: "own.example"}
	if got := ClientConfig(own, "example.com:443").ServerName; got != "own.example" {
		t.Errorf("the caller's ServerName became %q", got)
	}
}

func TestD11_ConfigsAreNotChanged(t *testing.T) {
	cert, pool, err := SelfSigned()
	if err != nil {
		t.Fatal(err)
	}
	sc := &tls.Config{Certificates: []tls.Certificate{cert}}
	cc := &tls.Config{RootCAs: pool}
	c2, s2, m2 := ClientConfig(cc, "localhost:1"), ServerConfig(sc), MutualTLS(sc, pool)
	if cc.ServerName != "" || cc.DynamicRecordSizingDisabled ||
		sc.DynamicRecordSizingDisabled || sc.ClientAuth != 0 || sc.ClientCAs != nil {
		t.Error("a config was changed")
	}
	if !c2.DynamicRecordSizingDisabled || !s2.DynamicRecordSizingDisabled ||
		m2.ClientAuth != tls.RequireAndVerifyClientCert {
		t.Error("a clone lacks what it was made for")
	}
	// Client and Server use the callers' configs as they are.
	cc.ServerName = "localhost"
	cn, sn := tcpPair(t)
	connectWith(t, cn, sn, sc, cc)
	if cc.DynamicRecordSizingDisabled || sc.DynamicRecordSizingDisabled {
		t.Error("Client or Server changed a config")
	}
	if ServerConfig(nil) == nil {
		t.Error("nil is an empty config")
	}
	if MutualTLS(nil, nil).ClientCAs == nil {
		t.Error("without a pool the roots of the system are trusted")
	}
}

// roundTrip connects once, lets the session ticket through, and returns the client's state.
func roundTrip(t *testing.T, sc, cc *tls.Config) tls.ConnectionState {
	t.Helper()
	cn, sn := tcpPair(t)
	c, s := connectWith(t, cn, sn, sc, cc)
	go func() {
		s.Write([]byte("x"))
		s.Close()
	}()
	if _, err := io.ReadAll(c); err != nil {
		t.Fatal(err)
	}
	c.Close()
	return c.ConnectionState()
}

// Why ServerConfig is called once for each listener: ticket keys live in the config.
func TestL10_AConfigForEachConnResumesNothing(t *testing.T) {
	base, cc := devConfigs(t)
	cc.ClientSessionCache = tls.NewLRUClientSessionCache(4)
	for i := range 3 {
		if st := roundTrip(t, ServerConfig(base), cc); st.DidResume {
			t.Errorf("connection %d was resumed: the comment of ServerConfig is out of date", i)
		}
	}
}

// The configs of GetConfigForClient get the same treatment, and sessions are still resumed.
func TestL10_GetConfigForClient(t *testing.T) {
	chosen, cc := devConfigs(t)
	chosen = chosen.Clone()
	chosen.DynamicRecordSizingDisabled = false
	var peer net.Conn
	sc := ServerConfig(&tls.Config{GetConfigForClient: func(hello *tls.ClientHelloInfo) (*tls.Config, error) {
		if hello.ServerName == "nobody.example" {
			return nil, nil
		}
		peer = hello.Conn.(interface{ NetConn() net.Conn }).NetConn()
		return chosen, nil
	}})
	cc.ClientSessionCache = tls.NewLRUClientSessionCache(4)
	for i := range 3 {
		if st := roundTrip(t, sc, cc); st.DidResume != (i > 0) {
			t.Errorf("connection %d: resumed is %v", i, st.DidResume)
		}
	}
	if chosen.DynamicRecordSizingDisabled {
		t.Error("the user's config was changed")
	}
	if _, ok := peer.(*net.TCPConn); !ok {
		t.Errorf("hello.Conn is over %T", peer)
	}

	cn, sn := tcpPair(t)
	r := &recorder{Conn: sn}
	c, s := connectWith(t, cn, r, sc, cc)
	r.take(t)
	go s.WriteBuffers(&net.Buffers{make([]byte, 100), make([]byte, 5000)})
	readAll(c, 5100)
	if records, _ := r.take(t); len(records) != 1 {
		t.Errorf("header and body left in %d records [W15]", len(records))
	}
}

func TestL10_MutualTLS(t *testing.T) {
	ca, err := NewDevCA()
	if err != nil {
		t.Fatal(err)
	}
	other, err := NewDevCA()
	if err != nil {
		t.Fatal(err)
	}
	serverCert, err := ca.Server()
	if err != nil {
		t.Fatal(err)
	}
	alice, err := ca.Client("alice")
	if err != nil {
		t.Fatal(err)
	}
	mallory, err := other.Client("mallory")
	if err != nil {
		t.Fatal(err)
	}
	plain := &tls.Config{Certificates: []tls.Certificate{serverCert}}
	choosing := &tls.Config{GetConfigForClient: func(*tls.ClientHelloInfo) (*tls.Config, error) { return plain, nil }}
	for _, tc := range []struct {
		name   string
		base   *tls.Config
		pool   *x509.CertPool
		certs  []tls.Certificate
		accept bool
	}{
		{"alice", plain, ca.Pool(), []tls.Certificate{alice}, true},
		{"mallory", plain, ca.Pool(), []tls.Certificate{mallory}, false},
		{"nobody", plain, ca.Pool(), nil, false},
		{"a server's certificate", plain, ca.Pool(), []tls.Certificate{serverCert}, false},
		{"nil trusts nobody", plain, nil, []tls.Certificate{alice}, false},
		{"chosen, alice", choosing, ca.Pool(), []tls.Certificate{alice}, true},
		{"chosen, nobody", choosing, ca.Pool(), nil, false},
	} {
		t.Run(tc.name, func(t *testing.T) {
			cn, sn := tcpPair(t)
			s := Server(sn, ServerConfig(MutualTLS(tc.base, tc.pool)))
			c := Client(cn, ClientConfig(&tls.Config{RootCAs: ca.Pool(), Certificates: tc.certs}, "localhost:443"))
			go func() { // in TLS 1.3 the client learns of a refusal when it reads
				c.Handshake()
				io.Copy(io.Discard, c)
				c.Close()
			}()
			err := s.Handshake()
			if (err == nil) != tc.accept {
				t.Fatalf("got %v", err)
			}
			if tc.accept {
				if name := s.ConnectionState().PeerCertificates[0].Subject.CommonName; name != "alice" {
					t.Errorf("the client is %q", name)
				}
			}
			s.Close()
		})
	}
}

// A session from before mutual TLS was demanded does not get in.
func TestL10_MutualTLSIsNotResumedAround(t *testing.T) {
	base, cc := devConfigs(t)
	cc.ClientSessionCache = tls.NewLRUClientSessionCache(4)
	roundTrip(t, base, cc)
	if !roundTrip(t, base, cc).DidResume {
		t.Fatal("no session to begin with")
	}
	cn, sn := tcpPair(t)
	s, c := Server(sn, MutualTLS(base, nil)), Client(cn, cc)
	go func() {
		c.Handshake()
		io.Copy(io.Discard, c)
	}()
	if err := s.Handshake(); err == nil {
		t.Error("a client without a certificate was let in")
	}
	s.Close()
}

func TestSelfSigned(t *testing.T) {
	for _, tc := range []struct {
		hosts  []string
		dial   []string
		refuse []string
	}{
		{nil, []string{"localhost:1", "127.0.0.1:1", "[::1]:1"}, []string{"example.com:1", "127.0.0.2:1"}},
		{
			[]string{"api.test", "*.svc.test", "10.0.0.1", "[2001:db8::1]"},
			[]string{"api.test", "a.svc.test.:443", "10.0.0.1:1", "[2001:db8::1]:1"},
			[]string{"localhost:1"},
		},
		{[]string{strings.Repeat("a", 60) + ".long.test"}, []string{strings.Repeat("a", 60) + ".long.test:1"}, nil},
	} {
		cert, pool, err := SelfSigned(tc.hosts...)
		if err != nil {
			t.Fatal(err)
		}
		for i, address := range append(tc.dial, tc.refuse...) {
			cn, sn := tcpPair(t)
			s := Server(sn, ServerConfig(&tls.Config{Certificates: []tls.Certificate{cert}}))
			c := Client(cn, ClientConfig(&tls.Config{RootCAs: pool}, address))
			go s.Handshake()
			if err := c.Handshake(); (err == nil) != (i < len(tc.dial)) {
				t.Errorf("%q: %v", address, err)
			}
		}
	}
	for _, bad := range []string{"", ".", "localhost:8443", "http://localhost", "a b", "user@host"} {
		if _, _, err := SelfSigned(bad); err == nil || !strings.Contains(err.Error(), "neither") {
			t.Errorf("%q: %v", bad, err)
		}
		if ca, err := NewDevCA(); err != nil {
			t.Error(err)
		} else if _, err := ca.Server(bad); err == nil {
			t.Errorf("%q: no error", bad)
		}
	}
}

// What PEM returns makes a client trust the authority, as Pool does, and holds no key.
func TestDevCAPEM(t *testing.T) {
	ca, err := NewDevCA()
	if err != nil {
		t.Fatal(err)
	}
	block, rest := pem.Decode(ca.PEM())
	if block == nil || block.Type != "CERTIFICATE" || len(rest) != 0 {
		t.Fatalf("got %q", ca.PEM())
	}
	pool := x509.NewCertPool()
	if !pool.AppendCertsFromPEM(ca.PEM()) || !pool.Equal(ca.Pool()) {
		t.Error("it is another pool than Pool's")
	}
	cert, err := ca.Server("localhost")
	if err != nil {
		t.Fatal(err)
	}
	if _, err := cert.Leaf.Verify(x509.VerifyOptions{Roots: pool, DNSName: "localhost"}); err != nil {
		t.Error(err)
	}
	ca.PEM()[0] = 'x'
	if ca.PEM()[0] == 'x' {
		t.Error("what it returns is not the caller's own")
	}
}
