//go:build !windows

package networktest

import "syscall"

// What package net says of a reset.
const (
	errReset  = syscall.ECONNRESET
	readCall  = "read"
	writeCall = "write"
)
