package networktest

import (
	"context"
	"fmt"
	"io"
	"net"
	"os"
	"sync"
	"time"

	"github.com/hertznet/hertznet/network"
)

const (
	// pipeBuffer is how many bytes of one direction of a stream are on the way before
	// Write blocks.
	pipeBuffer = 64 << 10

	// pipeMaxStreams is what StreamOptions.MaxStreams is when it is 0.
	pipeMaxStreams = 1000
)

// StreamPipe returns two ends of a stream connection in memory, as [net.Pipe]
// does for a net.Conn: for tests of what runs on stream connections, without
// sockets and without QUIC. It keeps all clauses of group M.
//
// a is the client and b the server, and streams are numbered as in QUIC: bit 0 of
// the id says that the server opened the stream, bit 1 that it is
// unidirectional. Streams are accepted in the order of their ids; as in QUIC, the
// first sign of a stream makes those with lower ids acceptable too.
//
// A Write blocks while 64 KiB of its direction are unread. What CancelWrite and
// CloseWithError find on the way is lost. A stream counts against the limit until
// both ends are done with it and it has been accepted. Codes of any size reach the
// peer, the texts of a stream's ApplicationErrors do not. A nil ApplicationError
// has code 0.
//
// All errors but io.EOF are a net.Error by a type assertion. Those of a timeout
// are os.ErrDeadlineExceeded, and those after CloseWithError net.ErrClosed, by
// errors.Is. Where the peer, or this end, has given a code, the error is also a
// network.ApplicationError.
//
// With o's zero value, MaxStreams is 1000 and there is no idle timeout.
func StreamPipe(o StreamOptions) (a, b network.StreamConn) {
	p := newStreamPipe(o)
	for _, e := range p.ends {
		e.shakeHands(nil)
	}
	return p.ends[0], p.ends[1]
}

// streamPipe is what the two ends share. One lock guards everything; that is slow
// and easy to see through.
type streamPipe struct {
	mu         sync.Mutex
	maxStreams int
	ends       [2]*pipeEnd
	streams    map[int64]*pipeStream // those that are not over

	idleTimeout time.Duration
	idle        *time.Timer // nil without a timeout
}

// pipeEnd is one end of a streamPipe.
type pipeEnd struct {
	pipe   *streamPipe
	peer   *pipeEnd
	addr   pipeAddr
	server int64 // bit 0 of the ids of the streams that this end opens
	err    error // why the connection has ended, for callers at this end

	ctx        context.Context
	cancel     context.CancelCauseFunc
	handshake  context.Context
	shakeHands context.CancelCauseFunc

	// opened holds the streams that this end opens, by kind.
	opened [2]pipeStreams
}

const (
	pipeBidi = 0
	pipeUni  = 1 // bit 1 of a stream's id
)

// pipeStreams are the streams of one kind that one end opens.
type pipeStreams struct {
	next     int64         // the number of the next one
	open     int           // how many are not over
	visible  int64         // the peer may accept those with lower numbers
	waiting  []*pipeStream // those that the peer has not accepted, in their order
	room     sync.Cond     // open has fallen, or the connection has ended
	arrivals sync.Cond     // visible has risen, or the connection has ended
}

func newStreamPipe(o StreamOptions) *streamPipe {
	p := &streamPipe{maxStreams: o.MaxStreams, idleTimeout: o.IdleTimeout, streams: map[int64]*pipeStream{}}
	if p.maxStreams <= 0 {
		p.maxStreams = pipeMaxStreams
	}
	for i, name := range []pipeAddr{"client", "server"} {
		e := &pipeEnd{pipe: p, addr: name, server: int64(i)}
		e.ctx, e.cancel = context.WithCancelCause(context.Background())
		e.handshake, e.shakeHands = context.WithCancelCause(context.Background())
		for kind := range e.opened {
			e.opened[kind].room.L = &p.mu
			e.opened[kind].arrivals.L = &p.mu
		}
		p.ends[i] = e
	}
	p.ends[0].peer, p.ends[1].peer = p.ends[1], p.ends[0]
	if p.idleTimeout > 0 {
		p.mu.Lock() // the timer may fire before it is stored
		defer p.mu.Unlock()
		p.idle = time.AfterFunc(p.idleTimeout, func() {
			p.mu.Lock()
			defer p.mu.Unlock()
			err := &pipeError{text: fmt.Sprintf("connection lost: nothing came for %v", p.idleTimeout), timeout: true}
			p.end(err, err)
		})
	}
	return p
}

// active notes that something went over the connection. p.mu is held by the
// caller, here and in all other methods with a lower-case name.
func (p *streamPipe) active() {
	if p.idle != nil && p.ends[0].err == nil {
		p.idle.Reset(p.idleTimeout)
	}
}

// end ends the connection, with an error for each of its ends.
func (p *streamPipe) end(errs ...error) {
	if p.ends[0].err != nil {
		return
	}
	if p.idle != nil {
		p.idle.Stop()
	}
	for i, e := range p.ends {
		e.err = errs[i]
		e.shakeHands(e.err) // in case it was not complete
		for kind := range e.opened {
			e.opened[kind].waiting = nil
			e.opened[kind].room.Broadcast()
			e.opened[kind].arrivals.Broadcast()
		}
	}
	for _, s := range p.streams {
		for _, h := range s.halves {
			h.endRead(h.to.err)
			h.endWrite(h.from.err)
		}
	}
	p.streams = nil
	for _, e := range p.ends {
		e.cancel(e.err)
	}
}

func (e *pipeEnd) GetRawConnection() interface{}      { return nil }
func (e *pipeEnd) HandshakeComplete() context.Context { return e.handshake }
func (e *pipeEnd) GetVersion() uint32                 { return network.Version1 }
func (e *pipeEnd) LocalAddr() net.Addr                { return e.addr }
func (e *pipeEnd) RemoteAddr() net.Addr               { return e.peer.addr }
func (e *pipeEnd) Context() context.Context           { return e.ctx }

func (e *pipeEnd) CloseWithError(err network.ApplicationError, errMsg string) error {
	e.pipe.mu.Lock()
	defer e.pipe.mu.Unlock()
	here := &pipeClosedError{code: pipeCode(err), text: errMsg}
	there := &pipeClosedError{code: here.code, text: errMsg, remote: true}
	if e.server == 0 {
		e.pipe.end(here, there)
	} else {
		e.pipe.end(there, here)
	}
	return nil
}

// AcceptStream and its like test for an error before they return a stream, so
// that an interface never holds a nil pointer.

func (e *pipeEnd) AcceptStream(ctx context.Context) (network.Stream, error) {
	s, err := e.accept(ctx, pipeBidi)
	if err != nil {
		return nil, err
	}
	return &pipeBidiStream{pipeReceiver{s.halves[0]}, pipeSender{s.halves[1]}}, nil
}

func (e *pipeEnd) AcceptUniStream(ctx context.Context) (network.ReceiveStream, error) {
	s, err := e.accept(ctx, pipeUni)
	if err != nil {
		return nil, err
	}
	return &pipeReceiver{s.halves[0]}, nil
}

func (e *pipeEnd) OpenStream() (network.Stream, error) {
	return openedBidi(e.open(context.Background(), pipeBidi, false))
}

func (e *pipeEnd) OpenStreamSync(ctx context.Context) (network.Stream, error) {
	return openedBidi(e.open(ctx, pipeBidi, true))
}

func (e *pipeEnd) OpenUniStream() (network.SendStream, error) {
	return openedUni(e.open(context.Background(), pipeUni, false))
}

func (e *pipeEnd) OpenUniStreamSync(ctx context.Context) (network.SendStream, error) {
	return openedUni(e.open(ctx, pipeUni, true))
}

func openedBidi(s *pipeStream, err error) (network.Stream, error) {
	if err != nil {
		return nil, err
	}
	return &pipeBidiStream{pipeReceiver{s.halves[1]}, pipeSender{s.halves[0]}}, nil
}

func openedUni(s *pipeStream, err error) (network.SendStream, error) {
	if err != nil {
		return nil, err
	}
	return &pipeSender{s.halves[0]}, nil
}

// accept takes the lock itself, as open does.
func (e *pipeEnd) accept(ctx context.Context, kind int) (*pipeStream, error) {
	k := &e.peer.opened[kind]
	defer e.pipe.wakeAtEndOf(ctx, &k.arrivals)()
	e.pipe.mu.Lock()
	defer e.pipe.mu.Unlock()
	for {
		if e.err != nil {
			return nil, e.err
		}
		if ctx.Err() != nil {
			return nil, contextError("accept", ctx)
		}
		if len(k.waiting) > 0 && k.waiting[0].number < k.visible {
			s := k.waiting[0]
			k.waiting[0] = nil
			k.waiting = k.waiting[1:]
			s.accepted = true
			s.settle()
			return s, nil
		}
		k.arrivals.Wait()
	}
}

// open opens a stream. At the limit it waits for room, or fails at once.
func (e *pipeEnd) open(ctx context.Context, kind int, wait bool) (*pipeStream, error) {
	p, k := e.pipe, &e.opened[kind]
	defer p.wakeAtEndOf(ctx, &k.room)()
	p.mu.Lock()
	defer p.mu.Unlock()
	for {
		if e.err != nil {
			return nil, e.err
		}
		if ctx.Err() != nil {
			return nil, contextError("open", ctx)
		}
		if k.open < p.maxStreams {
			break
		}
		if !wait {
			return nil, &pipeError{text: fmt.Sprintf("open: the limit of %d streams is reached", p.maxStreams), temporary: true}
		}
		k.room.Wait()
	}
	s := &pipeStream{pipe: p, streams: k, number: k.next, id: k.next<<2 | int64(kind)<<1 | e.server}
	s.halves = append(s.halves, newPipeHalf(s, e, e.peer))
	if kind == pipeBidi {
		s.halves = append(s.halves, newPipeHalf(s, e.peer, e))
	}
	k.next++
	k.open++
	k.waiting = append(k.waiting, s)
	p.streams[s.id] = s
	return s, nil
}

// wakeAtEndOf has c's waiters look at ctx when it is done. The result stops that.
func (p *streamPipe) wakeAtEndOf(ctx context.Context, c *sync.Cond) (stop func() bool) {
	return context.AfterFunc(ctx, func() {
		p.mu.Lock()
		defer p.mu.Unlock()
		c.Broadcast()
	})
}

// pipeStream is a stream, as both ends share it.
type pipeStream struct {
	pipe     *streamPipe
	streams  *pipeStreams
	number   int64
	id       int64
	accepted bool
	over     bool
	halves   []*pipeHalf // what the opener sends and, unless unidirectional, what it receives
}

// show makes the stream acceptable: something of it has reached the peer.
func (s *pipeStream) show() {
	s.pipe.active()
	if s.streams.visible <= s.number {
		s.streams.visible = s.number + 1
		s.streams.arrivals.Broadcast()
	}
}

// settle makes room for another stream once this one is over in all respects.
func (s *pipeStream) settle() {
	if s.over || !s.accepted {
		return
	}
	for _, h := range s.halves {
		if h.readErr == nil || h.writeErr == nil {
			return
		}
	}
	s.over = true
	delete(s.pipe.streams, s.id)
	s.streams.open--
	s.streams.room.Broadcast()
}

// pipeHalf is one direction of a stream.
type pipeHalf struct {
	stream   *pipeStream
	from, to *pipeEnd
	change   sync.Cond // any field below has changed

	buf []byte // written and not yet read
	fin bool   // nothing comes after buf

	// readErr is what Read returns from now on, and writeErr what Write does. Once
	// set they stay. With both set, this direction is over.
	readErr, writeErr error

	readBy, writeBy pipeDeadline
	ctx             context.Context // the sender's
	cancel          context.CancelCauseFunc
}

func newPipeHalf(s *pipeStream, from, to *pipeEnd) *pipeHalf {
	h := &pipeHalf{stream: s, from: from, to: to}
	h.change.L = &s.pipe.mu
	h.ctx, h.cancel = context.WithCancelCause(from.ctx)
	return h
}

func (h *pipeHalf) endRead(err error) {
	if h.readErr == nil {
		h.readErr = err
		h.buf = nil
		h.readBy.stop()
		h.change.Broadcast()
		h.stream.settle()
	}
}

func (h *pipeHalf) endWrite(err error) {
	if h.writeErr == nil {
		h.writeErr = err
		h.writeBy.stop()
		h.cancel(err)
		h.change.Broadcast()
		h.stream.settle()
	}
}

// canceled returns the error of a cancelled stream, at the end where that happened
// and at the other one.
func (h *pipeHalf) canceled(err network.ApplicationError) (here, there *pipeCanceledError) {
	here = &pipeCanceledError{id: h.stream.id, code: pipeCode(err)}
	there = &pipeCanceledError{id: h.stream.id, code: here.code, remote: true}
	return here, there
}

func (h *pipeHalf) lock() (unlock func()) {
	h.stream.pipe.mu.Lock()
	return h.stream.pipe.mu.Unlock
}

func (h *pipeHalf) timeout(op string) error {
	return &pipeError{text: fmt.Sprintf("stream %d: %s: the deadline has passed", h.stream.id, op), timeout: true, is: os.ErrDeadlineExceeded}
}

// pipeDeadline is the moment after which the calls of one direction end.
type pipeDeadline struct {
	passed bool
	timer  *time.Timer
}

func (d *pipeDeadline) stop() {
	if d.timer != nil {
		d.timer.Stop()
		d.timer = nil
	}
}

// set is called without the lock. done says that there is nothing left to end.
func (h *pipeHalf) set(d *pipeDeadline, t time.Time, done *error) error {
	defer h.lock()()
	d.stop()
	d.passed = false
	if t.IsZero() || *done != nil {
		return nil
	}
	left := time.Until(t)
	if left <= 0 {
		d.passed = true
		h.change.Broadcast()
		return nil
	}
	var timer *time.Timer
	timer = time.AfterFunc(left, func() {
		defer h.lock()()
		if d.timer == timer { // and not another one by now
			d.passed = true
			h.change.Broadcast()
		}
	})
	d.timer = timer
	return nil
}

// pipeReceiver is the receiving end of a pipeHalf.
type pipeReceiver struct{ h *pipeHalf }

func (r pipeReceiver) StreamID() int64 { return r.h.stream.id }

func (r pipeReceiver) SetReadDeadline(t time.Time) error {
	return r.h.set(&r.h.readBy, t, &r.h.readErr)
}

func (r pipeReceiver) Read(p []byte) (int, error) {
	h := r.h
	defer h.lock()()
	for {
		switch {
		case h.readErr != nil:
			return 0, h.readErr
		case h.readBy.passed:
			return 0, h.timeout("read")
		case len(p) == 0:
			return 0, nil
		case len(h.buf) > 0:
			n := copy(p, h.buf)
			h.buf = h.buf[n:]
			h.change.Broadcast()
			h.stream.pipe.active()
			return n, nil
		case h.fin:
			h.endRead(io.EOF)
			return 0, io.EOF
		}
		h.change.Wait()
	}
}

func (r pipeReceiver) CancelRead(err network.ApplicationError) {
	h := r.h
	defer h.lock()()
	if h.readErr != nil {
		return
	}
	here, there := h.canceled(err)
	h.stream.show()
	h.endRead(here)
	h.endWrite(there)
}

// pipeSender is the sending end of a pipeHalf.
type pipeSender struct{ h *pipeHalf }

func (s pipeSender) StreamID() int64          { return s.h.stream.id }
func (s pipeSender) Context() context.Context { return s.h.ctx }

func (s pipeSender) SetWriteDeadline(t time.Time) error {
	return s.h.set(&s.h.writeBy, t, &s.h.writeErr)
}

func (s pipeSender) Write(p []byte) (int, error) {
	h := s.h
	defer h.lock()()
	n := 0
	for {
		switch room := pipeBuffer - len(h.buf); {
		case h.writeErr != nil:
			return n, h.writeErr
		case h.writeBy.passed:
			return n, h.timeout("write")
		case n == len(p):
			return n, nil
		case room > 0:
			more := min(room, len(p)-n)
			h.buf = append(h.buf, p[n:n+more]...)
			n += more
			h.change.Broadcast()
			h.stream.show()
		default:
			h.change.Wait()
		}
	}
}

func (s pipeSender) Close() error {
	h := s.h
	defer h.lock()()
	if h.fin {
		return nil
	}
	if h.writeErr != nil {
		if e, ok := h.writeErr.(*pipeCanceledError); ok && e.remote {
			return nil // the peer wants no more, so that nothing is left to deliver
		}
		return h.writeErr
	}
	h.fin = true
	h.stream.show()
	h.cancel(nil) // its cause is no error
	h.endWrite(&pipeError{text: fmt.Sprintf("stream %d: write after Close", h.stream.id), is: io.ErrClosedPipe})
	return nil
}

func (s pipeSender) CancelWrite(err network.ApplicationError) {
	h := s.h
	defer h.lock()()
	if h.writeErr != nil {
		return
	}
	here, there := h.canceled(err)
	h.stream.show()
	h.endRead(there)
	h.endWrite(here)
}

// pipeBidiStream is one end of a bidirectional stream.
type pipeBidiStream struct {
	pipeReceiver
	pipeSender
}

func (s *pipeBidiStream) StreamID() int64 { return s.pipeReceiver.StreamID() }

// pipeAddr is the address of an end: its name.
type pipeAddr string

func (pipeAddr) Network() string  { return "pipe" }
func (a pipeAddr) String() string { return string(a) }

// pipeCode returns the code that reaches the peer.
func pipeCode(err network.ApplicationError) uint64 {
	if err == nil {
		return 0
	}
	return err.ErrCode()
}

// pipeError is an error for which nobody gave a code.
type pipeError struct {
	text               string
	timeout, temporary bool
	is                 error // what it is by errors.Is
}

func (e *pipeError) Error() string   { return "stream pipe: " + e.text }
func (e *pipeError) Timeout() bool   { return e.timeout }
func (e *pipeError) Temporary() bool { return e.temporary }
func (e *pipeError) Unwrap() error   { return e.is }

func contextError(op string, ctx context.Context) error {
	err := ctx.Err()
	return &pipeError{text: op + ": " + err.Error(), timeout: err == context.DeadlineExceeded, is: err}
}

// pipeClosedError is the error of a connection that an application has closed.
type pipeClosedError struct {
	code   uint64
	text   string
	remote bool // by the peer
}

func (e *pipeClosedError) Error() string {
	return fmt.Sprintf("stream pipe: connection closed by %s with code %#x: %s", pipeSide(e.remote), e.code, e.text)
}

func (e *pipeClosedError) ErrCode() uint64 { return e.code }
func (e *pipeClosedError) String() string  { return e.text }
func (e *pipeClosedError) Timeout() bool   { return false }
func (e *pipeClosedError) Temporary() bool { return false }
func (e *pipeClosedError) Unwrap() error   { return net.ErrClosed }

// pipeCanceledError is the error of a stream that an application has cancelled.
type pipeCanceledError struct {
	id     int64
	code   uint64
	remote bool // by the peer
}

func (e *pipeCanceledError) Error() string {
	return fmt.Sprintf("stream pipe: stream %d cancelled by %s with code %#x", e.id, pipeSide(e.remote), e.code)
}

func (e *pipeCanceledError) ErrCode() uint64 { return e.code }
func (e *pipeCanceledError) String() string  { return e.Error() }
func (e *pipeCanceledError) Canceled() bool  { return e.remote }
func (e *pipeCanceledError) Timeout() bool   { return false }
func (e *pipeCanceledError) Temporary() bool { return false }

func pipeSide(remote bool) string {
	if remote {
		return "the peer"
	}
	return "this end"
}
