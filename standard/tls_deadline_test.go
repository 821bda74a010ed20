package standard

import (
	"crypto/tls"
	"net"
	"sync/atomic"
	"testing"
	"time"

	"github.com/hertznet/hertznet/tlsconn"
)

// settingConn counts how often its read deadline is set.
type settingConn struct {
	net.Conn
	sets atomic.Int64
}

func (c *settingConn) SetReadDeadline(t time.Time) error {
	c.sets.Add(1)
	return c.Conn.SetReadDeadline(t)
}

// beforeHandshake returns a client and a server between which nothing was said yet.
func beforeHandshake(t *testing.T) (client net.Conn, server *tlsconn.Conn, beneath *settingConn) {
	t.Helper()
	x, y := tcpPair(t)
	cert, pool, err := tlsconn.SelfSigned()
	if err != nil {
		t.Fatal(err)
	}
	beneath = &settingConn{Conn: y}
	server = tlsconn.Server(beneath, tlsconn.ServerConfig(&tls.Config{Certificates: []tls.Certificate{cert}}))
	return tls.Client(x, &tls.Config{RootCAs: pool, ServerName: "localhost"}), server, beneath
}

// T4: a read that performed the handshake leaves the connection as Handshake does:
// later reads set no timer each.
func TestT4_ImplicitHandshakeEndsExactTimers(t *testing.T) {
	client, server, beneath := beforeHandshake(t)
	c := NewTLSConn(server)
	_ = c.SetReadTimeout(time.Minute)
	next := make(chan struct{})
	go func() {
		for range next {
			_, _ = client.Write([]byte("x"))
		}
	}()
	defer close(next)
	var before int64
	for i := range 102 {
		if i == 2 {
			before = beneath.sets.Load()
		}
		next <- struct{}{}
		if _, err := c.ReadByte(); err != nil {
			t.Fatal(err)
		}
	}
	if n := beneath.sets.Load() - before; n > 2 {
		t.Errorf("100 reads set the read deadline %d times", n)
	}
}

// T15: over TLS too, and before the handshake, a longer timeout reaches a blocked
// read; a handshake that an earlier timer ended could not be taken up again.
func TestT15_LongerTimeoutBeforeTheHandshake(t *testing.T) {
	client, server, _ := beforeHandshake(t)
	c := NewConn(server)
	first, start := 30*soon, time.Now()
	_ = c.SetReadTimeout(first)
	ended := inside(t, &c.rd, func() error { _, err := c.ReadByte(); return err })
	_ = c.SetReadTimeout(time.Hour)
	if time.Since(start) >= first {
		t.Skip("the machine is too busy to change a limit before it has passed")
	}
	select {
	case err := <-ended:
		t.Fatalf("ended with %v", err)
	case <-time.After(first + soon):
	}
	go func() { _, _ = client.Write([]byte("x")) }()
	if err := ends(t, ended); err != nil {
		t.Error(err)
	}
}

// T4: after the handshake, setting a timeout sets no timer while nothing runs.
func TestT4_NoTimerBetweenOperationsOverTLS(t *testing.T) {
	client, server, beneath := beforeHandshake(t)
	c := NewTLSConn(server)
	shaken := make(chan error, 1)
	go func() { shaken <- client.(*tls.Conn).Handshake() }()
	if err := c.Handshake(); err != nil {
		t.Fatal(err)
	}
	if err := ends(t, shaken); err != nil {
		t.Fatal(err)
	}
	before := beneath.sets.Load()
	for range 10 {
		_ = c.SetReadTimeout(time.Minute)
	}
	if n := beneath.sets.Load() - before; n != 0 {
		t.Errorf("10 calls of SetReadTimeout set the timer %d times", n)
	}
}

// hookConn calls hook in the middle of SetWriteDeadline, once.
type hookConn struct {
	net.Conn
	hook func()
}

func (c *hookConn) SetWriteDeadline(t time.Time) error {
	if h := c.hook; h != nil {
		c.hook = nil
		h()
	}
	return c.Conn.SetWriteDeadline(t)
}

// L6: an operation may end while another goroutine's SetWriteTimeout arms its timer:
// the timer must not stay, or it would cut what TLS writes by itself later.
func TestL6_NoTimerOutlivesItsOperation(t *testing.T) {
	x, _ := pipePair(t)
	h := &hookConn{Conn: x}
	d := deadlineOver(h, true, true)
	if err := d.begin(); err != nil {
		t.Fatal(err)
	}
	ended := make(chan struct{})
	h.hook = func() {
		// end needs the lock that the setter holds; it ends right after it.
		d.mark(opWaiting, false)
		close(ended)
	}
	_ = d.setTimeout(time.Minute)
	<-ended
	if d.armed.Load() != 0 {
		t.Error("the timer is armed though nothing runs")
	}
}
