package seldom

import (
	"testing"
	"testing/synctest"
	"time"
)

func TestMessage(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var m Message
		due := func(after time.Duration, wantSkipped int, want bool) {
			t.Helper()
			time.Sleep(after)
			if skipped, due := m.Due(); skipped != wantSkipped || due != want {
				t.Errorf("after %v more: %d left out, %v; want %d, %v", after, skipped, due, wantSkipped, want)
			}
		}
		due(0, 0, true)
		due(0, 0, false)
		due(Pause-time.Nanosecond, 0, false)
		due(time.Nanosecond, 2, true) // a Pause after the one that was logged
		due(Pause/2, 0, false)
		due(Pause, 1, true)
		due(Pause, 0, true)
	})
}
