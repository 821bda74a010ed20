package tlsconn

import (
	"errors"
	"fmt"
	"io"
	"net"
	"sync"
	"sync/atomic"
	"time"
)

const (
	recordHeaderLen = 5     // type, version, length (RFC 8446, section 5.1)
	maxPlaintext    = 16384 // the largest payload of one record

	// recordsPerWrite is how many whole records may wait for one write call; fewRecords, if
	// the Write has no more than so many left. Large calls pay: 1 MiB in calls of 256 KiB
	// takes a fifth less processor time than in calls of 64 KiB.
	recordsPerWrite = 16
	fewRecords      = 4

	// pendingSize holds recordsPerWrite whole records of any cipher suite; what a record
	// adds is 22 bytes in TLS 1.3 and at most some 300 in CBC suites.
	pendingSize = recordsPerWrite * maxRecord
	maxRecord   = maxPlaintext + 512

	// maxEmptyReads is the bound that package bufio uses: a conn that returns (0, nil) more
	// often than this in a row makes no progress [F1].
	maxEmptyReads = 100
)

// pending is the memory that records wait in. It is held between the first record of a
// Write and the write call that sends it, so an idle conn holds none.
type pending struct {
	buf  []byte
	pool *sync.Pool // it came from
}

var fewPool, manyPool = newPendingPool(fewRecords), newPendingPool(recordsPerWrite)

func newPendingPool(records int) *sync.Pool {
	pool := new(sync.Pool)
	pool.New = func() any { return &pending{make([]byte, records*maxRecord), pool} }
	return pool
}

// batch returns how many records may wait for one another when n bytes of plaintext are left.
func batch(n int64) int {
	if n <= fewRecords*maxPlaintext {
		return fewRecords
	}
	return recordsPerWrite
}

// layer is the net.Conn that crypto/tls reads and writes: it sits on the conn that the user
// gave. It joins the records of one Write into one write call, notices how the stream
// ended, refuses impossible counts, and keeps the user's deadlines apart from the
// handshake's.
//
// crypto/tls hands it out, as ClientHelloInfo.Conn and RecordHeaderError.Conn, so on its
// own it must behave as a plain conn: nothing waits here outside of expect and flush.
type layer struct {
	raw  net.Conn
	sock *rawConn // raw's socket, if it is one: for small reads and writes

	// Reader side: crypto/tls serializes its reads, who has layer from it need not.
	rmu   sync.Mutex
	stash error        // came with the last bytes; the next Read returns it [F2, F3]
	ended atomic.Bool  // raw ended, and crypto/tls was told so because it wanted more
	got   atomic.Int64 // bytes of records

	writing atomic.Bool // a Write is under way; what else is written is crypto/tls's own

	// Writer side.
	wmu     sync.Mutex // keeps the order of records while pending is written
	block   *pending   // nil unless records wait
	pending int        // bytes that wait in block
	want    int64      // plaintext that the current Write has still to send; 0: none
	sent    int        // ciphertext that left since expect
	werr    error      // the first write error; permanent [W8]

	deadlines

	closeOnce sync.Once
	closed    atomic.Bool
	closeErr  error
}

// Read implements the read side for crypto/tls.
func (l *layer) Read(p []byte) (int, error) {
	l.rmu.Lock()
	defer l.rmu.Unlock()
	if err := l.stash; err != nil {
		l.stash = nil
		return 0, l.readError(err)
	}
	if len(p) == 0 {
		return 0, nil
	}
	for range maxEmptyReads + 1 {
		n, err := l.read(p)
		if n < 0 || n > len(p) {
			return 0, l.impossible("Read", n, len(p))
		}
		if n > 0 {
			l.got.Add(int64(n))
			// A timeout is not kept: the deadline may have moved before the next Read,
			// which finds out by itself.
			if err != nil && !isTimeout(err) {
				l.stash = err
			}
			return n, nil
		}
		if err != nil {
			return 0, l.readError(err)
		}
	}
	return 0, io.ErrNoProgress
}

// read is a Read of the conn beneath.
func (l *layer) read(p []byte) (int, error) {
	if l.sock == nil || len(p) > maxRaw {
		return l.raw.Read(p)
	}
	n, err := l.sock.Read(p)
	if err != nil && err != io.EOF {
		err = l.opError("read", err)
	}
	return n, err
}

// write is a Write of the conn beneath.
func (l *layer) write(p []byte) (int, error) {
	if l.sock == nil || len(p) > maxRaw {
		return l.raw.Write(p)
	}
	n, err := l.sock.Write(p)
	if err != nil {
		err = l.opError("write", err)
	}
	return n, err
}

func (l *layer) readError(err error) error {
	switch {
	case l.closed.Load():
		return l.closedError("read", err)
	case err == io.EOF:
		l.ended.Store(true)
		return err
	case isTimeout(err):
		return l.timeoutError("read", err, true)
	}
	return err
}

// Write takes one record, or a few handshake records, from crypto/tls. A record that
// completes the current Write while none waits goes straight out, without a copy. Others
// wait for flush.
func (l *layer) Write(p []byte) (int, error) {
	l.wmu.Lock()
	defer l.wmu.Unlock()
	if l.werr != nil {
		return 0, l.werr
	}
	if !l.writing.Load() {
		defer l.beginAnswer()()
	}
	// A record is never shorter than its header and plaintext, so one of this length holds
	// all that is left. (Or all but a few bytes, when crypto/tls varies the sizes: no
	// harm.)
	if l.pending == 0 && l.want <= maxPlaintext && (l.want == 0 || int64(len(p)) >= l.want+recordHeaderLen) {
		return l.writeRaw(p)
	}
	if l.block != nil && l.pending+len(p) > len(l.block.buf) {
		if err := l.flushLocked(); err != nil {
			return 0, err
		}
	}
	if l.block == nil {
		pool := manyPool
		if batch(l.want) == fewRecords {
			pool = fewPool
		}
		l.block = pool.Get().(*pending)
		if len(p) > len(l.block.buf) {
			l.giveBack()
			return l.writeRaw(p)
		}
	}
	l.pending += copy(l.block.buf[l.pending:], p)
	return len(p), nil
}

// expect announces that records for n bytes of plaintext follow, to be ended by flush.
func (l *layer) expect(n int64) {
	l.wmu.Lock()
	l.want, l.sent = n, 0
	l.wmu.Unlock()
}

// accepted counts the bytes of records taken since expect, sent or not.
func (l *layer) accepted() int {
	l.wmu.Lock()
	defer l.wmu.Unlock()
	return l.sent + l.pending
}

// flush writes out what waits and ends expect. It returns how many bytes of records left
// since expect.
func (l *layer) flush() (sent int, err error) {
	l.wmu.Lock()
	defer l.wmu.Unlock()
	l.want = 0
	err = l.flushLocked()
	return l.sent, err
}

func (l *layer) flushLocked() error {
	if l.pending > 0 {
		if l.werr == nil {
			l.writeRaw(l.block.buf[:l.pending])
		}
		l.giveBack()
	}
	return l.werr
}

func (l *layer) giveBack() {
	b := l.block
	l.block, l.pending = nil, 0
	b.pool.Put(b)
}

// writeRaw is the only place that writes to the conn beneath. Any error is permanent: how
// much of a record has left is then known to nobody but the peer.
func (l *layer) writeRaw(p []byte) (int, error) {
	n, err := l.write(p)
	switch {
	case n < 0 || n > len(p):
		n, err = 0, l.impossible("Write", n, len(p))
	case err != nil:
		err = l.writeError(err)
	case n < len(p):
		err = io.ErrShortWrite
	}
	l.sent += n
	l.werr = err
	return n, err
}

func (l *layer) writeError(err error) error {
	switch {
	case l.closed.Load():
		return l.closedError("write", err)
	case isTimeout(err):
		return l.timeoutError("write", err, false)
	}
	return err
}

// writeErr is the error that ended the writer side, or nil.
func (l *layer) writeErr() error {
	l.wmu.Lock()
	defer l.wmu.Unlock()
	return l.werr
}

// Close closes the conn beneath, once: crypto/tls does when a context ends a handshake, a
// user may through RecordHeaderError.Conn, and Conn.Close always does.
func (l *layer) Close() error {
	l.closeOnce.Do(func() {
		l.closed.Store(true)
		l.closeErr = l.raw.Close()
	})
	return l.closeErr
}

func (l *layer) LocalAddr() net.Addr  { return l.raw.LocalAddr() }
func (l *layer) RemoteAddr() net.Addr { return l.raw.RemoteAddr() }

// NetConn lets a user of ClientHelloInfo.Conn reach the conn that was given to Server.
func (l *layer) NetConn() net.Conn { return l.raw }

func (l *layer) SetDeadline(t time.Time) error     { return l.setUser(t, true, true) }
func (l *layer) SetReadDeadline(t time.Time) error { return l.setUser(t, true, false) }

// SetWriteDeadline is what crypto/tls calls around close_notify, and for nothing else. The
// alert's own deadline is in force then, and the values of crypto/tls must not outlive it.
func (l *layer) SetWriteDeadline(t time.Time) error {
	if l.alerting() {
		return nil
	}
	return l.setUser(t, false, true)
}

// impossible names a conn that breaks the contract of io.Reader or io.Writer [F5, W10].
func (l *layer) impossible(op string, n, size int) error {
	return fmt.Errorf("tlsconn: %s of %T returned %d for a buffer of %d bytes", op, l.raw, n, size)
}

// closedError is what package net returns after Close, whatever err the conn beneath has
// for it: net.Pipe says io.ErrClosedPipe.
func (l *layer) closedError(op string, err error) error {
	if _, ok := err.(*net.OpError); ok && errors.Is(err, net.ErrClosed) {
		return err
	}
	return l.opError(op, net.ErrClosed)
}

func (l *layer) opError(op string, err error) *net.OpError {
	e := &net.OpError{Op: op, Source: l.raw.LocalAddr(), Addr: l.raw.RemoteAddr(), Err: err}
	if e.Addr != nil {
		e.Net = e.Addr.Network()
	}
	return e
}
