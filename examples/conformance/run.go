package main

import (
	"context"
	"fmt"
	"os"
	"runtime"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/hertznet/hertznet/network/networktest"
)

// cell is one clause on one implementation.
type cell struct {
	impl   *implementation
	clause networktest.Clause
	result networktest.Result

	// loaded says that the check failed while others ran beside it, and passed alone.
	loaded bool
}

func (c *cell) failed() bool { return c.result.Outcome == networktest.Failed }

// String is what stands in the table.
func (c *cell) String() string {
	if c.loaded {
		return "pass*"
	}
	return c.result.Outcome.String()
}

// row is a clause, with a cell for each implementation.
type row struct {
	networktest.Clause
	cells []*cell
}

// table is everything that is checked.
type table struct {
	impls []implementation
	rows  []row
	short bool
	took  time.Duration
}

// groups are the groups of clauses in the order of the contract. M is not among
// them: nothing here implements a StreamConn.
var groups = []struct{ letter, name string }{
	{"R", "Reader"}, {"A", "Aliasing"}, {"W", "Writer"}, {"T", "Timeouts"}, {"C", "Concurrency and Close"},
	{"D", "Dialer"}, {"L", "TLS"}, {"S", "Transporter"},
	{"F", "Faults beneath"}, {"Z", "Models"}, {"P", "Resources"},
}

// newTable makes a table of the clauses with the ids given, or all, with empty
// cells.
func newTable(impls []implementation, only []string) (*table, error) {
	t := &table{impls: impls}
	wanted := make(map[string]bool)
	for _, id := range only {
		wanted[strings.ToUpper(id)] = true
	}
	all := clausesOf(impls)
	for _, group := range groups {
		for _, clause := range all {
			if clause.ID[:1] != group.letter || len(only) > 0 && !wanted[clause.ID] {
				continue
			}
			delete(wanted, clause.ID)
			r := row{Clause: clause}
			for i := range impls {
				r.cells = append(r.cells, &cell{impl: &impls[i], clause: clause})
			}
			t.rows = append(t.rows, r)
		}
	}
	for id := range wanted {
		return nil, fmt.Errorf("there is no check for a clause %s", id)
	}
	return t, nil
}

// clausesOf returns the clauses that the kit checks on the implementations' parts,
// each once.
func clausesOf(impls []implementation) []networktest.Clause {
	var all []networktest.Clause
	for _, impl := range impls {
		for _, s := range impl.subjects {
			if s == nil {
				continue
			}
			for _, c := range networktest.Clauses(s) {
				if !slices.Contains(all, c) {
					all = append(all, c)
				}
			}
		}
	}
	return all
}

func (t *table) cells() []*cell {
	var all []*cell
	for _, r := range t.rows {
		all = append(all, r.cells...)
	}
	return all
}

// run fills the cells: first as many at a time as there are processors, then, one by
// one, those again that failed; of these the ones that were blocked at last and all at
// once, since they wait and do nothing. That parts what is broken from what a busy
// machine has spoilt: only what fails both times is called a failure.
func (t *table) run(ctx context.Context, o options) error {
	start := time.Now()
	t.short = o.short
	var todo []*cell
	for _, c := range t.cells() {
		c.result.Clause = c.clause
		if len(c.impl.judgedBy(c.clause.ID)) == 0 {
			c.result.Outcome = networktest.NotApplicable
			c.result.Came = c.impl.because[kindOf(c.clause.ID)]
			continue
		}
		todo = append(todo, c)
	}
	p := newProgress(len(todo), o.verbose)
	defer p.end()
	if err := each(ctx, todo, runtime.GOMAXPROCS(0), func(c *cell) error { return c.check(ctx, o, p) }); err != nil {
		return err
	}
	again := slices.DeleteFunc(todo, func(c *cell) bool { return !c.failed() })
	p.again(len(again))
	var quick, blocked []*cell
	for _, c := range again {
		if c.result.Elapsed < blockedAfter {
			quick = append(quick, c)
		} else {
			blocked = append(blocked, c)
		}
	}
	repeat := func(c *cell) error {
		first := c.result
		if err := c.check(ctx, o, p); err != nil {
			return err
		}
		if c.loaded = c.result.Outcome == networktest.Passed; c.loaded {
			c.result.Did, c.result.Expected, c.result.Came = first.Did, first.Expected, first.Came
		}
		return nil
	}
	err := each(ctx, quick, 1, repeat)
	if err == nil {
		err = each(ctx, blocked, maxProcesses, repeat)
	}
	t.took = time.Since(start)
	return err
}

// check fills the cell.
func (c *cell) check(ctx context.Context, o options, p *progress) error {
	p.begin(c)
	r, err := runJob(ctx, job{Impl: c.impl.key, ID: c.clause.ID, Short: o.short, Verbose: o.verbose})
	if err != nil {
		return err
	}
	r.Clause = c.clause
	c.result = r
	p.done(c)
	return nil
}

const (
	// blockedAfter is when a check that has not ended counts as blocked: sound ones
	// need less, and a process that is blocked takes nothing from others.
	blockedAfter = 3 * time.Second

	// maxProcesses is how many there may be, blocked ones included.
	maxProcesses = 16
)

// each calls f for all cells, some at once, until one call fails. Blocked ones do not
// count.
func each(ctx context.Context, cells []*cell, some int, f func(*cell) error) error {
	var (
		wg       sync.WaitGroup
		failed   = make(chan error, 1)
		running  = make(chan struct{}, some)
		existing = make(chan struct{}, maxProcesses)
	)
	for _, c := range cells {
		existing <- struct{}{}
		running <- struct{}{}
		if len(failed) > 0 || ctx.Err() != nil {
			break
		}
		wg.Go(func() {
			blocked := time.AfterFunc(blockedAfter, func() { <-running })
			err := f(c)
			if blocked.Stop() {
				<-running
			}
			<-existing
			if err != nil {
				select {
				case failed <- err:
				default:
				}
			}
		})
	}
	wg.Wait()
	select {
	case err := <-failed:
		return err
	default:
		return ctx.Err()
	}
}

// progress tells on standard error how far the run is: in one line that changes if
// that is a terminal, else in a line every few seconds.
type progress struct {
	verbose  bool
	terminal bool

	mu     sync.Mutex
	total  int
	count  int
	failed int
	phase  string
	last   time.Time
}

func newProgress(total int, verbose bool) *progress {
	info, err := os.Stderr.Stat()
	return &progress{
		verbose:  verbose,
		terminal: err == nil && info.Mode()&os.ModeCharDevice != 0,
		total:    total,
		phase:    "checked",
		last:     time.Now(),
	}
}

// again begins the second phase.
func (p *progress) again(total int) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.phase = "checked again, alone,"
	p.total, p.count, p.failed = total, 0, 0
	p.last = time.Time{}
}

func (p *progress) begin(c *cell) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.line(c.clause.ID + " on " + c.impl.name)
}

func (p *progress) done(c *cell) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.count++
	if c.failed() {
		p.failed++
	}
	if p.verbose {
		p.clear()
		fmt.Fprintf(os.Stderr, "%-4s %-18s %s  %8.3f s\n", c.result.Outcome, c.impl.name, c.clause.ID, c.result.Elapsed.Seconds())
	}
}

// line shows what is being done.
func (p *progress) line(now string) {
	text := fmt.Sprintf("%s %d of %d, %d failed; now %s", p.phase, p.count, p.total, p.failed, now)
	switch {
	case p.terminal:
		fmt.Fprintf(os.Stderr, "\r%.78s\x1b[K", text)
	case time.Since(p.last) > 5*time.Second:
		p.last = time.Now()
		fmt.Fprintln(os.Stderr, text)
	}
}

func (p *progress) clear() {
	if p.terminal {
		fmt.Fprint(os.Stderr, "\r\x1b[K")
	}
}

func (p *progress) end() {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.clear()
}
