package http3

import (
	"context"
	"fmt"
	"net"
	"time"

	"github.com/cloudwego/hertz/pkg/app"
)

// AltSvc returns a middleware that tells the clients of HTTPS that the same is to be had
// over HTTP/3 on the same port (RFC 7838). They may remember it for maxAge, of which
// whole seconds count; less than one second is a day. It says so on connections of
// [NewTransporter] and [Transport] alone, and not on HTTP/3 itself; nor while the server
// shuts down:
//
//	h.Use(http3.AltSvc(0))
//
// The port is the one that the connection came in on. Behind something that maps it to
// another, write the header yourself.
func AltSvc(maxAge time.Duration) app.HandlerFunc {
	seconds := int64(maxAge / time.Second)
	if seconds <= 0 {
		seconds = 24 * 60 * 60
	}
	return func(c context.Context, ctx *app.RequestContext) {
		if t, ok := c.Value(transporterKey{}).(*transporter); ok && !t.stopping.Load() {
			if _, port, err := net.SplitHostPort(ctx.GetConn().LocalAddr().String()); err == nil {
				ctx.Response.Header.Set("Alt-Svc", fmt.Sprintf(`%s=":%s"; ma=%d`, Protocol, port, seconds))
			}
		}
		ctx.Next(c)
	}
}

// transporterKey is for the values of HTTPS connections' contexts.
type transporterKey struct{}
