package hertznet

import (
	"errors"
	"io"
	"net"
	"os"

	errs "github.com/cloudwego/hertz/pkg/common/errors"
	"github.com/cloudwego/hertz/pkg/common/hlog"
	"github.com/hertznet/hertznet/standard"
)

// conn is a standard.Conn that speaks of errors in Hertz's terms.
type conn struct{ *standard.Conn }

// closedError is what a closed connection returns.
func closedError(op string, c *standard.Conn) error {
	return &net.OpError{Op: op, Net: c.LocalAddr().Network(), Source: c.LocalAddr(), Addr: c.RemoteAddr(), Err: net.ErrClosed}
}

func isGone(err error) bool {
	for _, target := range gone {
		if errors.Is(err, target) {
			return true
		}
	}
	return false
}

// ToHertzError implements network.ErrorNormalization. Hertz's client reads an
// early 4xx answer, and calls a pooled connection stale, only after
// ErrConnectionClosed (pkg/protocol/http1/client.go); that is for failed writes.
func (conn) ToHertzError(err error) error {
	if errors.Is(err, os.ErrDeadlineExceeded) {
		return errs.ErrTimeout
	}
	var op *net.OpError
	if errors.As(err, &op) && op.Op != "read" && isGone(err) {
		return errs.ErrConnectionClosed
	}
	return err
}

// HandleSpecificError implements network.HandleSpecificError: what peers do every
// day is logged for debugging only.
func (conn) HandleSpecificError(err error, rip string) (needIgnore bool) {
	if err == nil {
		return false
	}
	if isGone(err) || errors.Is(err, io.ErrUnexpectedEOF) || errors.Is(err, os.ErrDeadlineExceeded) {
		logEveryday(err, rip)
		return true
	}
	return false
}

func logEveryday(err error, rip string) {
	hlog.SystemLogger().Debugf("the peer ended the connection or was too slow: error=%s, remoteAddr=%s", err, rip)
}
