// Package tlsconn is TLS over any net.Conn: the handshake and the records are those of
// crypto/tls, and what a server with many connections needs around them is here.
//
//	ln, err := net.Listen("tcp", ":8443")
//	config := tlsconn.ServerConfig(&tls.Config{GetCertificate: reloader.GetCertificate})
//	for {
//		nc, err := ln.Accept()
//		c := tlsconn.Server(nc, config)
//		c.SetHandshakeTimeout(5 * time.Second)
//		go serve(c)
//	}
//
// What a [Conn] adds to a *tls.Conn:
//
//   - The handshake has a time budget of its own, beside the deadlines [L3].
//   - A stream that was cut is io.ErrUnexpectedEOF. crypto/tls reports io.EOF for it
//     when the cut falls between two records [L5].
//   - WriteBuffers sends a header and a body in one record, and the records of one Write
//     share write calls: one for 256 KiB, where crypto/tls makes sixteen [W15].
//   - Close takes at most 250 ms with a peer that does not read, where crypto/tls takes
//     five seconds, or waits for ever behind an alert that is stuck [L7]. A second Close is nil.
//   - After Close every error is net.ErrClosed, also over net.Pipe. Timeouts are
//     *net.OpError. A conn beneath that returns impossible counts, or nothing without end, is
//     an error [F1, F5].
//
// [ServerConfig], [ClientConfig] and [MutualTLS] derive configs, [SelfSigned] and [DevCA]
// make certificates for development, and [Reloader] replaces a server's certificate without
// a restart.
//
// # Limitations
//
// A write timeout is permanent [L6], since a record that has left in part cannot be taken
// back. So is any timeout of the handshake. A read timeout after it is not.
//
// What crypto/tls knows by the type of its conn is hidden: ClientHelloInfo.Conn and
// RecordHeaderError.Conn are wrappers, with a method NetConn() net.Conn that returns the
// one given to [Server].
//
// A renegotiation (TLS 1.2 clients that set Config.Renegotiation) is not under the
// handshake's budget.
//
// Ids such as [L5] name clauses of docs/CONTRACT.md.
package tlsconn
