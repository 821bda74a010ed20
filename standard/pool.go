package standard

import (
	"math/bits"
	"runtime"
	"sync"
	"sync/atomic"
)

// Blocks come in powers of two. Below 4 KiB a pool costs more than it saves;
// above 1 MiB a block would sit in the pool long after the one large message
// that needed it, so those are left to the garbage collector.
const (
	minBlockShift = 12
	maxBlockShift = 20
	minBlockSize  = 1 << minBlockShift
	maxPooledSize = 1 << maxBlockShift
)

// A block is a piece of memory with a count of its owners. The ring that reads
// into it is one; each borrowed slice of it that waits in an output is another.
// The last owner to let go returns it to its pool.
type block struct {
	buf  []byte // len(buf) == cap(buf)
	refs atomic.Int32
	next *block // in the list of a ring that has it aside
}

var blockPools [maxBlockShift - minBlockShift + 1]sync.Pool

// blockBytes is the memory of all blocks that there are, in use or in a pool. One that is
// neither leaves it when it is collected.
var blockBytes atomic.Int64

func newBlock(size int) *block {
	b := &block{buf: make([]byte, size)}
	blockBytes.Add(int64(size))
	runtime.AddCleanup(b, func(size int64) { blockBytes.Add(-size) }, int64(size))
	return b
}

// blockAccount is told +1 for every block handed out and -1 for every block that
// came back. It is nil outside of this package's tests [P4].
var blockAccount func(delta int)

// getBlock returns a block of at least n bytes with one owner. Its contents are
// whatever its last user left there.
func getBlock(n int) *block {
	var b *block
	if n <= maxPooledSize {
		class := blockClass(n)
		b, _ = blockPools[class].Get().(*block)
		if b == nil {
			b = newBlock(1 << (class + minBlockShift))
		}
	} else {
		// Whole pages: the allocator rounds up to them anyway.
		b = newBlock((n + minBlockSize - 1) &^ (minBlockSize - 1))
	}
	b.refs.Store(1)
	if blockAccount != nil {
		blockAccount(1)
	}
	return b
}

// drop gives up one ownership of b.
func (b *block) drop() {
	if b.refs.Add(-1) != 0 {
		return
	}
	if blockAccount != nil {
		blockAccount(-1)
	}
	if len(b.buf) <= maxPooledSize {
		blockPools[blockClass(len(b.buf))].Put(b)
	}
}

// blockClass returns the index of the smallest pool whose blocks hold n bytes.
func blockClass(n int) int {
	if n <= minBlockSize {
		return 0
	}
	return bits.Len(uint(n-1)) - minBlockShift
}
