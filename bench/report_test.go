//go:build linux && (amd64 || arm64)

package main

import (
	"encoding/xml"
	"io"
	"strings"
	"testing"
	"time"
)

func TestSpread(t *testing.T) {
	for _, c := range []struct {
		values []float64
		want   spread
	}{
		{[]float64{7}, spread{7, 7, 7}},
		{[]float64{3, 1, 2}, spread{2, 1, 3}},
		{[]float64{4, 1, 10, 2}, spread{3, 1, 10}},
	} {
		r := result{}
		for _, v := range c.values {
			r.samples = append(r.samples, sample{rate: v})
		}
		if got, ok := r.spread(rate); !ok || got != c.want {
			t.Errorf("spread of %v: %v, %v, want %v", c.values, got, ok, c.want)
		}
		if got, ok := r.spread(p50); ok {
			t.Errorf("spread of what was not measured: %v", got)
		}
	}
}

// fixture has two peers in two workloads, one of which one peer cannot do.
func fixture() []result {
	plain, secure := workload{name: "plain", title: "a title", kind: kindHTTP}, workload{name: "secure", title: "another", kind: kindIdle, conns: 5}
	a, b := peer{name: "hertznet", title: "the baseline", kinds: []string{kindHTTP}}, peer{name: "netpoll", title: "the peer", kinds: []string{kindHTTP}}
	two := func(v float64) sample {
		return sample{rate: 1000 * v, cpu: 3 * v, user: v, system: 2 * v, p50: 10 * v, p99: 20 * v, p999: 30 * v, resident: 4 * v, loadCPU: v}
	}
	return []result{
		{plain, a, []sample{two(1), two(3), two(2)}},
		{plain, b, []sample{two(4), two(4), two(4)}},
		{secure, a, []sample{{each: 1000, resident: 5, goroutines: 3, firstP50: 1, firstP99: 2}}},
		{secure, b, nil},
	}
}

func TestMarkdown(t *testing.T) {
	var b strings.Builder
	c := conditions{date: time.Unix(0, 0).UTC(), command: "go run ./bench -d=1s", machine: "a machine", versions: []string{"go1"}, rounds: 3,
		settings: settings{d: time.Second, wait: 2 * time.Second}}
	if err := markdown(&b, c, fixture(), "chart.svg"); err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{
		"`go run ./bench -d=1s`", "1970-01-01 00:00 UTC", "a machine", "go1", "Rounds: 3.", "![chart](chart.svg)", `
| peer     | workloads | what it is   |
|----------|-----------|--------------|
| hertznet | http      | the baseline |
| netpoll  | http      | the peer     |
`, `
## plain: a title

| peer     |       requests/s |    × |   CPU µs/request |    × |          user µs |        system µs |           p50 µs |           p99 µs |         p99.9 µs |     resident MiB |    load's CPU µs |
|----------|-----------------:|-----:|-----------------:|-----:|-----------------:|-----------------:|-----------------:|-----------------:|-----------------:|-----------------:|-----------------:|
| hertznet | 2000 (1000–3000) | 1.00 | 6.00 (3.00–9.00) | 1.00 | 2.00 (1.00–3.00) | 4.00 (2.00–6.00) | 20.0 (10.0–30.0) | 40.0 (20.0–60.0) | 60.0 (30.0–90.0) | 8.00 (4.00–12.0) | 2.00 (1.00–3.00) |
| netpoll  | 4000 (4000–4000) | 2.00 | 12.0 (12.0–12.0) | 2.00 |`, `
## secure: 5 another, after 2s

| peer     | bytes/connection |    × | resident MiB | goroutines | first answer p50 µs | first answer p99 µs |
|----------|-----------------:|-----:|-------------:|-----------:|--------------------:|--------------------:|
| hertznet |             1000 | 1.00 |         5.00 |       3.00 |                1.00 |                2.00 |
| netpoll  |                – |    – |            – |          – |                   – |                   – |
`,
	} {
		if !strings.Contains(b.String(), want) {
			t.Errorf("no %q in\n%s", want, b.String())
		}
	}
}

func TestCSV(t *testing.T) {
	var b strings.Builder
	if err := writeCSV(&b, fixture()); err != nil {
		t.Fatal(err)
	}
	lines := strings.Split(strings.TrimSpace(b.String()), "\n")
	if len(lines) != 1+2*9+5 || lines[1] != "plain,hertznet,rate,1/s,2000,1000,3000,1000 3000 2000" {
		t.Errorf("%d lines:\n%s", len(lines), b.String())
	}
}

// The charts are well-formed, and have a mark for each figure.
func TestCharts(t *testing.T) {
	for name, c := range map[string]struct {
		write func(io.Writer) error
		mark  string
		count int
	}{
		"ratios": {func(w io.Writer) error { return writeChart(w, fixture()) }, "<title>netpoll, plain: 2.00</title>", 2},
		"lines": {func(w io.Writer) error {
			return writeLines(w, "memory", fixture(), resident, func(n int) float64 { return float64(n) }, []int{0, 10})
		}, "<polyline", 3},
	} {
		var b strings.Builder
		if err := c.write(&b); err != nil {
			t.Fatal(err)
		}
		if n := strings.Count(b.String(), c.mark); n != c.count {
			t.Errorf("%s: %d times %q, want %d", name, n, c.mark, c.count)
		}
		for d := xml.NewDecoder(strings.NewReader(b.String())); ; {
			if _, err := d.Token(); err == io.EOF {
				break
			} else if err != nil {
				t.Fatalf("%s: %v", name, err)
			}
		}
	}
}
