//go:build darwin || dragonfly || freebsd || linux || netbsd || openbsd

package standard

import (
	"os"
	"runtime"
	"strings"
	"syscall"
)

// ReusePort is a [net.ListenConfig].Control that sets SO_REUSEPORT, so that several
// processes of one user can each listen on the same TCP port by themselves:
//
//	t.ListenConfig = &net.ListenConfig{Control: standard.ReusePort}
//
// Each listener has its own queue of connections. What waits in it when it is closed
// is reset, unless Linux's net.ipv4.tcp_migrate_req is 1: to restart without
// losing a connection, pass the listener on, see [ListenerFile]. Linux spreads connections
// over the listeners; other systems need not. On systems that do not
// have the option it is an error.
func ReusePort(_, _ string, c syscall.RawConn) error {
	var err error
	if e := c.Control(func(fd uintptr) {
		err = syscall.SetsockoptInt(int(fd), syscall.SOL_SOCKET, soReusePort(), 1)
	}); e != nil {
		return e
	}
	return os.NewSyscallError("setsockopt", err)
}

// soReusePort is SO_REUSEPORT, which package syscall lacks for some architectures.
func soReusePort() int {
	if runtime.GOOS == "linux" && !strings.HasPrefix(runtime.GOARCH, "mips") {
		return 0xf
	}
	return 0x200
}
