package networktest_test

import (
	"context"
	"fmt"
	"io"

	"github.com/hertznet/hertznet/network/networktest"
)

// A server that sends back what it gets, without sockets.
func ExampleStreamPipe() {
	client, server := networktest.StreamPipe(networktest.StreamOptions{})
	go func() {
		for {
			s, err := server.AcceptStream(context.Background())
			if err != nil {
				return // the client has closed the connection
			}
			go func() {
				defer s.Close()
				_, _ = io.Copy(s, s)
			}()
		}
	}()

	s, err := client.OpenStreamSync(context.Background())
	if err != nil {
		fmt.Println(err)
		return
	}
	fmt.Fprint(s, "hello")
	s.Close() // the sending direction alone
	answer, err := io.ReadAll(s)
	fmt.Printf("stream %d: %s %v\n", s.StreamID(), answer, err)

	_ = client.CloseWithError(nil, "done")
	<-server.Context().Done()
	fmt.Println(context.Cause(server.Context()))
	// Output:
	// stream 0: hello <nil>
	// stream pipe: connection closed by the peer with code 0x0: done
}
