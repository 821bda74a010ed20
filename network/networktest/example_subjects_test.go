package networktest_test

import (
	"bufio"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"log"
	"net"
	"strings"
	"syscall"
	"testing"

	"github.com/hertznet/hertznet/network"
	"github.com/hertznet/hertznet/network/networktest"
	"github.com/hertznet/hertznet/standard"
	"github.com/hertznet/hertznet/tlsconn"
)

// outcomes checks a few clauses. In a test of your own it is a function such as TestConn,
// and all of them.
func outcomes(s networktest.Subject, ids ...string) {
	for _, r := range networktest.Report(s, networktest.ReportOptions{IDs: ids}) {
		fmt.Println(r.ID, r.Outcome, r.Sentence)
	}
}

// The test of an implementation, which checks every clause in a subtest of its own:
//
//	go test -run TestConn/A1 .
func ExampleTestConn() {
	wrap := func(_ testing.TB, c net.Conn) network.Conn { return standard.NewConn(c) }

	TestConn := func(t *testing.T) {
		networktest.TestConn(t, networktest.Conn{Wrap: wrap})
	}
	FuzzReader := func(f *testing.F) { networktest.FuzzReader(f, wrap) }
	FuzzWriter := func(f *testing.F) { networktest.FuzzWriter(f, wrap) }

	_, _, _ = TestConn, FuzzReader, FuzzWriter // in a file of tests they are functions
}

// A Conn that cannot be had over any net.Conn is made in pairs. Behavior says in what it
// differs and means to.
func ExampleConn() {
	mine := networktest.Conn{
		Pair: func(tb testing.TB) (a, b network.Conn) {
			x, y := net.Pipe()
			return standard.NewConn(x), networktest.Reference(y)
		},
		Behavior: networktest.Behavior{Allocates: true},
	}
	outcomes(mine, "A2", "P1")
	// Output:
	// A2 pass Appending to a Peeked slice cannot reach the stream.
	// P1 n.a. The steady state of a keep-alive exchange allocates nothing.
}

func ExampleDialer() {
	outcomes(networktest.Dialer{
		New: func(testing.TB) network.Dialer { return new(standard.Dialer) },
	}, "D2", "D6")
	// Output:
	// D2 pass A refused connection is an error and a nil interface.
	// D6 pass A connection over TLS is a ConnTLSer; one without TLS is not.
}

// The settings that a check needs are the implementation's own fields; where it has none
// for one of them, New calls tb.Skip.
func ExampleTransporter() {
	outcomes(networktest.Transporter{
		New: func(tb testing.TB, o networktest.TransporterOptions) network.Transporter {
			if o.Listener != nil {
				tb.Skip("it is not given its listener") // standard has Serve for that
			}
			return &standard.Transporter{
				Network: o.Network, Addr: o.Address, TLSConfig: o.TLS,
				ReadTimeout: o.ReadTimeout, WriteTimeout: o.WriteTimeout, IdleTimeout: o.IdleTimeout,
				OnAccept: o.OnAccept, OnConnect: o.OnConnect, MaxConns: o.MaxConns, Logger: o.Logger,
			}
		},
		NoDisconnect: true,
	}, "S1", "S17")
	// Output:
	// S1 pass Listener() is nil before there is a listener, and the listener afterwards.
	// S17 n.a. The peer's disconnect cancels the context, over TCP and TLS, within 20 ms.
}

func ExampleTLS() {
	outcomes(networktest.TLS{
		Client: func(_ testing.TB, c net.Conn, config *tls.Config) (network.Conn, error) {
			return standard.NewTLSConn(tlsconn.Client(c, config)), nil
		},
		Server: func(_ testing.TB, c net.Conn, config *tls.Config) (network.Conn, error) {
			return standard.NewTLSConn(tlsconn.Server(c, config)), nil
		},
	}, "L4")
	// Output: L4 pass A client that speaks plain text is a bare tls.RecordHeaderError value with its Conn set.
}

func ExampleStreamConn() {
	outcomes(networktest.StreamConn{
		Pair: func(_ testing.TB, o networktest.StreamOptions) (a, b network.StreamConn) {
			return networktest.StreamPipe(o)
		},
	}, "M6", "M7")
	// Output:
	// M6 pass Write after Close fails.
	// M7 pass The end of a stream is a bare `io.EOF`.
}

// The clauses of one kind of subject, without checking anything. Hertz's own transports
// break those with a star.
func ExampleClauses() {
	all := networktest.Clauses(networktest.Dialer{
		New: func(testing.TB) network.Dialer { return new(standard.Dialer) },
	})
	for _, c := range all {
		if c.Starred {
			fmt.Println(c.ID, c.Sentence)
		}
	}
	// Output:
	// D2 A refused connection is an error and a nil interface.
	// D13 DialTimeout honours its tls.Config.
}

// Reference is so plain that one can see that it is right: something to compare with.
func ExampleReference() {
	for _, wrap := range []func(net.Conn) network.Conn{
		networktest.Reference,
		func(c net.Conn) network.Conn { return standard.NewConn(c) },
	} {
		near, far := net.Pipe()
		c := wrap(near)
		go func() {
			io.WriteString(far, "hel")
			far.Close()
		}()
		b, err := c.Peek(5)
		fmt.Printf("%s %v %d\n", b, err, c.Len())
		c.Close()
	}
	// Output:
	// hel EOF 3
	// hel EOF 3
}

// A layer beneath that takes less than it was given, and says nothing.
func ExampleFaultShortWrite() {
	client, server := net.Pipe()
	defer server.Close()
	go io.Copy(io.Discard, server)

	w := bufio.NewWriter(networktest.FaultShortWrite(client, 1, 3))
	w.WriteString("hello")
	fmt.Println(w.Flush() == io.ErrShortWrite)
	// Output: true
}

// The third Write fails when it has sent two bytes, and what comes after it succeeds: who
// forgets the error sends a stream with a hole.
func ExampleFaultWriteError() {
	client, server := net.Pipe()
	got := make(chan string)
	go func() {
		b, _ := io.ReadAll(server)
		got <- string(b)
	}()
	c := networktest.FaultWriteError(client, 3, 2, syscall.EPIPE)
	for _, s := range []string{"one ", "two ", "three ", "four"} {
		if n, err := io.WriteString(c, s); err != nil {
			fmt.Println(n, errors.Is(err, syscall.EPIPE))
		}
	}
	c.Close()
	fmt.Println(<-got)
	// Output:
	// 2 true
	// one two thfour
}

// The last bytes come together with the error, which io.Reader allows and sockets never do.
func ExampleFaultDataWithError() {
	client, server := net.Pipe()
	defer server.Close()
	go io.Copy(server, strings.NewReader("hello"))

	c := networktest.FaultDataWithError(client, 5, nil) // nil stands for io.EOF
	b := make([]byte, 10)
	fmt.Println(c.Read(b))
	fmt.Println(c.Read(b))
	// Output:
	// 5 EOF
	// 0 EOF
}

// A conn that returns nothing, and no error, again and again.
func ExampleFaultEmptyReads() {
	client, server := net.Pipe()
	defer server.Close()
	if _, err := bufio.NewReader(networktest.FaultEmptyReads(client, -1)).ReadByte(); err != io.ErrNoProgress {
		log.Fatal(err)
	}
	_, err := standard.NewConn(networktest.FaultEmptyReads(client, -1)).ReadByte()
	fmt.Println(errors.Is(err, io.ErrNoProgress))
	// Output: true
}
