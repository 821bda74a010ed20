package networktest

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"slices"
	"sync"
	"sync/atomic"
	"testing"

	"github.com/hertznet/hertznet/network"
)

var readerMutants = []mutant{
	{
		id: "R1", what: "an error that came with data is told before the data",
		// There a conn returns its last bytes with the error.
		also: []string{"R27"},
		wrap: func(nc net.Conn) network.Conn {
			w := &lastErrConn{Conn: nc}
			return alter(w, func(c network.Conn, m *altered) {
				m.peek = func(n int) ([]byte, error) {
					if n <= c.Len() && w.withData != nil {
						return nil, w.withData
					}
					return c.Peek(n)
				}
			})
		},
	},
	{
		id: "R2", what: "Peek gives up after a hundred reads",
		wrap: altering(func(c network.Conn, m *altered) {
			m.peek = func(n int) ([]byte, error) {
				if n < 0 || n > 100_000 {
					return c.Peek(n) // which is the business of T12
				}
				for range 100 {
					if c.Len() >= n {
						break
					}
					if p, err := c.Peek(c.Len() + 1); err != nil {
						return p, err
					}
				}
				return c.Peek(min(n, c.Len()))
			}
		}),
	},
	{
		id: "R3", what: "the same Peek again shows what comes next",
		wrap: altering(func(c network.Conn, m *altered) {
			last := 0
			m.before = func() { last = 0 }
			m.peek = func(n int) ([]byte, error) {
				if n == 1000 && n == last && 2*n <= c.Len() {
					p, err := c.Peek(2 * n)
					return p[n:], err
				}
				last = n
				return c.Peek(n)
			}
		}),
	},
	{
		id: "R4", what: "Peek(0) at the end is io.EOF",
		wrap: altering(func(c network.Conn, m *altered) {
			var end error
			m.peek = func(n int) ([]byte, error) {
				if n == 0 && end == io.EOF {
					return nil, io.EOF
				}
				p, err := c.Peek(n)
				end = err
				return p, err
			}
		}),
	},
	{
		id: "R4", what: "Peek(0) after Close is an error",
		wrap: altering(func(c network.Conn, m *altered) {
			m.peek = func(n int) ([]byte, error) {
				if n == 0 && m.closed.Load() {
					return nil, net.ErrClosed
				}
				return c.Peek(n)
			}
		}),
	},
	{
		id: "R5", what: "Peek of a negative count panics",
		wrap: altering(func(c network.Conn, m *altered) {
			m.peek = func(n int) ([]byte, error) {
				if n < 0 {
					panic("makeslice: len out of range")
				}
				return c.Peek(n)
			}
		}),
	},
	{
		id: "R5", what: "Peek of a negative count shows all there is",
		wrap: altering(func(c network.Conn, m *altered) {
			m.peek = func(n int) ([]byte, error) {
				if n < 0 {
					n = c.Len()
				}
				return c.Peek(n)
			}
		}),
	},
	{
		id: "R6", what: "the end of the stream is wrapped",
		wrap: altering(func(c network.Conn, m *altered) {
			m.peek = func(n int) ([]byte, error) {
				p, err := c.Peek(n)
				if err == io.EOF {
					err = fmt.Errorf("peek: %w", err)
				}
				return p, err
			}
		}),
	},
	{
		id: "R6", what: "a short Peek is io.ErrUnexpectedEOF",
		wrap: altering(func(c network.Conn, m *altered) {
			m.peek = func(n int) ([]byte, error) {
				p, err := c.Peek(n)
				if err == io.EOF && len(p) > 0 {
					err = io.ErrUnexpectedEOF
				}
				return p, err
			}
		}),
	},
	{
		id: "R6", what: "a short Peek has room behind it",
		wrap: altering(func(c network.Conn, m *altered) {
			m.peek = func(n int) ([]byte, error) {
				p, err := c.Peek(n)
				if err == io.EOF {
					p = append(make([]byte, 0, len(p)+16), p...)
				}
				return p, err
			}
		}),
	},
	{
		id: "R6", what: "a short Peek keeps the bytes to itself",
		wrap: altering(func(c network.Conn, m *altered) {
			m.peek = func(n int) ([]byte, error) {
				p, err := c.Peek(n)
				if err == io.EOF {
					p = nil
				}
				return p, err
			}
		}),
	},
	{
		id: "R7", what: "after the end was met, buffered bytes come with io.EOF",
		wrap: altering(func(c network.Conn, m *altered) {
			ended := false
			m.peek = func(n int) ([]byte, error) {
				p, err := c.Peek(n)
				if err == nil && ended && n > 0 {
					return p, io.EOF
				}
				ended = err == io.EOF
				return p, err
			}
		}),
	},
	{
		id: "R8", what: "the third time, the end is another error",
		wrap: altering(func(c network.Conn, m *altered) {
			times := 0
			m.failed = func(err error) error {
				if err == io.EOF {
					if times++; times > 2 {
						return io.ErrClosedPipe
					}
				}
				return err
			}
		}),
	},
	{
		id: "R9", what: "a Peek over two block edges ends with a wrong byte",
		wrap: altering(func(c network.Conn, m *altered) {
			m.peek = func(n int) ([]byte, error) {
				p, err := c.Peek(n)
				if err == nil && n == 2*usualBlock+1 && m.skipped == usualBlock-1 {
					p = bytes.Clone(p)[:n:n]
					p[n-1]++
				}
				return p, err
			}
		}),
	},
	{
		id: "R10", what: "growing forgets the unread bytes at the end of the block",
		wrap: altering(func(c network.Conn, m *altered) {
			m.peek = func(n int) ([]byte, error) {
				left := c.Len()
				p, err := c.Peek(n)
				if err == nil && left == 10 && m.lastSkip%512 == 512-10 && n > left {
					p = bytes.Clone(p)[:n:n]
					clear(p[:left])
				}
				return p, err
			}
		}),
	},
	{
		id: "R11", what: "Peek takes the memory that it is asked for",
		wrap: altering(func(c network.Conn, m *altered) {
			m.peek = func(n int) ([]byte, error) {
				if n > c.Len()+(64<<10) {
					m.memory = make([]byte, 0, min(n, 256<<20))
				}
				defer func() { m.memory = nil }()
				return c.Peek(n)
			}
		}),
	},
	{
		id: "R12", what: "Peek returns a copy",
		also: ifCounted,
		wrap: altering(func(c network.Conn, m *altered) {
			m.peek = func(n int) ([]byte, error) {
				p, err := c.Peek(n)
				if p != nil {
					p = bytes.Clone(p)[:len(p):len(p)]
				}
				return p, err
			}
		}),
	},
	{
		id: "R13", what: "Skip over a block's edge is one short",
		wrap: altering(func(c network.Conn, m *altered) {
			m.skip = func(n int) error {
				if n == 5000 && n < c.Len() {
					n--
				}
				return c.Skip(n)
			}
		}),
	},
	{
		id: "R14", what: "Skip of a negative count moves Len",
		wrap: altering(func(c network.Conn, m *altered) {
			back := 0
			m.length = func() int { return c.Len() + back }
			m.skip = func(n int) error {
				if n < 0 {
					back -= n
					return nil
				}
				return c.Skip(n)
			}
		}),
	},
	{
		id: "R14", what: "Skip of a negative count is nil",
		wrap: altering(func(c network.Conn, m *altered) {
			m.skip = func(n int) error { return c.Skip(max(n, 0)) }
		}),
	},
	{
		id: "R15", what: "Skip waits until it has all of it",
		wrap: altering(func(c network.Conn, m *altered) {
			m.skip = func(n int) error {
				if n > c.Len() {
					if _, err := c.Peek(n); err != nil {
						return err
					}
				}
				return c.Skip(n)
			}
		}),
	},
	{
		id: "R16", what: "ReadByte wraps the end of the stream",
		wrap: altering(func(c network.Conn, m *altered) {
			m.readByte = func() (byte, error) {
				b, err := c.ReadByte()
				if err == io.EOF {
					err = fmt.Errorf("read byte: %w", err)
				}
				return b, err
			}
		}),
	},
	{
		id: "R17", what: "ReadBinary returns the reader's memory",
		wrap: altering(func(c network.Conn, m *altered) {
			m.readBinary = func(n int) ([]byte, error) {
				p, err := c.Peek(max(n, 0))
				if err != nil || n <= 0 {
					return c.ReadBinary(n)
				}
				return p, c.Skip(n)
			}
		}),
	},
	{
		id: "R17", what: "ReadBinary returns memory that is used again after Release",
		wrap: altering(func(c network.Conn, m *altered) {
			var lent [][]byte
			m.readBinary = func(n int) ([]byte, error) {
				p, err := c.ReadBinary(n)
				lent = append(lent[max(len(lent)-20, 0):], p)
				return p, err
			}
			m.release = func() error {
				for _, p := range lent {
					spoil(p)
				}
				lent = nil
				return c.Release()
			}
		}),
	},
	{
		id: "R18", what: "ReadBinary of a negative count panics",
		wrap: altering(func(c network.Conn, m *altered) {
			m.readBinary = func(n int) ([]byte, error) {
				if n < 0 {
					panic("makeslice: len out of range")
				}
				return c.ReadBinary(n)
			}
		}),
	},
	{
		id: "R18", what: "ReadBinary(0) at the end is io.EOF",
		wrap: altering(func(c network.Conn, m *altered) {
			m.readBinary = func(n int) ([]byte, error) {
				if n == 0 && c.Len() == 0 && m.atEnd.Load() {
					return nil, io.EOF
				}
				return c.ReadBinary(n)
			}
		}),
	},
	{
		id: "R19", what: "a ReadBinary that the end comes short of consumes the rest",
		wrap: altering(func(c network.Conn, m *altered) {
			m.readBinary = func(n int) ([]byte, error) {
				p, err := c.ReadBinary(n)
				if err == io.EOF {
					_ = c.Skip(c.Len())
				}
				return p, err
			}
		}),
	},
	{
		id: "R20", what: "ReadBinary takes the memory that it is asked for",
		wrap: altering(func(c network.Conn, m *altered) {
			m.readBinary = func(n int) ([]byte, error) {
				if n > c.Len()+(64<<10) {
					m.memory = make([]byte, 0, min(n, 256<<20))
				}
				return c.ReadBinary(n)
			}
		}),
	},
	{
		id: "R21", what: "Len counts bytes that ReadByte has taken, until Release",
		also: []string{"F4"},
		wrap: altering(func(c network.Conn, m *altered) {
			taken := 0
			m.length = func() int { return c.Len() + taken }
			m.readByte = func() (byte, error) {
				b, err := c.ReadByte()
				if err == nil && c.Len() > 0 {
					taken++
				}
				return b, err
			}
			m.release = func() error {
				taken = 0
				return c.Release()
			}
		}),
	},
	{
		id: "R22", what: "a second Release drops what is unread",
		wrap: altering(func(c network.Conn, m *altered) {
			released := false
			m.before = func() { released = false }
			m.release = func() error {
				if released {
					_ = c.Skip(c.Len())
				}
				released = true
				return c.Release()
			}
		}),
	},
	{
		id: "R23", what: "Release after Close is an error",
		wrap: altering(func(c network.Conn, m *altered) {
			m.release = func() error {
				if m.closed.Load() {
					return net.ErrClosed
				}
				return c.Release()
			}
		}),
	},
	{
		id: "R24", what: "Read(nil) at the end is io.EOF",
		wrap: altering(func(c network.Conn, m *altered) {
			m.read = func(p []byte) (int, error) {
				if len(p) == 0 && c.Len() == 0 && m.atEnd.Load() {
					return 0, io.EOF
				}
				return c.Read(p)
			}
		}),
	},
	{
		id: "R24", what: "Read of much returns an empty read of the conn beneath",
		wrap: func(nc net.Conn) network.Conn {
			w := &lastErrConn{Conn: nc}
			return alter(w, func(c network.Conn, m *altered) {
				m.read = func(p []byte) (int, error) {
					if c.Len() == 0 && len(p) >= 100 {
						if s, ok := nc.(*scriptConn); ok && len(s.reads) > 0 && s.reads[0].Data == nil && s.reads[0].Err == nil && !s.reads[0].Exact {
							return w.Read(p)
						}
					}
					return c.Read(p)
				}
			})
		},
	},
	{
		id: "R25", what: "Skip after Read counts from the Peek on",
		wrap: altering(func(c network.Conn, m *altered) {
			peeked, read := 0, 0
			m.before = func() { peeked, read = 0, 0 }
			m.peek = func(n int) ([]byte, error) {
				peeked, read = n, 0
				return c.Peek(n)
			}
			m.read = func(p []byte) (int, error) {
				n, err := c.Read(p)
				read = n
				return n, err
			}
			m.skip = func(n int) error {
				if peeked == 9000 && 0 < read && read < peeked {
					n = max(n-read, 0)
				}
				peeked, read = 0, 0
				return c.Skip(n)
			}
		}),
	},
	{
		id: "R26", what: "Read wraps the end of the stream",
		wrap: altering(func(c network.Conn, m *altered) {
			m.read = func(p []byte) (int, error) {
				n, err := c.Read(p)
				if err == io.EOF {
					err = fmt.Errorf("read: %w", err)
				}
				return n, err
			}
		}),
	},
	{
		id: "R27", what: "the eleventh timeout is for good",
		wrap: altering(func(c network.Conn, m *altered) {
			times := 0
			m.failed = func(err error) error {
				if errors.Is(err, os.ErrDeadlineExceeded) {
					if times++; times > 10 {
						return io.ErrClosedPipe
					}
				}
				return err
			}
		}),
	},
	{
		id: "R28", what: "a timeout comes with the bytes there are",
		wrap: altering(func(c network.Conn, m *altered) {
			m.peek = func(n int) ([]byte, error) {
				p, err := c.Peek(n)
				if errors.Is(err, os.ErrDeadlineExceeded) {
					p, _ = c.Peek(c.Len())
				}
				return p, err
			}
		}),
	},
	{
		id: "R28", what: "a timeout is a bare os.ErrDeadlineExceeded",
		wrap: altering(func(c network.Conn, m *altered) {
			m.failed = func(err error) error {
				if errors.Is(err, os.ErrDeadlineExceeded) {
					return os.ErrDeadlineExceeded
				}
				return err
			}
		}),
	},
	{
		id: "R28", what: "a timeout of the conn beneath comes out as it is",
		wrap: func(nc net.Conn) network.Conn {
			return passesTimeouts(nc, func(err error) bool { return true }, nil)
		},
	},
	{
		id: "R28", what: "a *net.OpError that says Timeout comes out as it is",
		wrap: func(nc net.Conn) network.Conn {
			return passesTimeouts(nc, func(err error) bool {
				_, ok := err.(*net.OpError)
				return ok
			}, nil)
		},
	},
}

// ifCounted is P1, which does not apply under the race detector.
var ifCounted = func() []string {
	if raceEnabled {
		return nil
	}
	return []string{"P1"}
}()

// altered is the reference with other methods. A nil function is the reference's
// own.
type altered struct {
	network.Conn
	closed   atomic.Bool
	atEnd    atomic.Bool // a reader operation has met the end
	skipped  int         // since the last Release
	lastSkip int
	memory   []byte // that is held for no reason

	// What has been Peeked since the last Release, if it is wanted.
	keeps bool
	mu    sync.Mutex
	held  []peekedSlice
	pos   int // in the stream

	late [][2][]byte // from and to, before Flush

	peek        func(n int) ([]byte, error)
	skip        func(n int) error
	release     func() error
	length      func() int
	readByte    func() (byte, error)
	readBinary  func(n int) ([]byte, error)
	read        func(p []byte) (int, error)
	malloc      func(n int) ([]byte, error)
	writeBinary func(b []byte) (int, error)
	flush       func() error
	write       func(p []byte) (int, error)

	before  func()            // each reader operation that has no function of its own
	after   func()            // each that consumes
	failed  func(error) error // what an error of a reader operation becomes
	closing func()
}

// peekedSlice is a slice from Peek and where in the stream it begins.
type peekedSlice struct {
	p  []byte
	at int
}

// alter puts the reference over nc and has f change it. c is the reference, for
// the functions to use.
func alter(nc net.Conn, f func(c network.Conn, m *altered)) network.Conn {
	m := &altered{Conn: Reference(nc)}
	f(m.Conn, m)
	return m
}

func altering(f func(c network.Conn, m *altered)) func(net.Conn) network.Conn {
	return func(nc net.Conn) network.Conn { return alter(nc, f) }
}

func (m *altered) begin(has bool) {
	if !has && m.before != nil {
		m.before()
	}
}

func (m *altered) end(err error, consumed int) error {
	if err == io.EOF {
		m.atEnd.Store(true)
	}
	if consumed > 0 && m.keeps {
		m.mu.Lock()
		m.pos += consumed
		m.mu.Unlock()
	}
	if consumed > 0 && m.after != nil {
		m.after()
	}
	if err != nil && m.failed != nil {
		err = m.failed(err)
	}
	return err
}

func (m *altered) Peek(n int) (p []byte, err error) {
	if m.begin(m.peek != nil); m.peek != nil {
		p, err = m.peek(n)
	} else {
		p, err = m.Conn.Peek(n)
	}
	if len(p) > 0 && m.keeps {
		m.mu.Lock()
		m.held = append(m.held, peekedSlice{p, m.pos})
		m.mu.Unlock()
	}
	return p, m.end(err, 0)
}

func (m *altered) Skip(n int) (err error) {
	if m.begin(m.skip != nil); m.skip != nil {
		err = m.skip(n)
	} else {
		err = m.Conn.Skip(n)
	}
	if err == nil {
		m.skipped += n
		m.lastSkip = n
	}
	return m.end(err, n)
}

func (m *altered) Release() (err error) {
	if m.begin(m.release != nil); m.release != nil {
		err = m.release()
	} else {
		err = m.Conn.Release()
	}
	m.skipped = 0
	if m.keeps {
		m.mu.Lock()
		clear(m.held)
		m.held = m.held[:0]
		m.mu.Unlock()
	}
	return err
}

func (m *altered) Len() int {
	if m.length != nil {
		return m.length()
	}
	return m.Conn.Len()
}

func (m *altered) ReadByte() (b byte, err error) {
	if m.begin(m.readByte != nil); m.readByte != nil {
		b, err = m.readByte()
	} else {
		b, err = m.Conn.ReadByte()
	}
	return b, m.end(err, 1)
}

func (m *altered) ReadBinary(n int) (p []byte, err error) {
	if m.begin(m.readBinary != nil); m.readBinary != nil {
		p, err = m.readBinary(n)
	} else {
		p, err = m.Conn.ReadBinary(n)
	}
	return p, m.end(err, len(p))
}

func (m *altered) Read(p []byte) (n int, err error) {
	if m.begin(m.read != nil); m.read != nil {
		n, err = m.read(p)
	} else {
		n, err = m.Conn.Read(p)
	}
	return n, m.end(err, n)
}

func (m *altered) Malloc(n int) ([]byte, error) {
	if m.malloc != nil {
		return m.malloc(n)
	}
	return m.Conn.Malloc(n)
}

func (m *altered) WriteBinary(b []byte) (int, error) {
	if m.writeBinary != nil {
		return m.writeBinary(b)
	}
	return m.Conn.WriteBinary(b)
}

func (m *altered) Flush() error {
	if m.flush != nil {
		return m.flush()
	}
	return m.Conn.Flush()
}

func (m *altered) Write(p []byte) (int, error) {
	if m.write != nil {
		return m.write(p)
	}
	return m.Conn.Write(p)
}

func (m *altered) Close() error {
	if !m.closed.Swap(true) && m.closing != nil {
		m.closing()
	}
	return m.Conn.Close()
}

// recycle writes over what has been Peeked, or the consumed part of it, as the
// next user of the memory would.
func (m *altered) recycle(all bool) {
	m.mu.Lock()
	defer m.mu.Unlock()
	for _, s := range m.held {
		n := len(s.p)
		if !all {
			n = min(n, m.pos-s.at)
		}
		spoil(s.p[:n])
	}
}

// spoil writes over p.
func spoil(p []byte) {
	for i := range p {
		p[i] = 0xDB
	}
}

// lastErrConn keeps an error that came with data.
type lastErrConn struct {
	net.Conn
	withData error
}

func (c *lastErrConn) Read(p []byte) (int, error) {
	n, err := c.Conn.Read(p)
	if n > 0 && err != nil {
		c.withData = err
	}
	return n, err
}

// A wrong declaration fails, and a right one passes all of the two groups.
func TestReaderDeclarations(t *testing.T) {
	judge := func(name string, wrap func(net.Conn) network.Conn, b Behavior, want ...string) {
		t.Run(name, func(t *testing.T) {
			subject := referenceConn(tcpSockets)
			subject.Behavior = b
			subject.Wrap = func(_ testing.TB, c net.Conn) network.Conn { return wrap(c) }
			subject.Pair = func(t testing.TB) (network.Conn, network.Conn) {
				x, y := tcpSockets(t)
				return wrap(x), Reference(y)
			}
			var failed []string
			for _, k := range subject.cases() {
				if k.id[0] == 'R' || k.id[0] == 'A' {
					if r := execute(k, true); r.Outcome == Failed {
						failed = append(failed, k.id)
						t.Log(r)
					}
				}
			}
			if !slices.Equal(failed, want) {
				t.Errorf("failed: %v; want %v", failed, want)
			}
		})
	}
	copies := Behavior{CopiesWriteBinary: true}
	within := Behavior{CopiesWriteBinary: true, SkipWithinBuffer: true}
	skips := altering(func(c network.Conn, m *altered) {
		m.skip = func(n int) error {
			if n > c.Len() {
				return errTooLarge
			}
			return c.Skip(n)
		}
	})
	judge("SkipWithinBuffer, rightly", skips, within)
	judge("SkipWithinBuffer, wrongly", Reference, within, "R15")
	judge("SkipWithinBuffer, not declared", skips, copies, "R15")
	borrows := altering(borrowing(func(m *altered, b []byte) bool { return !m.isPeeked(b) }))
	judge("CopiesWriteBinary, wrongly", borrows, copies, "A11")
	judge("borrows", borrows, Behavior{})
	judge("CopiesWriteBinary, not declared", Reference, Behavior{}, "A11")
}
