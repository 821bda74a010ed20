package networktest

import (
	"bytes"
	"errors"
	"io"
	"net"
	"slices"
	"time"

	"github.com/hertznet/hertznet/network"
)

var writerMutants = slices.Concat([]mutant{
	{
		id: "W1", what: "a block that is filled to the last byte loses it",
		also: []string{"Z2"}, // the models are of all of this
		wrap: func(nc net.Conn) network.Conn {
			return Reference(&otherConn{Conn: nc, write: func(p []byte) (int, error) {
				if len(p) != 8192 {
					return nc.Write(p)
				}
				n, err := nc.Write(p[:len(p)-1])
				if err == nil {
					n++
				}
				return n, err
			}})
		},
	},
	{
		id: "W2", what: "a full buffer is sent before Flush",
		wrap: writes(func(c *otherWriter, r *reference) {
			pending := 0
			c.malloc = func(n int) ([]byte, error) {
				if pending += n; pending > 150<<10 {
					pending = 0
					if err := r.Flush(); err != nil {
						return nil, err
					}
				}
				return r.Malloc(n)
			}
			c.flush = func() error {
				pending = 0
				return r.Flush()
			}
		}),
	},
	{
		id: "W2", what: "Malloc of nothing sends what is pending",
		wrap: writes(func(c *otherWriter, r *reference) {
			c.malloc = func(n int) ([]byte, error) {
				if n == 0 && len(r.pending) > 0 {
					_ = r.Flush()
				}
				return r.Malloc(n)
			}
		}),
	},
	{
		id: "W3", what: "what is small goes to the block before that of a large Malloc",
		also: []string{"Z2", "Z4", "Z5"}, // the models are of all of this
		wrap: writes(func(c *otherWriter, r *reference) {
			large := false
			c.malloc = func(n int) ([]byte, error) {
				large = n > referenceBlock
				return r.Malloc(n)
			}
			c.writeBinary = func(p []byte) (int, error) {
				n, err := r.WriteBinary(p)
				if last := len(r.pending) - 1; large && n > 0 && n < referenceBlock && last > 0 {
					r.pending[last], r.pending[last-1] = r.pending[last-1], r.pending[last]
				}
				large = false
				return n, err
			}
		}),
	},
	{
		id: "W4", what: "an empty Flush writes",
		wrap: writes(func(c *otherWriter, r *reference) {
			c.flush = func() error {
				if len(r.pending) == 0 && r.writeErr == nil && !r.closed.Load() {
					_, _ = r.nc.Write(nil)
				}
				return r.Flush()
			}
		}),
	},
	{
		id: "W4", what: "an empty Flush after Close fails",
		wrap: writes(func(c *otherWriter, r *reference) {
			c.flush = func() error {
				if r.closed.Load() {
					return r.fail("write", net.ErrClosed)
				}
				return r.Flush()
			}
		}),
	},
	{
		id: "W5", what: "Malloc of a negative count panics",
		wrap: writes(func(c *otherWriter, r *reference) {
			c.malloc = func(n int) ([]byte, error) {
				if n < 0 {
					return make([]byte, n), nil
				}
				return r.Malloc(n)
			}
		}),
	},
	{
		id: "W5", what: "Malloc of a huge count panics",
		wrap: writes(func(c *otherWriter, r *reference) {
			c.malloc = func(n int) ([]byte, error) {
				if n == maxInt {
					return make([]byte, n), nil
				}
				return r.Malloc(n)
			}
		}),
	},
	{
		id: "W5", what: "Malloc of a negative count is empty without an error",
		wrap: writes(func(c *otherWriter, r *reference) {
			c.malloc = func(n int) ([]byte, error) { return r.Malloc(max(n, 0)) }
		}),
	},
	{
		id: "W6", what: "an empty WriteBinary is a piece that Flush writes",
		wrap: writes(func(c *otherWriter, r *reference) {
			empty := 0
			c.writeBinary = func(p []byte) (int, error) {
				if len(p) == 0 {
					empty++
				}
				return r.WriteBinary(p)
			}
			c.flush = func() error {
				for ; empty > 0; empty-- {
					_, _ = r.nc.Write(nil)
				}
				return r.Flush()
			}
		}),
	},
	{
		id: "W7", what: "a short write is taken for a whole one",
		wrap: func(nc net.Conn) network.Conn {
			return Reference(&otherConn{Conn: nc, write: func(p []byte) (int, error) {
				n, err := nc.Write(p)
				if err == nil && n >= 0 && n < len(p) {
					n = len(p)
				}
				return n, err
			}})
		},
	},
	{
		id: "W8", what: "what a failed Flush did not send is sent again by the next one",
		wrap: writes(func(c *otherWriter, r *reference) {
			var all []byte
			c.flush = func() error {
				r.writeMu.Lock()
				defer r.writeMu.Unlock()
				all = all[:0]
				for _, p := range r.pending {
					all = append(all, p...)
				}
				err := r.flush()
				if err != nil && !r.closed.Load() {
					r.writeErr, r.pending = nil, [][]byte{bytes.Clone(all)}
				}
				return err
			}
		}),
	},
	{
		id: "W8", what: "a failed Flush is forgotten",
		wrap: writes(func(c *otherWriter, r *reference) {
			c.flush = func() error {
				err := r.Flush()
				r.writeMu.Lock()
				r.writeErr = nil
				r.writeMu.Unlock()
				return err
			}
		}),
	},
	{
		id: "W9", what: "Flush goes on with the next piece after one that failed",
		also: []string{"Z2"}, // the models are of all of this
		wrap: writes(func(c *otherWriter, r *reference) {
			c.flush = func() error {
				r.writeMu.Lock()
				defer r.writeMu.Unlock()
				if len(r.pending) < 4 || len(r.pending) > 50 { // or W11 and W15 would see it
					return r.flush()
				}
				pieces := slices.Clone(r.pending)
				failed := r.writeErr
				for _, p := range pieces {
					r.pending, r.writeErr = append(r.pending[:0], p), nil
					if err := r.flush(); failed == nil {
						failed = err
					}
				}
				r.writeErr = failed
				return failed
			}
		}),
	},
	{
		id: "W10", what: "a count that is too large is believed",
		wrap: func(nc net.Conn) network.Conn {
			return Reference(&otherConn{Conn: nc, write: func(p []byte) (int, error) {
				n, err := nc.Write(p)
				return min(n, len(p)), err
			}})
		},
	},
	{
		id: "W10", what: "an impossible count panics",
		wrap: func(nc net.Conn) network.Conn {
			return Reference(&otherConn{Conn: nc, write: func(p []byte) (int, error) {
				n, err := nc.Write(p)
				return len(p) - len(p[n:]), err
			}})
		},
	},
	{
		id: "W11", what: "each small Malloc is a write of its own",
		also: []string{"T10"}, // with a timeout of its own
		wrap: writes(func(c *otherWriter, r *reference) {
			c.flush = func() error {
				r.writeMu.Lock()
				defer r.writeMu.Unlock()
				if len(r.pending) < 100 { // or W15 would see it
					return r.flush()
				}
				pieces := slices.Clone(r.pending)
				for _, p := range pieces {
					r.pending = append(r.pending[:0], p)
					if err := r.flush(); err != nil {
						return err
					}
				}
				return nil
			}
		}),
	},
	{
		id: "W12", what: "Write counts what was pending, too",
		also: []string{"Z2"}, // the models are of all of this
		wrap: writes(func(c *otherWriter, r *reference) {
			c.write = func(p []byte) (int, error) {
				pending := len(bytes.Join(r.pending, nil))
				n, err := r.Write(p)
				if err == nil {
					n += pending
				}
				return n, err
			}
		}),
	},
	{
		id: "W12", what: "a Write that fails says that nothing was sent",
		wrap: writes(func(c *otherWriter, r *reference) {
			c.write = func(p []byte) (int, error) {
				n, err := r.Write(p)
				if err != nil {
					n = 0
				}
				return n, err
			}
		}),
	},
	{
		id: "W12", what: "a Write of nothing leaves what is pending where it is",
		wrap: writes(func(c *otherWriter, r *reference) {
			c.write = func(p []byte) (int, error) {
				if len(p) == 0 && !r.closed.Load() {
					return 0, nil
				}
				return r.Write(p)
			}
		}),
	},
	{
		id: "W12", what: "a Write that runs out of time in what is pending forgets the rest of it",
		wrap: writes(func(c *otherWriter, r *reference) {
			c.write = func(p []byte) (int, error) {
				r.writeMu.Lock()
				before := r.writeErr
				r.writeMu.Unlock()
				n, err := r.Write(p)
				r.writeMu.Lock()
				defer r.writeMu.Unlock()
				if before == nil && isTimeout(r.writeErr) {
					r.writeErr = nil
				}
				return n, err
			}
		}),
	},
	{
		id: "W12", what: "a Write that ran out of time cannot be taken up",
		also: []string{"C11"}, // nettest writes on after a deadline
		wrap: writes(func(c *otherWriter, r *reference) {
			c.write = func(p []byte) (int, error) {
				n, err := r.Write(p)
				r.writeMu.Lock()
				defer r.writeMu.Unlock()
				if r.writeErr == nil && n > 0 {
					r.writeErr = err
				}
				return n, err
			}
		}),
	},
	{
		id: "W13", what: "the end of the source is an error",
		wrap: readsFrom(func(c *reference, r io.Reader) (int64, error) {
			n, err := c.ReadFrom(r)
			if err == nil && n == 0 {
				err = io.EOF
			}
			return n, err
		}),
	},
	{
		id: "W13", what: "bytes are counted that were not written",
		wrap: readsFrom(func(c *reference, r io.Reader) (int64, error) {
			counted := &countingReader{r: r}
			n, err := c.ReadFrom(counted)
			if err != nil {
				n = counted.n
			}
			return n, err
		}),
	},
	{
		id: "W13", what: "what is pending goes after the source",
		wrap: readsFrom(func(c *reference, r io.Reader) (int64, error) {
			c.writeMu.Lock()
			pending := bytes.Join(c.pending, nil)
			c.pending = c.pending[:0]
			c.writeMu.Unlock()
			n, err := c.ReadFrom(r)
			if err == nil {
				_, err = c.WriteBinary(pending)
			}
			return n, err
		}),
		also: []string{"W3"}, // ReadFrom's order is its business, too
	},
	{
		id: "W13", what: "a source that returns nothing is asked for ever",
		wrap: readsFrom(func(c *reference, r io.Reader) (int64, error) {
			return c.ReadFrom(&patientReader{r})
		}),
	},
	{
		id: "W13", what: "the source is read to its end before it is written",
		wrap: readsFrom(func(c *reference, r io.Reader) (int64, error) {
			p, err := io.ReadAll(r)
			if err != nil {
				return c.ReadFrom(io.MultiReader(bytes.NewReader(p), errorReader{err}))
			}
			return c.ReadFrom(readerOf(bytes.NewReader(p)))
		}),
	},
	{
		id: "W13", what: "an error of the source is taken for its end",
		wrap: readsFrom(func(c *reference, r io.Reader) (int64, error) {
			n, err := c.ReadFrom(r)
			if c.writeErr == nil && !errors.Is(err, net.ErrClosed) {
				err = nil
			}
			return n, err
		}),
	},
	{
		id: "W13", what: "the write timeout is for the whole source",
		wrap: readsFrom(func(c *reference, r io.Reader) (int64, error) {
			c.wr.mu.Lock()
			timeout := c.wr.timeout
			if timeout > 0 {
				_ = c.nc.SetWriteDeadline(time.Now().Add(timeout))
				c.wr.timeout = 0
			}
			c.wr.mu.Unlock()
			n, err := c.ReadFrom(r)
			c.wr.mu.Lock()
			c.wr.timeout = timeout
			c.wr.mu.Unlock()
			return n, err
		}),
	},
	{
		id: "W14", what: "a write of 8 MiB loses its end",
		wrap: func(nc net.Conn) network.Conn {
			return Reference(&otherConn{Conn: nc, write: func(p []byte) (int, error) {
				if len(p) != 8<<20 {
					return nc.Write(p)
				}
				n, err := nc.Write(p[:6<<20])
				if err == nil {
					n = len(p)
				}
				return n, err
			}})
		},
	},
}, countedMutants())

// countedMutants are those that only counting system calls can find.
func countedMutants() []mutant {
	if _, _, ok := systemCalls(func() {}); !ok {
		return nil
	}
	return []mutant{
		{
			id: "W15", what: "the header is sent on its own",
			wrap: writes(func(c *otherWriter, r *reference) {
				c.flush = func() error {
					r.writeMu.Lock()
					defer r.writeMu.Unlock()
					if len(r.pending) == 2 {
						body := r.pending[1]
						r.pending = r.pending[:1]
						if err := r.flush(); err != nil {
							return err
						}
						r.pending = append(r.pending, body)
					}
					return r.flush()
				}
			}),
		},
	}
}

// otherConn is a conn beneath with something else in the place of what is not nil.
type otherConn struct {
	net.Conn
	read, write func(p []byte) (int, error)
	set         func(err error) error
	closes      func() error
}

func (c *otherConn) Read(p []byte) (int, error) {
	if c.read == nil {
		return c.Conn.Read(p)
	}
	return c.read(p)
}

func (c *otherConn) Write(p []byte) (int, error) {
	if c.write == nil {
		return c.Conn.Write(p)
	}
	return c.write(p)
}

func (c *otherConn) Close() error {
	if c.closes == nil {
		return c.Conn.Close()
	}
	return c.closes()
}

func (c *otherConn) SetDeadline(t time.Time) error { return c.setTo(c.Conn.SetDeadline(t)) }

func (c *otherConn) SetReadDeadline(t time.Time) error {
	return c.setTo(c.Conn.SetReadDeadline(t))
}

func (c *otherConn) SetWriteDeadline(t time.Time) error {
	return c.setTo(c.Conn.SetWriteDeadline(t))
}

func (c *otherConn) setTo(err error) error {
	if c.set == nil {
		return err
	}
	return c.set(err)
}

// otherWriter is the reference with other methods for what is not nil. It has no
// ReadFrom.
type otherWriter struct {
	network.Conn
	malloc      func(n int) ([]byte, error)
	writeBinary func(p []byte) (int, error)
	flush       func() error
	write       func(p []byte) (int, error)
}

// writes makes an otherWriter, whose methods change sets.
func writes(change func(c *otherWriter, r *reference)) func(net.Conn) network.Conn {
	return func(nc net.Conn) network.Conn {
		r := Reference(nc).(*reference)
		c := &otherWriter{Conn: r}
		change(c, r)
		return c
	}
}

func (c *otherWriter) Malloc(n int) ([]byte, error) {
	if c.malloc == nil {
		return c.Conn.Malloc(n)
	}
	return c.malloc(n)
}

func (c *otherWriter) WriteBinary(p []byte) (int, error) {
	if c.writeBinary == nil {
		return c.Conn.WriteBinary(p)
	}
	return c.writeBinary(p)
}

func (c *otherWriter) Flush() error {
	if c.flush == nil {
		return c.Conn.Flush()
	}
	return c.flush()
}

func (c *otherWriter) Write(p []byte) (int, error) {
	if c.write == nil {
		return c.Conn.Write(p)
	}
	return c.write(p)
}

// otherReadFrom is the reference with another ReadFrom.
type otherReadFrom struct {
	network.Conn
	readFrom func(r io.Reader) (int64, error)
}

func (c *otherReadFrom) ReadFrom(r io.Reader) (int64, error) { return c.readFrom(r) }

func readsFrom(readFrom func(c *reference, r io.Reader) (int64, error)) func(net.Conn) network.Conn {
	return func(nc net.Conn) network.Conn {
		c := Reference(nc).(*reference)
		return &otherReadFrom{c, func(r io.Reader) (int64, error) { return readFrom(c, r) }}
	}
}

// countingReader counts what is read.
type countingReader struct {
	r io.Reader
	n int64
}

func (c *countingReader) Read(p []byte) (int, error) {
	n, err := c.r.Read(p)
	c.n += int64(n)
	return n, err
}

// patientReader reads until there is something.
type patientReader struct{ r io.Reader }

func (r *patientReader) Read(p []byte) (int, error) {
	for {
		if n, err := r.r.Read(p); n != 0 || err != nil {
			return n, err
		}
	}
}

type errorReader struct{ err error }

func (r errorReader) Read([]byte) (int, error) { return 0, r.err }
