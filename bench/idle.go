//go:build linux && (amd64 || arm64)

package main

import (
	"context"
	"crypto/tls"
	"slices"
	"sync"
	"time"
)

// measureIdle measures what an idle keep-alive connection costs the server. Each sends
// one request, and then nothing. The figure is the server's resident memory after a
// garbage collection, less that of the empty server, divided by the number of
// connections. What the kernel keeps for a socket is the same for all and not in it.
func measureIdle(ctx context.Context, p peer, w workload, s settings) (sample, error) {
	server, addr, err := startServer(ctx, p, w, s.file)
	if err != nil {
		return nil, err
	}
	defer server.stop()
	// What the first connections set up is not idle memory.
	first, err := openIdle(w, addr, 50)
	closeAll(first)
	if err != nil {
		return nil, err
	}
	var empty, full memory
	if err := server.ask("memory", &empty); err != nil {
		return nil, err
	}
	conns, err := openIdle(w, addr, w.conns)
	defer closeAll(conns)
	if err != nil {
		return nil, err
	}
	select {
	case <-time.After(s.wait):
	case <-ctx.Done():
		return nil, ctx.Err()
	}
	if err := server.ask("memory", &full); err != nil {
		return nil, err
	}
	var took []time.Duration
	for _, x := range conns[:min(len(conns), 500)] {
		begin := time.Now()
		if err := once(x, 1); err != nil {
			return nil, err
		}
		took = append(took, time.Since(begin))
	}
	slices.Sort(took)
	got := sample{resident: float64(full.Resident) / mebibyte, goroutines: float64(full.Goroutines)}
	if n := uint64(len(took)); n > 0 {
		got[each] = float64(full.Resident-empty.Resident) / float64(w.conns)
		got[firstP50] = micros(took[rankOf(.5, n)-1])
		got[firstP99] = micros(took[rankOf(.99, n)-1])
	}
	return got, nil
}

// openIdle opens n connections with an exchange on each, and returns what is open also
// with an error.
func openIdle(w workload, addr string, n int) ([]*wire, error) {
	var secure *tls.Config
	if w.tls {
		secure = &tls.Config{InsecureSkipVerify: true}
	}
	conns := make([]*wire, n)
	for i := range conns {
		conns[i] = newWire(w, addr, secure)
	}
	const openers = 16
	errs := make(chan error, openers)
	var wg sync.WaitGroup
	for o := range openers {
		wg.Go(func() {
			for i := o; i < n; i += openers {
				if err := once(conns[i], 1); err != nil {
					errs <- err
					return
				}
			}
		})
	}
	wg.Wait()
	close(errs)
	return conns, <-errs
}

func closeAll(conns []*wire) {
	for _, x := range conns {
		x.close()
	}
}
