//go:build !linux

package standard

import (
	"context"
	"net"
)

// watcher does nothing: there is no way here to see that a peer has gone that
// does not read what it sent.
type watcher struct{}

func newWatcher() (*watcher, error) { return nil, nil }

func (*watcher) add(net.Conn, context.CancelFunc) (remove func()) { return nil }

func (*watcher) endWhen(<-chan struct{}) {}
