package quic

import (
	"bytes"
	"context"
	"errors"
	"math/rand/v2"
	"net"
	"sync"
	"testing"
	"time"

	"github.com/hertznet/hertznet/network"
)

// lossyPath is a way to a server that delays each packet and loses some.
type lossyPath struct {
	front net.PacketConn
	delay time.Duration

	mu   sync.Mutex
	rand *rand.Rand
	loss float64
	lost int
	back map[string]net.Conn // the sockets to the server, by the client's address
}

// newLossyPath returns the address of a path to a server.
func newLossyPath(tb testing.TB, server string, loss float64, delay time.Duration) (*lossyPath, string) {
	tb.Helper()
	p := &lossyPath{front: mustListen(tb), delay: delay, rand: rand.New(rand.NewPCG(1, 2)), loss: loss, back: map[string]net.Conn{}}
	tb.Cleanup(func() {
		p.front.Close()
		p.mu.Lock()
		defer p.mu.Unlock()
		for _, c := range p.back {
			c.Close()
		}
	})
	go func() {
		buf := make([]byte, 2048)
		for {
			n, client, err := p.front.ReadFrom(buf)
			if err != nil {
				return
			}
			c := p.socket(server, client)
			if c == nil {
				return
			}
			p.pass(buf[:n], func(b []byte) { c.Write(b) })
		}
	}()
	return p, p.front.LocalAddr().String()
}

// socket returns the socket to the server for a client.
func (p *lossyPath) socket(server string, client net.Addr) net.Conn {
	p.mu.Lock()
	defer p.mu.Unlock()
	if c := p.back[client.String()]; c != nil {
		return c
	}
	c, err := net.Dial("udp", server)
	if err != nil {
		return nil
	}
	p.back[client.String()] = c
	go func() {
		buf := make([]byte, 2048)
		for {
			n, err := c.Read(buf)
			if errors.Is(err, net.ErrClosed) {
				return
			}
			if err == nil { // and not that the server's socket is closed
				p.pass(buf[:n], func(b []byte) { p.front.WriteTo(b, client) })
			}
		}
	}()
	return c
}

// pass sends a packet later, or not at all.
func (p *lossyPath) pass(b []byte, send func([]byte)) {
	p.mu.Lock()
	lose := p.rand.Float64() < p.loss
	if lose {
		p.lost++
	}
	p.mu.Unlock()
	if !lose {
		b = bytes.Clone(b)
		time.AfterFunc(p.delay, func() { send(b) })
	}
}

// One packet of twenty is lost, and a round trip takes 20 ms: streams are whole all
// the same, a Shutdown loses no answer, and its code reaches the client.
func TestLossyPath(t *testing.T) {
	tr := &Transporter{NoError: 0x99}
	addr, _ := serve(t, tr, echoStreams)
	p, addr := newLossyPath(t, addr, 0.05, 10*time.Millisecond)
	c := dialTest(t, addr)
	ctx := testContext(t)
	var wg sync.WaitGroup
	for i := range 40 {
		wg.Go(func() {
			message := bytes.Repeat([]byte{byte(i)}, 20_000)
			if got, err := exchange(ctx, c, message); err != nil || !bytes.Equal(got, message) {
				t.Errorf("stream %d: %d bytes and %v", i, len(got), err)
			}
		})
	}
	wg.Wait()

	// The last messages are on their way when Shutdown begins.
	var all []network.Stream
	message := bytes.Repeat([]byte("m"), 10_000)
	for range 10 {
		s, err := c.OpenStreamSync(ctx)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := s.Write([]byte("m")); err != nil {
			t.Fatal(err)
		}
		if _, err := s.Read(make([]byte, 1)); err != nil {
			t.Fatal(err)
		}
		all = append(all, s)
	}
	shut := make(chan error, 1)
	go func() { shut <- tr.Shutdown(ctx) }()
	for i, s := range all {
		wg.Go(func() {
			if _, err := s.Write(message); err != nil {
				t.Error(err)
			}
			s.Close()
			var got []byte
			buf := make([]byte, 1000)
			var err error
			for err == nil {
				var n int
				n, err = s.Read(buf)
				got = append(got, buf[:n]...)
			}
			if !bytes.Equal(got, message) {
				t.Errorf("stream %d during Shutdown: %d bytes and %v", i, len(got), err)
			}
		})
	}
	wg.Wait()
	// The packet that closes the connection is sent once, and lost like any other: the
	// client would wait out its idle timeout, and be right.
	p.mu.Lock()
	p.loss = 0
	p.mu.Unlock()
	if err := <-shut; err != nil {
		t.Errorf("Shutdown: %v", err)
	}
	<-c.Context().Done()
	var app network.ApplicationError
	if err := context.Cause(c.Context()); !errors.As(err, &app) || app.ErrCode() != 0x99 {
		t.Errorf("the connection ended with %v, want code 0x99", err)
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	t.Logf("%d packets were lost", p.lost)
	if p.lost == 0 {
		t.Error("no packet was lost")
	}
}

// A close that is lost is said again to a peer that goes on sending, although the
// client's socket has nobody else who uses it.
func TestCloseIsSaidAgain(t *testing.T) {
	ct, st := tlsConfigs(t)
	l := listen(t, st, nil)
	p, addr := newLossyPath(t, l.Addr().String(), 0, time.Millisecond)
	ctx := testContext(t)
	client, err := Dial(ctx, addr, ct, nil)
	if err != nil {
		t.Fatal(err)
	}
	server, err := l.Accept(ctx)
	if err != nil {
		t.Fatal(err)
	}
	s, _ := streams(t, server, client)
	p.mu.Lock()
	p.loss = 1
	p.mu.Unlock()
	client.CloseWithError(appCode(7), "")
	for lost := 0; lost == 0; { // nobody hears it
		if ctx.Err() != nil {
			t.Fatal("the close was not sent")
		}
		p.mu.Lock()
		if lost = p.lost; lost > 0 {
			p.loss = 0
		}
		p.mu.Unlock()
		time.Sleep(100 * time.Microsecond)
	}
	s.Write([]byte("are you there?"))
	<-server.Context().Done()
	var app network.ApplicationError
	if err := context.Cause(server.Context()); !errors.As(err, &app) || app.ErrCode() != 7 {
		t.Errorf("the server's end: %v, want the client's code 7", err)
	}
}
