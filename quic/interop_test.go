package quic

import (
	"bytes"
	"context"
	"crypto/tls"
	"errors"
	"io"
	"strings"
	"testing"

	xquic "golang.org/x/net/quic"

	"github.com/hertznet/hertznet/network"
)

// The foreign peer is golang.org/x/net/quic, which shares no code with quic-go.

func xEndpoint(t *testing.T, config *xquic.Config) *xquic.Endpoint {
	t.Helper()
	e, err := xquic.Listen("udp", "127.0.0.1:0", config)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		ctx, cancel := context.WithCancel(context.Background())
		cancel() // at once
		e.Close(ctx)
	})
	return e
}

// foreign returns a connection of ours and the foreign end of it, with ours as the
// server and as the client.
func foreign(t *testing.T, f func(t *testing.T, ours *Conn, theirs *xquic.Conn)) {
	t.Run("server", func(t *testing.T) {
		ctx := testContext(t)
		ct, st := tlsConfigs(t)
		ct.ServerName = "localhost"
		ct.MinVersion = tls.VersionTLS13
		l := listen(t, st, nil)
		e := xEndpoint(t, nil)
		theirs, err := e.Dial(ctx, "udp", l.Addr().String(), &xquic.Config{TLSConfig: ct})
		if err != nil {
			t.Fatal(err)
		}
		ours, err := l.Accept(ctx)
		if err != nil {
			t.Fatal(err)
		}
		f(t, ours, theirs)
	})
	t.Run("client", func(t *testing.T) {
		ctx := testContext(t)
		ct, st := tlsConfigs(t)
		st.MinVersion = tls.VersionTLS13
		e := xEndpoint(t, &xquic.Config{TLSConfig: st})
		ours, err := Dial(ctx, e.LocalAddr().String(), ct, nil)
		if err != nil {
			t.Fatal(err)
		}
		theirs, err := e.Accept(ctx)
		if err != nil {
			t.Fatal(err)
		}
		f(t, ours, theirs)
	})
}

// foreignStreams returns both ends of a stream that the foreign peer has opened, and
// that has carried a byte each way.
func foreignStreams(t *testing.T, ours *Conn, theirs *xquic.Conn) (network.Stream, *xquic.Stream) {
	t.Helper()
	ctx := testContext(t)
	x, err := theirs.NewStream(ctx)
	if err != nil {
		t.Fatal(err)
	}
	if err := errors.Join(x.WriteByte(1), x.Flush()); err != nil {
		t.Fatal(err)
	}
	s, err := ours.AcceptStream(ctx)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := io.ReadFull(s, make([]byte, 1)); err != nil {
		t.Fatal(err)
	}
	if _, err := s.Write([]byte{2}); err != nil {
		t.Fatal(err)
	}
	if b, err := x.ReadByte(); b != 2 || err != nil {
		t.Fatalf("the foreign peer read %d and %v", b, err)
	}
	if s.StreamID() != x.ID() {
		t.Errorf("the stream is %d here and %d there", s.StreamID(), x.ID())
	}
	return s, x
}

func TestInterop_Echo(t *testing.T) {
	data := bytes.Repeat([]byte("0123456789abcdef"), 1<<14)
	foreign(t, func(t *testing.T, ours *Conn, theirs *xquic.Conn) {
		ctx := testContext(t)
		for range 3 {
			x, err := theirs.NewStream(ctx)
			if err != nil {
				t.Fatal(err)
			}
			go func() {
				s, err := ours.AcceptStream(ctx)
				if err != nil {
					return
				}
				io.Copy(s, s)
				s.Close()
			}()
			go func() {
				x.Write(data)
				x.CloseWrite()
			}()
			got, err := io.ReadAll(x)
			if err != nil || !bytes.Equal(got, data) {
				t.Fatalf("%d of %d bytes came back, and %v", len(got), len(data), err)
			}
		}
		// The other way, on a unidirectional stream.
		s, err := ours.OpenUniStreamSync(ctx)
		if err != nil {
			t.Fatal(err)
		}
		go func() {
			s.Write(data)
			s.Close()
		}()
		x, err := theirs.AcceptStream(ctx)
		if err != nil {
			t.Fatal(err)
		}
		got, err := io.ReadAll(x)
		if err != nil || !bytes.Equal(got, data) {
			t.Fatalf("%d of %d bytes came, and %v", len(got), len(data), err)
		}
	})
}

func TestInterop_Cancel(t *testing.T) {
	foreign(t, func(t *testing.T, ours *Conn, theirs *xquic.Conn) {
		s, x := foreignStreams(t, ours, theirs)
		s.CancelWrite(appCode(0x41))
		_, err := io.ReadAll(x)
		var code xquic.StreamErrorCode
		if !errors.As(err, &code) || code != 0x41 {
			t.Errorf("CancelWrite(0x41) came as %v", err)
		}

		s, x = foreignStreams(t, ours, theirs)
		x.Reset(0x42)
		_, err = io.ReadAll(s)
		if e, ok := err.(StreamError); !ok || !e.Canceled() || e.ErrCode() != 0x42 || e.StreamID() != s.StreamID() {
			t.Errorf("the foreign Reset(0x42) came as %v", err)
		}

		s, x = foreignStreams(t, ours, theirs)
		x.CloseRead()
		for err = nil; err == nil; {
			_, err = s.Write(make([]byte, 1000))
		}
		if e, ok := err.(StreamError); !ok || !e.Canceled() {
			t.Errorf("the foreign CloseRead came as %v", err)
		}
		if err := s.Close(); err != nil {
			t.Errorf("Close after the foreign CloseRead: %v", err)
		}
	})
}

func TestInterop_Close(t *testing.T) {
	const text = "going away, für immer"
	t.Run("ours", func(t *testing.T) {
		foreign(t, func(t *testing.T, ours *Conn, theirs *xquic.Conn) {
			ours.CloseWithError(appCode(0x51), text)
			err := theirs.Wait(testContext(t))
			var app *xquic.ApplicationError
			if !errors.As(err, &app) || app.Code != 0x51 || app.Reason != text {
				t.Errorf("CloseWithError(0x51, %q) came as %v", text, err)
			}
		})
	})
	t.Run("theirs", func(t *testing.T) {
		foreign(t, func(t *testing.T, ours *Conn, theirs *xquic.Conn) {
			theirs.Abort(&xquic.ApplicationError{Code: 0x52, Reason: text})
			_, err := ours.AcceptStream(testContext(t))
			var app network.ApplicationError
			if !errors.As(err, &app) || app.ErrCode() != 0x52 || app.String() != text || !strings.Contains(err.Error(), text) {
				t.Errorf("the foreign Abort(0x52, %q) came as %v", text, err)
			}
			<-ours.Context().Done()
			if got := context.Cause(ours.Context()); !errors.As(got, &app) || app.ErrCode() != 0x52 {
				t.Errorf("the cause of Context is %v", got)
			}
		})
	})
}

// The largest code that there is, a larger one, and a text that fits into no packet: none
// of them kills the process, and all arrive as far as they can.
func TestInterop_CloseClamped(t *testing.T) {
	long := strings.Repeat("ü", 700) // 1400 bytes, and an odd limit would cut one in two
	for _, c := range []struct {
		code, want uint64
	}{{1<<62 - 1, 1<<62 - 1}, {1 << 62, 1<<62 - 1}, {1<<64 - 1, 1<<62 - 1}} {
		foreign(t, func(t *testing.T, ours *Conn, theirs *xquic.Conn) {
			ours.CloseWithError(appCode(c.code), "x"+long)
			err := theirs.Wait(testContext(t))
			var app *xquic.ApplicationError
			if !errors.As(err, &app) || app.Code != c.want || app.Reason != "x"+long[:998] {
				t.Errorf("CloseWithError(%#x, 1401 bytes) came as %v", c.code, err)
			}
		})
	}
	foreign(t, func(t *testing.T, ours *Conn, theirs *xquic.Conn) {
		s, x := foreignStreams(t, ours, theirs)
		s.CancelRead(appCode(1 << 63))
		s.CancelWrite(appCode(1 << 63))
		_, err := io.ReadAll(x)
		var code xquic.StreamErrorCode
		if !errors.As(err, &code) || uint64(code) != 1<<62-1 {
			t.Errorf("CancelWrite(1<<63) came as %v", err)
		}
	})
}
