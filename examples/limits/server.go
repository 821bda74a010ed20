package main

import (
	"bytes"
	"context"
	"crypto/tls"
	"fmt"
	"net"
	"time"

	"github.com/cloudwego/hertz/pkg/app"
	"github.com/cloudwego/hertz/pkg/app/server"
	"github.com/cloudwego/hertz/pkg/common/config"

	"github.com/hertznet/hertznet"
	"github.com/hertznet/hertznet/standard"
)

// The limits. Sizes and counts are those of a small server; times are made for a
// demonstration that ends soon. What serves people far away needs ten to a hundred times
// as long: a ReadTimeout has to be enough for the largest body on a slow line, since
// Hertz reads a body with a Content-Length in one operation.
const (
	readTimeout      = 400 * time.Millisecond // a first byte, and each read of a request
	writeTimeout     = 300 * time.Millisecond // each write of an answer
	idleTimeout      = 300 * time.Millisecond // between two requests
	handshakeTimeout = 300 * time.Millisecond // of TLS
	minReadRate      = 1000                   // bytes a second, while a request is read
	minReadGrace     = 200 * time.Millisecond // for which a peer may be slower
	maxConns         = 40                     // connections
	maxConnsPerIP    = 16                     // of them from one address
	maxHeaderBytes   = 16 << 10
	maxBodyBytes     = 256 << 10
	maxReadBuffer    = maxHeaderBytes + maxBodyBytes + 64<<10 // larger than any request may be

	bigAnswer = 32 << 20 // bytes: more than the buffers of two sockets hold
)

// site is a server that runs.
type site struct {
	addr      string
	h         *server.Hertz
	transport *standard.Transporter
}

// newSite starts a server, over TLS if config is not nil. perIP is whether MaxConnsPerIP
// is set if the others are.
func newSite(protected, perIP bool, tlsConfig *tls.Config) (*site, error) {
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return nil, err
	}
	s := &site{addr: ln.Addr().String()}
	options := []config.Option{
		server.WithListener(ln),
		server.WithTransport(hertznet.Transport(func(t *standard.Transporter) {
			s.transport = t
			if protected {
				t.HandshakeTimeout = handshakeTimeout
				t.MinReadRate, t.MinReadGrace = minReadRate, minReadGrace
				t.MaxConns = maxConns // those beyond it wait; see RejectOverMaxConns
				t.MaxReadBuffer = maxReadBuffer
				if perIP {
					t.MaxConnsPerIP = maxConnsPerIP
				}
			} else {
				t.HandshakeTimeout = -1
			}
		})),
		server.WithExitWaitTime(time.Second),
		server.WithDisablePrintRoute(true),
	}
	if protected {
		options = append(options,
			server.WithReadTimeout(readTimeout),
			server.WithWriteTimeout(writeTimeout),
			server.WithIdleTimeout(idleTimeout),
			server.WithMaxHeaderBytes(maxHeaderBytes),
			server.WithMaxRequestBodySize(maxBodyBytes),
		)
	} else {
		options = append(options,
			server.WithReadTimeout(0),
			server.WithWriteTimeout(0),
			server.WithIdleTimeout(0),
			server.WithMaxHeaderBytes(0),
			server.WithMaxRequestBodySize(0),
		)
	}
	if tlsConfig != nil {
		options = append(options, server.WithTLS(tlsConfig))
	}
	s.h = server.New(options...)
	s.h.POST("/echo", func(_ context.Context, ctx *app.RequestContext) { ctx.Response.SetBodyRaw(ctx.Request.Body()) })
	big := bytes.Repeat([]byte("big "), bigAnswer/4)
	s.h.GET("/big", func(_ context.Context, ctx *app.RequestContext) { ctx.Response.SetBodyRaw(big) })

	ended := make(chan error, 1)
	go func() { ended <- s.h.Run() }()
	for !s.h.IsRunning() {
		select {
		case err := <-ended:
			return nil, fmt.Errorf("the server ended at once: %w", err)
		case <-time.After(time.Millisecond):
		}
	}
	return s, nil
}
