//go:build linux && (amd64 || arm64)

package main

import (
	"context"
	"crypto/tls"
	"io"
	"net/http"
	"time"

	"github.com/cloudwego/hertz/pkg/app/client"
	"github.com/cloudwego/hertz/pkg/common/config"
	"github.com/cloudwego/hertz/pkg/network"
	"github.com/cloudwego/hertz/pkg/protocol"
)

// getFunc has one GET of a URL and calls check with the answer, whose body is valid
// until check returns. Any number of goroutines may call it.
type getFunc func(url string, check func(status int, body []byte) error) error

func hertzClient(d network.Dialer) func(*tls.Config) (getFunc, error) {
	return func(secure *tls.Config) (getFunc, error) {
		options := []config.ClientOption{
			client.WithMaxConnsPerHost(maxClientConns), client.WithClientReadTimeout(patience), client.WithMaxIdleConnDuration(time.Hour),
		}
		if secure != nil {
			options = append(options, client.WithTLSConfig(secure))
		}
		c, err := client.NewClient(append(options, client.WithDialer(d))...)
		if err != nil {
			return nil, err
		}
		return func(url string, check func(int, []byte) error) error {
			req, resp := protocol.AcquireRequest(), protocol.AcquireResponse()
			defer protocol.ReleaseRequest(req)
			defer protocol.ReleaseResponse(resp)
			req.SetRequestURI(url)
			if err := c.Do(context.Background(), req, resp); err != nil {
				return err
			}
			return check(resp.StatusCode(), resp.Body())
		}, nil
	}
}

const maxClientConns = 20_000

func netHTTPClient(secure *tls.Config) (getFunc, error) {
	c := &http.Client{Timeout: patience, Transport: &http.Transport{
		TLSClientConfig: secure, DisableCompression: true, MaxIdleConnsPerHost: maxClientConns, IdleConnTimeout: time.Hour,
	}}
	return func(url string, check func(int, []byte) error) error {
		resp, err := c.Get(url)
		if err != nil {
			return err
		}
		defer resp.Body.Close()
		body := make([]byte, max(0, resp.ContentLength))
		if _, err := io.ReadFull(resp.Body, body); err != nil {
			return err
		}
		// To the end, or the connection is not kept.
		if n, err := io.Copy(io.Discard, resp.Body); n != 0 || err != nil {
			return errAnswer("%d bytes behind the body, error %v", n, err)
		}
		return check(resp.StatusCode, body)
	}, nil
}
