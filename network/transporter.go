package network

import "context"

// Transporter accepts connections for a server. Any goroutine may call its
// methods.
//
// A transporter with a method Listener() net.Listener tells Hertz its address
// and whether it runs: the method returns nil before the listener is open and
// the listener from then on [S1].
type Transporter interface {
	// Close stops at once: it closes the listener and every connection,
	// whatever they are doing, and ListenAndServe returns. It may be called
	// before, during and after serving, and more than once [S5, S9].
	Close() error

	// Shutdown stops accepting, closes the connections that wait for a request,
	// and waits until the others have ended [S6]. When ctx is done first, it
	// closes what is left and returns exactly ctx.Err(), which Hertz compares
	// with != [S7]. It may be called before serving, more than once, and by
	// several goroutines [S8, S16].
	Shutdown(ctx context.Context) error

	// ListenAndServe opens the listener and calls onData for each connection
	// that has something to say, each in a goroutine of its own, so that a slow
	// one delays no other [S11]. It blocks until Close or Shutdown, or until
	// listening or accepting fails for good, and then returns the reason and
	// does not panic [S4]. When a shortage or an aborted connection makes
	// accepting fail for a while, it backs off and goes on [S3].
	ListenAndServe(onData OnData) error
}

// OnData serves one connection, and returns when it has no more to do. conn is
// a [Conn] or a [StreamConn], and ctx is never nil [S2, S13]. It is cancelled
// when the peer disconnects [S17]; an implementation that cannot tell, or tells
// only if it is asked to, says so.
//
// Whatever it returns, the call is the last use of conn on the callee's part,
// unless a handler took it over. Either side may close conn, and both may
// [C5]. A panic closes this connection and no other [S10]. A transporter may
// keep a connection that has been served and waits for its next request, and
// call OnData again with it.
type OnData func(ctx context.Context, conn interface{}) error
