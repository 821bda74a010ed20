package hertznet

import (
	"net"
	"syscall"
)

// Sockets of Windows return numbers of their own; see standard/errno_windows.go.
const errReset = syscall.WSAECONNRESET

var gone = []error{syscall.WSAECONNRESET, syscall.WSAECONNABORTED, net.ErrClosed}
