//go:build linux && (amd64 || arm64)

package networktest

import (
	"net"
	"syscall"
	"unsafe"
)

// segmentsSent returns how many TCP segments with data a connection has sent, those that
// were sent again included. ok is false if c is nil, or no TCP connection.
func segmentsSent(c net.Conn) (n int, ok bool) {
	tc, ok := c.(*net.TCPConn)
	if !ok {
		return 0, false
	}
	raw, err := tc.SyscallConn()
	if err != nil {
		return 0, false
	}
	var info struct { // linux/tcp.h
		_            [156]byte
		dataSegments uint32
	}
	size := uint32(unsafe.Sizeof(info))
	var errno syscall.Errno
	err = raw.Control(func(fd uintptr) {
		_, _, errno = syscall.Syscall6(syscall.SYS_GETSOCKOPT, fd, syscall.IPPROTO_TCP, syscall.TCP_INFO,
			uintptr(unsafe.Pointer(&info)), uintptr(unsafe.Pointer(&size)), 0)
	})
	return int(info.dataSegments), err == nil && errno == 0 && size == uint32(unsafe.Sizeof(info))
}
