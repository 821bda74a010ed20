package standard

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"os"
	"syscall"
	"testing"
	"time"
)

// "A listen error is returned, and does not panic"; there is no listener then.
func TestS4_ListenErrorIsReturned(t *testing.T) {
	taken, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer taken.Close()
	for _, test := range []struct{ network, addr string }{
		{"tcp", taken.Addr().String()},
		{"tcp", "127.0.0.1:99999"},
		{"tcp", "no port"},
		{"tcp", "192.0.2.1:0"}, // not an address of this host (RFC 5737)
		{"made up", "127.0.0.1:0"},
		{"unix", t.TempDir() + "/missing/s"},
		{"tcp", "unix:///tmp/s"},
	} {
		tr := &Transporter{Network: test.network, Addr: test.addr, Logger: slog.New(slog.DiscardHandler)}
		served := make(chan error, 1)
		go func() { served <- tr.ListenAndServe(echo) }()
		select {
		case err := <-served:
			if err == nil {
				t.Errorf("%q, %q: no error", test.network, test.addr)
			}
		case <-time.After(10 * time.Second):
			t.Errorf("%q, %q: it serves", test.network, test.addr)
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

// Whatever KeepAlive is, connections work, those of other kinds than TCP too. That it
// is applied is TestKeepAliveIsApplied's, where the system tells.
func TestKeepAlive(t *testing.T) {
	for _, keepAlive := range []time.Duration{-1, 0, time.Minute} {
		s := serve(t, &Transporter{KeepAlive: keepAlive}, echo)
		if got := ask(t, s.dial(t), "alive"); got != "alive" {
			t.Errorf("%v: got %q", keepAlive, got)
		}
		s.close(t)
		ln := newScriptListener()
		s = serveOn(t, &Transporter{KeepAlive: keepAlive}, ln, echo)
		if got := ask(t, ln.connect(t), "alive"); got != "alive" {
			t.Errorf("%v: got %q", keepAlive, got)
		}
		s.close(t)
	}
}

// Close between Listen and Serve leaves nothing open.
func TestS5_CloseBetweenListenAndServe(t *testing.T) {
	tr := &Transporter{Addr: "127.0.0.1:0"}
	ln, err := tr.Listen()
	if err != nil {
		t.Fatal(err)
	}
	if err := tr.Shutdown(context.Background()); err != nil {
		t.Error(err)
	}
	if err := tr.Serve(ln, echo); err != nil {
		t.Errorf("Serve: %v", err)
	}
	if _, err := ln.Accept(); !errors.Is(err, net.ErrClosed) {
		t.Errorf("the listener is open: %v", err)
	}
}
