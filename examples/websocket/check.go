package main

import (
	"bytes"
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"math/rand/v2"
	"net"
	"net/http"
	"strings"
	"time"

	"github.com/coder/websocket"
	echoed "github.com/hertz-contrib/websocket" // for its errors only

	"github.com/hertznet/hertznet/tlsconn"
)

const (
	checkLimit = time.Minute            // for everything
	quiet      = 200                    // connections
	pingEvery  = 500 * time.Millisecond // where a peer vanishes
	exitWait   = 5 * time.Second
	shortWait  = time.Second // the exitWait of the server that says no goodbye
)

// check serves, connects in several ways and prints a line for each that went as it should.
func check(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, checkLimit)
	defer cancel()
	cert, pool, err := tlsconn.SelfSigned() // for development only
	if err != nil {
		return err
	}
	plain, err := listen(settings{pingEvery: pingEvery, exitWait: exitWait, goodbye: true})
	if err != nil {
		return err
	}
	defer plain.h.Close()
	secure, err := listen(settings{pingEvery: time.Minute, exitWait: exitWait, goodbye: true,
		tls: &tls.Config{Certificates: []tls.Certificate{cert}}})
	if err != nil {
		return err
	}
	defer secure.h.Close()
	silent, err := listen(settings{pingEvery: time.Minute, exitWait: shortWait})
	if err != nil {
		return err
	}
	defer silent.h.Close()

	for _, s := range []*site{plain, secure} {
		if err := checkMessages(ctx, s, pool); err != nil {
			return fmt.Errorf("over %s: %w", s.transport(), err)
		}
		if err := checkPipelined(ctx, s, pool); err != nil {
			return fmt.Errorf("pipelined over %s: %w", s.transport(), err)
		}
	}
	if err := checkStuck(ctx, plain, pool); err != nil {
		return fmt.Errorf("a peer that does not read: %w", err)
	}
	if err := checkQuiet(ctx, plain, pool); err != nil { // ends with its Shutdown
		return fmt.Errorf("%d quiet connections: %w", quiet, err)
	}
	if err := checkUnanswered(ctx, secure, pool); err != nil { // the same
		return fmt.Errorf("shutting down with a peer that does not answer: %w", err)
	}
	if err := checkCut(ctx, silent, pool); err != nil {
		return fmt.Errorf("shutting down without a goodbye: %w", err)
	}
	return nil
}

// listen starts a server on a port of its own.
func listen(set settings) (*site, error) {
	var err error
	if set.listener, err = net.Listen("tcp", "127.0.0.1:0"); err != nil {
		return nil, err
	}
	return start(set)
}

func (s *site) transport() string {
	if s.tls != nil {
		return "tls"
	}
	return "tcp"
}

// dial connects and upgrades. It trusts the certificates in pool.
func (s *site) dial(ctx context.Context, pool *x509.CertPool) (*websocket.Conn, error) {
	transport := &http.Transport{TLSClientConfig: &tls.Config{RootCAs: pool}}
	c, resp, err := websocket.Dial(ctx, "ws"+s.hostURL()+"/echo", &websocket.DialOptions{
		HTTPClient: &http.Client{Transport: transport},
	})
	if err != nil {
		return nil, err
	}
	c.SetReadLimit(maxMessage)
	if resp.StatusCode != http.StatusSwitchingProtocols {
		_ = c.CloseNow()
		return nil, fmt.Errorf("status %d", resp.StatusCode)
	}
	return c, nil
}

// checkMessages has messages echoed, pings, and closes.
func checkMessages(ctx context.Context, s *site, pool *x509.CertPool) error {
	begin := time.Now()
	c, err := s.dial(ctx, pool)
	if err != nil {
		return err
	}
	defer c.CloseNow()
	line("upgrade", s.transport(), "101 after %s", ms(time.Since(begin)))

	text := []byte(strings.Repeat("0123456789abcdef", maxMessage/2/16))
	binary := make([]byte, len(text))
	_, _ = rand.NewChaCha8([32]byte{}).Read(binary) // never fails
	for _, size := range []int{1, 64 << 10, 1 << 20} {
		for _, m := range []struct {
			name string
			kind websocket.MessageType
			data []byte
		}{{"text", websocket.MessageText, text[:size]}, {"binary", websocket.MessageBinary, binary[:size]}} {
			begin := time.Now()
			if err := c.Write(ctx, m.kind, m.data); err != nil {
				return err
			}
			kind, got, err := c.Read(ctx)
			if err != nil {
				return err
			}
			if kind != m.kind || !bytes.Equal(got, m.data) {
				return fmt.Errorf("sent %s of %d bytes, got %s of %d, not the same", m.kind, size, kind, len(got))
			}
			line(m.name+" echo", s.transport(), "%7d bytes  %s", size, ms(time.Since(begin)))
		}
	}

	// The answer to a ping, and to a close, is read by a Read that waits for a message.
	readEnds := make(chan error, 1)
	go func() {
		_, _, err := c.Read(ctx)
		readEnds <- err
	}()
	begin = time.Now()
	if err := c.Ping(ctx); err != nil {
		return fmt.Errorf("ping: %w", err)
	}
	line("ping", s.transport(), "pong after %s", ms(time.Since(begin)))

	const reason = "that was all"
	if err := c.Close(websocket.StatusNormalClosure, reason); err != nil {
		return fmt.Errorf("close: %w", err)
	}
	if err := <-readEnds; err == nil {
		return errors.New("a message came that nobody sent")
	}
	why, err := s.connEnds(ctx)
	if err != nil {
		return err
	}
	var closed *echoed.CloseError
	if !errors.As(why, &closed) || closed.Code != echoed.CloseNormalClosure || closed.Text != reason {
		return fmt.Errorf("the server saw %v, not the close", why)
	}
	line("close", s.transport(), "the server saw code %d, %q; the client had it confirmed", closed.Code, closed.Text)
	return nil
}

// checkPipelined sends messages in one write with the upgrade request, before anybody has
// agreed to an upgrade.
func checkPipelined(ctx context.Context, s *site, pool *x509.CertPool) error {
	sizes := []int{1, 1000, 60_000}
	var frames []byte
	for _, n := range sizes {
		frames = append(frames, frame(bytes.Repeat([]byte{'x'}, n))...)
	}
	c, err := s.dialRaw(ctx, pool, frames)
	if err != nil {
		return err
	}
	defer c.Close()
	for _, n := range sizes {
		got, err := c.readFrame()
		if err != nil {
			return err
		}
		if !bytes.Equal(got, bytes.Repeat([]byte{'x'}, n)) {
			return fmt.Errorf("sent %d bytes, got %d or others", n, len(got))
		}
	}
	line("pipelined", s.transport(), "%d messages, %d bytes, in one write with the upgrade request: all came back", len(sizes), len(frames))
	c.Close()
	_, err = s.connEnds(ctx)
	return err
}

// checkStuck sends messages and does not read what comes back.
func checkStuck(ctx context.Context, s *site, pool *x509.CertPool) error {
	c, err := s.dialRaw(ctx, pool, nil)
	if err != nil {
		return err
	}
	defer c.Close()
	begin := time.Now()
	go func() {
		message := frame(make([]byte, 1<<20))
		for {
			if _, err := c.Write(message); err != nil {
				return // the server has closed, or the check is over
			}
		}
	}()
	why, err := s.connEnds(ctx)
	if err != nil {
		return err
	}
	if !isTimeout(why) {
		return fmt.Errorf("it ended with %v, want a timeout", why)
	}
	line("does not read", s.transport(), "dropped after %s, the limit of a write is %v", ms(time.Since(begin)), writeWait)
	return nil
}

// checkQuiet opens many connections on which nothing is said, and one that does not even
// answer pings. Then it shuts down.
func checkQuiet(ctx context.Context, s *site, pool *x509.CertPool) error {
	vanished, err := s.dialRaw(ctx, pool, nil)
	if err != nil {
		return err
	}
	defer vanished.Close()
	begin := time.Now()
	ends := make(chan error, quiet)
	for range quiet {
		c, err := s.dial(ctx, pool)
		if err != nil {
			return err
		}
		defer c.CloseNow()
		go func() {
			_, _, err := c.Read(ctx) // answers pings
			ends <- err
		}()
	}
	why, err := s.connEnds(ctx)
	if err != nil {
		return err
	}
	if !isTimeout(why) {
		return fmt.Errorf("one ended with %v, want a timeout", why)
	}
	line("vanished", s.transport(), "dropped after %s without an answer to a ping", ms(time.Since(begin)))
	for s.transporter.Stats().Hijacked != quiet {
		select {
		case <-time.After(time.Millisecond):
		case <-ctx.Done():
			return fmt.Errorf("hijacked are %d", s.transporter.Stats().Hijacked)
		}
	}
	st := s.transporter.Stats()
	line("quiet", s.transport(), "Hijacked: %d  New: %d  Active: %d  Idle: %d  Parked: %d",
		st.Hijacked, st.New, st.Active, st.Idle, st.Parked)
	line("", "", "Accepted: %d  ClosedByPeer: %d  ClosedByHandler: %d  ClosedSlow: %d  ClosedByError: %d",
		st.Accepted, st.ClosedByPeer, st.ClosedByHandler, st.ClosedSlow, st.ClosedByError)
	line("", "", "BytesRead: %d  BytesWritten: %d  Flushes: %d  PoolBytes: %d",
		st.BytesRead, st.BytesWritten, st.Flushes, st.PoolBytes)

	took, err := shutDown(ctx, s)
	if err != nil {
		return err
	}
	for range quiet {
		err := <-ends
		var e websocket.CloseError
		if !errors.As(err, &e) || e.Code != websocket.StatusGoingAway || e.Reason != goodbye {
			return fmt.Errorf("a client saw %v, not the goodbye", err)
		}
	}
	if took > exitWait/2 {
		return fmt.Errorf("it took %v of %v", took, exitWait)
	}
	line("shutdown", "hook", "done in %s of %v; %d clients saw code %d, %q", ms(took), exitWait, quiet, websocket.StatusGoingAway, goodbye)
	return nil
}

// checkUnanswered shuts down while there is a peer that does not answer the goodbye.
func checkUnanswered(ctx context.Context, s *site, pool *x509.CertPool) error {
	c, err := s.dialRaw(ctx, pool, frame([]byte("hello")))
	if err != nil {
		return err
	}
	defer c.Close()
	if _, err := c.readFrame(); err != nil { // from here on the hub knows it
		return err
	}
	took, err := shutDown(ctx, s)
	if err != nil {
		return err
	}
	why, err := s.connEnds(ctx)
	if err != nil {
		return err
	}
	if !isTimeout(why) || took > exitWait/2 {
		return fmt.Errorf("after %v of %v it ended with %v", took, exitWait, why)
	}
	line("shutdown", "hook", "done in %s of %v; the client did not answer, for which it had %v", ms(took), exitWait, closeWait)
	return nil
}

// checkCut shuts a server down whose application does not close its connections.
func checkCut(ctx context.Context, s *site, pool *x509.CertPool) error {
	c, err := s.dial(ctx, pool)
	if err != nil {
		return err
	}
	defer c.CloseNow()
	ends := make(chan error, 1)
	go func() {
		_, _, err := c.Read(ctx)
		ends <- err
	}()
	took, err := shutDown(ctx, s)
	if err != nil {
		return err
	}
	err = <-ends
	if websocket.CloseStatus(err) != -1 || took < shortWait {
		return fmt.Errorf("after %v of %v the client saw %w; it was to be cut", took, shortWait, err)
	}
	line("shutdown", "no hook", "done in %s of %v; the client was cut: %v", ms(took), shortWait, err)
	return nil
}

func shutDown(ctx context.Context, s *site) (time.Duration, error) {
	begin := time.Now()
	err := s.h.Shutdown(ctx)
	return time.Since(begin), err
}

// connEnds returns why the next connection ended.
func (s *site) connEnds(ctx context.Context) (why, err error) {
	select {
	case why := <-s.connEnded:
		return why, nil
	case <-ctx.Done():
		return nil, errors.New("the handler did not end")
	}
}

// isTimeout is what is left to ask: the package returns a timeout that is not
// os.ErrDeadlineExceeded.
func isTimeout(err error) bool {
	var ne net.Error
	return errors.As(err, &ne) && ne.Timeout()
}

func line(what, kind, format string, args ...any) {
	fmt.Printf("%-13s  %-7s  %s\n", what, kind, fmt.Sprintf(format, args...))
}

func ms(d time.Duration) string { return fmt.Sprintf("%.2f ms", float64(d)/float64(time.Millisecond)) }
