package networktest

import (
	"bytes"
	"net"
	"slices"
	"testing"

	"github.com/hertznet/hertznet/network"
)

// FuzzReader lets the fuzzer choose operations on the reader of an implementation,
// and how the stream arrives, and compares each result with what a slice and a
// position say. A fuzz target is
//
//	func FuzzReader(f *testing.F) { networktest.FuzzReader(f, wrap) }
//
// with a wrap as for [Conn]. It judges every promise of [network.Reader] that can
// be seen from outside, where [TestConn] leaves most of them to the clause that
// they belong to; that includes an implementation that reads ahead by itself, which
// fails for its Len.
//
// Run it with -fuzzminimizetime 10x. Goroutines make the coverage of an input vary, and
// go test would otherwise spend up to a minute on making each a shorter one.
//
// The input is a uint32 (twice bits: the end comes with the last bytes, the end is
// another error than io.EOF; the rest: the stream's length), the operations, and
// the sizes in which the stream arrives.
func FuzzReader(f *testing.F, wrap func(testing.TB, net.Conn) network.Conn) {
	for _, s := range readerSeeds() {
		f.Add(s.setup, s.ops, s.chunks)
	}
	f.Fuzz(func(t *testing.T, setup uint32, ops, chunks []byte) {
		if len(ops) > 1000 {
			return // too slow
		}
		fuzzed(t, "Z1", wrap, func(t *connCheck) { runReader(t, "the input", setup, ops, chunks, true) })
	})
}

// FuzzWriter does the same for the writer: the fuzzer chooses the operations and how
// the conn beneath fails, and what reaches it is compared with a list of bytes.
//
// The input begins with five bytes: 1 for a conn beneath with a method
// WriteBuffers(*net.Buffers) (int64, error), how many writes succeed before one
// fails plus one or 0, the kind of the failure, how much the failing write takes,
// and how much a read returns. The rest are operations.
func FuzzWriter(f *testing.F, wrap func(testing.TB, net.Conn) network.Conn) {
	for _, input := range writerSeeds {
		f.Add(slices.Concat(input...))
	}
	f.Fuzz(func(t *testing.T, input []byte) {
		if len(input) > 400 {
			return // a long input finds nothing that short ones do not
		}
		fuzzed(t, "Z2", wrap, func(t *connCheck) { runWriter(t, "the input", input, true) })
	})
}

// fuzzed runs one input under the watchdog of the cases.
func fuzzed(t *testing.T, id string, wrap func(testing.TB, net.Conn) network.Conn, run func(t *connCheck)) {
	r := execute(boundCase{id, 0, func(t *check) { run(&connCheck{t, Conn{Wrap: wrap}}) }}, false)
	switch r.Outcome {
	case Failed:
		t.Error(r)
	case NotApplicable:
		t.Skip(r)
	}
}

type readerSeed struct {
	setup       uint32
	ops, chunks []byte
}

// readerSeeds are a header as Hertz reads it, growth and recycling, a stream that
// breaks, long messages, and an empty stream.
func readerSeeds() []readerSeed {
	peekMore := bytes.Repeat([]byte{0, 1 | 9<<3}, 40) // Peek(Len()+1), as for a header
	return []readerSeed{
		{100000 << 2, peekMore, []byte{4, 4 | 1<<3, 4 | 4<<3}},
		{9000<<2 | 1, []byte{0, 2, 4, 5, 14, 0, 11, 13, 0, 0, 2, 15}, []byte{4 | 7<<3}},
		{70000<<2 | 2, slices.Concat(peekMore, []byte{9, 7 | 4<<3, 4, 7 | 9<<3, 11, 7, 2 | 9<<3, 12}), []byte{0, 1, 2 | 3<<3, 4 | 5<<3}},
		{1 << 22, []byte{7, 7 | 31<<3, 9, 7 | 8<<3, 4, 7 | 20<<3, 6, 10, 8, 13, 0}, nil},
		{0, []byte{0, 0, 1, 8, 6, 9, 8, 11, 4, 8}, []byte{1, 0, 4}},
	}
}

// writerSeeds are a head (conn beneath, failing write, kind, bytes taken, read size)
// and operations.
var writerSeeds = [][][]byte{
	{{0, 0, 0, 0, 0}, {0, 40, 2, 40, 6}},
	{{1, 0, 0, 0, 0}, {0, 40, 3, 255, 0, 3, 6, 0, 9, 8, 20, 9, 20}},
	{{0, 2, sinkError, 20, 9}, {1, 200, 3, 77, 1, 5, 6, 6, 8, 5}},
	{{1, 2, sinkTimeout, 20, 9}, {8, 255, 8, 254, 2, 90, 8, 12, 6}},
	{{1, 1, sinkShort, 41, 255}, {0, 10, 3, 10, 7, 2, 3, 6}},
	{{0, 3, sinkNegative, 4, 255}, {9, 255, 9, 255, 9, 255}},
	{{1, 3, sinkTooMany, 4, 255}, {1, 1, 1, 1, 6, 8, 90, 9, 90, 6}},
	{{1, 0, 0, 0, 255}, {4, 23, 23, 5, 255, 4, 255, 255, 5, 90, 6, 4, 7, 7, 5, 255, 6}},
	{{0, 0, 0, 0, 99}, {0, 30, 4, 39, 39, 10, 11, 0, 0, 3, 2, 9, 6, 8, 7}},
}
