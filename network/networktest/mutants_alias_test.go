package networktest

import (
	"errors"
	"net"
	"os"
	"slices"
	"sync"
	"time"

	"github.com/hertznet/hertznet/network"
)

var aliasMutants = slices.Concat([]mutant{
	{
		id: "A1", what: "a larger Peek moves the unread bytes over the consumed ones",
		wrap: altering(func(c network.Conn, m *altered) {
			m.keeps = true
			m.peek = func(n int) ([]byte, error) {
				if n > c.Len() {
					m.recycle(false)
				}
				return c.Peek(n)
			}
		}),
	},
	{
		id: "A1", what: "Read of all takes the memory back",
		wrap: altering(func(c network.Conn, m *altered) {
			m.keeps = true
			m.read = func(p []byte) (int, error) {
				all := c.Len() > 0 && len(p) >= c.Len()
				n, err := c.Read(p)
				if all {
					m.after = func() {
						m.after = nil
						m.recycle(false)
					}
				}
				return n, err
			}
		}),
	},
	{
		id: "A2", what: "the capacity of a Peeked slice goes on",
		also: []string{"R1"}, // it speaks of the capacity, too
		wrap: altering(func(c network.Conn, m *altered) {
			m.peek = func(n int) ([]byte, error) {
				if n > 0 && n < c.Len() {
					p, err := c.Peek(c.Len())
					return p[:n], err
				}
				return c.Peek(n)
			}
		}),
	},
	{
		id: "A3", what: "Malloc takes what the reader has consumed",
		wrap: altering(func(c network.Conn, m *altered) {
			m.keeps = true
			m.malloc = func(n int) ([]byte, error) {
				m.recycle(false)
				return c.Malloc(n)
			}
		}),
	},
	{
		id: "A4", what: "Skip of what was Peeked gives the memory to a pool that others take from",
		also: []string{"A5"},
		wrap: func(nc net.Conn) network.Conn {
			return alter(nc, func(c network.Conn, m *altered) {
				m.keeps = true
				m.peek = func(n int) ([]byte, error) {
					sharedPool.take(m)
					return c.Peek(n)
				}
				m.skip = func(n int) error {
					if k := len(m.held); k > 0 && n == len(m.held[k-1].p) {
						sharedPool.put(m)
					}
					return c.Skip(n)
				}
				m.release = func() error {
					sharedPool.forget(m)
					return c.Release()
				}
			})
		},
	},
	{
		id: "A5", what: "Close gives the reader's memory back",
		wrap: altering(func(c network.Conn, m *altered) {
			m.keeps = true
			m.closing = func() { m.recycle(true) }
		}),
	},
	{
		id: "A6", what: "Malloc moves what was Malloced before, to grow",
		also: ifCounted,
		wrap: altering(func(c network.Conn, m *altered) {
			var pending []byte
			m.malloc = func(n int) ([]byte, error) {
				if n <= 0 || n > 1<<20 {
					return c.Malloc(n)
				}
				at := len(pending)
				pending = append(pending, make([]byte, n)...)
				return pending[at : at+n : at+n], nil
			}
			send := func() error {
				if len(pending) > 0 {
					if _, err := c.WriteBinary(pending); err != nil {
						return err
					}
				}
				pending = nil
				return nil
			}
			m.writeBinary = func(b []byte) (int, error) {
				if err := send(); err != nil {
					return 0, err
				}
				return c.WriteBinary(b)
			}
			m.flush = func() error {
				if err := send(); err != nil {
					return err
				}
				return c.Flush()
			}
			m.write = func(p []byte) (int, error) {
				if err := send(); err != nil {
					return 0, err
				}
				return c.Write(p)
			}
		}),
	},
	{
		id: "A7", what: "Malloc's capacity goes on",
		wrap: altering(func(c network.Conn, m *altered) {
			m.malloc = func(n int) ([]byte, error) {
				if n <= 0 || n > 1<<20 {
					return c.Malloc(n)
				}
				q, err := c.Malloc(n)
				if err != nil || n < 1000 {
					return q, err // only large ones come from a pool
				}
				p := make([]byte, n, n+8)
				m.lateCopy(q, p)
				return p, nil
			}
			m.flush = func() error {
				m.copyLate()
				return c.Flush()
			}
			m.write = func(p []byte) (int, error) {
				m.copyLate()
				return c.Write(p)
			}
		}),
	},
	{
		id: "A9", what: "a Flush that fails leaves the payload masked",
		wrap: altering(func(c network.Conn, m *altered) {
			var args [][]byte
			m.writeBinary = func(b []byte) (int, error) {
				if len(b) == 16<<10 {
					args = append(args, b)
				}
				return c.WriteBinary(b)
			}
			m.flush = func() error {
				mask := func() {
					for _, b := range args {
						for i := range b {
							b[i] ^= 0x55
						}
					}
				}
				mask()
				err := c.Flush()
				if err == nil {
					mask()
				}
				args = nil
				return err
			}
		}),
	},
	{
		id: "A10", what: "Flush empties its list without clearing it",
		wrap: altering(func(c network.Conn, m *altered) {
			var list [][]byte
			m.writeBinary = func(b []byte) (int, error) {
				list = append(list, b)
				return c.WriteBinary(b)
			}
			m.flush = func() error {
				list = list[:0]
				return c.Flush()
			}
		}),
	},
	{
		id: "A10", what: "a Flush that fails keeps its list",
		wrap: altering(func(c network.Conn, m *altered) {
			var list [][]byte
			m.writeBinary = func(b []byte) (int, error) {
				list = append(list, b)
				return c.WriteBinary(b)
			}
			m.flush = func() error {
				err := c.Flush()
				if err == nil {
					clear(list)
					list = list[:0]
				}
				return err
			}
		}),
	},
	{
		id: "A11", what: "the last byte is lost, just above the threshold",
		wrap: altering(func(c network.Conn, m *altered) {
			m.writeBinary = func(b []byte) (int, error) {
				if len(b) == 513 {
					p := slices.Clone(b)
					p[len(p)-1] = 0
					return c.WriteBinary(p)
				}
				return c.WriteBinary(b)
			}
		}),
	},
	{
		id: "A12", what: "the Read after one that timed out fills the p of both",
		wrap: altering(func(c network.Conn, m *altered) {
			var old []byte
			m.read = func(p []byte) (int, error) {
				n, err := c.Read(p)
				if errors.Is(err, os.ErrDeadlineExceeded) {
					old = p
				} else {
					copy(old, p[:n])
					old = nil
				}
				return n, err
			}
		}),
	},
	{
		id: "A13", what: "a Peeked slice is borrowed and its memory used again after Release",
		also: ifCounted,
		wrap: altering(borrowing(func(m *altered, b []byte) bool { return m.isPeeked(b) })),
	},
}, asyncMutants())

// asyncMutants are those that use memory while its owner does, which the race
// detector would tell of.
func asyncMutants() []mutant {
	if raceEnabled {
		return nil
	}
	return []mutant{{
		id: "A8", what: "Flush of a large Malloc returns before it has looked at the memory",
		wrap: altering(func(c network.Conn, m *altered) {
			var large [2][]byte // what Flush sends, and what the caller fills
			var late sync.WaitGroup
			fill := func() {
				copy(large[0], large[1])
				large = [2][]byte{}
			}
			m.malloc = func(n int) ([]byte, error) {
				fill()
				q, err := c.Malloc(n)
				if n != 150_000 || err != nil {
					return q, err
				}
				large = [2][]byte{q, make([]byte, n)}
				return large[1], nil
			}
			m.flush = func() error {
				late.Wait()
				if large[0] == nil {
					return c.Flush()
				}
				late.Go(func() {
					time.Sleep(5 * time.Millisecond)
					fill()
					_ = c.Flush()
				})
				return nil
			}
			m.write = func(p []byte) (int, error) {
				late.Wait()
				fill()
				return c.Write(p)
			}
			m.closing = late.Wait
		}),
	}}
}

// lateCopy has p copied to q before Flush.
func (m *altered) lateCopy(q, p []byte) { m.late = append(m.late, [2][]byte{q, p}) }

func (m *altered) copyLate() {
	for _, pair := range m.late {
		copy(pair[0], pair[1])
	}
	m.late = m.late[:0]
}

// isPeeked reports whether b begins where something that Peek returned does, or
// inside of it.
func (m *altered) isPeeked(b []byte) bool {
	m.mu.Lock()
	defer m.mu.Unlock()
	for _, s := range m.held {
		for i := range s.p {
			if len(b) > 0 && &s.p[i] == &b[0] {
				return true
			}
		}
	}
	return false
}

// borrowing has WriteBinary keep those slices that which says, and Release use
// what was Peeked again.
func borrowing(which func(m *altered, b []byte) bool) func(c network.Conn, m *altered) {
	return func(c network.Conn, m *altered) {
		m.keeps = true
		var pending [][]byte
		m.malloc = func(n int) ([]byte, error) {
			if n <= 0 || n > 1<<20 {
				return c.Malloc(n)
			}
			p := make([]byte, n)
			pending = append(pending, p)
			return p, nil
		}
		m.writeBinary = func(b []byte) (int, error) {
			if len(b) == 0 {
				return c.WriteBinary(b)
			}
			if !which(m, b) {
				b = slices.Clone(b)
			}
			pending = append(pending, b)
			return len(b), nil
		}
		send := func() error {
			all := pending
			pending = nil
			for _, p := range all {
				if _, err := c.WriteBinary(p); err != nil {
					return err
				}
			}
			return nil
		}
		m.flush = func() error {
			if err := send(); err != nil {
				return err
			}
			return c.Flush()
		}
		m.write = func(p []byte) (int, error) {
			if err := send(); err != nil {
				return 0, err
			}
			return c.Write(p)
		}
		m.release = func() error {
			m.recycle(false)
			return c.Release()
		}
	}
}

// sharedPool is what connections of one implementation have in common.
var sharedPool sharedMemory

type sharedMemory struct {
	mu   sync.Mutex
	from map[*altered]bool
}

func (s *sharedMemory) put(m *altered) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.from == nil {
		s.from = map[*altered]bool{}
	}
	s.from[m] = true
}

// take writes over the memory that others have put.
func (s *sharedMemory) take(m *altered) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for other := range s.from {
		if other != m {
			other.recycle(false)
			delete(s.from, other)
		}
	}
}

func (s *sharedMemory) forget(m *altered) {
	s.mu.Lock()
	defer s.mu.Unlock()
	delete(s.from, m)
}
