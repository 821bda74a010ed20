package quic

import (
	"bufio"
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"math"
	"net"
	"os"
	"path/filepath"
	"sync"
	"time"

	"github.com/quic-go/quic-go"
	"github.com/quic-go/quic-go/qlog"
	"github.com/quic-go/quic-go/qlogwriter"
)

// DefaultMaxUnverified is the default of [Config].MaxUnverified, in handshakes a second.
const DefaultMaxUnverified = 256

// Config has the settings of QUIC, for both sides where it says nothing else. The zero
// value is ready for use. It must not change once it is in use; any number of
// connections may share it.
type Config struct {
	// IdleTimeout is how long silence lasts before a connection is lost: the smaller one
	// of both sides. Zero or less is 30 seconds. There is no way to have none.
	IdleTimeout time.Duration

	// HandshakeTimeout limits the handshake. Zero or less is 10 seconds. The handshake
	// ends after half of this time already if nothing at all comes from the peer.
	HandshakeTimeout time.Duration

	// KeepAlive is after how much silence a packet is sent that keeps the connection, and
	// what lies between the peers, such as a NAT, from timing out; half of the idle
	// timeout if that is shorter. Zero or less is never.
	KeepAlive time.Duration

	// MaxStreams and MaxUniStreams are how many streams of each kind the peer may have
	// open at once. Zero is 100, less than zero is none at all; above 1<<60 is 1<<60.
	MaxStreams, MaxUniStreams int64

	// MaxStreamBuffer and MaxConnBuffer are how many bytes the peer may send on one
	// stream, and on all of a connection's, ahead of what has been read: the memory
	// that a peer can take. These are limits; a window starts at 512 KiB, or the limit if
	// that is less, and grows as fast as the bytes are read. Zero is 6 MiB for a stream,
	// and 15 MiB for a connection, whose window then starts at 768 KiB.
	MaxStreamBuffer, MaxConnBuffer uint64

	// MaxUnverified is how many handshakes a server begins in a second with clients that
	// have not shown that their address is theirs. Beyond it they have to show it
	// first, which costs them a round trip (RFC 9000, section 8.1.2), and a flood of
	// forged addresses costs the server little. Zero is DefaultMaxUnverified; less
	// than zero is none, so that every client has to.
	MaxUnverified int

	// EarlyData lets a client send before the handshake is over (0-RTT), when it has
	// been connected before. Both sides must set it, and the client's tls.Config
	// must have a ClientSessionCache. Then Dial and Accept return before the
	// handshake is over; see [Conn.HandshakeComplete].
	//
	// Early data can be recorded and sent again by anyone on the way. A server must not
	// act on it, before the handshake is complete, if doing so twice does harm.
	EarlyData bool

	// Tokens, if not nil, keeps what servers give a client to show next time that
	// its address is its own. quic-go's NewLRUTokenStore makes one.
	Tokens quic.TokenStore

	// Datagrams allows unreliable datagrams (RFC 9221), which GetRawConnection's
	// connection can send and receive.
	Datagrams bool

	// QlogDir, if not empty, is a directory, made if there is none, to which each
	// connection writes a qlog file, ID_client.sqlog or ID_server.sqlog. They hold
	// addresses and sizes and no content, and grow with each packet. A directory that
	// cannot be made is an error of Dial and Listen; a connection whose file cannot be
	// created has none.
	QlogDir string

	// Tune, if not nil, is called with quic-go's settings before they are used, for
	// those that have no field here.
	Tune func(*quic.Config)
}

// maxIdle is half of all time: quic-go adds it to what its clock shows.
const maxIdle = math.MaxInt64 / 2

// raw returns quic-go's settings.
func (c *Config) raw() (*quic.Config, error) {
	if c == nil {
		c = new(Config)
	}
	q := &quic.Config{
		MaxIdleTimeout:                 min(max(c.IdleTimeout, 0), maxIdle),
		HandshakeIdleTimeout:           max(c.HandshakeTimeout, 0) / 2, // quic-go allows the whole handshake twice this
		KeepAlivePeriod:                max(c.KeepAlive, 0),
		MaxIncomingStreams:             c.MaxStreams,
		MaxIncomingUniStreams:          c.MaxUniStreams,
		InitialStreamReceiveWindow:     initialWindow(c.MaxStreamBuffer),
		MaxStreamReceiveWindow:         c.MaxStreamBuffer,
		InitialConnectionReceiveWindow: initialWindow(c.MaxConnBuffer),
		MaxConnectionReceiveWindow:     c.MaxConnBuffer,
		Allow0RTT:                      c.EarlyData,
		TokenStore:                     c.Tokens,
		EnableDatagrams:                c.Datagrams,
	}
	if c.QlogDir != "" {
		if err := os.MkdirAll(c.QlogDir, 0o755); err != nil {
			return nil, fmt.Errorf("quic: Config.QlogDir: %w", err)
		}
		q.Tracer = traceTo(c.QlogDir)
	}
	if c.Tune != nil {
		c.Tune(q)
	}
	return q, nil
}

// initialWindow returns what a window starts at that may grow to limit.
func initialWindow(limit uint64) uint64 {
	if limit == 0 {
		return 0 // quic-go's default
	}
	return min(limit, 512<<10)
}

func (c *Config) early() bool { return c != nil && c.EarlyData }

// verify returns what decides whether an address has to be shown.
func (c *Config) verify() func(net.Addr) bool {
	limit := DefaultMaxUnverified
	if c != nil && c.MaxUnverified != 0 {
		limit = max(c.MaxUnverified, 0)
	}
	u := &unverified{limit: limit}
	return func(net.Addr) bool { return !u.allow(time.Now()) }
}

// unverified counts what happens in a second.
type unverified struct {
	limit int

	mu    sync.Mutex
	since time.Time
	n     int
}

// allow reports whether one more may happen now.
func (u *unverified) allow(now time.Time) bool {
	u.mu.Lock()
	defer u.mu.Unlock()
	if now.Sub(u.since) >= time.Second {
		u.since, u.n = now, 0
	}
	u.n++
	return u.n <= u.limit
}

// checkTLS refuses what would only fail, less clearly, in every handshake.
func checkTLS(config *tls.Config) error {
	if config == nil {
		return errors.New("quic: the tls.Config is nil; QUIC is always encrypted")
	}
	if len(config.NextProtos) == 0 && config.GetConfigForClient == nil {
		return errors.New("quic: tls.Config.NextProtos is empty; QUIC needs the name of an application protocol (ALPN)")
	}
	return nil
}

// traceTo returns a quic.Config.Tracer that writes files to dir.
func traceTo(dir string) func(context.Context, bool, quic.ConnectionID) qlogwriter.Trace {
	return func(_ context.Context, isClient bool, id quic.ConnectionID) qlogwriter.Trace {
		role := "server"
		if isClient {
			role = "client"
		}
		f, err := os.Create(filepath.Join(dir, fmt.Sprintf("%s_%s.sqlog", id, role)))
		if err != nil {
			return nil
		}
		trace := qlogwriter.NewConnectionFileSeq(&qlogFile{bufio.NewWriter(f), f}, isClient, id)
		go trace.Run()
		return trace
	}
}

// The events' schema is registered by importing the package.
var _ = qlog.EventSchema

// qlogFile is a buffered file.
type qlogFile struct {
	*bufio.Writer
	file *os.File
}

func (f *qlogFile) Close() error { return errors.Join(f.Flush(), f.file.Close()) }
