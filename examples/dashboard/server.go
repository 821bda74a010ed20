package main

import (
	"context"
	"crypto/tls"
	"embed"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"runtime/metrics"
	"strconv"
	"sync/atomic"
	"time"

	"github.com/cloudwego/hertz/pkg/app"
	"github.com/cloudwego/hertz/pkg/app/server"
	"github.com/cloudwego/hertz/pkg/common/config"
	"github.com/cloudwego/hertz/pkg/protocol/consts"
	"github.com/cloudwego/hertz/pkg/protocol/sse"

	"github.com/hertznet/hertznet"
	"github.com/hertznet/hertznet/standard"
	"github.com/hertznet/hertznet/tlsconn"
)

//go:embed page.html page.css page.js
var files embed.FS

// Short, so that each of them is seen at work within seconds.
const (
	readTimeout = 500 * time.Millisecond
	parkAfter   = 200 * time.Millisecond
	idleTimeout = 2 * time.Second
	exitWait    = 5 * time.Second // for requests that run when the server is told to stop
)

// sample is an event: what has been counted up to a moment. Rates are for the reader
// to make, from two of them.
type sample struct {
	At         int64  // Unix time in ms
	Requests   uint64 // that began
	Goroutines uint64
	Heap       uint64 // bytes of objects, dead ones included until they are swept
	Load       loadStats
	Servers    []standard.Stats // PoolBytes is of the process, the same in each
}

// site is the page's server, and a second one with TLS that only the load uses.
type site struct {
	ctx          context.Context // of events and load
	cancel       context.CancelFunc
	ln           net.Listener
	servers      []*server.Hertz
	transporters []*standard.Transporter
	ended        chan error // what Run of a server returned
	requests     atomic.Uint64
	load         *load
}

// start serves on ln.
func start(ln net.Listener) (*site, error) {
	cert, pool, err := tlsconn.SelfSigned()
	if err != nil {
		return nil, errors.Join(err, ln.Close())
	}
	secure, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return nil, errors.Join(err, ln.Close())
	}
	s := &site{ln: ln, ended: make(chan error, 2)}
	s.ctx, s.cancel = context.WithCancel(context.Background())
	s.load = newLoad(s.ctx, s.host(), secure.Addr().String(), &tls.Config{RootCAs: pool, ServerName: "localhost"})
	err = errors.Join(s.serve(ln, nil), s.serve(secure, &tls.Config{Certificates: []tls.Certificate{cert}}))
	if err != nil {
		return nil, errors.Join(err, s.stop())
	}
	return s, nil
}

func (s *site) serve(ln net.Listener, tlsConfig *tls.Config) error {
	transport := hertznet.Transport(func(t *standard.Transporter) {
		t.ParkAfter = parkAfter
		t.CancelOnDisconnect = true // ends the events of a page that is closed
		s.transporters = append(s.transporters, t)
	})
	options := []config.Option{
		server.WithTransport(transport),
		server.WithListener(ln),
		server.WithReadTimeout(readTimeout),
		server.WithWriteTimeout(10 * time.Second),
		server.WithIdleTimeout(idleTimeout),
		server.WithExitWaitTime(exitWait),
	}
	if tlsConfig != nil {
		options = append(options, server.WithTLS(tlsConfig))
	}
	h := server.Default(options...)
	h.Use(func(c context.Context, ctx *app.RequestContext) {
		s.requests.Add(1)
		ctx.Next(c)
	})
	h.GET("/", file("page.html", "text/html; charset=utf-8"))
	h.GET("/page.css", file("page.css", "text/css; charset=utf-8"))
	h.GET("/page.js", file("page.js", "text/javascript; charset=utf-8"))
	h.GET("/events", s.events)
	h.POST("/load", s.startLoad)
	h.GET("/work", work)
	s.servers = append(s.servers, h)

	go func() { s.ended <- h.Run() }()
	for !h.IsRunning() {
		select {
		case err := <-s.ended:
			return fmt.Errorf("the server on %s ended at once: %w", ln.Addr(), err)
		case <-time.After(time.Millisecond):
		}
	}
	return nil
}

// stop ends the events and the load, and then the servers.
func (s *site) stop() error {
	s.cancel()
	s.load.wait()
	errs := make(chan error)
	for _, h := range s.servers {
		go func() { errs <- h.Shutdown(context.Background()) }()
	}
	var err error
	for range s.servers {
		err = errors.Join(err, <-errs)
	}
	return err
}

// host returns where this machine finds the page's server.
func (s *site) host() string {
	a := s.ln.Addr().(*net.TCPAddr)
	if a.IP.IsUnspecified() {
		return net.JoinHostPort("localhost", strconv.Itoa(a.Port))
	}
	return a.String()
}

func (s *site) url() string { return "http://" + s.host() }

func (s *site) sample() sample {
	m := []metrics.Sample{{Name: "/sched/goroutines:goroutines"}, {Name: "/memory/classes/heap/objects:bytes"}}
	metrics.Read(m) // unlike runtime.ReadMemStats it does not stop the world
	v := sample{
		At:         time.Now().UnixMilli(),
		Requests:   s.requests.Load(),
		Goroutines: m[0].Value.Uint64(),
		Heap:       m[1].Value.Uint64(),
		Load:       s.load.stats(),
	}
	for _, t := range s.transporters {
		v.Servers = append(v.Servers, t.Stats())
	}
	return v
}

// events sends a sample at once and then one at each interval, until the client is gone
// or the server stops.
func (s *site) events(c context.Context, ctx *app.RequestContext) {
	every, err := time.ParseDuration(ctx.DefaultQuery("every", "500ms"))
	if err != nil || every < 50*time.Millisecond || every > 10*time.Second {
		ctx.String(consts.StatusBadRequest, "every must be between 50ms and 10s\n")
		return
	}
	tick := time.NewTicker(every)
	defer tick.Stop()
	w := sse.NewWriter(ctx)
	for id := 1; ; id++ {
		data, err := json.Marshal(s.sample())
		if err != nil {
			ctx.Error(err)
			return
		}
		if err := w.WriteEvent(strconv.Itoa(id), "", data); err != nil {
			return
		}
		select {
		case <-tick.C:
		case <-c.Done():
			return
		case <-s.ctx.Done():
			return
		}
	}
}

func (s *site) startLoad(_ context.Context, ctx *app.RequestContext) {
	d, err := time.ParseDuration(ctx.DefaultQuery("for", "8s"))
	switch {
	case err != nil || d <= 0 || d > maxLoad:
		ctx.String(consts.StatusBadRequest, "for must be more than 0s and at most %v\n", maxLoad)
	case !s.load.start(d):
		ctx.String(consts.StatusConflict, "a load is running already\n")
	default:
		ctx.String(consts.StatusAccepted, "the load runs for %v\n", d)
	}
}

var answer = make([]byte, 2<<10)

// work is what the load asks for.
func work(_ context.Context, ctx *app.RequestContext) {
	ctx.Data(consts.StatusOK, consts.MIMEApplicationOctetStream, answer)
}

func file(name, contentType string) app.HandlerFunc {
	return func(_ context.Context, ctx *app.RequestContext) {
		b, err := files.ReadFile(name)
		if err != nil {
			ctx.AbortWithError(consts.StatusInternalServerError, err)
			return
		}
		ctx.Header("Content-Security-Policy", "default-src 'self'; img-src data:")
		ctx.Data(consts.StatusOK, contentType, b)
	}
}
