package tlsconn

import (
	"bytes"
	"errors"
	"net"
	"testing"
	"time"
)

// memory is a net.Conn that keeps what it is given, up to a limit.
type memory struct {
	net.Conn
	b     bytes.Buffer
	calls int
	limit int
}

var errFull = errors.New("full")

func (m *memory) Write(p []byte) (int, error) {
	m.calls++
	if m.b.Len()+len(p) > m.limit {
		n, _ := m.b.Write(p[:m.limit-m.b.Len()])
		return n, errFull
	}
	return m.b.Write(p)
}

// More than pendingSize between expect and flush goes out early and in order, in bounded
// memory.
func TestW11_PendingIsBounded(t *testing.T) {
	m := &memory{limit: 1 << 30}
	l := &layer{raw: m}
	var want []byte
	l.expect(1 << 20)
	for i, size := range []int{1000, pendingSize - 1000, 1, 5000, pendingSize + 1, 7, pendingSize} {
		p := bytes.Repeat([]byte{byte(i)}, size)
		want = append(want, p...)
		if n, err := l.Write(p); n != size || err != nil {
			t.Fatal(n, err)
		}
		if l.accepted() != len(want) {
			t.Errorf("accepted %d, want %d", l.accepted(), len(want))
		}
	}
	sent, err := l.flush()
	if sent != len(want) || err != nil || !bytes.Equal(m.b.Bytes(), want) {
		t.Errorf("sent %d, %v", sent, err)
	}
	if m.calls != 5 || l.block != nil {
		t.Errorf("%d calls, block is %v", m.calls, l.block != nil)
	}
}

func TestW8_NothingFollowsAFailedWrite(t *testing.T) {
	for limit := range 4 * 1000 {
		m := &memory{limit: limit}
		l := &layer{raw: m}
		l.expect(1 << 20)
		for range 4 {
			l.Write(make([]byte, 1000))
		}
		if sent, err := l.flush(); sent != limit || err != errFull {
			t.Fatalf("limit %d: sent %d, %v", limit, sent, err)
		}
		m.limit = 1 << 30
		if n, err := l.Write([]byte("x")); n != 0 || err != errFull || m.calls != 1 {
			t.Fatalf("limit %d: %d, %v, %d calls", limit, n, err, m.calls)
		}
	}
}

// The conn that crypto/tls hands out is a net.Conn with working deadlines.
func TestLayerDeadlines(t *testing.T) {
	near, far := net.Pipe()
	defer far.Close()
	l := &layer{raw: near}
	past := time.Unix(1, 0)
	for name, set := range map[string]func(time.Time) error{
		"both":  l.SetDeadline,
		"read":  l.SetReadDeadline,
		"write": l.SetWriteDeadline,
	} {
		l.SetDeadline(time.Time{})
		if err := set(past); err != nil {
			t.Fatal(err)
		}
		if name != "write" {
			_, err := l.Read(make([]byte, 1))
			wantTimeout(t, err)
		}
		if name != "read" {
			_, err := (&layer{raw: near}).Write([]byte("x"))
			wantTimeout(t, err)
		}
	}
	if n, err := l.Read(nil); n != 0 || err != nil {
		t.Error(n, err)
	}
}

// Who has completed the handshake may read and write at once, free of its budget, though others
// still wait to hear of it.
func TestL3_FirstToCompleteEndsTheBudget(t *testing.T) {
	near, far := net.Pipe()
	defer far.Close()
	l := &layer{raw: near}
	l.setBudget(time.Hour)
	l.beginHandshake()
	l.beginHandshake()
	if l.limit().IsZero() {
		t.Error("no budget during the handshake")
	}
	l.endHandshake(true)
	if !l.limit().IsZero() {
		t.Error("the budget outlives the handshake")
	}
	l.endHandshake(true)
}
