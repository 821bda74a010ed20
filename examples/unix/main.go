// Unix runs Hertz servers on hertznet over unix sockets.
//
//	go run ./examples/unix
//
// serves on a path, on a listener of its own that no other user may connect to, and on an
// abstract name of Linux. Hertz's client and that of net/http ask each of them and are
// told whom it takes them for. Then it shows what becomes of the socket file of a server
// that was killed. It prints a line for everything that is as it should be and exits; with
// a status other than 0 and the reason on standard error if something is not.
//
//	go run ./examples/unix -serve /tmp/example.sock
//
// serves there until it is interrupted, and prints the curl command to try.
//
// sockets.go and stale.go have what is shown, server.go, client.go and peer_linux.go what
// they use.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"net"
	"os"
	"os/signal"
	"path/filepath"
	"strings"
	"syscall"
	"time"

	"github.com/cloudwego/hertz/pkg/app/server"
	"github.com/cloudwego/hertz/pkg/common/hlog"
)

const limit = 10 * time.Second // for anything that is waited for

func main() {
	path := flag.String("serve", "", "serve on this `path`, or on @name on Linux, until interrupted")
	flag.Parse()
	if flag.NArg() > 0 {
		fmt.Fprintf(os.Stderr, "unix: %q is no flag; see -help\n", flag.Arg(0))
		os.Exit(2)
	}
	hlog.SetLevel(hlog.LevelWarn) // no routes, no "listening on"
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	context.AfterFunc(ctx, stop) // a second interrupt kills

	var err error
	if victim, ok := os.LookupEnv(victimPath); ok {
		err = waitToBeKilled(victim)
	} else if *path != "" {
		err = serve(ctx, *path)
	} else {
		err = showAll(ctx)
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, "unix:", err)
		os.Exit(1)
	}
}

func showAll(ctx context.Context) error {
	dir, err := os.MkdirTemp("", "unix")
	if err != nil {
		return err
	}
	defer os.RemoveAll(dir)
	ln, err := net.Listen("unix", filepath.Join(dir, "probe.sock"))
	if err != nil {
		fmt.Printf("this system has no unix sockets: %v\n", err)
		return nil
	}
	ln.Close()
	if err := showPath(ctx, dir); err != nil {
		return fmt.Errorf("a path: %w", err)
	}
	if err := showOwn(ctx, dir); err != nil {
		return fmt.Errorf("a listener of one's own: %w", err)
	}
	if err := showAbstract(ctx); err != nil {
		return fmt.Errorf("an abstract name: %w", err)
	}
	if err := showStale(ctx, dir); err != nil {
		return fmt.Errorf("a stale file: %w", err)
	}
	return nil
}

// show prints what was seen and is right.
func show(what, format string, args ...any) {
	fmt.Printf("%-24s  %s\n", what, fmt.Sprintf(format, args...))
}

// serve serves on path until ctx is done.
func serve(ctx context.Context, path string) (err error) {
	s, err := start(anybody, server.WithNetwork("unix"), server.WithHostPorts(path))
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, s.stop()) }()
	option, path := "--unix-socket", s.addr
	if name, ok := strings.CutPrefix(path, "@"); ok {
		option, path = "--abstract-unix-socket", name
	}
	fmt.Printf(`Serving on %s

Try, in another terminal:

  curl %s %s http://localhost/

Interrupt with ctrl-c.
`, s.addr, option, path)
	select {
	case <-ctx.Done():
		fmt.Println()
		return nil
	case err := <-s.ended:
		return fmt.Errorf("the server ended: %w", err)
	}
}
