package http3

import (
	"io"
	"net/http"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/cloudwego/hertz/pkg/common/config"
	"github.com/cloudwego/hertz/pkg/protocol"
	"github.com/cloudwego/hertz/pkg/protocol/consts"
)

// requestBody reads the body of a request. As a stream it is the handler's.
type requestBody struct {
	r       *http.Request
	w       responseWriter
	timeout *atomic.Int64 // a time.Duration; 0 or less is none

	head []byte // read already, comes first
	n    int64  // bytes read
	err  error  // that stays

	mu      sync.Mutex
	trailer *protocol.Trailer // gets the trailers at the end; nil when the exchange is over
}

// Read implements io.Reader. The time limit is that of one Read.
func (b *requestBody) Read(p []byte) (int, error) {
	switch {
	case len(b.head) > 0:
		n := copy(p, b.head)
		b.head = b.head[n:]
		return n, nil
	case len(p) == 0:
		return 0, nil
	}
	b.limit()
	return b.read(p)
}

// limit starts the time limit.
func (b *requestBody) limit() {
	var at time.Time
	if d := time.Duration(b.timeout.Load()); d > 0 {
		at = time.Now().Add(d)
	}
	_ = b.w.SetReadDeadline(at)
}

func (b *requestBody) read(p []byte) (int, error) {
	if b.err != nil {
		return 0, b.err
	}
	n, err := b.r.Body.Read(p)
	b.n += int64(n)
	b.err = err
	if err == io.EOF && len(b.r.Trailer) > 0 {
		b.setTrailer()
	}
	return n, err
}

func (b *requestBody) setTrailer() {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.trailer == nil {
		return
	}
	for name, values := range b.r.Trailer {
		for i, v := range values {
			// It fails for names that are forbidden in a trailer.
			if i == 0 {
				_ = b.trailer.Set(name, v)
			} else {
				_ = b.trailer.Add(name, v)
			}
		}
	}
}

// detach says that the memory behind trailer is used for another request.
func (b *requestBody) detach() {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.trailer = nil
}

// minBody is what a body is given memory for before a byte of it has come.
const minBody = 16 << 10

// readBody puts the body into req: as a stream if options say so, else read to its end,
// within ReadTimeout and MaxRequestBodySize.
func readBody(req *protocol.Request, b *requestBody, options *config.Options) error {
	length := b.r.ContentLength // -1: unknown
	if b.r.Header.Get("Content-Length") == "" {
		length = -1
	}
	multipart := false
	if length > 0 && !options.DisablePreParseMultipartForm {
		req.SetMultipartFormBoundary(string(req.Header.MultipartFormBoundary()))
		multipart = req.MultipartFormBoundary() != "" && len(req.Header.PeekContentEncoding()) == 0
	}
	limit := int64(options.MaxRequestBodySize)
	switch {
	case options.StreamRequestBody && !multipart:
		return streamBody(req, b, length)
	case !options.StreamRequestBody && limit > 0 && length > limit:
		return errBodyTooLarge
	}
	b.limit() // for all of it
	if multipart {
		// Large files go to the disk. The limit is of what is in memory, as for HTTP/1.
		err := protocol.ParseMultipartForm(readerFunc(b.read), req, int(length), consts.DefaultMaxInMemoryFileSize)
		if err != nil {
			if b.err != nil && b.err != io.EOF {
				return b.err // it is hidden in err
			}
			return err
		}
		_, err = io.Copy(io.Discard, readerFunc(b.read))
		return err
	}
	return bufferBody(req, b, length, limit)
}

type readerFunc func([]byte) (int, error)

func (f readerFunc) Read(p []byte) (int, error) { return f(p) }

// bufferBody reads all of the body.
func bufferBody(req *protocol.Request, b *requestBody, length, limit int64) error {
	// Most requests have none. That there is none is only known from the stream's end.
	var first [1]byte
	n, err := b.read(first[:])
	for n == 0 && err == nil {
		n, err = b.read(first[:])
	}
	if n > 0 {
		buf := req.BodyBuffer()
		buf.B = append(buf.B[:0], first[0])
		if err == nil {
			buf.B, err = appendAll(buf.B, readerFunc(b.read), max(length, 0), limit)
		}
	}
	if err != nil && err != io.EOF {
		return err
	}
	if n > 0 || !req.Header.IgnoreBody() {
		req.Header.SetContentLength(len(req.BodyBytes()))
	}
	return nil
}

// appendAll appends what r has left to p. Memory follows what has come, not length.
func appendAll(p []byte, r io.Reader, length, limit int64) ([]byte, error) {
	p = slices.Grow(p, int(min(max(length, 512), minBody)))
	for {
		if len(p) == cap(p) {
			p = slices.Grow(p, len(p))
		}
		n, err := r.Read(p[len(p):cap(p)])
		p = p[:len(p)+n]
		if limit > 0 && int64(len(p)) > limit {
			return p, errBodyTooLarge
		}
		if err != nil {
			return p, err
		}
	}
}

// streamBody makes the body a stream for the handler.
func streamBody(req *protocol.Request, b *requestBody, length int64) error {
	switch {
	case length > 0:
		req.SetBodyStream(b, int(length))
		return nil
	case length < 0 && !req.Header.IgnoreBody():
		req.SetBodyStream(b, -1)
		return nil
	}
	// GET and HEAD have no body but in theory, which is found out here: a handler may ask
	// whether there is one.
	var first [1]byte
	n, err := b.Read(first[:])
	for n == 0 && err == nil {
		n, err = b.Read(first[:])
	}
	if err != nil && err != io.EOF {
		return err
	}
	if n > 0 {
		b.head = first[:1]
		req.SetBodyStream(b, -1)
		return nil
	}
	if !req.Header.IgnoreBody() {
		req.Header.SetContentLength(0)
	}
	return nil
}
