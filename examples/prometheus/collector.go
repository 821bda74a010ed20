package main

import (
	"github.com/prometheus/client_golang/prometheus"

	"github.com/hertznet/hertznet/standard"
)

// This file is to be copied.

// collector exports the Stats of a Transporter to Prometheus. It keeps no figures of its
// own: each scrape takes one snapshot. It may be used from any goroutine.
//
// For more than one Transporter, register the collector of each with a label, by
// prometheus.WrapRegistererWith, and sum over that label: all but hertznet_buffer_bytes,
// which each reports for the whole process.
type collector struct{ stats func() standard.Stats }

var _ prometheus.Collector = collector{}

func desc(name, help string, labels ...string) *prometheus.Desc {
	return prometheus.NewDesc("hertznet_"+name, help, labels, nil)
}

// docs/OPERATIONS.md says what each figure means, and when to worry.
var (
	connections     = desc("connections", "Open connections, by state.", "state")
	closed          = desc("connections_closed_total", "Connections that have ended, by what ended them.", "reason")
	accepted        = desc("connections_accepted_total", "Connections accepted, those that were rejected included.")
	rejected        = desc("connections_rejected_total", "Connections closed at once because of a limit.")
	acceptErrors    = desc("accept_errors_total", "Errors of accept after which accepting went on.")
	parks           = desc("parks_total", "Times that an idle connection gave up its goroutine.")
	resumes         = desc("resumes_total", "Times that a parked connection got a goroutine again.")
	handshakes      = desc("tls_handshakes_total", "TLS handshakes that were completed.")
	handshakeErrors = desc("tls_handshake_errors_total", "TLS handshakes that failed.")
	panics          = desc("panics_total", "Panics recovered from hooks and handlers.")
	tooSlow         = desc("reads_too_slow_total", "Reads that MinReadRate ended.")
	overflows       = desc("reads_overflowed_total", "Reads that MaxReadBuffer ended.")
	read            = desc("read_bytes_total", "Bytes read from connections; with TLS, after decryption.")
	written         = desc("written_bytes_total", "Bytes written to connections; with TLS, before encryption.")
	flushes         = desc("flushes_total", "Flushes that had something to send.")
	writesSaved     = desc("writes_saved_total", "Writes saved by sending the pieces of a flush together.")
	bufferBytes     = desc("buffer_bytes", "Memory of hertznet's buffers in this process, in use or pooled.")
)

// Describe implements prometheus.Collector.
func (c collector) Describe(ch chan<- *prometheus.Desc) { prometheus.DescribeByCollect(c, ch) }

// Collect implements prometheus.Collector.
func (c collector) Collect(ch chan<- prometheus.Metric) {
	gauge := func(d *prometheus.Desc, v int64, labels ...string) {
		ch <- prometheus.MustNewConstMetric(d, prometheus.GaugeValue, float64(v), labels...)
	}
	counter := func(d *prometheus.Desc, v uint64, labels ...string) {
		ch <- prometheus.MustNewConstMetric(d, prometheus.CounterValue, float64(v), labels...)
	}
	s := c.stats()

	gauge(connections, int64(s.New), "new")
	gauge(connections, int64(s.Handshaking), "handshaking")
	gauge(connections, int64(s.Active), "active")
	gauge(connections, int64(s.Idle), "idle")
	gauge(connections, int64(s.Parked), "parked")
	gauge(connections, int64(s.Hijacked), "hijacked")

	counter(closed, s.ClosedByPeer, "peer")
	counter(closed, s.ClosedByHandler, "handler")
	counter(closed, s.ClosedByServer, "server")
	counter(closed, s.ClosedIdle, "idle")
	counter(closed, s.ClosedSlow, "slow")
	counter(closed, s.ClosedByError, "error")

	counter(accepted, s.Accepted)
	counter(rejected, s.Rejected)
	counter(acceptErrors, s.AcceptErrors)
	counter(parks, s.Parks)
	counter(resumes, s.Resumes)
	counter(handshakes, s.Handshakes)
	counter(handshakeErrors, s.HandshakeErrors)
	counter(panics, s.Panics)
	counter(tooSlow, s.TooSlow)
	counter(overflows, s.Overflows)
	counter(read, s.BytesRead)
	counter(written, s.BytesWritten)
	counter(flushes, s.Flushes)
	counter(writesSaved, s.WritesSaved)
	gauge(bufferBytes, s.PoolBytes)
}
