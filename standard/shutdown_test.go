package standard

import (
	"context"
	"net"
	"testing"
	"time"
)

// meetingCloser is a conn whose Close waits until others are closing too.
type meetingCloser struct {
	net.Conn
	meet func()
}

func (c meetingCloser) Close() error {
	c.meet()
	return c.Conn.Close()
}

type wrappingListener struct {
	net.Listener
	wrap    func(net.Conn) net.Conn
	closing func()
}

func (l wrappingListener) Accept() (net.Conn, error) {
	c, err := l.Listener.Accept()
	if err != nil {
		return nil, err
	}
	return l.wrap(c), nil
}

func (l wrappingListener) Close() error {
	l.closing()
	return l.Listener.Close()
}

// S7: the connections of a foreign listener, whose Close may take its time, are
// closed side by side when the time of Shutdown is over.
func TestS7_SlowClosesDoNotAddUp(t *testing.T) {
	const conns = 10
	met := make(chan struct{}, conns)
	all := make(chan struct{})
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	in := make(chan struct{}, conns)
	tr := &Transporter{}
	go tr.Serve(wrappingListener{
		Listener: ln,
		closing:  func() {},
		wrap: func(c net.Conn) net.Conn {
			return meetingCloser{c, func() {
				if met <- struct{}{}; len(met) == conns {
					close(all)
				}
				<-all
			}}
		},
	}, func(ctx context.Context, c any) error {
		in <- struct{}{}
		<-all
		return nil
	})
	for range conns {
		c, err := net.Dial("tcp", ln.Addr().String())
		if err != nil {
			t.Fatal(err)
		}
		defer c.Close()
		_, _ = c.Write([]byte("x"))
		<-in
	}
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	ended := make(chan error, 1)
	go func() { ended <- tr.Shutdown(ctx) }()
	select {
	case err := <-ended:
		if err != ctx.Err() {
			t.Errorf("Shutdown: %v", err)
		}
	case <-time.After(late):
		t.Fatal("each Close waits for the one before")
	}
}

// S9: a listener may ask its transporter while it is being closed.
func TestS9_ListenerThatCallsBack(t *testing.T) {
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	tr := &Transporter{}
	var inner net.Listener
	wrapped := wrappingListener{
		Listener: ln,
		wrap:     func(c net.Conn) net.Conn { return c },
		closing:  func() { inner = tr.Listener() },
	}
	served := make(chan error, 1)
	go func() { served <- tr.Serve(wrapped, func(context.Context, any) error { return nil }) }()
	settles(t, "listeners", 1, func() int {
		if tr.Listener() == nil {
			return 0
		}
		return 1
	})
	closed := make(chan error, 1)
	go func() { closed <- tr.Close() }()
	if err := ends(t, closed); err != nil {
		t.Error(err)
	}
	if err := ends(t, served); err != nil {
		t.Error(err)
	}
	if _, ok := inner.(wrappingListener); !ok {
		t.Errorf("Listener returned a %T, not what Serve was given", inner)
	}
}
