package hertznet

import (
	"context"
	"log/slog"
	"strings"

	"github.com/cloudwego/hertz/pkg/common/hlog"
)

// hlogHandler is a slog.Handler that writes to Hertz's system logger, whose level
// and output it leaves to whoever configured them.
type hlogHandler struct {
	prefix string // of attributes' keys: the open groups
	attrs  string // what WithAttrs added, formatted
}

func (h hlogHandler) Enabled(context.Context, slog.Level) bool { return true }

func (h hlogHandler) Handle(_ context.Context, r slog.Record) error {
	var b strings.Builder
	b.WriteString(h.attrs)
	r.Attrs(func(a slog.Attr) bool {
		writeAttr(&b, h.prefix, a)
		return true
	})
	switch l := hlog.SystemLogger(); {
	case r.Level >= slog.LevelError:
		l.Errorf("%s%s", r.Message, b.String())
	case r.Level >= slog.LevelWarn:
		l.Warnf("%s%s", r.Message, b.String())
	case r.Level >= slog.LevelInfo:
		l.Infof("%s%s", r.Message, b.String())
	default:
		l.Debugf("%s%s", r.Message, b.String())
	}
	return nil
}

func (h hlogHandler) WithAttrs(attrs []slog.Attr) slog.Handler {
	var b strings.Builder
	b.WriteString(h.attrs)
	for _, a := range attrs {
		writeAttr(&b, h.prefix, a)
	}
	h.attrs = b.String()
	return h
}

func (h hlogHandler) WithGroup(name string) slog.Handler {
	if name != "" {
		h.prefix += name + "."
	}
	return h
}

// writeAttr appends " key=value", a group as its members.
func writeAttr(b *strings.Builder, prefix string, a slog.Attr) {
	v := a.Value.Resolve()
	switch {
	case a.Equal(slog.Attr{}):
	case v.Kind() == slog.KindGroup:
		if a.Key != "" {
			prefix += a.Key + "."
		}
		for _, member := range v.Group() {
			writeAttr(b, prefix, member)
		}
	default:
		b.WriteString(" " + prefix + a.Key + "=" + v.String())
	}
}
