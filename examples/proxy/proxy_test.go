package main

import (
	"bufio"
	"bytes"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/cloudwego/hertz/pkg/common/hlog"

	"github.com/hertznet/hertznet/standard"
)

const guard = 10 * time.Second

func init() { hlog.SetLevel(hlog.LevelWarn) }

// startProxy starts a proxy for the user "u:p".
func startProxy(t *testing.T, allowed ...string) *proxy {
	t.Helper()
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	p, err := newProxy(ln, "u:p", time.Second, allowed...)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := p.shutdown(); err != nil {
			t.Error(err)
		}
	})
	return p
}

// send sends a request, in which AUTH stands for the credentials, and returns the answer
// with its body read.
func send(t *testing.T, p *proxy, request string) (*http.Response, string) {
	t.Helper()
	c, err := net.Dial("tcp", p.ln.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	_ = c.SetDeadline(time.Now().Add(guard)) // or the write fails
	if _, err := io.WriteString(c, strings.ReplaceAll(request, "AUTH", "Proxy-Authorization: basic dTpw\r\n")); err != nil {
		t.Fatal(err)
	}
	resp, err := http.ReadResponse(bufio.NewReader(c), nil)
	if err != nil {
		t.Fatalf("%q: %v", request, err)
	}
	body, err := io.ReadAll(resp.Body)
	if err != nil {
		t.Fatalf("%q: %v", request, err)
	}
	return resp, string(body)
}

// Neither the client's connection nor its password is any business of the target's, and
// the Host header does not decide where a request goes.
func TestForwardedHeaders(t *testing.T) {
	target := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Connection", "X-Hop, close")
		w.Header().Set("X-Hop", "1")
		w.Header().Set("X-End", "2")
		w.Header()["Content-Type"] = nil
		fmt.Fprint(w, r.Host, " ", r.RequestURI, " ", r.Header)
	}))
	defer target.Close()
	addr := target.Listener.Addr().String()
	p := startProxy(t, addr)
	resp, body := send(t, p, "GET http://"+addr+"/a%2Fb/../c?d=%20 HTTP/1.1\r\nHost: elsewhere\r\nConnection: X-Secret, keep-alive\r\n"+
		"X-Secret: 1\r\nKeep-Alive: 2\r\nTE: trailers\r\nUpgrade: h2c\r\nX-End: 3\r\nAUTH\r\n")
	if want := addr + " /a%2Fb/../c?d=%20 map[Via:[" + via + "] X-End:[3]]"; body != want {
		t.Errorf("the target got %s, want %s", body, want)
	}
	if h := resp.Header; resp.Close || h.Get("X-Hop") != "" || h.Get("X-End") != "2" || h.Get("Via") != via || h.Get("Content-Type") != "" {
		t.Errorf("the client got %v, close %t", h, resp.Close)
	}
}

// An answer comes as the target gave it, whatever its status and method.
func TestAnswersArePassedOn(t *testing.T) {
	target := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		var status int
		fmt.Sscan(r.URL.Query().Get("status"), &status)
		w.WriteHeader(status)
	}))
	defer target.Close()
	addr := target.Listener.Addr().String()
	p := startProxy(t, addr)
	for _, status := range []int{200, 204, 302, 304, 404, 407, 500} {
		resp, body := send(t, p, fmt.Sprintf("GET http://%s/?status=%d HTTP/1.1\r\nHost: x\r\nAUTH\r\n", addr, status))
		if resp.StatusCode != status || body != "" {
			t.Errorf("status %d with %q, want %d without a body", resp.StatusCode, body, status)
		}
	}
}

// What is no request for a proxy, or not allowed, reaches nobody.
func TestRefused(t *testing.T) {
	accepted := make(chan struct{}, 100)
	target := httptest.NewServer(http.HandlerFunc(func(http.ResponseWriter, *http.Request) { accepted <- struct{}{} }))
	defer target.Close()
	addr := target.Listener.Addr().String()
	_, port, _ := net.SplitHostPort(addr)
	p := startProxy(t, addr)
	for _, r := range []struct {
		line   string
		auth   string
		status int
	}{
		{"GET http://" + addr + "/", "", 407},
		{"GET http://" + addr + "/", "Proxy-Authorization: Basic dTpx\r\n", 407},
		{"GET http://" + addr + "/", "Proxy-Authorization: Basic\r\n", 407},
		{"GET http://" + addr + "/", "Proxy-Authorization: Bearer dTpw\r\n", 407},
		{"CONNECT " + addr, "", 407},
		{"GET /", "AUTH", 400},
		{"OPTIONS *", "AUTH", 400},
		{"GET https://" + addr + "/", "AUTH", 400},
		{"GET //" + addr + "/", "AUTH", 400},
		{"GET http://localhost:" + port + "/", "AUTH", 403},
		{"GET http://" + addr + ".example/", "AUTH", 403},
		{"GET http://x@y@" + addr + "/", "AUTH", 403},
		{"CONNECT localhost:" + port, "AUTH", 403},
		{"CONNECT http://" + addr, "AUTH", 403},
	} {
		resp, body := send(t, p, r.line+" HTTP/1.1\r\nHost: "+addr+"\r\n"+r.auth+"\r\n")
		if resp.StatusCode != r.status {
			t.Errorf("%s: status %d %q, want %d", r.line, resp.StatusCode, body, r.status)
		}
	}
	if len(accepted) > 0 {
		t.Errorf("%d requests reached the target", len(accepted))
	}
}

// pipe returns the ends of a tunnel that runs on ends of its own, without a proxy.
func pipe(t *testing.T, idle time.Duration) (client, target *net.TCPConn, ended chan *counts) {
	t.Helper()
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer ln.Close()
	var c [4]*net.TCPConn
	for i := 0; i < len(c); i += 2 {
		a, err := net.Dial("tcp", ln.Addr().String())
		if err != nil {
			t.Fatal(err)
		}
		b, err := ln.Accept()
		if err != nil {
			t.Fatal(err)
		}
		c[i], c[i+1] = a.(*net.TCPConn), b.(*net.TCPConn)
		t.Cleanup(func() { a.Close(); b.Close() })
		_ = a.SetDeadline(time.Now().Add(guard)) // or what follows fails
	}
	n := new(counts)
	tun := &tunnel{client: c[1], target: c[3], idle: idle, counts: n}
	ended = make(chan *counts, 1)
	go func() {
		tun.run(standard.NewConn(c[1]))
		c[1].Close() // as Hertz does
		ended <- n
	}()
	return c[0], c[2], ended
}

// wantReset wants the stream of c cut, and not ended.
func wantReset(t *testing.T, c net.Conn) {
	t.Helper()
	if _, err := c.Read(make([]byte, 1)); err == nil || err == io.EOF || errors.Is(err, os.ErrDeadlineExceeded) {
		t.Errorf("Read: %v, want a reset", err)
	}
}

// A tunnel through which nothing passes is cut, at both ends.
func TestIdleTunnel(t *testing.T) {
	client, target, ended := pipe(t, 50*time.Millisecond)
	for _, c := range []net.Conn{client, target} {
		wantReset(t, c)
	}
	if n := (<-ended).cut.Load(); n != 1 {
		t.Errorf("%d tunnels were cut", n)
	}
}

// A tunnel that is used in one direction is not idle, and the reads that time out in
// between lose nothing.
func TestSlowTunnel(t *testing.T) {
	const idle, bytesSent = time.Second, 8
	client, target, ended := pipe(t, idle)
	var want []byte
	go func() {
		for i := range bytesSent {
			time.Sleep(idle * 3 / 8) // longer than a read lasts, shorter than the tunnel may be idle
			_, _ = target.Write([]byte{byte(i)})
		}
		target.CloseWrite()
	}()
	for i := range bytesSent {
		want = append(want, byte(i))
	}
	got, err := io.ReadAll(client)
	if err != nil || !bytes.Equal(got, want) {
		t.Errorf("got %v and %v, want %v", got, err, want)
	}
	if _, err := client.Write([]byte("bye")); err != nil {
		t.Error(err)
	}
	client.CloseWrite()
	if got, err := io.ReadAll(target); err != nil || string(got) != "bye" {
		t.Errorf("the other way: %q and %v", got, err)
	}
	if n := (<-ended).cut.Load(); n != 0 {
		t.Error("the tunnel was cut")
	}
}

// A reset at one end is none but a reset at the other.
func TestResetThroughTunnel(t *testing.T) {
	client, target, ended := pipe(t, guard)
	_ = client.SetLinger(0)
	client.Close()
	wantReset(t, target)
	if n := (<-ended).cut.Load(); n != 1 {
		t.Errorf("%d tunnels were cut", n)
	}
}

// A client that leaves before its answer leaves no connection to the target behind.
func TestFailedAnswerClosesTheTarget(t *testing.T) {
	client, target, _ := pipe(t, guard)
	defer client.Close()
	tun := &tunnel{client: client, target: target, counts: new(counts)}
	e := &established{w: failing{standard.NewConn(client)}, failed: tun.abort}
	if err := e.Finalize(); err == nil {
		t.Error("Finalize: no error")
	}
	if _, err := target.Write([]byte("x")); err == nil {
		t.Error("the target is open")
	}
}

type failing struct{ *standard.Conn }

func (failing) Flush() error { return io.ErrClosedPipe }
