// Hello runs a Hertz server and a Hertz client on hertznet.
//
//	go run ./examples/hello
//
// serves over TCP, TLS and a unix socket, sends real requests to each of them, prints
// a line for every answer that is right, shuts down and exits; with a status other than
// 0 and the reason on standard error if one is wrong.
//
//	go run ./examples/hello -serve :8888
//
// serves HTTP on that port and HTTPS on the next one, for curl and a browser, until it
// is interrupted.
//
// server.go has the server, requests.go the client.
package main

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	_ "embed"
	"encoding/pem"
	"errors"
	"flag"
	"fmt"
	"net"
	"os"
	"os/signal"
	"path/filepath"
	"strconv"
	"syscall"
	"time"

	"github.com/cloudwego/hertz/pkg/common/hlog"

	"github.com/hertznet/hertznet/tlsconn"
)

//go:embed page.html
var page []byte

func main() {
	serveAddr := flag.String("serve", "", "serve HTTP on this `address`, such as :8888, until interrupted")
	tlsAddr := flag.String("tls", "", "with -serve: the `address` for HTTPS; by default the next port")
	flag.Parse()
	if flag.NArg() > 0 {
		fmt.Fprintf(os.Stderr, "hello: %q is no flag; see -help\n", flag.Arg(0))
		os.Exit(2)
	}

	hlog.SetLevel(hlog.LevelWarn) // no routes, no "listening on"
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	context.AfterFunc(ctx, stop) // a second interrupt kills

	err := run(ctx, *serveAddr, *tlsAddr)
	if err != nil {
		fmt.Fprintln(os.Stderr, "hello:", err)
		os.Exit(1)
	}
}

// run makes what both modes need: a certificate, and files to serve.
func run(ctx context.Context, serveAddr, tlsAddr string) error {
	dir, err := os.MkdirTemp("", "hello")
	if err != nil {
		return err
	}
	defer os.RemoveAll(dir)
	if err := os.WriteFile(filepath.Join(dir, "page.html"), page, 0o600); err != nil {
		return err
	}
	if err := os.WriteFile(filepath.Join(dir, "mebibyte.bin"), mebibyte(), 0o600); err != nil {
		return err
	}
	// For development only: see tlsconn.NewReloader for certificates from files.
	cert, pool, err := tlsconn.SelfSigned()
	if err != nil {
		return err
	}
	if serveAddr == "" {
		return checkAll(ctx, dir, cert, pool)
	}
	return serve(ctx, dir, cert, serveAddr, tlsAddr)
}

// checkAll serves on each transport and checks the answers.
func checkAll(ctx context.Context, dir string, cert tls.Certificate, pool *x509.CertPool) (err error) {
	var sites []*site
	defer func() { err = errors.Join(err, shutdownAll(sites)) }()
	for _, at := range []struct{ transport, network, addr string }{
		{"tcp", "tcp", "127.0.0.1:0"},
		{"tls", "tcp", "127.0.0.1:0"},
		{"unix", "unix", filepath.Join(dir, "hello.sock")},
	} {
		ln, err := net.Listen(at.network, at.addr)
		if err != nil && at.transport == "unix" {
			fmt.Printf("this system has no unix sockets: %v\n", err)
			continue
		}
		if err != nil {
			return err
		}
		s, err := start(at.transport, ln, dir, cert)
		if err != nil {
			return err
		}
		sites = append(sites, s)
	}
	for _, s := range sites {
		if err := checkSite(ctx, s, pool); err != nil {
			return err
		}
	}
	return nil
}

// serve serves HTTP and HTTPS until ctx is done.
func serve(ctx context.Context, dir string, cert tls.Certificate, addr, tlsAddr string) (err error) {
	host, port, err := net.SplitHostPort(addr)
	if err != nil {
		return fmt.Errorf("-serve: %w; it takes an address such as :8888", err)
	}
	if tlsAddr == "" {
		n, err := strconv.Atoi(port)
		if err != nil {
			return fmt.Errorf("-serve: port %q is no number; set -tls too", port)
		}
		if n != 0 {
			n++
		}
		tlsAddr = net.JoinHostPort(host, strconv.Itoa(n))
	}
	certFile := filepath.Join(dir, "cert.pem")
	block := pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: cert.Certificate[0]})
	if err := os.WriteFile(certFile, block, 0o600); err != nil {
		return err
	}

	var sites []*site
	defer func() { err = errors.Join(err, shutdownAll(sites)) }()
	for _, at := range []struct{ transport, addr string }{{"tcp", addr}, {"tls", tlsAddr}} {
		ln, err := net.Listen("tcp", at.addr)
		if err != nil {
			return err
		}
		s, err := start(at.transport, ln, dir, cert)
		if err != nil {
			return err
		}
		sites = append(sites, s)
	}
	plain, secure := sites[0].url(), sites[1].url()
	fmt.Printf(`Serving with network library=%s

  %s/
  %s/

Try, in another terminal:

  curl %[2]s/hello
  curl %[2]s/greet -H 'Content-Type: application/json' -d '{"name":"Gopher"}'
  curl -N '%[2]s/stream?every=500ms'
  curl -v --http1.1 %[2]s/hello --next %[2]s/hello
  curl --cacert %[4]s %[3]s/hello

The fourth shows one connection used twice. Interrupt with ctrl-c.
`, sites[0].h.GetTransporterName(), plain, secure, certFile)

	select {
	case <-ctx.Done():
		fmt.Println()
		return nil
	case err := <-sites[0].ended:
		return err
	case err := <-sites[1].ended:
		return err
	}
}

// shutdownAll lets the requests that are running end.
func shutdownAll(sites []*site) error {
	if len(sites) == 0 {
		return nil
	}
	begin := time.Now()
	fmt.Printf("shutting down, %v at most ... ", exitWait)
	errs := make(chan error)
	for _, s := range sites {
		go func() { errs <- s.h.Shutdown(context.Background()) }()
	}
	var err error
	for range sites {
		err = errors.Join(err, <-errs)
	}
	if err != nil {
		fmt.Println("failed")
		return fmt.Errorf("shutting down: %w", err)
	}
	fmt.Printf("done in %.1f ms\n", milliseconds(time.Since(begin)))
	return nil
}

func milliseconds(d time.Duration) float64 { return float64(d) / float64(time.Millisecond) }
