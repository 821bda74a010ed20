// Restart replaces a Hertz server under load, process by process, without losing a
// request:
//
//	go run ./examples/restart
//
// It starts a server in a process of its own, sends requests to it, and every half
// second starts the next one, which inherits the listener, before it tells the last to
// shut down. It fails if a request was lost.
//
//	go run ./examples/restart -reuseport
//
// has each process listen on the same port by itself, with SO_REUSEPORT, and measures
// what that loses. It fails if anything was lost.
package main

import (
	"flag"
	"fmt"
	"net"
	"os"
	"time"

	"github.com/hertznet/hertznet/standard"
)

func main() {
	if name, ok := os.LookupEnv(childName); ok {
		if err := serve(name, os.Getenv(childAddr)); err != nil {
			fmt.Fprintf(os.Stderr, "restart: server %s: %v\n", name, err)
			os.Exit(1)
		}
		return
	}
	swaps := flag.Int("swaps", 5, "how often the server is replaced, 0 to 1000")
	every := flag.Duration("every", 500*time.Millisecond, "time between two replacements, up to 1m")
	clients := flag.Int("clients", 8, "clients of each kind, 1 to 100")
	reuseport := flag.Bool("reuseport", false, "each process listens by itself, with SO_REUSEPORT")
	flag.Parse()
	if flag.NArg() > 0 {
		fmt.Fprintf(os.Stderr, "restart: %q is no flag; see -help\n", flag.Arg(0))
		os.Exit(2)
	}
	if *swaps < 0 || *swaps > 1000 || *every <= 0 || *every > time.Minute || *clients < 1 || *clients > 100 {
		fmt.Fprintln(os.Stderr, "restart: a flag is out of its range; see -help")
		os.Exit(2)
	}
	lost, err := run(*swaps, *every, *clients, *reuseport)
	if err == nil && *reuseport {
		err = showBacklog(100)
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, "restart:", err)
	}
	if err != nil || lost {
		os.Exit(1)
	}
}

// run reports whether anything was lost.
func run(swaps int, every time.Duration, clients int, reuseport bool) (lost bool, err error) {
	var file *os.File // the listener, to inherit
	if !reuseport {
		ln, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			return false, err
		}
		file, err = standard.ListenerFile(ln)
		if err != nil {
			return false, err
		}
		defer file.Close()
		ln.Close() // file keeps it open, and nobody accepts from it in this process
	}

	now, err := startServer(1, file, "")
	if err != nil {
		return false, err
	}
	defer func() { now.kill() }()
	l := startLoad(now.addr, clients)
	defer l.stop()
	fmt.Printf("server 1 listens on %s; %d clients keep their connections, %d open one for each request\n",
		now.addr, clients, clients)

	servers := []*process{now}
	for i := range swaps {
		time.Sleep(every)
		next, err := startServer(i+2, file, now.addr)
		if err != nil {
			return false, err
		}
		last := now
		now = next
		servers = append(servers, now)
		start := time.Now()
		if err := last.stop(); err != nil {
			last.kill()
			return false, err
		}
		fmt.Printf("swap %d: server %s serves, server %s was told to stop and ended after %v\n",
			i+1, now.name, last.name, time.Since(start).Round(time.Millisecond))
	}
	time.Sleep(every)
	l.stop()
	if err := now.stop(); err != nil {
		return false, err
	}
	return report(l, servers, swaps), nil
}

// report prints what came of it.
func report(l *load, servers []*process, swaps int) (lost bool) {
	fmt.Println()
	handled := 0
	for _, s := range servers {
		fmt.Printf("server %-2s handled %6d requests, clients have %6d answers of it\n",
			s.name, s.handled, l.answers[s.name])
		handled += s.handled
	}
	answered := 0
	for _, n := range l.answers {
		answered += n
	}
	fmt.Printf("\n%d requests, %d swaps, %d answers, %d errors\n", l.requests, swaps, answered, len(l.errors))
	fmt.Printf("%d connections were closed between two requests, before the next was sent\n", l.closedIdle)
	fmt.Printf("%d GET and %d POST were sent again: their connection, used before, closed as they were sent\n",
		l.retriedGET, l.retriedPOST)
	for _, err := range l.errors[:min(5, len(l.errors))] {
		fmt.Println("error:", err)
	}
	switch {
	case len(l.errors) > 0:
		fmt.Println("requests were LOST")
	case handled != answered:
		fmt.Printf("%d requests were handled and NOT ANSWERED\n", handled-answered)
	default:
		fmt.Println("none was lost, and none was handled twice")
		return false
	}
	return true
}
