package standard

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/netip"
	"sync"
	"sync/atomic"
	"time"

	"github.com/hertznet/hertznet/network"
	"github.com/hertznet/hertznet/tlsconn"
)

// DefaultParkAfter is the default of Transporter.ParkAfter. To park a connection and to
// resume it costs a few times as much as a small request, so it should not happen to one
// that is busy. To wait costs a goroutine, and with Hertz a RequestContext: 13 KB or so.
const DefaultParkAfter = time.Second

// Transporter accepts connections and calls OnData, a [network.OnData], for them: a
// [network.Transporter]. The zero value listens on a free TCP port of all addresses.
// Its fields must not change once it serves. A Transporter serves once: after Close
// or Shutdown it does not serve again. Its methods may be called by any goroutine.
type Transporter struct {
	// Network and Addr are what ListenAndServe listens on, as net.Listen takes
	// them. An empty Network is "tcp", or "unix" when Addr is unix:///path.
	//
	// On "unix", a socket file that nobody answers on is replaced; a live one is an
	// error, and so is a file that is no socket. Of several Transporters that find a
	// stale one at the same time, in one process or in many, one replaces it [S15]; to
	// keep processes apart, the file's directory is locked meanwhile (flock), for
	// which it must be readable.
	Network, Addr string

	// ListenConfig, if not nil, is what ListenAndServe and Listen listen with. Its
	// KeepAlive and KeepAliveConfig hold only where the Transporter's KeepAlive is zero.
	ListenConfig *net.ListenConfig

	// TLSConfig, if not nil, makes every connection a TLS server's. The handshake is
	// complete before OnConnect.
	//
	// It is cloned when serving starts: a later change of it, SetSessionTicketKeys
	// included, has no effect. What must change while it serves comes from its functions:
	// a certificate from GetCertificate, see [tlsconn.Reloader], and anything else from
	// GetConfigForClient. Session ticket keys are those of SetSessionTicketKeys, if that
	// was called on the config that GetConfigForClient returns: to replace them, return
	// another config. Else they are those that were set on TLSConfig, and without any the
	// clone makes its own and replaces them every day.
	TLSConfig *tls.Config

	// HandshakeTimeout limits the TLS handshake. Zero is ReadTimeout, or
	// DefaultHandshakeTimeout if that is zero or less; less than zero is no limit.
	HandshakeTimeout time.Duration

	// ReadTimeout limits the wait for the first byte of a connection, and is the
	// timeout that [Conn.SetReadTimeout] is called with before each call of OnData
	// [S18]. Zero or less: no limit.
	ReadTimeout time.Duration

	// WriteTimeout is the timeout that [Conn.SetWriteTimeout] is called with before
	// OnConnect [S21]. Zero or less: no limit.
	WriteTimeout time.Duration

	// IdleTimeout limits the wait for more once OnData has returned [S20]. Zero or
	// less: no limit, whatever ReadTimeout is.
	IdleTimeout time.Duration

	// ParkAfter is for how long an idle connection keeps its goroutine, at most. Then
	// it is parked: it waits for its next byte, or for the end of IdleTimeout, in one
	// epoll instance that all connections share, and costs neither a stack nor a
	// buffer. The next byte calls OnData again, in a new goroutine. A connection
	// whose last message did not come within ParkAfter of the one before, or that has
	// had only one, is parked after a 64th of ParkAfter already, since it is not likely
	// to be busy.
	//
	// Zero is DefaultParkAfter, less than zero is never. Connections of package net, TCP
	// or unix, can be parked, with TLS or without, on Linux; others, and
	// elsewhere, wait in their goroutine.
	ParkAfter time.Duration

	// FlushDelay is for how long [Conn.FlushSoon] holds output back at most. Zero is
	// DefaultFlushDelay; less than zero makes each FlushSoon a Flush.
	FlushDelay time.Duration

	// KeepAlive is after how much silence TCP probes whether the peer is still
	// there; then it probes every 15 seconds, 9 times. Less than zero is never. Either
	// overrides what the listener says, ListenConfig's KeepAlive and KeepAliveConfig
	// or that of a listener given to Serve. Zero leaves that as it is: with package
	// net's default, after 15 seconds. The root package sets it to Hertz's
	// WithKeepAliveTimeout, which is a minute by default.
	KeepAlive time.Duration

	// ReadBufferSize is the least size of the block that a connection reads into,
	// in bytes. Less than 4 KiB, zero too, is 4 KiB; above 1 MiB blocks are not pooled.
	ReadBufferSize int

	// MaxConns is how many connections may be open at once. Those beyond it are not
	// accepted until another one ends: they wait in the listener's backlog [S19].
	// With RejectOverMaxConns they are accepted and closed instead, so that a
	// client, or a balancer, knows at once. Zero or less: no limit, and
	// RejectOverMaxConns means nothing.
	MaxConns           int
	RejectOverMaxConns bool

	// MaxConnsPerIP is how many connections may be open at once from one IP
	// address, of IPv6 from one /64, which is what one customer has. Those beyond
	// it are closed at once. Mind proxies and NAT, which are one address. It does
	// not hold for unix sockets, nor for any net.Conn whose RemoteAddr is no
	// *net.TCPAddr. Zero or less: no limit.
	MaxConnsPerIP int

	// MaxReadBuffer is how many bytes a Peek or ReadBinary may wait for. One of
	// more, of which some have not come yet, ends at once with ErrReadBufferFull.
	// So no more of a connection is buffered and unread, give or take a block. It
	// must not be less than any message that is to be peeked whole: for Hertz,
	// than the largest body and header. Zero or less: no limit but those of the
	// protocol.
	MaxReadBuffer int

	// MinReadRate is how many bytes a second a peer must send while a handler
	// waits for the bytes of a message, on average since the message began, after
	// the first MinReadGrace of waiting. A message begins when OnData is called, or
	// at SetIdle(false). A read that finds the peer slower ends with a timeout. It is
	// what stops a client that sends a byte a minute, each within ReadTimeout.
	//
	// However long one operation waits, what comes in the course of it counts; with
	// TLSConfig, so do the parts of a record. Where the listener does TLS by itself, a
	// record counts when it is whole, and MinReadGrace must have room for one of
	// 16 KiB. Zero or less: no limit. See [Conn.LimitReadRate] for protocols that wait
	// inside of a message.
	MinReadRate int

	// MinReadGrace is for how long a peer may be slower than MinReadRate. Zero is
	// DefaultMinReadGrace, less than zero is not at all.
	MinReadGrace time.Duration

	// CancelOnDisconnect has the context that OnData gets cancelled as soon as the
	// peer has gone, by closing its end or its sending side or by a reset, while
	// OnData runs [S17], and when the connection ends. Bytes that wait to be read do
	// not hide it. It works on Linux, for TCP, unix sockets and TLS over them;
	// elsewhere it does nothing. Without it nothing cancels that context but who made
	// it: OnAccept and OnConnect.
	CancelOnDisconnect bool

	// OnAccept, if not nil, is called with each connection before anything is read
	// from it, TLS included [S12]. It returns the context of the connection; nil is
	// context.Background() [S13]. It runs in the connection's own goroutine, so a
	// slow one delays no other [S11]. Closing the connection refuses it; deadlines
	// that it sets on the connection do not last.
	OnAccept func(net.Conn) context.Context

	// OnConnect, if not nil, is called after the TLS handshake, if there is one, and
	// before the first byte has come, with the *Conn or *TLSConn that OnData will get.
	// It returns the context for OnData; nil leaves it as OnAccept had it. It runs in
	// the connection's own goroutine. Closing the connection refuses it.
	OnConnect func(context.Context, network.Conn) context.Context

	// ConnState, if not nil, is called at each step of a connection's life, with
	// the state that it is in from now on: first StateNew, last StateClosed. It is
	// not told that a parked connection is idle again, which as a rule is active next.
	// It is told StateParked just before the step, which may still fail: then the
	// connection is closed, or idle as before. It is called in the goroutine that
	// makes the step, which waits for it. It must not use the connection but for its
	// addresses.
	ConnState func(network.Conn, ConnState)

	// OnHandshakeError, if not nil, is called when a TLS handshake failed, before
	// the connection is closed, with the conn that was accepted and the error of
	// [tlsconn.Conn.Handshake]. A client that spoke plain text is a
	// tls.RecordHeaderError, whose Conn can still be written to [L4].
	OnHandshakeError func(net.Conn, error)

	// Logger gets what an operator should know; nil is slog.Default().
	Logger *slog.Logger

	stopping atomic.Bool
	listener atomic.Pointer[net.Listener] // as it was given; Hertz asks for it with each request
	mu       sync.Mutex
	serving  bool
	taking   bool                 // Serve may have a connection that is not in conns yet
	listened net.Listener         // by Listen: its connections know of KeepAlive
	inherits bool                 // listener is that one
	closing  net.Listener         // the listener, closed once
	conns    map[uint64]*accepted // those that are open, by id
	lastID   uint64
	stopped  chan struct{} // closed when stopping begins
	drained  chan struct{} // closed when then the last connection is gone
	config   *tls.Config   // the clone of TLSConfig
	slots    chan struct{} // one for each open connection, if MaxConns is set
	watch    *watcher      // of disconnects; nil if nobody asked
	parking  parkingLot    // where idle connections wait
	onData   network.OnData
	totals   totals
	perIP    map[netip.Addr]int // open connections, if MaxConnsPerIP is set

	overConns, overConnsPerIP, slow, overflows, panics, hookPanics occasional
}

var _ network.Transporter = (*Transporter)(nil)

// Listener returns the listener that is served, or nil before there is one [S1].
func (t *Transporter) Listener() net.Listener {
	if ln := t.listener.Load(); ln != nil {
		return *ln
	}
	return nil
}

// ListenAndServe listens on Network and Addr and serves until Close or Shutdown,
// when it returns nil, or until accepting fails for good. It returns while
// Shutdown may still be waiting for connections: wait for Shutdown, not for this.
//
// onData is called with a *Conn or a *TLSConn and the connection's context
// whenever bytes are there to be read [S2], in one goroutine at a time for each
// connection. When it returns nil and has not closed the connection, it is called
// again: at once if it took some bytes and left others, else when more have come. Until
// then the connection is idle: IdleTimeout holds, and Shutdown closes it, with what
// was left of a message; so a handler that has begun one waits for the rest in Peek.
//
// An error of onData closes the connection, and so does a panic [S10], which Stats
// counts. At most one panic in ten seconds is logged, with its stack and the number of
// those that were left out since.
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
// closes ln before it returns. A second Serve is an error; after Close or Shutdown
// it returns nil.
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
	if err := t.open(onData); err != nil {
		t.mu.Unlock()
		return err
	}
	t.serving, t.closing = true, once
	t.listener.Store(&ln)
	t.taking, t.inherits = true, ln == t.listened
	t.mu.Unlock()
	defer t.endTaking()

	var backoff time.Duration
	for {
		if !t.takeSlot() {
			return nil
		}
		nc, err := ln.Accept()
		if err != nil && !t.RejectOverMaxConns {
			t.freeSlot()
		}
		switch {
		case err == nil:
			backoff = 0
			t.start(nc)
		case t.stopping.Load():
			return nil
		case isTransient(err):
			t.totals.acceptErrors.Add(1)
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

// open makes what serving needs. t.mu is held.
func (t *Transporter) open(onData network.OnData) (err error) {
	t.init()
	t.onData = onData
	if t.TLSConfig != nil {
		// Once for all connections: the clone owns the session ticket keys.
		t.config = tlsconn.ServerConfig(t.TLSConfig)
	}
	if t.MaxConnsPerIP > 0 {
		t.perIP = make(map[netip.Addr]int)
	}
	if t.MaxConns > 0 {
		t.slots = make(chan struct{}, t.MaxConns)
	}
	if t.CancelOnDisconnect {
		if t.watch, err = newWatcher(); err != nil {
			return fmt.Errorf("standard: CancelOnDisconnect: %w", err)
		}
		t.watch.endWhen(t.drained)
	}
	return nil
}

// init makes what both serving and stopping need. t.mu is held.
func (t *Transporter) init() {
	if t.stopped == nil {
		t.conns = make(map[uint64]*accepted)
		t.stopped = make(chan struct{})
		t.drained = make(chan struct{})
	}
}

// start gives nc a goroutine of its own at once [S11].
func (t *Transporter) start(nc net.Conn) {
	if t.slots != nil && t.RejectOverMaxConns {
		select {
		case t.slots <- struct{}{}:
		default:
			t.totals.accepted.Add(1)
			t.reject(nc, &t.overConns, "there are MaxConns connections; a new one was closed", t.MaxConns)
			return
		}
	}
	a := t.accept(nc)
	t.mu.Lock()
	t.totals.accepted.Add(1)
	taking := t.taking
	crowded := taking && !t.enter(nc)
	switch {
	case !taking:
		t.totals.closed[closedByServer].Add(1)
	case !crowded:
		t.lastID++
		a.id = t.lastID
		t.conns[a.id] = a
	}
	t.mu.Unlock()
	switch {
	case !taking:
		nc.Close() // it came after Close [S16]
		t.freeSlot()
	case crowded:
		t.freeSlot()
		t.reject(nc, &t.overConnsPerIP, "an address has MaxConnsPerIP connections; a new one was closed", t.MaxConnsPerIP)
	default:
		go t.serve(a, nc)
	}
}

// accept wraps nc.
func (t *Transporter) accept(nc net.Conn) *accepted {
	t.setKeepAlive(nc)
	a := &accepted{t: t}
	if t.config == nil {
		a.base = NewConn(nc)
	} else {
		tc := tlsconn.Server(nc, t.config)
		tc.SetHandshakeTimeout(t.handshakeTimeout())
		c := NewTLSConn(tc)
		a.base, a.tls = &c.Conn, c
	}
	a.base.accepted = a
	a.base.in.floor = t.ReadBufferSize
	if p := newPace(t.MinReadRate, t.MinReadGrace); p != nil {
		if a.tls != nil {
			p.wire = a.tls.tls
		}
		a.base.pace = p
	}
	a.parks = t.parkAfter() > 0 && isStreamSocket(nc)
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
