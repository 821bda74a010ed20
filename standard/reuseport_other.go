//go:build !(darwin || dragonfly || freebsd || linux || netbsd || openbsd)

package standard

import (
	"fmt"
	"runtime"
	"syscall"
)

// ReusePort is a net.ListenConfig.Control for systems that have SO_REUSEPORT; on
// this one it returns an error.
func ReusePort(string, string, syscall.RawConn) error {
	return fmt.Errorf("standard: SO_REUSEPORT is not available on %s", runtime.GOOS)
}
