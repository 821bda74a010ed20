// Command idle measures what an idle keep-alive connection costs a Hertz server: on
// hertznet, parked and not, and on the two transports of Hertz, each in a process of
// its own, plain and over TLS.
//
//	go run ./bench/idle -n 9000
//
// Each connection sends one request, and then nothing. The figure is the server's
// resident memory after a garbage collection, less that of the empty server, divided by
// the number of connections. What the kernel keeps for a socket is the same for all and
// not in it. It runs on Linux, and ends by itself.
package main

import (
	"bufio"
	"crypto/tls"
	"flag"
	"fmt"
	"io"
	"log"
	"net"
	"net/http"
	"os"
	"os/exec"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"
)

func main() {
	log.SetFlags(0)
	log.SetPrefix("idle: ")
	n := flag.Int("n", 9000, "connections, half of the limit of open files at most")
	after := flag.Duration("wait", 3*time.Second, "how long they are idle before memory is measured")
	only := flag.String("only", "", "measure one `server`")
	serve := flag.String("serve", "", "be the `server` that is measured")
	overTLS := flag.Bool("tls", false, "with -serve: over TLS")
	flag.Parse()
	if *serve != "" {
		if err := runServer(*serve, *overTLS); err != nil {
			log.Fatal(err)
		}
		return
	}
	fmt.Printf("%d connections, one request each, idle for %v; %s, %s/%s, %d processors\n\n",
		*n, *after, runtime.Version(), runtime.GOOS, runtime.GOARCH, runtime.NumCPU())
	fmt.Printf("%-22s %-6s %14s %12s %12s %22s\n", "server", "", "bytes each", "resident", "goroutines", "first answer after idle")
	for _, secure := range []bool{false, true} {
		for _, name := range serverNames() {
			if *only != "" && name != *only || secure && name == "netpoll" {
				continue // netpoll has no TLS
			}
			if err := measure(name, secure, *n, *after); err != nil {
				log.Fatalf("%s: %v", name, err)
			}
		}
	}
}

// child is a server in a process of its own.
type child struct {
	cmd *exec.Cmd
	in  io.WriteCloser
	out *bufio.Scanner
}

func start(name string, secure bool) (*child, string, error) {
	exe, err := os.Executable()
	if err != nil {
		return nil, "", err
	}
	c := &child{cmd: exec.Command(exe, "-serve", name, "-tls="+strconv.FormatBool(secure))}
	c.cmd.Stderr = os.Stderr
	if c.in, err = c.cmd.StdinPipe(); err != nil {
		return nil, "", err
	}
	out, err := c.cmd.StdoutPipe()
	if err != nil {
		return nil, "", err
	}
	c.out = bufio.NewScanner(out)
	if err := c.cmd.Start(); err != nil {
		return nil, "", err
	}
	addr, err := c.line()
	return c, addr, err
}

func (c *child) line() (string, error) {
	if !c.out.Scan() {
		return "", fmt.Errorf("the server has ended: %w", c.cmd.Wait())
	}
	return c.out.Text(), nil
}

// memory asks for the resident bytes and the number of goroutines.
func (c *child) memory() (resident, goroutines int, err error) {
	if _, err := io.WriteString(c.in, "memory\n"); err != nil {
		return 0, 0, err
	}
	text, err := c.line()
	if err != nil {
		return 0, 0, err
	}
	_, err = fmt.Sscan(text, &resident, &goroutines)
	return resident, goroutines, err
}

func measure(name string, secure bool, n int, after time.Duration) error {
	c, addr, err := start(name, secure)
	if err != nil {
		return err
	}
	defer c.cmd.Wait()
	defer c.in.Close() // ends it
	// What the first connections set up is not idle memory.
	if err := warm(addr, secure); err != nil {
		return err
	}
	empty, _, err := c.memory()
	if err != nil {
		return err
	}
	conns, err := open(addr, secure, n)
	defer func() {
		for _, c := range conns {
			c.Close()
		}
	}()
	if err != nil {
		return err
	}
	time.Sleep(after)
	resident, goroutines, err := c.memory()
	if err != nil {
		return err
	}
	var took []time.Duration
	for i := range min(n, 500) {
		begin := time.Now()
		if err := exchange(conns[i]); err != nil {
			return fmt.Errorf("a request after idling: %w", err)
		}
		took = append(took, time.Since(begin))
	}
	slices.Sort(took)
	kind := "plain"
	if secure {
		kind = "TLS"
	}
	fmt.Printf("%-22s %-6s %14d %9.1f MiB %12d %10v, p99 %8v\n", name, kind, (resident-empty)/n, float64(resident)/(1<<20), goroutines,
		took[len(took)/2].Round(time.Microsecond), took[len(took)*99/100].Round(time.Microsecond))
	return nil
}

func warm(addr string, secure bool) error {
	conns, err := open(addr, secure, 50)
	for _, c := range conns {
		c.Close()
	}
	return err
}

// open opens connections and has one exchange on each.
func open(addr string, secure bool, n int) ([]net.Conn, error) {
	conns := make([]net.Conn, n)
	errs := make(chan error, 16)
	var wg sync.WaitGroup
	for w := range cap(errs) {
		wg.Go(func() {
			for i := w; i < n; i += cap(errs) {
				c, err := net.Dial("tcp", addr)
				if err != nil {
					errs <- err
					return
				}
				if secure {
					c = tls.Client(c, &tls.Config{InsecureSkipVerify: true})
				}
				conns[i] = c
				if err := exchange(c); err != nil {
					errs <- err
					return
				}
			}
		})
	}
	wg.Wait()
	close(errs)
	return slices.DeleteFunc(conns, func(c net.Conn) bool { return c == nil }), <-errs
}

const request = "GET /ping HTTP/1.1\r\nHost: localhost\r\n\r\n"

func exchange(c net.Conn) error {
	if err := c.SetDeadline(time.Now().Add(20 * time.Second)); err != nil {
		return err
	}
	if _, err := io.WriteString(c, request); err != nil {
		return err
	}
	// Small, since this process holds the other ends.
	r := bufio.NewReaderSize(c, 512)
	resp, err := http.ReadResponse(r, nil)
	if err != nil {
		return err
	}
	body, err := io.ReadAll(resp.Body)
	if err != nil {
		return err
	}
	if resp.StatusCode != 200 || string(body) != "pong" {
		return fmt.Errorf("status %d, body %q", resp.StatusCode, body)
	}
	return nil
}

// residentBytes is this process's resident memory.
func residentBytes() (int, error) {
	text, err := os.ReadFile("/proc/self/status")
	if err != nil {
		return 0, err
	}
	for line := range strings.Lines(string(text)) {
		if rest, ok := strings.CutPrefix(line, "VmRSS:"); ok {
			kib, err := strconv.Atoi(strings.TrimSuffix(strings.TrimSpace(rest), " kB"))
			return kib << 10, err
		}
	}
	return 0, fmt.Errorf("no VmRSS in /proc/self/status")
}
