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

// streamConn is the network.Conn of a request. Nothing can be read from it. What is
// written by Malloc and WriteBinary must be an answer of HTTP/1.1, as it is by Hertz's sse
// package, its chunked body writer and its adaptor; it is sent as one of HTTP/3.
type streamConn struct {
	http1Writer
	e *exchange

	readTimeout, writeTimeout atomic.Int64 // time.Duration
	sent                      int64        // bytes of the answer's body
	hijacked                  atomic.Bool  // somebody has tried to use it as a connection
}

var (
	_ network.Conn      = (*streamConn)(nil)
	_ network.ConnTLSer = (*streamConn)(nil)
)

func (c *streamConn) init(e *exchange) {
	c.e = e
	c.http1Writer = http1Writer{sink: c, head: e.r.Method == http.MethodHead}
	options := e.conn.server.options
	c.readTimeout.Store(int64(options.ReadTimeout))
	c.writeTimeout.Store(int64(options.WriteTimeout))
}

var errHijack = errors.New("http3: a request has no connection of its own over HTTP/3")

func (c *streamConn) hijack() error {
	c.hijacked.Store(true)
	return errHijack
}

// Read and Write are for who has hijacked a connection: they fail, and the client is told.
func (c *streamConn) Read([]byte) (int, error)  { return 0, c.hijack() }
func (c *streamConn) Write([]byte) (int, error) { return 0, c.hijack() }

func (c *streamConn) Peek(int) ([]byte, error)       { return nil, c.hijack() }
func (c *streamConn) Skip(int) error                 { return c.hijack() }
func (c *streamConn) ReadByte() (byte, error)        { return 0, c.hijack() }
func (c *streamConn) ReadBinary(int) ([]byte, error) { return nil, c.hijack() }
func (c *streamConn) Len() int                       { return 0 }
func (c *streamConn) Release() error                 { return nil }

// Close does nothing: the stream ends with the exchange.
func (c *streamConn) Close() error { return nil }

func (c *streamConn) LocalAddr() net.Addr  { return c.e.conn.local }
func (c *streamConn) RemoteAddr() net.Addr { return c.e.conn.raw.RemoteAddr() }

// Handshake implements network.ConnTLSer. It is complete.
func (c *streamConn) Handshake() error                     { return nil }
func (c *streamConn) ConnectionState() tls.ConnectionState { return *c.e.r.TLS }

func (c *streamConn) SetReadTimeout(t time.Duration) error {
	c.readTimeout.Store(int64(t))
	return nil
}

func (c *streamConn) SetWriteTimeout(t time.Duration) error {
	c.writeTimeout.Store(int64(t))
	return nil
}

func (c *streamConn) SetReadDeadline(t time.Time) error {
	c.readTimeout.Store(0)
	return c.e.w.SetReadDeadline(t)
}

func (c *streamConn) SetWriteDeadline(t time.Time) error {
	c.writeTimeout.Store(0)
	return c.e.w.SetWriteDeadline(t)
}

func (c *streamConn) SetDeadline(t time.Time) error {
	return errors.Join(c.SetReadDeadline(t), c.SetWriteDeadline(t))
}
