//go:build !unix

package standard

import "syscall"

// canReadRaw: reads hold a buffer while they wait.
const canReadRaw = false

type rawReader struct{ raw syscall.RawConn }

func (c *Conn) readRaw([]byte, int) (int, error) { panic("unreachable: no raw reads on this system") }

func (c *Conn) dropRaw() {}

// unread is not known, so connections are closed without lingering.
func unread(syscall.Conn) bool { return false }
