//go:build !linux

package standard

import "syscall"

// unsent is not known.
func unsent(syscall.Conn) int { return 0 }
