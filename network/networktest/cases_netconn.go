package networktest

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	"time"
)

// C11 asks what golang.org/x/net/nettest asks of a net.Conn, of a connection that
// is used through the methods of net.Conn alone.
func usedAsNetConn(t *connCheck) {
	for _, part := range []struct {
		name string
		// writesOn says that it writes after a write that timed out.
		writesOn bool
		run      func(t *connCheck, a, b net.Conn)
	}{
		{"everything arrives, and then the end of the stream", false, netConnTransfer},
		{"ping-pong", false, netConnPingPong},
		{"many readers", false, netConnReadersTogether},
		{"many readers under deadlines that pass", false, netConnManyReaders},
		{"many writers under deadlines that pass", true, netConnManyWriters},
		{"many writers", false, netConnWritersTogether},
		{"a read deadline in the past stops reads only", false, netConnReadDeadline},
		{"a write deadline in the past stops writes only", false, netConnWriteDeadline},
		{"a deadline in the past, and its end", true, netConnPast},
		{"a deadline in the past while a Read and a Write are blocked", false, netConnPresent},
		{"a deadline that comes while a Read and a Write are blocked", true, netConnFuture},
		{"Close while a Read and a Write are blocked", false, netConnClose},
		{"all methods at once", true, netConnAllMethods},
	} {
		if part.writesOn && t.behavior().PermanentWriteTimeout {
			continue
		}
		a, b := t.pair()
		t.step("only Read and Write: %s", part.name)
		part.run(t, readWriter(a), readWriter(b))
		t.step("only Read and Write: %s; and then Close, while the peer does not read", part.name)
		t.closeNow(a)
		t.closeNow(b)
	}
}

// closeTime is less than the 5 s that crypto/tls's Close gives a peer which does not
// read to take its close_notify, with the race detector as well.
const closeTime = 4 * time.Second

// closeNow is Close that must return, whatever it returns.
func (t *connCheck) closeNow(c net.Conn) {
	o := t.spawn(func() { _ = c.Close() })
	t.expect(o.within(closeTime), fmt.Sprintf("Close to return within %v, though the peer may not read", closeTime), "it was still blocked")
}

// readWriter hides the methods that a net.Conn does not have.
func readWriter(c net.Conn) net.Conn { return struct{ net.Conn }{c} }

// together has n goroutines use a connection at once, and waits for them.
func (t *connCheck) together(n int, f func(i int)) {
	var ops []*op
	for i := range n {
		ops = append(ops, t.spawn(func() { f(i) }))
	}
	for _, o := range ops {
		t.mustEnd(o, "all goroutines to end")
	}
}

// onlyTimeout is isTimeout for goroutines: it fails the check and reports false for
// an error that is none.
func (t *connCheck) onlyTimeout(what string, err error) bool {
	if err == nil || looksLikeTimeout(err) {
		return true
	}
	t.fail("a timeout, or no error, of "+what, describeError(err))
	return false
}

func netConnTransfer(t *connCheck, a, b net.Conn) {
	data := pattern(1 << 20)
	echo := t.spawn(func() { // while it is read
		_, _ = io.Copy(b, b)
		b.Close()
	})
	t.feed(a, data)
	t.equal(t.receive(a, len(data)), data)
	t.closeNow(a)
	t.mustEnd(echo, "the peer to meet the end of the stream")

	x, y := t.pair()
	t.feedAndClose(x, data)
	got := make(chan []byte, 1)
	o := t.begin(func() error {
		p, err := io.ReadAll(readerOf(y))
		got <- p
		return err
	})
	t.mustSucceed(o)
	t.equal(<-got, data)
}

func netConnPingPong(t *connCheck, a, b net.Conn) {
	const rounds = 100
	play := func(c net.Conn, n uint64) func() error {
		return func() error {
			p := make([]byte, 8)
			for ; n <= 2*rounds; n += 2 {
				if n > 0 {
					if _, err := io.ReadFull(c, p); err != nil {
						return err
					}
					if v := binary.BigEndian.Uint64(p); v != n-1 {
						return fmt.Errorf("the number %d came instead of %d", v, n-1)
					}
				}
				binary.BigEndian.PutUint64(p, n)
				if n < 2*rounds {
					if _, err := c.Write(p); err != nil {
						return err
					}
				}
			}
			return nil
		}
	}
	x, y := t.begin(play(a, 0)), t.begin(play(b, 1))
	t.mustSucceed(x)
	t.mustSucceed(y)
}

// netConnReadersTogether has readers wait for a byte each.
func netConnReadersTogether(t *connCheck, a, b net.Conn) {
	const readers = 10
	t.spawn(func() {
		time.Sleep(aWhile / 2)
		_, _ = b.Write(pattern(readers))
	})
	t.together(readers, func(int) {
		if n, err := a.Read(make([]byte, 1)); n != 1 || err != nil {
			t.fail("a byte for each of 10 goroutines that Read", fmt.Sprintf("%d bytes and %s", n, describeError(err)))
		}
	})
}

func netConnManyReaders(t *connCheck, a, b net.Conn) {
	t.spawn(func() {
		p := pattern(4 << 10)
		for {
			if _, err := b.Write(p); err != nil {
				return
			}
		}
	})
	if err := a.SetReadDeadline(time.Now().Add(time.Millisecond)); err != nil {
		t.noError(err)
	}
	t.together(10, func(int) {
		p := make([]byte, 1024)
		for range 10 {
			if _, err := a.Read(p); err != nil {
				if !t.onlyTimeout("Read", err) {
					return
				}
				_ = a.SetReadDeadline(time.Now().Add(time.Millisecond))
			}
		}
	})
}

func netConnManyWriters(t *connCheck, a, b net.Conn) {
	t.swallow(b)
	if err := a.SetWriteDeadline(time.Now().Add(time.Millisecond)); err != nil {
		t.noError(err)
	}
	t.together(10, func(int) {
		p := make([]byte, 1024)
		for range 10 {
			if _, err := a.Write(p); err != nil {
				if !t.onlyTimeout("Write", err) {
					return
				}
				_ = a.SetWriteDeadline(time.Now().Add(time.Millisecond))
			}
		}
	})
}

// netConnWritersTogether compares how often each byte was sent and came. The peer
// reads late, so that many writes wait at once.
func netConnWritersTogether(t *connCheck, a, b net.Conn) {
	const writers, each, size = 10, 16, 100 << 10
	got := t.begin(func() error {
		time.Sleep(aWhile)
		p := t.receive(b, writers*each*size)
		var count [writers]int
		for _, x := range p {
			if int(x) < writers {
				count[x]++
			}
		}
		for x, n := range count {
			if n != each*size {
				return fmt.Errorf("%d of the %d bytes of writer %d came, and %d bytes in all", n, each*size, x, len(p))
			}
		}
		return nil
	})
	t.together(writers, func(i int) {
		p := bytes.Repeat([]byte{byte(i)}, size)
		for range each {
			if _, err := a.Write(p); err != nil {
				t.fail("no error of Write", describeError(err))
				return
			}
		}
	})
	t.mustSucceed(got)
}

func netConnReadDeadline(t *connCheck, a, b net.Conn) {
	t.swallow(b)
	t.noError(a.SetReadDeadline(pastMoment))
	_, err := a.Read(make([]byte, 1024))
	t.isTimeout(err)
	_, err = a.Write(make([]byte, 1024))
	t.noError(err)
}

func netConnWriteDeadline(t *connCheck, a, b net.Conn) {
	t.feed(b, make([]byte, 1024))
	t.noError(a.SetWriteDeadline(pastMoment))
	_, err := a.Write(make([]byte, 1024))
	t.isTimeout(err)
	_, err = a.Read(make([]byte, 1024))
	t.noError(err)
}

func netConnPast(t *connCheck, a, b net.Conn) {
	t.noError(a.SetDeadline(pastMoment))
	n, err := a.Write(make([]byte, 1024))
	t.isTimeout(err)
	t.expect(n == 0, "a count of 0 from a Write after its deadline", "%d", n)
	n, err = a.Read(make([]byte, 1024))
	t.isTimeout(err)
	t.expect(n == 0, "a count of 0 from a Read after its deadline", "%d", n)
	t.stillWorks(a, b)
}

// blockBoth has one goroutine read and another one write, until each fails.
func (t *connCheck) blockBoth(a net.Conn) (read, write *ongoing) {
	read = t.begin(func() error {
		_, err := a.Read(make([]byte, 1024))
		return err
	})
	write = t.begin(func() error {
		_, err, ok := fillUp(writer2(a))
		if !ok {
			return errNeverFull
		}
		return err
	})
	return read, write
}

var errNeverFull = errors.New(neverFull)

// writer2 is writer for a net.Conn.
func writer2(c net.Conn) func(p []byte) error {
	return func(p []byte) error {
		_, err := c.Write(p)
		return err
	}
}

// bothTimeOut waits for what blockBoth began.
func (t *connCheck) bothTimeOut(read, write *ongoing) {
	t.mustTimeOut(read)
	t.mustEnd(write.op, "a timeout")
	if write.err != errNeverFull {
		t.isTimeout(write.err)
	}
}

func netConnPresent(t *connCheck, a, _ net.Conn) {
	read, write := t.blockBoth(a)
	read.within(aWhile)
	t.noError(a.SetReadDeadline(pastMoment))
	t.noError(a.SetWriteDeadline(pastMoment))
	t.bothTimeOut(read, write)
}

func netConnFuture(t *connCheck, a, b net.Conn) {
	t.noError(a.SetDeadline(time.Now().Add(2 * aWhile)))
	read, write := t.blockBoth(a)
	t.bothTimeOut(read, write)
	t.stillWorks(a, b)
}

func netConnClose(t *connCheck, a, _ net.Conn) {
	read, write := t.blockBoth(a)
	read.within(aWhile)
	t.closeNow(a)
	t.mustEnd(read.op, "the Read to end")
	t.expect(read.err != nil, "an error of the Read", "none")
	t.mustEnd(write.op, "the Write to end")
	t.expect(write.err != nil, "an error of the Write", "none")
}

func netConnAllMethods(t *connCheck, a, b net.Conn) {
	soon := func() time.Time { return time.Now().Add(10 * time.Millisecond) }
	t.together(7*15, func(i int) {
		p := make([]byte, 1024)
		switch i % 7 {
		case 0:
			_, _ = a.Read(p)
		case 1:
			_, _ = a.Write(p)
		case 2:
			_ = a.SetDeadline(soon())
		case 3:
			_ = a.SetReadDeadline(soon())
		case 4:
			_ = a.SetWriteDeadline(soon())
		case 5:
			_ = a.LocalAddr()
		case 6:
			_ = a.RemoteAddr()
		}
	})
	t.stillWorks(a, b)
}

// stillWorks lifts the deadlines and sends a message each way, behind whatever
// writes that timed out have left on the way: zeros.
func (t *connCheck) stillWorks(a, b net.Conn) {
	t.noError(a.SetDeadline(time.Time{}))
	message := []byte("not zero")
	for _, way := range [][2]net.Conn{{a, b}, {b, a}} {
		got := t.begin(func() error {
			var tail []byte
			p := make([]byte, 64<<10)
			for !bytes.HasSuffix(tail, message) {
				n, err := way[1].Read(p)
				if err != nil {
					return fmt.Errorf("after deadlines were lifted: %w", err)
				}
				tail = append(tail, p[:n]...)
				tail = tail[max(0, len(tail)-len(message)):]
			}
			return nil
		})
		_, err := way[0].Write(message)
		t.noError(err)
		t.mustSucceed(got)
	}
}
