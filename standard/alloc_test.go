//go:build !race

// Under the race detector sync.Pool drops blocks at random, so there is nothing
// to count.

package standard

import (
	"net"
	"testing"
	"time"
)

// keepAlive is one exchange of a keep-alive connection, as Hertz does it: timeouts
// set, a request Peeked and skipped, an answer of Malloc and of WriteBinary, Release,
// Flush; then the client takes the answer.
type keepAlive struct {
	client, server *Conn
	request, body  []byte
	header         int
}

func (e *keepAlive) run(t testing.TB) {
	check := func(err error) {
		if err != nil {
			t.Fatal(err)
		}
	}
	client, server := e.client, e.server

	check(client.SetWriteTimeout(time.Minute))
	_, err := client.WriteBinary(e.request)
	check(err)
	check(client.Flush())

	check(server.SetReadTimeout(time.Minute)) // the idle timeout
	_, err = server.Peek(4)
	check(err)
	check(server.SetReadTimeout(3 * time.Minute))
	check(server.SetWriteTimeout(time.Minute))
	_, err = server.Peek(len(e.request))
	check(err)
	check(server.Skip(len(e.request)))
	p, err := server.Malloc(e.header)
	check(err)
	clear(p)
	_, err = server.WriteBinary(e.body)
	check(err)
	check(server.Release())
	check(server.Flush())

	check(client.SetReadTimeout(time.Minute))
	_, err = client.Peek(1)
	check(err)
	n := e.header + len(e.body)
	_, err = client.Peek(n)
	check(err)
	check(client.Skip(n))
	check(client.Release())
}

// P1: a keep-alive exchange allocates nothing in its steady state, on either side and
// with the socket beneath, whatever its messages are like. The kit has small ones, and
// one side over a conn of its own.
func TestP1_KeepAliveExchangeAllocatesNothing(t *testing.T) {
	for _, s := range sockets[:2] {
		for _, test := range []struct {
			name          string
			request, body int
		}{
			{"a small answer", 200, 100},
			{"a body that is borrowed", 200, borrowFrom},
			{"a body of several blocks", 200, 32 << 10},
			{"a large request", 20_000, 100},
		} {
			t.Run(s.name+"/"+test.name, func(t *testing.T) {
				x, y := s.pair(t)
				e := &keepAlive{NewConn(x), NewConn(y), pattern(test.request), pattern(test.body), 150}
				for range 100 { // the sizes of blocks settle, the pools fill
					e.run(t)
				}
				if n := testing.AllocsPerRun(500, func() { e.run(t) }); n != 0 {
					t.Errorf("%v allocations in an exchange", n)
				}
			})
		}
	}
}

// P1: the same over TLS costs what crypto/tls itself allocates, and no more.
func TestP1_TLSExchangeAllocatesWhatCryptoTLSDoes(t *testing.T) {
	a, b := secureEnds(t, nil)
	e := &keepAlive{&a.Conn, &b.Conn, pattern(200), pattern(borrowFrom), 150}
	for range 100 {
		e.run(t)
	}
	ours := testing.AllocsPerRun(500, func() { e.run(t) })

	// The same records, without a buffer above them.
	request, answer := pattern(200), pattern(150+borrowFrom)
	bare := func(from, to net.Conn, p []byte) {
		if _, err := from.Write(p); err != nil {
			t.Fatal(err)
		}
		for n := 0; n < len(p); {
			k, err := to.Read(p[n:])
			if err != nil {
				t.Fatal(err)
			}
			n += k
		}
	}
	x, y := secureEnds(t, nil)
	exchange := func() {
		bare(x.tls, y.tls, request)
		bare(y.tls, x.tls, answer)
	}
	for range 100 {
		exchange()
	}
	theirs := testing.AllocsPerRun(500, exchange)
	t.Logf("allocations in an exchange: %v, of crypto/tls alone: %v", ours, theirs)
	if ours > theirs {
		t.Errorf("%v allocations in an exchange, and crypto/tls alone has %v", ours, theirs)
	}
}

// P1: deadlines, and Read and Write, allocate nothing either.
func TestP1_NetConnsMethodsAllocateNothing(t *testing.T) {
	x, y := tcpPair(t)
	a, b := NewConn(x), NewConn(y)
	at := time.Now().Add(time.Hour)
	small := pattern(100)
	for name, f := range map[string]func(){
		"SetReadDeadline":  func() { _ = a.SetReadDeadline(at) },
		"SetWriteDeadline": func() { _ = a.SetWriteDeadline(at) },
		"Read and Write": func() {
			_, _ = b.Write(small)
			_, _ = a.Read(small)
		},
	} {
		if n := testing.AllocsPerRun(100, f); n != 0 {
			t.Errorf("%s: %v allocations", name, n)
		}
	}
}

// P1: nor does a bunch of messages whose answers are held back and leave together.
func TestP1_HeldAnswersAllocateNothing(t *testing.T) {
	x, y := tcpPair(t)
	client, server := NewConn(x), NewConn(y)
	request, answer := pattern(16*100), pattern(150)
	exchange := func() {
		_, _ = client.Write(request)
		_, _ = server.Peek(len(request)) // they have come together
		for range 16 {
			_, _ = server.Peek(100)
			_ = server.Skip(100)
			p, _ := server.Malloc(len(answer))
			copy(p, answer)
			more := server.Len() > 0
			_ = server.Release()
			var err error
			if more {
				err = server.FlushSoon()
			} else {
				err = server.Flush()
			}
			if err != nil {
				t.Fatal(err)
			}
		}
		if _, err := client.Peek(16 * len(answer)); err != nil {
			t.Fatal(err)
		}
		_ = client.Skip(16 * len(answer))
		_ = client.Release()
	}
	for range 100 {
		exchange()
	}
	if n := testing.AllocsPerRun(500, exchange); n != 0 {
		t.Errorf("%v allocations in 16 exchanges", n)
	}
}
