//go:build linux && (amd64 || arm64)

// Command bench runs hertznet beside its peers: Hertz on its own transports, fasthttp,
// net/http, and a bare loop as the floor; an echo protocol without Hertz; and clients.
//
//	go run ./bench             # from the workspace's root: all, into docs/bench
//	go run ./bench -quick      # a look, of a minute or two
//	go run ./bench -only '^get' -peers hertznet,netpoll
//	go run ./bench -grow       # cost and memory from 1 to 10,000 connections
//
// Each measurement has a server process and a load process of its own, both of them this
// program. It runs on Linux, and ends by itself.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"log"
	"os"
	"os/signal"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"syscall"
	"time"
)

func main() {
	log.SetFlags(0)
	log.SetPrefix("bench: ")
	if done, err := child(os.Args[1:]); done {
		if err != nil {
			log.Fatalf("%s: %v", strings.Join(os.Args[1:4], " "), err)
		}
		return
	}
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	if err := run(ctx, os.Args[1:], os.Stdout, os.Stderr); err != nil && !errors.Is(err, flag.ErrHelp) {
		log.Fatal(err)
	}
}

// child is this program as a server or as the load, see process.go and load.go. It
// returns false if the arguments are a person's.
func child(args []string) (bool, error) {
	if len(args) < 4 || args[0] != "serve" && args[0] != "load" {
		return false, nil
	}
	w, err := findWorkload(args[2])
	if err != nil {
		return true, err
	}
	kind := w.kind
	if args[0] == "serve" && kind == kindClient {
		kind = kindHTTP
	}
	p, err := findPeer(args[1], kind)
	if err != nil {
		return true, err
	}
	if args[0] == "serve" {
		return true, runServer(p, w, args[3])
	}
	if len(args) != 6 {
		return true, errors.New("load takes a peer, a workload, an address and two durations")
	}
	warm, err := time.ParseDuration(args[4])
	if err != nil {
		return true, err
	}
	d, err := time.ParseDuration(args[5])
	if err != nil {
		return true, err
	}
	return true, runLoad(p, w, args[3], warm, d)
}

// defaultOut is where results go, seen from the workspace's root.
const defaultOut = "docs/bench"

// run is the command: tables go to stdout, progress to stderr.
func run(ctx context.Context, args []string, stdout, stderr io.Writer) error {
	flags := flag.NewFlagSet("bench", flag.ContinueOnError)
	flags.SetOutput(stderr)
	var s settings
	rounds := flags.Int("rounds", 3, "measurements of each peer in each workload")
	flags.DurationVar(&s.d, "d", 2*time.Second, "how long each takes")
	flags.DurationVar(&s.warm, "warm", 300*time.Millisecond, "warm-up before each")
	flags.IntVar(&s.idle, "idle", 9000, "connections of the idle workloads")
	flags.DurationVar(&s.wait, "wait", 3*time.Second, "for how long they are idle before memory is measured")
	only := flags.String("only", "", "workloads, a `regexp`")
	names := flags.String("peers", "", "peers, a comma-separated `list`; hertznet is always there")
	quick := flags.Bool("quick", false, "one short round: -rounds 1 -d 300ms -warm 100ms -idle 1000, where not given")
	grow := flags.Bool("grow", false, "measure how cost and memory grow with connections, instead")
	out := flags.String("out", defaultOut, "`folder` for the results; without it, only a whole run is written")
	if err := flags.Parse(args); err != nil {
		return err
	}
	if flags.NArg() > 0 {
		return fmt.Errorf("%q is not understood, see -help", flags.Arg(0))
	}
	given := map[string]bool{}
	var shown []string // the flags, without a path
	flags.Visit(func(f *flag.Flag) {
		given[f.Name] = true
		if f.Name != "out" {
			shown = append(shown, fmt.Sprintf("-%s=%s", f.Name, f.Value))
		}
	})
	if *quick {
		for name, value := range map[string]string{"rounds": "1", "d": "300ms", "warm": "100ms", "idle": "1000"} {
			if !given[name] {
				if err := flags.Set(name, value); err != nil {
					return err
				}
			}
		}
	}
	if *rounds < 1 || s.d <= 0 || s.warm < 0 || s.wait < 0 || s.idle < 1 {
		return errors.New("-rounds, -d and -idle must be more than 0, -warm and -wait not less")
	}
	if !given["out"] {
		if *quick || *only != "" || *names != "" {
			*out = ""
		} else if _, err := os.Stat(filepath.Dir(defaultOut)); err != nil {
			return fmt.Errorf("there is no folder %s here: run this from the workspace's root, or give -out", filepath.Dir(defaultOut))
		}
	}
	all := slices.Clone(workloads)
	for i := range all {
		if all[i].kind == kindIdle {
			all[i].conns = s.idle
		}
	}
	if *grow {
		all = growth()
	}
	todo, err := plan(all, *only, *names)
	if err != nil {
		return err
	}
	if err := checkFiles(todo); err != nil {
		return err
	}
	if s.file, err = writeFile(); s.file != "" {
		defer os.Remove(s.file)
	}
	if err != nil {
		return err
	}
	if err := measureAll(ctx, todo, *rounds, s, stderr); err != nil {
		return err
	}
	c := here(shown)
	c.settings, c.rounds = s, *rounds
	if *grow {
		return writeGrowth(stdout, *out, c, todo)
	}
	return write(stdout, *out, c, todo)
}

// plan returns an empty result for each peer in each workload that is wanted.
func plan(all []workload, only, names string) ([]result, error) {
	wanted, err := regexp.Compile(only)
	if err != nil {
		return nil, fmt.Errorf("-only: %w", err)
	}
	list := strings.Split(names, ",")
	for _, name := range list {
		if name != "" && !slices.ContainsFunc(peers, func(p peer) bool { return p.name == name }) {
			return nil, fmt.Errorf("-peers: there is no peer %q", name)
		}
	}
	var todo []result
	for _, w := range all {
		if !wanted.MatchString(w.name) {
			continue
		}
		for _, p := range peersOf(w.kind) {
			if names == "" || p.name == baseline || slices.Contains(list, p.name) {
				todo = append(todo, result{workload: w, peer: p})
			}
		}
	}
	if len(todo) == 0 {
		return nil, fmt.Errorf("-only %q: no such workload", only)
	}
	return todo, nil
}

// measureAll fills in the samples. The peers of a workload take turns, in an order that
// turns too, so that what else the machine does meets all of them.
func measureAll(ctx context.Context, todo []result, rounds int, s settings, progress io.Writer) error {
	total, done := 0, 0
	for _, r := range todo {
		if r.peer.can(r.workload) {
			total += rounds
		}
	}
	start := time.Now()
	for from := 0; from < len(todo); {
		to := from + 1
		for to < len(todo) && todo[to].workload.name == todo[from].workload.name {
			to++
		}
		group := todo[from:to]
		from = to
		for round := range rounds {
			for i := range group {
				r := &group[(i+round)%len(group)]
				if !r.peer.can(r.workload) {
					continue
				}
				got, err := measure(ctx, r.peer, r.workload, s)
				if ctx.Err() != nil {
					return errors.New("interrupted; nothing is written")
				}
				if err != nil {
					return fmt.Errorf("%s, %s: %w", r.workload.name, r.peer.name, err)
				}
				r.samples = append(r.samples, got)
				done++
				left := time.Since(start) / time.Duration(done) * time.Duration(total-done)
				fmt.Fprintf(progress, "%4d/%d, %v left  round %d/%d  %-14s %-10s %s\n", done, total, left.Round(time.Second), round+1, rounds, r.workload.name, r.peer.name, brief(r.workload, got))
			}
		}
	}
	return nil
}

// brief is a sample in a few words.
func brief(w workload, s sample) string {
	if w.kind == kindIdle {
		return fmt.Sprintf("%8s bytes a connection", number(s[each]))
	}
	return fmt.Sprintf("%8s requests/s %8s µs CPU each", number(s[rate]), number(s[cpu]))
}

// write prints the tables, and writes them to the folder with the CSV and the chart.
func write(stdout io.Writer, folder string, c conditions, results []result) error {
	if folder == "" {
		return markdown(stdout, c, results)
	}
	if err := markdown(stdout, c, results, "chart.svg"); err != nil {
		return err
	}
	return writeFiles(folder, map[string]func(io.Writer) error{
		"results.md":  func(w io.Writer) error { return markdown(w, c, results, "chart.svg") },
		"results.csv": func(w io.Writer) error { return writeCSV(w, results) },
		"chart.svg":   func(w io.Writer) error { return writeChart(w, results) },
	})
}

func writeFiles(folder string, files map[string]func(io.Writer) error) error {
	if err := os.MkdirAll(folder, 0o755); err != nil {
		return err
	}
	for name, fill := range files {
		f, err := os.Create(filepath.Join(folder, name))
		if err != nil {
			return err
		}
		err = fill(f)
		if err2 := f.Close(); err == nil {
			err = err2
		}
		if err != nil {
			return err
		}
	}
	return nil
}

// checkFiles says whether a process may have the connections of the plan.
func checkFiles(todo []result) error {
	conns := 0
	for _, r := range todo {
		conns = max(conns, r.workload.conns)
	}
	var limit syscall.Rlimit
	if err := syscall.Getrlimit(syscall.RLIMIT_NOFILE, &limit); err != nil {
		return fmt.Errorf("the limit of open files: %w", err)
	}
	if need := uint64(conns + 200); limit.Max < need {
		return fmt.Errorf("%d connections need a limit of %d open files, and it is %d: raise it with ulimit -n, or choose less with -idle or -only", conns, need, limit.Max)
	}
	return nil
}
