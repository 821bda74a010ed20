package main

import (
	"net/http"
	"os"
	"strings"
	"sync"
	"testing"

	"github.com/cloudwego/hertz/pkg/common/hlog"
)

func TestMain(m *testing.M) {
	hlog.SetLevel(hlog.LevelWarn)
	os.Exit(m.Run())
}

// The example itself: real requests, a real scrape.
func TestCheck(t *testing.T) {
	var out strings.Builder
	if err := check(t.Context(), &out); err != nil {
		t.Fatal(err)
	}
	if !strings.HasSuffix(out.String(), "\nas expected\n") {
		t.Errorf("it printed\n%s", &out)
	}
}

// Scrapes may overlap with one another and with anything else, and no counter falls.
func TestCountersDoNotFall(t *testing.T) {
	s, err := start("127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer s.h.Close()
	var wg sync.WaitGroup
	for range 4 {
		wg.Go(func() {
			// A connection for each request, so that they end while others are counted.
			c := &http.Client{Transport: &http.Transport{DisableKeepAlives: true}}
			before := make(map[string]float64)
			for range 20 {
				if _, err := get(t.Context(), c, s.url+"/hello"); err != nil {
					t.Error(err)
					return
				}
				text, err := get(t.Context(), c, s.url+"/metrics")
				if err != nil {
					t.Error(err)
					return
				}
				got, err := parse(text)
				if err != nil {
					t.Error(err)
					return
				}
				for series, v := range got {
					if name, _, _ := strings.Cut(series, "{"); strings.HasSuffix(name, "_total") && v < before[series] {
						t.Errorf("%s fell from %v to %v", series, before[series], v)
					}
				}
				before = got
			}
		})
	}
	wg.Wait()
}
