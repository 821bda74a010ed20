package standard

import (
	"sync"
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

// prober is what one ppoll needs, kept for the next.
type prober struct {
	fd              int32 // with the next two, a struct pollfd
	events, revents int16
	now             syscall.Timespec // zero: it does not block
	look            func(fd uintptr)
}

var probers = sync.Pool{New: func() any {
	p := &prober{events: pollIn | pollRdHup}
	p.look = p.poll
	return p
}}

// poll asks for the state of a socket, by ppoll since some processors have no poll.
func (p *prober) poll(fd uintptr) {
	p.fd = int32(fd)
	_, _, errno := syscall.RawSyscall6(syscall.SYS_PPOLL, uintptr(unsafe.Pointer(&p.fd)), 1, uintptr(unsafe.Pointer(&p.now)), 0, 0, 0)
	if errno != 0 {
		p.revents = 0
	}
}

func probe(raw syscall.RawConn) (readable, ended bool) {
	p := probers.Get().(*prober)
	defer probers.Put(p)
	p.revents, p.now = 0, syscall.Timespec{}
	_ = raw.Control(p.look) // it fails on a closed socket only
	return p.revents&pollIn != 0, p.revents&(pollErr|pollHup|pollRdHup) != 0
}
