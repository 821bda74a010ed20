package network

import (
	"crypto/tls"
	"net"
	"time"
)

// DialFunc connects to the TCP address addr, a host and a port. Hertz's client
// uses the Conn as it is, so for https it must be a [ConnTLSer] (WithDialFunc,
// pkg/app/client/option.go). If the error is not nil, the Conn is nil.
type DialFunc func(addr string) (Conn, error)

// Dialer makes connections to servers. Any number of goroutines may use one at
// the same time [D12].
//
// The networks and the forms of an address are those of [net.Dial]; an unknown
// network is an error [D5]. A tls.Config is shared by many calls and is never
// modified. Where its ServerName is empty, the host of the address stands in for
// it [D11].
//
// An error comes with a nil interface [D2], and nothing is left open behind it
// [D7]. A certificate that is refused is the error of package crypto/tls, bare.
type Dialer interface {
	// DialConnection connects to the address. With a tlsConfig other than nil,
	// the connection is a [ConnTLSer]; without, it is not [D6].
	//
	// The timeout covers looking up the name, connecting and the TLS handshake,
	// all together [D3]; when it passes, the error is a net.Error whose Timeout
	// method reports true. Zero and negative values mean no limit [D4], though an
	// implementation may have one of its own for the handshake. The connection
	// itself has no timeout set when it is returned.
	DialConnection(network, address string, timeout time.Duration, tlsConfig *tls.Config) (conn Conn, err error)

	// DialTimeout does the same, for those who need no buffers: what it returns
	// need not be a Conn. It honours tlsConfig, too [D13].
	DialTimeout(network, address string, timeout time.Duration, tlsConfig *tls.Config) (conn net.Conn, err error)

	// AddTLS starts TLS as a client on a connection that is already open, such
	// as a tunnel through a proxy, and returns the encrypted connection, which
	// owns conn from then on. Bytes that conn has buffered belong to the TLS
	// stream, and none is lost [D8]. conn may itself be encrypted [D9].
	//
	// The handshake is over when AddTLS returns, and its time is limited even
	// if nobody set a timeout. If it fails, conn has been closed [D10].
	AddTLS(conn Conn, tlsConfig *tls.Config) (Conn, error)
}
