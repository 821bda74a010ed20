// The command http3 runs a Hertz server on HTTPS and HTTP/3, on one port.
//
//	go run ./quic/examples/http3
//
// fetches a page over HTTP/1.1 and over HTTP/3 with Hertz's client, prints the protocol and
// the time for each, shuts down and exits.
//
//	go run ./quic/examples/http3 -serve 127.0.0.1:8443
//
// serves until it is interrupted, and prints how to try it with curl and Chromium. The
// certificate is for development.
package main

import (
	"context"
	"crypto/sha256"
	"crypto/tls"
	"crypto/x509"
	"encoding/base64"
	"errors"
	"flag"
	"fmt"
	"net"
	"os"
	"os/signal"
	"syscall"
	"time"

	"github.com/cloudwego/hertz/pkg/app"
	"github.com/cloudwego/hertz/pkg/app/client"
	"github.com/cloudwego/hertz/pkg/app/server"
	"github.com/cloudwego/hertz/pkg/common/config"
	"github.com/cloudwego/hertz/pkg/common/hlog"
	"github.com/cloudwego/hertz/pkg/common/utils"
	"github.com/cloudwego/hertz/pkg/network"
	"github.com/cloudwego/hertz/pkg/protocol"

	"github.com/hertznet/hertznet"
	"github.com/hertznet/hertznet/quic/http3"
	"github.com/hertznet/hertznet/tlsconn"
)

func main() {
	addr := flag.String("serve", "", "serve on this `address`, such as 127.0.0.1:8443, until interrupted; a port alone is one of the loopback")
	public := flag.Bool("public", false, "with -serve: serve on an address that others reach, too")
	flag.Parse()
	if flag.NArg() > 0 {
		fmt.Fprintf(os.Stderr, "http3: %q is no flag; see -help\n", flag.Arg(0))
		os.Exit(2)
	}
	hlog.SetLevel(hlog.LevelWarn) // no routes, no "listening on"
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	context.AfterFunc(ctx, stop) // a second interrupt kills
	if err := run(ctx, *addr, *public); err != nil {
		fmt.Fprintln(os.Stderr, "http3:", err)
		os.Exit(1)
	}
}

func run(ctx context.Context, addr string, public bool) error {
	serve := addr != ""
	addr, err := listenAddress(addr, public)
	if err != nil {
		return err
	}
	// For development only: see tlsconn.NewReloader for certificates from files.
	cert, pool, err := tlsconn.SelfSigned("localhost", "127.0.0.1")
	if err != nil {
		return err
	}
	s, err := start(addr, cert)
	if err != nil {
		return err
	}
	if serve {
		if err := tryIt(s.addr, cert); err != nil {
			return errors.Join(err, s.stop())
		}
		select {
		case <-ctx.Done():
			fmt.Println("shutting down")
		case err := <-s.ended:
			return err
		}
		return s.stop()
	}
	return errors.Join(fetch(ctx, s.addr, pool), s.stop())
}

// listenAddress returns where to listen: on the loopback, unless public is set.
func listenAddress(addr string, public bool) (string, error) {
	if addr == "" {
		return "127.0.0.1:0", nil
	}
	host, port, err := net.SplitHostPort(addr)
	if err != nil {
		return "", fmt.Errorf("-serve: %w", err)
	}
	if public {
		return addr, nil
	}
	if host == "" {
		host = "127.0.0.1"
	}
	if ip := net.ParseIP(host); host != "localhost" && (ip == nil || !ip.IsLoopback()) {
		return "", fmt.Errorf("-serve %s is not an address of this machine alone; add -public if others may reach it", addr)
	}
	return net.JoinHostPort(host, port), nil
}

// site is a server that runs.
type site struct {
	h     *server.Hertz
	addr  string
	ended chan error // what Run returned
}

func start(addr string, cert tls.Certificate) (*site, error) {
	var listener interface{ Listener() net.Listener }
	h := server.Default(
		server.WithHostPorts(addr),
		server.WithTLS(&tls.Config{Certificates: []tls.Certificate{cert}}),
		server.WithTransport(func(o *config.Options) network.Transporter {
			t := http3.NewTransporter(o)
			listener = t.(interface{ Listener() net.Listener }) // knows the port
			return t
		}),
	)
	h.AddProtocol(http3.Protocol, http3.NewServerFactory(h.Engine))
	h.Use(http3.AltSvc(time.Hour))
	h.GET("/", func(_ context.Context, ctx *app.RequestContext) {
		ctx.Data(200, "text/html; charset=utf-8", []byte(page))
	})
	h.GET("/protocol", func(_ context.Context, ctx *app.RequestContext) {
		ctx.JSON(200, utils.H{"protocol": ctx.Request.Header.GetProtocol(), "client": ctx.RemoteAddr().String()})
	})

	s := &site{h: h, ended: make(chan error, 1)}
	go func() { s.ended <- h.Run() }()
	for listener.Listener() == nil {
		select {
		case err := <-s.ended:
			return nil, fmt.Errorf("the server ended at once: %w", err)
		case <-time.After(time.Millisecond):
		}
	}
	s.addr = listener.Listener().Addr().String()
	return s, nil
}

func (s *site) stop() error { return s.h.Shutdown(context.Background()) }

// fetch gets the page over both protocols, twice each: the second time there is a
// connection.
func fetch(ctx context.Context, addr string, pool *x509.CertPool) error {
	config := &tls.Config{RootCAs: pool}
	h1, err := client.NewClient(client.WithTLSConfig(config), client.WithDialer(hertznet.NewDialer()))
	if err != nil {
		return err
	}
	defer h1.CloseIdleConnections()
	h3, err := client.NewClient(client.WithTLSConfig(config))
	if err != nil {
		return err
	}
	h3.SetClientFactory(http3.NewClientFactory(h3.GetOptions()))
	defer h3.CloseIdleConnections()

	url := "https://" + addr + "/"
	var altSvc string
	for _, c := range []struct {
		want   string
		client *client.Client
	}{{"HTTP/1.1", h1}, {"HTTP/3.0", h3}} {
		for _, what := range []string{"new connection", "same connection"} {
			var req protocol.Request
			var resp protocol.Response
			req.SetRequestURI(url)
			begin := time.Now()
			if err := c.client.DoTimeout(ctx, &req, &resp, 5*time.Second); err != nil {
				return fmt.Errorf("GET %s over %s: %w", url, c.want, err)
			}
			took := time.Since(begin)
			proto := resp.Header.GetProtocol()
			if resp.StatusCode() != 200 || proto != c.want || string(resp.Body()) != page {
				return fmt.Errorf("GET %s: status %d over %q with %d bytes; want 200 over %s with %d", url, resp.StatusCode(), proto, len(resp.Body()), c.want, len(page))
			}
			if v := resp.Header.Get("Alt-Svc"); v != "" {
				altSvc = v
			}
			fmt.Printf("GET / %-9s %d  %4d bytes  %6.2f ms  %s\n", proto, resp.StatusCode(), len(resp.Body()), took.Seconds()*1000, what)
		}
	}
	if altSvc == "" {
		return errors.New("HTTPS has not said where HTTP/3 is")
	}
	fmt.Printf("Alt-Svc over HTTPS: %s\n", altSvc)
	return nil
}

// tryIt prints how to reach a server with a certificate that nobody knows.
func tryIt(addr string, cert tls.Certificate) error {
	_, port, err := net.SplitHostPort(addr)
	if err != nil {
		return err
	}
	leaf, err := x509.ParseCertificate(cert.Certificate[0])
	if err != nil {
		return err
	}
	spki := sha256.Sum256(leaf.RawSubjectPublicKeyInfo)
	fmt.Printf(`serving HTTPS and HTTP/3 on %[1]s until interrupted

HTTPS:   curl -ki https://localhost:%[2]s/
HTTP/3:  chromium --user-data-dir=$(mktemp -d) --enable-quic --origin-to-force-quic-on=localhost:%[2]s \
           --ignore-certificate-errors-spki-list=%[3]s \
           --host-resolver-rules='MAP localhost 127.0.0.1' https://localhost:%[2]s/

The certificate is made anew each time. A browser uses no HTTP/3 with one that it does not trust,
which is what the flags are for; with a real certificate it follows Alt-Svc by itself.
`, addr, port, base64.StdEncoding.EncodeToString(spki[:]))
	return nil
}

const page = `<!DOCTYPE html>
<html lang="en">
<meta charset="utf-8">
<meta name="viewport" content="width=device-width">
<title>Hertz over HTTP/3</title>
<style>body { font: 1rem/1.5 system-ui, sans-serif; max-width: 40rem; margin: 3rem auto; padding: 0 1rem }</style>
<h1>Hertz over HTTP/3</h1>
<p>This page came over <b id="page">…</b>, and what it has fetched since over <b id="fetch">…</b>.
<p><button id="again">Fetch again</button> <span id="took" role="status"></span>
<script>
const protocol = (type, i) => performance.getEntriesByType(type).at(i).nextHopProtocol || "unknown";
document.getElementById("page").textContent = protocol("navigation", 0);
async function again() {
  const begin = performance.now();
  try {
    const answer = await (await fetch("/protocol", { cache: "no-store" })).json();
    document.getElementById("fetch").textContent = answer.protocol;
    document.getElementById("took").textContent = (performance.now() - begin).toFixed(1) + " ms";
  } catch (error) {
    document.getElementById("took").textContent = "The server does not answer: " + error;
  }
}
document.getElementById("again").onclick = again;
again();
</script>
`
