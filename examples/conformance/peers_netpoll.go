//go:build (amd64 || arm64) && (linux || darwin)

// That is where Hertz itself has netpoll (pkg/route/netpoll.go).

package main

import (
	"net"
	"testing"
	"time"

	"github.com/cloudwego/hertz/pkg/network/netpoll"

	"github.com/hertznet/hertznet/network"
	"github.com/hertznet/hertznet/network/networktest"
)

const netpollNoTLS = "netpoll has no TLS"

// netpollColumn returns that of Hertz's netpoll.
func netpollColumn() []implementation {
	return []implementation{{
		key: "netpoll", name: "Hertz netpoll",
		subjects: [kinds]networktest.Subject{
			// It works on descriptors of its own, so there is no Wrap.
			connKind: networktest.Conn{Pair: dialedByNetpoll},
			dialerKind: networktest.Dialer{
				New:   func(testing.TB) network.Dialer { return hertzDialer{netpoll.NewDialer()} },
				NoTLS: true, // it says so itself, by an error
			},
			transporterKind: networktest.Transporter{
				New: func(tb testing.TB, o networktest.TransporterOptions) network.Transporter {
					switch {
					case o.TLS != nil:
						tb.Skip(netpollNoTLS)
					case o.Logger != nil:
						tb.Skip("netpoll logs a panic to standard error, by a logger of its own")
					}
					switch o.Listener.(type) {
					case nil, *net.TCPListener, *net.UnixListener:
					default:
						tb.Skip("netpoll needs a listener of package net, for its descriptor")
					}
					return hertzTransporter{netpoll.NewTransporter(hertzOptions(tb, o))}
				},
			},
		},
		because: [kinds]string{tlsKind: netpollNoTLS},
	}}
}

// dialedByNetpoll returns a connection as Hertz's client gets it from netpoll.
func dialedByNetpoll(tb testing.TB) (a, b network.Conn) {
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		tb.Fatal(err)
	}
	defer ln.Close()
	a, err = netpoll.NewDialer().DialConnection("tcp", ln.Addr().String(), 5*time.Second, nil)
	if err != nil {
		tb.Fatal(err)
	}
	y, err := ln.Accept()
	if err != nil {
		a.Close()
		tb.Fatal(err)
	}
	return a, networktest.Reference(y)
}
