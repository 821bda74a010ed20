//go:build linux && (amd64 || arm64) && !race

package standard

import (
	"syscall"
	"unsafe"
)

// maxRawRecv is how much one call may copy without the scheduler knowing: it takes some
// microseconds.
const maxRawRecv = 64 << 10

// recv reads from a socket that does not block, to p, which is not empty. It is
// syscall.Read without telling the scheduler, since it does not wait, and by the call that
// is made for sockets: together a quarter of the time of a read that finds nothing.
// Under the race detector that would hide from it who read what somebody else wrote.
func recv(fd uintptr, p []byte) (int, error) {
	if len(p) > maxRawRecv {
		return syscall.Read(int(fd), p)
	}
	n, _, errno := syscall.RawSyscall6(syscall.SYS_RECVFROM, fd,
		uintptr(unsafe.Pointer(unsafe.SliceData(p))), uintptr(len(p)), syscall.MSG_DONTWAIT, 0, 0)
	if errno != 0 {
		return 0, errno
	}
	return int(n), nil
}
