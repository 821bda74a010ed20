package networktest

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"runtime"
	"sync"
	"syscall"
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
