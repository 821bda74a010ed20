//go:build !linux

package standard

func watched(*watcher) int { return 0 }
