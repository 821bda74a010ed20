package main

import (
	"bytes"
	"context"
	"crypto/tls"
	"crypto/x509"
	"fmt"
	"net"
	"sync"
	"time"

	"github.com/cloudwego/hertz/pkg/app/client"
	"github.com/cloudwego/hertz/pkg/protocol"

	"github.com/hertznet/hertznet"
	"github.com/hertznet/hertznet/standard"
)

const (
	honestLimit = 5 * time.Second // for a connection, and for an answer
	honestPause = 5 * time.Millisecond

	honestKept = 1 // connections that are open all the time, at each site
)

// honest is the clients that the server is there for.
type honest struct {
	done chan struct{}
	wg   sync.WaitGroup

	mu       sync.Mutex
	requests int
	slowest  time.Duration
	err      error // the first
}

// startHonest starts two clients for each site: one that keeps its connection, and one
// that opens a connection for each request.
func startHonest(ip string, pool *x509.CertPool, sites ...*site) (*honest, error) {
	h := &honest{done: make(chan struct{})}
	for _, s := range sites {
		for _, keep := range []bool{true, false} {
			c, err := client.NewClient(
				client.WithTLSConfig(&tls.Config{RootCAs: pool}),
				client.WithDialer(hertznet.NewDialer(func(d *standard.Dialer) {
					d.LocalAddr = &net.TCPAddr{IP: net.ParseIP(ip)}
				})),
				client.WithKeepAlive(keep),
				client.WithDialTimeout(honestLimit),
				client.WithClientReadTimeout(honestLimit),
				client.WithWriteTimeout(honestLimit),
			)
			if err != nil {
				return nil, err
			}
			url := "http://" + s.addr + "/echo"
			if s.h.GetOptions().TLS != nil {
				url = "https://" + s.addr + "/echo"
			}
			h.wg.Go(func() { h.run(c, url) })
		}
	}
	return h, nil
}

func (h *honest) run(c *client.Client, url string) {
	defer c.CloseIdleConnections()
	body := bytes.Repeat([]byte("honest "), 150)
	for {
		select {
		case <-h.done:
			return
		case <-time.After(honestPause):
		}
		begin := time.Now()
		err := post(c, url, body)
		took := time.Since(begin)
		h.mu.Lock()
		h.requests++
		h.slowest = max(h.slowest, took)
		if err != nil && h.err == nil {
			h.err = fmt.Errorf("an honest client: %w", err)
		}
		h.mu.Unlock()
	}
}

// post wants body back.
func post(c *client.Client, url string, body []byte) error {
	req, resp := protocol.AcquireRequest(), protocol.AcquireResponse()
	defer protocol.ReleaseRequest(req)
	defer protocol.ReleaseResponse(resp)
	req.SetMethod("POST")
	req.SetRequestURI(url)
	req.SetBody(body)
	if err := c.Do(context.Background(), req, resp); err != nil {
		return err
	}
	if resp.StatusCode() != 200 || !bytes.Equal(resp.Body(), body) {
		return fmt.Errorf("status %d and %d bytes", resp.StatusCode(), len(resp.Body()))
	}
	return nil
}

// take returns what there was since the last call.
func (h *honest) take() (requests int, slowest time.Duration, err error) {
	h.mu.Lock()
	defer h.mu.Unlock()
	requests, slowest = h.requests, h.slowest
	h.requests, h.slowest = 0, 0
	return requests, slowest, h.err
}

// answered reports whether there was a request since the last take.
func (h *honest) answered() bool {
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.requests > 0
}

func (h *honest) stop() {
	close(h.done)
	h.wg.Wait()
}
