//go:build !((amd64 || arm64) && (linux || darwin))

package main

// netpollColumn returns nothing: Hertz does not use netpoll here.
func netpollColumn() []implementation { return nil }
