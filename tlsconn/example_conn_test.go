package tlsconn_test

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"
	"io"
	"log"
	"net"
	"os"
	"path/filepath"
	"time"

	"github.com/hertznet/hertznet/tlsconn"
)

// devPair returns two ends that trust each other, over net.Pipe.
func devPair() (client, server *tlsconn.Conn) {
	cert, pool, err := tlsconn.SelfSigned()
	if err != nil {
		log.Fatal(err)
	}
	near, far := net.Pipe()
	return tlsconn.Client(near, tlsconn.ClientConfig(&tls.Config{RootCAs: pool}, "localhost:443")),
		tlsconn.Server(far, tlsconn.ServerConfig(&tls.Config{Certificates: []tls.Certificate{cert}}))
}

// A peer that connects and says nothing ends the handshake, not the server's patience. The
// time is that of the whole handshake, however many reads and writes it has.
func ExampleConn_SetHandshakeTimeout() {
	near, far := net.Pipe()
	defer near.Close()
	c := tlsconn.Server(far, new(tls.Config))
	defer c.Close()
	c.SetHandshakeTimeout(10 * time.Millisecond)
	_, err := c.Read(make([]byte, 1)) // runs the handshake, as Handshake and Write do
	fmt.Println(errors.Is(err, os.ErrDeadlineExceeded))
	// Output: true
}

// When its context ends, a handshake does.
func ExampleConn_HandshakeContext() {
	near, far := net.Pipe()
	defer far.Close()
	c := tlsconn.Client(near, tlsconn.ClientConfig(nil, "example.com:443"))
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Millisecond)
	defer cancel()
	fmt.Println(c.HandshakeContext(ctx))
	// Output: context deadline exceeded
}

// A stream that its sender has ended is told from one that somebody has cut.
func ExampleConn_Read() {
	for _, cut := range []bool{false, true} {
		client, server := devPair()
		go func() {
			io.WriteString(server, "hello")
			if cut {
				server.NetConn().Close() // without a word, as a broken network does
			} else {
				server.Close()
			}
		}()
		b := make([]byte, 5)
		if _, err := io.ReadFull(client, b); err != nil {
			log.Fatal(err)
		}
		_, err := client.Read(b)
		fmt.Printf("%s, %v\n", b, err)
		client.Close()
	}
	// Output:
	// hello, EOF
	// hello, unexpected EOF
}

// A header and a body share a record, and records share calls of Write beneath.
func ExampleConn_WriteBuffers() {
	client, server := devPair()
	defer client.Close()
	go func() {
		defer server.Close()
		header, body := []byte("header "), []byte("body")
		n, err := server.WriteBuffers(&net.Buffers{header, body})
		fmt.Println(n, err)
	}()
	b := make([]byte, 100)
	n, err := client.Read(b) // what one record has
	fmt.Printf("%s %v\n", b[:n], err)
	_, err = client.Read(b)
	fmt.Println(err)
	// Unordered output:
	// 11 <nil>
	// header body <nil>
	// EOF
}

// One side has said all, and reads on.
func ExampleConn_CloseWrite() {
	client, server := devPair()
	defer client.Close()
	go func() {
		defer server.Close()
		b, err := io.ReadAll(server) // until the client has said all
		fmt.Fprintf(server, "%d bytes, %v", len(b), err)
	}()
	io.WriteString(client, "hello")
	if err := client.CloseWrite(); err != nil {
		log.Fatal(err)
	}
	b, err := io.ReadAll(client)
	fmt.Printf("%s, %v\n", b, err)
	// Output: 5 bytes, <nil>, <nil>
}

// One config for all connections of a listener, made once: it has the keys by which a
// client resumes its session.
func ExampleServerConfig() {
	cert, pool, err := tlsconn.SelfSigned()
	if err != nil {
		log.Fatal(err)
	}
	serverConfig := tlsconn.ServerConfig(&tls.Config{Certificates: []tls.Certificate{cert}})
	clientConfig := tlsconn.ClientConfig(&tls.Config{
		RootCAs:            pool,
		ClientSessionCache: tls.NewLRUClientSessionCache(10),
	}, "localhost:443")

	for range 2 {
		near, far := net.Pipe()
		client, server := tlsconn.Client(near, clientConfig), tlsconn.Server(far, serverConfig)
		go func() {
			io.WriteString(server, "hello")
			server.Close()
		}()
		b, err := io.ReadAll(client) // with the ticket in front of it
		fmt.Printf("%s %v, resumed: %t\n", b, err, client.ConnectionState().DidResume)
		client.Close()
	}
	// Output:
	// hello <nil>, resumed: false
	// hello <nil>, resumed: true
}

// The name that the certificate must be valid for comes from the address that was dialled.
func ExampleClientConfig() {
	for _, address := range []string{"example.com:443", "example.com.:443", "[fe80::1%eth0]:443", ":443"} {
		fmt.Printf("%q\n", tlsconn.ClientConfig(nil, address).ServerName)
	}
	fmt.Printf("%q\n", tlsconn.ClientConfig(&tls.Config{ServerName: "mine"}, "example.com:443").ServerName)
	// Output:
	// "example.com"
	// "example.com"
	// "fe80::1"
	// ""
	// "mine"
}

// A client without a certificate is refused.
func ExampleMutualTLS() {
	ca, err := tlsconn.NewDevCA()
	if err != nil {
		log.Fatal(err)
	}
	cert, err := ca.Server("localhost")
	if err != nil {
		log.Fatal(err)
	}
	serverConfig := tlsconn.MutualTLS(&tls.Config{Certificates: []tls.Certificate{cert}}, ca.Pool())
	clientConfig := tlsconn.ClientConfig(&tls.Config{RootCAs: ca.Pool()}, "localhost:443")

	near, far := net.Pipe()
	client, server := tlsconn.Client(near, clientConfig), tlsconn.Server(far, tlsconn.ServerConfig(serverConfig))
	go io.Copy(io.Discard, client)
	fmt.Println(server.Handshake())
	// Output: tls: client didn't provide a certificate
}

// A certificate is replaced on disk; the next handshake has the new one.
func ExampleNewReloader() {
	dir, err := os.MkdirTemp("", "example")
	if err != nil {
		log.Fatal(err)
	}
	defer os.RemoveAll(dir)
	certFile, keyFile := filepath.Join(dir, "tls.crt"), filepath.Join(dir, "tls.key")
	issue(certFile, keyFile, "old.example")

	reloader, err := tlsconn.NewReloader(certFile, keyFile)
	if err != nil {
		log.Fatal(err)
	}
	reloader.Interval = time.Nanosecond // look at every handshake; by default once a second
	config := tlsconn.ServerConfig(&tls.Config{GetCertificate: reloader.GetCertificate})

	fmt.Println(served(config))
	issue(certFile, keyFile, "new.example")
	fmt.Println(served(config))
	os.WriteFile(certFile, []byte("half a certificate"), 0o600)
	fmt.Println(served(config), reloader.Err() != nil)
	// Output:
	// [old.example]
	// [new.example]
	// [new.example] true
}

// issue writes a certificate and its key.
func issue(certFile, keyFile, host string) {
	cert, _, err := tlsconn.SelfSigned(host)
	if err != nil {
		log.Fatal(err)
	}
	key, err := x509.MarshalPKCS8PrivateKey(cert.PrivateKey)
	if err != nil {
		log.Fatal(err)
	}
	os.WriteFile(certFile, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: cert.Certificate[0]}), 0o600)
	os.WriteFile(keyFile, pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: key}), 0o600)
}

// served returns the names of the certificate that a server with config has.
func served(config *tls.Config) []string {
	near, far := net.Pipe()
	client := tlsconn.Client(near, &tls.Config{InsecureSkipVerify: true}) // to look, and no more
	server := tlsconn.Server(far, config)
	defer client.Close()
	defer server.Close()
	go server.Handshake()
	if err := client.Handshake(); err != nil {
		log.Fatal(err)
	}
	return client.ConnectionState().PeerCertificates[0].DNSNames
}
