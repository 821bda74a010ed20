package standard

import (
	"net"
	"os"
	"syscall"
	"time"
)

// What package net sets where nothing is said.
const (
	keepAliveIdle     = 15 * time.Second
	keepAliveInterval = 15 // seconds
	keepAliveCount    = 9
)

// inheritsKeepAlive: a socket that is accepted has the keep-alive settings of its listener.
const inheritsKeepAlive = true

// inheritKeepAlive has ln's connections probe a peer that was silent for idle, so that
// none takes four system calls for it.
func inheritKeepAlive(ln net.Listener, idle time.Duration) error {
	tl, ok := ln.(*net.TCPListener)
	if !ok {
		return nil
	}
	raw, err := tl.SyscallConn()
	if err != nil {
		return err
	}
	seconds := max(int((idle+time.Second-1)/time.Second), 1)
	var failed error
	err = raw.Control(func(fd uintptr) {
		for _, o := range [][3]int{
			{syscall.IPPROTO_TCP, syscall.TCP_KEEPIDLE, seconds},
			{syscall.IPPROTO_TCP, syscall.TCP_KEEPINTVL, keepAliveInterval},
			{syscall.IPPROTO_TCP, syscall.TCP_KEEPCNT, keepAliveCount},
			{syscall.SOL_SOCKET, syscall.SO_KEEPALIVE, 1},
		} {
			if failed = syscall.SetsockoptInt(int(fd), o[0], o[1], o[2]); failed != nil {
				failed = os.NewSyscallError("setsockopt", failed)
				return
			}
		}
	})
	if err == nil {
		err = failed
	}
	return err
}
