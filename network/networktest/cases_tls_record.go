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
	"fmt"
	"net"
	"runtime"
	"strings"
	"sync"
	"sync/atomic"
	"time"
)

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
