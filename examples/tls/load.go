package main

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"fmt"
	"slices"
	"sync"
	"time"
)

// load is a small steady stream of requests: of clients that keep their connection, and of
// one that opens one for each.
type load struct {
	keep []*peer
	end  context.CancelFunc
	wg   sync.WaitGroup

	mu       sync.Mutex
	requests int
	serials  []string // that new connections got, in their order
	failed   error    // of the first request that did
}

func startLoad(ctx context.Context, url string, roots *x509.CertPool) (*load, error) {
	l := new(load)
	ctx, l.end = context.WithCancel(ctx)
	for i := range 3 {
		// Without tickets each new connection has a full handshake.
		p, err := newPeer(&tls.Config{RootCAs: roots, SessionTicketsDisabled: true})
		if err != nil {
			l.stop()
			return nil, err
		}
		if i > 0 {
			l.keep = append(l.keep, p)
		}
		l.wg.Go(func() { l.run(ctx, p, url, i > 0) })
	}
	return l, nil
}

func (l *load) run(ctx context.Context, p *peer, url string, keep bool) {
	for ctx.Err() == nil {
		_, err := p.get(context.WithoutCancel(ctx), url, keep)
		l.mu.Lock()
		l.requests++
		switch {
		case err != nil && l.failed == nil:
			l.failed = fmt.Errorf("request %d failed: %w", l.requests, err)
		case err == nil && !keep:
			l.serials = append(l.serials, p.serial())
		}
		l.mu.Unlock()
		time.Sleep(5 * time.Millisecond)
	}
	p.hertz.CloseIdleConnections()
}

func (l *load) stop() {
	l.end()
	l.wg.Wait()
}

// settles waits until ten new connections in a row, from now on, got that serial number.
func (l *load) settles(ctx context.Context, serial string) error {
	before, _ := l.got()
	want := slices.Repeat([]string{serial}, 10)
	return eventually(ctx, "new connections do not get serial "+serial, func() (bool, error) {
		got, err := l.got()
		got = got[len(before):]
		return len(got) >= len(want) && slices.Equal(got[len(got)-len(want):], want), err
	})
}

// got returns the serial numbers so far, and the first error if a request has failed.
func (l *load) got() ([]string, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.serials, l.failed
}

// report is for a load that has stopped.
func (l *load) report(old, renewed string) error {
	if l.failed != nil {
		return l.failed
	}
	if got := slices.Compact(slices.Clone(l.serials)); !slices.Equal(got, []string{old, renewed}) {
		return fmt.Errorf("new connections got the serials %q in this order, want %s, then %s", got, old, renewed)
	}
	for _, p := range l.keep {
		if n, _ := p.seen(); n != 1 {
			return fmt.Errorf("a client that keeps its connection made %d", n)
		}
	}
	show("the load meanwhile", "%d connections kept all the time, %d new ones, %d requests, none failed",
		len(l.keep), len(l.serials), l.requests)
	return nil
}
