package main

import (
	"fmt"
	"net"
	"syscall"
)

// peerOf asks the system who is at the other end of a unix socket. It tells who called
// connect, at that time. A process may since have passed the connection to another, or
// have ended and its number been given away: decide by user and group.
func peerOf(nc net.Conn) (peer, error) {
	uc, ok := nc.(*net.UnixConn)
	if !ok {
		return peer{}, fmt.Errorf("%T is no unix socket", nc)
	}
	raw, err := uc.SyscallConn()
	if err != nil {
		return peer{}, err
	}
	var cred *syscall.Ucred
	var credErr error
	// Not File, which makes the connection block and duplicates its descriptor.
	if err := raw.Control(func(fd uintptr) {
		cred, credErr = syscall.GetsockoptUcred(int(fd), syscall.SOL_SOCKET, syscall.SO_PEERCRED)
	}); err != nil {
		return peer{}, err
	}
	if credErr != nil {
		return peer{}, credErr
	}
	return peer{pid: int(cred.Pid), uid: int(cred.Uid), gid: int(cred.Gid)}, nil
}
