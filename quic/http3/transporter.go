package http3

import (
	"context"
	"errors"
	"fmt"
	"net"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/cloudwego/hertz/pkg/common/config"
	errs "github.com/cloudwego/hertz/pkg/common/errors"
	"github.com/cloudwego/hertz/pkg/common/hlog"
	hertz "github.com/cloudwego/hertz/pkg/network"
	"github.com/quic-go/quic-go/http3"

	"github.com/hertznet/hertznet"
	"github.com/hertznet/hertznet/network"
	"github.com/hertznet/hertznet/quic"
	"github.com/hertznet/hertznet/standard"
)

// NewTransporter returns a transporter for a Hertz server that serves HTTPS and HTTP/3 on
// one port, TCP's and UDP's:
//
//	h := server.New(server.WithTLS(config), server.WithTransport(http3.NewTransporter))
//
// It needs the protocol, see [NewServerFactory].
func NewTransporter(o *config.Options) hertz.Transporter { return Transport()(o) }

// Transport is [NewTransporter] with settings. Each configure is called once, while the
// server is made, with the two transporters that the server's options have been applied
// to. For QUIC, too, Network, Addr and ListenConfig are the second's, and TLSConfig is
// the options':
//
//	server.WithTransport(http3.Transport(func(q *quic.Transporter, tcp *standard.Transporter) {
//		q.MaxConns = 10000
//	}))
//
// What the options mean for HTTP/3: ReadTimeout limits reading the body of a request, or
// each Read if it is a stream; WriteTimeout each part of an answer. A connection without
// a request for IdleTimeout is closed, and one without a packet for that time or half a
// minute, whichever is longer, is given up. OnAccept and OnConnect are for TCP; see the
// OnConnect of [quic.Transporter]. A WithListener is for TCP, too, and QUIC gets a socket
// at the same address.
func Transport(configure ...func(*quic.Transporter, *standard.Transporter)) func(*config.Options) hertz.Transporter {
	return func(o *config.Options) hertz.Transporter {
		t := &transporter{options: o, given: o.Listener, ln: new(lateListener)}
		o.Listener = t.ln
		defer func() { o.Listener = t.given }()
		t.https = hertznet.Transport(func(tcp *standard.Transporter) {
			t.tcp = tcp
			t.quic = quic.Transporter{
				Config:        &quic.Config{IdleTimeout: max(o.IdleTimeout, minIdle)},
				NoError:       uint64(http3.ErrCodeNoError),
				InternalError: uint64(http3.ErrCodeInternalError),
				Logger:        tcp.Logger,
			}
			for _, f := range configure {
				f(&t.quic, tcp)
			}
		})(o)
		return t
	}
}

// minIdle is for how long a connection may be silent at least. A handler may take its time.
const minIdle = 30 * time.Second

// transporter is hertznet's transporter for TCP with QUIC beside it.
type transporter struct {
	options *config.Options
	given   net.Listener // from server.WithListener
	ln      *lateListener
	tcp     *standard.Transporter // which https has
	https   hertz.Transporter
	quic    quic.Transporter

	stopping  atomic.Bool
	complains sync.Once
}

// lateListener is a listener that is there when serving starts.
type lateListener struct{ net.Listener }

// ListenAndServe implements network.Transporter.
func (t *transporter) ListenAndServe(onData hertz.OnData) error {
	if t.stopping.Load() {
		return nil // there is nothing to bind any more
	}
	if t.options.TLS == nil {
		return errors.New("http3: there is no TLS config, and HTTP/3 is always encrypted: use server.WithTLS")
	}
	// QUIC's has a NextProtos of its own: Hertz appends to the other.
	t.quic.TLSConfig = http3.ConfigureTLSConfig(t.options.TLS)
	pc, ln, err := t.listen()
	if err != nil {
		return err
	}
	t.ln.Listener = ln
	hlog.SystemLogger().Infof("HTTP/3 server listening on address=%s", pc.LocalAddr())
	done := make(chan error, 2)
	go func() {
		done <- t.quic.Serve(pc, func(ctx context.Context, c any) error {
			return t.serve(ctx, c.(*quic.Conn), onData)
		})
	}()
	go func() {
		done <- t.https.ListenAndServe(func(ctx context.Context, c any) error {
			return onData(context.WithValue(ctx, transporterKey{}, t), c)
		})
	}()
	// One without the other is not what was asked for.
	if err = <-done; err != nil {
		_ = t.Close()
	}
	return errors.Join(err, <-done)
}

// listen binds the sockets: UDP first, then TCP on the port that came out.
func (t *transporter) listen() (net.PacketConn, net.Listener, error) {
	if t.given != nil {
		network := t.given.Addr().Network()
		pc, err := t.listenUDP(network, t.given.Addr().String())
		if err != nil {
			return nil, nil, err
		}
		return pc, t.given, nil
	}
	host, port, err := net.SplitHostPort(t.tcp.Addr)
	if err != nil {
		return nil, nil, fmt.Errorf("http3: the address to listen on: %w", err)
	}
	for try := 1; ; try++ {
		pc, err := t.listenUDP(t.tcp.Network, net.JoinHostPort(host, port))
		if err != nil {
			return nil, nil, err
		}
		bound := pc.LocalAddr().(*net.UDPAddr).Port
		t.tcp.Addr = net.JoinHostPort(host, strconv.Itoa(bound))
		ln, err := t.tcp.Listen()
		if err == nil {
			return pc, ln, nil
		}
		_ = pc.Close()
		if port != "0" && port != "" || try == maxTries {
			return nil, nil, err
		}
	}
}

// maxTries is how often a free port is looked for that TCP has free, too.
const maxTries = 10

func (t *transporter) listenUDP(network, addr string) (net.PacketConn, error) {
	switch network {
	case "":
		network = "udp"
	case "tcp", "tcp4", "tcp6":
		network = strings.Replace(network, "tcp", "udp", 1)
	default:
		return nil, fmt.Errorf("http3: there is no QUIC beside the network %q; use tcp, tcp4 or tcp6", network)
	}
	lc := t.tcp.ListenConfig
	if lc == nil {
		lc = new(net.ListenConfig)
	}
	return lc.ListenPacket(context.Background(), network, addr)
}

// serve lends a connection to Hertz's engine, which looks for its protocol.
func (t *transporter) serve(ctx context.Context, c *quic.Conn, onData hertz.OnData) error {
	err := onData(ctx, streamConnection{c})
	if errors.Is(err, errs.ErrNotSupportProtocol) {
		t.complains.Do(func() {
			hlog.SystemLogger().Error("HTTP/3: connections are refused, since the server has no such protocol: call h.AddProtocol(http3.Protocol, http3.NewServerFactory(h.Engine)) before it runs")
		})
	}
	return err
}

// Close implements network.Transporter: at once.
func (t *transporter) Close() error {
	t.stopping.Store(true)
	return errors.Join(t.https.Close(), t.quic.Close())
}

// Shutdown implements network.Transporter: it waits for the requests of both until ctx
// ends, and then returns ctx.Err(), with which Hertz's engine compares.
func (t *transporter) Shutdown(ctx context.Context) error {
	t.stopping.Store(true)
	done := make(chan error, 1)
	go func() { done <- t.quic.Shutdown(ctx) }()
	err := t.https.Shutdown(ctx)
	if quicErr := <-done; err == nil {
		err = quicErr
	}
	return err
}

// Listener returns TCP's, nil before. Hertz takes a server without one for one that is
// shutting down.
func (t *transporter) Listener() net.Listener {
	return t.https.(interface{ Listener() net.Listener }).Listener()
}

// streamConnection is a connection with Hertz's types.
type streamConnection struct{ *quic.Conn }

var _ hertz.StreamConn = streamConnection{}

func (c streamConnection) CloseWithError(err hertz.ApplicationError, msg string) error {
	return c.Conn.CloseWithError(err, msg)
}

func (c streamConnection) AcceptStream(ctx context.Context) (hertz.Stream, error) {
	return stream(c.Conn.AcceptStream(ctx))
}

func (c streamConnection) OpenStream() (hertz.Stream, error) { return stream(c.Conn.OpenStream()) }

func (c streamConnection) OpenStreamSync(ctx context.Context) (hertz.Stream, error) {
	return stream(c.Conn.OpenStreamSync(ctx))
}

func (c streamConnection) AcceptUniStream(ctx context.Context) (hertz.ReceiveStream, error) {
	s, err := c.Conn.AcceptUniStream(ctx)
	if err != nil {
		return nil, err
	}
	return receiveStream{s}, nil
}

func (c streamConnection) OpenUniStream() (hertz.SendStream, error) {
	return sendStream(c.Conn.OpenUniStream())
}

func (c streamConnection) OpenUniStreamSync(ctx context.Context) (hertz.SendStream, error) {
	return sendStream(c.Conn.OpenUniStreamSync(ctx))
}

type bidiStream struct{ network.Stream }

func (s bidiStream) CancelRead(err hertz.ApplicationError)  { s.Stream.CancelRead(err) }
func (s bidiStream) CancelWrite(err hertz.ApplicationError) { s.Stream.CancelWrite(err) }

type receiveStream struct{ network.ReceiveStream }

func (s receiveStream) CancelRead(err hertz.ApplicationError) { s.ReceiveStream.CancelRead(err) }

type sendOnlyStream struct{ network.SendStream }

func (s sendOnlyStream) CancelWrite(err hertz.ApplicationError) { s.SendStream.CancelWrite(err) }

func stream(s network.Stream, err error) (hertz.Stream, error) {
	if err != nil {
		return nil, err
	}
	return bidiStream{s}, nil
}

func sendStream(s network.SendStream, err error) (hertz.SendStream, error) {
	if err != nil {
		return nil, err
	}
	return sendOnlyStream{s}, nil
}
