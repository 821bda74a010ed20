//go:build !race

// It has no goroutines, and is slow under the race detector.

package hertznet_test

import (
	"flag"
	"testing"

	"github.com/hertznet/hertznet/internal/api"
)

var updateAPI = flag.Bool("update", false, "TestAPI writes testdata/api")

// What the packages export is what testdata/api says, on every platform.
func TestAPI(t *testing.T) {
	t.Parallel()
	report, err := api.Compare(module, *updateAPI, ".", "./network/...", "./standard", "./tlsconn")
	if err != nil {
		t.Fatal(err)
	}
	if report != "" {
		t.Errorf("%sIf this is meant, run\n\n\tgo test -run TestAPI . -update\n\nand commit testdata/api.", report)
	}
}
