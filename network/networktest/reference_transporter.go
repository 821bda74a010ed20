package networktest

import (
	"context"
	"crypto/tls"
	"errors"
	"io/fs"
	"net"
	"os"
	"runtime"
	"slices"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/hertznet/hertznet/network"
)

// transporterReference is a network.Transporter that keeps every clause of group S
// and is meant to be read. It is slow: two goroutines and a copy more for each
// connection.
type transporterReference struct {
	o      TransporterOptions
	onData network.OnData

	mu       sync.Mutex
	listener net.Listener
	conns    map[*transporterConn]bool
	serving  bool
	stopping bool
	stopped  chan struct{} // closed when stopping begins
	drained  chan struct{} // closed when then the last connection is gone
	slots    chan struct{} // one for each connection, if they are limited [S19]
}

var _ network.Transporter = (*transporterReference)(nil)

const (
	transporterGrace  = 100 * time.Millisecond // for a first message that may be on its way when Shutdown begins
	transporterLinger = time.Second            // for a peer to take an answer though it still sends [S22]
	transporterAhead  = 64 << 10               // bytes read ahead of the handler
)

func newTransporterReference(o TransporterOptions) *transporterReference {
	t := &transporterReference{
		o:       o,
		conns:   make(map[*transporterConn]bool),
		stopped: make(chan struct{}),
		drained: make(chan struct{}),
	}
	if o.MaxConns > 0 {
		t.slots = make(chan struct{}, o.MaxConns)
	}
	return t
}

// Listener is nil before there is one [S1].
func (t *transporterReference) Listener() net.Listener {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.listener
}

func (t *transporterReference) ListenAndServe(onData network.OnData) error {
	t.mu.Lock()
	switch {
	case t.stopping:
		t.mu.Unlock()
		return nil // [S5]
	case t.serving:
		t.mu.Unlock()
		return errors.New("networktest: the transporter serves already")
	}
	ln, err := t.listen()
	if err != nil {
		t.mu.Unlock()
		return err // [S4]
	}
	t.serving, t.listener, t.onData = true, ln, onData
	t.mu.Unlock()
	defer t.stop()

	for backoff := time.Millisecond; ; {
		if t.slots != nil {
			select {
			case t.slots <- struct{}{}:
			case <-t.stopped:
				return nil
			}
		}
		nc, err := ln.Accept()
		switch {
		case err == nil:
			backoff = time.Millisecond
			t.start(nc)
			continue
		case t.isStopping():
			return nil
		case !isTransientAccept(err):
			return err
		}
		if t.slots != nil {
			<-t.slots
		}
		select {
		case <-time.After(backoff): // [S3]
		case <-t.stopped:
			return nil
		}
		backoff = min(2*backoff, 100*time.Millisecond)
	}
}

// transientAcceptErrors are what Accept fails with for a while [S3].
func transientAcceptErrors() []syscall.Errno {
	if runtime.GOOS == "windows" {
		return []syscall.Errno{10024, 10053, 10055} // WSAEMFILE, WSAECONNABORTED, WSAENOBUFS
	}
	return []syscall.Errno{syscall.EMFILE, syscall.ENFILE, syscall.ECONNABORTED, syscall.ENOBUFS, syscall.ENOMEM}
}

func isTransientAccept(err error) bool {
	var errno syscall.Errno
	return errors.As(err, &errno) && slices.Contains(transientAcceptErrors(), errno)
}

// listen opens the listener. A socket file on which nobody answers is replaced
// [S15].
func (t *transporterReference) listen() (net.Listener, error) {
	if t.o.Listener != nil {
		return t.o.Listener, nil
	}
	if t.o.Network == "unix" {
		if info, err := os.Lstat(t.o.Address); err == nil && info.Mode().Type() == fs.ModeSocket {
			c, err := net.Dial("unix", t.o.Address)
			switch {
			case err == nil:
				c.Close() // Listen will fail
			case errors.Is(err, syscall.ECONNREFUSED) || errors.Is(err, syscall.Errno(10061)): // Windows
				os.Remove(t.o.Address)
			}
		}
	}
	return net.Listen(t.o.Network, t.o.Address)
}

func (t *transporterReference) isStopping() bool {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.stopping
}

// stop ends accepting. The listener is closed once [S9].
func (t *transporterReference) stop() {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.stopping {
		return
	}
	t.stopping = true
	close(t.stopped)
	if t.listener != nil {
		t.listener.Close()
	}
	if len(t.conns) == 0 {
		close(t.drained)
	}
}

// start gives nc a goroutine of its own at once [S11].
func (t *transporterReference) start(nc net.Conn) {
	c := &transporterConn{t: t, nc: nc}
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.stopping {
		nc.Close() // [S16]
		return
	}
	t.conns[c] = true
	go t.serve(c)
}

func (t *transporterReference) forget(c *transporterConn) {
	t.mu.Lock()
	defer t.mu.Unlock()
	delete(t.conns, c)
	if t.stopping && len(t.conns) == 0 {
		close(t.drained)
	}
	if t.slots != nil {
		<-t.slots
	}
}

// serve is the life of one connection.
func (t *transporterReference) serve(c *transporterConn) {
	defer t.forget(c)
	defer c.close()
	defer func() {
		if p := recover(); p != nil {
			t.log(p) // [S10]
		}
	}()
	ctx := context.Background()
	if t.o.OnAccept != nil {
		if got := t.o.OnAccept(c.nc); got != nil { // [S13]
			ctx = got
		}
	}
	nc := c.nc
	var secure *tls.Conn
	if t.o.TLS != nil {
		if t.o.ReadTimeout > 0 {
			_ = nc.SetDeadline(time.Now().Add(t.o.ReadTimeout)) // [S18]
		}
		secure = tls.Server(nc, t.o.TLS)
		if secure.Handshake() != nil {
			return
		}
		_ = nc.SetDeadline(time.Time{})
		nc = secure
		t.mu.Lock()
		c.secure = secure
		t.mu.Unlock()
	}
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	ahead := newTransporterReadAhead(nc, cancel)
	defer ahead.stop()
	c.Conn = Reference(ahead)
	var conn network.Conn = c
	if secure != nil {
		conn = transporterTLSConn{c, secure}
	}
	_ = c.SetReadTimeout(t.o.ReadTimeout)
	_ = c.SetWriteTimeout(t.o.WriteTimeout) // [S21]
	if t.o.OnConnect != nil {
		if got := t.o.OnConnect(ctx, conn); got != nil {
			var cancelled context.CancelFunc
			ctx, cancelled = context.WithCancel(got)
			defer cancelled()
			defer context.AfterFunc(ahead.ended, cancelled)() // what the hook returns need not come from ctx
		}
	}
	for {
		// What a handler leaves unread is there at once.
		if _, err := c.Peek(1); err != nil {
			return
		}
		_ = c.Release()
		if !c.SetIdle(false) {
			return
		}
		_ = c.SetReadTimeout(t.o.ReadTimeout)
		if err := t.onData(ctx, conn); err != nil {
			if !c.closed.Load() {
				c.linger(ahead, nc)
			}
			return
		}
		_ = c.Release()
		if c.Len() > 0 && !c.closed.Load() {
			continue
		}
		if !c.SetIdle(true) {
			return
		}
		_ = c.SetReadTimeout(t.o.IdleTimeout) // [S20]
	}
}

func (t *transporterReference) log(p any) {
	if t.o.Logger != nil {
		t.o.Logger.Error("a handler panicked; its connection is closed", "panic", p)
	}
}

// linger lets the peer have an answer though it is still sending: closing while
// bytes of it are unread would be a reset, which may throw the answer away [S22].
func (c *transporterConn) linger(ahead *transporterReadAhead, nc net.Conn) {
	h, ok := nc.(interface{ CloseWrite() error })
	if !ok || h.CloseWrite() != nil {
		return
	}
	if nc != c.nc { // close_notify has been sent; the socket's own end follows it
		if h, ok := c.nc.(interface{ CloseWrite() error }); ok {
			_ = h.CloseWrite()
		}
	}
	ahead.discard()
	select {
	case <-ahead.ended.Done():
	case <-time.After(transporterLinger):
	}
}

// closeWhere closes the connections for which f holds. One over TLS may take its
// time to say so, and the next need not wait for it.
func (t *transporterReference) closeWhere(f func(c *transporterConn) bool) {
	t.mu.Lock()
	defer t.mu.Unlock()
	for c := range t.conns {
		if f(c) {
			c.doomed = true
			go c.close()
		}
	}
}

// Close stops at once [S5].
func (t *transporterReference) Close() error {
	t.stop()
	t.closeWhere(func(*transporterConn) bool { return true })
	return nil
}

// Shutdown closes what is idle and waits for the rest [S6, S7, S8].
func (t *transporterReference) Shutdown(ctx context.Context) error {
	t.stop()
	t.closeWhere(func(c *transporterConn) bool { return c.idle })
	grace := time.NewTimer(transporterGrace)
	defer grace.Stop()
	for {
		select {
		case <-t.drained:
			return nil
		default:
		}
		select {
		case <-t.drained:
			return nil
		case <-grace.C:
			t.closeWhere(func(c *transporterConn) bool { return !c.begun })
		case <-ctx.Done():
			t.closeWhere(func(*transporterConn) bool { return true })
			return ctx.Err()
		}
	}
}

// transporterConn is what OnData gets.
type transporterConn struct {
	network.Conn // set when hooks and handshake are done
	t            *transporterReference
	nc           net.Conn
	closed       atomic.Bool

	// Under t.mu.
	begun  bool // OnData has been called
	idle   bool // it waits for the next message
	doomed bool // the transporter closes it
	secure *tls.Conn
}

// SetIdle tells that the handler waits for the next message, or that it has come,
// and reports whether the connection is still there to serve it.
func (c *transporterConn) SetIdle(idle bool) bool {
	c.t.mu.Lock()
	defer c.t.mu.Unlock()
	c.begun, c.idle = true, idle
	if idle && c.t.stopping && !c.doomed {
		c.doomed = true
		go c.close()
	}
	return !c.doomed && !c.closed.Load()
}

// Close is the handler's.
func (c *transporterConn) Close() error {
	c.closed.Store(true)
	return c.Conn.Close()
}

// close is the transporter's, which may come before there is a Conn.
func (c *transporterConn) close() {
	c.closed.Store(true)
	c.t.mu.Lock()
	secure := c.secure
	c.t.mu.Unlock()
	if secure != nil {
		// A peer that does not read may hold up close_notify.
		defer time.AfterFunc(transporterGrace, func() { c.nc.Close() }).Stop()
		secure.Close()
	}
	c.nc.Close()
}

// transporterTLSConn is a transporterConn over TLS. Its handshake is complete.
type transporterTLSConn struct {
	*transporterConn
	tls *tls.Conn
}

func (c transporterTLSConn) Handshake() error                     { return c.tls.Handshake() }
func (c transporterTLSConn) ConnectionState() tls.ConnectionState { return c.tls.ConnectionState() }

// transporterReadAhead reads from its conn before anybody asks it to, and so learns
// of the peer's end while a handler is busy [S17].
type transporterReadAhead struct {
	net.Conn
	ended context.Context // done when there is no more to read

	mu       sync.Mutex
	queue    []byte
	err      error // after the queue
	deadline time.Time
	dropping bool
	stopped  bool
	changed  chan struct{} // closed when any of these changes
}

func newTransporterReadAhead(nc net.Conn, onEnd func()) *transporterReadAhead {
	ended, end := context.WithCancel(context.Background())
	c := &transporterReadAhead{Conn: nc, ended: ended, changed: make(chan struct{})}
	go func() {
		defer end()
		defer onEnd()
		p := make([]byte, 4096)
		for c.room() {
			n, err := nc.Read(p)
			c.change(func() {
				if !c.dropping {
					c.queue = append(c.queue, p[:n]...)
				}
				c.err = err
			})
			if err != nil {
				return
			}
		}
	}()
	return c
}

// change does f with the lock and wakes those who wait.
func (c *transporterReadAhead) change(f func()) {
	c.mu.Lock()
	defer c.mu.Unlock()
	f()
	close(c.changed)
	c.changed = make(chan struct{})
}

// room waits until there is room in the queue, and reports whether it is wanted.
func (c *transporterReadAhead) room() bool {
	for {
		c.mu.Lock()
		stopped, full, changed := c.stopped, len(c.queue) >= transporterAhead, c.changed
		c.mu.Unlock()
		if stopped || !full {
			return !stopped
		}
		<-changed
	}
}

// discard drops what there is and what will come.
func (c *transporterReadAhead) discard() {
	c.change(func() { c.dropping, c.queue = true, nil })
}

func (c *transporterReadAhead) stop() {
	c.change(func() { c.stopped = true })
}

func (c *transporterReadAhead) Close() error {
	c.stop()
	return c.Conn.Close()
}

func (c *transporterReadAhead) Read(p []byte) (n int, err error) {
	for {
		c.mu.Lock()
		deadline, changed := c.deadline, c.changed
		late := !deadline.IsZero() && !time.Now().Before(deadline)
		switch {
		case late:
			err = os.ErrDeadlineExceeded
		case len(c.queue) > 0:
			n = copy(p, c.queue)
			c.queue = c.queue[n:]
		default:
			err = c.err
		}
		c.mu.Unlock()
		switch {
		case n > 0:
			c.change(func() {})
			return n, nil
		case err == os.ErrDeadlineExceeded:
			return 0, &net.OpError{Op: "read", Net: c.LocalAddr().Network(), Source: c.LocalAddr(), Addr: c.RemoteAddr(), Err: err}
		case err != nil || len(p) == 0:
			return 0, err
		}
		var timer <-chan time.Time // never
		if !deadline.IsZero() {
			timer = time.After(time.Until(deadline))
		}
		select {
		case <-changed:
		case <-timer:
		}
	}
}

func (c *transporterReadAhead) SetReadDeadline(at time.Time) error {
	c.change(func() { c.deadline = at })
	return nil
}

func (c *transporterReadAhead) SetDeadline(at time.Time) error {
	_ = c.SetReadDeadline(at)
	return c.SetWriteDeadline(at)
}

// CloseWrite is that of the conn beneath.
func (c *transporterReadAhead) CloseWrite() error {
	if h, ok := c.Conn.(interface{ CloseWrite() error }); ok {
		return h.CloseWrite()
	}
	return errors.ErrUnsupported
}
