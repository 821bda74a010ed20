package http3

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"os"
	"strings"
	"time"

	"github.com/cloudwego/hertz/pkg/app"
	errs "github.com/cloudwego/hertz/pkg/common/errors"
	"github.com/cloudwego/hertz/pkg/common/hlog"
	"github.com/cloudwego/hertz/pkg/common/tracer/stats"
	"github.com/cloudwego/hertz/pkg/protocol"
	"github.com/cloudwego/hertz/pkg/protocol/consts"
)

// protocolVersion is what Request.Header.GetProtocol returns.
const protocolVersion = "HTTP/3.0"

// responseWriter is what quic-go gives a handler.
type responseWriter interface {
	http.ResponseWriter
	FlushError() error
	SetReadDeadline(time.Time) error
	SetWriteDeadline(time.Time) error
}

// exchange is a request and its answer.
type exchange struct {
	conn *serverConn
	w    responseWriter
	r    *http.Request
	ctx  *app.RequestContext
	out  requestConn
	body requestBody
	step step

	values values
}

func newExchange(c *serverConn, w responseWriter, r *http.Request, ctx *app.RequestContext) *exchange {
	e := &exchange{conn: c, w: w, r: r, ctx: ctx}
	e.out.init(e)
	e.body = requestBody{r: r, w: w, timeout: &e.out.readTimeout, trailer: ctx.Request.Header.Trailer()}
	return e
}

// serve reads the request, calls the handlers and writes the answer. An error means that
// the answer is not whole.
func (e *exchange) serve() (err error) {
	s, ctx := e.conn.server, e.ctx
	defer e.body.detach()
	ctx.HTMLRender = s.html
	ctx.SetConn(&e.out)
	ctx.SetEnableTrace(s.trace)
	ctx.Request.SetIsTLS(true)
	ctx.Response.Header.SetNoDefaultDate(s.options.NoDefaultDate)
	ctx.Response.Header.SetNoDefaultContentType(s.options.NoDefaultContentType)
	if s.options.DisableHeaderNamesNormalizing {
		ctx.Request.Header.DisableNormalizing()
		ctx.Response.Header.DisableNormalizing()
	}
	c := e.r.Context()
	if s.trace {
		c = s.core.GetTracer().DoStart(c, ctx)
		e.step.info = ctx.GetTraceInfo()
		defer func() {
			e.step.finish(err)
			s.core.GetTracer().DoFinish(c, ctx, err)
		}()
	}
	err = e.read()
	if err != nil {
		if e.r.Context().Err() != nil {
			return err // nobody is there
		}
		refuse(ctx, err)
		ctx.Response.Header.SetServerBytes(s.name)
		return e.respond()
	}
	ctx.Response.Header.SetServerBytes(s.name)
	e.step.start(stats.ServerHandleStart, stats.ServerHandleFinish)
	e.handle(c)
	e.step.finish(nil)
	e.step.start(stats.WriteStart, stats.WriteFinish)
	err = e.respond()
	e.step.finish(err)
	if s.trace {
		ctx.GetTraceInfo().Stats().SetSendSize(int(e.out.sent))
	}
	return err
}

// read fills in ctx.Request.
func (e *exchange) read() error {
	e.step.start(stats.ReadHeaderStart, stats.ReadHeaderFinish)
	if e.r.Proto != protocolVersion {
		// RFC 9220. There is no way to hand a handler the stream.
		return fmt.Errorf("%w: extended CONNECT for %q", errNotImplemented, e.r.Proto)
	}
	req := &e.ctx.Request
	setRequestHeader(&req.Header, e.r)
	e.step.finish(nil)

	options := e.conn.server.options
	if options.GetOnly && !req.Header.IsGet() {
		return errGetOnly
	}
	if req.MayContinue() {
		if f := e.conn.server.proceeds; f != nil && !f(&req.Header) {
			e.ctx.SetStatusCode(consts.StatusExpectationFailed)
			return nil
		}
		e.w.WriteHeader(http.StatusContinue)
	}
	e.step.start(stats.ReadBodyStart, stats.ReadBodyFinish)
	err := readBody(req, &e.body, options)
	e.step.finish(err)
	if e.conn.server.trace {
		e.ctx.GetTraceInfo().Stats().SetRecvSize(int(e.body.n))
	}
	return err
}

// handle calls the handlers.
func (e *exchange) handle(c context.Context) {
	e.conn.server.core.ServeHTTP(c, e.ctx)
	if !e.ctx.IsGet() && e.ctx.IsHead() {
		e.ctx.Response.SkipBody = true
	}
	hijack := e.ctx.GetHijackHandler()
	e.ctx.SetHijackHandler(nil)
	status := e.ctx.Response.StatusCode()
	switch {
	case e.out.begun():
	case hijack != nil, e.out.hijacked.Load(), status == consts.StatusSwitchingProtocols:
		hlog.SystemLogger().Warnf("HTTP/3: answered 501: the handler wants the connection for itself, and there is none for each request; let it serve HTTP/1.1 only: method=%s uri=%s",
			e.r.Method, e.r.RequestURI)
		refuse(e.ctx, errNotImplemented)
		e.ctx.Response.Header.SetServerBytes(e.conn.server.name)
	case status < 200 || status > 999:
		hlog.SystemLogger().Errorf("HTTP/3: answered 500: the handler's status %d cannot be that of an answer: method=%s uri=%s",
			status, e.r.Method, e.r.RequestURI)
		e.ctx.Response.SetStatusCode(consts.StatusInternalServerError)
	}
}

var (
	errNotImplemented = errors.New("not implemented over HTTP/3")
	errGetOnly        = errors.New("non-GET request received")
	errBodyTooLarge   = errs.New(errs.ErrBodyTooLarge, errs.ErrorTypePublic, "http3")
)

// refuse makes the answer to a request that cannot be served, as Hertz's HTTP/1 server has
// it.
func refuse(ctx *app.RequestContext, err error) {
	switch {
	case errors.Is(err, os.ErrDeadlineExceeded):
		ctx.AbortWithMsg("Request timeout", consts.StatusRequestTimeout)
	case errors.Is(err, errs.ErrBodyTooLarge):
		ctx.AbortWithMsg("Request Entity Too Large", consts.StatusRequestEntityTooLarge)
	case errors.Is(err, errNotImplemented):
		ctx.AbortWithMsg("Not Implemented over HTTP/3", consts.StatusNotImplemented)
	default:
		ctx.AbortWithMsg("Error when parsing request", consts.StatusBadRequest)
	}
}

// setRequestHeader copies what quic-go has parsed and checked.
func setRequestHeader(h *protocol.RequestHeader, r *http.Request) {
	h.SetProtocol(protocolVersion)
	h.SetMethod(r.Method)
	h.SetRequestURI(r.RequestURI)
	h.SetHost(r.Host)
	h.InitContentLengthWithValue(-2) // what HTTP/1 has for neither length nor chunks
	for name, values := range r.Header {
		switch name {
		case "Host", "Trailer":
			continue
		case "Content-Length":
			h.SetContentLength(int(r.ContentLength))
			continue
		}
		for _, v := range values {
			h.Add(name, v)
		}
	}
	if len(r.Trailer) > 0 {
		names := make([]string, 0, len(r.Trailer))
		for name := range r.Trailer {
			if name != "" { // on which SetTrailers panics
				names = append(names, name)
			}
		}
		// It fails for names that are forbidden, and keeps the others.
		_ = h.Trailer().SetTrailers([]byte(strings.Join(names, ", ")))
	}
}
