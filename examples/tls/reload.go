package main

import (
	"bytes"
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"time"

	"github.com/hertznet/hertznet/tlsconn"
)

// showReload replaces the certificate of a busy server: by a new one, and by a broken one.
func showReload(ctx context.Context, ca *tlsconn.DevCA, dir string) error {
	f := files{filepath.Join(dir, "tls.crt"), filepath.Join(dir, "tls.key")}
	old, err := f.issue(ca)
	if err != nil {
		return err
	}
	reloader, err := tlsconn.NewReloader(f.cert, f.key)
	if err != nil {
		return err
	}
	var logged bytes.Buffer // the server's until it has stopped
	reloader.Logger = slog.New(slog.NewTextHandler(&logged, nil))
	reloader.Interval = 10 * time.Millisecond // unset it is a second
	s, err := start("127.0.0.1:0", &tls.Config{GetCertificate: reloader.GetCertificate})
	if err != nil {
		return err
	}
	stop := sync.OnceValue(s.stop)
	defer stop() // its error is returned below
	l, err := startLoad(ctx, s.url, ca.Pool())
	if err != nil {
		return err
	}
	defer l.stop()

	if err := l.settles(ctx, old); err != nil {
		return err
	}
	show("reload: before", "new connections get serial %s", old)
	p, err := newPeer(&tls.Config{RootCAs: ca.Pool()})
	if err != nil {
		return err
	}
	if _, err := p.greet(ctx, s.url, "hello stranger over TLS 1.3, ALPN http/1.1, new session"); err != nil {
		return err
	}

	renewed, err := f.issue(ca)
	if err != nil {
		return err
	}
	if err := l.settles(ctx, renewed); err != nil {
		return err
	}
	show("the files are replaced", "new connections get serial %s", renewed)

	// A session is resumed without a certificate, so its client knows the one of when it
	// began. If that was replaced because its key was stolen, restart: tickets end with
	// the process.
	if _, err := p.greet(ctx, s.url, "hello stranger over TLS 1.3, ALPN http/1.1, resumed session"); err != nil {
		return err
	}
	if got := p.serial(); got != old {
		return fmt.Errorf("a session of before knows serial %s, want %s", got, old)
	}
	show("a session of before is resumed", "its client knows serial %s", old)

	if err := replace(f.cert, []byte("broken\n")); err != nil {
		return err
	}
	if err := eventually(ctx, "the broken file is not seen", func() (bool, error) { return reloader.Err() != nil, nil }); err != nil {
		return err
	}
	if err := l.settles(ctx, renewed); err != nil {
		return err
	}
	show("the certificate's file is broken", "new connections get serial %s", renewed)

	l.stop()
	if err := stop(); err != nil {
		return err
	}
	_, message, ok := strings.Cut(lastLine(logged.String()), " level=ERROR ")
	if !ok {
		return fmt.Errorf("the log does not end with an error:\n%s", &logged)
	}
	show("the log says", "%s", strings.ReplaceAll(message, dir+string(filepath.Separator), ""))
	return l.report(old, renewed)
}

// files are where a certificate and its key lie.
type files struct{ cert, key string }

// issue replaces them and returns the new serial number. Until the second file follows the
// first they do not match. Then the old pair goes on being served, and a handshake in
// between has an error logged.
func (f files) issue(ca *tlsconn.DevCA) (serial string, err error) {
	cert, err := ca.Server()
	if err != nil {
		return "", err
	}
	key, err := x509.MarshalPKCS8PrivateKey(cert.PrivateKey)
	if err != nil {
		return "", err
	}
	if err := replace(f.key, pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: key})); err != nil {
		return "", err
	}
	return short(cert.Leaf.SerialNumber), replace(f.cert, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: cert.Certificate[0]}))
}

// replace writes a file so that who reads it finds the old content or the new one, and
// never a part.
func replace(name string, data []byte) error {
	if err := os.WriteFile(name+".new", data, 0o600); err != nil {
		return err
	}
	return os.Rename(name+".new", name)
}

// eventually waits until ok returns true, or an error.
func eventually(ctx context.Context, otherwise string, ok func() (bool, error)) error {
	for end := time.Now().Add(limit); time.Now().Before(end); time.Sleep(time.Millisecond) {
		if done, err := ok(); done || err != nil {
			return err
		}
		if ctx.Err() != nil {
			return errors.New("interrupted")
		}
	}
	return errors.New(otherwise)
}

func lastLine(s string) string {
	lines := strings.Split(strings.TrimSpace(s), "\n")
	return lines[len(lines)-1]
}
