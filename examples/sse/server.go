package main

import (
	"bytes"
	"context"
	_ "embed"
	"fmt"
	"net"
	"time"

	"github.com/cloudwego/hertz/pkg/app"
	"github.com/cloudwego/hertz/pkg/app/server"
	"github.com/cloudwego/hertz/pkg/protocol/consts"

	"github.com/hertznet/hertznet"
	"github.com/hertznet/hertznet/standard"
)

const (
	exitWait = 5 * time.Second // for requests that run when the server is told to stop
	maxSaid  = 1 << 10         // bytes
)

//go:embed page.html
var page []byte

// site is a server that runs.
type site struct {
	h           *server.Hertz
	transporter *standard.Transporter
	feed        *feed
	url         string
	streamEnded chan error // why, for each stream; what nobody takes is dropped
	ended       chan error // what Run returned
}

// start serves a feed on ln.
func start(ln net.Listener, writeTimeout time.Duration) (*site, error) {
	s := &site{streamEnded: make(chan error, 64), ended: make(chan error, 1)}
	s.feed = newFeed(func(why error) {
		select {
		case s.streamEnded <- why:
		default:
		}
	})
	s.h = server.Default(
		server.WithTransport(hertznet.Transport(func(t *standard.Transporter) { s.transporter = t })),
		server.WithListener(ln),
		server.WithReadTimeout(10*time.Second), // does not limit how long an answer takes
		server.WithWriteTimeout(writeTimeout),  // of each event: ends subscribers that do not read
		server.WithIdleTimeout(time.Minute),
		server.WithSenseClientDisconnection(true), // ends the context of those that have left
		server.WithMaxRequestBodySize(maxSaid),
		server.WithExitWaitTime(exitWait),
	)
	// Shutdown waits for running handlers, and these would run for ever. Hertz calls the
	// hook as Shutdown begins, and beside it.
	s.h.OnShutdown = append(s.h.OnShutdown, func(context.Context) { s.feed.close() })

	s.h.GET("/events", s.feed.serve)
	s.h.POST("/say", func(_ context.Context, ctx *app.RequestContext) {
		s.feed.publish(bytes.Clone(ctx.Request.Body())) // the body is the connection's
		ctx.SetStatusCode(consts.StatusNoContent)
	})
	s.h.GET("/", func(_ context.Context, ctx *app.RequestContext) {
		ctx.Data(consts.StatusOK, "text/html; charset=utf-8", page)
	})

	a := ln.Addr().(*net.TCPAddr)
	host := "localhost"
	if !a.IP.IsUnspecified() {
		host = a.IP.String()
	}
	s.url = "http://" + net.JoinHostPort(host, fmt.Sprint(a.Port))
	go func() { s.ended <- s.h.Run() }()
	for !s.h.IsRunning() {
		select {
		case err := <-s.ended:
			return nil, fmt.Errorf("the server ended at once: %w", err)
		case <-time.After(time.Millisecond):
		}
	}
	return s, nil
}
