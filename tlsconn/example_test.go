package tlsconn_test

import (
	"crypto/tls"
	"fmt"
	"io"
	"log"
	"log/slog"
	"net"
	"time"

	"github.com/hertznet/hertznet/tlsconn"
)

// A server and a client that trust a certificate made a moment ago.
func ExampleSelfSigned() {
	cert, pool, err := tlsconn.SelfSigned()
	if err != nil {
		log.Fatal(err)
	}
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		log.Fatal(err)
	}
	defer ln.Close()

	go func() {
		config := tlsconn.ServerConfig(&tls.Config{Certificates: []tls.Certificate{cert}})
		nc, err := ln.Accept()
		if err != nil {
			return
		}
		c := tlsconn.Server(nc, config)
		c.SetHandshakeTimeout(5 * time.Second)
		defer c.Close()
		io.WriteString(c, "hello over TLS")
	}()

	address := ln.Addr().String()
	nc, err := net.Dial("tcp", address)
	if err != nil {
		log.Fatal(err)
	}
	c := tlsconn.Client(nc, tlsconn.ClientConfig(&tls.Config{RootCAs: pool}, address))
	c.SetHandshakeTimeout(5 * time.Second)
	defer c.Close()
	b, err := io.ReadAll(c)
	fmt.Printf("%s, %v\n", b, err)
	// Output: hello over TLS, <nil>
}

// Each side proves who it is with a certificate of one authority.
func ExampleDevCA() {
	ca, err := tlsconn.NewDevCA()
	if err != nil {
		log.Fatal(err)
	}
	serverCert, err := ca.Server("localhost")
	if err != nil {
		log.Fatal(err)
	}
	clientCert, err := ca.Client("billing")
	if err != nil {
		log.Fatal(err)
	}
	serverConfig := &tls.Config{Certificates: []tls.Certificate{serverCert}}
	serverConfig = tlsconn.ServerConfig(tlsconn.MutualTLS(serverConfig, ca.Pool()))
	clientConfig := &tls.Config{Certificates: []tls.Certificate{clientCert}, RootCAs: ca.Pool()}
	clientConfig = tlsconn.ClientConfig(clientConfig, "localhost:8443")

	near, far := net.Pipe()
	client, server := tlsconn.Client(near, clientConfig), tlsconn.Server(far, serverConfig)
	go client.Handshake()
	if err := server.Handshake(); err != nil {
		log.Fatal(err)
	}
	fmt.Println(server.ConnectionState().PeerCertificates[0].Subject.CommonName)
	// Output: billing
}

// A server whose certificate is replaced on disk, by certbot or Kubernetes, while it runs.
func ExampleReloader() {
	reloader, err := tlsconn.NewReloader("/etc/tls/tls.crt", "/etc/tls/tls.key")
	if err != nil {
		log.Fatal(err)
	}
	reloader.Logger = slog.Default()
	config := tlsconn.ServerConfig(&tls.Config{GetCertificate: reloader.GetCertificate})

	ln, err := net.Listen("tcp", ":8443")
	if err != nil {
		log.Fatal(err)
	}
	for {
		nc, err := ln.Accept()
		if err != nil {
			log.Fatal(err)
		}
		go func() {
			c := tlsconn.Server(nc, config)
			c.SetHandshakeTimeout(5 * time.Second)
			defer c.Close()
			io.WriteString(c, "hello\n")
		}()
	}
}
