package standard_test

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"log"
	"net"
	"os"
	"time"

	"github.com/hertznet/hertznet/standard"
)

// A Peeked slice is the connection's memory. It stays as it is until Release, whatever is
// read meanwhile; what is needed for longer is copied.
func ExampleConn_Release() {
	near, far := net.Pipe()
	c := standard.NewConn(near)
	defer c.Close()
	go func() {
		far.Write([]byte("key=value\n"))
		far.Write([]byte("next line\n"))
	}()

	line, err := c.Peek(10)
	if err != nil {
		log.Fatal(err)
	}
	key, value := line[:3], line[4:9]
	kept := string(value) // a copy
	c.Skip(len(line))     // the line is read, and its memory still there

	next, err := c.Peek(10)
	if err != nil {
		log.Fatal(err)
	}
	fmt.Printf("%s, %s, %s", key, value, next)

	c.Release() // from here on none of the three may be looked at
	fmt.Println(kept, "and", c.Len(), "bytes that are unread")
	// Output:
	// key, value, next line
	// value and 10 bytes that are unread
}

// A message that is too long is passed over, which takes one block of memory, and the
// connection goes on with the next.
func ExampleConn_Skip() {
	near, far := net.Pipe()
	c := standard.NewConn(near)
	defer c.Close()
	go func() {
		far.Write([]byte("\x00\x10\x00\x00"))
		far.Write(make([]byte, 1<<20))
		far.Write([]byte("\x00\x00\x00\x05hello"))
	}()

	for range 2 {
		head, err := c.Peek(4)
		if err != nil {
			log.Fatal(err)
		}
		n := int(binary.BigEndian.Uint32(head))
		c.Skip(4)
		c.Release() // n is no part of it
		if n > 1000 {
			fmt.Println(n, "bytes are too many:", c.Skip(n))
			continue
		}
		body, err := c.ReadBinary(n)
		fmt.Printf("%s %v\n", body, err)
	}
	// Output:
	// 1048576 bytes are too many: <nil>
	// hello <nil>
}

// ReadBinary copies, and takes all or nothing.
func ExampleConn_ReadBinary() {
	near, far := net.Pipe()
	c := standard.NewConn(near)
	defer c.Close()
	go func() {
		far.Write([]byte("hel"))
		far.Close()
	}()

	b, err := c.ReadBinary(5)
	fmt.Println(b == nil, err, c.Len()) // the three bytes are still there
	b, err = c.ReadBinary(3)
	fmt.Printf("%s %v\n", b, err) // no Release is owed, and b is the caller's
	// Output:
	// true EOF 3
	// hel <nil>
}

// What WriteBinary is given must stay as it is until Flush returns, and is the caller's
// again then. A slice from Peek may be released in between: it is sent as it was.
func ExampleConn_WriteBinary() {
	near, far := net.Pipe()
	c := standard.NewConn(near)
	defer c.Close()
	answer := make(chan []byte)
	go func() {
		peer := standard.NewConn(far)
		peer.Write([]byte("hello"))
		b, _ := peer.ReadBinary(5 + 8<<10)
		answer <- b
	}()

	b, err := c.Peek(5)
	if err != nil {
		log.Fatal(err)
	}
	c.Skip(5)
	c.WriteBinary(b)
	c.Release()

	page := bytes.Repeat([]byte("a"), 8<<10) // from 4 KiB up it is not copied
	c.WriteBinary(page)
	fmt.Println(c.Flush())
	copy(page, "used again")

	got := <-answer
	fmt.Printf("%s %d %t\n", got[:5], len(got), bytes.Count(got, []byte("a")) == 8<<10)
	// Output:
	// <nil>
	// hello 8197 true
}

// A Flush that failed has sent a part of the output, nobody knows how much: the connection
// can only be closed. So the error stays, and what was pending is given up.
func ExampleConn_Flush() {
	near, far := net.Pipe()
	c := standard.NewConn(near)
	defer c.Close()
	far.Close()

	c.WriteBinary([]byte("hello"))
	first := c.Flush()
	fmt.Println(errors.Is(first, io.ErrClosedPipe))

	_, err := c.Malloc(5)
	fmt.Println(err == first, c.Flush() == first)
	// Output:
	// true
	// true true
}

// What is pending goes first, then the file: over TCP without passing through this process,
// where the system has sendfile.
func ExampleConn_ReadFrom() {
	f, err := os.CreateTemp("", "example")
	if err != nil {
		log.Fatal(err)
	}
	defer os.Remove(f.Name())
	defer f.Close()
	f.WriteString("a file\n")
	f.Seek(0, io.SeekStart)

	near, far := net.Pipe()
	go func() {
		c := standard.NewConn(near)
		defer c.Close()
		c.WriteBinary([]byte("header, "))
		if _, err := c.ReadFrom(f); err != nil {
			log.Print(err)
		}
	}()
	b, err := io.ReadAll(far)
	fmt.Printf("%s%v\n", b, err)
	// Output:
	// header, a file
	// <nil>
}

// A peer that does not read ends a Flush at the write timeout, for good.
func ExampleConn_SetWriteTimeout() {
	near, far := net.Pipe()
	defer far.Close()
	c := standard.NewConn(near)
	defer c.Close()

	c.SetWriteTimeout(10 * time.Millisecond) // of each operation
	c.WriteBinary([]byte("hello"))
	err := c.Flush()
	var timeout net.Error
	fmt.Println(errors.Is(err, os.ErrDeadlineExceeded), errors.As(err, &timeout) && timeout.Timeout())

	c.SetWriteTimeout(time.Minute)
	fmt.Println(c.Flush() == err)
	// Output:
	// true true
	// true
}

// A deadline in the past wakes a Peek that is blocked, so the end of a context can end it
// and leave the connection usable.
func ExampleConn_SetReadDeadline() {
	near, far := net.Pipe()
	defer far.Close()
	c := standard.NewConn(near)
	defer c.Close()

	ctx, cancel := context.WithCancel(context.Background())
	stop := context.AfterFunc(ctx, func() { c.SetReadDeadline(time.Unix(1, 0)) })
	time.AfterFunc(10*time.Millisecond, cancel)
	_, err := c.Peek(1)
	fmt.Println(errors.Is(err, os.ErrDeadlineExceeded), ctx.Err())

	if !stop() { // the deadline has been set, and nobody sets it again
		c.SetReadDeadline(time.Time{})
	}
	go far.Write([]byte("hello"))
	b, err := c.Peek(5)
	fmt.Printf("%s %v\n", b, err)
	// Output:
	// true context canceled
	// hello <nil>
}

// Three requests that come together are answered with one write.
func ExampleConn_FlushSoon() {
	t := &standard.Transporter{Addr: "127.0.0.1:0", FlushDelay: time.Minute} // by default a millisecond
	ln, err := t.Listen()
	if err != nil {
		log.Fatal(err)
	}
	defer t.Close()
	go t.Serve(ln, func(_ context.Context, conn any) error {
		c := conn.(*standard.Conn)
		b, err := c.Peek(4)
		if err != nil {
			return err
		}
		c.WriteBinary(b)
		c.Skip(4)
		c.Release()
		if c.Len() > 0 {
			return c.FlushSoon() // the answer to the next request takes this one along
		}
		return c.Flush()
	})

	c, err := new(standard.Dialer).DialConnection("tcp", ln.Addr().String(), time.Second, nil)
	if err != nil {
		log.Fatal(err)
	}
	defer c.Close()
	c.Write([]byte("one.two.six."))
	b, err := c.ReadBinary(12)
	fmt.Printf("%s %v, %d writes saved\n", b, err, t.Stats().WritesSaved)
	// Output: one.two.six. <nil>, 2 writes saved
}

// A protocol that stays in OnData, here to have its state in a variable, says when it
// waits for a message. Shutdown then closes it at once, and does not wait.
func ExampleConn_SetIdle() {
	t := &standard.Transporter{Addr: "127.0.0.1:0"}
	ln, err := t.Listen()
	if err != nil {
		log.Fatal(err)
	}
	go t.Serve(ln, func(_ context.Context, conn any) error {
		c := conn.(*standard.Conn)
		for n := 1; ; n++ {
			if c.Len() == 0 { // else a message is there, and it is not idle
				c.SetIdle(true)
				_, err := c.Peek(1)
				if open := c.SetIdle(false); err != nil || !open {
					return err
				}
			}
			message, err := c.ReadBinary(c.Len())
			if err != nil {
				return err
			}
			if _, err := fmt.Fprintf(c, "%d: %s\n", n, message); err != nil {
				return err
			}
		}
	})

	c, err := new(standard.Dialer).DialConnection("tcp", ln.Addr().String(), time.Second, nil)
	if err != nil {
		log.Fatal(err)
	}
	defer c.Close()
	for range 2 {
		c.Write([]byte("hello"))
		b, err := c.ReadBinary(len("1: hello\n"))
		fmt.Printf("%s%v\n", b, err)
	}
	fmt.Println("shutdown:", t.Shutdown(context.Background()))
	// Output:
	// 1: hello
	// <nil>
	// 2: hello
	// <nil>
	// shutdown: <nil>
}
