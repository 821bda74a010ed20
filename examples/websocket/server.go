package main

import (
	"context"
	"crypto/tls"
	_ "embed"
	"fmt"
	"net"
	"time"

	"github.com/cloudwego/hertz/pkg/app"
	"github.com/cloudwego/hertz/pkg/app/server"
	"github.com/cloudwego/hertz/pkg/common/config"
	"github.com/cloudwego/hertz/pkg/protocol/consts"
	"github.com/hertz-contrib/websocket"

	"github.com/hertznet/hertznet"
	"github.com/hertznet/hertznet/standard"
)

//go:embed page.html
var page []byte

// settings are what differs between servers.
type settings struct {
	listener  net.Listener
	tls       *tls.Config // nil: plain
	pingEvery time.Duration
	exitWait  time.Duration // for handlers that run when the server is told to stop
	goodbye   bool          // the application closes its connections then
}

// site is a server that runs.
type site struct {
	settings
	h           *server.Hertz
	transporter *standard.Transporter
	connEnded   chan error // why, for each connection; what nobody takes is dropped
	ended       chan error // what Run returned
}

func start(set settings) (*site, error) {
	s := &site{settings: set, connEnded: make(chan error, 256), ended: make(chan error, 1)}
	options := []config.Option{
		server.WithTransport(hertznet.Transport(func(t *standard.Transporter) { s.transporter = t })),
		server.WithListener(set.listener),
		server.WithReadTimeout(10 * time.Second),
		server.WithWriteTimeout(10 * time.Second),
		server.WithIdleTimeout(time.Minute),
		server.WithExitWaitTime(set.exitWait),
	}
	if set.tls != nil {
		options = append(options, server.WithTLS(set.tls))
	}
	s.h = server.Default(options...)
	// Else a connection that the hub still knows as its handler returns may be another one,
	// or none (nil), when the hub uses it: Hertz keeps the wrappers in a pool.
	s.h.NoHijackConnPool = true

	connections := &hub{
		pingEvery: set.pingEvery,
		conns:     make(map[*websocket.Conn]bool),
		ended: func(why error) {
			select {
			case s.connEnded <- why:
			default:
			}
		},
	}
	if set.goodbye {
		s.h.OnShutdown = append(s.h.OnShutdown, connections.shutdown)
	}
	s.h.GET("/echo", connections.upgrade)
	s.h.GET("/", func(_ context.Context, ctx *app.RequestContext) {
		ctx.Data(consts.StatusOK, "text/html; charset=utf-8", page)
	})

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

// hostURL is a URL of the site but for "http" or "ws" in front.
func (s *site) hostURL() string {
	a := s.listener.Addr().(*net.TCPAddr)
	host := "localhost"
	if !a.IP.IsUnspecified() {
		host = a.IP.String()
	}
	scheme := "://"
	if s.tls != nil {
		scheme = "s://"
	}
	return scheme + net.JoinHostPort(host, fmt.Sprint(a.Port))
}
