//go:build race

package networktest

// raceEnabled says that the race detector is on, under which everything takes
// longer and sync.Pool drops at random.
const raceEnabled = true
