package main

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"html"
	"io"
	"math"
	"net"
	"net/http"
	"net/http/httptest"
	"net/http/httputil"
	"net/url"
	"os"
	"os/exec"
	"regexp"
	"runtime"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/cloudwego/hertz/pkg/common/hlog"
)

func TestMain(m *testing.M) {
	hlog.SetLevel(hlog.LevelWarn)
	os.Exit(m.Run())
}

func startSite(t *testing.T) *site {
	t.Helper()
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	s, err := start(ln)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := s.stop(); err != nil {
			t.Errorf("stop: %v", err)
		}
	})
	return s
}

func get(t *testing.T, method, url string) (status int, body string) {
	t.Helper()
	req, err := http.NewRequest(method, url, nil)
	if err != nil {
		t.Fatal(err)
	}
	resp, err := (&http.Client{Timeout: 10 * time.Second}).Do(req)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	b, err := io.ReadAll(resp.Body)
	if err != nil {
		t.Fatal(err)
	}
	return resp.StatusCode, string(b)
}

// What the program does without flags.
func TestFiguresMove(t *testing.T) {
	var out bytes.Buffer
	if err := run(context.Background(), &out, ""); err != nil {
		t.Fatalf("%v\n%s", err, &out)
	}
	for _, f := range figures {
		if !strings.Contains(out.String(), "\n"+f.name+" ") {
			t.Errorf("%q is not in what was printed:\n%s", f.name, &out)
		}
	}
}

func TestOneBoundedLoadAtATime(t *testing.T) {
	s := startSite(t)
	for _, d := range []string{"11s", "0s", "-1s", "soon"} {
		if status, body := get(t, http.MethodPost, s.url()+"/load?for="+d); status != http.StatusBadRequest {
			t.Errorf("a load for %s: status %d, want 400: %s", d, status, body)
		}
	}
	if status, body := get(t, http.MethodPost, s.url()+"/load?for=10s"); status != http.StatusAccepted {
		t.Fatalf("first load: status %d, want 202: %s", status, body)
	}
	if status, body := get(t, http.MethodPost, s.url()+"/load?for=1s"); status != http.StatusConflict {
		t.Errorf("second load: status %d, want 409: %s", status, body)
	}
	for deadline := time.Now().Add(5 * time.Second); s.load.stats().Answered == 0; time.Sleep(time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatal("the load gets no answers")
		}
	}
	// What ends it is the server, not its 10 s.
	begin := time.Now()
	s.cancel()
	s.load.wait()
	if took := time.Since(begin); took > 5*time.Second {
		t.Errorf("the load ended %v after the server did", took)
	}
	if s.load.start(time.Second) {
		t.Error("a load was started after the end of the server")
	}
}

func TestPageTellsWhatTheLoadIs(t *testing.T) {
	page, err := files.ReadFile("page.html")
	if err != nil {
		t.Fatal(err)
	}
	want := fmt.Sprintf("Opens %d connections", busy+returning+leaving+trickling+stalled)
	if !strings.Contains(string(page), want) {
		t.Errorf("the page does not say %q", want)
	}
}

func TestEventsIntervalIsBounded(t *testing.T) {
	s := startSite(t)
	for _, every := range []string{"1ms", "1h", "-1s", "often"} {
		if status, body := get(t, http.MethodGet, s.url()+"/events?every="+every); status != http.StatusBadRequest {
			t.Errorf("every=%s: status %d, want 400: %s", every, status, body)
		}
	}
}

// Nobody waits for the next event of a client that has gone.
func TestEventsEndWithTheClient(t *testing.T) {
	if runtime.GOOS != "linux" {
		t.Skip("CancelOnDisconnect works on Linux")
	}
	s := startSite(t)
	conn, err := net.Dial("tcp", s.host())
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	if _, err := io.WriteString(conn, "GET /events?every=10s HTTP/1.1\r\nHost: localhost\r\n\r\n"); err != nil {
		t.Fatal(err)
	}
	if _, err := conn.Read(make([]byte, 1)); err != nil {
		t.Fatal(err)
	}
	if n := s.sample().Servers[0].Active; n != 1 {
		t.Fatalf("%d connections are active, want 1", n)
	}
	conn.Close()
	for deadline := time.Now().Add(5 * time.Second); s.sample().Servers[0].Active > 0; time.Sleep(time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatal("the handler runs on after its client has gone")
		}
	}
}

// browser returns the command of a Chromium.
func browser(t *testing.T) string {
	t.Helper()
	names := []string{"chromium", "chromium-browser", "google-chrome"}
	for _, name := range names {
		if path, err := exec.LookPath(name); err == nil {
			return path
		}
	}
	if os.Getenv("HERTZNET_BROWSER") != "" {
		t.Fatalf("HERTZNET_BROWSER is set, and none of %q is installed", names)
	}
	t.Skipf("none of %q is installed", names)
	return ""
}

// recorder is a proxy between browser and site that keeps the bytes of /events. Into the
// page it puts an image that is answered only when the page says that it has stopped:
// until then it has not loaded, and --dump-dom waits.
type recorder struct {
	mu      sync.Mutex
	events  bytes.Buffer
	stopped chan struct{}
}

func (r *recorder) Write(p []byte) (int, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.events.Write(p)
}

func (r *recorder) samples(t *testing.T) (samples []*sample) {
	t.Helper()
	r.mu.Lock()
	defer r.mu.Unlock()
	for event := range strings.SplitSeq(r.events.String(), "\n\n") {
		_, data, ok := strings.Cut(event, "\ndata: ")
		if !ok {
			continue
		}
		s := new(sample)
		if err := json.Unmarshal([]byte(data), s); err != nil {
			t.Fatalf("event %q: %v", event, err)
		}
		samples = append(samples, s)
	}
	return samples
}

// injected presses the button, and tells when the page has stopped.
const injected = `<img src="/hold" alt=""><script src="/injected.js" defer></script></body>`
const injectedJS = `document.getElementById("start").click();
new MutationObserver(() => {
  if (live.textContent.startsWith("Stopped")) fetch("/stopped");
}).observe(live, { childList: true });`

func (r *recorder) proxy(t *testing.T, site string) *httptest.Server {
	t.Helper()
	target, err := url.Parse(site)
	if err != nil {
		t.Fatal(err)
	}
	proxy := httputil.NewSingleHostReverseProxy(target)
	proxy.ErrorLog = nil
	proxy.ModifyResponse = func(resp *http.Response) error {
		switch resp.Request.URL.Path {
		case "/events":
			body := resp.Body
			resp.Body = struct {
				io.Reader
				io.Closer
			}{io.TeeReader(body, r), body}
		case "/":
			b, err := io.ReadAll(resp.Body)
			if err != nil {
				return err
			}
			b = bytes.Replace(b, []byte("</body>"), []byte(injected), 1)
			resp.Body = io.NopCloser(bytes.NewReader(b))
			resp.ContentLength = int64(len(b))
			resp.Header.Set("Content-Length", strconv.Itoa(len(b)))
			resp.Header.Set("Content-Security-Policy", "default-src 'self'")
		}
		return nil
	}
	mux := http.NewServeMux()
	mux.Handle("/", proxy)
	mux.HandleFunc("/injected.js", func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Type", "text/javascript")
		_, _ = io.WriteString(w, injectedJS)
	})
	var once sync.Once
	mux.HandleFunc("/stopped", func(http.ResponseWriter, *http.Request) { once.Do(func() { close(r.stopped) }) })
	mux.HandleFunc("/hold", func(w http.ResponseWriter, req *http.Request) {
		select {
		case <-r.stopped:
		case <-req.Context().Done():
		}
		w.WriteHeader(http.StatusNotFound)
	})
	server := httptest.NewServer(mux)
	t.Cleanup(server.Close)
	return server
}

// dataElement is a figure of the page.
var dataElement = regexp.MustCompile(`<data id="(\w+)"[^>]* value="([^"]*)"[^>]*>([^<]*)</data>`)

// The figures in the page are those that came by the events, after the button was
// pressed. What is expected is computed here from the bytes that the browser was sent.
func TestPageShowsTheEvents(t *testing.T) {
	path := browser(t)
	s := startSite(t)
	r := &recorder{stopped: make(chan struct{})}
	proxy := r.proxy(t, s.url())

	profile, err := os.MkdirTemp("", "dashboard")
	if err != nil {
		t.Fatal(err)
	}
	defer os.RemoveAll(profile) // not t.TempDir: helpers of the browser may outlive it and still write
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	const events = 6
	cmd := exec.CommandContext(ctx, path, "--headless", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage",
		"--user-data-dir="+profile, "--dump-dom", fmt.Sprintf("%s/?events=%d", proxy.URL, events))
	cmd.WaitDelay = 5 * time.Second
	var stderr bytes.Buffer
	cmd.Stderr = &stderr
	out, err := cmd.Output()
	if err != nil {
		t.Fatalf("%s: %v\n%s\n%s", path, err, &stderr, out)
	}
	dom := string(out)

	samples := r.samples(t)
	if len(samples) < events {
		t.Fatalf("%d events came, want %d or more; the page:\n%s", len(samples), events, dom)
	}
	before, last := samples[events-2], samples[events-1]
	want := wanted(t, before, last)
	if want["Answered"] == 0 || want["BytesWritten"] == 0 {
		t.Errorf("the button has started no load: %+v", last)
	}
	delete(want, "Answered")
	seen := make(map[string]bool)
	for _, m := range dataElement.FindAllStringSubmatch(dom, -1) {
		name, value, text := m[1], m[2], html.UnescapeString(m[3])
		seen[name] = true
		expected, ok := want[name]
		switch got, err := strconv.ParseFloat(value, 64); {
		case !ok:
			t.Errorf("the page has a figure %s that no event has", name)
		case err != nil || got != expected:
			t.Errorf("%s is %q in the page, %v by the events", name, value, expected)
		case !strings.ContainsAny(text, "0123456789"):
			t.Errorf("%s is shown as %q", name, text)
		}
	}
	for _, name := range []string{"Requests", "RequestRate", "ReadRate", "WriteRate", "Open", "New", "Handshaking", "Active", "Idle",
		"Parked", "Hijacked", "ClosedByPeer", "ClosedByHandler", "ClosedByServer", "ClosedIdle", "ClosedSlow", "ClosedByError",
		"Handshakes", "Parks", "Resumes", "PoolBytes", "Goroutines", "Heap"} {
		if !seen[name] {
			t.Errorf("the page does not show %s", name)
		}
	}
	// A line has a point for each event.
	line := regexp.MustCompile(`<path class="RequestRate" d="M([^"]*)"`).FindStringSubmatch(dom)
	if line == nil || len(strings.Fields(line[1])) != events {
		t.Errorf("the line of the requests is %q, want %d points", line, events)
	}
	if !strings.Contains(dom, fmt.Sprintf("Stopped after %d events", events)) || !strings.Contains(dom, "The load is running.") {
		t.Errorf("the page does not say what it does:\n%s", dom)
	}
}

// wanted returns the figures of the last sample by name.
func wanted(t *testing.T, before, last *sample) map[string]float64 {
	t.Helper()
	totals := func(s *sample) map[string]float64 {
		sum := map[string]float64{"Requests": float64(s.Requests), "Goroutines": float64(s.Goroutines), "Heap": float64(s.Heap)}
		for _, stats := range s.Servers {
			b, err := json.Marshal(stats)
			if err != nil {
				t.Fatal(err)
			}
			var fields map[string]float64
			if err := json.Unmarshal(b, &fields); err != nil {
				t.Fatal(err)
			}
			for name, n := range fields {
				sum[name] += n
			}
			sum["Open"] += float64(stats.Open())
		}
		sum["PoolBytes"] = float64(s.Servers[0].PoolBytes)
		return sum
	}
	first, want := totals(before), totals(last)
	for rate, name := range map[string]string{"RequestRate": "Requests", "ReadRate": "BytesRead", "WriteRate": "BytesWritten"} {
		want[rate] = math.Floor((want[name]-first[name])*1000/float64(last.At-before.At) + 0.5)
	}
	want["Answered"] = float64(last.Load.Answered)
	return want
}
