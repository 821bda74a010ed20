//go:build unix && !linux

package standard

import "syscall"

// probe peeks at the next byte of a socket.
func probe(raw syscall.RawConn) (readable, ended bool) {
	_ = raw.Control(func(fd uintptr) { // it fails on a closed socket only
		var b [1]byte
		switch n, _, err := syscall.Recvfrom(int(fd), b[:], peekNow); err {
		case nil:
			readable, ended = true, n == 0
		case syscall.EAGAIN, syscall.EINTR:
		default:
			readable, ended = true, true
		}
	})
	return readable, ended
}
