//go:build !(linux || freebsd || netbsd || dragonfly) || race

package main

const memoryIsLimited = false

// limitMemory does nothing: other systems have no such limit, or none that the Go
// runtime can live with, and the race detector maps far more for itself. A child
// that asks for too much is killed when its time is over, or by the system.
func limitMemory() {}
