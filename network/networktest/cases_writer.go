package networktest

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"runtime"
	"sync"
	"sync/atomic"
	"time"

	"github.com/hertznet/hertznet/network"
)

var writerCases = []connCase{
	{"W1", 0, outputOfAnySize},
	{"W2", 0, nothingBeforeFlush},
	{"W3", 0, orderOfWriters},
	{"W4", 0, nothingToSend},
	{"W5", 0, impossibleMallocs},
	{"W6", 0, emptyWriteBinary},
	{"W7", 0, shortWrite},
	{"W8", 0, failedFlushStays},
	{"W9", 0, prefixOfOutput},
	{"W10", 0, impossibleWriteCount},
	{"W11", 0, smallMallocs},
	{"W12", 0, writeFlushesFirst},
	{"W13", 0, readFrom},
	{"W14", 60 * time.Second, slowReader},
	{"W15", 0, headerAndBody},
}

var errFault = errors.New("networktest: the fault that was asked for")

// outflow is what a connection was told to send, message by message, and what its
// peer reads of it in the background.
type outflow struct {
	t       *connCheck
	a       network.Conn
	source  []byte
	at      int
	want    []byte
	marks   []outflowMark
	mu      sync.Mutex
	got     []byte
	reading *op
}

// outflowMark is where a message begins, and how it was sent.
type outflowMark struct {
	at   int
	what string
}

func (t *connCheck) outflow(a, b network.Conn) *outflow {
	o := &outflow{t: t, a: a, source: pattern(1 << 20)}
	o.reading = t.spawn(func() {
		p := make([]byte, 64<<10)
		for {
			n, err := b.Read(p)
			o.mu.Lock()
			o.got = append(o.got, p[:max(n, 0)]...)
			o.mu.Unlock()
			if err != nil {
				return
			}
		}
	})
	return o
}

// mark begins a message.
func (o *outflow) mark(format string, args ...any) {
	o.t.step(format, args...)
	o.marks = append(o.marks, outflowMark{len(o.want), fmt.Sprintf(format, args...)})
}

// next returns the next n bytes of the message, which the caller sends.
func (o *outflow) next(n int) []byte {
	if o.at+n > len(o.source) {
		o.at = o.at % 7
	}
	p := o.source[o.at : o.at+n]
	o.at += n
	o.want = append(o.want, p...)
	return p
}

// end closes the connection and compares what its peer has read to its end.
func (o *outflow) end() {
	idle(func() (int, bool) {
		o.mu.Lock()
		defer o.mu.Unlock()
		return len(o.got), len(o.got) >= len(o.want)
	})
	o.a.Close()
	o.t.wait(o.reading)
	if bytes.Equal(o.got, o.want) {
		return
	}
	at := 0
	for at < min(len(o.got), len(o.want)) && o.got[at] == o.want[at] {
		at++
	}
	message := 0
	for message+1 < len(o.marks) && o.marks[message+1].at <= at {
		message++
	}
	from, to := o.marks[message].at, len(o.want)
	if message+1 < len(o.marks) {
		to = o.marks[message+1].at
	}
	o.t.step("%s", o.marks[message].what)
	if at == to {
		o.t.expect(false, "the stream to end there", "%d bytes more", len(o.got)-to)
	}
	o.t.expect(false, fmt.Sprintf("its %d bytes as they were sent", to-from), "%d of them, then %d other bytes up to the end of the stream", at-from, len(o.got)-at)
}

// idle waits for a reader to be done, or for it to make no progress any more. A
// Close before that may cut off what is still under way.
func idle(progress func() (n int, done bool)) {
	for last, still := -1, 0; still < 300; still++ {
		n, done := progress()
		if done {
			return
		}
		if n != last {
			last, still = n, 0
		}
		time.Sleep(time.Millisecond)
	}
}

// onSocket returns a connection whose system calls can be told apart, and its
// peer: one over a socket and without TLS. beneath is nil if that is not known.
func (t *connCheck) onSocket() (a, b network.Conn, beneath net.Conn, ok bool) {
	if t.canWrap() {
		x, y := tcpPair(t.check)
		return t.wrap(x), Reference(y), x, true
	}
	a, b = t.pair()
	if _, secure := a.(network.ConnTLSer); secure || a.LocalAddr() == nil {
		return a, b, nil, false
	}
	switch a.LocalAddr().Network() {
	case "tcp", "tcp4", "tcp6", "unix":
		return a, b, nil, true
	}
	return a, b, nil, false
}

// fewestWrites runs f several times and returns the fewest system calls for
// writing that one took: others on the thread, the runtime's, only add. What the
// kernel does not count, as sendmsg, is seen by the segments that left, of which each
// call makes at least one. ok is false if there is no way to know.
func (t *connCheck) fewestWrites(rounds int, beneath net.Conn, f func()) (fewest int, ok bool) {
	fewest = maxInt
	for range rounds {
		before, _ := segmentsSent(beneath)
		_, writes, counted := systemCalls(f)
		if !counted {
			return 0, false
		}
		if after, ok := segmentsSent(beneath); ok {
			writes = max(writes, after-before)
		}
		fewest = min(fewest, writes)
	}
	return fewest, true
}

// ways to add to the output.
type writerWay struct {
	name  string
	write func(p []byte)
}

func (t *connCheck) writerWays(c network.Conn) []writerWay {
	ways := []writerWay{
		{"Malloc", func(p []byte) { t.malloc(c, p) }},
		{"WriteBinary", func(p []byte) { t.writeBinary(c, p) }},
		{"Write", func(p []byte) {
			_, err := c.Write(p)
			t.noError(err)
		}},
	}
	if rf, ok := c.(io.ReaderFrom); ok {
		ways = append(ways, writerWay{"ReadFrom", func(p []byte) {
			_, err := rf.ReadFrom(readerOf(bytes.NewReader(p)))
			t.noError(err)
		}})
	}
	return ways
}

// W1, with one way of adding in each message: their order is that of W3.
func outputOfAnySize(t *connCheck) {
	edges := []int{512, 1 << 10, 2 << 10, 4 << 10, 8 << 10, 16 << 10, 32 << 10, 64 << 10, 128 << 10}
	if t.short {
		edges = []int{4 << 10, 8 << 10, 64 << 10}
	}
	a, b := t.pair()
	o := t.outflow(a, b)
	for _, edge := range edges {
		for size := edge - 1; size <= edge+1; size++ {
			for _, before := range []int{0, 1, 4095} {
				for _, way := range t.writerWays(a)[:2] {
					o.mark("%s of %d, %d and 1 bytes, and Flush", way.name, before, size)
					if before > 0 {
						way.write(o.next(before))
					}
					way.write(o.next(size))
					way.write(o.next(1))
					t.flush(a)
				}
			}
		}
	}
	o.end()
}

// W2. From outside a moment of silence must do; over a conn of the kit each write
// shows.
func nothingBeforeFlush(t *connCheck) {
	p := pattern(100 << 10)
	a, b := t.pair()
	total := 0
	add := func(write func(network.Conn, []byte), c network.Conn, n int) {
		write(c, p[:n])
		total += n
	}
	malloc := func(c network.Conn, p []byte) { t.malloc(c, p) }
	arrived := make(chan struct{})
	t.spawn(func() {
		q := make([]byte, 64<<10)
		if n, err := b.Read(q[:1]); n == 0 || err != nil {
			return
		}
		close(arrived)
		for {
			if _, err := b.Read(q); err != nil {
				return
			}
		}
	})
	add(malloc, a, 10)
	add(t.writeBinary, a, 10)
	add(t.writeBinary, a, len(p))
	add(malloc, a, len(p))
	t.step("Malloc and WriteBinary of %d bytes without Flush", total)
	select {
	case <-arrived:
		t.expect(false, "nothing to arrive", "the first byte did")
	case <-time.After(30 * time.Millisecond):
	}
	t.flush(a)
	<-arrived
	if !t.canWrap() {
		return
	}
	c, s := t.scripted()
	total = 0
	for _, n := range []int{1, 0, 100, 5000, 70_000, len(p)} {
		for _, write := range []func(network.Conn, []byte){malloc, t.writeBinary} {
			add(write, c, n)
			_, writes := s.calls()
			t.step("Malloc and WriteBinary of %d bytes in all without Flush", total)
			t.expect(writes == 0, "no write to the conn beneath", "%d with %d bytes", writes, len(s.sent()))
		}
	}
}

// W3: every way after every other one, with a small and a large piece of each.
func orderOfWriters(t *connCheck) {
	a, b := t.pair()
	o := t.outflow(a, b)
	ways := t.writerWays(a)
	for _, first := range ways {
		for _, second := range ways {
			for _, size := range []int{7, 5003} {
				o.mark("%s of %d bytes, then %s of %d", first.name, size, second.name, size/2)
				first.write(o.next(size))
				second.write(o.next(size / 2))
			}
		}
	}
	t.flush(a)
	o.end()
}

func nothingToSend(t *connCheck) {
	a, b := t.pair()
	o := t.outflow(a, b)
	nothing := func(c network.Conn) {
		t.step("Flush with nothing pending")
		t.noError(c.Flush())
		for _, p := range [][]byte{nil, {}} {
			t.step("Write of nothing with nothing pending")
			n, err := c.Write(p)
			t.noError(err)
			t.expect(n == 0, "a count of 0", "%d", n)
		}
		t.step("Flush with nothing pending")
		t.noError(c.Flush())
	}
	nothing(a)
	o.mark("a Flush of one byte between those of nothing")
	t.malloc(a, o.next(1))
	t.flush(a)
	nothing(a)
	o.end()
	for range 2 {
		t.step("Flush with nothing pending after Close")
		t.noError(a.Flush())
	}
	if t.canWrap() {
		c, s := t.scripted()
		nothing(c)
		t.malloc(c, []byte("x"))
		t.flush(c)
		_, before := s.calls()
		nothing(c)
		_, writes := s.calls()
		t.step("Flush and Write(nil) with nothing pending")
		t.expect(writes == before && before <= 1, "no write to the conn beneath", "%d", max(writes-before, before-1))
		c.Close()
		t.noError(c.Flush())
		_, writes = s.calls()
		t.expect(writes == before, "no write to the conn beneath after Close", "%d", writes-before)
	}
	if c, _, beneath, ok := t.onSocket(); ok {
		if writes, ok := t.fewestWrites(5, beneath, func() { nothing(c) }); ok {
			t.step("Flush and Write(nil) with nothing pending")
			t.expect(writes == 0, "no system call", "%d for writing", writes)
		}
	}
}

func impossibleMallocs(t *connCheck) {
	a, b := t.pair()
	o := t.outflow(a, b)
	o.mark("Malloc of 7 bytes and Flush, with Mallocs of impossible counts in between")
	t.malloc(a, o.next(7))
	for range 2 {
		t.step("Malloc(0)")
		p, err := a.Malloc(0)
		t.expect(err == nil && len(p) == 0, "no bytes and no error", "%d bytes and %s", len(p), describeError(err))
	}
	for _, n := range []int{-1, minInt, minInt + 1, maxInt, maxInt - 1} {
		t.step("Malloc(%d)", n)
		p, err := a.Malloc(n)
		t.expect(err != nil && len(p) == 0, "an error and no bytes", "%d bytes and %s", len(p), describeError(err))
	}
	t.flush(a)
	o.end()
}

func emptyWriteBinary(t *connCheck) {
	empty := func(c network.Conn, p []byte) {
		t.step("WriteBinary of nothing")
		n, err := c.WriteBinary(p)
		t.expect(err == nil && n == 0, "0 and no error", "%d and %s", n, describeError(err))
	}
	a, b := t.pair()
	o := t.outflow(a, b)
	o.mark("two Mallocs, with WriteBinary of nothing before, between and after them, and Flush")
	empty(a, nil)
	p := t.malloc(a, o.next(5))
	empty(a, nil)
	empty(a, []byte{})
	q := t.malloc(a, o.next(5))
	empty(a, nil)
	copy(p, o.want) // they are still where they were
	copy(q, o.want[5:])
	t.flush(a)
	o.end()
	if t.canWrap() {
		c, s := t.scripted()
		t.flush(c)
		_, before := s.calls() // none, says W4
		empty(c, nil)
		empty(c, []byte{})
		t.step("WriteBinary(nil) and Flush")
		t.noError(c.Flush())
		_, writes := s.calls()
		t.expect(writes-before == before, "no write to the conn beneath", "%d", writes-before)
	}
}

func smallMallocs(t *connCheck) {
	const mallocs = 2000
	a, b := t.pair()
	o := t.outflow(a, b)
	o.mark("%d Mallocs of 10 bytes and Flush", mallocs)
	for range mallocs {
		t.malloc(a, o.next(10))
	}
	t.flush(a)
	o.end()
	few := func(writes int, of string) {
		t.step("%d Mallocs of 10 bytes and Flush", mallocs)
		t.expect(writes <= mallocs/10, fmt.Sprintf("at most %d %s", mallocs/10, of), "%d", writes)
	}
	if t.canWrap() {
		c, s := t.scripted()
		for range mallocs {
			t.malloc(c, o.source[:10])
		}
		t.flush(c)
		_, writes := s.calls()
		few(writes, "writes to the conn beneath")
	}
	if c, peer, beneath, ok := t.onSocket(); ok {
		t.outflow(c, peer)
		writes, ok := t.fewestWrites(3, beneath, func() {
			for range mallocs {
				t.malloc(c, o.source[:10])
			}
			t.flush(c)
		})
		if ok {
			few(writes, "system calls")
		}
	}
}

// quotaConn takes so many bytes, however they are cut, and then fails.
type quotaConn struct {
	scriptConn
	quota int
}

func (c *quotaConn) Write(p []byte) (int, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	n := min(c.quota, len(p))
	c.quota -= n
	c.wire = append(c.wire, p[:n]...)
	if n < len(p) {
		return n, errFault
	}
	return n, nil
}

func slowReader(t *connCheck) {
	total := 64 << 20
	if t.short {
		total = 8 << 20
	}
	a, b := t.pair()
	chunk := pattern(1 << 20)
	var arrived atomic.Int64
	var wrong string
	reading := t.spawn(func() {
		p := make([]byte, 20_001)
		for at := 0; at < total; arrived.Store(int64(at)) {
			n, err := b.Read(p)
			for q := p[:max(n, 0)]; len(q) > 0; {
				k := min(len(q), len(chunk)-at%len(chunk))
				if !bytes.Equal(q[:k], chunk[at%len(chunk):at%len(chunk)+k]) {
					wrong = fmt.Sprintf("other bytes somewhere from byte %d on", at)
					return
				}
				q, at = q[k:], at+k
			}
			if err != nil {
				wrong = fmt.Sprintf("%d bytes and %s", at, describeError(err))
				return
			}
			if rand.IntN(100) == 0 {
				runtime.Gosched()
			}
		}
	})
	const flushed = 8 << 20
	for range total / flushed {
		for range flushed / len(chunk) {
			t.writeBinary(a, chunk)
		}
		t.step("Flush of 8 MiB, one of many, to a peer that reads 20,001 bytes at a time")
		if err := a.Flush(); !reading.returned() {
			t.noError(err)
		}
	}
	idle(func() (int, bool) { return int(arrived.Load()), reading.returned() })
	a.Close()
	t.wait(reading)
	t.step("WriteBinary of 1 MiB and Flush of 8 MiB each, %d MiB in all, to a peer that reads 20,001 bytes at a time", total>>20)
	t.expect(wrong == "", "all bytes as they were sent", "%s", wrong)
}

// W15 on Linux, where the kernel counts system calls by thread. The records of TLS
// are the business of group L.
func headerAndBody(t *connCheck) {
	a, b, beneath, ok := t.onSocket()
	if !ok {
		t.notApplicable("the connection is not a bare socket whose system calls could be counted")
	}
	t.outflow(a, b)
	p := pattern(10_000)
	for _, body := range []int{100, 5000, 9000} {
		writes, ok := t.fewestWrites(10, beneath, func() {
			t.malloc(a, p[:200])
			t.writeBinary(a, p[:body])
			t.flush(a)
		})
		if !ok {
			t.notApplicable("the system does not count system calls")
		}
		if writes == 0 {
			t.notApplicable("the kernel does not count the connection's system calls for writing, or another thread makes them")
		}
		t.step("Malloc of 200 bytes, WriteBinary of %d, Flush", body)
		t.expect(writes == 1, "one system call", "%d", writes)
	}
}
