package main

import (
	"context"
	"crypto/tls"
	"fmt"
	"net"
	"path/filepath"
	"time"

	"github.com/cloudwego/hertz/pkg/app"
	"github.com/cloudwego/hertz/pkg/app/server"
	"github.com/cloudwego/hertz/pkg/common/config"
	"github.com/cloudwego/hertz/pkg/network"
	"github.com/cloudwego/hertz/pkg/protocol/consts"
	"github.com/cloudwego/hertz/pkg/protocol/http1/resp"

	"github.com/hertznet/hertznet"
)

const (
	chunks   = 5               // of /stream
	exitWait = 5 * time.Second // for requests that run when the server is told to stop
)

// site is a server that runs.
type site struct {
	transport string // tcp, tls or unix
	ln        net.Listener
	h         *server.Hertz
	ended     chan error // what Run returned
}

// start serves the files in dir and a few handlers on ln.
func start(transport string, ln net.Listener, dir string, cert tls.Certificate) (*site, error) {
	options := []config.Option{
		server.WithTransport(hertznet.NewTransporter),
		server.WithListener(ln),
		server.WithReadTimeout(10 * time.Second),
		server.WithWriteTimeout(10 * time.Second),
		server.WithIdleTimeout(time.Minute),
		server.WithExitWaitTime(exitWait),
	}
	if transport == "tls" {
		options = append(options, server.WithTLS(&tls.Config{Certificates: []tls.Certificate{cert}}))
	}
	h := server.Default(options...)
	h.StaticFile("/", filepath.Join(dir, "page.html"))
	h.StaticFile("/files/mebibyte.bin", filepath.Join(dir, "mebibyte.bin"))
	h.GET("/hello", hello)
	h.POST("/greet", greet)
	h.POST("/echo", echo)
	h.GET("/stream", stream)

	s := &site{transport: transport, ln: ln, h: h, ended: make(chan error, 1)}
	go func() { s.ended <- h.Run() }()
	for !h.IsRunning() {
		select {
		case err := <-s.ended:
			return nil, fmt.Errorf("the %s server ended at once: %w", transport, err)
		case <-time.After(time.Millisecond):
		}
	}
	return s, nil
}

// url returns where the site is: for a client on this machine, if it listens
// everywhere. On a unix socket the host only fills the Host header.
func (s *site) url() string {
	scheme, host := "http", "localhost"
	if s.transport == "tls" {
		scheme = "https"
	}
	if a, ok := s.ln.Addr().(*net.TCPAddr); ok {
		if !a.IP.IsUnspecified() {
			host = a.IP.String()
		}
		host = net.JoinHostPort(host, fmt.Sprint(a.Port))
	}
	return scheme + "://" + host
}

// hello says how the request came.
func hello(_ context.Context, ctx *app.RequestContext) {
	ctx.String(consts.StatusOK, "Hello over %s\n", over(ctx.GetConn()))
}

func over(c network.Conn) string {
	name := c.LocalAddr().Network()
	if t, ok := c.(network.ConnTLSer); ok { // connections without TLS are none
		name += " with " + tls.VersionName(t.ConnectionState().Version)
	}
	return name
}

type greeting struct {
	Name  string `json:"name,omitempty"`
	Hello string `json:"hello,omitempty"`
}

// greet answers JSON with JSON.
func greet(_ context.Context, ctx *app.RequestContext) {
	var g greeting
	if err := ctx.BindJSON(&g); err != nil || g.Name == "" {
		ctx.String(consts.StatusBadRequest, "send JSON such as {\"name\":\"Gopher\"}\n")
		return
	}
	ctx.JSON(consts.StatusOK, greeting{Hello: g.Name})
}

// echo answers with the request's own body. It lies in the connection's memory, which
// hertznet keeps until the answer has been sent: nothing is copied above
// the socket (TLS encrypts a copy).
func echo(_ context.Context, ctx *app.RequestContext) {
	ctx.Response.SetBodyRaw(ctx.Request.Body())
	ctx.SetContentTypeBytes(ctx.ContentType())
}

// stream sends a line in each chunk as soon as it is there.
func stream(_ context.Context, ctx *app.RequestContext) {
	every, err := time.ParseDuration(ctx.DefaultQuery("every", "10ms"))
	if err != nil || every < 0 || every > time.Second {
		ctx.String(consts.StatusBadRequest, "every must be between 0s and 1s\n")
		return
	}
	ctx.SetContentType("text/plain; charset=utf-8")
	ctx.Response.HijackWriter(resp.NewChunkedBodyWriter(&ctx.Response, ctx.GetWriter()))
	for i := range chunks {
		if i > 0 {
			time.Sleep(every)
		}
		if _, err := ctx.WriteString(chunk(i)); err != nil {
			return
		}
		if err := ctx.Flush(); err != nil {
			return // the client is gone
		}
	}
}

func chunk(i int) string { return fmt.Sprintf("chunk %d of %d\n", i+1, chunks) }
