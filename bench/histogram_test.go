//go:build linux && (amd64 || arm64)

package main

import (
	"math/rand/v2"
	"slices"
	"testing"
	"time"
)

// Each bucket begins where the one before ends.
func TestHistogramBuckets(t *testing.T) {
	last := bucket(1<<63 - 1)
	if last >= len(histogram{}.counts) {
		t.Fatalf("the longest duration is in bucket %d of %d", last, len(histogram{}.counts))
	}
	for i := range last {
		if d := bound(i); bucket(d) != i || bucket(d+1) != i+1 {
			t.Fatalf("bucket %d ends at %d, but that is in %d, and what follows in %d", i, d, bucket(d), bucket(d+1))
		}
	}
}

// The oracle sorts all values.
func TestHistogramQuantile(t *testing.T) {
	r := rand.New(rand.NewPCG(3, 4))
	for range 200 {
		var h histogram
		values := make([]time.Duration, 1+r.IntN(2000))
		for i := range values {
			values[i] = time.Duration(r.Uint64() >> (1 + r.IntN(63))) // of all magnitudes
			h.record(values[i])
		}
		slices.Sort(values)
		for _, q := range []float64{0, .001, .5, .9, .99, .999, 1} {
			exact := values[max(0, ceil(q*float64(len(values)))-1)]
			if got := h.quantile(q); got < exact || got-exact > exact/64 {
				t.Fatalf("quantile %g of %d values: %d, exactly %d", q, len(values), got, exact)
			}
		}
		h.reset()
		if got := h.quantile(.5); got != 0 {
			t.Fatalf("quantile of none: %d", got)
		}
	}
}

func ceil(v float64) int {
	n := 0
	for float64(n) < v {
		n++
	}
	return n
}
