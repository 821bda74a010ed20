package standard

import (
	"runtime"
	"runtime/debug"
	"testing"
	"unsafe"
)

// After growStack what needs less than its frame finds a stack that is large enough. Were the
// frame left out by the compiler, only a benchmark would tell.
func TestGrowStack(t *testing.T) {
	defer debug.SetGCPercent(debug.SetGCPercent(-1)) // it shrinks stacks
	runtime.GC()
	for _, grow := range []bool{false, true} {
		moved := make(chan bool)
		go func() {
			if grow {
				growStack(0)
			}
			var x byte
			before := uintptr(unsafe.Pointer(&x))
			useStack(0)
			moved <- uintptr(unsafe.Pointer(&x)) != before
		}()
		if got := <-moved; got != !grow {
			t.Errorf("growStack called: %v; the stack has moved afterwards: %v", grow, got)
		}
	}
}

// useStack needs more than a new goroutine has, and less than growStack.
//
//go:noinline
func useStack(i int) byte {
	var frame [3 << 10]byte
	return frame[i%len(frame)]
}
