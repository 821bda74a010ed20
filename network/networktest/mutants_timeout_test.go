package networktest

import (
	"bytes"
	"errors"
	"math"
	"net"
	"os"
	"sync"
	"sync/atomic"
	"time"

	"github.com/hertznet/hertznet/network"
)

var timeoutMutants = []mutant{
	{
		id: "T1", what: "a write that times out has an error of the library's own, as netpoll's",
		wrap: func(nc net.Conn) network.Conn { return &ownTimeoutError{asReference(nc)} },
	},
	{
		id: "T1", what: "a timeout of the conn beneath comes out of a write as it is",
		wrap: func(nc net.Conn) network.Conn {
			return passesTimeouts(nc, nil, func(err error) bool { return true })
		},
	},
	{
		id: "T1", what: "timeouts are counted in ticks of 100 ms",
		wrap: func(nc net.Conn) network.Conn { return &inTicks{asReference(nc)} },
	},
	{
		id: "T1", what: "a timeout of reading is a tenth short",
		wrap: func(nc net.Conn) network.Conn { return &tooEarly{asReference(nc)} },
	},
	{
		id: "T2", what: "a read timeout stays, as other errors do",
		also: []string{"C11", "F4", "R27", "Z4"}, // have reads go on after a timeout as well
		wrap: func(nc net.Conn) network.Conn { return &timeoutStays{reference: asReference(nc)} },
	},
	{
		id: "T3", what: "ReadBinary that times out has consumed what came",
		// These have reads go on after a timeout as well.
		also: []string{"F4", "R19", "R27", "R28", "Z1", "Z4"},
		wrap: func(nc net.Conn) network.Conn { return &timeoutConsumes{asReference(nc)} },
	},
	{
		id: "T4", what: "SetReadTimeout is SetReadDeadline, as in Hertz's standard",
		wrap: func(nc net.Conn) network.Conn { return &timeoutIsDeadline{asReference(nc)} },
	},
	{
		id: "T4", what: "SetWriteTimeout is SetWriteDeadline",
		also: []string{"W13"}, // each write of a ReadFrom is an operation
		wrap: func(nc net.Conn) network.Conn { return &writeTimeoutIsDeadline{asReference(nc)} },
	},
	{
		id: "T4", what: "a large Read goes straight to the conn beneath, under the deadline of the call before",
		also: []string{"R24"}, // and returns whatever that does
		wrap: func(nc net.Conn) network.Conn { return &straightRead{asReference(nc)} },
	},
	{
		id: "T5", what: "a negative timeout has passed",
		wrap: func(nc net.Conn) network.Conn { return &negativePasses{asReference(nc)} },
	},
	{
		id: "T5", what: "a write timeout of zero is not looked at",
		also: []string{"T8"}, // nor when it is the last call
		wrap: func(nc net.Conn) network.Conn { return &zeroIgnored{asReference(nc)} },
	},
	{
		id: "T6", what: "the deadline is looked at before the buffer",
		wrap: func(nc net.Conn) network.Conn { return &deadlineFirst{reference: asReference(nc)} },
	},
	{
		id: "T7", what: "SetDeadline is looked at when an operation begins",
		wrap: func(nc net.Conn) network.Conn { return &laterDeadline{reference: asReference(nc)} },
	},
	{
		id: "T8", what: "a timeout survives SetReadDeadline",
		wrap: func(nc net.Conn) network.Conn { return &timeoutSurvives{asReference(nc)} },
	},
	{
		id: "T8", what: "of a write timeout and a deadline the earlier one counts",
		wrap: func(nc net.Conn) network.Conn { return &earlierCounts{reference: asReference(nc)} },
	},
	{
		id: "T8", what: "a timeout of zero lifts timeouts and no deadline",
		wrap: func(nc net.Conn) network.Conn { return &zeroLiftsTimeouts{asReference(nc)} },
	},
	{
		id: "T9", what: "both directions have one timeout",
		wrap: func(nc net.Conn) network.Conn { return &oneTimeout{asReference(nc)} },
	},
	{
		id: "T10", what: "Flush has no timeout",
		wrap: func(nc net.Conn) network.Conn { return &flushUnlimited{asReference(nc)} },
	},
	{
		id: "T10", what: "each 16 KiB of a Flush have the whole timeout",
		wrap: func(nc net.Conn) network.Conn { return &flushInPieces{asReference(nc)} },
	},
	{
		id: "T11", what: "a small write is tried before its deadline is looked at",
		also: []string{"C11"}, // a Write after its deadline fails, as in nettest
		wrap: func(nc net.Conn) network.Conn { return Reference(&triesFirst{socketOf: socketOf{nc}}) },
	},
	{
		id: "T12", what: "each read beneath has the whole timeout",
		wrap: func(nc net.Conn) network.Conn {
			beneath := &eachReadTimed{socketOf: socketOf{nc}}
			return &rearms{asReference(beneath), beneath}
		},
	},
	{
		id: "T13", what: "the deadline is computed in nanoseconds since 1970",
		wrap: func(nc net.Conn) network.Conn { return &overflows{asReference(nc)} },
	},
	{
		id: "T14", what: "each change starts a timer and stops none",
		wrap: func(nc net.Conn) network.Conn { return &timerEach{asReference(nc)} },
	},
	{
		id: "T14", what: "each change starts a goroutine that waits for its deadline",
		wrap: func(nc net.Conn) network.Conn {
			return &goroutineEach{reference: asReference(nc), closed: make(chan struct{})}
		},
	},
	{
		id: "T15", what: "a change reaches the next operation only",
		wrap: func(nc net.Conn) network.Conn { return &nextOnly{asReference(nc)} },
	},
	{
		id: "T15", what: "what is blocked ends at the old timeout, though it is longer now",
		wrap: func(nc net.Conn) network.Conn { return &shorterOnly{asReference(nc)} },
	},
}

func asReference(nc net.Conn) *reference { return Reference(nc).(*reference) }

// errSlow is a timeout by its method alone.
type errSlow struct{}

func (errSlow) Error() string   { return "write too slow" }
func (errSlow) Timeout() bool   { return true }
func (errSlow) Temporary() bool { return true }

type ownTimeoutError struct{ *reference }

func (c *ownTimeoutError) own(err error) error {
	if errors.Is(err, os.ErrDeadlineExceeded) {
		return errSlow{}
	}
	return err
}

func (c *ownTimeoutError) Flush() error { return c.own(c.reference.Flush()) }

func (c *ownTimeoutError) Write(p []byte) (int, error) {
	n, err := c.reference.Write(p)
	return n, c.own(err)
}

// passesTimeouts leaves those timeouts of the conn beneath as they are for which
// the function of the direction holds.
func passesTimeouts(nc net.Conn, read, write func(err error) bool) network.Conn {
	if _, ok := nc.(foreignTimeouts); !ok {
		return Reference(nc)
	}
	beneath := &lastErrors{Conn: nc}
	return &passing{asReference(beneath), beneath, read, write}
}

// lastErrors keeps the last error of each direction.
type lastErrors struct {
	net.Conn
	read, write error
}

func (c *lastErrors) Read(p []byte) (n int, err error) {
	n, err = c.Conn.Read(p)
	c.read = err
	return n, err
}

func (c *lastErrors) Write(p []byte) (n int, err error) {
	n, err = c.Conn.Write(p)
	c.write = err
	return n, err
}

type passing struct {
	*reference
	beneath     *lastErrors
	read, write func(err error) bool
}

func (c *passing) Peek(n int) ([]byte, error) {
	p, err := c.reference.Peek(n)
	if err != nil && c.read != nil && c.read(c.beneath.read) {
		err = c.beneath.read
	}
	return p, err
}

func (c *passing) written(err error) error {
	if err != nil && c.write != nil && c.write(c.beneath.write) {
		return c.beneath.write
	}
	return err
}

func (c *passing) Flush() error { return c.written(c.reference.Flush()) }

func (c *passing) Write(p []byte) (int, error) {
	n, err := c.reference.Write(p)
	return n, c.written(err)
}

type inTicks struct{ *reference }

func (c *inTicks) SetReadTimeout(d time.Duration) error {
	const tick = 100 * time.Millisecond
	if d > 0 && d < anHour {
		d = (d + tick - 1) / tick * tick
	}
	return c.reference.SetReadTimeout(d)
}

type tooEarly struct{ *reference }

func (c *tooEarly) SetReadTimeout(d time.Duration) error {
	return c.reference.SetReadTimeout(d - d/10)
}

type timeoutStays struct {
	*reference
	mu    sync.Mutex
	stays error
}

// before returns the timeout that stays, for an operation that needs n bytes.
func (c *timeoutStays) before(n int) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	if n > c.Len() {
		return c.stays
	}
	return nil
}

func (c *timeoutStays) after(err error) {
	if err != nil && looksLikeTimeout(err) {
		c.mu.Lock()
		c.stays = err
		c.mu.Unlock()
	}
}

func (c *timeoutStays) Peek(n int) ([]byte, error) {
	if err := c.before(n); err != nil {
		return nil, err
	}
	p, err := c.reference.Peek(n)
	c.after(err)
	return p, err
}

func (c *timeoutStays) Skip(n int) error {
	if err := c.before(n); err != nil {
		return err
	}
	err := c.reference.Skip(n)
	c.after(err)
	return err
}

func (c *timeoutStays) ReadBinary(n int) ([]byte, error) {
	if err := c.before(n); err != nil {
		return nil, err
	}
	p, err := c.reference.ReadBinary(n)
	c.after(err)
	return p, err
}

func (c *timeoutStays) ReadByte() (byte, error) {
	if err := c.before(1); err != nil {
		return 0, err
	}
	x, err := c.reference.ReadByte()
	c.after(err)
	return x, err
}

func (c *timeoutStays) Read(p []byte) (int, error) {
	if err := c.before(min(len(p), 1)); err != nil {
		return 0, err
	}
	n, err := c.reference.Read(p)
	c.after(err)
	return n, err
}

type timeoutConsumes struct{ *reference }

func (c *timeoutConsumes) ReadBinary(n int) ([]byte, error) {
	p, err := c.reference.ReadBinary(n)
	if looksLikeTimeout(err) {
		_ = c.Skip(c.Len())
	}
	return p, err
}

type timeoutIsDeadline struct{ *reference }

func (c *timeoutIsDeadline) SetReadTimeout(d time.Duration) error {
	if d <= 0 {
		return c.SetReadDeadline(time.Time{})
	}
	return c.SetReadDeadline(time.Now().Add(d))
}

type writeTimeoutIsDeadline struct{ *reference }

func (c *writeTimeoutIsDeadline) SetWriteTimeout(d time.Duration) error {
	if d <= 0 {
		return c.SetWriteDeadline(time.Time{})
	}
	return c.SetWriteDeadline(time.Now().Add(d))
}

type negativePasses struct{ *reference }

func (c *negativePasses) SetReadTimeout(d time.Duration) error {
	if d < 0 {
		return c.SetReadDeadline(time.Now().Add(d))
	}
	return c.reference.SetReadTimeout(d)
}

type zeroIgnored struct{ *reference }

func (c *zeroIgnored) SetWriteTimeout(d time.Duration) error {
	if d == 0 && !c.closed.Load() {
		return nil
	}
	return c.reference.SetWriteTimeout(d)
}

type zeroLiftsTimeouts struct{ *reference }

func (c *zeroLiftsTimeouts) SetReadTimeout(d time.Duration) error {
	if d <= 0 && c.rd.timeout == 0 && !c.closed.Load() {
		return nil
	}
	return c.reference.SetReadTimeout(d)
}

type straightRead struct{ *reference }

func (c *straightRead) Read(p []byte) (int, error) {
	if len(p) < referenceBlock || c.Len() > 0 {
		return c.reference.Read(p)
	}
	n, err := c.nc.Read(p)
	if err != nil {
		err = c.fail("read", err)
	}
	return n, err
}

type flushInPieces struct{ *reference }

func (c *flushInPieces) Flush() error {
	c.writeMu.Lock()
	defer c.writeMu.Unlock()
	all := bytes.Join(c.pending, nil)
	for c.pending = nil; len(all) > 0 && c.writeErr == nil; {
		var n int
		n, c.writeErr = c.write(all[:min(16<<10, len(all))])
		all = all[n:]
	}
	return c.writeErr
}

type deadlineFirst struct {
	*reference
	at atomic.Pointer[time.Time]
}

func (c *deadlineFirst) SetReadDeadline(at time.Time) error {
	c.at.Store(&at)
	return c.reference.SetReadDeadline(at)
}

func (c *deadlineFirst) SetDeadline(at time.Time) error {
	c.at.Store(&at)
	return c.reference.SetDeadline(at)
}

func (c *deadlineFirst) SetReadTimeout(d time.Duration) error {
	c.at.Store(nil)
	return c.reference.SetReadTimeout(d)
}

func (c *deadlineFirst) Peek(n int) ([]byte, error) {
	if at := c.at.Load(); n > 0 && at != nil && !at.IsZero() && time.Now().After(*at) && !c.closed.Load() {
		return nil, &net.OpError{Op: "read", Net: "tcp", Err: os.ErrDeadlineExceeded}
	}
	return c.reference.Peek(n)
}

// laterDeadline holds back what SetDeadline says of reading until a Peek begins.
type laterDeadline struct {
	*reference
	at atomic.Pointer[time.Time]
}

func (c *laterDeadline) SetDeadline(at time.Time) error {
	if err := c.SetWriteDeadline(at); err != nil {
		return err
	}
	c.at.Store(&at)
	return nil
}

func (c *laterDeadline) begin() {
	if at := c.at.Swap(nil); at != nil {
		_ = c.reference.SetReadDeadline(*at)
	}
}

func (c *laterDeadline) SetReadDeadline(at time.Time) error {
	c.at.Store(nil)
	return c.reference.SetReadDeadline(at)
}

func (c *laterDeadline) SetReadTimeout(d time.Duration) error {
	c.at.Store(nil)
	return c.reference.SetReadTimeout(d)
}

func (c *laterDeadline) Peek(n int) ([]byte, error) {
	c.begin()
	return c.reference.Peek(n)
}

func (c *laterDeadline) Skip(n int) error {
	c.begin()
	return c.reference.Skip(n)
}

func (c *laterDeadline) ReadByte() (byte, error) {
	c.begin()
	return c.reference.ReadByte()
}

func (c *laterDeadline) ReadBinary(n int) ([]byte, error) {
	c.begin()
	return c.reference.ReadBinary(n)
}

func (c *laterDeadline) Read(p []byte) (int, error) {
	c.begin()
	return c.reference.Read(p)
}

type timeoutSurvives struct{ *reference }

func (c *timeoutSurvives) SetReadDeadline(at time.Time) error {
	if c.closed.Load() {
		return c.reference.SetReadDeadline(at)
	}
	return c.nc.SetReadDeadline(at)
}

// earlierCounts drops a write timeout that would end later than the deadline.
type earlierCounts struct {
	*reference
	at atomic.Pointer[time.Time]
}

func (c *earlierCounts) SetWriteDeadline(at time.Time) error {
	c.at.Store(&at)
	return c.reference.SetWriteDeadline(at)
}

func (c *earlierCounts) SetWriteTimeout(d time.Duration) error {
	if at := c.at.Load(); at != nil && !at.IsZero() && time.Now().Add(d).After(*at) && !c.closed.Load() {
		return nil
	}
	return c.reference.SetWriteTimeout(d)
}

type oneTimeout struct{ *reference }

func (c *oneTimeout) SetReadTimeout(d time.Duration) error {
	if err := c.reference.SetReadTimeout(d); err != nil {
		return err
	}
	return c.reference.SetWriteTimeout(d)
}

type flushUnlimited struct{ *reference }

func (c *flushUnlimited) Flush() error {
	c.wr.mu.Lock()
	timeout := c.wr.timeout
	c.wr.timeout = 0
	if timeout > 0 && !c.closed.Load() {
		_ = c.nc.SetWriteDeadline(time.Time{})
	}
	c.wr.mu.Unlock()
	err := c.reference.Flush()
	c.wr.mu.Lock()
	if c.wr.timeout == 0 {
		c.wr.timeout = timeout
	}
	c.wr.mu.Unlock()
	return err
}

// triesFirst lifts a deadline that has passed for a write that is likely to fit.
type triesFirst struct {
	socketOf
	at atomic.Int64 // in nanoseconds since 1970; 0 is none
}

func (c *triesFirst) SetWriteDeadline(at time.Time) error {
	c.at.Store(0)
	if !at.IsZero() {
		c.at.Store(at.UnixNano())
	}
	return c.Conn.SetWriteDeadline(at)
}

func (c *triesFirst) Write(p []byte) (int, error) {
	if at := c.at.Load(); len(p) < 4096 && at != 0 && time.Now().UnixNano() > at {
		_ = c.Conn.SetWriteDeadline(time.Time{})
		defer c.Conn.SetWriteDeadline(time.Unix(0, at))
	}
	return c.Conn.Write(p)
}

// eachReadTimed gives every Read the timeout of rearms.
type eachReadTimed struct {
	socketOf
	timeout atomic.Int64
}

func (c *eachReadTimed) Read(p []byte) (int, error) {
	if d := c.timeout.Load(); d > 0 {
		_ = c.Conn.SetReadDeadline(time.Now().Add(time.Duration(d)))
	}
	return c.Conn.Read(p)
}

type rearms struct {
	*reference
	beneath *eachReadTimed
}

func (c *rearms) SetReadTimeout(d time.Duration) error {
	c.beneath.timeout.Store(int64(d))
	return c.reference.SetReadTimeout(d)
}

func (c *rearms) SetReadDeadline(at time.Time) error {
	c.beneath.timeout.Store(0)
	return c.reference.SetReadDeadline(at)
}

func (c *rearms) SetDeadline(at time.Time) error {
	c.beneath.timeout.Store(0)
	return c.reference.SetDeadline(at)
}

type overflows struct{ *reference }

func (c *overflows) SetReadTimeout(d time.Duration) error {
	if now := time.Now().UnixNano(); d > 0 && int64(d) > math.MaxInt64-now {
		return c.SetReadDeadline(time.Unix(0, now+int64(d)))
	}
	return c.reference.SetReadTimeout(d)
}

type timerEach struct{ *reference }

func (c *timerEach) SetReadDeadline(at time.Time) error {
	if d := time.Until(at); d > 0 {
		var ended atomic.Bool
		time.AfterFunc(d, func() { ended.Store(true) })
	}
	return c.reference.SetReadDeadline(at)
}

type goroutineEach struct {
	*reference
	closed    chan struct{}
	closeOnce sync.Once
}

func (c *goroutineEach) SetWriteDeadline(at time.Time) error {
	if d := time.Until(at); d > 0 {
		go func() {
			timer := time.NewTimer(d)
			defer timer.Stop()
			select {
			case <-timer.C:
			case <-c.closed:
			}
		}()
	}
	return c.reference.SetWriteDeadline(at)
}

func (c *goroutineEach) Close() error {
	c.closeOnce.Do(func() { close(c.closed) })
	return c.reference.Close()
}

type nextOnly struct{ *reference }

func (c *nextOnly) SetReadTimeout(d time.Duration) error {
	if d <= 0 || c.reference.closed.Load() {
		return c.reference.SetReadTimeout(d)
	}
	c.rd.mu.Lock()
	c.rd.timeout = d
	c.rd.mu.Unlock()
	return nil
}

type shorterOnly struct{ *reference }

func (c *shorterOnly) SetReadTimeout(d time.Duration) error {
	c.rd.mu.Lock()
	longer := c.rd.timeout > 0 && d > c.rd.timeout
	if longer {
		c.rd.timeout = d
	}
	c.rd.mu.Unlock()
	if longer && !c.reference.closed.Load() {
		return nil
	}
	return c.reference.SetReadTimeout(d)
}
