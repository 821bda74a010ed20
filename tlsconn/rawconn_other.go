//go:build !unix

package tlsconn

import "net"

const maxRaw = 0

type rawConn struct{ net.Conn }

func newRawConn(net.Conn) *rawConn { return nil }
