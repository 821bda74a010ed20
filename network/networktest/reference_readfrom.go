package networktest

import (
	"fmt"
	"io"
	"net"
)

const referenceCopy = 32 << 10 // bytes that ReadFrom asks its source for

// ReadFrom flushes what is pending and writes what r has until its end, each time
// as an operation of its own [W13]. After an error of r alone the connection is as
// good as before. It copies files, too: a socket could take them by sendfile.
func (c *reference) ReadFrom(r io.Reader) (n int64, err error) {
	c.writeMu.Lock()
	defer c.writeMu.Unlock()
	if err := c.flush(); err != nil {
		return 0, err
	}
	if c.closed.Load() {
		return 0, c.fail("write", net.ErrClosed)
	}
	p := make([]byte, referenceCopy)
	for empty := 0; empty <= maxEmptyReads; empty++ {
		m, rerr := r.Read(p)
		if m < 0 || m > len(p) {
			return n, fmt.Errorf("networktest: %T.Read returned the count %d for %d bytes", r, m, len(p))
		}
		if m > 0 {
			empty = -1 // only those in a row count
			w, err := c.write(p[:m])
			n += int64(w)
			if err != nil {
				c.writeErr = err // bytes of r are lost
				return n, err
			}
		}
		if rerr == io.EOF {
			return n, nil
		}
		if rerr != nil {
			return n, rerr
		}
	}
	return n, io.ErrNoProgress
}
