package main

import (
	"bufio"
	"bytes"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"slices"
	"strings"
	"sync"
	"time"
)

const (
	drip  = 20 * time.Millisecond // between two bytes of a slow sender
	flood = 4 << 20               // bytes that an attacker sends at most
)

// attacker attacks one site, from addresses of its own. Everything that it does ends by
// itself, after patience at the latest.
type attacker struct {
	*site
	ips      []string
	patience time.Duration
	tls      *tls.Config
}

// attack is one kind of attack, and what must come of it where the limits are set.
type attack struct {
	name  string
	limit string // what stops it
	tls   bool   // it is for the site with TLS
	run   func(a *attacker) (got string)

	want    string            // what the attacker gets; empty is anything
	counted map[string]uint64 // by how much figures of Stats grow, others aside
	logged  int               // lines
}

var attacks = []attack{
	{
		name: "8 silent connections", limit: "ReadTimeout",
		run: func(a *attacker) string {
			return a.each(8, func(c net.Conn) string { return a.fate(c) })
		},
		want: "8 closed", counted: map[string]uint64{"ClosedSlow": 8},
	},
	{
		name: "4 headers, a byte every 20 ms", limit: "MinReadRate",
		run: func(a *attacker) string {
			return a.each(4, func(c net.Conn) string {
				return a.send(c, "POST /echo HTTP/1.1\r\nHost: x\r\nX: ", strings.NewReader(strings.Repeat("x", 1000)), drip)
			})
		},
		want: "4 closed with 408", counted: map[string]uint64{"ClosedSlow": 4, "TooSlow": 4}, logged: 1,
	},
	{
		name: "4 bodies, a byte every 20 ms", limit: "MinReadRate",
		run: func(a *attacker) string {
			return a.each(4, func(c net.Conn) string {
				return a.send(c, "POST /echo HTTP/1.1\r\nHost: x\r\nContent-Length: 1000\r\n\r\n", strings.NewReader(strings.Repeat("x", 1000)), drip)
			})
		},
		// It was logged a moment ago: a message is not repeated for 10 seconds.
		want: "4 closed with 408", counted: map[string]uint64{"ClosedSlow": 4, "TooSlow": 4},
	},
	{
		name: "4 clients that do not read", limit: "WriteTimeout",
		run: func(a *attacker) string {
			return a.each(4, func(c net.Conn) string {
				return a.ignore(c, "GET /big HTTP/1.1\r\nHost: x\r\n\r\n")
			})
		},
		// The handler is free at the timeout. The socket, and its place among MaxConns, stays
		// for 2 s more, for what has been sent may still be on its way.
		want: "4 reset", counted: map[string]uint64{"ClosedSlow": 4},
	},
	{
		name: "8 clients that stay after a request", limit: "IdleTimeout",
		run: func(a *attacker) string {
			return a.each(8, func(c net.Conn) string {
				if err := ask(c, a.addr); err != nil {
					return err.Error()
				}
				return a.fate(c)
			})
		},
		want: "8 closed", counted: map[string]uint64{"ClosedIdle": 8},
	},
	{
		name: "a header without end", limit: "MaxHeaderBytes",
		run: func(a *attacker) string {
			return a.each(1, func(c net.Conn) string {
				return a.send(c, "GET /big HTTP/1.1\r\nHost: x\r\n", endless("X: y\r\n"), 0)
			})
		},
		want: "closed with 431", logged: 1,
	},
	{
		name: "a Content-Length of 1 TiB", limit: "MaxRequestBodySize",
		run: func(a *attacker) string {
			return a.each(1, func(c net.Conn) string {
				return a.send(c, "POST /echo HTTP/1.1\r\nHost: x\r\nContent-Length: 1099511627776\r\n\r\n", endless("x"), 0)
			})
		},
		want: "closed with 413", logged: 1,
	},
	{
		name: "a chunked body without end", limit: "MaxRequestBodySize",
		run: func(a *attacker) string {
			return a.each(1, func(c net.Conn) string {
				return a.send(c, "POST /echo HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n",
					endless("10000\r\n"+strings.Repeat("x", 0x10000)+"\r\n"), 0)
			})
		},
		want: "closed with 413", logged: 1,
	},
	{
		// Hertz has no limit for it.
		name: "a trailer without end", limit: "MaxReadBuffer",
		run: func(a *attacker) string {
			return a.each(1, func(c net.Conn) string {
				return a.send(c, "POST /echo HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n", endless("X: y\r\n"), 0)
			})
		},
		want: "closed with 413", counted: map[string]uint64{"Overflows": 1}, logged: 1,
	},
	{
		name: "60 connections of one address", limit: "MaxConnsPerIP",
		run: func(a *attacker) string {
			b := *a
			b.ips = a.ips[:1]
			at := time.Now()
			return b.each(60, func(c net.Conn) string {
				fate := b.fate(c)
				if fate == "closed" && time.Since(at) < readTimeout*3/4 {
					return "at once"
				}
				return fate
			})
		},
		counted: map[string]uint64{"Rejected": 60 - maxConnsPerIP, "ClosedSlow": maxConnsPerIP}, logged: 1,
	},
	{
		// Of five addresses, where the system has them.
		name: "60 connections at once", limit: "MaxConns",
		run: func(a *attacker) string {
			stop := make(chan struct{})
			peak := make(chan int)
			go func() {
				n := 0
				for {
					select {
					case <-stop:
						peak <- n
						return
					case <-time.After(time.Millisecond):
						n = max(n, a.transport.Stats().Open())
					}
				}
			}()
			got := a.each(60, func(c net.Conn) string { return a.fate(c) })
			close(stop)
			return fmt.Sprintf("%s; %d open at most", got, <-peak)
		},
		want: fmt.Sprintf("60 closed; %d open at most", maxConns), counted: map[string]uint64{"ClosedSlow": 60},
	},
	{
		name: "4 TLS handshakes, a byte every 20 ms", limit: "HandshakeTimeout", tls: true,
		run: func(a *attacker) string {
			hello := clientHello()
			return a.each(4, func(c net.Conn) string { return a.send(c, "", bytes.NewReader(hello), drip) })
		},
		want: "4 closed", counted: map[string]uint64{"ClosedSlow": 4, "HandshakeErrors": 4},
	},
	{
		// Each has HandshakeTimeout and a place among MaxConns and MaxConnsPerIP. How many
		// there are in a second is not limited: that is a matter for a firewall.
		name: "100 TLS handshakes, one by one", limit: "none", tls: true,
		run: func(a *attacker) string {
			done := 0
			for range 100 {
				c, err := a.dial(0)
				if err != nil {
					return err.Error()
				}
				if tls.Client(c, a.tls).Handshake() == nil {
					done++
				}
				c.Close()
			}
			return fmt.Sprintf("%d completed", done)
		},
		want: "100 completed",
	},
}

// dial connects from the attacker's i-th address, in turn.
func (a *attacker) dial(i int) (net.Conn, error) {
	d := net.Dialer{Timeout: a.patience, LocalAddr: &net.TCPAddr{IP: net.ParseIP(a.ips[i%len(a.ips)])}}
	return d.Dial("tcp", a.addr)
}

// each attacks by n connections at once, and says how many of them got what.
func (a *attacker) each(n int, f func(c net.Conn) string) string {
	var (
		wg   sync.WaitGroup
		mu   sync.Mutex
		fate = make(map[string]int)
	)
	for i := range n {
		wg.Go(func() {
			what := ""
			c, err := a.dial(i)
			if err != nil {
				what = err.Error()
			} else {
				defer c.Close()
				_ = c.SetDeadline(time.Now().Add(a.patience)) // or f fails
				what = f(c)
			}
			mu.Lock()
			defer mu.Unlock()
			fate[what]++
		})
	}
	wg.Wait()
	var all []string
	for what, n := range fate {
		if n > 1 {
			what = fmt.Sprintf("%d %s", n, what)
		}
		all = append(all, what)
	}
	slices.Sort(all)
	return strings.Join(all, ", ")
}

// fate reads from c until it ends, and says what came.
func (a *attacker) fate(c net.Conn) string {
	in := bufio.NewReader(c)
	got := ""
	if resp, err := http.ReadResponse(in, nil); err == nil {
		_, _ = io.Copy(io.Discard, resp.Body) // what follows it tells
		got = fmt.Sprintf(" with %d", resp.StatusCode)
	} else if end := ending(err); end != "closed" {
		return end
	}
	_, err := io.Copy(io.Discard, in)
	return ending(err) + got
}

// ending says what err, of a read or a write, means for an attacker; nil is the end.
func ending(err error) string {
	switch {
	case err == nil, err == io.EOF, errors.Is(err, io.ErrUnexpectedEOF):
		return "closed"
	case errors.Is(err, os.ErrDeadlineExceeded):
		return "still open"
	}
	return "reset"
}

// send sends head and then all of body, or a byte of it each pause, while it waits for
// its fate.
func (a *attacker) send(c net.Conn, head string, body io.Reader, pause time.Duration) string {
	var wg sync.WaitGroup
	var taken int64
	wg.Go(func() {
		if _, err := io.WriteString(c, head); err != nil {
			return
		}
		if pause == 0 {
			taken, _ = io.Copy(c, body) // fate tells how it ended
			return
		}
		for {
			if _, err := io.CopyN(c, body, 1); err != nil {
				return
			}
			time.Sleep(pause)
		}
	})
	fate := a.fate(c)
	c.Close()
	wg.Wait()
	if fate == "still open" && pause == 0 {
		fate = fmt.Sprintf("still open, %.1f MiB taken", float64(taken)/(1<<20))
	}
	return fate
}

// ignore sends a request and, without reading the answer, more bytes now and then, by
// which it notices when its connection is gone.
func (a *attacker) ignore(c net.Conn, request string) string {
	if _, err := io.WriteString(c, request); err != nil {
		return ending(err)
	}
	for {
		time.Sleep(drip)
		if _, err := io.WriteString(c, "G"); err != nil {
			return ending(err)
		}
	}
}

// ask sends a request and wants its answer.
func ask(c net.Conn, host string) error {
	_, err := fmt.Fprintf(c, "POST /echo HTTP/1.1\r\nHost: %s\r\nContent-Length: 2\r\n\r\nhi", host)
	if err != nil {
		return err
	}
	resp, err := http.ReadResponse(bufio.NewReader(c), nil)
	if err != nil {
		return err
	}
	body, err := io.ReadAll(resp.Body)
	if err != nil || resp.StatusCode != 200 || string(body) != "hi" {
		return fmt.Errorf("status %d, %q, %v", resp.StatusCode, body, err)
	}
	return nil
}

// endless repeats s for as long as an attacker sends at most.
func endless(s string) io.Reader { return strings.NewReader(strings.Repeat(s, flood/len(s))) }

// clientHello returns the first bytes of a TLS client.
func clientHello() []byte {
	c, s := net.Pipe()
	go func() { _ = tls.Client(c, &tls.Config{ServerName: "localhost"}).Handshake(); c.Close() }()
	buf := make([]byte, 16<<10)
	n, _ := s.Read(buf) // a pipe does not fail
	s.Close()
	return buf[:n]
}
