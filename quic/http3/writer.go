package http3

import (
	"bytes"
	"errors"
	"fmt"
	"net/http"
	"net/textproto"
	"strconv"
	"strings"
)

// sink takes an answer apart from the form of HTTP/1.
type sink interface {
	header(status int, fields http.Header) error // again after a status below 200
	data(p []byte) error                         // part of the body, not empty
	trailer(fields http.Header) error
	flush() error
}

// http1Writer is a network.Writer that takes an answer of HTTP/1.1 and gives it to a sink.
// Like any, it must not be used by several goroutines at once.
type http1Writer struct {
	sink sink
	head bool // the answer is to HEAD

	queue [][]byte // since the last Flush
	block []byte   // what Malloc gives out, from its length on
	err   error    // that stays

	state  int
	line   []byte      // the beginning of a line whose end has not come
	size   int         // bytes of lines in the header or trailer that is under way
	status int         // 0 before the status line
	fields http.Header // of the header or trailer that is under way
	left   int64       // bytes that are left of the body or of a chunk; -1 up to the end
	drop   bool        // there must be no body: what comes as one is not sent
}

// The states of http1Writer.
const (
	inHeader = iota
	inBody
	inChunkSize
	inChunk
	afterChunk
	inTrailer
	complete
)

const (
	maxMalloc = 1 << 30 // bytes
	maxLines  = 1 << 20 // bytes of a header
	blockSize = 4 << 10 // bytes
)

// Malloc returns memory that is filled before Flush.
func (w *http1Writer) Malloc(n int) ([]byte, error) {
	if n < 0 || n > maxMalloc {
		return nil, fmt.Errorf("http3: Malloc of %d bytes; it must be 0 to %d", n, maxMalloc)
	}
	if cap(w.block)-len(w.block) < n {
		w.block = make([]byte, 0, max(n, blockSize))
	}
	begin := len(w.block)
	w.block = w.block[:begin+n]
	p := w.block[begin : begin+n : begin+n]
	w.queue = append(w.queue, p)
	return p, nil
}

// WriteBinary keeps p until Flush.
func (w *http1Writer) WriteBinary(p []byte) (int, error) {
	w.queue = append(w.queue, p)
	return len(p), nil
}

// Flush sends what was written. Its first error stays.
func (w *http1Writer) Flush() error {
	if len(w.queue) == 0 {
		return w.err
	}
	for _, p := range w.queue {
		if w.err == nil {
			w.err = w.parse(p)
		}
	}
	clear(w.queue)
	w.queue, w.block = w.queue[:0], w.block[:0]
	if w.err == nil && w.state != inHeader {
		w.err = w.sink.flush()
	}
	return w.err
}

// begun reports whether an answer has been begun that has to be finished here.
func (w *http1Writer) begun() bool {
	return w.state != inHeader || w.status != 0 || len(w.line) > 0
}

// finish reports whether the answer is whole, by an error if it is not.
func (w *http1Writer) finish() error {
	switch {
	case w.err != nil:
		return w.err
	case w.state == complete, w.state == inBody && (w.drop || w.left <= 0):
		return nil
	}
	return errors.New("http3: the answer that a handler wrote by itself is not whole")
}

// parse takes the next bytes.
func (w *http1Writer) parse(p []byte) error {
	for len(p) > 0 {
		switch w.state {
		case inBody, inChunk:
			n := len(p)
			if w.left >= 0 {
				n = int(min(int64(n), w.left))
				w.left -= int64(n)
			}
			if n > 0 && !w.drop {
				if err := w.sink.data(p[:n]); err != nil {
					return err
				}
			}
			p = p[n:]
			switch {
			case w.left != 0:
			case w.state == inChunk:
				w.state = afterChunk
			case w.drop:
				return nil // whatever comes
			default:
				w.state = complete
			}
		case complete:
			if w.drop {
				return nil
			}
			return errors.New("http3: a handler has written more after the end of an answer")
		default:
			n := bytes.IndexByte(p, '\n') + 1
			if n == 0 {
				n = len(p)
			}
			if w.size += n; w.size > maxLines {
				return fmt.Errorf("http3: the header of an answer is longer than %d bytes", maxLines)
			}
			line := p[:n]
			p = p[n:]
			if len(w.line) > 0 || line[n-1] != '\n' {
				w.line = append(w.line, line...)
				if line[n-1] != '\n' {
					return nil
				}
				line = w.line
				w.line = w.line[:0]
			}
			line = bytes.TrimSuffix(line[:len(line)-1], []byte{'\r'})
			if err := w.parseLine(string(line)); err != nil {
				return err
			}
		}
	}
	return nil
}

func (w *http1Writer) parseLine(line string) error {
	switch w.state {
	case inHeader:
		switch {
		case w.status == 0:
			return w.parseStatus(line)
		case line == "":
			return w.endHeader()
		}
		return w.parseField(line)
	case inChunkSize:
		w.size = 0
		digits, _, _ := strings.Cut(line, ";")
		n, err := strconv.ParseUint(strings.TrimRight(digits, " \t"), 16, 63)
		if err != nil {
			return fmt.Errorf("http3: %q is no size of a chunk", line)
		}
		w.left = int64(n)
		w.state = inChunk
		if n == 0 {
			w.state, w.fields = inTrailer, make(http.Header)
		}
	case afterChunk:
		if line != "" {
			return fmt.Errorf("http3: %q where a chunk should end", line)
		}
		w.state = inChunkSize
	case inTrailer:
		if line != "" {
			return w.parseField(line)
		}
		w.state = complete
		if len(w.fields) > 0 && !w.drop {
			return w.sink.trailer(w.fields)
		}
	}
	return nil
}

func (w *http1Writer) parseStatus(line string) error {
	version, rest, _ := strings.Cut(line, " ")
	code, _, _ := strings.Cut(rest, " ")
	n, err := strconv.ParseUint(code, 10, 16)
	if version != "HTTP/1.1" || err != nil || len(code) != 3 || n < 100 {
		return fmt.Errorf("http3: %q is no status line of HTTP/1.1; what a handler writes by itself must be an answer of that", line)
	}
	if n == http.StatusSwitchingProtocols {
		return errHijack
	}
	w.status, w.fields = int(n), make(http.Header)
	return nil
}

func (w *http1Writer) parseField(line string) error {
	name, value, ok := strings.Cut(line, ":")
	if !ok || name == "" || name[0] == ' ' || name[0] == '\t' { // no folding: RFC 9112, section 5.2
		return fmt.Errorf("http3: %q is no header field", line)
	}
	name = textproto.CanonicalMIMEHeaderKey(name)
	w.fields[name] = append(w.fields[name], strings.Trim(value, " \t"))
	return nil
}

// endHeader finds out how long the body is (RFC 9112, section 6.3), and sends the header.
func (w *http1Writer) endHeader() error {
	status, fields := w.status, w.fields
	w.status, w.fields, w.size = 0, nil, 0
	if status < 200 {
		return w.sink.header(status, fields)
	}
	bodyless := status == http.StatusNoContent || status == http.StatusNotModified
	w.drop = w.head || bodyless
	w.left = -1
	w.state = inBody
	lengths := fields["Content-Length"]
	switch {
	case strings.EqualFold(fields.Get("Transfer-Encoding"), "chunked"):
		w.state = inChunkSize
		delete(fields, "Content-Length")
	case len(lengths) > 0:
		n, err := strconv.ParseUint(lengths[0], 10, 63)
		if err != nil || len(lengths) > 1 {
			return fmt.Errorf("http3: the Content-Length of an answer is %q", lengths)
		}
		w.left = int64(n)
		if n == 0 && !w.drop {
			w.state = complete
		}
	}
	if bodyless {
		delete(fields, "Content-Length")
	}
	return w.sink.header(status, fields)
}
