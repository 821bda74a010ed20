// Frames is a protocol of one's own on hertznet, without Hertz: requests and answers in
// frames that begin with their length.
//
//	go run ./examples/frames
//
// serves it over TCP, TLS and a unix socket with one handler, sends requests one by one,
// pipelined and from many goroutines, sends what is wrong, shuts down under load, and
// prints a line for all that is as it should be; it exits with a status other than 0 and
// the reason on standard error at the first that is not.
//
//	go run ./examples/frames -serve :7000
//
// serves on that TCP port until it is interrupted.
//
// frame.go has the format, server.go the handler, client.go a client of it. It imports
// packages network, standard and tlsconn, and beside them the standard library alone.
package main

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"flag"
	"fmt"
	"net"
	"os"
	"os/signal"
	"path/filepath"
	"syscall"

	"github.com/hertznet/hertznet/tlsconn"
)

func main() {
	addr := flag.String("serve", "", "serve on this TCP `address`, such as :7000, until interrupted")
	flag.Parse()
	if flag.NArg() > 0 {
		fmt.Fprintf(os.Stderr, "frames: %q is no flag; see -help\n", flag.Arg(0))
		os.Exit(2)
	}
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	context.AfterFunc(ctx, stop) // a second interrupt kills

	var err error
	if *addr != "" {
		err = serve(ctx, *addr)
	} else {
		err = checkAll(ctx)
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, "frames:", err)
		os.Exit(1)
	}
}

// serve serves until ctx is done.
func serve(ctx context.Context, addr string) error {
	ln, err := net.Listen("tcp", addr)
	if err != nil {
		return err
	}
	s := start(ln, nil)
	_, port, _ := net.SplitHostPort(ln.Addr().String()) // it is a TCP address
	fmt.Printf(`Serving frames on %s. Try, in another terminal:

  printf '\0\0\0\12\1\0\0\0\1hello' | nc -q 1 127.0.0.1 %s | xxd
  printf '\377\377\377\377' | nc -q 1 127.0.0.1 %[2]s | xxd

The second has a bad length. Interrupt with ctrl-c.
`, ln.Addr(), port)
	select {
	case <-ctx.Done():
		ctx, cancel := context.WithTimeout(context.Background(), limit)
		defer cancel()
		return s.shutdown(ctx)
	case err := <-s.ended:
		return err
	}
}

// site is a server on one transport, and how to reach it.
type site struct {
	*server
	name          string      // tcp, tls or unix
	network, addr string      // as a Dialer takes them
	tls           *tls.Config // of clients; nil without TLS
}

// checkAll serves on each transport and checks what the server does.
func checkAll(ctx context.Context) error {
	dir, err := os.MkdirTemp("", "frames")
	if err != nil {
		return err
	}
	defer os.RemoveAll(dir)
	cert, pool, err := tlsconn.SelfSigned() // for development only
	if err != nil {
		return err
	}
	for _, name := range []string{"tcp", "tls", "unix"} {
		s, err := newSite(name, dir, cert, pool)
		if err != nil && name == "unix" {
			fmt.Printf("this system has no unix sockets: %v\n", err)
			continue
		}
		if err != nil {
			return err
		}
		for _, c := range checks {
			if ctx.Err() != nil {
				return errors.New("interrupted")
			}
			if err := s.check(ctx, c); err != nil {
				return err
			}
		}
	}
	return comparePartial(ctx)
}

// newSite starts a server; a unix socket's file is in dir.
func newSite(name, dir string, cert tls.Certificate, pool *x509.CertPool) (*site, error) {
	s := &site{name: name, network: "tcp"}
	addr := "127.0.0.1:0"
	var config *tls.Config
	switch name {
	case "tls":
		config = &tls.Config{Certificates: []tls.Certificate{cert}}
		s.tls = &tls.Config{RootCAs: pool}
	case "unix":
		s.network, addr = "unix", filepath.Join(dir, "frames.sock")
	}
	ln, err := net.Listen(s.network, addr)
	if err != nil {
		return nil, err
	}
	s.addr = ln.Addr().String()
	s.server = start(ln, config)
	return s, nil
}
