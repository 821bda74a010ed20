//go:build (linux || freebsd || netbsd || dragonfly) && !race

package main

import (
	"fmt"
	"os"
	"syscall"
)

// memoryIsLimited says that a child which asks for too much memory dies at once.
const memoryIsLimited = true

// addressSpace is what a child may map. The Go runtime reserves more than a gibibyte by
// itself, and uses little of it.
const addressSpace = 4 << 30

// limitMemory limits the memory that this process may map: beyond it, allocating
// fails, which the Go runtime does not survive.
func limitMemory() {
	err := syscall.Setrlimit(syscall.RLIMIT_AS, &syscall.Rlimit{Cur: addressSpace, Max: addressSpace})
	if err != nil {
		fmt.Fprintln(os.Stderr, "conformance: no limit on memory:", err)
	}
}
