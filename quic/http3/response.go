package http3

import (
	"bytes"
	"fmt"
	"io"
	"net/http"
	"strings"
	"sync/atomic"
	"time"

	"github.com/cloudwego/hertz/pkg/common/hlog"
	"github.com/cloudwego/hertz/pkg/common/utils"
	"github.com/cloudwego/hertz/pkg/protocol"
	"github.com/cloudwego/hertz/pkg/protocol/consts"
	"github.com/cloudwego/hertz/pkg/protocol/http1/ext"
	"golang.org/x/net/http/httpguts"
)

// respond sends ctx.Response, or ends what a handler has sent by itself.
func (e *exchange) respond() error {
	resp := &e.ctx.Response
	if w := resp.GetHijackWriter(); w != nil {
		if err := w.Finalize(); err != nil {
			return err
		}
	}
	if err := e.out.Flush(); err != nil {
		return err
	}
	if e.out.begun() {
		return e.out.finish()
	}
	if resp.IsBodyStream() {
		return e.respondStream(resp)
	}
	body := resp.BodyBytes()
	sendBody := !resp.MustSkipBody()
	if sendBody || len(body) > 0 {
		resp.Header.SetContentLength(len(body))
	}
	e.writeHeader(resp)
	if sendBody && len(body) > 0 {
		if err := e.out.data(body); err != nil {
			return err
		}
	}
	return e.end(resp, sendBody)
}

// respondStream sends an answer whose body is a stream: if its length is not known, each
// part as soon as it is there.
func (e *exchange) respondStream(resp *protocol.Response) (err error) {
	defer func() {
		if closeErr := resp.CloseBodyStream(); err == nil {
			err = closeErr
		}
	}()
	length := resp.Header.ContentLength()
	if length < 0 {
		if n := ext.LimitedReaderSize(resp.BodyStream()); n >= 0 && int64(int(n)) == n {
			length = int(n)
		}
		resp.Header.SetContentLength(max(length, -1))
	}
	sendBody := !resp.MustSkipBody()
	e.writeHeader(resp)
	if !sendBody {
		return e.end(resp, false)
	}
	if resp.ImmediateHeaderFlush {
		if err := e.out.flush(); err != nil {
			return err
		}
	}
	body := resp.BodyStream()
	if length >= 0 {
		body = io.LimitReader(body, int64(length))
	}
	pooled := utils.CopyBufPool.Get()
	defer utils.CopyBufPool.Put(pooled)
	buf := pooled.([]byte)
	for empty := 0; ; {
		n, readErr := body.Read(buf)
		if n > 0 {
			empty = 0
			if err := e.out.data(buf[:n]); err != nil {
				return err
			}
			if length < 0 {
				if err := e.out.flush(); err != nil {
					return err
				}
			}
		}
		switch {
		case readErr == io.EOF:
			if length >= 0 && e.out.sent != int64(length) {
				return fmt.Errorf("http3: the body stream of an answer ended after %d bytes of %d", e.out.sent, length)
			}
			return e.end(resp, true)
		case readErr != nil:
			return fmt.Errorf("http3: the body stream of an answer: %w", readErr)
		case n == 0:
			if empty++; empty > 100 {
				return io.ErrNoProgress
			}
		}
	}
}

// end sends the trailers, and what is left.
func (e *exchange) end(resp *protocol.Response, sendBody bool) error {
	if trailer := resp.Header.Trailer(); sendBody && !trailer.Empty() {
		h := e.w.Header()
		trailer.VisitAll(func(name, value []byte) {
			setTrailer(h, string(name), string(value))
		})
	}
	return e.out.flush()
}

// setTrailer has quic-go send a trailer after the body.
func setTrailer(h http.Header, name, value string) {
	if !httpguts.ValidTrailerHeader(name) {
		return
	}
	name = http.TrailerPrefix + name
	h[name] = append(h[name], fieldValue(value))
}

// writeHeader makes the header of the answer. It is sent with what comes next.
func (e *exchange) writeHeader(resp *protocol.Response) {
	from, h, s := &resp.Header, e.w.Header(), e.conn.server
	status := from.StatusCode()
	from.VisitAll(func(name, value []byte) {
		// Without the cases it would be as right, and slower.
		switch string(name) {
		case consts.HeaderContentType:
		case consts.HeaderContentLength:
			if !from.MustSkipContentLength() {
				h[consts.HeaderContentLength] = e.values.add(string(value))
			}
		case consts.HeaderServer:
			if bytes.Equal(value, s.name) {
				h[consts.HeaderServer] = s.nameText
				return
			}
			h[consts.HeaderServer] = e.values.add(fieldValue(string(value)))
		default:
			if isFieldOfHTTP3(name) {
				h[string(name)] = append(h[string(name)], fieldValue(string(value)))
			}
		}
	})
	h[consts.HeaderContentType] = e.contentType(from) // nil stops quic-go's guess
	if !s.options.NoDefaultDate {
		h[consts.HeaderDate] = date()
	} else if h[consts.HeaderDate] == nil {
		h[consts.HeaderDate] = nil // there is an entry now, which stops quic-go's
	}
	e.w.WriteHeader(status)
}

// values is where most answers have their header, in one piece.
type values struct {
	of   [4]string
	used int
}

func (v *values) add(s string) []string {
	if v.used == len(v.of) {
		return []string{s}
	}
	v.of[v.used] = s
	v.used++
	return v.of[v.used-1 : v.used : v.used]
}

// lastDate is Hertz's date, and the same as text.
var lastDate atomic.Pointer[dateText]

type dateText struct {
	of   *byte
	text []string
}

// date returns the Date of an answer, made once a second.
func date() []string {
	protocol.ServerDateOnce.Do(protocol.UpdateServerDate)
	now := protocol.ServerDate.Load().([]byte)
	d := lastDate.Load()
	if d == nil || d.of != &now[0] {
		d = &dateText{&now[0], []string{string(now)}}
		lastDate.Store(d)
	}
	return d.text
}

// contentType returns what HTTP/1 sends: no default for an answer that is empty.
func (e *exchange) contentType(h *protocol.ResponseHeader) []string {
	if h.ContentLength() == 0 && !h.NoDefaultContentType() {
		h.SetNoDefaultContentType(true)
		defer h.SetNoDefaultContentType(false)
	}
	if v := h.ContentType(); len(v) > 0 {
		return e.values.add(fieldValue(string(v)))
	}
	return nil
}

// connectionFields are those that HTTP/3 does not have (RFC 9114, section 4.2).
var connectionFields = []string{"Connection", "Keep-Alive", "Proxy-Connection", "Transfer-Encoding", "Upgrade"}

// isFieldOfHTTP3 reports whether a field of this name can be sent.
func isFieldOfHTTP3[S string | []byte](name S) bool {
	for _, f := range connectionFields {
		if len(name) == len(f) && strings.EqualFold(string(name), f) {
			return false
		}
	}
	for i := range len(name) {
		if !httpguts.IsTokenRune(rune(name[i])) {
			hlog.SystemLogger().Warnf("HTTP/3: a header field is left out, since %q can be no name", string(name))
			return false
		}
	}
	return len(name) > 0
}

// addField adds a field if it can be sent.
func addField(h http.Header, name, value string) {
	if isFieldOfHTTP3(name) {
		h[name] = append(h[name], fieldValue(value))
	}
}

// fieldValue returns a value that can be sent. Others would make the answer malformed.
func fieldValue(v string) string {
	if httpguts.ValidHeaderFieldValue(v) {
		return v
	}
	return strings.Map(func(r rune) rune {
		if r < ' ' && r != '\t' || r == 0x7f {
			return ' '
		}
		return r
	}, v)
}

// The way out, for answers of the response and for those that handlers write themselves.

// limit starts the time limit of what is written next.
func (c *requestConn) limit() {
	if d := time.Duration(c.writeTimeout.Load()); d > 0 {
		_ = c.e.w.SetWriteDeadline(time.Now().Add(d))
	}
}

func (c *requestConn) header(status int, fields http.Header) error {
	h := c.e.w.Header()
	for name, values := range fields {
		for _, v := range values {
			addField(h, name, v)
		}
	}
	if status < 200 {
		c.limit()
		c.e.w.WriteHeader(status)
		clear(h)
		return nil
	}
	for _, name := range []string{consts.HeaderContentType, consts.HeaderDate} {
		if h[name] == nil {
			h[name] = nil // there is an entry now, which stops quic-go's
		}
	}
	c.e.w.WriteHeader(status)
	return nil
}

func (c *requestConn) data(p []byte) error {
	c.limit()
	n, err := c.e.w.Write(p)
	c.sent += int64(n)
	return err
}

func (c *requestConn) trailer(fields http.Header) error {
	h := c.e.w.Header()
	for name, values := range fields {
		for _, v := range values {
			setTrailer(h, name, v)
		}
	}
	return nil
}

func (c *requestConn) flush() error {
	c.limit()
	return c.e.w.FlushError()
}
