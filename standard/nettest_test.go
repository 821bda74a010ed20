package standard

import (
	"fmt"
	"net"
	"os"
	"os/exec"
	"slices"
	"strings"
	"testing"
	"time"

	"golang.org/x/net/nettest"
)

// bufferedPipe gives nettest both ends of a connection, buffered.
func bufferedPipe(t *testing.T, pair func(testing.TB) (a, b net.Conn)) nettest.MakePipe {
	return func() (c1, c2 net.Conn, stop func(), err error) {
		a, b := pair(t)
		c1, c2 = NewConn(a), NewConn(b)
		return c1, c2, func() { c1.Close(); c2.Close() }, nil
	}
}

// Used only through Read and Write, a Conn is a net.Conn: nettest passes 11 of 11.
func TestC11_Nettest(t *testing.T) {
	for _, s := range sockets {
		t.Run(s.name, func(t *testing.T) {
			t.Parallel()
			nettest.TestConn(t, bufferedPipe(t, s.pair))
		})
	}
}

// What nettest asks of a connection over TLS, whose writing has ended for good once a
// write timed out half-way [L6]. A bare *tls.Conn passes the first eight, and fails
// where a test writes on after a deadline that has passed. Ours looks at the deadline
// before TLS does, and passes that too: a write that has not begun has cut nothing.
// In FutureTimeout and ConcurrentMethods it is up to chance whether a deadline finds
// a write half-way.
var (
	nettestTLS = []string{
		"BasicIO", "PingPong", "RacyRead", "RacyWrite", "ReadTimeout", "WriteTimeout",
		"PresentTimeout", "CloseTimeout",
	}
	nettestOurs = append([]string{"PastTimeout"}, nettestTLS...)
)

// Over TLS a Conn passes the tests of nettest that a bare *tls.Conn passes, and one
// more. Both run in a process of their own, in which tests may fail.
func TestC11_NettestOverTLS(t *testing.T) {
	for _, kind := range []string{"ours", "crypto/tls"} {
		t.Run(kind, func(t *testing.T) {
			t.Parallel()
			exe, err := os.Executable()
			if err != nil {
				t.Skip(err)
			}
			cmd := exec.Command(exe, "-test.run=^TestNettestOverTLSChild$", "-test.v", "-test.timeout=2m")
			cmd.Env = append(os.Environ(), "HERTZNET_NETTEST="+kind)
			out, err := cmd.CombinedOutput()
			var passed, failed []string
			for line := range strings.Lines(string(out)) {
				line = strings.TrimSpace(line)
				name := line[strings.LastIndex(line, "/")+1:]
				name, _, _ = strings.Cut(name, " ")
				switch {
				case !strings.Contains(line, "TestNettestOverTLSChild/"):
				case strings.HasPrefix(line, "--- PASS: "):
					passed = append(passed, name)
				case strings.HasPrefix(line, "--- FAIL: "):
					failed = append(failed, name)
				}
			}
			want := nettestOurs
			if kind != "ours" {
				want = nettestTLS
			}
			for _, name := range want {
				if !slices.Contains(passed, name) {
					t.Errorf("%s did not pass", name)
				}
			}
			if t.Failed() {
				t.Logf("passed %q\nfailed %q\n%v\n%s", passed, failed, err, out)
			}
		})
	}
}

// TestNettestOverTLSChild is run by TestC11_NettestOverTLS.
func TestNettestOverTLSChild(t *testing.T) {
	kind := os.Getenv("HERTZNET_NETTEST")
	if kind == "" {
		t.Skip("not a test of its own")
	}
	call := 0
	nettest.TestConn(t, func() (c1, c2 net.Conn, stop func(), err error) {
		a, b := tcpPair(t)
		client, server := unshaken(t, a, b)
		c1, c2 = client, server
		if kind == "crypto/tls" {
			c1, c2 = bareTLS(t, a, b)
		}
		shaken := make(chan error, 1)
		go func() { shaken <- c2.(interface{ Handshake() error }).Handshake() }()
		err = c1.(interface{ Handshake() error }).Handshake()
		if serr := <-shaken; err != nil || serr != nil {
			return nil, nil, nil, fmt.Errorf("handshake: %v, %v", err, serr)
		}
		// A test that fails hangs before it does, for a minute if it is let.
		limit := time.Minute
		switch call++; {
		case call == 9, call == 11, call == 7 && kind != "ours":
			limit = 300 * time.Millisecond
		}
		timer := time.AfterFunc(limit, func() { a.Close(); b.Close() })
		return c1, c2, func() { timer.Stop(); c1.Close(); c2.Close() }, nil
	})
}
