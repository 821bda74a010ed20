//go:build !race

package networktest

const raceEnabled = false
