// Package http3 puts Hertz's handlers, and Hertz's client, on HTTP/3 (RFC 9114), by
// quic-go.
//
// # Usage
//
// A server runs HTTPS and HTTP/3 on one port, TCP's and UDP's. It needs a transporter, the
// protocol, and something that tells clients of HTTPS where HTTP/3 is:
//
//	h := server.Default(
//		server.WithHostPorts(":443"),
//		server.WithTLS(config),
//		server.WithTransport(http3.NewTransporter),
//	)
//	h.AddProtocol(http3.Protocol, http3.NewServerFactory(h.Engine))
//	h.Use(http3.AltSvc(0))
//
// Handlers and middleware stay as they are. ctx.Request.Header.GetProtocol is "HTTP/3.0".
//
// A client that speaks HTTP/3 and nothing else:
//
//	c, err := client.NewClient(client.WithTLSConfig(config))
//	c.SetClientFactory(http3.NewClientFactory(c.GetOptions()))
//
// # Requests and answers
//
// They are what they are over HTTP/1.1, and Hertz's options mean the same:
// MaxRequestBodySize (413), MaxHeaderBytes (431), StreamRequestBody, GetOnly,
// ContinueHandler, tracers, the Server and Date fields. See [Transport] for the timeouts.
//
// A body stream of unknown length is sent part by part as it is read. Trailers go both
// ways, in an answer of known length, too. What handlers write by themselves in the form
// of HTTP/1.1, to ctx.GetWriter, is sent as HTTP/3: with it Hertz's sse package, its
// chunked body writer and adaptor.HertzHandler work.
//
// The handler's context ends when the client gives the request up, without
// WithSenseClientDisconnection.
//
// An answer that breaks off, by an error of its body stream, a panic that nothing has
// recovered or a write timeout, resets its stream, so that the client does not take it for
// whole. The connection and its other requests go on. Panics are logged, and other answers
// that are cut off, each kind once in ten seconds at most, with the number of those that
// were left out.
//
// Connection: close, and WithKeepAlive(false), end the connection when its requests are
// answered. Shutdown tells clients to send no more (GOAWAY), waits for all requests whose
// handlers have begun and for the delivery of their answers, and refuses others in a way
// that lets a client send them again. Idle connections are closed after half a second.
//
// # Limitations
//
// A request has no connection of its own: a handler that hijacks it, upgrades it or
// answers with 101 is refused: the client gets 501, and a log line says why. So WebSocket
// is for HTTP/1.1; CONNECT with a protocol (RFC 9220) is answered with 501, too.
//
// Names of header fields come in lower case and are seen in the canonical form,
// WithDisableHeaderNamesNormalizing or not.
//
// A request without a body is one whose stream has ended. That is waited for, within
// ReadTimeout, also for GET.
//
// There is no server push and no WebTransport. There is 0-RTT only if Config.EarlyData of
// [github.com/hertznet/hertznet/quic.Transporter] is set; then what package quic says of
// it holds.
//
// HTTP/3 needs UDP to pass. The client does not fall back on HTTP/1.1, keeps a connection
// for 30 seconds of silence at most, and waits no longer than that for an answer, unless
// its QUICConfig has a KeepAlivePeriod. Redirects and cookies are those of
// Hertz's client; its retries are not: what a server has refused without beginning it is
// sent again once, and nothing else.
//
// # Security
//
// A client can cost what [github.com/hertznet/hertznet/quic.Config] allows: by default 100
// requests at once on each connection, each with a goroutine, a RequestContext and a body
// of MaxRequestBodySize, within the windows of flow control for what no handler has read.
// The MaxConns of [github.com/hertznet/hertznet/quic.Transporter] limits the connections.
// Request lines and fields are checked by quic-go; in an answer, what would make it
// malformed is replaced by spaces or left out.
//
// Alt-Svc is believed by clients for as long as it says. A server that stops HTTP/3 makes
// them try and fail first for that time.
package http3
