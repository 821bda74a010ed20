// Conformance holds hertznet and Hertz's own two transports against the contract,
// clause by clause, and prints a table.
//
//	go run ./examples/conformance
//
// checks everything, which takes about two minutes.
//
//	go run ./examples/conformance -only R5,R6
//	go run ./examples/conformance -short -v
//	go run ./examples/conformance -markdown docs/CONFORMANCE.md
//
// Every cell of the table is a process of its own, with a limit on its memory and
// its time: some of what is judged here takes the process down. The exit status is 0
// unless hertznet fails a clause (1), or the run itself went wrong (2).
//
// peers.go and peers_netpoll.go have the implementations, child.go and run.go the
// processes, table.go and markdown.go the output.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"os"
	"os/signal"
	"slices"
	"strings"
	"syscall"
)

// options are what the flags say.
type options struct {
	markdown string
	only     []string
	short    bool
	verbose  bool
}

func main() {
	if runChild() {
		return
	}
	var o options
	flag.StringVar(&o.markdown, "markdown", "", "also write the table to this `file`, as Markdown")
	flag.Func("only", "check these clauses alone: `ids` such as R5,R6", func(s string) error {
		ids := strings.FieldsFunc(s, func(r rune) bool { return r == ',' || r == ' ' })
		if len(ids) == 0 {
			return errors.New("no ids")
		}
		o.only = append(o.only, ids...)
		return nil
	})
	flag.BoolVar(&o.short, "short", false, "do less of what takes long")
	flag.BoolVar(&o.verbose, "v", false, "print each result as it comes, and what the implementations log")
	flag.Parse()
	if flag.NArg() > 0 {
		fmt.Fprintf(os.Stderr, "conformance: %q is no flag; see -help\n", flag.Arg(0))
		os.Exit(2)
	}

	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	context.AfterFunc(ctx, stop) // a second interrupt kills
	failed, err := report(ctx, o)
	switch {
	case err != nil:
		fmt.Fprintln(os.Stderr, "conformance:", err)
		os.Exit(2)
	case failed:
		fmt.Fprintln(os.Stderr, "conformance: hertznet fails a clause")
		os.Exit(1)
	}
}

// report checks, prints, and reports whether hertznet failed something.
func report(ctx context.Context, o options) (failed bool, err error) {
	all, err := newTable(implementations(), o.only)
	if err != nil {
		return false, err
	}
	if err := all.run(ctx, o); err != nil {
		return false, err
	}
	if err := all.print(os.Stdout); err != nil {
		return false, err
	}
	if o.markdown != "" {
		if err := all.writeMarkdown(o.markdown); err != nil {
			return false, err
		}
	}
	return slices.ContainsFunc(all.cells(), func(c *cell) bool { return c.impl.ours && c.failed() }), nil
}
