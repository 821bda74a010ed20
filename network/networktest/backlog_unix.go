//go:build unix

package networktest

import (
	"net"
	"syscall"
)

// shortenBacklog makes the queue of connections that wait for an Accept as short as
// the system lets it be.
func shortenBacklog(ln *net.TCPListener) error {
	raw, err := ln.SyscallConn()
	if err != nil {
		return err
	}
	var listenErr error
	if err := raw.Control(func(fd uintptr) { listenErr = syscall.Listen(int(fd), 0) }); err != nil {
		return err
	}
	return listenErr
}
