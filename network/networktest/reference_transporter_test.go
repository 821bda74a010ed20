package networktest

import (
	"context"
	"fmt"
	"testing"
	"time"

	"github.com/hertznet/hertznet/network"
)

func TestReferenceTransporter(t *testing.T) {
	TestTransporter(t, Transporter{New: func(_ testing.TB, o TransporterOptions) network.Transporter {
		return newTransporterReference(o)
	}})
}

// transporterMutant is the reference transporter with one thing broken; see mutant.
type transporterMutant struct {
	id   string
	what string
	also []string
	make func(o TransporterOptions) network.Transporter
}

// Each mutant fails its own clause, see judgeMutant.
func TestTransporterMutants(t *testing.T) {
	if !long {
		// Much of what is broken blocks for ever, and that is to be seen here.
		patience := transporterPatience
		t.Cleanup(func() { transporterPatience = patience })
		transporterPatience = time.Second
	}
	for _, m := range transporterMutants {
		t.Run(fmt.Sprint(m.id, " ", m.what), func(t *testing.T) {
			judgeMutant(t, Transporter{New: func(_ testing.TB, o TransporterOptions) network.Transporter {
				return m.make(o)
			}}, m.id, m.also)
		})
	}
}

// A declaration that is wrong is a failure.
func TestTransporterDeclaresNoDisconnect(t *testing.T) {
	s := Transporter{NoDisconnect: true, New: func(_ testing.TB, o TransporterOptions) network.Transporter {
		return newTransporterReference(o)
	}}
	t.Run("wrongly", func(t *testing.T) { judgeMutant(t, s, "S17", nil) })
	s.New = func(_ testing.TB, o TransporterOptions) network.Transporter {
		return onDataOf(o, func(_ *transporterReference, ctx context.Context, c network.Conn, onData network.OnData) error {
			return onData(context.WithoutCancel(ctx), c)
		})
	}
	for _, r := range Report(s, ReportOptions{IDs: []string{"S17"}}) {
		if r.Outcome != Passed {
			t.Error(r)
		}
	}
}

// A factory that has no setting at all makes what needs one not applicable, and
// leaves the rest.
func TestTransporterWithoutSettings(t *testing.T) {
	s := Transporter{New: func(t testing.TB, o TransporterOptions) network.Transporter {
		if o.TLS != nil || o.ReadTimeout+o.WriteTimeout+o.IdleTimeout > 0 || o.OnAccept != nil || o.OnConnect != nil || o.MaxConns > 0 || o.Logger != nil {
			t.Skip("no such setting")
		}
		return newTransporterReference(o)
	}}
	none := map[string]bool{"S11": true, "S12": true, "S13": true, "S18": true, "S19": true, "S20": true, "S21": true}
	for _, r := range Report(s, ReportOptions{Short: true}) {
		if want := none[r.ID]; (r.Outcome == NotApplicable) != want || r.Outcome == Failed {
			t.Errorf("%v: %v", r.Outcome, r)
		}
	}
}
