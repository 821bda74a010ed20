//go:build linux && (amd64 || arm64)

package main

import (
	"crypto/tls"
	"fmt"
	"slices"

	"github.com/cloudwego/hertz/pkg/network/netpoll"
	hertzstandard "github.com/cloudwego/hertz/pkg/network/standard"
	"github.com/hertznet/hertznet"
	"github.com/hertznet/hertznet/standard"
)

// baseline is the peer that the others are divided by.
const baseline = "hertznet"

// peer is a library in one of its uses.
type peer struct {
	name  string
	title string
	kinds []string
	noTLS bool

	// start serves w on a free port of 127.0.0.1 and returns the address. A nil
	// *tls.Config is plain TCP. It is nil for clients.
	start func(w workload, secure *tls.Config, file string) (string, error)

	// client makes a client, which trusts what the *tls.Config says.
	client func(secure *tls.Config) (getFunc, error)
}

var peers = []peer{
	{name: "hertznet", title: "Hertz on hertznet", kinds: []string{kindHTTP, kindIdle}, start: hertz(hertznet.NewTransporter)},
	{name: "not parked", title: "Hertz on hertznet with ParkAfter < 0", kinds: []string{kindIdle},
		start: hertz(hertznet.Transport(func(t *standard.Transporter) { t.ParkAfter = -1 }))},
	{name: "standard", title: "Hertz on its standard transport", kinds: []string{kindHTTP, kindIdle}, start: hertz(hertzstandard.NewTransporter)},
	{name: "netpoll", title: "Hertz on netpoll", kinds: []string{kindHTTP, kindIdle}, start: hertz(netpoll.NewTransporter), noTLS: true},
	{name: "fasthttp", title: "fasthttp", kinds: []string{kindHTTP, kindIdle}, start: startFastHTTP},
	{name: "net/http", title: "net/http", kinds: []string{kindHTTP, kindIdle}, start: startNetHTTP},
	{name: "bare", title: "the floor: net.Conn Read and Write, fixed buffers, nothing parsed", kinds: []string{kindHTTP, kindIdle}, start: startBare},

	{name: "hertznet", title: "hertznet's package standard", kinds: []string{kindEcho}, start: startEchoHertznet},
	{name: "netpoll", title: "cloudwego/netpoll", kinds: []string{kindEcho}, start: startEchoNetpoll},
	{name: "bufio", title: "net.Conn with bufio", kinds: []string{kindEcho}, start: startEchoBufio},

	{name: "hertznet", title: "Hertz's client on hertznet's dialer", kinds: []string{kindClient}, client: hertzClient(hertznet.NewDialer())},
	{name: "standard", title: "Hertz's client on its standard dialer", kinds: []string{kindClient}, client: hertzClient(hertzstandard.NewDialer())},
	{name: "net/http", title: "net/http's client", kinds: []string{kindClient}, client: netHTTPClient},
}

// peersOf returns those that a kind of workload has, in the order of the tables.
func peersOf(kind string) []peer {
	return slices.DeleteFunc(slices.Clone(peers), func(p peer) bool { return !slices.Contains(p.kinds, kind) })
}

func findPeer(name, kind string) (peer, error) {
	for _, p := range peersOf(kind) {
		if p.name == name {
			return p, nil
		}
	}
	return peer{}, fmt.Errorf("there is no peer %q for %s workloads", name, kind)
}

// can says whether p can do w.
func (p peer) can(w workload) bool { return !(w.tls && p.noTLS) }
