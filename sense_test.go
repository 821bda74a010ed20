package hertznet_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"net"
	"strings"
	"testing"
	"time"

	"github.com/cloudwego/hertz/pkg/app"
	"github.com/cloudwego/hertz/pkg/app/server"
)

// With SenseClientDisconnection the handler's context ends when the client goes
// away, however it does [S17].
func TestSenseClientDisconnection(t *testing.T) {
	eachMode(t, senseModes, func(t *testing.T, m mode) {
		const limit = 50 * time.Millisecond
		hook, open := gate()
		started, ended := make(chan struct{}, 1), make(chan error, 1)
		s := run(t, m, func(h *server.Hertz) {
			h.POST("/", func(ctx context.Context, c *app.RequestContext) {
				body := bytes.Clone(c.Request.Body())
				started <- struct{}{}
				select {
				case <-ctx.Done():
					sameBytes(t, "the body in the meantime", c.Request.Body(), body)
					ended <- ctx.Err()
				case <-time.After(guard):
					ended <- nil
				}
			})
			h.GET("/", text("ok"))
		}, server.WithSenseClientDisconnection(true), server.WithReadTimeout(limit), server.WithIdleTimeout(time.Minute), hook)
		for name, leave := range map[string]func(net.Conn){"close": func(c net.Conn) { c.Close() }, "reset": reset} {
			c := s.raw(t)
			const first = "GET / HTTP/1.1\r\nHost: x\r\n\r\n" // it is sensed for, and leaves no trace
			c.send(first + first + "POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 5000\r\n\r\n" + strings.Repeat("z", 5000))
			open()
			c.answer("GET")
			c.answer("GET")
			receive(t, "the handler starts", started)
			time.Sleep(2 * limit) // which is no limit of the watch
			leave(c)
			if err := receive(t, "the context ends", ended); !errors.Is(err, context.Canceled) {
				t.Errorf("%s: the handler's context: %v", name, err)
			}
		}
	})
}

// What a client sends ahead is no disconnection.
func TestSenseClientDisconnectionAndPipelining(t *testing.T) {
	eachMode(t, senseModes, func(t *testing.T, m mode) {
		started, release := make(chan struct{}, 10), make(chan struct{})
		s := run(t, m, func(h *server.Hertz) {
			h.POST("/:n", func(ctx context.Context, c *app.RequestContext) {
				started <- struct{}{}
				select {
				case <-release:
				case <-ctx.Done():
					t.Errorf("request %s was cancelled", c.Param("n"))
				}
				if c.Param("n") == "0" {
					// Whoever took the bytes sent ahead for an end has had time to say so.
					select {
					case <-ctx.Done():
						t.Error("the context ended by a pipelined request")
					case <-time.After(50 * time.Millisecond):
					}
				}
				c.Response.SetBody(c.Request.Body())
			})
		}, server.WithSenseClientDisconnection(true))
		c := s.raw(t)
		request := func(i int) (req, body string) {
			body = fmt.Sprint("body ", i, strings.Repeat("-", 3000*i))
			return fmt.Sprintf("POST /%d HTTP/1.1\r\nHost: x\r\nContent-Length: %d\r\n\r\n%s", i, len(body), body), body
		}
		first, _ := request(0)
		c.send(first)
		receive(t, "the handler starts", started)
		for i := 1; i < 5; i++ {
			req, _ := request(i)
			c.send(req)
		}
		close(release)
		for i := range 5 {
			if _, want := request(i); true {
				if _, got := c.answer("POST"); got != want {
					t.Errorf("answer %d is %.20q (%d bytes), want %.20q (%d)", i, got, len(got), want, len(want))
				}
			}
		}
	})
}

// A handler that panics, or whose answer cannot be written, ends while the
// connection is being watched: nothing of it may be touched by two.
func TestSenseClientDisconnectionAndFailure(t *testing.T) {
	eachMode(t, senseModes, func(t *testing.T, m mode) {
		s := run(t, m, func(h *server.Hertz) {
			h.POST("/panic", func(context.Context, *app.RequestContext) {
				time.Sleep(time.Millisecond) // the watch has most likely begun: that is the bad case
				panic("on purpose")
			})
			h.POST("/write", func(_ context.Context, ctx *app.RequestContext) {
				time.Sleep(time.Millisecond)
				ctx.SetBodyStream(bytes.NewReader(make([]byte, 100)), 5000) // less than promised
			})
		}, server.WithSenseClientDisconnection(true))
		for i := range 20 {
			path := []string{"/panic", "/write"}[i%2]
			c := s.raw(t)
			c.send("POST " + path + " HTTP/1.1\r\nHost: x\r\nContent-Length: 5\r\n\r\n12345" + []string{"", "POST"}[i/2%2])
			c.atEnd()
		}
	})
}
