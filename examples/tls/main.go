// Tls runs Hertz servers on hertznet with TLS, and Hertz clients that do and do not
// trust them.
//
//	go run ./examples/tls
//
// makes a certificate authority in memory and shows who trusts whom, mutual TLS, session
// resumption, and how a certificate is replaced under load. It prints a line for
// everything that is as it should be and exits; with a status other than 0 and the reason
// on standard error if something is not.
//
//	go run ./examples/tls -serve :8443
//
// serves HTTPS there until it is interrupted, and prints the curl command to try.
//
// trust.go and reload.go have what is shown; server.go, client.go and load.go what they
// use.
package main

import (
	"context"
	"crypto/tls"
	"errors"
	"flag"
	"fmt"
	"net"
	"os"
	"os/signal"
	"path/filepath"
	"syscall"
	"time"

	"github.com/cloudwego/hertz/pkg/common/hlog"

	"github.com/hertznet/hertznet/tlsconn"
)

const limit = 10 * time.Second // for anything that is waited for

func main() {
	addr := flag.String("serve", "", "serve HTTPS on this `address`, such as :8443, until interrupted")
	flag.Parse()
	if flag.NArg() > 0 {
		fmt.Fprintf(os.Stderr, "tls: %q is no flag; see -help\n", flag.Arg(0))
		os.Exit(2)
	}
	hlog.SetLevel(hlog.LevelWarn) // no routes, no "listening on"
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	context.AfterFunc(ctx, stop) // a second interrupt kills

	if err := run(ctx, *addr); err != nil {
		fmt.Fprintln(os.Stderr, "tls:", err)
		os.Exit(1)
	}
}

func run(ctx context.Context, addr string) error {
	dir, err := os.MkdirTemp("", "tls")
	if err != nil {
		return err
	}
	defer os.RemoveAll(dir)
	// For development only. Its key is in no file, and gone when the process ends.
	ca, err := tlsconn.NewDevCA()
	if err != nil {
		return err
	}
	if addr != "" {
		return serve(ctx, ca, dir, addr)
	}
	if err := showTrust(ctx, ca); err != nil {
		return fmt.Errorf("trust: %w", err)
	}
	if err := showMutual(ctx, ca); err != nil {
		return fmt.Errorf("mutual TLS: %w", err)
	}
	if err := showReload(ctx, ca, dir); err != nil {
		return fmt.Errorf("reload: %w", err)
	}
	return nil
}

// show prints what was seen and is right.
func show(what, format string, args ...any) {
	fmt.Printf("%-34s  %s\n", what, fmt.Sprintf(format, args...))
}

// serve serves on addr until ctx is done.
func serve(ctx context.Context, ca *tlsconn.DevCA, dir, addr string) (err error) {
	hosts := []string{"localhost", "127.0.0.1", "::1"}
	host, _, err := net.SplitHostPort(addr)
	switch {
	case err != nil:
		return fmt.Errorf("-serve: %w; it takes an address such as :8443", err)
	case host != "":
		hosts = append(hosts, host)
	}
	cert, err := ca.Server(hosts...)
	if err != nil {
		return err
	}
	caFile := filepath.Join(dir, "ca.pem")
	if err := os.WriteFile(caFile, ca.PEM(), 0o600); err != nil {
		return err
	}
	s, err := start(addr, &tls.Config{Certificates: []tls.Certificate{cert}})
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, s.stop()) }()
	fmt.Printf(`Serving on %[1]s

Try, in another terminal:

  curl --cacert %[2]s %[1]s
  curl %[1]s

The second does not trust the server. Interrupt with ctrl-c.
`, s.url, caFile)
	for {
		select {
		case <-ctx.Done():
			fmt.Println()
			return nil
		case err := <-s.ended:
			return fmt.Errorf("the server ended: %w", err)
		case err := <-s.refused:
			fmt.Println("a handshake failed:", err)
		}
	}
}
