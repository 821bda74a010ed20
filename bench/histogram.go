//go:build linux && (amd64 || arm64)

package main

import (
	"math/bits"
	"sync/atomic"
	"time"
)

// histogram counts durations in buckets of at most 1/64 of their value. Any number of
// goroutines may record. The zero value is empty.
type histogram struct {
	counts [64 * buckets]atomic.Uint64
}

// buckets are those of one power of two.
const buckets = 64

func bucket(d time.Duration) int {
	v := uint64(max(0, d))
	if v < buckets {
		return int(v)
	}
	shift := bits.Len64(v) - 7 // v>>shift is 64 to 127
	return (shift+1)*buckets + int(v>>shift) - buckets
}

// bound is the largest duration of a bucket.
func bound(i int) time.Duration {
	if i < 2*buckets {
		return time.Duration(i)
	}
	shift := i/buckets - 1
	return time.Duration(uint64(i%buckets+buckets+1)<<shift - 1)
}

func (h *histogram) record(d time.Duration) { h.counts[bucket(d)].Add(1) }

// reset is not for use while others record.
func (h *histogram) reset() { clear(h.counts[:]) }

// quantile returns the bound of the bucket that has the value of rank ceil(q*n) in it, 0
// for none. q is between 0 and 1.
func (h *histogram) quantile(q float64) time.Duration {
	total := uint64(0)
	for i := range h.counts {
		total += h.counts[i].Load()
	}
	rank, seen := rankOf(q, total), uint64(0)
	for i := range h.counts {
		if seen += h.counts[i].Load(); seen >= rank && seen > 0 {
			return bound(i)
		}
	}
	return 0
}

// rankOf is which of n sorted values is the quantile, counted from 1.
func rankOf(q float64, n uint64) uint64 {
	rank := uint64(q * float64(n))
	if float64(rank) < q*float64(n) {
		rank++
	}
	return max(1, rank)
}
