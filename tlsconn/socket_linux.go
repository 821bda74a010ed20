//go:build linux && (amd64 || arm64) && !race

package tlsconn

import (
	"syscall"
	"unsafe"
)

// maxRaw is how much one call may copy that the scheduler does not know of: it takes some
// microseconds, in which the collector can stop nobody. A record fits, and four do not.
const maxRaw = 64 << 10

func recv(fd uintptr, p []byte) (int, error) {
	return call(syscall.SYS_RECVFROM, fd, p, syscall.MSG_DONTWAIT)
}

func send(fd uintptr, p []byte) (int, error) {
	return call(syscall.SYS_SENDTO, fd, p, syscall.MSG_DONTWAIT|syscall.MSG_NOSIGNAL)
}

func call(number, fd uintptr, p []byte, flags uintptr) (int, error) {
	n, _, errno := syscall.RawSyscall6(number, fd, uintptr(unsafe.Pointer(unsafe.SliceData(p))), uintptr(len(p)), flags, 0, 0)
	if errno != 0 {
		return 0, errno
	}
	return int(n), nil
}
