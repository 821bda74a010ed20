package standard

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"time"
)

// onceListener closes its listener once [S9].
type onceListener struct {
	net.Listener
	once sync.Once
	err  error
}

func (l *onceListener) Close() error {
	l.once.Do(func() { l.err = l.Listener.Close() })
	return l.err
}

// Listen opens the listener that ListenAndServe would serve on, for a caller that
// wants to know its address first; give it to Serve.
func (t *Transporter) Listen() (net.Listener, error) {
	network, addr := t.Network, t.Addr
	if path, ok := strings.CutPrefix(addr, "unix://"); ok && (network == "" || network == "unix") {
		network, addr = "unix", path
	}
	if network == "" {
		network = "tcp"
	}
	var lc net.ListenConfig
	if t.ListenConfig != nil {
		lc = *t.ListenConfig
	}
	// An abstract address of Linux, "@name" or "\x00name", has no file.
	if network != "unix" || addr == "" || addr[0] == '@' || addr[0] == 0 {
		return t.listenWith(lc, network, addr)
	}
	defer lockSockets(addr)()
	ln, err := t.listenWith(lc, network, addr)
	if errors.Is(err, errAddrInUse) {
		if err := removeStale(addr); err != nil {
			return nil, err
		}
		ln, err = t.listenWith(lc, network, addr)
	}
	return ln, err
}

var socketMu sync.Mutex

// lockSockets keeps others out that listen at the path, and at any beside it, until unlock.
// Between two of them, the one's new socket would look like the file that the other has
// found stale, and between bind and listen nobody answers on it: it would be removed [S15].
func lockSockets(path string) (unlock func()) {
	socketMu.Lock()
	unlockDir := lockDir(filepath.Dir(path))
	return func() {
		unlockDir()
		socketMu.Unlock()
	}
}

// listenWith listens, and notes the listener if its connections probe their peers as
// KeepAlive says without being told.
func (t *Transporter) listenWith(lc net.ListenConfig, network, addr string) (net.Listener, error) {
	idle := t.keepAlive()
	if idle == 0 && lc.KeepAlive == 0 && lc.KeepAliveConfig == (net.KeepAliveConfig{}) {
		idle = keepAliveIdle
	}
	if (idle < 0 || idle > 0 && inheritsKeepAlive) && strings.HasPrefix(network, "tcp") {
		quiet := lc
		quiet.KeepAlive, quiet.KeepAliveConfig = -1, net.KeepAliveConfig{}
		ln, err := quiet.Listen(context.Background(), network, addr)
		if err != nil {
			return nil, err
		}
		if idle < 0 || inheritKeepAlive(ln, idle) == nil {
			t.mu.Lock()
			defer t.mu.Unlock()
			t.listened = ln
			return ln, nil
		}
		addr = ln.Addr().String() // the same port, if it was 0
		if err := ln.Close(); err != nil {
			return nil, err
		}
	}
	return lc.Listen(context.Background(), network, addr)
}

// removeStale removes the socket file at path if nobody answers on it: one that a
// process left behind. Anything else there is not ours to remove [S15].
func removeStale(path string) error {
	info, err := os.Lstat(path)
	if errors.Is(err, fs.ErrNotExist) {
		return nil // it has just been removed
	}
	if err != nil {
		return err
	}
	if info.Mode()&os.ModeSocket == 0 {
		return fmt.Errorf("standard: %s is there and is no socket: remove it or listen elsewhere", path)
	}
	c, err := net.DialTimeout("unix", path, time.Second)
	if err == nil {
		c.Close()
		return fmt.Errorf("standard: another server answers on %s: %w", path, syscall.EADDRINUSE)
	}
	if !errors.Is(err, errRefused) {
		return fmt.Errorf("standard: cannot tell whether a server answers on %s: %w", path, err)
	}
	return os.Remove(path)
}

// maxKeepAlive is the most that Linux can count; it refuses more.
const maxKeepAlive = 32767 * time.Second

// keepAlive returns KeepAlive, or the most there is.
func (t *Transporter) keepAlive() time.Duration { return min(t.KeepAlive, maxKeepAlive) }

// setKeepAlive applies KeepAlive to an accepted connection.
func (t *Transporter) setKeepAlive(nc net.Conn) {
	tc, ok := nc.(*net.TCPConn)
	if !ok || t.KeepAlive == 0 || t.inherits {
		return
	}
	// A failure means that the peer is gone: the first read will tell.
	if t.KeepAlive < 0 {
		_ = tc.SetKeepAlive(false)
		return
	}
	_ = tc.SetKeepAliveConfig(net.KeepAliveConfig{Enable: true, Idle: t.keepAlive()})
}

// isTransient reports whether Accept may succeed when it is tried again.
func isTransient(err error) bool {
	for _, target := range transientErrors {
		if errors.Is(err, target) {
			return true
		}
	}
	// What net.Error calls Temporary: deprecated as a question about connections,
	// and still how a listener of another kind says "not for ever".
	var t interface{ Temporary() bool }
	return errors.As(err, &t) && t.Temporary() && !errors.Is(err, net.ErrClosed)
}
