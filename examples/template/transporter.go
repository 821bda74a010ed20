package template

import (
	"context"
	"crypto/tls"
	"errors"
	"io"
	"log/slog"
	"net"
	"os"
	"runtime/debug"
	"sync"
	"syscall"
	"time"

	"github.com/hertznet/hertznet/network"
)

// lingerTime is how long a connection that this side has ended reads on.
const lingerTime = time.Second

// Transporter is a network.Transporter. Its fields must not change once it serves,
// and it serves once. It does not notice that a peer has left while OnData reads
// nothing, so it never cancels a context: somebody would have to read ahead [S17].
type Transporter struct {
	Network, Addr string       // what to listen on, as net.Listen takes them
	From          net.Listener // if not nil, what to accept from instead

	TLS          *tls.Config   // nil is no TLS
	ReadTimeout  time.Duration // of each read, the first one and the handshake too; 0 is no limit
	WriteTimeout time.Duration // of each write; 0 is no limit
	IdleTimeout  time.Duration // between OnData's return and the next byte; 0 is no limit
	MaxConns     int           // open at once; what comes on top is closed; 0 is no limit
	Logger       *slog.Logger  // nil is slog.Default()

	// OnAccept runs for each connection before TLS, OnConnect after the handshake, both
	// in the connection's own goroutine [S11, S12]. The context that they return is
	// OnData's; nil changes nothing [S13].
	OnAccept  func(net.Conn) context.Context
	OnConnect func(context.Context, network.Conn) context.Context

	mu       sync.Mutex
	stopped  bool
	listener net.Listener
	closing  sync.Once             // of the listener [S9]
	conns    map[network.Conn]bool // those that are open, and whether they are idle
}

var _ network.Transporter = (*Transporter)(nil)

// Listener returns what is listened on, or nil before there is anything. Hertz asks
// for this method [S1].
func (t *Transporter) Listener() net.Listener {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.listener
}

// ListenAndServe implements network.Transporter. OnData is called for a connection
// whenever there is something to read, until it returns an error or the connection
// ends; so it has to consume something.
func (t *Transporter) ListenAndServe(onData network.OnData) error {
	ln, err := t.listen()
	if ln == nil {
		return err
	}
	defer t.closeListener()
	pause := time.Duration(0)
	for {
		nc, err := ln.Accept()
		switch {
		case err == nil:
			pause = 0
			t.start(nc, onData)
		case t.isStopped():
			return nil
		case isShortage(err):
			pause = min(max(2*pause, 5*time.Millisecond), time.Second)
			t.log().Warn("accepting failed and is tried again", "error", err, "after", pause)
			time.Sleep(pause)
		default:
			return err
		}
	}
}

// listen returns nil, nil for one that was stopped before it served [S5].
func (t *Transporter) listen() (net.Listener, error) {
	ln := t.From
	if ln == nil && !t.isStopped() {
		if t.Network == "unix" {
			removeStale(t.Addr)
		}
		var err error
		if ln, err = net.Listen(t.Network, t.Addr); err != nil {
			return nil, err
		}
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.stopped {
		if ln != nil {
			ln.Close()
		}
		return nil, nil
	}
	t.listener, t.conns = ln, make(map[network.Conn]bool)
	return ln, nil
}

// removeStale removes a socket file on which nobody answers [S15].
func removeStale(path string) {
	info, err := os.Stat(path)
	if err != nil || info.Mode().Type() != os.ModeSocket {
		return
	}
	c, err := net.Dial("unix", path)
	if err == nil {
		c.Close()
	} else if errors.Is(err, syscall.ECONNREFUSED) {
		os.Remove(path)
	}
}

// isShortage reports whether accepting can work again without anybody's doing [S3].
func isShortage(err error) bool {
	for _, e := range []error{syscall.EMFILE, syscall.ENFILE, syscall.ENOBUFS, syscall.ENOMEM, syscall.ECONNABORTED} {
		if errors.Is(err, e) {
			return true
		}
	}
	return false
}

func (t *Transporter) log() *slog.Logger {
	if t.Logger != nil {
		return t.Logger
	}
	return slog.Default()
}

// start gives nc a goroutine at once, so that nothing slow holds up Accept [S11].
func (t *Transporter) start(nc net.Conn, onData network.OnData) {
	plain := NewConn(nc)
	conn := network.Conn(plain)
	if t.TLS != nil {
		secure := NewTLSServer(nc, t.TLS)
		conn, plain = secure, &secure.Conn
	}
	plain.setIdle = func(idle bool) bool { return t.setIdle(conn, idle) }
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.stopped || t.MaxConns > 0 && len(t.conns) >= t.MaxConns {
		nc.Close() // [S16, S19]
		return
	}
	t.conns[conn] = true
	go t.serve(nc, conn, onData)
}

// serve is the life of a connection.
func (t *Transporter) serve(nc net.Conn, conn network.Conn, onData network.OnData) {
	defer func() {
		if p := recover(); p != nil {
			t.log().Error("a handler panicked; its connection is closed", "remote", nc.RemoteAddr(), "panic", p, "stack", string(debug.Stack()))
		}
		conn.Close()
		t.mu.Lock()
		delete(t.conns, conn)
		t.mu.Unlock()
	}()
	ctx := context.Background()
	if t.OnAccept != nil {
		if got := t.OnAccept(nc); got != nil {
			ctx = got
		}
	}
	_ = conn.SetReadTimeout(t.ReadTimeout) // where it fails, so does what follows
	_ = conn.SetWriteTimeout(t.WriteTimeout)
	if c, ok := conn.(network.ConnTLSer); ok {
		if err := c.Handshake(); err != nil {
			t.log().Debug("TLS handshake failed", "remote", nc.RemoteAddr(), "error", err)
			return
		}
	}
	if t.OnConnect != nil {
		if got := t.OnConnect(ctx, conn); got != nil {
			ctx = got
		}
	}
	for t.awaitData(conn) {
		_ = conn.SetReadTimeout(t.ReadTimeout)
		// What OnData has left in the buffer may be the next message.
		if onData(ctx, conn) != nil || !t.setIdle(conn, conn.Len() == 0) {
			linger(nc, conn)
			return
		}
		_ = conn.SetReadTimeout(t.IdleTimeout)
	}
}

// awaitData waits for something to read, as an idle connection.
func (t *Transporter) awaitData(conn network.Conn) bool {
	_, err := conn.Peek(1)
	return err == nil && t.setIdle(conn, false)
}

// setIdle notes whether the connection waits for a message, and reports whether it
// may go on: Shutdown closes the idle ones.
func (t *Transporter) setIdle(conn network.Conn, idle bool) bool {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.stopped && t.conns[conn] && !idle {
		return false // it has been closed, or is about to be
	}
	t.conns[conn] = idle
	return !(t.stopped && idle)
}

// linger ends a connection whose OnData has returned. The system answers bytes that
// lie unread in a socket at its end with a reset, which may erase the last answer on
// its way: so they are read, until the peer closes too or has had its time [S22].
func linger(nc net.Conn, conn network.Conn) {
	if c, ok := conn.(*TLSConn); ok {
		_ = c.CloseWrite()
	}
	half, ok := nc.(interface{ CloseWrite() error })
	if !ok || half.CloseWrite() != nil {
		return // it cannot be half-closed, or OnData has closed it
	}
	_ = nc.SetReadDeadline(time.Now().Add(lingerTime))
	_, _ = io.Copy(io.Discard, nc)
}

func (t *Transporter) isStopped() bool {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.stopped
}

// stop ends accepting.
func (t *Transporter) stop() error {
	t.mu.Lock()
	t.stopped = true
	t.mu.Unlock()
	return t.closeListener()
}

func (t *Transporter) closeListener() (err error) {
	if ln := t.Listener(); ln != nil {
		t.closing.Do(func() { err = ln.Close() })
	}
	return err
}

// closeConns closes the connections that are idle, or all, and returns how many
// there are. TLS may have to wait until it can say close_notify; the others do not
// wait for that.
func (t *Transporter) closeConns(all bool) int {
	t.mu.Lock()
	defer t.mu.Unlock()
	for conn, idle := range t.conns {
		if idle || all {
			go conn.Close()
		}
	}
	return len(t.conns)
}

// Close implements network.Transporter.
func (t *Transporter) Close() error {
	err := t.stop()
	t.closeConns(true)
	return err
}

// Shutdown implements network.Transporter.
func (t *Transporter) Shutdown(ctx context.Context) error {
	err := t.stop()
	for t.closeConns(false) > 0 {
		select {
		case <-time.After(5 * time.Millisecond):
		case <-ctx.Done():
			t.closeConns(true)
			return ctx.Err() // exactly that [S7]
		}
	}
	return err
}
