package http3

import (
	"bufio"
	"bytes"
	"errors"
	"io"
	"maps"
	"math"
	"net/http"
	"reflect"
	"slices"
	"strings"
	"testing"
)

// recorded is a sink that keeps what it gets.
type recorded struct {
	interim  []int
	status   int
	fields   http.Header
	body     []byte
	trailers http.Header
	flushes  int
	fail     error // what data returns
}

func (r *recorded) header(status int, fields http.Header) error {
	if status < 200 {
		r.interim = append(r.interim, status)
		return nil
	}
	if r.status != 0 {
		return errors.New("a second header")
	}
	r.status, r.fields = status, fields
	return nil
}

func (r *recorded) data(p []byte) error {
	if len(p) == 0 || r.status == 0 {
		panic("data: empty, or before the header")
	}
	if r.fail != nil {
		return r.fail
	}
	r.body = append(r.body, p...)
	return nil
}

func (r *recorded) trailer(fields http.Header) error {
	r.trailers = fields
	return nil
}

func (r *recorded) flush() error {
	if r.status == 0 {
		panic("flush before the header")
	}
	r.flushes++
	return nil
}

// reparse writes parts, each of them flushed.
func reparse(head bool, parts ...[]byte) (*recorded, error) {
	r := new(recorded)
	w := &http1Writer{sink: r, head: head}
	for _, p := range parts {
		if _, err := w.WriteBinary(p); err != nil {
			return r, err
		}
		if err := w.Flush(); err != nil {
			return r, err
		}
	}
	return r, w.finish()
}

func TestHTTP1Writer(t *testing.T) {
	tests := []struct {
		name, in string
		head     bool
		want     recorded
		err      string
	}{
		{"length", "HTTP/1.1 200 OK\r\nContent-Length: 5\r\nX-A: b\r\nx-a:c \r\n\r\nhello", false,
			recorded{status: 200, body: []byte("hello"), fields: http.Header{"Content-Length": {"5"}, "X-A": {"b", "c"}}}, ""},
		{"chunks", "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\nA;x=y\r\n, my world\r\n0\r\nX-T: 1\r\n\r\n", false,
			recorded{status: 200, body: []byte("hello, my world"), fields: http.Header{"Transfer-Encoding": {"chunked"}}, trailers: http.Header{"X-T": {"1"}}}, ""},
		{"chunks and a length", "HTTP/1.1 200 OK\r\nContent-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n1\r\nx\r\n0\r\n\r\n", false,
			recorded{status: 200, body: []byte("x"), fields: http.Header{"Transfer-Encoding": {"chunked"}}}, ""},
		{"up to the end", "HTTP/1.1 404 Not Found\n\nhello\r\n\r\n", false,
			recorded{status: 404, body: []byte("hello\r\n\r\n"), fields: http.Header{}}, ""},
		{"interim", "HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 103 \r\nLink: x\r\n\r\nHTTP/1.1 200\r\nContent-Length: 0\r\n\r\n", false,
			recorded{interim: []int{100, 103}, status: 200, fields: http.Header{"Content-Length": {"0"}}}, ""},
		{"HEAD", "HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\n", true,
			recorded{status: 200, fields: http.Header{"Content-Length": {"5"}}}, ""},
		{"HEAD with chunks", "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n1\r\nx\r\n0\r\nX-T: 1\r\n\r\n", true,
			recorded{status: 200, fields: http.Header{"Transfer-Encoding": {"chunked"}}}, ""},
		{"HEAD with a body", "HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello, and more", true,
			recorded{status: 200, fields: http.Header{"Content-Length": {"5"}}}, ""},
		{"204", "HTTP/1.1 204 No Content\r\nContent-Length: 5\r\n\r\nhello", false,
			recorded{status: 204, fields: http.Header{}}, ""},

		{"too short", "HTTP/1.1 200 OK\r\nContent-Length: 6\r\n\r\nhello", false, recorded{}, "not whole"},
		{"too long", "HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nhello", false, recorded{}, "after the end"},
		{"a chunk too few", "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n1\r\nx\r\n", false, recorded{}, "not whole"},
		{"no trailer section", "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n", false, recorded{}, "not whole"},
		{"no end of the header", "HTTP/1.1 200 OK\r\n", false, recorded{}, "not whole"},
		{"no status line", "hello\r\n", false, recorded{}, "status line"},
		{"HTTP/1.0", "HTTP/1.0 200 OK\r\n\r\n", false, recorded{}, "status line"},
		{"HTTP/2", "HTTP/2 200 OK\r\n\r\n", false, recorded{}, "status line"},
		{"switch of protocols", "HTTP/1.1 101 Switching Protocols\r\n\r\n", false, recorded{}, "connection of its own"},
		{"bad length", "HTTP/1.1 200 OK\r\nContent-Length: -1\r\n\r\n", false, recorded{}, "Content-Length"},
		{"two lengths", "HTTP/1.1 200 OK\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\n", false, recorded{}, "Content-Length"},
		{"bad chunk", "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n-1\r\n", false, recorded{}, "size of a chunk"},
		{"chunk without an end", "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n1\r\nxy\r\n", false, recorded{}, "chunk should end"},
		{"no field", "HTTP/1.1 200 OK\r\nX\r\n\r\n", false, recorded{}, "header field"},
		{"folded field", "HTTP/1.1 200 OK\r\nX: a\r\n b\r\n\r\n", false, recorded{}, "header field"},
		{"folded field with a colon", "HTTP/1.1 200 OK\r\nX: a\r\n :b\r\n\r\n", false, recorded{}, "header field"},
		{"endless header", "HTTP/1.1 200 OK\r\nX: " + strings.Repeat("x", maxLines), false, recorded{}, "longer than"},
		{"endless header of lines", "HTTP/1.1 200 OK\r\n" + strings.Repeat("X: y\r\n", maxLines/6), false, recorded{}, "longer than"},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			step := 1
			if len(test.in) > 1000 {
				step = 1000
			}
			for name, parts := range map[string][][]byte{
				"in one piece":   {[]byte(test.in)},
				"in many pieces": slices.Collect(slices.Chunk([]byte(test.in), step)),
			} {
				got, err := reparse(test.head, parts...)
				if test.err != "" {
					if err == nil || !strings.Contains(err.Error(), test.err) {
						t.Errorf("%s: error %v, want one with %q", name, err, test.err)
					}
					continue
				}
				got.flushes = 0
				if err != nil || !reflect.DeepEqual(got, &test.want) {
					t.Errorf("%s: %v\n got %+v\nwant %+v", name, err, got, &test.want)
				}
			}
		})
	}
}

// Memory from Malloc is filled later, in any order, and stays where it is.
func TestMalloc(t *testing.T) {
	r := new(recorded)
	w := &http1Writer{sink: r}
	for round := range 3 {
		var parts [][]byte
		text := "HTTP/1.1 200 OK\r\n\r\n" + strings.Repeat("0123456789", 2000)
		if round > 0 {
			text = text[19:]
		}
		for rest := text; len(rest) > 0; {
			n := min(len(rest), 1+len(parts)*97%3000)
			p, err := w.Malloc(n)
			if err != nil || len(p) != n || cap(p) != n {
				t.Fatalf("Malloc(%d): len %d, cap %d, %v", n, len(p), cap(p), err)
			}
			parts = append(parts, p)
			rest = rest[n:]
		}
		end := len(text)
		for _, p := range slices.Backward(parts) {
			end -= len(p)
			copy(p, text[end:])
		}
		if err := w.Flush(); err != nil {
			t.Fatal(err)
		}
	}
	if want := strings.Repeat("0123456789", 6000); string(r.body) != want || r.flushes != 3 {
		t.Errorf("%d bytes, want %d; %d flushes, want 3", len(r.body), len(want), r.flushes)
	}
	for _, n := range []int{-1, math.MaxInt} {
		if p, err := w.Malloc(n); err == nil {
			t.Errorf("Malloc(%d) returned %d bytes", n, len(p))
		}
	}
	if p, err := w.Malloc(0); err != nil || len(p) != 0 {
		t.Errorf("Malloc(0): %v, %v", p, err)
	}
}

// What failed once is not tried again.
func TestFlushErrorStays(t *testing.T) {
	r := &recorded{fail: errors.New("on purpose")}
	w := &http1Writer{sink: r}
	_, _ = w.WriteBinary([]byte("HTTP/1.1 200 OK\r\n\r\nbody"))
	if err := w.Flush(); err != r.fail {
		t.Errorf("Flush: %v", err)
	}
	first := r.fail
	r.fail = nil
	_, _ = w.WriteBinary([]byte("more"))
	if err := w.Flush(); err != first || len(r.body) > 0 {
		t.Errorf("another Flush: %v, %q", err, r.body)
	}
	if err := w.finish(); err != first {
		t.Errorf("finish: %v", err)
	}
}

// Whatever handlers write: in one piece or in two it is the same, and what net/http takes
// for an answer is that answer.
func FuzzHTTP1Writer(f *testing.F) {
	for _, in := range []string{
		"",
		"HTTP/1.1 200 OK\r\nContent-Length: 5\r\nX-A: b\r\n\r\nhello",
		"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\nA;x=y\r\n, my world\r\n0\r\nX-T: 1\r\n\r\n",
		"HTTP/1.1 404 Not Found\n\nhello",
		"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n",
		"HTTP/1.1 204 No Content\r\nContent-Length: 5\r\n\r\nhello",
		"HTTP/1.1 101 Switching Protocols\r\n\r\n",
		"HTTP/1.1 200 OK\r\nContent-Length: 99999999999999999999\r\n\r\n",
		"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nffffffffffffffff\r\n",
	} {
		f.Add([]byte(in), 3, false)
		f.Add([]byte(in), 20, true)
	}
	f.Fuzz(func(t *testing.T, in []byte, cut int, head bool) {
		one, err := reparse(head, bytes.Clone(in))
		cut = min(max(cut, 0), len(in))
		two, err2 := reparse(head, in[:cut], in[cut:])
		one.flushes, two.flushes = 0, 0
		if (err == nil) != (err2 == nil) || err == nil && !reflect.DeepEqual(one, two) {
			t.Fatalf("in one piece: %+v, %v\nin two: %+v, %v", one, err, two, err2)
		}
		if err != nil || one.status == 0 {
			return
		}
		method := http.MethodGet
		if head {
			method = http.MethodHead
		}
		br := bufio.NewReader(bytes.NewReader(in))
		var rsp *http.Response
		for range len(one.interim) + 1 {
			if rsp, err = http.ReadResponse(br, &http.Request{Method: method}); err != nil {
				return // net/http takes less
			}
		}
		body, err := io.ReadAll(rsp.Body)
		if err != nil {
			return
		}
		if rsp.StatusCode != one.status || !bytes.Equal(body, one.body) {
			t.Fatalf("net/http has %d %q\nthis has %d %q", rsp.StatusCode, body, one.status, one.body)
		}
		for name := range maps.Keys(rsp.Header) {
			if name != "Content-Length" && !slices.Equal(rsp.Header[name], one.fields[name]) {
				t.Fatalf("%s: net/http has %q, this has %q", name, rsp.Header[name], one.fields[name])
			}
		}
	})
}
