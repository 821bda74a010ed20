package main

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"fmt"
	"net"
	"strconv"
	"sync"
	"time"

	"github.com/cloudwego/hertz/pkg/app"
	"github.com/cloudwego/hertz/pkg/app/server"
	"github.com/cloudwego/hertz/pkg/common/config"
	"github.com/cloudwego/hertz/pkg/network"

	"github.com/hertznet/hertznet"
	ours "github.com/hertznet/hertznet/network"
	"github.com/hertznet/hertznet/standard"
)

// states knows where the servers' connections are.
type states struct {
	mu    sync.Mutex
	conns map[ours.Conn]standard.ConnState
}

func newStates() *states { return &states{conns: make(map[ours.Conn]standard.ConnState)} }

func (s *states) tell(c ours.Conn, state standard.ConnState) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if state == standard.StateClosed {
		delete(s.conns, c)
	} else {
		s.conns[c] = state
	}
}

func (s *states) count() (open, parked int) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, state := range s.conns {
		if state == standard.StateParked {
			parked++
		}
	}
	return len(s.conns), parked
}

// site is a server that runs.
type site struct {
	name  string
	addr  net.Addr
	tls   *tls.Config // the clients'; nil without TLS
	h     *server.Hertz
	ended chan error // what Run returned
}

// start serves one handler, which returns the body that it got.
func start(name, network, addr string, cert tls.Certificate, pool *x509.CertPool, park time.Duration, st *states) (*site, error) {
	ln, err := net.Listen(network, addr)
	if err != nil {
		return nil, err
	}
	s := &site{name: name, addr: ln.Addr(), ended: make(chan error, 1)}
	options := []config.Option{
		server.WithTransport(hertznet.Transport(func(t *standard.Transporter) { t.ParkAfter, t.ConnState = park, st.tell })),
		server.WithListener(ln),
		server.WithReadTimeout(30 * time.Second),
		server.WithWriteTimeout(30 * time.Second),
		server.WithIdleTimeout(time.Minute),
		server.WithExitWaitTime(5 * time.Second),
		server.WithDisablePrintRoute(true),
		server.WithOnConnect(withLast),
	}
	if name == "tls" {
		options = append(options, server.WithTLS(&tls.Config{Certificates: []tls.Certificate{cert}}))
		s.tls = &tls.Config{RootCAs: pool, ServerName: "localhost"}
	}
	s.h = server.New(options...)
	s.h.POST("/", echo)
	go func() { s.ended <- s.h.Run() }()
	for !s.h.IsRunning() {
		select {
		case err := <-s.ended:
			return nil, fmt.Errorf("the %s server ended at once: %w", name, err)
		case <-time.After(time.Millisecond):
		}
	}
	return s, nil
}

func (s *site) shutdown() error {
	if err := s.h.Shutdown(context.Background()); err != nil {
		return fmt.Errorf("shutting down the %s server: %w", s.name, err)
	}
	return <-s.ended
}

type lastKey struct{}

// withLast gives each connection a place for the number of its last request.
func withLast(ctx context.Context, _ network.Conn) context.Context {
	return context.WithValue(ctx, lastKey{}, new(int))
}

// echo returns the body. The numbers of a connection's requests rise, unless one is
// served twice.
func echo(c context.Context, ctx *app.RequestContext) {
	last := c.Value(lastKey{}).(*int)
	n, err := strconv.Atoi(string(ctx.GetHeader("Number")))
	if err != nil || n <= *last {
		ctx.String(500, "request %q came after %d", ctx.GetHeader("Number"), *last)
		return
	}
	*last = n
	ctx.Header("Number", strconv.Itoa(n))
	ctx.Response.SetBody(append([]byte(nil), ctx.Request.Body()...))
}
