package tlsconn

import (
	"bytes"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"slices"
	"strings"
	"testing"
	"time"
)

const overhead13 = 17 // content type and tag of a TLS 1.3 record

// counted connects a server whose writes are recorded to a client that throws away, or
// passes on, what it reads.
func counted(t testing.TB, got io.Writer) (s *Conn, r *recorder) {
	cn, sn := tcpPair(t)
	c, s := connect(t, cn, sn, func(nc net.Conn) net.Conn {
		r = &recorder{Conn: nc}
		return r
	})
	r.take(t)
	go io.Copy(got, c)
	return s, r
}

func TestW15_HeaderAndBodyShareARecord(t *testing.T) {
	s, r := counted(t, io.Discard)
	for _, tc := range []struct {
		name   string
		v      [][]byte
		want   []int // plaintext of each record
		writes int
	}{
		{"1 KiB", [][]byte{make([]byte, 150), make([]byte, 1024)}, []int{1174}, 1},
		{"many small", slices.Repeat([][]byte{make([]byte, 10)}, 100), []int{1000}, 1},
		{"empty slices", [][]byte{nil, make([]byte, 3), {}, make([]byte, 4), nil}, []int{7}, 1},
		{"nothing", [][]byte{nil, {}}, nil, 0},
		{"none", nil, nil, 0},
		{"one whole record", [][]byte{make([]byte, 84), make([]byte, 16300)}, []int{16384}, 1},
		{"one byte more", [][]byte{make([]byte, 85), make([]byte, 16300)}, []int{16384, 1}, 1},
		{"64 KiB body", [][]byte{make([]byte, 200), make([]byte, 65536)}, []int{16384, 16384, 16384, 16384, 200}, 1},
		{"body and trailer", [][]byte{make([]byte, 5), make([]byte, 20000), make([]byte, 7)}, []int{16384, 3628}, 1},
		{"two large", [][]byte{make([]byte, 20000), make([]byte, 20000)}, []int{16384, 16384, 7232}, 1},
	} {
		t.Run(tc.name, func(t *testing.T) {
			v := net.Buffers(slices.Clone(tc.v))
			total := 0
			for _, b := range v {
				total += len(b)
			}
			n, err := s.WriteBuffers(&v)
			if n != int64(total) || err != nil || len(v) != 0 {
				t.Fatalf("got %d, %v, %d slices left", n, err, len(v))
			}
			records, writes := r.take(t)
			for i := range records {
				records[i] -= overhead13
			}
			if !slices.Equal(records, tc.want) || writes != tc.writes {
				t.Errorf("got records of %v in %d writes, want %v in %d", records, writes, tc.want, tc.writes)
			}
		})
	}
}

func TestW15_WriteSendsWholeRecordsInFewCalls(t *testing.T) {
	s, r := counted(t, io.Discard)
	for _, tc := range []struct{ size, records, writes int }{
		{1, 1, 1}, {1024, 1, 1}, {16384, 1, 1}, {16385, 2, 1}, {65536, 4, 1}, {65537, 5, 1}, {1 << 18, 16, 1}, {1<<18 + 1, 17, 2}, {1 << 20, 64, 4},
	} {
		n, err := s.Write(make([]byte, tc.size))
		if n != tc.size || err != nil {
			t.Fatal(n, err)
		}
		records, writes := r.take(t)
		if len(records) != tc.records || writes != tc.writes {
			t.Errorf("%d bytes: %d records in %d writes, want %d in %d", tc.size, len(records), writes, tc.records, tc.writes)
		}
		for _, n := range records[:len(records)-1] {
			if n != maxPlaintext+overhead13 {
				t.Errorf("%d bytes: a record of %d that is not the last", tc.size, n)
			}
		}
	}
}

// A config that was not made by ServerConfig lets crypto/tls vary the record sizes: they
// share write calls all the same.
func TestW15_DynamicRecordsShareWriteCalls(t *testing.T) {
	cn, sn := tcpPair(t)
	sc, cc := devConfigs(t)
	sc.DynamicRecordSizingDisabled = false
	r := &recorder{Conn: sn}
	c, s := connectWith(t, cn, r, sc, cc)
	r.take(t)
	go s.Write(pattern(16384))
	if got, err := readAll(c, 16384); err != nil || !bytes.Equal(got, pattern(16384)) {
		t.Fatal(err)
	}
	if records, writes := r.take(t); len(records) < 3 || writes != 1 {
		t.Errorf("%d records in %d writes", len(records), writes)
	}
}

// The stream is the slices joined, whatever their sizes, at all edges of a record and of a
// batch.
func TestW1_SizesAroundTheEdges(t *testing.T) {
	for _, ver := range versions {
		t.Run(ver.name, func(t *testing.T) {
			cn, sn := tcpPair(t)
			sc, cc := devConfigs(t)
			cc.MaxVersion = ver.v
			c, s := connectWith(t, cn, sn, sc, cc)
			rnd := rand.New(rand.NewPCG(1, 2))
			edges := []int{0, 1, 100, 16383, 16384, 16385, 32768, 65535, 65536, 65537}
			for i := range 60 {
				var v net.Buffers
				var want []byte
				for range 1 + rnd.IntN(5) {
					b := pattern(edges[rnd.IntN(len(edges))])
					for j := range b {
						b[j] += byte(i)
					}
					v = append(v, b)
					want = append(want, b...)
				}
				all := v
				errc := make(chan error, 1)
				go func() {
					n, err := s.WriteBuffers(&v)
					if err == nil && (n != int64(len(want)) || len(v) != 0) {
						err = fmt.Errorf("n is %d of %d", n, len(want))
					}
					for _, b := range all {
						if b != nil {
							err = errors.New("an entry was kept")
						}
					}
					errc <- err
				}()
				got, err := readAll(c, len(want))
				if err != nil || !bytes.Equal(got, want) {
					t.Fatal("the stream differs", err)
				}
				if err := <-errc; err != nil {
					t.Fatal(err)
				}
			}
		})
	}
}

// Many goroutines write at once: each write stays in one piece [C1].
func TestC1_ConcurrentWrites(t *testing.T) {
	cn, sn := tcpPair(t)
	c, s := connect(t, cn, sn, nil)
	const writers, size = 8, 40000
	for i := range writers {
		go func() {
			b := bytes.Repeat([]byte{byte(i)}, size)
			if i%2 == 0 {
				s.Write(b)
			} else {
				s.WriteBuffers(&net.Buffers{b[:100], b[100:]})
			}
		}()
	}
	for range writers {
		b, err := readAll(c, size)
		if err != nil || bytes.Count(b, b[:1]) != size {
			t.Fatal("writes were mixed up", err)
		}
	}
}

func TestCloseWriteThenWrite(t *testing.T) {
	for _, nw := range networks {
		t.Run(nw.name, func(t *testing.T) {
			cn, sn := nw.pair(t)
			sc, cc := devConfigs(t)
			c, s := Client(cn, cc), Server(sn, sc)
			if err := c.CloseWrite(); err == nil {
				t.Error("CloseWrite before the handshake")
			}
			shake(t, c, s)
			eof := make(chan error, 1)
			go func() {
				_, err := io.ReadAll(s)
				eof <- err
				s.Write([]byte("reads go on"))
			}()
			user := time.Now().Add(time.Hour)
			c.SetWriteDeadline(user)
			for range 2 {
				if err := c.CloseWrite(); err != nil {
					t.Fatal(err)
				}
			}
			if err := <-eof; err != nil {
				t.Error(err)
			}
			if n, err := c.Write([]byte("x")); n != 0 || err == nil || !strings.Contains(err.Error(), "CloseWrite") {
				t.Errorf("Write: %d, %v", n, err)
			}
			if n, err := c.WriteBuffers(&net.Buffers{[]byte("x")}); n != 0 || err == nil {
				t.Errorf("WriteBuffers: %d, %v", n, err)
			}
			if b, err := readAll(c, 11); string(b) != "reads go on" || err != nil {
				t.Errorf("got %q, %v [C9]", b, err)
			}
			if !c.layer.userWrite.Equal(user) || !c.layer.alert.IsZero() {
				t.Error("the user's write deadline is lost")
			}
			c.Close()
			if err := c.CloseWrite(); !errors.Is(err, net.ErrClosed) {
				t.Error(err)
			}
		})
	}
}

// TLS 1.0 splits a record in two in CBC suites: the path with more records than expected.
func TestWriteCBC(t *testing.T) {
	for _, v := range []uint16{tls.VersionTLS10, tls.VersionTLS12} {
		cn, sn := tcpPair(t)
		sc, cc := devConfigs(t)
		sc.MinVersion, cc.MinVersion, cc.MaxVersion = tls.VersionTLS10, tls.VersionTLS10, v
		sc.CipherSuites = []uint16{tls.TLS_ECDHE_ECDSA_WITH_AES_128_CBC_SHA}
		cc.CipherSuites = sc.CipherSuites
		r := &recorder{Conn: sn}
		c, s := connectWith(t, cn, r, sc, cc)
		r.take(t)
		want := pattern(200000)
		go s.Write(want)
		if got, err := readAll(c, len(want)); err != nil || !bytes.Equal(got, want) {
			t.Fatal(err)
		}
		if _, writes := r.take(t); writes > 5 {
			t.Errorf("%d writes", writes)
		}
	}
}
