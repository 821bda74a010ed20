//go:build unix

package standard

import (
	"context"
	"io"
	"net"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/hertznet/hertznet/network"
	"github.com/hertznet/hertznet/tlsconn"
)

// lastListener is one whose Accept returns a last connection as it is closed: one that
// the system had handed over before.
type lastListener struct {
	net.Listener
	last   chan net.Conn
	closed chan struct{}
	once   sync.Once
}

func (l *lastListener) Accept() (net.Conn, error) {
	<-l.closed
	if c, ok := <-l.last; ok {
		return c, nil
	}
	return nil, net.ErrClosed
}

func (l *lastListener) Close() error {
	l.once.Do(func() { close(l.closed) })
	return nil
}

// A connection that was accepted as Shutdown began is served: nobody else can.
func TestS16_ShutdownServesTheLastAccepted(t *testing.T) {
	a, b := tcpPair(t)
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer ln.Close()
	last := &lastListener{Listener: ln, last: make(chan net.Conn), closed: make(chan struct{})}
	s := serveOn(t, &Transporter{}, last, echo)
	done := make(chan error, 1)
	go func() { done <- s.Shutdown(t.Context()) }()
	<-s.stopped
	last.last <- b
	close(last.last)
	if got := ask(t, NewConn(a), "served"); got != "served" {
		t.Errorf("got %q", got)
	}
	if err := ends(t, done); err != nil {
		t.Error(err)
	}
}

// A listener whose Accept does not end when it is closed holds Shutdown up for no longer
// than the grace of new connections, and Close not at all; what it accepts after that is closed.
func TestS16_AcceptThatDoesNotEnd(t *testing.T) {
	for name, stop := range stops {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				last := &lastListener{Listener: newScriptListener(), last: make(chan net.Conn), closed: make(chan struct{})}
				s := serveOn(t, &Transporter{}, last, echo)
				start := time.Now()
				if err := stop(s.Transporter); err != nil {
					t.Error(err)
				}
				if d := time.Since(start); name == "Shutdown" && d != newGrace || name == "Close" && d != 0 {
					t.Errorf("it took %v", d)
				}
				a, b := net.Pipe()
				last.last <- b
				close(last.last)
				if _, err := a.Read(make([]byte, 1)); err != io.EOF {
					t.Errorf("a connection that came afterwards: %v", err)
				}
				<-s.served
			})
		})
	}
}

// Shutdown does not close an idle connection whose next message has arrived, though its
// goroutine has not seen it yet: it is served. A message that goes no further is none.
func TestS6_ShutdownServesWhatHasArrived(t *testing.T) {
	for _, network := range []string{"tcp", "tls"} {
		for sent, want := range map[string]string{"next": "next", "ne": ""} {
			t.Run(network+"/"+sent, func(t *testing.T) { testArrived(t, network, sent, want) })
		}
	}
}

func testArrived(t *testing.T, kind, sent, want string) {
	idle, wake := make(chan *Conn), make(chan struct{})
	tr := &Transporter{}
	var client func(net.Conn) *Conn
	if client = NewConn; kind == "tls" {
		sc, cc := trustConfigs(t)
		tr.TLSConfig = sc
		client = func(nc net.Conn) *Conn {
			return &NewTLSConn(tlsconn.Client(nc, tlsconn.ClientConfig(cc, "localhost:443"))).Conn
		}
	}
	s := serve(t, tr, func(ctx context.Context, conn any) error {
		c, ok := conn.(*Conn)
		if !ok {
			c = &conn.(*TLSConn).Conn
		}
		if err := answer(conn.(network.Conn), "first"); err != nil {
			return err
		}
		c.SetIdle(true)
		idle <- c
		<-wake // as if the goroutine had not come to run
		b, err := c.Peek(4)
		if !c.SetIdle(false) {
			return net.ErrClosed
		}
		if err != nil {
			return err
		}
		if _, err := c.WriteBinary(b); err != nil {
			return err
		}
		if err := c.Flush(); err != nil {
			return err
		}
		return io.EOF
	})
	nc, err := net.Dial("tcp", s.addr)
	if err != nil {
		t.Fatal(err)
	}
	defer nc.Close()
	c := client(nc)
	if got := ask(t, c, "?"); got != "first" {
		t.Fatalf("got %q", got)
	}
	served := <-idle
	if _, err := c.Write([]byte(sent)); err != nil {
		t.Fatal(err)
	}
	settles(t, "bytes in the socket", 1, func() int { return one(served.accepted.unread()) })
	// One that says nothing is closed when the grace ends, which is after the idle ones.
	silent := s.dial(t)
	settles(t, "connections", 2, func() int { return len(s.all()) })
	done := make(chan error, 1)
	go func() { done <- s.Shutdown(t.Context()) }()
	peerCloses(t, silent)
	close(wake)
	got, _ := io.ReadAll(c)
	if string(got) != want {
		t.Errorf("got %q, want %q", got, want)
	}
	if err := ends(t, done); err != nil {
		t.Error(err)
	}
}
