package main

import (
	"context"
	"crypto/tls"
	"fmt"
	"net"
	"time"

	"github.com/cloudwego/hertz/pkg/app"
	"github.com/cloudwego/hertz/pkg/app/server"
	"github.com/cloudwego/hertz/pkg/network"
	"github.com/cloudwego/hertz/pkg/protocol/consts"

	"github.com/hertznet/hertznet"
	"github.com/hertznet/hertznet/standard"
)

// site is a server that runs.
type site struct {
	h       *server.Hertz
	url     string
	ended   chan error // what Run returned
	refused chan error // why a handshake failed, as the server saw it
}

// start serves HTTPS on addr. What the connections share, hertznet makes of config with
// tlsconn.ServerConfig.
func start(addr string, config *tls.Config) (*site, error) {
	ln, err := net.Listen("tcp", addr)
	if err != nil {
		return nil, err
	}
	s := &site{url: url(ln.Addr().(*net.TCPAddr)), ended: make(chan error, 1), refused: make(chan error, 1)}
	s.h = server.New(
		server.WithTransport(hertznet.Transport(func(t *standard.Transporter) {
			t.HandshakeTimeout = 5 * time.Second
			answer := t.OnHandshakeError // tells whoever speaks HTTP without TLS
			t.OnHandshakeError = func(c net.Conn, err error) {
				answer(c, err)
				select {
				case s.refused <- err:
				default: // nobody has read the last one
				}
			}
		})),
		server.WithListener(ln),
		server.WithTLS(config),
		server.WithALPN(true), // adds http/1.1 to config
		server.WithReadTimeout(limit),
		server.WithWriteTimeout(limit),
		server.WithExitWaitTime(limit),
	)
	s.h.GET("/", hello)
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

// stop lets the requests that are running end.
func (s *site) stop() error { return s.h.Shutdown(context.Background()) }

// url is where a is for a client on this machine.
func url(a *net.TCPAddr) string {
	host := "localhost"
	if !a.IP.IsUnspecified() {
		host = a.IP.String()
	}
	return "https://" + net.JoinHostPort(host, fmt.Sprint(a.Port)) + "/"
}

// hello greets a client by the name in its certificate, and says what was negotiated.
func hello(_ context.Context, ctx *app.RequestContext) {
	state := ctx.GetConn().(network.ConnTLSer).ConnectionState() // every connection has TLS
	name := "stranger"
	// PeerCertificates would be what a client claims, if ClientAuth verified nothing.
	if len(state.VerifiedChains) > 0 {
		name = state.VerifiedChains[0][0].Subject.CommonName
	}
	ctx.String(consts.StatusOK, "hello %s over %s\n", name, describe(state))
}

// describe says the same on both sides of a connection.
func describe(s tls.ConnectionState) string {
	how := "new session"
	if s.DidResume {
		how = "resumed session"
	}
	return fmt.Sprintf("%s, ALPN %s, %s", tls.VersionName(s.Version), s.NegotiatedProtocol, how)
}
