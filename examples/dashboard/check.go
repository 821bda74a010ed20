package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"runtime"
	"strings"
	"time"

	"github.com/cloudwego/hertz/pkg/app/client"
	"github.com/cloudwego/hertz/pkg/protocol"
	"github.com/cloudwego/hertz/pkg/protocol/consts"
	"github.com/cloudwego/hertz/pkg/protocol/sse"

	"github.com/hertznet/hertznet"
	"github.com/hertznet/hertznet/standard"
)

// sum adds up a figure of all servers.
func (s *sample) sum(figure func(*standard.Stats) uint64) (total uint64) {
	for i := range s.Servers {
		total += figure(&s.Servers[i])
	}
	return total
}

// figures are what a load moves.
var figures = []struct {
	name string
	of   func(*sample) uint64
	only string // on this system
}{
	{name: "requests", of: func(s *sample) uint64 { return s.Requests }},
	{name: "accepted", of: func(s *sample) uint64 {
		return s.sum(func(t *standard.Stats) uint64 { return t.Accepted })
	}},
	{name: "TLS handshakes", of: func(s *sample) uint64 {
		return s.sum(func(t *standard.Stats) uint64 { return t.Handshakes })
	}},
	{name: "bytes read", of: func(s *sample) uint64 {
		return s.sum(func(t *standard.Stats) uint64 { return t.BytesRead })
	}},
	{name: "bytes written", of: func(s *sample) uint64 {
		return s.sum(func(t *standard.Stats) uint64 { return t.BytesWritten })
	}},
	{name: "parks", only: "linux", of: func(s *sample) uint64 {
		return s.sum(func(t *standard.Stats) uint64 { return t.Parks })
	}},
	{name: "resumes", only: "linux", of: func(s *sample) uint64 {
		return s.sum(func(t *standard.Stats) uint64 { return t.Resumes })
	}},
	{name: "closed by the peer", of: func(s *sample) uint64 {
		return s.sum(func(t *standard.Stats) uint64 { return t.ClosedByPeer })
	}},
	{name: "closed as too slow", of: func(s *sample) uint64 {
		return s.sum(func(t *standard.Stats) uint64 { return t.ClosedSlow })
	}},
}

// unmoved returns the figures that are the same in both.
func unmoved(before, after *sample) (names []string) {
	for _, f := range figures {
		if f.of(after) <= f.of(before) && (f.only == "" || f.only == runtime.GOOS) {
			names = append(names, f.name)
		}
	}
	return names
}

// check fetches the page, runs a load of a second, and watches by the events that the
// figures move.
func check(ctx context.Context, out io.Writer, url string) error {
	c, err := client.NewClient(
		client.WithDialer(hertznet.NewDialer()),
		client.WithDialTimeout(5*time.Second),
		client.WithResponseBodyStream(true),
	)
	if err != nil {
		return err
	}
	defer c.CloseIdleConnections()
	for _, path := range []string{"/", "/page.css", "/page.js"} {
		body, err := do(ctx, c, consts.MethodGet, url+path, consts.StatusOK)
		if err != nil {
			return err
		}
		fmt.Fprintf(out, "GET %-10s %5d bytes\n", path, len(body))
	}

	var before, after *sample
	loaded := false
	ctx, cancel := context.WithTimeout(ctx, 30*time.Second)
	defer cancel()
	fmt.Fprintf(out, "\n%8s  %8s  %6s  %6s  %6s  %10s  %7s\n", "ms", "requests", "active", "idle", "parked", "goroutines", "pool")
	err = watch(ctx, c, url+"/events?every=200ms", func(s *sample) (bool, error) {
		if before == nil {
			before = s
			if _, err := do(ctx, c, consts.MethodPost, url+"/load?for=1s", consts.StatusAccepted); err != nil {
				return false, err
			}
		}
		after = s
		fmt.Fprintf(out, "%8d  %8d  %6d  %6d  %6d  %10d  %3d KiB\n", s.At-before.At, s.Requests,
			s.sum(func(t *standard.Stats) uint64 { return uint64(t.Active) }),
			s.sum(func(t *standard.Stats) uint64 { return uint64(t.Idle) }),
			s.sum(func(t *standard.Stats) uint64 { return uint64(t.Parked) }),
			s.Goroutines, s.Servers[0].PoolBytes>>10)
		loaded = loaded || s.Load.Running
		return loaded && !s.Load.Running && len(unmoved(before, s)) == 0, nil
	})
	if after != nil {
		if names := unmoved(before, after); len(names) > 0 {
			err = errors.Join(err, fmt.Errorf("a load did not move: %s", strings.Join(names, ", ")))
		}
	}
	if err != nil {
		return err
	}

	fmt.Fprintf(out, "\n%-20s %9s %9s\n", "", "before", "after")
	for _, f := range figures {
		fmt.Fprintf(out, "%-20s %9d %9d\n", f.name, f.of(before), f.of(after))
	}
	fmt.Fprintf(out, "\nthe load: %d requests answered, %d failed\n", after.Load.Answered, after.Load.Failed)
	return nil
}

// do sends a request without a body and returns the body of the answer.
func do(ctx context.Context, c *client.Client, method, url string, status int) ([]byte, error) {
	req, resp := protocol.AcquireRequest(), protocol.AcquireResponse()
	defer protocol.ReleaseRequest(req)
	defer protocol.ReleaseResponse(resp) // gives the connection back, too
	req.SetMethod(method)
	req.SetRequestURI(url)
	if err := c.Do(ctx, req, resp); err != nil {
		return nil, fmt.Errorf("%s %s: %w", method, url, err)
	}
	body, err := io.ReadAll(resp.BodyStream())
	if err == nil && resp.StatusCode() != status {
		err = fmt.Errorf("status %d, want %d: %.200q", resp.StatusCode(), status, body)
	}
	if err != nil {
		return nil, fmt.Errorf("%s %s: %w", method, url, err)
	}
	return body, nil
}

var errEnough = errors.New("enough")

// watch calls f with each event until it returns true or an error.
func watch(ctx context.Context, c *client.Client, url string, f func(*sample) (bool, error)) error {
	req, resp := protocol.AcquireRequest(), protocol.AcquireResponse()
	defer protocol.ReleaseRequest(req)
	defer protocol.ReleaseResponse(resp)
	req.SetRequestURI(url)
	if err := c.Do(ctx, req, resp); err != nil {
		return fmt.Errorf("GET %s: %w", url, err)
	}
	r, err := sse.NewReader(resp)
	if err != nil {
		return fmt.Errorf("GET %s: %w", url, err)
	}
	// Close, and so ReleaseResponse, waits for the end of the body, which does not come.
	if body, ok := resp.BodyStream().(interface{ ForceClose() error }); ok {
		defer body.ForceClose()
	}
	err = r.ForEach(ctx, func(e *sse.Event) error {
		s := new(sample)
		if err := json.Unmarshal(e.Data, s); err != nil {
			return fmt.Errorf("event %s: %w", e.ID, err)
		}
		enough, err := f(s)
		if enough && err == nil {
			err = errEnough
		}
		return err
	})
	switch {
	case errors.Is(err, errEnough):
		return nil
	case err == nil:
		return fmt.Errorf("GET %s: the events ended too early", url)
	}
	return fmt.Errorf("GET %s: %w", url, err)
}
