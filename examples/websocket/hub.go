package main

import (
	"context"
	"maps"
	"slices"
	"sync"
	"time"

	"github.com/cloudwego/hertz/pkg/app"
	"github.com/cloudwego/hertz/pkg/protocol/consts"
	"github.com/hertz-contrib/websocket"
)

const (
	maxMessage = 2 << 20     // bytes; without a limit a peer may send any number
	writeWait  = time.Second // for a peer to take one message
	closeWait  = time.Second // for a peer to answer a close
	missed     = 4           // pings without an answer, after which a peer has vanished

	goodbye = "the server is shutting down"
)

// hub echoes messages, and knows its connections so that it can close them. Hertz does not:
// a hijacked connection is its handler's, and Shutdown waits for it.
type hub struct {
	pingEvery time.Duration
	ended     func(error) // called with the reason when a connection ends

	mu      sync.Mutex
	conns   map[*websocket.Conn]bool
	closing bool
}

// upgrade is the handler. It returns at once; then Hertz sends the answer and calls echo,
// in the same goroutine, with the connection.
func (h *hub) upgrade(_ context.Context, ctx *app.RequestContext) {
	if h.isClosing() {
		ctx.String(consts.StatusServiceUnavailable, goodbye+"\n")
		return
	}
	// Its zero value refuses pages of other origins. When it fails, it has answered.
	var upgrader websocket.HertzUpgrader
	_ = upgrader.Upgrade(ctx, h.echo)
}

// echo sends back each message. When it returns Hertz closes the connection, and only then:
// Close of a hijacked connection does nothing. To end an echo from elsewhere, let its read
// fail, with SetReadDeadline.
func (h *hub) echo(c *websocket.Conn) {
	if !h.add(c) {
		sayGoodbye(c)
		return
	}
	h.ended(h.serve(c))
	h.remove(c)
}

func (h *hub) serve(c *websocket.Conn) error {
	c.SetReadLimit(maxMessage)

	// The package lifts the server's timeouts, so a peer that has vanished would be kept for
	// ever. Anything that it sends shows that it has not, the answer to a ping as well.
	alive := func() error { return c.SetReadDeadline(time.Now().Add(missed * h.pingEvery)) }
	if err := alive(); err != nil {
		return err
	}
	c.SetPongHandler(func(string) error { return alive() })
	answer := c.PingHandler()
	c.SetPingHandler(func(data string) error {
		if err := alive(); err != nil {
			return err
		}
		return answer(data)
	})
	done := make(chan struct{})
	defer close(done)
	go h.ping(c, done)

	for {
		kind, data, err := c.ReadMessage()
		if err != nil {
			return err
		}
		if err := alive(); err != nil {
			return err
		}
		// A moment, not a duration, so it is set for each message.
		if err := c.SetWriteDeadline(time.Now().Add(writeWait)); err != nil {
			return err
		}
		if err := c.WriteMessage(kind, data); err != nil {
			return err
		}
	}
}

// ping sends pings until done. WriteControl may be called beside WriteMessage.
func (h *hub) ping(c *websocket.Conn, done <-chan struct{}) {
	tick := time.NewTicker(h.pingEvery)
	defer tick.Stop()
	for {
		select {
		case <-tick.C:
			if c.WriteControl(websocket.PingMessage, nil, time.Now().Add(writeWait)) != nil {
				return // the connection ends, and serve tells why
			}
		case <-done:
			return
		}
	}
}

// shutdown tells each peer that the server goes away. Its answer ends its echo, or the end
// of closeWait does. It is for Hertz's OnShutdown, which runs beside the wait for handlers.
func (h *hub) shutdown(context.Context) {
	h.mu.Lock()
	h.closing = true
	conns := slices.Collect(maps.Keys(h.conns))
	h.mu.Unlock()
	var told sync.WaitGroup
	for _, c := range conns {
		told.Go(func() { sayGoodbye(c) }) // one that does not read holds up no other
	}
	told.Wait()
}

func sayGoodbye(c *websocket.Conn) {
	message := websocket.FormatCloseMessage(websocket.CloseGoingAway, goodbye)
	_ = c.WriteControl(websocket.CloseMessage, message, time.Now().Add(closeWait)) // if it fails, it is over
	_ = c.SetReadDeadline(time.Now().Add(closeWait))
}

func (h *hub) isClosing() bool {
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.closing
}

// add reports whether c may stay. One that was upgraded as shutdown began may not.
func (h *hub) add(c *websocket.Conn) bool {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.closing {
		return false
	}
	h.conns[c] = true
	return true
}

func (h *hub) remove(c *websocket.Conn) {
	h.mu.Lock()
	defer h.mu.Unlock()
	delete(h.conns, c)
}
