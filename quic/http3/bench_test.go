package http3

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"net"
	"net/http"
	"strconv"
	"testing"
	"time"

	"github.com/cloudwego/hertz/pkg/app"
	"github.com/cloudwego/hertz/pkg/app/server"
	quicgo "github.com/quic-go/quic-go"
	"github.com/quic-go/quic-go/http3"
)

// What the bridge to Hertz costs: the same requests to a Hertz handler and to one of
// net/http on quic-go's own server. Requests run on one connection, with as many at once
// as the name says.
//
//	go test -run '^$' -bench . -count 5 ./http3
func BenchmarkGet(b *testing.B) {
	for _, size := range []int{12, 1 << 20} {
		body := bytes.Repeat([]byte("x"), size)
		hertz := serve(b, handle(func(_ context.Context, ctx *app.RequestContext) {
			ctx.SetContentType("text/plain")
			ctx.Response.SetBodyRaw(body) // as the other: no copy
		}), server.WithIdleTimeout(time.Minute))
		plain := servePlainH3(b, http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("Content-Type", "text/plain")
			w.Header().Set("Content-Length", strconv.Itoa(len(body)))
			_, _ = w.Write(body)
		}))
		for _, atOnce := range []int{1, 16} {
			for _, peer := range []struct{ name, url string }{{"quic-go", "https://" + plain + "/"}, {"hertz", hertz.url("/")}} {
				b.Run(fmt.Sprintf("%d bytes/%d at once/%s", size, atOnce, peer.name), func(b *testing.B) {
					get(b, peer.url, size, atOnce)
				})
			}
		}
	}
}

func get(b *testing.B, url string, size, atOnce int) {
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
	b.SetBytes(int64(size))
	b.ReportAllocs()
	b.SetParallelism(atOnce) // times GOMAXPROCS
	b.ResetTimer()
	if atOnce == 1 {
		for range b.N {
			fetch()
		}
		return
	}
	b.RunParallel(func(pb *testing.PB) {
		for pb.Next() {
			fetch()
		}
	})
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
