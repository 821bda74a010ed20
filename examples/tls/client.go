package main

import (
	"context"
	"crypto/tls"
	"fmt"
	"math/big"
	"strings"
	"sync"

	"github.com/cloudwego/hertz/pkg/app/client"
	"github.com/cloudwego/hertz/pkg/protocol"
	"github.com/cloudwego/hertz/pkg/protocol/consts"

	"github.com/hertznet/hertznet"
)

// peer is a Hertz client that knows what its handshakes agreed on.
type peer struct {
	hertz *client.Client

	mu         sync.Mutex
	handshakes int
	last       tls.ConnectionState
}

// newPeer returns a client with config, which it changes. The ServerName is the host of
// the URL.
func newPeer(config *tls.Config) (*peer, error) {
	p := new(peer)
	config.NextProtos = []string{"http/1.1"}
	// It is called once for each handshake, when the certificates have been verified or a
	// session is resumed.
	config.VerifyConnection = func(s tls.ConnectionState) error {
		p.mu.Lock()
		defer p.mu.Unlock()
		p.handshakes++
		p.last = s
		return nil
	}
	var err error
	p.hertz, err = client.NewClient(
		client.WithTLSConfig(config),
		client.WithDialer(hertznet.NewDialer()), // after WithTLSConfig, which sets a dialer of its own
		client.WithDialTimeout(limit),
		client.WithClientReadTimeout(limit),
		client.WithWriteTimeout(limit),
	)
	return p, err
}

// get returns the answer without its line end. The connection is kept for the next request, or not.
func (p *peer) get(ctx context.Context, url string, keep bool) (string, error) {
	req, resp := protocol.AcquireRequest(), protocol.AcquireResponse()
	defer protocol.ReleaseRequest(req)
	defer protocol.ReleaseResponse(resp)
	req.SetRequestURI(url)
	if !keep {
		req.SetConnectionClose()
	}
	if err := p.hertz.Do(ctx, req, resp); err != nil {
		return "", err
	}
	if resp.StatusCode() != consts.StatusOK {
		return "", fmt.Errorf("status %d: %.200q", resp.StatusCode(), resp.Body())
	}
	return strings.TrimSuffix(string(resp.Body()), "\n"), nil
}

// greet returns the answer on a new connection, if both sides agree on what it should say.
func (p *peer) greet(ctx context.Context, url, want string) (string, error) {
	got, err := p.get(ctx, url, false)
	if err != nil {
		return "", err
	}
	_, state := p.seen()
	if got != want || !strings.HasSuffix(got, describe(state)) {
		return "", fmt.Errorf("the server says %q, the client %q, want %q", got, describe(state), want)
	}
	return got, nil
}

// seen returns how many handshakes there were, and what the last one agreed on.
func (p *peer) seen() (handshakes int, last tls.ConnectionState) {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.handshakes, p.last
}

// serial returns the serial number of the server's certificate.
func (p *peer) serial() string {
	_, state := p.seen()
	return short(state.PeerCertificates[0].SerialNumber)
}

// short returns the first digits of a serial number.
func short(serial *big.Int) string { return fmt.Sprintf("%032x", serial)[:8] }
