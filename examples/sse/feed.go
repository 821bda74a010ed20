package main

import (
	"context"
	"errors"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/cloudwego/hertz/pkg/app"
	"github.com/cloudwego/hertz/pkg/protocol/sse"
)

const (
	kept           = 256              // events, for subscribers that come back
	keepAliveEvery = 15 * time.Second // a comment, for proxies that close what is silent
	missedEvent    = "missed"         // tells a subscriber that events before the next one are gone
)

// Why a stream of events ended.
var (
	errLeft     = errors.New("the subscriber left")
	errFeedOver = errors.New("the feed was closed")
)

// event is immutable once published.
type event struct {
	n    uint64 // consecutive, from 1
	data []byte
}

// feed has the latest events, and its handler streams them. A subscriber has no queue of
// its own, only a position in the feed, so a slow one holds up nobody and costs no memory.
// And one that comes back needs no special case: it starts at an earlier position.
type feed struct {
	origin string // of the ids: those of an earlier process mean nothing to this one
	ended  func(error)

	mu     sync.Mutex
	events []event // the last ones, kept at most
	newest uint64
	closed bool
	more   chan struct{} // closed, and replaced, when one of the above has changed
}

// newFeed returns a feed that calls ended with the reason when a stream has ended.
func newFeed(ended func(error)) *feed {
	return &feed{
		origin: strconv.FormatInt(time.Now().UnixNano(), 36),
		ended:  ended,
		more:   make(chan struct{}),
	}
}

// publish sends data, which must not change any more, to every subscriber.
func (f *feed) publish(data []byte) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.newest++
	f.events = append(f.events, event{f.newest, data})
	if len(f.events) > kept {
		f.events = f.events[1:]
	}
	f.wake()
}

// close ends every stream once its subscriber has been sent all that was published.
func (f *feed) close() {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.closed = true
	f.wake()
}

func (f *feed) wake() {
	close(f.more)
	f.more = make(chan struct{})
}

// after returns the events after the nth, as far as they are kept, and a channel that is
// closed when there may be more.
func (f *feed) after(n uint64) (events []event, closed bool, more <-chan struct{}) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if len(f.events) > 0 {
		skip := n + 1 - min(n+1, f.events[0].n)
		events = f.events[skip:]
	}
	return events, f.closed, f.more
}

// id returns what a client sends as Last-Event-ID to get what follows the nth event.
func (f *feed) id(n uint64) string { return f.origin + "-" + strconv.FormatUint(n, 10) }

// position returns the number of the event after which a subscriber goes on. known is
// false if its id is not of this feed, so that nobody knows what it has missed.
func (f *feed) position(lastID string) (n uint64, known bool) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if lastID == "" {
		return f.newest, true
	}
	origin, number, _ := strings.Cut(lastID, "-")
	n, err := strconv.ParseUint(number, 10, 64)
	if origin != f.origin || err != nil || n > f.newest {
		return f.newest, false
	}
	return n, true
}

// serve is the handler.
func (f *feed) serve(c context.Context, ctx *app.RequestContext) {
	n, known := f.position(sse.GetLastEventID(&ctx.Request))
	f.ended(f.stream(c, sse.NewWriter(ctx), n, known))
}

// stream writes the events after the nth until the subscriber is gone or the feed is
// closed, and returns why it ended. Each write is sent at once, within the server's
// WriteTimeout.
func (f *feed) stream(c context.Context, w *sse.Writer, n uint64, known bool) error {
	// An id without data is no event for a browser, but from now on it can resume, even
	// if the connection breaks before the first event. And it sends the header.
	if err := w.WriteEvent(f.id(n), "", nil); err != nil {
		return err
	}
	missed := func() error { return w.WriteEvent("", missedEvent, []byte("events before the next one")) }
	if !known {
		if err := missed(); err != nil {
			return err
		}
	}
	keepAlive := time.NewTicker(keepAliveEvery)
	defer keepAlive.Stop()
	for {
		events, closed, more := f.after(n)
		for _, e := range events {
			if e.n != n+1 {
				if err := missed(); err != nil {
					return err
				}
			}
			if err := w.WriteEvent(f.id(e.n), "", e.data); err != nil {
				return err
			}
			n = e.n
		}
		if closed {
			return errFeedOver
		}
		select {
		case <-more:
		case <-keepAlive.C:
			if err := w.WriteKeepAlive(); err != nil {
				return err
			}
		case <-c.Done(): // with server.WithSenseClientDisconnection
			return errLeft
		}
	}
}
