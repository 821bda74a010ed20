//go:build linux && (amd64 || arm64)

package main

import (
	"bufio"
	"context"
	"crypto/tls"
	"encoding/json"
	"fmt"
	"io"
	"os"
	"os/exec"
	"runtime"
	"runtime/debug"
	"strconv"
	"strings"
	"syscall"
	"time"

	"github.com/hertznet/hertznet/tlsconn"
)

// usage is the processor time of a process.
type usage struct{ User, System time.Duration }

func (u usage) since(before usage) usage {
	return usage{u.User - before.User, u.System - before.System}
}

// ownUsage is that of this process, up to now.
func ownUsage() usage {
	var r syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_SELF, &r); err != nil {
		panic(err) // the arguments are right
	}
	return usage{time.Duration(r.Utime.Nano()), time.Duration(r.Stime.Nano())}
}

// memory is what a process holds after a garbage collection.
type memory struct{ Resident, Goroutines int }

// runServer is the server process: it serves until standard input ends, and answers to
// its lines.
func runServer(p peer, w workload, file string) error {
	var secure *tls.Config
	if w.tls {
		var err error
		if secure, err = serverTLS(); err != nil {
			return err
		}
	}
	addr, err := p.start(w, secure, file)
	if err != nil {
		return err
	}
	out := json.NewEncoder(os.Stdout)
	if err := out.Encode(addr); err != nil {
		return err
	}
	for in := bufio.NewScanner(os.Stdin); in.Scan(); {
		var answer any
		switch in.Text() {
		case "usage":
			answer = ownUsage()
		case "memory":
			runtime.GC() // and once more by FreeOSMemory, since a sync.Pool outlives the first
			debug.FreeOSMemory()
			resident, err := residentBytes(os.Getpid())
			if err != nil {
				return err
			}
			answer = memory{resident, runtime.NumGoroutine()}
		default:
			return fmt.Errorf("%q is not known", in.Text())
		}
		if err := out.Encode(answer); err != nil {
			return err
		}
	}
	return nil
}

func serverTLS() (*tls.Config, error) {
	cert, _, err := tlsconn.SelfSigned("localhost")
	return &tls.Config{Certificates: []tls.Certificate{cert}}, err
}

// process is this program again, as a server or as the load. It answers lines with
// lines of JSON, and ends when its standard input does.
type process struct {
	cmd *exec.Cmd
	in  io.WriteCloser
	out *json.Decoder
}

// spawn starts a process. It is killed when ctx ends.
func spawn(ctx context.Context, args ...string) (*process, error) {
	exe, err := os.Executable()
	if err != nil {
		return nil, err
	}
	p := &process{cmd: exec.CommandContext(ctx, exe, args...)}
	p.cmd.Stderr = os.Stderr
	if p.in, err = p.cmd.StdinPipe(); err != nil {
		return nil, err
	}
	out, err := p.cmd.StdoutPipe()
	if err != nil {
		return nil, err
	}
	p.out = json.NewDecoder(out)
	return p, p.cmd.Start()
}

// read reads the next line into v.
func (p *process) read(v any) error {
	if err := p.out.Decode(v); err != nil {
		return fmt.Errorf("the process %q has ended, or failed: %w", p.cmd.Args[1:], err)
	}
	return nil
}

// ask sends a line and reads the answer into v.
func (p *process) ask(line string, v any) error {
	if _, err := io.WriteString(p.in, line+"\n"); err != nil {
		return fmt.Errorf("the process %q has ended: %w", p.cmd.Args[1:], err)
	}
	return p.read(v)
}

// stop ends the process, by force if it is slow, and waits until it is gone.
func (p *process) stop() {
	p.in.Close()
	slow := time.AfterFunc(3*time.Second, func() { p.cmd.Process.Kill() })
	p.cmd.Wait()
	slow.Stop()
}

// startServer starts p as a server of w and returns its address.
func startServer(ctx context.Context, p peer, w workload, file string) (*process, string, error) {
	s, err := spawn(ctx, "serve", p.name, w.name, file)
	if err != nil {
		return nil, "", err
	}
	var addr string
	if err := s.read(&addr); err != nil {
		s.stop()
		return nil, "", err
	}
	return s, addr, nil
}

// residentBytes is the resident memory of a process.
func residentBytes(pid int) (int, error) {
	text, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", pid))
	if err != nil {
		return 0, err
	}
	for line := range strings.Lines(string(text)) {
		if rest, ok := strings.CutPrefix(line, "VmRSS:"); ok {
			kib, err := strconv.Atoi(strings.TrimSuffix(strings.TrimSpace(rest), " kB"))
			return kib << 10, err
		}
	}
	return 0, fmt.Errorf("no VmRSS in the status of process %d", pid)
}
