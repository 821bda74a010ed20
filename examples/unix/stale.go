package main

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"

	"github.com/cloudwego/hertz/pkg/app/server"
)

const victimPath = "HERTZNET_UNIX_VICTIM" // where a process serves until it is killed

// waitToBeKilled serves on path. It ends when its parent does, too.
func waitToBeKilled(path string) error {
	if _, err := start(anybody, server.WithNetwork("unix"), server.WithHostPorts(path)); err != nil {
		return err
	}
	fmt.Println("ready")
	_, err := io.Copy(io.Discard, os.Stdin)
	return err
}

// killOne has a process serve on path, and kills it.
func killOne(ctx context.Context, path string) error {
	self, err := os.Executable()
	if err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(ctx, limit)
	defer cancel()
	cmd := exec.CommandContext(ctx, self)
	cmd.Env = append(os.Environ(), victimPath+"="+path)
	cmd.Stderr = os.Stderr
	stdin, err := cmd.StdinPipe()
	if err != nil {
		return err
	}
	defer stdin.Close()
	stdout, err := cmd.StdoutPipe()
	if err != nil {
		return err
	}
	if err := cmd.Start(); err != nil {
		return err
	}
	line, readErr := bufio.NewReader(stdout).ReadString('\n')
	killErr := cmd.Process.Kill()
	_ = cmd.Wait() // it says that it was killed
	if line != "ready\n" {
		return fmt.Errorf("the process said %q: %w", line, readErr)
	}
	return killErr
}

// showStale starts servers where a file is already. Who listens on a path makes the file,
// and must not find one. A process that is killed leaves its own, on which nobody answers:
// hertznet removes that one. It does not remove what a server answers on, nor what is no
// socket.
func showStale(ctx context.Context, dir string) error {
	path := filepath.Join(dir, "stale.sock")
	if err := killOne(ctx, path); err != nil {
		return err
	}
	if _, err := os.Lstat(path); err != nil {
		return fmt.Errorf("the file of a killed process: %w", err)
	}
	c, err := net.DialTimeout("unix", path, limit)
	if err == nil {
		c.Close()
		return errors.New("somebody answers on the file of a killed process")
	}
	show("after kill -9", "dial      %v", err)
	ln, err := net.Listen("unix", path)
	if err == nil {
		ln.Close()
		return errors.New("net.Listen listens where a file is")
	}
	show("", "net       %v", err)

	s, err := start(anybody, server.WithNetwork("unix"), server.WithHostPorts(path))
	if err != nil {
		return err
	}
	defer s.stop()
	if err := ask(ctx, "hertznet replaces it", s); err != nil {
		return err
	}
	if err := showKept("not that of a server", path); err != nil {
		return err
	}
	if _, err := askHertz(ctx, s.addr); err != nil {
		return fmt.Errorf("the server whose file was asked for: %w", err)
	}
	file := filepath.Join(dir, "file.txt")
	if err := os.WriteFile(file, []byte("precious"), 0o600); err != nil {
		return err
	}
	if err := showKept("nor any other file", file); err != nil {
		return err
	}
	if b, err := os.ReadFile(file); err != nil || string(b) != "precious" {
		return fmt.Errorf("the file has %q: %w", b, err)
	}
	return s.stop()
}

// showKept shows that no server starts on path.
func showKept(what, path string) error {
	before, err := os.Lstat(path)
	if err != nil {
		return err
	}
	s, err := start(anybody, server.WithNetwork("unix"), server.WithHostPorts(path))
	if err == nil {
		s.stop()
		return fmt.Errorf("a second server started on %s", path)
	}
	after, statErr := os.Lstat(path)
	if statErr != nil || !os.SameFile(before, after) {
		return fmt.Errorf("%s is not what it was: %v", path, statErr)
	}
	show(what, "error     %v", err)
	return nil
}
