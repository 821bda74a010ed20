package main

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"io"
	"math/rand/v2"
	"runtime"
	"sync"
	"sync/atomic"
	"time"

	"github.com/hertznet/hertznet/network"
	"github.com/hertznet/hertznet/standard"
)

// check does something to a site and says what it saw, or what is wrong.
type check struct {
	what string
	run  func(ctx context.Context, s *site) (saw string, err error)
}

// checks are made in this order: the last one ends the server.
var checks = []check{
	{"echo", one(echo, 5)},
	{"echo 1 MiB", one(echo, maxPayload)},
	{"checksum of 1 MiB", one(sum, maxPayload)},
	{"64 frames in one flush", pipelined},
	{"16 goroutines, 1 connection", shared},
	{"a frame in three parts", parts},
	{"one and a half frames", oneAndAHalf},
	{"an unknown type", unknown},
	{"a bad length", badLength},
	{"half a frame, then silence", silence},
	{"shutdown under load", shutdownUnderLoad},
}

func (s *site) check(ctx context.Context, c check) error {
	ctx, cancel := context.WithTimeout(ctx, limit)
	defer cancel()
	begin := time.Now()
	saw, err := c.run(ctx, s)
	if err != nil {
		return fmt.Errorf("%s over %s: %w", c.what, s.name, err)
	}
	fmt.Printf("%-28s  %-4s  %8.2f ms  %s\n", c.what, s.name, milliseconds(time.Since(begin)), saw)
	return nil
}

func milliseconds(d time.Duration) float64 { return float64(d) / float64(time.Millisecond) }

func (s *site) dial() (*client, error) { return dial(s.network, s.addr, s.tls) }

// raw connects without a client, to send what no client would.
func (s *site) raw() (network.Conn, error) {
	c, err := new(standard.Dialer).DialConnection(s.network, s.addr, limit, s.tls)
	if err != nil {
		return nil, err
	}
	if err := c.SetDeadline(time.Now().Add(limit)); err != nil {
		c.Close()
		return nil, err
	}
	return c, nil
}

// payload returns n bytes in which no part looks like another.
func payload(n int) []byte {
	b := make([]byte, n)
	_, _ = rand.NewChaCha8([32]byte{}).Read(b) // never fails
	return b
}

// want returns the payload of the answer.
func want(k kind, payload []byte) []byte {
	if k == sum {
		return binary.BigEndian.AppendUint32(nil, crc32.Checksum(payload, castagnoli))
	}
	return payload
}

// verify makes a call and compares its answers.
func (c *client) verify(ctx context.Context, k kind, payloads ...[]byte) error {
	answers, err := c.call(ctx, k, payloads...)
	if err != nil {
		return err
	}
	for i, p := range payloads {
		if !bytes.Equal(answers[i], want(k, p)) {
			return fmt.Errorf("answer %d of %d is wrong: %d bytes that begin with %.20x", i, len(payloads), len(answers[i]), answers[i])
		}
	}
	return nil
}

func one(k kind, size int) func(context.Context, *site) (string, error) {
	return func(ctx context.Context, s *site) (string, error) {
		c, err := s.dial()
		if err != nil {
			return "", err
		}
		defer c.close()
		return fmt.Sprintf("%d bytes", size), c.verify(ctx, k, payload(size))
	}
}

// pipelined sends many requests at once. How many answers leave together is a matter of
// how many requests the server finds together.
func pipelined(ctx context.Context, s *site) (string, error) {
	c, err := s.dial()
	if err != nil {
		return "", err
	}
	defer c.close()
	payloads := make([][]byte, 64)
	for i := range payloads {
		payloads[i] = payload(i)
	}
	before := s.transport.Stats().WritesSaved
	if err := c.verify(ctx, echo, payloads...); err != nil {
		return "", err
	}
	return fmt.Sprintf("%d answers, %d writes saved by joining them", len(payloads), s.transport.Stats().WritesSaved-before), nil
}

// shared has many goroutines use one client.
func shared(ctx context.Context, s *site) (string, error) {
	c, err := s.dial()
	if err != nil {
		return "", err
	}
	defer c.close()
	const each = 100
	errs := make(chan error)
	for g := range 16 {
		go func() {
			for i := range each {
				if err := c.verify(ctx, echo+kind(i%2), payload(g*i)); err != nil {
					errs <- err
					return
				}
			}
			errs <- nil
		}()
	}
	for range 16 {
		err = errors.Join(err, <-errs)
	}
	return fmt.Sprintf("%d answers, each to whom it belongs", 16*each), err
}

// parts sends a frame in pieces: a part of the length, the rest and half a payload, the
// rest.
func parts(_ context.Context, s *site) (string, error) {
	c, err := s.raw()
	if err != nil {
		return "", err
	}
	defer c.Close()
	b := request(echo, 7, payload(1000))
	for _, piece := range [][]byte{b[:2], b[2:500], b[500:]} {
		if _, err := c.Write(piece); err != nil {
			return "", err
		}
		time.Sleep(5 * time.Millisecond) // or they might come together
	}
	return expect(c, answer, 7, payload(1000))
}

// oneAndAHalf sends the rest of its second frame once the first is answered: a server that
// kept that answer, to send it with the next, would wait for ever.
func oneAndAHalf(_ context.Context, s *site) (string, error) {
	c, err := s.raw()
	if err != nil {
		return "", err
	}
	defer c.Close()
	first, second := request(echo, 1, payload(100)), request(echo, 2, payload(100))
	if _, err := c.Write(append(first, second[:50]...)); err != nil {
		return "", err
	}
	if _, err := expect(c, answer, 1, payload(100)); err != nil {
		return "", err
	}
	if _, err := c.Write(second[50:]); err != nil {
		return "", err
	}
	return expect(c, answer, 2, payload(100))
}

func unknown(_ context.Context, s *site) (string, error) {
	c, err := s.raw()
	if err != nil {
		return "", err
	}
	defer c.Close()
	if _, err := c.Write(append(request(99, 1, nil), request(echo, 2, payload(5))...)); err != nil {
		return "", err
	}
	saw, err := expect(c, failure, 1, []byte("unknown type"))
	if err != nil {
		return "", err
	}
	_, err = expect(c, answer, 2, payload(5)) // the connection goes on
	return saw, err
}

// badLength sends a length that no frame has, and more that nobody is going to read. If
// the server closed its socket at once, the system would send a reset, which may overtake
// the answer. On unix systems package standard waits for the peer to close first.
func badLength(_ context.Context, s *site) (string, error) {
	c, err := s.raw()
	if err != nil {
		return "", err
	}
	defer c.Close()
	b := []byte{0xff, 0xff, 0xff, 0xff}
	if runtime.GOOS != "windows" {
		b = append(b, payload(64<<10)...)
	}
	if _, err := c.Write(b); err != nil {
		return "", err
	}
	return refused(c, []byte("a frame of length 4294967295; it must be 5 to 1048581"))
}

func silence(_ context.Context, s *site) (string, error) {
	c, err := s.raw()
	if err != nil {
		return "", err
	}
	defer c.Close()
	b := request(echo, 1, payload(1000))
	if _, err := c.Write(b[:len(b)/2]); err != nil {
		return "", err
	}
	return refused(c, []byte("the rest of a frame did not come within 1s"))
}

// request returns a frame as it is sent.
func request(k kind, id uint32, payload []byte) []byte {
	b := make([]byte, headSize, headSize+len(payload))
	putHead(b, k, id, len(payload))
	return append(b, payload...)
}

// expect reads a frame and compares it.
func expect(c network.Conn, k kind, id uint32, payload []byte) (saw string, err error) {
	f, err := readFrame(c)
	if err != nil {
		return "", err
	}
	defer c.Release()
	if f.kind != k || f.id != id || !bytes.Equal(f.payload, payload) {
		return "", fmt.Errorf("a frame of type %d, id %d and %d bytes: %.50q", f.kind, f.id, len(f.payload), f.payload)
	}
	if k == failure {
		return fmt.Sprintf("answered: %s", f.payload), nil
	}
	return fmt.Sprintf("%d bytes", len(f.payload)), nil
}

// refused reads why the connection is closed, and that it is.
func refused(c network.Conn, payload []byte) (saw string, err error) {
	if saw, err = expect(c, failure, 0, payload); err != nil {
		return "", err
	}
	if _, err := readFrame(c); err != io.EOF {
		return "", fmt.Errorf("the connection ended with %v, want EOF", err)
	}
	return saw + ", and closed", nil
}

// shutdownUnderLoad shuts the server down while clients send, each from more than one
// goroutine, until they are asked to go away. Every frame that was sent must be answered.
func shutdownUnderLoad(ctx context.Context, s *site) (string, error) {
	const clients, each = 4, 4
	before := s.handled.Load()
	var sent, answered atomic.Int64
	var wg sync.WaitGroup
	var mu sync.Mutex
	var errs []error
	for range clients {
		c, err := s.dial()
		if err != nil {
			return "", err
		}
		defer c.close()
		for range each {
			wg.Go(func() {
				for {
					payloads := make([][]byte, 1+rand.N(20))
					for i := range payloads {
						payloads[i] = payload(rand.N(2000))
					}
					err := c.verify(ctx, echo, payloads...)
					if err == errGoAway { // so nothing was sent
						return
					}
					sent.Add(int64(len(payloads)))
					if err != nil {
						mu.Lock()
						errs = append(errs, err)
						mu.Unlock()
						return
					}
					answered.Add(int64(len(payloads)))
				}
			})
		}
	}
	idle, err := s.dial() // sends no more, is parked meanwhile on Linux, and asked all the same
	if err != nil {
		return "", err
	}
	defer idle.close()
	if err := idle.verify(ctx, echo, payload(1)); err != nil {
		return "", err
	}
	sent.Add(1)
	answered.Add(1)
	time.Sleep(200 * time.Millisecond) // of load
	if err := s.shutdown(ctx); err != nil {
		return "", fmt.Errorf("%w, with %d connections left", err, s.transport.Stats().Open())
	}
	wg.Wait()
	handled := s.handled.Load() - before
	switch {
	case len(errs) > 0:
		return "", fmt.Errorf("%d frames sent, %d answered: %w", sent.Load(), answered.Load(), errors.Join(errs...))
	case handled != answered.Load() || sent.Load() != answered.Load():
		return "", fmt.Errorf("%d frames sent, %d handled, %d answered", sent.Load(), handled, answered.Load())
	}
	return fmt.Sprintf("%d frames sent, %d handled, %d answered", sent.Load(), handled, answered.Load()), nil
}
