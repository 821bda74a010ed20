package main

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"os"
	"path/filepath"
	"runtime"

	"github.com/cloudwego/hertz/pkg/app/server"

	"github.com/hertznet/hertznet/standard"
)

// showPath has hertznet make the socket file, and remove it at the end. The umask and the
// directories above decide who may connect.
func showPath(ctx context.Context, dir string) error {
	path := filepath.Join(dir, "path.sock")
	s, err := start(anybody, server.WithNetwork("unix"), server.WithHostPorts(path))
	if err != nil {
		return err
	}
	defer s.stop()
	if err := ask(ctx, "a path", s); err != nil {
		return err
	}
	info, err := os.Lstat(path)
	if err != nil {
		return err
	}
	if err := s.stop(); err != nil {
		return err
	}
	if _, err := os.Lstat(path); !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("the file has not been removed: %v", err)
	}
	show("", "file      %v, gone at the end", info.Mode())
	return nil
}

// showOwn serves on a listener that the program made. Its file stays at the end, as it has
// to where the next process takes over the listener.
func showOwn(ctx context.Context, dir string) error {
	path := filepath.Join(dir, "private", "own.sock")
	ln, err := listenPrivately(path)
	if err != nil {
		return err
	}
	ln.SetUnlinkOnClose(false)
	s, err := start(anybody, server.WithListener(ln))
	if err != nil {
		return err
	}
	defer s.stop()
	if err := ask(ctx, "a listener of one's own", s); err != nil {
		return err
	}
	if err := s.stop(); err != nil {
		return err
	}
	info, err := os.Lstat(path)
	if err != nil {
		return fmt.Errorf("the file should have stayed: %w", err)
	}
	if runtime.GOOS == "windows" {
		show("", "file      still there at the end; Windows has no such permissions")
		return nil
	}
	if info.Mode() != fs.ModeSocket|0o600 {
		return fmt.Errorf("the file is %v", info.Mode())
	}
	show("", "file      %v, still there at the end", info.Mode())
	return nil
}

// listenPrivately listens on path for processes of this user, and of root. It makes the
// directory, which is to lie where only this user may write: under /run, and not in /tmp.
//
// Between bind, which makes the file, and Chmod the umask decides who may connect. A closed
// directory leaves nobody to do so. To change the umask meanwhile would change it for all
// that other goroutines create.
func listenPrivately(path string) (*net.UnixListener, error) {
	dir := filepath.Dir(path)
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return nil, err
	}
	if err := os.Chmod(dir, 0o700); err != nil { // if it was there already
		return nil, err
	}
	// Unlike net.Listen, it replaces a file that nobody answers on.
	ln, err := (&standard.Transporter{Network: "unix", Addr: path}).Listen()
	if err != nil {
		return nil, err
	}
	if err := os.Chmod(path, 0o600); err != nil {
		ln.Close()
		return nil, err
	}
	return ln.(*net.UnixListener), nil
}

// showAbstract serves on a name that is no file. It has no permissions, either: anybody in
// the network namespace may connect, so the server looks at who it is.
func showAbstract(ctx context.Context) error {
	if runtime.GOOS != "linux" {
		show("an abstract name", "not shown: only Linux has them")
		return nil
	}
	us := func(p peer) bool { return p.uid == os.Geteuid() }
	them := func(p peer) bool { return !us(p) }
	name := fmt.Sprintf("@hertznet-example-%d", os.Getpid())
	s, err := start(us, server.WithNetwork("unix"), server.WithHostPorts(name))
	if err != nil {
		return err
	}
	defer s.stop()
	if err := ask(ctx, "an abstract name", s); err != nil {
		return err
	}
	if err := s.stop(); err != nil {
		return err
	}
	if s, err = start(them, server.WithNetwork("unix"), server.WithHostPorts(name)); err != nil {
		return err
	}
	defer s.stop()
	got, err := askNetHTTP(ctx, s.addr)
	if err == nil {
		return fmt.Errorf("a server for other users answered %q", got)
	}
	show("", "refused   by a server for other users: %v", err)
	return s.stop()
}
