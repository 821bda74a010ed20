package networktest

import (
	"fmt"
	"hash/fnv"
	"os"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"
)

// Clause is a clause of the contract.
type Clause struct {
	ID       string // such as "R6"
	Sentence string // what an implementation promises
	Starred  bool   // Hertz's own transports are known to break it
}

// Outcome is what came of checking a clause.
type Outcome int

const (
	Passed        Outcome = iota // the clause holds, as far as the case can tell
	Failed                       // it does not; Result says what was done, expected and found
	NotApplicable                // the clause does not apply to the subject; Result.Came says why
)

// String returns "pass", "FAIL" or "n.a.".
func (o Outcome) String() string {
	switch o {
	case Passed:
		return "pass"
	case Failed:
		return "FAIL"
	}
	return "n.a."
}

// Result is what came of checking one clause on one subject.
type Result struct {
	Clause
	Outcome  Outcome       // the verdict
	Did      string        // of a failure: what the kit did
	Expected string        // of a failure: what the clause promises for that
	Came     string        // what came instead; why a clause does not apply; or a figure that was measured
	Seed     uint64        // of the random numbers that were used; 0 if none were
	Elapsed  time.Duration // how long the check took
	Log      []string      // what the factories logged
}

// String returns all that there is to say about a Result, on several lines.
func (r Result) String() string {
	var b strings.Builder
	fmt.Fprintf(&b, "%s: %s", r.ID, r.Sentence)
	line := func(name, text string) {
		if text != "" {
			fmt.Fprintf(&b, "\n    %-10s%s", name+":", strings.ReplaceAll(text, "\n", "\n              "))
		}
	}
	if r.Outcome == NotApplicable {
		line("n.a.", r.Came)
		return b.String()
	}
	line("did", r.Did)
	line("expected", r.Expected)
	line("came", r.Came)
	if r.Seed != 0 {
		line("seed", fmt.Sprintf("%d (set NETWORKTEST_SEED to repeat it)", r.Seed))
	}
	line("log", strings.Join(r.Log, "\n"))
	return b.String()
}

// Subject is something that the kit can judge: a [Conn], [TLS], [Dialer],
// [Transporter] or [StreamConn].
type Subject interface {
	cases() []boundCase
}

// boundCase is a case of a subject.
type boundCase struct {
	id    string
	limit time.Duration // after it the case is blocked; 0 is defaultLimit
	run   func(t *check)
}

const (
	// defaultLimit is how long a check may take before it counts as blocked. Sound
	// implementations need a fraction of it on a busy machine.
	defaultLimit = 15 * time.Second

	// freeTime is how long what was blocked has, to return once its connections are
	// closed.
	freeTime = 2 * time.Second

	// cleanupTime is the same for what the factories have to clean up.
	cleanupTime = 5 * time.Second
)

// Clauses returns the clauses that the kit checks on s, in the order in which it
// checks them.
func Clauses(s Subject) []Clause {
	var all []Clause
	for _, k := range s.cases() {
		all = append(all, clauseOf(k.id))
	}
	return all
}

// ReportOptions say how Report works. The zero value checks every clause.
type ReportOptions struct {
	// IDs are the clauses to check, such as "R6"; none means all. Ids that Clauses
	// does not give for the subject are ignored: nothing is checked for them.
	IDs []string

	// Short does less of what takes long, as go test -short does.
	Short bool

	// Each, if not nil, is called with each Result as soon as it is there.
	Each func(Result)
}

// Report checks s outside of go test, clause by clause, and returns what came.
//
// Checks run one after the other in this process: an implementation that asks for
// more memory than there is, or that panics in a goroutine of its own, takes the
// process down. A caller who must outlive that gives each clause a process of its
// own, as examples/conformance does.
func Report(s Subject, o ReportOptions) []Result {
	var all []Result
	for _, k := range s.cases() {
		if len(o.IDs) > 0 && !slices.Contains(o.IDs, k.id) {
			continue
		}
		r := execute(k, o.Short)
		if o.Each != nil {
			o.Each(r)
		}
		all = append(all, r)
	}
	return all
}

// test runs each case of s as a subtest that is named by its clause.
func test(t *testing.T, s Subject) {
	for _, k := range s.cases() {
		t.Run(k.id, func(t *testing.T) {
			r := execute(k, testing.Short())
			switch r.Outcome {
			case Failed:
				t.Error(r)
			case NotApplicable:
				t.Skip(r)
			case Passed:
				if r.Came != "" {
					t.Log(r.Came)
				}
			}
		})
	}
}

// execute runs one case under a watchdog: whatever the subject does, it returns.
func execute(k boundCase, short bool) Result {
	t := newCheck(clauseOf(k.id), short)
	limit := k.limit
	if limit == 0 {
		limit = defaultLimit
	}
	if raceEnabled {
		limit *= 4
	}
	start := time.Now()
	done := make(chan struct{})
	go func() {
		defer close(done)
		ended := false
		defer func() {
			// Whoever ends the check leaves a verdict. A Goexit by anybody else, such as
			// the Fatal of a testing.TB that is not the factory's, would pass for one.
			if !ended && !t.ended() {
				t.fail("an end by the check itself", "the subject or a factory called runtime.Goexit, perhaps by the FailNow, Fatal or Skip of another testing.TB than its own")
			}
		}()
		defer t.catch()
		k.run(t)
		ended = true
	}()
	watchdog := time.NewTimer(limit)
	defer watchdog.Stop()
	select {
	case <-done:
	case <-t.failed:
		// The case may be blocked, and its verdict stands.
	case <-watchdog.C:
		// Also a Skip in another goroutine has not ended the check.
		t.overrule("an end", fmt.Sprintf("it was still blocked after %v", limit))
	}
	t.finish(done)
	t.mu.Lock()
	defer t.mu.Unlock()
	t.over = true
	t.result.Elapsed = time.Since(start)
	if t.result.Outcome == Failed {
		t.result.Log = t.logs
	}
	return t.result
}

// finish frees what the check has opened and what is blocked on it.
func (t *check) finish(done chan struct{}) {
	t.free()
	select {
	case <-done:
	case <-time.After(freeTime):
		t.mu.Lock()
		if t.result.Outcome == Failed {
			t.result.Came += "; closing its connections did not free it"
		}
		t.mu.Unlock()
	}
	t.step("cleaning up after the check")
	cleaned := make(chan struct{})
	go func() {
		defer close(cleaned)
		for t.cleanup() {
		}
	}()
	select {
	case <-cleaned:
	case <-time.After(cleanupTime):
		t.overrule("an end", fmt.Sprintf("it was still blocked after %v", cleanupTime))
	}
	t.free() // what a cleanup or a late goroutine has opened
	waitFor(&t.spawned, freeTime)
}

// cleanup runs the last of the functions that Cleanup was given and are left, in a
// goroutine, since it may call FailNow; and reports whether there was one.
func (t *check) cleanup() bool {
	t.mu.Lock()
	n := len(t.cleanups)
	if n == 0 {
		t.mu.Unlock()
		return false
	}
	f := t.cleanups[n-1]
	t.cleanups = t.cleanups[:n-1]
	t.mu.Unlock()
	done := make(chan struct{})
	go func() {
		defer close(done)
		defer func() {
			if p := recover(); p != nil {
				t.overrule("no panic", panicText(p))
			}
		}()
		f()
	}()
	<-done
	return true
}

// seedOf returns the seed of the random numbers of a clause.
func seedOf(id string) uint64 {
	if s, err := strconv.ParseUint(os.Getenv("NETWORKTEST_SEED"), 10, 64); err == nil && s != 0 {
		return s
	}
	h := fnv.New32a()
	_, _ = h.Write([]byte(id))
	return uint64(h.Sum32())
}
