package networktest

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"os"
	"runtime"
	"runtime/debug"
	"strings"
	"sync"
	"testing"
	"time"
)

// check is one run of one case. It is the testing.TB that the factories of a
// Subject get, within go test and without it.
//
// The first failure counts; what comes after it is a consequence.
type check struct {
	testing.TB // nil: it lends its unexported method, and every other one is declared here

	id    string
	short bool

	// failed is closed by the first failure, so that nothing waits for a check that
	// is over but blocked.
	failed chan struct{}

	mu       sync.Mutex
	did      string
	result   Result
	over     bool // nothing is recorded any more
	cleanups []func()
	tracked  []io.Closer
	logs     []string
	spawned  sync.WaitGroup
	ctx      context.Context
	cancel   context.CancelFunc
}

func newCheck(c Clause, short bool) *check {
	t := &check{id: c.ID, short: short, failed: make(chan struct{})}
	t.result = Result{Clause: c, Outcome: Passed}
	t.ctx, t.cancel = context.WithCancel(context.Background())
	return t
}

// step says what is done from here on, in words that a reader of a failure can
// act on: "Peek(10) with 3 bytes left in the stream".
func (t *check) step(format string, args ...any) {
	t.mu.Lock()
	t.did = fmt.Sprintf(format, args...)
	t.mu.Unlock()
}

// expect ends the check with a failure unless ok. expected is a phrase such as "3
// bytes and io.EOF"; came is formatted with args.
func (t *check) expect(ok bool, expected, came string, args ...any) {
	if !ok {
		t.fail(expected, fmt.Sprintf(came, args...))
		runtime.Goexit()
	}
}

// fail records a failure, for goroutines that must not end the check themselves.
// Once the clause was found not to apply, what such a goroutine meets in the
// connections that are closed beneath it says nothing.
func (t *check) fail(expected, came string) {
	if t.outcome() == Passed {
		t.overrule(expected, came)
	}
}

// overrule records a failure also of a check whose clause does not apply: what the
// factories and their Cleanup functions report counts in any case.
func (t *check) overrule(expected, came string) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.over || t.result.Outcome == Failed {
		return
	}
	t.result.Outcome = Failed
	t.result.Did, t.result.Expected, t.result.Came = t.did, expected, came
	close(t.failed)
}

// notApplicable ends the check: its clause does not apply to the subject.
func (t *check) notApplicable(format string, args ...any) {
	t.mu.Lock()
	if !t.over && t.result.Outcome == Passed {
		t.result.Outcome = NotApplicable
		t.result.Came = fmt.Sprintf(format, args...)
	}
	t.mu.Unlock()
	runtime.Goexit()
}

// ended reports whether the check has a verdict that ends it.
func (t *check) ended() bool { return t.outcome() != Passed }

// measured notes a figure that a person may want to see though nothing failed.
func (t *check) measured(format string, args ...any) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.result.Outcome == Passed {
		t.result.Came = fmt.Sprintf(format, args...)
	}
}

// rand returns the check's random numbers. The seed is the clause's own, or that
// of the environment variable NETWORKTEST_SEED, and a failure prints it.
func (t *check) rand() *rand.Rand {
	seed := seedOf(t.id)
	t.mu.Lock()
	t.result.Seed = seed
	t.mu.Unlock()
	return rand.New(rand.NewPCG(seed, 0))
}

// track has the watchdog close c when the check is blocked, and the end of the
// check in any case. What comes when all is over is closed at once.
func (t *check) track(c io.Closer) {
	t.mu.Lock()
	over := t.over
	if !over {
		t.tracked = append(t.tracked, c)
	}
	t.mu.Unlock()
	if over {
		defer func() { _ = recover() }()
		c.Close()
	}
}

// free closes everything that the check may be blocked on.
func (t *check) free() {
	t.cancel()
	t.mu.Lock()
	tracked := t.tracked
	t.tracked = nil
	t.mu.Unlock()
	var wg sync.WaitGroup
	for i := len(tracked) - 1; i >= 0; i-- {
		wg.Go(func() {
			defer func() { _ = recover() }() // a Close that panics has its own clause
			tracked[i].Close()
		})
	}
	waitFor(&wg, freeTime)
}

// op is a call that runs in a goroutine of its own.
type op struct{ done chan struct{} }

// spawn runs f in a goroutine. A panic in it fails the check.
func (t *check) spawn(f func()) *op {
	o := &op{make(chan struct{})}
	t.spawned.Go(func() {
		defer close(o.done)
		defer t.catch()
		f()
	})
	return o
}

// returned reports whether the call has returned.
func (o *op) returned() bool {
	select {
	case <-o.done:
		return true
	default:
		return false
	}
}

// wait blocks until the call has returned. If the check fails first, also by that
// call, wait ends the calling goroutine.
func (t *check) wait(o *op) {
	select {
	case <-o.done:
	case <-t.failed:
		runtime.Goexit() // finish frees what is blocked, and waits for it
	}
}

// catch makes a panic a failure. It must be deferred.
func (t *check) catch() {
	if p := recover(); p != nil {
		t.fail("no panic", panicText(p))
	}
}

// panicText describes the panic p, in the deferred function that recovered it.
func panicText(p any) string {
	return fmt.Sprintf("panic: %v\n%s", p, shortStack(debug.Stack()))
}

// shortStack is where a panic came from: the frames between it and the kit's own.
func shortStack(stack []byte) string {
	var out []string
	lines := strings.Split(string(stack), "\n")
	seen := false
	for i := 0; i+1 < len(lines); i++ {
		if strings.HasPrefix(lines[i], "panic(") {
			seen = true
			i++
			continue
		}
		if at, ok := strings.CutPrefix(lines[i+1], "\t"); ok && seen {
			at, _, _ = strings.Cut(at, " +0x")
			name, _, _ := strings.Cut(lines[i], "(0x")
			out = append(out, fmt.Sprintf("%s at %s", name, at))
			i++
		}
		if len(out) == 4 {
			break
		}
	}
	return strings.Join(out, "\n")
}

// The methods of testing.TB.

func (t *check) Helper()      {}
func (t *check) Name() string { return t.id }

func (t *check) Context() context.Context { return t.ctx }

func (t *check) Log(args ...any)                 { t.log(fmt.Sprintln(args...)) }
func (t *check) Logf(format string, args ...any) { t.log(fmt.Sprintf(format, args...)) }

func (t *check) log(s string) {
	t.mu.Lock()
	t.logs = append(t.logs, strings.TrimSuffix(s, "\n"))
	t.mu.Unlock()
}

func (t *check) Output() io.Writer { return logWriter{t} }

type logWriter struct{ t *check }

func (w logWriter) Write(p []byte) (int, error) {
	w.t.log(string(p))
	return len(p), nil
}

func (t *check) Attr(key, value string) { t.Logf("%s=%s", key, value) }

func (t *check) Fail() { t.overrule("the factory or the hook to succeed", "it called Fail") }

func (t *check) FailNow() {
	t.Fail()
	runtime.Goexit()
}

func (t *check) Error(args ...any) {
	t.overrule("success", strings.TrimSuffix(fmt.Sprintln(args...), "\n"))
}

func (t *check) Errorf(format string, args ...any) {
	t.overrule("success", fmt.Sprintf(format, args...))
}

func (t *check) Fatal(args ...any) {
	t.Error(args...)
	runtime.Goexit()
}

func (t *check) Fatalf(format string, args ...any) {
	t.Errorf(format, args...)
	runtime.Goexit()
}

func (t *check) Failed() bool  { return t.outcome() == Failed }
func (t *check) Skipped() bool { return t.outcome() == NotApplicable }

func (t *check) outcome() Outcome {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.result.Outcome
}

func (t *check) Skip(args ...any) {
	t.notApplicable("%s", strings.TrimSuffix(fmt.Sprintln(args...), "\n"))
}

func (t *check) Skipf(format string, args ...any) { t.notApplicable(format, args...) }
func (t *check) SkipNow()                         { t.notApplicable("the factory says so") }

func (t *check) Cleanup(f func()) {
	t.mu.Lock()
	over := t.over
	if !over {
		t.cleanups = append(t.cleanups, f)
	}
	t.mu.Unlock()
	if over {
		f() // nobody else will
	}
}

func (t *check) TempDir() string {
	// Short, since a unix socket's path has room for about a hundred bytes.
	dir, err := os.MkdirTemp("", "nt")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	return dir
}

func (t *check) ArtifactDir() string { return t.TempDir() }

func (t *check) Setenv(key, value string) {
	old, had := os.LookupEnv(key)
	if err := os.Setenv(key, value); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if had {
			os.Setenv(key, old)
		} else {
			os.Unsetenv(key)
		}
	})
}

func (t *check) Chdir(dir string) {
	old, err := os.Getwd()
	if err == nil {
		err = os.Chdir(dir)
	}
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.Chdir(old) })
}

// What checks ask of what came. Each asks for no more than its clause says: a
// timeout that a case about something else meets may have any shape.

// noError ends the check unless err is nil.
func (t *check) noError(err error) {
	t.expect(err == nil, "no error", "%s", describeError(err))
}

// equal ends the check unless got is want, byte for byte.
func (t *check) equal(got, want []byte) {
	if !bytes.Equal(got, want) {
		t.expect(false, fmt.Sprintf("%d bytes as they were sent", len(want)), "%s", describeBytes(got, want))
	}
}

// isTimeout ends the check unless err is a timeout by anybody's word. Its exact
// shape is the business of R28 and T1.
func (t *check) isTimeout(err error) {
	t.expect(looksLikeTimeout(err), "a timeout", "%s", describeError(err))
}

func looksLikeTimeout(err error) bool {
	var ne interface{ Timeout() bool }
	return errors.Is(err, os.ErrDeadlineExceeded) || errors.As(err, &ne) && ne.Timeout() ||
		err != nil && strings.Contains(strings.ToLower(err.Error()), "timeout")
}

// describeError tells an error's type and text, since both matter here.
func describeError(err error) string {
	if err == nil {
		return "no error"
	}
	return fmt.Sprintf("%T: %v", err, err)
}

// describeBytes tells how got differs from want.
func describeBytes(got, want []byte) string {
	switch {
	case got == nil:
		return "nil"
	case len(got) <= 16 && len(want) <= 16:
		return fmt.Sprintf("%d bytes %q", len(got), got)
	}
	for i := range min(len(got), len(want)) {
		if got[i] != want[i] {
			return fmt.Sprintf("%d bytes, of which byte %d is %#02x instead of %#02x", len(got), i, got[i], want[i])
		}
	}
	return fmt.Sprintf("%d bytes", len(got))
}

// pattern returns n bytes in which a shift or a loss of any length shows.
func pattern(n int) []byte {
	p := make([]byte, n)
	r := rand.NewChaCha8([32]byte{1})
	_, _ = r.Read(p)
	return p
}

// readerOf hides every method of r but Read.
func readerOf(r io.Reader) io.Reader { return struct{ io.Reader }{r} }

// feed writes p to w in a goroutine, since a conn without a buffer beneath, such
// as net.Pipe, holds up the writer until everything is read. The op ends when p
// is written or w is closed.
func (t *check) feed(w net.Conn, p []byte) *op {
	return t.spawn(func() { _, _ = w.Write(p) })
}

// feedAndClose does the same and closes w after it.
func (t *check) feedAndClose(w net.Conn, p []byte) *op {
	return t.spawn(func() {
		_, _ = w.Write(p)
		w.Close()
	})
}

// receive reads n bytes from r, or what comes before it ends, by Read alone.
func (t *check) receive(r io.Reader, n int) []byte {
	p := make([]byte, n)
	n, _ = io.ReadFull(readerOf(r), p)
	return p[:n]
}

// waitFor waits for wg, but not for ever.
func waitFor(wg *sync.WaitGroup, limit time.Duration) bool {
	done := make(chan struct{})
	go func() {
		wg.Wait()
		close(done)
	}()
	timer := time.NewTimer(limit)
	defer timer.Stop()
	select {
	case <-done:
		return true
	case <-timer.C:
		return false
	}
}

// settles waits for f to hold, for things that goroutines which are just ending
// bring about, and reports whether it came to it.
func settles(f func() bool) bool {
	for wait := time.Millisecond; wait < 2*time.Second; wait *= 2 {
		if f() {
			return true
		}
		runtime.Gosched()
		time.Sleep(wait)
	}
	return f()
}

const (
	minInt = -maxInt - 1
	maxInt = int(^uint(0) >> 1)
)
