//go:build !unix

package standard

import (
	"errors"
	"net"
	"os"
	"syscall"
)

var errInherit = errors.New("listeners are inherited on unix systems only")

func duplicate(syscall.Conn, string) (*os.File, error) { return nil, errInherit }

func takeListener(int) (net.Listener, error) { return nil, errInherit }
