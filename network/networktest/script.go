package networktest

import (
	"io"
	"net"
	"sync"
	"time"
)

// Step is one answer of a scripted conn to a Read or a Write; see [FaultScript].
type Step struct {
	// Data arrives with a Read, over several of them if the buffer is small. A Write
	// ignores it.
	Data []byte

	// N is how many bytes a Write takes; less than zero, or more than there are, is all
	// of them, so that the zero Step is a Write of 0 bytes without an error. With Exact
	// it is the count that is returned, for a Read too, possible or not; nothing is
	// transferred then, and Data is ignored.
	N     int
	Exact bool

	// Err is returned with the count; of a Read, with the last of Data.
	Err error
}

// scriptConn is a net.Conn that answers by a script, without a connection
// beneath: after the script, reads are at the end of the stream and writes
// succeed. It records what happens to it.
type scriptConn struct {
	mu       sync.Mutex
	reads    []Step
	writes   []Step
	wire     []byte // what Write took
	nreads   int
	nwrites  int
	nsets    int
	setErr   error // what the Set methods return
	closeErr error
	closes   int

	// block, if not nil, holds up a Read after the script until it is closed; Close
	// does that too.
	block     chan struct{}
	blockOnce sync.Once
}

func (c *scriptConn) Read(p []byte) (int, error) {
	c.mu.Lock()
	c.nreads++
	if len(c.reads) == 0 {
		block := c.block
		c.mu.Unlock()
		if block != nil {
			<-block
		}
		return 0, io.EOF
	}
	defer c.mu.Unlock()
	return readStep(&c.reads, p)
}

// readStep answers a Read by the first of the steps.
func readStep(steps *[]Step, p []byte) (int, error) {
	s := &(*steps)[0]
	if s.Exact {
		*steps = (*steps)[1:]
		return s.N, s.Err
	}
	n := copy(p, s.Data)
	if n < len(s.Data) {
		s.Data = s.Data[n:]
		return n, nil
	}
	*steps = (*steps)[1:]
	return n, s.Err
}

func (c *scriptConn) Write(p []byte) (int, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.nwrites++
	if len(c.writes) == 0 {
		c.wire = append(c.wire, p...)
		return len(p), nil
	}
	s := c.writes[0]
	c.writes = c.writes[1:]
	if s.Exact {
		return s.N, s.Err
	}
	n := len(p)
	if s.N >= 0 {
		n = min(s.N, n)
	}
	c.wire = append(c.wire, p[:n]...)
	return n, s.Err
}

func (c *scriptConn) Close() error {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.closes++
	if c.block != nil {
		c.blockOnce.Do(func() { close(c.block) })
	}
	return c.closeErr
}

// calls returns how many reads and writes there were.
func (c *scriptConn) calls() (reads, writes int) {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.nreads, c.nwrites
}

// sent returns a copy of what was written.
func (c *scriptConn) sent() []byte {
	c.mu.Lock()
	defer c.mu.Unlock()
	return append([]byte(nil), c.wire...)
}

// setTo is what a Set method does: it is counted and returns the error asked for.
func (c *scriptConn) setTo() error {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.nsets++
	return c.setErr
}

type scriptAddr struct{}

func (scriptAddr) Network() string { return "script" }
func (scriptAddr) String() string  { return "script" }

func (c *scriptConn) LocalAddr() net.Addr              { return scriptAddr{} }
func (c *scriptConn) RemoteAddr() net.Addr             { return scriptAddr{} }
func (c *scriptConn) SetDeadline(time.Time) error      { return c.setTo() }
func (c *scriptConn) SetReadDeadline(time.Time) error  { return c.setTo() }
func (c *scriptConn) SetWriteDeadline(time.Time) error { return c.setTo() }
