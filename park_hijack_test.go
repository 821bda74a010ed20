package hertznet_test

import (
	"context"
	"fmt"
	"testing"
	"time"

	"github.com/cloudwego/hertz/pkg/app"
	"github.com/cloudwego/hertz/pkg/app/server"
	"github.com/cloudwego/hertz/pkg/network"
)

// A hijacker may do what Hertz does between two requests, Flush, the server's idle
// timeout, Peek(4), and is not parked.
func TestHijackerWithTheIdleTimeout(t *testing.T) {
	for _, idle := range []time.Duration{time.Minute, -1} {
		s := runPark(t, tcpMode, parkSoon, func(h *server.Hertz) {
			h.GET("/", func(_ context.Context, ctx *app.RequestContext) {
				ctx.Hijack(func(c network.Conn) {
					_, _ = c.WriteBinary([]byte("hello"))
					_ = c.Flush()
					_ = c.SetReadTimeout(idle)
					b, err := c.Peek(4)
					fmt.Fprintf(c, "%s, %v", b, err)
				})
			})
		}, server.WithIdleTimeout(idle))
		c := s.raw(t)
		c.get("/")
		c.expect("hello")
		time.Sleep(longGap)
		c.send("ping")
		c.expect("ping, <nil>")
		c.atEnd()
		s.waitGone(t)
		s.neverParked(t)
	}
}
