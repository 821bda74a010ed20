//go:build !linux

package standard

import (
	"errors"
	"net"
	"time"
)

const keepAliveIdle = 0

const inheritsKeepAlive = false

func inheritKeepAlive(net.Listener, time.Duration) error { return errors.ErrUnsupported }
