package networktest

import (
	"bytes"
	"crypto/tls"
	"fmt"
	"io"
	"net"
	"os"
	"path/filepath"
	"reflect"
	"runtime"
	"slices"
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
	if ln, err := net.Listen("tcp6", "[::1]:0"); err == nil {
		ln.Close()
		to := t.target("tcp6", "[::1]:0", t.echoTLS(kitServerConfig(t)))
		config := kitClientConfig(t)
		config.ServerName = ""
		c := t.connected(ways[0], "tcp", to.addr, config)
		t.step("DialConnection to %s with no ServerName, and Write of hello", to.addr)
		_, err := c.Write([]byte("hello"))
		t.noError(err)
		t.equal(t.receive(c, 5), []byte("hello"))
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
