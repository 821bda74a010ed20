package networktest

import (
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"math"
	"net"
	"time"
)

// D3. "The timeout covers lookup, connect and TLS handshake together, and its error
// says Timeout()." Lookups are left out: a resolver that does not answer could only be
// had by changing one that the whole process uses.
func dialTimeouts(t *dialerCheck) {
	timeout := 100 * time.Millisecond
	if t.short {
		timeout = 30 * time.Millisecond
	}
	_, ways := t.dialer()

	// It covers no more than that: these are used when it has passed.
	type dialed struct {
		net.Conn
		name  string
		reads bool
	}
	var conns []dialed
	plain := t.target("tcp", "127.0.0.1:0", echoBack)
	secure := t.target("tcp", "127.0.0.1:0", t.echoTLS(kitServerConfig(t)))
	passed := time.Now()
	for _, way := range ways {
		for _, config := range []*tls.Config{nil, kitClientConfig(t)} {
			to, over := plain, ""
			if config != nil {
				to, over = secure, " with a tls.Config"
				if t.subject.NoTLS {
					continue
				}
			}
			limit := 2 * timeout
			c, err := t.dial(way, "tcp", to.addr, limit, config)
			for ; looksLikeTimeout(err) && limit < 2*time.Second; limit *= 2 { // the machine may be slow
				c, err = t.dial(way, "tcp", to.addr, 2*limit, config)
			}
			t.noError(err)
			conns = append(conns, dialed{
				Conn:  c,
				name:  fmt.Sprintf("a connection that %s has made%s, with a timeout of %v that has passed since", way.name, over, limit),
				reads: config == nil || way.name == dialConnection, // or it is the business of D13
			})
			if at := time.Now().Add(limit); at.After(passed) {
				passed = at
			}
		}
	}

	var calls []limitedCall
	if t.subject.NoTLS {
		t.refusesTLS()
	} else {
		silent := t.target("tcp", "127.0.0.1:0", sayNothing)
		dripping := t.target("tcp", "127.0.0.1:0", func(c net.Conn) { drip(c, serverHello) })
		for _, way := range ways {
			for _, to := range []struct {
				*dialTarget
				name string
			}{{silent, "never answers"}, {dripping, "sends TLS byte by byte"}} {
				calls = append(calls, limitedCall{
					fmt.Sprintf("%s(%v) with a tls.Config to a server that accepts and then %s", way.name, timeout, to.name),
					func() error {
						c, err := way.dial("tcp", to.addr, timeout, kitClientConfig(t))
						if err == nil && c != nil {
							t.track(c)
							if way.name == dialTimeout {
								return errSkipCall // it does not honour the config [D13]
							}
						}
						return err
					},
				})
			}
		}
	}
	if addr, ok := t.deafAddress(); ok {
		for _, way := range ways {
			calls = append(calls, limitedCall{
				fmt.Sprintf("%s(%v) to a listener whose backlog is full, so that no connect completes", way.name, timeout),
				func() error {
					c, err := way.dial("tcp", addr, timeout, nil)
					if err == nil && c != nil {
						t.track(c)
					}
					return err
				},
			})
		}
	}
	t.timeOut(timeout, calls, func(err error) {
		ne, ok := err.(net.Error)
		t.expect(ok, "a net.Error whose Timeout() is true", "%s", describeError(err))
		t.expect(ne.Timeout(), "a net.Error whose Timeout() is true", "Timeout() is false, and it is a %s", describeError(err))
	})

	time.Sleep(time.Until(passed))
	for _, c := range conns {
		t.step("Write on %s", c.name)
		_, err := c.Write([]byte("hello"))
		t.noError(err)
		if !c.reads {
			continue
		}
		t.step("Read on %s", c.name)
		p := make([]byte, 5)
		_, err = io.ReadFull(readerOf(c), p)
		t.noError(err)
		t.equal(p, []byte("hello"))
	}
}

// limitedCall is a call that a time limit has to end.
type limitedCall struct {
	name string
	call func() error
}

// errSkipCall says that there was nothing to judge.
var errSkipCall = errors.New("skip")

// timeOut makes the calls at once. None may end before the limit; to end long after it
// may be the machine's fault, and is tried again.
func (t *check) timeOut(limit time.Duration, calls []limitedCall, judge func(err error)) {
	const (
		late     = 1500 * time.Millisecond
		attempts = 3
	)
	for i := range attempts {
		ops, took := make([]*opErr, len(calls)), make([]time.Duration, len(calls))
		for i, c := range calls {
			ops[i] = t.spawnErr(func() error {
				start := time.Now()
				err := c.call()
				took[i] = time.Since(start)
				return err
			})
		}
		var again []limitedCall
		for j, c := range calls {
			t.step("%s", c.name)
			t.wait(ops[j].op)
			if ops[j].err == errSkipCall {
				continue
			}
			judge(ops[j].err)
			t.expect(took[j] >= limit, fmt.Sprint("not before ", limit), "after %v", took[j])
			t.expect(took[j] < late || i+1 < attempts, fmt.Sprintf("an end within %v, once in %d times", late, attempts), "after %v", took[j])
			if took[j] >= late {
				again = append(again, c)
			}
		}
		if calls = again; len(calls) == 0 {
			return
		}
	}
}

// deafAddress is one where a connect neither succeeds nor fails, or false if there is
// no way to it here.
func (t *check) deafAddress() (string, bool) {
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.track(ln)
	if err := shortenBacklog(ln.(*net.TCPListener)); err != nil {
		return "", false
	}
	for range 8 { // a backlog is a hint
		c, err := net.DialTimeout("tcp", ln.Addr().String(), 100*time.Millisecond)
		if err != nil {
			return ln.Addr().String(), looksLikeTimeout(err)
		}
		t.track(c)
	}
	return "", false
}

// D4. "A timeout of zero or less is none."
func dialsWithoutTimeout(t *dialerCheck) {
	_, ways := t.dialer()
	plain := t.target("tcp", "127.0.0.1:0", echoBack)
	secure := t.target("tcp", "127.0.0.1:0", func(c net.Conn) {
		time.Sleep(10 * time.Millisecond)
		t.echoTLS(kitServerConfig(t))(c)
	})
	for _, way := range ways {
		for _, timeout := range []time.Duration{0, -1, math.MinInt64} {
			c, err := t.dial(way, "tcp", plain.addr, timeout, nil)
			t.noError(err)
			t.echoes(c, []byte("hello"))
			if t.subject.NoTLS {
				continue
			}
			_, err = t.dial(way, "tcp", secure.addr, timeout, kitClientConfig(t))
			t.noError(err)
		}
	}
}
