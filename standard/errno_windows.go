package standard

import "syscall"

// Sockets of Windows return numbers of their own. The names that other systems have
// are there in package syscall, with values that nothing returns.
const (
	errAddrInUse = syscall.Errno(10048) // WSAEADDRINUSE
	errRefused   = syscall.Errno(10061) // WSAECONNREFUSED
)

var transientErrors = []error{
	syscall.WSAECONNABORTED, syscall.WSAECONNRESET,
	syscall.Errno(10024), // WSAEMFILE
	syscall.Errno(10055), // WSAENOBUFS
}
