package networktest_test

import (
	"fmt"
	"net"
	"testing"

	"github.com/hertznet/hertznet/network"
	"github.com/hertznet/hertznet/network/networktest"
)

// Run the kit on your own Conn. In a test this is networktest.TestConn(t, mine);
// outside of go test Report gives the same answers.
func Example() {
	mine := networktest.Conn{
		// Put your own constructor in the place of Reference.
		Wrap:     func(_ testing.TB, c net.Conn) network.Conn { return networktest.Reference(c) },
		Behavior: networktest.Behavior{CopiesWriteBinary: true},
	}
	for _, r := range networktest.Report(mine, networktest.ReportOptions{IDs: []string{"R5", "R6"}}) {
		fmt.Println(r.ID, r.Outcome, r.Sentence)
	}
	// Output:
	// R5 pass Peek of a negative count is an error.
	// R6 pass A Peek that the stream ends short of returns what there is with a bare `io.EOF`.
}

// A conn that ends its streams in its own words breaks clause R6, and the Result
// says how that was found.
func ExampleReport() {
	broken := networktest.Conn{Wrap: func(_ testing.TB, c net.Conn) network.Conn {
		return ownWords{networktest.Reference(c)}
	}}
	for _, r := range networktest.Report(broken, networktest.ReportOptions{IDs: []string{"R6"}}) {
		fmt.Println(r.ID, r.Outcome)
		fmt.Println("did:", r.Did)
		fmt.Println("expected:", r.Expected)
		fmt.Println("came:", r.Came)
	}
	// Output:
	// R6 FAIL
	// did: Peek(1) of a stream that ends after 0 bytes
	// expected: the 0 bytes with a bare io.EOF
	// came: 0 bytes "" with *errors.errorString: no more bytes
}

type ownWords struct{ network.Conn }

func (c ownWords) Peek(n int) ([]byte, error) {
	p, err := c.Conn.Peek(n)
	if err != nil {
		err = fmt.Errorf("no more bytes")
	}
	return p, err
}
