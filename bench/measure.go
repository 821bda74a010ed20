//go:build linux && (amd64 || arm64)

package main

import (
	"context"
	"fmt"
	"os"
	"slices"
	"time"
)

// metric is a column of the tables.
type metric struct{ key, title, unit string }

var (
	rate       = metric{"rate", "requests/s", "1/s"}
	cpu        = metric{"cpu", "CPU µs/request", "µs"}
	user       = metric{"user", "user µs", "µs"}
	system     = metric{"system", "system µs", "µs"}
	p50        = metric{"p50", "p50 µs", "µs"}
	p99        = metric{"p99", "p99 µs", "µs"}
	p999       = metric{"p99.9", "p99.9 µs", "µs"}
	resident   = metric{"resident", "resident MiB", "MiB"}
	loadCPU    = metric{"load_cpu", "load's CPU µs", "µs"}
	each       = metric{"each", "bytes/connection", "B"}
	goroutines = metric{"goroutines", "goroutines", "1"}
	firstP50   = metric{"first_p50", "first answer p50 µs", "µs"}
	firstP99   = metric{"first_p99", "first answer p99 µs", "µs"}
)

// ratioMetrics are those that are divided by the baseline's.
var ratioMetrics = []metric{rate, cpu, each}

// columnsOf are a kind's columns in the tables, in order.
func columnsOf(kind string) []metric {
	if kind == kindIdle {
		return []metric{each, resident, goroutines, firstP50, firstP99}
	}
	columns := []metric{rate, cpu, user, system, p50, p99, p999, resident}
	if kind != kindClient {
		columns = append(columns, loadCPU)
	}
	return columns
}

// sample is one measurement: a value for each metric.
type sample map[metric]float64

// result is a peer's samples in a workload, one a round.
type result struct {
	workload workload
	peer     peer
	samples  []sample
}

// spread is what is quoted of several values.
type spread struct{ median, min, max float64 }

// spread returns that of a metric, and false if it was not measured.
func (r result) spread(m metric) (spread, bool) {
	var values []float64
	for _, s := range r.samples {
		if v, ok := s[m]; ok {
			values = append(values, v)
		}
	}
	if len(values) == 0 {
		return spread{}, false
	}
	slices.Sort(values)
	n := len(values)
	return spread{(values[(n-1)/2] + values[n/2]) / 2, values[0], values[n-1]}, true
}

// settings are what is the same for all measurements.
type settings struct {
	warm, d time.Duration
	idle    int           // connections of the idle workloads
	wait    time.Duration // how long they are idle
	file    string        // the static file
}

// measure has one sample, with a new server and a new load process.
func measure(ctx context.Context, p peer, w workload, s settings) (sample, error) {
	limit := s.warm + s.d + s.wait + 4*patience + time.Duration(w.conns)*10*time.Millisecond
	ctx, cancel := context.WithTimeout(ctx, limit)
	defer cancel()
	if w.kind == kindIdle {
		return measureIdle(ctx, p, w, s)
	}
	serves := p
	if w.kind == kindClient {
		var err error
		if serves, err = findPeer(clientsServer, kindHTTP); err != nil {
			return nil, err
		}
	}
	server, addr, err := startServer(ctx, serves, w, s.file)
	if err != nil {
		return nil, err
	}
	defer server.stop()
	load, err := spawn(ctx, "load", p.name, w.name, addr, s.warm.String(), s.d.String())
	if err != nil {
		return nil, err
	}
	defer load.stop()
	var ready string
	if err := load.read(&ready); err != nil {
		return nil, err
	}
	// Nothing is in flight before and after, so what the server uses between is for these
	// requests.
	var before, after usage
	var got loadResult
	if err := server.ask("usage", &before); err != nil {
		return nil, err
	}
	if err := load.ask("go", &got); err != nil {
		return nil, err
	}
	if err := server.ask("usage", &after); err != nil {
		return nil, err
	}
	if got.Requests == 0 {
		return nil, fmt.Errorf("not one request in %v", s.d)
	}
	spent, pid := after.since(before), server.cmd.Process.Pid
	if w.kind == kindClient {
		spent, pid = got.Usage, load.cmd.Process.Pid
	}
	rss, err := residentBytes(pid)
	if err != nil {
		return nil, err
	}
	n := float64(got.Requests)
	return sample{
		rate: n / got.Elapsed.Seconds(),
		user: micros(spent.User) / n, system: micros(spent.System) / n, cpu: micros(spent.User+spent.System) / n,
		p50: micros(got.P50), p99: micros(got.P99), p999: micros(got.P999),
		resident: float64(rss) / mebibyte,
		loadCPU:  micros(got.Usage.User+got.Usage.System) / n,
	}, nil
}

// clientsServer is what the clients that are measured talk to.
const clientsServer = "fasthttp"

func micros(d time.Duration) float64 { return float64(d) / float64(time.Microsecond) }

// writeFile makes the static file and returns its name.
func writeFile() (string, error) {
	f, err := os.CreateTemp("", "bench-*.bin")
	if err != nil {
		return "", err
	}
	_, err = f.Write(pattern(fileBytes))
	if err2 := f.Close(); err == nil {
		err = err2
	}
	return f.Name(), err
}
