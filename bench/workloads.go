//go:build linux && (amd64 || arm64)

package main

import (
	"encoding/binary"
	"fmt"
	"math/rand/v2"
)

// The kinds of workload. A kind has its own peers and its own metrics.
const (
	kindHTTP   = "http"   // the server is measured
	kindEcho   = "echo"   // the same, with a protocol of length-prefixed frames
	kindClient = "client" // the client is measured
	kindIdle   = "idle"   // the server's memory is measured
)

// workload is what the load process does, and what the servers must answer. Server
// and load process find it by name, so they agree on every byte.
type workload struct {
	name, title string
	kind        string
	path        string // of the request; also what the server does
	conns       int
	depth       int // requests in flight on each connection, 1 if 0
	size        int // bytes of the body, or of the frame's payload
	post        bool
	tls         bool
	resume      bool // TLS sessions are resumed
	fresh       bool // a new connection for each request
}

const (
	small     = 13 // bytes of the small answer
	chunk     = 64 // bytes of a chunk of the streamed answer
	mebibyte  = 1 << 20
	fileBytes = 16 * mebibyte
)

var workloads = []workload{
	{name: "get-1", title: "GET small, 1 connection", kind: kindHTTP, path: "/body", conns: 1, size: small},
	{name: "get-64", title: "GET small, 64 connections", kind: kindHTTP, path: "/body", conns: 64, size: small},
	{name: "get-1000", title: "GET small, 1000 connections", kind: kindHTTP, path: "/body", conns: 1000, size: small},
	{name: "get-pipelined", title: "GET small, 64 connections, pipelined by 16", kind: kindHTTP, path: "/body", conns: 64, size: small, depth: 16},
	{name: "post-256", title: "POST echo 256 B, 64 connections", kind: kindHTTP, path: "/echo", conns: 64, size: 256, post: true},
	{name: "post-4k", title: "POST echo 4 KiB, 64 connections", kind: kindHTTP, path: "/echo", conns: 64, size: 4 << 10, post: true},
	{name: "post-256k", title: "POST echo 256 KiB, 16 connections", kind: kindHTTP, path: "/echo", conns: 16, size: 256 << 10, post: true},
	{name: "get-1m", title: "GET 1 MiB, 16 connections", kind: kindHTTP, path: "/body", conns: 16, size: mebibyte},
	{name: "file-16m", title: "static file of 16 MiB, 4 connections", kind: kindHTTP, path: "/file", conns: 4, size: fileBytes},
	{name: "stream", title: "64 chunks of 64 B, each flushed, 64 connections", kind: kindHTTP, path: "/stream", conns: 64, size: 64 * chunk},
	{name: "connect", title: "new connection for each GET small, 16 at once", kind: kindHTTP, path: "/body", conns: 16, size: small, fresh: true},
	{name: "tls-get", title: "TLS: GET small, 64 connections", kind: kindHTTP, path: "/body", conns: 64, size: small, tls: true},
	{name: "tls-1m", title: "TLS: GET 1 MiB, 16 connections", kind: kindHTTP, path: "/body", conns: 16, size: mebibyte, tls: true},
	{name: "tls-handshake", title: "TLS: full handshake for each GET small, 16 at once", kind: kindHTTP, path: "/body", conns: 16, size: small, tls: true, fresh: true},
	{name: "tls-resume", title: "TLS: resumed handshake for each GET small, 16 at once", kind: kindHTTP, path: "/body", conns: 16, size: small, tls: true, fresh: true, resume: true},
	{name: "echo-128", title: "frames of 128 B, 64 connections", kind: kindEcho, conns: 64, size: 128},
	{name: "echo-pipelined", title: "frames of 128 B, 64 connections, pipelined by 16", kind: kindEcho, conns: 64, size: 128, depth: 16},
	{name: "echo-16k", title: "frames of 16 KiB, 64 connections", kind: kindEcho, conns: 64, size: 16 << 10},
	{name: "client-get", title: "client: GET small, 64 at once", kind: kindClient, path: "/body", conns: 64, size: small},
	{name: "client-1m", title: "client: GET 1 MiB, 16 at once", kind: kindClient, path: "/body", conns: 16, size: mebibyte},
	{name: "client-tls", title: "client: GET small over TLS, 64 at once", kind: kindClient, path: "/body", conns: 64, size: small, tls: true},
	{name: "idle", title: "idle connections after one request each", kind: kindIdle, path: "/body", conns: 9000, size: small},
	{name: "idle-tls", title: "idle TLS connections after one request each", kind: kindIdle, path: "/body", conns: 9000, size: small, tls: true},
}

// findWorkload knows those of the table and those of growth.
func findWorkload(name string) (workload, error) {
	for _, w := range append(growth(), workloads...) {
		if w.name == name {
			return w, nil
		}
	}
	return workload{}, fmt.Errorf("there is no workload %q", name)
}

// body is what each answer must carry: no piece of it looks like another, so an
// answer with bytes of another place, or of another request's buffer, is noticed.
func (w workload) body() []byte {
	if w.kind == kindEcho {
		return append(binary.BigEndian.AppendUint32(nil, uint32(w.size)), pattern(w.size)...)
	}
	return pattern(w.size)
}

// served is the body that a server must have at hand: that of a file is the system's.
func (w workload) served() []byte {
	if w.path == "/body" || w.path == "/stream" {
		return w.body()
	}
	return nil
}

func pattern(n int) []byte {
	r := rand.New(rand.NewPCG(1, 2))
	b := make([]byte, 0, n+8)
	for len(b) < n {
		b = binary.LittleEndian.AppendUint64(b, r.Uint64())
	}
	return b[:n]
}

// request is what is sent for one answer.
func (w workload) request() []byte {
	if w.kind == kindEcho {
		return w.body()
	}
	return append(w.requestHead(), w.requestBody()...)
}

func (w workload) requestHead() []byte {
	method, more := "GET", ""
	if w.post {
		method = "POST"
		more = fmt.Sprintf("Content-Type: application/octet-stream\r\nContent-Length: %d\r\n", w.size)
	}
	if w.fresh {
		more += "Connection: close\r\n"
	}
	return fmt.Appendf(nil, "%s %s HTTP/1.1\r\nHost: localhost\r\nUser-Agent: bench\r\nAccept: */*\r\n%s\r\n", method, w.path, more)
}

func (w workload) requestBody() []byte {
	if w.post {
		return w.body()
	}
	return nil
}

// chunked says that the answer comes in chunks.
func (w workload) chunked() bool { return w.path == "/stream" }

// inFlight is how many requests a connection sends at once.
func (w workload) inFlight() int { return max(1, w.depth) }
