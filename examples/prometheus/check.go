package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"slices"
	"strings"
	"time"

	"github.com/prometheus/common/expfmt"
	"github.com/prometheus/common/model"
)

const (
	closing = 3 // requests that each close their connection
	kept    = 4 // requests on one connection that stays open
)

// check serves, makes traffic, scrapes, prints what it got to out and checks it.
func check(ctx context.Context, out io.Writer) (err error) {
	s, err := start("127.0.0.1:0")
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, s.h.Shutdown(context.Background())) }()
	ctx, cancel := context.WithTimeout(ctx, 10*time.Second)
	defer cancel()

	once := &http.Client{Transport: &http.Transport{DisableKeepAlives: true}}
	for range closing {
		if _, err := get(ctx, once, s.url+"/hello"); err != nil {
			return err
		}
	}
	// One that connects and hangs up.
	c, err := new(net.Dialer).DialContext(ctx, "tcp", strings.TrimPrefix(s.url, "http://"))
	if err != nil {
		return err
	}
	c.Close()

	keep := &http.Client{Transport: &http.Transport{}}
	defer keep.CloseIdleConnections()
	for range kept {
		if _, err := get(ctx, keep, s.url+"/hello"); err != nil {
			return err
		}
	}

	// The ends of connections are seen a moment after the clients have seen them, so
	// scrape until nothing differs.
	scraper := &http.Client{Transport: &http.Transport{}}
	defer scraper.CloseIdleConnections()
	for {
		text, err := get(ctx, scraper, s.url+"/metrics")
		if err != nil {
			return err
		}
		got, err := parse(text)
		if err != nil {
			return err
		}
		wrong := differences(got)
		if len(wrong) == 0 {
			_, err := fmt.Fprintf(out, "%s\nas expected\n", text)
			return err
		}
		select {
		case <-ctx.Done():
			return fmt.Errorf("the metrics are not as expected:\n%s\n%s", strings.Join(wrong, "\n"), text)
		case <-time.After(10 * time.Millisecond):
		}
	}
}

// get returns a page.
func get(ctx context.Context, c *http.Client, url string) (string, error) {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, url, nil)
	if err != nil {
		return "", err
	}
	resp, err := c.Do(req)
	if err != nil {
		return "", err
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(resp.Body)
	if err == nil && resp.StatusCode != http.StatusOK {
		err = fmt.Errorf("%s answered %s", url, resp.Status)
	}
	return string(body), err
}

// parse returns the value of each series, by its name as a query has it.
func parse(text string) (map[string]float64, error) {
	parser := expfmt.NewTextParser(model.LegacyValidation)
	families, err := parser.TextToMetricFamilies(strings.NewReader(text))
	if err != nil {
		return nil, fmt.Errorf("what /metrics answered is no exposition format: %w", err)
	}
	values := make(map[string]float64)
	for name, family := range families {
		for _, m := range family.Metric {
			var labels []string
			for _, l := range m.Label {
				labels = append(labels, fmt.Sprintf("%s=%q", l.GetName(), l.GetValue()))
			}
			series := name
			if len(labels) > 0 {
				series += "{" + strings.Join(labels, ",") + "}"
			}
			values[series] = m.GetCounter().GetValue() + m.GetGauge().GetValue() // it is one of them
		}
	}
	return values, nil
}

// differences says what is not as the traffic must have left it. The scrape is itself a
// request, on the last of the connections.
func differences(got map[string]float64) (wrong []string) {
	const conns = closing + 1 + 1 + 1 // the one that hung up, the kept one, the scraper's
	for series, want := range map[string]float64{
		"hertznet_connections_accepted_total":                 conns,
		"hertznet_connections_rejected_total":                 0,
		"hertznet_accept_errors_total":                        0,
		`hertznet_connections{state="new"}`:                   0,
		`hertznet_connections{state="active"}`:                1,
		`hertznet_connections_closed_total{reason="handler"}`: closing,
		`hertznet_connections_closed_total{reason="peer"}`:    1,
		`hertznet_connections_closed_total{reason="error"}`:   0,
		"hertznet_panics_total":                               0,
		"hertznet_reads_too_slow_total":                       0,
		"hertznet_reads_overflowed_total":                     0,
	} {
		if v, ok := got[series]; !ok || v != want {
			wrong = append(wrong, fmt.Sprintf("%s is %v, want %v", series, v, want))
		}
	}
	// A request here has at least 50 bytes, and an answer too.
	for series, least := range map[string]float64{
		"hertznet_read_bytes_total":    50 * (closing + kept + 1),
		"hertznet_written_bytes_total": 50 * (closing + kept),
		"hertznet_flushes_total":       closing + kept,
		"hertznet_buffer_bytes":        4096,
	} {
		if v := got[series]; v < least {
			wrong = append(wrong, fmt.Sprintf("%s is %v, want %v at least", series, v, least))
		}
	}
	// The kept one is parked when a second has gone by.
	idle, parked := `hertznet_connections{state="idle"}`, `hertznet_connections{state="parked"}`
	if v := got[idle] + got[parked]; v != 1 {
		wrong = append(wrong, fmt.Sprintf("%s and %s together are %v, want 1", idle, parked, v))
	}
	slices.Sort(wrong)
	return wrong
}
