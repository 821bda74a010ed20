package main

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"time"

	"github.com/hertznet/hertznet/tlsconn"
)

// showTrust has a server, a client that trusts the authority and nobody else, and one that
// trusts whom the system trusts.
func showTrust(ctx context.Context, ca *tlsconn.DevCA) (err error) {
	cert, err := ca.Server() // for localhost, 127.0.0.1 and ::1
	if err != nil {
		return err
	}
	s, err := start("127.0.0.1:0", &tls.Config{Certificates: []tls.Certificate{cert}})
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, s.stop()) }()

	p, err := newPeer(&tls.Config{RootCAs: ca.Pool()})
	if err != nil {
		return err
	}
	got, err := p.greet(ctx, s.url, "hello stranger over TLS 1.3, ALPN http/1.1, new session")
	if err != nil {
		return err
	}
	show("a client that trusts the CA", "%s", got)

	seen, err := showRefusal(ctx, s, "a client that does not", new(tls.Config), "remote error: tls: bad certificate")
	if err != nil {
		return err
	}
	var unverified *tls.CertificateVerificationError
	if !errors.As(seen, &unverified) {
		return errors.New("that is no CertificateVerificationError")
	}
	return nil
}

// showMutual has a server that wants to know its clients.
func showMutual(ctx context.Context, ca *tlsconn.DevCA) (err error) {
	cert, err := ca.Server()
	if err != nil {
		return err
	}
	s, err := start("127.0.0.1:0", tlsconn.MutualTLS(&tls.Config{Certificates: []tls.Certificate{cert}}, ca.Pool()))
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, s.stop()) }()

	own, err := ca.Client("billing")
	if err != nil {
		return err
	}
	p, err := newPeer(&tls.Config{RootCAs: ca.Pool(), Certificates: []tls.Certificate{own}})
	if err != nil {
		return err
	}
	got, err := p.greet(ctx, s.url, "hello billing over TLS 1.3, ALPN http/1.1, new session")
	if err != nil {
		return err
	}
	show("mutual TLS: with a certificate", "%s", got)
	// Hertz's client gives a config without a ClientSessionCache one of its own.
	got, err = p.greet(ctx, s.url, "hello billing over TLS 1.3, ALPN http/1.1, resumed session")
	if err != nil {
		return err
	}
	show("its second connection", "%s", got)

	// In TLS 1.3 the client's handshake is done before the server sees that no certificate
	// comes; it hears of that when it reads the answer. In TLS 1.2 the handshake fails.
	for _, version := range []uint16{tls.VersionTLS13, tls.VersionTLS12} {
		config := &tls.Config{RootCAs: ca.Pool(), MaxVersion: version}
		_, err := showRefusal(ctx, s, "without, "+tls.VersionName(version), config, "tls: client didn't provide a certificate")
		if err != nil {
			return err
		}
	}
	return nil
}

// showRefusal has a client refuse, or be refused. It prints how each side sees that, and
// returns what the client does. want is what the server does.
func showRefusal(ctx context.Context, s *site, what string, config *tls.Config, want string) (seen, err error) {
	p, err := newPeer(config)
	if err != nil {
		return nil, err
	}
	if _, seen = p.get(ctx, s.url, false); seen == nil {
		return nil, fmt.Errorf("%s: it got an answer", what)
	}
	show(what, "the client sees: %v", seen)
	select {
	case err := <-s.refused:
		if err.Error() != want {
			return nil, fmt.Errorf("%s: the server sees %w, want %s", what, err, want)
		}
		show("", "the server sees: %v", err)
		return seen, nil
	case <-time.After(limit):
		return nil, fmt.Errorf("%s: the server saw no handshake fail", what)
	}
}
