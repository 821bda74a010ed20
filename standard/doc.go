// Package standard implements the interfaces of package network over any net.Conn:
// a buffered connection, the same over TLS, a dialer and a transporter. It imports
// nothing outside the standard library, and needs no Hertz.
//
// # Usage
//
// A server sets the fields of a [Transporter] and gives it a function, OnData or the
// handler, which is called whenever a connection has bytes to read:
//
//	t := &standard.Transporter{
//		Addr:         ":7000",
//		ReadTimeout:  time.Minute,
//		WriteTimeout: time.Minute,
//		IdleTimeout:  time.Minute,
//	}
//	err := t.ListenAndServe(func(ctx context.Context, conn any) error {
//		c := conn.(network.Conn)
//		header, err := c.Peek(4)
//		...
//		return c.Flush()
//	})
//
// A client connects with a [Dialer], whose zero value is ready for use:
//
//	c, err := new(standard.Dialer).DialConnection("tcp", "localhost:7000", time.Second, nil)
//
// A net.Conn that comes from elsewhere is given to [NewConn]. TLS is the TLSConfig
// of a Transporter, the tls.Config of a dial, or [NewTLSConn].
//
// # Ownership and lifetimes
//
// Reading: [Conn.Peek] hands out the connection's own memory. The slice is unchanged
// until [Conn.Release], whatever comes in between: a larger Peek, Skip, Read, a
// write, Close. After Release the memory belongs to whoever needs it next. Bytes that
// have not been skipped or read stay. Release is owed only for Peek; Read, ReadByte and
// ReadBinary copy.
//
// Writing: [Conn.Malloc] hands out memory to be filled until [Conn.Flush]. What
// [Conn.WriteBinary] is given must not change until Flush returns, and is free then,
// whether Flush failed or not. It may be a slice from Peek on the same connection:
// it is sent as it was, even if Release comes before Flush.
//
// A connection owns the net.Conn beneath it, and Close closes that. A Transporter closes
// the connections that it accepted: when OnData returns an error or panics, when the peer
// is gone, when IdleTimeout has passed, and at Shutdown and Close.
//
// # Timeouts
//
// [Conn.SetReadTimeout] and [Conn.SetWriteTimeout] limit each operation as a whole, not each
// system call in it, and hold until they are changed. Setting one stores a number.
// After a read timeout nothing is lost, but for what Skip had passed over, and the next
// call may succeed. A Flush that ran out of time has failed for good, since a part of it
// may have left.
//
// # Errors
//
// The end of the stream is io.EOF itself, with == . A timeout is a *net.OpError that is
// os.ErrDeadlineExceeded by errors.Is. After Close, errors are net.ErrClosed by
// errors.Is.
//
// An error of reading stays, unless it is a timeout, and bytes that are buffered can be
// read all the same. An error of writing stays, unless it is the timeout of a
// [Conn.Write] without TLS. [ErrNegativeCount], [ErrTooLarge], [ErrReadBufferFull] and
// an error of the source of a ReadFrom do not stay.
//
// # Concurrency
//
// One goroutine may read while one other writes. Close, the Set methods and the
// addresses may be used from any goroutine at any time. A Conn of which only Read and Write
// are used is a net.Conn for any number of goroutines. A Dialer and a Transporter may
// be used from any goroutine, but their fields must not change while they are.
//
// # Limitations
//
// A connection that waits inside of a handler holds its goroutine; one that a
// Transporter on Linux waits for between two messages gives it up after a while: it is
// parked, see [Transporter].ParkAfter. On TCP and unix sockets of unix systems a blocked
// read holds no buffer; on Windows, over TLS and over any other net.Conn it holds a
// block of 4 to 64 KiB between two messages, which follows their sizes; ReadBufferSize
// sets its least size.
//
// A Transporter serves once.
//
// On a TLS connection a write timeout ends all writing, since half a record
// cannot be taken back; only a Write that was refused because its deadline had
// passed before does not.
//
// # Security
//
// The zero values of a Transporter's timeouts are no limits, but for the TLS handshake, nor
// are those of MaxConns, MaxConnsPerIP, MaxReadBuffer and MinReadRate. A server that
// strangers can reach needs all three timeouts: ReadTimeout, WriteTimeout, IdleTimeout.
//
// Memory follows the bytes that arrive. Peek, ReadBinary and Skip of a huge n, which
// a hostile length may be, take no more than a few blocks ahead of them. But a peer that
// does send so much gets that memory: check a length against the protocol's limit
// before it is Peeked. Malloc takes what it is asked for, up to [MaxMalloc].
//
// Memory is used again without being cleared. What Malloc returned must be filled in
// whole before Flush, or bytes of another connection are sent. A slice from Peek that
// is used after Release may show them too.
//
// Ids in brackets, such as [R6], name the clauses of docs/CONTRACT.md;
// docs/ARCHITECTURE.md tells how the parts work.
package standard
