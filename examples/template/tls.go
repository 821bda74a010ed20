package template

import (
	"context"
	"crypto/tls"
	"errors"
	"io"
	"net"
	"sync/atomic"
	"time"

	"github.com/hertznet/hertznet/network"
)

// handshakeTimeout limits a TLS handshake that nothing else limits more.
const handshakeTimeout = 10 * time.Second

// closeTimeout limits the close_notify that Close sends.
const closeTimeout = 250 * time.Millisecond

// TLSConn is a Conn over TLS. It is a network.ConnTLSer, and a Conn must not be
// one: Hertz finds out by a type assertion whether there is TLS [D6].
type TLSConn struct {
	Conn
	tls *tlsStream
}

var _ network.ConnTLSer = (*TLSConn)(nil)

// NewTLSClient puts a client's TLS over nc, which belongs to it from now on.
func NewTLSClient(nc net.Conn, config *tls.Config) *TLSConn {
	return newTLSConn(tls.Client, nc, config)
}

// NewTLSServer puts a server's TLS over nc, which belongs to it from now on.
func NewTLSServer(nc net.Conn, config *tls.Config) *TLSConn {
	return newTLSConn(tls.Server, nc, config)
}

func newTLSConn(side func(net.Conn, *tls.Config) *tls.Conn, nc net.Conn, config *tls.Config) *TLSConn {
	s := &tlsStream{raw: &endSeer{Conn: nc}, limit: handshakeTimeout}
	s.Conn = side(s.raw, config)
	c := &TLSConn{tls: s}
	c.init(s)
	return c
}

// Handshake implements network.ConnTLSer. The first Read or Write does the same.
func (c *TLSConn) Handshake() error { return c.handshake(context.Background()) }

func (c *TLSConn) handshake(ctx context.Context) error {
	if c.tls.done.Load() {
		return nil
	}
	// Both timeouts hold for it, from now on.
	err := c.readLimit.begin()
	if err == nil {
		err = c.writeLimit.begin()
	}
	if err == nil {
		err = c.tls.handshake(ctx)
	}
	if err != nil {
		err = c.shape("handshake", err)
	}
	return err
}

// ConnectionState implements network.ConnTLSer. That of a tls.Conn would wait for a
// handshake that is under way [L2].
func (c *TLSConn) ConnectionState() tls.ConnectionState {
	if !c.tls.done.Load() {
		return tls.ConnectionState{}
	}
	return c.tls.ConnectionState()
}

// CloseWrite tells the peer that no more comes [C9].
func (c *TLSConn) CloseWrite() error { return c.tls.CloseWrite() }

// tlsStream is the net.Conn beneath a TLSConn: a tls.Conn whose handshake has an
// end, and which can tell a stream that was cut from one that was closed.
type tlsStream struct {
	*tls.Conn
	raw   *endSeer
	limit time.Duration // of the handshake
	done  atomic.Bool   // the handshake has succeeded
}

// handshake costs nothing once it is done; a tls.Conn lets several callers wait for
// one handshake, and keeps its error [L1].
func (s *tlsStream) handshake(ctx context.Context) error {
	if s.done.Load() {
		return nil
	}
	ctx, cancel := context.WithTimeout(ctx, s.limit)
	defer cancel()
	if err := s.HandshakeContext(ctx); err != nil {
		return err // bare: callers compare it with io.EOF, or take it for a tls.RecordHeaderError [L4]
	}
	s.done.Store(true)
	return nil
}

func (s *tlsStream) Read(p []byte) (int, error) {
	if err := s.handshake(context.Background()); err != nil {
		return 0, err
	}
	n, err := s.Conn.Read(p)
	if err == io.EOF && s.raw.ended.Load() {
		// No close_notify: somebody else than the peer may have cut the stream. For
		// the sake of old servers crypto/tls calls that io.EOF too [L5].
		err = io.ErrUnexpectedEOF
	}
	return n, err
}

func (s *tlsStream) Write(p []byte) (int, error) {
	if err := s.handshake(context.Background()); err != nil {
		return 0, err
	}
	return s.Conn.Write(p)
}

// Close gives close_notify a moment. That of a tls.Conn waits five seconds for a peer
// that does not read.
func (s *tlsStream) Close() error {
	timer := time.AfterFunc(closeTimeout, func() { _ = s.raw.SetWriteDeadline(time.Unix(1, 0)) })
	defer timer.Stop()
	return s.Conn.Close()
}

// endSeer notices that the conn beneath TLS has ended. After a close_notify
// crypto/tls does not read on, so this is how to tell that there was none.
type endSeer struct {
	net.Conn
	ended atomic.Bool
}

func (e *endSeer) Read(p []byte) (int, error) {
	n, err := e.Conn.Read(p)
	if errors.Is(err, io.EOF) {
		e.ended.Store(true)
	}
	return n, err
}
