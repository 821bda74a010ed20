//go:build !windows

package standard

import "syscall"

const (
	errAddrInUse = syscall.EADDRINUSE
	errRefused   = syscall.ECONNREFUSED
)

// transientErrors are what Accept recovers from by itself: a connection that was
// gone before it was accepted, and resources that others will give back [S3].
var transientErrors = []error{
	syscall.ECONNABORTED, syscall.ECONNRESET, syscall.EMFILE, syscall.ENFILE,
	syscall.ENOBUFS, syscall.ENOMEM, syscall.EINTR, syscall.EPROTO,
}
