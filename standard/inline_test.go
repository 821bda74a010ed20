package standard

import (
	"os/exec"
	"regexp"
	"runtime"
	"testing"
)

// What is called for each byte, each piece or each check of a hot path costs no call.
func TestSmallFunctionsAreInlined(t *testing.T) {
	if runtime.Compiler != "gc" {
		t.Skip("only the gc compiler tells what it inlines")
	}
	if _, err := exec.LookPath("go"); err != nil {
		t.Skip(err)
	}
	want := []string{
		"(*Conn).Len", "(*Conn).Release", "(*Conn).pending", "(*Conn).readsRaw",
		"(*ring).len", "(*ring).peek", "(*ring).skip", "(*ring).commit", "(*ring).taken", "(*ring).lent", "(*ring).start",
		"(*deadline).is", "(*deadline).mark", "(*deadline).busy", "(*deadline).paceEnds",
		"(*output).borrow", "(*block).contains",
		"(*accepted).is", "(*accepted).read", "(*accepted).wrote",
		"(*pace).limit", "(*pace).ends",
	}
	out, err := exec.Command("go", "build", "-gcflags=-m", ".").CombinedOutput()
	if err != nil {
		t.Fatalf("go build: %v\n%s", err, out)
	}
	can := make(map[string]bool)
	for _, m := range regexp.MustCompile(`: can inline (\S+)`).FindAllSubmatch(out, -1) {
		can[string(m[1])] = true
	}
	for _, name := range want {
		if !can[name] {
			t.Errorf("%s is not inlined any more", name)
		}
	}
}
