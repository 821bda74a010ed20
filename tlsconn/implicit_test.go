package tlsconn

import (
	"net"
	"testing"
	"testing/synctest"
	"time"
)

// T10, T12: a handshake that a Write or Read runs is part of it: the call's deadline ends
// it, although a Write then waits for the peer to say something, and a Read for the peer to
// take something. One that is set while it waits does so, too.
func TestT10_ImplicitHandshakeEndsWithTheCall(t *testing.T) {
	for _, late := range []bool{false, true} {
		for _, op := range []struct {
			name string
			call func(c *Conn) error
			set  func(c *Conn, at time.Time) error
			sink bool // the peer takes what is sent, and says nothing
		}{
			{"Write", func(c *Conn) error { _, err := c.Write([]byte("x")); return err }, (*Conn).SetWriteDeadline, true},
			{"Read", func(c *Conn) error { _, err := c.Read(make([]byte, 1)); return err }, (*Conn).SetReadDeadline, false},
		} {
			t.Run(op.name, func(t *testing.T) {
				synctest.Test(t, func(t *testing.T) {
					_, cc := devConfigs(t)
					cn, sn := net.Pipe()
					if op.sink {
						go func() {
							for {
								if _, err := sn.Read(make([]byte, 4096)); err != nil {
									return
								}
							}
						}()
					}
					c := Client(cn, cc)
					start := time.Now()
					if !late {
						if err := op.set(c, start.Add(time.Second)); err != nil {
							t.Fatal(err)
						}
					} else {
						time.AfterFunc(time.Second/2, func() { op.set(c, start.Add(time.Second)) })
					}
					wantTimeout(t, op.call(c))
					if d := time.Since(start); d != time.Second {
						t.Errorf("%s ended after %v", op.name, d)
					}
					c.Close()
					sn.Close()
				})
			})
		}
	}
}

// L6: a Read or a Write that comes after its deadline begins no handshake, whose failure
// would be for good.
func TestL6_NoHandshakeAfterTheDeadline(t *testing.T) {
	for _, op := range []struct {
		name string
		set  func(c *Conn, at time.Time) error
		do   func(c *Conn) error
	}{
		{"Write", (*Conn).SetWriteDeadline, func(c *Conn) error { _, err := c.Write([]byte("x")); return err }},
		{"Write of nothing", (*Conn).SetWriteDeadline, func(c *Conn) error { _, err := c.Write(nil); return err }},
		{"Read", (*Conn).SetReadDeadline, func(c *Conn) error { _, err := c.Read(make([]byte, 1)); return err }},
	} {
		t.Run(op.name, func(t *testing.T) {
			near, far := tcpPair(t)
			sc, cc := devConfigs(t)
			c, s := Client(near, cc), Server(far, sc)
			for range 2 {
				if err := op.set(c, time.Unix(1, 0)); err != nil {
					t.Fatal(err)
				}
				wantTimeout(t, op.do(c))
			}
			if err := op.set(c, time.Time{}); err != nil {
				t.Fatal(err)
			}
			shake(t, c, s)
		})
	}
}
