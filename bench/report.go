//go:build linux && (amd64 || arm64)

package main

import (
	"encoding/csv"
	"fmt"
	"io"
	"os"
	"regexp"
	"runtime"
	"runtime/debug"
	"slices"
	"strconv"
	"strings"
	"time"
	"unicode/utf8"
)

// conditions are what a reader needs to repeat the run.
type conditions struct {
	date     time.Time
	command  string
	machine  string
	versions []string
	settings settings
	rounds   int
}

// here returns the conditions of this process. They name neither host nor path.
func here(args []string) conditions {
	model, kernel := "unknown processor", "unknown kernel"
	if text, err := os.ReadFile("/proc/cpuinfo"); err == nil {
		if m := regexp.MustCompile(`(?m)^model name\s*:\s*(.+)$`).FindSubmatch(text); m != nil {
			model = string(m[1])
		}
	}
	if text, err := os.ReadFile("/proc/sys/kernel/osrelease"); err == nil {
		kernel, _, _ = strings.Cut(strings.TrimSpace(string(text)), "-")
	}
	c := conditions{
		date:     time.Now().UTC(),
		command:  strings.Join(append([]string{"go run ./bench"}, args...), " "),
		machine:  fmt.Sprintf("%s, %d cores, GOMAXPROCS %d in each process, Linux %s, %s", model, runtime.NumCPU(), runtime.GOMAXPROCS(0), kernel, runtime.GOARCH),
		versions: []string{runtime.Version()},
	}
	if info, ok := debug.ReadBuildInfo(); ok {
		for _, d := range info.Deps {
			switch d.Path {
			case "github.com/hertznet/hertznet", "github.com/cloudwego/hertz", "github.com/cloudwego/netpoll", "github.com/valyala/fasthttp":
				version := d.Version
				if d.Replace != nil || version == "" || version == "v0.0.0" || version == "(devel)" {
					version = "(this source)"
				}
				c.versions = append(c.versions, strings.TrimPrefix(d.Path, "github.com/")+" "+version)
			}
		}
	}
	return c
}

// markdown writes a table for each workload.
func markdown(out io.Writer, c conditions, results []result, charts ...string) error {
	var b strings.Builder
	fmt.Fprintf(&b, "# hertznet beside its peers\n\n")
	fmt.Fprintf(&b, "- Command: `%s`\n- Date: %s\n- Machine: %s\n- Versions: %s\n", c.command, c.date.Format("2006-01-02 15:04 UTC"), c.machine, strings.Join(c.versions, ", "))
	fmt.Fprintf(&b, "- Rounds: %d. In each, every peer has a new server process and a new load process, %v of warm-up and %v of measurement. The order of the peers turns with the rounds.\n", c.rounds, c.settings.warm, c.settings.d)
	b.WriteString(`- A figure is the median of the rounds, with the least and the greatest behind it. "×" is the ratio to hertznet's.
- CPU is that of the server process alone; of the client process in the client workloads. The kernel measures the sum, and splits it into user and system by sampling. The load runs on the same machine, so requests per second depend on it too. Every byte of every answer is compared.
- Resident memory is that under load, at the end of the measurement; of idle connections, after a garbage collection. All peers are in one binary, whose resident part is in each figure.
- "–": the peer cannot do it. netpoll has no TLS.
`)
	for _, name := range charts {
		fmt.Fprintf(&b, "\n![chart](%s)\n", name)
	}
	b.WriteString("\n")
	rows := [][]string{{"peer", "workloads", "what it is"}}
	for _, r := range results {
		row := []string{r.peer.name, strings.Join(r.peer.kinds, ", "), r.peer.title}
		if !slices.ContainsFunc(rows, func(had []string) bool { return slices.Equal(had, row) }) {
			rows = append(rows, row)
		}
	}
	align(&b, rows, 3)
	for len(results) > 0 {
		n := 1
		for n < len(results) && results[n].workload.name == results[0].workload.name {
			n++
		}
		table(&b, c, results[:n])
		results = results[n:]
	}
	_, err := io.WriteString(out, b.String())
	return err
}

// table writes the results of one workload.
func table(b *strings.Builder, c conditions, results []result) {
	w := results[0].workload
	columns := columnsOf(w.kind)
	title := w.title
	if w.kind == kindIdle {
		title = fmt.Sprintf("%d %s, after %v", w.conns, title, c.settings.wait)
	}
	fmt.Fprintf(b, "\n## %s: %s\n\n", w.name, title)
	rows := [][]string{{"peer"}}
	for _, m := range columns {
		rows[0] = append(rows[0], m.title)
		if slices.Contains(ratioMetrics, m) {
			rows[0] = append(rows[0], "×")
		}
	}
	for _, r := range results {
		row := []string{r.peer.name}
		for _, m := range columns {
			s, ok := r.spread(m)
			row = append(row, cell(s, ok, len(r.samples)))
			if slices.Contains(ratioMetrics, m) {
				row = append(row, ratioCell(r, results, m))
			}
		}
		rows = append(rows, row)
	}
	align(b, rows, 1)
}

// align writes a Markdown table that can be read as text too. The first row is its head;
// so many columns are text, on the left.
func align(b *strings.Builder, rows [][]string, texts int) {
	width := make([]int, len(rows[0]))
	for _, row := range rows {
		for i, s := range row {
			width[i] = max(width[i], utf8.RuneCountInString(s))
		}
	}
	for n, row := range rows {
		b.WriteString("|")
		for i, s := range row {
			pad := strings.Repeat(" ", width[i]-utf8.RuneCountInString(s))
			if i < texts {
				b.WriteString(" " + s + pad + " |")
			} else {
				b.WriteString(" " + pad + s + " |")
			}
		}
		b.WriteString("\n")
		if n > 0 {
			continue
		}
		b.WriteString("|")
		for i, k := range width {
			if i < texts {
				b.WriteString(strings.Repeat("-", k+2) + "|")
			} else {
				b.WriteString(strings.Repeat("-", k+1) + ":|")
			}
		}
		b.WriteString("\n")
	}
}

func cell(s spread, ok bool, samples int) string {
	if !ok {
		return "–"
	}
	if samples == 1 {
		return number(s.median)
	}
	return fmt.Sprintf("%s (%s–%s)", number(s.median), number(s.min), number(s.max))
}

// ratio divides the median of r by that of the baseline in the same workload.
func ratio(r result, all []result, m metric) (float64, bool) {
	s, ok := r.spread(m)
	for _, base := range all {
		if base.peer.name == baseline && base.workload.name == r.workload.name {
			if b, has := base.spread(m); ok && has && b.median > 0 {
				return s.median / b.median, true
			}
		}
	}
	return 0, false
}

func ratioCell(r result, all []result, m metric) string {
	if v, ok := ratio(r, all, m); ok {
		return strconv.FormatFloat(v, 'f', 2, 64)
	}
	return "–"
}

// number has three digits that count, at least.
func number(v float64) string {
	switch {
	case v >= 99.95 || v <= -99.95:
		return strconv.FormatFloat(v, 'f', 0, 64)
	case v >= 9.995 || v <= -9.995:
		return strconv.FormatFloat(v, 'f', 1, 64)
	default:
		return strconv.FormatFloat(v, 'f', 2, 64)
	}
}

// writeCSV writes a line for each metric of each result, with all its values.
func writeCSV(out io.Writer, results []result) error {
	w := csv.NewWriter(out)
	w.Write([]string{"workload", "peer", "metric", "unit", "median", "min", "max", "rounds"})
	for _, r := range results {
		for _, m := range columnsOf(r.workload.kind) {
			s, ok := r.spread(m)
			if !ok {
				continue
			}
			var values []string
			for _, one := range r.samples {
				values = append(values, number(one[m]))
			}
			w.Write([]string{r.workload.name, r.peer.name, m.key, m.unit, number(s.median), number(s.min), number(s.max), strings.Join(values, " ")})
		}
	}
	w.Flush()
	return w.Error()
}
