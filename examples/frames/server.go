package main

import (
	"context"
	"crypto/tls"
	"encoding/binary"
	"errors"
	"hash/crc32"
	"net"
	"os"
	"sync"
	"sync/atomic"
	"time"

	"github.com/hertznet/hertznet/network"
	"github.com/hertznet/hertznet/standard"
)

const (
	limit       = 10 * time.Second // for what should take no time
	readTimeout = time.Second      // for a frame to come, once it has begun
)

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

// conn is what the server needs: *standard.Conn and *standard.TLSConn are one.
type conn interface {
	network.Conn
	FlushSoon() error
}

// server answers frames.
type server struct {
	transport standard.Transporter
	ended     chan error   // what Serve returned
	handled   atomic.Int64 // requests

	mu       sync.Mutex
	sessions map[network.Conn]*session
	leaving  bool
	gone     chan struct{} // closed when leaving, and no session is left
	once     sync.Once     // for gone
}

// session is a connection, with what must be known of it from one OnData to the next.
type session struct {
	conn conn
	mu   sync.Mutex // one writer at a time: the handler, or who says goAway
}

type sessionKey struct{}

// start serves on ln, with TLS if there is a config.
func start(ln net.Listener, config *tls.Config) *server {
	s := &server{
		ended:    make(chan error, 1),
		sessions: make(map[network.Conn]*session),
		gone:     make(chan struct{}),
	}
	s.transport = standard.Transporter{
		TLSConfig:     config,
		ReadTimeout:   readTimeout,
		WriteTimeout:  limit,
		IdleTimeout:   time.Minute,             // between frames
		MaxReadBuffer: headSize + 2*maxPayload, // more than the largest frame
		// For goAway; a server that sends nothing unasked needs neither of them.
		OnConnect: s.enter,
		ConnState: func(c network.Conn, state standard.ConnState) {
			if state == standard.StateClosed {
				s.leave(c)
			}
		},
	}
	go func() { s.ended <- s.transport.Serve(ln, s.onData) }()
	return s
}

// onData is called when bytes of a frame have come, and returns when no more are there.
//
// It waits for the rest of a frame in Peek, and does not return to be called again with
// more of it. Both work, as long as nothing goes wrong. But to the Transporter, a
// connection whose OnData has returned is idle: Shutdown closes it, with half a request
// in its buffer, and the sender has all of IdleTimeout for the rest. One that is in
// OnData is active: Shutdown waits for it, and ReadTimeout and MinReadRate hold. Nor is
// a goroutine saved by returning, since a connection with unread bytes is not parked.
// comparePartial shows it.
func (s *server) onData(ctx context.Context, _ any) error {
	session := ctx.Value(sessionKey{}).(*session)
	for {
		f, err := readFrame(session.conn)
		if err != nil {
			session.fail(err)
			return err // closes the connection
		}
		s.handled.Add(1)
		if err := session.answer(f); err != nil {
			return err
		}
		if session.conn.Len() == 0 {
			return nil // idle, and parked after a while, until the next frame
		}
	}
}

// answer sends the answer to f, which is gone afterwards.
func (s *session) answer(f frame) (err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	switch f.kind {
	case echo:
		err = writeFrame(s.conn, answer, f.id, f.payload)
	case sum:
		var p []byte
		if p, err = mallocFrame(s.conn, answer, f.id, crc32.Size); err == nil {
			binary.BigEndian.PutUint32(p, crc32.Checksum(f.payload, castagnoli))
		}
	default: // the next frame can be found, so this is no reason to close
		err = writeFrame(s.conn, failure, f.id, []byte("unknown type"))
	}
	if err != nil {
		return err
	}
	// Before Flush: the memory of an echoed payload is kept until it has been sent.
	if err := s.conn.Release(); err != nil {
		return err
	}
	if s.conn.Len() == 0 {
		return s.conn.Flush()
	}
	// The next frame is here already, or its beginning: its answer may leave together
	// with this one. To go on without any Flush would be wrong twice: the rest of that
	// frame may not come before this answer has, and a peer that never lets Len be 0
	// would have us hold answers without end. What FlushSoon holds leaves before a read
	// blocks, after a millisecond, or when it is 64 KiB.
	return s.conn.FlushSoon()
}

// fail tells the peer why its connection is going to be closed, if it can still know.
func (s *session) fail(err error) {
	var length lengthError
	text := ""
	switch {
	case errors.As(err, &length):
		text = err.Error()
	case errors.Is(err, os.ErrDeadlineExceeded):
		text = "the rest of a frame did not come within " + readTimeout.String()
	default:
		return // it is gone
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if writeFrame(s.conn, failure, 0, []byte(text)) == nil {
		_ = s.conn.Flush() // the connection is closed whether this arrives or not
	}
}

// goAway asks the peer to send no more requests.
func (s *session) goAway() {
	s.mu.Lock()
	defer s.mu.Unlock()
	if writeFrame(s.conn, goAway, 0, nil) == nil {
		_ = s.conn.Flush() // if it fails, the connection ends by itself
	}
}

// enter is the OnConnect hook.
func (s *server) enter(ctx context.Context, c network.Conn) context.Context {
	session := &session{conn: c.(conn)}
	s.mu.Lock()
	s.sessions[c] = session
	leaving := s.leaving
	s.mu.Unlock()
	if leaving {
		session.goAway()
	}
	return context.WithValue(ctx, sessionKey{}, session)
}

// leave is called when a connection has ended.
func (s *server) leave(c network.Conn) {
	s.mu.Lock()
	defer s.mu.Unlock()
	delete(s.sessions, c)
	s.checkGone()
}

// checkGone notes that the last session has ended. s.mu is held.
func (s *server) checkGone() {
	if s.leaving && len(s.sessions) == 0 {
		s.once.Do(func() { close(s.gone) })
	}
}

// shutdown ends the server and loses no frame: it asks every client to send no more,
// answers what is on its way, and waits until the clients have closed. Shutdown alone
// answers every frame that has reached the server's socket, but one that is still on its
// way to an idle connection finds that closed; a client can send it again, if it knows
// that this does no harm.
//
// When ctx ends first, the connections that are left are closed.
func (s *server) shutdown(ctx context.Context) error {
	s.mu.Lock()
	s.leaving = true
	for _, session := range s.sessions {
		go session.goAway() // a peer that does not read holds up no other
	}
	s.checkGone()
	s.mu.Unlock()
	select {
	case <-s.gone:
	case <-ctx.Done():
	}
	return errors.Join(s.transport.Shutdown(ctx), <-s.ended)
}
