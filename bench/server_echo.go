//go:build linux && (amd64 || arm64)

package main

import (
	"bufio"
	"context"
	"crypto/tls"
	"encoding/binary"
	"fmt"
	"log/slog"
	"net"

	"github.com/cloudwego/netpoll"
	"github.com/hertznet/hertznet/network"
	"github.com/hertznet/hertznet/standard"
)

// The echo protocol: a frame is its payload's length, 4 bytes big-endian, and the
// payload; it comes back as it is. All flush when no further frame is buffered.

// frames are a library's reader and writer.
type frames interface {
	Peek(n int) ([]byte, error)
	next(n int) ([]byte, error) // valid until the flush
	WriteBinary(b []byte) (int, error)
	Len() int
}

// echo sends back a frame and those that are buffered behind it. It does not flush.
func echo[F frames](f F) error {
	for {
		head, err := f.Peek(4)
		if err != nil {
			return err
		}
		n := binary.BigEndian.Uint32(head)
		if n > maxBody {
			return fmt.Errorf("a frame of %d bytes", n)
		}
		frame, err := f.next(4 + int(n))
		if err != nil {
			return err
		}
		if _, err := f.WriteBinary(frame); err != nil || f.Len() < 4 {
			return err
		}
	}
}

type hertznetFrames struct{ network.Conn }

func (f hertznetFrames) next(n int) ([]byte, error) {
	b, err := f.Peek(n)
	if err != nil {
		return nil, err
	}
	return b, f.Skip(n)
}

func startEchoHertznet(_ workload, secure *tls.Config, _ string) (string, error) {
	t := &standard.Transporter{Addr: "127.0.0.1:0", TLSConfig: secure, ReadTimeout: readTimeout, IdleTimeout: idleTimeout, Logger: slog.New(slog.DiscardHandler)}
	ln, err := t.Listen()
	if err != nil {
		return "", err
	}
	go t.Serve(ln, func(_ context.Context, conn any) error {
		c := conn.(network.Conn)
		if err := echo(hertznetFrames{c}); err != nil {
			return err
		}
		if err := c.Release(); err != nil {
			return err
		}
		return c.Flush()
	})
	return ln.Addr().String(), nil
}

type netpollFrames struct {
	netpoll.Reader
	netpoll.Writer
}

func (f netpollFrames) next(n int) ([]byte, error) { return f.Next(n) }

func startEchoNetpoll(_ workload, _ *tls.Config, _ string) (string, error) {
	ln, err := netpoll.CreateListener("tcp", "127.0.0.1:0")
	if err != nil {
		return "", err
	}
	loop, err := netpoll.NewEventLoop(func(_ context.Context, c netpoll.Connection) error {
		if err := echo(netpollFrames{c.Reader(), c.Writer()}); err != nil {
			return err
		}
		if err := c.Writer().Flush(); err != nil {
			return err
		}
		return c.Reader().Release() // not before Flush: what is written refers to it
	}, netpoll.WithReadTimeout(readTimeout), netpoll.WithIdleTimeout(idleTimeout))
	if err != nil {
		return "", err
	}
	go loop.Serve(ln)
	return ln.Addr().String(), nil
}

type bufioFrames struct {
	*bufio.Reader
	out *bufio.Writer
}

func (f bufioFrames) next(n int) ([]byte, error) {
	b, err := f.Peek(n)
	if err != nil {
		return nil, err
	}
	_, err = f.Discard(n)
	return b, err
}

func (f bufioFrames) WriteBinary(b []byte) (int, error) { return f.out.Write(b) }
func (f bufioFrames) Len() int                          { return f.Buffered() }

func startEchoBufio(w workload, secure *tls.Config, _ string) (string, error) {
	ln, err := listen(secure)
	if err != nil {
		return "", err
	}
	go acceptEach(ln, func(c net.Conn) error {
		// A frame must fit, and 4096 is bufio's own size.
		f := bufioFrames{bufio.NewReaderSize(c, max(4096, len(w.body()))), bufio.NewWriter(c)}
		for {
			if err := echo(f); err != nil {
				return err
			}
			if err := f.out.Flush(); err != nil {
				return err
			}
		}
	})
	return ln.Addr().String(), nil
}
