package networktest

import (
	"bytes"
	"fmt"
	"os"
	"runtime"
)

// systemCalls returns how many system calls of the read and of the write family f
// makes on the calling goroutine's thread, as the kernel counts them; sendfile is
// one of both, sendmsg is none. The runtime adds a few of its own: it writes to
// its poller to wake it. ok is false where the kernel does not tell.
func systemCalls(f func()) (reads, writes int, ok bool) {
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	count := func() (r, w int, ok bool) {
		b, err := os.ReadFile("/proc/thread-self/io")
		for line := range bytes.Lines(b) {
			_, _ = fmt.Sscanf(string(line), "syscr: %d", &r)
			_, _ = fmt.Sscanf(string(line), "syscw: %d", &w)
		}
		return r, w, err == nil
	}
	cost := maxInt // of counting itself, in reads
	for range 3 {
		r0, _, _ := count()
		r1, _, _ := count()
		cost = min(cost, r1-r0)
	}
	r0, w0, ok0 := count()
	f()
	r1, w1, ok1 := count()
	return r1 - r0 - cost, w1 - w0, ok0 && ok1
}
