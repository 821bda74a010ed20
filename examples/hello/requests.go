package main

import (
	"bytes"
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"strings"
	"time"

	"github.com/cloudwego/hertz/pkg/app/client"
	"github.com/cloudwego/hertz/pkg/protocol"
	"github.com/cloudwego/hertz/pkg/protocol/consts"

	"github.com/hertznet/hertznet"
	"github.com/hertznet/hertznet/standard"
)

// newClient returns a Hertz client for the site. It trusts the certificates in pool.
func newClient(s *site, pool *x509.CertPool) (*client.Client, error) {
	dialer := hertznet.NewDialer(func(d *standard.Dialer) {
		if s.transport != "unix" {
			return
		}
		// Hertz knows TCP addresses only, so the path goes in here.
		d.DialContext = func(ctx context.Context, _, _ string) (net.Conn, error) {
			return new(net.Dialer).DialContext(ctx, "unix", s.ln.Addr().String())
		}
	})
	return client.NewClient(
		client.WithTLSConfig(&tls.Config{RootCAs: pool}),
		client.WithDialer(dialer), // after WithTLSConfig, which sets a dialer of its own
		client.WithDialTimeout(5*time.Second),
		client.WithClientReadTimeout(10*time.Second),
		client.WithWriteTimeout(10*time.Second),
		client.WithResponseBodyStream(true),
	)
}

// mebibyte returns 1 MiB in which no part looks like another.
func mebibyte() []byte {
	b := make([]byte, 1<<20)
	_, _ = rand.NewChaCha8([32]byte{}).Read(b) // never fails
	return b
}

// exchange is a request and the answer that is right.
type exchange struct {
	what, method, path string
	contentType        string
	body, want         []byte
	chunked            bool
}

func exchanges(transport string) []exchange {
	way := map[string]string{"tcp": "tcp", "tls": "tcp with TLS 1.3", "unix": "unix"}[transport]
	var lines strings.Builder
	for i := range chunks {
		lines.WriteString(chunk(i))
	}
	big := mebibyte()
	return []exchange{
		{what: "GET", method: consts.MethodGet, path: "/hello",
			want: []byte("Hello over " + way + "\n")},
		{what: "JSON POST", method: consts.MethodPost, path: "/greet", contentType: consts.MIMEApplicationJSON,
			body: []byte(`{"name":"Gopher"}`), want: []byte(`{"hello":"Gopher"}`)},
		{what: "1 MiB echo", method: consts.MethodPost, path: "/echo", contentType: consts.MIMEApplicationOctetStream,
			body: big, want: big},
		{what: "chunked stream", method: consts.MethodGet, path: "/stream",
			want: []byte(lines.String()), chunked: true},
		{what: "static file", method: consts.MethodGet, path: "/files/mebibyte.bin",
			want: big},
		{what: "static page", method: consts.MethodGet, path: "/",
			want: page},
	}
}

// checkSite sends the requests, one after another on one connection, and prints a line
// for each answer that is right.
func checkSite(ctx context.Context, s *site, pool *x509.CertPool) error {
	c, err := newClient(s, pool)
	if err != nil {
		return err
	}
	defer c.CloseIdleConnections()
	for _, e := range exchanges(s.transport) {
		if ctx.Err() != nil {
			return errors.New("interrupted")
		}
		if err := e.check(ctx, c, s); err != nil {
			return fmt.Errorf("%s, %s %s over %s: %w", e.what, e.method, e.path, s.transport, err)
		}
	}
	return nil
}

func (e *exchange) check(ctx context.Context, c *client.Client, s *site) error {
	req, resp := protocol.AcquireRequest(), protocol.AcquireResponse()
	defer protocol.ReleaseRequest(req)
	defer protocol.ReleaseResponse(resp) // gives the connection back, too
	req.SetMethod(e.method)
	req.SetRequestURI(s.url() + e.path)
	if e.body != nil {
		req.Header.SetContentTypeBytes([]byte(e.contentType))
		req.SetBody(e.body)
	}
	begin := time.Now()
	if err := c.Do(ctx, req, resp); err != nil {
		return err
	}
	got, err := io.ReadAll(resp.BodyStream())
	if err != nil {
		return fmt.Errorf("reading the body: %w", err)
	}
	took := time.Since(begin)
	switch {
	case resp.StatusCode() != consts.StatusOK:
		return fmt.Errorf("status %d, want %d: %.200q", resp.StatusCode(), consts.StatusOK, got)
	case !bytes.Equal(got, e.want):
		at := 0
		for at < min(len(got), len(e.want)) && got[at] == e.want[at] {
			at++
		}
		return fmt.Errorf("the body, %d bytes, is wrong from byte %d on; it should have %d bytes", len(got), at, len(e.want))
	case e.chunked != (resp.Header.ContentLength() < 0):
		return fmt.Errorf("chunked is %t, want %t", !e.chunked, e.chunked)
	}
	fmt.Printf("%-14s  %-4s  %d  %8d bytes  %8.2f ms  %s  network library=%s\n",
		e.what, s.transport, resp.StatusCode(), len(got), milliseconds(took), resp.Header.GetProtocol(), s.h.GetTransporterName())
	return nil
}
