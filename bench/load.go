//go:build linux && (amd64 || arm64)

package main

import (
	"bufio"
	"bytes"
	"crypto/tls"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"os"
	"runtime/debug"
	"sync"
	"sync/atomic"
	"time"
)

// patience is how long an answer may take before the run ends with an error.
const patience = 20 * time.Second

// loadResult is what the load process says of its measured phase. Durations are in
// nanoseconds.
type loadResult struct {
	Requests       int64
	Elapsed        time.Duration
	P50, P99, P999 time.Duration
	Usage          usage // of the load process
}

// exchanger is one goroutine's part of the load.
type exchanger interface {
	prepare(deadline time.Time) error
	send() error   // all that is in flight at once
	answer() error // one of them
	close()
}

// runLoad is the load process: it opens the connections with an exchange on each, warms
// up, says so, and when it reads a line it measures and writes the result. It holds
// the connections until standard input ends.
func runLoad(p peer, w workload, addr string, warm, d time.Duration) error {
	in, out := bufio.NewScanner(os.Stdin), json.NewEncoder(os.Stdout)
	if w.kind != kindClient {
		debug.SetGCPercent(400) // it is not what is measured
	}
	l := &load{depth: w.inFlight()}
	defer l.close()
	if err := l.open(p, w, addr); err != nil {
		return err
	}
	if _, _, err := l.run(warm); err != nil {
		return err
	}
	if err := out.Encode("ready"); err != nil || !in.Scan() {
		return err
	}
	before := ownUsage()
	n, elapsed, err := l.run(d)
	if err != nil {
		return err
	}
	if err := out.Encode(loadResult{
		Requests: n, Elapsed: elapsed, Usage: ownUsage().since(before),
		P50: l.latency.quantile(.5), P99: l.latency.quantile(.99), P999: l.latency.quantile(.999),
	}); err != nil {
		return err
	}
	for in.Scan() {
	}
	return nil
}

// load drives a closed loop: each exchanger sends when it has its answers.
type load struct {
	depth   int
	all     []exchanger
	latency histogram
}

// open makes all exchangers, with an exchange on each.
func (l *load) open(p peer, w workload, addr string) error {
	var secure *tls.Config
	if w.tls {
		secure = &tls.Config{InsecureSkipVerify: true} // who the server is, is known
		if w.resume {
			secure.ClientSessionCache = tls.NewLRUClientSessionCache(0)
		}
	}
	next := func() exchanger { return newWire(w, addr, secure) }
	if w.kind == kindClient {
		get, err := p.client(secure)
		if err != nil {
			return err
		}
		url := "http://" + addr + w.path
		if w.tls {
			url = "https://" + addr + w.path
		}
		body := w.body()
		next = func() exchanger { return &caller{get: get, url: url, want: body} }
	}
	// One after the other: so the first session can be resumed by all that follow.
	for range w.conns {
		x := next()
		l.all = append(l.all, x)
		if err := once(x, l.depth); err != nil {
			return fmt.Errorf("connection %d: %w", len(l.all), err)
		}
		if x, ok := x.(*wire); ok {
			x.resume = w.resume
		}
	}
	return nil
}

// once has the first exchange of x.
func once(x exchanger, depth int) error {
	if err := x.prepare(time.Now().Add(patience)); err != nil {
		return err
	}
	if err := x.send(); err != nil {
		return err
	}
	for range depth {
		if err := x.answer(); err != nil {
			return err
		}
	}
	return nil
}

// run drives all for d, waits for what is in flight then, and returns the number of
// answers and the time that all took. It ends at the first error.
func (l *load) run(d time.Duration) (int64, time.Duration, error) {
	l.latency.reset()
	var (
		wg     sync.WaitGroup
		total  atomic.Int64
		failed atomic.Bool
		begin  = time.Now()
		errs   = make(chan error, len(l.all))
	)
	for i, x := range l.all {
		wg.Go(func() {
			n, err := l.drive(x, begin.Add(d), &failed)
			total.Add(n)
			if err != nil {
				failed.Store(true)
				errs <- fmt.Errorf("connection %d: %w", i+1, err)
			}
		})
	}
	wg.Wait()
	elapsed := time.Since(begin)
	select {
	case err := <-errs:
		return 0, 0, err
	default:
		return total.Load(), elapsed, nil
	}
}

func (l *load) drive(x exchanger, until time.Time, failed *atomic.Bool) (n int64, err error) {
	if err := x.prepare(until.Add(patience)); err != nil {
		return 0, err
	}
	for now := time.Now(); now.Before(until) && !failed.Load(); {
		begin := now
		if err := x.send(); err != nil {
			return n, err
		}
		for range l.depth {
			if err := x.answer(); err != nil {
				return n, err
			}
			now = time.Now()
			l.latency.record(now.Sub(begin))
			n++
		}
	}
	return n, nil
}

func (l *load) close() {
	for _, x := range l.all {
		x.close()
	}
}

// wire is a connection that speaks a workload's protocol with as little work as it can.
type wire struct {
	reader
	addr     string
	secure   *tls.Config
	fresh    bool
	resume   bool // what is dialled from now on must resume a session
	requests []byte
	conn     net.Conn
	deadline time.Time
}

func newWire(w workload, addr string, secure *tls.Config) *wire {
	size := min(256<<10, max(4<<10, (w.size+1024)*w.inFlight()))
	return &wire{
		reader: reader{want: w.body(), chunk: chunk, frames: w.kind == kindEcho, buf: make([]byte, size)},
		addr:   addr, secure: secure, fresh: w.fresh,
		requests: bytes.Repeat(w.request(), w.inFlight()),
	}
}

// prepare sets the deadline of what comes. It is one for many exchanges, since setting
// it has a cost.
func (x *wire) prepare(deadline time.Time) error {
	x.deadline = deadline
	if x.conn == nil {
		return nil
	}
	return x.conn.SetDeadline(deadline)
}

func (x *wire) send() error {
	if x.conn == nil {
		if err := x.dial(); err != nil {
			return err
		}
	}
	_, err := x.conn.Write(x.requests)
	return err
}

func (x *wire) dial() error {
	c, err := net.Dial("tcp", x.addr)
	if err != nil {
		return err
	}
	if x.secure != nil {
		c = tls.Client(c, x.secure)
	}
	x.conn, x.src = c, c
	if err := c.SetDeadline(x.deadline); err != nil {
		return err
	}
	if c, ok := c.(*tls.Conn); ok {
		if err := c.Handshake(); err != nil {
			return fmt.Errorf("TLS handshake: %w", err)
		}
		if x.resume && !c.ConnectionState().DidResume {
			return errors.New("the server did not resume the TLS session")
		}
	}
	return nil
}

func (x *wire) answer() error {
	if err := x.reader.answer(); err != nil || !x.fresh {
		return err
	}
	// The server closes first, so that the client's ports are free at once.
	err := x.end()
	x.close()
	return err
}

func (x *wire) close() {
	if x.conn != nil {
		x.conn.Close()
		x.conn = nil
	}
}

// caller is a goroutine that uses a client that is measured.
type caller struct {
	get  getFunc
	url  string
	want []byte
}

func (x *caller) prepare(time.Time) error { return nil }
func (x *caller) send() error             { return nil }
func (x *caller) close()                  {}

func (x *caller) answer() error {
	return x.get(x.url, func(status int, body []byte) error {
		if status != 200 {
			return errAnswer("status %d", status)
		}
		if !bytes.Equal(body, x.want) {
			return errAnswer("a body of %d bytes that is not the %d wanted", len(body), len(x.want))
		}
		return nil
	})
}
