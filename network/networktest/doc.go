// Package networktest tells whether an implementation of the interfaces of
// package network keeps their contract, clause by clause.
//
// # Usage
//
// A test of an implementation says how to make its connections and calls the kit:
//
//	func TestConn(t *testing.T) {
//		networktest.TestConn(t, networktest.Conn{
//			Wrap: func(_ testing.TB, c net.Conn) network.Conn { return mine.NewConn(c) },
//		})
//	}
//
// An implementation with TLS needs TestConn twice: with Wrap for what is plain, and
// with a Pair over TLS, for which Behavior.PermanentWriteTimeout is declared.
// TestTLS judges what TLS adds.
//
// [TestConn], [TestTLS], [TestDialer], [TestTransporter] and [TestStreamConn] run a
// subtest for each clause that speaks of their subject, named by its id, so that
//
//	go test -run 'TestConn/R6$'
//
// runs one. A failure prints the clause, what was done, what was expected, what
// came, and the seed where random numbers had a part in it. The clauses and their
// reasons are in docs/CONTRACT.md; [Clauses] lists those of a subject.
//
// go test -short runs the same cases on less data. The environment variable
// NETWORKTEST_SEED sets the seed of the random numbers, which is each clause's own
// otherwise.
//
// # What does not apply
//
// A factory that may be nil and is, or one that calls tb.Skip, makes the cases that
// need it "not applicable": they are skipped by name, and go test -v prints why. An
// implementation that cannot be put over a net.Conn of the kit, for instance, is not
// judged by the faults of group F. So is what is optional, ReadFrom [W13], where an
// implementation has none. Without Dialer.New, Transporter.New, StreamConn.Pair, or
// both factories of a Conn, there is nothing to judge, and the kit panics.
//
// Where the contract leaves an implementation a choice, it declares what it chose,
// in [Behavior] and its like. A declared difference is checked: the case then
// demands the other behaviour.
//
// # Faults
//
// The Fault functions put a net.Conn that misbehaves in one way around any other
// one. They are what the kit uses itself, and part of it, for the tests of
// whoever uses a connection. They may be put around each other; the outermost is
// the one that the caller meets first.
//
// What is not said to be different passes through to the conn c beneath: the other
// direction, the addresses, Close, the Set methods, and CloseWrite() error and
// SetLinger(int) error, which fail if c has none. Other methods of c are hidden, so
// that nobody gets around the fault. An answer that a fault makes up and a wait that it
// adds heed Close and the deadlines: instead of them come net.ErrClosed and
// os.ErrDeadlineExceeded, in a *net.OpError. As many goroutines may use the result
// as may use c.
//
// # References
//
// [Reference] is a slow connection that is meant to be read, and [StreamPipe] does
// for stream connections what net.Pipe does for conns. [FuzzReader] and [FuzzWriter]
// drive the kit's models with a fuzzer's choices.
//
// # Outside of go test
//
// [Report] runs the same cases in any program and returns a [Result] for each;
// examples/conformance makes a table of several implementations of them.
//
// # Limitations
//
// Cases run one after the other: some count goroutines, memory or descriptors of
// the whole process, so nothing else should run beside them, and a test that calls
// the kit must not be parallel. A watchdog ends a case that is blocked, by closing
// its connections, but code that spins or holds a lock for ever stays behind, and a
// panic in a goroutine of the implementation's own takes the process down, as it
// would elsewhere. Factories should give connections that carry some megabytes a
// second. Clauses Z3 and P4 speak of the insides of one implementation and
// have no case here.
//
// The package imports nothing but the standard library and package network.
package networktest
