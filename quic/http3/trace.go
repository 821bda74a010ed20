package http3

import (
	"github.com/cloudwego/hertz/pkg/common/tracer/stats"
	"github.com/cloudwego/hertz/pkg/common/tracer/traceinfo"
)

// step records the events of an exchange for tracers: one step at a time. Without tracers
// it does nothing.
type step struct {
	info traceinfo.TraceInfo // nil without tracers
	end  stats.Event         // of the step that has begun, nil if none has
}

func (s *step) start(begin, end stats.Event) {
	if s.info != nil {
		s.info.Stats().Record(begin, stats.StatusInfo, "")
		s.end = end
	}
}

func (s *step) finish(err error) {
	if s.end == nil {
		return
	}
	if err != nil {
		s.info.Stats().Record(s.end, stats.StatusError, err.Error())
	} else {
		s.info.Stats().Record(s.end, stats.StatusInfo, "")
	}
	s.end = nil
}
