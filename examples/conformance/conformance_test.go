package main

import (
	"bytes"
	"context"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/hertznet/hertznet/network"
	"github.com/hertznet/hertznet/network/networktest"
)

// The processes that check are copies of this one.
func TestMain(m *testing.M) {
	testColumns = []implementation{dying("panics", func() { panic("oh") })}
	if memoryIsLimited {
		testColumns = append(testColumns, dying("hungry", func() {
			terabyte := int64(1) << 40
			hungry = make([]byte, terabyte)
		}))
	}
	if runChild() {
		return
	}
	os.Exit(m.Run())
}

var hungry []byte

// dying returns an implementation that takes the process down in a goroutine of its
// own, where nobody can recover.
func dying(key string, f func()) implementation {
	die := func(testing.TB, net.Conn) network.Conn {
		go f()
		select {}
	}
	return implementation{
		key: key, name: key,
		subjects: [kinds]networktest.Subject{connKind: networktest.Conn{Wrap: die}},
		because:  [kinds]string{tlsKind: "no", dialerKind: "no", transporterKind: "no"},
	}
}

// A small table of the real thing: what passes, fails, does not apply, and what
// takes its process down.
func TestRun(t *testing.T) {
	expected := map[string][]string{ // in the order of the columns
		"R6": {"pass", "pass", "FAIL", "FAIL"},
		"F2": {"pass", "n.a.", "pass", "n.a."},
		"D6": {"pass", "n.a.", "pass", "pass"},
	}
	var only []string
	for id := range expected {
		only = append(only, id)
	}
	table, err := newTable(implementations(), only)
	if err != nil {
		t.Fatal(err)
	}
	if err := table.run(context.Background(), options{short: true}); err != nil {
		t.Fatal(err)
	}
	if len(table.rows) != len(expected) {
		t.Errorf("%d rows, want %d", len(table.rows), len(expected))
	}
	ours := map[string]int{"hertznet": 0, "net+TLS": 1, "standard": 2, "netpoll": 3}
	for _, r := range table.rows {
		for _, c := range r.cells {
			i, ok := ours[c.impl.key]
			if ok && strings.TrimSuffix(c.String(), "*") != expected[r.ID][i] {
				t.Errorf("%s is %s, want %s: %s", c.impl.name, c, expected[r.ID][i], c.result)
			}
			died := map[string]string{"panics": "it died: panic: oh", "hungry": "it died: fatal error: "}[c.impl.key]
			if !ok && r.ID == "R6" && (!c.failed() || !strings.HasPrefix(c.result.Came, died)) {
				t.Errorf("%s is %s, want that it died: %s", c.impl.name, c, c.result)
			}
		}
	}

	var out bytes.Buffer
	if err := table.print(&out); err != nil {
		t.Fatal(err)
	}
	file := filepath.Join(t.TempDir(), "table.md")
	if err := table.writeMarkdown(file); err != nil {
		t.Fatal(err)
	}
	markdown, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{"R6*", "pass", "FAIL", "n.a.", "bare io.EOF"} {
		if !strings.Contains(out.String(), want) {
			t.Errorf("the table has no %q:\n%s", want, out.String())
		}
		if want = escape(want); !strings.Contains(string(markdown), want) {
			t.Errorf("the Markdown has no %q:\n%s", want, markdown)
		}
	}
}

// Columns and clauses fit together: every id has a group, and is judged or has a
// reason not to be.
func TestTable(t *testing.T) {
	impls := implementations()
	table, err := newTable(impls, nil)
	if err != nil {
		t.Fatal(err)
	}
	for k := range kinds {
		for _, impl := range impls {
			if (impl.subjects[k] == nil) != (impl.because[k] != "") {
				t.Errorf("%s, part %d: it needs either a subject or a reason", impl.name, k)
			}
		}
	}
	if all := clausesOf(impls); len(table.rows) != len(all) {
		t.Errorf("%d rows for %d clauses", len(table.rows), len(all))
	}
	if _, err := newTable(impls, []string{"R6", "X1"}); err == nil || !strings.Contains(err.Error(), "X1") {
		t.Errorf("a table of the clauses R6 and X1: %v", err)
	}
}

// A check that failed beside others and passed alone is no failure, and no secret.
func TestLoaded(t *testing.T) {
	impl := implementation{name: "it", key: "it"}
	c := &cell{impl: &impl, loaded: true}
	c.result.Came = "read 127.0.0.1:4711: timeout"
	table := &table{impls: []implementation{impl}, rows: []row{{networktest.Clause{ID: "R1"}, []*cell{c}}}}
	var out bytes.Buffer
	if err := table.print(&out); err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{"pass*", "passed without", "it (the first time)", "127.0.0.1:port", "1 pass "} {
		if !strings.Contains(out.String(), want) {
			t.Errorf("the table has no %q:\n%s", want, out.String())
		}
	}
}

func TestIDs(t *testing.T) {
	if got := ids([]string{"R1", "R2", "R3", "R5", "R6", "A7", "F1", "F2", "F3", "F4"}); got != "R1-R3, R5, R6, A7, F1-F4" {
		t.Error(got)
	}
}

func TestLastWords(t *testing.T) {
	const died = `something else
fatal error: runtime: cannot allocate memory

goroutine 7 gp=0xc000 [running]:
runtime.throw({0x7b, 0x1f})
	/usr/lib/go/src/runtime/panic.go:1101 +0x48
github.com/cloudwego/hertz/pkg/network/standard.(*Conn).Peek(0xc00, 0x10000000000)
	/home/somebody/hertz/pkg/network/standard/connection.go:312 +0x8c
github.com/hertznet/hertznet/network/networktest.hugePeek(0xc000)
	/home/somebody/networktest/cases_reader.go:200 +0x11
`
	want := "fatal error: runtime: cannot allocate memory, in standard.(*Conn).Peek, called by networktest.hugePeek"
	if got := lastWords(died, os.ErrInvalid); got != want {
		t.Errorf("%q, want %q", got, want)
	}
	if got := lastWords("oh\n", os.ErrInvalid); got != "invalid argument: oh" {
		t.Errorf("%q", got)
	}
}
