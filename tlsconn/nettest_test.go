package tlsconn

import (
	"context"
	"crypto/tls"
	"net"
	"os"
	"os/exec"
	"strings"
	"testing"
	"time"

	"golang.org/x/net/nettest"
)

// nettestCases are the eleven of nettest.TestConn. Three of them write again after a write
// timeout, which TLS cannot once the write has begun [L6]; *tls.Conn cannot even if it has
// not, as the test shows. Whether a deadline finds a write half-way is up to chance in two of
// them, so nothing is asked of those.
var nettestCases = []struct {
	name  string
	plain bool // *tls.Conn passes
	ours  bool
}{
	{"BasicIO", true, true},
	{"PingPong", true, true},
	{"RacyRead", true, true},
	{"RacyWrite", true, true},
	{"ReadTimeout", true, true},
	{"WriteTimeout", true, true},
	{"PastTimeout", false, true},
	{"PresentTimeout", true, true},
	{"FutureTimeout", false, false},
	{"CloseTimeout", true, true},
	{"ConcurrentMethods", false, false},
}

const nettestEnv = "TLSCONN_NETTEST"

// TestNettestChild runs nettest.TestConn in a process of its own, where failures are
// expected and may hang.
func TestNettestChild(t *testing.T) {
	kind := os.Getenv(nettestEnv)
	if kind == "" {
		t.Skip("started by TestC11_Nettest")
	}
	sc, cc := devConfigs(t)
	nettest.TestConn(t, func() (c1, c2 net.Conn, stop func(), err error) {
		cn, sn := tcpPair(t)
		type conn interface {
			net.Conn
			Handshake() error
		}
		var c, s conn
		if kind == "ours" {
			c, s = Client(cn, cc), Server(sn, sc)
		} else {
			c, s = tls.Client(cn, cc), tls.Server(sn, sc)
		}
		shake(t, c, s)
		return c, s, func() { c.Close(); s.Close() }, nil
	})
}

func TestC11_Nettest(t *testing.T) {
	exe, err := os.Executable()
	if err != nil {
		t.Skip(err)
	}
	run := func(kind, name string, limit time.Duration) (string, bool) {
		ctx, cancel := context.WithTimeout(t.Context(), limit)
		defer cancel()
		cmd := exec.CommandContext(ctx, exe, "-test.run=^TestNettestChild$/^("+name+")$", "-test.v")
		cmd.Env = append(os.Environ(), nettestEnv+"="+kind)
		out, err := cmd.CombinedOutput()
		return string(out), err == nil
	}
	passing := func(kind string) (names []string) {
		for _, c := range nettestCases {
			if c.plain && !c.ours {
				t.Errorf("%s: *tls.Conn passes, so ours has to", c.name)
			}
			if kind == "ours" && c.ours || kind == "plain" && c.plain {
				names = append(names, c.name)
			}
		}
		return names
	}
	// *tls.Conn gets more attempts: its Close may report that the peer closed first.
	for kind, attempts := range map[string]int{"ours": 1, "plain": 3} {
		names := passing(kind)
		t.Run("pass/"+kind, func(t *testing.T) {
			t.Parallel()
			var out string
			ok := false
			for i := 0; i < attempts && !ok; i++ {
				out, ok = run(kind, strings.Join(names, "|"), 2*time.Minute)
			}
			if !ok {
				t.Errorf("%s", out)
			}
			for _, name := range names {
				if !strings.Contains(out, "--- PASS: TestNettestChild/"+name+" ") {
					t.Errorf("%s did not run", name)
				}
			}
		})
	}
	for _, c := range nettestCases {
		if c.plain || !c.ours {
			continue
		}
		t.Run("fail/plain/"+c.name, func(t *testing.T) {
			if testing.Short() {
				t.Skip("waits for a test that hangs")
			}
			t.Parallel()
			// After its first error nettest waits for bytes that never come.
			if _, ok := run("plain", c.name, 2*time.Second); ok {
				t.Errorf("%s passes now: correct the table", c.name)
			}
		})
	}
}
