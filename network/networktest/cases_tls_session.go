package networktest

import (
	"bytes"
	"crypto/tls"
	"sync/atomic"
)

// L10. "Session resumption, mutual TLS, and a new certificate without a restart."
func sessionsAndCertificates(t *tlsCheck) {
	for _, s := range t.sides() {
		resumption(t, s)
		mutualTLS(t, s)
		if s.name == "server" {
			newCertificate(t, s)
		}
	}
}

// Connections of one config share what sessions need: the server's its ticket keys,
// the client's its cache.
func resumption(t *tlsCheck, s tlsSide) {
	server, client := kitServerConfig(t), kitClientConfig(t)
	client.ClientSessionCache = tls.NewLRUClientSessionCache(1)
	for _, version := range []uint16{tls.VersionTLS12, tls.VersionTLS13} {
		client.MaxVersion = version
		for i := range 2 {
			e := t.connect(s, tlsOptions{server: server, client: client})
			t.sends(e, []byte("hello"))
			t.feed(e.peer, []byte("hello"))
			t.arrives(e.c, []byte("hello")) // a ticket comes before it
			t.step("connection %d of two with the same configs over %s, the implementation being the %s", i+1, tls.VersionName(version), s.name)
			got, peers := t.handshaker(e.c).ConnectionState().DidResume, e.peer.ConnectionState().DidResume
			if i == 1 {
				t.expect(peers, "a session that was resumed", "a new one, by what the peer says")
				t.expect(got, "DidResume to be true", "false")
			}
			closeEnds(t, e)
		}
		client.ClientSessionCache = tls.NewLRUClientSessionCache(1)
	}
}

// closeEnds closes the peer's end, so that the implementation's Close has no reader to
// wait for.
func closeEnds(t *tlsCheck, e tlsEnds) {
	e.far.Close()
	t.step("Close after the peer has closed")
	e.c.Close()
}

func mutualTLS(t *tlsCheck, s tlsSide) {
	certs := certsOf(t)
	server, client := kitServerConfig(t), kitClientConfig(t)
	server.ClientAuth, server.ClientCAs = tls.RequireAndVerifyClientCert, certs.pool
	client.Certificates = []tls.Certificate{certs.client}
	e := t.connect(s, tlsOptions{server: server, client: client})
	t.step("ConnectionState().PeerCertificates of a client with a certificate, the implementation being the %s", s.name)
	got := e.peer.ConnectionState()
	if s.name == "server" {
		got = t.handshaker(e.c).ConnectionState()
	}
	t.expect(len(got.PeerCertificates) == 1 && got.PeerCertificates[0].Subject.CommonName == kitClientName,
		"that of "+kitClientName, "%d certificates", len(got.PeerCertificates))
	t.sends(e, []byte("hello"))
	closeEnds(t, e)
	if s.name == "client" {
		return
	}
	client = kitClientConfig(t)
	t.step("the handshake as a server that demands a certificate, with a client that has none")
	e, _, err := t.tryOpen(s, tlsOptions{server: server, client: client})
	if err == nil {
		err = t.handshaker(e.c).Handshake()
	}
	t.expect(err != nil, "an error", "none")
}

// A server asks its config for the certificate each time.
func newCertificate(t *tlsCheck, s tlsSide) {
	certs := certsOf(t)
	var current atomic.Pointer[tls.Certificate]
	server := &tls.Config{GetCertificate: func(*tls.ClientHelloInfo) (*tls.Certificate, error) { return current.Load(), nil }}
	for _, c := range []struct {
		name string
		cert *tls.Certificate
	}{{"first", &certs.server}, {"renewed", &certs.renewed}} {
		current.Store(c.cert)
		e := t.connect(s, tlsOptions{server: server})
		t.step("a connection to a server whose config's GetCertificate returns the %s certificate", c.name)
		got := e.peer.ConnectionState().PeerCertificates
		t.expect(len(got) == 1 && bytes.Equal(got[0].Raw, c.cert.Certificate[0]), "the "+c.name+" certificate", "another one")
		closeEnds(t, e)
	}
}
