package hertznet

import (
	"context"
	"crypto/tls"
	"io"
	"log/slog"
	"math"
	"net"
	"sync/atomic"
	"time"

	"github.com/cloudwego/hertz/pkg/common/config"
	"github.com/cloudwego/hertz/pkg/common/hlog"
	"github.com/cloudwego/hertz/pkg/common/utils"
	"github.com/cloudwego/hertz/pkg/network"
	ours "github.com/hertznet/hertznet/network"
	"github.com/hertznet/hertznet/standard"
)

// noIdleTimeout is a limit that no hijacker sets, see serverConn.SetReadTimeout.
const noIdleTimeout = math.MinInt64 * time.Nanosecond

// NewTransporter returns a transporter for a Hertz server, set up by the server's
// options:
//
//	h := server.New(server.WithTransport(hertznet.NewTransporter))
//
// It changes one of them: an IdleTimeout of 0 or less, which is no limit, becomes the
// least time.Duration, and any other an odd number of nanoseconds. With 0, Hertz's
// HTTP/1 server closes a connection after each request, unless the transporter's package
// is called "standard" (pkg/route/engine.go). And no handler or hijacker sets such a read
// timeout, so it tells Hertz's wait for a next request from all other reading.
func NewTransporter(o *config.Options) network.Transporter {
	return Transport()(o)
}

// Transport is [NewTransporter] with settings of hertznet's own. Each configure is
// called once, while the server is made, with the transporter that the server's options
// have been applied to:
//
//	server.WithTransport(hertznet.Transport(func(t *standard.Transporter) {
//		t.HandshakeTimeout = 5 * time.Second
//	}))
//
// Set ReadTimeout and IdleTimeout by the server's options. Hertz takes them from there and
// sets them on each connection, so a ReadTimeout that a configure sets holds for the first
// request at most, and an IdleTimeout while the connection is parked.
//
// On Linux idle connections are parked after ParkAfter: they give up their goroutine,
// their buffer and Hertz's RequestContext until the next byte comes. With tracers none
// is, since Hertz would count its last request twice, nor with WithH2C, since Hertz would
// log a warning at each request that ends a longer pause. On other systems they keep the
// goroutine.
//
// Small answers to pipelined requests leave together: the end of one may wait for the
// next, if that one's request is already there, for FlushDelay at most. A part of an
// answer that a handler flushes waits for nothing, nor does any answer of a server with
// StreamRequestBody.
//
// WithKeepAliveTimeout, a minute by default, overrides the KeepAlive of WithListenConfig
// and of a listener from WithListener; with 0, theirs holds.
//
// OnAccept and OnConnect are those of the options, Logger is hlog's system logger, and
// OnHandshakeError tells a client that spoke HTTP to an HTTPS port so, unless a configure
// replaces them. CancelOnDisconnect is WithSenseClientDisconnection.
func Transport(configure ...func(*standard.Transporter)) func(*config.Options) network.Transporter {
	return func(o *config.Options) network.Transporter {
		if o.IdleTimeout > 0 {
			o.IdleTimeout = (o.IdleTimeout - 1) | 1
		} else {
			o.IdleTimeout = noIdleTimeout
		}
		t := &transporter{options: o, given: o.Listener, sense: o.SenseClientDisconnection}
		t.std = standard.Transporter{
			Network:          o.Network,
			Addr:             o.Addr,
			ListenConfig:     o.ListenConfig,
			TLSConfig:        o.TLS,
			ReadTimeout:      o.ReadTimeout,
			WriteTimeout:     o.WriteTimeout,
			IdleTimeout:      o.IdleTimeout,
			KeepAlive:        o.KeepAliveTimeout,
			ReadBufferSize:   o.ReadBufferSize,
			OnAccept:         o.OnAccept,
			OnHandshakeError: answerPlainHTTP,
			Logger:           slog.New(hlogHandler{}),

			// Where that works it takes no goroutine, and sees a disconnect also behind
			// the bytes of a pipelined request. Elsewhere a sensor does what it can.
			CancelOnDisconnect: o.SenseClientDisconnection,
		}
		if o.OnConnect != nil {
			t.std.OnConnect = func(ctx context.Context, c ours.Conn) context.Context {
				return o.OnConnect(ctx, newServerConn(c, o.IdleTimeout, nil))
			}
		}
		for _, f := range configure {
			f(&t.std)
		}
		return t
	}
}

// transporter is a standard.Transporter with Hertz's types.
type transporter struct {
	std     standard.Transporter
	options *config.Options
	given   net.Listener // from server.WithListener
	sense   bool

	stopped atomic.Bool
}

// ListenAndServe implements network.Transporter.
func (t *transporter) ListenAndServe(onData network.OnData) error {
	ln := t.given
	if ln == nil {
		if t.stopped.Load() {
			return nil // there is nothing to bind any more [S5]
		}
		var err error
		if ln, err = t.std.Listen(); err != nil {
			return err
		}
	}
	hlog.SystemLogger().Infof("HTTP server listening on address=%s", ln.Addr())
	return t.std.Serve(ln, func(ctx context.Context, c any) error { return t.serve(ctx, c, onData) })
}

// serve lends a connection to Hertz's engine, which returns when it has closed it or
// when it is to be parked.
func (t *transporter) serve(ctx context.Context, c any, onData network.OnData) error {
	var cancel context.CancelFunc
	if t.sense && !c.(interface{ Watched() bool }).Watched() {
		ctx, cancel = context.WithCancel(ctx)
		defer cancel()
	}
	conn := newServerConn(c, t.options.IdleTimeout, cancel)
	s := conn.server()
	if cancel == nil {
		// Else the context would end here, for work that a handler has left behind. And with
		// tracers Hertz calls their Finish once more for the last request when it stops
		// waiting (pkg/protocol/http1/server.go). With H2C the engine would look for a
		// preface and warn that there is none, each time that it is given the connection
		// (pkg/route/engine.go).
		s.parkable = len(t.options.Tracers) == 0 && !t.options.H2C
	}
	s.h2c = t.options.H2C
	// Where a body is a stream, Release does not tell where an answer ends.
	s.joins = !t.options.StreamRequestBody
	if c, ok := c.(*standard.TLSConn); ok && c.ConnectionState().NegotiatedProtocol == "h2" {
		c.LimitReadRate(false) // as at h2Preface
	}
	if s.Resumed() {
		if err := s.resume(t.options.ReadTimeout); err != nil {
			conn.Close()
			return nil
		}
	}
	if err := onData(ctx, conn); err != nil && !s.parks() {
		conn.Close() // the engine has logged the error, and closed too
	}
	return nil
}

// Close implements network.Transporter: at once.
func (t *transporter) Close() error {
	t.stopped.Store(true)
	return t.std.Close()
}

// Shutdown implements network.Transporter: it waits for requests until ctx ends,
// and then returns ctx.Err(), with which Hertz's engine compares.
func (t *transporter) Shutdown(ctx context.Context) error {
	t.stopped.Store(true)
	return t.std.Shutdown(ctx)
}

// Listener returns what is listened on, nil before. Hertz takes a server without a
// listener for one that is shutting down.
func (t *transporter) Listener() net.Listener { return t.std.Listener() }

// answerPlainHTTP tells a client that spoke HTTP to an HTTPS port what went wrong.
func answerPlainHTTP(_ net.Conn, err error) {
	if re, ok := err.(tls.RecordHeaderError); ok && re.Conn != nil && utils.TLSRecordHeaderLooksLikeHTTP(re.RecordHeader) {
		_, _ = io.WriteString(re.Conn, "HTTP/1.0 400 Bad Request\r\n\r\nClient sent an HTTP request to an HTTPS server.\n")
	}
}
