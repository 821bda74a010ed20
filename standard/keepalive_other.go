//go:build !linux

package standard

import (
	"errors"
	"net"
	"time"
)

const keepAliveIdle = 0

// inheritsKeepAlive: each connection is told.
const inheritsKeepAlive = false

func inheritKeepAlive(net.Listener, time.Duration) error { return errors.ErrUnsupported }
