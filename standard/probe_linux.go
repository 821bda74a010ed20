package standard

import (
	"syscall"
	"unsafe"
)

// What poll(2) reports. POLLRDHUP, unlike a read, sees the end behind unread bytes.
const (
	pollIn    = 0x1
	pollErr   = 0x8
	pollHup   = 0x10
	pollRdHup = 0x2000
)

// probe asks for the state of a socket, by ppoll since some processors have no poll.
func probe(raw syscall.RawConn) (readable, ended bool) {
	var p struct {
		fd              int32
		events, revents int16
	}
	p.events = pollIn | pollRdHup
	_ = raw.Control(func(fd uintptr) { // it fails on a closed socket only
		p.fd = int32(fd)
		var now syscall.Timespec // zero: it does not block
		_, _, errno := syscall.RawSyscall6(syscall.SYS_PPOLL, uintptr(unsafe.Pointer(&p)), 1, uintptr(unsafe.Pointer(&now)), 0, 0, 0)
		if errno != 0 {
			p.revents = 0
		}
	})
	return p.revents&pollIn != 0, p.revents&(pollErr|pollHup|pollRdHup) != 0
}
