package main

import (
	"context"
	"errors"
	"fmt"
	"net"
	"time"

	"github.com/cloudwego/hertz/pkg/app"
	"github.com/cloudwego/hertz/pkg/app/server"
	"github.com/cloudwego/hertz/pkg/common/config"
	"github.com/cloudwego/hertz/pkg/protocol/consts"

	"github.com/hertznet/hertznet"
	"github.com/hertznet/hertznet/standard"
)

// site is a server that runs.
type site struct {
	h     *server.Hertz
	addr  string     // the path, or @name
	ended chan error // what Run returned
}

// start serves where the options say, to the peers that admit is true for.
func start(admit func(peer) bool, listen ...config.Option) (*site, error) {
	var t *standard.Transporter
	h := server.New(append(listen,
		server.WithTransport(hertznet.Transport(func(beneath *standard.Transporter) { t = beneath })),
		server.WithOnAccept(knowPeer(admit)),
		server.WithReadTimeout(limit),
		server.WithWriteTimeout(limit),
		server.WithExitWaitTime(limit),
	)...)
	h.GET("/", hello)
	s := &site{h: h, ended: make(chan error, 1)}
	go func() { s.ended <- h.Run() }()
	for t.Listener() == nil {
		select {
		case err := <-s.ended:
			return nil, err
		case <-time.After(time.Millisecond):
		}
	}
	s.addr = t.Listener().Addr().String()
	return s, nil
}

// stop lets the requests that are running end.
func (s *site) stop() error { return s.h.Shutdown(context.Background()) }

// peer is who has connected. It is known on Linux; see peer_linux.go.
type peer struct{ pid, uid, gid int }

func (p peer) String() string {
	return fmt.Sprintf("process %d, user %d, group %d", p.pid, p.uid, p.gid)
}

type peerKey struct{} // of a peer in a context

func anybody(peer) bool { return true }

// knowPeer returns a hook that is called with each connection before a byte is read from
// it. What it puts into the context, the handlers of all its requests find there. Where
// the system does not tell who a peer is, it is not asked for.
func knowPeer(admit func(peer) bool) func(net.Conn) context.Context {
	return func(nc net.Conn) context.Context {
		ctx := context.Background()
		p, err := peerOf(nc)
		switch {
		case errors.Is(err, errors.ErrUnsupported):
		case err != nil || !admit(p):
			nc.Close() // which refuses it
		default:
			ctx = context.WithValue(ctx, peerKey{}, p)
		}
		return ctx
	}
}

// hello tells a client whom it is taken for.
func hello(c context.Context, ctx *app.RequestContext) {
	if p, ok := c.Value(peerKey{}).(peer); ok {
		ctx.String(consts.StatusOK, "hello %v\n", p)
		return
	}
	ctx.String(consts.StatusOK, "hello, whoever you are\n")
}
