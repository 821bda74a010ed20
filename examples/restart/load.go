package main

import (
	"bufio"
	"bytes"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"net/http"
	"os"
	"sync"
	"syscall"
	"time"
)

const (
	answerLimit = 10 * time.Second // for one request and its answer
	maxBody     = 100 << 10        // of a POST
	maxPause    = time.Millisecond // between a client's requests, so that some connections are idle
)

// load sends requests until it is stopped and checks every answer. It uses no
// http.Client, which would send requests again without saying so.
type load struct {
	addr string
	done chan struct{}
	once sync.Once
	wg   sync.WaitGroup

	mu                      sync.Mutex
	requests                int
	answers                 map[string]int // by server
	closedIdle              int            // connections that the server closed between two requests
	retriedGET, retriedPOST int
	errors                  []error // of requests that were lost
}

// startLoad starts as many clients of each kind: those that keep their connection, and
// those that open one for each request.
func startLoad(addr string, clients int) *load {
	l := &load{addr: addr, done: make(chan struct{}), answers: make(map[string]int)}
	for i := range 2 * clients {
		c := &client{load: l, id: i, keep: i%2 == 0}
		l.wg.Go(c.run)
	}
	return l
}

// stop ends the load after the requests that are running. It may be called again.
func (l *load) stop() {
	l.once.Do(func() { close(l.done) })
	l.wg.Wait()
}

// client sends one request after the other.
type client struct {
	*load
	id   int
	keep bool // the connection, for the next request
	conn net.Conn
	in   *bufio.Reader
}

func (c *client) run() {
	defer c.close()
	for n := 0; ; n++ {
		r := newRequest(fmt.Sprintf("%d-%d", c.id, n), c.keep)
		c.pause() // right before it is sent, to see a close as late as possible
		select {
		case <-c.done:
			return
		default:
		}
		server, again, err := c.do(r)
		c.mu.Lock()
		c.requests++
		switch {
		case err != nil:
			c.errors = append(c.errors, fmt.Errorf("client %d, keep-alive %t: %w", c.id, c.keep, err))
		default:
			c.answers[server]++
		}
		switch again {
		case http.MethodGet:
			c.retriedGET++
		case http.MethodPost:
			c.retriedPOST++
		}
		c.mu.Unlock()
	}
}

// pause is a client's time between two requests. A connection that it keeps may be
// closed meanwhile, which does no harm.
func (c *client) pause() {
	d := rand.N(maxPause)
	if c.conn == nil {
		time.Sleep(d)
		return
	}
	_ = c.conn.SetReadDeadline(time.Now().Add(d)) // or the read fails
	if _, err := c.in.Peek(1); !errors.Is(err, os.ErrDeadlineExceeded) {
		c.close()
		c.mu.Lock()
		c.closedIdle++
		c.mu.Unlock()
	}
}

// request is a request as it is sent, and the body of its answer.
type request struct {
	method string
	wire   []byte
	want   []byte
}

func newRequest(id string, keep bool) request {
	connection := "keep-alive"
	if !keep {
		connection = "close"
	}
	if rand.N(2) == 0 {
		r := request{method: http.MethodPost, want: bytes.Repeat([]byte(id+" "), 1+rand.N(maxBody/len(id)))}
		// Sending a POST twice would do harm, but for a server that knows it by its
		// key. That this one never has to is what report checks.
		r.wire = fmt.Appendf(nil, "POST / HTTP/1.1\r\nHost: x\r\nConnection: %s\r\nIdempotency-Key: %s\r\nContent-Length: %d\r\n\r\n%s",
			connection, id, len(r.want), r.want)
		return r
	}
	query := "id=" + id
	if rand.N(10) == 0 {
		query += "&slow=1"
	}
	return request{
		method: http.MethodGet,
		wire:   fmt.Appendf(nil, "GET /?%s HTTP/1.1\r\nHost: x\r\nConnection: %s\r\n\r\n", query, connection),
		want:   []byte("hello " + id),
	}
}

// do has r answered and returns by which server, and r's method if it was sent twice:
// HTTP allows that once a connection that was kept has closed without a byte of an answer
// (RFC 9112, section 9.3.1). On a new connection it is an error.
func (c *client) do(r request) (server, again string, err error) {
	used := c.conn != nil
	server, began, err := c.try(r)
	if used && !began && closedByPeer(err) {
		again = r.method
		server, _, err = c.try(r)
	}
	return server, again, err
}

func closedByPeer(err error) bool {
	return errors.Is(err, io.EOF) || errors.Is(err, syscall.ECONNRESET) || errors.Is(err, syscall.EPIPE)
}

// try sends r once. began is whether a byte of an answer has come.
func (c *client) try(r request) (server string, began bool, err error) {
	defer func() {
		if err != nil {
			c.close()
		}
	}()
	if c.conn == nil {
		if c.conn, err = net.DialTimeout("tcp", c.addr, answerLimit); err != nil {
			c.conn = nil
			return "", false, err
		}
		c.in = bufio.NewReader(c.conn)
	}
	_ = c.conn.SetDeadline(time.Now().Add(answerLimit)) // or the write fails
	_, sendErr := c.conn.Write(r.wire)
	if _, err := c.in.Peek(1); err != nil {
		return "", false, fmt.Errorf("%s: %w", r.method, errors.Join(sendErr, err))
	}
	resp, err := http.ReadResponse(c.in, nil)
	if err != nil {
		return "", true, fmt.Errorf("%s: reading the answer: %w", r.method, err)
	}
	body, err := io.ReadAll(resp.Body)
	if err != nil {
		return "", true, fmt.Errorf("%s: reading the answer's body: %w", r.method, err)
	}
	if resp.StatusCode != http.StatusOK || !bytes.Equal(body, r.want) {
		return "", true, fmt.Errorf("%s: a wrong answer: %s, %d bytes: %.50q", r.method, resp.Status, len(body), body)
	}
	if resp.Close || !c.keep {
		c.close()
	}
	return resp.Header.Get(nameHeader), true, nil
}

func (c *client) close() {
	if c.conn != nil {
		c.conn.Close()
		c.conn = nil
	}
}
