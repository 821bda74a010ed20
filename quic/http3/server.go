package http3

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"reflect"
	"runtime/debug"
	"sync"
	"time"

	"github.com/cloudwego/hertz/pkg/app"
	"github.com/cloudwego/hertz/pkg/app/server/render"
	"github.com/cloudwego/hertz/pkg/common/config"
	"github.com/cloudwego/hertz/pkg/common/hlog"
	"github.com/cloudwego/hertz/pkg/network"
	"github.com/cloudwego/hertz/pkg/protocol"
	"github.com/cloudwego/hertz/pkg/protocol/suite"
	"github.com/cloudwego/hertz/pkg/route"
	quicgo "github.com/quic-go/quic-go"
	"github.com/quic-go/quic-go/http3"

	"github.com/hertznet/hertznet/quic/internal/seldom"
)

// Protocol is the name under which a server speaks HTTP/3: that of ALPN, and the one for
// Hertz's AddProtocol.
const Protocol = http3.NextProtoH3

// NewServerFactory returns what serves HTTP/3 with the handlers of an engine. Register it
// before the server runs:
//
//	h.AddProtocol(http3.Protocol, http3.NewServerFactory(h.Engine))
//
// The engine's options are read when it runs. Its connections must be on quic-go, as
// those of [NewTransporter] are.
func NewServerFactory(engine *route.Engine) suite.StreamServerFactory {
	return serverFactory{engine}
}

type serverFactory struct{ engine *route.Engine }

// New implements suite.StreamServerFactory.
func (f serverFactory) New(core suite.Core) (protocol.StreamServer, error) {
	if f.engine == nil {
		return nil, errors.New("http3: NewServerFactory was given no engine")
	}
	s := &streamServer{
		core:     core,
		options:  f.engine.GetOptions(),
		html:     htmlRender(f.engine),
		trace:    f.engine.IsTraceEnable(),
		proceeds: f.engine.ContinueHandler,
	}
	if !s.options.NoDefaultServerHeader {
		s.name = f.engine.GetServerName()
		s.nameText = []string{fieldValue(string(s.name))}
	}
	return s, nil
}

// htmlRender returns the templates for RequestContext.HTML. An engine has them in a field
// that it gives to its HTTP/1 server alone, so there is no other way to them. nil, as if
// there were none, if the field has changed; a test tells.
func htmlRender(engine *route.Engine) render.HTMLRender {
	field := reflect.ValueOf(engine).Elem().FieldByName("htmlRender")
	if !field.IsValid() || field.Type() != reflect.TypeFor[render.HTMLRender]() {
		return nil
	}
	return *(*render.HTMLRender)(field.Addr().UnsafePointer())
}

// streamServer serves connections with what does not differ between them.
type streamServer struct {
	core     suite.Core
	options  *config.Options
	name     []byte // for Server, empty for none
	nameText []string
	html     render.HTMLRender
	trace    bool
	panics   seldom.Message
	cut      seldom.Message                     // answers
	proceeds func(*protocol.RequestHeader) bool // ContinueHandler, may be nil
}

// Serve implements protocol.StreamServer: it returns when the connection has ended, or
// should.
func (s *streamServer) Serve(ctx context.Context, conn network.StreamConn) error {
	raw, ok := conn.GetRawConnection().(*quicgo.Conn)
	if !ok {
		return fmt.Errorf("http3: a connection's GetRawConnection is %T; it has to be a *quic.Conn of quic-go", conn.GetRawConnection())
	}
	c := &serverConn{
		server: s,
		conn:   conn,
		raw:    raw,
		local:  conn.LocalAddr(),
		last:   time.Now(),
		ended:  make(chan struct{}),
		idle:   make(chan struct{}, 1),
	}
	c.retired, c.retire = make(chan struct{}), sync.OnceFunc(func() { close(c.retired) })
	// One for each connection: so each has a GOAWAY of its own.
	c.h3 = &http3.Server{
		Handler:        c,
		MaxHeaderBytes: s.options.MaxHeaderBytes,
		ConnContext: func(h3 context.Context, _ *quicgo.Conn) context.Context {
			return mergedContext{h3, ctx}
		},
		Logger: slog.New(slog.DiscardHandler),
	}
	return c.serve()
}

// mergedContext has the values of another context, too.
type mergedContext struct {
	context.Context
	values context.Context
}

func (c mergedContext) Value(key any) any {
	// In this order a child finds how to be cancelled, without a goroutine.
	if v := c.Context.Value(key); v != nil {
		return v
	}
	return c.values.Value(key)
}

// serverConn is a connection of a server.
type serverConn struct {
	server *streamServer
	conn   network.StreamConn
	raw    *quicgo.Conn
	h3     *http3.Server
	local  net.Addr

	ended   chan struct{} // closed when nothing is served any more
	retired chan struct{} // closed when the connection should end
	retire  func()        // closes it
	idle    chan struct{} // gets a value when active falls to 0

	mu     sync.Mutex
	active int         // requests
	last   time.Time   // when active has fallen to 0, at first the beginning
	timer  *time.Timer // nil without an IdleTimeout
}

func (c *serverConn) serve() error {
	if d := c.server.options.IdleTimeout; d > 0 {
		c.mu.Lock()
		c.timer = time.AfterFunc(d, c.expire)
		c.mu.Unlock()
		defer c.timer.Stop()
	}
	var wg sync.WaitGroup
	wg.Go(c.watch)
	err := c.h3.ServeQUICConn(c.raw)
	close(c.ended)
	wg.Wait()
	if c.raw.Context().Err() != nil || errors.Is(err, http.ErrServerClosed) {
		return nil
	}
	return err
}

// expire ends a connection that has had no request for IdleTimeout, or looks again later.
// So a request needs no timer.
func (c *serverConn) expire() {
	c.mu.Lock()
	defer c.mu.Unlock()
	idle := c.server.options.IdleTimeout
	left := idle
	if c.active == 0 {
		left -= time.Since(c.last)
	}
	if left <= 0 {
		c.retire()
		return
	}
	c.timer.Reset(left)
}

func (c *serverConn) begin() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.active++
}

func (c *serverConn) end() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.active--
	if c.active > 0 {
		return
	}
	c.last = time.Now()
	select {
	case c.idle <- struct{}{}:
	default:
	}
}

// idleSince reports since when there is no request, if there is none.
func (c *serverConn) idleSince() (time.Time, bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.last, c.active == 0
}

// watch ends the connection when its time has come.
func (c *serverConn) watch() {
	var draining <-chan struct{}
	if d, ok := c.conn.(interface{ Draining() <-chan struct{} }); ok {
		draining = d.Draining()
	}
	select {
	case <-c.ended:
	case <-draining:
		c.drain()
	case <-c.retired:
		c.drain()
	}
}

// drain tells the peer to send no more requests, waits until those that were accepted are
// answered and the answers delivered, and closes the connection. A request that comes
// meanwhile is refused, so that the peer knows that it can send it elsewhere (RFC 9114,
// section 5.2); a peer without requests has the time of a last answer to do so.
func (c *serverConn) drain() {
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	go func() { _ = c.h3.Shutdown(ctx) }() // sends GOAWAY, and waits for the peer
	begun := time.Now()
	for {
		last, idle := c.idleSince()
		if idle {
			if last.Before(begun) {
				last = begun
			}
			c.settle(last)
			if now, idle := c.idleSince(); idle && !now.After(last) {
				_ = c.raw.CloseWithError(quicgo.ApplicationErrorCode(http3.ErrCodeNoError), "")
				<-c.ended
				return
			}
			continue
		}
		select {
		case <-c.ended:
			return
		case <-c.idle:
		}
	}
}

// settle waits until the peer has its answers.
func (c *serverConn) settle(last time.Time) {
	ctx, cancel := context.WithTimeout(c.raw.Context(), settleTime)
	defer cancel()
	if s, ok := c.conn.(interface {
		Settle(context.Context, time.Time)
	}); ok {
		s.Settle(ctx, last)
		return
	}
	<-ctx.Done()
}

// settleTime is what is waited for a peer at most that never is quiet.
const settleTime = 2 * time.Second

// ServeHTTP implements http.Handler: a request is a call, each in a goroutine of its own.
func (c *serverConn) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	growStack(0)
	c.begin()
	defer c.end()
	if !c.exchange(w.(responseWriter), r) {
		panic(http.ErrAbortHandler) // quic-go resets the stream
	}
}

// exchange serves a request, and reports whether its answer is whole.
func (c *serverConn) exchange(w responseWriter, r *http.Request) (ok bool) {
	defer func() {
		// After a panic the RequestContext is not used again: some goroutine of the
		// handler may still have it.
		if p := recover(); p != nil && p != http.ErrAbortHandler {
			if skipped, due := c.server.panics.Due(); due {
				hlog.SystemLogger().Errorf("HTTP/3: a handler panicked; its stream is reset: remote=%s method=%s uri=%s panic=%v alsoNotLogged=%d\n%s",
					r.RemoteAddr, r.Method, r.RequestURI, p, skipped, debug.Stack())
			}
		}
	}()
	pool := c.server.core.GetCtxPool()
	ctx := pool.Get().(*app.RequestContext)
	err := newExchange(c, w, r, ctx).serve()
	if ctx.Response.ConnectionClose() || c.server.options.DisableKeepalive {
		c.retire()
	}
	if !ctx.IsExiled() {
		ctx.Reset()
		pool.Put(ctx)
	}
	if err != nil && r.Context().Err() == nil {
		if skipped, due := c.server.cut.Due(); due {
			hlog.SystemLogger().Warnf("HTTP/3: an answer is cut off and its stream reset: remote=%s method=%s uri=%s error=%v alsoNotLogged=%d",
				r.RemoteAddr, r.Method, r.RequestURI, err, skipped)
		}
	}
	return err == nil
}
