package standard_test

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"log"
	"log/slog"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"sync/atomic"
	"time"

	"github.com/hertznet/hertznet/network"
	"github.com/hertznet/hertznet/standard"
	"github.com/hertznet/hertznet/tlsconn"
)

// What a server that strangers can reach should set. What belongs to a connection, a user
// or a counter, OnConnect puts into its context.
func ExampleTransporter() {
	type session struct{ number, messages int64 }
	type key struct{}
	var connections atomic.Int64
	t := &standard.Transporter{
		Addr:          "127.0.0.1:0",
		ReadTimeout:   10 * time.Second, // of each read
		WriteTimeout:  10 * time.Second,
		IdleTimeout:   time.Minute, // between two messages
		MaxConns:      10_000,
		MaxConnsPerIP: 100,
		MinReadRate:   240, // bytes a second, while a message is on its way
		MaxReadBuffer: 1 << 20,
		OnConnect: func(ctx context.Context, _ network.Conn) context.Context {
			return context.WithValue(ctx, key{}, &session{number: connections.Add(1)})
		},
	}
	ln, err := t.Listen()
	if err != nil {
		log.Fatal(err)
	}
	defer t.Close()
	go t.Serve(ln, func(ctx context.Context, conn any) error {
		c := conn.(network.Conn)
		if err := c.Skip(c.Len()); err != nil {
			return err
		}
		s := ctx.Value(key{}).(*session)
		s.messages++ // one goroutine at a time
		_, err := fmt.Fprintf(c, "connection %d, message %d\n", s.number, s.messages)
		return err
	})

	c, err := new(standard.Dialer).DialConnection("tcp", ln.Addr().String(), time.Second, nil)
	if err != nil {
		log.Fatal(err)
	}
	defer c.Close()
	for range 2 {
		c.Write([]byte("hello"))
		b, err := c.ReadBinary(len("connection 1, message 1\n"))
		fmt.Printf("%s%v\n", b, err)
	}
	// Output:
	// connection 1, message 1
	// <nil>
	// connection 1, message 2
	// <nil>
}

// The states of a connection that sends two messages and goes.
func ExampleConnState() {
	states := make(chan standard.ConnState, 10)
	t := &standard.Transporter{
		Addr:      "127.0.0.1:0",
		ParkAfter: -1, // on Linux it would be parked after a while
		ConnState: func(_ network.Conn, s standard.ConnState) { states <- s },
	}
	ln, err := t.Listen()
	if err != nil {
		log.Fatal(err)
	}
	defer t.Close()
	go t.Serve(ln, echo)

	c, err := new(standard.Dialer).DialConnection("tcp", ln.Addr().String(), time.Second, nil)
	if err != nil {
		log.Fatal(err)
	}
	for range 2 {
		c.Write([]byte("hello"))
		if _, err := c.ReadBinary(5); err != nil {
			log.Fatal(err)
		}
		for s := range states {
			fmt.Println(s)
			if s == standard.StateIdle {
				break
			}
		}
	}
	c.Close()
	fmt.Println(<-states)
	// Output:
	// new
	// active
	// idle
	// active
	// idle
	// closed
}

// Of two connections one is over the limit, and told at once.
func ExampleStats() {
	t := &standard.Transporter{
		Addr:               "127.0.0.1:0",
		MaxConns:           1,
		RejectOverMaxConns: true,
		Logger:             slog.New(slog.DiscardHandler), // which would hear of the second
	}
	ln, err := t.Listen()
	if err != nil {
		log.Fatal(err)
	}
	defer t.Close()
	go t.Serve(ln, echo)
	for range 2 {
		c, err := new(standard.Dialer).DialConnection("tcp", ln.Addr().String(), time.Second, nil)
		if err != nil {
			log.Fatal(err)
		}
		defer c.Close()
		if _, err = c.Write([]byte("hello")); err == nil {
			_, err = c.Peek(5)
		}
		fmt.Println("answered:", err == nil)
	}
	s := t.Stats()
	fmt.Println("accepted:", s.Accepted, "open:", s.Open(), "rejected:", s.Rejected)
	// Output:
	// answered: true
	// answered: false
	// accepted: 2 open: 1 rejected: 1
}

// On a unix socket. A file that was left behind, and on which nobody answers, is replaced.
func ExampleTransporter_ListenAndServe() {
	dir, err := os.MkdirTemp("", "example")
	if err != nil {
		log.Fatal(err)
	}
	defer os.RemoveAll(dir)
	path := filepath.Join(dir, "echo.sock")

	t := &standard.Transporter{Network: "unix", Addr: path}
	served := make(chan error)
	go func() { served <- t.ListenAndServe(echo) }()
	for t.Listener() == nil { // it is not listening yet
		select {
		case err := <-served:
			log.Fatal(err)
		case <-time.After(time.Millisecond):
		}
	}
	c, err := new(standard.Dialer).DialConnection("unix", path, time.Second, nil)
	if err != nil {
		log.Fatal(err)
	}
	defer c.Close()
	c.Write([]byte("hello"))
	b, err := c.Peek(5)
	fmt.Printf("%s %v\n", b, err)

	fmt.Println(t.Close(), <-served)
	_, err = os.Stat(path)
	fmt.Println("the file is gone:", errors.Is(err, os.ErrNotExist))
	// Output:
	// hello <nil>
	// <nil> <nil>
	// the file is gone: true
}

// When the context of Shutdown ends first, the connections that are left are closed.
func ExampleTransporter_Shutdown_limit() {
	began := make(chan bool)
	t := &standard.Transporter{Addr: "127.0.0.1:0"}
	ln, err := t.Listen()
	if err != nil {
		log.Fatal(err)
	}
	ended := make(chan error, 1)
	go t.Serve(ln, func(_ context.Context, conn any) error {
		close(began)
		_, err := conn.(network.Conn).Peek(1000) // which never come
		ended <- err
		return err
	})
	c, err := new(standard.Dialer).DialConnection("tcp", ln.Addr().String(), time.Second, nil)
	if err != nil {
		log.Fatal(err)
	}
	defer c.Close()
	c.Write([]byte("half a message"))
	<-began

	ctx, cancel := context.WithTimeout(context.Background(), 20*time.Millisecond)
	defer cancel()
	fmt.Println(t.Shutdown(ctx) == context.DeadlineExceeded) // the very error of ctx
	fmt.Println("the handler's Peek has ended:", errors.Is(<-ended, net.ErrClosed))
	// Output:
	// true
	// the handler's Peek has ended: true
}

// A client that does not speak TLS is answered in clear text.
func ExampleTransporter_plainText() {
	cert, _, err := tlsconn.SelfSigned() // for development
	if err != nil {
		log.Fatal(err)
	}
	t := &standard.Transporter{
		Addr:      "127.0.0.1:0",
		TLSConfig: &tls.Config{Certificates: []tls.Certificate{cert}},
		OnHandshakeError: func(_ net.Conn, err error) {
			var plain tls.RecordHeaderError
			if errors.As(err, &plain) && plain.Conn != nil {
				plain.Conn.Write([]byte("this port speaks TLS\n"))
			}
		},
	}
	ln, err := t.Listen()
	if err != nil {
		log.Fatal(err)
	}
	defer t.Close()
	go t.Serve(ln, echo)

	c, err := new(standard.Dialer).DialConnection("tcp", ln.Addr().String(), time.Second, nil)
	if err != nil {
		log.Fatal(err)
	}
	defer c.Close()
	c.Write([]byte("hello"))
	b, err := c.ReadBinary(len("this port speaks TLS\n"))
	fmt.Printf("%s%v\n", b, err)
	// Output:
	// this port speaks TLS
	// <nil>
}

// A process starts its successor, which takes over the listener: no connection that waits
// in its queue is lost.
func ExampleListenerFile() {
	t := &standard.Transporter{Addr: ":7000"}
	ln, err := t.Listen()
	if err != nil {
		log.Fatal(err)
	}
	go t.Serve(ln, echo)

	f, err := standard.ListenerFile(ln)
	if err != nil {
		log.Fatal(err)
	}
	cmd := exec.Command("/usr/local/bin/server")
	cmd.ExtraFiles = []*os.File{f} // descriptor 3, where LISTEN_FDS begins
	cmd.Env = append(os.Environ(), "LISTEN_FDS=1")
	if err := cmd.Start(); err != nil {
		log.Fatal(err)
	}
	f.Close()
	// ... wait until it says that it serves
	t.Shutdown(context.Background())
}

// The successor, or a server that systemd has started for its socket.
func ExampleInheritedListeners() {
	t := &standard.Transporter{Addr: ":7000"}
	lns, err := standard.InheritedListeners() // early in main
	if err != nil {
		log.Fatal(err)
	}
	if len(lns) == 0 { // started by hand
		log.Fatal(t.ListenAndServe(echo))
	}
	log.Fatal(t.Serve(lns[0], echo))
}

// Several processes that listen on one port, each by itself.
func ExampleReusePort() {
	t := &standard.Transporter{
		Addr:         ":7000",
		ListenConfig: &net.ListenConfig{Control: standard.ReusePort},
	}
	log.Fatal(t.ListenAndServe(echo))
}
