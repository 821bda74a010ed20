package quic

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"runtime/debug"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/quic-go/quic-go"

	"github.com/hertznet/hertznet/network"
	"github.com/hertznet/hertznet/quic/internal/seldom"
)

// lingerTime is for how long a connection stays open after OnData, for answers on the way.
const lingerTime = 2 * time.Second

// Transporter accepts QUIC connections and calls OnData with each: a
// [network.Transporter]. Its fields must not change once it serves. A Transporter
// serves once: after Close or Shutdown it does not serve again.
type Transporter struct {
	// Network and Addr are what ListenAndServe listens on. QUIC runs over UDP: an empty
	// Network and "tcp" are "udp", "tcp4" is "udp4" and "tcp6" "udp6". An empty Addr
	// is a free port.
	Network, Addr string

	// TLSConfig is needed: it must have a certificate and name the application's
	// protocols in NextProtos. It is cloned when serving starts.
	TLSConfig *tls.Config

	// Config has the settings of QUIC. nil is its zero value.
	Config *Config

	// MaxConns is how many connections may be open at once, those in their handshake
	// included. Those beyond it are refused. Zero or less: no limit.
	MaxConns int

	// OnConnect, if not nil, is called before OnData and returns the context for it; nil
	// leaves that of the connection. It runs in the connection's own goroutine.
	OnConnect func(context.Context, network.StreamConn) context.Context

	// NoError and InternalError are the codes with which connections are closed: the
	// one when all is well, as after OnData has returned nil and at Shutdown, the
	// other when OnData has failed or panicked. Their values are the application
	// protocol's. An error of OnData in which errors.As finds a
	// network.ApplicationError brings its own, unless it is one of this package, which
	// tells what somebody else has closed or cancelled.
	NoError, InternalError uint64

	// Logger gets what an operator should know; nil is slog.Default().
	Logger *slog.Logger

	stopping atomic.Bool
	open     atomic.Int64 // connections, if MaxConns is set
	panics   seldom.Message

	mu       sync.Mutex
	serving  bool
	taking   bool // Serve may have a connection that is not in conns yet
	closed   bool // by Close, or because Shutdown ran out of time
	listener *Listener
	facade   *facade
	conns    map[*Conn]struct{}
	drained  chan struct{} // closed when stopping and the last connection is gone
	onData   network.OnData
}

var _ network.Transporter = (*Transporter)(nil)

// Listener returns nil before there is a socket, and then a listener that knows the
// address and can be closed. It accepts nothing: connections are for OnData.
func (t *Transporter) Listener() net.Listener {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.facade == nil {
		return nil
	}
	return t.facade
}

// ListenAndServe listens on Network and Addr and serves until Close or Shutdown, when
// it returns nil, or until the socket fails for good. It returns while Shutdown may
// still be waiting for connections: wait for Shutdown, not for this.
//
// onData is called once for each connection, with a *Conn, which is a
// network.StreamConn, and the connection's context, which ends with the connection.
// It accepts streams until that fails, and should serve each in a goroutine of its
// own. When it has returned nil, or the error of an accept that is ErrShutdown, the
// connection is closed with NoError, but not before the answers on its accepted
// bidirectional streams have been closed and delivered; if nobody shuts down that
// may take 2 seconds at most. With any other error the connection is closed at
// once. So it is after a panic, which is logged: one in ten seconds, with the number of
// those that were left out.
func (t *Transporter) ListenAndServe(onData network.OnData) error {
	if t.stopping.Load() {
		return nil // Shutdown may come first
	}
	udp, ok := udpNetwork(t.Network)
	if !ok {
		return fmt.Errorf("quic: Transporter.Network is %q; QUIC runs over udp, udp4 or udp6", t.Network)
	}
	pc, err := net.ListenPacket(udp, t.Addr)
	if err != nil {
		return wrap("listen", err)
	}
	return t.Serve(pc, onData)
}

// udpNetwork returns the network of UDP that stands for the one of TCP.
func udpNetwork(network string) (string, bool) {
	if network == "" {
		return "udp", true
	}
	udp := strings.Replace(network, "tcp", "udp", 1)
	return udp, udp == "udp" || udp == "udp4" || udp == "udp6"
}

// Serve is ListenAndServe on a socket that is open already. It owns pc: it is closed
// when the last connection has ended, or by Close or Shutdown, and if Serve fails.
func (t *Transporter) Serve(pc net.PacketConn, onData network.OnData) error {
	if onData == nil {
		_ = pc.Close()
		return errors.New("quic: Transporter: OnData is nil")
	}
	l, err := t.listen(pc, onData)
	if l == nil {
		return err
	}
	defer t.endTaking()
	for {
		c, err := l.Accept(context.Background())
		switch {
		case err == nil:
			t.start(c)
		case t.stopping.Load(), errors.Is(err, quic.ErrServerClosed):
			return nil
		default:
			t.log().Error("accepting connections failed and has ended", "error", err)
			_ = l.Close()
			return err
		}
	}
}

// listen makes the listener. It returns nil, without an error, if there is nothing to
// serve any more.
func (t *Transporter) listen(pc net.PacketConn, onData network.OnData) (*Listener, error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.stopping.Load() || t.serving {
		_ = pc.Close()
		if t.serving && !t.stopping.Load() {
			return nil, errors.New("quic: Transporter serves already")
		}
		return nil, nil
	}
	l, err := newListener(pc, t.TLSConfig, t.Config, t.admit())
	if err != nil {
		return nil, err
	}
	t.init()
	t.serving, t.taking, t.onData = true, true, onData
	t.listener, t.facade = l, newFacade(l)
	return l, nil
}

// init makes what both serving and stopping need. t.mu is held.
func (t *Transporter) init() {
	if t.drained == nil {
		t.conns = make(map[*Conn]struct{})
		t.drained = make(chan struct{})
	}
}

var errMaxConns = errors.New("quic: there are MaxConns connections")

// admit returns what refuses connections beyond MaxConns, or nil.
func (t *Transporter) admit() func(context.Context) error {
	if t.MaxConns <= 0 {
		return nil
	}
	return func(ctx context.Context) error {
		if t.open.Add(1) > int64(t.MaxConns) {
			t.open.Add(-1)
			return errMaxConns
		}
		context.AfterFunc(ctx, func() { t.open.Add(-1) })
		return nil
	}
}

func (t *Transporter) log() *slog.Logger {
	if t.Logger != nil {
		return t.Logger
	}
	return slog.Default()
}

// start gives c a goroutine of its own.
func (t *Transporter) start(c *Conn) {
	c.drain = newDrain()
	t.mu.Lock()
	closed := t.closed
	if !closed {
		t.conns[c] = struct{}{}
	}
	if t.stopping.Load() {
		c.drain.start() // it came while stopping began
	}
	t.mu.Unlock()
	if closed {
		t.close(c)
		return
	}
	go t.serve(c)
}

// serve is the life of a connection.
func (t *Transporter) serve(c *Conn) {
	var end network.ApplicationError = endCode(t.InternalError)
	defer func() {
		if p := recover(); p != nil {
			t.panicked(c, p)
		}
		_ = c.CloseWithError(end, end.String())
		t.forget(c)
	}()
	ctx := c.ctx
	if t.OnConnect != nil {
		if got := t.OnConnect(ctx, c); got != nil {
			ctx = got
		}
	}
	err := t.onData(ctx, c)
	switch {
	case err == nil, errors.Is(err, ErrShutdown):
		t.linger(c)
		end = endCode(t.NoError)
	case c.ctx.Err() != nil:
		// The peer has closed the connection, or it was lost.
	default:
		t.log().Debug("the handler ended the connection", "remote", c.RemoteAddr(), "error", err)
		if app, ok := applicationError(err); ok {
			end = app
		}
	}
}

// panicked logs the panic p that was recovered, unless one was logged a moment ago: a peer
// may know of a message that brings it about.
func (t *Transporter) panicked(c *Conn, p any) {
	skipped, due := t.panics.Due()
	if !due {
		return
	}
	args := []any{"remote", c.RemoteAddr(), "panic", p, "stack", string(debug.Stack())}
	if skipped > 0 {
		args = append(args, "alsoNotLogged", skipped)
	}
	t.log().Error("a handler panicked; its connection is closed", args...)
}

// applicationError returns the handler's own word on why it failed, and not that of a
// peer that it passes on.
func applicationError(err error) (network.ApplicationError, bool) {
	var app network.ApplicationError
	if !errors.As(err, &app) {
		return nil, false
	}
	switch app.(type) {
	case *closedError, *canceledError:
		return nil, false
	}
	return app, true
}

// linger keeps a connection open until its answers have been delivered.
func (t *Transporter) linger(c *Conn) {
	ctx := c.ctx
	if !t.stopping.Load() {
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeout(ctx, lingerTime)
		defer cancel()
	}
	c.drain.start()
	select {
	case <-c.drain.empty:
		c.drain.settle(ctx, c.raw)
	case <-ctx.Done():
	}
}

func (t *Transporter) forget(c *Conn) {
	t.mu.Lock()
	defer t.mu.Unlock()
	delete(t.conns, c)
	t.checkDrained()
}

func (t *Transporter) endTaking() {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.taking = false
	t.checkDrained()
}

// checkDrained notes when the last connection is gone. t.mu is held.
func (t *Transporter) checkDrained() {
	if !t.stopping.Load() || t.taking || len(t.conns) > 0 {
		return
	}
	select {
	case <-t.drained:
	default:
		close(t.drained)
	}
}

// stop ends accepting, and returns the connections that there are.
func (t *Transporter) stop() []*Conn {
	t.mu.Lock()
	t.init()
	t.stopping.Store(true)
	t.checkDrained()
	all := make([]*Conn, 0, len(t.conns))
	for c := range t.conns {
		all = append(all, c)
	}
	l := t.facade
	t.mu.Unlock()
	if l != nil {
		_ = l.Close()
	}
	return all
}

// Close ends accepting and closes every connection with NoError, at once, whatever is
// on its way. It may be called before, during and after serving, and again. It
// returns nil.
func (t *Transporter) Close() error {
	t.stop()
	t.closeAll()
	return nil
}

func (t *Transporter) closeAll() {
	t.mu.Lock()
	t.closed = true
	all := make([]*Conn, 0, len(t.conns))
	for c := range t.conns {
		all = append(all, c)
	}
	l := t.listener
	t.mu.Unlock()
	var wg sync.WaitGroup
	for _, c := range all {
		wg.Go(func() { t.close(c) })
	}
	wg.Wait()
	if l != nil {
		l.endpoint.close()
	}
}

func (t *Transporter) close(c *Conn) {
	_ = c.CloseWithError(endCode(t.NoError), "")
}

// Shutdown ends accepting, of connections and of streams: AcceptStream and
// AcceptUniStream fail with ErrShutdown. It waits until OnData has returned for each
// connection, and until the answers on all bidirectional streams that were accepted
// have been closed and delivered, then closes the connection with NoError. An answer
// counts as delivered when everything was quiet for a few round trips, and half a
// second after its Close at the earliest. Streams that were not accepted are lost.
//
// When ctx ends first it closes what is left and returns exactly ctx.Err(). It may be
// called before serving, more than once, and concurrently.
func (t *Transporter) Shutdown(ctx context.Context) error {
	for _, c := range t.stop() {
		c.drain.start()
	}
	select {
	case <-t.drained:
	case <-ctx.Done():
		t.closeAll()
		return ctx.Err()
	}
	t.mu.Lock()
	l := t.listener
	t.mu.Unlock()
	if l == nil {
		return nil
	}
	// For a moment the socket answers peers that missed the close.
	select {
	case <-l.endpoint.done:
	case <-ctx.Done():
		l.endpoint.close()
	}
	return nil
}

// endCode is the ApplicationError of a Transporter.
type endCode uint64

func (c endCode) ErrCode() uint64 { return uint64(c) }
func (c endCode) String() string  { return "" }

// facade is a Listener as a net.Listener, for those who want its address.
type facade struct {
	*Listener
	closed chan struct{}
	once   sync.Once
}

func newFacade(l *Listener) *facade { return &facade{Listener: l, closed: make(chan struct{})} }

// Accept blocks until the listener is closed, and then fails.
func (f *facade) Accept() (net.Conn, error) {
	<-f.closed
	return nil, &net.OpError{Op: "accept", Net: "quic", Addr: f.Addr(), Err: net.ErrClosed}
}

func (f *facade) Close() error {
	f.once.Do(func() { close(f.closed) })
	return f.Listener.Close()
}
