//go:build !unix

package tlsconn

import "net"

const maxRaw = 0

// rawConn is never made here: reads and writes are those of the net.Conn.
type rawConn struct{ net.Conn }

func newRawConn(net.Conn) *rawConn { return nil }
