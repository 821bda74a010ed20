//go:build !unix

package standard

import "syscall"

// On Windows a socket's duplicate would take it from the completion port on which package
// net waits for the original.
const canLinger = false

// unread is not known, so connections are closed without lingering.
func unread(syscall.Conn) bool { return false }
