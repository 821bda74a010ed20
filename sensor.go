package hertznet

import (
	"context"
	"errors"
	"os"
	"time"

	"github.com/hertznet/hertznet/standard"
)

// sensor cancels a connection's context when the peer goes away while a handler
// runs. It has the two methods that Hertz's HTTP/1 server looks for when
// SenseClientDisconnection is set (internal/network.StatefulConn).
type sensor struct {
	reader   *standard.Conn
	cancel   context.CancelFunc
	watching bool
	done     chan struct{}
}

func newSensor(c *standard.Conn, cancel context.CancelFunc) sensor {
	return sensor{reader: c, cancel: cancel, done: make(chan struct{}, 1)}
}

// DetectConnectionClose starts to watch. Until AbortBlockingRead, nobody else may
// read.
func (s *sensor) DetectConnectionClose() {
	s.watching = true
	// Without a limit: the watch ends with the handler, and the peer owes no bytes.
	s.reader.LimitReadRate(false)
	if err := s.reader.SetReadDeadline(time.Time{}); err != nil {
		s.cancel()
	}
	go func() {
		// Bytes of a pipelined request end the watch too, and cancel nothing.
		_, err := s.reader.Peek(s.reader.Len() + 1)
		if err != nil && !errors.Is(err, os.ErrDeadlineExceeded) && err != standard.ErrReadBufferFull {
			s.cancel()
		}
		s.done <- struct{}{}
	}()
}

// AbortBlockingRead ends what DetectConnectionClose started.
func (s *sensor) AbortBlockingRead() {
	if !s.watching {
		return
	}
	s.watching = false
	for {
		// It fails only on a closed connection, whose reads end by themselves.
		_ = s.reader.SetReadDeadline(time.Unix(1, 0))
		select {
		case <-s.done:
			return
		case <-time.After(10 * time.Millisecond):
			// A goroutine of the handler's has set a limit of its own since.
		}
	}
}

type sensingConn struct {
	serverConn
	sensor
}

type sensingTLSConn struct {
	serverTLSConn
	sensor
}

// Release ends the watch first, as Hertz does not when a handler panics or its
// answer cannot be written: memory that is still read into must not be recycled.
func (c *sensingConn) Release() error {
	c.AbortBlockingRead()
	return c.serverConn.Release()
}

func (c *sensingTLSConn) Release() error {
	c.AbortBlockingRead()
	return c.serverConn.Release()
}
