package networktest

import (
	"testing"
	"time"

	"github.com/hertznet/hertznet/network"
)

// Dialer says how to make a dialer of the implementation under test.
type Dialer struct {
	// New returns a dialer with the settings that it has by itself.
	New func(tb testing.TB) network.Dialer

	// NoTLS declares that the implementation has no TLS: given a tls.Config, each of
	// its methods must fail and leave nothing open. The clauses that are about TLS
	// alone are not applicable if that holds.
	NoTLS bool
}

// TestDialer checks the clauses of group D.
func TestDialer(t *testing.T, d Dialer) { test(t, d) }

type dialerCheck struct {
	*check
	subject Dialer
}

type dialerCase struct {
	id    string
	limit time.Duration // 0 is defaultLimit
	run   func(t *dialerCheck)
}

func (d Dialer) cases() []boundCase {
	if d.New == nil {
		panic("networktest: a Dialer needs New")
	}
	var all []boundCase
	for _, k := range dialerCases {
		all = append(all, boundCase{k.id, k.limit, func(t *check) { k.run(&dialerCheck{t, d}) }})
	}
	return all
}
