package tlsconn

import (
	"bytes"
	"crypto/aes"
	"crypto/cipher"
	"crypto/hkdf"
	"crypto/sha256"
	"crypto/tls"
	"encoding/binary"
	"encoding/hex"
	"io"
	"net"
	"strings"
	"sync"
	"testing"
	"time"
)

// sealer writes any records as a TLS 1.3 client, such as crypto/tls never would: it takes
// the client's secret from the key log (RFC 8446, sections 5.2 and 7.3).
type sealer struct {
	secret []byte
	aead   cipher.AEAD
	iv     []byte
	seq    uint64
}

func newSealer(t *testing.T, keyLog string) *sealer {
	t.Helper()
	var secret []byte
	for line := range strings.Lines(keyLog) {
		if f := strings.Fields(line); len(f) == 3 && f[0] == "CLIENT_TRAFFIC_SECRET_0" {
			secret, _ = hex.DecodeString(f[2])
		}
	}
	if secret == nil {
		t.Fatal("no client secret in the key log")
	}
	s := new(sealer)
	s.use(secret)
	return s
}

func (s *sealer) use(secret []byte) {
	s.secret, s.seq = secret, 0
	block, err := aes.NewCipher(s.expand("key", 16))
	if err != nil {
		panic(err)
	}
	if s.aead, err = cipher.NewGCM(block); err != nil {
		panic(err)
	}
	s.iv = s.expand("iv", 12)
}

// expand is HKDF-Expand-Label with an empty context.
func (s *sealer) expand(label string, n int) []byte {
	info := binary.BigEndian.AppendUint16(nil, uint16(n))
	info = append(info, byte(len("tls13 "+label)))
	info = append(info, "tls13 "+label...)
	info = append(info, 0)
	b, err := hkdf.Expand(sha256.New, s.secret, string(info), n)
	if err != nil {
		panic(err)
	}
	return b
}

// keyUpdate appends a KeyUpdate that asks for one in return (RFC 8446, section 4.6.3).
func (s *sealer) keyUpdate(dst []byte) []byte {
	dst = s.record(dst, 22, []byte{24, 0, 0, 1, 1})
	s.use(s.expand("traffic upd", sha256.Size))
	return dst
}

// record appends one record of type typ.
func (s *sealer) record(dst []byte, typ byte, plaintext []byte) []byte {
	inner := append(bytes.Clone(plaintext), typ)
	n := len(inner) + s.aead.Overhead()
	header := []byte{23, 3, 3, byte(n >> 8), byte(n)}
	nonce := bytes.Clone(s.iv)
	for i := range 8 {
		nonce[4+i] ^= byte(s.seq >> (56 - 8*i))
	}
	s.seq++
	return s.aead.Seal(append(dst, header...), nonce, inner, header)
}

// forge returns a server whose peer writes with a sealer, to wire, and reads with c.
func forge(t *testing.T) (s, c *Conn, wire net.Conn, seal *sealer) {
	t.Helper()
	cn, sn := tcpPair(t)
	sc, cc := devConfigs(t)
	var log bytes.Buffer
	cc.KeyLogWriter = &log
	c, s = connectWith(t, cn, sn, sc, cc)
	if c.ConnectionState().CipherSuite != tls.TLS_AES_128_GCM_SHA256 {
		t.Skip("this machine prefers another cipher suite than the test knows")
	}
	return s, c, cn, newSealer(t, log.String())
}

func TestL9_FloodOfEmptyRecords(t *testing.T) {
	s, _, wire, seal := forge(t)
	go func() {
		for {
			var b []byte
			for range 100 {
				b = seal.record(b, 23, nil)
			}
			if _, err := wire.Write(b); err != nil {
				return
			}
		}
	}()
	s.SetReadDeadline(time.Now().Add(10 * time.Second))
	for range 2 {
		n, err := s.Read(make([]byte, 10))
		if n != 0 || err == nil || isDeadline(err) || err == io.EOF {
			t.Errorf("got %d, %v, want a refusal", n, err)
		}
	}
	s.Close()
}

// A flood of warnings is refused as well.
func TestL9_FloodOfWarnings(t *testing.T) {
	s, _, wire, seal := forge(t)
	var b []byte
	for range 40 {
		b = seal.record(b, 21, []byte{1, 90}) // user_canceled: ignored, up to a point
	}
	go wire.Write(b)
	s.SetReadDeadline(time.Now().Add(10 * time.Second))
	if n, err := s.Read(make([]byte, 1)); n != 0 || err == nil || isDeadline(err) {
		t.Errorf("got %d, %v", n, err)
	}
}

// The answers to key updates, which Read sends, fall between the records of a Write, and
// those after them are under the new key: the order on the wire has to be that of
// crypto/tls.
func TestC1_KeyUpdatesBetweenTheRecordsOfAWrite(t *testing.T) {
	want := pattern(300000)
	for range 20 {
		const updates = 12 // crypto/tls takes no more than 16 in a row, and they may be
		s, c, wire, seal := forge(t)
		var wg sync.WaitGroup
		wg.Go(func() {
			for range updates {
				if _, err := s.Write(want); err != nil {
					t.Error(err)
				}
			}
		})
		wg.Go(func() {
			if b, err := readAll(s, updates); err != nil {
				t.Errorf("after %d updates: %v", len(b), err)
			}
		})
		for i := range updates {
			b := seal.keyUpdate(nil)
			b = seal.record(b, 23, []byte("."))
			if _, err := wire.Write(b); err != nil {
				t.Fatal(err)
			}
			if b, err := readAll(c, len(want)); err != nil || !bytes.Equal(b, want) {
				t.Fatalf("write %d: %v", i, err)
			}
		}
		go io.Copy(io.Discard, c)
		wg.Wait()
	}
}
