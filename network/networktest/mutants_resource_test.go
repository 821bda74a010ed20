package networktest

import (
	"net"
	"slices"
	"sync/atomic"
	"time"

	"github.com/hertznet/hertznet/network"
)

// Under the race detector P1 does not apply.
var resourceMutants = slices.DeleteFunc([]mutant{
	{
		id: "P1", what: "each Flush makes a new list of what to send",
		wrap: func(nc net.Conn) network.Conn { return &allocates{Conn: Reference(nc)} },
	},
	{
		id: "P2", what: "the block of the largest message is kept for the next one",
		wrap: func(nc net.Conn) network.Conn { return &keepsLargest{Conn: Reference(nc)} },
	},
	{
		id: "P2", what: "the block of a Peek that came short is kept",
		wrap: func(nc net.Conn) network.Conn { return &keepsShort{Conn: Reference(nc)} },
	},
	{
		id: "P2", what: "what was closed with unread bytes stays in a list",
		wrap: func(nc net.Conn) network.Conn { return &keepsClosed{Conn: Reference(nc)} },
	},
	{
		id: "P3", what: "each connection has large buffers for its lifetime",
		wrap: func(nc net.Conn) network.Conn {
			return &largeBuffers{Conn: Reference(nc), in: make([]byte, 256<<10), out: make([]byte, 256<<10)}
		},
	},
	{
		id: "P5", what: "Close leaves a goroutine behind that lingers",
		wrap: func(nc net.Conn) network.Conn { return &lingers{Reference(nc)} },
	},
	{
		id: "P6", what: "what Read has copied is kept until Release",
		wrap: func(nc net.Conn) network.Conn { return &keepsRead{Conn: Reference(nc)} },
	},
	{
		id: "P6", what: "what Skip has dropped is kept until Release",
		wrap: func(nc net.Conn) network.Conn { return &keepsSkipped{Conn: Reference(nc)} },
	},
}, func(m mutant) bool { return raceEnabled && m.id == "P1" })

type allocates struct {
	network.Conn
	list *net.Buffers
}

func (c *allocates) Flush() error {
	c.list = new(net.Buffers)
	return c.Conn.Flush()
}

type keepsLargest struct {
	network.Conn
	largest []byte
}

func (c *keepsLargest) Peek(n int) ([]byte, error) {
	p, err := c.Conn.Peek(n)
	if len(p) > len(c.largest) {
		c.largest = p
	}
	return p, err
}

type keepsShort struct {
	network.Conn
	short []byte
}

func (c *keepsShort) Peek(n int) ([]byte, error) {
	p, err := c.Conn.Peek(n)
	if err != nil {
		c.short = p
	}
	return p, err
}

type keepsClosed struct {
	network.Conn
	unread atomic.Bool
}

// keptClosed is the last of the list.
var keptClosed atomic.Pointer[keepsClosed]

func (c *keepsClosed) Peek(n int) ([]byte, error) {
	p, err := c.Conn.Peek(n)
	c.unread.Store(len(p) > 1<<20)
	return p, err
}

func (c *keepsClosed) Skip(n int) error {
	c.unread.Store(false)
	return c.Conn.Skip(n)
}

func (c *keepsClosed) Close() error {
	if c.unread.Load() {
		keptClosed.Store(c)
	}
	return c.Conn.Close()
}

type largeBuffers struct {
	network.Conn
	in, out []byte
}

type lingers struct{ network.Conn }

func (c *lingers) Close() error {
	go time.Sleep(20 * time.Second)
	return c.Conn.Close()
}

type keepsRead struct {
	network.Conn
	nodes [][]byte
}

func (c *keepsRead) Read(p []byte) (int, error) {
	n, err := c.Conn.Read(p)
	c.nodes = append(c.nodes, make([]byte, max(n, 0)))
	return n, err
}

func (c *keepsRead) Release() error {
	c.nodes = nil
	return c.Conn.Release()
}

type keepsSkipped struct {
	network.Conn
	nodes [][]byte
}

func (c *keepsSkipped) Skip(n int) error {
	err := c.Conn.Skip(n)
	if n > 10_000 && err == nil {
		c.nodes = append(c.nodes, make([]byte, n))
	}
	return err
}

func (c *keepsSkipped) Release() error {
	c.nodes = nil
	return c.Conn.Release()
}
