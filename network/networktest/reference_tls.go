package networktest

import (
	"crypto/tls"
	"fmt"
	"io"
	"net"
	"os"
	"sync"
	"sync/atomic"
	"time"
)

// referenceTLS is the reference over TLS: crypto/tls, with what the contract asks
// for beyond it made up for in a tlsStream.
type referenceTLS struct {
	*reference
	stream *tlsStream
}

func referenceTLSClient(c net.Conn, config *tls.Config) *referenceTLS {
	return newReferenceTLS(c, config, tls.Client)
}

func referenceTLSServer(c net.Conn, config *tls.Config) *referenceTLS {
	return newReferenceTLS(c, config, tls.Server)
}

func newReferenceTLS(c net.Conn, config *tls.Config, side func(net.Conn, *tls.Config) *tls.Conn) *referenceTLS {
	s := &tlsStream{raw: c}
	s.tls = side(tlsBeneath{c, s}, config)
	return &referenceTLS{Reference(s).(*reference), s}
}

// Handshake is limited by the conn's timeouts and deadlines, the earlier of both
// directions [L3]. Its errors are those of crypto/tls, bare [L4].
func (c *referenceTLS) Handshake() error {
	if c.stream.complete.Load() {
		return nil
	}
	if c.closed.Load() {
		return c.fail("handshake", net.ErrClosed)
	}
	if err := c.rd.begin(); err != nil {
		return err
	}
	if err := c.wr.begin(); err != nil {
		return err
	}
	if err := c.stream.handshake(); err != nil {
		return c.fail("handshake", err)
	}
	return nil
}

// ConnectionState is empty until the handshake is complete: that of crypto/tls waits
// for one that is going on [L2].
func (c *referenceTLS) ConnectionState() tls.ConnectionState {
	if !c.stream.complete.Load() {
		return tls.ConnectionState{}
	}
	return c.stream.tls.ConnectionState()
}

// closeNotifyTime is how long Close waits for a peer that does not read.
const closeNotifyTime = 250 * time.Millisecond

// tlsStream is a *tls.Conn that tells a cut stream from one that has ended [L5],
// whose expired write deadline does no harm [L6], whose Close is quick [L7], and
// whose deadlines hold for the handshake as well [L3].
type tlsStream struct {
	raw net.Conn
	tls *tls.Conn

	cut      atomic.Bool // raw has ended where TLS wanted more
	complete atomic.Bool // the handshake is
	abort    atomic.Bool // Close sends nothing any more

	mu              sync.Mutex
	readBy, writeBy time.Time // the user's deadlines
	shaking         int       // handshakes that are going on, or waited for
	writing         int       // and writes

	closeOnce sync.Once
	closeErr  error
}

// tlsBeneath is what crypto/tls reads from and writes to.
type tlsBeneath struct {
	net.Conn
	s *tlsStream
}

func (b tlsBeneath) Read(p []byte) (int, error) {
	n, err := b.Conn.Read(p)
	if err == io.EOF && n > 0 {
		return n, nil // it comes again, if TLS asks for more
	}
	if err == io.EOF {
		b.s.cut.Store(true)
	}
	return n, err
}

func (b tlsBeneath) Close() error { return b.s.closeRaw() }

// apply gives raw the limits of what is going on. A handshake reads and writes, so
// the earlier one holds for both. A write limit is for the user's writes: a read
// may have to write, too, and must not fail by the limit of a write long ago, since
// that would be permanent.
func (s *tlsStream) apply() error {
	r, w := s.readBy, s.writeBy
	switch {
	case s.shaking > 0 && !s.complete.Load():
		r = earlier(r, w)
		w = r
	case s.writing == 0:
		w = time.Time{}
	}
	if err := s.raw.SetReadDeadline(r); err != nil {
		return err
	}
	return s.raw.SetWriteDeadline(w)
}

// earlier takes the zero time for never.
func earlier(a, b time.Time) time.Time {
	if a.IsZero() || !b.IsZero() && b.Before(a) {
		return b
	}
	return a
}

func expired(t time.Time) bool { return !t.IsZero() && !time.Now().Before(t) }

// begin counts one of what is going on. A limit that has passed before is a timeout
// that has touched nothing.
func (s *tlsStream) begin(count *int, by *time.Time) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if by != nil && expired(*by) {
		return os.ErrDeadlineExceeded
	}
	*count++
	return s.apply()
}

func (s *tlsStream) end(count *int) {
	s.mu.Lock()
	defer s.mu.Unlock()
	*count--
	_ = s.apply() // it fails once the conn is closed, and then nobody asks
}

func (s *tlsStream) handshake() error {
	if s.complete.Load() {
		return nil
	}
	err := s.begin(&s.shaking, nil)
	if err == nil {
		err = s.tls.Handshake()
	}
	if err == nil {
		s.complete.Store(true)
	}
	s.end(&s.shaking)
	return err
}

func (s *tlsStream) Read(p []byte) (int, error) {
	if err := s.handshake(); err != nil {
		if err == io.EOF {
			err = io.ErrUnexpectedEOF
		}
		return 0, err
	}
	n, err := s.tls.Read(p)
	if err == io.EOF && s.cut.Load() {
		err = io.ErrUnexpectedEOF
	}
	return n, err
}

func (s *tlsStream) Write(p []byte) (int, error) {
	if err := s.handshake(); err != nil {
		return 0, err
	}
	if err := s.begin(&s.writing, &s.writeBy); err != nil {
		return 0, err
	}
	defer s.end(&s.writing)
	return s.tls.Write(p)
}

// Close sends close_notify, unless a write is going on, and closes raw.
func (s *tlsStream) Close() error {
	if !s.abort.Load() {
		late := time.AfterFunc(closeNotifyTime, func() { _ = s.closeRaw() })
		defer late.Stop()
		_ = s.tls.Close() // its error is that of the alert, or raw's
	}
	return s.closeRaw()
}

func (s *tlsStream) closeRaw() error {
	s.closeOnce.Do(func() { s.closeErr = s.raw.Close() })
	return s.closeErr
}

// CloseWrite sends close_notify.
func (s *tlsStream) CloseWrite() error { return s.tls.CloseWrite() }

// SetLinger of zero makes Close a reset, so there is no close_notify before it.
func (s *tlsStream) SetLinger(sec int) error {
	l, ok := s.raw.(interface{ SetLinger(int) error })
	if !ok {
		return fmt.Errorf("networktest: a %T has no SetLinger", s.raw)
	}
	s.abort.Store(sec == 0)
	return l.SetLinger(sec)
}

func (s *tlsStream) LocalAddr() net.Addr  { return s.raw.LocalAddr() }
func (s *tlsStream) RemoteAddr() net.Addr { return s.raw.RemoteAddr() }

func (s *tlsStream) SetDeadline(t time.Time) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.readBy, s.writeBy = t, t
	return s.apply()
}

func (s *tlsStream) SetReadDeadline(t time.Time) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.readBy = t
	return s.apply()
}

func (s *tlsStream) SetWriteDeadline(t time.Time) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.writeBy = t
	return s.apply()
}
