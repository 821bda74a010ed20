//go:build !linux

package standard

// poller does nothing: idle connections wait in their goroutines.
type poller struct{}

type parking struct{}

func newPoller(*Transporter) (*poller, error) { return nil, nil }

func (*poller) park(*accepted) bool { return false }
func (*poller) remove(*accepted)    {}
func (*poller) close()              {}
