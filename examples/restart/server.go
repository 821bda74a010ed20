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
	"strings"
	"sync/atomic"
	"time"

	"github.com/cloudwego/hertz/pkg/app"
	"github.com/cloudwego/hertz/pkg/app/server"
	"github.com/cloudwego/hertz/pkg/common/config"
	"github.com/cloudwego/hertz/pkg/common/hlog"

	"github.com/hertznet/hertznet"
	"github.com/hertznet/hertznet/standard"
)

const (
	// The environment of a process that is to be a server.
	childName = "HERTZNET_RESTART_NAME"
	childAddr = "HERTZNET_RESTART_ADDR" // to listen on by itself

	stopLimit = 10 * time.Second

	nameHeader = "Server-Name" // of an answer: which process it is from
)

// serve is the server: it runs until its standard input ends, which stands for the
// signal that Hertz waits for by default, and also comes when the parent dies.
func serve(name, addr string) error {
	hlog.SetLevel(hlog.LevelWarn)
	lns, err := standard.InheritedListeners()
	if err != nil {
		return err
	}
	var listen config.Option
	switch len(lns) {
	case 1:
		listen = server.WithListener(lns[0])
	case 0:
		lc := net.ListenConfig{Control: standard.ReusePort}
		ln, err := lc.Listen(context.Background(), "tcp", addr)
		if err != nil {
			return err
		}
		listen = server.WithListener(ln)
	default:
		return fmt.Errorf("inherited %d listeners, want one", len(lns))
	}
	h := server.New(
		server.WithTransport(hertznet.NewTransporter), listen,
		server.WithReadTimeout(10*time.Second),
		server.WithWriteTimeout(10*time.Second),
		server.WithExitWaitTime(stopLimit/2),
	)
	var handled atomic.Int64
	h.Use(func(_ context.Context, ctx *app.RequestContext) {
		handled.Add(1)
		ctx.Header(nameHeader, name)
	})
	h.GET("/", func(_ context.Context, ctx *app.RequestContext) {
		if ctx.Query("slow") != "" {
			time.Sleep(30 * time.Millisecond)
		}
		ctx.String(200, "hello %s", ctx.Query("id"))
	})
	h.POST("/", func(_ context.Context, ctx *app.RequestContext) { ctx.Response.SetBodyRaw(ctx.Request.Body()) })

	failed := false
	h.SetCustomSignalWaiter(func(ended chan error) error {
		told := make(chan error, 1)
		go func() {
			for !h.IsRunning() {
				time.Sleep(time.Millisecond)
			}
			fmt.Println("ready", h.GetOptions().Listener.Addr())
			_, _ = io.Copy(io.Discard, os.Stdin)
			told <- nil
		}()
		select {
		case err := <-ended:
			failed = true
			return err
		case err := <-told:
			return err
		}
	})
	h.Spin() // returns when Shutdown has
	if failed {
		return errors.New("it ended before it was told to") // Hertz has logged why
	}
	fmt.Println("handled", handled.Load())
	return nil
}

// process is a server as the parent sees it.
type process struct {
	name    string
	addr    string
	handled int // requests, known once it has ended
	cmd     *exec.Cmd
	stdin   io.Closer
	stdout  *bufio.Reader
}

// startServer starts a server and waits until it serves: on the listener, or if that is
// nil on an address of its own.
func startServer(n int, listener *os.File, addr string) (*process, error) {
	self, err := os.Executable()
	if err != nil {
		return nil, err
	}
	p := &process{name: fmt.Sprint(n), cmd: exec.Command(self)}
	p.cmd.Env = append(os.Environ(), childName+"="+p.name)
	if listener != nil {
		p.cmd.ExtraFiles = []*os.File{listener}
		p.cmd.Env = append(p.cmd.Env, "LISTEN_FDS=1")
	} else {
		if addr == "" {
			addr = "127.0.0.1:0"
		}
		p.cmd.Env = append(p.cmd.Env, childAddr+"="+addr)
	}
	p.cmd.Stderr = os.Stderr
	if p.stdin, err = p.cmd.StdinPipe(); err != nil {
		return nil, err
	}
	stdout, err := p.cmd.StdoutPipe()
	if err != nil {
		return nil, err
	}
	p.stdout = bufio.NewReader(stdout)
	if err := p.cmd.Start(); err != nil {
		return nil, err
	}
	if err := p.expect("ready", &p.addr); err != nil {
		p.kill()
		return nil, err
	}
	return p, nil
}

// stop tells the server to shut down and waits until its process has ended.
func (p *process) stop() error {
	p.stdin.Close()
	if err := p.expect("handled", &p.handled); err != nil {
		return err
	}
	return p.cmd.Wait()
}

// expect reads a line that begins with word, and what follows to v.
func (p *process) expect(word string, v any) error {
	late := time.AfterFunc(stopLimit, func() { _ = p.cmd.Process.Kill() })
	defer late.Stop()
	line, err := p.stdout.ReadString('\n')
	if err == nil {
		_, err = fmt.Sscanf(strings.TrimSpace(line), word+" %v", v)
	}
	if err != nil {
		return fmt.Errorf("server %s did not say %q but %q: %w", p.name, word, line, err)
	}
	return nil
}

// kill is for what has gone wrong; it does no harm to a process that has ended.
func (p *process) kill() {
	_ = p.cmd.Process.Kill()
	_ = p.cmd.Wait()
}
