// Package hertznet is a network library for CloudWeGo Hertz, written on the Go
// standard library. It gives a Hertz server and client their connections over
// TCP, TLS and unix sockets.
//
// # Usage
//
// One line each makes a server and a client use it:
//
//	h := server.New(server.WithTransport(hertznet.NewTransporter))
//	c, err := client.NewClient(client.WithDialer(hertznet.NewDialer()))
//
// The server's options mean what Hertz documents, WithTLS, WithListener,
// WithNetwork("unix") and WithSenseClientDisconnection included; [NewTransporter]
// names the one that it changes. Where an option is missing, [Transport] and
// [NewDialer] take functions that set the fields of the [standard.Transporter] or
// the [standard.Dialer] beneath.
//
// Give WithDialer after WithTLSConfig: Hertz's WithTLSConfig sets a dialer of its
// own, and the last one wins.
//
// The types here only translate. What moves bytes is package standard, which
// can be used without Hertz, on the interfaces of package network; TLS is package
// tlsconn.
//
// # Ownership and lifetimes
//
// A request's body is a piece of its connection's memory. It is valid until the
// handler returns, as ever in Hertz: copy what is needed for longer. An answer may
// be made of it, as with SetBodyRaw(ctx.Request.Body()); the memory is kept until
// the answer has been sent.
//
// A hijacker, the function that a handler gives to Hijack, has the connection until it
// returns. Then Hertz closes it.
//
// # Timeouts
//
// ReadTimeout limits the wait for the first request of a connection, each read
// of a request, and the TLS handshake. WriteTimeout limits each Flush, and each
// MiB of a static file over TCP. A request or an answer that takes many such
// operations may take longer as a whole. IdleTimeout limits the wait between two
// requests.
//
// A client's ReadTimeout is one moment for the whole response, body included. Its
// dial timeout covers the lookup of the name, the connect and the TLS handshake
// together; see [NewDialer].
//
// A timeout of a read, a write or a handshake is os.ErrDeadlineExceeded by errors.Is where
// Hertz does not turn it into an error of its own. That of a dial says Timeout().
//
// # Concurrency
//
// NewTransporter and the dialer may be used from any goroutine, and one dialer serves
// any number of clients. A connection belongs to one handler at a time.
//
// # Shutdown
//
// Connections that wait between two requests are closed at once, and after 100 ms those that
// have not sent a byte. Requests that are running are waited for until Hertz's
// ExitWaitTime has passed; then their connections are closed.
//
// A request that has reached the server's socket is answered, and the answer says
// Connection: close. docs/OPERATIONS.md tells how a new process takes over the
// listener of an old one without losing a request.
//
// # Idle connections
//
// On Linux a connection that has waited for its next request for a while, a second at
// most, is parked: it gives up its goroutine, its buffer and Hertz's RequestContext,
// and gets them again when a byte comes. The time that it waits counts towards
// IdleTimeout as ever. With tracers none is parked, since Hertz would tell them of each
// last request twice, nor with WithH2C, since Hertz would log a warning each time. The
// field ParkAfter of [standard.Transporter] sets the time, or turns it off.
//
// # Limits and figures
//
// [standard.Transporter] has fields that limit the number of connections, of all or of an
// address, the bytes of one that may wait unread, and how slowly a client may
// send. Its method Stats counts what happens. Both are reached through [Transport]:
//
//	var t *standard.Transporter
//	h := server.New(server.WithTransport(hertznet.Transport(func(s *standard.Transporter) {
//		s.MaxConns, s.MinReadRate = 20_000, 240
//		t = s
//	})))
//	expvar.Publish("hertznet", expvar.Func(func() any { return t.Stats() }))
//
// # Limitations
//
// Small answers to pipelined requests leave together, see [Transport]; with
// StreamRequestBody they are sent one by one. HTTP/3 is a module of its own,
// github.com/hertznet/hertznet/quic.
//
// Everything above the connection stays Hertz's: routing, parsing, HTTP/2 as an
// extension, and their limits.
//
// # Security
//
// Hertz has no write timeout unless one is set: without WithWriteTimeout, a peer that
// does not read holds its handler for ever. Set WithMaxRequestBodySize as well: memory
// follows the bytes that arrive, not the length that a request claims, but a peer that
// does send them is given that memory.
//
// A TLS server never answers in clear text, save for one line: a client that spoke
// HTTP to it is told so.
//
// What peers cause every day (resets, timeouts, failed handshakes) is logged at
// level Debug, through Hertz's system logger.
package hertznet
