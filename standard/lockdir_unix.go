//go:build unix && !aix && !solaris

package standard

import (
	"os"
	"syscall"
	"time"
)

// lockWait is how long a lock of another process is waited for. Who holds one for a
// server's sake needs it for some milliseconds.
const lockWait = time.Second

// lockDir keeps other processes that call it for the directory out until unlock. It locks
// the directory itself, for which it must be readable, and leaves no file behind. Where
// that is not possible, or somebody holds such a lock for longer than a server does, it
// goes on without.
func lockDir(dir string) (unlock func()) {
	f, err := os.OpenFile(dir, os.O_RDONLY|syscall.O_DIRECTORY, 0) // to open a FIFO would be to wait
	if err != nil {
		return func() {}
	}
	for start := time.Now(); ; time.Sleep(time.Millisecond) {
		err := syscall.Flock(int(f.Fd()), syscall.LOCK_EX|syscall.LOCK_NB)
		if err == nil || err != syscall.EWOULDBLOCK && err != syscall.EINTR || time.Since(start) > lockWait {
			break
		}
	}
	return func() {
		// Not by Close alone: a process that is being started may have the descriptor too.
		_ = syscall.Flock(int(f.Fd()), syscall.LOCK_UN)
		f.Close()
	}
}
