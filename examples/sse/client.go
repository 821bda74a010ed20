package main

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"net/http"
	"strings"
	"time"

	"github.com/cloudwego/hertz/pkg/app/client"
	"github.com/cloudwego/hertz/pkg/protocol"
	"github.com/cloudwego/hertz/pkg/protocol/consts"
	"github.com/cloudwego/hertz/pkg/protocol/sse"

	"github.com/hertznet/hertznet"
)

// message is an event as a client gets it.
type message struct {
	id, event, data string
}

// subscribe reads the events after lastID, or from now on, and calls got with each. It
// returns nil when the server has ended the stream, got's error, or that of ctx.
type subscribe func(ctx context.Context, url, lastID string, got func(message) error) error

// hertzSubscribe returns a subscribe of Hertz's client and its package sse, on hertznet.
func hertzSubscribe() (subscribe, error) {
	c, err := client.NewClient(
		client.WithDialer(hertznet.NewDialer()),
		client.WithDialTimeout(5*time.Second),
		client.WithResponseBodyStream(true),
		// No read timeout: it would limit the whole answer.
	)
	if err != nil {
		return nil, err
	}
	return func(ctx context.Context, url, lastID string, got func(message) error) error {
		req, resp := protocol.AcquireRequest(), protocol.AcquireResponse()
		defer protocol.ReleaseRequest(req)
		defer protocol.ReleaseResponse(resp)
		req.SetRequestURI(url)
		sse.AddAcceptMIME(req)
		if lastID != "" {
			sse.SetLastEventID(req, lastID)
		}
		if err := c.Do(ctx, req, resp); err != nil {
			return err
		}
		if resp.StatusCode() != consts.StatusOK {
			return fmt.Errorf("status %d", resp.StatusCode())
		}
		r, err := sse.NewReader(resp)
		if err != nil {
			return err
		}
		return forEach(ctx, resp, r, got)
	}, nil
}

// forEach reads events until the stream ends, and closes it.
//
// It does not leave that to ForEach's own ctx: Reader.Close reads a stream that has not
// ended to its end, which is for ever, unless its connection has been closed before, and
// ForEach may return without that.
func forEach(ctx context.Context, resp *protocol.Response, r *sse.Reader, got func(message) error) error {
	cut := func() {
		if s, ok := resp.BodyStream().(interface{ ForceClose() error }); ok {
			_ = s.ForceClose()
		}
	}
	cutDone := make(chan struct{})
	stop := context.AfterFunc(ctx, func() {
		defer close(cutDone)
		cut()
	})
	err := r.ForEach(context.Background(), func(e *sse.Event) error {
		return got(message{e.ID, e.Type, string(e.Data)})
	})
	if !stop() {
		<-cutDone // Close gives the stream to a pool: nobody may cut it any more
		err = ctx.Err()
	} else if err != nil {
		cut()
	}
	closeErr := r.Close()
	if err != nil {
		return err // Close has failed too, as the stream was cut
	}
	return closeErr
}

// plainSubscribe is a subscribe of net/http and a parser that knows what this server
// sends, for it shares no code with it.
func plainSubscribe(ctx context.Context, url, lastID string, got func(message) error) error {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, url, nil)
	if err != nil {
		return err
	}
	req.Header.Set("Accept", "text/event-stream")
	if lastID != "" {
		req.Header.Set("Last-Event-ID", lastID)
	}
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	if kind := resp.Header.Get("Content-Type"); resp.StatusCode != http.StatusOK || !strings.HasPrefix(kind, "text/event-stream") {
		return fmt.Errorf("status %d, %s", resp.StatusCode, kind)
	}
	var m message
	for r := bufio.NewReader(resp.Body); ; {
		line, err := r.ReadString('\n')
		if err == io.EOF && line == "" {
			return nil // an event that is cut off is none
		}
		if err != nil {
			return err
		}
		field, value, _ := strings.Cut(strings.TrimSuffix(line, "\n"), ":")
		value = strings.TrimPrefix(value, " ")
		switch {
		case line == "\n":
			if err := got(m); err != nil {
				return err
			}
			m = message{}
		case field == "id":
			m.id = value
		case field == "event":
			m.event = value
		case field == "data":
			m.data += value
		}
	}
}
