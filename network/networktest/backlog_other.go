//go:build !unix

package networktest

import (
	"errors"
	"net"
)

// shortenBacklog is for systems on which a full queue holds up a connect; elsewhere
// it is refused.
func shortenBacklog(*net.TCPListener) error { return errors.ErrUnsupported }
