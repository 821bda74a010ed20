package quic

import (
	"crypto/tls"
	"testing"

	"github.com/hertznet/hertznet/network"
	"github.com/hertznet/hertznet/network/networktest"
)

// Group M of the contract, over UDP on the loopback.
func TestStreamConn(t *testing.T) {
	networktest.TestStreamConn(t, networktest.StreamConn{
		Pair: func(tb testing.TB, o networktest.StreamOptions) (a, b network.StreamConn) {
			config := &Config{IdleTimeout: o.IdleTimeout, MaxStreams: int64(o.MaxStreams), MaxUniStreams: int64(o.MaxStreams)}
			if o.MaxStreams == 0 {
				config.MaxStreams, config.MaxUniStreams = 1000, 1000
			}
			return pair(tb, config)
		},
		FailedHandshake: failedHandshake,
	})
}

// failedHandshake returns the server's end of a connection that is handed out before
// the client shows the certificate that it does not have.
func failedHandshake(tb testing.TB) network.StreamConn {
	ct, st := tlsConfigs(tb)
	st.ClientAuth = tls.RequireAndVerifyClientCert
	l := listen(tb, st, &Config{EarlyData: true})
	ctx := testContext(tb)
	go func() {
		if c, err := Dial(ctx, l.Addr().String(), ct, nil); err == nil {
			<-c.Context().Done()
		}
	}()
	c, err := l.Accept(ctx)
	if err != nil {
		tb.Fatal(err)
	}
	return c
}
