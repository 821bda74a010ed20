package tlsconn

import (
	"crypto/tls"
	"io"
	"net"
	"testing"
)

// tlsPair is a pair of either kind, for comparisons.
func tlsPair(t testing.TB, plain bool) (c, s net.Conn) {
	t.Helper()
	sc, cc := devConfigs(t)
	cn, sn := tcpPair(t)
	if plain {
		pc, ps := tls.Client(cn, cc), tls.Server(sn, sc)
		shake(t, pc, ps)
		return pc, ps
	}
	return connectWith(t, cn, sn, sc, cc)
}

// P1: a write, and a read, cost no allocation beyond those of crypto/tls.
func TestP1_NoAllocationsOfOurOwn(t *testing.T) {
	if raceEnabled {
		t.Skip("sync.Pool drops items at random under the race detector")
	}
	header, body, large := make([]byte, 150), make([]byte, 1024), make([]byte, 100000)
	store := make([][]byte, 2) // on the heap, as a writer keeps it
	// Reads and writes are measured as a pair: both ends are in this goroutine's count
	// anyway.
	measure := func(plain bool, size int, write func(net.Conn) error) float64 {
		c, s := tlsPair(t, plain)
		b := make([]byte, 32<<10)
		step := make(chan bool)
		done := make(chan bool)
		go func() {
			defer close(done)
			for range step {
				for n := 0; n < size; {
					m, err := c.Read(b)
					if err != nil {
						t.Error(err)
						return
					}
					n += m
				}
				done <- true
			}
		}()
		n := testing.AllocsPerRun(200, func() {
			step <- true
			if err := write(s); err != nil {
				t.Error(err)
			}
			<-done
		})
		close(step)
		<-done
		return n
	}
	writeAll := func(b []byte) func(net.Conn) error {
		return func(c net.Conn) error { _, err := c.Write(b); return err }
	}
	for _, tc := range []struct {
		name        string
		size        int
		plain, ours func(net.Conn) error
	}{
		{"Write 1 KiB", 1024, writeAll(body), writeAll(body)},
		{"Write 100 KB", 100000, writeAll(large), writeAll(large)},
		{"WriteBuffers", 150 + 1024, writeAll(make([]byte, 150+1024)), func(c net.Conn) error {
			store[0], store[1] = header, body
			v := net.Buffers(store)
			_, err := c.(*Conn).WriteBuffers(&v)
			return err
		}},
	} {
		plain, ours := measure(true, tc.size, tc.plain), measure(false, tc.size, tc.ours)
		t.Logf("%s: %v allocations, crypto/tls %v", tc.name, ours, plain)
		// How many reads it takes varies with the timing, and each is an allocation of
		// crypto/tls.
		slack := 0.0
		if tc.size > maxPlaintext {
			slack = 10
		}
		if ours > plain+slack {
			t.Errorf("%s: %v allocations, crypto/tls has %v", tc.name, ours, plain)
		}
	}
}

// The writer side alone, into a conn that only counts: nothing is allocated.
func TestP1_WriteAllocatesNothing(t *testing.T) {
	if raceEnabled {
		t.Skip("sync.Pool drops items at random under the race detector")
	}
	s := writeOnly(t)
	store := make([][]byte, 2)
	header, body, large := make([]byte, 150), make([]byte, 1024), make([]byte, 100000)
	for name, f := range map[string]func(){
		"Write":       func() { s.Write(body) },
		"Write large": func() { s.Write(large) },
		"WriteBuffers": func() {
			store[0], store[1] = header, body
			v := net.Buffers(store)
			s.WriteBuffers(&v)
		},
		"WriteBuffers large": func() {
			store[0], store[1] = header, large
			v := net.Buffers(store)
			s.WriteBuffers(&v)
		},
	} {
		if n := testing.AllocsPerRun(200, f); n >= 1 {
			t.Errorf("%s: %v allocations", name, n)
		}
	}
	if s.layer.block != nil {
		t.Error("an idle conn holds a block")
	}
}

// writeOnly is a server whose peer has shaken hands and then vanished, without ever failing
// a write.
func writeOnly(t testing.TB) *Conn {
	cn, sn := tcpPair(t)
	beneath := &sink{Conn: sn}
	_, s := connect(t, cn, beneath, nil)
	beneath.on = true
	return s
}

type sink struct {
	net.Conn
	on bool
}

func (s *sink) Write(p []byte) (int, error) {
	if s.on {
		return io.Discard.Write(p)
	}
	return s.Conn.Write(p)
}
