//go:build linux && (amd64 || arm64)

package main

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"strconv"
)

// answerError says that a server answered, and wrongly.
type answerError struct{ reason string }

func (e *answerError) Error() string { return "wrong answer: " + e.reason }

func errAnswer(format string, args ...any) error {
	return &answerError{fmt.Sprintf(format, args...)}
}

// reader reads answers and compares them with what they must be, every byte of the
// body. Headers are parsed unless they are those of the answer before, date aside.
type reader struct {
	src    io.Reader
	want   []byte // the body of each answer
	chunk  int    // the length of each chunk, where the answer comes in chunks
	frames bool   // an answer is want and nothing else

	buf  []byte
	r, w int // buf[r:w] is unread

	seen []byte // the header of the last answer that had a Content-Length
	date int    // where the date's value is in it, -1 without
}

const dateLength = len("Thu, 01 Jan 1970 00:00:00 GMT")

var (
	headerEnd = []byte("\r\n\r\n")
	lineEnd   = []byte("\r\n")
)

// answer reads one answer. It returns an *answerError for one that is not status 200
// with the body wanted.
func (r *reader) answer() error {
	if r.frames {
		return r.body(r.want)
	}
	if r.r == r.w {
		if err := r.fill(); err != nil {
			return err
		}
	}
	if r.repeats() {
		r.r += len(r.seen)
		return r.body(r.want)
	}
	end := -1
	for {
		if end = bytes.Index(r.buf[r.r:r.w], headerEnd); end >= 0 {
			break
		}
		if err := r.fill(); err != nil {
			return err
		}
	}
	head := r.buf[r.r : r.r+end+len(headerEnd)]
	length, err := parseHead(head)
	if err != nil {
		return err
	}
	r.r += len(head)
	if length < 0 {
		return r.chunked()
	}
	if length != len(r.want) {
		return errAnswer("a body of %d bytes, want %d", length, len(r.want))
	}
	r.seen, r.date = bytes.Clone(head), -1
	if i := bytes.Index(head, []byte("\r\nDate: ")); i >= 0 && i+8+dateLength < len(head) {
		r.date = i + 8
	}
	return r.body(r.want)
}

// repeats reports whether a header as the last one is buffered.
func (r *reader) repeats() bool {
	n := len(r.seen)
	if n == 0 || r.w-r.r < n {
		return false
	}
	head := r.buf[r.r : r.r+n]
	if r.date < 0 {
		return bytes.Equal(head, r.seen)
	}
	behind := r.date + dateLength
	return bytes.Equal(head[:r.date], r.seen[:r.date]) && bytes.Equal(head[behind:], r.seen[behind:])
}

// parseHead returns the length of the body, -1 if it comes in chunks.
func parseHead(head []byte) (int, error) {
	status, rest, _ := bytes.Cut(head, lineEnd)
	if !bytes.HasPrefix(status, []byte("HTTP/1.1 200 ")) {
		return 0, errAnswer("status line %q", status)
	}
	length, chunked := -1, false
	for {
		var line []byte
		line, rest, _ = bytes.Cut(rest, lineEnd)
		if len(line) == 0 {
			break
		}
		name, value, ok := bytes.Cut(line, []byte(":"))
		if !ok {
			return 0, errAnswer("header line %q", line)
		}
		value = bytes.TrimSpace(value)
		switch {
		case bytes.EqualFold(name, []byte("Content-Length")):
			n, err := strconv.Atoi(string(value))
			if err != nil || n < 0 || length >= 0 {
				return 0, errAnswer("header line %q", line)
			}
			length = n
		case bytes.EqualFold(name, []byte("Transfer-Encoding")):
			if !bytes.EqualFold(value, []byte("chunked")) || chunked {
				return 0, errAnswer("header line %q", line)
			}
			chunked = true
		}
	}
	if chunked == (length >= 0) {
		return 0, errAnswer("neither a length nor chunks, or both, in %q", head)
	}
	return length, nil
}

// body reads len(want) bytes and compares them.
func (r *reader) body(want []byte) error {
	for done := 0; done < len(want); {
		if r.r == r.w {
			if err := r.fill(); err != nil {
				return fmt.Errorf("after %d of %d bytes of the body: %w", done, len(want), err)
			}
		}
		got := r.buf[r.r:min(r.w, r.r+len(want)-done)]
		if !bytes.Equal(got, want[done:done+len(got)]) {
			return errAnswer("wrong bytes in the body, between %d and %d", done, done+len(got))
		}
		done += len(got)
		r.r += len(got)
	}
	return nil
}

// chunked reads a body of chunks, which must be of the length wanted: a server that
// joins them has less to do than one that flushes each.
func (r *reader) chunked() error {
	for rest := r.want; ; {
		line, err := r.line()
		if err != nil {
			return err
		}
		n, err := strconv.ParseUint(string(line), 16, 31)
		if err != nil {
			return errAnswer("chunk length %q", line)
		}
		if int(n) != min(r.chunk, len(rest)) {
			return errAnswer("a chunk of %d bytes, with %d left of the body, want %d", n, len(rest), min(r.chunk, len(rest)))
		}
		if err := r.body(rest[:n]); err != nil {
			return err
		}
		rest = rest[n:]
		if line, err = r.line(); err != nil {
			return err
		}
		if len(line) != 0 {
			return errAnswer("%q behind a chunk", line)
		}
		if n == 0 {
			return nil
		}
	}
}

// line returns the next line without its end, valid until the next call.
func (r *reader) line() ([]byte, error) {
	for {
		if i := bytes.Index(r.buf[r.r:r.w], lineEnd); i >= 0 {
			line := r.buf[r.r : r.r+i]
			r.r += i + len(lineEnd)
			return line, nil
		}
		if err := r.fill(); err != nil {
			return nil, err
		}
	}
}

// fill reads more. The end of the stream is io.ErrUnexpectedEOF: an answer is due.
func (r *reader) fill() error {
	if r.r > 0 && (r.r == r.w || r.w == len(r.buf)) {
		r.r, r.w = 0, copy(r.buf, r.buf[r.r:r.w])
	}
	if r.w == len(r.buf) {
		return errAnswer("a header of more than %d bytes", len(r.buf))
	}
	n, err := r.src.Read(r.buf[r.w:])
	r.w += n
	if n > 0 {
		return nil
	}
	if err == nil {
		err = io.ErrNoProgress
	}
	if err == io.EOF {
		err = io.ErrUnexpectedEOF
	}
	return err
}

// end reports what is not the end of the stream.
func (r *reader) end() error {
	if r.r != r.w {
		return errAnswer("%d bytes behind it", r.w-r.r)
	}
	r.r, r.w = 0, 0
	// TLS servers that leave without a close_notify are common.
	if err := r.fill(); err == nil {
		return errAnswer("%d bytes behind it", r.w)
	} else if !errors.Is(err, io.ErrUnexpectedEOF) {
		return err
	}
	return nil
}
