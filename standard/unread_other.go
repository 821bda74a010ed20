//go:build !unix

package standard

import "syscall"

// unread is not known, so connections are closed without lingering.
func unread(syscall.Conn) bool { return false }
