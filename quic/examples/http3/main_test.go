package main

import (
	"context"
	"strings"
	"testing"
)

// What the program does without flags.
func TestFetch(t *testing.T) {
	if err := run(context.Background(), "", false); err != nil {
		t.Fatal(err)
	}
}

// It does not serve a certificate for development to others by accident.
func TestListenAddress(t *testing.T) {
	for _, test := range []struct {
		addr   string
		public bool
		want   string // empty: refused
	}{
		{"", false, "127.0.0.1:0"},
		{":8443", false, "127.0.0.1:8443"},
		{"localhost:8443", false, "localhost:8443"},
		{"[::1]:8443", false, "[::1]:8443"},
		{"0.0.0.0:8443", false, ""},
		{"example.com:8443", false, ""},
		{"0.0.0.0:8443", true, "0.0.0.0:8443"},
		{"8443", false, ""},
	} {
		got, err := listenAddress(test.addr, test.public)
		if got != test.want || (err == nil) != (test.want != "") {
			t.Errorf("%q, public %v: %q, %v; want %q", test.addr, test.public, got, err, test.want)
		}
		if err != nil && !strings.Contains(err.Error(), "-serve") {
			t.Errorf("%q: the error does not say which flag: %v", test.addr, err)
		}
	}
}
