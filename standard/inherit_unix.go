//go:build unix

package standard

import (
	"errors"
	"net"
	"os"
	"syscall"
)

// duplicate returns a second descriptor of s, close-on-exec.
func duplicate(s syscall.Conn, name string) (*os.File, error) {
	raw, err := s.SyscallConn()
	if err != nil {
		return nil, err
	}
	var second int
	var dupErr error
	if err := raw.Control(func(fd uintptr) {
		syscall.ForkLock.RLock()
		defer syscall.ForkLock.RUnlock()
		if second, dupErr = syscall.Dup(int(fd)); dupErr == nil {
			syscall.CloseOnExec(second)
		}
	}); err != nil {
		return nil, err
	}
	if dupErr != nil {
		return nil, os.NewSyscallError("dup", dupErr)
	}
	return os.NewFile(uintptr(second), name), nil
}

// takeListener makes a listener of an inherited descriptor and closes it: the
// listener has a duplicate of its own, which is close-on-exec.
func takeListener(fd int) (net.Listener, error) {
	// A descriptor that was not passed on after all may be one of the runtime's own,
	// so it is left alone unless it listens.
	listens, err := syscall.GetsockoptInt(fd, syscall.SOL_SOCKET, syscall.SO_ACCEPTCONN)
	if err != nil {
		return nil, os.NewSyscallError("getsockopt", err)
	}
	if listens == 0 {
		return nil, errors.New("it is a socket that does not listen")
	}
	f := os.NewFile(uintptr(fd), "listener")
	defer f.Close()
	return net.FileListener(f)
}
