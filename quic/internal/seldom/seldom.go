// Package seldom keeps a log from being flooded by what peers can bring about as often as
// they like.
package seldom

import (
	"sync"
	"time"
)

// Pause is how long a message of one kind is not repeated.
const Pause = 10 * time.Second

// Message is a kind of message. The zero value is one that has never been logged. Its
// method is safe for any number of goroutines.
type Message struct {
	mu      sync.Mutex
	last    time.Time
	skipped int
}

// Due reports whether the message is to be logged now, and if so how many of its kind were
// left out before it.
func (m *Message) Due() (skipped int, due bool) {
	now := time.Now()
	m.mu.Lock()
	defer m.mu.Unlock()
	if !m.last.IsZero() && now.Sub(m.last) < Pause {
		m.skipped++
		return 0, false
	}
	skipped, m.last, m.skipped = m.skipped, now, 0
	return skipped, true
}
