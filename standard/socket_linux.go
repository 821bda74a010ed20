//go:build linux && (amd64 || arm64) && !race

package standard

import (
	"net"
	"syscall"
	"unsafe"
)

// The calls of this file are made without telling the scheduler, since they do not wait.
// The race detector would not be told either of who read what somebody else wrote, so
// under it socket_unix.go stands in; also on other processors, of which some have no such
// calls (386) or other sizes in a Msghdr.

// maxRawRead and maxRawWrite are how much one such call may copy: it takes some
// microseconds, in which the collector can stop nobody.
const (
	maxRawRead  = 64 << 10
	maxRawWrite = 64 << 10
)

// recv reads from a socket, to p, which is not empty. A read that finds nothing takes three
// quarters of the time of one by package syscall.
func recv(fd uintptr, p []byte) (int, error) {
	if len(p) > maxRawRead {
		n, _, errno := syscall.Syscall6(syscall.SYS_RECVFROM, fd,
			uintptr(unsafe.Pointer(unsafe.SliceData(p))), uintptr(len(p)), syscall.MSG_DONTWAIT, 0, 0)
		return result(n, errno)
	}
	n, _, errno := syscall.RawSyscall6(syscall.SYS_RECVFROM, fd,
		uintptr(unsafe.Pointer(unsafe.SliceData(p))), uintptr(len(p)), syscall.MSG_DONTWAIT, 0, 0)
	return result(n, errno)
}

// send writes to a socket as much of p as there is room for.
func send(fd uintptr, p []byte) (int, error) {
	n, _, errno := syscall.RawSyscall6(syscall.SYS_SENDTO, fd,
		uintptr(unsafe.Pointer(unsafe.SliceData(p))), uintptr(len(p)), syscall.MSG_DONTWAIT|syscall.MSG_NOSIGNAL, 0, 0)
	return result(n, errno)
}

func result(n uintptr, errno syscall.Errno) (int, error) {
	if errno != 0 {
		return 0, errno
	}
	return int(n), nil
}

// maxGather is how many slices a gather holds.
const maxGather = 16

// gather is slices to be sent with one call.
type gather struct {
	msg syscall.Msghdr // of what is left of iov
	iov [maxGather]syscall.Iovec
}

// set takes the slices of v, of which maxGather at most are not empty.
func (g *gather) set(v net.Buffers) {
	n := 0
	for _, p := range v {
		if len(p) > 0 {
			g.iov[n].Base = unsafe.SliceData(p)
			g.iov[n].SetLen(len(p))
			n++
		}
	}
	g.msg.Iov, g.msg.Iovlen = &g.iov[0], uint64(n)
}

// send writes to a socket as much as there is room for, and passes over it.
func (g *gather) send(fd uintptr) (int, error) {
	r, _, errno := syscall.RawSyscall(syscall.SYS_SENDMSG, fd,
		uintptr(unsafe.Pointer(&g.msg)), syscall.MSG_DONTWAIT|syscall.MSG_NOSIGNAL)
	n, err := result(r, errno)
	if err == nil {
		g.skip(uint64(n))
	}
	return n, err
}

func (g *gather) skip(n uint64) {
	iov := unsafe.Slice(g.msg.Iov, g.msg.Iovlen)
	for len(iov) > 0 && n >= iov[0].Len {
		n -= iov[0].Len
		iov = iov[1:]
	}
	if n > 0 {
		iov[0].Base = (*byte)(unsafe.Add(unsafe.Pointer(iov[0].Base), n))
		iov[0].Len -= n
	}
	g.msg.Iov, g.msg.Iovlen = unsafe.SliceData(iov), uint64(len(iov))
}

func (g *gather) reset() {
	if g.msg.Iov != nil {
		*g = gather{}
	}
}
