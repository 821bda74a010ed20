//go:build unix

package standard

import "syscall"

// canLinger says that a socket may be duplicated, to outlive its connection [S22].
const canLinger = true

// unread reports whether the socket holds bytes that nobody has read.
func unread(s syscall.Conn) bool {
	raw, err := s.SyscallConn()
	if err != nil {
		return false
	}
	n := 0
	_ = raw.Control(func(fd uintptr) { // it fails on a closed socket only
		var b [1]byte
		n, _, _ = syscall.Recvfrom(int(fd), b[:], peekNow)
	})
	return n > 0
}
