// Prometheus exports the figures of a hertznet Transporter to Prometheus.
//
//	go run ./examples/prometheus
//
// serves an application and /metrics beside it, sends requests, scrapes itself, prints
// the metrics and exits; with a status other than 0 and the reason on standard error if
// they are not what the requests must have left.
//
//	go run ./examples/prometheus -serve :8891
//
// serves until it is interrupted.
//
// collector.go is the collector, to be copied; check.go has the requests and the check.
package main

import (
	"context"
	"flag"
	"fmt"
	"net"
	"os"
	"os/signal"
	"syscall"
	"time"

	"github.com/cloudwego/hertz/pkg/app"
	"github.com/cloudwego/hertz/pkg/app/server"
	"github.com/cloudwego/hertz/pkg/common/adaptor"
	"github.com/cloudwego/hertz/pkg/common/hlog"
	"github.com/cloudwego/hertz/pkg/protocol/consts"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promhttp"

	"github.com/hertznet/hertznet"
	"github.com/hertznet/hertznet/standard"
)

const exitWait = 5 * time.Second // for requests that run when the server is told to stop

func main() {
	addr := flag.String("serve", "", "serve on this `address`, such as :8891, until interrupted")
	flag.Parse()
	if flag.NArg() > 0 {
		fmt.Fprintf(os.Stderr, "prometheus: %q is no flag; see -help\n", flag.Arg(0))
		os.Exit(2)
	}

	hlog.SetLevel(hlog.LevelWarn) // no routes, no "listening on"
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	context.AfterFunc(ctx, stop) // a second interrupt kills

	run := func() error { return check(ctx, os.Stdout) }
	if *addr != "" {
		run = func() error { return serve(ctx, *addr) }
	}
	if err := run(); err != nil {
		fmt.Fprintln(os.Stderr, "prometheus:", err)
		os.Exit(1)
	}
}

// site is a server that runs.
type site struct {
	h     *server.Hertz
	url   string
	ended chan error // what Run returned
}

// start serves the application and its metrics on addr.
func start(addr string) (*site, error) {
	ln, err := net.Listen("tcp", addr)
	if err != nil {
		return nil, err
	}
	// A configure function is where a Hertz server's Transporter can be had.
	var transporter *standard.Transporter
	h := server.Default(
		server.WithListener(ln),
		server.WithReadTimeout(10*time.Second),
		server.WithWriteTimeout(10*time.Second),
		server.WithIdleTimeout(time.Minute),
		server.WithExitWaitTime(exitWait),
		server.WithTransport(hertznet.Transport(func(t *standard.Transporter) { transporter = t })),
	)
	h.GET("/hello", func(_ context.Context, ctx *app.RequestContext) {
		ctx.String(consts.StatusOK, "hello\n")
	})

	// A registry of its own: a library that registers itself everywhere is not wanted here.
	registry := prometheus.NewRegistry()
	if err := registry.Register(collector{transporter.Stats}); err != nil {
		ln.Close()
		return nil, err
	}
	metrics := promhttp.HandlerFor(registry, promhttp.HandlerOpts{})
	h.GET("/metrics", adaptor.HertzHandler(metrics))

	a := ln.Addr().(*net.TCPAddr)
	host := "localhost"
	if !a.IP.IsUnspecified() {
		host = a.IP.String()
	}
	s := &site{h: h, url: "http://" + net.JoinHostPort(host, fmt.Sprint(a.Port)), ended: make(chan error, 1)}
	go func() { s.ended <- h.Run() }()
	for !h.IsRunning() {
		select {
		case err := <-s.ended:
			return nil, fmt.Errorf("the server ended at once: %w", err)
		case <-time.After(time.Millisecond):
		}
	}
	return s, nil
}

// serve serves until ctx is done.
func serve(ctx context.Context, addr string) error {
	s, err := start(addr)
	if err != nil {
		return err
	}
	fmt.Printf("Serving %s/hello and %[1]s/metrics. Interrupt with ctrl-c.\n", s.url)
	select {
	case <-ctx.Done():
		fmt.Println()
		return s.h.Shutdown(context.Background())
	case err := <-s.ended:
		return err
	}
}
