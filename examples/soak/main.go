// Soak keeps a Hertz server on hertznet busy with well-behaved and ill-behaved clients
// at once, over TCP, TLS and a unix socket, and checks every answer.
//
//	go run ./examples/soak -for 1h
//
// prints a line every few seconds and ends with a status other than 0 if an answer was
// wrong or missing, or if goroutines, descriptors or buffers are left when all clients have gone.
// Server and clients are one process: each connection counts two descriptors.
//
// server.go has the server, peers.go what the clients do.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"os"
	"os/signal"
	"path/filepath"
	"runtime"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/cloudwego/hertz/pkg/common/hlog"

	"github.com/hertznet/hertznet/standard"
	"github.com/hertznet/hertznet/tlsconn"
)

func main() {
	duration := flag.Duration("for", 5*time.Second, "how long to run")
	every := flag.Duration("every", 2*time.Second, "how often to print a line")
	clients := flag.Int("clients", 100, "how many clients run at once")
	park := flag.Duration("park", 20*time.Millisecond, "ParkAfter of the server; the clients' idle gaps lie around it")
	flag.Parse()
	if flag.NArg() > 0 || *duration <= 0 || *every <= 0 || *clients < 1 || *park <= 0 {
		fmt.Fprintln(os.Stderr, "soak: takes flags only, and each is more than 0; see -help")
		os.Exit(2)
	}
	hlog.SetLevel(hlog.LevelError) // peers that leave are no news
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	context.AfterFunc(ctx, stop) // a second interrupt kills
	if err := run(ctx, *duration, *every, *clients, *park); err != nil {
		fmt.Fprintln(os.Stderr, "soak:", err)
		os.Exit(1)
	}
}

// counters is what all clients have done.
type counters struct {
	requests, failures atomic.Int64
	mu                 sync.Mutex
	first              []error // a few of the failures
}

func (c *counters) fail(err error) {
	c.failures.Add(1)
	c.mu.Lock()
	defer c.mu.Unlock()
	if len(c.first) < 10 {
		c.first = append(c.first, err)
	}
}

func run(ctx context.Context, duration, every time.Duration, clients int, park time.Duration) (err error) {
	dir, err := os.MkdirTemp("", "soak")
	if err != nil {
		return err
	}
	defer os.RemoveAll(dir)
	cert, pool, err := tlsconn.SelfSigned()
	if err != nil {
		return err
	}
	states := newStates()
	var sites []*site
	defer func() {
		for _, s := range sites {
			err = errors.Join(err, s.shutdown())
		}
	}()
	for _, at := range []struct{ name, network, addr string }{
		{"tcp", "tcp", "127.0.0.1:0"},
		{"tls", "tcp", "127.0.0.1:0"},
		{"unix", "unix", filepath.Join(dir, "s")},
	} {
		s, err := start(at.name, at.network, at.addr, cert, pool, park, states)
		if err != nil && at.name == "unix" {
			fmt.Println("this system has no unix sockets:", err)
			continue
		}
		if err != nil {
			return err
		}
		sites = append(sites, s)
	}

	// What stays for as long as a server runs, such as its poller, comes with the first
	// connections.
	total := new(counters)
	for i, s := range sites {
		p := newPeer(s, total, uint64(i), park)
		if err := p.keepAlive(5); err != nil {
			return fmt.Errorf("the first requests over %s: %w", s.name, err)
		}
		time.Sleep(5 * park) // so that it is parked for certain, where that is possible
		p.close()
	}
	before, ok := settle(states, resources{goroutines: 1 << 30, descriptors: 1 << 30, pool: 1 << 50})
	if !ok {
		return fmt.Errorf("connections stay open: %v", before)
	}
	fmt.Printf("%d clients for %v, idle connections are parked after %v\nbaseline: %v\n", clients, duration, park, before)

	began := time.Now()
	runCtx, cancel := context.WithTimeout(ctx, duration)
	defer cancel()
	var wg sync.WaitGroup
	for i := range clients {
		wg.Go(func() { newPeer(sites[i%len(sites)], total, uint64(i), park).run(runCtx) })
	}
	ended := make(chan struct{})
	go func() {
		wg.Wait()
		close(ended)
	}()
	for running := true; running; {
		select {
		case <-ended:
			running = false
		case <-time.After(every):
		}
		open, parked := states.count()
		fmt.Printf("%8s  %d requests  %d errors  %d connections, %d parked  %v\n", time.Since(began).Round(100*time.Millisecond),
			total.requests.Load(), total.failures.Load(), open, parked, measure())
	}

	after, ok := settle(states, before)
	fmt.Printf("at the end: %v\n", after)
	if !ok {
		err = fmt.Errorf("more is left than at the beginning: %v; then it was %v", after, before)
	}
	if total.requests.Load() == 0 {
		err = errors.Join(err, errors.New("no request was sent"))
	}
	if n := total.failures.Load(); n > 0 {
		err = errors.Join(append([]error{err, fmt.Errorf("%d of %d requests failed, and these are the first", n, total.requests.Load())}, total.first...)...)
	}
	return err
}

// resources is what the process holds.
type resources struct {
	goroutines, descriptors int // descriptors is 0 where they cannot be counted
	heap                    uint64
	pool                    int64 // bytes of read and write buffers, also of those that wait in pools
}

func (r resources) String() string {
	return fmt.Sprintf("%d goroutines  %d descriptors  %.1f MiB heap  %d KiB buffers",
		r.goroutines, r.descriptors, float64(r.heap)/(1<<20), r.pool>>10)
}

func measure() (r resources) {
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	r.goroutines, r.heap = runtime.NumGoroutine(), m.HeapInuse
	r.pool = new(standard.Transporter).Stats().PoolBytes // it is that of the process
	for _, dir := range []string{"/proc/self/fd", "/dev/fd"} {
		if entries, err := os.ReadDir(dir); err == nil {
			r.descriptors = len(entries)
			break
		}
	}
	return r
}

// settle waits until no connection is open and no more is held than limit says, for
// longer than the server waits for a peer that has not closed. Buffers that are in nobody's
// hands are collected, so one that was not given back stays in the figure.
func settle(states *states, limit resources) (r resources, ok bool) {
	for end := time.Now().Add(10 * time.Second); time.Now().Before(end); time.Sleep(20 * time.Millisecond) {
		runtime.GC()
		open, _ := states.count()
		r = measure()
		if open == 0 && r.pool <= limit.pool && r.goroutines <= limit.goroutines && r.descriptors <= limit.descriptors {
			return r, true
		}
	}
	return r, false
}
