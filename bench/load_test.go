//go:build linux && (amd64 || arm64)

package main

import (
	"errors"
	"fmt"
	"io"
	"net"
	"strings"
	"sync/atomic"
	"testing"
	"time"
)

// wrong are servers that go wrong at some answer. The first answers are right, since the
// reader parses those and later ones only if they differ.
var wrong = []struct {
	name, workload string
	want           string // in the error
	spoil          func(right string) string
}{
	{"a wrong byte", "get-1", "wrong bytes in the body, between 0 and 13", func(s string) string { return s[:len(s)-1] + "\x00" }},
	{"a wrong byte in a large body", "get-1m", "wrong bytes in the body", func(s string) string { return s[:len(s)-5000] + "\x00" + s[len(s)-4999:] }},
	{"a body that ends early", "get-1", "after 10 of 13 bytes of the body: unexpected EOF", func(s string) string { return s[:len(s)-3] }},
	{"a shorter body", "get-1", "a body of 12 bytes, want 13", func(s string) string { return strings.Replace(s, "Length: 13", "Length: 12", 1)[:len(s)-1] }},
	{"a longer body", "get-1", "a body of 14 bytes, want 13", func(s string) string { return strings.Replace(s, "Length: 13", "Length: 14", 1) + "x" }},
	{"a status of the same length", "get-1", "500", func(s string) string { return strings.Replace(s, "200 OK", "500 No", 1) }},
	{"a 500", "get-1", "500", func(string) string { return "HTTP/1.1 500 Internal Server Error\r\nContent-Length: 0\r\n\r\n" }},
	{"no length", "get-1", "neither a length nor chunks", func(s string) string { return strings.Replace(s, "Content-Length", "Content-Lengths", 1) }},
	{"two lengths", "get-1", "Content-Length: 13", func(s string) string { return strings.Replace(s, "Content-Type", "Content-Length: 13\r\nX", 1) }},
	{"a length and chunks", "get-1", "or both", func(s string) string { return strings.Replace(s, "Server: hertz", "Transfer-Encoding: chunked", 1) }},
	{"bytes behind the answer", "get-1", `status line "xHTTP`, func(s string) string { return s + "x" }},
	{"an endless header", "get-1", "a header of more than 4096 bytes", func(s string) string {
		return strings.Replace(s, "Server", strings.Repeat("X: y\r\n", 1000)+"Server", 1)
	}},
	{"one chunk for two", "stream", "a chunk of 128 bytes", func(s string) string {
		_, body, _ := strings.Cut(s, "\r\n\r\n")
		a, b := body[4:4+chunk], body[4+chunk+2+4:][:chunk]
		return strings.Replace(s, body[:2*(4+chunk+2)], "80\r\n"+a+b+"\r\n", 1)
	}},
	{"a chunk too many", "stream", "a chunk of 64 bytes, with 0 left", func(s string) string {
		return strings.TrimSuffix(s, "0\r\n\r\n") + "40\r\n" + strings.Repeat("x", chunk) + "\r\n0\r\n\r\n"
	}},
	{"a chunk too few", "stream", "a chunk of 0 bytes, with 64 left", func(s string) string {
		return s[:len(s)-5-(4+chunk+2)] + "0\r\n\r\n"
	}},
	{"a wrong byte in a chunk", "stream", "wrong bytes in the body", func(s string) string { return s[:len(s)-10] + "\x00" + s[len(s)-9:] }},
	{"a connection that stays open", "connect", "wrong answer: 1 bytes behind it", func(s string) string { return s + "x" }},
	{"a wrong byte in a frame", "echo-128", "wrong bytes in the body, between 0 and 132", func(s string) string { return s[:9] + "\x00" + s[10:] }},
}

func TestLoadNoticesWrongAnswers(t *testing.T) {
	for _, c := range wrong {
		t.Run(c.name, func(t *testing.T) {
			w, err := findWorkload(c.workload)
			if err != nil {
				t.Fatal(err)
			}
			w.conns = 1
			if err := drive(t, w, func(s string) string { return s }); err != nil {
				t.Fatalf("right answers: %v", err)
			}
			err = drive(t, w, c.spoil)
			if err == nil || !strings.Contains(err.Error(), c.want) {
				t.Fatalf("error %v, want one with %q", err, c.want)
			}
			var wrong *answerError
			if !errors.As(err, &wrong) && !errors.Is(err, io.ErrUnexpectedEOF) {
				t.Fatalf("error %#v is of the wrong kind", err)
			}
		})
	}
}

// drive runs a short load against a server whose third answer is spoiled, after which
// it closes unless there is another request.
func drive(t *testing.T, w workload, spoil func(string) string) error {
	t.Helper()
	ln, err := listen(nil)
	if err != nil {
		t.Fatal(err)
	}
	defer ln.Close()
	var answered atomic.Int64
	go acceptEach(ln, func(c net.Conn) error {
		buf := make([]byte, len(w.request()))
		for {
			if _, err := io.ReadFull(c, buf); err != nil {
				return err
			}
			n := answered.Add(1)
			// The date changes, as it does every second.
			right := rightAnswer(w, time.Unix(n, 0))
			if n != 3 {
				if _, err := io.WriteString(c, right); err != nil || w.fresh {
					return err
				}
				continue
			}
			bad := spoil(right)
			if _, err := io.WriteString(c, bad); err != nil || w.fresh || len(bad) < len(right) {
				return err
			}
		}
	})
	l := &load{depth: 1}
	defer l.close()
	if err := l.open(peer{}, w, ln.Addr().String()); err != nil {
		return err
	}
	for deadline := time.Now().Add(patience); answered.Load() < 10; {
		if time.Now().After(deadline) {
			t.Fatal("no load arrives")
		}
		if _, _, err := l.run(10 * time.Millisecond); err != nil {
			return err
		}
	}
	return nil
}

func rightAnswer(w workload, date time.Time) string {
	if w.kind == kindEcho {
		return string(w.body())
	}
	length, body := fmt.Sprintf("Content-Length: %d", w.size), string(w.body())
	if w.chunked() {
		length = "Transfer-Encoding: chunked"
		var b strings.Builder
		for i := 0; i < len(body); i += chunk {
			fmt.Fprintf(&b, "%x\r\n%s\r\n", chunk, body[i:i+chunk])
		}
		body = b.String() + "0\r\n\r\n"
	}
	return fmt.Sprintf("HTTP/1.1 200 OK\r\nServer: hertz\r\nDate: %s\r\nContent-Type: text/plain\r\n%s\r\n\r\n%s",
		date.UTC().Format("Mon, 02 Jan 2006 15:04:05 GMT"), length, body)
}

// A client that is measured is checked as well.
func TestCallerNoticesWrongAnswers(t *testing.T) {
	for _, c := range []struct {
		status int
		body   string
		ok     bool
	}{{200, "right", true}, {200, "wrong", false}, {200, "righ", false}, {500, "right", false}} {
		x := caller{want: []byte("right"), get: func(_ string, check func(int, []byte) error) error { return check(c.status, []byte(c.body)) }}
		if err := x.answer(); (err == nil) != c.ok {
			t.Errorf("status %d, body %q: error %v", c.status, c.body, err)
		}
	}
}

// A resumed handshake is what the workload says it is.
func TestWireNoticesFullHandshake(t *testing.T) {
	w, err := findWorkload("tls-handshake")
	if err != nil {
		t.Fatal(err)
	}
	p, err := findPeer("bare", kindHTTP)
	if err != nil {
		t.Fatal(err)
	}
	secure, err := serverTLS()
	if err != nil {
		t.Fatal(err)
	}
	for _, disabled := range []bool{false, true} {
		secure.SessionTicketsDisabled = disabled
		addr, err := p.start(w, secure, "")
		if err != nil {
			t.Fatal(err)
		}
		w.resume, w.conns = true, 3
		l := &load{depth: 1}
		if err = l.open(p, w, addr); err == nil {
			_, _, err = l.run(20 * time.Millisecond)
		}
		if noticed := err != nil && strings.Contains(err.Error(), "did not resume"); noticed != disabled {
			t.Errorf("tickets disabled %v: error %v", disabled, err)
		}
		l.close()
	}
}
