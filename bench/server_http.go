//go:build linux && (amd64 || arm64)

package main

import (
	"bytes"
	"crypto/tls"
	"fmt"
	"io"
	"log"
	"net"
	"net/http"
	"os"
	"slices"
	"strconv"

	"github.com/valyala/fasthttp"
)

// listen opens a free port of 127.0.0.1, with TLS if secure is not nil.
func listen(secure *tls.Config) (net.Listener, error) {
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err == nil && secure != nil {
		ln = tls.NewListener(ln, secure)
	}
	return ln, err
}

func startFastHTTP(w workload, secure *tls.Config, file string) (string, error) {
	ln, err := listen(secure)
	if err != nil {
		return "", err
	}
	body := w.served()
	s := &fasthttp.Server{
		Name: serverName, ReadTimeout: readTimeout, IdleTimeout: idleTimeout, MaxRequestBodySize: maxBody, Logger: log.New(io.Discard, "", 0),
		Handler: func(ctx *fasthttp.RequestCtx) {
			ctx.SetContentType(contentType)
			switch string(ctx.Path()) {
			case "/body":
				ctx.Response.SetBodyRaw(body)
			case "/echo":
				ctx.Write(ctx.PostBody())
			case "/stream":
				ctx.SetBodyStream(&chunkReader{body}, -1)
			case "/file":
				fasthttp.ServeFile(ctx, file)
			default:
				ctx.NotFound()
			}
		},
	}
	go s.Serve(ln)
	return ln.Addr().String(), nil
}

// chunkReader has fasthttp flush each chunk, as it does with what a Read returns. Its
// SetBodyStreamWriter joins what is written in quick succession.
type chunkReader struct{ rest []byte }

func (r *chunkReader) Read(p []byte) (int, error) {
	if len(r.rest) == 0 {
		return 0, io.EOF
	}
	n := copy(p, r.rest[:chunk])
	r.rest = r.rest[n:]
	return n, nil
}

func startNetHTTP(w workload, secure *tls.Config, file string) (string, error) {
	ln, err := listen(secure)
	if err != nil {
		return "", err
	}
	body := w.served()
	head := func(out http.ResponseWriter, length int64) {
		out.Header().Set("Server", serverName)
		out.Header().Set("Content-Type", contentType)
		if length >= 0 {
			out.Header().Set("Content-Length", strconv.FormatInt(length, 10))
		}
	}
	mux := http.NewServeMux()
	mux.HandleFunc("GET /body", func(out http.ResponseWriter, _ *http.Request) {
		head(out, int64(len(body)))
		out.Write(body)
	})
	mux.HandleFunc("POST /echo", func(out http.ResponseWriter, r *http.Request) {
		if r.ContentLength < 0 || r.ContentLength > maxBody {
			http.Error(out, "no length, or too long", http.StatusRequestEntityTooLarge)
			return
		}
		b := make([]byte, r.ContentLength)
		if _, err := io.ReadFull(r.Body, b); err != nil {
			return
		}
		head(out, r.ContentLength)
		out.Write(b)
	})
	mux.HandleFunc("GET /stream", func(out http.ResponseWriter, _ *http.Request) {
		head(out, -1)
		for i := 0; i < len(body); i += chunk {
			if _, err := out.Write(body[i : i+chunk]); err != nil {
				return
			}
			out.(http.Flusher).Flush()
		}
	})
	mux.HandleFunc("GET /file", func(out http.ResponseWriter, r *http.Request) {
		out.Header().Set("Server", serverName)
		http.ServeFile(out, r, file)
	})
	s := &http.Server{Handler: mux, ReadTimeout: readTimeout, IdleTimeout: idleTimeout, ErrorLog: log.New(io.Discard, "", 0)}
	go s.Serve(ln)
	return ln.Addr().String(), nil
}

// startBare serves w and nothing else. It knows the length of a request, so it parses
// nothing; and it has no timeouts. No HTTP server can take less.
func startBare(w workload, secure *tls.Config, file string) (string, error) {
	ln, err := listen(secure)
	if err != nil {
		return "", err
	}
	length := fmt.Sprintf("Content-Length: %d", w.size)
	if w.chunked() {
		length = "Transfer-Encoding: chunked"
	}
	head := fmt.Appendf(nil, "HTTP/1.1 200 OK\r\nServer: %s\r\nDate: Thu, 01 Jan 1970 00:00:00 GMT\r\nContent-Type: %s\r\n%s\r\n\r\n",
		serverName, contentType, length)
	// What is written for one request, each by a Write. Several requests that came
	// together have their answers in one.
	answers := [][]byte{bytes.Repeat(slices.Concat(head, w.served()), w.inFlight())}
	if w.chunked() {
		answers = [][]byte{head}
		for part := range slices.Chunk(w.body(), chunk) {
			answers = append(answers, fmt.Appendf(nil, "%x\r\n%s\r\n", chunk, part))
		}
		answers = append(answers, []byte("0\r\n\r\n"))
	}
	go acceptEach(ln, func(c net.Conn) error { return bare(c, w, file, answers) })
	return ln.Addr().String(), nil
}

// acceptEach serves each connection in a goroutine, and closes it.
func acceptEach(ln net.Listener, serve func(net.Conn) error) {
	for {
		c, err := ln.Accept()
		if err != nil {
			return
		}
		go func() {
			defer c.Close()
			_ = serve(c) // the peer has gone
		}()
	}
}

// bare serves one connection until the peer closes it.
func bare(c net.Conn, w workload, file string, answers [][]byte) error {
	head := answers[0]
	asked, body := len(w.requestHead()), len(w.requestBody())
	// A request is read to where its body is the answer's, behind the answer's head.
	at := max(0, len(head)-asked)
	buf := make([]byte, at+(asked+body)*w.inFlight())
	for have := 0; ; {
		n, err := c.Read(buf[at+have:])
		if err != nil {
			return err
		}
		have += n
		whole := have / (asked + body)
		have -= whole * (asked + body) // the beginning of the next, whose bytes do not matter
		switch {
		case whole == 0:
		case w.post:
			answer := buf[at+asked-len(head):]
			copy(answer, head)
			_, err = c.Write(answer)
		case w.depth > 0:
			_, err = c.Write(head[:len(head)/w.depth*whole])
		default:
			for i := 0; i < len(answers) && err == nil; i++ {
				_, err = c.Write(answers[i])
			}
			if err == nil && w.path == "/file" {
				err = sendFile(c, file)
			}
		}
		if err != nil || w.fresh && whole > 0 {
			return err
		}
	}
}

func sendFile(c net.Conn, name string) error {
	f, err := os.Open(name)
	if err != nil {
		return err
	}
	defer f.Close()
	_, err = io.Copy(c, f) // sendfile
	return err
}
