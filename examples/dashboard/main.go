// Dashboard shows what a transporter counts, live: a page of HTML, CSS and SVG that a
// Hertz server on hertznet serves and feeds with server-sent events.
//
//	go run ./examples/dashboard
//
// serves, fetches the page and the events through a Hertz client, runs a load of a
// second against itself, prints the figures and exits; with a status other than 0 if
// one of them did not move.
//
//	go run ./examples/dashboard -serve :8890
//
// serves the page for a browser until it is interrupted.
//
// server.go has the server, load.go the load, check.go the client. The figures come
// from [standard.Transporter.Stats].
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"net"
	"os"
	"os/signal"
	"syscall"

	"github.com/cloudwego/hertz/pkg/common/hlog"
)

func main() {
	serveAddr := flag.String("serve", "", "serve the page on this `address`, such as :8890, until interrupted")
	flag.Parse()
	if flag.NArg() > 0 {
		fmt.Fprintf(os.Stderr, "dashboard: %q is no flag; see -help\n", flag.Arg(0))
		os.Exit(2)
	}

	hlog.SetLevel(hlog.LevelWarn) // no routes, no "listening on"
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	context.AfterFunc(ctx, stop) // a second interrupt kills

	if err := run(ctx, os.Stdout, *serveAddr); err != nil {
		fmt.Fprintln(os.Stderr, "dashboard:", err)
		os.Exit(1)
	}
}

// run serves until ctx is done, or, without an address, until the figures are checked.
func run(ctx context.Context, out io.Writer, addr string) (err error) {
	listen := addr
	if addr == "" {
		listen = "127.0.0.1:0"
	}
	ln, err := net.Listen("tcp", listen)
	if err != nil {
		return err
	}
	s, err := start(ln)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, s.stop()) }()
	if addr == "" {
		return check(ctx, out, s.url())
	}
	fmt.Fprintf(out, "Open %s/ in a browser. Interrupt with ctrl-c.\n", s.url())
	select {
	case <-ctx.Done():
		fmt.Fprintln(out)
		return nil
	case err := <-s.ended:
		return err
	}
}
