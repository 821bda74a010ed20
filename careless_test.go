package hertznet_test

import (
	"context"
	"crypto/tls"
	"math/rand/v2"
	"net"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/cloudwego/hertz/pkg/app"
	"github.com/cloudwego/hertz/pkg/app/server"
	"github.com/cloudwego/hertz/pkg/network"

	"github.com/hertznet/hertznet/standard"
)

// Handlers whose goroutines set limits and close at any moment, panic and hijack, and peers that
// send pieces, reset and close at any moment, leave no connection behind, and the race detector
// has nothing to say.
func TestCarelessHandlersAndPeers(t *testing.T) {
	eachMode(t, []mode{tcpMode, unixMode, tlsMode, {name: "bare", bare: true}}, func(t *testing.T, m mode) {
		for _, stream := range []bool{false, true} {
			beCareless(t, m, stream)
		}
	})
}

func beCareless(t *testing.T, m mode, stream bool) {
	abuse := func(c network.Conn) {
		for range rand.IntN(3) {
			switch rand.IntN(8) {
			case 0:
				_ = c.SetReadTimeout(0)
			case 1:
				_ = c.SetReadTimeout(time.Duration(rand.IntN(1000)) * time.Microsecond)
			case 2:
				_ = c.SetReadDeadline(time.Now().Add(time.Duration(rand.IntN(2000)-1000) * time.Microsecond))
			case 3:
				_ = c.SetWriteDeadline(time.Now().Add(time.Duration(rand.IntN(5000)) * time.Microsecond))
			case 4:
				_ = c.SetWriteTimeout(time.Duration(rand.IntN(5)) * time.Millisecond)
			case 5:
				if rand.IntN(4) == 0 {
					_ = c.Close()
				}
			case 6:
				time.Sleep(time.Duration(rand.IntN(1000)) * time.Microsecond)
			case 7:
				_ = c.SetDeadline(time.Time{})
			}
		}
	}
	s := runWith(t, m, func(t *standard.Transporter) {
		t.ParkAfter, t.MinReadRate, t.MinReadGrace = 2*time.Millisecond, 1<<20, 2*time.Millisecond
	}, func(h *server.Hertz) {
		h.Any("/:n", func(_ context.Context, ctx *app.RequestContext) {
			c := ctx.GetConn()
			if rand.IntN(3) == 0 {
				go abuse(c)
			}
			if rand.IntN(10) == 0 {
				abuse(c)
			}
			switch rand.IntN(12) {
			case 0:
				panic("a handler's")
			case 1:
				ctx.Hijack(func(network.Conn) {
					go abuse(c)
					_, _ = c.Write([]byte("x"))
					_, _ = c.Peek(rand.IntN(10))
				})
			case 2:
				_, _ = ctx.GetWriter().WriteBinary([]byte("HTTP/1.1 103 Early Hints\r\n\r\n"))
				_ = ctx.GetWriter().Flush()
			}
			if rand.IntN(4) == 0 {
				ctx.String(200, strings.Repeat("y", 100_000))
				return
			}
			_, _ = ctx.Write(ctx.Request.Body())
		})
	}, server.WithReadTimeout(50*time.Millisecond), server.WithWriteTimeout(50*time.Millisecond),
		server.WithIdleTimeout(30*time.Millisecond), server.WithSenseClientDisconnection(true), server.WithStreamBody(stream))
	var wg sync.WaitGroup
	stop := time.Now().Add(time.Second)
	for range 24 {
		wg.Go(func() {
			for time.Now().Before(stop) {
				c, err := net.Dial(s.addr.Network(), s.addr.String())
				if err != nil {
					return
				}
				if s.tls {
					c = tls.Client(c, s.clientTLS())
				}
				_ = c.SetDeadline(time.Now().Add(200 * time.Millisecond))
				for range rand.IntN(5) {
					var b strings.Builder
					for range rand.IntN(6) {
						if rand.IntN(2) == 0 {
							b.WriteString("GET /1 HTTP/1.1\r\nHost: x\r\n\r\n")
						} else {
							b.WriteString("POST /2 HTTP/1.1\r\nHost: x\r\nContent-Length: 5000\r\n\r\n" + strings.Repeat("z", 5000))
						}
					}
					out := b.String()
					if rand.IntN(3) == 0 {
						out = out[:rand.IntN(len(out)+1)]
					}
					_, _ = c.Write([]byte(out))
					if rand.IntN(2) == 0 {
						_, _ = c.Read(make([]byte, 1+rand.IntN(1000)))
					}
					if rand.IntN(4) == 0 {
						time.Sleep(time.Duration(rand.IntN(20)) * time.Millisecond)
					}
				}
				switch rand.IntN(3) {
				case 0:
					if !s.tls && !s.unix {
						reset(c)
					}
				case 1:
					if w, ok := c.(interface{ CloseWrite() error }); ok {
						_ = w.CloseWrite()
						_, _ = c.Read(make([]byte, 1000))
					}
				}
				c.Close()
			}
		})
	}
	wg.Wait()
	for start := time.Now(); s.transport.Stats().Open() > 0; time.Sleep(20 * time.Millisecond) {
		if time.Since(start) > 10*time.Second {
			t.Fatalf("left: %+v", s.transport.Stats())
		}
	}
	n := s.transport.Stats()
	if sum := n.ClosedByPeer + n.ClosedByHandler + n.ClosedByServer + n.ClosedIdle + n.ClosedSlow + n.ClosedByError + n.Rejected; sum != n.Accepted {
		t.Errorf("%d have ended of %d", sum, n.Accepted)
	}
}
