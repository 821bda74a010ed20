package http3_test

import (
	"context"
	"crypto/tls"
	"fmt"
	"log"
	"net"
	"time"

	"github.com/cloudwego/hertz/pkg/app"
	"github.com/cloudwego/hertz/pkg/app/client"
	"github.com/cloudwego/hertz/pkg/app/server"
	"github.com/cloudwego/hertz/pkg/common/config"
	"github.com/cloudwego/hertz/pkg/network"

	"github.com/hertznet/hertznet"
	"github.com/hertznet/hertznet/quic"
	"github.com/hertznet/hertznet/quic/http3"
	"github.com/hertznet/hertznet/standard"
	"github.com/hertznet/hertznet/tlsconn"
)

// A server of HTTPS and HTTP/3 on one port, and a client of each. The certificate is for
// development only; tlsconn.NewReloader has those of files.
func Example() {
	cert, pool, err := tlsconn.SelfSigned("localhost", "127.0.0.1")
	if err != nil {
		log.Fatal(err)
	}
	var port interface{ Listener() net.Listener }
	h := server.New(
		server.WithHostPorts("127.0.0.1:0"), // ":443"
		server.WithTLS(&tls.Config{Certificates: []tls.Certificate{cert}}),
		server.WithReadTimeout(10*time.Second),
		server.WithWriteTimeout(10*time.Second),
		server.WithTransport(func(o *config.Options) network.Transporter {
			t := http3.NewTransporter(o) // alone it is enough where the port is known
			port = t.(interface{ Listener() net.Listener })
			return t
		}),
	)
	h.AddProtocol(http3.Protocol, http3.NewServerFactory(h.Engine))
	h.Use(http3.AltSvc(time.Hour))
	h.GET("/", func(_ context.Context, ctx *app.RequestContext) {
		ctx.String(200, "hello over %s", ctx.Request.Header.GetProtocol())
	})
	ended := make(chan error, 1)
	go func() { ended <- h.Run() }()
	for !h.IsRunning() {
		select {
		case err := <-ended:
			log.Fatal(err)
		case <-time.After(time.Millisecond):
		}
	}
	url := "https://" + port.Listener().Addr().String() + "/"

	trust := &tls.Config{RootCAs: pool}
	https, err := client.NewClient(client.WithTLSConfig(trust), client.WithDialer(hertznet.NewDialer()))
	if err != nil {
		log.Fatal(err)
	}
	over3, err := client.NewClient(client.WithTLSConfig(trust))
	if err != nil {
		log.Fatal(err)
	}
	over3.SetClientFactory(http3.NewClientFactory(over3.GetOptions()))
	for _, c := range []*client.Client{https, over3} {
		status, body, err := c.Get(context.Background(), nil, url)
		fmt.Println(status, string(body), err)
		c.CloseIdleConnections()
	}
	fmt.Println(h.Shutdown(context.Background()), <-ended)
	// Output:
	// 200 hello over HTTP/1.1 <nil>
	// 200 hello over HTTP/3.0 <nil>
	// <nil> <nil>
}

// Settings that Hertz has no option for, of QUIC and of TCP.
func ExampleTransport() {
	transport := http3.Transport(func(quic *quic.Transporter, tcp *standard.Transporter) {
		quic.MaxConns = 10_000
		quic.Config.IdleTimeout = time.Minute
		tcp.MaxConnsPerIP = 100
	})
	h := server.New(server.WithTransport(transport)) // and WithTLS
	h.AddProtocol(http3.Protocol, http3.NewServerFactory(h.Engine))
}
