// Proxy is a forward proxy, written with Hertz on hertznet, and clients that go through it.
//
//	go run ./examples/proxy
//
// starts the proxy and targets on loopback, sends requests through it with Hertz's client
// and with net/http's, over plain HTTP and through CONNECT tunnels, tries what it must
// refuse, sends a large stream both ways through a tunnel, and shuts down with tunnels
// open. It prints a line for everything that is right, and exits with a status other than
// 0 and the reason on standard error if something is wrong.
//
//	go run ./examples/proxy -serve 127.0.0.1:8888
//
// serves until it is interrupted, and prints what to try with curl. It leads to targets of
// its own, or to those of -allow, and asks for a password: a proxy that leads everybody
// everywhere is soon found and misused.
//
// proxy.go has the proxy, tunnel.go what happens after CONNECT, targets.go what is reached
// through it, clients.go and check.go the clients.
package main

import (
	"context"
	"crypto/rand"
	"encoding/pem"
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

	"github.com/cloudwego/hertz/pkg/common/hlog"
)

const user = "gopher"

func main() {
	addr := flag.String("serve", "", "serve on this `address`, such as 127.0.0.1:8888, until interrupted")
	allow := flag.String("allow", "", "with -serve: the `targets` that the proxy leads to, as host:port,host:port")
	flag.Parse()
	if flag.NArg() > 0 {
		fmt.Fprintf(os.Stderr, "proxy: %q is no flag; see -help\n", flag.Arg(0))
		os.Exit(2)
	}
	if *allow != "" && *addr == "" {
		fmt.Fprintln(os.Stderr, "proxy: -allow needs -serve; see -help")
		os.Exit(2)
	}
	hlog.SetLevel(hlog.LevelWarn) // no routes, no "listening on"
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	context.AfterFunc(ctx, stop) // a second interrupt kills

	var err error
	if *addr == "" {
		err = checkAll(ctx)
	} else {
		err = serve(ctx, *addr, *allow)
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, "proxy:", err)
		os.Exit(1)
	}
}

// checkAll runs everything once.
func checkAll(ctx context.Context) (err error) {
	t, err := newTargets()
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, t.shutdown()) }()
	password := rand.Text()
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return err
	}
	p, err := newProxy(ln, user+":"+password, time.Second, t.plain.addr(), t.secure.addr(), t.large.addr(), t.small.addr(), t.closed)
	if err != nil {
		return err
	}
	c := &checker{proxy: p, targets: t, password: password}
	err = c.run(ctx)
	if err != nil {
		return errors.Join(err, p.shutdown())
	}
	return c.shutdown()
}

// serve serves until ctx is done.
func serve(ctx context.Context, addr, allow string) (err error) {
	t, err := newTargets()
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, t.shutdown()) }()
	allowed := []string{t.plain.addr(), t.secure.addr()}
	if allow != "" {
		allowed = strings.Split(allow, ",")
	}
	ln, err := net.Listen("tcp", addr)
	if err != nil {
		return err
	}
	password := rand.Text()
	p, err := newProxy(ln, user+":"+password, 5*time.Second, allowed...)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, p.shutdown()) }()

	dir, err := os.MkdirTemp("", "proxy")
	if err != nil {
		return err
	}
	defer os.RemoveAll(dir)
	certFile := filepath.Join(dir, "cert.pem")
	block := pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: t.cert.Certificate[0]})
	if err := os.WriteFile(certFile, block, 0o600); err != nil {
		return err
	}
	local := *ln.Addr().(*net.TCPAddr)
	if local.IP.IsUnspecified() {
		local.IP = net.IPv4(127, 0, 0, 1) // for who tries it from here
	}
	fmt.Printf("Serving on %s, for %s\n", ln.Addr(), strings.Join(allowed, " and "))
	if allow == "" {
		fmt.Printf(`Try, in another terminal:

  export proxy=http://%s:%s@%s
  curl -x $proxy http://%s/
  curl -x $proxy --cacert %s https://%s/
  curl -x http://%[3]s http://%[4]s/
  curl -x $proxy http://example.com/

The third has no password, the fourth a target that is not on the list.
Interrupt with ctrl-c.
`, user, password, &local, t.plain.addr(), certFile, t.secure.addr())
	} else {
		fmt.Printf("Try, in another terminal:\n\n  curl -x http://%s:%s@%s http://%s/\n\nInterrupt with ctrl-c.\n",
			user, password, &local, allowed[0])
	}
	select {
	case <-ctx.Done():
		fmt.Println()
		return nil
	case err := <-p.ended:
		return err
	}
}
