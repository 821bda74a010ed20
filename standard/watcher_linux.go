package standard

import (
	"context"
	"net"
	"os"
	"sync"
	"syscall"
)

// edgeTriggered is EPOLLET, whose sign in package syscall depends on the processor.
const edgeTriggered = 1 << 31

// watcher cancels contexts when peers go away. It is one epoll instance that waits
// for the end of each socket and for nothing else, so a connection costs it one
// system call and no goroutine. The instance is itself waited for by the runtime's
// poller.
type watcher struct {
	epoll *os.File
	raw   syscall.RawConn // of epoll

	mu    sync.Mutex
	next  uint64
	conns map[uint64]context.CancelFunc
}

func newWatcher() (*watcher, error) {
	epoll, raw, err := newEpoll()
	if err != nil {
		return nil, err
	}
	w := &watcher{epoll: epoll, raw: raw, conns: make(map[uint64]context.CancelFunc)}
	go w.run()
	return w, nil
}

// run ends when the instance is closed.
func (w *watcher) run() {
	events := make([]syscall.EpollEvent, 64)
	for {
		n := 0
		err := w.raw.Read(func(fd uintptr) bool {
			n, _ = syscall.EpollWait(int(fd), events, 0)
			return n > 0
		})
		if err != nil {
			return
		}
		for i := range n {
			w.gone(id(&events[i]))
		}
	}
}

func (w *watcher) gone(id uint64) {
	w.mu.Lock()
	cancel := w.conns[id]
	w.mu.Unlock()
	if cancel != nil {
		cancel()
	}
}

// add has cancel called when the peer of nc goes away, until the func that it
// returns is called. It returns nil for a nc that is no socket or cannot be watched.
func (w *watcher) add(nc net.Conn, cancel context.CancelFunc) (remove func()) {
	s, ok := nc.(syscall.Conn)
	if !ok {
		return nil
	}
	raw, err := s.SyscallConn()
	if err != nil {
		return nil
	}
	w.mu.Lock()
	w.next++
	key := w.next
	w.conns[key] = cancel
	w.mu.Unlock()
	// The end of a socket is told once. A socket that has ended already is told at
	// once, and one that is closed leaves the instance by itself.
	event := syscall.EpollEvent{Events: syscall.EPOLLRDHUP | edgeTriggered}
	setID(&event, key)
	err = os.ErrClosed
	_ = raw.Control(func(fd uintptr) {
		_ = w.raw.Control(func(epoll uintptr) {
			err = syscall.EpollCtl(int(epoll), syscall.EPOLL_CTL_ADD, int(fd), &event)
		})
	})
	remove = func() {
		w.mu.Lock()
		delete(w.conns, key)
		w.mu.Unlock()
	}
	if err != nil { // the system has no memory for it, say
		remove()
		return nil
	}
	return remove
}

// endWhen closes the instance when drained is closed.
func (w *watcher) endWhen(drained <-chan struct{}) {
	go func() {
		<-drained
		w.epoll.Close()
	}()
}

// An event carries 64 bits of its owner's, which package syscall calls Fd and Pad.
func setID(e *syscall.EpollEvent, id uint64) { e.Fd, e.Pad = int32(id), int32(id>>32) }

func id(e *syscall.EpollEvent) uint64 { return uint64(uint32(e.Fd)) | uint64(uint32(e.Pad))<<32 }
