package main

import (
	"bytes"
	"context"
	"crypto/tls"
	"crypto/x509"
	"io"
	"net/http"
	"net/url"
	"time"

	"github.com/cloudwego/hertz/pkg/app/client"
	"github.com/cloudwego/hertz/pkg/protocol"

	"github.com/hertznet/hertznet"
)

// clientLimit is for one request and its answer.
const clientLimit = 20 * time.Second

// httpClient sends a request through a proxy. A body that is not nil makes it a POST.
type httpClient interface {
	do(ctx context.Context, url string, body []byte) (answer, error)
	close()
}

type answer struct {
	status int
	via    string // the header
	body   []byte
}

// hertzClient is Hertz's on hertznet.
type hertzClient struct{ *client.Client }

func newHertzClient(proxy string, pool *x509.CertPool) (httpClient, error) {
	c, err := client.NewClient(
		client.WithTLSConfig(&tls.Config{RootCAs: pool}),
		client.WithDialer(hertznet.NewDialer()), // after WithTLSConfig, which sets a dialer of its own
		client.WithDialTimeout(dialLimit),
		client.WithClientReadTimeout(clientLimit),
		client.WithWriteTimeout(clientLimit),
	)
	if err != nil {
		return nil, err
	}
	// The user and password in its URL go to the proxy, and to nobody else.
	c.SetProxy(protocol.ProxyURI(protocol.ParseURI(proxy)))
	return hertzClient{c}, nil
}

func (c hertzClient) do(ctx context.Context, url string, body []byte) (answer, error) {
	req, resp := protocol.AcquireRequest(), protocol.AcquireResponse()
	defer protocol.ReleaseRequest(req)
	defer protocol.ReleaseResponse(resp)
	req.SetRequestURI(url)
	if body != nil {
		req.SetMethod(http.MethodPost)
		req.SetBody(body)
	}
	if err := c.Do(ctx, req, resp); err != nil {
		return answer{}, err
	}
	return answer{resp.StatusCode(), resp.Header.Get("Via"), bytes.Clone(resp.Body())}, nil
}

func (c hertzClient) close() { c.CloseIdleConnections() }

// netHTTPClient is net/http's: it shows that the proxy understands others, too.
type netHTTPClient struct{ http.Client }

func newNetHTTPClient(proxy string, pool *x509.CertPool) (httpClient, error) {
	u, err := url.Parse(proxy)
	if err != nil {
		return nil, err
	}
	return &netHTTPClient{http.Client{
		Timeout:   clientLimit,
		Transport: &http.Transport{Proxy: http.ProxyURL(u), TLSClientConfig: &tls.Config{RootCAs: pool}},
	}}, nil
}

func (c *netHTTPClient) do(ctx context.Context, url string, body []byte) (answer, error) {
	method := http.MethodGet
	if body != nil {
		method = http.MethodPost
	}
	req, err := http.NewRequestWithContext(ctx, method, url, bytes.NewReader(body))
	if err != nil {
		return answer{}, err
	}
	resp, err := c.Do(req)
	if err != nil {
		return answer{}, err
	}
	defer resp.Body.Close()
	got, err := io.ReadAll(resp.Body)
	return answer{resp.StatusCode, resp.Header.Get("Via"), got}, err
}

func (c *netHTTPClient) close() { c.CloseIdleConnections() }
