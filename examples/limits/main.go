// Limits attacks a Hertz server on hertznet in the ways that slow, greedy and many clients
// do, and shows which limit stops each attack, while honest clients are served:
//
//	go run ./examples/limits
//
// prints a line for each attack: what the attacker got and after how long, which figures
// of Stats moved, what was logged, and how long the slowest honest request took. It ends
// with a status other than 0 if an attack was not stopped or an honest request failed.
//
//	go run ./examples/limits -unprotected
//
// runs the same attacks on the same server without the limits.
//
// Everything happens on loopback, and every attack ends by itself. server.go has the
// server and its limits, attacks.go the attacks, honest.go the honest clients.
package main

import (
	"context"
	"crypto/tls"
	"errors"
	"flag"
	"fmt"
	"maps"
	"net"
	"os"
	"os/signal"
	"runtime"
	"slices"
	"strings"
	"sync"
	"syscall"
	"time"

	"github.com/cloudwego/hertz/pkg/common/hlog"

	"github.com/hertznet/hertznet/standard"
	"github.com/hertznet/hertznet/tlsconn"
)

func main() {
	unprotected := flag.Bool("unprotected", false, "run the attacks without the limits")
	flag.Parse()
	if flag.NArg() > 0 {
		fmt.Fprintf(os.Stderr, "limits: %q is no flag; see -help\n", flag.Arg(0))
		os.Exit(2)
	}
	hlog.SetLevel(hlog.LevelWarn)
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	context.AfterFunc(ctx, stop) // a second interrupt kills
	if err := run(ctx, !*unprotected); err != nil {
		fmt.Fprintln(os.Stderr, "limits:", err)
		os.Exit(1)
	}
}

func run(ctx context.Context, protected bool) (err error) {
	log := new(lines)
	hlog.SetOutput(log)
	cert, pool, err := tlsconn.SelfSigned()
	if err != nil {
		return err
	}
	// Linux and Windows have all of 127.0.0.0/8; elsewhere everybody is one address.
	honestIP, attackIPs := "127.0.0.2", []string{"127.0.0.11", "127.0.0.12", "127.0.0.13", "127.0.0.14", "127.0.0.15"}
	manyIPs := canListen(honestIP)
	if !manyIPs {
		honestIP, attackIPs = "127.0.0.1", []string{"127.0.0.1"}
	}
	plain, err := newSite(protected, manyIPs, nil)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, plain.h.Shutdown(context.Background())) }()
	secure, err := newSite(protected, manyIPs, &tls.Config{Certificates: []tls.Certificate{cert}})
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, secure.h.Shutdown(context.Background())) }()
	honest, err := startHonest(honestIP, pool, plain, secure)
	if err != nil {
		return err
	}
	defer honest.stop()

	fmt.Printf("%-36s  %-18s  %-30s  %6s  %-33s  %-7s  %s\n", "attack", "limit", "the attacker got", "after", "Stats", "logged", "honest requests")
	total := 0
	for _, k := range attacks {
		if ctx.Err() != nil {
			return errors.New("interrupted")
		}
		if k.limit == "MaxConnsPerIP" && !manyIPs {
			fmt.Printf("%-36s  left out: the honest clients have the same address, since this system has no 127.0.0.2\n", k.name)
			continue
		}
		a := &attacker{site: plain, ips: attackIPs, patience: 5 * time.Second}
		if k.tls {
			a.site, a.tls = secure, &tls.Config{RootCAs: pool, ServerName: "localhost"}
		}
		if !protected {
			a.patience = 500 * time.Millisecond
		}
		requests, err := show(&k, a, honest, log, protected)
		if err != nil && protected {
			return fmt.Errorf("%s: %w", k.name, err)
		}
		if err != nil {
			fmt.Println(" ", err)
		}
		total += requests
	}
	what := "How many TLS handshakes there are in a second is not limited: only the time of each is, and how many there are at once."
	if !protected {
		what = "What is still open ended when the attacker gave up, after half a second."
	}
	fmt.Printf("\n%d honest requests were answered.\n%s\nLogged:\n", total, what)
	for _, line := range log.text() {
		fmt.Println(" ", line)
	}
	return nil
}

// show runs an attack and prints its line.
func show(k *attack, a *attacker, honest *honest, log *lines, protected bool) (requests int, err error) {
	_, _, _ = honest.take()
	before, logged := a.transport.Stats(), log.count()
	begin := time.Now()
	got := k.run(a)
	took := time.Since(begin)

	// The server may still have to drop what the attacker has sent, and to count. And some
	// attacks are over before the next honest request.
	over := func() bool {
		return a.transport.Stats().Open() <= honestKept && honest.answered() &&
			(!protected || k.moves(difference(before, a.transport.Stats())))
	}
	for end := time.Now().Add(honestLimit); !over() && time.Now().Before(end); {
		time.Sleep(time.Millisecond)
	}
	moved := difference(before, a.transport.Stats())
	logged = log.count() - logged
	requests, slowest, err := honest.take()

	var figures []string
	for _, name := range slices.Sorted(maps.Keys(moved)) {
		figures = append(figures, fmt.Sprintf("%s +%d", name, moved[name]))
	}
	limit := k.limit
	if !protected {
		limit = "off"
	}
	fmt.Printf("%-36s  %-18s  %-30s  %4.2f s  %-33s  %-7s  %d, slowest %.0f ms\n", k.name, limit, got, took.Seconds(),
		orNone(strings.Join(figures, ", ")), orNone(plural(logged, "line")), requests, float64(slowest.Microseconds())/1000)
	switch {
	case err != nil:
	case !protected:
	case requests == 0:
		err = errors.New("no honest request was answered meanwhile")
	case k.want != "" && got != k.want && !(runtime.GOOS == "windows" && got == "reset"): // where an answer may be lost [S22]
		err = fmt.Errorf("the attacker got %q, want %q", got, k.want)
	case !k.moves(moved):
		err = fmt.Errorf("what Stats counted is %v, want %v", moved, k.counted)
	case logged != k.logged:
		err = fmt.Errorf("%d lines were logged, want %d", logged, k.logged)
	}
	return requests, err
}

// difference returns the figures of attacks that have moved. Those that honest clients
// move, too, are not among them.
func difference(before, after standard.Stats) map[string]uint64 {
	moved := make(map[string]uint64)
	for name, d := range map[string]uint64{
		"Rejected":        after.Rejected - before.Rejected,
		"TooSlow":         after.TooSlow - before.TooSlow,
		"Overflows":       after.Overflows - before.Overflows,
		"ClosedSlow":      after.ClosedSlow - before.ClosedSlow,
		"ClosedIdle":      after.ClosedIdle - before.ClosedIdle,
		"HandshakeErrors": after.HandshakeErrors - before.HandshakeErrors,
		"Panics":          after.Panics - before.Panics,
	} {
		if d > 0 {
			moved[name] = d
		}
	}
	return moved
}

// moves reports whether the figures moved as they must. Those that k does not name may
// move, too, but for panics.
func (k *attack) moves(moved map[string]uint64) bool {
	for name, n := range k.counted {
		if moved[name] != n {
			return false
		}
	}
	return moved["Panics"] == 0
}

// lines is the log: what the servers and Hertz write to it.
type lines struct {
	mu  sync.Mutex
	all []string
}

func (l *lines) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	_, line, _ := strings.Cut(string(p), "[") // without the time; a call is a line
	l.all = append(l.all, "["+strings.TrimSpace(line))
	return len(p), nil
}

func (l *lines) count() int {
	l.mu.Lock()
	defer l.mu.Unlock()
	return len(l.all)
}

func (l *lines) text() []string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return slices.Clone(l.all)
}

func canListen(ip string) bool {
	ln, err := net.Listen("tcp", net.JoinHostPort(ip, "0"))
	if err != nil {
		return false
	}
	ln.Close()
	return true
}

func plural(n int, what string) string {
	switch n {
	case 0:
		return ""
	case 1:
		return "1 " + what
	}
	return fmt.Sprintf("%d %ss", n, what)
}

func orNone(s string) string {
	if s == "" {
		return "none"
	}
	return s
}
