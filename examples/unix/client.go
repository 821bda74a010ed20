package main

import (
	"context"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"runtime"
	"strings"

	"github.com/cloudwego/hertz/pkg/app/client"

	"github.com/hertznet/hertznet"
	"github.com/hertznet/hertznet/standard"
)

// The host fills the Host header. Which socket is dialled is the client's affair, so a
// client is for one socket.
const url = "http://localhost/"

// dialTo returns a function that connects to the socket at addr, whatever it is asked for.
func dialTo(addr string) func(ctx context.Context, _, _ string) (net.Conn, error) {
	return func(ctx context.Context, _, _ string) (net.Conn, error) {
		return new(net.Dialer).DialContext(ctx, "unix", addr)
	}
}

// askHertz asks with Hertz's client on hertznet.
func askHertz(ctx context.Context, addr string) (string, error) {
	c, err := client.NewClient(
		client.WithDialer(hertznet.NewDialer(func(d *standard.Dialer) { d.DialContext = dialTo(addr) })),
		client.WithDialTimeout(limit),
		client.WithClientReadTimeout(limit),
		client.WithWriteTimeout(limit),
	)
	if err != nil {
		return "", err
	}
	defer c.CloseIdleConnections()
	status, body, err := c.Get(ctx, nil, url)
	if err != nil {
		return "", err
	}
	if status != http.StatusOK {
		return "", fmt.Errorf("status %d: %.200q", status, body)
	}
	return string(body), nil
}

// askNetHTTP asks with the client of net/http, which knows nothing of Hertz.
func askNetHTTP(ctx context.Context, addr string) (string, error) {
	t := &http.Transport{DialContext: dialTo(addr)}
	defer t.CloseIdleConnections()
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, url, nil)
	if err != nil {
		return "", err
	}
	resp, err := (&http.Client{Transport: t, Timeout: limit}).Do(req)
	if err != nil {
		return "", err
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(resp.Body)
	if err != nil {
		return "", err
	}
	if resp.StatusCode != http.StatusOK {
		return "", fmt.Errorf("status %s: %.200q", resp.Status, body)
	}
	return string(body), nil
}

// ask has both clients ask, and checks that they are taken for this process.
func ask(ctx context.Context, what string, s *site) error {
	want := "hello, whoever you are\n"
	if runtime.GOOS == "linux" {
		want = fmt.Sprintf("hello %v\n", peer{os.Getpid(), os.Geteuid(), os.Getegid()})
	}
	for _, by := range []struct {
		client string
		ask    func(context.Context, string) (string, error)
	}{
		{"hertz", askHertz},
		{"net/http", askNetHTTP},
	} {
		got, err := by.ask(ctx, s.addr)
		if err != nil {
			return fmt.Errorf("the client of %s: %w", by.client, err)
		}
		if got != want {
			return fmt.Errorf("the client of %s got %q, want %q", by.client, got, want)
		}
		show(what, "%-8s  %s", by.client, strings.TrimSpace(got))
		what = ""
	}
	return nil
}
