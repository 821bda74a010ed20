package standard

import (
	"math/rand/v2"
	"slices"
	"testing"
	"time"
)

// The poller always knows whose idle time ends first.
func TestEndsOfParkedConnections(t *testing.T) {
	epoll, raw, err := newEpoll()
	if err != nil {
		t.Fatal(err)
	}
	defer epoll.Close()
	p := &poller{t: &Transporter{IdleTimeout: time.Hour}, epoll: epoll, raw: raw}
	in := make(map[*accepted]bool)
	r := rand.New(rand.NewPCG(1, 2))
	for i := range 20_000 {
		if len(in) == 0 || r.IntN(5) < 3-i/10_000 {
			a := &accepted{t: p.t, idleFrom: moment() + r.Int64N(1000)}
			p.insert(a)
			in[a] = true
		} else {
			for a := range in {
				p.unlink(a)
				p.unlink(a) // nothing
				delete(in, a)
				break
			}
		}
		if len(p.ends) != len(in) {
			t.Fatalf("%d are in, want %d", len(p.ends), len(in))
		}
		for j, a := range p.ends {
			if !in[a] || int(a.parked) != j+1 || j > 0 && a.idleFrom < p.ends[(j-1)/2].idleFrom {
				t.Fatalf("step %d, place %d", i, j)
			}
		}
	}
}

// A connection that is parked again keeps the moment at which its idle time began, as where a
// peer sends its TLS record a byte at a time. However many were parked since, few have to make
// way for it, since all wait for the lock meanwhile.
func TestParkingAgainMovesFew(t *testing.T) {
	const n, most = 50_000, 2 * 17 // down and up a heap of 16 levels
	epoll, raw, err := newEpoll()
	if err != nil {
		t.Fatal(err)
	}
	defer epoll.Close()
	p := &poller{t: &Transporter{IdleTimeout: time.Hour}, epoll: epoll, raw: raw}
	now := moment()
	for i := range n {
		p.insert(&accepted{t: p.t, idleFrom: now + int64(i)})
	}
	before := slices.Clone(p.ends)
	first := before[0]
	p.unlink(first)
	p.insert(first)
	moved := 0
	for i, a := range p.ends {
		if a != before[i] {
			moved++
		}
	}
	if moved > most {
		t.Errorf("of %d connections %d have another place, want %d at most", n, moved, most)
	}
}
