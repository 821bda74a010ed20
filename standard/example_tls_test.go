package standard_test

import (
	"context"
	"crypto/tls"
	"fmt"
	"log"
	"net"
	"time"

	"github.com/hertznet/hertznet/network"
	"github.com/hertznet/hertznet/standard"
	"github.com/hertznet/hertznet/tlsconn"
)

// TLS over any net.Conn. Its connections have a handshake, which those without TLS have
// not, so a type assertion tells them apart.
func ExampleNewTLSConn() {
	cert, pool, err := tlsconn.SelfSigned() // for development
	if err != nil {
		log.Fatal(err)
	}
	near, far := net.Pipe()
	server := standard.NewTLSConn(tlsconn.Server(far, tlsconn.ServerConfig(&tls.Config{Certificates: []tls.Certificate{cert}})))
	client := standard.NewTLSConn(tlsconn.Client(near, tlsconn.ClientConfig(&tls.Config{RootCAs: pool}, "localhost")))
	defer client.Close()
	go func() {
		defer server.Close()
		server.WriteBinary([]byte("hello"))
		server.Flush() // makes the handshake, too
	}()

	for _, c := range []network.Conn{client, standard.NewConn(far)} {
		_, ok := c.(network.ConnTLSer)
		fmt.Printf("%T %t\n", c, ok)
	}
	b, err := client.Peek(5)
	fmt.Printf("%s %v %s\n", b, err, tls.VersionName(client.ConnectionState().Version))
	// Output:
	// *standard.TLSConn true
	// *standard.Conn false
	// hello <nil> TLS 1.3
}

// A server with TLS, and a client that trusts its certificate. One timeout covers lookup,
// connect and handshake.
func ExampleDialer_DialConnection() {
	cert, pool, err := tlsconn.SelfSigned() // for development
	if err != nil {
		log.Fatal(err)
	}
	t := &standard.Transporter{
		Addr:      "127.0.0.1:0",
		TLSConfig: &tls.Config{Certificates: []tls.Certificate{cert}},
	}
	ln, err := t.Listen()
	if err != nil {
		log.Fatal(err)
	}
	go t.Serve(ln, echo)
	defer t.Close()

	c, err := new(standard.Dialer).DialConnection("tcp", ln.Addr().String(), 5*time.Second, &tls.Config{RootCAs: pool})
	if err != nil {
		log.Fatal(err)
	}
	defer c.Close()
	c.Write([]byte("hello"))
	b, err := c.Peek(5)
	fmt.Printf("%s %v\n", b, err)
	fmt.Println(c.(network.ConnTLSer).ConnectionState().HandshakeComplete)

	// Who does not trust the certificate gets crypto/tls's own error, and no connection.
	c, err = new(standard.Dialer).DialConnection("tcp", ln.Addr().String(), 5*time.Second, &tls.Config{})
	_, ok := err.(*tls.CertificateVerificationError)
	fmt.Println(c == nil, ok)
	// Output:
	// hello <nil>
	// true
	// true true
}

// STARTTLS: a connection goes over to TLS after a word in clear text. Nothing that is
// buffered is lost on either side.
func ExampleDialer_AddTLS() {
	cert, pool, err := tlsconn.SelfSigned() // for development
	if err != nil {
		log.Fatal(err)
	}
	config := tlsconn.ServerConfig(&tls.Config{Certificates: []tls.Certificate{cert}})
	t := &standard.Transporter{Addr: "127.0.0.1:0", ReadTimeout: time.Minute, WriteTimeout: time.Minute}
	ln, err := t.Listen()
	if err != nil {
		log.Fatal(err)
	}
	defer t.Close()
	go t.Serve(ln, func(ctx context.Context, conn any) error {
		c := conn.(*standard.Conn)
		if err := c.Skip(len("STARTTLS\n")); err != nil {
			return err
		}
		c.WriteBinary([]byte("go on\n"))
		if err := c.Flush(); err != nil {
			return err
		}
		c.SetHijacked() // for Shutdown and Stats: this call lasts as long as the connection
		s := standard.NewTLSConn(tlsconn.Server(c, config))
		defer s.Close()
		if _, err := s.Peek(1); err != nil {
			return err
		}
		return echo(ctx, s)
	})

	dialer := new(standard.Dialer)
	c, err := dialer.DialConnection("tcp", ln.Addr().String(), time.Second, nil)
	if err != nil {
		log.Fatal(err)
	}
	c.Write([]byte("STARTTLS\n"))
	word, err := c.ReadBinary(len("go on\n"))
	fmt.Printf("%s%v\n", word, err)

	c, err = dialer.AddTLS(c, &tls.Config{RootCAs: pool}) // closes c if it fails
	if err != nil {
		log.Fatal(err)
	}
	defer c.Close()
	c.Write([]byte("secret"))
	b, err := c.Peek(6)
	fmt.Printf("%s %v\n", b, err)
	// Output:
	// go on
	// <nil>
	// secret <nil>
}

// A server that accepts and then says nothing: the timeout covers the handshake too.
func ExampleDialer_DialTimeout() {
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		log.Fatal(err)
	}
	defer ln.Close()

	c, err := new(standard.Dialer).DialTimeout("tcp", ln.Addr().String(), 20*time.Millisecond, &tls.Config{ServerName: "example.com"})
	timeout, ok := err.(net.Error)
	fmt.Println(c == nil, ok && timeout.Timeout())
	// Output: true true
}

// A client of a unix socket, for code that knows only host and port.
func ExampleDialer() {
	dialer := &standard.Dialer{
		HandshakeTimeout: 3 * time.Second,
		DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
			return new(net.Dialer).DialContext(ctx, "unix", "/run/app.sock")
		},
	}
	c, err := dialer.DialConnection("tcp", "app:80", time.Second, nil)
	if err != nil {
		log.Fatal(err)
	}
	defer c.Close()
}
