//go:build !linux || (!amd64 && !arm64)

// Command bench needs Linux, on amd64 or arm64.
package main

import "log"

func main() {
	log.Fatal("bench: it runs on Linux only, on amd64 or arm64: it reads /proc, and netpoll is not everywhere")
}
