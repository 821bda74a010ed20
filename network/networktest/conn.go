package networktest

import (
	"net"
	"testing"
	"time"

	"github.com/hertznet/hertznet/network"
)

// Conn says how to make connections of the implementation under test. Either of
// its two factories may be nil, but not both; Pair is then made from Wrap.
//
// A factory gets a tb of its own for each check, whose Name is the clause's id, and
// must use that one, not the *testing.T around it. It fails the check by tb.Fatal,
// and says by tb.Skip that what is checked does not apply to the implementation.
// Everything it opens besides the connections it must close in a tb.Cleanup; the
// connections the kit closes.
type Conn struct {
	// Wrap puts the implementation over c, which may be a socket, a net.Pipe, or a
	// net.Conn of the kit that misbehaves. nil says that the implementation cannot do
	// that, as one that needs a descriptor; group F and all other cases with a conn
	// of the kit beneath are then reported as not applicable.
	Wrap func(tb testing.TB, c net.Conn) network.Conn

	// Pair returns two ends of one connection, over whatever lies beneath in real
	// use: TCP, a unix socket, TLS after its handshake. The kit judges a, with b as its
	// peer. If b has the methods CloseWrite() error and SetLinger(int) error, they are
	// used for a half-close and a reset. An implementation that has one end only may
	// return [Reference] of the other one as b.
	Pair func(tb testing.TB) (a, b network.Conn)

	// Behavior declares where the implementation differs from the contract and is
	// within its rights.
	Behavior Behavior
}

// Behavior declares legitimate differences from the contract. A case whose
// difference is declared checks that the implementation does differ, in the way
// that the field's comment says: a wrong declaration fails. The zero value
// declares nothing.
type Behavior struct {
	// OneShotReadTimeout says that SetReadTimeout sets one moment for all reads from
	// now on, as SetReadDeadline does, where the contract gives each its own [T4].
	OneShotReadTimeout bool

	// SkipWithinBuffer says that Skip(n) with n > Len() is an error and skips
	// nothing, where the contract reads and drops the rest [R15].
	SkipWithinBuffer bool

	// CopiesWriteBinary says that WriteBinary copies its argument however long it
	// is, where the contract borrows long ones [A11].
	CopiesWriteBinary bool

	// Allocates says that the steady state of an exchange allocates [P1].
	Allocates bool

	// PermanentWriteTimeout says that after a write that timed out half-way no other
	// one succeeds, as with TLS [L6].
	PermanentWriteTimeout bool
}

// TestConn checks every clause of the contract that speaks of a network.Conn, as
// a subtest that is named by the clause: go test -run 'TestConn/R6$'.
func TestConn(t *testing.T, c Conn) { test(t, c) }

// connCheck is a check of a Conn.
type connCheck struct {
	*check
	subject Conn
}

// connCase is a case that judges a Conn.
type connCase struct {
	id    string
	limit time.Duration // 0 is defaultLimit
	run   func(t *connCheck)
}

func (c Conn) cases() []boundCase {
	if c.Wrap == nil && c.Pair == nil {
		panic("networktest: a Conn needs Wrap or Pair")
	}
	var all []boundCase
	for _, group := range [][]connCase{readerCases, aliasCases, writerCases, timeoutCases, closeCases, faultCases, modelCases, resourceCases} {
		for _, k := range group {
			all = append(all, boundCase{k.id, k.limit, func(t *check) { k.run(&connCheck{t, c}) }})
		}
	}
	return all
}

// behavior is what the subject declares.
func (t *connCheck) behavior() Behavior { return t.subject.Behavior }

// pair returns the connection that is judged and its peer.
func (t *connCheck) pair() (a, b network.Conn) {
	if t.subject.Pair == nil {
		x, y := tcpPair(t.check)
		return t.wrap(x), t.wrap(y)
	}
	a, b = t.subject.Pair(t)
	if a == nil || b == nil {
		t.Fatal("Conn.Pair returned a nil connection")
	}
	t.track(a)
	t.track(b)
	return a, b
}

// canWrap reports whether wrap can be used, for cases that do more where it can.
func (t *connCheck) canWrap() bool { return t.subject.Wrap != nil }

// wrap puts the implementation over nc. Where there is no way to, the case does
// not apply.
func (t *connCheck) wrap(nc net.Conn) network.Conn {
	if t.subject.Wrap == nil {
		t.notApplicable("the implementation cannot be put over a net.Conn of the kit (Conn.Wrap is nil)")
	}
	c := t.subject.Wrap(t, nc)
	if c == nil {
		t.Fatal("Conn.Wrap returned nil")
	}
	t.track(c)
	t.track(nc)
	return c
}

// scripted puts the implementation over a scriptConn with the reads given.
func (t *connCheck) scripted(reads ...Step) (network.Conn, *scriptConn) {
	s := &scriptConn{reads: reads}
	return t.wrap(s), s
}

// tcpPair returns two ends of a TCP connection on the loopback.
func tcpPair(t *check) (a, b *net.TCPConn) {
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer ln.Close()
	accepted := make(chan net.Conn, 1)
	go func() {
		c, _ := ln.Accept()
		accepted <- c
	}()
	x, err := net.Dial("tcp", ln.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	t.track(x)
	y := <-accepted
	if y == nil {
		t.Fatal("accept failed")
	}
	t.track(y)
	return x.(*net.TCPConn), y.(*net.TCPConn)
}

// The operations, with a step that names them and what every caller wants to
// hold. A case about an operation's own errors calls it itself.

// peek returns the next bytes of c, which must be want.
func (t *connCheck) peek(c network.Conn, want []byte) []byte {
	t.step("Peek(%d) with %d bytes buffered", len(want), c.Len())
	b, err := c.Peek(len(want))
	t.noError(err)
	t.equal(b, want)
	return b
}

func (t *connCheck) skip(c network.Conn, n int) {
	t.step("Skip(%d) with %d bytes buffered", n, c.Len())
	t.noError(c.Skip(n))
}

func (t *connCheck) release(c network.Conn) {
	t.step("Release with %d bytes buffered", c.Len())
	t.noError(c.Release())
}

// malloc reserves len(p) bytes of output and fills them with p.
func (t *connCheck) malloc(c network.Conn, p []byte) []byte {
	t.step("Malloc(%d)", len(p))
	b, err := c.Malloc(len(p))
	t.noError(err)
	t.expect(len(b) == len(p), "as many bytes", "%d bytes", len(b))
	copy(b, p)
	return b
}

func (t *connCheck) writeBinary(c network.Conn, p []byte) {
	t.step("WriteBinary of %d bytes", len(p))
	n, err := c.WriteBinary(p)
	t.noError(err)
	t.expect(n == len(p), "the count of all of them", "%d", n)
}

func (t *connCheck) flush(c network.Conn) {
	t.step("Flush")
	t.noError(c.Flush())
}
