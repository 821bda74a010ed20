//go:build linux && (amd64 || arm64)

package main

import (
	"encoding/csv"
	"log"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
)

// The test binary is also the server and the load.
func TestMain(m *testing.M) {
	if done, err := child(os.Args[1:]); done {
		if err != nil {
			log.Fatalf("%v: %v", os.Args[1:], err)
		}
		return
	}
	os.Exit(m.Run())
}

// Every peer does every workload, and every byte of it is right.
func TestAll(t *testing.T) {
	if testing.Short() {
		t.Skip("it runs for 20 seconds")
	}
	t.Setenv("GORACE", "atexit_sleep_ms=0") // or each of 234 processes takes a second to end
	out := t.TempDir()
	var stdout, stderr strings.Builder
	if err := run(t.Context(), []string{"-rounds=1", "-d=50ms", "-warm=10ms", "-idle=60", "-wait=20ms", "-out=" + out}, &stdout, &stderr); err != nil {
		t.Fatalf("%v\n%s", err, stderr.String())
	}
	f, err := os.Open(filepath.Join(out, "results.csv"))
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	rows, err := csv.NewReader(f).ReadAll()
	if err != nil {
		t.Fatal(err)
	}
	got := map[string]float64{}
	for _, row := range rows[1:] {
		v, err := strconv.ParseFloat(row[4], 64)
		if err != nil {
			t.Fatal(err)
		}
		got[strings.Join(row[:3], " ")] = v
	}
	for _, w := range workloads {
		for _, p := range peersOf(w.kind) {
			must := []string{"rate", "cpu", "p50", "p99", "p99.9", "resident"}
			if w.kind == kindIdle {
				must = []string{"resident", "goroutines", "first_p50"}
			}
			for _, m := range must {
				key := strings.Join([]string{w.name, p.name, m}, " ")
				if v, ok := got[key]; ok != p.can(w) || ok && v <= 0 {
					t.Errorf("%s: %v, measured %v", key, v, ok)
				}
			}
		}
	}
	for _, name := range []string{"results.md", "chart.svg"} {
		if info, err := os.Stat(filepath.Join(out, name)); err != nil || info.Size() == 0 {
			t.Errorf("%s: %v", name, err)
		}
	}
}

// What cannot be done is said before anything is measured.
func TestRunRefuses(t *testing.T) {
	for args, want := range map[string]string{
		"-only=nothing":         "no such workload",
		"-only=(":               "-only",
		"-peers=nobody":         `no peer "nobody"`,
		"-rounds=0":             "must be more than 0",
		"-d=-1s":                "must be more than 0",
		"more":                  `"more" is not understood`,
		"-idle=100000000 -out=": "open files",
		"-rounds=1":             "workspace's root",
	} {
		var stdout, stderr strings.Builder
		err := run(t.Context(), strings.Fields(args), &stdout, &stderr)
		if err == nil || !strings.Contains(err.Error(), want) || strings.Contains(stderr.String(), "round 1") {
			t.Errorf("%s: error %v, want one with %q", args, err, want)
		}
	}
}
