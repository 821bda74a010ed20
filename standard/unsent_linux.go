package standard

import (
	"syscall"
	"unsafe"
)

// unsent returns how many bytes of output the socket holds that the peer has not
// acknowledged.
func unsent(s syscall.Conn) int {
	raw, err := s.SyscallConn()
	if err != nil {
		return 0
	}
	var n int32
	_ = raw.Control(func(fd uintptr) { // it fails on a closed socket only
		_, _, errno := syscall.Syscall(syscall.SYS_IOCTL, fd, syscall.TIOCOUTQ, uintptr(unsafe.Pointer(&n)))
		if errno != 0 {
			n = 0
		}
	})
	return int(n)
}
