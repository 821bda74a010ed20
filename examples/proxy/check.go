package main

import (
	"bufio"
	"bytes"
	"context"
	"crypto/sha256"
	"crypto/x509"
	"encoding/base64"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"net/http"
	"net/url"
	"strings"
	"time"
)

// checker sends what goes through the proxy and what must not.
type checker struct {
	*proxy
	targets  *targets
	password string
}

// url returns the proxy's URL, with credentials unless password is empty.
func (c *checker) url(password string) string {
	u := url.URL{Scheme: "http", Host: c.ln.Addr().String()}
	if password != "" {
		u.User = url.UserPassword(user, password)
	}
	return u.String()
}

// clients are tried in turn.
var clients = []struct {
	name string
	make func(proxy string, pool *x509.CertPool) (httpClient, error)
}{
	{"hertz", newHertzClient},
	{"net/http", newNetHTTPClient},
}

func (c *checker) run(ctx context.Context) error {
	for _, step := range []func(context.Context) error{c.requests, c.refusals, c.bigStream} {
		if err := step(ctx); err != nil {
			return err
		}
		if ctx.Err() != nil {
			return errors.New("interrupted")
		}
	}
	return nil
}

// requests are those that are answered.
func (c *checker) requests(ctx context.Context) error {
	mebibyte := make([]byte, 1<<20)
	_, _ = rand.NewChaCha8([32]byte{}).Read(mebibyte) // never fails
	for _, peer := range clients {
		cl, err := peer.make(c.url(c.password), c.targets.pool)
		if err != nil {
			return err
		}
		defer cl.close()
		for _, r := range []struct {
			what, scheme, path string
			site               *site
			body               []byte
		}{
			{"GET", "http", "/?b=%2F&a", c.targets.plain, nil},
			{"1 MiB echo", "http", "/echo", c.targets.plain, mebibyte},
			{"GET", "https", "/?b=%2F&a", c.targets.secure, nil},
			{"1 MiB echo", "https", "/echo", c.targets.secure, mebibyte},
		} {
			// Through a tunnel the proxy sees nothing, so it can add nothing.
			wantVia, way := "", "1 tunnel"
			if r.scheme == "http" {
				wantVia, way = via, "whole URL to the proxy"
			}
			want := r.body
			if want == nil {
				want = fmt.Appendf(nil, "target %s, path %s, via %q, proxy password \"\"\n", r.site.addr(), r.path, wantVia)
			}
			tunnels, forwarded := c.counts.opened.Load(), c.counts.forwarded.Load()
			begin := time.Now()
			got, err := cl.do(ctx, r.scheme+"://"+r.site.addr()+r.path, r.body)
			took := time.Since(begin)
			tunnels, forwarded = c.counts.opened.Load()-tunnels, c.counts.forwarded.Load()-forwarded
			wantTunnels, wantForwarded := int64(0), int64(1)
			if r.scheme == "https" {
				wantTunnels, wantForwarded = 1, 0
				if r.body != nil {
					wantTunnels, way = 0, "same tunnel"
				}
			}
			switch {
			case err != nil:
			case got.status != http.StatusOK:
				err = fmt.Errorf("status %d, want 200: %.200q", got.status, got.body)
			case !bytes.Equal(got.body, want):
				err = fmt.Errorf("the body, %d bytes, is wrong: %.200q, want %.200q", len(got.body), got.body, want)
			case got.via != wantVia:
				err = fmt.Errorf("the answer has Via %q, want %q", got.via, wantVia)
			case tunnels != wantTunnels || forwarded != wantForwarded:
				err = fmt.Errorf("the proxy opened %d tunnels and sent on %d requests, want %d and %d",
					tunnels, forwarded, wantTunnels, wantForwarded)
			}
			if err != nil {
				return fmt.Errorf("%s, %s with %s: %w", r.what, r.scheme, peer.name, err)
			}
			fmt.Printf("%-15s  %-8s  %-5s  %d  %8d bytes  %7.2f ms  %s\n",
				r.what, peer.name, r.scheme, got.status, len(got.body), milliseconds(took), way)
		}
	}
	return nil
}

// refusals are those that get the proxy's own answer.
func (c *checker) refusals(ctx context.Context) error {
	t := c.targets
	for _, r := range []struct {
		what, password string
		plain, secure  string // targets
		status         int
	}{
		{"no password", "", t.plain.addr(), t.secure.addr(), http.StatusProxyAuthRequired},
		{"wrong password", "guess", t.plain.addr(), t.secure.addr(), http.StatusProxyAuthRequired},
		{"not on the list", c.password, "example.com:80", "example.com:443", http.StatusForbidden},
		{"target is down", c.password, t.closed, t.closed, http.StatusBadGateway},
	} {
		for _, peer := range clients {
			cl, err := peer.make(c.url(r.password), t.pool)
			if err != nil {
				return err
			}
			defer cl.close()
			got, err := cl.do(ctx, "http://"+r.plain+"/", nil)
			if err != nil || got.status != r.status {
				return fmt.Errorf("%s, http with %s: status %d and error %v, want %d", r.what, peer.name, got.status, err, r.status)
			}
			line, _, _ := strings.Cut(string(got.body), "\n")
			fmt.Printf("%-15s  %-8s  %-5s  %d  %s\n", r.what, peer.name, "http", got.status, line)

			// A CONNECT that was refused is an error of the request, with the status's text.
			got, err = cl.do(ctx, "https://"+r.secure+"/", nil)
			if err == nil || !strings.Contains(err.Error(), http.StatusText(r.status)) {
				return fmt.Errorf("%s, https with %s: status %d and error %v, want %q", r.what, peer.name, got.status, err, http.StatusText(r.status))
			}
			fmt.Printf("%-15s  %-8s  %-5s  %d  error: %v\n", r.what, peer.name, "https", r.status, err)
		}
	}
	return nil
}

// bigStream sends a stream each way through a tunnel, at once, and ends one half first.
func (c *checker) bigStream(context.Context) error {
	if err := c.settle("earlier requests end", func() bool { return c.transport.Stats().Active == 0 }); err != nil {
		return err
	}
	before := c.transport.Stats()
	begin := time.Now()
	s, err := c.openTunnel(c.targets.large)
	if err != nil {
		return err
	}
	defer s.Close()
	during := c.transport.Stats()
	err = s.exchange()
	took := time.Since(begin)
	size := s.target.size >> 20
	if err != nil {
		return fmt.Errorf("%d MiB each way: %w", size, err)
	}
	if err := c.settle("the tunnel ends", func() bool { return c.transport.Stats().Hijacked == before.Hijacked }); err != nil {
		return err
	}
	after := c.transport.Stats()
	if during.Hijacked != before.Hijacked+1 {
		return fmt.Errorf("in Stats there are %d hijacked connections with the tunnel open, and %d without", during.Hijacked, before.Hijacked)
	}
	fmt.Printf("%d MiB each way  tunnel    %.0f ms; both hashes are right; the client ended its half first and got the rest\n",
		size, milliseconds(took))
	fmt.Printf("  Stats: Hijacked %d with it, %d after it; BytesRead +%d and BytesWritten +%d: what is copied beneath a Conn is not counted\n",
		during.Hijacked, after.Hijacked, after.BytesRead-before.BytesRead, after.BytesWritten-before.BytesWritten)
	return nil
}

// tunnelConn is a client's end of a tunnel to a stream target.
type tunnelConn struct {
	*net.TCPConn
	target *streamTarget
	in     *bufio.Reader // what follows the proxy's answer
	up     io.Reader     // what is still to be sent
}

// openTunnel opens one by hand, and sends the stream's first bytes together with CONNECT,
// as a client may that is sure of its proxy.
func (c *checker) openTunnel(to *streamTarget) (s *tunnelConn, err error) {
	nc, err := net.DialTimeout("tcp", c.ln.Addr().String(), dialLimit)
	if err != nil {
		return nil, err
	}
	defer func() {
		if err != nil {
			nc.Close()
		}
	}()
	_ = nc.SetDeadline(time.Now().Add(clientLimit)) // or the next call fails
	s = &tunnelConn{nc.(*net.TCPConn), to, bufio.NewReader(nc), to.stream(fromClient)}
	var first bytes.Buffer
	fmt.Fprintf(&first, "CONNECT %s HTTP/1.1\r\nHost: %[1]s\r\nProxy-Authorization: Basic %s\r\n\r\n",
		to.addr(), base64.StdEncoding.EncodeToString([]byte(user+":"+c.password)))
	if _, err := io.CopyN(&first, s.up, 1000); err != nil {
		return nil, err
	}
	if _, err := s.Write(first.Bytes()); err != nil {
		return nil, err
	}
	resp, err := http.ReadResponse(s.in, &http.Request{Method: http.MethodConnect})
	if err != nil {
		return nil, fmt.Errorf("CONNECT: %w", err)
	}
	if resp.StatusCode != http.StatusOK || len(resp.Header) > 0 {
		return nil, fmt.Errorf("CONNECT: %s with %v", resp.Status, resp.Header)
	}
	return s, nil
}

// exchange sends the rest of its stream, ends its sending side, and checks what comes.
func (s *tunnelConn) exchange() error {
	sent := make(chan error, 1)
	go func() {
		_, err := io.Copy(s.TCPConn, s.up)
		sent <- errors.Join(err, s.CloseWrite())
	}()
	got, sum := sha256.New(), make([]byte, sha256.Size)
	if _, err := io.CopyN(got, s.in, s.target.size); err != nil {
		return fmt.Errorf("receiving: %w", err)
	}
	if _, err := io.ReadFull(s.in, sum); err != nil {
		return fmt.Errorf("receiving the hash of what was sent: %w", err)
	}
	if err := <-sent; err != nil {
		return fmt.Errorf("sending: %w", err)
	}
	if !bytes.Equal(sum, hashOf(s.target.stream(fromClient))) {
		return errors.New("the target got other bytes than were sent")
	}
	if !bytes.Equal(got.Sum(nil), hashOf(s.target.stream(fromTarget))) {
		return errors.New("the target sent other bytes than came")
	}
	if _, err := s.in.ReadByte(); err != io.EOF {
		return fmt.Errorf("after the last byte: %v, want EOF", err)
	}
	return nil
}

func hashOf(r io.Reader) []byte {
	h := sha256.New()
	_, _ = io.Copy(h, r) // neither fails
	return h.Sum(nil)
}

// shutdown shuts the proxy down with two tunnels open: one that works, and ends in time,
// and one that waits.
func (c *checker) shutdown() (err error) {
	down := false
	defer func() {
		if !down {
			err = errors.Join(err, c.proxy.shutdown())
		}
	}()
	working, err := c.openTunnel(c.targets.small)
	if err != nil {
		return err
	}
	defer working.Close()
	waiting, err := c.openTunnel(c.targets.small)
	if err != nil {
		return err
	}
	defer waiting.Close()
	// The clients before have closed their tunnels.
	if err := c.settle("two tunnels are open", func() bool { return c.open() == 2 }); err != nil {
		return err
	}

	cut := c.counts.cut.Load()
	exchanged := make(chan error, 1)
	begin := time.Now()
	go func() { exchanged <- working.exchange() }()
	down = true
	if err := c.proxy.shutdown(); err != nil {
		return fmt.Errorf("shutting down: %w", err)
	}
	took := time.Since(begin)
	if err := <-exchanged; err != nil {
		return fmt.Errorf("the tunnel that worked: %w", err)
	}
	_, waitingErr := io.Copy(io.Discard, waiting.in)
	cut, stats := c.counts.cut.Load()-cut, c.transport.Stats()
	if waitingErr == nil || cut != 1 || c.open() != 0 || stats.Open() != 0 {
		return fmt.Errorf("after Shutdown %d tunnels are open and %d connections; %d tunnels were cut, want 1, with the error %v",
			c.open(), stats.Open(), cut, waitingErr)
	}
	fmt.Printf("Shutdown         tunnels   %.0f ms, of which open tunnels had %v: one came to its end, one waited and was cut\n",
		milliseconds(took), c.drainLimit)
	fmt.Printf("  its client saw: %v\n", waitingErr)
	fmt.Printf("  Stats: Accepted %d, ClosedByHandler %d, ClosedByPeer %d, ClosedByServer %d, none open\n",
		stats.Accepted, stats.ClosedByHandler, stats.ClosedByPeer, stats.ClosedByServer)
	return nil
}

// settle waits for what comes soon.
func (c *checker) settle(what string, ok func() bool) error {
	for end := time.Now().Add(clientLimit); !ok(); time.Sleep(time.Millisecond) {
		if time.Now().After(end) {
			return fmt.Errorf("%s: not within %v", what, clientLimit)
		}
	}
	return nil
}

func milliseconds(d time.Duration) float64 { return float64(d) / float64(time.Millisecond) }
