package main

import (
	"bytes"
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net"
	"sync"

	"github.com/hertznet/hertznet/network"
	"github.com/hertznet/hertznet/standard"
)

// errGoAway is what a call returns that came too late: nothing of it was sent, so it can
// be made on another connection.
var errGoAway = errors.New("the server has asked to send no more requests")

// client is one connection that any number of goroutines make calls on at the same time.
// One goroutine reads, and whoever holds mu writes.
type client struct {
	conn network.Conn

	mu      sync.Mutex
	lastID  uint32
	waiting map[uint32]chan<- result // by id of the request
	leaving bool                     // goAway has come
	err     error                    // why the connection has ended
}

type result struct {
	payload []byte
	err     error
}

// dial connects, with TLS if there is a config.
func dial(network, addr string, config *tls.Config) (*client, error) {
	conn, err := new(standard.Dialer).DialConnection(network, addr, limit, config)
	if err != nil {
		return nil, err
	}
	if err := conn.SetWriteTimeout(limit); err != nil {
		conn.Close()
		return nil, err
	}
	c := &client{conn: conn, waiting: make(map[uint32]chan<- result)}
	go c.receive()
	return c, nil
}

// call sends a request for each payload, all with one Flush, and returns their answers in
// the same order. The payloads must not change meanwhile.
func (c *client) call(ctx context.Context, k kind, payloads ...[]byte) ([][]byte, error) {
	results, err := c.send(k, payloads)
	if err != nil {
		return nil, err
	}
	answers := make([][]byte, len(results))
	for i, r := range results {
		select {
		case r := <-r:
			if r.err != nil {
				return nil, r.err
			}
			answers[i] = r.payload
		case <-ctx.Done():
			return nil, ctx.Err() // receive drops what still comes
		}
	}
	return answers, nil
}

// send is the writing half of call.
func (c *client) send(k kind, payloads [][]byte) ([]<-chan result, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.err != nil {
		return nil, c.err
	}
	if c.leaving {
		return nil, errGoAway
	}
	for _, p := range payloads {
		if len(p) > maxPayload {
			return nil, fmt.Errorf("a payload of %d bytes; %d is the most", len(p), maxPayload)
		}
	}
	results := make([]<-chan result, len(payloads))
	for i, p := range payloads {
		if c.lastID++; c.lastID == 0 {
			c.lastID++ // 0 stands for no request
		}
		result := make(chan result, 1) // receive never waits for the caller
		c.waiting[c.lastID], results[i] = result, result
		if err := writeFrame(c.conn, k, c.lastID, p); err != nil {
			return nil, err
		}
	}
	if err := c.conn.Flush(); err != nil {
		c.conn.Close() // what has left may end within a frame; receive tells those who wait
		return nil, err
	}
	return results, nil
}

// receive hands out answers until the connection ends.
func (c *client) receive() {
	for {
		f, err := readFrame(c.conn)
		if err == nil && f.kind == failure && f.id == 0 {
			err = fmt.Errorf("the server says: %s", f.payload)
		}
		if err != nil {
			c.end(err)
			return
		}
		c.mu.Lock()
		switch f.kind {
		case goAway:
			c.leaving = true
		case answer:
			c.settle(f.id, result{payload: bytes.Clone(f.payload)}) // the caller keeps it
		case failure:
			c.settle(f.id, result{err: fmt.Errorf("the server says: %s", f.payload)})
		}
		last := c.leaving && len(c.waiting) == 0
		c.mu.Unlock()
		_ = c.conn.Release() // never fails
		if last {
			c.end(errGoAway)
			return
		}
	}
}

// settle gives a request its result, if somebody waits for it. c.mu is held.
func (c *client) settle(id uint32, r result) {
	if waiting, ok := c.waiting[id]; ok {
		delete(c.waiting, id)
		waiting <- r
	}
}

// end closes the connection; whoever waits for an answer gets err.
func (c *client) end(err error) {
	if err == io.EOF {
		err = errors.New("the server has closed the connection")
	}
	c.conn.Close()
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.err == nil {
		c.err = err
	}
	for id := range c.waiting {
		c.settle(id, result{err: c.err})
	}
}

// close ends the connection and the goroutine that reads it.
func (c *client) close() { c.end(net.ErrClosed) }
