package main

import (
	"bufio"
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"sync"
	"sync/atomic"
	"time"
)

// maxLoad is how long a load may run.
const maxLoad = 10 * time.Second

// What a load consists of. A third of the busy and of the returning connections use TLS.
const (
	busy      = 6  // ask every 2 ms
	returning = 60 // ask, are parked, and ask again
	leaving   = 40 // ask once, are parked, and are closed when IdleTimeout ends
	trickling = 4  // send a request byte by byte
	stalled   = 4  // send half a request, and are answered with 408 at ReadTimeout

	busyPause    = 2 * time.Millisecond
	returnPause  = 3 * parkAfter
	tricklePause = 20 * time.Millisecond
	retryPause   = 50 * time.Millisecond // after a failure
)

const request = "GET /work HTTP/1.1\r\nHost: localhost\r\n\r\n"

// load runs at most one load at a time.
type load struct {
	ctx           context.Context
	plain, secure dialFunc
	answered      atomic.Uint64
	failed        atomic.Uint64

	mu      sync.Mutex
	running chan struct{} // closed when the load that was started last has ended
}

// loadStats is of the load that was started last.
type loadStats struct {
	Running  bool
	Answered uint64 // requests
	Failed   uint64 // requests, or connections that were refused
}

type dialFunc func(context.Context) (net.Conn, error)

func newLoad(ctx context.Context, plain, secure string, config *tls.Config) *load {
	running := make(chan struct{})
	close(running)
	return &load{
		ctx:     ctx,
		running: running,
		plain: func(ctx context.Context) (net.Conn, error) {
			return new(net.Dialer).DialContext(ctx, "tcp", plain)
		},
		secure: func(ctx context.Context) (net.Conn, error) {
			return (&tls.Dialer{Config: config}).DialContext(ctx, "tcp", secure)
		},
	}
}

// start runs a load for d, unless one runs.
func (l *load) start(d time.Duration) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.ctx.Err() != nil || !l.ended() {
		return false
	}
	l.answered.Store(0)
	l.failed.Store(0)
	running := make(chan struct{})
	l.running = running
	go func() {
		defer close(running)
		ctx, cancel := context.WithTimeout(l.ctx, d)
		defer cancel()
		l.run(ctx)
	}()
	return true
}

func (l *load) ended() bool {
	select {
	case <-l.running:
		return true
	default:
		return false
	}
}

// wait returns when no load runs.
func (l *load) wait() {
	l.mu.Lock()
	running := l.running
	l.mu.Unlock()
	<-running
}

func (l *load) stats() loadStats {
	l.mu.Lock()
	defer l.mu.Unlock()
	return loadStats{Running: !l.ended(), Answered: l.answered.Load(), Failed: l.failed.Load()}
}

// run keeps connections of every kind until ctx ends.
func (l *load) run(ctx context.Context) {
	var wg sync.WaitGroup
	for i := range busy {
		wg.Go(func() { l.ask(ctx, l.callers(ctx, 1, i%3 == 0), busyPause) })
	}
	// One goroutine for many connections, or the client's would hide in the figures that
	// the server's have gone.
	wg.Go(func() { l.ask(ctx, l.callers(ctx, returning*2/3, false), returnPause) })
	wg.Go(func() { l.ask(ctx, l.callers(ctx, returning/3, true), returnPause) })
	wg.Go(func() { l.ask(ctx, l.callers(ctx, leaving, false), maxLoad) })
	for range trickling {
		wg.Go(func() { l.trickle(ctx) })
	}
	for range stalled {
		wg.Go(func() { l.stall(ctx) })
	}
	wg.Wait()
}

// ask sends a request on each connection, one after another, and again after the pause.
func (l *load) ask(ctx context.Context, callers []*caller, pause time.Duration) {
	for ctx.Err() == nil {
		for _, c := range callers {
			l.count(ctx, c.call((*caller).get))
		}
		sleep(ctx, pause)
	}
}

func (l *load) trickle(ctx context.Context) {
	c := l.callers(ctx, 1, false)[0]
	for ctx.Err() == nil {
		l.count(ctx, c.call(func(c *caller) error {
			for i := range len(request) {
				if _, err := io.WriteString(c.conn, request[i:i+1]); err != nil {
					return err
				}
				sleep(ctx, tricklePause)
			}
			return c.read(http.StatusOK)
		}))
	}
}

func (l *load) stall(ctx context.Context) {
	c := l.callers(ctx, 1, false)[0]
	for ctx.Err() == nil {
		l.count(ctx, c.call(func(c *caller) error {
			if _, err := io.WriteString(c.conn, request[:len(request)/2]); err != nil {
				return err
			}
			return c.read(http.StatusRequestTimeout)
		}))
	}
}

// count counts an answer, or, after a pause, its failure. What the load's own end cuts
// off is neither.
func (l *load) count(ctx context.Context, err error) {
	switch {
	case err == nil:
		l.answered.Add(1)
	case ctx.Err() == nil:
		l.failed.Add(1)
		sleep(ctx, retryPause)
	}
}

// caller is a connection that is opened when it is needed and closed when ctx ends.
type caller struct {
	ctx  context.Context
	dial dialFunc
	conn net.Conn // nil if there is none
	r    *bufio.Reader
}

func (l *load) callers(ctx context.Context, n int, secure bool) []*caller {
	dial := l.plain
	if secure {
		dial = l.secure
	}
	callers := make([]*caller, n)
	for i := range callers {
		callers[i] = &caller{ctx: ctx, dial: dial}
	}
	return callers
}

// call opens the connection if need be, and closes it if f fails.
func (c *caller) call(f func(*caller) error) error {
	if c.conn == nil {
		conn, err := c.dial(c.ctx)
		if err != nil {
			return err
		}
		c.conn, c.r = conn, bufio.NewReaderSize(conn, 512)
		context.AfterFunc(c.ctx, func() { conn.Close() })
	}
	err := f(c)
	if err != nil {
		c.conn.Close()
		c.conn = nil
	}
	if errors.Is(err, errLast) {
		return nil
	}
	return err
}

func (c *caller) get() error {
	if _, err := io.WriteString(c.conn, request); err != nil {
		return err
	}
	return c.read(http.StatusOK)
}

var errLast = errors.New("the server closes the connection after this answer")

func (c *caller) read(status int) error {
	resp, err := http.ReadResponse(c.r, nil)
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	if _, err := io.Copy(io.Discard, resp.Body); err != nil {
		return err
	}
	if resp.StatusCode != status {
		return fmt.Errorf("status %d, want %d", resp.StatusCode, status)
	}
	if resp.Close {
		return errLast
	}
	return nil
}

// sleep waits for d or until ctx ends.
func sleep(ctx context.Context, d time.Duration) {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
	case <-ctx.Done():
	}
}
