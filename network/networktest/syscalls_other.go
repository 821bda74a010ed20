//go:build !linux

package networktest

// systemCalls runs f. Nobody counts its system calls here.
func systemCalls(f func()) (reads, writes int, ok bool) {
	f()
	return 0, 0, false
}
