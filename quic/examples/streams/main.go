// The command streams runs a QUIC server and a client in one process: bidirectional
// streams, unidirectional streams in both directions, a stream that is cancelled, a
// protocol for TCP over a stream, and a shutdown that waits for an answer. It ends by
// itself.
package main

import (
	"bufio"
	"bytes"
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"log"
	"math/big"
	"net"
	"os"
	"time"

	"github.com/hertznet/hertznet/network"
	"github.com/hertznet/hertznet/quic"
	"github.com/hertznet/hertznet/standard"
)

// The codes of this example's protocol.
type code uint64

const (
	done      code = 0
	tooLong   code = 1
	maxLength      = 1 << 20
)

func (c code) ErrCode() uint64 { return uint64(c) }
func (c code) String() string  { return [...]string{"done", "too long"}[c] }

func main() {
	log.SetFlags(0)
	if len(os.Args) > 1 {
		log.Fatalf("streams: %q is one too many: it takes no arguments", os.Args[1])
	}
	ctx, cancel := context.WithTimeout(context.Background(), 20*time.Second)
	defer cancel()
	if err := run(ctx); err != nil {
		log.Fatal(err)
	}
}

func run(ctx context.Context) error {
	clientTLS, serverTLS, err := tlsConfigs()
	if err != nil {
		return err
	}
	pc, err := net.ListenPacket("udp", "127.0.0.1:0")
	if err != nil {
		return err
	}
	t := &quic.Transporter{TLSConfig: serverTLS, NoError: uint64(done)}
	served := make(chan error, 1)
	go func() { served <- t.Serve(pc, serve) }()
	defer t.Close()

	c, err := quic.Dial(ctx, pc.LocalAddr().String(), clientTLS, nil)
	if err != nil {
		return err
	}
	fmt.Printf("connected to %v, QUIC version %d, protocol %q\n", c.RemoteAddr(), c.GetVersion(), c.State().TLS.NegotiatedProtocol)

	for _, step := range []func(context.Context, network.StreamConn) error{greeting, echo, upload, cancelled, lines} {
		if err := step(ctx, c); err != nil {
			return err
		}
	}
	return shutdown(ctx, t, c, served)
}

// serve is the server's OnData.
func serve(ctx context.Context, conn any) error {
	c := conn.(network.StreamConn)
	// The server may speak first, on a stream of its own.
	hello, err := c.OpenUniStreamSync(ctx)
	if err != nil {
		return err
	}
	fmt.Fprintf(hello, "hello, %v", c.RemoteAddr())
	hello.Close()

	go func() {
		for {
			s, err := c.AcceptUniStream(ctx)
			if err != nil {
				return // the connection has ended, or the server shuts down
			}
			go func() {
				n, err := io.Copy(io.Discard, s)
				fmt.Printf("server: stream %d brought %d bytes, error %v\n", s.StreamID(), n, err)
			}()
		}
	}()
	for {
		s, err := c.AcceptStream(ctx)
		if err != nil {
			return err
		}
		go answer(s)
	}
}

// answer serves one stream. The first byte says what is wanted.
func answer(s network.Stream) {
	defer s.Close()
	kind := make([]byte, 1)
	if _, err := io.ReadFull(s, kind); err != nil {
		return
	}
	switch kind[0] {
	case 'e': // echo of what comes, up to maxLength
		n, err := io.Copy(s, io.LimitReader(s, maxLength+1))
		if err == nil && n > maxLength {
			s.CancelRead(tooLong)
			s.CancelWrite(tooLong)
		}
	case 'l': // lines, by code that was written for TCP
		conn := standard.NewConn(quic.NetConn(s))
		in := bufio.NewScanner(conn)
		for in.Scan() {
			if _, err := conn.WriteBinary(append(bytes.ToUpper(in.Bytes()), '\n')); err != nil {
				return
			}
			if err := conn.Flush(); err != nil {
				return
			}
		}
	case 's': // an answer that takes its time
		fmt.Fprint(s, "wait")
		time.Sleep(200 * time.Millisecond)
		fmt.Fprint(s, " for it")
	}
}

func greeting(ctx context.Context, c network.StreamConn) error {
	s, err := c.AcceptUniStream(ctx)
	if err != nil {
		return err
	}
	text, err := io.ReadAll(s)
	fmt.Printf("stream %d, unidirectional, from the server: %q\n", s.StreamID(), text)
	return err
}

func echo(ctx context.Context, c network.StreamConn) error {
	const streams, size = 100, 10_000
	start := time.Now()
	results := make(chan error, streams)
	for i := range streams {
		go func() {
			results <- func() error {
				s, err := c.OpenStreamSync(ctx)
				if err != nil {
					return err
				}
				message := bytes.Repeat([]byte{byte(i)}, size)
				go func() {
					s.Write(append([]byte("e"), message...))
					s.Close()
				}()
				got, err := io.ReadAll(s)
				if err == nil && !bytes.Equal(got, message) {
					err = fmt.Errorf("stream %d brought something else back", s.StreamID())
				}
				return err
			}()
		}()
	}
	for range streams {
		if err := <-results; err != nil {
			return err
		}
	}
	fmt.Printf("%d bidirectional streams at once, %d bytes each way on each, in %v\n", streams, size, time.Since(start).Round(time.Millisecond/10))
	return nil
}

func upload(ctx context.Context, c network.StreamConn) error {
	s, err := c.OpenUniStreamSync(ctx)
	if err != nil {
		return err
	}
	if _, err := s.Write(make([]byte, 1<<20)); err != nil {
		return err
	}
	fmt.Printf("stream %d, unidirectional, to the server: 1 MiB written\n", s.StreamID())
	return s.Close()
}

func cancelled(ctx context.Context, c network.StreamConn) error {
	s, err := c.OpenStreamSync(ctx)
	if err != nil {
		return err
	}
	defer s.Close()
	go func() {
		s.Write(append([]byte("e"), make([]byte, maxLength+1)...))
	}()
	n, err := io.Copy(io.Discard, s)
	e, ok := err.(quic.StreamError)
	if !ok || !e.Canceled() || code(e.ErrCode()) != tooLong {
		return fmt.Errorf("a message that is too long ended with %v", err)
	}
	fmt.Printf("stream %d was cancelled by the server after %d bytes: %v\n", s.StreamID(), n, code(e.ErrCode()))
	return nil
}

func lines(ctx context.Context, c network.StreamConn) error {
	s, err := c.OpenStreamSync(ctx)
	if err != nil {
		return err
	}
	conn := quic.NetConn(s)
	defer conn.Close()
	if _, err := fmt.Fprint(conn, "l", "one line\n"); err != nil {
		return err
	}
	line, err := bufio.NewReader(conn).ReadString('\n')
	fmt.Printf("a protocol of lines on %v, as a net.Conn: %q\n", conn.RemoteAddr(), line)
	return err
}

func shutdown(ctx context.Context, t *quic.Transporter, c *quic.Conn, served <-chan error) error {
	s, err := c.OpenStreamSync(ctx)
	if err != nil {
		return err
	}
	if _, err := fmt.Fprint(s, "s"); err != nil {
		return err
	}
	s.Close()
	buf := make([]byte, 4)
	if _, err := io.ReadFull(s, buf); err != nil { // the server is at it
		return err
	}
	start := time.Now()
	shut := make(chan error, 1)
	go func() { shut <- t.Shutdown(ctx) }()
	rest, err := io.ReadAll(s)
	fmt.Printf("an answer that was begun before Shutdown: %q, error %v\n", string(buf)+string(rest), err)
	if err := errors.Join(<-shut, <-served); err != nil {
		return err
	}
	<-c.Context().Done()
	fmt.Printf("shut down in %v; the client was told: %v\n", time.Since(start).Round(time.Millisecond), context.Cause(c.Context()))
	return nil
}

// tlsConfigs returns a client's and a server's, with a certificate for this run.
func tlsConfigs() (client, server *tls.Config, err error) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return nil, nil, err
	}
	template := &x509.Certificate{
		SerialNumber: big.NewInt(1),
		IPAddresses:  []net.IP{net.IPv4(127, 0, 0, 1)},
		NotBefore:    time.Now().Add(-time.Hour),
		NotAfter:     time.Now().Add(time.Hour),
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
	if err != nil {
		return nil, nil, err
	}
	cert, err := x509.ParseCertificate(der)
	if err != nil {
		return nil, nil, err
	}
	pool := x509.NewCertPool()
	pool.AddCert(cert)
	const proto = "streams-example"
	return &tls.Config{RootCAs: pool, NextProtos: []string{proto}},
		&tls.Config{Certificates: []tls.Certificate{{Certificate: [][]byte{der}, PrivateKey: key}}, NextProtos: []string{proto}}, nil
}
