// Package quic is QUIC for package network: connections that carry many streams, on
// quic-go. It is a module of its own, so that who needs TCP alone carries nothing of it.
//
// # Usage
//
// A server sets the fields of a [Transporter] and accepts streams in OnData:
//
//	t := &quic.Transporter{Addr: ":7000", TLSConfig: config} // with NextProtos
//	err := t.ListenAndServe(func(ctx context.Context, conn any) error {
//		c := conn.(network.StreamConn)
//		for {
//			s, err := c.AcceptStream(ctx)
//			if err != nil {
//				return err
//			}
//			go answer(s) // and Close it
//		}
//	})
//
// A client connects with [Dial] and opens streams:
//
//	c, err := quic.Dial(ctx, "localhost:7000", config, nil)
//	s, err := c.OpenStreamSync(ctx)
//
// [Listen] is a server without a Transporter, and [NewConn] takes a connection of quic-go
// that comes from elsewhere. [NetConn] makes a stream a net.Conn, and
// standard.NewConn(quic.NetConn(s)) a network.Conn with Peek, Skip and Malloc: protocols
// written for TCP run over QUIC as they are.
//
// # Ownership and lifetimes
//
// A stream costs memory, and one of the peer's limit, until both of its directions have
// ended: the sending one by Close or CancelWrite, the receiving one by reading to its end
// or by CancelRead. Both must happen, also after an error. Nothing ends a stream that is
// merely dropped, except the end of its connection.
//
// A connection is closed by CloseWithError, and by the Transporter after OnData. A
// connection from Dial owns its socket; the socket of a Listener that was closed is
// closed with the last of its connections. Read and Write do not keep p.
//
// CloseWithError drops what is on its way. Who sends last must wait until the peer has
// said, in the protocol's own words, that it has all, and let the peer close; a
// Transporter takes care of the answers of its connections.
//
// # Errors
//
// Every error of a connection and of a stream is a net.Error by a type assertion, but
// io.EOF, which is bare. Timeout reports true for deadlines, those of contexts as well,
// and for connections that were lost by silence. Temporary reports true at the peer's
// limit of streams, and when [Conn.OpenStream] or [Conn.OpenUniStream] must wait for the
// handshake since the server has refused early data, and nowhere else.
//
// Deadlines are os.ErrDeadlineExceeded by errors.Is, what happens after the end of a
// connection is net.ErrClosed, and a context's own error is found as well. A cancelled
// stream's error is a [StreamError]. The code of an application is found by errors.As as
// a [network.ApplicationError]; what quic-go said, as *quic.ApplicationError,
// *quic.TransportError and so on.
//
// # Concurrency
//
// Any goroutine may use connections, listeners and transporters. On a stream, one
// goroutine may read while one other writes, and any may call the other methods; Close
// must not come while a Write is under way. What NetConn returns has no such rules.
//
// # Limitations
//
// Opening a stream sends nothing: the peer sees it when it is written to, closed or
// cancelled.
//
// What a peer has received but not read when its connection ends is lost to it, with
// quic-go on its side. So a Transporter that shuts down gives clients half a second to
// read their last answers.
//
// quic-go writes one line to package log if the system does not let it have the socket
// buffers that it wants; net.core.rmem_max and wmem_max of 7500000 bytes on Linux, or
// QUIC_GO_DISABLE_RECEIVE_BUFFER_WARNING=true, prevent it.
//
// [Dial] uses one socket for each connection. Migration to other addresses, other ways to
// make connection ids, and stateless resets are for those who use quic-go itself, with
// [NewConn].
//
// # Security
//
// Every connection is TLS 1.3. Client certificates, if the tls.Config asks for them, are
// verified when OnData is called, unless [Config].EarlyData is set: then see
// [Conn.HandshakeComplete]. Early data can be replayed.
//
// What a peer can cost, by the fields of [Config]: a goroutine of the server for each of
// MaxStreams and MaxUniStreams, MaxConnBuffer bytes, and a connection for as long as it
// sends something every IdleTimeout. MaxConns of a [Transporter] limits the number of
// connections, and MaxUnverified what forged addresses can do. Streams have no timeouts
// of their own: set deadlines.
package quic
