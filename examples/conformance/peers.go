package main

import (
	"context"
	"crypto/tls"
	"errors"
	"log/slog"
	"net"
	"reflect"
	"runtime"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/cloudwego/hertz/pkg/common/config"
	"github.com/cloudwego/hertz/pkg/common/hlog"
	hertz "github.com/cloudwego/hertz/pkg/network"
	hertzstandard "github.com/cloudwego/hertz/pkg/network/standard"

	"github.com/hertznet/hertznet/network"
	"github.com/hertznet/hertznet/network/networktest"
	"github.com/hertznet/hertznet/standard"
	"github.com/hertznet/hertznet/tlsconn"
)

// implementation is a column of the table.
type implementation struct {
	key  string // what a child process knows it by, and its column's head
	name string // in sentences
	ours bool   // its failures fail the run

	// subjects are the parts of it that the kit can judge. One that is nil is not
	// judged, for the reason in because.
	subjects [kinds]networktest.Subject
	because  [kinds]string
}

// kind is a part of an implementation.
type kind int

const (
	connKind kind = iota
	tlsKind
	dialerKind
	transporterKind
	kinds
)

// judgedBy returns the parts on which the kit checks the clause: one, as a rule.
func (i *implementation) judgedBy(id string) []networktest.Subject {
	var parts []networktest.Subject
	for _, s := range i.subjects {
		if s != nil && slices.ContainsFunc(networktest.Clauses(s), func(c networktest.Clause) bool { return c.ID == id }) {
			parts = append(parts, s)
		}
	}
	return parts
}

// kindOf returns the part that a clause speaks of in the first place.
func kindOf(id string) kind {
	switch id[0] {
	case 'L':
		return tlsKind
	case 'D':
		return dialerKind
	case 'S':
		return transporterKind
	}
	return connKind
}

// implementations returns the columns. Hertz's are set up as Hertz's own server and
// client set them up; only its HTTP engine is not there, since what is judged is
// what lies beneath it.
func implementations() []implementation {
	all := []implementation{
		{
			key: "hertznet", name: "hertznet", ours: true,
			subjects: [kinds]networktest.Subject{
				connKind: networktest.Conn{
					Wrap: func(_ testing.TB, nc net.Conn) network.Conn { return standard.NewConn(nc) },
					Pair: func(tb testing.TB) (a, b network.Conn) {
						x, y := tcpPair(tb)
						return standard.NewConn(x), networktest.Reference(y)
					},
				},
				dialerKind: networktest.Dialer{New: func(testing.TB) network.Dialer { return new(standard.Dialer) }},
				transporterKind: networktest.Transporter{
					New:          newOurs,
					NoDisconnect: runtime.GOOS != "linux", // see CancelOnDisconnect
				},
			},
			because: [kinds]string{tlsKind: "this column is without TLS"},
		},
		{
			key: "net+TLS", name: "hertznet over TLS", ours: true,
			subjects: [kinds]networktest.Subject{
				connKind: networktest.Conn{
					Pair:     tlsPair,
					Behavior: networktest.Behavior{PermanentWriteTimeout: true},
				},
				tlsKind: networktest.TLS{
					Client: func(_ testing.TB, nc net.Conn, config *tls.Config) (network.Conn, error) {
						return standard.NewTLSConn(tlsconn.Client(nc, config)), nil
					},
					Server: func(_ testing.TB, nc net.Conn, config *tls.Config) (network.Conn, error) {
						return standard.NewTLSConn(tlsconn.Server(nc, config)), nil
					},
				},
			},
			because: [kinds]string{
				dialerKind:      "there is one dialer, judged in the first column, with TLS where a clause asks for it",
				transporterKind: "there is one transporter, judged in the first column, with TLS where a clause asks for it",
			},
		},
		{
			key: "standard", name: "Hertz standard",
			subjects: [kinds]networktest.Subject{
				connKind: networktest.Conn{
					Wrap: func(tb testing.TB, nc net.Conn) network.Conn { return acceptedByHertz(tb, nc, nil) },
					Pair: func(tb testing.TB) (a, b network.Conn) {
						x, y := tcpPair(tb)
						return acceptedByHertz(tb, x, nil), networktest.Reference(y)
					},
					Behavior: networktest.Behavior{SkipWithinBuffer: true},
				},
				tlsKind: networktest.TLS{
					Client: func(tb testing.TB, nc net.Conn, config *tls.Config) (network.Conn, error) {
						c, err := hertzstandard.NewDialer().AddTLS(acceptedByHertz(tb, nc, nil), config)
						return c, err
					},
					Server: func(tb testing.TB, nc net.Conn, config *tls.Config) (network.Conn, error) {
						return acceptedByHertz(tb, nc, config), nil
					},
				},
				dialerKind: networktest.Dialer{
					New: func(testing.TB) network.Dialer { return hertzDialer{hertzstandard.NewDialer()} },
				},
				transporterKind: networktest.Transporter{
					New: func(tb testing.TB, o networktest.TransporterOptions) network.Transporter {
						if tb.Name() == "S17" {
							tb.Skip("with Hertz standard the HTTP engine watches for the disconnect, not the transporter")
						}
						return hertzTransporter{hertzstandard.NewTransporter(hertzOptions(tb, o))}
					},
				},
			},
		},
	}
	return slices.Concat(all, netpollColumn(), testColumns)
}

// testColumns are added by this program's own tests, in their child processes too.
var testColumns []implementation

// declared names what the implementation declares to do otherwise than the contract.
func (i *implementation) declared() []string {
	var names []string
	if c, ok := i.subjects[connKind].(networktest.Conn); ok {
		v := reflect.ValueOf(c.Behavior)
		for f := range v.NumField() {
			if !v.Field(f).IsZero() {
				names = append(names, v.Type().Field(f).Name)
			}
		}
	}
	if d, ok := i.subjects[dialerKind].(networktest.Dialer); ok && d.NoTLS {
		names = append(names, "NoTLS")
	}
	return names
}

// newOurs returns a transporter of hertznet.
func newOurs(_ testing.TB, o networktest.TransporterOptions) network.Transporter {
	t := &standard.Transporter{
		Network:      o.Network,
		Addr:         o.Address,
		TLSConfig:    o.TLS,
		ReadTimeout:  o.ReadTimeout,
		WriteTimeout: o.WriteTimeout,
		IdleTimeout:  o.IdleTimeout,
		MaxConns:     o.MaxConns,
		OnAccept:     o.OnAccept,
		OnConnect:    o.OnConnect,
		Logger:       o.Logger,

		CancelOnDisconnect: true,
	}
	if o.Listener == nil {
		return t
	}
	return serving{t, o.Listener}
}

// serving is a transporter whose ListenAndServe serves a listener that is there.
type serving struct {
	*standard.Transporter
	ln net.Listener
}

func (s serving) ListenAndServe(onData network.OnData) error { return s.Serve(s.ln, onData) }

// tcpPair returns the two ends of a TCP connection.
func tcpPair(tb testing.TB) (x, y *net.TCPConn) {
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		tb.Fatal(err)
	}
	defer ln.Close()
	// The system connects before anybody accepts.
	c, err := net.Dial("tcp", ln.Addr().String())
	if err != nil {
		tb.Fatal(err)
	}
	s, err := ln.Accept()
	if err != nil {
		c.Close()
		tb.Fatal(err)
	}
	return c.(*net.TCPConn), s.(*net.TCPConn)
}

// selfSigned is the certificate of all pairs in this process.
var selfSigned = sync.OnceValues(func() (server, client *tls.Config) {
	cert, pool, err := tlsconn.SelfSigned()
	if err != nil {
		panic(err)
	}
	return &tls.Config{Certificates: []tls.Certificate{cert}}, &tls.Config{RootCAs: pool, ServerName: "localhost"}
})

// tlsPair returns a client of hertznet and a server of crypto/tls, after the
// handshake.
func tlsPair(tb testing.TB) (a, b network.Conn) {
	server, client := selfSigned()
	x, y := tcpPair(tb)
	s := tls.Server(y, server)
	shaken := make(chan error, 1)
	go func() { shaken <- s.Handshake() }()
	c := standard.NewTLSConn(tlsconn.Client(x, client))
	if err := errors.Join(c.Handshake(), <-shaken); err != nil {
		tb.Fatal(err)
	}
	return c, &tlsPeer{Conn: networktest.Reference(s), tls: s, raw: y}
}

// tlsPeer is a peer over TLS that can half-close and reset the connection.
type tlsPeer struct {
	network.Conn
	tls   *tls.Conn
	raw   *net.TCPConn
	reset bool
}

func (p *tlsPeer) CloseWrite() error { return p.tls.CloseWrite() }

func (p *tlsPeer) SetLinger(sec int) error {
	p.reset = sec == 0
	return p.raw.SetLinger(sec)
}

// Close does not say close_notify before a reset.
func (p *tlsPeer) Close() error {
	if p.reset {
		return p.raw.Close()
	}
	return p.Conn.Close()
}

// hertzOptions are a Hertz server's, with what the case asks for.
func hertzOptions(tb testing.TB, o networktest.TransporterOptions) *config.Options {
	switch {
	case o.MaxConns > 0:
		tb.Skip("Hertz has no limit on the number of connections")
	case o.IdleTimeout > 0:
		tb.Skip("in Hertz the idle timeout is the HTTP engine's, not the transporter's")
	}
	if o.Logger != nil {
		hlog.SetOutput(logWriter{o.Logger}) // Hertz has one logger for all
	}
	options := config.NewOptions(nil)
	options.Listener = o.Listener
	if o.Network != "" {
		options.Network = o.Network
	}
	if o.Address != "" {
		options.Addr = o.Address
	} else {
		options.Addr = "127.0.0.1:0" // Hertz's own choice is a port that may be in use
	}
	options.TLS = o.TLS
	if o.ReadTimeout > 0 {
		options.ReadTimeout = o.ReadTimeout
	}
	options.WriteTimeout = o.WriteTimeout
	options.OnAccept = o.OnAccept
	if o.OnConnect != nil {
		options.OnConnect = func(ctx context.Context, c hertz.Conn) context.Context { return o.OnConnect(ctx, c) }
	}
	// Off unless asked for, since it costs; this is the clause that asks for it.
	options.SenseClientDisconnection = tb.Name() == "S17"
	return options
}

// logWriter makes a record of each line that Hertz logs.
type logWriter struct{ to *slog.Logger }

func (w logWriter) Write(p []byte) (int, error) {
	w.to.Error(strings.TrimSpace(string(p)))
	return len(p), nil
}

// hertzTransporter is a transporter of Hertz's with this module's types.
type hertzTransporter struct{ hertz.Transporter }

func (t hertzTransporter) ListenAndServe(onData network.OnData) error {
	return t.Transporter.ListenAndServe(hertz.OnData(onData))
}

func (t hertzTransporter) Listener() net.Listener {
	return t.Transporter.(interface{ Listener() net.Listener }).Listener()
}

// hertzDialer is a dialer of Hertz's with this module's types.
type hertzDialer struct{ hertz.Dialer }

func (d hertzDialer) DialConnection(n, address string, timeout time.Duration, config *tls.Config) (network.Conn, error) {
	return d.Dialer.DialConnection(n, address, timeout, config)
}

func (d hertzDialer) AddTLS(c network.Conn, config *tls.Config) (network.Conn, error) {
	return d.Dialer.AddTLS(c, config)
}

// acceptedByHertz returns nc as Hertz's standard transporter hands it to OnData.
// There is no other way to put its Conn over a net.Conn. The transporter ends at
// once: Hertz leaves a connection alone whose OnData has returned.
func acceptedByHertz(tb testing.TB, nc net.Conn, config *tls.Config) network.Conn {
	o := networktest.TransporterOptions{Listener: &oneConn{Conn: nc}, TLS: config}
	accepted := make(chan network.Conn, 1)
	err := hertzstandard.NewTransporter(hertzOptions(tb, o)).ListenAndServe(func(_ context.Context, c any) error {
		accepted <- c.(network.Conn)
		return nil
	})
	if err != nil {
		tb.Fatal(err)
	}
	return <-accepted
}

// oneConn is a listener that accepts one connection, and is then closed.
type oneConn struct{ net.Conn }

func (l *oneConn) Accept() (net.Conn, error) {
	if l.Conn == nil {
		return nil, net.ErrClosed
	}
	c := l.Conn
	l.Conn = nil
	return c, nil
}

func (l *oneConn) Close() error   { return nil }
func (l *oneConn) Addr() net.Addr { return new(net.TCPAddr) }
