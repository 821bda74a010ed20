package networktest

import (
	"flag"
	"fmt"
	"net"
	"os"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/hertznet/hertznet/network"
)

// mutant is the reference with one thing broken. A kit that does not tell it from
// a sound implementation, by the clause that it breaks and no other one, is
// worth nothing.
type mutant struct {
	id   string // the clause that must catch it
	what string // what is broken

	// also are further clauses that it cannot help breaking.
	also []string

	// wrap puts the mutant over nc.
	wrap func(nc net.Conn) network.Conn
}

var connMutants = slices.Concat(readerMutants, aliasMutants, modelMutants, resourceMutants, writerMutants, faultMutants, timeoutMutants, closeMutants)

// Each mutant fails its own clause and passes all others that are judged here, see
// judgeMutant.
func TestConnMutants(t *testing.T) {
	for _, m := range connMutants {
		t.Run(fmt.Sprint(m.id, " ", m.what), func(t *testing.T) {
			subject := Conn{
				Wrap: func(_ testing.TB, c net.Conn) network.Conn { return m.wrap(c) },
				Pair: func(t testing.TB) (network.Conn, network.Conn) {
					a, b := tcpSockets(t)
					return m.wrap(a), Reference(b)
				},
				Behavior: Behavior{CopiesWriteBinary: true},
			}
			judgeMutant(t, subject, m.id, m.also)
		})
	}
}

// long has every mutant judged by all clauses of its subject, which takes about
// half an hour: HERTZNET_LONG=1 go test -timeout 2h -run Mutants .
var long = os.Getenv("HERTZNET_LONG") != ""

const (
	// quickGroups are those whose cases take milliseconds: a mutant of one is judged by
	// all of its group, one of another group by the clauses that must catch it.
	quickGroups = "RAWF"

	// hurry is the limit of a case here. What a mutant breaks often blocks.
	hurry = 3 * time.Second
)

// counting are the clauses whose cases count what the whole process has: memory,
// goroutines, descriptors. Nothing may run beside them.
var counting = []string{"T14", "C12", "P1", "P2", "P3", "P5", "P6", "D12", "L9", "S14", "M15"}

// judgeMutant runs cases on a broken subject, of which those that are named must
// fail and the others pass.
func judgeMutant(t *testing.T, s Subject, id string, also []string) {
	if raceEnabled && !long {
		t.Skip("it is about verdicts, which the race detector delays and does not change")
	}
	want := append([]string{id}, also...)
	quick := strings.Contains(quickGroups, id[:1])
	if !long && !quick && !slices.ContainsFunc(want, func(id string) bool { return slices.Contains(counting, id) }) {
		t.Parallel()
	}
	var failed []string
	for _, k := range s.cases() {
		wanted := slices.Contains(want, k.id)
		switch {
		case wanted:
		case !long && !(quick && k.id[0] == id[0]):
			continue
		case k.id == "P1":
			continue // a mutant may allocate as it likes
		case k.id[0] == 'Z' && id[0] != 'Z':
			continue // a model may find what it was not made for
		}
		if !long && wanted {
			k.limit = hurry
		}
		r := execute(k, true)
		if r.Outcome == Failed {
			failed = append(failed, k.id)
			if !wanted {
				t.Log(r)
			}
		}
	}
	slices.Sort(failed)
	slices.Sort(want)
	if !slices.Equal(failed, want) {
		t.Errorf("failed: %s; want %s", strings.Join(failed, " "), strings.Join(want, " "))
	}
}

// Most of what runs in parallel waits: unless the caller has a wish, more may run at
// once than there are processors.
func TestMain(m *testing.M) {
	flag.Parse()
	chosen := false
	flag.Visit(func(f *flag.Flag) { chosen = chosen || f.Name == "test.parallel" })
	if !chosen {
		if err := flag.Set("test.parallel", "12"); err != nil {
			panic(err)
		}
	}
	os.Exit(m.Run())
}
