package tlsconn

import (
	"crypto/tls"
	"fmt"
	"io"
	"net"
	"testing"
)

// Each pair compares ours with *tls.Conn over loopback TCP, under the same configs:
//
//	go test -run='^$' -bench=. -benchmem -count=6 ./tlsconn
func eachKind(b *testing.B, size int, f func(b *testing.B, c, s net.Conn)) {
	for _, plain := range []bool{true, false} {
		name := "tlsconn"
		if plain {
			name = "crypto-tls"
		}
		b.Run(fmt.Sprintf("%s/%d", name, size), func(b *testing.B) {
			c, s := tlsPair(b, plain)
			b.SetBytes(int64(size))
			b.ReportAllocs()
			b.ResetTimer()
			f(b, c, s)
		})
	}
}

func BenchmarkWrite(b *testing.B) {
	for _, size := range []int{1 << 10, 16 << 10, 64 << 10, 1 << 20} {
		eachKind(b, size, func(b *testing.B, c, s net.Conn) {
			// Beneath TLS, so that only the writer's work is measured.
			go io.Copy(io.Discard, c.(interface{ NetConn() net.Conn }).NetConn())
			p := make([]byte, size)
			for b.Loop() {
				if _, err := s.Write(p); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}

// A header of 150 bytes and a body: *tls.Conn is given one Write each, as
// net.Buffers.WriteTo does.
func BenchmarkHeaderAndBody(b *testing.B) {
	for _, size := range []int{1 << 10, 64 << 10} {
		eachKind(b, size+150, func(b *testing.B, c, s net.Conn) {
			go io.Copy(io.Discard, c.(interface{ NetConn() net.Conn }).NetConn())
			header, body := make([]byte, 150), make([]byte, size)
			store := make([][]byte, 2)
			ours, _ := s.(*Conn)
			for b.Loop() {
				store[0], store[1] = header, body
				v := net.Buffers(store)
				var err error
				if ours != nil {
					_, err = ours.WriteBuffers(&v)
				} else {
					_, err = v.WriteTo(s)
				}
				if err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}

func BenchmarkRead(b *testing.B) {
	for _, size := range []int{1 << 10, 16 << 10} {
		eachKind(b, size, func(b *testing.B, c, s net.Conn) {
			p, q := make([]byte, size), make([]byte, size)
			go func() {
				for {
					if _, err := s.Write(p); err != nil {
						return
					}
				}
			}()
			for b.Loop() {
				if _, err := io.ReadFull(c, q); err != nil {
					b.Fatal(err)
				}
			}
			// The writer may be blocked: end it beneath TLS.
			c.(interface{ NetConn() net.Conn }).NetConn().Close()
		})
	}
}

func BenchmarkPingPong(b *testing.B) {
	eachKind(b, 1<<10, func(b *testing.B, c, s net.Conn) {
		go io.CopyBuffer(struct{ io.Writer }{s}, struct{ io.Reader }{s}, make([]byte, 1<<10))
		p := make([]byte, 1<<10)
		for b.Loop() {
			if _, err := c.Write(p); err != nil {
				b.Fatal(err)
			}
			if _, err := io.ReadFull(c, p); err != nil {
				b.Fatal(err)
			}
		}
	})
}

func BenchmarkHandshakeDone(b *testing.B) {
	cn, sn := tcpPair(b)
	sc, cc := devConfigs(b)
	c, s := tls.Client(cn, cc), Server(sn, sc)
	shake(b, c, s)
	b.Run("crypto-tls", func(b *testing.B) {
		for b.Loop() {
			c.Handshake()
		}
	})
	b.Run("tlsconn", func(b *testing.B) {
		for b.Loop() {
			s.Handshake()
		}
	})
}

// BenchmarkWriteOverhead writes into nothing: what is left is encryption and, in ours, the
// layer beneath it.
func BenchmarkWriteOverhead(b *testing.B) {
	for _, size := range []int{100, 1 << 10, 64 << 10} {
		for _, kind := range []string{"crypto-tls", "tlsconn"} {
			b.Run(fmt.Sprintf("%s/%d", kind, size), func(b *testing.B) {
				sc, cc := devConfigs(b)
				cn, sn := tcpPair(b)
				beneath := &sink{Conn: sn}
				var s net.Conn = Server(beneath, sc)
				if kind == "crypto-tls" {
					s = tls.Server(beneath, sc)
				}
				shake(b, tls.Client(cn, cc), s.(interface{ Handshake() error }))
				beneath.on = true
				p := make([]byte, size)
				b.SetBytes(int64(size))
				b.ReportAllocs()
				for b.Loop() {
					s.Write(p)
				}
			})
		}
	}
}
