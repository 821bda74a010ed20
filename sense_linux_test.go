package hertznet_test

import (
	"context"
	"testing"

	"github.com/cloudwego/hertz/pkg/app"
	"github.com/cloudwego/hertz/pkg/app/server"
)

// With SenseClientDisconnection a client that goes away is seen behind what it sent
// ahead, too [S17].
func TestSenseClientDisconnectionBehindPipelinedBytes(t *testing.T) {
	eachMode(t, allModes, func(t *testing.T, m mode) {
		started, ended := make(chan struct{}, 1), make(chan error, 1)
		s := run(t, m, func(h *server.Hertz) {
			h.GET("/", func(ctx context.Context, c *app.RequestContext) {
				select {
				case started <- struct{}{}:
				default:
					return // the request that was sent ahead
				}
				<-ctx.Done()
				ended <- ctx.Err()
			})
		}, server.WithSenseClientDisconnection(true))
		c := s.raw(t)
		const request = "GET / HTTP/1.1\r\nHost: x\r\n\r\n"
		c.send(request)
		receive(t, "the handler starts", started)
		c.send(request)
		c.Close()
		receive(t, "the handler's context ends", ended)
	})
}
