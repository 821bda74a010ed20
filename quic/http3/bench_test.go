package http3

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"net"
	"net/http"
	"runtime"
	"slices"
	"strconv"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/cloudwego/hertz/pkg/app"
	"github.com/cloudwego/hertz/pkg/app/server"
	quicgo "github.com/quic-go/quic-go"
	"github.com/quic-go/quic-go/http3"
)

// getSizes are those of the bodies that the benchmarks fetch.
var getSizes = []int{12, 1 << 20}

// peers serves a body by a Hertz handler, and by one of net/http on quic-go's own server.
func peers(b *testing.B, size int) (hertzURL, quicgoURL string) {
	body := bytes.Repeat([]byte("x"), size)
	hertz := serve(b, handle(func(_ context.Context, ctx *app.RequestContext) {
		ctx.SetContentType("text/plain")
		ctx.Response.SetBodyRaw(body) // as the other: no copy
	}), server.WithIdleTimeout(time.Minute))
	plain := servePlainH3(b, http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Type", "text/plain")
		w.Header().Set("Content-Length", strconv.Itoa(len(body)))
		w.Header().Set("Server", "hertz") // as the other: the answers are the same
		_, _ = w.Write(body)
	}))
	return hertz.url("/"), "https://" + plain + "/"
}

// What the bridge to Hertz costs: the same requests to both, in turns, so that what else
// the machine does meets both. The metrics are medians of the turns, and Hertz's
// throughput by that of the other. All requests run on one connection, with as many at
// once for each processor as the name says.
//
//	go test -run '^$' -bench Beside -benchtime 60000x ./http3
func BenchmarkBesideQuicGo(b *testing.B) {
	for _, size := range getSizes {
		hertz, plain := peers(b, size)
		for _, atOnce := range []int{1, 16} {
			b.Run(fmt.Sprintf("%d bytes/%d at once", size, atOnce), func(b *testing.B) {
				const turns = 40
				requests := max(b.N/turns/2, 1)
				if size > 1<<10 {
					requests = max(requests/50, 1)
				}
				urls := [2]string{hertz, plain}
				fetch := [2]func(){newFetch(b, hertz, size), newFetch(b, plain, size)}
				var took [2][]float64
				for turn := range 2 * turns {
					of := (turn + turn/2) % 2 // one begins, then the other
					begin := time.Now()
					repeat(requests, atOnce, fetch[of])
					took[of] = append(took[of], float64(time.Since(begin).Microseconds())/float64(requests))
					if b.Failed() {
						b.Fatal(urls[of])
					}
				}
				slices.Sort(took[0])
				slices.Sort(took[1])
				h, q := took[0][turns/2], took[1][turns/2]
				b.ReportMetric(0, "ns/op")
				b.ReportMetric(h, "hertz-µs")
				b.ReportMetric(q, "quicgo-µs")
				b.ReportMetric(q/h, "throughput")
			})
		}
	}
}

// repeat calls f n times, in as many goroutines as at once for each processor, or in none.
func repeat(n, atOnce int, f func()) {
	if atOnce == 1 {
		for range n {
			f()
		}
		return
	}
	var left atomic.Int64
	left.Store(int64(n))
	var wg sync.WaitGroup
	for range atOnce * runtime.GOMAXPROCS(0) {
		wg.Go(func() {
			for left.Add(-1) >= 0 {
				f()
			}
		})
	}
	wg.Wait()
}

// BenchmarkGet is for allocations and profiles of one of them.
func BenchmarkGet(b *testing.B) {
	for _, size := range getSizes {
		hertz, plain := peers(b, size)
		for _, atOnce := range []int{1, 16} {
			for _, peer := range []struct{ name, url string }{{"quic-go", plain}, {"hertz", hertz}} {
				b.Run(fmt.Sprintf("%d bytes/%d at once/%s", size, atOnce, peer.name), func(b *testing.B) {
					fetch := newFetch(b, peer.url, size)
					b.SetBytes(int64(size))
					b.ReportAllocs()
					b.ResetTimer()
					repeat(b.N, atOnce, fetch)
				})
			}
		}
	}
}

// newFetch returns what has one GET, on a connection that is there.
func newFetch(b *testing.B, url string, size int) func() {
	rt := newH3(b)
	fetch := func() {
		r, err := http.NewRequest(http.MethodGet, url, nil)
		if err != nil {
			b.Error(err)
			return
		}
		rsp, err := rt.RoundTrip(r)
		if err != nil {
			b.Error(err)
			return
		}
		defer rsp.Body.Close()
		if n, err := io.Copy(io.Discard, rsp.Body); n != int64(size) || err != nil {
			b.Errorf("%d bytes, %v", n, err)
		}
	}
	fetch() // connects
	return fetch
}

// servePlainH3 runs quic-go's server, with the windows and timeouts of the other.
func servePlainH3(tb testing.TB, h http.Handler) (addr string) {
	tb.Helper()
	pc, err := net.ListenPacket("udp", "127.0.0.1:0")
	if err != nil {
		tb.Fatal(err)
	}
	s := &http3.Server{Handler: h, TLSConfig: http3.ConfigureTLSConfig(serverTLS()), QUICConfig: &quicgo.Config{MaxIdleTimeout: time.Minute}}
	go s.Serve(pc)
	tb.Cleanup(func() {
		s.Close()
		pc.Close()
	})
	return pc.LocalAddr().String()
}
