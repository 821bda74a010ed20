package networktest

import (
	"bytes"
	"crypto/aes"
	"crypto/cipher"
	"crypto/hkdf"
	"crypto/sha256"
	"crypto/sha512"
	"crypto/tls"
	"encoding/binary"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"net"
	"runtime"
	"strings"
	"sync"
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

// L3. "A stalled peer ends at the handshake timeout, on both sides." The time limit
// that every implementation has is that of the conn, so it is the one that is set.
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

// L8. "Peek goes across records."
func peekAcrossRecords(t *tlsCheck) {
	data := pattern(200_000)
	for _, s := range t.sides() {
		e := t.connect(s, tlsOptions{})
		t.spawn(func() {
			// Each Write is a record at least.
			for rest, n := data, 1; len(rest) > 0; n = 3*n + 1 {
				n = min(n, len(rest))
				if _, err := e.peer.Write(rest[:n]); err != nil {
					return
				}
				rest = rest[n:]
			}
		})
		for _, n := range []int{2, 10, 20_000, len(data)} {
			t.step("Peek(%d) over records of 1, 4, 13 and so on bytes, as the %s", n, s.name)
			p, err := e.c.Peek(n)
			t.noError(err)
			t.equal(p, data[:n])
		}
	}
}

// L9. "Floods of empty and one-byte records do no harm": the bytes are right, memory
// does not grow with the number of records, and nothing spins for ever.
func recordFloods(t *tlsCheck) {
	n := 50_000
	if t.short {
		n = 5_000
	}
	for _, s := range t.sides() {
		joined := new(joinedConn)
		e := t.connect(s, tlsOptions{peerBeneath: func(c net.Conn) net.Conn {
			joined.Conn = c
			return joined
		}})
		data := pattern(n)
		joined.join(true)
		t.spawn(func() {
			for i := range data {
				if _, err := e.peer.Write(data[i : i+1]); err != nil {
					return
				}
			}
			joined.join(false)
		})
		t.step("%d bytes in records of one byte, read by Read, as the %s", n, s.name)
		got, buf := make([]byte, 0, n), make([]byte, 4096)
		before := uint64(0)
		for len(got) < n {
			m, err := e.c.Read(buf)
			t.expect(m > 0, "bytes", "%d after %d bytes, and %s", m, len(got), describeError(err))
			got = append(got, buf[:m]...)
			if before == 0 && len(got) >= n/100 {
				before = heapInUse()
			}
		}
		t.equal(got, data)
		const most = 8 << 20
		grown := int64(heapInUse()) - int64(before)
		t.expect(grown < most, fmt.Sprintf("less than %d MiB more in use than after %d records", most>>20, n/100), "%d MiB", grown>>20)
		runtime.KeepAlive(e)
	}
	for _, s := range t.sides() {
		e, seal := t.forged(s)
		if seal == nil {
			t.measured("floods of empty records were left out: the kit makes them for AES-GCM alone, and another cipher suite was chosen")
			return
		}
		t.step("five empty records before each of 20 bytes, as the %s", s.name)
		var wire, want []byte
		for i := range 20 {
			for range 5 {
				wire = seal.record(wire, 23, nil)
			}
			want = append(want, byte('a'+i))
			wire = seal.record(wire, 23, want[i:])
		}
		t.feed(e.far, wire)
		got, buf := []byte(nil), make([]byte, 8)
		for len(got) < len(want) {
			m, err := e.c.Read(buf)
			t.expect(m > 0, "bytes", "%d after %d bytes, and %s", m, len(got), describeError(err))
			got = append(got, buf[:m]...)
		}
		t.equal(got, want)

		t.step("Peek(1) with SetReadTimeout(300ms) while empty records come without end, as the %s", s.name)
		var stop atomic.Bool
		flood := t.spawn(func() {
			for !stop.Load() {
				wire := []byte(nil)
				for range 100 {
					wire = seal.record(wire, 23, nil)
				}
				if _, err := e.far.Write(wire); err != nil {
					return
				}
			}
		})
		t.noError(e.c.SetReadTimeout(300 * time.Millisecond))
		p, err := e.c.Peek(1)
		t.expect(err != nil && len(p) == 0, "an error, be it of a timeout or that there are too many", "%d bytes and %s", len(p), describeError(err))
		stop.Store(true)
		e.near.Close() // the flood may be blocked
		e.far.Close()
		t.wait(flood)
	}
}

func heapInUse() uint64 {
	var m runtime.MemStats
	runtime.GC()
	runtime.ReadMemStats(&m)
	return m.HeapAlloc
}

// joinedConn sends many small writes with one, as long as it is told to.
type joinedConn struct {
	net.Conn
	mu   sync.Mutex
	on   bool
	wait []byte
}

func (c *joinedConn) Write(p []byte) (int, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.wait = append(c.wait, p...)
	if c.on && len(c.wait) < 16<<10 {
		return len(p), nil
	}
	_, err := c.Conn.Write(c.wait)
	c.wait = c.wait[:0]
	return len(p), err
}

func (c *joinedConn) join(on bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.on = on
	if !on {
		_, _ = c.Conn.Write(c.wait)
		c.wait = nil
	}
}

// forged connects to a peer that writes records by a sealer, or none if the cipher
// suite is one that the sealer does not know.
func (t *tlsCheck) forged(s tlsSide) (tlsEnds, *sealer) {
	server, client := kitServerConfig(t), kitClientConfig(t)
	server.SessionTicketsDisabled = true // they would be the first records
	client.MinVersion = tls.VersionTLS13
	var log bytes.Buffer
	label := "CLIENT_TRAFFIC_SECRET_0"
	_, peers := s.configs(server, client)
	if peers == server {
		label = "SERVER_TRAFFIC_SECRET_0"
	}
	peers.KeyLogWriter = &log
	e, peerShakes := t.open(s, tlsOptions{server: server, client: client})
	h := t.handshaker(e.c)
	t.step("Handshake as the %s", s.name)
	t.noError(h.Handshake())
	t.waitErr(peerShakes)
	for line := range strings.Lines(log.String()) {
		if f := strings.Fields(line); len(f) == 3 && f[0] == label {
			secret, err := hex.DecodeString(f[2])
			t.noError(err)
			return e, newSealer(e.peer.ConnectionState().CipherSuite, secret)
		}
	}
	return e, nil
}

// sealer makes records of TLS 1.3 that crypto/tls would not (RFC 8446, sections 5.2
// and 7.3).
type sealer struct {
	aead cipher.AEAD
	iv   []byte
	seq  uint64
}

func newSealer(suite uint16, secret []byte) *sealer {
	expand := func(label string, n int) []byte {
		info := binary.BigEndian.AppendUint16(nil, uint16(n))
		info = append(info, byte(len("tls13 ")+len(label)))
		info = append(info, "tls13 "...)
		info = append(info, label...)
		info = append(info, 0)
		var p []byte
		if suite == tls.TLS_AES_128_GCM_SHA256 {
			p, _ = hkdf.Expand(sha256.New, secret, string(info), n)
		} else {
			p, _ = hkdf.Expand(sha512.New384, secret, string(info), n)
		}
		return p
	}
	size := 0
	switch suite {
	case tls.TLS_AES_128_GCM_SHA256:
		size = 16
	case tls.TLS_AES_256_GCM_SHA384:
		size = 32
	default:
		return nil
	}
	block, err := aes.NewCipher(expand("key", size))
	if err != nil {
		return nil
	}
	aead, err := cipher.NewGCM(block)
	if err != nil {
		return nil
	}
	return &sealer{aead: aead, iv: expand("iv", 12)}
}

// record appends a record of the content type kind.
func (s *sealer) record(dst []byte, kind byte, content []byte) []byte {
	inner := append(bytes.Clone(content), kind)
	header := binary.BigEndian.AppendUint16([]byte{23, 3, 3}, uint16(len(inner)+s.aead.Overhead()))
	nonce := bytes.Clone(s.iv)
	binary.BigEndian.PutUint64(nonce[4:], binary.BigEndian.Uint64(nonce[4:])^s.seq)
	s.seq++
	return s.aead.Seal(append(dst, header...), nonce, inner, header)
}

// L10. "Session resumption, mutual TLS, and a new certificate without a restart."
func sessionsAndCertificates(t *tlsCheck) {
	for _, s := range t.sides() {
		resumption(t, s)
		mutualTLS(t, s)
		if s.name == "server" {
			newCertificate(t, s)
		}
	}
}

// Connections of one config share what sessions need: the server's its ticket keys,
// the client's its cache.
func resumption(t *tlsCheck, s tlsSide) {
	server, client := kitServerConfig(t), kitClientConfig(t)
	client.ClientSessionCache = tls.NewLRUClientSessionCache(1)
	for _, version := range []uint16{tls.VersionTLS12, tls.VersionTLS13} {
		client.MaxVersion = version
		for i := range 2 {
			e := t.connect(s, tlsOptions{server: server, client: client})
			t.sends(e, []byte("hello"))
			t.feed(e.peer, []byte("hello"))
			t.arrives(e.c, []byte("hello")) // a ticket comes before it
			t.step("connection %d of two with the same configs over %s, the implementation being the %s", i+1, tls.VersionName(version), s.name)
			got, peers := t.handshaker(e.c).ConnectionState().DidResume, e.peer.ConnectionState().DidResume
			if i == 1 {
				t.expect(peers, "a session that was resumed", "a new one, by what the peer says")
				t.expect(got, "DidResume to be true", "false")
			}
			closeEnds(t, e)
		}
		client.ClientSessionCache = tls.NewLRUClientSessionCache(1)
	}
}

// closeEnds closes the peer's end, so that the implementation's Close has no reader to
// wait for.
func closeEnds(t *tlsCheck, e tlsEnds) {
	e.far.Close()
	t.step("Close after the peer has closed")
	e.c.Close()
}

func mutualTLS(t *tlsCheck, s tlsSide) {
	certs := certsOf(t)
	server, client := kitServerConfig(t), kitClientConfig(t)
	server.ClientAuth, server.ClientCAs = tls.RequireAndVerifyClientCert, certs.pool
	client.Certificates = []tls.Certificate{certs.client}
	e := t.connect(s, tlsOptions{server: server, client: client})
	t.step("ConnectionState().PeerCertificates of a client with a certificate, the implementation being the %s", s.name)
	got := e.peer.ConnectionState()
	if s.name == "server" {
		got = t.handshaker(e.c).ConnectionState()
	}
	t.expect(len(got.PeerCertificates) == 1 && got.PeerCertificates[0].Subject.CommonName == kitClientName,
		"that of "+kitClientName, "%d certificates", len(got.PeerCertificates))
	t.sends(e, []byte("hello"))
	closeEnds(t, e)
	if s.name == "client" {
		return
	}
	client = kitClientConfig(t)
	t.step("the handshake as a server that demands a certificate, with a client that has none")
	e, _, err := t.tryOpen(s, tlsOptions{server: server, client: client})
	if err == nil {
		err = t.handshaker(e.c).Handshake()
	}
	t.expect(err != nil, "an error", "none")
}

// A server asks its config for the certificate each time.
func newCertificate(t *tlsCheck, s tlsSide) {
	certs := certsOf(t)
	var current atomic.Pointer[tls.Certificate]
	server := &tls.Config{GetCertificate: func(*tls.ClientHelloInfo) (*tls.Certificate, error) { return current.Load(), nil }}
	for _, c := range []struct {
		name string
		cert *tls.Certificate
	}{{"first", &certs.server}, {"renewed", &certs.renewed}} {
		current.Store(c.cert)
		e := t.connect(s, tlsOptions{server: server})
		t.step("a connection to a server whose config's GetCertificate returns the %s certificate", c.name)
		got := e.peer.ConnectionState().PeerCertificates
		t.expect(len(got) == 1 && bytes.Equal(got[0].Raw, c.cert.Certificate[0]), "the "+c.name+" certificate", "another one")
		closeEnds(t, e)
	}
}

// W15. "A header and its body leave in one TLS record where they fit."
func headerAndBodyInOneRecord(t *tlsCheck) {
	header := pattern(200)
	for _, s := range t.sides() {
		server, client := kitServerConfig(t), kitClientConfig(t)
		// Or crypto/tls would begin with records of the size of a TCP segment.
		server.DynamicRecordSizingDisabled, client.DynamicRecordSizingDisabled = true, true
		tapped := new(tappedConn)
		e := t.connect(s, tlsOptions{server: server, client: client, beneath: func(c net.Conn) net.Conn {
			tapped.Conn = c
			return tapped
		}})
		t.sends(e, []byte("hello")) // whatever follows a handshake has left
		for _, size := range []int{800, 10_000, 16<<10 - len(header)} {
			body := pattern(size)
			tapped.take()
			t.step("Malloc(%d), WriteBinary of %d bytes and Flush, as the %s", len(header), size, s.name)
			p, err := e.c.Malloc(len(header))
			t.noError(err)
			copy(p, header)
			_, err = e.c.WriteBinary(body)
			t.noError(err)
			flushed := t.spawnErr(e.c.Flush)
			t.equal(t.receive(e.peer, len(header)+size), append(header[:len(header):len(header)], body...))
			t.waitErr(flushed)
			wire, writes := tapped.take()
			sizes := recordSizes(wire)
			t.expect(len(sizes) == 1 && writes == 1, "one record in one write", "%d records of %v bytes in %d writes", len(sizes), sizes, writes)
		}
	}
}

// tappedConn records what is written.
type tappedConn struct {
	net.Conn
	mu     sync.Mutex
	wire   []byte
	writes int
}

func (c *tappedConn) Write(p []byte) (int, error) {
	c.mu.Lock()
	c.wire = append(c.wire, p...)
	c.writes++
	c.mu.Unlock()
	return c.Conn.Write(p)
}

// take returns what was written since it was last called.
func (c *tappedConn) take() (wire []byte, writes int) {
	c.mu.Lock()
	defer c.mu.Unlock()
	wire, writes = c.wire, c.writes
	c.wire, c.writes = nil, 0
	return wire, writes
}

// recordSizes returns the lengths of TLS records (RFC 8446, section 5.1).
func recordSizes(wire []byte) []int {
	var sizes []int
	for len(wire) >= 5 {
		n := int(binary.BigEndian.Uint16(wire[3:]))
		sizes = append(sizes, n)
		wire = wire[min(5+n, len(wire)):]
	}
	return sizes
}
