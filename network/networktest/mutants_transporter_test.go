package networktest

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"net"
	"os"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/hertznet/hertznet/network"
)

var transporterMutants = []transporterMutant{
	{
		id: "S1", what: "Listener is a nil pointer in an interface",
		make: func(o TransporterOptions) network.Transporter {
			return typedNilListener{newTransporterReference(o)}
		},
	},
	{
		id: "S2", what: "the context is nil unless a hook has set it",
		also: []string{"S17"}, // what is nil is not cancelled
		make: func(o TransporterOptions) network.Transporter {
			hooked := o.OnAccept != nil || o.OnConnect != nil
			return onDataOf(o, func(_ *transporterReference, ctx context.Context, c network.Conn, onData network.OnData) error {
				if !hooked {
					ctx = nil
				}
				return onData(ctx, c)
			})
		},
	},
	{
		id: "S3", what: "any failure of Accept ends serving",
		also: []string{"S19"},
		make: func(o TransporterOptions) network.Transporter {
			return acceptOf(o, func(ln net.Listener) (net.Conn, error) {
				c, err := ln.Accept()
				if err != nil {
					err = final{err}
				}
				return c, err
			})
		},
	},
	{
		id: "S3", what: "Accept is tried again without a pause",
		make: func(o TransporterOptions) network.Transporter {
			return acceptOf(o, func(ln net.Listener) (net.Conn, error) {
				for {
					c, err := ln.Accept()
					if !isTransientAccept(err) {
						return c, err
					}
				}
			})
		},
	},
	{
		id: "S3", what: "once Accept has failed, there is a pause before each",
		make: func(o TransporterOptions) network.Transporter {
			var failed atomic.Bool
			return acceptOf(o, func(ln net.Listener) (net.Conn, error) {
				if failed.Load() {
					time.Sleep(300 * time.Millisecond)
				}
				c, err := ln.Accept()
				if isTransientAccept(err) {
					failed.Store(true)
				}
				return c, err
			})
		},
	},
	{
		id: "S4", what: `any error that says "closed" is taken for an end as asked for`,
		make: func(o TransporterOptions) network.Transporter {
			return serveOf(o, func(t *transporterReference, onData network.OnData) error {
				err := t.ListenAndServe(onData)
				if err != nil && strings.Contains(err.Error(), "closed") {
					return nil
				}
				return err
			})
		},
	},
	{
		id: "S4", what: "a listener that cannot be opened is a panic",
		also: []string{"S15"}, // where another server listens, too
		make: func(o TransporterOptions) network.Transporter {
			return serveOf(o, func(t *transporterReference, onData network.OnData) error {
				err := t.ListenAndServe(onData)
				if err != nil && t.Listener() == nil {
					panic(err)
				}
				return err
			})
		},
	},
	{
		id: "S5", what: "a Close that comes before serving is forgotten",
		make: func(o TransporterOptions) network.Transporter {
			return closeOf(o, func(t *transporterReference) error {
				if t.Listener() == nil {
					return nil
				}
				return t.Close()
			})
		},
	},
	{
		id: "S5", what: "Close leaves connections to themselves",
		make: func(o TransporterOptions) network.Transporter {
			return closeOf(o, func(t *transporterReference) error {
				t.stop()
				return nil
			})
		},
	},
	{
		id: "S6", what: "Shutdown waits for idle connections as for others",
		make: func(o TransporterOptions) network.Transporter {
			return shutdownOf(o, func(t *transporterReference, ctx context.Context) error {
				t.stop()
				select {
				case <-t.drained:
					return nil
				case <-ctx.Done():
					return t.Shutdown(ctx)
				}
			})
		},
	},
	{
		id: "S6", what: "Shutdown waits for a connection that has never sent anything",
		make: func(o TransporterOptions) network.Transporter {
			return shutdownOf(o, func(t *transporterReference, ctx context.Context) error {
				t.mu.Lock()
				for c := range t.conns {
					c.begun = true
				}
				t.mu.Unlock()
				return t.Shutdown(ctx)
			})
		},
	},
	{
		id: "S6", what: "Shutdown closes active connections",
		make: func(o TransporterOptions) network.Transporter {
			return shutdownOf(o, func(t *transporterReference, ctx context.Context) error {
				t.stop()
				t.closeWhere(func(*transporterConn) bool { return true })
				return t.Shutdown(ctx)
			})
		},
	},
	{
		id: "S6", what: "a connection whose OnData has returned is forgotten",
		also: []string{"S20"}, // nobody looks at how long it is idle
		make: func(o TransporterOptions) network.Transporter {
			return onDataOf(o, func(t *transporterReference, ctx context.Context, c network.Conn, onData network.OnData) error {
				err := onData(ctx, c)
				if err == nil && c.SetReadTimeout(0) == nil {
					<-t.stopped
					return errHandler
				}
				return err
			})
		},
	},
	{
		id: "S6", what: "what becomes idle by OnData's return during Shutdown is waited for",
		make: func(o TransporterOptions) network.Transporter {
			return onDataOf(o, func(t *transporterReference, ctx context.Context, c network.Conn, onData network.OnData) error {
				err := onData(ctx, c)
				if err == nil && t.isStopping() {
					_, _ = c.Peek(1)
				}
				return err
			})
		},
	},
	{
		id: "S6", what: "what becomes idle inside of OnData during Shutdown is waited for",
		make: func(o TransporterOptions) network.Transporter {
			return onDataOf(o, func(t *transporterReference, ctx context.Context, c network.Conn, onData network.OnData) error {
				return onData(ctx, idleUnheard{c, t})
			})
		},
	},
	{
		id: "S7", what: "Shutdown returns the cause",
		make: func(o TransporterOptions) network.Transporter {
			return shutdownOf(o, func(t *transporterReference, ctx context.Context) error {
				if err := t.Shutdown(ctx); err != nil {
					return context.Cause(ctx)
				}
				return nil
			})
		},
	},
	{
		id: "S7", what: "Shutdown's error is wrapped",
		make: func(o TransporterOptions) network.Transporter {
			return shutdownOf(o, func(t *transporterReference, ctx context.Context) error {
				if err := t.Shutdown(ctx); err != nil {
					return fmt.Errorf("shutdown: %w", err)
				}
				return nil
			})
		},
	},
	{
		id: "S8", what: "a second Shutdown closes a channel again",
		also: []string{"S9"}, // where Shutdown is called twice, too
		make: func(o TransporterOptions) network.Transporter {
			quit := make(chan struct{})
			return shutdownOf(o, func(t *transporterReference, ctx context.Context) error {
				close(quit)
				return t.Shutdown(ctx)
			})
		},
	},
	{
		id: "S8", what: "a Shutdown that comes before serving is forgotten",
		make: func(o TransporterOptions) network.Transporter {
			return shutdownOf(o, func(t *transporterReference, ctx context.Context) error {
				if t.Listener() == nil {
					return nil
				}
				return t.Shutdown(ctx)
			})
		},
	},
	{
		id: "S9", what: "each Close closes the listener",
		make: func(o TransporterOptions) network.Transporter {
			return closeOf(o, func(t *transporterReference) error {
				if ln := t.Listener(); ln != nil {
					ln.Close()
				}
				return t.Close()
			})
		},
	},
	{
		id: "S10", what: "a panic leaves its connection open",
		make: func(o TransporterOptions) network.Transporter {
			return panicsOf(o, func(t *transporterReference, p any) error {
				t.log(p)
				<-t.stopped
				return nil
			})
		},
	},
	{
		id: "S10", what: "a panic ends serving",
		make: func(o TransporterOptions) network.Transporter {
			return panicsOf(o, func(t *transporterReference, p any) error {
				t.log(p)
				t.stop()
				return errHandler
			})
		},
	},
	{
		id: "S10", what: "a panic is swallowed",
		make: func(o TransporterOptions) network.Transporter {
			return panicsOf(o, func(*transporterReference, any) error { return errHandler })
		},
	},
	{
		id: "S11", what: "OnAccept runs in the accept loop",
		also: []string{"S12"}, // its context gets lost
		make: func(o TransporterOptions) network.Transporter {
			hook := o.OnAccept
			o.OnAccept = nil
			return acceptOf(o, func(ln net.Listener) (net.Conn, error) {
				c, err := ln.Accept()
				if err == nil && hook != nil {
					hook(c)
				}
				return c, err
			})
		},
	},
	{
		id: "S11", what: "the handshake runs in the accept loop",
		also: []string{"S12"}, // OnAccept is too late then
		make: func(o TransporterOptions) network.Transporter {
			config := o.TLS
			o.TLS = nil
			return acceptOf(o, func(ln net.Listener) (net.Conn, error) {
				c, err := ln.Accept()
				if err != nil || config == nil {
					return c, err
				}
				if o.ReadTimeout > 0 {
					_ = c.SetDeadline(time.Now().Add(o.ReadTimeout))
					defer c.SetDeadline(time.Time{})
				}
				secure := tls.Server(c, config)
				if secure.Handshake() != nil {
					c.Close()
				}
				return secure, nil
			})
		},
	},
	{
		id: "S12", what: "OnConnect runs before the handshake",
		make: func(o TransporterOptions) network.Transporter {
			onAccept, onConnect := o.OnAccept, o.OnConnect
			o.OnConnect = nil
			o.OnAccept = func(nc net.Conn) context.Context {
				ctx := context.Background()
				if onAccept != nil {
					if got := onAccept(nc); got != nil {
						ctx = got
					}
				}
				if onConnect != nil {
					onConnect(ctx, Reference(nc))
				}
				return ctx
			}
			return newTransporterReference(o)
		},
	},
	{
		id: "S12", what: "OnAccept runs after the handshake",
		make: func(o TransporterOptions) network.Transporter {
			onAccept, onConnect := o.OnAccept, o.OnConnect
			o.OnAccept = nil
			o.OnConnect = func(ctx context.Context, c network.Conn) context.Context {
				if onAccept != nil {
					if got := onAccept(c); got != nil {
						ctx = got
					}
				}
				if onConnect != nil {
					return onConnect(ctx, c)
				}
				return ctx
			}
			return newTransporterReference(o)
		},
	},
	{
		id: "S12", what: "OnConnect runs for a connection that OnAccept has closed",
		make: func(o TransporterOptions) network.Transporter {
			if onAccept, onConnect := o.OnAccept, o.OnConnect; onAccept != nil && onConnect != nil {
				o.OnAccept = func(nc net.Conn) context.Context {
					ctx := onAccept(nc)
					if errors.Is(nc.SetDeadline(time.Time{}), net.ErrClosed) {
						onConnect(ctx, Reference(nc))
					}
					return ctx
				}
			}
			return newTransporterReference(o)
		},
	},
	{
		id: "S12", what: "OnConnect runs after a handshake that failed",
		make: func(o TransporterOptions) network.Transporter {
			return acceptOf(o, func(ln net.Listener) (net.Conn, error) {
				c, err := ln.Accept()
				if err != nil || o.TLS == nil || o.OnConnect == nil {
					return c, err
				}
				return &failedHandshake{Conn: c, onConnect: o.OnConnect}, nil
			})
		},
	},
	{
		id: "S12", what: "OnConnect gets a context of its own, not OnAccept's",
		make: func(o TransporterOptions) network.Transporter {
			if onConnect := o.OnConnect; onConnect != nil {
				o.OnConnect = func(_ context.Context, c network.Conn) context.Context {
					return onConnect(context.Background(), c)
				}
			}
			return newTransporterReference(o)
		},
	},
	{
		id: "S13", what: "a context is made from the one that OnAccept returned",
		make: func(o TransporterOptions) network.Transporter {
			if onAccept := o.OnAccept; onAccept != nil {
				o.OnAccept = func(nc net.Conn) context.Context { return context.WithoutCancel(onAccept(nc)) }
			}
			return newTransporterReference(o)
		},
	},
	{
		id: "S14", what: "a goroutine of each connection stays",
		make: func(o TransporterOptions) network.Transporter {
			return onDataOf(o, func(t *transporterReference, ctx context.Context, c network.Conn, onData network.OnData) error {
				go func() { <-t.stopped }()
				return onData(ctx, c)
			})
		},
	},
	{
		id: "S14", what: "a descriptor opened for each connection stays",
		make: func(o TransporterOptions) network.Transporter {
			var mu sync.Mutex
			var files []*os.File
			t := acceptOf(o, func(ln net.Listener) (net.Conn, error) {
				c, err := ln.Accept()
				// As one to wait with; what file it is does not matter.
				if f, err := os.Open(os.DevNull); err == nil {
					mu.Lock()
					files = append(files, f)
					mu.Unlock()
				}
				return c, err
			})
			context.AfterFunc(t.ended, func() {
				mu.Lock()
				defer mu.Unlock()
				for _, f := range files {
					f.Close()
				}
			})
			return t
		},
	},
	{
		id: "S15", what: "a socket file is removed without asking",
		make: func(o TransporterOptions) network.Transporter {
			return serveOf(o, func(t *transporterReference, onData network.OnData) error {
				if o.Network == "unix" {
					os.Remove(o.Address)
				}
				return t.ListenAndServe(onData)
			})
		},
	},
	{
		id: "S15", what: "the file of a listener that was passed in is removed",
		make: func(o TransporterOptions) network.Transporter {
			return serveOf(o, func(t *transporterReference, onData network.OnData) error {
				if o.Listener != nil && o.Listener.Addr().Network() == "unix" {
					os.Remove(o.Listener.Addr().String())
				}
				return t.ListenAndServe(onData)
			})
		},
	},
	{
		id: "S15", what: "a stale socket file is left where it is",
		make: func(o TransporterOptions) network.Transporter {
			return serveOf(o, func(t *transporterReference, onData network.OnData) error {
				if o.Network == "unix" {
					if _, err := os.Lstat(o.Address); err == nil {
						return errors.New("listen: address already in use")
					}
				}
				return t.ListenAndServe(onData)
			})
		},
	},
	{
		id: "S16", what: "a connection that Accept returns while it is closed is left open",
		make: func(o TransporterOptions) network.Transporter {
			var t *mutantTransporter
			t = acceptOf(o, func(ln net.Listener) (net.Conn, error) {
				c, err := ln.Accept()
				if err == nil && t.isStopping() {
					return nil, net.ErrClosed
				}
				return c, err
			})
			return t
		},
	},
	{
		id: "S17", what: "nobody looks at the peer while a handler runs",
		make: func(o TransporterOptions) network.Transporter {
			return onDataOf(o, func(_ *transporterReference, ctx context.Context, c network.Conn, onData network.OnData) error {
				return onData(context.WithoutCancel(ctx), c)
			})
		},
	},
	{
		id: "S17", what: "the peer is looked at now and then",
		make: func(o TransporterOptions) network.Transporter {
			return onDataOf(o, func(_ *transporterReference, ctx context.Context, c network.Conn, onData network.OnData) error {
				late, cancel := context.WithCancel(context.WithoutCancel(ctx))
				defer cancel()
				defer context.AfterFunc(ctx, func() { time.AfterFunc(60*time.Millisecond, cancel) })()
				return onData(late, c)
			})
		},
	},
	{
		id: "S18", what: "the read timeout begins with the first byte",
		make: func(o TransporterOptions) network.Transporter {
			o.ReadTimeout = 0
			return newTransporterReference(o)
		},
	},
	{
		id: "S18", what: "a handshake has no limit",
		make: func(o TransporterOptions) network.Transporter {
			if o.TLS != nil {
				o.ReadTimeout = 0
			}
			return newTransporterReference(o)
		},
	},
	{
		id: "S18", what: "over TLS the read timeout is over with the handshake",
		make: func(o TransporterOptions) network.Transporter {
			if o.TLS != nil && o.OnConnect == nil {
				o.OnConnect = func(ctx context.Context, c network.Conn) context.Context {
					_ = c.SetReadTimeout(0)
					return ctx
				}
			}
			return newTransporterReference(o)
		},
	},
	{
		id: "S19", what: "there is no limit",
		make: func(o TransporterOptions) network.Transporter {
			o.MaxConns = 0
			return newTransporterReference(o)
		},
	},
	{
		id: "S19", what: "the limit is one too high",
		make: func(o TransporterOptions) network.Transporter {
			if o.MaxConns > 0 {
				o.MaxConns++
			}
			return newTransporterReference(o)
		},
	},
	{
		id: "S19", what: "what is over the limit takes a place for good",
		make: func(o TransporterOptions) network.Transporter {
			limit := int32(o.MaxConns)
			o.MaxConns = 0
			var open atomic.Int32
			return onDataOf(o, func(_ *transporterReference, ctx context.Context, c network.Conn, onData network.OnData) error {
				if limit > 0 && open.Add(1) > limit {
					return errHandler // and nobody takes it back
				}
				defer open.Add(-1)
				return onData(ctx, c)
			})
		},
	},
	{
		id: "S19", what: "an Accept that fails takes a place for good",
		make: func(o TransporterOptions) network.Transporter {
			var t *mutantTransporter
			t = acceptOf(o, func(ln net.Listener) (net.Conn, error) {
				c, err := ln.Accept()
				if t.slots != nil && isTransientAccept(err) {
					t.slots <- struct{}{}
				}
				return c, err
			})
			return t
		},
	},
	{
		id: "S19", what: "a handshake that fails keeps its connection's place",
		make: func(o TransporterOptions) network.Transporter {
			if o.TLS == nil || o.MaxConns == 0 {
				return newTransporterReference(o)
			}
			places := make(chan struct{}, o.MaxConns)
			o.MaxConns = 0
			var t *mutantTransporter
			ended := make(chan struct{})
			t = acceptOf(o, func(ln net.Listener) (net.Conn, error) {
				select {
				case places <- struct{}{}:
					return ln.Accept()
				case <-ended:
					return nil, net.ErrClosed
				}
			})
			context.AfterFunc(t.ended, func() { close(ended) })
			t.serve = func(r *transporterReference, onData network.OnData) error {
				return r.ListenAndServe(func(ctx context.Context, c any) error {
					defer func() { <-places }()
					return onData(ctx, c)
				})
			}
			return t
		},
	},
	{
		id: "S20", what: "there is no idle timeout",
		make: func(o TransporterOptions) network.Transporter {
			o.IdleTimeout = 0
			return newTransporterReference(o)
		},
	},
	{
		id: "S20", what: "the idle timeout runs on while a message is handled",
		make: func(o TransporterOptions) network.Transporter {
			return onDataOf(o, func(_ *transporterReference, ctx context.Context, c network.Conn, onData network.OnData) error {
				if o.IdleTimeout > 0 {
					defer time.AfterFunc(o.IdleTimeout, func() { c.Close() }).Stop()
				}
				return onData(ctx, c)
			})
		},
	},
	{
		id: "S21", what: "the write timeout is not passed on",
		make: func(o TransporterOptions) network.Transporter {
			o.WriteTimeout = 0
			return newTransporterReference(o)
		},
	},
	{
		id: "S22", what: "the connection is closed as soon as the handler gives it up",
		make: func(o TransporterOptions) network.Transporter {
			return onDataOf(o, func(_ *transporterReference, ctx context.Context, c network.Conn, onData network.OnData) error {
				err := onData(ctx, c)
				if err != nil {
					c.Close()
				}
				return err
			})
		},
	},
	{
		id: "S22", what: "the connection of a handler that gives it up is never closed",
		make: func(o TransporterOptions) network.Transporter {
			return onDataOf(o, func(t *transporterReference, ctx context.Context, c network.Conn, onData network.OnData) error {
				err := onData(ctx, c)
				if err == errHandler {
					<-t.stopped
				}
				return err
			})
		},
	},
	{
		id: "S22", what: "a connection over TLS is closed as soon as the handler gives it up",
		make: func(o TransporterOptions) network.Transporter {
			return onDataOf(o, func(_ *transporterReference, ctx context.Context, c network.Conn, onData network.OnData) error {
				err := onData(ctx, c)
				if _, ok := c.(network.ConnTLSer); ok && err != nil {
					c.Close()
				}
				return err
			})
		},
	},
	{
		id: "S22", what: "there is a pause before the close, and no half-close",
		make: func(o TransporterOptions) network.Transporter {
			return givenUpOf(o, func(*transporterConn) { time.Sleep(100 * time.Millisecond) })
		},
	},
	{
		id: "S22", what: "what comes is dropped for a while, and then both directions are closed at once",
		make: func(o TransporterOptions) network.Transporter {
			return givenUpOf(o, func(c *transporterConn) {
				for start, p := time.Now(), make([]byte, 64<<10); time.Since(start) < 100*time.Millisecond; {
					if _, err := c.Read(p); err != nil {
						return
					}
				}
			})
		},
	},
	{
		id: "S22", what: "what comes is dropped up to a number of bytes, however long that takes",
		make: func(o TransporterOptions) network.Transporter {
			return givenUpOf(o, func(c *transporterConn) {
				_ = c.nc.(*net.TCPConn).CloseWrite()
				_ = c.SetReadTimeout(0)
				for n, p := 0, make([]byte, 64<<10); n < 8<<20; {
					m, err := c.Read(p)
					if err != nil {
						return
					}
					n += m
				}
			})
		},
	},
}

// mutantTransporter is the reference with other methods, where they are not nil.
type mutantTransporter struct {
	*transporterReference
	ended context.Context // done after Close and Shutdown

	serve    func(t *transporterReference, onData network.OnData) error
	close    func(t *transporterReference) error
	shutdown func(t *transporterReference, ctx context.Context) error
}

func newMutantTransporter(o TransporterOptions) *mutantTransporter {
	t := &mutantTransporter{transporterReference: newTransporterReference(o)}
	ended, end := context.WithCancel(context.Background())
	t.ended = ended
	go func() {
		defer end()
		<-t.stopped
	}()
	return t
}

func (t *mutantTransporter) ListenAndServe(onData network.OnData) error {
	if t.serve != nil {
		return t.serve(t.transporterReference, onData)
	}
	return t.transporterReference.ListenAndServe(onData)
}

func (t *mutantTransporter) Close() error {
	if t.close != nil {
		return t.close(t.transporterReference)
	}
	return t.transporterReference.Close()
}

func (t *mutantTransporter) Shutdown(ctx context.Context) error {
	if t.shutdown != nil {
		return t.shutdown(t.transporterReference, ctx)
	}
	return t.transporterReference.Shutdown(ctx)
}

func serveOf(o TransporterOptions, f func(t *transporterReference, onData network.OnData) error) network.Transporter {
	t := newMutantTransporter(o)
	t.serve = f
	return t
}

func closeOf(o TransporterOptions, f func(t *transporterReference) error) network.Transporter {
	t := newMutantTransporter(o)
	t.close = f
	return t
}

func shutdownOf(o TransporterOptions, f func(t *transporterReference, ctx context.Context) error) network.Transporter {
	t := newMutantTransporter(o)
	t.shutdown = f
	return t
}

// onDataOf has f call OnData.
func onDataOf(o TransporterOptions, f func(t *transporterReference, ctx context.Context, c network.Conn, onData network.OnData) error) network.Transporter {
	return serveOf(o, func(t *transporterReference, onData network.OnData) error {
		return t.ListenAndServe(func(ctx context.Context, conn any) error {
			return f(t, ctx, conn.(network.Conn), onData)
		})
	})
}

// panicsOf has f do what is done when OnData has panicked.
func panicsOf(o TransporterOptions, f func(t *transporterReference, p any) error) network.Transporter {
	return onDataOf(o, func(t *transporterReference, ctx context.Context, c network.Conn, onData network.OnData) (err error) {
		defer func() {
			if p := recover(); p != nil {
				err = f(t, p)
			}
		}()
		return onData(ctx, c)
	})
}

// givenUpOf has f do what is done before a connection is closed that its handler
// has given up.
func givenUpOf(o TransporterOptions, f func(c *transporterConn)) network.Transporter {
	return onDataOf(o, func(_ *transporterReference, ctx context.Context, c network.Conn, onData network.OnData) error {
		err := onData(ctx, c)
		if tc, ok := c.(*transporterConn); ok && err != nil {
			f(tc)
			c.Close()
		}
		return err
	})
}

// acceptOf has f accept connections.
func acceptOf(o TransporterOptions, f func(ln net.Listener) (net.Conn, error)) *mutantTransporter {
	if o.Listener != nil {
		o.Listener = acceptListener{o.Listener, f}
	}
	return newMutantTransporter(o)
}

type acceptListener struct {
	net.Listener
	accept func(ln net.Listener) (net.Conn, error)
}

func (l acceptListener) Accept() (net.Conn, error) { return l.accept(l.Listener) }

// final hides a system call's error from who looks for it.
type final struct{ err error }

func (e final) Error() string { return e.err.Error() }
func (e final) Is(target error) bool {
	return !isTransientAccept(e.err) && errors.Is(e.err, target)
}

type typedNilListener struct{ *transporterReference }

func (t typedNilListener) Listener() net.Listener {
	ln, _ := t.transporterReference.Listener().(*net.TCPListener)
	return ln
}

// idleUnheard forgets to tell what is idle once stopping has begun.
type idleUnheard struct {
	network.Conn
	t *transporterReference
}

func (c idleUnheard) SetIdle(idle bool) bool {
	if idle && c.t.isStopping() {
		return true
	}
	return c.Conn.(interface{ SetIdle(bool) bool }).SetIdle(idle)
}

// failedHandshake is closed without a ServerHello.
type failedHandshake struct {
	net.Conn
	wrote     atomic.Bool
	onConnect func(context.Context, network.Conn) context.Context
}

func (c *failedHandshake) Write(p []byte) (int, error) {
	c.wrote.Store(true)
	return c.Conn.Write(p)
}

func (c *failedHandshake) Close() error {
	if !c.wrote.Swap(true) {
		c.onConnect(context.Background(), Reference(c.Conn))
	}
	return c.Conn.Close()
}
