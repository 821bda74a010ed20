package main

import (
	"context"
	"crypto/sha256"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"sync"
	"time"

	"github.com/cloudwego/hertz/pkg/app"
	"github.com/cloudwego/hertz/pkg/app/server"
	"github.com/cloudwego/hertz/pkg/common/config"

	"github.com/hertznet/hertznet"
	"github.com/hertznet/hertznet/tlsconn"
)

// targets is what the clients want to reach.
type targets struct {
	plain, secure *site
	large, small  *streamTarget
	closed        string // where nobody listens
	cert          tls.Certificate
	pool          *x509.CertPool // that trusts cert
}

func newTargets() (t *targets, err error) {
	t = new(targets)
	if t.cert, t.pool, err = tlsconn.SelfSigned(); err != nil { // for development only
		return nil, err
	}
	if t.plain, err = newSite(); err != nil {
		return nil, err
	}
	if t.secure, err = newSite(server.WithTLS(&tls.Config{Certificates: []tls.Certificate{t.cert}})); err != nil {
		return nil, err
	}
	if t.large, err = newStreamTarget(64 << 20); err != nil {
		return nil, err
	}
	if t.small, err = newStreamTarget(1 << 20); err != nil {
		return nil, err
	}
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return nil, err
	}
	t.closed = ln.Addr().String()
	return t, ln.Close()
}

func (t *targets) shutdown() error {
	return errors.Join(t.plain.h.Shutdown(context.Background()), t.secure.h.Shutdown(context.Background()),
		t.large.close(), t.small.close())
}

// site is a Hertz server that says how a request came, and echoes.
type site struct {
	ln net.Listener
	h  *server.Hertz
}

func newSite(options ...config.Option) (*site, error) {
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return nil, err
	}
	s := &site{ln: ln, h: server.New(append(options,
		server.WithTransport(hertznet.NewTransporter),
		server.WithListener(ln),
		server.WithReadTimeout(10*time.Second),
		server.WithWriteTimeout(10*time.Second),
		server.WithExitWaitTime(time.Second),
		server.WithDisablePrintRoute(true),
	)...)}
	s.h.GET("/", describe)
	s.h.POST("/echo", func(_ context.Context, ctx *app.RequestContext) { ctx.Response.SetBodyRaw(ctx.Request.Body()) })
	ended := make(chan error, 1)
	go func() { ended <- s.h.Run() }()
	for !s.h.IsRunning() {
		select {
		case err := <-ended:
			return nil, fmt.Errorf("a target ended at once: %w", err)
		case <-time.After(time.Millisecond):
		}
	}
	return s, nil
}

func (s *site) addr() string { return s.ln.Addr().String() }

// describe answers with what the target knows of the request, in one line.
func describe(_ context.Context, ctx *app.RequestContext) {
	h := &ctx.Request.Header
	ctx.String(200, "target %s, path %s, via %q, proxy password %q\n",
		h.Host(), h.RequestURI(), h.Get("Via"), h.Get("Proxy-Authorization"))
}

// streamTarget speaks a protocol that depends on half-close: it sends its stream at once,
// reads until the client ends its sending side, and then sends the SHA-256 of what it has
// read.
type streamTarget struct {
	ln   net.Listener
	size int64 // of the stream in each direction, in bytes
	wg   sync.WaitGroup
}

// The streams of the client and of the target are told apart by their seeds.
const fromClient, fromTarget = 'c', 't'

// stream returns bytes that are the same for the same seed.
func (t *streamTarget) stream(seed byte) io.Reader {
	return io.LimitReader(rand.NewChaCha8([32]byte{seed}), t.size)
}

func newStreamTarget(size int64) (*streamTarget, error) {
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return nil, err
	}
	t := &streamTarget{ln: ln, size: size}
	t.wg.Go(func() {
		for {
			c, err := ln.Accept()
			if err != nil {
				return
			}
			t.wg.Go(func() { t.serve(c) })
		}
	})
	return t, nil
}

func (t *streamTarget) addr() string { return t.ln.Addr().String() }

func (t *streamTarget) close() error {
	err := t.ln.Close()
	t.wg.Wait()
	return err
}

func (t *streamTarget) serve(c net.Conn) {
	defer c.Close()
	sent := make(chan error, 1)
	go func() {
		_, err := io.Copy(c, t.stream(fromTarget))
		sent <- err
	}()
	sum := sha256.New()
	_, err := io.Copy(sum, c)
	if err = errors.Join(err, <-sent); err == nil {
		_, _ = c.Write(sum.Sum(nil)) // the client misses it
	}
}
