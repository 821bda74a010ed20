//go:build unix

package standard

import "testing"

// P3: over a socket, a connection that waits holds no memory to read into; one in
// the middle of a message holds what has come of it. The kit allows some of each.
func TestP3_WaitingHoldsNoBlock(t *testing.T) {
	for _, s := range sockets[:2] {
		for _, op := range readerOps {
			t.Run(s.name+" "+op.name, func(t *testing.T) {
				a, b := s.pair(t)
				c := NewConn(b)
				for range 3 {
					base := outstanding.Load()
					ended := make(chan struct{})
					go func() {
						defer close(ended)
						_, _ = op.do(c, 1)
					}()
					settles(t, "operations that wait", 1, func() int {
						if c.rd.is(opWaiting) {
							return 1
						}
						return 0
					})
					if got := outstanding.Load() - base; got > 0 {
						t.Errorf("holds %d blocks", got)
					}
					if _, err := a.Write([]byte("x")); err != nil {
						t.Fatal(err)
					}
					<-ended
					if got := heldBytes(c); c.Len() > 0 && got != minBlockSize {
						t.Errorf("holds %d bytes for one", got)
					}
					mustSkip(t, c, c.Len())
					mustRelease(t, c)
				}
			})
		}
	}
}
