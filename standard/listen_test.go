package standard

import (
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"os"
	"strings"
	"syscall"
	"testing"
	"testing/synctest"
	"time"
)

// The kit sees that an error of listening is returned. There is no listener then, and
// unix:///path is no address of TCP.
func TestS4_NoListenerAfterAnError(t *testing.T) {
	for _, test := range []struct{ network, addr string }{
		{"tcp", "127.0.0.1:99999"},
		{"unix", t.TempDir() + "/missing/s"},
		{"tcp", "unix:///tmp/s"},
	} {
		tr := &Transporter{Network: test.network, Addr: test.addr, Logger: slog.New(slog.DiscardHandler)}
		served := make(chan error, 1)
		go func() { served <- tr.ListenAndServe(echo) }()
		if err := ends(t, served); err == nil {
			t.Errorf("%q, %q: no error", test.network, test.addr)
		}
		if ln := tr.Listener(); ln != nil {
			t.Errorf("%q, %q: there is a listener: %v", test.network, test.addr, ln.Addr())
		}
		if err := tr.Close(); err != nil {
			t.Errorf("%q, %q: Close: %v", test.network, test.addr, err)
		}
	}
}

// The zero value listens on a free TCP port, and ListenConfig is what it listens with.
func TestListenDefaults(t *testing.T) {
	controlled := 0
	for _, tr := range []*Transporter{
		{Logger: slog.New(slog.DiscardHandler)},
		{Addr: "127.0.0.1:0", ListenConfig: &net.ListenConfig{
			Control: func(string, string, syscall.RawConn) error {
				controlled++
				return nil
			},
		}},
	} {
		ln, err := tr.Listen()
		if err != nil {
			t.Fatal(err)
		}
		if ln.Addr().Network() != "tcp" {
			t.Errorf("it listens on %v", ln.Addr())
		}
		ln.Close()
	}
	if controlled != 1 {
		t.Errorf("ListenConfig.Control was called %d times", controlled)
	}
}

// transients are the errors from which a Transporter has to recover.
var transients = []struct {
	name string
	err  error
}{
	{"EMFILE", syscall.EMFILE},
	{"ENFILE", syscall.ENFILE},
	{"ECONNABORTED", syscall.ECONNABORTED},
	{"ECONNRESET", syscall.ECONNRESET},
	{"EPROTO", syscall.EPROTO},
	{"EINTR", syscall.EINTR},
	{"ENOBUFS", syscall.ENOBUFS},
	{"ENOMEM", syscall.ENOMEM},
}

// What is transient and what is not, bare and wrapped.
func TestS3_WhatIsTransient(t *testing.T) {
	for _, test := range transients {
		for _, err := range []error{
			test.err,
			os.NewSyscallError("accept4", test.err),
			acceptError(test.err),
			fmt.Errorf("listener of another kind: %w", acceptError(test.err)),
		} {
			if !isTransient(err) {
				t.Errorf("%v is final", err)
			}
		}
	}
	for _, err := range []error{
		io.EOF,
		net.ErrClosed,
		acceptError(net.ErrClosed),
		acceptError(syscall.EINVAL),
		acceptError(syscall.EBADF),
		acceptError(syscall.EOPNOTSUPP),
		errors.New("broken"),
		temporary{net.ErrClosed},
	} {
		if isTransient(err) {
			t.Errorf("%v is transient", err)
		}
	}
	if !isTransient(temporary{errors.New("a listener of another kind")}) {
		t.Error("an error that says that it is temporary is final")
	}
}

// temporary is an error of a listener of another kind.
type temporary struct{ error }

func (temporary) Temporary() bool { return true }
func (e temporary) Unwrap() error { return e.error }

// The kit has Accept fail a few times. Here are the pauses between the attempts: from
// 5 ms to 1 s, and from 5 ms again after a success.
func TestS3_BackoffOfTransientErrors(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		const failures = 11
		var errs []error
		for range failures {
			errs = append(errs, acceptError(syscall.EMFILE))
		}
		ln := newScriptListener(errs...)
		c := ln.connect(t)
		ln.answers <- accepting{err: acceptError(syscall.EMFILE)}
		c2 := ln.connect(t)
		start := time.Now()
		var logs logged
		s := serveOn(t, &Transporter{Logger: logs.logger()}, ln, echo)
		if got := ask(t, c, "alive"); got != "alive" {
			t.Errorf("got %q", got)
		}
		// 5, 10, 20, 40, 80, 160, 320, 640 ms, and 1 s three times.
		want := 1275*time.Millisecond + 3*time.Second
		if got := time.Since(start); got != want {
			t.Errorf("%d failures took %v, want %v", failures, got, want)
		}
		start = time.Now()
		if got := ask(t, c2, "alive"); got != "alive" {
			t.Errorf("got %q", got)
		}
		if got := time.Since(start); got > 5*time.Millisecond {
			t.Errorf("the backoff after a success is %v", got)
		}
		if n := strings.Count(logs.String(), "accepting a connection failed"); n != failures+1 {
			t.Errorf("%d log entries for %d failures", n, failures+1)
		}
		s.close(t)
	})
}

// Stopping ends a backoff at once.
func TestS3_StoppingEndsTheBackoff(t *testing.T) {
	for _, how := range []string{"Close", "Shutdown"} {
		t.Run(how, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				var errs []error
				for range 500 {
					errs = append(errs, acceptError(syscall.EMFILE))
				}
				ln := newScriptListener(errs...)
				s := serveOn(t, &Transporter{}, ln, echo)
				time.Sleep(10*time.Second + 500*time.Millisecond) // in the middle of a second
				before := ln.accepts.Load()
				start := time.Now()
				var err error
				if how == "Close" {
					err = s.Close()
				} else {
					err = s.Shutdown(t.Context())
				}
				if err != nil {
					t.Errorf("%s: %v", how, err)
				}
				if err := <-s.served; err != nil {
					t.Errorf("Serve: %v", err)
				}
				if got := time.Since(start); got != 0 {
					t.Errorf("it took %v", got)
				}
				if after := ln.accepts.Load(); after != before {
					t.Errorf("Accept was called %d more times", after-before)
				}
			})
		})
	}
}

// The kit sees the error. Beyond that it is logged, the listener is closed once, and the
// connections that are there are served on and can be shut down, also when somebody
// else has closed the listener.
func TestS4_PermanentAcceptErrorLeavesConnections(t *testing.T) {
	for _, err := range []error{acceptError(net.ErrClosed), errors.New("no more"), io.EOF} {
		t.Run(err.Error(), func(t *testing.T) {
			ln := newScriptListener()
			var logs logged
			s := serveOn(t, &Transporter{Logger: logs.logger()}, ln, echo)
			c := ln.connect(t)
			if got := ask(t, c, "alive"); got != "alive" {
				t.Fatalf("got %q", got)
			}
			ln.answers <- accepting{err: err}
			if got := <-s.served; got != err {
				t.Errorf("Serve returned %v, want %v", got, err)
			}
			if n := ln.closes.Load(); n != 1 {
				t.Errorf("the listener was closed %d times", n)
			}
			if !strings.Contains(logs.String(), err.Error()) {
				t.Errorf("the reason was not logged: %s", logs.String())
			}
			if got := ask(t, c, "still alive"); got != "still alive" {
				t.Errorf("got %q", got)
			}
			if err := s.Shutdown(t.Context()); err != nil {
				t.Errorf("Shutdown afterwards: %v", err)
			}
			peerCloses(t, c)
		})
	}
}

// KeepAlive does no harm to connections of other kinds than TCP. That it is applied is
// TestKeepAliveIsApplied's, where the system tells.
func TestKeepAlive(t *testing.T) {
	for _, keepAlive := range []time.Duration{-1, time.Minute} {
		ln := newScriptListener()
		s := serveOn(t, &Transporter{KeepAlive: keepAlive}, ln, echo)
		if got := ask(t, ln.connect(t), "alive"); got != "alive" {
			t.Errorf("%v: got %q", keepAlive, got)
		}
		s.close(t)
	}
}
