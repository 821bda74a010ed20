package main

import (
	"bufio"
	"bytes"
	"context"
	"crypto/tls"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"net/http"
	"strconv"
	"time"
)

// patience is how long a client waits for the server.
const patience = 30 * time.Second

// peer is a client. It knows none of this module's code.
type peer struct {
	*site
	total  *counters
	rand   *rand.Rand
	random *rand.ChaCha8
	park   time.Duration

	socket net.Conn
	conn   net.Conn // the socket, or TLS over it
	r      *bufio.Reader
	number int // of the last request; it goes on from connection to connection
}

func newPeer(s *site, total *counters, seed uint64, park time.Duration) *peer {
	return &peer{site: s, total: total, park: park,
		rand: rand.New(rand.NewPCG(seed, 1)), random: rand.NewChaCha8([32]byte{byte(seed), byte(seed >> 8)})}
}

// run plays until ctx is done: each time with a connection of its own, unless the last
// one can still be used.
func (p *peer) run(ctx context.Context) {
	defer p.close()
	for ctx.Err() == nil {
		if err := p.play(); err != nil {
			p.total.fail(fmt.Errorf("%s: %w", p.name, err))
			p.close()
		}
	}
}

// play picks what to do next.
func (p *peer) play() error {
	switch p.rand.IntN(10) {
	default:
		return p.keepAlive(1 + p.rand.IntN(10))
	case 0, 1:
		return p.pipelined()
	case 2:
		return p.slow()
	case 3:
		return p.resetInRequest()
	case 4:
		return p.resetWhileIdle()
	case 5:
		return p.halfClose()
	}
}

// keepAlive sends requests one by one, with idle gaps around ParkAfter.
func (p *peer) keepAlive(requests int) error {
	for range requests {
		if err := p.exchange(1); err != nil {
			return fmt.Errorf("keep-alive: %w", err)
		}
		p.idle()
	}
	return nil
}

// pipelined sends several requests at once.
func (p *peer) pipelined() error {
	if err := p.exchange(2 + p.rand.IntN(20)); err != nil {
		return fmt.Errorf("pipelined: %w", err)
	}
	return nil
}

// slow sends a request in pieces, and then reads a large answer in pieces.
func (p *peer) slow() error {
	if err := p.dial(); err != nil {
		return err
	}
	request, body := p.request(200 << 10)
	for range 4 {
		n := 1 + p.rand.IntN(min(50, len(request)/2))
		if _, err := p.conn.Write(request[:n]); err != nil {
			return fmt.Errorf("slow: %w", err)
		}
		request = request[n:]
		p.idle()
	}
	sent := make(chan error, 1)
	go func() {
		_, err := p.conn.Write(request)
		sent <- err
	}()
	p.idle()
	err := p.answer(p.number, body, func(r io.Reader) io.Reader { return &lazyReader{r: r, pause: p.park / 4} })
	if err == nil {
		err = <-sent
	}
	if err != nil {
		return fmt.Errorf("slow: %w", err)
	}
	return nil
}

// lazyReader pauses before each read.
type lazyReader struct {
	r     io.Reader
	pause time.Duration
}

func (l *lazyReader) Read(b []byte) (int, error) {
	time.Sleep(l.pause)
	return l.r.Read(b[:min(len(b), 16<<10)])
}

// resetInRequest leaves a request unfinished and resets the connection.
func (p *peer) resetInRequest() error {
	if err := p.dial(); err != nil {
		return err
	}
	request, _ := p.request(2000)
	if _, err := p.conn.Write(request[:p.rand.IntN(len(request))]); err != nil {
		return fmt.Errorf("reset in a request: %w", err)
	}
	if p.rand.IntN(2) == 0 {
		p.idle()
	}
	p.reset()
	return nil
}

// resetWhileIdle resets a connection that is parked, or is about to be.
func (p *peer) resetWhileIdle() error {
	if err := p.keepAlive(1); err != nil {
		return err
	}
	p.reset()
	return nil
}

// halfClose closes the sending side behind a request, which is answered all the same.
func (p *peer) halfClose() error {
	if err := p.dial(); err != nil {
		return err
	}
	defer p.close()
	request, body := p.request(2000)
	if _, err := p.conn.Write(request); err != nil {
		return fmt.Errorf("half-close: %w", err)
	}
	if err := p.conn.(interface{ CloseWrite() error }).CloseWrite(); err != nil {
		return fmt.Errorf("half-close: %w", err)
	}
	if err := p.answer(p.number, body, nil); err != nil {
		return fmt.Errorf("half-close: %w", err)
	}
	if b, err := io.ReadAll(p.r); err != nil || len(b) > 0 {
		return fmt.Errorf("half-close: %q after the last answer, %w", b, err)
	}
	return nil
}

// exchange sends n requests together and reads their answers.
func (p *peer) exchange(n int) error {
	if err := p.dial(); err != nil {
		return err
	}
	var out []byte
	bodies := make([][]byte, n)
	for i := range bodies {
		var request []byte
		request, bodies[i] = p.request(2000)
		out = append(out, request...)
	}
	if _, err := p.conn.Write(out); err != nil {
		return err
	}
	for i, body := range bodies {
		if err := p.answer(p.number-n+1+i, body, nil); err != nil {
			return err
		}
	}
	return nil
}

// request returns the next request and its body, of size bytes at most.
func (p *peer) request(size int) (request, body []byte) {
	p.number++
	body = make([]byte, p.rand.IntN(size+1))
	_, _ = p.random.Read(body) // never fails
	request = fmt.Appendf(nil, "POST / HTTP/1.1\r\nHost: soak\r\nNumber: %d\r\nContent-Length: %d\r\n\r\n", p.number, len(body))
	return append(request, body...), body
}

// answer reads one answer and compares it with the request that had the number. The
// body is read through wrap, if it is not nil.
func (p *peer) answer(number int, body []byte, wrap func(io.Reader) io.Reader) error {
	p.total.requests.Add(1)
	resp, err := http.ReadResponse(p.r, nil)
	if err != nil {
		return err
	}
	var r io.Reader = resp.Body
	if wrap != nil {
		r = wrap(r)
	}
	got, err := io.ReadAll(r)
	if err != nil {
		return err
	}
	if resp.StatusCode != 200 || resp.Header.Get("Number") != strconv.Itoa(number) || !bytes.Equal(got, body) {
		return fmt.Errorf("the answer to request %d is of %q, status %d, %d bytes, want %d: %.60q",
			number, resp.Header.Get("Number"), resp.StatusCode, len(got), len(body), got)
	}
	return nil
}

// idle waits for a while around ParkAfter.
func (p *peer) idle() { time.Sleep(time.Duration(p.rand.Int64N(int64(2*p.park) + 1))) }

// dial connects, unless there is a connection, and gives it time.
func (p *peer) dial() error {
	if p.conn == nil {
		c, err := net.DialTimeout(p.addr.Network(), p.addr.String(), patience)
		if err != nil {
			return err
		}
		p.socket, p.conn = c, c
		if p.tls != nil {
			p.conn = tls.Client(c, p.tls)
		}
		p.r = bufio.NewReader(p.conn)
	}
	return p.socket.SetDeadline(time.Now().Add(patience))
}

func (p *peer) close() {
	if p.conn != nil {
		p.conn.Close()
		p.conn = nil
	}
}

// reset ends the connection without a word; over a unix socket it only closes it.
func (p *peer) reset() {
	if tc, ok := p.socket.(*net.TCPConn); ok {
		_ = tc.SetLinger(0)
	}
	p.socket.Close()
	p.conn = nil
}
