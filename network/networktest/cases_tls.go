package networktest

import (
	"bytes"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net"
	"sync/atomic"
	"testing"
	"time"

	"github.com/hertznet/hertznet/network"
)

// W15 has a case for sockets, too; here it is the part about TLS records.
var tlsCases = []tlsCase{
	{"L1", 0, handshakeAgain},
	{"L2", 0, agreedOn},
	{"L3", 5 * time.Second, stalledHandshake},
	{"L4", 0, plaintextClient},
	{"L5", 0, endOfTLS},
	{"L6", 0, tlsWriteTimeout},
	{"L7", 7 * time.Second, closeWithBlockedTLSWrite},
	{"L8", 0, peekAcrossRecords},
	{"L9", 0, recordFloods},
	{"L10", 0, sessionsAndCertificates},
	{"W15", 0, headerAndBodyInOneRecord},
}

// tlsSide is the side of TLS that the implementation is on, with what puts it there
// and what makes the kit's peer: crypto/tls.
type tlsSide struct {
	name string
	put  func(tb testing.TB, c net.Conn, config *tls.Config) (network.Conn, error)
	peer func(c net.Conn, config *tls.Config) *tls.Conn
}

// sides returns those that the subject has.
func (t *tlsCheck) sides() []tlsSide {
	var all []tlsSide
	if t.subject.Client != nil {
		all = append(all, tlsSide{"client", t.subject.Client, tls.Server})
	}
	if t.subject.Server != nil {
		all = append(all, tlsSide{"server", t.subject.Server, tls.Client})
	}
	if len(all) == 0 {
		t.notApplicable("the implementation has neither side of TLS (TLS.Client and TLS.Server are nil)")
	}
	return all
}

// configs returns that of the implementation and that of the peer.
func (s tlsSide) configs(server, client *tls.Config) (own, peer *tls.Config) {
	if s.name == "server" {
		return server, client
	}
	return client, server
}

// tlsOptions say how to connect; the zero value will do.
type tlsOptions struct {
	server, client *tls.Config // nil is the kit's own

	// beneath and peerBeneath put something between TLS and the socket.
	beneath, peerBeneath func(net.Conn) net.Conn
}

// tlsEnds are two ends of a connection.
type tlsEnds struct {
	c         network.Conn // the implementation's
	peer      *tls.Conn
	near, far *net.TCPConn // the sockets
}

// open puts TLS on both ends of a TCP connection. The handshake is the peer's in a
// goroutine, and up to the implementation.
func (t *tlsCheck) open(s tlsSide, o tlsOptions) (e tlsEnds, peerShakes *opErr) {
	if o.server == nil {
		o.server = kitServerConfig(t)
	}
	if o.client == nil {
		o.client = kitClientConfig(t)
	}
	var err error
	if e, peerShakes, err = t.tryOpen(s, o); err != nil {
		t.noError(err)
	}
	return e, peerShakes
}

func (t *tlsCheck) tryOpen(s tlsSide, o tlsOptions) (e tlsEnds, peerShakes *opErr, err error) {
	e.near, e.far = tcpPair(t.check)
	own, peers := s.configs(o.server, o.client)
	var far, near net.Conn = e.far, e.near
	if o.peerBeneath != nil {
		far = o.peerBeneath(far)
	}
	if o.beneath != nil {
		near = o.beneath(near)
	}
	e.peer = s.peer(far, peers)
	peerShakes = t.spawnErr(e.peer.Handshake)
	t.step("making the implementation the %s of TLS over TCP", s.name)
	if e.c, err = s.put(t, near, own); err == nil {
		t.expect(e.c != nil, "a connection", "nil without an error")
		t.track(e.c)
	}
	return e, peerShakes, err
}

// connect does the same and waits for the handshake.
func (t *tlsCheck) connect(s tlsSide, o tlsOptions) tlsEnds {
	e, peerShakes := t.open(s, o)
	if h, ok := e.c.(network.ConnTLSer); ok {
		t.step("Handshake as the %s", s.name)
		t.noError(h.Handshake())
		t.step("the handshake with the implementation as the %s, as its peer sees it", s.name)
		t.waitErr(peerShakes)
	}
	return e
}

// handshaker is c's face for TLS.
func (t *tlsCheck) handshaker(c network.Conn) network.ConnTLSer {
	h, ok := c.(network.ConnTLSer)
	t.expect(ok, "a network.ConnTLSer", "a %T that is none", c)
	return h
}

// silent puts the implementation over a connection whose peer is silent: TLS is up
// to the case. It reports false if the factory waits for that peer, as one does that
// makes the handshake itself.
func (t *tlsCheck) silent(s tlsSide) (c network.Conn, near *watchedConn, far *net.TCPConn, ok bool) {
	x, far := tcpPair(t.check)
	near = &watchedConn{Conn: x}
	own, _ := s.configs(kitServerConfig(t), kitClientConfig(t))
	t.step("making the implementation the %s of TLS over TCP to a peer that is silent", s.name)
	made := t.spawnErr(func() (err error) {
		if c, err = s.put(t, near, own); c != nil {
			t.track(c)
		}
		return err
	})
	if !settles(made.returned) {
		x.Close()
		return nil, nil, nil, false
	}
	if made.err != nil {
		return nil, nil, nil, false
	}
	t.expect(c != nil, "a connection", "nil without an error")
	return c, near, far, true
}

// watchedConn counts the calls that have begun.
type watchedConn struct {
	net.Conn
	reads, writes atomic.Int64
}

func (c *watchedConn) Read(p []byte) (int, error) {
	c.reads.Add(1)
	return c.Conn.Read(p)
}

func (c *watchedConn) Write(p []byte) (int, error) {
	c.writes.Add(1)
	return c.Conn.Write(p)
}

func (c *watchedConn) calls() int64 { return c.reads.Load() + c.writes.Load() }

// arrives ends the check unless want is what c reads next.
func (t *tlsCheck) arrives(c network.Conn, want []byte) {
	t.step("Peek(%d) of what the peer has written", len(want))
	p, err := c.Peek(len(want))
	t.noError(err)
	t.equal(p, want)
	t.step("Skip(%d) of what was peeked, and Release", len(want))
	t.noError(c.Skip(len(want)))
	t.noError(c.Release())
}

// sends has c write p, which must arrive at the peer.
func (t *tlsCheck) sends(e tlsEnds, p []byte) {
	t.step("Write of %d bytes", len(p))
	written := t.spawnErr(func() error {
		_, err := e.c.Write(p)
		return err
	})
	t.equal(t.receive(e.peer, len(p)), p)
	t.waitErr(written)
}

// L1. "Handshake may be called again, by many at once, and costs next to nothing
// when it is done."
func handshakeAgain(t *tlsCheck) {
	for _, s := range t.sides() {
		watched := new(watchedConn)
		e, peerShakes := t.open(s, tlsOptions{beneath: func(c net.Conn) net.Conn {
			watched.Conn = c
			return watched
		}})
		h := t.handshaker(e.c)
		t.step("16 calls of Handshake at once beside a Peek(5), as the %s", s.name)
		ops := []*opErr{
			peerShakes,
			t.spawnErr(func() error {
				p, err := e.c.Peek(5)
				if err == nil && string(p) != "hello" {
					err = fmt.Errorf("Peek returned %q", p)
				}
				return err
			}),
			t.spawnErr(func() error {
				_, err := e.peer.Write([]byte("hello"))
				return err
			}),
		}
		for range 16 {
			ops = append(ops, t.spawnErr(h.Handshake))
		}
		for _, o := range ops {
			t.waitErr(o)
		}

		const many = 1000
		t.step("%d calls of Handshake when it is done, as the %s", many, s.name)
		before := watched.calls()
		best := time.Duration(maxInt)
		for range 5 {
			start := time.Now()
			for range many {
				t.noError(h.Handshake())
			}
			best = min(best, time.Since(start))
		}
		now := watched.calls()
		t.expect(now == before, "no I/O", "%d calls of the conn beneath", now-before)
		t.expect(best/many < 20*time.Microsecond || raceEnabled, "less than 20 µs for each", "%v", best/many)
	}
	if t.subject.Server == nil {
		return
	}
	near, far := tcpPair(t.check)
	t.feed(far, []byte("GET / HTTP/1.1\r\n\r\n"))
	t.step("making the implementation the server of TLS over TCP to a client that sends plain text")
	c, err := t.subject.Server(t, near, kitServerConfig(t))
	if err != nil {
		return // the factory makes the handshake
	}
	t.track(c)
	h := t.handshaker(c)
	for _, time := range []string{"first", "second", "third"} {
		t.step("the %s call of Handshake with a client that sends plain text", time)
		t.expect(h.Handshake() != nil, "an error", "none")
	}
}

// L2. "ALPN and ConnectionState tell what was agreed on."
func agreedOn(t *tlsCheck) {
	for _, s := range t.sides() {
		for _, test := range []struct {
			server, client []string
			version        uint16
			want           string
		}{
			{[]string{"h2", "http/1.1"}, []string{"http/1.1", "h2"}, tls.VersionTLS13, "h2"},
			{[]string{"http/1.1"}, []string{"h2", "http/1.1"}, tls.VersionTLS12, "http/1.1"},
			{nil, nil, tls.VersionTLS13, ""},
		} {
			server, client := kitServerConfig(t), kitClientConfig(t)
			server.NextProtos, client.NextProtos = test.server, test.client
			client.MaxVersion = test.version
			e := t.connect(s, tlsOptions{server: server, client: client})
			t.step("ConnectionState as the %s; the server knows the protocols %q and the client %q", s.name, test.server, test.client)
			got, peers := t.handshaker(e.c).ConnectionState(), e.peer.ConnectionState()
			t.expect(got.HandshakeComplete, "HandshakeComplete to be true", "false")
			t.expect(got.NegotiatedProtocol == test.want, fmt.Sprintf("NegotiatedProtocol to be %q", test.want), "%q", got.NegotiatedProtocol)
			t.expect(got.Version == test.version, tls.VersionName(test.version), "%s", tls.VersionName(got.Version))
			t.expect(got.CipherSuite == peers.CipherSuite, "the cipher suite "+tls.CipherSuiteName(peers.CipherSuite), "%s", tls.CipherSuiteName(got.CipherSuite))
			t.expect(got.ServerName == kitHost, "ServerName to be "+kitHost, "%q", got.ServerName)
			if s.name == "client" {
				n := len(got.PeerCertificates)
				t.expect(n == 1 && bytes.Equal(got.PeerCertificates[0].Raw, server.Certificates[0].Certificate[0]), "the server's certificate in PeerCertificates", "%d certificates", n)
			}
		}
	}
	for _, s := range t.sides() {
		c, near, _, ok := t.silent(s)
		if !ok {
			continue
		}
		h := t.handshaker(c)
		t.step("ConnectionState as the %s before the handshake", s.name)
		t.expect(!h.ConnectionState().HandshakeComplete, "HandshakeComplete to be false", "true")
		t.spawnErr(h.Handshake)
		settles(func() bool { return near.reads.Load() > 0 })
		t.step("ConnectionState as the %s while the handshake waits for the peer", s.name)
		complete := false
		told := t.spawn(func() { complete = h.ConnectionState().HandshakeComplete })
		t.expect(settles(told.returned), "an answer at once", "none: it waits for the handshake")
		t.expect(!complete, "HandshakeComplete to be false", "true")
	}
}

// L3. The time limit that every implementation has is that of the conn, so it is the one
// that is set.
func stalledHandshake(t *tlsCheck) {
	limit := 100 * time.Millisecond
	if t.short {
		limit = 50 * time.Millisecond
	}
	handshake := func(c network.Conn) error { return t.handshaker(c).Handshake() }
	peek := func(c network.Conn) error { _, err := c.Peek(1); return err }
	setDeadline := func(c network.Conn) error { return c.SetDeadline(time.Now().Add(limit)) }
	setReadTimeout := func(c network.Conn) error { return c.SetReadTimeout(limit) }
	setWriteTimeout := func(c network.Conn) error { return c.SetWriteTimeout(limit) }

	var calls []limitedCall
	for _, s := range t.sides() {
		if _, _, _, ok := t.silent(s); !ok {
			continue
		}
		first := byte(clientHello) // of what a peer says
		if s.name == "client" {
			first = serverHello
		}
		own, peers := s.configs(kitServerConfig(t), kitClientConfig(t))
		shake := func(far net.Conn) { _ = s.peer(far, peers).Handshake() }
		for _, test := range []struct {
			name    string
			peer    func(far net.Conn) // what the peer does; nil is nothing
			deaf    bool               // the peer takes no more than a few bytes
			set, do func(c network.Conn) error
		}{
			{"SetDeadline and Handshake, with a peer that is silent", nil, false, setDeadline, handshake},
			{"SetReadTimeout and Handshake, with a peer that is silent", nil, false, setReadTimeout, handshake},
			{"SetReadTimeout and Peek(1) without a Handshake, with a peer that is silent", nil, false, setReadTimeout, peek},
			{"SetReadTimeout and Handshake, with a peer that sends byte by byte", func(far net.Conn) { drip(far, first) }, false, setReadTimeout, handshake},
			{"SetDeadline and Handshake, with a peer that takes 20 bytes", shake, true, setDeadline, handshake},
			{"SetWriteTimeout and Handshake, with a peer that takes 20 bytes", shake, true, setWriteTimeout, handshake},
		} {
			calls = append(calls, limitedCall{
				fmt.Sprintf("%s, as the %s; the limit is %v", test.name, s.name, limit),
				func() error {
					x, far := tcpPair(t.check)
					var near net.Conn = x
					if test.deaf {
						near = FaultStalled(x, -1, 20)
					}
					c, err := s.put(t, near, own)
					if err != nil {
						return err
					}
					t.track(c)
					if err := test.set(c); err != nil {
						return err
					}
					if test.peer != nil {
						t.spawn(func() { test.peer(far) })
					}
					return test.do(c)
				},
			})
		}
	}
	if len(calls) == 0 {
		t.notApplicable("the factories make the handshake themselves, so the kit can set no limit before it")
	}
	t.timeOut(limit, calls, t.isTimeout)
}

// The types of handshake messages (RFC 8446, section 4).
const (
	clientHello = 1
	serverHello = 2
)

// drip sends a handshake message a byte at a time: the largest that fits into one
// record, so that it takes longer than anybody waits.
func drip(c net.Conn, message byte) {
	p := append([]byte{22, 3, 3, 0x40, 0, message, 0, 0x3f, 0xfc}, make([]byte, 0x3ffc)...)
	for i := range p {
		if _, err := c.Write(p[i : i+1]); err != nil {
			return
		}
		time.Sleep(3 * time.Millisecond)
	}
}

// L4. "A client that speaks plain text is a bare tls.RecordHeaderError value with
// its Conn set."
func plaintextClient(t *tlsCheck) {
	if t.subject.Server == nil {
		t.notApplicable("the implementation has no server of TLS (TLS.Server is nil)")
	}
	near, far := tcpPair(t.check)
	t.feed(far, []byte("GET / HTTP/1.1\r\nHost: localhost\r\n\r\n"))
	t.step("the handshake as the server, with a client that sends GET / HTTP/1.1 in plain text")
	c, err := t.subject.Server(t, near, kitServerConfig(t))
	if err == nil {
		t.track(c)
		err = t.handshaker(c).Handshake()
	}
	e, ok := err.(tls.RecordHeaderError)
	t.expect(ok, "a tls.RecordHeaderError by type assertion", "%s", describeError(err))
	t.expect(e.Conn != nil, "its Conn to be set", "nil")
}

// L5. "close_notify is io.EOF; a stream that is cut is io.ErrUnexpectedEOF."
func endOfTLS(t *tlsCheck) {
	for _, s := range t.sides() {
		for _, version := range []uint16{tls.VersionTLS12, tls.VersionTLS13} {
			for _, end := range []struct {
				name string
				want error
			}{
				{"close_notify", io.EOF},
				{"the end of TCP between two records", io.ErrUnexpectedEOF},
				{"the end of TCP in a record", io.ErrUnexpectedEOF},
			} {
				client := kitClientConfig(t)
				client.MaxVersion = version
				cut := new(cutConn)
				e := t.connect(s, tlsOptions{client: client, peerBeneath: func(c net.Conn) net.Conn {
					cut.Conn = c
					return cut
				}})
				t.feed(e.peer, []byte("hello"))
				t.arrives(e.c, []byte("hello"))
				t.step("%s ends by %s; the implementation is the %s", tls.VersionName(version), end.name, s.name)
				switch {
				case end.want == io.EOF:
					t.noError(e.peer.CloseWrite())
				case end.name == "the end of TCP in a record":
					cut.after.Store(20)
					_, err := e.peer.Write([]byte("of this the header and a part arrive"))
					t.noError(err)
				}
				// The rest of the socket stays open, or unread bytes would make it a reset.
				t.noError(e.far.CloseWrite())
				for range 2 {
					p, err := e.c.Peek(1)
					ok := err == end.want || end.want != io.EOF && errors.Is(err, end.want)
					t.expect(ok && len(p) == 0, fmt.Sprintf("no bytes and %q", end.want), "%d bytes and %s", len(p), describeError(err))
				}
			}
		}
	}
}

// cutConn drops what is written beyond the next after bytes, if after is not zero.
type cutConn struct {
	net.Conn
	after atomic.Int64
}

func (c *cutConn) Write(p []byte) (int, error) {
	if n := c.after.Load(); n > 0 {
		_, err := c.Conn.Write(p[:min(int(n), len(p))])
		return len(p), err
	}
	return c.Conn.Write(p)
}

// tooMuch is more than the buffers of a TCP connection hold.
const tooMuch = 16 << 20

// L6. "A write timeout is permanent once the write has begun, and the documentation
// says so. A Write whose deadline had passed before it began has cut nothing and may
// be repeated."
func tlsWriteTimeout(t *tlsCheck) {
	for _, s := range t.sides() {
		e := t.connect(s, tlsOptions{})
		t.step("SetWriteTimeout(50ms) and Write of %d bytes to a peer that does not read, as the %s", tooMuch, s.name)
		t.noError(e.c.SetWriteTimeout(50 * time.Millisecond))
		_, err := e.c.Write(make([]byte, tooMuch))
		t.isTimeout(err)
		t.noError(e.c.SetWriteTimeout(0))
		t.spawn(func() { _, _ = io.Copy(io.Discard, e.far) })
		t.step("Write after a Write that timed out half-way; the limit is lifted, and the peer reads again")
		for range 2 {
			n, err := e.c.Write([]byte("x"))
			t.expect(err != nil, "an error", "the count %d and none", n)
		}
		t.step("WriteBinary and Flush after a Write that timed out half-way")
		if _, err = e.c.WriteBinary([]byte("x")); err == nil {
			err = e.c.Flush()
		}
		t.expect(err != nil, "an error", "none")
		e.near.Close() // there is nobody who could take a close_notify
	}
	for _, s := range t.sides() {
		e := t.connect(s, tlsOptions{})
		t.step("Write after SetWriteDeadline to a second ago, as the %s", s.name)
		t.noError(e.c.SetWriteDeadline(time.Now().Add(-time.Second)))
		want := "hello"
		n, err := e.c.Write([]byte("hello"))
		if err == nil { // which T11 forbids
			want += "hello"
		} else {
			t.expect(n == 0, "the count 0", "%d with %s", n, describeError(err))
		}
		t.noError(e.c.SetWriteDeadline(time.Time{}))
		t.step("Write after one whose deadline had passed before it began, without a deadline")
		_, err = e.c.Write([]byte("hello"))
		t.noError(err)
		t.equal(t.receive(e.peer, len(want)), []byte(want))
	}
}

// L7. "Close returns though a write is blocked."
func closeWithBlockedTLSWrite(t *tlsCheck) {
	for _, s := range t.sides() {
		e := t.connect(s, tlsOptions{})
		t.step("Write of %d bytes to a peer that reads one of them, as the %s", tooMuch, s.name)
		write := t.spawnErr(func() error {
			_, err := e.c.Write(make([]byte, tooMuch))
			return err
		})
		t.expect(len(t.receive(e.peer, 1)) == 1, "a byte to arrive", "none")
		t.step("Close while a Write is blocked, as the %s", s.name)
		closed := t.spawn(func() { _ = e.c.Close() })
		t.wait(closed)
		t.step("the blocked Write, after Close has returned")
		t.wait(write.op)
		t.expect(write.err != nil, "an error", "none")
	}
}
