package standard

import (
	"fmt"
	"net"
	"os"
	"strconv"
	"syscall"
)

// The protocol of sd_listen_fds(3): the environment tells how many descriptors a
// process has inherited, and the first of them is always the same.
const (
	listenFDs     = "LISTEN_FDS"
	listenPID     = "LISTEN_PID"
	listenFDNames = "LISTEN_FDNAMES"

	firstListenFD = 3
)

// InheritedListeners returns the listeners that this process was started with, in
// their order, or nil if there are none: those of systemd's socket activation, or of a
// parent of one's own that has set LISTEN_FDS to their number and passed the files of
// [ListenerFile] from descriptor 3 on, which is where [os/exec.Cmd].ExtraFiles puts
// them. LISTEN_PID may be absent; if it names another process, there are none.
//
// Call it once and early. It takes over the descriptors and removes LISTEN_FDS,
// LISTEN_PID and LISTEN_FDNAMES from the environment, so that a process started
// later inherits nothing by accident. A unix listener leaves its socket file in
// place when it is closed. After an error there are no listeners; descriptors that
// were not looked at are left as they were.
//
// It works on unix systems; elsewhere a LISTEN_FDS that is set is an error.
func InheritedListeners() ([]net.Listener, error) {
	count, pid := os.Getenv(listenFDs), os.Getenv(listenPID)
	for _, name := range []string{listenFDs, listenPID, listenFDNames} {
		_ = os.Unsetenv(name) // fails for names that are none
	}
	if count == "" || pid != "" && pid != strconv.Itoa(os.Getpid()) {
		return nil, nil
	}
	n, err := strconv.Atoi(count)
	if err != nil || n < 0 {
		return nil, fmt.Errorf("standard: LISTEN_FDS=%q is no number of descriptors", count)
	}
	var lns []net.Listener
	for fd := firstListenFD; fd < firstListenFD+n; fd++ {
		ln, err := takeListener(fd)
		if err != nil {
			for _, ln := range lns {
				ln.Close()
			}
			return nil, fmt.Errorf("standard: descriptor %d of LISTEN_FDS=%d: %w", fd, n, err)
		}
		lns = append(lns, ln)
	}
	return lns, nil
}

// ListenerFile returns a descriptor of ln for a child process to inherit, which the
// caller closes once the child has started:
//
//	cmd.ExtraFiles = []*os.File{f}
//	cmd.Env = append(os.Environ(), "LISTEN_FDS=1")
//
// Both processes accept from the one queue of connections, and it lives until the
// last of them closes its listener, so none that waits in it is lost. From now on
// closing a unix listener leaves its socket file in place, since the child needs it.
//
// ln stays the caller's, and may be serving: unlike that of its method File, this
// descriptor stays non-blocking when a child is started with it. That mode is one for
// all processes, and Accept on a blocking listener does not end by Close. A ln that is
// no socket of package net, such as one of crypto/tls, is an error: pass on what is
// beneath it.
func ListenerFile(ln net.Listener) (*os.File, error) {
	s, ok := ln.(syscall.Conn)
	if !ok {
		return nil, fmt.Errorf("standard: a %T has no descriptor that can be passed on", ln)
	}
	f, err := duplicate(s, ln.Addr().String())
	if err != nil {
		return nil, fmt.Errorf("standard: passing on the listener at %v: %w", ln.Addr(), err)
	}
	if u, ok := ln.(*net.UnixListener); ok {
		u.SetUnlinkOnClose(false)
	}
	return f, nil
}
