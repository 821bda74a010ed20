package http3

import (
	"bytes"
	"context"
	"crypto/sha256"
	"crypto/tls"
	"crypto/x509"
	"encoding/base64"
	"fmt"
	"math/rand/v2"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/cloudwego/hertz/pkg/app"
	"github.com/cloudwego/hertz/pkg/app/server"
	"github.com/cloudwego/hertz/pkg/common/utils"

	"github.com/hertznet/hertznet/tlsconn"
)

// program returns the path of the first of names that is installed. If none is, the test
// is skipped, or fails if the environment has the variable.
func program(t *testing.T, variable string, names ...string) string {
	t.Helper()
	for _, name := range names {
		if path, err := exec.LookPath(name); err == nil {
			return path
		}
	}
	if os.Getenv(variable) != "" {
		t.Fatalf("%s is set, and none of %q is installed", variable, names)
	}
	t.Skipf("none of %q is installed", names)
	return ""
}

// output runs a program for 30 seconds at most.
func output(t *testing.T, path string, args ...string) (stdout, stderr string, err error) {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), 30*time.Second)
	defer cancel()
	cmd := exec.CommandContext(ctx, path, args...)
	var out, errs bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &errs
	cmd.WaitDelay = time.Second
	err = cmd.Run()
	return out.String(), errs.String(), err
}

// ngtcp2, which shares no code with quic-go, gets 300 KB back as it has sent them. Debian
// has its client as ngtcp2-client.
func TestNgtcp2(t *testing.T) {
	client := program(t, "HERTZNET_NGTCP2", "gtlsclient")
	s := serve(t, handle(func(_ context.Context, ctx *app.RequestContext) { ctx.Data(200, "x/y", ctx.Request.Body()) }))
	dir := t.TempDir()
	sent := make([]byte, 300_000)
	rng := rand.New(rand.NewPCG(1, 2))
	for i := range sent {
		sent[i] = byte(rng.Uint32())
	}
	in := filepath.Join(dir, "in")
	if err := os.WriteFile(in, sent, 0o600); err != nil {
		t.Fatal(err)
	}
	out := filepath.Join(dir, "out")
	if err := os.Mkdir(out, 0o700); err != nil {
		t.Fatal(err)
	}
	host, port, _ := net.SplitHostPort(s.addr)
	stdout, stderr, err := output(t, client, "--exit-on-all-streams-close", "-q", "--data="+in, "--http-method=POST", "--download="+out,
		host, port, "https://localhost:"+port+"/echo")
	if err != nil {
		t.Fatalf("gtlsclient: %v\n%s%s", err, stdout, stderr)
	}
	got, err := os.ReadFile(filepath.Join(out, "echo"))
	if err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(got, sent) {
		t.Errorf("%d bytes came back, of %d; the same: %v", len(got), len(sent), bytes.Equal(got, sent[:min(len(got), len(sent))]))
	}
}

// page loads by itself and with fetch, and says over which protocols it did.
const page = `<!DOCTYPE html><title>page</title><p id="out">waiting</p><img src="/hold" alt="">
<script>
const protocol = (type, name) => performance.getEntriesByType(type).find((e) => e.name.endsWith(name)).nextHopProtocol;
fetch("/data", { method: "POST", body: "from the page" }).then((r) => r.json()).then((data) => {
  out.textContent = "page=" + protocol("navigation", "/") + " fetch=" + protocol("resource", "/data") + " data=" + data.got + " over " + data.protocol;
  fetch("/done");
});
</script>`

// A browser that is nobody's here loads a page and fetches from it, by HTTP/3 alone.
func TestBrowser(t *testing.T) {
	chromium := program(t, "HERTZNET_BROWSER", "chromium", "chromium-browser", "google-chrome")
	cert, _, err := tlsconn.SelfSigned("localhost")
	if err != nil {
		t.Fatal(err)
	}
	leaf, err := leafOf(cert)
	if err != nil {
		t.Fatal(err)
	}
	done := make(chan struct{}, 1)
	s := run(t, func(h *server.Hertz) {
		h.GET("/", func(_ context.Context, ctx *app.RequestContext) { ctx.Data(200, "text/html", []byte(page)) })
		h.POST("/data", func(_ context.Context, ctx *app.RequestContext) {
			ctx.JSON(200, utils.H{"got": string(ctx.Request.Body()), "protocol": ctx.Request.Header.GetProtocol()})
		})
		// --dump-dom waits for the page to have loaded, which is when this is answered.
		h.GET("/hold", func(c context.Context, ctx *app.RequestContext) {
			select {
			case <-done:
			case <-c.Done():
			}
			ctx.SetStatusCode(204)
		})
		h.GET("/done", func(_ context.Context, ctx *app.RequestContext) { done <- struct{}{} })
	}, NewTransporter, server.WithTLS(&tls.Config{Certificates: []tls.Certificate{cert}}))
	_, port, _ := net.SplitHostPort(s.addr)
	spki := sha256.Sum256(leaf.RawSubjectPublicKeyInfo)
	stdout, stderr, err := output(t, chromium, "--headless=new", "--no-sandbox", "--disable-gpu", "--user-data-dir="+t.TempDir(),
		"--enable-quic", "--origin-to-force-quic-on=localhost:"+port,
		"--ignore-certificate-errors-spki-list="+base64.StdEncoding.EncodeToString(spki[:]),
		"--host-resolver-rules=MAP localhost 127.0.0.1",
		"--dump-dom", fmt.Sprintf("https://localhost:%s/", port))
	if err != nil {
		t.Fatalf("%v\n%s\n%s", err, stdout, stderr)
	}
	if want := "page=h3 fetch=h3 data=from the page over HTTP/3.0"; !strings.Contains(stdout, want) {
		t.Errorf("the page has no %q:\n%s\n%s", want, stdout, stderr)
	}
}

func leafOf(cert tls.Certificate) (*x509.Certificate, error) {
	if cert.Leaf != nil {
		return cert.Leaf, nil
	}
	return x509.ParseCertificate(cert.Certificate[0])
}
