package networktest

import (
	"fmt"
	"math/rand/v2"

	"github.com/hertznet/hertznet/network"
)

var modelCases = []connCase{
	{"Z1", 0, readerAgainstModel},
	{"Z2", 0, writerAgainstModel},
	{"Z4", 0, sideBySide},
	{"Z5", 0, duplexSchedules},
}

// scaled returns n, or less of it where time is short.
func (t *connCheck) scaled(n int) int {
	if t.short || raceEnabled {
		n = max(n/2, 2)
	}
	return n
}

// Z1 over the implementation's own connections, then over conns of the kit that
// deliver in chunks, with empty reads and timeouts in two of three runs.
func readerAgainstModel(t *connCheck) {
	r := t.rand()
	for i := range t.scaled(6) {
		randomReaderOverPair(t, fmt.Sprint("run ", i, " over a connection"), r)
	}
	if !t.canWrap() {
		return
	}
	for i := range t.scaled(150) {
		randomReader(t, fmt.Sprint("run ", i, " over a conn of the kit"), r, i%3 == 0)
	}
}

// Z2 over the implementation's own connections, then over conns of the kit, of which
// every other one fails.
func writerAgainstModel(t *connCheck) {
	r := t.rand()
	for i := range t.scaled(6) {
		randomWriterOverPair(t, fmt.Sprint("run ", i, " over a connection"), r)
	}
	if !t.canWrap() {
		return
	}
	for i := range t.scaled(400) {
		randomWriter(t, fmt.Sprint("run ", i, " over a conn of the kit"), r, i%2 == 1)
	}
}

// Z4: the implementation and the reference, with the same beneath them and the same
// done to them.
func sideBySide(t *connCheck) {
	r := t.rand()
	for i := range t.scaled(150) {
		w := newTwins(t, fmt.Sprint("run ", i), r)
		for range 200 {
			w.step()
		}
		w.finish()
	}
}

func duplexSchedules(t *connCheck) {
	r := t.rand()
	size := 1 << 20
	if raceEnabled {
		size /= 2
	}
	for i := range t.scaled(24) {
		a, b := t.pair()
		there, back := modelBytes(size, i), modelBytes(size, i+1)
		name := fmt.Sprint("run ", i, ": ")
		seeded := func() *rand.Rand { return rand.New(rand.NewPCG(r.Uint64(), 5)) }
		write := func(who string, c network.Conn, p []byte, r *rand.Rand) *op {
			return t.spawn(func() { duplexWrite(t, name+who, c, p, r) })
		}
		read := func(who string, c network.Conn, p []byte, r *rand.Rand) *op {
			return t.spawn(func() { duplexRead(t, name+who, c, p, r) })
		}
		t.step("%s%d bytes each way at once", name, size)
		for _, o := range []*op{
			write("the connection", a, there, seeded()),
			read("the connection", a, back, seeded()),
			write("its peer", b, back, seeded()),
			read("its peer", b, there, seeded()),
		} {
			t.wait(o)
		}
		a.Close()
		b.Close()
	}
}

// modelBytes returns n bytes of which no two places are alike, others for each i.
func modelBytes(n, i int) []byte {
	p := make([]byte, n)
	fill := rand.NewChaCha8([32]byte{byte(i), 7})
	_, _ = fill.Read(p)
	return p
}
