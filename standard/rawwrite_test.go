package standard

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"net"
	"os"
	"strings"
	"testing"
	"time"
)

// W15: pieces of every size arrive in their order where the socket takes only some of them
// at once.
func TestW15_PiecesPassASmallSocketBuffer(t *testing.T) {
	for _, s := range sockets[:2] {
		t.Run(s.name, func(t *testing.T) {
			x, y := s.pair(t)
			if err := x.(buffered).SetWriteBuffer(16 << 10); err != nil {
				t.Fatal(err)
			}
			c := NewConn(x)
			r := rand.New(rand.NewPCG(1, 2))
			var want []byte
			var flushes [][][]byte
			for i := range 100 {
				var pieces [][]byte
				most := 3 * borrowFrom
				if i%2 == 0 {
					most = max(most, maxRawWrite) // often one piece
				}
				for left := 1 + r.IntN(maxRawWrite+8<<10); left > 0; {
					p := pattern(1 + r.IntN(min(left, most)))
					pieces = append(pieces, p)
					want = append(want, p...)
					left -= len(p)
				}
				flushes = append(flushes, pieces)
			}
			got := collect(y, len(want))
			for _, pieces := range flushes {
				for _, p := range pieces {
					if r.IntN(2) == 0 {
						add(t, c, p)
					} else {
						put(t, c, p)
					}
				}
				mustFlush(t, c)
			}
			sameBytes(t, "wire", <-got, want)
		})
	}
}

// T8, C2, C6: what ends a write that waits for room, of one piece and of several.
func TestC2_WhatEndsABlockedWrite(t *testing.T) {
	for _, s := range sockets[:2] {
		for _, size := range []int{borrowFrom - 1, 2 * borrowFrom} { // with the 100 bytes before it: one piece, and two
			// fill flushes until the socket takes no more.
			fill := func(c *Conn) error {
				p := pattern(size)
				for {
					if _, err := c.Malloc(100); err != nil {
						return err
					}
					if _, err := c.WriteBinary(p); err != nil {
						return err
					}
					if err := c.Flush(); err != nil {
						return err
					}
				}
			}
			for _, test := range []struct {
				name string
				end  func(c *Conn, peer net.Conn)
				want error
			}{
				{"timeout", func(*Conn, net.Conn) {}, os.ErrDeadlineExceeded},
				{"Close", func(c *Conn, _ net.Conn) { c.Close() }, net.ErrClosed},
			} {
				t.Run(fmt.Sprintf("%s/%s/%d bytes", s.name, test.name, size), func(t *testing.T) {
					x, y := s.pair(t)
					small(t, x, y)
					c := NewConn(x)
					if test.want == os.ErrDeadlineExceeded {
						_ = c.SetWriteTimeout(50 * time.Millisecond)
					}
					failed := inside(t, &c.wr, func() error { return fill(c) })
					test.end(c, y)
					err := ends(t, failed)
					op, ok := err.(*net.OpError)
					if !ok || !strings.HasPrefix(op.Op, "write") || !errors.Is(err, test.want) {
						t.Fatalf("got %T: %v, want %v of a write in a *net.OpError", err, err, test.want)
					}
					if got := c.Flush(); test.want == os.ErrDeadlineExceeded && got != err {
						t.Errorf("then %v, want the same error", got)
					}
				})
			}
		}
	}
}

type buffered interface {
	SetReadBuffer(int) error
	SetWriteBuffer(int) error
}

// small makes the buffers of a connection as small as they can be.
func small(t *testing.T, x, y net.Conn) {
	t.Helper()
	for _, c := range []net.Conn{x, y} {
		if err := errors.Join(c.(buffered).SetReadBuffer(1), c.(buffered).SetWriteBuffer(1)); err != nil {
			t.Fatal(err)
		}
	}
}
