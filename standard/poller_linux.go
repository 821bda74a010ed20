package standard

import (
	"errors"
	"os"
	"sync"
	"syscall"
	"time"
)

// poller waits for the next byte of parked connections: one epoll instance and one
// goroutine for all. The instance is itself waited for by the runtime's poller, whose
// deadline is that of the connection that may be idle for the shortest time.
type poller struct {
	t     *Transporter
	epoll *os.File
	raw   syscall.RawConn // of epoll

	mu sync.Mutex
	// Those that are parked if they may not be idle for ever, a heap by the end of their
	// time. One that is parked again, since a part of a TLS record came, has an old end.
	ends   []*accepted
	closed bool
}

// parking is a connection's place in the heap, counted from 1; 0 is none. The poller's mu
// guards it.
type parking int

// maxEvents is how many connections one system call can wake.
const maxEvents = 128

func newPoller(t *Transporter) (*poller, error) {
	epoll, raw, err := newEpoll()
	if err != nil {
		return nil, err
	}
	p := &poller{t: t, epoll: epoll, raw: raw}
	go p.run()
	return p, nil
}

// newEpoll returns an epoll instance that the runtime's poller can wait for.
func newEpoll() (*os.File, syscall.RawConn, error) {
	fd, err := syscall.EpollCreate1(syscall.EPOLL_CLOEXEC)
	if err != nil {
		return nil, nil, os.NewSyscallError("epoll_create1", err)
	}
	// Only a descriptor that does not block is given to the runtime's poller.
	if err := syscall.SetNonblock(fd, true); err != nil {
		syscall.Close(fd)
		return nil, nil, os.NewSyscallError("setnonblock", err)
	}
	f := os.NewFile(uintptr(fd), "epoll")
	raw, err := f.SyscallConn()
	if err != nil {
		f.Close()
		return nil, nil, err
	}
	return f, raw, nil
}

// run ends when the instance is closed.
func (p *poller) run() {
	events := make([]syscall.EpollEvent, maxEvents)
	for {
		n := 0
		err := p.raw.Read(func(fd uintptr) bool {
			n, _ = syscall.EpollWait(int(fd), events, 0)
			return n != 0
		})
		switch {
		case err == nil:
			p.wake(events[:max(n, 0)])
		case errors.Is(err, os.ErrDeadlineExceeded):
			p.expire()
		default:
			return
		}
	}
}

// park takes an idle connection over from its goroutine, which must not touch it
// afterwards, and reports whether it has.
func (p *poller) park(a *accepted) bool {
	a.tell(StateParked) // first, since it may be resumed at once, and the hook may block
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.closed || !a.state.CompareAndSwap(int32(StateIdle), int32(StateParked)) {
		return false
	}
	p.insert(a)
	// One event, and then none until the socket is armed again. Bytes that have come
	// already are an event, too.
	event := syscall.EpollEvent{Events: syscall.EPOLLIN | syscall.EPOLLRDHUP | oneShot}
	setID(&event, a.id)
	op := syscall.EPOLL_CTL_ADD
	if a.registered {
		op = syscall.EPOLL_CTL_MOD
	}
	err := os.ErrClosed
	if raw := socketOf(a.socket()); raw != nil {
		_ = raw.Control(func(fd uintptr) { // it fails on a closed socket only
			_ = p.raw.Control(func(epoll uintptr) {
				err = syscall.EpollCtl(int(epoll), op, int(fd), &event)
			})
		})
	}
	if err == nil {
		p.t.totals.parks.Add(1)
		a.registered = true
		return true
	}
	p.unlink(a)
	// If somebody closes it at this moment, it is theirs.
	return !a.state.CompareAndSwap(int32(StateParked), int32(StateIdle))
}

const oneShot = 1 << 30 // EPOLLONESHOT, an untyped constant

// wake gives connections a goroutine again.
func (p *poller) wake(events []syscall.EpollEvent) {
	var room [maxEvents]*accepted
	found := room[:0]
	p.t.mu.Lock()
	for i := range events {
		if a := p.t.conns[id(&events[i])]; a != nil {
			found = append(found, a)
		}
	}
	p.t.mu.Unlock()
	p.mu.Lock()
	defer p.mu.Unlock()
	for _, a := range found {
		if a.state.CompareAndSwap(int32(StateParked), int32(StateIdle)) {
			p.unlink(a)
			go p.t.resume(a)
		}
	}
}

// expire closes the connections whose idle time is over.
func (p *poller) expire() {
	var over []*accepted
	p.mu.Lock()
	now := moment()
	for len(p.ends) > 0 && p.ends[0].idleEnd() <= now {
		a := p.ends[0]
		p.unlink(a)
		if a.state.CompareAndSwap(int32(StateParked), int32(StateClosed)) {
			over = append(over, a)
		}
	}
	p.arm()
	p.mu.Unlock()
	for _, a := range over {
		p.t.expire(a)
	}
}

// remove forgets a connection that the caller has made closed.
func (p *poller) remove(a *accepted) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.unlink(a)
}

// close ends run. Nothing is parked any more.
func (p *poller) close() {
	p.mu.Lock()
	p.closed = true
	p.mu.Unlock()
	p.epoll.Close()
}

// insert puts a connection into the heap. p.mu is held.
func (p *poller) insert(a *accepted) {
	if p.t.IdleTimeout <= 0 {
		return
	}
	p.ends = append(p.ends, nil)
	p.up(len(p.ends)-1, a)
	if p.ends[0] == a {
		p.arm()
	}
}

// unlink takes a connection out of the heap, if it is in. p.mu is held. A deadline that
// then comes too early finds nothing to do.
func (p *poller) unlink(a *accepted) {
	if a.parked == 0 {
		return
	}
	i, end := int(a.parked)-1, len(p.ends)-1
	last := p.ends[end]
	p.ends[end], a.parked = nil, 0
	p.ends = p.ends[:end]
	switch {
	case last == a:
		if end == 0 {
			p.ends = nil // what many needed
		}
	case i > 0 && last.idleFrom < p.ends[(i-1)/2].idleFrom:
		p.up(i, last)
	default:
		p.down(i, last)
	}
}

// up puts a in the place i, or in that of one above it.
func (p *poller) up(i int, a *accepted) {
	for i > 0 {
		above := p.ends[(i-1)/2]
		if above.idleFrom <= a.idleFrom {
			break
		}
		p.put(i, above)
		i = (i - 1) / 2
	}
	p.put(i, a)
}

// down puts a in the place i, or in that of one below it.
func (p *poller) down(i int, a *accepted) {
	for {
		next := 2*i + 1
		if next >= len(p.ends) {
			break
		}
		if next+1 < len(p.ends) && p.ends[next+1].idleFrom < p.ends[next].idleFrom {
			next++
		}
		if a.idleFrom <= p.ends[next].idleFrom {
			break
		}
		p.put(i, p.ends[next])
		i = next
	}
	p.put(i, a)
}

func (p *poller) put(i int, a *accepted) { p.ends[i], a.parked = a, parking(i+1) }

// arm sets the deadline to the end of the first's time. p.mu is held.
func (p *poller) arm() {
	var at time.Time
	if len(p.ends) > 0 {
		at = epoch.Add(time.Duration(p.ends[0].idleEnd()))
	}
	_ = p.epoll.SetReadDeadline(at) // it fails only when closed
}
