package hertznet_test

import (
	"context"
	"io"
	"net"
	"net/http"
	"testing"
	"time"

	"github.com/cloudwego/hertz/pkg/app"
	"github.com/cloudwego/hertz/pkg/app/server"

	"github.com/hertznet/hertznet"
	"github.com/hertznet/hertznet/standard"
)

// A connection that Hertz closes since it was idle for too long ended by that, whether
// it was parked or not.
func TestStatsOfIdleConnections(t *testing.T) {
	for _, test := range []struct {
		name string
		park time.Duration
	}{{"parked", time.Millisecond}, {"not parked", -1}, {"too early to be parked", time.Hour}} {
		t.Run(test.name, func(t *testing.T) {
			ln, err := net.Listen("tcp", "127.0.0.1:0")
			if err != nil {
				t.Fatal(err)
			}
			var tr *standard.Transporter
			h := server.New(server.WithListener(ln), server.WithIdleTimeout(50*time.Millisecond),
				server.WithTransport(hertznet.Transport(func(s *standard.Transporter) {
					tr = s
					s.ParkAfter = test.park
				})))
			h.GET("/", func(_ context.Context, ctx *app.RequestContext) { ctx.Status(http.StatusNoContent) })
			ended := make(chan error, 1)
			go func() { ended <- h.Run() }()
			defer func() {
				h.Close()
				<-ended
			}()

			c, err := net.Dial("tcp", ln.Addr().String())
			if err != nil {
				t.Fatal(err)
			}
			defer c.Close()
			if err := c.SetDeadline(time.Now().Add(10 * time.Second)); err != nil {
				t.Fatal(err)
			}
			if _, err := io.WriteString(c, "GET / HTTP/1.1\r\nHost: x\r\n\r\n"); err != nil {
				t.Fatal(err)
			}
			if _, err := io.Copy(io.Discard, c); err != nil {
				t.Fatal(err)
			}
			for deadline := time.Now().Add(10 * time.Second); ; time.Sleep(time.Millisecond) {
				s := tr.Stats()
				if s.ClosedIdle == 1 {
					return
				}
				if s.ClosedByPeer+s.ClosedByHandler+s.ClosedByServer+s.ClosedSlow+s.ClosedByError > 0 || time.Now().After(deadline) {
					t.Fatalf("not ended by the idle timeout: %+v", s)
				}
			}
		})
	}
}
