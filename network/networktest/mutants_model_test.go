package networktest

import (
	"net"
	"time"

	"github.com/hertznet/hertznet/network"
)

var modelMutants = []mutant{
	{
		// What is held is forgotten in one place of many.
		id: "Z1", what: "a ReadByte that empties a block that has grown forgets what Peek returned",
		wrap: func(nc net.Conn) network.Conn { return &forgetsHeld{reference: newReference(nc)} },
	},
	{
		id: "Z1", what: "a ReadBinary that times out with more than a block buffered drops a byte",
		also: []string{"R19", "R28", "Z4"}, // which time out with as much buffered
		wrap: func(nc net.Conn) network.Conn { return &dropsAtTimeout{reference: newReference(nc)} },
	},
	{
		id: "Z1", what: "a Peek that meets empty reads with more than a block buffered loses a byte",
		wrap: func(nc net.Conn) network.Conn {
			e := &countsEmpty{Conn: nc}
			return &losesAtEmpty{newReference(e), e}
		},
	},
	{
		id: "Z2", what: "a Write when many pieces are pending goes before the last of them",
		also: []string{"W3", "Z4", "Z5"}, // it is about the order, and not rare
		wrap: func(nc net.Conn) network.Conn { return &overtakes{reference: newReference(nc)} },
	},
	{
		id: "Z2", what: "a Flush of several pieces that times out half-way is tried again from a byte before",
		wrap: func(nc net.Conn) network.Conn {
			r := &retries{Conn: nc}
			return &flushRetries{newReference(r), r}
		},
	},
	{
		id: "Z4", what: "a Skip over a block that times out keeps what had come",
		wrap: func(nc net.Conn) network.Conn { return &skipKeeps{newReference(nc)} },
	},
	{
		id: "Z4", what: "a ReadBinary reports the timeout of the Peek before it once more",
		wrap: func(nc net.Conn) network.Conn { return &repeatsTimeout{reference: newReference(nc)} },
	},
	{
		id: "Z5", what: "a changed write timeout drops the last of several pieces that are pending",
		wrap: func(nc net.Conn) network.Conn { return &dropsPiece{newReference(nc)} },
	},
}

func newReference(nc net.Conn) *reference { return Reference(nc).(*reference) }

type forgetsHeld struct{ *reference }

func (c *forgetsHeld) ReadByte() (byte, error) {
	b, err := c.reference.ReadByte()
	if len(c.unread) == 0 && cap(c.block) > referenceBlock {
		c.held = false
	}
	return b, err
}

type dropsAtTimeout struct{ *reference }

func (c *dropsAtTimeout) ReadBinary(n int) ([]byte, error) {
	p, err := c.reference.ReadBinary(n)
	if err != nil && isTimeout(err) && len(c.unread) > referenceBlock {
		c.unread = c.unread[1:]
	}
	return p, err
}

// countsEmpty counts reads that bring nothing.
type countsEmpty struct {
	net.Conn
	n int
}

func (c *countsEmpty) Read(p []byte) (int, error) {
	n, err := c.Conn.Read(p)
	if n == 0 && err == nil {
		c.n++
	}
	return n, err
}

type losesAtEmpty struct {
	*reference
	empty *countsEmpty
}

func (c *losesAtEmpty) Peek(n int) ([]byte, error) {
	before, some := c.empty.n, len(c.unread) > referenceBlock
	p, err := c.reference.Peek(n)
	if some && c.empty.n > before {
		c.unread = c.unread[1:]
	}
	return p, err
}

type skipKeeps struct{ *reference }

func (c *skipKeeps) Skip(n int) error {
	unread := c.unread
	err := c.reference.Skip(n)
	if err != nil && isTimeout(err) && len(unread) > referenceBlock {
		c.unread = unread
	}
	return err
}

type overtakes struct{ *reference }

func (c *overtakes) Write(p []byte) (int, error) {
	n := len(c.pending)
	if n < 5 || len(p) == 0 {
		return c.reference.Write(p)
	}
	last := c.pending[n-1]
	c.pending = c.pending[:n-1]
	k, err := c.reference.Write(p)
	c.pending = append(c.pending, last)
	if err == nil {
		err = c.reference.Flush()
	}
	return k, err
}

// retries goes on after a timeout, and counts wrong.
type retries struct {
	net.Conn
	on bool
}

func (c *retries) Write(p []byte) (int, error) {
	n, err := c.Conn.Write(p)
	if c.on && n > 0 && n < len(p) && looksLikeTimeout(err) {
		return c.Conn.Write(p[n-1:])
	}
	return n, err
}

type flushRetries struct {
	*reference
	beneath *retries
}

func (c *flushRetries) Flush() error {
	c.beneath.on = len(c.pending) > 1
	defer func() { c.beneath.on = false }()
	return c.reference.Flush()
}

type repeatsTimeout struct {
	*reference
	err error
}

func (c *repeatsTimeout) Peek(n int) ([]byte, error) {
	p, err := c.reference.Peek(n)
	c.err = nil
	if err != nil && len(c.unread) > 100 && isTimeout(err) {
		c.err = err
	}
	return p, err
}

func (c *repeatsTimeout) ReadBinary(n int) ([]byte, error) {
	if err := c.err; err != nil {
		c.err = nil
		return nil, err
	}
	return c.reference.ReadBinary(n)
}

type dropsPiece struct{ *reference }

func (c *dropsPiece) SetWriteTimeout(d time.Duration) error {
	if c.writeMu.TryLock() { // else a Flush is blocked
		if n := len(c.pending); n > 2 {
			c.pending = c.pending[:n-1]
		}
		c.writeMu.Unlock()
	}
	return c.reference.SetWriteTimeout(d)
}
