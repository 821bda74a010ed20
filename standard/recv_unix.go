//go:build unix && (!linux || (!amd64 && !arm64) || race)

package standard

import "syscall"

// recv reads from a socket that does not block.
func recv(fd uintptr, p []byte) (int, error) { return syscall.Read(int(fd), p) }
