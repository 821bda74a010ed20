//go:build linux && (amd64 || arm64)

package main

import (
	"context"
	"crypto/tls"
	"net"
	"time"

	"github.com/cloudwego/hertz/pkg/app"
	"github.com/cloudwego/hertz/pkg/app/server"
	"github.com/cloudwego/hertz/pkg/common/config"
	"github.com/cloudwego/hertz/pkg/common/hlog"
	"github.com/cloudwego/hertz/pkg/network"
	"github.com/cloudwego/hertz/pkg/protocol/http1/resp"
)

// What every server is given. All keep connections alive.
const (
	readTimeout = 3 * time.Minute // Hertz's default
	idleTimeout = time.Hour
	maxBody     = 4 * mebibyte
	contentType = "application/octet-stream"
	serverName  = "hertz" // Hertz's own, so all say it
)

// hertz returns a peer's start for Hertz on a transport.
func hertz(transport func(*config.Options) network.Transporter) func(workload, *tls.Config, string) (string, error) {
	return func(w workload, secure *tls.Config, file string) (string, error) {
		hlog.SetLevel(hlog.LevelFatal)
		addr, err := freeAddr()
		if err != nil {
			return "", err
		}
		options := []config.Option{
			server.WithHostPorts(addr), server.WithTransport(transport), server.WithKeepAlive(true),
			server.WithReadTimeout(readTimeout), server.WithIdleTimeout(idleTimeout), server.WithMaxRequestBodySize(maxBody),
		}
		if secure != nil {
			options = append(options, server.WithTLS(secure))
		}
		h := server.New(options...)
		body := w.served()
		h.GET("/body", func(_ context.Context, ctx *app.RequestContext) {
			ctx.SetContentType(contentType)
			ctx.Response.SetBodyRaw(body)
		})
		h.POST("/echo", func(_ context.Context, ctx *app.RequestContext) {
			ctx.SetContentType(contentType)
			ctx.Write(ctx.Request.Body()) // a copy: netpoll needs it
		})
		h.GET("/stream", func(_ context.Context, ctx *app.RequestContext) {
			ctx.SetContentType(contentType)
			out := resp.NewChunkedBodyWriter(&ctx.Response, ctx.GetWriter())
			ctx.Response.HijackWriter(out)
			for i := 0; i < len(body); i += chunk {
				if _, err := out.Write(body[i : i+chunk]); err != nil {
					return
				}
				if err := out.Flush(); err != nil {
					return
				}
			}
		})
		h.StaticFile("/file", file)
		failed := make(chan error, 1)
		go func() { failed <- h.Run() }()
		for {
			if c, err := net.Dial("tcp", addr); err == nil {
				return addr, c.Close()
			}
			select {
			case err := <-failed:
				return "", err
			case <-time.After(2 * time.Millisecond):
			}
		}
	}
}

// freeAddr finds an address that Hertz can be told, since netpoll takes no listener of
// another kind than its own.
func freeAddr() (string, error) {
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return "", err
	}
	defer ln.Close()
	return ln.Addr().String(), nil
}
