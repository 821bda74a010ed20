package standard

import (
	"bufio"
	"fmt"
	"io"
	"net"
	"testing"
	"time"
)

// Each pair of benchmarks runs the same work through a Conn and through a
// bufio.Reader or bufio.Writer of 4 KiB around the same kind of net.Conn:
//
//	go test -run '^$' -bench . ./standard

// endless is a conn beneath whose reads are always full and whose writes succeed.
type endless struct{ scriptConn }

func (*endless) Read(p []byte) (int, error)  { return len(p), nil }
func (*endless) Write(p []byte) (int, error) { return len(p), nil }

// drain reads from nc until it ends.
func drain(nc net.Conn) {
	go func() {
		p := make([]byte, 256<<10)
		for {
			if _, err := nc.Read(p); err != nil {
				return
			}
		}
	}()
}

func must(b *testing.B, err error) {
	if err != nil {
		b.Helper()
		b.Fatal(err)
	}
}

func BenchmarkPeekSkip(b *testing.B) {
	const size = 64
	b.Run("Conn", func(b *testing.B) {
		c := NewConn(new(endless))
		b.ReportAllocs()
		b.SetBytes(size)
		for b.Loop() {
			_, err := c.Peek(size)
			must(b, err)
			must(b, c.Skip(size))
			if c.Len() < size {
				must(b, c.Release())
			}
		}
	})
	b.Run("bufio", func(b *testing.B) {
		r := bufio.NewReader(new(endless))
		b.ReportAllocs()
		b.SetBytes(size)
		for b.Loop() {
			_, err := r.Peek(size)
			must(b, err)
			_, err = r.Discard(size)
			must(b, err)
		}
	})
}

func BenchmarkReadByte(b *testing.B) {
	b.Run("Conn", func(b *testing.B) {
		c := NewConn(new(endless))
		b.ReportAllocs()
		for b.Loop() {
			_, err := c.ReadByte()
			must(b, err)
		}
	})
	b.Run("bufio", func(b *testing.B) {
		r := bufio.NewReader(new(endless))
		b.ReportAllocs()
		for b.Loop() {
			_, err := r.ReadByte()
			must(b, err)
		}
	})
}

func BenchmarkReadBinary(b *testing.B) {
	for _, size := range []int{64, 4 << 10, 64 << 10} {
		b.Run(fmt.Sprintf("%d/Conn", size), func(b *testing.B) {
			c := NewConn(new(endless))
			b.ReportAllocs()
			b.SetBytes(int64(size))
			for b.Loop() {
				_, err := c.ReadBinary(size)
				must(b, err)
			}
		})
		b.Run(fmt.Sprintf("%d/bufio", size), func(b *testing.B) {
			r := bufio.NewReader(new(endless))
			b.ReportAllocs()
			b.SetBytes(int64(size))
			for b.Loop() {
				p := make([]byte, size)
				_, err := io.ReadFull(r, p)
				must(b, err)
			}
		})
	}
}

func BenchmarkRelease(b *testing.B) {
	b.Run("nothing unread", func(b *testing.B) {
		c := NewConn(new(endless))
		b.ReportAllocs()
		for b.Loop() {
			must(b, c.Release())
		}
	})
	b.Run("bytes unread", func(b *testing.B) {
		c := NewConn(new(endless))
		_, err := c.Peek(10)
		must(b, err)
		b.ReportAllocs()
		for b.Loop() {
			must(b, c.Release())
		}
	})
}

// BenchmarkSetReadTimeout compares a timeout, which is a number, with a deadline,
// which is a timer.
func BenchmarkSetReadTimeout(b *testing.B) {
	x, _ := tcpPair(b)
	b.Run("Conn", func(b *testing.B) {
		c := NewConn(x)
		b.ReportAllocs()
		for b.Loop() {
			must(b, c.SetReadTimeout(time.Minute))
		}
	})
	b.Run("TCPConn.SetReadDeadline", func(b *testing.B) {
		b.ReportAllocs()
		for b.Loop() {
			must(b, x.SetReadDeadline(time.Now().Add(time.Minute)))
		}
	})
}

// BenchmarkFlush writes 150 bytes in three Mallocs and flushes them, over TCP.
func BenchmarkFlush(b *testing.B) {
	const size = 50
	b.Run("Conn", func(b *testing.B) {
		x, y := tcpPair(b)
		drain(y)
		c := NewConn(x)
		b.ReportAllocs()
		b.SetBytes(3 * size)
		for b.Loop() {
			for range 3 {
				p, err := c.Malloc(size)
				must(b, err)
				clear(p)
			}
			must(b, c.Flush())
		}
	})
	b.Run("bufio", func(b *testing.B) {
		x, y := tcpPair(b)
		drain(y)
		w := bufio.NewWriter(x)
		p := make([]byte, size)
		b.ReportAllocs()
		b.SetBytes(3 * size)
		for b.Loop() {
			for range 3 {
				clear(p)
				_, err := w.Write(p)
				must(b, err)
			}
			must(b, w.Flush())
		}
	})
}

// BenchmarkAnswer writes a header of 150 bytes and a body, and flushes them, over
// TCP.
func BenchmarkAnswer(b *testing.B) {
	header := pattern(150)
	for _, size := range []int{256, 4 << 10, 64 << 10} {
		body := pattern(size)
		b.Run(fmt.Sprintf("%d/Conn", size), func(b *testing.B) {
			x, y := tcpPair(b)
			drain(y)
			c := NewConn(x)
			b.ReportAllocs()
			b.SetBytes(int64(len(header) + size))
			for b.Loop() {
				p, err := c.Malloc(len(header))
				must(b, err)
				copy(p, header)
				_, err = c.WriteBinary(body)
				must(b, err)
				must(b, c.Flush())
			}
		})
		b.Run(fmt.Sprintf("%d/bufio", size), func(b *testing.B) {
			x, y := tcpPair(b)
			drain(y)
			w := bufio.NewWriter(x)
			b.ReportAllocs()
			b.SetBytes(int64(len(header) + size))
			for b.Loop() {
				_, err := w.Write(header)
				must(b, err)
				_, err = w.Write(body)
				must(b, err)
				must(b, w.Flush())
			}
		})
	}
}

// BenchmarkExchange is a keep-alive exchange over TCP with timeouts on both sides: a
// request of 200 bytes and an answer of 250.
func BenchmarkExchange(b *testing.B) {
	const request, answer = 200, 250
	client := func(b *testing.B, x net.Conn) {
		req, ans := pattern(request), make([]byte, answer)
		b.ReportAllocs()
		for b.Loop() {
			_, err := x.Write(req)
			must(b, err)
			_, err = io.ReadFull(x, ans)
			must(b, err)
		}
		x.Close()
	}
	b.Run("Conn", func(b *testing.B) {
		x, y := tcpPair(b)
		go func() {
			c := NewConn(y)
			for {
				_ = c.SetReadTimeout(time.Minute)
				if _, err := c.Peek(4); err != nil {
					return
				}
				_ = c.SetReadTimeout(time.Minute)
				_ = c.SetWriteTimeout(time.Minute)
				if _, err := c.Peek(request); err != nil {
					return
				}
				_ = c.Skip(request)
				p, err := c.Malloc(answer)
				if err != nil {
					return
				}
				clear(p)
				_ = c.Release()
				if c.Flush() != nil {
					return
				}
			}
		}()
		client(b, x)
	})
	b.Run("bufio", func(b *testing.B) {
		x, y := tcpPair(b)
		go func() {
			r, w := bufio.NewReader(y), bufio.NewWriter(y)
			p := make([]byte, answer)
			for {
				_ = y.SetReadDeadline(time.Now().Add(time.Minute))
				if _, err := r.Peek(4); err != nil {
					return
				}
				_ = y.SetReadDeadline(time.Now().Add(time.Minute))
				_ = y.SetWriteDeadline(time.Now().Add(time.Minute))
				if _, err := r.Peek(request); err != nil {
					return
				}
				_, _ = r.Discard(request)
				clear(p)
				_, _ = w.Write(p)
				if w.Flush() != nil {
					return
				}
			}
		}()
		client(b, x)
	})
}

// BenchmarkReadFrom sends a file of 1 MiB over TCP: by sendfile, and copied.
func BenchmarkReadFrom(b *testing.B) {
	const size = 1 << 20
	for _, copied := range []bool{false, true} {
		name := "sendfile"
		if copied {
			name = "copied"
		}
		b.Run(name, func(b *testing.B) {
			x, y := tcpPair(b)
			drain(y)
			c := NewConn(x)
			f := contents(b, pattern(size))
			b.ReportAllocs()
			b.SetBytes(size)
			for b.Loop() {
				_, err := f.Seek(0, io.SeekStart)
				must(b, err)
				var r io.Reader = f
				if copied {
					r = struct{ io.Reader }{f}
				}
				_, err = c.ReadFrom(r)
				must(b, err)
			}
		})
	}
}

// A scrape looks at every open connection, with the lock that beginning and ending needs.
func BenchmarkStats(b *testing.B) {
	for _, n := range []int{0, 1000, 10_000, 100_000} {
		b.Run(fmt.Sprint(n), func(b *testing.B) {
			t := new(Transporter)
			t.init()
			for range n {
				t.conns[uint64(len(t.conns))] = &accepted{t: t, base: new(Conn)}
			}
			for b.Loop() {
				t.Stats()
			}
		})
	}
}
