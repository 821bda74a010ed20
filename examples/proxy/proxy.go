package main

import (
	"context"
	"crypto/sha256"
	"crypto/subtle"
	"encoding/base64"
	"errors"
	"fmt"
	"io"
	"net"
	"strings"
	"sync"
	"time"

	"github.com/cloudwego/hertz/pkg/app"
	"github.com/cloudwego/hertz/pkg/app/client"
	"github.com/cloudwego/hertz/pkg/app/server"
	errs "github.com/cloudwego/hertz/pkg/common/errors"
	"github.com/cloudwego/hertz/pkg/network"
	"github.com/cloudwego/hertz/pkg/protocol/consts"

	"github.com/hertznet/hertznet"
	"github.com/hertznet/hertznet/standard"
)

const (
	dialLimit = 5 * time.Second
	maxBody   = 16 << 20 // bytes of a request; what is larger goes through a tunnel
	maxConns  = 1000     // of clients; each may have a connection to a target, too
	exitWait  = time.Second
)

// proxy is a forward proxy: requests with a whole http URL it sends on, and CONNECT it
// answers with a tunnel.
type proxy struct {
	ln        net.Listener
	h         *server.Hertz
	transport *standard.Transporter
	ended     chan error // what Run returned

	allowed     map[string]bool // targets, as host:port in lower case
	credentials [sha256.Size]byte
	upstream    *client.Client // for plain HTTP

	drainLimit time.Duration // how long open tunnels have when the proxy shuts down
	mu         sync.Mutex
	tunnels    map[*tunnel]bool
	counts     counts
}

// newProxy starts a proxy on ln that leads to the allowed targets only, each host:port,
// and only for who knows the credentials, user:password.
//
// A name in the list is allowed wherever it leads: its owner can point it to an address
// inside of your network. List addresses, or check in net.Dialer.Control what a name has
// become.
func newProxy(ln net.Listener, credentials string, drainLimit time.Duration, allowed ...string) (*proxy, error) {
	p := &proxy{
		ln:          ln,
		ended:       make(chan error, 1),
		allowed:     make(map[string]bool),
		credentials: sha256.Sum256([]byte(credentials)),
		drainLimit:  drainLimit,
		tunnels:     make(map[*tunnel]bool),
	}
	for _, target := range allowed {
		if _, _, err := net.SplitHostPort(target); err != nil {
			return nil, fmt.Errorf("an allowed target: %w", err)
		}
		p.allowed[strings.ToLower(target)] = true
	}

	var err error
	p.upstream, err = client.NewClient(
		client.WithDialer(hertznet.NewDialer(func(d *standard.Dialer) { d.DialContext = p.dial })),
		client.WithDialTimeout(dialLimit),
		client.WithClientReadTimeout(time.Minute),
		client.WithWriteTimeout(time.Minute),
		client.WithResponseBodyStream(true),         // an answer is passed on as it comes
		client.WithDisablePathNormalizing(true),     // a proxy sends the path as it came
		client.WithNoDefaultUserAgentHeader(true),   // and is not the user agent
		client.WithMaxConnWaitTimeout(dialLimit),    // for a connection, when all to a target are busy
		client.WithMaxIdleConnDuration(time.Minute), // in the pool
	)
	if err != nil {
		return nil, err
	}

	p.h = server.New(
		server.WithTransport(hertznet.Transport(func(t *standard.Transporter) {
			t.MaxConns = maxConns
			p.transport = t
		})),
		server.WithListener(ln),
		server.WithReadTimeout(10*time.Second),
		server.WithWriteTimeout(time.Minute),
		server.WithIdleTimeout(time.Minute),
		server.WithExitWaitTime(drainLimit+exitWait),
		// Not WithStreamBody: Hertz v0.10.4 reads past the end of a streamed body when
		// the next request follows it at once.
		server.WithMaxRequestBodySize(maxBody),
		server.WithDisablePrintRoute(true),
	)
	p.h.Use(p.authenticate)
	p.h.Any("/*target", p.serve)

	go func() { p.ended <- p.h.Run() }()
	for !p.h.IsRunning() {
		select {
		case err := <-p.ended:
			return nil, fmt.Errorf("the proxy ended at once: %w", err)
		case <-time.After(time.Millisecond):
		}
	}
	return p, nil
}

// shutdown waits for requests, and for tunnels until drainLimit has passed. Then it cuts
// those that are left: they are connections that Hertz's Shutdown waits for, too, and
// would close at the end, which looks to a client as if its target had ended the stream.
func (p *proxy) shutdown() error {
	late := time.AfterFunc(p.drainLimit, func() {
		p.mu.Lock()
		defer p.mu.Unlock()
		for t := range p.tunnels {
			t.abort(errors.New("the proxy shuts down"))
		}
	})
	defer late.Stop()
	err := p.h.Shutdown(context.Background())
	p.upstream.CloseIdleConnections()
	return err
}

var errForbidden = errors.New("not on the list of allowed targets")

// dial is the one way to a target, for tunnels and for requests, so that neither can
// miss the check.
func (p *proxy) dial(ctx context.Context, network, addr string) (net.Conn, error) {
	if !p.allowed[strings.ToLower(addr)] {
		return nil, fmt.Errorf("%s is %w", addr, errForbidden)
	}
	ctx, cancel := context.WithTimeout(ctx, dialLimit)
	defer cancel()
	return new(net.Dialer).DialContext(ctx, network, addr)
}

// authenticate ends a request without the right credentials.
func (p *proxy) authenticate(_ context.Context, ctx *app.RequestContext) {
	scheme, encoded, _ := strings.Cut(ctx.Request.Header.Get("Proxy-Authorization"), " ")
	given, err := base64.StdEncoding.DecodeString(encoded)
	sum := sha256.Sum256(given) // of one length, for a comparison in constant time
	if err == nil && strings.EqualFold(scheme, "Basic") && subtle.ConstantTimeCompare(sum[:], p.credentials[:]) == 1 {
		return
	}
	ctx.Header("Proxy-Authenticate", `Basic realm="proxy", charset="UTF-8"`)
	ctx.String(consts.StatusProxyAuthRequired, "this proxy wants a user and a password\n")
	ctx.Abort()
}

func (p *proxy) serve(c context.Context, ctx *app.RequestContext) {
	if ctx.Request.Header.IsConnect() {
		p.connect(c, ctx)
	} else {
		p.forward(c, ctx)
	}
}

// forward has a target answer a request.
func (p *proxy) forward(c context.Context, ctx *app.RequestContext) {
	req, resp := &ctx.Request, &ctx.Response
	const scheme = "http://"
	if u := req.Header.RequestURI(); len(u) < len(scheme) || !strings.EqualFold(string(u[:len(scheme)]), scheme) {
		ctx.String(consts.StatusBadRequest, "this is a proxy: send it CONNECT or a whole http:// URL\n")
		return
	}
	p.counts.forwarded.Add(1)
	req.Header.SetHostBytes(req.URI().Host()) // whatever the client's says (RFC 9112, section 3.2.2)
	removeHopByHop(&req.Header)
	req.Header.Del("Expect") // it has been met: the body is here
	req.Header.Add("Via", via)
	if err := p.upstream.Do(c, req, resp); err != nil {
		resp.Reset()
		refuse(ctx, err)
		return
	}
	removeHopByHop(&resp.Header)
	resp.Header.SetNoDefaultContentType(true) // the answer is passed on as it is
	resp.Header.SetNoDefaultDate(true)
	resp.Header.SetConnectionClose(false) // that of the target says nothing about the client's
	resp.Header.Add("Via", via)
}

const via = "1.1 hertznet-example"

// connect answers CONNECT with a tunnel.
func (p *proxy) connect(c context.Context, ctx *app.RequestContext) {
	client, ok := beneath(ctx.GetConn())
	if !ok {
		ctx.String(consts.StatusNotImplemented, "no tunnel through a %T\n", ctx.GetConn())
		return
	}
	nc, err := p.dial(c, "tcp", string(ctx.Request.Header.RequestURI()))
	if err != nil {
		refuse(ctx, err)
		return
	}
	t := &tunnel{client: client, target: nc.(*net.TCPConn), idle: tunnelIdle, counts: &p.counts}
	ctx.Response.HijackWriter(&established{w: ctx.GetWriter(), failed: t.abort})
	ctx.Hijack(func(c network.Conn) {
		p.enter(t)
		defer p.leave(t)
		t.run(c)
	})
}

func (p *proxy) enter(t *tunnel) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.tunnels[t] = true
	p.counts.opened.Add(1)
}

func (p *proxy) leave(t *tunnel) {
	p.mu.Lock()
	defer p.mu.Unlock()
	delete(p.tunnels, t)
}

// open returns how many tunnels are.
func (p *proxy) open() int {
	p.mu.Lock()
	defer p.mu.Unlock()
	return len(p.tunnels)
}

// established is the answer to CONNECT: without a Content-Length, which Hertz would add
// and a 200 to CONNECT must not have (RFC 9110, section 9.3.6).
type established struct {
	w      network.Writer
	failed func(error) // Hertz calls no hijacker then
	done   bool
}

func (e *established) Finalize() error {
	if e.done {
		return nil
	}
	e.done = true
	_, err := e.w.WriteBinary([]byte("HTTP/1.1 200 Connection established\r\n\r\n"))
	if err == nil {
		err = e.w.Flush()
	}
	if err != nil {
		e.failed(err)
	}
	return err
}

func (*established) Write([]byte) (int, error) { return 0, io.ErrClosedPipe } // there is no body
func (*established) Flush() error              { return nil }

// refuse says why a target could not be reached.
func refuse(ctx *app.RequestContext, err error) {
	status := consts.StatusBadGateway
	var timeout interface{ Timeout() bool }
	switch {
	case errors.Is(err, errForbidden):
		status = consts.StatusForbidden
	case errors.Is(err, errs.ErrTimeout) || errors.As(err, &timeout) && timeout.Timeout():
		status = consts.StatusGatewayTimeout
	}
	ctx.String(status, "%v\n", err)
}

// removeHopByHop removes what is meant for one connection alone, the proxy's password
// included (RFC 9110, section 7.6.1).
func removeHopByHop(h interface {
	PeekAll(name string) [][]byte
	Del(name string)
}) {
	var named []string
	for _, v := range h.PeekAll("Connection") {
		named = append(named, strings.Split(string(v), ",")...)
	}
	for _, name := range append(named, "Connection", "Proxy-Connection", "Keep-Alive", "Proxy-Authenticate",
		"Proxy-Authorization", "Te", "Upgrade") { // Transfer-Encoding is Hertz's matter
		h.Del(strings.TrimSpace(name))
	}
}
