package main

import (
	"cmp"
	"fmt"
	"io"
	"os"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/hertznet/hertznet/network/networktest"
)

const (
	minWidth  = 80  // of the table, in characters
	usual     = 100 // where the terminal does not say
	idWidth   = 5
	cellWidth = 10
)

// print writes the table and what there is to say about it.
func (t *table) print(w io.Writer) error {
	var b strings.Builder
	width := usual
	if n, err := strconv.Atoi(os.Getenv("COLUMNS")); err == nil {
		width = max(n, minWidth)
	}
	text := width - idWidth - cellWidth*len(t.impls)
	line := func(id, sentence string, cells ...string) {
		fmt.Fprintf(&b, "%-*s%-*s", idWidth, id, text, shorten(sentence, text-1))
		for _, c := range cells {
			fmt.Fprintf(&b, "%-*s", cellWidth, c)
		}
		trimEnd(&b)
	}
	var heads []string
	for _, impl := range t.impls {
		heads = append(heads, impl.key)
	}
	letter := ""
	for _, r := range t.rows {
		if r.ID[:1] != letter {
			letter = r.ID[:1]
			line("", "", "")
			line("", letter+". "+groupName(letter), heads...)
		}
		var cells []string
		for _, c := range r.cells {
			cells = append(cells, c.String())
		}
		line(r.label(), r.Sentence, cells...)
	}
	fmt.Fprintln(&b)
	for _, s := range t.notes() {
		wrap(&b, "", s, width)
	}

	if found := t.findings(); len(found) > 0 {
		b.WriteString("\nWhat failed, and how to provoke it\n")
		for _, f := range found {
			b.WriteString("\n")
			wrap(&b, "", f.label()+"  "+f.Sentence, width)
			for _, v := range f.variants {
				fmt.Fprintf(&b, "  %s\n", strings.Join(v.impls, ", "))
				for _, l := range v.lines() {
					wrap(&b, fmt.Sprintf("    %-10s", l[0]+":"), l[1], width)
				}
			}
		}
	}
	if figures := t.figures(); len(figures) > 0 {
		b.WriteString("\nWhat else was seen\n\n")
		for _, f := range figures {
			wrap(&b, "  ", f, width)
		}
	}
	if reasons := t.reasons(); len(reasons) > 0 {
		b.WriteString("\nWhat does not apply, and why\n\n")
		for _, r := range reasons {
			wrap(&b, "  ", fmt.Sprintf("%s: %s: %s", r.impl, ids(r.ids), r.why), width)
		}
	}
	b.WriteString("\n")
	for i := range t.impls {
		fmt.Fprintf(&b, "%-18s %s\n", t.impls[i].name, t.summary(i))
	}
	fmt.Fprintf(&b, "in %v\n", t.took.Round(10*time.Millisecond))
	_, err := io.WriteString(w, b.String())
	return err
}

// trimEnd ends a line without spaces.
func trimEnd(b *strings.Builder) {
	s := strings.TrimRight(b.String(), " ")
	b.Reset()
	b.WriteString(s)
	b.WriteString("\n")
}

func (r row) label() string { return label(r.Clause) }

func label(c networktest.Clause) string {
	if c.Starred {
		return c.ID + "*"
	}
	return c.ID
}

func groupName(letter string) string {
	for _, g := range groups {
		if g.letter == letter {
			return g.name
		}
	}
	return ""
}

// notes say how to read the table.
func (t *table) notes() []string {
	notes := []string{
		"A star marks a clause that a transport of Hertz's was known to break before the kit was written. Group M, StreamConn, is left out: none of Hertz's transports has it, and the module quic tests its own. Each check ran in a process of its own; what failed ran once more, without others beside it that work, and is a FAIL only if it failed both times.",
	}
	var declared []string
	for i := range t.impls {
		if names := t.impls[i].declared(); len(names) > 0 {
			declared = append(declared, t.impls[i].name+" "+strings.Join(names, " and "))
		}
	}
	if len(declared) > 0 {
		notes = append(notes, "Declared as differences within their rights, as networktest explains them: "+strings.Join(declared, ", ")+".")
	}
	if slices.ContainsFunc(t.cells(), func(c *cell) bool { return c.loaded }) {
		notes = append(notes, "pass*: it failed while other checks ran beside it, and passed without them. That is the load, or a defect that shows by chance; what came is below.")
	}
	if t.short {
		notes = append(notes, "Short: what takes long was cut down.")
	}
	return notes
}

// finding is a clause that somebody fails.
type finding struct {
	networktest.Clause
	variants []variant
}

func (f finding) label() string { return label(f.Clause) }

// variant is one way to fail, and who fails so.
type variant struct {
	impls               []string
	did, expected, came string
}

func (v variant) lines() [][2]string {
	return [][2]string{{"did", v.did}, {"expected", v.expected}, {"came", v.came}}
}

func (t *table) findings() []finding {
	var all []finding
	for _, r := range t.rows {
		f := finding{Clause: r.Clause}
		for _, c := range r.cells {
			if !c.failed() && !c.loaded {
				continue
			}
			name := c.impl.name
			if c.loaded {
				name += " (the first time)"
			}
			v := variant{[]string{name}, tidy(c.result.Did), tidy(c.result.Expected), tidy(c.result.Came)}
			same := slices.IndexFunc(f.variants, func(o variant) bool {
				return o.did == v.did && o.expected == v.expected && o.came == v.came
			})
			if same >= 0 {
				f.variants[same].impls = append(f.variants[same].impls, name)
			} else {
				f.variants = append(f.variants, v)
			}
		}
		if f.variants != nil {
			all = append(all, f)
		}
	}
	return all
}

var (
	ports  = regexp.MustCompile(`\b127\.0\.0\.1:\d+|\[::1\]:\d+`)
	files  = regexp.MustCompile(`\bat \S*?([^/\s]+/[^/\s]+\.go:\d+)`)
	ofKit  = regexp.MustCompile(`(?m)^(\S*/network/networktest|main)\.\S.* at \S+\.go:\d+\n?`)
	temps  = regexp.MustCompile(`[^\s"]*[/\\]nt\d+`) // the kit's temporary directories
	stamps = regexp.MustCompile(`\b0x[0-9a-f]{6,}\b`)
)

// tidy leaves out what differs from run to run and from machine to machine, and the
// kit's own functions of a stack.
func tidy(s string) string {
	s = ofKit.ReplaceAllString(s, "")
	s = files.ReplaceAllString(s, "at $1")
	s = temps.ReplaceAllString(s, "dir")
	s = stamps.ReplaceAllString(s, "0x…")
	s = ports.ReplaceAllStringFunc(s, func(a string) string { return a[:strings.LastIndexByte(a, ':')] + ":port" })
	return strings.TrimSpace(s)
}

// figures are what the kit measured on the way.
func (t *table) figures() []string {
	var all []string
	for _, c := range t.cells() {
		if c.result.Outcome == networktest.Passed && !c.loaded && c.result.Came != "" {
			all = append(all, fmt.Sprintf("%s: %s: %s", c.clause.ID, c.impl.name, tidy(c.result.Came)))
		}
	}
	return all
}

// reason is why clauses do not apply to an implementation.
type reason struct {
	impl string
	ids  []string
	why  string
}

func (t *table) reasons() []reason {
	var all []reason
	for i := range t.impls {
		from := len(all)
		for _, r := range t.rows {
			c := r.cells[i]
			if c.result.Outcome != networktest.NotApplicable {
				continue
			}
			at := slices.IndexFunc(all[from:], func(o reason) bool { return o.why == c.result.Came })
			if at < 0 {
				at = len(all) - from
				all = append(all, reason{impl: c.impl.name, why: c.result.Came})
			}
			all[from+at].ids = append(all[from+at].ids, r.ID)
		}
	}
	return all
}

// ids joins ids, with three and more in a row as a range: R1, R5-R8.
func ids(list []string) string {
	var out []string
	for i := 0; i < len(list); {
		j := i
		for j+1 < len(list) && follows(list[j], list[j+1]) {
			j++
		}
		if j-i >= 2 {
			out = append(out, list[i]+"-"+list[j])
		} else {
			out = append(out, list[i:j+1]...)
		}
		i = j + 1
	}
	return strings.Join(out, ", ")
}

func follows(a, b string) bool {
	m, err1 := strconv.Atoi(a[1:])
	n, err2 := strconv.Atoi(b[1:])
	return cmp.Or(err1, err2) == nil && a[0] == b[0] && n == m+1
}

func (t *table) summary(i int) string {
	count := t.count(i, "")
	s := fmt.Sprintf("%3d pass  %3d FAIL  %3d n.a.", count["pass"]+count["pass*"], count["FAIL"], count["n.a."])
	if n := count["pass*"]; n > 0 {
		s += fmt.Sprintf("  (%d pass*)", n)
	}
	return s
}

// count returns how often each outcome came in column i, in the rows whose ids begin
// with group.
func (t *table) count(i int, group string) map[string]int {
	count := make(map[string]int)
	for _, r := range t.rows {
		if strings.HasPrefix(r.ID, group) {
			count[r.cells[i].String()]++
		}
	}
	return count
}

// shorten cuts s at a word to at most n characters.
func shorten(s string, n int) string {
	if len(s) <= n {
		return s
	}
	s = s[:n-2]
	if i := strings.LastIndexByte(s, ' '); i > n/2 {
		s = s[:i]
	}
	return strings.TrimRight(s, " ,;:") + " …"
}

// wrap writes s in lines of at most width characters, indented as far as prefix is
// long.
func wrap(b *strings.Builder, prefix, s string, width int) {
	indent := strings.Repeat(" ", len(prefix))
	for i, line := range strings.Split(s, "\n") {
		at := prefix
		if i > 0 {
			at = indent
		}
		b.WriteString(at)
		column := len(at)
		for j, word := range strings.Fields(line) {
			switch {
			case j == 0:
			case column+1+len(word) > width:
				b.WriteString("\n" + indent)
				column = len(indent)
			default:
				b.WriteByte(' ')
				column++
			}
			b.WriteString(word)
			column += len(word)
		}
		b.WriteString("\n")
	}
}
