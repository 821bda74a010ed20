package standard

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"runtime/debug"
	"sync"
	"sync/atomic"
	"time"

	"github.com/hertznet/hertznet/network"
	"github.com/hertznet/hertznet/tlsconn"
)

// newGrace is how long a Shutdown lets connections live that have not sent a byte
// yet: their first request may be on its way.
const newGrace = 100 * time.Millisecond

// Transporter accepts connections and calls OnData for them: a
// [network.Transporter]. The zero value listens on a free TCP port. Its fields
// must not change once it serves. A Transporter serves once: after Close or
// Shutdown it does not serve again.
type Transporter struct {
	// Network and Addr are what ListenAndServe listens on, as net.Listen takes
	// them. An empty Network is "tcp", or "unix" when Addr is unix:///path. On
	// "unix", a socket file that nobody answers on is replaced; a live one is an
	// error [S15].
	Network, Addr string

	// ListenConfig, if not nil, is what ListenAndServe listens with.
	ListenConfig *net.ListenConfig

	// TLSConfig, if not nil, makes every connection a TLS server's. It is cloned
	// when serving starts. The handshake is complete before OnConnect.
	TLSConfig *tls.Config

	// HandshakeTimeout limits the TLS handshake. Zero is ReadTimeout, or
	// DefaultHandshakeTimeout if that is zero or less too; less than zero is no
	// limit.
	HandshakeTimeout time.Duration

	// ReadTimeout limits the wait for the first byte of a connection, and is the
	// read timeout of each operation when OnData is called [S18]. Zero or less:
	// no limit.
	ReadTimeout time.Duration

	// WriteTimeout is the write timeout of each operation [S21]. Zero or less: no
	// limit.
	WriteTimeout time.Duration

	// IdleTimeout limits the wait for more once OnData has returned [S20]. Zero or
	// less: no limit.
	IdleTimeout time.Duration

	// KeepAlive is after how much silence TCP probes whether the peer is still
	// there. Zero is the listener's own setting, less than zero is never.
	KeepAlive time.Duration

	// ReadBufferSize is the least size of the block that a connection reads into,
	// in bytes. Less than 4 KiB is 4 KiB; above 1 MiB blocks are not pooled.
	ReadBufferSize int

	// MaxConns is how many connections may be open at once. Those beyond it are not
	// accepted until another one ends: they wait in the listener's backlog [S19].
	// Zero or less: no limit.
	MaxConns int

	// CancelOnDisconnect has the context of a connection cancelled as soon as the
	// peer has gone, by closing its end or its sending side or by a reset, while
	// OnData runs [S17]. Bytes that wait to be read do not hide it. It works on
	// Linux, for TCP, unix sockets and TLS over them; elsewhere it does nothing.
	CancelOnDisconnect bool

	// OnAccept is called with each connection before anything is read from it,
	// TLS included [S12]. It returns the context of the connection; nil is
	// context.Background() [S13]. It runs in the connection's own goroutine, so a
	// slow one delays no other [S11]. Closing the connection refuses it; deadlines
	// that it sets on the connection do not last.
	OnAccept func(net.Conn) context.Context

	// OnConnect is called after the TLS handshake, if there is one, and returns
	// the context for OnData; nil leaves it as it was.
	OnConnect func(context.Context, network.Conn) context.Context

	// OnHandshakeError, if not nil, is called when a TLS handshake failed, before
	// the connection is closed. A client that spoke plain text is a
	// tls.RecordHeaderError, whose Conn can still be written to [L4].
	OnHandshakeError func(net.Conn, error)

	// Logger gets what an operator should know; nil is slog.Default().
	Logger *slog.Logger

	stopping atomic.Bool
	mu       sync.Mutex
	serving  bool
	listener net.Listener // as it was given
	closing  net.Listener // the same, closed once
	conns    map[*accepted]struct{}
	stopped  chan struct{} // closed when stopping begins
	drained  chan struct{} // closed when then the last connection is gone
	config   *tls.Config   // the clone of TLSConfig
	slots    chan struct{} // one for each open connection, if MaxConns is set
	watch    *watcher      // of disconnects; nil if nobody asked
}

var _ network.Transporter = (*Transporter)(nil)

// Listener returns the listener that is served, or nil before there is one [S1].
func (t *Transporter) Listener() net.Listener {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.listener
}

// ListenAndServe listens on Network and Addr and serves until Close or Shutdown,
// when it returns nil, or until accepting fails for good. It returns while
// Shutdown may still be waiting for connections: wait for Shutdown, not for this.
//
// onData is called with a *Conn or a *TLSConn and the connection's context
// whenever bytes are there to be read [S2]. When it returns nil and has not closed
// the connection, it is called again when more has come; an error closes the
// connection, and so does a panic, which is logged [S10].
func (t *Transporter) ListenAndServe(onData network.OnData) error {
	if t.stopping.Load() {
		return nil // Shutdown may come first [S5]
	}
	ln, err := t.Listen()
	if err != nil {
		return err
	}
	return t.Serve(ln, onData)
}

// Serve is ListenAndServe on a listener that is there already, of any kind. It
// closes ln before it returns.
func (t *Transporter) Serve(ln net.Listener, onData network.OnData) error {
	once := &onceListener{Listener: ln}
	defer once.Close()
	if onData == nil {
		return errors.New("standard: Transporter: OnData is nil")
	}
	t.mu.Lock()
	switch {
	case t.stopping.Load():
		t.mu.Unlock()
		return nil
	case t.serving:
		t.mu.Unlock()
		return errors.New("standard: Transporter serves already")
	}
	t.serving, t.listener, t.closing = true, ln, once
	t.init()
	if t.TLSConfig != nil {
		// Once for all connections: the clone owns the session ticket keys.
		t.config = tlsconn.ServerConfig(t.TLSConfig)
	}
	if t.MaxConns > 0 {
		t.slots = make(chan struct{}, t.MaxConns)
	}
	if t.CancelOnDisconnect {
		w, err := newWatcher()
		if err != nil {
			t.mu.Unlock()
			return fmt.Errorf("standard: CancelOnDisconnect: %w", err)
		}
		t.watch = w
		defer w.endWhen(t.drained)
	}
	t.mu.Unlock()

	var backoff time.Duration
	for {
		if !t.takeSlot() {
			return nil
		}
		nc, err := ln.Accept()
		if err != nil {
			t.freeSlot()
		}
		switch {
		case err == nil:
			backoff = 0
			t.start(nc, onData)
		case t.stopping.Load():
			return nil
		case isTransient(err):
			backoff = min(max(2*backoff, 5*time.Millisecond), time.Second)
			t.log().Warn("accepting a connection failed and is tried again; if it lasts, raise the limit of open files",
				"error", err, "after", backoff)
			select {
			case <-time.After(backoff):
			case <-t.stopped:
				return nil
			}
		default:
			t.log().Error("accepting connections failed and has ended", "error", err)
			return err
		}
	}
}

// takeSlot waits until one more connection may be open; false says that there
// will be none.
func (t *Transporter) takeSlot() bool {
	if t.slots == nil {
		return true
	}
	select {
	case t.slots <- struct{}{}:
		return true
	case <-t.stopped:
		return false
	}
}

func (t *Transporter) freeSlot() {
	if t.slots != nil {
		<-t.slots
	}
}

// init makes what both serving and stopping need. t.mu is held.
func (t *Transporter) init() {
	if t.stopped == nil {
		t.conns = make(map[*accepted]struct{})
		t.stopped = make(chan struct{})
		t.drained = make(chan struct{})
	}
}

func (t *Transporter) log() *slog.Logger {
	if t.Logger != nil {
		return t.Logger
	}
	return slog.Default()
}

// start gives nc a goroutine of its own at once [S11].
func (t *Transporter) start(nc net.Conn, onData network.OnData) {
	a := t.accept(nc)
	t.mu.Lock()
	stopping := t.stopping.Load()
	if !stopping {
		t.conns[a] = struct{}{}
	}
	t.mu.Unlock()
	if stopping {
		nc.Close() // it came while Shutdown began [S16]
		t.freeSlot()
		return
	}
	go t.serve(a, nc, onData)
}

// accept wraps nc.
func (t *Transporter) accept(nc net.Conn) *accepted {
	t.setKeepAlive(nc)
	a := &accepted{t: t}
	if t.config == nil {
		c := NewConn(nc)
		a.conn, a.base = c, c
	} else {
		tc := tlsconn.Server(nc, t.config)
		tc.SetHandshakeTimeout(t.handshakeTimeout())
		c := NewTLSConn(tc)
		a.conn, a.base, a.tls = c, &c.Conn, c
	}
	a.base.accepted = a
	a.base.in.floor = t.ReadBufferSize
	return a
}

func (t *Transporter) handshakeTimeout() time.Duration {
	switch {
	case t.HandshakeTimeout != 0:
		return t.HandshakeTimeout
	case t.ReadTimeout > 0:
		return t.ReadTimeout
	}
	return DefaultHandshakeTimeout
}

// serve is the life of one connection.
func (t *Transporter) serve(a *accepted, nc net.Conn, onData network.OnData) {
	defer func() {
		if p := recover(); p != nil {
			t.log().Error("a handler panicked; its connection is closed",
				"remote", nc.RemoteAddr(), "panic", p, "stack", string(debug.Stack()))
		}
		a.conn.Close()
		a.end()
		a.set(stateClosed)
		t.forget(a)
	}()
	ctx := context.Background()
	if t.OnAccept != nil {
		if got := t.OnAccept(nc); got != nil {
			ctx = got
		}
		if isClosed(nc) {
			return
		}
	}
	if a.tls != nil {
		a.state.CompareAndSwap(int32(stateNew), int32(stateHandshaking))
		if err := a.tls.Handshake(); err != nil {
			if t.OnHandshakeError != nil {
				t.OnHandshakeError(nc, err)
			}
			t.quiet("TLS handshake failed", nc, err)
			return
		}
		a.state.CompareAndSwap(int32(stateHandshaking), int32(stateNew))
	}
	// Nothing is blocked yet, so these cannot fail.
	_ = a.base.rd.setTimeout(t.ReadTimeout)
	_ = a.base.wr.setTimeout(t.WriteTimeout)
	if t.OnConnect != nil {
		if got := t.OnConnect(ctx, a.conn); got != nil {
			ctx = got
		}
	}
	if t.watch != nil {
		var cancel context.CancelFunc
		ctx, cancel = context.WithCancel(ctx)
		defer cancel()
		defer t.watch.add(nc, cancel)()
	}
	t.loop(ctx, a, nc, onData)
}

// loop calls onData whenever there is something to read.
func (t *Transporter) loop(ctx context.Context, a *accepted, nc net.Conn, onData network.OnData) {
	c := a.base
	for state, need := stateNew, 1; ; {
		if err := c.fill(need); err != nil {
			t.quiet("no more to read", nc, err)
			return
		}
		if !a.state.CompareAndSwap(int32(state), int32(stateActive)) {
			return // Shutdown was faster
		}
		_ = c.rd.setTimeout(t.ReadTimeout)
		before := c.in.taken()
		if err := onData(ctx, a.conn); err != nil {
			t.quiet("the handler ended the connection", nc, err)
			return
		}
		if c.closed.Load() {
			return
		}
		// What the handler left although it took something may be a message that it
		// has not looked at. If it took nothing, it waits for more.
		need = 1
		if c.in.taken() == before {
			need = c.in.len() + 1
		}
		if c.in.len() >= need {
			// Shutdown must not take it for idle.
			a.state.CompareAndSwap(int32(stateIdle), int32(stateActive))
			state = stateActive
			continue
		}
		a.state.CompareAndSwap(int32(stateActive), int32(stateIdle))
		state = stateIdle
		if t.stopping.Load() {
			return
		}
		_ = c.rd.setTimeout(t.IdleTimeout)
	}
}

// isClosed reports whether a hook has closed nc, which has no deadline yet.
func isClosed(nc net.Conn) bool {
	err := nc.SetDeadline(time.Time{})
	return errors.Is(err, net.ErrClosed) || errors.Is(err, io.ErrClosedPipe)
}

// quiet logs the end of a connection that peers bring about every day.
func (t *Transporter) quiet(msg string, nc net.Conn, err error) {
	if err == io.EOF {
		return
	}
	t.log().Debug(msg, "remote", nc.RemoteAddr(), "error", err)
}

func (t *Transporter) forget(a *accepted) {
	t.freeSlot()
	t.mu.Lock()
	defer t.mu.Unlock()
	delete(t.conns, a)
	if t.stopping.Load() && len(t.conns) == 0 {
		t.setDrained()
	}
}

func (t *Transporter) setDrained() {
	select {
	case <-t.drained:
	default:
		close(t.drained)
	}
}

// stop ends accepting. It may be called before serving and any number of times.
func (t *Transporter) stop() error {
	t.mu.Lock()
	t.init()
	if t.stopping.Swap(true) {
		t.mu.Unlock()
		return nil
	}
	close(t.stopped)
	if len(t.conns) == 0 {
		t.setDrained()
	}
	ln := t.closing
	t.mu.Unlock()
	if ln == nil {
		return nil
	}
	return ln.Close() // without the lock: it may be a listener that calls back, or waits
}

// all returns the connections that there are now.
func (t *Transporter) all() []*accepted {
	t.mu.Lock()
	defer t.mu.Unlock()
	all := make([]*accepted, 0, len(t.conns))
	for a := range t.conns {
		all = append(all, a)
	}
	return all
}

// closeEach closes connections, each by f. One over TLS may take its time to say
// close_notify to a peer that does not read, and the next need not wait for it.
func (t *Transporter) closeEach(f func(*accepted)) {
	var wg sync.WaitGroup
	for _, a := range t.all() {
		if a.base.socket {
			f(a)
		} else {
			wg.Go(func() { f(a) })
		}
	}
	wg.Wait()
}

// closeIn closes the connections that are in one of the states.
func (t *Transporter) closeIn(states ...connState) {
	t.closeEach(func(a *accepted) { a.closeIf(states...) })
}

// closeAll closes every connection, whatever it does.
func (t *Transporter) closeAll() {
	t.closeEach(func(a *accepted) {
		a.set(stateClosed)
		a.conn.Close()
		a.cut()
	})
}

// Close ends accepting and closes every connection, at once. It may be called
// before, during and after serving, and again [S5].
func (t *Transporter) Close() error {
	err := t.stop()
	t.closeAll()
	return err
}

// Shutdown ends accepting, closes idle connections at once, those that have not
// sent a byte after a moment, and waits for the active ones to end. When ctx ends
// first it closes what is left and returns exactly ctx.Err() [S6, S7]. It may be
// called before serving, more than once, and concurrently [S8].
func (t *Transporter) Shutdown(ctx context.Context) error {
	err := t.stop()
	t.closeIn(stateIdle)
	grace := time.NewTimer(newGrace)
	defer grace.Stop()
	for {
		select {
		case <-t.drained:
			return err
		default:
		}
		select {
		case <-t.drained:
			return err
		case <-grace.C:
			t.closeIn(stateNew, stateHandshaking)
		case <-ctx.Done():
			t.closeAll()
			return ctx.Err()
		}
	}
}
