package http3

import (
	"crypto/tls"
	"errors"
	"net"
	"net/http"
	"sync/atomic"
	"time"

	"github.com/cloudwego/hertz/pkg/network"
)

// requestConn is the network.Conn of a request. Nothing can be read from it. What is
// written by Malloc and WriteBinary must be an answer of HTTP/1.1, as it is by Hertz's sse
// package, its chunked body writer and its adaptor; it is sent as one of HTTP/3.
type requestConn struct {
	http1Writer
	e *exchange

	readTimeout, writeTimeout atomic.Int64 // time.Duration
	sent                      int64        // bytes of the answer's body
	hijacked                  atomic.Bool  // somebody has tried to use it as a connection
}

var (
	_ network.Conn      = (*requestConn)(nil)
	_ network.ConnTLSer = (*requestConn)(nil)
)

func (c *requestConn) init(e *exchange) {
	c.e = e
	c.http1Writer = http1Writer{sink: c, head: e.r.Method == http.MethodHead}
	options := e.conn.server.options
	c.readTimeout.Store(int64(options.ReadTimeout))
	c.writeTimeout.Store(int64(options.WriteTimeout))
}

var errHijack = errors.New("http3: a request has no connection of its own over HTTP/3")

func (c *requestConn) hijack() error {
	c.hijacked.Store(true)
	return errHijack
}

// Read and Write are for who has hijacked a connection: they fail, and the client is told.
func (c *requestConn) Read([]byte) (int, error)  { return 0, c.hijack() }
func (c *requestConn) Write([]byte) (int, error) { return 0, c.hijack() }

func (c *requestConn) Peek(int) ([]byte, error)       { return nil, c.hijack() }
func (c *requestConn) Skip(int) error                 { return c.hijack() }
func (c *requestConn) ReadByte() (byte, error)        { return 0, c.hijack() }
func (c *requestConn) ReadBinary(int) ([]byte, error) { return nil, c.hijack() }
func (c *requestConn) Len() int                       { return 0 }
func (c *requestConn) Release() error                 { return nil }

// Close does nothing: the stream ends with the exchange.
func (c *requestConn) Close() error { return nil }

func (c *requestConn) LocalAddr() net.Addr  { return c.e.conn.local }
func (c *requestConn) RemoteAddr() net.Addr { return c.e.conn.raw.RemoteAddr() }

// Handshake implements network.ConnTLSer. It is complete.
func (c *requestConn) Handshake() error                     { return nil }
func (c *requestConn) ConnectionState() tls.ConnectionState { return *c.e.r.TLS }

func (c *requestConn) SetReadTimeout(t time.Duration) error {
	c.readTimeout.Store(int64(t))
	return nil
}

func (c *requestConn) SetWriteTimeout(t time.Duration) error {
	c.writeTimeout.Store(int64(t))
	return nil
}

func (c *requestConn) SetReadDeadline(t time.Time) error {
	c.readTimeout.Store(0)
	return c.e.w.SetReadDeadline(t)
}

func (c *requestConn) SetWriteDeadline(t time.Time) error {
	c.writeTimeout.Store(0)
	return c.e.w.SetWriteDeadline(t)
}

func (c *requestConn) SetDeadline(t time.Time) error {
	return errors.Join(c.SetReadDeadline(t), c.SetWriteDeadline(t))
}
