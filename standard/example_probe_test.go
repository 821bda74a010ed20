//go:build unix

package standard_test

import (
	"fmt"
	"log"
	"net"
	"time"

	"github.com/hertznet/hertznet/standard"
)

// A connection from a pool is looked at before a request is sent on it, which may not be
// sent twice.
func ExampleConn_Probe() {
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		log.Fatal(err)
	}
	defer ln.Close()
	nc, err := net.Dial("tcp", ln.Addr().String())
	if err != nil {
		log.Fatal(err)
	}
	c := standard.NewConn(nc)
	defer c.Close()
	peer, err := ln.Accept()
	if err != nil {
		log.Fatal(err)
	}
	fmt.Println(c.Probe())

	peer.Close()
	for range 1000 { // it takes a moment to arrive
		if readable, ended := c.Probe(); ended {
			fmt.Println(readable, ended)
			return
		}
		time.Sleep(time.Millisecond)
	}
	// Output:
	// false false
	// true true
}
