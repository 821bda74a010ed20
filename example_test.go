package hertznet_test

import (
	"context"
	"crypto/tls"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"time"

	"github.com/cloudwego/hertz/pkg/app"
	"github.com/cloudwego/hertz/pkg/app/client"
	"github.com/cloudwego/hertz/pkg/app/server"
	"github.com/cloudwego/hertz/pkg/network"

	"github.com/hertznet/hertznet"
	"github.com/hertznet/hertznet/standard"
	"github.com/hertznet/hertznet/tlsconn"
)

// A Hertz server on hertznet, and any HTTP client.
func ExampleNewTransporter() {
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		fmt.Println(err)
		return
	}
	h := server.New(server.WithTransport(hertznet.NewTransporter), server.WithListener(ln))
	h.GET("/hello", func(_ context.Context, ctx *app.RequestContext) {
		ctx.String(http.StatusOK, "hello")
	})
	ended := make(chan error)
	go func() { ended <- h.Run() }()

	resp, err := http.Get("http://" + ln.Addr().String() + "/hello")
	if err != nil {
		fmt.Println(err)
		return
	}
	body, err := io.ReadAll(resp.Body)
	resp.Body.Close()
	fmt.Println(resp.StatusCode, string(body), err)

	// The connection is still open, and idle: it does not hold this up.
	fmt.Println("shutdown:", h.Shutdown(context.Background()))
	fmt.Println("ended:", <-ended)
	fmt.Println("network library:", h.GetTransporterName())
	// Output:
	// 200 hello <nil>
	// shutdown: <nil>
	// ended: <nil>
	// network library: hertznet
}

// Settings that Hertz has no option for.
func ExampleTransport() {
	h := server.New(
		server.WithHostPorts("127.0.0.1:0"),
		server.WithReadTimeout(time.Minute),
		server.WithTransport(hertznet.Transport(func(t *standard.Transporter) {
			t.HandshakeTimeout = 5 * time.Second
			fmt.Println(t.Addr, t.ReadTimeout) // set by the options
		})),
	)
	fmt.Println(h.GetTransporterName())
	// Output:
	// 127.0.0.1:0 1m0s
	// hertznet
}

// A Hertz client on hertznet, and any HTTP server.
func ExampleNewDialer() {
	srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		fmt.Fprint(w, "hello")
	}))
	defer srv.Close()

	c, err := client.NewClient(client.WithDialer(hertznet.NewDialer()))
	if err != nil {
		fmt.Println(err)
		return
	}
	defer c.CloseIdleConnections()
	status, body, err := c.Get(context.Background(), nil, srv.URL)
	fmt.Println(status, string(body), err)
	// Output: 200 hello <nil>
}

// A Hertz client for a server on a unix socket: Hertz passes on the host of the
// URL, and DialContext leads it to the socket.
func ExampleNewDialer_unix() {
	path := "/run/app.sock"
	dialer := hertznet.NewDialer(func(d *standard.Dialer) {
		d.DialContext = func(ctx context.Context, _, _ string) (net.Conn, error) {
			return new(net.Dialer).DialContext(ctx, "unix", path)
		}
	})
	c, err := client.NewClient(client.WithDialer(dialer))
	if err != nil {
		fmt.Println(err)
		return
	}
	_, body, err := c.Get(context.Background(), nil, "http://app/hello")
	fmt.Println(string(body), err)
}

// HTTPS, and a Hertz client that trusts the certificate. WithDialer comes after
// WithTLSConfig, which sets a dialer of its own.
func ExampleNewTransporter_tls() {
	cert, pool, err := tlsconn.SelfSigned() // for development; see tlsconn.NewReloader
	if err != nil {
		fmt.Println(err)
		return
	}
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		fmt.Println(err)
		return
	}
	h := server.New(
		server.WithTransport(hertznet.NewTransporter),
		server.WithListener(ln),
		server.WithTLS(&tls.Config{Certificates: []tls.Certificate{cert}}),
	)
	h.GET("/hello", func(_ context.Context, ctx *app.RequestContext) {
		_, overTLS := ctx.GetConn().(network.ConnTLSer)
		ctx.String(http.StatusOK, "hello, over TLS: %t", overTLS)
	})
	go h.Run()
	defer h.Close()

	c, err := client.NewClient(
		client.WithTLSConfig(&tls.Config{RootCAs: pool}),
		client.WithDialer(hertznet.NewDialer()),
	)
	if err != nil {
		fmt.Println(err)
		return
	}
	defer c.CloseIdleConnections()
	status, body, err := c.Get(context.Background(), nil, "https://"+ln.Addr().String()+"/hello")
	fmt.Println(status, string(body), err)
	// Output: 200 hello, over TLS: true <nil>
}

// Limits on what peers may take, and the figures of the server.
func ExampleTransport_limits() {
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		fmt.Println(err)
		return
	}
	var t *standard.Transporter
	h := server.New(
		server.WithListener(ln),
		server.WithMaxRequestBodySize(1<<20),
		server.WithWriteTimeout(10*time.Second), // Hertz has none by itself
		server.WithTransport(hertznet.Transport(func(s *standard.Transporter) {
			s.MaxConns = 10_000
			s.MaxConnsPerIP = 100
			s.MinReadRate = 240 // bytes a second, of a request that is on its way
			t = s
		})),
	)
	h.POST("/echo", func(_ context.Context, ctx *app.RequestContext) {
		ctx.Response.SetBodyRaw(ctx.Request.Body()) // sent from the memory that it was read into
	})
	go h.Run()
	defer h.Close()

	resp, err := http.Post("http://"+ln.Addr().String()+"/echo", "text/plain", strings.NewReader("hello"))
	if err != nil {
		fmt.Println(err)
		return
	}
	body, err := io.ReadAll(resp.Body)
	resp.Body.Close()
	fmt.Println(resp.StatusCode, string(body), err)
	fmt.Println("accepted:", t.Stats().Accepted, "rejected:", t.Stats().Rejected)
	// Output:
	// 200 hello <nil>
	// accepted: 1 rejected: 0
}
