package standard

import (
	"errors"
	"fmt"
	"io"
	"math"
	"math/rand/v2"
	"net"
	"os"
	"sync"
	"testing"
	"testing/synctest"
	"time"
)

// timerConn is a conn of which nothing works but the deadlines, which it records.
type timerConn struct {
	net.Conn
	mu   sync.Mutex
	at   [2]time.Time // what is set: for reading, for writing
	sets [2]int
	err  error
}

func (c *timerConn) set(i int, t time.Time) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.sets[i]++
	if c.err == nil {
		c.at[i] = t
	}
	return c.err
}

func (c *timerConn) SetReadDeadline(t time.Time) error  { return c.set(0, t) }
func (c *timerConn) SetWriteDeadline(t time.Time) error { return c.set(1, t) }

func (c *timerConn) get(i int) (time.Time, int) {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.at[i], c.sets[i]
}

// boundDeadline is a deadline of a Conn, with its Conn.
type boundDeadline struct {
	*deadline
	c *Conn
}

// deadlineOver returns a deadline of a Conn over nc.
func deadlineOver(nc net.Conn, write, exact bool) boundDeadline {
	c := &Conn{nc: nc}
	d := boundDeadline{&c.rd, c}
	if write {
		d.deadline = &c.wr
	}
	d.write = write
	d.mark(timerExact, exact)
	return d
}

func (d boundDeadline) begin() error                     { return d.deadline.begin(d.c) }
func (d boundDeadline) end()                             { d.deadline.end(d.c) }
func (d boundDeadline) beginShake() error                { return d.deadline.beginShake(d.c) }
func (d boundDeadline) endShake()                        { d.deadline.endShake(d.c) }
func (d boundDeadline) expired() (bool, error)           { return d.deadline.expired(d.c) }
func (d boundDeadline) setTimeout(t time.Duration) error { return d.deadline.setTimeout(d.c, t) }
func (d boundDeadline) setDeadline(t time.Time) error    { return d.deadline.setDeadline(d.c, t) }

// newDeadline returns that of reading over a timerConn.
func newDeadline(exact bool) (boundDeadline, *timerConn) {
	c := new(timerConn)
	return deadlineOver(c, false, exact), c
}

// wait runs one operation as a conn would: it ends when done passes, or when the
// timer that is set fires and d says that the limit has passed.
func (c *timerConn) wait(d boundDeadline, done time.Duration) error {
	if err := d.begin(); err != nil {
		return err
	}
	defer d.end()
	for arrival := time.Now().Add(done); ; {
		next := arrival
		at, _ := c.get(0)
		if !at.IsZero() && at.Before(next) {
			next = at
		}
		// A change by another goroutine must be noticed, as the runtime's poller does.
		if step := time.Until(next); step > 0 {
			time.Sleep(min(step, time.Millisecond))
			continue
		}
		if next.Equal(arrival) {
			return nil
		}
		over, err := d.expired()
		if err != nil {
			return err
		}
		if over {
			return os.ErrDeadlineExceeded
		}
	}
}

// A keep-alive connection costs one setting of a timer in a timeout, not one a
// request: an armed timer that fires early serves.
func TestT4_KeepAliveSetsOneTimerInATimeout(t *testing.T) {
	for _, tc := range []struct {
		name     string
		timeouts []time.Duration // set in turn, one for each operation
		most     int
	}{
		{"one timeout", []time.Duration{10 * time.Second}, 11},
		// The shorter one must be armed anew once in its own time, the longer
		// one again when the shorter one's timer fired during its wait.
		{"idle and read timeout in turn", []time.Duration{30 * time.Second, 10 * time.Second}, 2 * 11},
		{"none", []time.Duration{0}, 0},
	} {
		t.Run(tc.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				d, c := newDeadline(false)
				for i := range 1000 {
					if err := d.setTimeout(tc.timeouts[i%len(tc.timeouts)]); err != nil {
						t.Fatal(err)
					}
					if err := c.wait(d, 100*time.Millisecond); err != nil {
						t.Fatalf("operation %d: %v", i, err)
					}
				}
				if _, n := c.get(0); n > tc.most {
					t.Errorf("100 seconds of 1000 operations set a timer %d times, want %d at most", n, tc.most)
				}
				if _, n := c.get(1); n != 0 {
					t.Errorf("the other direction's timer was set %d times [T9]", n)
				}
			})
		})
	}
}

// deadlineModel is what deadline promises, said slowly: one limit, and the time
// from which a timeout counts.
type deadlineModel struct {
	timeout time.Duration
	at      time.Time
	start   time.Time
}

func (m *deadlineModel) due() time.Time {
	if m.timeout > 0 {
		return m.start.Add(m.timeout)
	}
	return m.at
}

// Random operations and changes of the limit, before and during an operation, end
// exactly when a slow model says, whether the timer may fire early or not [T1, T8,
// T15].
func TestT8_LastLimitWinsAgainstModel(t *testing.T) {
	for _, exact := range []bool{false, true} {
		for seed := range uint64(150) {
			t.Run(fmt.Sprintf("exact=%v/%d", exact, seed), func(t *testing.T) {
				synctest.Test(t, func(t *testing.T) { testDeadlineSchedule(t, exact, seed) })
			})
		}
	}
}

func testDeadlineSchedule(t *testing.T, exact bool, seed uint64) {
	r := rand.New(rand.NewPCG(seed, 0))
	d, c := newDeadline(exact)
	var m deadlineModel
	// Changes come in the middle of a millisecond, the rest on whole ones, so that
	// no two things happen at once.
	change := func() string {
		var err error
		var what string
		switch r.IntN(6) {
		case 0:
			m.timeout, m.at = 0, time.Time{}
			what = "no timeout"
			err = d.setTimeout(-time.Duration(r.IntN(2)))
		case 1:
			m.timeout, m.at = 0, time.Time{}
			what = "no deadline"
			err = d.setDeadline(time.Time{})
		case 2:
			m.timeout, m.at = 0, time.Now().Add(-time.Hour)
			what = "a past deadline"
			err = d.setDeadline(m.at)
		case 3:
			m.timeout, m.at = 0, time.Now().Add(time.Duration(r.IntN(100))*time.Millisecond)
			what = fmt.Sprint("the deadline in ", time.Until(m.at))
			err = d.setDeadline(m.at)
		default:
			m.timeout, m.at = time.Duration(1+r.IntN(100))*time.Millisecond, time.Time{}
			what = fmt.Sprint("the timeout ", m.timeout)
			err = d.setTimeout(m.timeout)
		}
		m.start = time.Now()
		if err != nil {
			t.Fatal(err)
		}
		return what
	}
	var log []string
	for range 20 {
		if r.IntN(3) > 0 {
			log = append(log, "set "+change())
		}
		done := time.Duration(r.IntN(100)) * time.Millisecond
		start := time.Now()
		m.start = start
		log = append(log, fmt.Sprint("wait ", done))
		ended := make(chan error, 1)
		go func() { ended <- c.wait(d, done) }()

		// The model runs beside: it ends at done or when the limit passes.
		changeAt := start.Add(time.Duration(r.IntN(200))*time.Millisecond + time.Millisecond/2)
		want := error(nil)
		end := start.Add(done)
		if due := m.due(); !due.IsZero() && due.Before(end) {
			end, want = due, os.ErrDeadlineExceeded
			if end.Before(start) {
				end = start
			}
		}
		if changeAt.Before(end) {
			time.Sleep(time.Until(changeAt))
			log = append(log, fmt.Sprintf("after %v set %s", changeAt.Sub(start), change()))
			end, want = start.Add(done), nil
			if due := m.due(); !due.IsZero() && due.Before(end) {
				end, want = due, os.ErrDeadlineExceeded
				if end.Before(changeAt) {
					end = changeAt
				}
			}
		}
		err := <-ended
		// The waiter looks once a millisecond for changes of others.
		if late := time.Since(end); err != want || late < 0 || late >= time.Millisecond {
			t.Fatalf("ended with %v after %v, want %v after %v\n%q", err, time.Since(start), want, end.Sub(start), log)
		}
		time.Sleep(time.Until(start.Add(200 * time.Millisecond)))
		if at, _ := c.get(0); exact && m.timeout > 0 && !at.IsZero() {
			t.Fatalf("an exact timer was left behind\n%q", log)
		}
	}
}

// An operation that reads many times has its timeout from the first of them, to the
// very end, however often it begins to wait.
func TestT12_OneOperationBeginsOnce(t *testing.T) {
	for _, exact := range []bool{false, true} {
		synctest.Test(t, func(t *testing.T) {
			d, _ := newDeadline(exact)
			d.setTimeout(100 * time.Millisecond)
			for range 10 {
				if err := d.begin(); err != nil {
					t.Fatal(err)
				}
				time.Sleep(10 * time.Millisecond)
			}
			if over, err := d.expired(); !over || err != nil {
				t.Errorf("exact=%v: after 100 ms expired: %v, %v", exact, over, err)
			}
			d.end()
		})
	}
}

// A timer that fires early while another goroutine changes the limit is no timeout:
// neither the old limit nor the new one has passed.
func TestT15_ChangeWhileAnEarlyTimerFires(t *testing.T) {
	for name, change := range map[string]func(d boundDeadline) error{
		"a later deadline": func(d boundDeadline) error { return d.setDeadline(time.Now().Add(time.Hour)) },
		"no deadline":      func(d boundDeadline) error { return d.setDeadline(time.Time{}) },
		"a longer timeout": func(d boundDeadline) error { return d.setTimeout(time.Hour) },
		"no timeout":       func(d boundDeadline) error { return d.setTimeout(0) },
		"a shorter one":    func(d boundDeadline) error { return d.setTimeout(time.Second) },
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				d, c := newDeadline(false)
				d.setTimeout(50 * time.Millisecond)
				if err := c.wait(d, 0); err != nil {
					t.Fatal(err)
				}
				d.setTimeout(time.Minute)
				if err := d.begin(); err != nil {
					t.Fatal(err)
				}
				time.Sleep(50 * time.Millisecond) // the first timer fires now ...
				if err := change(d); err != nil { // ... and before the operation says so
					t.Fatal(err)
				}
				if over, err := d.expired(); over || err != nil {
					t.Fatalf("expired: %v, %v; no limit has passed", over, err)
				}
				d.end()
			})
		})
	}
}

// A timeout that the conn beneath reports for reasons of its own is one: it must
// neither be waited out nor tried again for ever.
func TestR28_ForeignTimeoutIsReported(t *testing.T) {
	for _, limit := range []time.Duration{0, time.Hour, math.MaxInt64} {
		synctest.Test(t, func(t *testing.T) {
			d, _ := newDeadline(false)
			d.setTimeout(limit)
			for i := range 3 {
				if err := d.begin(); err != nil {
					t.Fatal(err)
				}
				if over, err := d.expired(); !over || err != nil {
					t.Errorf("limit %v, operation %d: expired: %v, %v", limit, i, over, err)
				}
				d.end()
				time.Sleep(time.Second)
			}
		})
	}
}

// The largest duration and the most distant times, as deadlines too, are limits that
// never pass, and no overflow on any clock; what the kit asks is that of timeouts.
func TestT13_LongestLimits(t *testing.T) {
	for name, set := range map[string]func(d boundDeadline) error{
		"MaxInt64":   func(d boundDeadline) error { return d.setTimeout(math.MaxInt64) },
		"MaxInt64-1": func(d boundDeadline) error { return d.setTimeout(math.MaxInt64 - 1) },
		"100 years":  func(d boundDeadline) error { return d.setTimeout(100 * 365 * 24 * time.Hour) },
		"year 9999":  func(d boundDeadline) error { return d.setDeadline(time.Date(9999, 1, 1, 0, 0, 0, 0, time.UTC)) },
		"the last":   func(d boundDeadline) error { return d.setDeadline(time.Unix(1<<62, 0)) },
	} {
		for _, where := range []string{"real clock", "bubble"} {
			t.Run(name+"/"+where, func(t *testing.T) {
				f := func(t *testing.T) {
					d, c := newDeadline(true)
					if err := set(d); err != nil {
						t.Fatal(err)
					}
					if err := c.wait(d, time.Millisecond); err != nil {
						t.Error(err)
					}
					d.begin()
					if at, _ := c.get(0); !at.IsZero() && time.Until(at) < 24*time.Hour {
						t.Errorf("the timer is set to %v", at)
					}
					d.end()
				}
				if where == "bubble" {
					synctest.Test(t, f)
				} else {
					f(t)
				}
			})
		}
	}
	t.Run("the distant past", func(t *testing.T) {
		for _, at := range []time.Time{time.Unix(0, 1), time.Unix(-1<<62, 0), time.Date(1, 1, 1, 0, 0, 0, 1, time.UTC)} {
			d, c := newDeadline(false)
			d.setDeadline(at)
			if err := c.wait(d, time.Hour); err != os.ErrDeadlineExceeded {
				t.Errorf("%v: %v", at, err)
			}
		}
	})
}

// Changes of the timeout between operations set no timer and allocate nothing,
// however many there are.
func TestT14_ChangesBetweenOperationsAreFree(t *testing.T) {
	d, c := newDeadline(false)
	allocs := testing.AllocsPerRun(10000, func() {
		d.setTimeout(time.Second)
		d.setTimeout(0)
	})
	if _, n := c.get(0); n != 0 || allocs != 0 {
		t.Errorf("%d timers set, %v allocations a change", n, allocs)
	}
}

// Ten thousand changes set the one timer of the conn as often as is needed, and none
// of them acts later: what is set at the end is what the last change asked for, or
// what an operation will set right when it wakes.
func TestT14_ChangesAreCounted(t *testing.T) {
	const changes = 10000
	longer := func(i int) time.Duration { return time.Hour + time.Duration(i) }
	shorter := func(i int) time.Duration { return time.Hour - time.Duration(i) }
	timeouts := func(of func(i int) time.Duration) func(boundDeadline, int) error {
		return func(d boundDeadline, i int) error { return d.setTimeout(of(i)) }
	}
	deadlines := func(d boundDeadline, i int) error { return d.setDeadline(time.Now().Add(shorter(i))) }
	const last = changes - 1
	for _, tc := range []struct {
		name          string
		exact, during bool // an operation
		change        func(d boundDeadline, i int) error
		sets          int
		at            time.Duration // what the timer is set to then; 0 is not set
		after         time.Duration // and after the operation
	}{
		{"longer timeouts during an operation", false, true, timeouts(longer), 1, longer(0), longer(0)},
		{"shorter timeouts during an operation", false, true, timeouts(shorter), changes, shorter(last), shorter(last)},
		{"deadlines during an operation", false, true, deadlines, changes, shorter(last), shorter(last)},
		{"timeouts between operations", false, false, timeouts(longer), 0, 0, longer(last)},
		{"deadlines between operations", false, false, deadlines, changes, shorter(last), shorter(last)},
		{"exact longer timeouts during an operation", true, true, timeouts(longer), changes, longer(last), 0},
		{"exact shorter timeouts during an operation", true, true, timeouts(shorter), changes, shorter(last), 0},
		{"exact deadlines during an operation", true, true, deadlines, changes, shorter(last), shorter(last)},
		{"exact timeouts between operations", true, false, timeouts(longer), 0, 0, 0},
		{"exact deadlines between operations", true, false, deadlines, changes, shorter(last), shorter(last)},
	} {
		t.Run(tc.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				d, c := newDeadline(tc.exact)
				start := time.Now()
				check := func(when string, sets int, want time.Duration) {
					t.Helper()
					at, n := c.get(0)
					if n != sets {
						t.Errorf("%s: the timer was set %d times, want %d", when, n, sets)
					}
					if want == 0 && !at.IsZero() || want != 0 && !at.Equal(start.Add(want)) {
						t.Errorf("%s: the timer is set to the start and %v, want %v", when, at.Sub(start), want)
					}
				}
				if tc.during {
					if err := d.begin(); err != nil {
						t.Fatal(err)
					}
				}
				for i := range changes {
					if err := tc.change(d, i); err != nil {
						t.Fatal(err)
					}
				}
				check("after the changes", tc.sets, tc.at)
				sets := tc.sets
				if !tc.during {
					if err := d.begin(); err != nil {
						t.Fatal(err)
					}
					if tc.at == 0 {
						sets++ // now it is needed
					}
				}
				d.end()
				if tc.exact && tc.after == 0 {
					sets++ // lifted
				}
				check("after the operation", sets, tc.after)
				time.Sleep(24 * time.Hour) // a timer of another kind would have acted
				check("a day later", sets, tc.after)
				if _, n := c.get(1); n != 0 {
					t.Errorf("the other direction's timer was set %d times [T9]", n)
				}
			})
		})
	}
}

// An error of the conn's Set methods reaches the caller of the operation that
// wanted a timer, except that an operation on a conn that has ended says itself how.
func TestF6_TimerThatCannotBeSet(t *testing.T) {
	errSet := errors.New("no deadlines here")
	for _, tc := range []struct {
		name string
		err  error
		want error
	}{
		{"unsupported", errSet, errSet},
		{"closed socket", &net.OpError{Op: "set", Net: "tcp", Err: net.ErrClosed}, nil},
		{"closed pipe", io.ErrClosedPipe, nil},
	} {
		t.Run(tc.name, func(t *testing.T) {
			d, c := newDeadline(false)
			c.err = tc.err
			if err := d.setDeadline(time.Now().Add(time.Hour)); err != tc.err {
				t.Errorf("setDeadline: %v, want %v: the user asked for it", err, tc.err)
			}
			if err := d.setTimeout(time.Hour); err != nil {
				t.Errorf("setTimeout: %v", err)
			}
			if err := d.begin(); err != tc.want {
				t.Errorf("begin: %v, want %v", err, tc.want)
			}
			if err := d.setTimeout(time.Minute); err != tc.want {
				t.Errorf("setTimeout in an operation: %v, want %v", err, tc.want)
			}
			d.end()

			// A timer that cannot be set again must end the operation, or it spins.
			c.err = nil
			d, c = newDeadline(false)
			d.setDeadline(time.Unix(1, 0))
			d.setTimeout(time.Hour)
			c.err = tc.err
			for range 2 {
				over, err := d.expired()
				if err != tc.want {
					t.Errorf("expired: %v, want %v", err, tc.want)
				}
				if over || err != nil {
					return
				}
			}
			t.Error("expired says for ever that the timer fired early")
		})
	}
}
