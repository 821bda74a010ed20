//go:build unix

package standard

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/hertznet/hertznet/network"
)

// inheritChild is in the environment of a process that inheritor has started.
const inheritChild = "HERTZNET_TEST_INHERIT"

func init() {
	if os.Getenv(inheritChild) != "" {
		if err := runInheritor(); err != nil {
			fmt.Println("error", err)
			os.Exit(1)
		}
		os.Exit(0)
	}
}

// runInheritor is a server on the listeners that it inherits, until its standard input
// ends. The first answers 0, the next 1.
func runInheritor() error {
	before := inheritable()
	lns, err := InheritedListeners()
	if err != nil {
		return err
	}
	// Some environments leave descriptors of their own open.
	if got := inheritable(); before-got != len(lns) {
		return fmt.Errorf("%d listeners, but the next process would inherit %d descriptors where it was %d", len(lns), got, before)
	}
	for _, name := range []string{"LISTEN_FDS", "LISTEN_PID", "LISTEN_FDNAMES"} {
		if v, ok := os.LookupEnv(name); ok {
			return fmt.Errorf("%s=%q is still there", name, v)
		}
	}
	if again, err := InheritedListeners(); again != nil || err != nil {
		return fmt.Errorf("the second call returned %v, %v", again, err)
	}
	for i, ln := range lns {
		tr := &Transporter{}
		defer tr.Close()
		go tr.Serve(ln, says(fmt.Sprint(i))) //nolint:errcheck // its end is seen by the clients
	}
	fmt.Println("serves", len(lns))
	_, err = io.Copy(io.Discard, os.Stdin)
	return err
}

// inheritable counts the descriptors that a process started now would inherit.
func inheritable() (n int) {
	for fd := firstListenFD; fd < 256; fd++ {
		if flags, open := fdFlags(fd); open && flags&syscall.FD_CLOEXEC == 0 {
			n++
		}
	}
	return n
}

// fdFlags returns the flags of a descriptor, if there is one.
func fdFlags(fd int) (flags int, open bool) {
	v, _, errno := syscall.Syscall(syscall.SYS_FCNTL, uintptr(fd), syscall.F_GETFD, 0)
	return int(v), errno == 0
}

// says answers each line with text.
func says(text string) network.OnData {
	return func(_ context.Context, conn any) error { return answer(conn.(network.Conn), text) }
}

// inheritor starts cmd, a process that inherits files, and returns what it says first.
// It ends with the test.
func inheritor(t *testing.T, cmd *exec.Cmd, env []string, files ...*os.File) (said string) {
	t.Helper()
	cmd.ExtraFiles = files
	cmd.Env = append(append(os.Environ(), inheritChild+"=1"), env...)
	cmd.Stderr = os.Stderr
	stdin, err := cmd.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	stdout, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	late := time.AfterFunc(late, func() { _ = cmd.Process.Kill() })
	t.Cleanup(func() {
		defer late.Stop()
		stdin.Close()
		_ = cmd.Wait() // a child that reports an error fails, too
	})
	line, err := bufio.NewReader(stdout).ReadString('\n')
	if err != nil {
		t.Fatalf("the child said %q: %v", line, err)
	}
	return strings.TrimSpace(line)
}

func self() *exec.Cmd { return exec.Command(os.Args[0]) }

// A listener goes on while one process ends and the next begins: a connection that comes
// when nobody accepts waits, and is served. Ending the first does not remove the socket
// file, and is not held up by the listener being passed on.
func TestInheritedListenersGoOn(t *testing.T) {
	for name, stop := range stops {
		t.Run(name, func(t *testing.T) {
			addrs := []string{"127.0.0.1:0", filepath.Join(socketDir(t), "s")}
			var servers []*server
			var files []*os.File
			for i, network := range []string{"tcp", "unix"} {
				ln, err := net.Listen(network, addrs[i])
				if err != nil {
					t.Fatal(err)
				}
				addrs[i] = ln.Addr().String()
				servers = append(servers, serveOn(t, &Transporter{}, ln, says("parent")))
				f, err := ListenerFile(ln)
				if err != nil {
					t.Fatal(err)
				}
				defer f.Close()
				files = append(files, f)
			}
			dial := func(i int) *Conn {
				t.Helper()
				c, err := net.Dial([]string{"tcp", "unix"}[i], addrs[i])
				if err != nil {
					t.Fatal(err)
				}
				t.Cleanup(func() { c.Close() })
				return NewConn(c)
			}
			// Starting a process with a descriptor must not make the listener block.
			cmd := exec.Command("true")
			cmd.ExtraFiles = files
			if err := cmd.Run(); err != nil {
				t.Fatal(err)
			}
			for i, s := range servers {
				if got := ask(t, dial(i), "?"); got != "parent" {
					t.Errorf("listener %d: got %q", i, got)
				}
				if err := stop(s.Transporter); err != nil {
					t.Error(err)
				}
				if err := ends(t, s.served); err != nil {
					t.Error(err)
				}
			}
			waits := []*Conn{dial(0), dial(1)}
			if said := inheritor(t, self(), []string{"LISTEN_FDS=2", "LISTEN_FDNAMES=a:b"}, files...); said != "serves 2" {
				t.Fatalf("the child: %s", said)
			}
			for i, c := range waits {
				for _, c := range []*Conn{c, dial(i)} {
					if got, want := ask(t, c, "?"), fmt.Sprint(i); got != want {
						t.Errorf("listener %d: got %q, want %q", i, got, want)
					}
				}
			}
		})
	}
}

// LISTEN_PID is as systemd sets it: the process itself, which only a shell that becomes
// it can know. For any other process the descriptors are not meant.
func TestInheritedListenersByPID(t *testing.T) {
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer ln.Close()
	f, err := ListenerFile(ln)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	for pid, want := range map[string]string{"$$": "serves 1", "1": "serves 0"} {
		cmd := exec.Command("sh", "-c", `LISTEN_FDS=1 LISTEN_PID=`+pid+` exec "$0"`, os.Args[0])
		if said := inheritor(t, cmd, nil, f); said != want {
			t.Errorf("LISTEN_PID=%s: %s, want %s", pid, said, want)
		}
	}
}

// What is no listener is an error that says so, and stays open.
func TestInheritedListenersRefusesOthers(t *testing.T) {
	a, _ := tcpPair(t)
	socket, err := a.(*net.TCPConn).File()
	if err != nil {
		t.Fatal(err)
	}
	defer socket.Close()
	file, err := os.Open(os.DevNull)
	if err != nil {
		t.Fatal(err)
	}
	defer file.Close()
	for _, test := range []struct {
		fds   string
		files []*os.File
		want  string
	}{
		{"1", []*os.File{socket}, "descriptor 3 of LISTEN_FDS=1: it is a socket that does not listen"},
		{"1", []*os.File{file}, "descriptor 3 of LISTEN_FDS=1: getsockopt"},
		{"1000000000", nil, "descriptor 3 of LISTEN_FDS=1000000000"},
		{"-1", nil, `LISTEN_FDS="-1"`},
		{"one", nil, `LISTEN_FDS="one"`},
	} {
		said := inheritor(t, self(), []string{"LISTEN_FDS=" + test.fds}, test.files...)
		if !strings.HasPrefix(said, "error standard: "+test.want) {
			t.Errorf("LISTEN_FDS=%s: %s", test.fds, said)
		}
	}
	_, before := fdFlags(firstListenFD)
	t.Setenv("LISTEN_FDS", "1")
	if lns, err := InheritedListeners(); lns != nil || err == nil {
		t.Errorf("got %v, %v for a descriptor of the runtime's own", lns, err)
	}
	if _, after := fdFlags(firstListenFD); after != before {
		t.Error("a descriptor that is no listener was closed")
	}
}

// A listener of another kind has no descriptor, and one that was closed has none any
// more; that does not change who removes a socket file.
func TestListenerFileErrors(t *testing.T) {
	if f, err := ListenerFile(newScriptListener()); f != nil || err == nil || !strings.Contains(err.Error(), "scriptListener") {
		t.Errorf("got %v, %v", f, err)
	}
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	ln.Close()
	if f, err := ListenerFile(ln); f != nil || err == nil || !strings.Contains(err.Error(), ln.Addr().String()) {
		t.Errorf("got %v, %v", f, err)
	}
}

// With ReusePort, and only with it, a second listener has the same port, and goes on when
// the first has ended.
func TestReusePort(t *testing.T) {
	reuse := &net.ListenConfig{Control: ReusePort}
	first := &Transporter{Addr: "127.0.0.1:0", ListenConfig: reuse}
	ln, err := first.Listen()
	if err != nil {
		t.Fatal(err)
	}
	defer ln.Close()
	addr := ln.Addr().String()
	if other, err := net.Listen("tcp", addr); err == nil {
		other.Close()
		t.Error("another listener got the port without SO_REUSEPORT")
	}
	second := &Transporter{Addr: addr, ListenConfig: reuse}
	ln2, err := second.Listen()
	if err != nil {
		t.Fatal(err)
	}
	s := serveOn(t, second, ln2, says("second"))
	ln.Close()
	c, err := net.Dial("tcp", s.addr)
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	if got := ask(t, NewConn(c), "?"); got != "second" {
		t.Errorf("got %q", got)
	}
}
