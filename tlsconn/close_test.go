package tlsconn

import (
	"errors"
	"io"
	"net"
	"sync"
	"testing"
	"testing/synctest"
	"time"
)

// Reads and writes that are blocked end with net.ErrClosed over net.Pipe too, which has
// another error for it, and so does a write that waits for another one [L7]. The kit's TLS
// is over sockets.
func TestC2_C3_CloseOverAPipe(t *testing.T) {
	cn, sn := net.Pipe()
	defer cn.Close()
	_, s := connect(t, cn, sn, nil)
	errs := make(chan error, 3)
	go func() {
		_, err := s.Read(make([]byte, 1))
		errs <- err
	}()
	for range 2 { // the second waits for the first one's lock
		go func() {
			_, err := s.Write(make([]byte, 1<<20))
			errs <- err
		}()
	}
	for s.state.Load() < 2*2 { // both writers are in
		time.Sleep(time.Millisecond)
	}
	ends(t, "Close", func() {
		if err := s.Close(); err != nil {
			t.Error(err)
		}
		for range 3 {
			if err := <-errs; !errors.Is(err, net.ErrClosed) {
				t.Errorf("got %v", err)
			} else if _, ok := err.(*net.OpError); !ok {
				t.Errorf("got %T", err)
			}
		}
	})
}

// The kit closes the connections that wrap a Conn, which take the second Close for
// themselves. A Conn alone bears it as well, from many goroutines at once, and before the
// handshake.
func TestC4_C5_CloseAgain(t *testing.T) {
	for _, nw := range networks {
		t.Run(nw.name, func(t *testing.T) {
			cn, sn := nw.pair(t)
			c, s := connect(t, cn, sn, nil)
			go io.Copy(io.Discard, c)
			_, other := nw.pair(t)
			for _, x := range []*Conn{s, Server(other, nil)} {
				var wg sync.WaitGroup
				for range 10 {
					wg.Go(func() {
						if err := x.Close(); err != nil {
							t.Error(err)
						}
					})
				}
				wg.Wait()
				if err := x.Close(); err != nil {
					t.Error(err)
				}
			}
		})
	}
}

// The kit sees the methods of a net.Conn. Those that a Conn has besides end alike, and the
// handshake stays what it was.
func TestC6_OperationsAfterClose(t *testing.T) {
	for _, nw := range networks {
		t.Run(nw.name, func(t *testing.T) {
			cn, sn := nw.pair(t)
			c, s := connect(t, cn, sn, nil)
			go func() {
				c.Write([]byte("decrypted, but not read"))
				io.Copy(io.Discard, c)
			}()
			readAll(s, 1)
			local, remote := s.LocalAddr().String(), s.RemoteAddr().String()
			s.Close()
			for what, f := range map[string]func() error{
				"Read":             func() error { _, err := s.Read(make([]byte, 1)); return err },
				"Write":            func() error { _, err := s.Write([]byte("x")); return err },
				"WriteBuffers":     func() error { _, err := s.WriteBuffers(&net.Buffers{[]byte("x")}); return err },
				"CloseWrite":       s.CloseWrite,
				"SetDeadline":      func() error { return s.SetDeadline(time.Time{}) },
				"SetReadDeadline":  func() error { return s.SetReadDeadline(time.Time{}) },
				"SetWriteDeadline": func() error { return s.SetWriteDeadline(time.Time{}) },
			} {
				if err := f(); !errors.Is(err, net.ErrClosed) {
					t.Errorf("%s: got %v", what, err)
				}
			}
			if err := s.Handshake(); err != nil {
				t.Errorf("the handshake is done, but now: %v", err)
			}
			if s.LocalAddr().String() != local || s.RemoteAddr().String() != remote {
				t.Error("the addresses changed [C8]")
			}
			fresh := Server(sn, nil)
			fresh.Close()
			if err := fresh.Handshake(); !errors.Is(err, net.ErrClosed) {
				t.Errorf("Handshake: got %v", err)
			}
		})
	}
}

// The peer reads nothing: close_notify is given 250 ms, on a clock of the test's own.
func TestL7_CloseIsBoundedWhenThePeerDoesNotRead(t *testing.T) {
	for _, deadlines := range []bool{true, false} {
		synctest.Test(t, func(t *testing.T) {
			cn, sn := net.Pipe()
			beneath := &hooked{Conn: sn}
			_, s := connect(t, cn, beneath, nil)
			if !deadlines {
				beneath.hook(func(h *hooked) { h.setDeadline = func(time.Time) error { return errors.ErrUnsupported } })
			}
			start := time.Now()
			if err := s.Close(); err != nil {
				t.Error(err)
			}
			if d := time.Since(start); d != closeTimeout {
				t.Errorf("Close took %v", d)
			}
		})
	}
}

// A Read that answers garbage with an alert is stuck in that write, and crypto/tls holds
// its lock: Close gets through all the same.
func TestL7_CloseBehindAnAlertThatIsStuck(t *testing.T) {
	cn, sn := net.Pipe()
	_, s := connect(t, cn, sn, nil)
	ended := make(chan error, 1)
	go func() {
		_, err := s.Read(make([]byte, 1))
		ended <- err
	}()
	cn.Write(append([]byte{23, 3, 3, 0, 40}, make([]byte, 40)...))
	time.Sleep(20 * time.Millisecond)
	ends(t, "Close", func() {
		if err := s.Close(); err != nil {
			t.Error(err)
		}
		if err := <-ended; err == nil {
			t.Error("Read of garbage succeeded")
		}
	})
}

// A deadline that was meant for an earlier response does not keep close_notify back.
func TestL5_CloseNotifyIgnoresAnOldWriteDeadline(t *testing.T) {
	for _, how := range []func(*Conn) error{(*Conn).Close, (*Conn).CloseWrite} {
		cn, sn := tcpPair(t)
		c, s := connect(t, cn, sn, nil)
		s.SetWriteDeadline(time.Now().Add(-time.Minute))
		if err := how(s); err != nil {
			t.Error(err)
		}
		if _, err := c.Read(make([]byte, 1)); err != io.EOF {
			t.Errorf("got %v", err)
		}
	}
}

// CloseWrite to a slow peer is given the 5 s of crypto/tls, and a Close in between cuts
// that short.
func TestL7_CloseCutsCloseWriteShort(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		cn, sn := net.Pipe()
		_, s := connect(t, cn, sn, nil)
		start := time.Now()
		wantTimeout(t, s.CloseWrite())
		if d := time.Since(start); d != closeWriteTimeout {
			t.Errorf("CloseWrite took %v", d)
		}
		s.Close()
	})
	cn, sn := net.Pipe()
	_, s := connect(t, cn, sn, nil)
	ended := make(chan error, 1)
	go func() { ended <- s.CloseWrite() }()
	time.Sleep(20 * time.Millisecond)
	ends(t, "Close", func() {
		s.Close()
		if err := <-ended; !errors.Is(err, net.ErrClosed) {
			t.Errorf("got %v", err)
		}
	})
	cn.Close()
}

func TestF6_CloseReturnsTheConnsError(t *testing.T) {
	boom := errors.New("boom")
	for _, handshake := range []bool{true, false} {
		cn, sn := tcpPair(t)
		beneath := &hooked{Conn: sn}
		s := Server(beneath, nil)
		if handshake {
			_, s = connect(t, cn, beneath, nil)
		}
		beneath.hook(func(h *hooked) { h.close = func() error { return boom } })
		if err := s.Close(); err != boom {
			t.Errorf("got %v", err)
		}
		if err := s.Close(); err != nil {
			t.Errorf("second: %v", err)
		}
	}
}

// That the peer closed first is no error, nor that it has gone altogether.
func TestL7_CloseAfterThePeerIsGone(t *testing.T) {
	for _, nw := range networks {
		for _, how := range []string{"close_notify", "cut", "reset"} {
			t.Run(nw.name+"/"+how, func(t *testing.T) {
				cn, sn := nw.pair(t)
				c, s := connect(t, cn, sn, nil)
				go func() {
					if how == "close_notify" {
						c.Close()
					}
					if tc, ok := cn.(*net.TCPConn); ok && how == "reset" {
						tc.SetLinger(0)
					}
					cn.Close()
				}()
				io.Copy(io.Discard, s)
				if err := s.Close(); err != nil {
					t.Errorf("got %v", err)
				}
			})
		}
	}
}
