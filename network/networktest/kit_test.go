package networktest

import (
	"errors"
	"net"
	"os"
	"regexp"
	"runtime"
	"strings"
	"testing"
	"time"

	"github.com/hertznet/hertznet/network"
)

// The kit's sentences are those of docs/CONTRACT.md, in its order, each with a
// reason there, and each clause is either checked by a case or has a reason here.
func TestClausesAreTheContracts(t *testing.T) {
	doc, err := os.ReadFile("../../docs/CONTRACT.md")
	if err != nil {
		t.Fatal(err)
	}
	rows := regexp.MustCompile(`(?m)^\| ([A-Z]\d+)(\*?) \|(.*)\|$`).FindAllStringSubmatch(string(doc), -1)
	if len(rows) != len(clauses) {
		t.Fatalf("%d clauses in the document, %d here", len(rows), len(clauses))
	}
	for i, row := range rows {
		c := clauses[i]
		sentence, why, _ := strings.Cut(row[3], "|")
		sentence, why = strings.TrimSpace(sentence), strings.TrimSpace(why)
		if c.ID != row[1] || c.Starred != (row[2] == "*") || !strings.HasPrefix(sentence, c.Sentence) {
			t.Errorf("the document has %s%s %q; here is %+v", row[1], row[2], sentence, c)
		}
		if why == "" || strings.Contains(why, "|") {
			t.Errorf("%s: the document's reason is %q, not one cell of text", row[1], why)
		}
	}
}

// unchecked are the clauses without a case.
var unchecked = map[string]string{
	"Z3": "it speaks of a part inside of one implementation, whose own test it is",
	"P4": "it speaks of a pool inside of one implementation, whose own test it is",
}

func TestEveryClauseHasACase(t *testing.T) {
	checked := map[string]bool{}
	never := func(testing.TB, TransporterOptions) network.Transporter { return nil }
	for _, s := range []Subject{referenceConn(nil), TLS{}, referenceDialerOf(nil), Transporter{New: never}, streamPipes} {
		for _, k := range s.cases() {
			if checked[k.id] && k.id != "W15" { // a part of it is about TLS records
				t.Errorf("%s has two cases", k.id)
			}
			checked[k.id] = true
		}
	}
	for _, c := range clauses {
		if reason := unchecked[c.ID]; checked[c.ID] == (reason != "") {
			t.Errorf("%s: checked: %v, reason not to be: %q", c.ID, checked[c.ID], reason)
		}
	}
}

// The engine's own promises: a case that hangs, panics, fails in another
// goroutine or does not apply gives a Result, and the run goes on.
func TestExecute(t *testing.T) {
	for _, test := range []struct {
		name    string
		run     func(t *check)
		outcome Outcome
		came    string
	}{
		{"passes", func(t *check) {}, Passed, ""},
		{"measures", func(t *check) { t.measured("%d", 3) }, Passed, "3"},
		{"fails", func(t *check) { t.noError(errors.New("oh")) }, Failed, "oh"},
		{"panics", func(t *check) { panic("oh") }, Failed, "panic: oh"},
		{"panics elsewhere", func(t *check) { t.wait(t.spawn(func() { panic("oh") })) }, Failed, "panic: oh"},
		{"fails elsewhere and blocks", func(t *check) {
			t.spawn(func() { t.fail("x", "oh") })
			a, _ := tcpPair(t)
			_, _ = a.Read(make([]byte, 1))
		}, Failed, "oh"},
		{"blocks on a connection", func(t *check) {
			a, _ := tcpPair(t)
			_, _ = a.Read(make([]byte, 1))
		}, Failed, "still blocked after"},
		{"blocks for ever", func(t *check) { select {} }, Failed, "did not free it"},
		{"blocks in a Close", func(t *check) { t.track(hangs{}) }, Passed, ""},
		{"blocks in a cleanup", func(t *check) { t.Cleanup(func() { select {} }) }, Failed, "still blocked"},
		{"ends by Goexit", func(t *check) { runtime.Goexit() }, Failed, "runtime.Goexit"},
		{"fails in a cleanup", func(t *check) { t.Cleanup(func() { t.Fatal("oh") }) }, Failed, "oh"},
		{"fails in a cleanup after a Skip", func(t *check) {
			t.Cleanup(func() { t.Error("oh") })
			t.Skip("no such thing")
		}, Failed, "oh"},
		{"skips elsewhere and blocks", func(t *check) {
			t.spawn(func() { t.Skip("no such thing") })
			a, _ := tcpPair(t)
			_, _ = a.Read(make([]byte, 1))
		}, Failed, "still blocked after"},
		{"does not apply", func(t *check) { t.Skip("no such thing") }, NotApplicable, "no such thing"},
		{"the factory fails", func(t *check) { t.Fatalf("no %s", "port") }, Failed, "no port"},
	} {
		t.Run(test.name, func(t *testing.T) {
			t.Parallel()
			r := execute(boundCase{"R6", 200 * time.Millisecond, test.run}, true)
			if r.Outcome != test.outcome || !strings.Contains(r.Came, test.came) {
				t.Errorf("%v: %v", r.Outcome, r)
			}
		})
	}
}

// One cleanup that fails or panics does not keep the others from running, and what
// it says is not laid to the last step of the check.
func TestExecuteCleanups(t *testing.T) {
	for name, f := range map[string]func(t *check){
		"Fatal": func(t *check) { t.Fatal("oh") },
		"panic": func(t *check) { panic("oh") },
	} {
		ran := false
		r := execute(boundCase{"R6", 0, func(t *check) {
			t.step("Flush")
			t.Cleanup(func() { ran = true })
			t.Cleanup(func() { f(t) })
		}}, true)
		if !ran || r.Outcome != Failed || r.Did != "cleaning up after the check" {
			t.Errorf("%s: the other cleanup ran: %v; %v", name, ran, r)
		}
	}
}

// A failure elsewhere ends a wait, and is told without a guess.
func TestExecuteWait(t *testing.T) {
	r := execute(boundCase{"R6", 0, func(t *check) { t.wait(t.spawn(func() { t.Fatal("oh") })) }}, true)
	if r.Came != "oh" {
		t.Error(r)
	}
}

// What a case that was given up opens afterwards is closed all the same.
func TestExecuteLate(t *testing.T) {
	late, closed, cleaned := make(chan struct{}), make(chan struct{}), make(chan struct{})
	execute(boundCase{"R6", 10 * time.Millisecond, func(t *check) {
		<-late
		t.track(closes(closed))
		t.Cleanup(func() { close(cleaned) })
	}}, true)
	close(late)
	<-closed
	<-cleaned
}

type closes chan struct{}

func (c closes) Close() error {
	close(c)
	return nil
}

type hangs struct{ net.Conn }

func (hangs) Close() error { select {} }
