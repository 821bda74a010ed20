//go:build unix && (!linux || (!amd64 && !arm64) || race)

package tlsconn

import "syscall"

const maxRaw = 64 << 10

// The scheduler is told of these calls, and so is the race detector, which must see who
// read what somebody else wrote.

func recv(fd uintptr, p []byte) (int, error) { return syscall.Read(int(fd), p) }

func send(fd uintptr, p []byte) (int, error) { return syscall.Write(int(fd), p) }
