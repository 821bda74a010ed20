package networktest

import (
	"crypto/tls"
	"fmt"
	"io"
	"net"
	"runtime"
	"sync"
	"time"

	"github.com/hertznet/hertznet/network"
)

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
