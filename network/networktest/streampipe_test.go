package networktest

import (
	"bytes"
	"context"
	"errors"
	"io"
	"math/rand/v2"
	"net"
	"os"
	"sync"
	"testing"
	"time"

	"github.com/hertznet/hertznet/network"
)

// streamPipes is StreamPipe as the kit's subject.
var streamPipes = StreamConn{
	Pair: func(_ testing.TB, o StreamOptions) (a, b network.StreamConn) { return StreamPipe(o) },
	FailedHandshake: func(testing.TB) network.StreamConn {
		p := newStreamPipe(StreamOptions{})
		p.mu.Lock()
		defer p.mu.Unlock()
		err := errors.New("no common protocol")
		p.end(err, err)
		return p.ends[0]
	},
}

func TestReferenceStreams(t *testing.T) { TestStreamConn(t, streamPipes) }

// What StreamPipe's comment says beyond the contract.

func TestStreamPipeNumbersAsQUIC(t *testing.T) {
	a, b := StreamPipe(StreamOptions{})
	for i, c := range []network.StreamConn{a, b} {
		for n := range int64(3) {
			x, err := c.OpenStream()
			if want := n<<2 | int64(i); err != nil || x.StreamID() != want {
				t.Errorf("%d and %v; want %d", x.StreamID(), err, want)
			}
			s, err := c.OpenUniStream()
			if want := n<<2 | int64(i) | 2; err != nil || s.StreamID() != want {
				t.Errorf("%d and %v; want %d", s.StreamID(), err, want)
			}
		}
	}
}

// A stream is seen with its first byte, and with it those of lower ids.
func TestStreamPipeAcceptsInOrder(t *testing.T) {
	a, b := StreamPipe(StreamOptions{})
	var streams []network.Stream
	for range 3 {
		s, err := a.OpenStream()
		if err != nil {
			t.Fatal(err)
		}
		streams = append(streams, s)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Millisecond)
	defer cancel()
	if s, err := b.AcceptStream(ctx); !errors.Is(err, context.DeadlineExceeded) || s != nil {
		t.Fatalf("%v and %v before anything was written", s, err)
	}
	if _, err := streams[1].Write([]byte("x")); err != nil {
		t.Fatal(err)
	}
	for i := range 2 {
		s, err := b.AcceptStream(t.Context())
		if err != nil || s.StreamID() != streams[i].StreamID() {
			t.Fatalf("%v and %v; want stream %d", s, err, streams[i].StreamID())
		}
	}
	ctx, cancel = context.WithTimeout(t.Context(), 20*time.Millisecond)
	defer cancel()
	if s, err := b.AcceptStream(ctx); err == nil {
		t.Fatalf("stream %d, on which nothing was written", s.StreamID())
	}
}

// Write blocks at 64 KiB, says how much it took, and goes on as the peer reads.
func TestStreamPipeBlocksWriters(t *testing.T) {
	a, b := StreamPipe(StreamOptions{})
	s, err := a.OpenUniStream()
	if err != nil {
		t.Fatal(err)
	}
	data := pattern(1 << 20)
	_ = s.SetWriteDeadline(time.Now().Add(10 * time.Millisecond))
	n, err := s.Write(data)
	if n != pipeBuffer || !errors.Is(err, os.ErrDeadlineExceeded) {
		t.Fatalf("%d and %v", n, err)
	}
	_ = s.SetWriteDeadline(time.Time{})
	go func() {
		_, _ = s.Write(data[n:])
		_ = s.Close()
	}()
	r, err := b.AcceptUniStream(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if got, err := io.ReadAll(r); err != nil || !bytes.Equal(got, data) {
		t.Errorf("%d bytes and %v", len(got), err)
	}
}

// Use keeps a connection alive; what comes after the timeout is as it was at it.
func TestStreamPipeIdleTimeout(t *testing.T) {
	const idle = 200 * time.Millisecond
	a, b := StreamPipe(StreamOptions{IdleTimeout: idle})
	s, err := a.OpenUniStream()
	if err != nil {
		t.Fatal(err)
	}
	last := time.Now()
	for range 6 {
		if _, err := s.Write([]byte("x")); err != nil {
			if time.Since(last) < idle {
				t.Fatal(err)
			}
			t.Skip("the machine is too slow for this test")
		}
		last = time.Now()
		time.Sleep(idle / 4)
	}
	<-b.Context().Done()
	if since := time.Since(last); since < idle {
		t.Errorf("lost after %v", since)
	}
	for _, c := range []network.StreamConn{a, b} {
		ne, ok := context.Cause(c.Context()).(net.Error)
		if !ok || !ne.Timeout() {
			t.Errorf("%v", context.Cause(c.Context()))
		}
	}
	if err := a.CloseWithError(nil, "late"); err != nil {
		t.Error(err)
	}
	if _, err := s.Write([]byte("x")); !looksLikeTimeout(err) {
		t.Error(err)
	}
}

func TestStreamPipeErrors(t *testing.T) {
	a, b := StreamPipe(StreamOptions{})
	x, err := a.OpenStream()
	if err != nil {
		t.Fatal(err)
	}
	x.CancelWrite(streamCode(7))
	y, err := b.AcceptStream(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	_, here := x.Write([]byte("x"))
	_, there := y.Read(make([]byte, 1))
	for _, err := range []error{here, there, context.Cause(x.Context())} {
		var c interface{ Canceled() bool }
		if code, ok := codeOf(err); !ok || code != 7 || !errors.As(err, &c) || c.Canceled() != (err == there) {
			t.Error(err)
		}
	}
	if err := y.Close(); err != nil {
		t.Error(err)
	}
	if cause := context.Cause(y.Context()); cause != context.Canceled {
		t.Error(cause)
	}
	if err := x.Close(); err == nil {
		t.Error("Close after CancelWrite succeeded")
	}
	if err := b.CloseWithError(streamCode(1<<62-1), "bye"); err != nil {
		t.Error(err)
	}
	for _, c := range []network.StreamConn{a, b} {
		_, err := c.OpenStream()
		code, ok := codeOf(err)
		if _, isNet := err.(net.Error); !isNet || !ok || code != 1<<62-1 || !errors.Is(err, net.ErrClosed) || err != context.Cause(c.Context()) {
			t.Errorf("%T: %v", err, err)
		}
	}
}

// Everything at once from many goroutines, for the race detector and for
// deadlocks. Afterwards every stream is over, and none counts any more.
func TestStreamPipeUnderLoad(t *testing.T) {
	const limit, workers, rounds = 5, 8, 50
	a, b := StreamPipe(StreamOptions{MaxStreams: limit})
	var wg sync.WaitGroup
	for i, c := range []network.StreamConn{a, b} {
		peer := []network.StreamConn{b, a}[i]
		for w := range workers {
			wg.Go(func() {
				r := rand.New(rand.NewPCG(uint64(i), uint64(w)))
				for range rounds {
					x, err := c.OpenStreamSync(t.Context())
					if err != nil {
						t.Error(err)
						return
					}
					_ = x.SetWriteDeadline(time.Now().Add(time.Minute))
					_, _ = x.Write(make([]byte, r.IntN(2*pipeBuffer)))
					if r.IntN(4) == 0 {
						x.CancelWrite(nil)
					}
					_ = x.Close()
					if r.IntN(4) == 0 {
						x.CancelRead(nil)
					}
					_, _ = io.Copy(io.Discard, x)
				}
			})
			wg.Go(func() {
				r := rand.New(rand.NewPCG(uint64(i), uint64(w+workers)))
				for range rounds {
					y, err := peer.AcceptStream(t.Context())
					if err != nil {
						t.Error(err)
						return
					}
					if r.IntN(4) == 0 {
						y.CancelRead(nil)
					}
					_, _ = io.Copy(y, y)
					_ = y.Close()
					if r.IntN(4) == 0 {
						y.CancelWrite(nil)
					}
					y.CancelRead(nil)
				}
			})
		}
	}
	wg.Wait()
	p := a.(*pipeEnd).pipe
	p.mu.Lock()
	for _, e := range p.ends {
		if k := &e.opened[pipeBidi]; k.open != 0 || len(k.waiting) != 0 || k.next != workers*rounds {
			t.Errorf("%d streams open, %d not accepted, %d opened at all", k.open, len(k.waiting), k.next)
		}
	}
	if len(p.streams) != 0 {
		t.Errorf("%d streams are left", len(p.streams))
	}
	p.mu.Unlock()
	_ = a.CloseWithError(nil, "")
}
