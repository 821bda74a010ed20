package main

import (
	"bufio"
	"context"
	"crypto/tls"
	"fmt"
	"net"
	"os"
	"runtime"
	"runtime/debug"
	"time"

	"github.com/cloudwego/hertz/pkg/app"
	"github.com/cloudwego/hertz/pkg/app/server"
	"github.com/cloudwego/hertz/pkg/common/config"
	"github.com/cloudwego/hertz/pkg/common/hlog"
	"github.com/cloudwego/hertz/pkg/network"
	"github.com/cloudwego/hertz/pkg/network/netpoll"
	hertzstandard "github.com/cloudwego/hertz/pkg/network/standard"
	"github.com/hertznet/hertznet"
	"github.com/hertznet/hertznet/standard"
	"github.com/hertznet/hertznet/tlsconn"
)

// servers are what is measured, by name.
var servers = []struct {
	name      string
	transport func(*config.Options) network.Transporter
}{
	{"hertznet", hertznet.NewTransporter},
	{"hertznet, not parked", hertznet.Transport(func(t *standard.Transporter) { t.ParkAfter = -1 })},
	{"standard", hertzstandard.NewTransporter},
	{"netpoll", netpoll.NewTransporter},
}

func serverNames() []string {
	var names []string
	for _, s := range servers {
		names = append(names, s.name)
	}
	return names
}

// runServer serves until standard input ends, and answers to each line of it with its
// memory.
func runServer(name string, secure bool) error {
	hlog.SetLevel(hlog.LevelFatal)
	var transport func(*config.Options) network.Transporter
	for _, s := range servers {
		if s.name == name {
			transport = s.transport
		}
	}
	if transport == nil {
		return fmt.Errorf("there is no server %q", name)
	}
	addr, err := freeAddr()
	if err != nil {
		return err
	}
	options := []config.Option{server.WithHostPorts(addr), server.WithTransport(transport), server.WithIdleTimeout(time.Hour)}
	if secure {
		cert, _, err := tlsconn.SelfSigned("localhost")
		if err != nil {
			return err
		}
		options = append(options, server.WithTLS(&tls.Config{Certificates: []tls.Certificate{cert}}))
	}
	h := server.New(options...)
	h.GET("/ping", func(_ context.Context, ctx *app.RequestContext) { ctx.WriteString("pong") })
	failed := make(chan error, 1)
	go func() { failed <- h.Run() }()
	for {
		if c, err := net.Dial("tcp", addr); err == nil {
			c.Close()
			break
		}
		select {
		case err := <-failed:
			return err
		case <-time.After(10 * time.Millisecond):
		}
	}
	fmt.Println(addr)
	for in := bufio.NewScanner(os.Stdin); in.Scan(); {
		runtime.GC() // and once more by FreeOSMemory, since a sync.Pool outlives the first
		debug.FreeOSMemory()
		resident, err := residentBytes()
		if err != nil {
			return err
		}
		fmt.Println(resident, runtime.NumGoroutine())
	}
	return nil
}

// freeAddr finds an address that Hertz can be told, since netpoll takes no listener of
// another kind than its own.
func freeAddr() (string, error) {
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return "", err
	}
	defer ln.Close()
	return ln.Addr().String(), nil
}
