package networktest_test

import (
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"strings"
	"time"

	"github.com/hertznet/hertznet/network/networktest"
)

// A reader of lines is tried on a connection that brings one byte at a time and
// is reset in the middle of a line.
func Example_faults() {
	client, server := net.Pipe()
	defer server.Close()
	go func() { _, _ = io.Copy(server, strings.NewReader("first\nsecond\n")) }()

	c := networktest.FaultReset(networktest.FaultOneByte(client), 9)
	defer c.Close()
	var line []byte
	for p := make([]byte, 100); ; {
		n, err := c.Read(p)
		line = append(line, p[:n]...)
		if err != nil {
			var op *net.OpError
			fmt.Printf("%q, then %v\n", line, errors.As(err, &op))
			return
		}
	}
	// Output: "first\nsec", then true
}

// A peer that stops reading ends a write at its deadline, and the count is exact.
func ExampleFaultStalled() {
	client, server := net.Pipe()
	defer server.Close()
	go func() { _, _ = io.Copy(io.Discard, server) }()

	c := networktest.FaultStalled(client, -1, 4)
	defer c.Close()
	_ = c.SetWriteDeadline(time.Now().Add(10 * time.Millisecond))
	n, err := c.Write([]byte("stalled"))
	fmt.Println(n, errors.Is(err, os.ErrDeadlineExceeded))
	// Output: 4 true
}

// A script gives the exact answers that a test is about.
func ExampleFaultScript() {
	client, server := net.Pipe()
	defer client.Close()
	defer server.Close()

	c := networktest.FaultScript(client, []networktest.Step{
		{Data: []byte("hello")},
		{},                                // nothing, without an error
		{Data: []byte("!"), Err: io.EOF},  // data together with the end
		{N: -1, Exact: true, Err: io.EOF}, // a count that cannot be
	}, nil)
	p := make([]byte, 10)
	for range 4 {
		fmt.Println(c.Read(p))
	}
	// Output:
	// 5 <nil>
	// 0 <nil>
	// 1 EOF
	// -1 EOF
}
