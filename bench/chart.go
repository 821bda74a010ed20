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

// colors are those of Okabe and Ito, which colour-blind readers can tell apart, and grey.
var colors = []string{"#000000", "#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9", "#999999"}

func colorOf(name string) string {
	var names []string
	for _, p := range peers {
		if !slices.Contains(names, p.name) {
			names = append(names, p.name)
		}
	}
	return colors[max(0, slices.Index(names, name))%len(colors)]
}

// The chart is in two panels, of ratios to the baseline on a scale of powers of two.
const (
	chartLeft, panelWidth, panelGap = 130, 340, 40
	rowHeight, chartTop             = 22, 70
	octaves                         = 3 // to each side of 1
)

// writeChart draws a row for each workload and a dot for each peer, with its spread.
func writeChart(out io.Writer, results []result) error {
	var rows, names []string
	for _, r := range results {
		if r.workload.kind == kindIdle {
			continue
		}
		if !slices.Contains(rows, r.workload.name) {
			rows = append(rows, r.workload.name)
		}
		if !slices.Contains(names, r.peer.name) {
			names = append(names, r.peer.name)
		}
	}
	width, height := chartLeft+2*panelWidth+panelGap+20, chartTop+rowHeight*len(rows)+30
	var b strings.Builder
	begin(&b, width, height, "hertznet and its peers, as ratios to hertznet")
	legend(&b, names)
	for panel, m := range []metric{rate, cpu} {
		left := chartLeft + panel*(panelWidth+panelGap)
		note := "more is better"
		if m == cpu {
			note = "less is better"
		}
		text(&b, left+panelWidth/2, chartTop-20, "middle", m.title+" ÷ hertznet's: "+note+"; beyond 8 at the edge")
		at := func(v float64) float64 {
			v = min(octaves, max(-octaves, math.Log2(v)))
			return float64(left) + (v/octaves+1)/2*panelWidth
		}
		for k := -octaves; k <= octaves; k++ {
			v, stroke := math.Exp2(float64(k)), "#ddd"
			if k == 0 {
				stroke = "#666"
			}
			line(&b, at(v), chartTop-8, at(v), float64(height-30), stroke, 1)
			text(&b, int(at(v)), height-14, "middle", fmt.Sprintf("%g", v))
		}
		for i, row := range rows {
			y := float64(chartTop + rowHeight*i + rowHeight/2)
			if panel == 0 {
				text(&b, chartLeft-8, int(y)+4, "end", row)
			}
			for _, r := range results {
				v, ok := ratio(r, results, m)
				if r.workload.name != row || !ok || v <= 0 {
					continue
				}
				s, _ := r.spread(m)
				line(&b, at(v*s.min/s.median), y, at(v*s.max/s.median), y, colorOf(r.peer.name), 1.5)
				fmt.Fprintf(&b, `<circle cx="%.1f" cy="%.1f" r="4" fill="%s" fill-opacity=".85"><title>%s, %s: %.2f</title></circle>`+"\n",
					at(v), y, colorOf(r.peer.name), html.EscapeString(r.peer.name), row, v)
			}
		}
	}
	b.WriteString("</svg>\n")
	_, err := io.WriteString(out, b.String())
	return err
}

func begin(b *strings.Builder, width, height int, title string) {
	fmt.Fprintf(b, `<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 %d %d" width="%[1]d" height="%[2]d" font-family="sans-serif" font-size="12">
<title>%s</title>
<rect width="100%%" height="100%%" fill="#fff"/>
`, width, height, html.EscapeString(title))
}

func legend(b *strings.Builder, names []string) {
	for i, name := range names {
		x := 20 + i*105
		fmt.Fprintf(b, `<circle cx="%d" cy="20" r="5" fill="%s"/>`+"\n", x, colorOf(name))
		text(b, x+10, 24, "start", name)
	}
}

func text(b *strings.Builder, x, y int, anchor, s string) {
	fmt.Fprintf(b, `<text x="%d" y="%d" text-anchor="%s">%s</text>`+"\n", x, y, anchor, html.EscapeString(s))
}

func line(b *strings.Builder, x1, y1, x2, y2 float64, stroke string, width float64) {
	fmt.Fprintf(b, `<line x1="%.1f" y1="%.1f" x2="%.1f" y2="%.1f" stroke="%s" stroke-width="%g"/>`+"\n", x1, y1, x2, y2, stroke, width)
}
