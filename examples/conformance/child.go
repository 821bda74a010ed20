package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"regexp"
	"runtime/debug"
	"strings"
	"time"

	"github.com/cloudwego/hertz/pkg/common/hlog"

	"github.com/hertznet/hertznet/network/networktest"
)

const (
	// childEnv has a job, as JSON, in the environment of a process that is to do it.
	childEnv = "HERTZNET_CONFORMANCE_JOB"

	// resultMark begins the line on a child's standard output that has the result: what
	// is judged may print something of its own.
	resultMark = "\x1eresult:"

	// softMemory is from where on a child's garbage collector does all it can.
	softMemory = 1 << 30

	// childTime is after how long a child is killed. The kit ends a blocked check by
	// itself before, after a minute at most and what it takes to clean up; not so
	// under the race detector, where its limits are longer.
	childTime = 80 * time.Second
)

// job is what a child process does.
type job struct {
	Impl    string // an implementation's key
	ID      string // of a clause
	Short   bool
	Verbose bool
}

// runChild does the job of a child process, if this is one.
func runChild() bool {
	text, ok := os.LookupEnv(childEnv)
	if !ok {
		return false
	}
	os.Unsetenv(childEnv)
	var j job
	if err := json.Unmarshal([]byte(text), &j); err != nil {
		fmt.Fprintln(os.Stderr, "conformance:", err)
		os.Exit(2)
	}
	limitMemory()
	debug.SetMemoryLimit(softMemory)
	hlog.SetLevel(hlog.LevelWarn)
	if !j.Verbose {
		hlog.SetOutput(io.Discard)
	}
	for _, impl := range implementations() {
		if impl.key != j.Impl {
			continue
		}
		var results []networktest.Result
		for _, part := range impl.judgedBy(j.ID) {
			results = append(results, networktest.Report(part, networktest.ReportOptions{IDs: []string{j.ID}, Short: j.Short})...)
		}
		text, err := json.Marshal(gravest(results))
		if err != nil {
			fmt.Fprintln(os.Stderr, "conformance:", err)
			os.Exit(2)
		}
		fmt.Printf("%s%s\n", resultMark, text)
	}
	os.Exit(0) // whatever still runs or hangs
	return true
}

// gravest returns the result that counts: a failure before a pass, and a pass before
// what does not apply.
func gravest(results []networktest.Result) networktest.Result {
	for _, outcome := range []networktest.Outcome{networktest.Failed, networktest.Passed} {
		for _, r := range results {
			if r.Outcome == outcome {
				return r
			}
		}
	}
	return results[0]
}

// runJob does j in a process of its own. An error says that the run itself is
// broken; a process that dies is a result.
func runJob(ctx context.Context, j job) (networktest.Result, error) {
	var r networktest.Result
	self, err := os.Executable()
	if err != nil {
		return r, err
	}
	text, err := json.Marshal(j)
	if err != nil {
		return r, err
	}
	limited, cancel := context.WithTimeout(ctx, childTime)
	defer cancel()
	cmd := exec.CommandContext(limited, self)
	cmd.Env = append(os.Environ(), childEnv+"="+string(text), "GOTRACEBACK=single")
	cmd.WaitDelay = time.Second
	var stdout, stderr bytes.Buffer
	cmd.Stdout = &stdout
	cmd.Stderr = &stderr
	if j.Verbose {
		cmd.Stderr = io.MultiWriter(&stderr, os.Stderr)
	}
	start := time.Now()
	err = cmd.Run()
	if ctx.Err() != nil {
		return r, errors.New("interrupted")
	}
	_, line, found := bytes.Cut(stdout.Bytes(), []byte(resultMark))
	switch exit := (*exec.ExitError)(nil); {
	case found:
		line, _, _ = bytes.Cut(line, []byte("\n"))
		if err := json.Unmarshal(line, &r); err != nil {
			return r, fmt.Errorf("the result of %s on %s: %w", j.ID, j.Impl, err)
		}
		return r, nil
	case err == nil:
		return r, fmt.Errorf("the check of %s on %s gave no result", j.ID, j.Impl)
	case !errors.As(err, &exit):
		return r, fmt.Errorf("the check of %s on %s did not start: %w", j.ID, j.Impl, err)
	}
	r.Outcome = networktest.Failed
	r.Elapsed = time.Since(start)
	r.Did = "the check, in a process of its own"
	r.Expected = "the process to live"
	r.Came = "it died: " + lastWords(stderr.String(), err)
	if limited.Err() != nil {
		r.Came = fmt.Sprintf("it was killed after %v", childTime)
	}
	return r, nil
}

var (
	death = regexp.MustCompile(`(?m)^(panic|fatal error|SIG[A-Z]+): ?(.*)$`)
	frame = regexp.MustCompile(`(?m)^(github\.com/\S+/([^/\s]+))\(.*\)\n\t`)
)

// lastWords is what a process said when it died, and the first two functions of a
// library that it was in.
func lastWords(stderr string, err error) string {
	at := death.FindStringIndex(stderr)
	if at == nil {
		lines := strings.Split(strings.TrimSpace(stderr), "\n")
		return strings.TrimSpace(err.Error() + ": " + strings.Join(lines[max(0, len(lines)-3):], "; "))
	}
	words := stderr[at[0]:at[1]]
	var in []string
	for _, m := range frame.FindAllStringSubmatch(stderr[at[1]:], 2) {
		in = append(in, m[2])
	}
	if len(in) > 0 {
		words += ", in " + strings.Join(in, ", called by ")
	}
	return words
}
