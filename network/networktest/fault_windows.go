package networktest

import "syscall"

// What package net says of a reset on Windows.
const (
	errReset  = syscall.WSAECONNRESET
	readCall  = "wsarecv"
	writeCall = "wsasend"
)
