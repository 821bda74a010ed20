package tlsconn

import (
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"strings"
	"syscall"
	"testing"
	"testing/iotest"
	"time"
)

var versions = []struct {
	name string
	v    uint16
}{{"TLS1.2", tls.VersionTLS12}, {"TLS1.3", tls.VersionTLS13}}

// The kit cuts streams after the handshake.
func TestL5_TruncatedHandshakeIsNotEOFForRead(t *testing.T) {
	cn, sn := tcpPair(t)
	sc, _ := devConfigs(t)
	cn.Close()
	if _, err := Server(sn, sc).Read(make([]byte, 1)); err != io.ErrUnexpectedEOF {
		t.Errorf("got %v", err)
	}
}

// A reset is the error it is [C10].
func TestC10_ResetIsECONNRESET(t *testing.T) {
	cn, sn := tcpPair(t)
	_, s := connect(t, cn, sn, nil)
	cn.SetLinger(0)
	cn.Close()
	for range 2 {
		_, err := s.Read(make([]byte, 1))
		if !errors.Is(err, syscall.ECONNRESET) && !strings.Contains(err.Error(), "forcibly closed") {
			t.Errorf("got %v", err)
		}
	}
}

// The conn beneath returns its last bytes together with io.EOF.
func TestF2_DataWithEOF(t *testing.T) {
	for _, clean := range []bool{true, false} {
		t.Run(fmt.Sprintf("close_notify=%v", clean), func(t *testing.T) {
			cn, sn := tcpPair(t)
			beneath := &hooked{Conn: sn}
			c, s := connect(t, cn, beneath, nil)
			c.Write([]byte("last words"))
			if clean {
				c.CloseWrite()
			}
			cn.CloseWrite()
			eof := iotest.DataErrReader(sn)
			beneath.hook(func(h *hooked) { h.read = eof.Read })
			b, err := io.ReadAll(s)
			if string(b) != "last words" {
				t.Errorf("got %q", b)
			}
			want := io.ErrUnexpectedEOF
			if clean {
				want = nil
			}
			if err != want {
				t.Errorf("got %v, want %v", err, want)
			}
		})
	}
}

// Data with an error: the data first. A timeout that comes with data is dropped, the next
// Read finds out by itself.
func TestF3_DataWithAnError(t *testing.T) {
	boom := errors.New("boom")
	for _, tc := range []struct{ with, want error }{{boom, boom}, {os.ErrDeadlineExceeded, nil}} {
		t.Run(tc.with.Error(), func(t *testing.T) {
			cn, sn := tcpPair(t)
			beneath := &hooked{Conn: sn}
			c, s := connect(t, cn, beneath, nil)
			c.Write([]byte("one"))
			c.Write([]byte("two"))
			beneath.hook(func(h *hooked) {
				h.read = func(p []byte) (int, error) {
					n, err := sn.Read(p)
					if err == nil {
						err = tc.with
					}
					return n, err
				}
			})
			s.SetReadDeadline(time.Now().Add(3 * time.Second))
			var got []byte
			b := make([]byte, 10)
			var err error
			for err == nil && len(got) < 6 {
				var n int
				n, err = s.Read(b)
				got = append(got, b[:n]...)
			}
			if tc.want == nil {
				if string(got) != "onetwo" || err != nil {
					t.Errorf("got %q, %v", got, err)
				}
				return
			}
			if !strings.HasPrefix("onetwo", string(got)) || len(got) == 0 {
				t.Errorf("got %q", got)
			}
			for err == nil {
				_, err = s.Read(b)
			}
			if err != tc.want {
				t.Errorf("got %v", err)
			}
		})
	}
}

func TestF1_EmptyReads(t *testing.T) {
	for _, tc := range []struct {
		empty int
		want  error
	}{{1, nil}, {maxEmptyReads, nil}, {maxEmptyReads + 1, io.ErrNoProgress}, {1 << 30, io.ErrNoProgress}} {
		t.Run(fmt.Sprint(tc.empty), func(t *testing.T) {
			cn, sn := tcpPair(t)
			beneath := &hooked{Conn: sn}
			c, s := connect(t, cn, beneath, nil)
			c.Write([]byte("x"))
			left := tc.empty
			beneath.hook(func(h *hooked) {
				h.read = func(p []byte) (int, error) {
					if left--; left >= 0 {
						return 0, nil
					}
					return sn.Read(p)
				}
			})
			if n, err := s.Read(make([]byte, 1)); err != tc.want || (n == 1) != (err == nil) {
				t.Errorf("got %d, %v", n, err)
			}
		})
	}
}

// Counts that cannot be are errors which name the culprit, not panics.
func TestF5_ImpossibleReadCounts(t *testing.T) {
	for _, bad := range []int{-1, 1 << 20} {
		t.Run(fmt.Sprint(bad), func(t *testing.T) {
			cn, sn := tcpPair(t)
			beneath := &hooked{Conn: sn}
			_, s := connect(t, cn, beneath, nil)
			beneath.hook(func(h *hooked) { h.read = func([]byte) (int, error) { return bad, nil } })
			for range 2 {
				n, err := s.Read(make([]byte, 1))
				want := fmt.Sprintf("Read of *tlsconn.hooked returned %d", bad)
				if n != 0 || err == nil || !strings.Contains(err.Error(), want) {
					t.Errorf("got %d, %v", n, err)
				}
			}
		})
	}
}

// The kit reads on after a timeout. Here half a record has come before it, which must not be
// lost.
func TestL6_ReadTimeoutInsideOfARecord(t *testing.T) {
	for _, ver := range versions {
		t.Run(ver.name, func(t *testing.T) {
			cn, sn := tcpPair(t)
			sc, cc := devConfigs(t)
			cc.MaxVersion = ver.v
			halves := make(chan []byte, 2)
			beneath := &hooked{Conn: cn}
			c, s := connectWith(t, beneath, sn, sc, cc)
			beneath.hook(func(h *hooked) {
				h.write = func(p []byte) (int, error) {
					halves <- append([]byte(nil), p[:len(p)/2]...)
					halves <- append([]byte(nil), p[len(p)/2:]...)
					return len(p), nil
				}
			})
			b := make([]byte, 100)
			for i := range 3 {
				msg := fmt.Sprintf("message %d", i)
				if _, err := c.Write([]byte(msg)); err != nil {
					t.Fatal(err)
				}
				cn.Write(<-halves)
				s.SetReadDeadline(time.Now().Add(20 * time.Millisecond))
				n, err := s.Read(b)
				if n != 0 {
					t.Fatalf("read %q of half a record", b[:n])
				}
				wantTimeout(t, err)
				if !err.(*net.OpError).Temporary() {
					t.Error("not Temporary: crypto/tls will keep it")
				}
				cn.Write(<-halves)
				s.SetReadDeadline(time.Time{})
				if n, err := s.Read(b); string(b[:n]) != msg || err != nil {
					t.Fatalf("got %q, %v", b[:n], err)
				}
			}
		})
	}
}

// Timeouts of a foreign conn that do not say Temporary are recoverable too.
func TestL6_ForeignReadTimeoutIsRecoverable(t *testing.T) {
	for _, foreign := range []error{os.ErrDeadlineExceeded, errBare{}, &net.OpError{Op: "read", Err: errBare{}}} {
		cn, sn := tcpPair(t)
		beneath := &hooked{Conn: sn}
		c, s := connect(t, cn, beneath, nil)
		beneath.hook(func(h *hooked) { h.read = func([]byte) (int, error) { return 0, foreign } })
		for range 2 {
			_, err := s.Read(make([]byte, 1))
			wantTimeout(t, err)
		}
		beneath.hook(func(h *hooked) { h.read = nil })
		c.Write([]byte("x"))
		if n, err := s.Read(make([]byte, 1)); n != 1 || err != nil {
			t.Errorf("%v: got %d, %v", foreign, n, err)
		}
	}
}

// ETIMEDOUT is the end of a connection, not a deadline that passed.
func TestT1_ETIMEDOUTIsNoDeadline(t *testing.T) {
	cn, sn := tcpPair(t)
	beneath := &hooked{Conn: sn}
	_, s := connect(t, cn, beneath, nil)
	dead := &net.OpError{Op: "read", Err: os.NewSyscallError("read", syscall.ETIMEDOUT)}
	beneath.hook(func(h *hooked) { h.read = func([]byte) (int, error) { return 0, dead } })
	if _, err := s.Read(make([]byte, 1)); isDeadline(err) || !errors.Is(err, syscall.ETIMEDOUT) {
		t.Errorf("got %v", err)
	}
}

func TestR24_EmptyRead(t *testing.T) {
	cn, sn := tcpPair(t)
	_, s := connect(t, cn, sn, nil)
	if n, err := s.Read(nil); n != 0 || err != nil {
		t.Error(n, err)
	}
}

// BytesReceived counts a part of a record, of which Read returns nothing.
func TestBytesReceivedCountsPartsOfRecords(t *testing.T) {
	cn, sn := tcpPair(t)
	_, s := connect(t, cn, sn, nil)
	if _, err := s.Read(nil); err != nil {
		t.Fatal(err)
	}
	before := s.BytesReceived()
	if before == 0 {
		t.Error("the handshake does not count")
	}
	if _, err := cn.Write([]byte{23, 3, 3, 1, 0, 'p', 'a', 'r', 't'}); err != nil { // of a record of 256 bytes
		t.Fatal(err)
	}
	for i := 0; i < 500 && s.BytesReceived() < before+9; i++ {
		s.SetReadDeadline(time.Now().Add(20 * time.Millisecond))
		if n, err := s.Read(make([]byte, 100)); n != 0 || !isDeadline(err) {
			t.Fatalf("Read: %d bytes and %v", n, err)
		}
	}
	if got := s.BytesReceived() - before; got != 9 {
		t.Errorf("%d bytes, want 9", got)
	}
}
