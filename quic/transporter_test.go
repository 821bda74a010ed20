package quic

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/hertznet/hertznet/network"
)

// serve serves until the end of the test. The channel has what ListenAndServe returned.
func serve(tb testing.TB, t *Transporter, onData network.OnData) (addr string, served <-chan error) {
	tb.Helper()
	if t.TLSConfig == nil {
		_, t.TLSConfig = tlsConfigs(tb)
	}
	if t.Addr == "" {
		t.Addr = "127.0.0.1:0"
	}
	if t.Logger == nil {
		t.Logger = slog.New(new(records))
	}
	result := make(chan error, 1)
	go func() { result <- t.ListenAndServe(onData) }()
	tb.Cleanup(func() { t.Close() })
	for t.Listener() == nil {
		select {
		case err := <-result:
			tb.Fatalf("ListenAndServe: %v", err)
		case <-time.After(time.Millisecond):
		}
	}
	return t.Listener().Addr().String(), result
}

func dialTest(tb testing.TB, addr string) *Conn {
	tb.Helper()
	ct, _ := tlsConfigs(tb)
	c, err := Dial(testContext(tb), addr, ct, nil)
	if err != nil {
		tb.Fatal(err)
	}
	tb.Cleanup(func() { c.CloseWithError(nil, "") })
	return c
}

// echoStreams is an OnData that sends back what each stream brings.
func echoStreams(ctx context.Context, conn any) error {
	for {
		s, err := conn.(network.StreamConn).AcceptStream(ctx)
		if err != nil {
			return err
		}
		go func() {
			defer s.Close()
			io.Copy(s, s)
		}()
	}
}

// exchange sends a message on a new stream and returns what comes back.
func exchange(ctx context.Context, c network.StreamConn, message []byte) ([]byte, error) {
	s, err := c.OpenStreamSync(ctx)
	if err != nil {
		return nil, err
	}
	defer s.CancelRead(nil)
	go func() {
		s.Write(message)
		s.Close()
	}()
	return io.ReadAll(s)
}

func TestTransporter(t *testing.T) {
	for _, network := range []string{"", "udp", "udp4", "tcp", "tcp4"} {
		tr := &Transporter{Network: network}
		if tr.Listener() != nil {
			t.Fatal("Listener is not nil before serving")
		}
		addr, served := serve(t, tr, echoStreams)
		got, err := exchange(testContext(t), dialTest(t, addr), []byte("hello"))
		if err != nil || string(got) != "hello" {
			t.Errorf("network %q: %q and %v", network, got, err)
		}
		if err := tr.Serve(mustListen(t), echoStreams); err == nil {
			t.Error("a second Serve returned nil")
		}
		if err := tr.Close(); err != nil {
			t.Error(err)
		}
		if err := <-served; err != nil {
			t.Errorf("ListenAndServe after Close: %v", err)
		}
		if ln := tr.Listener(); ln == nil {
			t.Error("Listener is nil after Close")
		} else if _, err := ln.Accept(); !errors.Is(err, net.ErrClosed) {
			t.Errorf("Accept of the closed Listener: %v", err)
		}
		// The socket is free again.
		pc, err := net.ListenPacket("udp4", addr)
		if err != nil {
			t.Fatal(err)
		}
		pc.Close()
	}
	if err := (&Transporter{Network: "unix"}).ListenAndServe(echoStreams); err == nil || !strings.Contains(err.Error(), "unix") {
		t.Errorf("network unix: %v", err)
	}
	if err := new(Transporter).ListenAndServe(echoStreams); err == nil || !strings.Contains(err.Error(), "tls.Config") {
		t.Errorf("no TLSConfig: %v", err)
	}
	if err := new(Transporter).Serve(mustListen(t), nil); err == nil {
		t.Error("Serve without OnData returned nil")
	}
}

func mustListen(tb testing.TB) net.PacketConn {
	tb.Helper()
	pc, err := net.ListenPacket("udp", "127.0.0.1:0")
	if err != nil {
		tb.Fatal(err)
	}
	return pc
}

// Close and Shutdown may come before serving, more than once and at once.
func TestTransporter_StopBefore(t *testing.T) {
	_, st := tlsConfigs(t)
	for name, stop := range map[string]func(*Transporter) error{
		"Close":    (*Transporter).Close,
		"Shutdown": func(tr *Transporter) error { return tr.Shutdown(context.Background()) },
	} {
		tr := &Transporter{TLSConfig: st}
		var wg sync.WaitGroup
		for range 4 {
			wg.Go(func() {
				if err := stop(tr); err != nil {
					t.Errorf("%s: %v", name, err)
				}
			})
		}
		wg.Wait()
		if err := tr.ListenAndServe(echoStreams); err != nil {
			t.Errorf("ListenAndServe after %s: %v", name, err)
		}
		pc := mustListen(t)
		if err := tr.Serve(pc, echoStreams); err != nil {
			t.Errorf("Serve after %s: %v", name, err)
		}
		if _, err := pc.WriteTo([]byte("x"), pc.LocalAddr()); !errors.Is(err, net.ErrClosed) {
			t.Errorf("Serve after %s left the socket open: %v", name, err)
		}
	}
}

// Shutdown under load: whatever was accepted is answered whole, and nothing is
// waited for beyond that.
func TestTransporter_ShutdownUnderLoad(t *testing.T) {
	const conns, workers = 4, 8
	answer := bytes.Repeat([]byte("answer"), 10_000)
	type key struct {
		addr string
		id   int64
	}
	var mu sync.Mutex
	accepted, answered := map[key]bool{}, map[key]bool{}

	slow := make(chan struct{}) // closed when the slow answers may be written
	tr := &Transporter{NoError: 0x77}
	addr, served := serve(t, tr, func(ctx context.Context, conn any) error {
		c := conn.(network.StreamConn)
		for {
			s, err := c.AcceptStream(ctx)
			if err != nil {
				return err
			}
			mu.Lock()
			accepted[key{c.RemoteAddr().String(), s.StreamID()}] = true
			mu.Unlock()
			go func() {
				defer s.Close()
				question, err := io.ReadAll(s)
				if err != nil {
					return
				}
				if string(question) == "slow" {
					<-slow
				}
				s.Write(answer)
			}()
		}
	})

	ctx := testContext(t)
	var wg sync.WaitGroup
	var exchanges atomic.Int64
	enough := make(chan struct{})
	var clients []*Conn
	for range conns {
		c := dialTest(t, addr)
		clients = append(clients, c)
		port := c.LocalAddr().(*net.UDPAddr).Port
		for i := range workers {
			wg.Go(func() {
				for {
					s, err := c.OpenStreamSync(ctx)
					if err != nil {
						return
					}
					question := "quick"
					if i == 0 {
						question = "slow" // it is still open when Shutdown begins
					}
					if _, err := io.WriteString(s, question); err != nil {
						return
					}
					s.Close()
					got, err := io.ReadAll(s)
					if err == nil && bytes.Equal(got, answer) {
						mu.Lock()
						answered[key{fmt.Sprintf("127.0.0.1:%d", port), s.StreamID()}] = true
						mu.Unlock()
					}
					if exchanges.Add(1) == 300 {
						close(enough)
					}
				}
			})
		}
	}
	<-enough
	shut := make(chan error, 1)
	go func() { shut <- tr.Shutdown(ctx) }()
	if err := <-served; err != nil {
		t.Errorf("ListenAndServe: %v", err)
	}
	select {
	case err := <-shut:
		t.Fatalf("Shutdown returned %v although there are slow answers", err)
	case <-time.After(50 * time.Millisecond):
	}
	close(slow)
	if err := <-shut; err != nil {
		t.Errorf("Shutdown: %v", err)
	}
	for _, c := range clients {
		<-c.Context().Done()
		var app network.ApplicationError
		if err := context.Cause(c.Context()); !errors.As(err, &app) || app.ErrCode() != 0x77 {
			t.Errorf("a client's connection ended with %v, want code 0x77", err)
		}
	}
	wg.Wait()
	lost := 0
	for k := range accepted {
		if !answered[k] {
			lost++
		}
	}
	t.Logf("%d streams accepted, %d answered, %d lost", len(accepted), len(answered), lost)
	if lost > 0 || len(accepted) < 300 {
		t.Errorf("%d of %d accepted streams had no answer", lost, len(accepted))
	}
}

// When its context ends, Shutdown closes what is left and returns exactly ctx.Err().
func TestTransporter_ShutdownExpires(t *testing.T) {
	entered := make(chan struct{})
	ended := make(chan struct{})
	tr := &Transporter{NoError: 9}
	addr, _ := serve(t, tr, func(ctx context.Context, conn any) error {
		close(entered)
		<-ctx.Done() // it does not look for streams
		close(ended)
		return ctx.Err()
	})
	c := dialTest(t, addr)
	<-entered
	ctx, cancel := context.WithTimeout(context.Background(), 50*time.Millisecond)
	defer cancel()
	if err := tr.Shutdown(ctx); err != context.DeadlineExceeded {
		t.Errorf("Shutdown returned %v, want exactly context.DeadlineExceeded", err)
	}
	<-ended
	<-c.Context().Done()
	var app network.ApplicationError
	if err := context.Cause(c.Context()); !errors.As(err, &app) || app.ErrCode() != 9 {
		t.Errorf("the client's connection ended with %v, want code 9", err)
	}
}

// Idle connections do not hold Shutdown up, and their OnData learns why.
func TestTransporter_ShutdownIdle(t *testing.T) {
	entered := make(chan struct{})
	reasons := make(chan error, 20)
	tr := new(Transporter)
	addr, _ := serve(t, tr, func(ctx context.Context, conn any) error {
		entered <- struct{}{}
		c := conn.(network.StreamConn)
		uni := make(chan error, 1)
		go func() {
			_, err := c.AcceptUniStream(ctx)
			uni <- err
		}()
		_, err := c.AcceptStream(ctx)
		reasons <- err
		reasons <- <-uni
		return err
	})
	var clients []*Conn
	for range 10 {
		clients = append(clients, dialTest(t, addr))
		<-entered
	}
	start := time.Now()
	if err := tr.Shutdown(testContext(t)); err != nil {
		t.Fatal(err)
	}
	t.Logf("10 idle connections were closed in %v", time.Since(start))
	for _, c := range clients {
		<-c.Context().Done()
	}
	for range 20 {
		if err := <-reasons; !errors.Is(err, ErrShutdown) {
			t.Errorf("accepting failed with %v, want ErrShutdown", err)
		}
	}
}

// A panic closes its connection and touches no other. It is logged, but not each time, since
// a peer may know how to bring it about [S10].
func TestTransporter_Panic(t *testing.T) {
	log := new(records)
	tr := &Transporter{InternalError: 0x102, Logger: slog.New(log)}
	addr, _ := serve(t, tr, func(ctx context.Context, conn any) error {
		s, err := conn.(network.StreamConn).AcceptStream(ctx)
		if err != nil {
			return err
		}
		q, _ := io.ReadAll(s)
		if string(q) == "panic" {
			panic("a handler's")
		}
		s.Write(q)
		s.Close()
		return echoStreams(ctx, conn)
	})
	ctx := testContext(t)
	other := dialTest(t, addr)
	if _, err := exchange(ctx, other, []byte("x")); err != nil {
		t.Fatal(err)
	}
	for range 3 {
		c := dialTest(t, addr)
		_, err := exchange(ctx, c, []byte("panic"))
		var app network.ApplicationError
		if !errors.As(err, &app) || app.ErrCode() != 0x102 {
			t.Errorf("the client got %v, want code 0x102", err)
		}
	}
	if all := log.messages(slog.LevelError); len(all) != 1 || !strings.Contains(all[0], "panicked") {
		t.Errorf("logged: %q", all)
	}
	if got, err := exchange(ctx, other, []byte("y")); err != nil || string(got) != "y" {
		t.Errorf("the other connection: %q and %v", got, err)
	}
}

// How OnData ends decides with what its connection is closed. An answer that was just
// written is delivered.
func TestTransporter_EndOfOnData(t *testing.T) {
	for _, test := range []struct {
		name string
		err  error
		code uint64
	}{
		{"nil", nil, 1},
		{"an error", errors.New("secret"), 2},
		{"an ApplicationError", fmt.Errorf("wrapped: %w", ownError{}), 3},
	} {
		t.Run(test.name, func(t *testing.T) {
			tr := &Transporter{NoError: 1, InternalError: 2}
			answer := bytes.Repeat([]byte("a"), 300_000)
			addr, _ := serve(t, tr, func(ctx context.Context, conn any) error {
				s, err := conn.(network.StreamConn).AcceptStream(ctx)
				if err != nil {
					return err
				}
				if test.err != nil {
					return test.err
				}
				s.Write(answer)
				return s.Close()
			})
			c := dialTest(t, addr)
			got, err := exchange(testContext(t), c, []byte("q"))
			if test.err == nil && (err != nil || !bytes.Equal(got, answer)) {
				t.Errorf("the answer came as %d bytes and %v", len(got), err)
			}
			<-c.Context().Done()
			var app network.ApplicationError
			if err := context.Cause(c.Context()); !errors.As(err, &app) || app.ErrCode() != test.code || strings.Contains(err.Error(), "secret") {
				t.Errorf("the connection ended with %v, want code %d", err, test.code)
			}
		})
	}
}

type ownError struct{}

func (ownError) ErrCode() uint64 { return 3 }
func (ownError) String() string  { return "own" }
func (ownError) Error() string   { return "own" }

// The context of OnData ends when the peer has gone, and comes from OnConnect.
func TestTransporter_Context(t *testing.T) {
	type contextKey struct{}
	value := make(chan any, 1)
	ended := make(chan error, 1)
	tr := &Transporter{
		OnConnect: func(ctx context.Context, c network.StreamConn) context.Context {
			return context.WithValue(ctx, contextKey{}, c.RemoteAddr().String())
		},
	}
	addr, _ := serve(t, tr, func(ctx context.Context, conn any) error {
		value <- ctx.Value(contextKey{})
		<-ctx.Done()
		ended <- context.Cause(ctx)
		return nil
	})
	c := dialTest(t, addr)
	if got := <-value; !strings.HasPrefix(fmt.Sprint(got), "127.0.0.1:") {
		t.Errorf("OnConnect's value is %v", got)
	}
	c.CloseWithError(appCode(5), "bye")
	var app network.ApplicationError
	if err := <-ended; !errors.As(err, &app) || app.ErrCode() != 5 {
		t.Errorf("the cause is %v, want the peer's code 5", err)
	}
}

// Beyond MaxConns connections are refused, and there is room again when one ends.
func TestTransporter_MaxConns(t *testing.T) {
	tr := &Transporter{MaxConns: 2}
	addr, _ := serve(t, tr, echoStreams)
	ct, _ := tlsConfigs(t)
	first := dialTest(t, addr)
	dialTest(t, addr)
	if c, err := Dial(testContext(t), addr, ct, nil); err == nil || c != nil {
		t.Fatalf("a third connection: %v, %v", c, err)
	}
	first.CloseWithError(nil, "")
	for ctx := testContext(t); ; {
		if _, err := Dial(ctx, addr, ct, nil); err == nil {
			break
		}
		if ctx.Err() != nil {
			t.Fatal("there is no room after one has ended")
		}
	}
}

// Many connections at once, accepted while a Shutdown comes in between.
func TestTransporter_ShutdownRace(t *testing.T) {
	ct, _ := tlsConfigs(t)
	for range 3 {
		tr := new(Transporter)
		addr, served := serve(t, tr, echoStreams)
		ctx := testContext(t)
		var wg sync.WaitGroup
		errs := make([]error, 8)
		for i := range errs {
			wg.Go(func() {
				c, err := Dial(ctx, addr, ct, &Config{HandshakeTimeout: 2 * time.Second})
				if errs[i] = err; err == nil {
					<-c.Context().Done()
				}
			})
		}
		time.Sleep(time.Millisecond) // to hit all stages of a handshake
		if err := tr.Shutdown(ctx); err != nil {
			t.Errorf("Shutdown: %v", err)
		}
		if err := <-served; err != nil {
			t.Errorf("ListenAndServe: %v", err)
		}
		wg.Wait()
		if ctx.Err() != nil {
			t.Fatal("a client was left without a word")
		}
		refused := len(slices.DeleteFunc(errs, func(err error) bool { return err == nil }))
		t.Logf("%d of 8 were refused", refused)
	}
}
