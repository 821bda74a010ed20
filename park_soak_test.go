package hertznet_test

import (
	"bufio"
	"bytes"
	"context"
	"crypto/tls"
	"fmt"
	"hash/crc32"
	"io"
	"math/rand/v2"
	"net"
	"net/http"
	"os"
	"runtime"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/cloudwego/hertz/pkg/app"
	"github.com/cloudwego/hertz/pkg/app/server"
)

// A thousand parked connections are asked at once, and again.
func TestThousandResumesAtOnce(t *testing.T) {
	s := runPark(t, tcpMode, parkSoon, func(h *server.Hertz) { h.POST("/", echoBody) })
	n := 1000
	if testing.Short() {
		n = 100
	}
	conns := make([]*rawConn, n)
	for i := range conns {
		conns[i] = s.raw(t)
		conns[i].post("/", "first")
	}
	for round := range 3 {
		s.waitParked(t, n)
		for i, c := range conns {
			c.send(fmt.Sprintf("POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 8\r\n\r\n%d %06d", round, i))
		}
		for i, c := range conns {
			if _, got := c.answer("POST"); got != fmt.Sprintf("%d %06d", round, i) {
				t.Fatalf("connection %d got %q", i, got)
			}
		}
	}
}

// Random gaps around ParkAfter, on hundreds of connections, in every way that a request
// can be cut: each is served once, and each answer is its own.
func TestParkSoak(t *testing.T) {
	total, conns := 50_000, 300
	switch {
	case os.Getenv("HERTZNET_LONG") == "1":
		total = 1_000_000
	case testing.Short():
		total, conns = 3_000, 90
	}
	const after = time.Millisecond
	modes := []mode{tcpMode, unixMode, tlsMode}
	var served sync.Map // of numbers of requests
	var twice, asked atomic.Int64
	handler := func(_ context.Context, ctx *app.RequestContext) {
		n := string(ctx.GetHeader("N"))
		if _, was := served.LoadOrStore(n, nil); was {
			twice.Add(1)
		}
		body := ctx.Request.Body()
		ctx.Header("N", n)
		ctx.Header("Sum", fmt.Sprint(crc32.ChecksumIEEE(body)))
		ctx.Response.SetBody(append([]byte(nil), body...))
	}
	sites := make([]*parkSite, len(modes))
	for i, m := range modes {
		sites[i] = runPark(t, m, after, func(h *server.Hertz) { h.POST("/", handler) })
	}
	var wg sync.WaitGroup
	for i := range conns {
		s := sites[i%len(sites)]
		wg.Go(func() {
			r := rand.New(rand.NewPCG(uint64(i), 5))
			if err := soak(s.site, r, i, total/conns, &asked); err != nil {
				t.Errorf("connection %d (%s): %v", i, s.name, err)
			}
		})
	}
	wg.Wait()
	n := int64(0)
	served.Range(func(any, any) bool { n++; return true })
	parked := 0
	for _, s := range sites {
		s.waitGone(t)
		parked += s.everParked()
	}
	t.Logf("%d requests, %d served, parked %d times", asked.Load(), n, parked)
	if n != asked.Load() || twice.Load() != 0 {
		t.Errorf("%d of %d requests were served, %d of them twice", n, asked.Load(), twice.Load())
	}
	if runtime.GOOS == "linux" && parked < total/20 {
		t.Errorf("parked only %d times", parked)
	}
}

// soak sends n requests over one connection, and now and then over a new one.
func soak(s *site, r *rand.Rand, client, n int, asked *atomic.Int64) error {
	gap := func() { time.Sleep(time.Duration(r.IntN(3000)) * time.Microsecond) }
	var c *rawConn
	defer func() {
		if c != nil {
			c.Close()
		}
	}()
	for i := 0; i < n; {
		if c == nil || r.IntN(300) == 0 {
			if c != nil {
				c.Close()
			}
			nc, err := net.Dial(s.addr.Network(), s.addr.String())
			if err != nil {
				return err
			}
			if s.tls {
				nc = tls.Client(nc, s.clientTLS())
			}
			c = &rawConn{Conn: nc, r: bufio.NewReader(nc)}
		}
		// One request, or a few that are sent together.
		var out []byte
		bodies := make([][]byte, 1+max(0, r.IntN(8)-5))
		for k := range bodies {
			size := r.IntN(100)
			if r.IntN(20) == 0 {
				size = r.IntN(20_000)
			}
			bodies[k] = pattern(size, r.IntN(1<<16))
			out = fmt.Appendf(out, "POST / HTTP/1.1\r\nHost: x\r\nN: %d.%d\r\nContent-Length: %d\r\n\r\n", client, i+k, size)
			out = append(out, bodies[k]...)
		}
		_ = c.SetDeadline(time.Now().Add(guard))
		for pieces := 1 + max(0, r.IntN(6)-3); len(out) > 0; pieces-- {
			cut := len(out)
			if pieces > 1 {
				cut = 1 + r.IntN(min(len(out), 40))
			}
			if _, err := c.Conn.Write(out[:cut]); err != nil {
				return fmt.Errorf("request %d: %w", i, err)
			}
			if out = out[cut:]; len(out) > 0 {
				gap()
			}
		}
		asked.Add(int64(len(bodies)))
		for k, body := range bodies {
			resp, err := http.ReadResponse(c.r, nil)
			if err != nil {
				return fmt.Errorf("answer %d: %w", i+k, err)
			}
			got, err := io.ReadAll(resp.Body)
			if err != nil {
				return fmt.Errorf("answer %d: %w", i+k, err)
			}
			if num := fmt.Sprintf("%d.%d", client, i+k); resp.Header.Get("N") != num ||
				resp.Header.Get("Sum") != fmt.Sprint(crc32.ChecksumIEEE(body)) || !bytes.Equal(got, body) {
				return fmt.Errorf("answer %q to request %s, %d bytes to %d", resp.Header.Get("N"), num, len(got), len(body))
			}
		}
		i += len(bodies)
		gap()
	}
	return nil
}
