//go:build unix

package standard

import (
	"testing"
	"time"
)

// P3: over a socket, a connection that waits holds no memory to read into; one in
// the middle of a message holds what has come of it.
func TestP3_WaitingHoldsNoBlock(t *testing.T) {
	data := pattern(1000)
	for _, s := range sockets[:2] {
		for _, op := range readerOps {
			t.Run(s.name+" "+op.name, func(t *testing.T) {
				a, b := s.pair(t)
				c := NewConn(b)
				for range 3 {
					if err := c.SetReadTimeout(time.Millisecond); err != nil {
						t.Fatal(err)
					}
					_, err := op.do(c, 1)
					wantTimeout(t, err)
					if got := heldBytes(c); got != 0 {
						t.Fatalf("holds %d bytes", got)
					}
					if _, err := a.Write(data); err != nil {
						t.Fatal(err)
					}
					if err := c.SetReadTimeout(time.Minute); err != nil {
						t.Fatal(err)
					}
					mustPeek(t, c, len(data), data)
					if got := heldBytes(c); got != minBlockSize {
						t.Fatalf("holds %d bytes for %d", got, len(data))
					}
					mustSkip(t, c, len(data))
					mustRelease(t, c)
				}
			})
		}
	}
}
