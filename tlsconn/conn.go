package tlsconn

import (
	"context"
	"crypto/tls"
	"errors"
	"io"
	"net"
	"os"
	"sync"
	"sync/atomic"
	"time"
)

const (
	// closeTimeout bounds the close_notify that Close sends. The alert's few dozen bytes
	// fit any socket buffer, unless the peer stopped reading long ago.
	closeTimeout = 250 * time.Millisecond

	// closeWriteTimeout bounds CloseWrite, after which the conn is still read: a slow peer
	// is given time. It is what crypto/tls allows.
	closeWriteTimeout = 5 * time.Second

	// answerTimeout bounds what a Read has to write.
	answerTimeout = 5 * time.Second
)

// Conn is a TLS connection over any net.Conn. [Client] and [Server] make it.
//
// All methods may be called by any number of goroutines at once. Read and Write run the
// handshake first, unless [Conn.Handshake] has.
type Conn struct {
	layer  layer
	tls    *tls.Conn
	config *tls.Config // the client's, to tell a missing ServerName; nil for a server

	// wholeRecords says that crypto/tls fills each record, so that 16 KiB make one.
	wholeRecords bool

	handshaken atomic.Bool

	// state is 1 once Close was called, plus 2 for each call that may be writing. Close
	// must not wait for a lock that a blocked writer holds.
	state atomic.Int32

	wmu         sync.Mutex // one Write at a time, so that flush sends the records of its own
	writeClosed bool       // by CloseWrite; guarded by wmu
}

// Client returns a Conn that is the client's side of TLS over c. It does no I/O.
//
// config is read, never changed, and may be shared by any number of conns; it must not be
// changed afterwards. It needs a ServerName (or InsecureSkipVerify), without which the
// handshake fails before it sends anything: [ClientConfig] takes it from the address that
// was dialled [D11]. nil is an empty config.
//
// The Conn owns c from here on: Close closes it.
func Client(c net.Conn, config *tls.Config) *Conn {
	if config == nil {
		config = new(tls.Config)
	}
	conn := &Conn{config: config, wholeRecords: config.DynamicRecordSizingDisabled}
	conn.layer.raw, conn.layer.sock = c, newRawConn(c)
	conn.tls = tls.Client(&conn.layer, config)
	return conn
}

// Server returns a Conn that is the server's side of TLS over c. It does no I/O.
//
// config is read, never changed, and must hold or find a certificate; it must not be
// changed afterwards. Share one config between all conns of a listener, or sessions are
// never resumed; [ServerConfig] makes it. nil is an empty config, with which the handshake
// fails.
//
// The Conn owns c from here on: Close closes it.
func Server(c net.Conn, config *tls.Config) *Conn {
	if config == nil {
		config = new(tls.Config)
	}
	conn := &Conn{wholeRecords: config.DynamicRecordSizingDisabled}
	conn.layer.raw, conn.layer.sock = c, newRawConn(c)
	conn.tls = tls.Server(&conn.layer, config)
	return conn
}

// NetConn returns the conn that was given to [Client] or [Server]. Reading from it, writing
// to it or setting its deadlines breaks the TLS stream.
func (c *Conn) NetConn() net.Conn { return c.layer.raw }

// LocalAddr returns the address of the conn beneath; also after Close [C8].
func (c *Conn) LocalAddr() net.Addr { return c.layer.LocalAddr() }

// RemoteAddr returns the peer's address of the conn beneath; also after Close [C8].
func (c *Conn) RemoteAddr() net.Addr { return c.layer.RemoteAddr() }

// ConnectionState returns what the handshake has agreed on: version, cipher suite, ALPN
// protocol, the peer's certificates, whether a session was resumed [L2]. Before that it is
// mostly empty and its HandshakeComplete is false. It does not wait for a handshake that is
// running, as that of *tls.Conn does.
func (c *Conn) ConnectionState() tls.ConnectionState {
	var state tls.ConnectionState
	if !c.handshaken.Load() && c.layer.unlessShaking(func() { state = c.tls.ConnectionState() }) {
		return state
	}
	if !c.handshaken.Load() {
		return tls.ConnectionState{}
	}
	return c.tls.ConnectionState()
}

// BytesReceived returns how many bytes have come from the conn beneath: records, whole or
// not, with their headers, and the handshake. It never waits.
func (c *Conn) BytesReceived() int64 { return c.layer.got.Load() }

// SetHandshakeTimeout bounds the whole handshake, both directions together, from its start
// [L3]. It holds for Handshake and for the handshake that the first Read or Write runs; in
// force is the earlier of it and the deadlines. A change applies to the handshake that is
// running now. Zero or less, and by default: no bound of its own.
func (c *Conn) SetHandshakeTimeout(d time.Duration) { c.layer.setBudget(d) }

// Handshake runs the handshake unless it has been run. It may be called any number of
// times; once the handshake is done it costs an atomic load and returns nil, after Close
// too [L1]. A failure is permanent, a timeout included.
//
// A timeout is a *net.OpError with Timeout() true that is os.ErrDeadlineExceeded by
// errors.Is [L3]. A Close during the handshake makes it net.ErrClosed. Other errors come as
// crypto/tls has them:
//
//   - io.EOF: the peer closed the connection.
//   - a tls.RecordHeaderError value: the peer does not speak TLS. Where its Conn is not
//     nil, plain text can be written to it and it can be closed [L4].
//   - *tls.CertificateVerificationError: the peer's certificate was refused [D7].
func (c *Conn) Handshake() error {
	if c.handshaken.Load() {
		return nil
	}
	return c.handshake(context.Background())
}

// HandshakeContext is like [Conn.Handshake]. When ctx ends before the handshake does, it
// closes the conn beneath and returns ctx.Err(). Later on ctx does not matter.
func (c *Conn) HandshakeContext(ctx context.Context) error {
	if c.handshaken.Load() {
		return nil
	}
	return c.handshake(ctx)
}

// handshakeFor runs the handshake on behalf of a Read or a Write, whose deadline bounds both
// of its directions [T10]. count is that of the layer.
func (c *Conn) handshakeFor(count *int) error {
	if c.handshaken.Load() {
		return nil
	}
	c.layer.awaitHandshake(count, 1)
	defer c.layer.awaitHandshake(count, -1)
	return c.handshake(context.Background())
}

func (c *Conn) handshake(ctx context.Context) error {
	if c.closed() {
		return c.layer.opError("tls handshake", net.ErrClosed)
	}
	if cfg := c.config; cfg != nil && cfg.ServerName == "" && !cfg.InsecureSkipVerify {
		return errServerName
	}
	stop := c.layer.beginHandshake()
	err := c.tls.HandshakeContext(ctx)
	if stop != nil {
		stop()
	}
	c.layer.endHandshake(err == nil)
	if err == nil {
		c.handshaken.Store(true)
		return nil
	}
	switch {
	case ctx.Err() != nil && err == ctx.Err():
		// Not a timeout of the conn, although context.DeadlineExceeded says Timeout too.
	case c.layer.expired.Load():
		return c.layer.timeoutError("tls handshake", os.ErrDeadlineExceeded, false)
	case errors.Is(err, os.ErrDeadlineExceeded):
		return c.layer.timeoutError("tls handshake", err, false)
	case c.layer.closed.Load():
		return c.layer.opError("tls handshake", net.ErrClosed)
	}
	return err
}

// Read reads decrypted bytes, after the handshake, which it runs if nobody has. It returns
// as soon as it has one record's.
//
// io.EOF, bare, says that the peer ended the stream with close_notify; a stream that ends
// without is io.ErrUnexpectedEOF, since anybody on the path may have cut it [L5] (RFC 8446,
// section 6.1). A timeout loses nothing and the next Read may succeed, unless it ended the
// handshake. All other errors are permanent. After Close it is net.ErrClosed.
//
// What the peer demands an answer to, such as new keys, is answered inside of Read. If it
// does not take that within 5 seconds, the connection has failed.
//
// Read never touches p after it has returned, and an empty p only runs the handshake.
func (c *Conn) Read(p []byte) (int, error) {
	if c.closed() {
		return 0, c.layer.opError("read", net.ErrClosed)
	}
	if !c.handshaken.Load() && c.layer.tooLate(true) {
		return 0, c.layer.timeoutError("read", os.ErrDeadlineExceeded, true)
	}
	if err := c.handshakeFor(&c.layer.shakingReads); err != nil {
		return 0, c.readError(err)
	}
	n, err := c.tls.Read(p)
	if err != nil {
		err = c.readError(err)
	}
	return n, err
}

func (c *Conn) readError(err error) error {
	switch {
	case c.closed():
		return c.layer.opError("read", net.ErrClosed)
	case err == io.EOF && c.layer.ended.Load():
		// crypto/tls asked for more than there was, so this is no close_notify.
		return io.ErrUnexpectedEOF
	}
	return err
}

// SetDeadline sets both deadlines, see [Conn.SetReadDeadline] and [Conn.SetWriteDeadline].
func (c *Conn) SetDeadline(t time.Time) error { return c.layer.setUser(t, true, true) }

// SetReadDeadline sets the time at which Read ends, also one that is blocked now. The zero
// time means never. A Read that timed out may be repeated; a handshake that did may not. A
// Read that begins after the deadline begins no handshake.
func (c *Conn) SetReadDeadline(t time.Time) error { return c.layer.setUser(t, true, false) }

// SetWriteDeadline sets the time at which Write ends, also one that is blocked now, be it in
// the handshake. The zero time means never. A write that timed out may have sent half a
// record, and nothing can follow that: every later write returns the same error. A Write
// that begins after the deadline is refused and harms nothing [L6].
func (c *Conn) SetWriteDeadline(t time.Time) error { return c.layer.setUser(t, false, true) }

// Close sends close_notify and closes the conn beneath, whose error it returns. The second
// call, and any that comes while the first is running, returns nil at once [C4, C5].
//
// Reads and writes that are blocked return net.ErrClosed [C2, C3]. When a write is in
// progress close_notify is left out, since it cannot come in the middle of a record;
// otherwise it is given 250 ms, for a peer that does not read must not hold up Close [L7].
// That it cannot be sent, because the peer has gone, is no error.
func (c *Conn) Close() error {
	var x int32
	for {
		if x = c.state.Load(); x&1 != 0 {
			return nil
		}
		if c.state.CompareAndSwap(x, x|1) {
			break
		}
	}
	if x == 0 && c.handshaken.Load() {
		stop := c.layer.beginAlert(closeTimeout, true)
		c.tls.CloseWrite()
		stop()
	}
	return c.layer.Close()
}

// CloseWrite sends close_notify: the peer's reads end with io.EOF. Reads on this side go
// on, writes fail. The conn beneath is left open in both directions. A second call returns
// what the first did.
//
// Before the handshake is complete it is an error and sends nothing. It waits for a Write
// in progress, and takes at most 5 seconds of its own, whatever the write deadline.
func (c *Conn) CloseWrite() error {
	if !c.enter() {
		return c.layer.opError("close", net.ErrClosed)
	}
	defer c.leave()
	if !c.handshaken.Load() {
		return errEarlyCloseWrite
	}
	c.wmu.Lock()
	defer c.wmu.Unlock()
	c.writeClosed = true
	defer c.layer.beginAlert(closeWriteTimeout, false)()
	if err := c.tls.CloseWrite(); err != nil {
		return c.writeError(err)
	}
	return nil
}

// enter registers a call that may write; false says that the conn was closed.
func (c *Conn) enter() bool {
	for {
		x := c.state.Load()
		if x&1 != 0 {
			return false
		}
		if c.state.CompareAndSwap(x, x+2) {
			return true
		}
	}
}

func (c *Conn) leave()       { c.state.Add(-2) }
func (c *Conn) closed() bool { return c.state.Load()&1 != 0 }
