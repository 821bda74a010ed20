// Sse broadcasts server-sent events with Hertz's package sse on hertznet.
//
//	go run ./examples/sse
//
// serves a feed of events, subscribes to it through Hertz's client and through that of
// net/http, and prints a line for each thing that is as it should be: events arrive at
// once, none is lost or comes twice over many reconnects, the handler of a subscriber
// that left ends, one that does not read is dropped while the others notice nothing, and
// Shutdown ends the streams. It exits with a status other than 0 and the reason on
// standard error if one is not.
//
//	go run ./examples/sse -serve :8892
//
// serves the feed and a page that shows it until it is interrupted.
//
// feed.go has the handler, server.go the server around it, client.go both clients,
// check.go what is checked.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"net"
	"os"
	"os/signal"
	"syscall"
	"time"

	"github.com/cloudwego/hertz/pkg/common/hlog"
)

func main() {
	addr := flag.String("serve", "", "serve on this `address`, such as :8892, until interrupted")
	flag.Parse()
	if flag.NArg() > 0 {
		fmt.Fprintf(os.Stderr, "sse: %q is no flag; see -help\n", flag.Arg(0))
		os.Exit(2)
	}

	hlog.SetLevel(hlog.LevelWarn) // no routes, no "listening on"
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	context.AfterFunc(ctx, stop) // a second interrupt kills

	run := check
	if *addr != "" {
		run = func(ctx context.Context) error { return serve(ctx, *addr) }
	}
	if err := run(ctx); err != nil {
		fmt.Fprintln(os.Stderr, "sse:", err)
		os.Exit(1)
	}
}

// serve publishes the time each second until ctx is done.
func serve(ctx context.Context, addr string) (err error) {
	ln, err := net.Listen("tcp", addr)
	if err != nil {
		return err
	}
	s, err := start(ln, 10*time.Second)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, s.h.Shutdown(context.Background())) }()
	fmt.Printf(`Serving %s/ for a browser. Try, in another terminal:

  curl -N %[1]s/events
  curl -d 'good morning' %[1]s/say

Interrupt with ctrl-c.
`, s.url)

	tick := time.NewTicker(time.Second)
	defer tick.Stop()
	for {
		select {
		case now := <-tick.C:
			s.feed.publish([]byte(now.Format(time.TimeOnly)))
		case err := <-s.ended:
			return err
		case <-ctx.Done():
			fmt.Println()
			return nil
		}
	}
}
