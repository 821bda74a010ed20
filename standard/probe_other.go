//go:build !unix

package standard

import "syscall"

// probe knows nothing.
func probe(syscall.RawConn) (readable, ended bool) { return false, false }
