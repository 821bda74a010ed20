package standard

import (
	"math/rand/v2"
	"net"
	"testing"

	"github.com/hertznet/hertznet/network"
	"github.com/hertznet/hertznet/network/networktest"
)

// Z1 and Z2 with the kit's models, which judge here also what TestConn leaves to
// other clauses: errors, counts, and what holds after a failure. Besides the seeds of
// the kit and those of testdata/fuzz, go test runs some random inputs.

func FuzzReader(f *testing.F) {
	r := rand.New(rand.NewPCG(1, 1))
	for i := range 50 {
		ops, chunks := make([]byte, 600), make([]byte, 1+r.IntN(50))
		scramble(r, ops)
		scramble(r, chunks)
		if i%3 == 0 { // a stream without faults, which goes on for longer
			for i := range chunks {
				chunks[i] |= 4
			}
		}
		f.Add(r.Uint32(), ops, chunks)
	}
	networktest.FuzzReader(f, nothingHeld)
}

func FuzzWriter(f *testing.F) {
	r := rand.New(rand.NewPCG(1, 2))
	for i := range 100 {
		input := make([]byte, 5+r.IntN(120))
		scramble(r, input)
		if i%3 > 0 {
			input[1] = 0 // no fault
		}
		f.Add(input)
	}
	networktest.FuzzWriter(f, nothingHeld)
}

// nothingHeld wraps c and looks at the end at what no other package can see: that a
// Conn whose bytes have been read, released and flushed holds no memory, and that as
// many blocks have come back as went out [P4].
func nothingHeld(tb testing.TB, nc net.Conn) network.Conn {
	before := outstanding.Load()
	c := NewConn(nc)
	tb.Cleanup(func() {
		_ = c.Skip(c.Len())
		_ = c.Release()
		if n := heldBytes(c); n > 0 || c.out != nil {
			tb.Errorf("at the end %d bytes are held to read and %v to write", n, c.out)
		}
		if n := outstanding.Load() - before; n > 0 {
			tb.Errorf("%d blocks did not come back", n)
		}
	})
	return c
}
