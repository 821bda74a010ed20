package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"
)

const (
	checkLimit   = time.Minute // for everything
	promptly     = 2 * time.Second
	writeTimeout = time.Second
)

// errEnough ends a subscription.
var errEnough = errors.New("enough")

// check serves a feed, subscribes to it in several ways and prints a line for each that
// went as it should.
func check(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, checkLimit)
	defer cancel()
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return err
	}
	s, err := start(ln, writeTimeout)
	if err != nil {
		return err
	}
	defer s.h.Close()
	viaHertz, err := hertzSubscribe()
	if err != nil {
		return err
	}
	clients := []peer{{"hertz", viaHertz}, {"net/http", plainSubscribe}}

	for _, p := range clients {
		if err := checkResume(ctx, s, p); err != nil {
			return fmt.Errorf("resuming, %s: %w", p.kind, err)
		}
	}
	for _, p := range clients {
		if err := checkMissed(ctx, s, p); err != nil {
			return fmt.Errorf("resuming too late, %s: %w", p.kind, err)
		}
	}
	for _, p := range clients {
		if err := checkLeave(ctx, s, p); err != nil {
			return fmt.Errorf("leaving, %s: %w", p.kind, err)
		}
	}
	// These stay to the end.
	a, err := gather(ctx, s, clients, 3)
	if err != nil {
		return fmt.Errorf("subscribing: %w", err)
	}
	if err := checkDelay(ctx, s, a); err != nil {
		return fmt.Errorf("sending to %d subscribers: %w", a.n, err)
	}
	if err := checkStuck(ctx, s, a); err != nil {
		return fmt.Errorf("a subscriber that does not read: %w", err)
	}
	if err := checkShutdown(ctx, s, a); err != nil {
		return fmt.Errorf("shutting down: %w", err)
	}
	return nil
}

// peer is a kind of client.
type peer struct {
	kind      string
	subscribe subscribe
}

// begins reports whether m is the id that a stream begins with.
func begins(m message) bool { return m.data == "" && m.event == "" }

// number returns the number in the id of an event.
func number(m message) (int, error) {
	_, n, _ := strings.Cut(m.id, "-")
	return strconv.Atoi(n)
}

// checkResume reads events that come all the time, on connections that it closes in the
// midst of them.
func checkResume(ctx context.Context, s *site, p peer) error {
	const (
		events = 200
		each   = 23 // on one connection
		away   = 5  // published between two connections
	)
	publishing, stop := context.WithCancel(ctx)
	var publisher sync.WaitGroup
	defer publisher.Wait()
	defer stop()
	publisher.Go(func() {
		for publishing.Err() == nil {
			s.feed.publish([]byte("event"))
			time.Sleep(time.Millisecond)
		}
	})
	last, lastID, got, connections := 0, "", 0, 0
	for got < events {
		connections++
		here := 0
		err := p.subscribe(ctx, s.url+"/events", lastID, func(m message) error {
			n, err := number(m)
			switch {
			case err != nil || m.event != "":
				return fmt.Errorf("the event %q is not expected", m)
			case begins(m):
				if lastID != "" && m.id != lastID {
					return fmt.Errorf("it goes on after %s, not after %s", m.id, lastID)
				}
			case n != last+1:
				return fmt.Errorf("number %d came after %d", n, last)
			default:
				got, here = got+1, here+1
			}
			last, lastID = n, m.id
			if here == each || got == events {
				return errEnough
			}
			return nil
		})
		if !errors.Is(err, errEnough) {
			return fmt.Errorf("connection %d: %w", connections, err)
		}
		if err := s.streamEnds(ctx, nil); err != nil {
			return err
		}
		for range away {
			s.feed.publish([]byte("event while nobody listens"))
		}
	}
	line("reconnects", p.kind, "%d events over %d connections, %d and more published in between: none lost, none twice",
		events, connections, away*(connections-1))
	return nil
}

// checkMissed comes back with the id of an event that is not kept any more, and with one of
// another process.
func checkMissed(ctx context.Context, s *site, p peer) error {
	oldest := s.feed.id(0)
	for i := range kept + 1 {
		s.feed.publish([]byte(strconv.Itoa(i)))
	}
	for _, id := range []string{oldest, "another-7"} {
		err := p.subscribe(ctx, s.url+"/events", id, func(m message) error {
			switch {
			case begins(m):
				return nil
			case m.event == missedEvent:
				return errEnough
			}
			return fmt.Errorf("after %s came %q", id, m)
		})
		if !errors.Is(err, errEnough) {
			return err
		}
		if err := s.streamEnds(ctx, nil); err != nil {
			return err
		}
	}
	line("back too late", p.kind, "told that events are missing")
	return nil
}

// checkLeave leaves while there is nothing to send, so that no write can fail.
func checkLeave(ctx context.Context, s *site, p peer) error {
	subscribed, leave := context.WithCancel(ctx)
	defer leave()
	begun, over := make(chan struct{}), make(chan error, 1)
	go func() {
		over <- p.subscribe(subscribed, s.url+"/events", "", func(message) error {
			close(begun)
			return nil
		})
	}()
	select {
	case <-begun:
	case err := <-over:
		return err
	}
	start := time.Now()
	leave()
	if err := s.streamEnds(ctx, errLeft); err != nil {
		return err
	}
	took := time.Since(start)
	if err := <-over; !errors.Is(err, context.Canceled) {
		return fmt.Errorf("the client ended with %v", err)
	}
	line("leaves", p.kind, "its handler's context ended after %s", ms(took))
	return within(took, promptly)
}

// audience is subscribers that stay.
type audience struct {
	n        int
	arrivals chan arrival
	over     chan error
}

type arrival struct {
	kind string
	message
	at time.Time
}

// gather has each of the peers subscribe so many times.
func gather(ctx context.Context, s *site, peers []peer, times int) (*audience, error) {
	n := times * len(peers)
	a := &audience{n, make(chan arrival, n), make(chan error, n)}
	for _, p := range slices.Repeat(peers, times) {
		go func() {
			a.over <- p.subscribe(ctx, s.url+"/events", "", func(m message) error {
				a.arrivals <- arrival{p.kind, m, time.Now()}
				return nil
			})
		}()
	}
	_, err := a.receive(ctx, "")
	return a, err
}

// receive waits until everybody has the data.
func (a *audience) receive(ctx context.Context, data string) (got []arrival, err error) {
	for range a.n {
		select {
		case r := <-a.arrivals:
			if r.event != "" || r.data != data {
				return nil, fmt.Errorf("%s got the event %.50q", r.kind, r.message)
			}
			got = append(got, r)
		case err := <-a.over:
			return nil, fmt.Errorf("a stream ended: %v", err)
		case <-ctx.Done():
			return nil, fmt.Errorf("%d of %d have the event: %w", len(got), a.n, ctx.Err())
		}
	}
	return got, nil
}

// send publishes data and returns when each of the audience got it.
func (a *audience) send(ctx context.Context, s *site, data string) (begin time.Time, got []arrival, err error) {
	begin = time.Now()
	s.feed.publish([]byte(data))
	got, err = a.receive(ctx, data)
	return begin, got, err
}

// checkDelay sends small events, each when the last has arrived: if one waited in a buffer
// for others to fill it, none would come.
func checkDelay(ctx context.Context, s *site, a *audience) error {
	const events = 50
	delays := make(map[string][]time.Duration)
	for i := range events {
		begin, got, err := a.send(ctx, s, fmt.Sprint("event ", i))
		if err != nil {
			return err
		}
		for _, r := range got {
			delays[r.kind] = append(delays[r.kind], r.at.Sub(begin))
		}
	}
	for _, kind := range []string{"hertz", "net/http"} {
		d := slices.Sorted(slices.Values(delays[kind]))
		longest := d[len(d)-1]
		line("at once", kind, "%d events to %d of %d subscribers: median %s, longest %s",
			events, len(d)/events, a.n, ms(d[len(d)/2]), ms(longest))
		if err := within(longest, promptly); err != nil {
			return err
		}
	}
	return nil
}

// checkStuck subscribes without reading, and sends until the server has dropped that
// subscriber.
func checkStuck(ctx context.Context, s *site, a *audience) error {
	c, err := net.Dial("tcp", strings.TrimPrefix(s.url, "http://"))
	if err != nil {
		return err
	}
	defer c.Close()
	// What the system buffers for a peer that does not read is megabytes, else.
	if err := c.(*net.TCPConn).SetReadBuffer(16 << 10); err != nil {
		return err
	}
	slow := s.transporter.Stats().ClosedSlow
	if _, err := io.WriteString(c, "GET /events HTTP/1.1\r\nHost: localhost\r\n\r\n"); err != nil {
		return err
	}
	data := strings.Repeat("x", 32<<10)
	var longest time.Duration
	for start, sent := time.Now(), 1; ; sent++ {
		begin, got, err := a.send(ctx, s, data)
		if err != nil {
			return err
		}
		for _, r := range got {
			longest = max(longest, r.at.Sub(begin))
		}
		select {
		case why := <-s.streamEnded:
			if !errors.Is(why, os.ErrDeadlineExceeded) {
				return fmt.Errorf("its stream ended with %v, want a timeout", why)
			}
			line("does not read", "raw", "dropped after %s and %d events of 32 KiB, write timeout %v; the %d others got each within %s",
				ms(time.Since(start)), sent, writeTimeout, a.n, ms(longest))
			for s.transporter.Stats().ClosedSlow != slow+1 {
				select {
				case <-time.After(time.Millisecond):
				case <-ctx.Done():
					return errors.New("it is not in ClosedSlow of Stats")
				}
			}
			return within(longest, promptly)
		case <-time.After(5 * time.Millisecond):
		}
	}
}

// checkShutdown shuts down right after an event, which everybody must get, and then the
// end of the stream.
func checkShutdown(ctx context.Context, s *site, a *audience) error {
	s.feed.publish([]byte("bye"))
	begin := time.Now()
	if err := s.h.Shutdown(ctx); err != nil {
		return err
	}
	took := time.Since(begin)
	for range a.n {
		if err := <-a.over; err != nil {
			return fmt.Errorf("a stream was cut: %w", err)
		}
		if err := s.streamEnds(ctx, errFeedOver); err != nil {
			return err
		}
	}
	if _, err := a.receive(ctx, "bye"); err != nil {
		return err
	}
	line("shutdown", "server", "done in %s of %v; all of %d streams ended whole, with the last event", ms(took), exitWait, a.n)
	return within(took, exitWait/2)
}

// streamEnds waits until a stream has ended, for the reason if that is not nil.
func (s *site) streamEnds(ctx context.Context, reason error) error {
	select {
	case why := <-s.streamEnded:
		if reason != nil && !errors.Is(why, reason) {
			return fmt.Errorf("the stream ended with %q, want %q", why, reason)
		}
		return nil
	case <-ctx.Done():
		return errors.New("the handler did not end")
	}
}

func within(took, limit time.Duration) error {
	if took > limit {
		return fmt.Errorf("it took %v, more than %v", took, limit)
	}
	return nil
}

func line(what, kind, format string, args ...any) {
	fmt.Printf("%-14s  %-8s  %s\n", what, kind, fmt.Sprintf(format, args...))
}

func ms(d time.Duration) string { return fmt.Sprintf("%.2f ms", float64(d)/float64(time.Millisecond)) }
