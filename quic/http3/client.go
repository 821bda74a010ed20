package http3

import (
	"bytes"
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/cloudwego/hertz/pkg/common/config"
	errs "github.com/cloudwego/hertz/pkg/common/errors"
	"github.com/cloudwego/hertz/pkg/network"
	"github.com/cloudwego/hertz/pkg/protocol"
	"github.com/cloudwego/hertz/pkg/protocol/client"
	"github.com/cloudwego/hertz/pkg/protocol/consts"
	"github.com/cloudwego/hertz/pkg/protocol/http1/ext"
	reqI "github.com/cloudwego/hertz/pkg/protocol/http1/req"
	"github.com/cloudwego/hertz/pkg/protocol/suite"
	quicgo "github.com/quic-go/quic-go"
	"github.com/quic-go/quic-go/http3"
)

// NewClientFactory returns what puts a Hertz client on HTTP/3:
//
//	c, err := client.NewClient(client.WithTLSConfig(config))
//	c.SetClientFactory(http3.NewClientFactory(c.GetOptions()))
//
// It does so with every request, to https URLs alone and without a proxy: for a server
// that may not speak HTTP/3, have a second client. Of the options it follows TLSConfig,
// DialTimeout, ReadTimeout, MaxIdleConnDuration, MaxResponseBodySize, ResponseBodyStream,
// Name, NoDefaultUserAgentHeader, DisableHeaderNamesNormalizing and
// DisablePathNormalizing; a nil o is their defaults. ReadTimeout limits all of a request,
// from the dial to the end of the answer's body. KeepAlive has no effect: there is one
// connection to each host, on a UDP socket of its own, and it is kept.
//
// Each configure is called with the quic-go Transport of a new host, for what has no
// option.
func NewClientFactory(o *config.ClientOptions, configure ...func(*http3.Transport)) suite.ClientFactory {
	if o == nil {
		o = config.NewClientOptions(nil)
	}
	return &clientFactory{o, configure}
}

type clientFactory struct {
	options   *config.ClientOptions
	configure []func(*http3.Transport)
}

// NewHostClient implements suite.ClientFactory.
func (f *clientFactory) NewHostClient() (client.HostClient, error) {
	c := &hostClient{options: f.options}
	c.transport = http3.Transport{
		TLSClientConfig:    f.options.TLSConfig,
		DisableCompression: true, // as Hertz has it: a body is what was sent
		QUICConfig: &quicgo.Config{
			MaxIdleTimeout:       minIdle,
			HandshakeIdleTimeout: max(f.options.DialTimeout, 0) / 2, // quic-go allows twice this
			MaxIncomingStreams:   -1,
		},
	}
	for _, f := range f.configure {
		f(&c.transport)
	}
	c.use()
	return c, nil
}

// hostClient is a client.HostClient: for one host, and for any goroutine.
type hostClient struct {
	options   *config.ClientOptions
	transport http3.Transport
	isTLS     bool
	proxied   bool

	pending atomic.Int64
	used    atomic.Int64 // UnixNano
}

var (
	_ client.HostClient = (*hostClient)(nil)
	_ io.Closer         = (*hostClient)(nil)
)

func (c *hostClient) use() { c.used.Store(time.Now().UnixNano()) }

// SetDynamicConfig implements client.HostClient. It comes before any request.
func (c *hostClient) SetDynamicConfig(dc *client.DynamicConfig) {
	c.isTLS, c.proxied = dc.IsTLS, dc.ProxyURI != nil
}

// CloseIdleConnections implements client.HostClient.
func (c *hostClient) CloseIdleConnections() { c.transport.CloseIdleConnections() }

// ShouldRemove implements client.HostClient. It is then closed.
func (c *hostClient) ShouldRemove() bool {
	limit := c.options.MaxIdleConnDuration
	if limit <= 0 {
		limit = consts.DefaultMaxIdleConnDuration
	}
	return c.pending.Load() == 0 && time.Since(time.Unix(0, c.used.Load())) > limit
}

// ConnectionCount implements client.HostClient: there is one while there are requests.
func (c *hostClient) ConnectionCount() int { return int(min(c.pending.Load(), 1)) }

// Close closes the connection and the socket.
func (c *hostClient) Close() error { return c.transport.Close() }

// Do implements client.HostClient.
func (c *hostClient) Do(ctx context.Context, req *protocol.Request, resp *protocol.Response) error {
	switch {
	case c.proxied:
		return errors.New("http3: a proxy is set, and HTTP/3 goes through none")
	case !c.isTLS:
		return fmt.Errorf("http3: %s is no https URL", req.URI().FullURI())
	}
	if resp == nil {
		resp = protocol.AcquireResponse()
		defer protocol.ReleaseResponse(resp)
	}
	skipBody := resp.SkipBody
	resp.Reset()
	resp.SkipBody = skipBody

	c.pending.Add(1)
	c.use()
	req.Options().StartRequest()
	ctx, cancel := c.timeout(ctx, req)
	done := sync.OnceFunc(func() {
		cancel()
		c.use()
		c.pending.Add(-1)
	})
	streams, err := c.do(ctx, req, resp, done)
	err = clientError(ctx, err)
	if !streams {
		done()
	}
	return err
}

// timeout returns a context that ends when the answer must be there: the request's time
// limits are one.
func (c *hostClient) timeout(ctx context.Context, req *protocol.Request) (context.Context, context.CancelFunc) {
	o := req.Options()
	limit := o.ReadTimeout()
	if limit <= 0 {
		limit = c.options.ReadTimeout
	}
	if all := o.RequestTimeout(); all > 0 {
		if start := o.StartTime(); !start.IsZero() {
			all -= time.Since(start)
		}
		if limit <= 0 || all < limit {
			return context.WithTimeout(ctx, all)
		}
	}
	if limit > 0 {
		return context.WithTimeout(ctx, limit)
	}
	return context.WithCancel(ctx)
}

// clientError returns errors as Hertz's clients know them. quic-go has another one for a
// body whose context has ended.
func clientError(ctx context.Context, err error) error {
	if err == nil {
		return nil
	}
	if ctxErr := ctx.Err(); ctxErr != nil {
		err = ctxErr
	}
	if errors.Is(err, context.DeadlineExceeded) || errors.Is(err, os.ErrDeadlineExceeded) {
		return fmt.Errorf("http3: %w: %w", errs.ErrTimeout, err)
	}
	return err
}

// do makes a round trip. If it returns that the body streams, done is called at its end.
func (c *hostClient) do(ctx context.Context, req *protocol.Request, resp *protocol.Response, done func()) (streams bool, err error) {
	r, sent, err := c.request(ctx, req)
	if err != nil {
		return false, err
	}
	defer sent.keep()
	rsp, err := c.transport.RoundTrip(r)
	if err != nil {
		return false, err
	}
	if c.options.DisableHeaderNamesNormalizing {
		resp.Header.DisableNormalizing()
	}
	setResponseHeader(&resp.Header, rsp)
	head := req.Header.IsHead()
	if head || req.Header.IsConnect() {
		resp.SkipBody = true
	}
	if resp.SkipBody || resp.Header.MustSkipContentLength() {
		return false, rsp.Body.Close()
	}
	body := &responseBody{rsp, resp, done}
	events := rsp.ContentLength < 0 && strings.HasPrefix(rsp.Header.Get("Content-Type"), "text/event-stream")
	if c.options.ResponseBodyStream || events {
		resp.SetBodyStream(body, int(rsp.ContentLength))
		return true, nil
	}
	defer rsp.Body.Close()
	body.done = func() {} // Do does it
	limit := int64(c.options.MaxResponseBodySize)
	if limit > 0 && rsp.ContentLength > limit {
		return false, errBodyTooLarge
	}
	buf := resp.BodyBuffer()
	buf.B, err = appendAll(buf.B[:0], body, max(rsp.ContentLength, 0), limit)
	if err != nil && err != io.EOF {
		return false, err
	}
	resp.Header.SetContentLength(len(buf.B))
	return false, nil
}

// request returns what quic-go sends for req.
func (c *hostClient) request(ctx context.Context, req *protocol.Request) (*http.Request, *content, error) {
	uri := req.URI()
	uri.DisablePathNormalizing = c.options.DisablePathNormalizing
	if len(req.Header.UserAgent()) == 0 && !c.options.NoDefaultUserAgentHeader {
		req.Header.SetUserAgentBytes([]byte(cmp.Or(c.options.Name, "hertz")))
	}
	r, err := http.NewRequestWithContext(ctx, string(req.Method()), "https://"+string(uri.Host())+string(uri.RequestURI()), nil)
	if err != nil {
		return nil, nil, err
	}
	body, err := setContent(r, req)
	if err != nil {
		return nil, nil, err
	}
	h := &req.Header
	if host := h.Host(); len(host) > 0 {
		r.Host = string(host)
	}
	r.Header["User-Agent"] = nil // if there is none: stops quic-go's
	h.VisitAll(func(name, value []byte) {
		switch string(name) {
		case consts.HeaderHost, consts.HeaderContentLength, consts.HeaderTrailer:
			return
		}
		addField(r.Header, string(name), string(value))
	})
	if len(h.ContentType()) == 0 && !h.IgnoreBody() && bytes.Contains(h.Header(), []byte("\r\nContent-Type: ")) {
		r.Header.Set(consts.HeaderContentType, consts.MIMEApplicationHTMLForm) // HTTP/1's default
	}
	if trailer := h.Trailer(); !trailer.Empty() {
		r.Trailer = make(http.Header)
		trailer.VisitAll(func(name, value []byte) {
			r.Trailer.Add(string(name), fieldValue(string(value)))
		})
		if r.Body == nil {
			r.Body = http.NoBody // without one there are no trailers
		}
	}
	if len(uri.Username()) > 0 {
		r.SetBasicAuth(string(uri.Username()), string(uri.Password()))
	}
	return r, body, nil
}

// setContent sets the body of r and what belongs to it. content is nil if it is a stream.
func setContent(r *http.Request, req *protocol.Request) (*content, error) {
	if req.IsBodyStream() {
		length := int64(req.Header.ContentLength())
		if length < 0 {
			length = ext.LimitedReaderSize(req.BodyStream())
		}
		r.ContentLength = length
		r.Body = streamContent{req.BodyStream()}
		return nil, nil
	}
	body := req.BodyBytes()
	if len(req.MultipartFiles()) > 0 || len(req.MultipartFields()) > 0 || req.OnlyMultipartForm() ||
		len(body) == 0 && len(req.PostArgString()) > 0 {
		// Only Hertz's HTTP/1 can make these.
		var message bytes.Buffer
		w := network.NewWriter(&message)
		if err := reqI.Write(req, w); err != nil {
			return nil, err
		}
		if err := w.Flush(); err != nil {
			return nil, err
		}
		_, body, _ = bytes.Cut(message.Bytes(), []byte("\r\n\r\n"))
	}
	if len(body) == 0 {
		return &content{}, nil
	}
	c := &content{p: body}
	r.ContentLength = int64(len(body))
	r.Body = c.reader()
	r.GetBody = func() (io.ReadCloser, error) { return c.reader(), nil }
	return c, nil
}

// streamContent is a body that is read as it is sent.
type streamContent struct{ io.Reader }

func (s streamContent) Close() error {
	if c, ok := s.Reader.(io.Closer); ok {
		return c.Close()
	}
	return nil
}

// content is the body of a request. quic-go may still send it when the answer is there, and
// the request its owner's again.
type content struct {
	mu   sync.Mutex
	p    []byte
	sent bool // by one reader at least
}

// keep makes the content independent of the request.
func (c *content) keep() {
	if c == nil {
		return
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.sent {
		c.p = nil // no other reader matters
	}
	c.p = bytes.Clone(c.p)
}

func (c *content) reader() *contentReader { return &contentReader{c: c} }

type contentReader struct {
	c    *content
	done int
}

func (r *contentReader) Read(p []byte) (int, error) {
	r.c.mu.Lock()
	defer r.c.mu.Unlock()
	n := copy(p, r.c.p[min(r.done, len(r.c.p)):])
	r.done += n
	if r.done >= len(r.c.p) {
		r.c.sent = true
		return n, io.EOF
	}
	return n, nil
}

func (r *contentReader) Close() error { return nil }

// setResponseHeader copies what quic-go has parsed.
func setResponseHeader(h *protocol.ResponseHeader, rsp *http.Response) {
	h.SetProtocol(protocolVersion)
	h.SetStatusCode(rsp.StatusCode)
	for name, values := range rsp.Header {
		switch name {
		case consts.HeaderContentLength:
			continue
		case consts.HeaderDate: // Add leaves it out
			h.SetCanonical([]byte(name), []byte(values[0]))
			continue
		}
		for _, v := range values {
			h.Add(name, v)
		}
	}
	if rsp.Header.Get(consts.HeaderContentLength) != "" {
		h.SetContentLength(int(rsp.ContentLength))
	} else if h.MustSkipContentLength() {
		h.InitContentLengthWithValue(-2) // none, as HTTP/1 has it
	} else {
		h.InitContentLengthWithValue(-1)
	}
}

// responseBody reads the body of an answer.
type responseBody struct {
	rsp  *http.Response
	resp *protocol.Response // its trailer is set at the end
	done func()             // called once at the end; any number of times
}

func (b *responseBody) Read(p []byte) (int, error) {
	n, err := b.rsp.Body.Read(p)
	if err == io.EOF {
		trailer := b.resp.Header.Trailer()
		for name, values := range b.rsp.Trailer {
			for i, v := range values {
				// It fails for names that are forbidden in a trailer.
				if i == 0 {
					_ = trailer.Set(name, v)
				} else {
					_ = trailer.Add(name, v)
				}
			}
		}
	}
	if err != nil {
		if err != io.EOF {
			err = clientError(b.rsp.Request.Context(), err)
		}
		b.done()
	}
	return n, err
}

// Close gives up what was not read.
func (b *responseBody) Close() error {
	err := b.rsp.Body.Close()
	b.done()
	return err
}
