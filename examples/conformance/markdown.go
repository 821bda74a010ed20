package main

import (
	"fmt"
	"os"
	"runtime"
	"runtime/debug"
	"strings"
	"time"
)

// writeMarkdown writes what print prints, and what was judged when and where.
func (t *table) writeMarkdown(path string) error {
	var b strings.Builder
	b.WriteString("# Conformance\n\n")
	fmt.Fprintf(&b, "hertznet and the two transports of Hertz, held against [the contract](CONTRACT.md) by `network/networktest`.\n\n")
	fmt.Fprintf(&b, "Written on %s with %s on %s/%s by\n\n```\ngo run ./examples/conformance -markdown %s\n```\n\n",
		time.Now().UTC().Format(time.DateOnly), runtime.Version(), runtime.GOOS, runtime.GOARCH, path)
	b.WriteString("| module | version |\n|---|---|\n")
	for _, m := range modules() {
		fmt.Fprintf(&b, "| %s | %s |\n", m[0], m[1])
	}
	b.WriteString("\n| pass of those that apply |")
	for i := range t.impls {
		fmt.Fprintf(&b, " %s |", t.impls[i].name)
	}
	b.WriteString("\n|---|" + strings.Repeat("---|", len(t.impls)) + "\n")
	letter := ""
	for _, r := range t.rows {
		if r.ID[:1] != letter {
			letter = r.ID[:1]
			t.writeScores(&b, letter+", "+groupName(letter), letter)
		}
	}
	t.writeScores(&b, "all", "")
	b.WriteString("\n" + strings.Join(t.notes(), "\n\n") + "\n")

	letter = ""
	for _, r := range t.rows {
		if r.ID[:1] != letter {
			letter = r.ID[:1]
			fmt.Fprintf(&b, "\n## %s. %s\n\n| id | clause |", letter, groupName(letter))
			for i := range t.impls {
				fmt.Fprintf(&b, " %s |", t.impls[i].name)
			}
			b.WriteString("\n|---|---|" + strings.Repeat("---|", len(t.impls)) + "\n")
		}
		fmt.Fprintf(&b, "| %s | %s |", escape(r.label()), r.Sentence)
		for _, c := range r.cells {
			text := escape(c.String())
			if c.failed() {
				text = "**" + text + "**"
			}
			fmt.Fprintf(&b, " %s |", text)
		}
		b.WriteString("\n")
	}

	if found := t.findings(); len(found) > 0 {
		b.WriteString("\n## What failed, and how to provoke it\n")
		for _, f := range found {
			fmt.Fprintf(&b, "\n**%s** %s\n", escape(f.label()), f.Sentence)
			for _, v := range f.variants {
				fmt.Fprintf(&b, "\n- %s\n", strings.Join(v.impls, ", "))
				for _, l := range v.lines() {
					fmt.Fprintf(&b, "  - %s: %s\n", l[0], code(l[1]))
				}
			}
		}
	}
	if figures := t.figures(); len(figures) > 0 {
		b.WriteString("\n## What else was seen\n\n")
		for _, f := range figures {
			fmt.Fprintf(&b, "- %s\n", f)
		}
	}
	if reasons := t.reasons(); len(reasons) > 0 {
		b.WriteString("\n## What does not apply, and why\n\n")
		for _, r := range reasons {
			fmt.Fprintf(&b, "- %s: %s: %s\n", r.impl, ids(r.ids), code(r.why))
		}
	}
	return os.WriteFile(path, []byte(b.String()), 0o644)
}

// writeScores writes a row of the summary: of one group, or of all for "".
func (t *table) writeScores(b *strings.Builder, name, group string) {
	fmt.Fprintf(b, "| %s |", name)
	for i := range t.impls {
		count := t.count(i, group)
		pass := count["pass"] + count["pass*"]
		switch apply := pass + count["FAIL"]; {
		case apply == 0:
			b.WriteString(" n.a. |")
		case pass < apply:
			fmt.Fprintf(b, " **%d** of %d |", pass, apply)
		default:
			fmt.Fprintf(b, " %d of %d |", pass, apply)
		}
	}
	b.WriteString("\n")
}

// modules returns what is judged, as it was built into this program.
func modules() [][2]string {
	info, ok := debug.ReadBuildInfo()
	if !ok {
		return nil
	}
	ours := info.Main.Version
	for _, s := range info.Settings {
		if s.Key == "vcs.revision" && ours == "(devel)" {
			ours += " " + s.Value[:min(12, len(s.Value))]
		}
	}
	all := [][2]string{{info.Main.Path, ours}}
	for _, m := range info.Deps {
		if m.Path == "github.com/cloudwego/hertz" || m.Path == "github.com/cloudwego/netpoll" {
			all = append(all, [2]string{m.Path, m.Version})
		}
	}
	return all
}

// escape keeps stars from being taken for emphasis.
func escape(s string) string { return strings.ReplaceAll(s, "*", `\*`) }

// code sets text that came from a program, on one line.
func code(s string) string {
	s = strings.Join(strings.Fields(s), " ")
	if strings.Contains(s, "`") {
		return "`` " + s + " ``"
	}
	return "`" + s + "`"
}
