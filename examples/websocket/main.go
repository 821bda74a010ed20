// Websocket serves WebSocket connections with github.com/hertz-contrib/websocket on
// hertznet, where they are hijacked connections.
//
//	go run ./examples/websocket
//
// serves over TCP and TLS, connects with github.com/coder/websocket, which shares no code
// with the server, and prints a line for each thing that is as it should be: messages come
// back, so do those that were sent right behind the upgrade request, pings are answered,
// both sides see how a connection was closed, those that vanished or do not read are
// dropped, and Shutdown says goodbye to the others. It exits with a status other than 0
// and the reason on standard error if one is not.
//
//	go run ./examples/websocket -serve :8893
//
// serves an echo and a page to try it until it is interrupted.
//
// hub.go has the handler and what it needs for Shutdown, server.go the server around it,
// check.go what is checked, raw.go a client for what no library does.
//
// It needs a 64-bit system, since hertz-contrib/websocket imports bytedance/sonic.
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
	addr := flag.String("serve", "", "serve on this `address`, such as :8893, until interrupted")
	flag.Parse()
	if flag.NArg() > 0 {
		fmt.Fprintf(os.Stderr, "websocket: %q is no flag; see -help\n", flag.Arg(0))
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
		fmt.Fprintln(os.Stderr, "websocket:", err)
		os.Exit(1)
	}
}

// serve serves until ctx is done.
func serve(ctx context.Context, addr string) error {
	ln, err := net.Listen("tcp", addr)
	if err != nil {
		return err
	}
	s, err := start(settings{listener: ln, pingEvery: 20 * time.Second, exitWait: 5 * time.Second, goodbye: true})
	if err != nil {
		return err
	}
	fmt.Printf("Serving http%s/ for a browser, and ws%[1]s/echo. Interrupt with ctrl-c.\n", s.hostURL())
	select {
	case <-ctx.Done():
		fmt.Println()
		return s.h.Shutdown(context.Background())
	case err := <-s.ended:
		return errors.Join(errors.New("the server ended"), err)
	}
}
