package quic

import (
	"math"
	"testing"
	"time"
)

// Times near the end of time are as good as none.
func TestHugeTimes(t *testing.T) {
	for name, config := range map[string]*Config{
		"IdleTimeout":      {IdleTimeout: math.MaxInt64},
		"HandshakeTimeout": {HandshakeTimeout: math.MaxInt64},
		"KeepAlive":        {KeepAlive: math.MaxInt64},
	} {
		t.Run(name, func(t *testing.T) {
			client, server := pair(t, config)
			for range 3 {
				time.Sleep(100 * time.Millisecond)
				if err := server.Context().Err(); err != nil {
					t.Fatal("the server's end is over")
				}
				streams(t, client, server)
			}
		})
	}
}
