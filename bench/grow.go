//go:build linux && (amd64 || arm64)

package main

import (
	"fmt"
	"html"
	"io"
	"math"
	"slices"
	"strings"
)

// growth returns the workloads of -grow.
func growth() (all []workload) {
	for _, n := range []int{1, 10, 100, 1000, 2500, 5000, 10_000} {
		all = append(all, workload{name: fmt.Sprintf("grow-busy-%d", n), title: fmt.Sprintf("GET small, %d connections", n),
			kind: kindHTTP, path: "/body", conns: n, size: small})
	}
	for _, n := range []int{0, 2500, 5000, 7500, 10_000} {
		all = append(all, workload{name: fmt.Sprintf("grow-idle-%d", n), title: "idle connections after one request each",
			kind: kindIdle, path: "/body", conns: n, size: small})
	}
	return all
}

// writeGrowth prints the tables, and writes them to the folder with the CSV and two charts.
func writeGrowth(stdout io.Writer, folder string, c conditions, results []result) error {
	tables := func(w io.Writer) error {
		return markdown(w, c, results, "cost.svg", "memory.svg")
	}
	if folder == "" {
		return markdown(stdout, c, results)
	}
	if err := tables(stdout); err != nil {
		return err
	}
	return writeFiles(folder, map[string]func(io.Writer) error{
		"growth.md":  tables,
		"growth.csv": func(w io.Writer) error { return writeCSV(w, results) },
		"cost.svg": func(w io.Writer) error {
			return writeLines(w, "CPU per request (µs) by busy connections", results, cpu, func(n int) float64 { return math.Log10(float64(max(1, n))) }, []int{1, 10, 100, 1000, 10_000})
		},
		"memory.svg": func(w io.Writer) error {
			return writeLines(w, "resident memory (MiB) by connections: busy, and idle (dashed)", results, resident, func(n int) float64 { return float64(n) }, []int{0, 2500, 5000, 7500, 10_000})
		},
	})
}

// writeLines draws a metric by the number of connections: a line for each peer and kind.
func writeLines(out io.Writer, title string, results []result, m metric, scale func(int) float64, ticks []int) error {
	const left, top, w, h = 70, 70, 660, 340
	var names []string
	highest := 0.0
	for _, r := range results {
		if s, ok := r.spread(m); ok {
			highest = max(highest, s.median)
			if !slices.Contains(names, r.peer.name) {
				names = append(names, r.peer.name)
			}
		}
	}
	step := niceStep(highest)
	most := max(step, math.Ceil(highest/step)*step)
	low, high := scale(ticks[0]), scale(ticks[len(ticks)-1])
	x := func(n int) float64 { return left + (scale(n)-low)/(high-low)*w }
	y := func(v float64) float64 { return top + h - v/most*h }
	var b strings.Builder
	begin(&b, left+w+50, top+h+50, title)
	legend(&b, names)
	text(&b, left+w/2, top-16, "middle", title)
	for v := 0.0; v <= most; v += step {
		line(&b, left, y(v), left+w, y(v), "#ddd", 1)
		text(&b, left-8, int(y(v))+4, "end", fmt.Sprintf("%g", v))
	}
	for _, n := range ticks {
		text(&b, int(x(n)), top+h+20, "middle", fmt.Sprint(n))
	}
	text(&b, left+w/2, top+h+40, "middle", "connections")
	for _, name := range names {
		for _, kind := range []string{kindHTTP, kindIdle} {
			style := ""
			if kind == kindIdle {
				style = ` stroke-dasharray="5 4"`
			}
			var points []string
			for _, r := range results {
				if s, ok := r.spread(m); ok && r.peer.name == name && r.workload.kind == kind {
					points = append(points, fmt.Sprintf("%.1f,%.1f", x(r.workload.conns), y(s.median)))
				}
			}
			if len(points) > 0 {
				fmt.Fprintf(&b, `<polyline points="%s" fill="none" stroke="%s" stroke-width="2"%s><title>%s, %s</title></polyline>`+"\n",
					strings.Join(points, " "), colorOf(name), style, html.EscapeString(name), kind)
			}
		}
	}
	b.WriteString("</svg>\n")
	_, err := io.WriteString(out, b.String())
	return err
}

// niceStep is 1, 2 or 5 times a power of ten, so that about five fit below v.
func niceStep(v float64) float64 {
	if v <= 0 {
		return 1
	}
	power := math.Pow(10, math.Floor(math.Log10(v/5)))
	for _, k := range []float64{1, 2, 5} {
		if v/5 <= k*power {
			return k * power
		}
	}
	return 10 * power
}
