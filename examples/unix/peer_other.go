//go:build !linux

package main

import (
	"errors"
	"net"
)

// peerOf is for Linux. macOS and the BSDs have the like, LOCAL_PEERCRED, which needs
// golang.org/x/sys/unix.
func peerOf(net.Conn) (peer, error) { return peer{}, errors.ErrUnsupported }
