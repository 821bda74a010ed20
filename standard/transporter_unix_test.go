//go:build unix

package standard

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"log/slog"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"
)

const (
	fewFilesEnv = "HERTZNET_TEST_FEW_FILES"
	staleEnv    = "HERTZNET_TEST_STALE"
)

// "EMFILE backs off and goes on", for once with a real limit of open files: a child
// process serves on, and accepts again when there are files again.
func TestS3_OutOfFiles(t *testing.T) {
	if os.Getenv(fewFilesEnv) != "" {
		serveWithFewFiles(t)
		return
	}
	cmd := exec.Command(os.Args[0], "-test.run=^TestS3_OutOfFiles$", "-test.timeout=60s")
	cmd.Env = append(os.Environ(), fewFilesEnv+"=1")
	stdin, err := cmd.StdinPipe() // the child serves until it is closed
	if err != nil {
		t.Fatal(err)
	}
	stdout, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	cmd.Stderr = os.Stderr
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	lines := make(chan string, 1000)
	go func() {
		defer close(lines)
		for s := bufio.NewScanner(stdout); s.Scan(); {
			lines <- s.Text()
		}
	}()
	defer func() {
		stdin.Close()
		for range lines {
		}
		if err := cmd.Wait(); err != nil {
			t.Errorf("the child: %v", err)
		}
	}()
	await := func(part string) string {
		t.Helper()
		timeout := time.After(30 * time.Second)
		for {
			select {
			case line, ok := <-lines:
				if !ok {
					t.Fatalf("the child has ended and never said %q", part)
				}
				if _, rest, ok := strings.Cut(line, part); ok {
					return rest
				}
			case <-timeout:
				t.Fatalf("the child never said %q", part)
			}
		}
	}
	addr := await("listening on ")
	dial := func() *Conn {
		nc, err := net.Dial("tcp", addr)
		if err != nil {
			t.Fatal(err)
		}
		nc.SetDeadline(time.Now().Add(30 * time.Second))
		return NewConn(nc)
	}
	first := dial()
	defer first.Close()
	if got := ask(t, first, "alive"); got != "alive" {
		t.Fatalf("got %q", got)
	}
	var conns []*Conn
	for range 100 { // more than the child can have
		conns = append(conns, dial())
	}
	await("accepting a connection failed")
	if got := ask(t, first, "still alive"); got != "still alive" {
		t.Errorf("out of files, an accepted connection got %q", got)
	}
	for _, c := range conns {
		c.Close()
	}
	c := dial()
	defer c.Close()
	if got := ask(t, c, "alive again"); got != "alive again" {
		t.Errorf("got %q", got)
	}
}

// serveWithFewFiles is what the child process does.
func serveWithFewFiles(t *testing.T) {
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	tr := &Transporter{Logger: slog.New(slog.NewTextHandler(os.Stdout, nil))}
	served := make(chan error, 1)
	go func() { served <- tr.Serve(ln, echo) }()
	var limit syscall.Rlimit
	if err := syscall.Getrlimit(syscall.RLIMIT_NOFILE, &limit); err != nil {
		t.Fatal(err)
	}
	limit.Cur = 40
	if err := syscall.Setrlimit(syscall.RLIMIT_NOFILE, &limit); err != nil {
		t.Fatal(err)
	}
	fmt.Printf("listening on %v\n", ln.Addr())
	_, _ = io.Copy(io.Discard, os.Stdin)
	if err := tr.Close(); err != nil {
		t.Error(err)
	}
	if err := <-served; err != nil {
		t.Errorf("Serve: %v", err)
	}
}

// staleSocket leaves a socket file that nobody answers on.
func staleSocket(t testing.TB) string {
	t.Helper()
	path := filepath.Join(socketDir(t), "s")
	ln, err := net.Listen("unix", path)
	if err != nil {
		t.Fatal(err)
	}
	ln.(*net.UnixListener).SetUnlinkOnClose(false)
	ln.Close()
	if _, err := os.Lstat(path); err != nil {
		t.Fatal(err)
	}
	return path
}

// listenAndServe runs tr on its own address.
func listenAndServe(t testing.TB, tr *Transporter) *server {
	t.Helper()
	ln, err := tr.Listen()
	if err != nil {
		t.Fatal(err)
	}
	return serveOn(t, tr, ln, echo)
}

// asks makes a connection to the socket and an exchange over it.
func asks(t testing.TB, path string) {
	t.Helper()
	c, err := new(Dialer).DialConnection("unix", path, time.Minute, nil)
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	if got := ask(t, c, "alive"); got != "alive" {
		t.Errorf("got %q", got)
	}
}

// The kit has a stale socket file replaced. The new one is gone after Close and after
// Shutdown, and unix:///path is such an address too.
func TestS15_SocketFileIsRemovedAtTheEnd(t *testing.T) {
	for name, tr := range map[string]*Transporter{
		"Close":    {Network: "unix", Addr: "unix://"},
		"Shutdown": {Addr: "unix://"},
	} {
		path := staleSocket(t)
		tr.Addr += path
		s := listenAndServe(t, tr)
		asks(t, path)
		if err := stops[name](tr); err != nil {
			t.Errorf("%s: %v", name, err)
		}
		if err := <-s.served; err != nil {
			t.Errorf("%s: Serve: %v", name, err)
		}
		if _, err := os.Lstat(path); !errors.Is(err, fs.ErrNotExist) {
			t.Errorf("%s: the socket file is still there: %v", name, err)
		}
	}
}

// The kit has a live socket live on. The error tells what is wrong and where, and the
// file is the same.
func TestS15_LiveSocketIsNamed(t *testing.T) {
	path := filepath.Join(socketDir(t), "s")
	listenAndServe(t, &Transporter{Network: "unix", Addr: path})
	before, err := os.Lstat(path)
	if err != nil {
		t.Fatal(err)
	}
	if err := (&Transporter{Addr: "unix://" + path}).ListenAndServe(echo); !errors.Is(err, syscall.EADDRINUSE) || !strings.Contains(err.Error(), path) {
		t.Errorf("got %v, want an EADDRINUSE that names the file", err)
	}
	if after, err := os.Lstat(path); err != nil || !os.SameFile(before, after) {
		t.Errorf("the socket file is another one: %v", err)
	}
}

// Of many that find one stale file at the same time, one has it, and is reached there.
// Nothing else is left beside the socket.
func TestS15_OneOfManyReplacesAStaleSocket(t *testing.T) {
	for range 100 {
		path := staleSocket(t)
		lns := make(chan net.Listener, 16)
		start := make(chan struct{})
		var wg sync.WaitGroup
		for range cap(lns) {
			wg.Go(func() {
				<-start
				ln, err := (&Transporter{Network: "unix", Addr: path}).Listen()
				switch {
				case err == nil:
					lns <- ln
				case !errors.Is(err, syscall.EADDRINUSE):
					t.Errorf("got %v, want EADDRINUSE", err)
				}
			})
		}
		close(start)
		wg.Wait()
		close(lns)
		if len(lns) != 1 {
			t.Fatalf("%d listen on one file", len(lns))
		}
		ln := <-lns
		c, err := net.Dial("unix", path)
		if err != nil {
			t.Fatal(err)
		}
		c.Close()
		if files, err := os.ReadDir(filepath.Dir(path)); err != nil || len(files) != 1 {
			t.Errorf("there are %v; %v", files, err)
		}
		ln.Close()
	}
}

// The same with processes, each of which listens on the paths that it reads, and says
// whether it did.
func TestS15_OneProcessOfManyReplacesAStaleSocket(t *testing.T) {
	if os.Getenv(staleEnv) != "" {
		for s := bufio.NewScanner(os.Stdin); s.Scan(); {
			ln, err := (&Transporter{Network: "unix", Addr: s.Text()}).Listen()
			fmt.Println("listens:", err == nil)
			if err == nil {
				defer ln.Close()
			}
		}
		return
	}
	type child struct {
		cmd *exec.Cmd
		in  io.WriteCloser
		out *bufio.Scanner
	}
	var children []child
	defer func() {
		for _, c := range children {
			c.in.Close()
		}
		for _, c := range children {
			if err := c.cmd.Wait(); err != nil {
				t.Errorf("a child: %v", err)
			}
		}
	}()
	for range 4 {
		cmd := exec.Command(os.Args[0], "-test.run=^TestS15_OneProcessOfManyReplacesAStaleSocket$", "-test.timeout=60s")
		cmd.Env = append(os.Environ(), staleEnv+"=1")
		cmd.Stderr = os.Stderr
		in, err := cmd.StdinPipe()
		if err != nil {
			t.Fatal(err)
		}
		out, err := cmd.StdoutPipe()
		if err != nil {
			t.Fatal(err)
		}
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
		children = append(children, child{cmd, in, bufio.NewScanner(out)})
	}
	for range 100 {
		path := staleSocket(t)
		for _, c := range children {
			if _, err := fmt.Fprintln(c.in, path); err != nil {
				t.Fatal(err)
			}
		}
		listen := 0
		for _, c := range children {
			if !c.out.Scan() {
				t.Fatalf("a child has ended: %v", c.out.Err())
			}
			listen += one(c.out.Text() == "listens: true")
		}
		if listen != 1 {
			t.Fatalf("%d listen on one file", listen)
		}
		c, err := net.Dial("unix", path)
		if err != nil {
			t.Fatal(err)
		}
		c.Close()
	}
}

// What is not a stale stream socket is not ours to remove: whatever there is, it is
// refused and stays. The kit has a regular file there.
func TestS15_OtherFilesAreRefused(t *testing.T) {
	for name, make := range map[string]func(path string) error{
		"empty file":    func(path string) error { return os.WriteFile(path, nil, 0o600) },
		"directory":     func(path string) error { return os.Mkdir(path, 0o700) },
		"link":          func(path string) error { return os.Symlink(staleSocket(t), path) },
		"dangling link": func(path string) error { return os.Symlink(path+"x", path) },
		"pipe":          func(path string) error { return syscall.Mkfifo(path, 0o600) },
		"datagram socket": func(path string) error {
			c, err := net.ListenUnixgram("unixgram", &net.UnixAddr{Name: path, Net: "unixgram"})
			if err == nil {
				t.Cleanup(func() { c.Close() })
			}
			return err
		},
	} {
		t.Run(name, func(t *testing.T) {
			path := filepath.Join(socketDir(t), "s")
			if err := make(path); err != nil {
				t.Fatal(err)
			}
			before, err := os.Lstat(path)
			if err != nil {
				t.Fatal(err)
			}
			tr := &Transporter{Network: "unix", Addr: path}
			if ln, err := tr.Listen(); err == nil {
				ln.Close()
				t.Error("it listens")
			}
			after, err := os.Lstat(path)
			if err != nil || !os.SameFile(before, after) || before.Size() != after.Size() || before.Mode() != after.Mode() {
				t.Errorf("it is not what it was: %v, %v; %v", before.Mode(), after, err)
			}
		})
	}
}

// An abstract address of Linux has no file, even if there is one of that name.
func TestS15_AbstractSocket(t *testing.T) {
	if runtime.GOOS != "linux" {
		t.Skip("abstract unix sockets are Linux's")
	}
	t.Chdir(socketDir(t))
	name := fmt.Sprintf("@hertznet-test-%d", os.Getpid())
	s := listenAndServe(t, &Transporter{Network: "unix", Addr: name})
	asks(t, name)
	second := func() {
		t.Helper()
		if err := (&Transporter{Network: "unix", Addr: name}).ListenAndServe(echo); !errors.Is(err, syscall.EADDRINUSE) {
			t.Errorf("a second one: got %v, want EADDRINUSE", err)
		}
	}
	second()
	file, err := net.Listen("unix", "./"+name)
	if err != nil {
		t.Fatal(err)
	}
	file.(*net.UnixListener).SetUnlinkOnClose(false)
	file.Close()
	second()
	if _, err := os.Lstat(name); err != nil {
		t.Errorf("the file: %v", err)
	}
	asks(t, name)
	s.close(t)
}

// Package net takes a first byte of 0 for an abstract address as well.
func TestS15_AbstractSocketByAZeroByte(t *testing.T) {
	if runtime.GOOS != "linux" {
		t.Skip("abstract unix sockets are Linux's")
	}
	name := fmt.Sprintf("\x00hertznet-test-%d", os.Getpid())
	ln, err := (&Transporter{Network: "unix", Addr: name}).Listen()
	if err != nil {
		t.Fatal(err)
	}
	defer ln.Close()
	if _, err := (&Transporter{Network: "unix", Addr: name}).Listen(); !errors.Is(err, syscall.EADDRINUSE) {
		t.Errorf("a second one: got %v, want EADDRINUSE", err)
	}
}

// What lies in the place of the directory may be a FIFO, and to open that would be to wait
// for its writer, with every other socket file of the process waiting as well.
func TestS15_FIFOInThePlaceOfTheDirectory(t *testing.T) {
	dir := socketDir(t)
	fifo := filepath.Join(dir, "fifo")
	if err := syscall.Mkfifo(fifo, 0o600); err != nil {
		t.Skip(err)
	}
	for _, test := range []struct {
		path string
		want error
	}{
		{filepath.Join(fifo, "s"), syscall.ENOTDIR},
		{filepath.Join(dir, "s"), nil},
	} {
		ended := make(chan error, 1)
		go func() {
			ln, err := (&Transporter{Network: "unix", Addr: test.path}).Listen()
			if err == nil {
				ln.Close()
			}
			ended <- err
		}()
		select {
		case err := <-ended:
			if !errors.Is(err, test.want) {
				t.Errorf("%s: got %v, want %v", test.path, err, test.want)
			}
		case <-time.After(5 * time.Second):
			t.Errorf("%s: it waits", test.path)
			if f, err := os.OpenFile(fifo, os.O_RDWR, 0); err == nil {
				<-ended
				f.Close()
			}
		}
	}
}

// A handler that has a descriptor of its connection, to give it to another process say,
// makes the socket one that blocks: (*os.File).Fd does. What looks for unread bytes must not
// wait on it, at Close of the connection and at Shutdown.
func TestS7_S22_SocketThatBlocks(t *testing.T) {
	for _, kind := range []string{"tcp", "unix"} {
		for _, idle := range []bool{false, true} {
			t.Run(fmt.Sprintf("%s, idle: %v", kind, idle), func(t *testing.T) {
				if idle && maxGather == 0 {
					t.Skip("here its reads wait in the system, as those of package net do")
				}
				addr := "127.0.0.1:0"
				if kind == "unix" {
					addr = filepath.Join(socketDir(t), "s")
				}
				tr := &Transporter{Network: kind, Addr: addr, ParkAfter: -1}
				if kind == "unix" {
					tr.ReadBufferSize = 128 << 10 // which asks for more at once
				}
				ln, err := tr.Listen()
				if err != nil {
					t.Fatal(err)
				}
				s := serveOn(t, tr, ln, func(_ context.Context, conn any) error {
					c := conn.(*Conn)
					f, err := c.NetConn().(interface{ File() (*os.File, error) }).File()
					if err != nil {
						t.Error(err)
						return err
					}
					f.Fd()
					f.Close()
					if err := c.Skip(c.Len()); err != nil || idle {
						return err
					}
					return io.EOF
				})
				c, err := net.Dial(kind, ln.Addr().String())
				if err != nil {
					t.Fatal(err)
				}
				defer c.Close() // which frees what waits
				if _, err := c.Write([]byte("x")); err != nil {
					t.Fatal(err)
				}
				if idle {
					settles(t, "idle connections", 1, func() int { return s.Stats().Idle })
					ctx, cancel := context.WithTimeout(t.Context(), 5*time.Second)
					defer cancel()
					down := make(chan error, 1)
					go func() { down <- s.Shutdown(ctx) }()
					select {
					case err := <-down:
						if err != nil {
							t.Errorf("Shutdown: %v", err)
						}
					case <-time.After(10 * time.Second):
						t.Error("Shutdown waits for the peer, beyond the end of its context")
					}
				}
				_ = c.SetReadDeadline(time.Now().Add(5 * time.Second))
				if _, err := c.Read(make([]byte, 1)); err != io.EOF {
					t.Errorf("the connection is not closed: %v", err)
				}
			})
		}
	}
}

// sockopt reads a socket's option from the system.
func sockopt(t testing.TB, nc net.Conn, level, option int) (value int) {
	t.Helper()
	raw, err := nc.(syscall.Conn).SyscallConn()
	if err != nil {
		t.Fatal(err)
	}
	var optErr error
	if err := raw.Control(func(fd uintptr) {
		value, optErr = syscall.GetsockoptInt(int(fd), level, option)
	}); err != nil {
		t.Fatal(err)
	}
	if optErr != nil {
		t.Fatal(optErr)
	}
	return value
}

// withKeepAlive returns accepted connections of Transporters with that KeepAlive, whose
// listener's own setting is another: of one that was given its listener, and of one
// that opened it.
func withKeepAlive(t testing.TB, listener, keepAlive time.Duration) (conns [2]net.Conn) {
	t.Helper()
	for i := range conns {
		lc := &net.ListenConfig{KeepAlive: listener}
		accepted := make(chan net.Conn, 1)
		tr := &Transporter{
			Network: "tcp", Addr: "127.0.0.1:0",
			ListenConfig: lc,
			KeepAlive:    keepAlive,
			OnAccept:     func(nc net.Conn) context.Context { accepted <- nc; return nil },
		}
		listen := tr.Listen
		if i == 0 {
			listen = func() (net.Listener, error) { return lc.Listen(t.Context(), tr.Network, tr.Addr) }
		}
		ln, err := listen()
		if err != nil {
			t.Fatal(err)
		}
		s := serveOn(t, tr, ln, echo)
		c := s.dial(t)
		if got := ask(t, c, "alive"); got != "alive" {
			t.Fatalf("got %q", got)
		}
		conns[i] = <-accepted
	}
	return conns
}

// KeepAlive makes TCP probe a silent peer, or not, whatever the listener's own
// setting is; zero leaves that.
func TestKeepAliveIsApplied(t *testing.T) {
	for _, test := range []struct {
		listener, keepAlive time.Duration
		want                bool
	}{
		{-1, time.Minute, true},
		{time.Hour, time.Minute, true},
		{time.Hour, -1, false},
		{-1, -1, false},
		{time.Hour, 0, true},
		{-1, 0, false},
		{0, 0, true},
		{0, -1, false},
	} {
		for i, nc := range withKeepAlive(t, test.listener, test.keepAlive) {
			if got := sockopt(t, nc, syscall.SOL_SOCKET, syscall.SO_KEEPALIVE) != 0; got != test.want {
				t.Errorf("the listener's %v, KeepAlive %v, listener %d: SO_KEEPALIVE is %v, want %v", test.listener, test.keepAlive, i, got, test.want)
			}
		}
	}
}
