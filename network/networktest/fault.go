package networktest

import (
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"os"
	"slices"
	"sync"
	"time"
)

// FaultScript answers the first Reads and the first Writes by a script, one Step
// each, or more Reads where the buffer is smaller than the Step's Data. A call with
// an empty buffer counts like any other. What a Write takes goes to c, save for an
// Exact Step, of which nothing does. After its script each direction is that of c.
func FaultScript(c net.Conn, reads, writes []Step) net.Conn {
	f := &faultConn{Conn: c}
	reads, writes = slices.Clone(reads), slices.Clone(writes)
	var readMu, writeMu sync.Mutex
	f.read = func(p []byte) (int, error) {
		readMu.Lock()
		if len(reads) == 0 {
			readMu.Unlock()
			return c.Read(p)
		}
		defer readMu.Unlock()
		if err := f.rd.check(); err != nil {
			return 0, f.opError("read", err)
		}
		return readStep(&reads, p)
	}
	f.write = func(p []byte) (int, error) {
		writeMu.Lock()
		if len(writes) == 0 {
			writeMu.Unlock()
			return c.Write(p)
		}
		defer writeMu.Unlock()
		if err := f.wr.check(); err != nil {
			return 0, f.opError("write", err)
		}
		s := writes[0]
		writes = writes[1:]
		switch {
		case s.Exact:
			return s.N, s.Err
		case s.N < 0 || s.N > len(p):
			s.N = len(p)
		}
		return f.writePart(p[:s.N], s.Err)
	}
	return f
}

// FaultChunks cuts the stream into random pieces of 1 to largest bytes, by a seed:
// a Read asks c for no more than that, and a Write hands its bytes to c in several
// Writes, all of them in the end. A largest of less than 1 counts as 1.
func FaultChunks(c net.Conn, seed uint64, largest int) net.Conn {
	f := &faultConn{Conn: c}
	largest = max(largest, 1)
	var readMu, writeMu sync.Mutex
	reads := rand.New(rand.NewPCG(seed, 0))
	writes := rand.New(rand.NewPCG(seed, 1))
	f.read = func(p []byte) (int, error) {
		readMu.Lock()
		n := 1 + reads.IntN(largest)
		readMu.Unlock()
		return c.Read(p[:min(n, len(p))])
	}
	f.write = func(p []byte) (int, error) {
		if len(p) == 0 {
			return c.Write(p)
		}
		writeMu.Lock() // the pieces of one Write stay together
		defer writeMu.Unlock()
		written := 0
		for written < len(p) {
			size := min(1+writes.IntN(largest), len(p)-written)
			n, err := c.Write(p[written : written+size])
			written += n
			if err != nil || n != size {
				return written, err
			}
		}
		return written, nil
	}
	return f
}

// FaultOneByte reads and writes one byte at a time; see [FaultChunks].
func FaultOneByte(c net.Conn) net.Conn { return FaultChunks(c, 0, 1) }

// FaultEmptyReads lets k Reads return (0, nil) before each that reads from c; all
// of them do if k is less than zero.
func FaultEmptyReads(c net.Conn, k int) net.Conn {
	f := &faultConn{Conn: c}
	var mu sync.Mutex
	left := k
	f.read = func(p []byte) (int, error) {
		if err := f.rd.check(); err != nil {
			return 0, f.opError("read", err)
		}
		mu.Lock()
		if left != 0 {
			if left > 0 {
				left--
			}
			mu.Unlock()
			return 0, nil
		}
		left = k
		mu.Unlock()
		return c.Read(p)
	}
	return f
}

// FaultDataWithError ends the stream that is read after n bytes: the last of them
// come together with err, which every later Read returns alone. A nil err is
// io.EOF. An error of c that comes earlier passes through.
func FaultDataWithError(c net.Conn, n int64, err error) net.Conn {
	f := &faultConn{Conn: c}
	if err == nil {
		err = io.EOF
	}
	var mu sync.Mutex
	left := max(n, 0)
	f.read = func(p []byte) (int, error) {
		mu.Lock()
		defer mu.Unlock()
		if left == 0 {
			if err := f.rd.check(); err != nil {
				return 0, f.opError("read", err)
			}
			return 0, err
		}
		n, cerr := c.Read(p[:min(int64(len(p)), left)])
		left -= int64(max(n, 0))
		if left == 0 && cerr == nil {
			cerr = err
		}
		return n, cerr
	}
	return f
}

// FaultShortWrite lets the k-th Write, counted from 1, take at most n bytes, and
// always at least one less than it is given, without an error, which io.Writer
// forbids. A k of zero is every Write. An empty Write is counted, but not cut.
func FaultShortWrite(c net.Conn, k, n int) net.Conn {
	f := &faultConn{Conn: c}
	var calls counter
	f.write = func(p []byte) (int, error) {
		if !calls.is(k) || len(p) == 0 {
			return c.Write(p)
		}
		if err := f.wr.check(); err != nil {
			return 0, f.opError("write", err)
		}
		return f.writePart(p[:min(max(n, 0), len(p)-1)], nil)
	}
	return f
}

// FaultReadError lets the k-th Read, counted from 1, fail with err and read
// nothing. A k of zero is every Read. The Reads after the k-th read on, so who
// takes a passing error for the end, or forgets one that is for good, is found
// out.
func FaultReadError(c net.Conn, k int, err error) net.Conn {
	f := &faultConn{Conn: c}
	var calls counter
	f.read = func(p []byte) (int, error) {
		if !calls.is(k) {
			return c.Read(p)
		}
		if err := f.rd.check(); err != nil {
			return 0, f.opError("read", err)
		}
		return 0, err
	}
	return f
}

// FaultWriteError lets the k-th Write, counted from 1, take no more than n bytes
// and fail with err. A k of zero is every Write. The Writes after the k-th
// succeed.
func FaultWriteError(c net.Conn, k, n int, err error) net.Conn {
	f := &faultConn{Conn: c}
	var calls counter
	f.write = func(p []byte) (int, error) {
		if !calls.is(k) {
			return c.Write(p)
		}
		if err := f.wr.check(); err != nil {
			return 0, f.opError("write", err)
		}
		return f.writePart(p[:min(max(n, 0), len(p))], err)
	}
	return f
}

// FaultReset resets the connection after n bytes, those of both directions
// together: from then on every Read and Write fails, and one that waits does so
// at once, with an error as package net shapes it: a *net.OpError with an
// *os.SyscallError that is syscall.ECONNRESET, on Windows
// syscall.WSAECONNRESET. c itself stays open until Close, with its deadlines in the
// past. Calls at work at the same time may each carry what was left when they began,
// so that a few more than n bytes pass.
func FaultReset(c net.Conn, n int64) net.Conn {
	f := &faultConn{Conn: c}
	var mu sync.Mutex
	left := max(n, 0)
	room := func() int64 {
		mu.Lock()
		defer mu.Unlock()
		return left
	}
	pass := func(n int) { // n bytes have passed
		mu.Lock()
		defer mu.Unlock()
		if left > 0 {
			left = max(left-int64(max(n, 0)), 0)
			if left == 0 {
				_ = c.SetDeadline(time.Unix(1, 0)) // frees what waits
			}
		}
	}
	failed := func(op, call string) error {
		g := &f.rd
		if op == "write" {
			g = &f.wr
		}
		if err := g.check(); err != nil {
			return f.opError(op, err)
		}
		return f.opError(op, os.NewSyscallError(call, errReset))
	}
	f.read = func(p []byte) (int, error) {
		size := room()
		if size == 0 {
			return 0, failed("read", readCall)
		}
		n, err := c.Read(p[:min(int64(len(p)), size)])
		if n <= 0 && err != nil && room() == 0 {
			err = failed("read", readCall)
		}
		pass(n)
		return n, err
	}
	f.write = func(p []byte) (int, error) {
		size := room()
		if size == 0 {
			return 0, failed("write", writeCall)
		}
		part := p[:min(int64(len(p)), size)]
		n, err := c.Write(part)
		if err != nil && room() == 0 || err == nil && n == len(part) && n < len(p) {
			err = failed("write", writeCall)
		}
		pass(n)
		return n, err
	}
	return f
}

// FaultSlow lets each Read and Write wait for delay before it begins, and each
// direction carry no more than rate bytes in a second. A delay or a rate of zero
// or less is none. Reads that wait at the same time share one wait, and carry more. A
// Write hands its bytes to c in pieces of about 10 ms each,
// and its count is exact when its deadline passes meanwhile.
func FaultSlow(c net.Conn, delay time.Duration, rate int) net.Conn {
	f := &faultConn{Conn: c}
	chunk := maxInt
	if rate > 0 {
		chunk = max(rate/100, 1)
	}
	f.read = func(p []byte) (int, error) {
		if len(p) == 0 {
			return c.Read(p)
		}
		if err := f.rd.wait(f.rd.turn(delay)); err != nil {
			return 0, f.opError("read", err)
		}
		n, err := c.Read(p[:min(len(p), chunk)])
		f.rd.spend(n, rate)
		return n, err
	}
	var mu sync.Mutex // the pieces of one Write stay together
	f.write = func(p []byte) (int, error) {
		if len(p) == 0 {
			return c.Write(p)
		}
		mu.Lock()
		defer mu.Unlock()
		written := 0
		for wait := delay; written < len(p); wait = 0 {
			if err := f.wr.wait(f.wr.turn(wait)); err != nil {
				return written, f.opError("write", err)
			}
			size := min(len(p)-written, chunk)
			n, err := c.Write(p[written : written+size])
			written += n
			f.wr.spend(n, rate)
			if err != nil || n != size {
				return written, err
			}
		}
		return written, nil
	}
	return f
}

// FaultStalled lets no more bytes through after the first read bytes of what is
// read and the first written bytes of what is written: further calls block until
// their deadline or Close. Less than zero is no limit, and zero stalls from the
// beginning. What the peer does is not noticed by a call that is stalled.
func FaultStalled(c net.Conn, read, written int64) net.Conn {
	f := &faultConn{Conn: c}
	if read >= 0 {
		var mu sync.Mutex
		left := read
		f.read = func(p []byte) (int, error) {
			mu.Lock()
			if left == 0 && len(p) > 0 {
				mu.Unlock()
				return 0, f.opError("read", f.rd.wait(time.Time{}))
			}
			defer mu.Unlock()
			n, err := c.Read(p[:min(int64(len(p)), left)])
			left -= int64(max(n, 0))
			return n, err
		}
	}
	if written >= 0 {
		var mu sync.Mutex
		left := written
		f.write = func(p []byte) (int, error) {
			mu.Lock()
			part := p[:min(int64(len(p)), left)]
			n := 0
			var err error
			if len(part) > 0 || len(p) == 0 {
				n, err = c.Write(part)
				left -= int64(max(n, 0))
			}
			mu.Unlock()
			if err == nil && n == len(part) && n < len(p) {
				err = f.opError("write", f.wr.wait(time.Time{}))
			}
			return n, err
		}
	}
	return f
}

// FaultCount lets the k-th Read and the k-th Write, each counted from 1, return a
// count that cannot be, with a nil error, and do nothing else. A k of zero is
// every call. An n of less than zero is the count itself; any other is added to
// the length of the buffer: 1 is just too many, and 0 claims that all was done.
func FaultCount(c net.Conn, k, n int) net.Conn {
	f := &faultConn{Conn: c}
	count := func(p []byte) int {
		if n < 0 || n > maxInt-len(p) {
			return n
		}
		return len(p) + n
	}
	var reads, writes counter
	f.read = func(p []byte) (int, error) {
		if !reads.is(k) {
			return c.Read(p)
		}
		if err := f.rd.check(); err != nil {
			return 0, f.opError("read", err)
		}
		return count(p), nil
	}
	f.write = func(p []byte) (int, error) {
		if !writes.is(k) {
			return c.Write(p)
		}
		if err := f.wr.check(); err != nil {
			return 0, f.opError("write", err)
		}
		return count(p), nil
	}
	return f
}

// FaultSet lets SetDeadline, SetReadDeadline and SetWriteDeadline return err and
// do nothing.
func FaultSet(c net.Conn, err error) net.Conn {
	return &faultConn{Conn: c, setErr: err}
}

// FaultClose lets Close return err, although it closes c.
func FaultClose(c net.Conn, err error) net.Conn {
	return &faultConn{Conn: c, closeErr: err}
}

// faultConn is the conn with a fault. What is nil passes through.
type faultConn struct {
	net.Conn
	rd, wr           gate
	read, write      func(p []byte) (int, error)
	setErr, closeErr error
}

func (f *faultConn) Read(p []byte) (int, error) {
	if f.read == nil {
		return f.Conn.Read(p)
	}
	return f.read(p)
}

func (f *faultConn) Write(p []byte) (int, error) {
	if f.write == nil {
		return f.Conn.Write(p)
	}
	return f.write(p)
}

// writePart writes p, all that a fault lets through, and returns err with it.
func (f *faultConn) writePart(p []byte, err error) (int, error) {
	if len(p) == 0 {
		return 0, err
	}
	n, cerr := f.Conn.Write(p)
	if cerr != nil {
		return n, cerr
	}
	return n, err
}

func (f *faultConn) Close() error {
	f.rd.close()
	f.wr.close()
	err := f.Conn.Close()
	if f.closeErr != nil {
		return f.closeErr
	}
	return err
}

func (f *faultConn) SetReadDeadline(t time.Time) error {
	return f.set(t, f.Conn.SetReadDeadline, &f.rd)
}

func (f *faultConn) SetWriteDeadline(t time.Time) error {
	return f.set(t, f.Conn.SetWriteDeadline, &f.wr)
}

func (f *faultConn) SetDeadline(t time.Time) error {
	return f.set(t, f.Conn.SetDeadline, &f.rd, &f.wr)
}

func (f *faultConn) set(t time.Time, beneath func(time.Time) error, gates ...*gate) error {
	if f.setErr != nil {
		return f.setErr
	}
	for _, g := range gates {
		g.mu.Lock()
		defer g.mu.Unlock()
	}
	if err := beneath(t); err != nil {
		return err
	}
	for _, g := range gates {
		g.deadline = t
		g.change()
	}
	return nil
}

// CloseWrite is that of the conn beneath.
func (f *faultConn) CloseWrite() error {
	if h, ok := f.Conn.(interface{ CloseWrite() error }); ok {
		return h.CloseWrite()
	}
	return fmt.Errorf("networktest: a %T has no CloseWrite", f.Conn)
}

// SetLinger is that of the conn beneath.
func (f *faultConn) SetLinger(sec int) error {
	if l, ok := f.Conn.(interface{ SetLinger(int) error }); ok {
		return l.SetLinger(sec)
	}
	return fmt.Errorf("networktest: a %T has no SetLinger", f.Conn)
}

// opError shapes an error as package net does.
func (f *faultConn) opError(op string, err error) error {
	e := &net.OpError{Op: op, Err: err, Source: f.Conn.LocalAddr(), Addr: f.Conn.RemoteAddr()}
	if e.Source != nil {
		e.Net = e.Source.Network()
	}
	return e
}

// counter tells the k-th call.
type counter struct {
	mu sync.Mutex
	n  int
}

// is counts a call and reports whether it is the k-th.
func (c *counter) is(k int) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.n++
	return k == 0 || c.n == k
}

// gate is where the calls of one direction wait, until their deadline or Close.
// The zero value is ready.
type gate struct {
	mu       sync.Mutex
	deadline time.Time
	closed   bool
	changed  chan struct{} // closed when one of these changes; nil if nobody waits
	next     time.Time     // before it no more bytes may pass
}

// change wakes those who wait. g.mu is held.
func (g *gate) change() {
	if g.changed != nil {
		close(g.changed)
		g.changed = nil
	}
}

func (g *gate) close() {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.closed = true
	g.change()
}

// check returns why a call may not go on now, or nil.
func (g *gate) check() error { return g.wait(time.Now()) }

// turn is when a call may go on that is to wait for delay.
func (g *gate) turn(delay time.Duration) time.Time {
	g.mu.Lock()
	defer g.mu.Unlock()
	at := time.Now().Add(delay)
	if g.next.After(at) {
		return g.next
	}
	return at
}

// spend takes the time that n bytes need at rate bytes in a second.
func (g *gate) spend(n, rate int) {
	if n <= 0 || rate <= 0 {
		return
	}
	g.mu.Lock()
	defer g.mu.Unlock()
	if now := time.Now(); g.next.Before(now) {
		g.next = now
	}
	g.next = g.next.Add(time.Duration(int64(n) * int64(time.Second) / int64(rate)))
}

// wait returns nil at a moment, or before it why it was not reached. The zero
// moment is never reached.
func (g *gate) wait(until time.Time) error {
	for {
		g.mu.Lock()
		now := time.Now()
		switch {
		case g.closed:
			g.mu.Unlock()
			return net.ErrClosed
		case !g.deadline.IsZero() && !g.deadline.After(now):
			g.mu.Unlock()
			return os.ErrDeadlineExceeded
		case !until.IsZero() && !until.After(now):
			g.mu.Unlock()
			return nil
		}
		end := until
		if end.IsZero() || !g.deadline.IsZero() && g.deadline.Before(end) {
			end = g.deadline
		}
		if g.changed == nil {
			g.changed = make(chan struct{})
		}
		changed := g.changed
		g.mu.Unlock()
		var over <-chan time.Time
		if !end.IsZero() {
			over = time.After(end.Sub(now))
		}
		select {
		case <-changed:
		case <-over:
		}
	}
}
