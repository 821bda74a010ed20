package standard

func watched(w *watcher) int {
	w.mu.Lock()
	defer w.mu.Unlock()
	return len(w.conns)
}
