//go:build !unix

package standard

import "syscall"

// initRaw does nothing: reads hold a buffer while they wait.
func (c *Conn) initRaw(syscall.Conn) {}

func (c *Conn) readRaw([]byte, int) (int, error) { panic("unreachable: no raw reads on this system") }

// unread is not known, so connections are closed without lingering.
func unread(syscall.Conn) bool { return false }
