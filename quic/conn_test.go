package quic

import (
	"context"
	"errors"
	"io"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/quic-go/quic-go"

	"github.com/hertznet/hertznet/network"
)

// What quic-go's errors become: each a net.Error by a type assertion, temporary at the
// limit of streams alone, and none of them lost.
func TestErrors(t *testing.T) {
	for _, test := range []struct {
		err                error
		timeout, temporary bool
	}{
		{err: &quic.StreamLimitReachedError{}, temporary: true},
		{err: &quic.StatelessResetError{}},
		{err: &quic.IdleTimeoutError{}, timeout: true},
		{err: &quic.HandshakeTimeoutError{}, timeout: true},
		{err: &quic.TransportError{ErrorCode: quic.InternalError}},
		{err: &quic.ApplicationError{ErrorCode: 3}},
		{err: &quic.StreamError{ErrorCode: 3}},
		{err: &quic.VersionNegotiationError{}},
		{err: quic.ErrStreamClosed},
		{err: context.Canceled},
		{err: context.DeadlineExceeded, timeout: true},
		{err: os.ErrDeadlineExceeded, timeout: true},
	} {
		err := wrap("test", test.err)
		ne, ok := err.(net.Error)
		if !ok || ne.Timeout() != test.timeout || isTemporary(err) != test.temporary || !errors.Is(err, test.err) {
			t.Errorf("%T became %v (net.Error: %v), want timeout %v, temporary %v", test.err, err, ok, test.timeout, test.temporary)
		}
		if wrap("again", err) != err {
			t.Errorf("%T is wrapped twice", test.err)
		}
	}
	if err := wrap("test", io.EOF); err != io.EOF {
		t.Errorf("io.EOF became %v", err)
	}
	if err := wrap("test", nil); err != nil {
		t.Errorf("nil became %v", err)
	}
}

func TestCut(t *testing.T) {
	for text, want := range map[string]int{
		"short":                           5,
		strings.Repeat("x", maxText):      maxText,
		strings.Repeat("x", maxText+1):    maxText,
		"x" + strings.Repeat("ü", 600):    maxText - 1,
		"x" + strings.Repeat("😀", 600):    maxText - 3,
		strings.Repeat("\x80", maxText*2): maxText - 4,
	} {
		if got := cut(text); len(got) != want || !strings.HasPrefix(text, got) {
			t.Errorf("%d bytes are cut to %d, want %d", len(text), len(got), want)
		}
	}
}

func TestConn_About(t *testing.T) {
	client, server := pair(t, nil)
	raw, ok := client.GetRawConnection().(*quic.Conn)
	if !ok {
		t.Fatalf("GetRawConnection returns a %T", client.GetRawConnection())
	}
	if v := client.GetVersion(); v != network.Version1 {
		t.Errorf("version %#x", v)
	}
	if got, want := client.RemoteAddr().String(), server.LocalAddr().String(); got != want {
		t.Errorf("RemoteAddr is %s, want %s", got, want)
	}
	if got := client.State().TLS.NegotiatedProtocol; got != proto {
		t.Errorf("the protocol is %q", got)
	}
	// A second view of the same connection.
	x, y := streams(t, NewConn(raw), server)
	if x.StreamID() != y.StreamID() {
		t.Error("the stream of the second view is another one")
	}
}

// Whoever asks Close gets the truth about what was not delivered.
func TestSendStream_Close(t *testing.T) {
	client, server := pair(t, nil)
	x, y := streams(t, client, server)
	y.CancelRead(appCode(1))
	<-x.Context().Done()
	if err := x.Close(); err != nil {
		t.Errorf("Close after the peer's CancelRead: %v", err)
	}
	x, _ = streams(t, client, server)
	x.CancelWrite(appCode(2))
	if e, ok := x.Close().(StreamError); !ok || e.Canceled() || e.ErrCode() != 2 {
		t.Errorf("Close after CancelWrite: %v", e)
	}
	x, _ = streams(t, client, server)
	server.CloseWithError(appCode(3), "")
	<-x.Context().Done()
	if err := x.Close(); !errors.Is(err, net.ErrClosed) {
		t.Errorf("Close after the end of the connection: %v", err)
	}
	if err := x.Close(); err != nil {
		t.Errorf("a second Close: %v", err)
	}
}

// A peer that cancels what it asked for does not use up the limit of streams.
func TestSendStream_CloseFreesLimit(t *testing.T) {
	client, server := pair(t, &Config{MaxStreams: 2})
	for range 20 {
		x, y := streams(t, client, server)
		x.CancelRead(nil)
		x.Close()
		<-y.Context().Done()
		io.Copy(io.Discard, y)
		if err := y.Close(); err != nil {
			t.Fatal(err)
		}
	}
}

func TestConfig_MaxUnverified(t *testing.T) {
	now := time.Now()
	u := &unverified{limit: 3}
	for i := range 8 {
		if got := u.allow(now); got != (i < 3) {
			t.Errorf("number %d in a second: %v", i, got)
		}
	}
	if !u.allow(now.Add(time.Second)) {
		t.Error("the next second begins with a refusal")
	}
	for _, test := range []struct {
		config *Config
		n      int
		want   bool
	}{
		{nil, DefaultMaxUnverified, false},
		{nil, DefaultMaxUnverified + 1, true},
		{&Config{MaxUnverified: -1}, 1, true},
		{&Config{MaxUnverified: 2}, 2, false},
		{&Config{MaxUnverified: 2}, 3, true},
	} {
		verify, got := test.config.verify(), false
		for range test.n {
			got = verify(nil)
		}
		if got != test.want {
			t.Errorf("%+v has connection %d in a second show its address: %v", test.config, test.n, got)
		}
	}
	for _, limit := range []int{0, -1} {
		verified := make(chan bool, 1)
		pair(t, &Config{MaxUnverified: limit, Tune: func(q *quic.Config) {
			q.GetConfigForClient = func(info *quic.ClientInfo) (*quic.Config, error) {
				verified <- info.AddrVerified
				return q, nil
			}
		}})
		if got := <-verified; got != (limit < 0) {
			t.Errorf("MaxUnverified %d: verified is %v", limit, got)
		}
	}
}

func TestConfig_QlogDir(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "a", "b")
	client, server := pair(t, &Config{QlogDir: dir})
	streams(t, client, server)
	client.CloseWithError(appCode(1), "")
	<-server.Context().Done()
	for _, role := range []string{"client", "server"} {
		files, err := filepath.Glob(filepath.Join(dir, "*_"+role+".sqlog"))
		if err != nil || len(files) != 1 {
			t.Fatalf("files of the %s: %q, %v", role, files, err)
		}
		var text []byte
		for ctx := testContext(t); !strings.Contains(string(text), "connection_closed"); {
			if text, err = os.ReadFile(files[0]); err != nil || ctx.Err() != nil {
				t.Fatalf("%s: %v and %d bytes without the end", files[0], err, len(text))
			}
			time.Sleep(time.Millisecond) // until it is written
		}
	}
}

func TestConfig_Datagrams(t *testing.T) {
	client, server := pair(t, &Config{Datagrams: true})
	if err := client.GetRawConnection().(*quic.Conn).SendDatagram([]byte("datagram")); err != nil {
		t.Fatal(err)
	}
	got, err := server.GetRawConnection().(*quic.Conn).ReceiveDatagram(testContext(t))
	if err != nil || string(got) != "datagram" {
		t.Errorf("%q and %v", got, err)
	}
	client, _ = pair(t, nil)
	if err := client.GetRawConnection().(*quic.Conn).SendDatagram([]byte("datagram")); err == nil {
		t.Error("a datagram was sent without Config.Datagrams")
	}
}

func TestConfig_KeepAlive(t *testing.T) {
	const idle = 300 * time.Millisecond
	alive, _ := pair(t, &Config{IdleTimeout: idle, KeepAlive: idle / 6})
	dead, _ := pair(t, &Config{IdleTimeout: idle})
	<-dead.Context().Done()
	if ne, ok := context.Cause(dead.Context()).(net.Error); !ok || !ne.Timeout() {
		t.Errorf("silence ended the connection with %v", ne)
	}
	select {
	case <-alive.Context().Done():
		t.Errorf("with KeepAlive it ended with %v", context.Cause(alive.Context()))
	case <-time.After(2 * idle):
	}
}

func TestConfig_MaxStreams(t *testing.T) {
	client, _ := pair(t, &Config{MaxStreams: -1, MaxUniStreams: 1})
	s, err := client.OpenStream()
	if _, ok := err.(net.Error); s != nil || !ok || !isTemporary(err) {
		t.Errorf("OpenStream with MaxStreams -1: %v, %v", s, err)
	}
	if _, err := client.OpenUniStream(); err != nil {
		t.Error(err)
	}
	if _, err := client.OpenUniStream(); err == nil {
		t.Error("a second stream with MaxUniStreams 1")
	}
}
