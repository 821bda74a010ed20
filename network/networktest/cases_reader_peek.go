package networktest

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"os"
	"syscall"
	"testing/iotest"

	"github.com/hertznet/hertznet/network"
)

// R1 on sockets, and where the kit's conn is beneath also with an error that came
// with the bytes and was not told yet.
func peekOfBufferedBytes(t *connCheck) {
	data := pattern(1000)
	a, _ := t.buffered(data)
	for _, n := range []int{1, 500, 1000} {
		t.step("Peek(%d) with 1000 bytes buffered", n)
		p, err := a.Peek(n)
		t.noError(err)
		t.equal(p, data[:n])
		t.expect(cap(p) == n, "a capacity of the length", "cap %d for len %d", cap(p), len(p))
	}
	if !t.canWrap() {
		return
	}
	for _, end := range []error{io.EOF, io.ErrClosedPipe} {
		c, s := t.scripted(Step{Data: data, Err: end})
		if _, err := c.Peek(1); err != nil {
			continue // the business of F2 and F3
		}
		reads, _ := s.calls()
		for _, n := range []int{min(2, c.Len()), c.Len() / 2, c.Len()} {
			t.step("Peek(%d) with %d bytes buffered that came together with the error %v", n, c.Len(), end)
			p, err := c.Peek(n)
			t.noError(err)
			t.equal(p, data[:n])
			now, _ := s.calls()
			t.expect(now == reads, "no I/O", "%d reads of the conn beneath", now-reads)
		}
	}
}

func peekOverSingleBytes(t *connCheck) {
	data := pattern(2*usualBlock + 1)
	counts := []int{2, 100, usualBlock + 1}
	if t.short {
		counts = []int{2, 700}
	}
	for _, n := range counts {
		a, b := t.pair()
		t.spawn(func() {
			for i := range n {
				if _, err := b.Write(data[i : i+1]); err != nil {
					return
				}
			}
		})
		t.step("Peek(%d) while the peer writes single bytes", n)
		p, err := a.Peek(n)
		t.noError(err)
		t.equal(p, data[:n])
	}
	if !t.canWrap() {
		return
	}
	for _, n := range []int{1, 2, 100, usualBlock - 1, usualBlock, usualBlock + 1, len(data)} {
		c := t.sourced(iotest.OneByteReader(bytes.NewReader(data)))
		t.step("Peek(%d) over a conn whose Read returns single bytes", n)
		p, err := c.Peek(n)
		t.noError(err)
		t.equal(p, data[:n])
	}
}

func peekDoesNotAdvance(t *connCheck) {
	data := pattern(3 * usualBlock)
	a := t.ended(data)
	for _, n := range []int{1000, 1000, 1, usualBlock + 1, 2, len(data), 5, len(data)} {
		t.step("Peek(%d) at the beginning of the stream, after other Peeks", n)
		p, err := a.Peek(n)
		t.noError(err)
		t.equal(p, data[:n])
		t.expect(a.Len() >= n, fmt.Sprintf("Len to be %d at least", n), "%d", a.Len())
	}
	t.step("reading the whole stream of %d bytes after the Peeks", len(data))
	t.equal(t.receive(a, len(data)), data)
}

// eachState calls f with connections in the states that a count of zero or less
// must not matter in. left is what is buffered.
func (t *connCheck) eachState(f func(state string, c network.Conn, left []byte)) {
	data := pattern(100)
	a, _ := t.pair()
	f("on a fresh connection", a, nil)

	a, _ = t.buffered(data)
	f("with 100 bytes buffered", a, data)
	t.skip(a, 40)
	f("after Peek(100) and Skip(40)", a, data[40:])

	a = t.ended(data)
	t.peek(a, data)
	_, _ = a.Peek(101)
	f("after a Peek that met the end", a, data)
	t.skip(a, 100)
	f("at the end of the stream", a, nil)

	if t.canWrap() {
		c, _ := t.scripted(Step{Data: data}, Step{Err: errors.New("the kit's")})
		t.peek(c, data)
		_, _ = c.Peek(101)
		f("after an error of the conn beneath", c, data)
	} else {
		a, _ = t.buffered(data)
		t.timeOut(a)
		f("after a timeout", a, data)
	}
}

// unmoved ends the check unless what is buffered is left.
func (t *connCheck) unmoved(c network.Conn, left []byte) {
	t.expect(c.Len() == len(left), fmt.Sprintf("Len to stay %d", len(left)), "%d", c.Len())
	if len(left) > 0 {
		p, err := c.Peek(len(left)) // the error is the business of R7
		t.expect(bytes.Equal(p, left), "the same bytes to come next", "%s with %s", describeBytes(p, left), describeError(err))
	}
}

func peekOfNothing(t *connCheck) {
	check := func(state string, c network.Conn, _ []byte) {
		t.step("Peek(0) %s", state)
		p, err := c.Peek(0)
		t.expect(len(p) == 0 && err == nil, "no bytes and no error", "%d bytes and %s", len(p), describeError(err))
	}
	t.eachState(check)
	data := pattern(100)
	a, _ := t.buffered(data)
	a.Close()
	check("after Close with 100 bytes buffered", a, data)
	a, _ = t.pair()
	a.Close()
	check("after Close", a, nil)
}

func peekOfNegativeCount(t *connCheck) {
	t.eachState(func(state string, c network.Conn, left []byte) {
		for _, n := range []int{-1, minInt} {
			t.step("Peek(%d) %s", n, state)
			p, err := c.Peek(n)
			t.expect(err != nil && len(p) == 0, "an error and no bytes", "%d bytes and %s", len(p), describeError(err))
			t.expect(c.Len() == len(left), fmt.Sprintf("Len to stay %d", len(left)), "%d", c.Len())
		}
	})
}

func shortPeek(t *connCheck) {
	for _, size := range []int{0, 10, usualBlock, 20_000} {
		data := pattern(size)
		for _, n := range []int{size + 1, size + usualBlock, size + 1<<20} {
			a := t.ended(data)
			for range 2 {
				t.step("Peek(%d) of a stream that ends after %d bytes", n, size)
				p, err := a.Peek(n)
				t.expect(err == io.EOF && bytes.Equal(p, data), fmt.Sprintf("the %d bytes with a bare io.EOF", size), "%s with %s", describeBytes(p, data), describeError(err))
				t.expect(cap(p) == size, fmt.Sprintf("a capacity of %d as well", size), "cap %d for len %d", cap(p), len(p))
			}
		}
	}
	data := pattern(10)
	a := t.ended(data)
	t.peek(a, data)
	t.skip(a, 10)
	t.step("Peek(1) at the end of the stream")
	p, err := a.Peek(1)
	t.expect(err == io.EOF && len(p) == 0, "no bytes with a bare io.EOF", "%d bytes with %s", len(p), describeError(err))
}

// R7: the errors are the end, a timeout, and those of the kit's conn.
func peekOfLenAfterErrors(t *connCheck) {
	data := pattern(6000)
	check := func(c network.Conn, after string) {
		t.step("Peek(Len()) with 6000 bytes buffered, after %s", after)
		n := c.Len()
		p, err := c.Peek(n)
		t.expect(err == nil && bytes.Equal(p, data), "the 6000 bytes and no error", "Len %d, %s with %s", n, describeBytes(p, data), describeError(err))
	}
	a := t.ended(data)
	t.peek(a, data)
	for range 2 {
		_, err := a.Peek(6001)
		check(a, fmt.Sprintf("Peek(6001) that met the end with the error %v", err))
	}

	a, _ = t.buffered(data)
	t.timeOut(a)
	check(a, "a timeout")

	if !t.canWrap() {
		return
	}
	for _, end := range []error{io.EOF, io.ErrUnexpectedEOF, syscall.ECONNRESET, os.ErrDeadlineExceeded, errors.New("the kit's")} {
		c, _ := t.scripted(append(inChunks(data, 1000), Step{Err: end}, Step{Err: end})...)
		t.peek(c, data)
		_, _ = c.Peek(6001)
		check(c, fmt.Sprintf("Peek(6001) that met the error %v", end))
	}
}

// readerOps are the ways to ask for a byte that does not come. A count or a slice
// that comes nevertheless is n.
var readerOps = []struct {
	name  string
	shape string // the clause that says what error the end of the stream is
	do    func(c network.Conn) (n int, err error)
}{
	{"Peek(1)", "R6", func(c network.Conn) (int, error) { p, err := c.Peek(1); return len(p), err }},
	{"ReadByte", "R16", func(c network.Conn) (int, error) { _, err := c.ReadByte(); return 0, err }},
	{"ReadBinary(1)", "", func(c network.Conn) (int, error) { p, err := c.ReadBinary(1); return len(p), err }},
	{"Skip(1)", "", func(c network.Conn) (int, error) { return 0, c.Skip(1) }},
	{"Read of 1 byte", "R26", func(c network.Conn) (int, error) { return c.Read(make([]byte, 1)) }},
	{"Read of 64 KiB", "R26", func(c network.Conn) (int, error) { return c.Read(make([]byte, 64<<10)) }},
}

// R8. The end is io.EOF itself also where no clause of the method says so.
func endIsReportedAgain(t *connCheck) {
	data := pattern(100)
	for first := range readerOps {
		a := t.ended(data)
		t.peek(a, data)
		t.skip(a, len(data))
		for i := range 3 * len(readerOps) {
			op := readerOps[(first+i/3)%len(readerOps)]
			t.step("%s at the end of the stream, which was reported %d times", op.name, i)
			n, err := op.do(a)
			refused := op.name == "Skip(1)" && err != nil && !errors.Is(err, io.EOF) // the business of R15
			end := err == io.EOF || op.shape != "" && errors.Is(err, io.EOF)
			t.expect(n == 0 && (end || refused), "io.EOF itself", "%d bytes and %s", n, describeError(err))
		}
	}
}

func peekAtEveryOffset(t *connCheck) {
	counts := []int{usualBlock - 1, usualBlock, usualBlock + 1, 2*usualBlock + 1}
	stride := 61
	if t.short {
		stride = 509
	}
	// On one connection, whose blocks begin and end who knows where.
	a, b := t.pair()
	stream := t.pump(b)
	for _, n := range counts {
		for offset := 0; offset <= usualBlock; offset += stride {
			t.peek(a, stream.next(offset+1))
			t.skip(a, offset)
			stream.skip(offset)
			want := stream.next(n)
			t.step("Peek(%d), %d bytes behind the last Release", n, offset)
			p, err := a.Peek(n)
			t.noError(err)
			t.equal(p, want)
			t.skip(a, n-1)
			stream.skip(n - 1)
			t.release(a)
		}
	}
	if !t.canWrap() {
		return
	}
	stride = 3
	if t.short || raceEnabled {
		stride = 61
	}
	data := pattern(4 * usualBlock)
	for _, n := range counts {
		for offset := 0; offset <= usualBlock; offset++ {
			if rest := offset % usualBlock; rest > 1 && rest < usualBlock-1 && rest%stride != 0 {
				continue
			}
			// The first read fills what there is, the second what it can.
			first := min(usualBlock, offset+1)
			c, _ := t.scripted(Step{Data: data[:first]}, Step{Data: data[first:]})
			t.peek(c, data[:offset+1])
			t.skip(c, offset)
			t.step("Peek(%d) after Peek(%d) and Skip(%d) on a fresh connection", n, offset+1, offset)
			p, err := c.Peek(n)
			t.noError(err)
			t.equal(p, data[offset:offset+n])
			t.skip(c, n-1)
			t.peek(c, data[offset+n-1:offset+n+100])
		}
	}
}

func growthAtTheEndOfABlock(t *connCheck) {
	for _, release := range []bool{false, true} {
		for _, block := range []int{512, usualBlock, 2 * usualBlock, 4 * usualBlock, 16 * usualBlock} {
			for _, left := range []int{1, 10, block - 1} {
				a, b := t.pair()
				stream := t.pump(b)
				// The unread bytes lie behind many that are read, and more are wanted.
				t.peek(a, stream.next(block))
				t.skip(a, block-left)
				stream.skip(block - left)
				if release {
					t.release(a)
				}
				for _, n := range []int{left, left + 1, block + 1, 4*block + left} {
					want := stream.next(n)
					t.step("Peek(%d) after Peek(%d) and Skip(%d) on a fresh connection", n, block, block-left)
					p, err := a.Peek(n)
					t.noError(err)
					t.equal(p, want)
				}
				a.Close()
			}
		}
	}
}

// hugeCounts are counts that no stream here satisfies, with a merely large one
// first: an implementation that fails there is not asked for more, since that could
// take the process down.
func hugeCounts() []int {
	counts := []int{64 << 20, 1 << 30}
	if tera := int64(1) << 40; int64(maxInt) > tera {
		counts = append(counts, int(tera))
	}
	return append(counts, maxInt/2, maxInt-1, maxInt)
}

// costOfHuge checks the memory that an operation takes which asks for more than
// comes. The result is the business of other clauses.
func (t *connCheck) costOfHuge(name string, do func(c network.Conn, n int) error) {
	check := func(c network.Conn, n, size int, end string) {
		t.step("%s(%d) of a stream of %d bytes that %s", name, n, size, end)
		var err error
		cost := allocatedBy(func() { err = do(c, n) })
		most := int64(16*size + 8<<20)
		t.expect(cost <= most, fmt.Sprintf("at most %d bytes to be allocated", most), "%d, and %s", cost, describeError(err))
	}
	for _, size := range []int{0, 5000, 1 << 20} {
		data := pattern(size)
		for _, n := range hugeCounts() {
			a := t.ended(data)
			check(a, n, size, "ends")
		}
	}
	data := pattern(5000)
	for _, n := range hugeCounts()[1:3] {
		a, b := t.pair()
		t.feed(b, data)
		t.step("SetReadTimeout(%v)", shortWait)
		t.noError(a.SetReadTimeout(shortWait))
		check(a, n, len(data), "then stalls")
	}
}

func hugePeek(t *connCheck) {
	t.costOfHuge("Peek", func(c network.Conn, n int) error { _, err := c.Peek(n); return err })
	data := pattern(5000)
	for _, n := range hugeCounts() {
		a := t.ended(data)
		_, err := a.Peek(n)
		t.step("Peek(5000) after Peek(%d) of a stream that ends after 5000 bytes, which gave the error %v", n, err)
		p, _ := a.Peek(len(data))
		t.equal(p, data)
	}
}

// R12: what is copied shows as new addresses of the same unread bytes.
func headerLoop(t *connCheck) {
	const chunk = 1000
	size := 1024 * chunk
	if t.short || raceEnabled {
		size = 256 * chunk
	}
	data := pattern(size)
	a, b := t.pair()
	t.step("Peek(1)")
	feed := make(chan []byte)
	defer close(feed)
	t.spawn(func() {
		for p := range feed {
			if _, err := b.Write(p); err != nil {
				return
			}
		}
	})
	before := reachable()
	var moved, cost int64
	var at *byte
	loop := func() {
		for sent := 0; sent < size; {
			select {
			case feed <- data[sent : sent+chunk]:
			case <-t.ctx.Done():
				return
			}
			sent += chunk
			for a.Len() < sent {
				unread := a.Len()
				p, err := a.Peek(unread + 1)
				if err == nil {
					p, err = a.Peek(a.Len()) // all of it is looked at
				}
				if err != nil || len(p) <= unread {
					t.expect(false, fmt.Sprintf("%d bytes at least", unread+1), "%d and %s", len(p), describeError(err))
				}
				if &p[0] != at {
					at = &p[0]
					moved += int64(unread)
				}
			}
		}
	}
	t.step("Peek(Len()+1) and Peek(Len()), again and again, over %d bytes that come %d at a time", size, chunk)
	cost = allocatedBy(loop)
	most := int64(8*size + 1<<20)
	t.expect(moved <= most, fmt.Sprintf("at most %d bytes to be copied", most), "%d, going by how often the slices' addresses changed", moved)
	if !raceEnabled {
		most += 8 << 20
		t.expect(cost <= most, fmt.Sprintf("at most %d bytes to be allocated", most), "%d", cost)
	}
	held := reachable() - before
	t.expect(held <= most, fmt.Sprintf("at most %d bytes to be held in the end", most), "%d", held)
	t.peek(a, data)
}
