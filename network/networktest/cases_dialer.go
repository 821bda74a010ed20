package networktest

import (
	"bytes"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"math"
	"net"
	"os"
	"path/filepath"
	"reflect"
	"runtime"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/hertznet/hertznet/network"
)

var dialerCases = []dialerCase{
	{"D1", 0, dialNetworks},
	{"D2", 0, refusedDials},
	{"D3", 6 * time.Second, dialTimeouts},
	{"D4", 0, dialsWithoutTimeout},
	{"D5", 0, unknownNetworks},
	{"D6", 0, dialedTypes},
	{"D7", 0, badCertificates},
	{"D8", 0, addTLSWithBufferedBytes},
	{"D9", 0, tlsInTLS},
	{"D10", 30 * time.Second, failingAddTLS},
	{"D11", 0, unchangedConfig},
	{"D12", 0, manyDials},
	{"D13", 0, dialTimeoutWithConfig},
}

// dialWay is one of the two methods that dial.
type dialWay struct {
	name string
	dial func(network, address string, timeout time.Duration, config *tls.Config) (net.Conn, error)
}

const (
	dialConnection = "DialConnection"
	dialTimeout    = "DialTimeout"
)

// dialer returns the dialer under test, and its ways to dial.
func (t *dialerCheck) dialer() (network.Dialer, []dialWay) {
	d := t.subject.New(t)
	t.expect(d != nil, "Dialer.New to return a dialer", "nil")
	return d, []dialWay{
		{dialConnection, func(network, address string, timeout time.Duration, config *tls.Config) (net.Conn, error) {
			c, err := d.DialConnection(network, address, timeout, config)
			if c == nil { // and so must the net.Conn be
				return nil, err
			}
			return c, err
		}},
		{dialTimeout, d.DialTimeout},
	}
}

// dial calls one of them. The connection will be closed, if there is one.
func (t *dialerCheck) dial(way dialWay, network, address string, timeout time.Duration, config *tls.Config) (net.Conn, error) {
	over := ""
	if config != nil {
		over = " with a tls.Config"
	}
	t.step("%s(%q, %q, %v)%s", way.name, network, address, timeout, over)
	c, err := way.dial(network, address, timeout, config)
	if c != nil {
		t.track(c)
	}
	return c, err
}

// connected is a dial that must succeed.
func (t *dialerCheck) connected(way dialWay, network, address string, config *tls.Config) net.Conn {
	c, err := t.dial(way, network, address, time.Minute, config)
	t.noError(err)
	t.expect(c != nil, "a connection", "nil without an error")
	return c
}

// plain is a connection without TLS, by DialConnection.
func (t *dialerCheck) plain(d network.Dialer, to *dialTarget) network.Conn {
	t.step("DialConnection(%q, %q, 1m0s)", "tcp", to.addr)
	c, err := d.DialConnection("tcp", to.addr, time.Minute, nil)
	t.noError(err)
	t.expect(c != nil, "a connection", "nil without an error")
	t.track(c)
	return c
}

// addTLS calls AddTLS. What it returns will be closed.
func (t *dialerCheck) addTLS(d network.Dialer, conn network.Conn, config *tls.Config) (network.Conn, error) {
	c, err := d.AddTLS(conn, config)
	if c != nil {
		t.track(c)
	}
	return c, err
}

// refusesTLS holds a dialer that has no TLS to that: each of its methods fails and
// leaves nothing open [Dialer.NoTLS].
func (t *dialerCheck) refusesTLS() {
	to := t.target("tcp", "127.0.0.1:0", t.echoTLS(kitServerConfig(t)))
	_, ways := t.dialer()
	for _, way := range ways {
		c, err := t.dial(way, "tcp", to.addr, time.Minute, kitClientConfig(t))
		t.expect(c == nil && err != nil, "an error and a nil interface, since NoTLS is declared", "%s and %s", describeConn(c), describeError(err))
	}
	t.expect(to.abandoned(0), "no connection to stay open", "%d of %d", to.open.Load(), to.accepted.Load())
}

// needsTLS ends a check that is about TLS alone, for a dialer that has none.
func (t *dialerCheck) needsTLS() {
	if t.subject.NoTLS {
		t.refusesTLS()
		t.notApplicable("the dialer has no TLS, as declared, and refuses a tls.Config")
	}
}

func describeConn(c net.Conn) string {
	if c == nil {
		return "nil"
	}
	if v := reflect.ValueOf(c); v.Kind() == reflect.Pointer && v.IsNil() {
		return fmt.Sprintf("a nil %T in an interface that is not nil", c)
	}
	return fmt.Sprintf("a %T that is not nil", c)
}

// dialTarget is a server of the kit.
type dialTarget struct {
	addr     string
	accepted atomic.Int64
	open     atomic.Int64 // connections whose end it has not seen
}

// target has serve take care of each connection that comes to an address. After it,
// what still comes is dropped until the end.
func (t *check) target(network, address string, serve func(net.Conn)) *dialTarget {
	ln, err := net.Listen(network, address)
	if err != nil {
		t.Fatal(err)
	}
	return t.targetOn(ln, serve)
}

func (t *check) targetOn(ln net.Listener, serve func(net.Conn)) *dialTarget {
	t.track(ln)
	to := &dialTarget{addr: ln.Addr().String()}
	t.spawn(func() {
		for {
			c, err := ln.Accept()
			if err != nil {
				return
			}
			t.track(c)
			to.open.Add(1)
			to.accepted.Add(1)
			t.spawn(func() {
				defer to.open.Add(-1)
				defer c.Close()
				serve(c)
				_, _ = io.Copy(io.Discard, c)
			})
		}
	})
	return to
}

// opErr is an op that has an error.
type opErr struct {
	*op
	err error
}

func (t *check) spawnErr(f func() error) *opErr {
	o := new(opErr)
	o.op = t.spawn(func() { o.err = f() })
	return o
}

// waitErr waits for o and ends the check if it has failed.
func (t *check) waitErr(o *opErr) {
	t.wait(o.op)
	t.noError(o.err)
}

// abandoned reports whether the peers of all connections, n at least, close them.
func (to *dialTarget) abandoned(n int64) bool {
	return settles(func() bool { return to.accepted.Load() >= n && to.open.Load() == 0 })
}

func echoBack(c net.Conn) { _, _ = io.Copy(c, readerOf(c)) }

// echoTLS is echoBack over TLS.
func (t *check) echoTLS(config *tls.Config) func(net.Conn) {
	return func(c net.Conn) { echoBack(tls.Server(c, config)) }
}

// sayNothing is a server that never answers.
func sayNothing(net.Conn) {}

// sayPlain is a server that does not know of TLS.
func sayPlain(c net.Conn) { _, _ = io.WriteString(c, "220 a server of plain text\r\n") }

// echoes sends p over c to a server that sends it back.
func (t *check) echoes(c net.Conn, p []byte) {
	t.step("Write of %d bytes to a server that sends them back, and Read", len(p))
	written := t.spawnErr(func() error {
		_, err := c.Write(p)
		return err
	})
	got := t.receive(c, len(p))
	if written.returned() {
		t.noError(written.err) // it says more than that nothing came back
	}
	t.equal(got, p)
	t.waitErr(written)
}

// refusedAddress is one that nobody listens on: the port of the client of another
// connection, which nobody else gets as long as that is open.
func (t *check) refusedAddress() string {
	c, _ := tcpPair(t)
	return c.LocalAddr().String()
}

// D1. "IPv4, IPv6 and unix sockets."
func dialNetworks(t *dialerCheck) {
	_, ways := t.dialer()
	for _, test := range []struct{ listen, on, network string }{
		{"tcp4", "127.0.0.1:0", "tcp4"},
		{"tcp4", "127.0.0.1:0", "tcp"},
		{"tcp6", "[::1]:0", "tcp6"},
		{"tcp6", "[::1]:0", "tcp"},
		{"unix", filepath.Join(t.TempDir(), "s"), "unix"},
	} {
		ln, err := net.Listen(test.listen, test.on)
		if err != nil && test.listen != "tcp4" {
			continue // the machine has no such network
		}
		t.noError(err)
		to := t.targetOn(ln, echoBack)
		for _, way := range ways {
			c := t.connected(way, test.network, to.addr, nil)
			t.echoes(c, []byte("hello"))
			c.Close()
		}
		ln.Close()
	}
}

// D2. "A refused connection is an error and a nil interface", and so is every other
// failure. Whether a handshake is made at all is the business of other clauses.
func refusedDials(t *dialerCheck) {
	d, ways := t.dialer()
	check := func(c net.Conn, err error, mustFail bool) {
		if err == nil && !mustFail {
			return
		}
		t.expect(err != nil && c == nil, "an error and a nil interface", "%s and %s", describeConn(c), describeError(err))
	}
	refused := t.refusedAddress()
	nobody := filepath.Join(t.TempDir(), "nobody")
	plain := t.target("tcp", "127.0.0.1:0", sayPlain)
	for _, way := range ways {
		c, err := t.dial(way, "tcp", refused, time.Minute, nil)
		check(c, err, true)
		c, err = t.dial(way, "unix", nobody, time.Minute, nil)
		check(c, err, true)
		c, err = t.dial(way, "tcp", refused, time.Minute, kitClientConfig(t))
		check(c, err, true)
		c, err = t.dial(way, "tcp", plain.addr, time.Minute, kitClientConfig(t))
		check(c, err, false)
	}
	conn := t.plain(d, plain)
	t.step("AddTLS to a server that speaks plain text")
	c, err := t.addTLS(d, conn, kitClientConfig(t))
	if err != nil { // not by check: a Conn that is nil must be so as a Conn
		t.expect(c == nil, "a nil interface with the error", "a %T that is not nil, and %s", c, describeError(err))
	}
}

// D3. "The timeout covers lookup, connect and TLS handshake together, and its error
// says Timeout()." Lookups are left out: a resolver that does not answer could only be
// had by changing one that the whole process uses.
func dialTimeouts(t *dialerCheck) {
	timeout := 100 * time.Millisecond
	if t.short {
		timeout = 30 * time.Millisecond
	}
	_, ways := t.dialer()

	// It covers no more than that: these are used when it has passed.
	type dialed struct {
		net.Conn
		name  string
		reads bool
	}
	var conns []dialed
	plain := t.target("tcp", "127.0.0.1:0", echoBack)
	secure := t.target("tcp", "127.0.0.1:0", t.echoTLS(kitServerConfig(t)))
	passed := time.Now()
	for _, way := range ways {
		for _, config := range []*tls.Config{nil, kitClientConfig(t)} {
			to, over := plain, ""
			if config != nil {
				to, over = secure, " with a tls.Config"
				if t.subject.NoTLS {
					continue
				}
			}
			limit := 2 * timeout
			c, err := t.dial(way, "tcp", to.addr, limit, config)
			for ; looksLikeTimeout(err) && limit < 2*time.Second; limit *= 2 { // the machine may be slow
				c, err = t.dial(way, "tcp", to.addr, 2*limit, config)
			}
			t.noError(err)
			conns = append(conns, dialed{
				Conn:  c,
				name:  fmt.Sprintf("a connection that %s has made%s, with a timeout of %v that has passed since", way.name, over, limit),
				reads: config == nil || way.name == dialConnection, // or it is the business of D13
			})
			if at := time.Now().Add(limit); at.After(passed) {
				passed = at
			}
		}
	}

	var calls []limitedCall
	if t.subject.NoTLS {
		t.refusesTLS()
	} else {
		silent := t.target("tcp", "127.0.0.1:0", sayNothing)
		dripping := t.target("tcp", "127.0.0.1:0", func(c net.Conn) { drip(c, serverHello) })
		for _, way := range ways {
			for _, to := range []struct {
				*dialTarget
				name string
			}{{silent, "never answers"}, {dripping, "sends TLS byte by byte"}} {
				calls = append(calls, limitedCall{
					fmt.Sprintf("%s(%v) with a tls.Config to a server that accepts and then %s", way.name, timeout, to.name),
					func() error {
						c, err := way.dial("tcp", to.addr, timeout, kitClientConfig(t))
						if err == nil && c != nil {
							t.track(c)
							if way.name == dialTimeout {
								return errSkipCall // it does not honour the config [D13]
							}
						}
						return err
					},
				})
			}
		}
	}
	if addr, ok := t.deafAddress(); ok {
		for _, way := range ways {
			calls = append(calls, limitedCall{
				fmt.Sprintf("%s(%v) to a listener whose backlog is full, so that no connect completes", way.name, timeout),
				func() error {
					c, err := way.dial("tcp", addr, timeout, nil)
					if err == nil && c != nil {
						t.track(c)
					}
					return err
				},
			})
		}
	}
	t.timeOut(timeout, calls, func(err error) {
		ne, ok := err.(net.Error)
		t.expect(ok, "a net.Error whose Timeout() is true", "%s", describeError(err))
		t.expect(ne.Timeout(), "a net.Error whose Timeout() is true", "Timeout() is false, and it is a %s", describeError(err))
	})

	time.Sleep(time.Until(passed))
	for _, c := range conns {
		t.step("Write on %s", c.name)
		_, err := c.Write([]byte("hello"))
		t.noError(err)
		if !c.reads {
			continue
		}
		t.step("Read on %s", c.name)
		p := make([]byte, 5)
		_, err = io.ReadFull(readerOf(c), p)
		t.noError(err)
		t.equal(p, []byte("hello"))
	}
}

// limitedCall is a call that a time limit has to end.
type limitedCall struct {
	name string
	call func() error
}

// errSkipCall says that there was nothing to judge.
var errSkipCall = errors.New("skip")

// timeOut makes the calls at once. None may end before the limit; to end long after it
// may be the machine's fault, and is tried again.
func (t *check) timeOut(limit time.Duration, calls []limitedCall, judge func(err error)) {
	const (
		late     = 1500 * time.Millisecond
		attempts = 3
	)
	for i := range attempts {
		ops, took := make([]*opErr, len(calls)), make([]time.Duration, len(calls))
		for i, c := range calls {
			ops[i] = t.spawnErr(func() error {
				start := time.Now()
				err := c.call()
				took[i] = time.Since(start)
				return err
			})
		}
		var again []limitedCall
		for j, c := range calls {
			t.step("%s", c.name)
			t.wait(ops[j].op)
			if ops[j].err == errSkipCall {
				continue
			}
			judge(ops[j].err)
			t.expect(took[j] >= limit, fmt.Sprint("not before ", limit), "after %v", took[j])
			t.expect(took[j] < late || i+1 < attempts, fmt.Sprintf("an end within %v, once in %d times", late, attempts), "after %v", took[j])
			if took[j] >= late {
				again = append(again, c)
			}
		}
		if calls = again; len(calls) == 0 {
			return
		}
	}
}

// deafAddress is one where a connect neither succeeds nor fails, or false if there is
// no way to it here.
func (t *check) deafAddress() (string, bool) {
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.track(ln)
	if err := shortenBacklog(ln.(*net.TCPListener)); err != nil {
		return "", false
	}
	for range 8 { // a backlog is a hint
		c, err := net.DialTimeout("tcp", ln.Addr().String(), 100*time.Millisecond)
		if err != nil {
			return ln.Addr().String(), looksLikeTimeout(err)
		}
		t.track(c)
	}
	return "", false
}

// D4. "A timeout of zero or less is none."
func dialsWithoutTimeout(t *dialerCheck) {
	_, ways := t.dialer()
	plain := t.target("tcp", "127.0.0.1:0", echoBack)
	secure := t.target("tcp", "127.0.0.1:0", func(c net.Conn) {
		time.Sleep(10 * time.Millisecond)
		t.echoTLS(kitServerConfig(t))(c)
	})
	for _, way := range ways {
		for _, timeout := range []time.Duration{0, -1, math.MinInt64} {
			c, err := t.dial(way, "tcp", plain.addr, timeout, nil)
			t.noError(err)
			t.echoes(c, []byte("hello"))
			if t.subject.NoTLS {
				continue
			}
			_, err = t.dial(way, "tcp", secure.addr, timeout, kitClientConfig(t))
			t.noError(err)
		}
	}
}

// D5. "An unknown network is an error", and so is an address that is none.
func unknownNetworks(t *dialerCheck) {
	_, ways := t.dialer()
	to := t.target("tcp", "127.0.0.1:0", echoBack)
	for _, way := range ways {
		for _, bad := range []struct{ network, address string }{
			{"tcp7", to.addr},
			{"", to.addr},
			{"tcp 4", to.addr},
			{"TCP", to.addr},
			{"tcp", "127.0.0.1"},
			{"tcp", "127.0.0.1:99999"},
			{"tcp", "127.0.0.1:-1"},
		} {
			_, err := t.dial(way, bad.network, bad.address, time.Minute, nil)
			t.expect(err != nil, "an error", "none")
		}
	}
}

// D6. "A connection over TLS is a ConnTLSer; one without TLS is not."
func dialedTypes(t *dialerCheck) {
	d, _ := t.dialer()
	plain := t.plain(d, t.target("tcp", "127.0.0.1:0", echoBack))
	_, is := plain.(network.ConnTLSer)
	t.expect(!is, "a connection that is no network.ConnTLSer", "a %T, which is one", plain)
	if t.subject.NoTLS {
		t.refusesTLS()
		return
	}
	secure := t.target("tcp", "127.0.0.1:0", t.echoTLS(kitServerConfig(t)))
	t.step("DialConnection with a tls.Config")
	c, err := d.DialConnection("tcp", secure.addr, time.Minute, kitClientConfig(t))
	t.noError(err)
	t.track(c)
	_, is = c.(network.ConnTLSer)
	t.expect(is, "a network.ConnTLSer", "a %T, which is none", c)
	conn := t.plain(d, secure)
	t.step("AddTLS")
	c, err = t.addTLS(d, conn, kitClientConfig(t))
	t.noError(err)
	_, is = c.(network.ConnTLSer)
	t.expect(is, "a network.ConnTLSer", "a %T, which is none", c)
}

// D7. "A bad certificate is crypto/tls's error, bare, and the descriptor is closed."
// That of AddTLS is the business of D10.
func badCertificates(t *dialerCheck) {
	t.needsTLS()
	d, ways := t.dialer()
	judge := func(err error) {
		_, ok := err.(*tls.CertificateVerificationError)
		t.expect(ok, "a *tls.CertificateVerificationError by type assertion", "%s", describeError(err))
	}
	otherName := kitClientConfig(t)
	otherName.ServerName = "elsewhere.networktest.example"
	for _, bad := range []struct {
		name   string
		config *tls.Config
	}{
		{"of an authority that the tls.Config does not trust", kitStrangerConfig(t)},
		{"for another name", otherName},
	} {
		for _, way := range ways {
			to := t.target("tcp", "127.0.0.1:0", t.echoTLS(kitServerConfig(t)))
			c, err := t.dial(way, "tcp", to.addr, time.Minute, bad.config)
			if err == nil && way.name == dialTimeout {
				c.Close() // it does not honour the config [D13]
				continue
			}
			t.step("%s to a server with a certificate %s", way.name, bad.name)
			judge(err)
			t.expect(to.abandoned(1), "the server to see the end of the connection", "it is open still")
		}
		conn := t.plain(d, t.target("tcp", "127.0.0.1:0", t.echoTLS(kitServerConfig(t))))
		t.step("AddTLS to a server with a certificate %s", bad.name)
		_, err := t.addTLS(d, conn, bad.config)
		judge(err)
	}
}

// D8. "AddTLS on a connection with buffered bytes loses none." A server of TLS does
// not speak first, but how its first record begins is known: it comes together with
// the proxy's answer here, and not when its turn is.
func addTLSWithBufferedBytes(t *dialerCheck) {
	t.needsTLS()
	d, _ := t.dialer()
	const answer = "OK\r\n"
	record := []byte{22, 3, 3} // a handshake record (RFC 8446, section 5.1)
	for n := range len(record) + 1 {
		to := t.target("tcp", "127.0.0.1:0", func(c net.Conn) {
			if len(t.receive(c, 9)) < 9 {
				return
			}
			_, _ = c.Write(append([]byte(answer), record[:n]...))
			echoBack(tls.Server(&headlessConn{Conn: c, drop: n}, kitServerConfig(t)))
			c.Close()
		})
		conn := t.plain(d, to)
		t.step("Write of CONNECT to a proxy")
		_, err := conn.Write([]byte("CONNECT\r\n"))
		t.noError(err)
		want := append([]byte(answer), record[:n]...)
		t.step("Peek(%d) of the proxy's answer and %d bytes of TLS", len(want), n)
		p, err := conn.Peek(len(want))
		t.noError(err)
		t.equal(p, want)
		t.noError(conn.Skip(len(answer)))
		t.expect(conn.Len() == n, fmt.Sprintf("%d bytes to be buffered", n), "%d", conn.Len())
		t.step("AddTLS on a connection with the first %d bytes of the server's first record buffered", n)
		c, err := t.addTLS(d, conn, kitClientConfig(t))
		t.noError(err)
		t.echoes(c, pattern(100_000))
	}
}

// headlessConn drops the first bytes that are written.
type headlessConn struct {
	net.Conn
	drop int
}

func (c *headlessConn) Write(p []byte) (int, error) {
	n := min(c.drop, len(p))
	c.drop -= n
	m, err := c.Conn.Write(p[n:])
	return n + m, err
}

// D9. "TLS inside of TLS works, as through an HTTPS proxy."
func tlsInTLS(t *dialerCheck) {
	t.needsTLS()
	d, _ := t.dialer()
	inner := &tls.Config{Certificates: []tls.Certificate{certsOf(t).stranger}}
	to := t.target("tcp", "127.0.0.1:0", func(c net.Conn) {
		proxy := tls.Server(c, kitServerConfig(t))
		if len(t.receive(proxy, 9)) < 9 {
			return
		}
		_, _ = proxy.Write([]byte("OK\r\n"))
		echoBack(tls.Server(proxy, inner)) // until its end, or that it is no TLS
		c.Close()
	})
	t.step("DialConnection to a proxy over TLS")
	conn, err := d.DialConnection("tcp", to.addr, time.Minute, kitClientConfig(t))
	t.noError(err)
	t.track(conn)
	t.step("CONNECT through TLS")
	_, err = conn.Write([]byte("CONNECT\r\n"))
	t.noError(err)
	p, err := conn.ReadBinary(4)
	t.noError(err)
	t.equal(p, []byte("OK\r\n"))
	t.step("AddTLS on the connection to the proxy, to a server with a certificate of another authority")
	c, err := t.addTLS(d, conn, kitStrangerConfig(t))
	t.noError(err)
	t.echoes(c, pattern(100_000))
	t.step("Close of TLS in TLS")
	c.Close()
	t.expect(to.abandoned(1), "the proxy to see the end of the connection", "it is open still")
}

// D10. "AddTLS has a time limit, and closes the connection when it fails."
//
// The limit is the dialer's own, and may be longer than anybody wants to wait here, so
// the connection is one of the kit whose deadlines come early. A dialer whose limit is
// a timer of its own is waited for, but not in a short run.
func failingAddTLS(t *dialerCheck) {
	d, _ := t.dialer()
	for _, test := range []struct {
		name   string
		serve  func(net.Conn)
		config *tls.Config
	}{
		{"with a certificate that is not trusted", t.echoTLS(kitServerConfig(t)), kitStrangerConfig(t)},
		{"that speaks plain text", sayPlain, kitClientConfig(t)},
	} {
		to := t.target("tcp", "127.0.0.1:0", test.serve)
		conn := t.plain(d, to)
		t.step("AddTLS on a connection to a server %s", test.name)
		_, err := t.addTLS(d, conn, test.config)
		t.expect(err != nil, "an error", "none")
		t.expect(to.abandoned(1), "the server to see the end of the connection", "it is open still")
		runtime.KeepAlive(conn)
	}
	if t.subject.NoTLS {
		return
	}

	near, far := tcpPair(t.check)
	hasty := &hastyConn{Conn: near}
	conn := Reference(hasty)
	t.track(conn)
	ended := t.spawn(func() { _, _ = io.Copy(io.Discard, far) })
	t.step("AddTLS on a connection to a server that never answers, without a timeout set")
	var c network.Conn
	added := t.spawnErr(func() (err error) {
		c, err = t.addTLS(d, conn, kitClientConfig(t))
		return err
	})
	if !settles(added.returned) {
		if limit, ok := hasty.limit(); ok {
			t.measured("the limit is %v; the dialer did not take an earlier timeout for it", limit)
			return
		}
		if t.short {
			t.measured("no deadline was set; whether there is another limit was not waited for")
			return
		}
		const patience = 15 * time.Second
		select {
		case <-added.done:
		case <-time.After(patience):
			t.expect(false, fmt.Sprintf("an end within %v", patience), "none, and no deadline was set on the connection")
		}
	}
	t.expect(c == nil && added.err != nil, "an error", "none")
	t.expect(settles(ended.returned), "the server to see the end of the connection", "it is open still")
	if limit, ok := hasty.limit(); ok {
		t.measured("the limit is %v", limit.Round(time.Second))
	}
}

// hastyConn has deadlines that come early.
type hastyConn struct {
	net.Conn
	mu   sync.Mutex
	last time.Duration // until the latest deadline that was set
}

func (c *hastyConn) limit() (time.Duration, bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.last, c.last > 0
}

func (c *hastyConn) early(t time.Time) time.Time {
	const soon = 30 * time.Millisecond
	left := time.Until(t)
	if t.IsZero() || left < soon {
		return t
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	c.last = max(c.last, left)
	return time.Now().Add(soon)
}

func (c *hastyConn) SetDeadline(t time.Time) error      { return c.Conn.SetDeadline(c.early(t)) }
func (c *hastyConn) SetReadDeadline(t time.Time) error  { return c.Conn.SetReadDeadline(c.early(t)) }
func (c *hastyConn) SetWriteDeadline(t time.Time) error { return c.Conn.SetWriteDeadline(c.early(t)) }

// D11. "A tls.Config is not changed; an empty ServerName is the address's host."
func unchangedConfig(t *dialerCheck) {
	t.needsTLS()
	d, ways := t.dialer()
	to := t.target("tcp", "127.0.0.1:0", t.echoTLS(kitServerConfig(t)))

	// With room behind the slices, where an append would not show in their length.
	config := kitClientConfig(t)
	config.ServerName = ""
	config.NextProtos = append(make([]string, 0, 4), "h2", "http/1.1")
	config.Certificates = append(make([]tls.Certificate, 0, 4), certsOf(t).client)
	config.CurvePreferences = append(make([]tls.CurveID, 0, 4), tls.X25519, tls.CurveP256)
	before := configFields(config)
	protos := slices.Clone(config.NextProtos[:cap(config.NextProtos)])
	unchanged := func() {
		for name, value := range configFields(config) {
			t.expect(reflect.DeepEqual(value, before[name]), fmt.Sprintf("the config's %s to stay %v", name, before[name]), "%v", value)
		}
		got := config.NextProtos[:cap(config.NextProtos)]
		t.expect(slices.Equal(got, protos), fmt.Sprintf("the memory behind NextProtos to stay %q", protos), "%q", got)
	}
	for _, way := range ways {
		t.step("two calls of %s at once with one tls.Config", way.name)
		var wg []*opErr
		for range 2 {
			wg = append(wg, t.spawnErr(func() error {
				c, err := way.dial("tcp", to.addr, time.Minute, config)
				if c != nil && err == nil {
					t.track(c)
				}
				return err
			}))
		}
		for _, o := range wg {
			t.wait(o.op)
		}
		unchanged()
		for _, o := range wg {
			t.expect(o.err == nil, "no error with 127.0.0.1 for a ServerName", "%s", describeError(o.err))
		}
		t.step("%s to a port that nobody listens on, with a tls.Config", way.name)
		c, err := way.dial("tcp", t.refusedAddress(), time.Minute, config)
		if c != nil && err == nil {
			t.track(c)
		}
		unchanged()
	}
	conn := t.plain(d, to)
	t.step("AddTLS with a tls.Config without a ServerName")
	_, _ = t.addTLS(d, conn, config)
	unchanged()

	// The name that is sent, and verified.
	server := kitServerConfig(t)
	names := make(chan string, 100)
	server.GetConfigForClient = func(hello *tls.ClientHelloInfo) (*tls.Config, error) {
		names <- hello.ServerName
		return nil, nil
	}
	to = t.target("tcp", "127.0.0.1:0", t.echoTLS(server))
	_, port, _ := net.SplitHostPort(to.addr)
	for _, test := range []struct{ host, name, want string }{
		{"localhost", "", "localhost"},
		{"localhost", kitOtherHost, kitOtherHost},
		{"127.0.0.1", "", ""}, // an IP address is verified, but not sent (RFC 6066, section 3)
		{"127.0.0.1", kitOtherHost, kitOtherHost},
	} {
		if ips, err := net.LookupHost(test.host); err != nil || !slices.Contains(ips, "127.0.0.1") {
			continue
		}
		config := kitClientConfig(t)
		config.ServerName = test.name
		c := t.connected(ways[0], "tcp", net.JoinHostPort(test.host, port), config)
		t.step("DialConnection to %s with the ServerName %q, and Write of hello", test.host, test.name)
		_, err := c.Write([]byte("hello"))
		t.noError(err)
		t.equal(t.receive(c, 5), []byte("hello"))
		got := <-names
		t.expect(got == test.want, fmt.Sprintf("the server to be asked for the name %q", test.want), "%q", got)
	}
	elsewhere := t.target("tcp", "127.0.0.1:0", t.echoTLS(&tls.Config{Certificates: []tls.Certificate{certsOf(t).elsewhere}}))
	config = kitClientConfig(t)
	config.ServerName = ""
	c, err := t.dial(ways[0], "tcp", elsewhere.addr, time.Minute, config)
	if err == nil { // the handshake may be left to the first write
		_, err = c.Write([]byte("hello"))
	}
	t.step("DialConnection without a ServerName to a server whose certificate is for another host")
	t.expect(err != nil, "an error", "none")
}

// configFields returns the fields of a config; of functions, whether they are there.
func configFields(config *tls.Config) map[string]any {
	fields := map[string]any{}
	v := reflect.ValueOf(config).Elem()
	for i := range v.NumField() {
		f := v.Type().Field(i)
		switch {
		case !f.IsExported():
		case f.Type.Kind() == reflect.Func:
			fields[f.Name] = !v.Field(i).IsNil()
		case f.Type.Kind() == reflect.Slice:
			fields[f.Name] = reflect.AppendSlice(reflect.MakeSlice(f.Type, 0, 0), v.Field(i)).Interface()
		default:
			fields[f.Name] = v.Field(i).Interface()
		}
	}
	return fields
}

// D12. "A hundred dials at once leak no descriptor", failing ones among them.
func manyDials(t *dialerCheck) {
	_, ways := t.dialer()
	plain := t.target("tcp", "127.0.0.1:0", echoBack)
	secure := t.target("tcp", "127.0.0.1:0", t.echoTLS(kitServerConfig(t)))
	silent := t.target("tcp", "127.0.0.1:0", sayNothing)
	refused := t.refusedAddress()
	trusting, stranger := kitClientConfig(t), kitStrangerConfig(t)
	kinds := []struct {
		name    string
		addr    string
		config  *tls.Config
		timeout time.Duration
		works   bool
	}{
		{"to a server", plain.addr, nil, time.Minute, true},
		{"that is refused", refused, nil, time.Minute, false},
		{"to a server of TLS", secure.addr, trusting, time.Minute, true},
		{"to a server of TLS that is not trusted", secure.addr, stranger, time.Minute, false},
		{"to a server that never answers", silent.addr, trusting, 50 * time.Millisecond, false},
		{"to a server that sends back the hello of TLS", plain.addr, trusting, time.Minute, false},
	}
	if t.subject.NoTLS {
		kinds = kinds[:2]
	}
	dial := func(i int) error {
		way, kind := ways[i/len(kinds)%2], kinds[i%len(kinds)]
		c, err := way.dial("tcp", kind.addr, kind.timeout, kind.config)
		switch {
		case err != nil && kind.works:
			return fmt.Errorf("%s %s: %w", way.name, kind.name, err)
		case err != nil:
			return nil
		case c == nil:
			return fmt.Errorf("%s %s: nil without an error", way.name, kind.name)
		}
		defer c.Close()
		t.track(c)
		if !kind.works || kind.config != nil && way.name == dialTimeout {
			return nil // the business of D3, D7 and D13
		}
		want := fmt.Sprintf("hello %3d", i)
		if _, err := c.Write([]byte(want)); err != nil {
			return fmt.Errorf("%s %s: %w", way.name, kind.name, err)
		}
		if got := t.receive(c, len(want)); string(got) != want {
			return fmt.Errorf("%s %s: sent %q and got back %q", way.name, kind.name, want, got)
		}
		return nil
	}
	gone := func() {
		for _, to := range []*dialTarget{plain, secure, silent} {
			t.expect(to.abandoned(0), "no connection to stay open", "%d of %d", to.open.Load(), to.accepted.Load())
		}
	}
	t.step("a dial of each kind")
	for i := range 2 * len(kinds) { // an implementation may open something once for all
		t.noError(dial(i))
	}
	gone()
	before := countDescriptors()
	t.step("a hundred dials at once, some of which fail")
	var dials []*opErr
	for i := range 100 {
		dials = append(dials, t.spawnErr(func() error { return dial(i) }))
	}
	for _, o := range dials {
		t.waitErr(o)
	}
	gone()
	// Other parts of the process may have opened a few meanwhile.
	const few = 8
	ok := settles(func() bool { return countDescriptors() <= before+few })
	t.expect(ok, fmt.Sprintf("about %d descriptors, as before", before), "%d", countDescriptors())
}

// countDescriptors returns how many descriptors the process has, or 0 where the system
// does not tell.
func countDescriptors() int {
	all, err := os.ReadDir("/proc/self/fd")
	if err != nil {
		return 0
	}
	return len(all)
}

// D13. "DialTimeout honours its tls.Config": what it sends is encrypted, and whom it
// trusts is up to the config.
func dialTimeoutWithConfig(t *dialerCheck) {
	if t.subject.NoTLS {
		t.refusesTLS()
		return
	}
	d, _ := t.dialer()
	var hello bytes.Buffer // what the client sent first
	first := make(chan struct{})
	config := kitServerConfig(t)
	to := t.target("tcp", "127.0.0.1:0", func(c net.Conn) {
		p := make([]byte, 1)
		_, _ = c.Read(p)
		hello.Write(p)
		close(first)
		echoBack(tls.Server(&prefixedConn{Conn: c, prefix: p}, config))
	})
	t.step("DialTimeout(%q, %q, 1m0s) with a tls.Config", "tcp", to.addr)
	c, err := d.DialTimeout("tcp", to.addr, time.Minute, kitClientConfig(t))
	t.noError(err)
	t.expect(c != nil, "a connection", "nil without an error")
	t.track(c)
	t.step("Write of hello on what DialTimeout with a tls.Config has returned")
	_, err = c.Write([]byte("hello"))
	t.noError(err)
	select {
	case <-first:
	case <-t.Context().Done(): // nothing came
		runtime.Goexit()
	}
	t.expect(hello.Bytes()[0] == 22, "a record of TLS on the wire", "the byte %q", hello.Bytes())
	t.equal(t.receive(c, 5), []byte("hello"))

	secure := t.target("tcp", "127.0.0.1:0", t.echoTLS(config))
	t.step("DialTimeout with a tls.Config that does not trust the server")
	c, err = d.DialTimeout("tcp", secure.addr, time.Minute, kitStrangerConfig(t))
	if err == nil {
		t.track(c)
		_, err = c.Write([]byte("hello")) // the handshake may be left to it
	}
	t.expect(err != nil, "an error", "none")
}

// prefixedConn reads prefix first.
type prefixedConn struct {
	net.Conn
	prefix []byte
}

func (c *prefixedConn) Read(p []byte) (int, error) {
	if len(c.prefix) > 0 {
		n := copy(p, c.prefix)
		c.prefix = c.prefix[n:]
		return n, nil
	}
	return c.Conn.Read(p)
}
