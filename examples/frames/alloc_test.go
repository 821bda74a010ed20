//go:build !race

// Under the race detector sync.Pool drops blocks at random, so there is nothing to count.

package main

import (
	"bytes"
	"fmt"
	"testing"
	"time"

	"github.com/hertznet/hertznet/standard"
)

// An exchange allocates nothing on the server, TLS apart: neither to read a request nor
// to answer it, be its payload copied or borrowed, the answers sent each by itself or
// together. The client of the test allocates nothing either, so all that is counted is
// the server's.
func TestExchangeAllocatesNothing(t *testing.T) {
	for _, network := range []string{"tcp", "unix"} {
		ln := listen(t, network)
		s := start(ln, nil)
		defer s.transport.Close()
		for _, test := range []struct {
			kind        kind
			size, times int // pipelined
		}{
			{echo, 100, 1}, {echo, 5000, 1}, {echo, 200_000, 1}, {sum, 200_000, 1}, {echo, 100, 16}, {sum, 2000, 16},
		} {
			t.Run(fmt.Sprintf("%s/type %d/%d bytes/%d at once", network, test.kind, test.size, test.times), func(t *testing.T) {
				c, err := new(standard.Dialer).DialConnection(network, ln.Addr().String(), limit, nil)
				if err != nil {
					t.Fatal(err)
				}
				defer c.Close()
				if err := c.SetDeadline(time.Now().Add(time.Minute)); err != nil {
					t.Fatal(err)
				}
				requests := bytes.Repeat(request(test.kind, 1, payload(test.size)), test.times)
				answers := bytes.Repeat(request(answer, 1, want(test.kind, payload(test.size))), test.times)
				exchange := func() {
					c.WriteBinary(requests)
					if err := c.Flush(); err != nil {
						t.Fatal(err)
					}
					b, err := c.Peek(len(answers))
					if err != nil || !bytes.Equal(b, answers) {
						t.Fatalf("wrong answers, %v", err)
					}
					c.Skip(len(b))
					c.Release()
				}
				for range 100 { // the sizes of blocks settle, the pools fill
					exchange()
				}
				before := s.handled.Load()
				if n := testing.AllocsPerRun(500, exchange); n != 0 {
					t.Errorf("%v allocations in an exchange", n)
				}
				if n := s.handled.Load() - before; n != int64(501*test.times) { // one more to warm up
					t.Fatalf("the server has handled %d requests, want %d", n, 501*test.times)
				}
			})
		}
	}
}
