package tlsconn

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"slices"
	"strings"
	"testing"
	"time"
)

// Fails at every possible byte of the wire: n is what the peer can decrypt, and the rest of
// v is left.
func TestW9_FailAtEveryRecordKeepsNExact(t *testing.T) {
	boom := errors.New("boom")
	sizes := []int{100, 30000, 50000, 20000}
	total := 100100
	const wire = maxPlaintext + overhead13 + recordHeaderLen
	for _, limit := range []int{
		0, 1, wire - 1, wire, wire + 1, 2*wire - 1, 3 * wire, 4*wire - 1, 4 * wire, 4*wire + 1,
		5 * wire, 6 * wire, 6*wire + 1817, 6*wire + 1818,
	} {
		t.Run(fmt.Sprint(limit), func(t *testing.T) {
			cn, sn := tcpPair(t)
			beneath := &hooked{Conn: sn}
			c, s := connect(t, cn, beneath, nil)
			left := limit
			calls := 0
			beneath.hook(func(h *hooked) {
				h.write = func(p []byte) (int, error) {
					calls++
					if len(p) <= left {
						left -= len(p)
						return sn.Write(p)
					}
					n, _ := sn.Write(p[:left])
					left = 0
					return n, boom
				}
			})
			var v net.Buffers
			for _, n := range sizes {
				v = append(v, pattern(n))
			}
			joined := slices.Concat(v...)
			go func() {
				defer sn.CloseWrite()
				n, err := s.WriteBuffers(&v)
				if limit == 6*wire+1818 {
					if n != int64(total) || err != nil {
						t.Errorf("got %d, %v", n, err)
					}
					return
				}
				if want := int64(limit / wire * maxPlaintext); n != want || err != boom {
					t.Errorf("got %d, %v, want %d", n, err, want)
				}
				if rest := slices.Concat(v...); !bytes.Equal(rest, joined[n:]) {
					t.Errorf("%d bytes left in v, want %d", len(rest), len(joined[n:]))
				}
				before := calls
				if n, err := s.Write([]byte("more")); n != 0 || err != boom {
					t.Errorf("a write after the failure: %d, %v", n, err)
				}
				if err := s.Close(); err != nil {
					t.Errorf("Close: %v", err)
				}
				if calls != before {
					t.Errorf("%d more writes on a broken stream [W8]", calls-before)
				}
			}()
			got, _ := io.ReadAll(c)
			want := min(limit/wire*maxPlaintext, total)
			if limit == 6*wire+1818 {
				want = total
			}
			if !bytes.Equal(got, joined[:want]) {
				t.Errorf("the peer decrypted %d bytes, want %d", len(got), want)
			}
		})
	}
}

func TestW7_ShortWriteAndImpossibleCounts(t *testing.T) {
	for _, size := range []int{10, 40000} {
		for _, tc := range []struct {
			name  string
			count func(p []byte) int
			want  string
		}{
			{"short", func(p []byte) int { return len(p) - 1 }, io.ErrShortWrite.Error()},
			{"negative", func([]byte) int { return -1 }, "Write of *tlsconn.hooked returned -1"},
			{"too many", func(p []byte) int { return len(p) + 1 }, "Write of *tlsconn.hooked returned"},
		} {
			t.Run(fmt.Sprintf("%s/%d", tc.name, size), func(t *testing.T) {
				cn, sn := tcpPair(t)
				beneath := &hooked{Conn: sn}
				_, s := connect(t, cn, beneath, nil)
				beneath.hook(func(h *hooked) { h.write = func(p []byte) (int, error) { return tc.count(p), nil } })
				for range 2 {
					n, err := s.Write(make([]byte, size))
					if n == size || err == nil || !strings.Contains(err.Error(), tc.want) {
						t.Errorf("got %d, %v", n, err)
					}
				}
			})
		}
	}
}

// The kit sees that nothing can be written any more. It is the same error each time, not
// Temporary, and the reader side goes on [T9].
func TestL6_WriteTimeoutIsKept(t *testing.T) {
	cn, sn := tcpPair(t)
	c, s := connect(t, cn, sn, nil)
	written := make(chan error, 1)
	go func() {
		_, err := s.Write(make([]byte, 32<<20)) // more than the socket buffers take
		written <- err
	}()
	if _, err := readAll(c, 1); err != nil { // it has begun
		t.Fatal(err)
	}
	s.SetWriteDeadline(time.Now())
	err := <-written
	wantTimeout(t, err)
	if err.(*net.OpError).Temporary() {
		t.Error("says Temporary")
	}
	s.SetWriteDeadline(time.Time{})
	for range 2 {
		if n, again := s.Write([]byte("x")); n != 0 || again != err {
			t.Errorf("got %d, %v, want the same error", n, again)
		}
	}
	c.Write([]byte("y"))
	if b, err := readAll(s, 1); string(b) != "y" || err != nil {
		t.Errorf("got %q, %v", b, err)
	}
}

func TestT1_BareWriteTimeoutIsWrapped(t *testing.T) {
	cn, sn := tcpPair(t)
	beneath := &hooked{Conn: sn}
	_, s := connect(t, cn, beneath, nil)
	beneath.hook(func(h *hooked) { h.write = func([]byte) (int, error) { return 0, os.ErrDeadlineExceeded } })
	_, err := s.Write([]byte("x"))
	wantTimeout(t, err)
}
