package quic_test

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"log"
	"net"
	"strings"
	"time"

	"github.com/hertznet/hertznet/network"
	"github.com/hertznet/hertznet/quic"
	"github.com/hertznet/hertznet/standard"
	"github.com/hertznet/hertznet/tlsconn"
)

// selfSigned returns what a client and a server need, for development only.
func selfSigned(protocol string) (client, server *tls.Config) {
	cert, pool, err := tlsconn.SelfSigned("localhost", "127.0.0.1")
	if err != nil {
		log.Fatal(err)
	}
	return &tls.Config{RootCAs: pool, NextProtos: []string{protocol}},
		&tls.Config{Certificates: []tls.Certificate{cert}, NextProtos: []string{protocol}}
}

// tooLong is a code of an application's own.
type tooLong struct{}

func (tooLong) ErrCode() uint64 { return 7 }
func (tooLong) String() string  { return "too long" }

// A server that answers each stream in a goroutine of its own, and a client with two
// streams on one connection. Shutdown lets both answers arrive.
func ExampleTransporter() {
	clientTLS, serverTLS := selfSigned("upper")
	pc, err := net.ListenPacket("udp", "127.0.0.1:0")
	if err != nil {
		log.Fatal(err)
	}
	t := &quic.Transporter{TLSConfig: serverTLS, MaxConns: 10_000}
	served := make(chan error, 1)
	go func() {
		served <- t.Serve(pc, func(ctx context.Context, conn any) error {
			c := conn.(network.StreamConn)
			for {
				s, err := c.AcceptStream(ctx)
				if err != nil {
					return err // ErrShutdown among them: then the connection ends well
				}
				go upper(s)
			}
		})
	}()

	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
	defer cancel()
	c, err := quic.Dial(ctx, pc.LocalAddr().String(), clientTLS, nil)
	if err != nil {
		log.Fatal(err)
	}
	for _, text := range []string{"hello", "world"} {
		s, err := c.OpenStreamSync(ctx)
		if err != nil {
			log.Fatal(err)
		}
		io.WriteString(s, text)
		s.Close() // the end of the question
		answer, err := io.ReadAll(s)
		fmt.Printf("%s %v\n", answer, err)
	}
	c.CloseWithError(nil, "")
	fmt.Println(t.Shutdown(ctx), <-served)
	// Output:
	// HELLO <nil>
	// WORLD <nil>
	// <nil> <nil>
}

// upper answers a stream. It ends both directions, whatever happens.
func upper(s network.Stream) {
	defer s.Close()
	_ = s.SetReadDeadline(time.Now().Add(10 * time.Second))
	const most = 10
	b, err := io.ReadAll(io.LimitReader(s, most+1))
	if err != nil || len(b) > most {
		s.CancelRead(tooLong{})
		s.CancelWrite(tooLong{})
		return
	}
	io.WriteString(s, strings.ToUpper(string(b)))
}

// pair returns both ends of a connection.
func pair(ctx context.Context) (client, server *quic.Conn, end func()) {
	clientTLS, serverTLS := selfSigned("example")
	l, err := quic.Listen("udp", "127.0.0.1:0", serverTLS, nil)
	if err != nil {
		log.Fatal(err)
	}
	if client, err = quic.Dial(ctx, l.Addr().String(), clientTLS, nil); err != nil {
		log.Fatal(err)
	}
	if server, err = l.Accept(ctx); err != nil {
		log.Fatal(err)
	}
	return client, server, func() {
		client.CloseWithError(nil, "")
		server.CloseWithError(nil, "")
		l.Close()
	}
}

// A peer that cancels a stream gives a code. The connection and its other streams go on.
func ExampleStreamError() {
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
	defer cancel()
	client, server, end := pair(ctx)
	defer end()

	sending, err := client.OpenUniStream()
	if err != nil {
		log.Fatal(err)
	}
	io.WriteString(sending, "a beginning")
	receiving, err := server.AcceptUniStream(ctx)
	if err != nil {
		log.Fatal(err)
	}
	sending.CancelWrite(tooLong{})

	_, err = io.ReadAll(receiving)
	var cancelled quic.StreamError
	if errors.As(err, &cancelled) {
		fmt.Println("cancelled by the peer:", cancelled.Canceled(), "code:", cancelled.ErrCode())
	}
	// Output: cancelled by the peer: true code: 7
}

// The code and the text with which a connection is closed reach the peer.
func ExampleConn_CloseWithError() {
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
	defer cancel()
	client, server, end := pair(ctx)
	defer end()

	client.CloseWithError(tooLong{}, "the first message was too long")
	_, err := server.AcceptStream(ctx)
	var app network.ApplicationError
	fmt.Println(errors.Is(err, net.ErrClosed), errors.As(err, &app), app.ErrCode())
	<-server.Context().Done()
	fmt.Println(context.Cause(server.Context()))
	// Output:
	// true true 7
	// quic: connection: the connection was closed by the peer with code 0x7: the first message was too long
}

// A protocol that was written for TCP, over a stream.
func ExampleNetConn() {
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
	defer cancel()
	client, server, end := pair(ctx)
	defer end()

	s, err := client.OpenStream()
	if err != nil {
		log.Fatal(err)
	}
	c := standard.NewConn(quic.NetConn(s))
	defer c.Close()
	c.WriteBinary([]byte("length 5\nhello"))
	if err := c.Flush(); err != nil {
		log.Fatal(err)
	}

	accepted, err := server.AcceptStream(ctx)
	if err != nil {
		log.Fatal(err)
	}
	peer := standard.NewConn(quic.NetConn(accepted))
	defer peer.Close()
	head, err := peer.Peek(len("length 5\n"))
	if err != nil {
		log.Fatal(err)
	}
	var n int
	fmt.Sscanf(string(head), "length %d\n", &n)
	peer.Skip(len(head))
	body, err := peer.ReadBinary(n)
	peer.Release()
	fmt.Printf("%s %v\n", body, err)
	// Output: hello <nil>
}

// The settings of a server that strangers can reach. What is not set has a default.
func ExampleConfig() {
	config := &quic.Config{
		HandshakeTimeout: 5 * time.Second,
		IdleTimeout:      time.Minute,
		MaxStreams:       100,
		MaxUniStreams:    1,
		MaxConnBuffer:    1 << 20,
		MaxUnverified:    100,
	}
	_, serverTLS := selfSigned("example")
	l, err := quic.Listen("udp", "127.0.0.1:0", serverTLS, config)
	fmt.Println(err)
	l.Close()
	// Output: <nil>
}
