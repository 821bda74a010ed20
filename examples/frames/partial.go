package main

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"os"
	"time"

	"github.com/hertznet/hertznet/network"
	"github.com/hertznet/hertznet/standard"
)

// returning echoes frames as onData does, but does not wait for one that is not complete:
// it returns, and is called again when more has come. That is wrong, see onData.
func returning(_ context.Context, v any) error {
	c := v.(network.Conn)
	for c.Len() >= lengthSize {
		b, err := c.Peek(lengthSize)
		if err != nil {
			return err
		}
		n := binary.BigEndian.Uint32(b)
		if n < headSize-lengthSize || n > headSize-lengthSize+maxPayload {
			return lengthError(n)
		}
		if c.Len() < lengthSize+int(n) {
			break
		}
		f, err := readFrame(c)
		if err != nil {
			return err
		}
		if err := writeFrame(c, answer, f.id, f.payload); err != nil {
			return err
		}
	}
	return errors.Join(c.Release(), c.Flush())
}

// comparePartial has half a frame arrive, then Shutdown, then the other half: at a
// handler that waits for it, and at one that has returned.
func comparePartial(ctx context.Context) error {
	waiting := func(_ context.Context, v any) error {
		c := v.(network.Conn)
		f, err := readFrame(c)
		if err != nil {
			return err
		}
		return errors.Join(writeFrame(c, answer, f.id, f.payload), c.Release(), c.Flush())
	}
	for _, test := range []struct {
		what   string
		onData network.OnData
		state  func(standard.Stats) int // of the connection that has half a frame
		says   string
		lost   bool
	}{
		{"OnData waits for the rest", waiting, func(s standard.Stats) int { return s.Active }, "active, so answered", false},
		{"OnData returns without it", returning, func(s standard.Stats) int { return s.Idle }, "idle, so closed: the frame is lost", true},
	} {
		ctx, cancel := context.WithTimeout(ctx, limit)
		defer cancel()
		begin := time.Now()
		switch err := halfAtShutdown(ctx, test.onData, test.state, test.lost); {
		case err != nil && err != errLost:
			return fmt.Errorf("half a frame at Shutdown, %s: %w", test.what, err)
		case test.lost != (err == errLost):
			return fmt.Errorf("half a frame at Shutdown, %s: lost is %t, want %t", test.what, !test.lost, test.lost)
		}
		fmt.Printf("%-28s  %-4s  %8.2f ms  half a frame at Shutdown: %s\n", test.what, "tcp", milliseconds(time.Since(begin)), test.says)
	}
	return nil
}

var errLost = errors.New("the server has closed, and answered nothing")

// halfAtShutdown returns nil if the frame is answered, and errLost if it is not. Its
// second half is sent once Shutdown has begun, or if the frame is to be lost, has ended:
// otherwise it might come just before its connection is closed, and be answered.
func halfAtShutdown(ctx context.Context, onData network.OnData, in func(standard.Stats) int, lost bool) error {
	t := &standard.Transporter{Addr: "127.0.0.1:0", ReadTimeout: limit, WriteTimeout: limit}
	ln, err := t.Listen()
	if err != nil {
		return err
	}
	served := make(chan error, 1)
	go func() { served <- t.Serve(ln, onData) }()
	defer t.Close()

	c, err := new(standard.Dialer).DialConnection("tcp", ln.Addr().String(), limit, nil)
	if err != nil {
		return err
	}
	defer c.Close()
	if err := c.SetDeadline(time.Now().Add(limit)); err != nil {
		return err
	}
	b := request(echo, 1, payload(1000))
	half := len(b) / 2
	if _, err := c.Write(b[:half]); err != nil {
		return err
	}
	for s := t.Stats(); s.BytesRead < uint64(half) || in(s) != 1; s = t.Stats() {
		if err := ctx.Err(); err != nil {
			return err
		}
		time.Sleep(time.Millisecond)
	}
	shut := make(chan error, 1)
	go func() { shut <- t.Shutdown(ctx) }()
	begun := served // Serve returns when Shutdown has begun
	if lost {
		begun = shut
	}
	if err := <-begun; err != nil {
		return err
	}
	if _, err := c.Write(b[half:]); lost && err != nil {
		return errLost
	} else if err != nil {
		return err
	}
	_, err = expect(c, answer, 1, payload(1000))
	switch {
	case lost && err != nil && !errors.Is(err, os.ErrDeadlineExceeded): // EOF or a reset
		return errLost
	case lost || err != nil:
		return err
	}
	return <-shut
}
