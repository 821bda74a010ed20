package standard_test

import (
	"context"
	"encoding/binary"
	"encoding/json"
	"errors"
	"expvar"
	"fmt"
	"net"
	"os"
	"time"

	"github.com/hertznet/hertznet/network"
	"github.com/hertznet/hertznet/standard"
)

// echo sends back what has come. It is called again when there is more.
func echo(_ context.Context, conn any) error {
	c := conn.(network.Conn)
	b, err := c.Peek(c.Len())
	if err != nil {
		return err
	}
	if _, err := c.WriteBinary(b); err != nil {
		return err
	}
	c.Skip(len(b)) // cannot fail: the bytes are buffered
	c.Release()    // b is still sent as it was
	return c.Flush()
}

// A server and a client of a protocol of their own.
func Example() {
	t := &standard.Transporter{Addr: "127.0.0.1:0", ReadTimeout: time.Minute, WriteTimeout: time.Minute}
	ln, err := t.Listen()
	if err != nil {
		fmt.Println(err)
		return
	}
	go t.Serve(ln, echo)
	defer t.Close()

	c, err := new(standard.Dialer).DialConnection("tcp", ln.Addr().String(), time.Second, nil)
	if err != nil {
		fmt.Println(err)
		return
	}
	defer c.Close()
	c.WriteBinary([]byte("hello"))
	if err := c.Flush(); err != nil {
		fmt.Println(err)
		return
	}
	b, err := c.Peek(5)
	fmt.Printf("%s %v\n", b, err)
	// Output: hello <nil>
}

// A message is a length in four bytes, and so many bytes.
func ExampleConn_Peek() {
	near, far := net.Pipe()
	c := standard.NewConn(near)
	defer c.Close()
	go far.Write([]byte("\x00\x00\x00\x05hello\x00\x00\x00\x06gopher"))

	for range 2 {
		head, err := c.Peek(4)
		if err != nil {
			fmt.Println(err)
			return
		}
		n := int(binary.BigEndian.Uint32(head))
		if n > 1<<20 {
			fmt.Println("too long") // before a peer can make us hold it
			return
		}
		c.Skip(4)
		body, err := c.Peek(n)
		if err != nil {
			fmt.Println(err)
			return
		}
		c.Skip(n)
		fmt.Printf("%d %s\n", len(head), body) // both are valid
		c.Release()                            // now neither is
	}
	// Output:
	// 4 hello
	// 4 gopher
}

// Output is put together in pooled memory and leaves with one Flush.
func ExampleConn_Malloc() {
	near, far := net.Pipe()
	c := standard.NewConn(near)
	defer c.Close()

	head, err := c.Malloc(4)
	if err != nil {
		fmt.Println(err)
		return
	}
	n, _ := c.WriteBinary([]byte("hello"))
	binary.BigEndian.PutUint32(head, uint32(n)) // any time before Flush
	flushed := make(chan error)
	go func() { flushed <- c.Flush() }()

	got := make([]byte, 9)
	peer := standard.NewConn(far)
	for i := range got {
		if got[i], err = peer.ReadByte(); err != nil {
			fmt.Println(err)
			return
		}
	}
	fmt.Printf("%q %v\n", got, <-flushed)
	// Output: "\x00\x00\x00\x05hello" <nil>
}

// After a read timeout nothing is lost, and the next call may succeed.
func ExampleConn_SetReadTimeout() {
	near, far := net.Pipe()
	c := standard.NewConn(near)
	defer c.Close()
	go far.Write([]byte("hel"))
	if _, err := c.Peek(3); err != nil {
		fmt.Println(err)
		return
	}

	c.SetReadTimeout(10 * time.Millisecond) // of each operation, until it is changed
	b, err := c.Peek(5)
	fmt.Println(b == nil, errors.Is(err, os.ErrDeadlineExceeded), c.Len())

	c.SetReadTimeout(0) // no limit
	go far.Write([]byte("lo"))
	b, err = c.Peek(5)
	fmt.Printf("%s %v\n", b, err)
	// Output:
	// true true 3
	// hello <nil>
}

// Serve, and shut down: connections that are idle are closed at once, and active
// ones are waited for.
func ExampleTransporter_Shutdown() {
	t := &standard.Transporter{
		Addr:         "127.0.0.1:0",
		ReadTimeout:  time.Minute,
		WriteTimeout: time.Minute,
		IdleTimeout:  time.Hour,
	}
	ln, err := t.Listen()
	if err != nil {
		fmt.Println(err)
		return
	}
	served := make(chan error)
	go func() { served <- t.Serve(ln, echo) }()

	c, err := new(standard.Dialer).DialConnection("tcp", ln.Addr().String(), time.Second, nil)
	if err != nil {
		fmt.Println(err)
		return
	}
	defer c.Close()
	c.Write([]byte("hello"))
	b, err := c.ReadBinary(5)
	fmt.Printf("answer: %s %v\n", b, err)

	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
	defer cancel()
	fmt.Println("shutdown:", t.Shutdown(ctx))
	fmt.Println("served:", <-served)
	_, err = c.Peek(1)
	fmt.Println("the idle connection:", err)
	// Output:
	// answer: hello <nil>
	// shutdown: <nil>
	// served: <nil>
	// the idle connection: EOF
}

// The figures as a variable of package expvar: JSON under /debug/vars of
// http.DefaultServeMux, with the fields of Stats for names. examples/prometheus exports
// them to Prometheus.
func ExampleTransporter_Stats() {
	t := &standard.Transporter{Addr: "127.0.0.1:0"}
	figures := expvar.Func(func() any { return t.Stats() })
	if expvar.Get("hertznet") == nil { // Publish panics if the name is taken
		expvar.Publish("hertznet", figures)
	}

	ln, err := t.Listen()
	if err != nil {
		fmt.Println(err)
		return
	}
	go t.Serve(ln, echo)
	defer t.Close()
	c, err := new(standard.Dialer).DialConnection("tcp", ln.Addr().String(), time.Second, nil)
	if err != nil {
		fmt.Println(err)
		return
	}
	defer c.Close()
	c.Write([]byte("hello"))
	if _, err := c.Peek(5); err != nil {
		fmt.Println(err)
		return
	}

	var s standard.Stats
	if err := json.Unmarshal([]byte(figures.String()), &s); err != nil {
		fmt.Println(err)
		return
	}
	fmt.Println("accepted:", s.Accepted, "open:", s.Open(), "read:", s.BytesRead)
	// Output: accepted: 1 open: 1 read: 5
}
