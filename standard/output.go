package standard

import (
	"net"
	"sync"
)

const (
	// borrowFrom is the size from which WriteBinary borrows a slice instead of
	// copying it. Below, a copy is cheaper than another piece for writev.
	borrowFrom = 4 << 10

	// maxKeptPieces bounds what an empty output keeps for whoever has it next.
	maxKeptPieces = 16
)

// output is what waits for Flush: slices in their order, some of pooled blocks
// that Malloc hands out, some borrowed from callers. The zero value is empty and
// owns no memory.
//
// It belongs to the goroutine of one Conn's writer from the first byte that is added until
// Flush has sent or given up the last; or to a hold. Write and ReadFrom take one for its
// rawWriter alone. In between it waits in outputs, empty: most connections have nothing to
// send, so that none need keep it.
type output struct {
	pieces net.Buffers
	n      int         // bytes in pieces
	owned  []*block    // to be dropped once the pieces are sent or given up
	open   *block      // the one of owned that Malloc may take more of
	off    int         // how much of open is taken
	joint  bool        // the last of pieces ends at open's off
	vec    net.Buffers // what is left of pieces during a Flush
	raw    rawWriter   // sends them to a socket; empty between two writes
}

var outputs = sync.Pool{New: func() any {
	o := new(output)
	o.raw.init()
	return o
}}

// free gives up an output, and what is in it.
func (o *output) free() {
	o.reset()
	outputs.Put(o)
}

// join adds all of more at the end, and gives that up: a copy if it is small, else its
// pieces. It returns by how many pieces there are fewer now.
func (o *output) join(more *output) (fewer int) {
	before := len(o.pieces) + len(more.pieces)
	if more.n < borrowFrom {
		p := o.malloc(more.n)
		for _, b := range more.pieces {
			p = p[copy(p, b):]
		}
	} else {
		o.pieces = append(o.pieces, more.pieces...)
		o.owned = append(o.owned, more.owned...)
		o.n += more.n
		o.open, o.joint = nil, false
		clear(more.owned)
		more.owned = more.owned[:0]
	}
	more.free()
	return before - len(o.pieces)
}

// malloc reserves n > 0 bytes at the end.
func (o *output) malloc(n int) []byte {
	if o.open == nil || len(o.open.buf)-o.off < n {
		o.open, o.off, o.joint = getBlock(n), 0, false
		o.owned = append(o.owned, o.open)
	}
	end := o.off + n
	b := o.open.buf[o.off:end:end]
	if last := len(o.pieces) - 1; o.joint {
		piece := o.pieces[last]
		o.pieces[last] = piece[:len(piece)+n]
	} else {
		o.pieces = append(o.pieces, o.open.buf[o.off:end])
		o.joint = true
	}
	o.off = end
	o.n += n
	return b
}

// borrow adds b itself at the end. A lent block is kept until b has been sent.
func (o *output) borrow(b []byte, lent *block) {
	o.pieces = append(o.pieces, b)
	o.joint = false
	o.n += len(b)
	if lent != nil {
		o.owned = append(o.owned, lent)
	}
}

// reset forgets everything that was pending.
func (o *output) reset() {
	clear(o.pieces)
	o.pieces, o.vec = o.pieces[:0], nil
	for i, b := range o.owned {
		b.drop()
		o.owned[i] = nil
	}
	o.owned = o.owned[:0]
	if cap(o.pieces) > maxKeptPieces {
		o.pieces, o.owned = nil, nil
	}
	o.open, o.off, o.joint, o.n = nil, 0, false, 0
}
