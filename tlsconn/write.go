package tlsconn

import (
	"net"
	"os"
	"sync"
)

// scratchPool lends the plaintext of one record to WriteBuffers.
var scratchPool = sync.Pool{New: func() any { return new([maxPlaintext]byte) }}

// Write encrypts p into records of up to 16 KiB and sends up to 256 KiB of them with one
// call on the conn beneath. It returns when all was handed to that conn, never keeps p, and
// does not change it.
//
// On an error n counts the bytes whose records have left as a whole. Every error is
// permanent, a timeout included: the peer cannot find its way in a stream with half a
// record. Only a Write whose deadline had passed before it began has sent nothing, begun no
// handshake, and may be repeated [L6]. After Close, or when Close comes in
// between, it is net.ErrClosed.
//
// crypto/tls by default begins with smaller records and makes them larger as bytes flow. Then
// n counts in steps of 16 KiB, whatever the records; [ServerConfig] and [ClientConfig] turn
// that off.
func (c *Conn) Write(p []byte) (int, error) {
	n, err := c.write(plaintext{head: p, left: int64(len(p))})
	return int(n), err
}

// WriteBuffers writes the contents of v as one stream, as if by a Write of all slices
// joined: cut into records of 16 KiB, whatever the slices are. So a small header and the
// start of a large body share a record [W15]. What must be joined for that is copied; the
// rest of a large slice is not.
//
// Like net.Buffers.WriteTo it consumes v: what was sent is removed and its entries are set
// to nil, also on an error. n and the errors are those of [Conn.Write]. It does not change
// the bytes and keeps none.
func (c *Conn) WriteBuffers(v *net.Buffers) (n int64, err error) {
	p := plaintext{tail: *v}
	for _, b := range *v {
		p.left += int64(len(b))
	}
	n, err = c.write(p)
	consume(v, n)
	return n, err
}

func (c *Conn) write(p plaintext) (n int64, err error) {
	if !c.enter() {
		return 0, c.layer.opError("write", net.ErrClosed)
	}
	defer c.leave()
	if !c.handshaken.Load() && c.layer.tooLate(false) {
		return 0, c.layer.timeoutError("write", os.ErrDeadlineExceeded, true)
	}
	if err := c.handshakeFor(&c.layer.shakingWrites); err != nil {
		return 0, err
	}
	if p.left == 0 {
		return 0, nil
	}
	c.wmu.Lock()
	defer c.wmu.Unlock()
	if c.writeClosed {
		return 0, c.layer.opError("write", errWriteClosed)
	}
	if c.layer.tooLate(false) {
		return 0, c.layer.timeoutError("write", os.ErrDeadlineExceeded, true)
	}
	defer p.free()
	c.layer.writing.Store(true)
	defer c.layer.writing.Store(false)
	if c.wholeRecords && p.left <= maxPlaintext {
		// One record goes straight through.
		var m int
		m, err = c.tls.Write(p.next())
		n = int64(m)
	}
	for p.left > 0 && err == nil {
		var m int64
		m, err = c.writeBatch(&p)
		n += m
	}
	if err != nil {
		err = c.writeError(err)
	}
	return n, err
}

// writeBatch sends as many records as one write call takes. n is the plaintext in those
// that left.
func (c *Conn) writeBatch(p *plaintext) (n int64, err error) {
	var ends [recordsPerWrite]struct {
		plain int64 // bytes of plaintext up to the end of this piece
		wire  int   // bytes of records
	}
	var plain int64
	count := 0
	c.layer.expect(p.left)
	most := batch(p.left)
	for count < most && p.left > 0 && err == nil {
		var m int
		m, err = c.tls.Write(p.next())
		plain += int64(m)
		ends[count].plain, ends[count].wire = plain, c.layer.accepted()
		count++
	}
	sent, ferr := c.layer.flush()
	for _, e := range ends[:count] {
		if e.wire <= sent {
			n = e.plain
		}
	}
	if ferr != nil {
		err = ferr
	}
	return n, err
}

// writeError prefers what happened on the conn beneath to how crypto/tls reports it.
func (c *Conn) writeError(err error) error {
	if c.closed() {
		return c.layer.opError("write", net.ErrClosed)
	}
	if werr := c.layer.writeErr(); werr != nil {
		return werr
	}
	return err
}

// plaintext is what a Write has still to send: head, then the slices of tail.
type plaintext struct {
	head    []byte
	tail    [][]byte
	left    int64
	scratch *[maxPlaintext]byte
}

// next takes the plaintext of the next record: 16 KiB, or all that is left. It is valid
// until the following call.
func (p *plaintext) next() []byte {
	for len(p.head) == 0 {
		p.head, p.tail = p.tail[0], p.tail[1:]
	}
	size := int(min(p.left, maxPlaintext))
	p.left -= int64(size)
	if len(p.head) >= size {
		b := p.head[:size]
		p.head = p.head[size:]
		return b
	}
	if p.scratch == nil {
		p.scratch = scratchPool.Get().(*[maxPlaintext]byte)
	}
	b := p.scratch[:0]
	for len(b) < size {
		if len(p.head) == 0 {
			p.head, p.tail = p.tail[0], p.tail[1:]
			continue
		}
		k := min(size-len(b), len(p.head))
		b = append(b, p.head[:k]...)
		p.head = p.head[k:]
	}
	return b
}

func (p *plaintext) free() {
	if p.scratch != nil {
		scratchPool.Put(p.scratch)
		p.scratch = nil
	}
}

// consume removes the first n bytes of v, and empty slices in front.
func consume(v *net.Buffers, n int64) {
	for len(*v) > 0 {
		b := (*v)[0]
		if int64(len(b)) > n {
			(*v)[0] = b[n:]
			return
		}
		n -= int64(len(b))
		(*v)[0] = nil
		*v = (*v)[1:]
	}
}
