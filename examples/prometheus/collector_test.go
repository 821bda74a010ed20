package main

import (
	"os"
	"reflect"
	"regexp"
	"strings"
	"testing"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/testutil"

	"github.com/hertznet/hertznet/standard"
)

// numbered returns Stats whose fields are 1, 2, 3 and so on, in their order.
func numbered() (s standard.Stats) {
	v := reflect.ValueOf(&s).Elem()
	for i := range v.NumField() {
		if f := v.Field(i); f.CanUint() {
			f.SetUint(uint64(i + 1))
		} else {
			f.SetInt(int64(i + 1))
		}
	}
	return s
}

// Names, help texts and types are as Prometheus wants them.
func TestLint(t *testing.T) {
	problems, err := testutil.CollectAndLint(collector{numbered})
	if err != nil {
		t.Fatal(err)
	}
	for _, p := range problems {
		t.Errorf("%s: %s", p.Metric, p.Text)
	}
}

// Each field is exported once: a new one must not be forgotten.
func TestEveryFieldIsExported(t *testing.T) {
	registry := prometheus.NewPedanticRegistry()
	registry.MustRegister(collector{numbered})
	families, err := registry.Gather()
	if err != nil {
		t.Fatal(err)
	}
	series := make(map[int][]string)
	for _, family := range families {
		for _, m := range family.Metric {
			n := int(m.GetCounter().GetValue() + m.GetGauge().GetValue())
			series[n] = append(series[n], family.GetName())
		}
	}
	fields := reflect.TypeFor[standard.Stats]()
	for i := range fields.NumField() {
		if got := series[i+1]; len(got) != 1 {
			t.Errorf("field %s is exported as %q, want one series", fields.Field(i).Name, got)
		}
	}
}

// docs/OPERATIONS.md has a row for each field, and its metric.
func TestEveryFieldIsDocumented(t *testing.T) {
	text, err := os.ReadFile("../../docs/OPERATIONS.md")
	if err != nil {
		t.Fatal(err)
	}
	var names, metrics strings.Builder // the first two columns
	for line := range strings.Lines(string(text)) {
		if cells := strings.Split(line, "|"); len(cells) > 3 {
			names.WriteString(cells[1] + ",")
			metrics.WriteString(cells[2] + ",")
		}
	}
	has := func(b *strings.Builder, word string) bool {
		return regexp.MustCompile(`\b` + word + `\b`).MatchString(b.String())
	}
	fields := reflect.TypeFor[standard.Stats]()
	for i := range fields.NumField() {
		if name := fields.Field(i).Name; !has(&names, name) {
			t.Errorf("no row for the field %s", name)
		}
	}
	registry := prometheus.NewPedanticRegistry()
	registry.MustRegister(collector{numbered})
	families, err := registry.Gather()
	if err != nil {
		t.Fatal(err)
	}
	for _, family := range families {
		if name := strings.TrimPrefix(family.GetName(), "hertznet_"); !has(&metrics, name) {
			t.Errorf("no row for the metric %s", name)
		}
	}
}

// The names and labels are what dashboards and alerts depend on.
func TestNames(t *testing.T) {
	s := standard.Stats{
		Accepted: 1, AcceptErrors: 2, Rejected: 3,
		New: 4, Handshaking: 5, Active: 6, Idle: 7, Parked: 8, Hijacked: 9,
		ClosedByPeer: 10, ClosedByHandler: 11, ClosedByServer: 12, ClosedIdle: 13, ClosedSlow: 14, ClosedByError: 15,
		Parks: 16, Resumes: 17, Handshakes: 18, HandshakeErrors: 19, Panics: 20,
		BytesRead: 21, BytesWritten: 22, Flushes: 23, WritesSaved: 24, PoolBytes: 25,
		TooSlow: 26, Overflows: 27,
	}
	scrapes := 0
	c := collector{func() standard.Stats {
		scrapes++
		return s
	}}
	registry := prometheus.NewPedanticRegistry()
	registry.MustRegister(c)
	scrapes = 0 // registering has asked which metrics there are
	const want = `
# HELP hertznet_accept_errors_total Errors of accept after which accepting went on.
# TYPE hertznet_accept_errors_total counter
hertznet_accept_errors_total 2
# HELP hertznet_buffer_bytes Memory of hertznet's buffers in this process, in use or pooled.
# TYPE hertznet_buffer_bytes gauge
hertznet_buffer_bytes 25
# HELP hertznet_connections Open connections, by state.
# TYPE hertznet_connections gauge
hertznet_connections{state="active"} 6
hertznet_connections{state="handshaking"} 5
hertznet_connections{state="hijacked"} 9
hertznet_connections{state="idle"} 7
hertznet_connections{state="new"} 4
hertznet_connections{state="parked"} 8
# HELP hertznet_connections_accepted_total Connections accepted, those that were rejected included.
# TYPE hertznet_connections_accepted_total counter
hertznet_connections_accepted_total 1
# HELP hertznet_connections_closed_total Connections that have ended, by what ended them.
# TYPE hertznet_connections_closed_total counter
hertznet_connections_closed_total{reason="error"} 15
hertznet_connections_closed_total{reason="handler"} 11
hertznet_connections_closed_total{reason="idle"} 13
hertznet_connections_closed_total{reason="peer"} 10
hertznet_connections_closed_total{reason="server"} 12
hertznet_connections_closed_total{reason="slow"} 14
# HELP hertznet_connections_rejected_total Connections closed at once because of a limit.
# TYPE hertznet_connections_rejected_total counter
hertznet_connections_rejected_total 3
# HELP hertznet_flushes_total Flushes that had something to send.
# TYPE hertznet_flushes_total counter
hertznet_flushes_total 23
# HELP hertznet_panics_total Panics recovered from hooks and handlers.
# TYPE hertznet_panics_total counter
hertznet_panics_total 20
# HELP hertznet_parks_total Times that an idle connection gave up its goroutine.
# TYPE hertznet_parks_total counter
hertznet_parks_total 16
# HELP hertznet_read_bytes_total Bytes read from connections; with TLS, after decryption.
# TYPE hertznet_read_bytes_total counter
hertznet_read_bytes_total 21
# HELP hertznet_reads_overflowed_total Reads that MaxReadBuffer ended.
# TYPE hertznet_reads_overflowed_total counter
hertznet_reads_overflowed_total 27
# HELP hertznet_reads_too_slow_total Reads that MinReadRate ended.
# TYPE hertznet_reads_too_slow_total counter
hertznet_reads_too_slow_total 26
# HELP hertznet_resumes_total Times that a parked connection got a goroutine again.
# TYPE hertznet_resumes_total counter
hertznet_resumes_total 17
# HELP hertznet_tls_handshake_errors_total TLS handshakes that failed.
# TYPE hertznet_tls_handshake_errors_total counter
hertznet_tls_handshake_errors_total 19
# HELP hertznet_tls_handshakes_total TLS handshakes that were completed.
# TYPE hertznet_tls_handshakes_total counter
hertznet_tls_handshakes_total 18
# HELP hertznet_writes_saved_total Writes saved by sending the pieces of a flush together.
# TYPE hertznet_writes_saved_total counter
hertznet_writes_saved_total 24
# HELP hertznet_written_bytes_total Bytes written to connections; with TLS, before encryption.
# TYPE hertznet_written_bytes_total counter
hertznet_written_bytes_total 22
`
	if err := testutil.GatherAndCompare(registry, strings.NewReader(want)); err != nil {
		t.Error(err)
	}
	if scrapes != 1 {
		t.Errorf("a scrape took %d snapshots, want 1", scrapes)
	}
}

// Two Transporters in one process are told apart by a label.
func TestTwoTransporters(t *testing.T) {
	registry := prometheus.NewPedanticRegistry()
	for _, name := range []string{"public", "internal"} {
		labels := prometheus.Labels{"listener": name}
		if err := prometheus.WrapRegistererWith(labels, registry).Register(collector{new(standard.Transporter).Stats}); err != nil {
			t.Fatal(err)
		}
	}
	n, err := testutil.GatherAndCount(registry, "hertznet_connections_accepted_total")
	if err != nil || n != 2 {
		t.Errorf("%d series, %v; want 2, nil", n, err)
	}
	if err := registry.Register(collector{new(standard.Transporter).Stats}); err == nil {
		t.Error("one without the label was registered beside them")
	}
}
