//go:build unix && (!linux || (!amd64 && !arm64) || race)

package standard

import (
	"net"
	"syscall"
)

// maxRawWrite is as in socket_linux.go, so that both go the same way.
const maxRawWrite = 64 << 10

// recv reads from a socket that does not block.
func recv(fd uintptr, p []byte) (int, error) { return syscall.Read(int(fd), p) }

// send writes to a socket that does not block.
func send(fd uintptr, p []byte) (int, error) { return syscall.Write(int(fd), p) }

// maxGather is 0: slices are left to net.Buffers.
const maxGather = 0

type gather struct{}

func (*gather) set(net.Buffers)           { panic("unreachable: nothing is gathered") }
func (*gather) send(uintptr) (int, error) { panic("unreachable: nothing is gathered") }
func (*gather) reset()                    {}
