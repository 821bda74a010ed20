package hertznet_test

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"math/rand/v2"
	"net/http"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/cloudwego/hertz/pkg/app"
	"github.com/cloudwego/hertz/pkg/app/server"
)

// S6, under load: a request that was sent before Shutdown began is answered, one that a
// handler has seen is answered whole, and no answer is cut, whether its connection was
// busy, idle or parked at that moment. Shutdown does not wait for those that have sent none.
func TestShutdownUnderLoadLosesNothing(t *testing.T) {
	eachMode(t, []mode{tcpMode, unixMode, tlsMode}, func(t *testing.T, m mode) {
		const clients, silent = 60, 20
		body := pattern(20<<10, 1)
		var handled, answered, late atomic.Int64
		s := runPark(t, m, parkSoon, func(h *server.Hertz) {
			h.POST("/", func(_ context.Context, ctx *app.RequestContext) {
				handled.Add(1)
				if ctx.Request.Body()[0]%4 == 0 {
					time.Sleep(5 * time.Millisecond)
				}
				ctx.Response.SetBodyRaw(body)
			})
			h.GET("/", text(""))
		}, server.WithExitWaitTime(guard))
		for range silent { // idle from now on
			s.raw(t).get("/")
		}
		conns := make([]*rawConn, clients)
		for i := range conns {
			conns[i] = s.raw(t)
		}

		var stopping atomic.Bool
		var wg sync.WaitGroup
		for i, c := range conns {
			wg.Go(func() {
				rnd := rand.New(rand.NewPCG(uint64(i), 1))
				for n := 0; ; n++ {
					time.Sleep(time.Duration(rnd.Int64N(int64(4 * parkSoon))))
					_, err := fmt.Fprintf(c.Conn, "POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 3\r\n\r\n%c%02d", 'a'+n%8, i)
					before := !stopping.Load()
					if err != nil {
						if before {
							t.Errorf("request %d of client %d, before Shutdown: %v", n, i, err)
						}
						return
					}
					first, err := c.r.Peek(1)
					if len(first) == 0 {
						if before {
							t.Errorf("request %d of client %d was sent before Shutdown and has no answer: %v", n, i, err)
						}
						return
					}
					resp, err := http.ReadResponse(c.r, nil)
					if err != nil {
						t.Errorf("request %d of client %d: %v", n, i, err)
						return
					}
					got, err := io.ReadAll(resp.Body)
					if err != nil || resp.StatusCode != 200 || !bytes.Equal(got, body) {
						t.Errorf("request %d of client %d: status %d, %d bytes, %v", n, i, resp.StatusCode, len(got), err)
						return
					}
					answered.Add(1)
					if !before {
						late.Add(1)
					}
					if resp.Close {
						return
					}
				}
			})
		}
		eventually(t, "2000 requests", func() bool { return answered.Load() >= 2000 || t.Failed() })
		stopping.Store(true)
		start := time.Now()
		if err := s.Shutdown(context.Background()); err != nil {
			t.Error(err)
		}
		took := time.Since(start)
		wg.Wait()
		if took > guard/3 {
			t.Errorf("Shutdown took %v", took)
		}
		if handled.Load() != answered.Load() {
			t.Errorf("%d requests were handled and %d answered", handled.Load(), answered.Load())
		}
		t.Logf("%d answers, %d of them to requests sent after Shutdown had begun; it took %v", answered.Load(), late.Load(), took)
		s.waitGone(t)
	})
}
