package tlsconn

import (
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"strings"
	"testing"
	"testing/synctest"
	"time"
)

// A peer that says nothing, or stops reading in the middle, ends at the budget: on a clock
// of the test's own.
func TestL3_StalledPeerEndsAtTheHandshakeTimeout(t *testing.T) {
	const budget = 3 * time.Second
	for _, side := range []string{"client", "server"} {
		for _, how := range []string{"Handshake", "Read", "Write", "ReadAfterFailure"} {
			t.Run(side+"/"+how, func(t *testing.T) {
				synctest.Test(t, func(t *testing.T) {
					sc, cc := devConfigs(t)
					near, far := net.Pipe()
					defer far.Close()
					c := Server(near, sc)
					if side == "client" {
						c = Client(near, cc)
						go io.Copy(io.Discard, far) // takes the ClientHello, answers nothing
					}
					defer c.Close()
					c.SetHandshakeTimeout(budget)
					start := time.Now()
					var err error
					switch how {
					case "Handshake":
						err = c.Handshake()
					case "Read":
						_, err = c.Read(make([]byte, 10))
					case "Write":
						_, err = c.Write([]byte("x"))
					case "ReadAfterFailure":
						c.Handshake()
						_, err = c.Read(make([]byte, 10))
					}
					wantTimeout(t, err)
					if err.(*net.OpError).Temporary() {
						t.Error("a failed handshake is permanent, but says Temporary")
					}
					if !strings.Contains(err.Error(), "handshake") {
						t.Errorf("%q does not say that it was the handshake", err)
					}
					if d := time.Since(start); d != budget {
						t.Errorf("ended after %v", d)
					}
				})
			})
		}
	}
}

// A drip of bytes does not extend the budget [T12].
func TestL3_DripDoesNotExtendTheBudget(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		sc, _ := devConfigs(t)
		near, far := net.Pipe()
		s := Server(near, sc)
		s.SetHandshakeTimeout(5 * time.Second)
		ended := make(chan bool)
		go func() { // a handshake record of 512 bytes, one a second
			defer close(ended)
			b := append([]byte{22, 3, 1, 2, 0}, make([]byte, 512)...)
			for i := range b {
				if _, err := far.Write(b[i : i+1]); err != nil {
					return
				}
				time.Sleep(time.Second)
			}
		}()
		start := time.Now()
		wantTimeout(t, s.Handshake())
		if d := time.Since(start); d != 5*time.Second {
			t.Errorf("ended after %v", d)
		}
		s.Close()
		far.Close()
		<-ended
	})
}

// A server whose own flight is not read is stuck in a write: the budget covers both
// directions.
func TestL3_BudgetCoversWrites(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		_, cc := devConfigs(t)
		near, far := net.Pipe() // nobody reads from far, so the ClientHello blocks
		c := Client(near, cc)
		c.SetHandshakeTimeout(time.Second)
		start := time.Now()
		wantTimeout(t, c.Handshake())
		if d := time.Since(start); d != time.Second {
			t.Errorf("ended after %v", d)
		}
		c.Close()
		far.Close()
	})
}

// The earlier of the user's deadline and the budget is in force, also when it is set while
// the handshake runs.
func TestL3_UserDeadlinesDuringTheHandshake(t *testing.T) {
	for _, tc := range []struct {
		name string
		set  func(c *Conn)
		want time.Duration
	}{
		{"earlier", func(c *Conn) { c.SetDeadline(time.Now().Add(2 * time.Second)) }, 2 * time.Second},
		{"later", func(c *Conn) { c.SetDeadline(time.Now().Add(time.Hour)) }, 10 * time.Second},
		{"zero", func(c *Conn) { c.SetDeadline(time.Time{}) }, 10 * time.Second},
		{"read", func(c *Conn) { c.SetReadDeadline(time.Now().Add(2 * time.Second)) }, 2 * time.Second},
		{"write", func(c *Conn) { c.SetWriteDeadline(time.Now().Add(2 * time.Second)) }, 10 * time.Second},
		{"past", func(c *Conn) { c.SetReadDeadline(time.Unix(1, 0)) }, time.Second},
		{"budget shortened", func(c *Conn) { c.SetHandshakeTimeout(4 * time.Second) }, 4 * time.Second},
		{"budget passed already", func(c *Conn) { c.SetHandshakeTimeout(time.Millisecond) }, time.Second},
		{"budget removed", func(c *Conn) {
			c.SetReadDeadline(time.Now().Add(time.Minute))
			c.SetHandshakeTimeout(0)
		}, time.Minute + time.Second},
	} {
		for _, when := range []string{"before", "during"} {
			t.Run(tc.name+"/"+when, func(t *testing.T) {
				if when == "before" && (tc.want <= time.Second || strings.HasPrefix(tc.name, "budget")) {
					t.Skip("only during")
				}
				synctest.Test(t, func(t *testing.T) {
					sc, _ := devConfigs(t)
					near, far := net.Pipe()
					defer far.Close()
					s := Server(near, sc)
					defer s.Close()
					s.SetHandshakeTimeout(10 * time.Second)
					want := tc.want
					start := time.Now()
					if when == "before" {
						tc.set(s)
					} else {
						time.AfterFunc(time.Second, func() { tc.set(s) })
						if want == 2*time.Second {
							want += time.Second
						}
					}
					wantTimeout(t, s.Handshake())
					if d := time.Since(start); d != want {
						t.Errorf("ended after %v, want %v", d, want)
					}
				})
			})
		}
	}
}

// After the handshake only the user's deadlines are in force: none, or the one set before
// or during.
func TestL3_DeadlinesAreRestoredAfterTheHandshake(t *testing.T) {
	for _, when := range []string{"none", "before", "during"} {
		t.Run(when, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				sc, cc := devConfigs(t)
				near, far := net.Pipe()
				s, c := Server(near, sc), Client(far, cc)
				defer c.Close()
				defer s.Close()
				s.SetHandshakeTimeout(2 * time.Second)
				start := time.Now()
				user := start.Add(time.Hour)
				if when == "before" {
					s.SetReadDeadline(user)
				}
				go func() {
					time.Sleep(time.Second)
					if when == "during" {
						s.SetReadDeadline(user)
					}
					c.Handshake()
					time.Sleep(30 * time.Second) // well past the budget
					c.Write([]byte("late"))
				}()
				b := make([]byte, 4)
				if _, err := io.ReadFull(s, b); err != nil {
					t.Fatal(err)
				}
				if when == "none" {
					return
				}
				_, err := s.Read(b)
				wantTimeout(t, err)
				if d := time.Since(start); d != time.Hour {
					t.Errorf("ended after %v", d)
				}
			})
		})
	}
}

// Conns that know no deadlines, such as a tunnel through SSH, are closed at the budget
// instead.
func TestL3_ConnWithoutDeadlines(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		sc, _ := devConfigs(t)
		near, far := net.Pipe()
		defer far.Close()
		s := Server(&hooked{Conn: near, setDeadline: func(time.Time) error { return errors.ErrUnsupported }}, sc)
		s.SetHandshakeTimeout(3 * time.Second)
		start := time.Now()
		wantTimeout(t, s.Handshake())
		wantTimeout(t, s.Handshake())
		if d := time.Since(start); d != 3*time.Second {
			t.Errorf("ended after %v", d)
		}
		if err := s.SetReadDeadline(time.Time{}); err == nil {
			t.Error("the error of SetReadDeadline is hidden [F6]")
		}
	})
}

// errBare is a timeout as a conn outside of package net may have it.
type errBare struct{}

func (errBare) Error() string   { return "too late" }
func (errBare) Timeout() bool   { return true }
func (errBare) Temporary() bool { return false }

func TestL3_BareTimeoutsBeneathAreWrapped(t *testing.T) {
	for _, bare := range []error{os.ErrDeadlineExceeded, errBare{}, fmt.Errorf("wrapped: %w", os.ErrDeadlineExceeded)} {
		near, far := net.Pipe()
		defer far.Close()
		sc, _ := devConfigs(t)
		s := Server(&hooked{Conn: near, read: func([]byte) (int, error) { return 0, bare }}, sc)
		err := s.Handshake()
		wantTimeout(t, err)
		if !errors.Is(err, bare) {
			t.Errorf("%v lost its cause", err)
		}
		s.Close()
	}
}
