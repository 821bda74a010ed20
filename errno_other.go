//go:build !windows

package hertznet

import (
	"net"
	"syscall"
)

const errReset = syscall.ECONNRESET

// gone are the errors that say that the peer is no longer there.
var gone = []error{
	syscall.EPIPE, syscall.ENOTCONN, syscall.ECONNRESET, syscall.ECONNABORTED, net.ErrClosed,
}
