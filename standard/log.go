package standard

import (
	"io"
	"log/slog"
	"runtime/debug"
	"sync"
	"time"
)

func (t *Transporter) log() *slog.Logger {
	if t.Logger != nil {
		return t.Logger
	}
	return slog.Default()
}

// quiet logs the end of a connection that peers bring about every day.
func (t *Transporter) quiet(msg string, a *accepted, err error) {
	if err == nil || err == io.EOF {
		return
	}
	t.log().Debug(msg, "remote", a.base.RemoteAddr(), "error", err)
}

// logPause is how long a message of one kind is not repeated.
const logPause = 10 * time.Second

// occasional logs what a peer can bring about as often as it likes.
type occasional struct {
	mu      sync.Mutex
	last    int64 // the moment of the last line
	skipped int
}

// warn logs the message, unless one of its kind was logged a moment ago.
func (o *occasional) warn(t *Transporter, msg string, args ...any) {
	if o.due(&args) {
		t.log().Warn(msg, args...)
	}
}

// due reports whether a message is to be logged now. If others were left out before it, it
// adds their number to its args.
func (o *occasional) due(args *[]any) bool {
	now := moment()
	o.mu.Lock()
	defer o.mu.Unlock()
	if o.last != 0 && now-o.last < int64(logPause) {
		o.skipped++
		return false
	}
	o.last = now
	if o.skipped > 0 {
		*args = append(*args, "alsoNotLogged", o.skipped)
		o.skipped = 0
	}
	return true
}

// panicked counts the panic p that was recovered, and logs it with its stack, unless one
// was logged a moment ago: a peer may know of a message that brings it about.
func (t *Transporter) panicked(o *occasional, p any, msg string, args ...any) {
	t.totals.panics.Add(1)
	if o.due(&args) {
		t.log().Error(msg, append(args, "panic", p, "stack", string(debug.Stack()))...)
	}
}
