package networktest

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"runtime"
	"sync"
	"syscall"
	"testing/iotest"
	"time"

	"github.com/hertznet/hertznet/network"
)

var readerCases = []connCase{
	{"R1", 0, peekOfBufferedBytes},
	{"R2", time.Minute, peekOverSingleBytes},
	{"R3", 0, peekDoesNotAdvance},
	{"R4", 0, peekOfNothing},
	{"R5", 0, peekOfNegativeCount},
	{"R6", 0, shortPeek},
	{"R7", 0, peekOfLenAfterErrors},
	{"R8", 0, endIsReportedAgain},
	{"R9", 0, peekAtEveryOffset},
	{"R10", 0, growthAtTheEndOfABlock},
	{"R11", 0, hugePeek},
	{"R12", 0, headerLoop},
	{"R13", 0, skipIsExact},
	{"R14", 0, skipOfNegativeCount},
	{"R15", 0, skipBeyondTheBuffer},
	{"R16", 0, readByteInSequence},
	{"R17", 0, readBinaryIsTheCallersOwn},
	{"R18", 0, readBinaryOfNothing},
	{"R19", 0, shortReadBinary},
	{"R20", 0, hugeReadBinary},
	{"R21", 0, lenCountsUnreadBytes},
	{"R22", 0, releaseKeepsUnreadBytes},
	{"R23", 0, releaseAtAnyTime},
	{"R24", 0, readOfWhatIsBuffered},
	{"R25", 0, readBetweenPeekAndSkip},
	{"R26", 0, iotestTestReader},
	{"R27", time.Minute, oddReaders},
	{"R28", 0, timeoutsShape},
}

// usualBlock is the size of memory block that most implementations read into;
// sizes around it and its double are where mistakes are.
const usualBlock = 4096

// shortWait is a read timeout that is meant to pass.
const shortWait = 10 * time.Millisecond

// ended returns a connection on which data comes, and then the end.
func (t *connCheck) ended(data []byte) network.Conn {
	a, b := t.pair()
	t.feedAndClose(b, data)
	return a
}

// buffered returns a connection that has data in its buffer and gets no more.
func (t *connCheck) buffered(data []byte) (a, b network.Conn) {
	a, b = t.pair()
	t.feed(b, data)
	t.peek(a, data)
	return a, b
}

// timeOut has a Peek of more than will come run out of time.
func (t *connCheck) timeOut(c network.Conn) {
	t.step("SetReadTimeout(%v)", shortWait)
	t.noError(c.SetReadTimeout(shortWait))
	n := c.Len() + 1
	t.step("Peek(%d) with %d bytes buffered and no more to come, after SetReadTimeout(%v)", n, n-1, shortWait)
	p, err := c.Peek(n)
	t.expect(err != nil, "a timeout", "%d bytes without an error", len(p))
	t.step("SetReadTimeout(0)")
	t.noError(c.SetReadTimeout(0))
}

// endless is a stream without an end, of which the peer sends what was asked for
// and a little more: an implementation that reads ahead without a bound must not
// take all the memory.
type endless struct {
	data   []byte // a period, and half of one once more
	period int

	mu          sync.Mutex
	changed     *sync.Cond
	sent, taken int64
	limit       int64 // of sent
}

// pump has b send an endless stream.
func (t *connCheck) pump(b net.Conn) *endless {
	const period = 1 << 20
	data := pattern(period)
	e := &endless{data: append(data, data[:period/2]...), period: period}
	e.changed = sync.NewCond(&e.mu)
	stop := context.AfterFunc(t.ctx, func() {
		e.mu.Lock()
		defer e.mu.Unlock()
		e.changed.Broadcast()
	})
	t.Cleanup(func() { stop() })
	sizes := []int{1, 1500, 4096, 100, 9000, 16 << 10, 7, 40_000}
	t.spawn(func() {
		for i := 0; ; i++ {
			p := e.toSend(t.ctx, sizes[i%len(sizes)])
			if p == nil {
				return
			}
			if _, err := b.Write(p); err != nil {
				return
			}
		}
	})
	return e
}

// toSend returns n bytes or fewer, or nil when the check has ended.
func (e *endless) toSend(ctx context.Context, n int) []byte {
	e.mu.Lock()
	defer e.mu.Unlock()
	for e.sent >= e.limit && ctx.Err() == nil {
		e.changed.Wait()
	}
	if ctx.Err() != nil {
		return nil
	}
	at := int(e.sent % int64(e.period))
	n = int(min(int64(n), e.limit-e.sent))
	e.sent += int64(n)
	return e.data[at : at+n]
}

// ask has the next n bytes sent, and some more.
func (e *endless) ask(n int) {
	e.mu.Lock()
	defer e.mu.Unlock()
	e.limit = max(e.limit, e.taken+int64(n)+2*usualBlock)
	e.changed.Broadcast()
}

// next returns the n bytes that come next, of at most half a period.
func (e *endless) next(n int) []byte {
	e.ask(n)
	at := int(e.taken % int64(e.period))
	return e.data[at : at+n]
}

// skip says that n bytes have been consumed.
func (e *endless) skip(n int) {
	e.mu.Lock()
	defer e.mu.Unlock()
	e.taken += int64(n)
}

// sourceConn is a net.Conn that reads from r.
type sourceConn struct {
	scriptConn
	r io.Reader
}

func (c *sourceConn) Read(p []byte) (int, error) { return c.r.Read(p) }

// sourced puts the implementation over a conn that reads from r.
func (t *connCheck) sourced(r io.Reader) network.Conn { return t.wrap(&sourceConn{r: r}) }

// inChunks cuts data into reads of size bytes.
func inChunks(data []byte, size int) (steps []Step) {
	for len(data) > 0 {
		n := min(size, len(data))
		steps = append(steps, Step{Data: data[:n:n]})
		data = data[n:]
	}
	return steps
}

// allocatedBy returns how many bytes were allocated while f ran, by anybody.
func allocatedBy(f func()) int64 {
	var before, after runtime.MemStats
	runtime.ReadMemStats(&before)
	f()
	runtime.ReadMemStats(&after)
	return int64(after.TotalAlloc - before.TotalAlloc)
}

// reachable returns how many bytes the heap holds that are in use. It collects
// twice, since a sync.Pool lets go of its contents at the second time.
func reachable() int64 {
	runtime.GC()
	runtime.GC()
	var s runtime.MemStats
	runtime.ReadMemStats(&s)
	return int64(s.HeapAlloc)
}

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

// R13 within the buffer; R15 goes beyond it.
func skipIsExact(t *connCheck) {
	data := pattern(60_000)
	skips := []int{0, 1, 0, 99, 100, 101, usualBlock - 1, usualBlock, usualBlock + 1, 5000, 1, 2 * usualBlock}
	check := func(c network.Conn) {
		at := 0
		for _, buffered := range []int{27_000, 33_000} { // the second one begins anywhere in a block
			end := at + buffered
			t.peek(c, data[at:end])
			for _, n := range skips {
				if n >= end-at {
					continue
				}
				before := c.Len()
				t.skip(c, n)
				at += n
				t.expect(c.Len() >= before-n, fmt.Sprintf("Len %d, or more if more has come", before-n), "%d", c.Len())
				p, err := c.Peek(1)
				t.expect(err == nil && len(p) == 1 && p[0] == data[at], fmt.Sprintf("byte %d of the stream, %#02x, to be next", at, data[at]), "%#v with %s", p, describeError(err))
			}
			t.skip(c, end-at)
			at = end
		}
	}
	check(t.ended(data))
	if t.canWrap() {
		c, _ := t.scripted(inChunks(data, 1237)...)
		check(c)
	}
}

func skipOfNegativeCount(t *connCheck) {
	t.eachState(func(state string, c network.Conn, left []byte) {
		for _, n := range []int{-1, -40, minInt} {
			t.step("Skip(%d) %s", n, state)
			err := c.Skip(n)
			t.expect(err != nil, "an error", "none")
			t.unmoved(c, left)
		}
	})
}

func skipBeyondTheBuffer(t *connCheck) {
	data := pattern(80_000)
	if t.behavior().SkipWithinBuffer {
		a := t.ended(data[:100]) // so that a Skip which reads does not wait for ever
		t.peek(a, data[:100])
		t.step("Skip(101) with 100 bytes buffered, where SkipWithinBuffer is declared")
		t.expect(a.Skip(101) != nil, "an error", "none")
		t.unmoved(a, data[:100])
		return
	}
	for _, peeked := range []int{0, 1, 100, 5000} {
		for _, n := range []int{1, 101, usualBlock - 1, usualBlock, usualBlock + 1, 5001, 70_000} {
			if n <= peeked {
				continue
			}
			a, b := t.pair()
			t.feed(b, data[:peeked])
			t.peek(a, data[:peeked])
			t.feed(b, data[peeked:])
			t.skip(a, n)
			t.step("Peek(10) after Peek(%d) and Skip(%d)", peeked, n)
			p, err := a.Peek(10)
			t.noError(err)
			t.equal(p, data[n:n+10])
		}
	}

	// Now a long one. The memory is looked at while it waits for its last byte.
	const piece = 64 << 10
	size := 24 << 20
	a, b := t.pair()
	before := reachable()
	const most = 4 << 20
	var held int64
	fed := t.spawn(func() {
		junk := make([]byte, piece)
		for range size / piece {
			if _, err := b.Write(junk); err != nil {
				return
			}
		}
		// The last of it may still be on its way, and cost what is garbage later.
		for range 5 {
			if held = reachable() - before; held <= most {
				break
			}
			time.Sleep(5 * time.Millisecond)
		}
		_, _ = b.Write([]byte("!end"))
	})
	t.skip(a, size+1)
	t.peek(a, []byte("end"))
	t.wait(fed)
	t.step("Skip(%d) with nothing buffered", size+1)
	t.expect(held <= most, "one block of memory to be held at most, which is far less than 4 MiB", "%d bytes", held)
}

func readByteInSequence(t *connCheck) {
	data := pattern(2*usualBlock + 3)
	a := t.ended(data)
	for i, want := range data {
		b, err := a.ReadByte()
		if b != want || err != nil {
			t.step("ReadByte as call %d", i+1)
			t.expect(false, fmt.Sprintf("%#02x", want), "%#02x with %s", b, describeError(err))
		}
	}
	for range 2 {
		t.step("ReadByte at the end of the stream")
		_, err := a.ReadByte()
		t.expect(err == io.EOF, "io.EOF", "%s", describeError(err))
	}
}

// R17: the copies are compared after others have passed through the connection's
// memory, and are written to themselves.
func readBinaryIsTheCallersOwn(t *connCheck) {
	a, b := t.pair()
	stream := t.pump(b)
	var copies, wants [][]byte
	same := func(when string) {
		for i := range copies {
			t.step("looking at the slice of ReadBinary(%d), %s", len(wants[i]), when)
			t.equal(copies[i], wants[i])
		}
	}
	for _, n := range []int{1, 10, 100, usualBlock - 1, usualBlock, 2*usualBlock + 1, 5000, 40_000} {
		for _, peeked := range []bool{true, false} {
			want := bytes.Clone(stream.next(n))
			var held []byte
			if peeked {
				held = t.peek(a, want)
			}
			t.step("ReadBinary(%d)", n)
			p, err := a.ReadBinary(n)
			t.noError(err)
			t.equal(p, want)
			stream.skip(n)
			if peeked {
				t.step("writing to the slice of ReadBinary(%d), and looking at that of Peek(%d) before it", n, n)
				clear(p)
				t.equal(held, want)
				copy(p, want)
			}
			copies, wants = append(copies, p), append(wants, want)
			t.release(a)
		}
		same("after Release")
	}
	for _, n := range []int{100, 9000, 60_000, 300} {
		for range 3 {
			t.peek(a, stream.next(n))
			t.skip(a, n)
			stream.skip(n)
			t.release(a)
		}
	}
	same("after more was read and released")
	a.Close()
	same("after Close")
}

func readBinaryOfNothing(t *connCheck) {
	t.eachState(func(state string, c network.Conn, left []byte) {
		t.step("ReadBinary(0) %s", state)
		p, err := c.ReadBinary(0)
		t.expect(len(p) == 0 && err == nil, "no bytes and no error", "%d bytes and %s", len(p), describeError(err))
		for _, n := range []int{-1, minInt} {
			t.step("ReadBinary(%d) %s", n, state)
			p, err := c.ReadBinary(n)
			t.expect(err != nil && len(p) == 0, "an error and no bytes", "%d bytes and %s", len(p), describeError(err))
			t.expect(c.Len() == len(left), fmt.Sprintf("Len to stay %d", len(left)), "%d", c.Len())
		}
	})
}

func shortReadBinary(t *connCheck) {
	data := pattern(9000)
	check := func(c network.Conn, end string) {
		for range 2 {
			t.step("ReadBinary(9001) of a stream of 9000 bytes that %s", end)
			p, err := c.ReadBinary(9001)
			t.expect(err != nil, "an error", "%d bytes without one", len(p))
			if end == "ends" {
				t.expect(err == io.EOF, "a bare io.EOF", "%s", describeError(err))
			}
		}
		t.step("ReadBinary(9000) after ReadBinary(9001) came short of a stream that %s", end)
		p, err := c.ReadBinary(9000)
		t.noError(err)
		t.equal(p, data)
	}
	check(t.ended(data), "ends")
	if t.canWrap() {
		for _, end := range []error{io.EOF, syscall.ECONNRESET, errors.New("the kit's")} {
			c, _ := t.scripted(append(inChunks(data, 1000), Step{Err: end})...)
			check(c, fmt.Sprintf("fails with the error %v", end))
		}
	}
	a, _ := t.buffered(data)
	t.step("SetReadTimeout(%v)", shortWait)
	t.noError(a.SetReadTimeout(shortWait))
	check(a, "stalls, after SetReadTimeout")
}

func hugeReadBinary(t *connCheck) {
	t.costOfHuge("ReadBinary", func(c network.Conn, n int) error { _, err := c.ReadBinary(n); return err })
}

func lenCountsUnreadBytes(t *connCheck) {
	data := pattern(3000)
	a, b := t.pair()
	t.step("Len of a fresh connection")
	t.expect(a.Len() == 0, "0", "%d", a.Len())
	t.feed(b, data)
	t.peek(a, data)
	left := len(data)
	check := func(after string) {
		t.step("Len after %s, with %d of 3000 bytes unread", after, left)
		t.expect(a.Len() == left, fmt.Sprint(left), "%d", a.Len())
	}
	check("Peek(3000)")
	_, _ = a.Peek(1)
	check("Peek(1)")
	t.skip(a, 100)
	left -= 100
	check("Skip(100)")
	if _, err := a.ReadByte(); err == nil {
		left--
	}
	check("ReadByte")
	if p, err := a.ReadBinary(99); err == nil {
		left -= len(p)
	}
	check("ReadBinary(99)")
	n, _ := a.Read(make([]byte, 700))
	left -= n
	check("Read of 700 bytes")
	t.release(a)
	check("Release")
	t.skip(a, left)
	left = 0
	check("Skip of all of them")
	t.release(a)
	check("Release")
	if !t.canWrap() {
		return
	}
	c, s := t.scripted(inChunks(data, 1000)...)
	t.step("Len over a conn that has 3000 bytes to read")
	n = c.Len()
	reads, _ := s.calls()
	t.expect(n == 0 && reads == 0, "0 and no I/O", "%d and %d reads", n, reads)
	t.peek(c, data[:1000])
	reads, _ = s.calls()
	t.step("Len with %d reads made", reads)
	for range 10 {
		_ = c.Len()
	}
	now, _ := s.calls()
	t.expect(now == reads, "no I/O", "%d reads", now-reads)
}

func releaseKeepsUnreadBytes(t *connCheck) {
	data := pattern(30_000)
	a := t.ended(data)
	at := 0
	for i := 1; at+2*i < len(data); i += 97 {
		t.peek(a, data[at:at+2*i])
		t.skip(a, i)
		at += i
		before := a.Len()
		for range 2 {
			t.release(a)
			t.expect(a.Len() >= before, fmt.Sprintf("Len to stay %d, or to grow by what has come", before), "%d", a.Len())
		}
		t.step("Peek(%d) after Peek(%d), Skip(%d) and two Releases", i, 2*i, i)
		p, err := a.Peek(i)
		t.noError(err)
		t.equal(p, data[at:at+i])
	}
	t.step("reading the rest of the stream after several Releases")
	t.equal(t.receive(a, len(data)-at), data[at:])
}

func releaseAtAnyTime(t *connCheck) {
	release := func(c network.Conn, when string) {
		for _, time := range []string{"first", "second"} {
			t.step("Release %s, for the %s time", when, time)
			t.noError(c.Release())
		}
	}
	data := pattern(5000)
	a, _ := t.pair()
	release(a, "on a fresh connection")
	a.Close()
	release(a, "after Close of a fresh connection")

	a = t.ended(data)
	t.peek(a, data)
	t.skip(a, len(data))
	release(a, "with nothing unread")
	_, _ = a.Peek(1)
	release(a, "at the end of the stream")
	a.Close()
	release(a, "after the end and Close")

	a, _ = t.buffered(data)
	a.Close()
	release(a, "after Close with 5000 bytes unread")
}

func readOfWhatIsBuffered(t *connCheck) {
	t.eachState(func(state string, c network.Conn, left []byte) {
		for _, p := range [][]byte{nil, {}} {
			t.step("Read of an empty p %s", state)
			n, err := c.Read(p)
			t.expect(n == 0 && err == nil, "0 and no error", "%d and %s", n, describeError(err))
		}
	})
	data := pattern(1000)
	a, b := t.pair()
	for _, size := range []int{1, 999, 1000, 1001, usualBlock, 64 << 10} {
		t.feed(b, data)
		t.peek(a, data)
		for left := data; len(left) > 0; {
			t.step("Read of %d bytes with %d buffered and no more to come", size, len(left))
			p := make([]byte, size)
			n, err := a.Read(p)
			t.expect(n > 0 && n <= min(size, len(left)) && err == nil, "bytes and no error", "%d and %s", n, describeError(err))
			t.equal(p[:n], left[:n])
			left = left[n:]
		}
	}
	if !t.canWrap() {
		return
	}
	for _, size := range []int{1, 100, usualBlock, 64 << 10} {
		c, _ := t.scripted(Step{}, Step{}, Step{Data: data[:1]}, Step{}, Step{Data: data[1:2]}, Step{}, Step{Err: io.EOF})
		for i := range 3 {
			t.step("Read of %d bytes over a conn that returns (0, nil) now and then, as call %d", size, i+1)
			n, err := c.Read(make([]byte, size))
			t.expect(n > 0 || err != nil, "a byte or an error", "(0, nil)")
		}
	}
}

func readBetweenPeekAndSkip(t *connCheck) {
	a, b := t.pair()
	stream := t.pump(b)
	for _, n := range []int{10, 100, 1000, usualBlock, usualBlock + 1, 9000, 50_000} {
		for _, size := range []int{1, n / 2, n - 1} {
			t.peek(a, stream.next(n))
			p := make([]byte, size)
			t.step("Read of %d bytes after Peek(%d)", size, n)
			m, err := a.Read(p)
			t.noError(err)
			t.equal(p[:m], stream.next(m))
			t.step("Skip(%d) after Peek(%d) and Read of %d bytes", n-m, n, m)
			t.noError(a.Skip(n - m))
			stream.skip(n)
			want := stream.next(11)
			t.step("Peek(11) after Peek(%d), Read of %d bytes and Skip(%d)", n, m, n-m)
			q, err := a.Peek(11)
			t.noError(err)
			t.equal(q, want)
		}
		t.release(a)
	}
}

func iotestTestReader(t *connCheck) {
	for _, size := range []int{0, 1, 100, usualBlock, 3*usualBlock + 1} {
		data := pattern(size)
		t.step("iotest.TestReader with %d bytes", size)
		err := iotest.TestReader(readerOf(t.ended(data)), data)
		t.noError(err)
		if t.canWrap() {
			t.step("iotest.TestReader with %d bytes from a conn that returns the last with io.EOF", size)
			err := iotest.TestReader(readerOf(t.sourced(iotest.DataErrReader(bytes.NewReader(data)))), data)
			t.noError(err)
		}
	}
}

// readStyle is a way to read a stream to its end: next returns the bytes that it
// consumed. i counts the calls, and left is how many bytes there are.
type readStyle struct {
	name string
	next func(c network.Conn, i, left int) ([]byte, error)
}

func readStyles(counts ...int) []readStyle {
	one := func(b byte, err error) ([]byte, error) {
		if err != nil {
			return nil, err
		}
		return []byte{b}, nil
	}
	// One that comes short is the business of R6 and R19.
	within := func(size, left int) int {
		if left > 0 {
			return min(size, left)
		}
		return size
	}
	take := func(c network.Conn, size int, release bool) ([]byte, error) {
		p, err := c.Peek(size)
		if err != nil {
			return nil, err
		}
		p = bytes.Clone(p)
		if err = c.Skip(len(p)); release {
			_ = c.Release()
		}
		return p, err
	}
	read := func(c network.Conn, size int) ([]byte, error) {
		p := make([]byte, size)
		n, err := c.Read(p)
		if n < 0 || n > size {
			return nil, fmt.Errorf("Read of %d bytes returned the count %d", size, n)
		}
		return p[:n], err
	}
	styles := []readStyle{
		{"ReadByte", func(c network.Conn, _, _ int) ([]byte, error) { return one(c.ReadByte()) }},
		{"ReadByte, Read, ReadBinary, Peek and Skip in turn", func(c network.Conn, i, left int) ([]byte, error) {
			switch i % 4 {
			case 0:
				return read(c, 1+i%7)
			case 1:
				return c.ReadBinary(within(1+i%5, left))
			case 2:
				return take(c, within(1+i%11, left), i%3 == 0)
			}
			return one(c.ReadByte())
		}},
	}
	for _, n := range counts {
		styles = append(styles,
			readStyle{fmt.Sprintf("Read of %d bytes", n), func(c network.Conn, _, _ int) ([]byte, error) { return read(c, n) }},
			readStyle{fmt.Sprintf("ReadBinary(%d)", n), func(c network.Conn, _, left int) ([]byte, error) { return c.ReadBinary(within(n, left)) }},
			readStyle{fmt.Sprintf("Peek(%d) and Skip", n), func(c network.Conn, i, left int) ([]byte, error) { return take(c, within(n, left), i%3 == 0) }})
	}
	return styles
}

// readAll reads data in a style, and goes on after timeouts.
func (t *connCheck) readAll(c network.Conn, style readStyle, data []byte, from string) {
	t.step("reading %d bytes by %s, from %s", len(data), style.name, from)
	var got []byte
	for i := 0; ; i++ {
		p, err := style.next(c, i, len(data)-len(got))
		got = append(got, p...)
		if errors.Is(err, io.EOF) {
			break
		}
		// The limit ends a reader that makes no progress.
		t.expect(err == nil || looksLikeTimeout(err), "no error but timeouts", "%s after %d bytes", describeError(err), len(got))
		t.expect(i < 20*len(data)+10_000 && len(got) <= len(data), "the end", "none after %d calls and %d bytes", i, len(got))
	}
	t.equal(got, data)
}

func oddReaders(t *connCheck) {
	// What a peer can do: it writes in pieces that have nothing to do with the
	// reads.
	data := pattern(20_000)
	for _, chunk := range []int{1, 3, 1237} {
		data := data[:min(len(data), 1000*chunk)]
		for _, style := range readStyles(100, usualBlock+1) {
			a, b := t.pair()
			t.spawn(func() {
				for rest := data; len(rest) > 0; {
					n := min(chunk, len(rest))
					if _, err := b.Write(rest[:n]); err != nil {
						return
					}
					rest = rest[n:]
				}
				b.Close()
			})
			t.readAll(a, style, data, fmt.Sprintf("a peer that writes %d at a time", chunk))
		}
	}
	if !t.canWrap() {
		return
	}
	readers := []struct {
		name string
		make func(io.Reader) io.Reader
	}{
		{"a conn", func(r io.Reader) io.Reader { return r }},
		{"a conn that reads single bytes", iotest.OneByteReader},
		{"a conn that reads half of what is asked for", iotest.HalfReader},
		{"a conn that returns the last bytes with io.EOF", iotest.DataErrReader},
		{"a conn that reads half and returns the last bytes with io.EOF", func(r io.Reader) io.Reader { return iotest.DataErrReader(iotest.HalfReader(r)) }},
		{"a conn whose second read times out", func(r io.Reader) io.Reader { return &stutterReader{r: r, err: os.ErrDeadlineExceeded, only: 2} }},
		{"a conn of which every other read times out", func(r io.Reader) io.Reader {
			return &stutterReader{r: iotest.HalfReader(r), err: os.ErrDeadlineExceeded}
		}},
		{"a conn of which every other read is empty", func(r io.Reader) io.Reader { return &stutterReader{r: r} }},
	}
	sizes := []int{0, 1, 2, 64, 1000, usualBlock - 1, usualBlock, usualBlock + 1, 3*usualBlock + 1}
	counts := []int{1, 7, 64, 1000, usualBlock - 1, usualBlock, usualBlock + 1}
	if t.short || raceEnabled {
		sizes = []int{0, 1, 1000, usualBlock + 1}
		counts = []int{1, 1000, usualBlock}
	}
	for _, r := range readers {
		for _, style := range readStyles(counts...) {
			for _, size := range sizes {
				t.readAll(t.sourced(r.make(bytes.NewReader(data[:size]))), style, data[:size], r.name)
			}
		}
	}
}

// stutterReader returns err, or (0, nil), at every other Read, or at one only.
type stutterReader struct {
	r    io.Reader
	err  error
	only int
	n    int
}

func (s *stutterReader) Read(p []byte) (int, error) {
	s.n++
	if s.only == 0 && s.n%2 == 1 || s.n == s.only {
		return 0, s.err
	}
	return s.r.Read(p)
}

func timeoutsShape(t *connCheck) {
	data := pattern(5000)
	a, _ := t.buffered(data)
	shape := func(err error) {
		op, ok := err.(*net.OpError)
		t.expect(ok && op.Timeout() && errors.Is(err, os.ErrDeadlineExceeded),
			"a *net.OpError with Timeout() true that is os.ErrDeadlineExceeded", "%s", describeError(err))
	}
	limit := func() {
		t.step("SetReadTimeout(%v)", shortWait)
		t.noError(a.SetReadTimeout(shortWait))
	}
	for _, op := range []struct {
		name string
		do   func(n int) ([]byte, error)
	}{{"Peek", a.Peek}, {"ReadBinary", a.ReadBinary}} {
		limit()
		t.step("%s(5001) of a stream that stalls after 5000 bytes, after SetReadTimeout(%v)", op.name, shortWait)
		p, err := op.do(5001)
		shape(err)
		t.expect(p == nil, "nil with the error", "%d bytes", len(p))
		t.expect(a.Len() == 5000, "Len to stay 5000", "%d", a.Len())
	}
	t.peek(a, data)
	t.skip(a, len(data))
	for _, op := range readerOps {
		limit()
		t.step("%s of a stream that stalls, after SetReadTimeout(%v)", op.name, shortWait)
		_, err := op.do(a)
		if op.name == "Skip(1)" && err != nil && !looksLikeTimeout(err) {
			continue // refused: the business of R15
		}
		shape(err)
	}
	if !t.canWrap() {
		return
	}
	for _, timeout := range foreignErrors() {
		near, far := tcpPair(t.check)
		c := t.wrap(foreignTimeouts{near, timeout})
		t.feed(far, data)
		t.peek(c, data)
		t.step("SetReadTimeout(%v)", shortWait)
		t.noError(c.SetReadTimeout(shortWait))
		t.step("Peek(5001) with 5000 bytes buffered and no more to come, after SetReadTimeout(%v), over a conn whose timeout is a %s", shortWait, describeError(timeout))
		p, err := c.Peek(5001)
		shape(err)
		t.expect(p == nil, "nil with the error", "%d bytes", len(p))
		t.peek(c, data)
		t.skip(c, len(data))
		for _, op := range readerOps {
			t.step("%s of a stream that stalls, after SetReadTimeout(%v), over a conn whose timeout is a %s", op.name, shortWait, describeError(timeout))
			_, err := op.do(c)
			if op.name == "Skip(1)" && err != nil && !looksLikeTimeout(err) {
				continue
			}
			shape(err)
		}
	}
	for _, end := range []error{io.ErrUnexpectedEOF, syscall.ECONNRESET, errors.New("the kit's")} {
		for range 2 {
			c, _ := t.scripted(Step{Data: data[:2000]}, Step{Data: data[2000:]}, Step{Err: end})
			t.step("Peek(5001) over a conn that fails after 5000 bytes with %v", end)
			p, err := c.Peek(5001)
			t.expect(p == nil && err != nil, "nil and an error", "%d bytes and %s", len(p), describeError(err))
			t.unmoved(c, data)
			t.step("ReadBinary(5001) over a conn that fails after 5000 bytes with %v", end)
			p, err = c.ReadBinary(5001)
			t.expect(p == nil && err != nil, "nil and an error", "%d bytes and %s", len(p), describeError(err))
			t.unmoved(c, data)
		}
	}
}

// foreignTimeouts is a conn whose timeouts are err, as those of a library that has
// its own.
type foreignTimeouts struct {
	net.Conn
	err error
}

func (c foreignTimeouts) Read(p []byte) (int, error) {
	n, err := c.Conn.Read(p)
	return n, c.own(err)
}

func (c foreignTimeouts) Write(p []byte) (int, error) {
	n, err := c.Conn.Write(p)
	return n, c.own(err)
}

func (c foreignTimeouts) own(err error) error {
	if errors.Is(err, os.ErrDeadlineExceeded) {
		return c.err
	}
	return err
}

// foreignErrors are timeouts by their word, or by errors.Is.
func foreignErrors() []error {
	return []error{
		foreignTimeout{},
		&net.OpError{Op: "kit", Net: "kit", Err: foreignTimeout{}},
		fmt.Errorf("the kit's: %w", os.ErrDeadlineExceeded),
	}
}

type foreignTimeout struct{}

func (foreignTimeout) Error() string   { return "the kit's own timeout" }
func (foreignTimeout) Timeout() bool   { return true }
func (foreignTimeout) Temporary() bool { return true }
