package networktest

import (
	"errors"
	"io"
	"net"
	"os"
	"syscall"

	"github.com/hertznet/hertznet/network"
)

var faultMutants = []mutant{
	{
		id: "F1", what: "ten empty reads are too many",
		wrap: reads(func(nc net.Conn) func(p []byte) (int, error) {
			empty := 0
			return func(p []byte) (int, error) {
				n, err := nc.Read(p)
				if n != 0 || err != nil {
					empty = 0
				} else if empty++; empty > 10 {
					return 0, io.ErrNoProgress
				}
				return n, err
			}
		}),
	},
	{
		id: "F1", what: "empty reads are never too many",
		wrap: reads(func(nc net.Conn) func(p []byte) (int, error) {
			return func(p []byte) (int, error) { return (&patientReader{nc}).Read(p) }
		}),
	},
	{
		id: "F2", what: "data that come with EOF are dropped",
		also: []string{"R26", "R27", "Z1"}, // they have such readers, too
		wrap: reads(func(nc net.Conn) func(p []byte) (int, error) {
			return func(p []byte) (int, error) {
				n, err := nc.Read(p)
				if err == io.EOF {
					n = 0
				}
				return n, err
			}
		}),
	},
	{
		id: "F3", what: "data that come with another error are dropped",
		also: []string{"Z1"}, // the models are of all of this
		wrap: reads(func(nc net.Conn) func(p []byte) (int, error) {
			return func(p []byte) (int, error) {
				n, err := nc.Read(p)
				if err != nil && err != io.EOF && !isTimeout(err) {
					n = 0
				}
				return n, err
			}
		}),
	},
	{
		id: "F4", what: "a read that fails late is made again",
		wrap: reads(func(nc net.Conn) func(p []byte) (int, error) {
			calls := 0
			return func(p []byte) (int, error) {
				n, err := nc.Read(p)
				if calls++; calls == 7 && n == 0 && err != nil && err != io.EOF && !isTimeout(err) {
					return nc.Read(p)
				}
				return n, err
			}
		}),
	},
	{
		id: "F4", what: "ETIMEDOUT is taken for the read timeout, since it says Timeout()",
		wrap: reads(func(nc net.Conn) func(p []byte) (int, error) {
			return func(p []byte) (int, error) {
				n, err := nc.Read(p)
				if errors.Is(err, syscall.ETIMEDOUT) {
					err = os.ErrDeadlineExceeded
				}
				return n, err
			}
		}),
	},
	{
		id: "F4", what: "a timeout late in the stream is for good",
		wrap: reads(func(nc net.Conn) func(p []byte) (int, error) {
			calls, timeouts := 0, 0
			var failed error
			return func(p []byte) (int, error) {
				if failed != nil {
					return 0, failed
				}
				n, err := nc.Read(p)
				if err != nil && isTimeout(err) {
					timeouts++
				}
				// Only the first, and not that of a socket: others meet those.
				if calls++; calls == 8 && timeouts == 1 && err == os.ErrDeadlineExceeded {
					failed = err
				}
				return n, err
			}
		}),
	},
	{
		id: "F5", what: "an impossible count panics",
		wrap: reads(func(nc net.Conn) func(p []byte) (int, error) {
			return func(p []byte) (int, error) {
				n, err := nc.Read(p)
				return len(p[:n]), err
			}
		}),
	},
	{
		id: "F5", what: "a negative count is taken for none",
		wrap: reads(func(nc net.Conn) func(p []byte) (int, error) {
			return func(p []byte) (int, error) {
				n, err := nc.Read(p)
				return max(n, 0), err
			}
		}),
	},
	{
		id: "F6", what: "an error of Set is swallowed",
		wrap: func(nc net.Conn) network.Conn {
			return Reference(&otherConn{Conn: nc, set: func(error) error { return nil }})
		},
	},
	{
		id: "F6", what: "an error of Close is swallowed",
		wrap: func(nc net.Conn) network.Conn {
			return Reference(&otherConn{Conn: nc, closes: func() error {
				nc.Close()
				return nil
			}})
		},
	},
}

// reads is the reference over a conn with another Read.
func reads(read func(nc net.Conn) func(p []byte) (int, error)) func(net.Conn) network.Conn {
	return func(nc net.Conn) network.Conn {
		return Reference(&otherConn{Conn: nc, read: read(nc)})
	}
}
