package networktest

import (
	"errors"
	"fmt"
	"io"
	"net"
	"sync"
	"sync/atomic"
	"time"

	"github.com/hertznet/hertznet/network"
)

var closeMutants = []mutant{
	{
		id: "C1", what: "a large Flush and a read share a scratch buffer",
		wrap: func(nc net.Conn) network.Conn {
			beneath := &readCounter{socketOf: socketOf{nc}}
			return &spoiltByRead{asReference(beneath), beneath}
		},
	},
	{
		id: "C2", what: "what Close interrupts is the end of the stream",
		wrap: func(nc net.Conn) network.Conn { return &closeIsEOF{asReference(nc)} },
	},
	{
		id: "C2", what: "Close waits for the reader to return",
		also: []string{"C11"}, // closes while a Read is blocked, as nettest does
		wrap: func(nc net.Conn) network.Conn { return &closeWaits{reference: asReference(nc)} },
	},
	{
		id: "C3", what: "what Close interrupts is a closed pipe",
		wrap: func(nc net.Conn) network.Conn { return &closeIsPipe{asReference(nc)} },
	},
	{
		id: "C4", what: "Close looks whether it is the first before it says so",
		wrap: func(nc net.Conn) network.Conn {
			return &closeLooks{reference: asReference(nc), done: make(chan struct{})}
		},
	},
	{
		id: "C5", what: "a second Close is net.ErrClosed, as a socket's",
		wrap: func(nc net.Conn) network.Conn { return &closeTells{reference: asReference(nc)} },
	},
	{
		id: "C6", what: "reads after Close are the end of the stream",
		wrap: func(nc net.Conn) network.Conn { return &endAfterClose{asReference(nc)} },
	},
	{
		id: "C6", what: "a write after Close panics, its buffers gone",
		wrap: func(nc net.Conn) network.Conn { return &panicAfterClose{asReference(nc)} },
	},
	{
		id: "C6", what: "SetReadTimeout after Close is nil",
		wrap: func(nc net.Conn) network.Conn { return &setAfterClose{asReference(nc)} },
	},
	{
		id: "C7", what: "SetDeadline ends what is blocked to tell it the new deadline",
		wrap: func(nc net.Conn) network.Conn { return &deadlineKicks{asReference(nc)} },
	},
	{
		id: "C8", what: "the peer's address is gone after Close",
		wrap: func(nc net.Conn) network.Conn { return &forgetful{asReference(nc)} },
	},
	{
		id: "C9", what: "the end of the stream closes the connection",
		wrap: func(nc net.Conn) network.Conn { return Reference(&closesAtEnd{socketOf{nc}}) },
	},
	{
		id: "C10", what: "a reset is the end of the stream",
		wrap: func(nc net.Conn) network.Conn {
			if _, ok := nc.(*net.TCPConn); !ok {
				return Reference(nc) // R28 has a conn of the kit fail like this
			}
			return Reference(&resetIsEnd{socketOf{nc}})
		},
	},
	{
		id: "C10", what: "a reset is an error of the library's own",
		wrap: func(nc net.Conn) network.Conn { return Reference(&resetIsOwn{socketOf{nc}}) },
	},
	{
		id: "C11", what: "concurrent writes panic, as those of a WebSocket",
		wrap: func(nc net.Conn) network.Conn { return &oneWriter{reference: asReference(nc)} },
	},
	{
		id: "C11", what: "a second reader is refused",
		wrap: func(nc net.Conn) network.Conn { return &oneReader{reference: asReference(nc)} },
	},
	{
		id: "C12", what: "a goroutine watches until Close",
		wrap: func(nc net.Conn) network.Conn {
			c := &watched{reference: asReference(nc), closed: make(chan struct{})}
			go func() { <-c.closed }()
			return c
		},
	},
	{
		id: "C12", what: "a registry of connections forgets them at Close",
		wrap: func(nc net.Conn) network.Conn {
			c := &registered{asReference(nc)}
			registry.Store(c, true)
			return c
		},
	},
}

// readCounter knows how many reads of it are running.
type readCounter struct {
	socketOf
	reading atomic.Int32
}

func (c *readCounter) Read(p []byte) (int, error) {
	c.reading.Add(1)
	defer c.reading.Add(-1)
	return c.Conn.Read(p)
}

// spoiltByRead has a byte of what a large Flush sends overwritten if a read is
// running.
type spoiltByRead struct {
	*reference
	beneath *readCounter
}

func (c *spoiltByRead) Flush() error {
	if c.beneath.reading.Load() > 0 {
		c.writeMu.Lock()
		if n := len(c.pending); n > 0 && len(c.pending[n-1]) >= 512<<10 {
			c.pending[n-1][0] ^= 0xff
		}
		c.writeMu.Unlock()
	}
	return c.reference.Flush()
}

type closeIsEOF struct{ *reference }

func (c *closeIsEOF) Peek(n int) ([]byte, error) {
	before := c.closed.Load()
	p, err := c.reference.Peek(n)
	if !before && errors.Is(err, net.ErrClosed) {
		err = io.EOF
	}
	return p, err
}

// closeWaits does not end a Read that is blocked; the peer's Close does.
type closeWaits struct {
	*reference
	reading sync.Mutex
}

func (c *closeWaits) Read(p []byte) (int, error) {
	c.reading.Lock()
	defer c.reading.Unlock()
	return c.reference.Read(p)
}

func (c *closeWaits) Close() error {
	c.reading.Lock()
	defer c.reading.Unlock()
	return c.reference.Close()
}

type closeIsPipe struct{ *reference }

func (c *closeIsPipe) Flush() error {
	before := c.closed.Load()
	err := c.reference.Flush()
	if !before && errors.Is(err, net.ErrClosed) {
		err = io.ErrClosedPipe
	}
	return err
}

type closeLooks struct {
	*reference
	first atomic.Bool
	done  chan struct{}
}

func (c *closeLooks) Close() error {
	if c.first.Load() {
		return nil
	}
	time.Sleep(time.Millisecond)
	c.first.Store(true)
	close(c.done)
	return c.reference.Close()
}

type closeTells struct {
	*reference
	closes atomic.Int32
}

func (c *closeTells) Close() error {
	if c.closes.Add(1) > 1 {
		return c.fail("close", net.ErrClosed)
	}
	return c.reference.Close()
}

type endAfterClose struct{ *reference }

func (c *endAfterClose) Peek(n int) ([]byte, error) {
	if c.closed.Load() && n > c.Len() {
		p, _ := c.reference.Peek(c.Len())
		return p, io.EOF
	}
	return c.reference.Peek(n)
}

type panicAfterClose struct{ *reference }

func (c *panicAfterClose) Write(p []byte) (int, error) {
	var buffer []byte
	if !c.closed.Load() {
		buffer = make([]byte, 1)
	}
	if len(p) > 0 {
		buffer[0] = p[0]
	}
	return c.reference.Write(p)
}

type setAfterClose struct{ *reference }

func (c *setAfterClose) SetReadTimeout(d time.Duration) error {
	if c.closed.Load() {
		return nil
	}
	return c.reference.SetReadTimeout(d)
}

type deadlineKicks struct{ *reference }

func (c *deadlineKicks) SetDeadline(at time.Time) error {
	if err := c.reference.SetDeadline(pastMoment); err != nil {
		return err
	}
	time.Sleep(time.Millisecond) // so that it is seen
	return c.reference.SetDeadline(at)
}

type forgetful struct{ *reference }

func (c *forgetful) RemoteAddr() net.Addr {
	if c.closed.Load() {
		return nil
	}
	return c.reference.RemoteAddr()
}

// socketOf is a conn beneath that can still be closed on one side and reset.
type socketOf struct{ net.Conn }

func (c socketOf) CloseWrite() error       { return c.Conn.(*net.TCPConn).CloseWrite() }
func (c socketOf) SetLinger(sec int) error { return c.Conn.(*net.TCPConn).SetLinger(sec) }

type closesAtEnd struct{ socketOf }

func (c *closesAtEnd) Read(p []byte) (int, error) {
	n, err := c.Conn.Read(p)
	if err == io.EOF {
		c.Conn.Close()
	}
	return n, err
}

type resetIsEnd struct{ socketOf }

func (c *resetIsEnd) Read(p []byte) (int, error) {
	n, err := c.Conn.Read(p)
	if errors.Is(err, errReset) {
		err = io.EOF
	}
	return n, err
}

type resetIsOwn struct{ socketOf }

func (c *resetIsOwn) Read(p []byte) (int, error) {
	n, err := c.Conn.Read(p)
	if errors.Is(err, errReset) {
		err = fmt.Errorf("connection has been closed: %v", err)
	}
	return n, err
}

type oneWriter struct {
	*reference
	writing atomic.Bool
}

func (c *oneWriter) Write(p []byte) (int, error) {
	if !c.writing.CompareAndSwap(false, true) {
		panic("concurrent write to connection")
	}
	defer c.writing.Store(false)
	return c.reference.Write(p)
}

type oneReader struct {
	*reference
	reading atomic.Bool
}

func (c *oneReader) Read(p []byte) (int, error) {
	if !c.reading.CompareAndSwap(false, true) {
		return 0, errors.New("concurrent read from connection")
	}
	defer c.reading.Store(false)
	return c.reference.Read(p)
}

type watched struct {
	*reference
	closed chan struct{}
	once   sync.Once
}

func (c *watched) Close() error {
	c.once.Do(func() { close(c.closed) })
	return c.reference.Close()
}

type registered struct{ *reference }

var registry sync.Map

func (c *registered) Close() error {
	registry.Delete(c)
	return c.reference.Close()
}
