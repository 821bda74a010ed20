package standard

import (
	"bytes"
	"context"
	"crypto/tls"
	"io"
	"net"
	"testing"
	"time"

	"github.com/hertznet/hertznet/network"
)

// holdConn joins writes until it is let go.
type holdConn struct {
	net.Conn
	hold bool
	buf  bytes.Buffer
}

func (c *holdConn) Write(p []byte) (int, error) {
	if c.hold {
		return c.buf.Write(p)
	}
	return c.Conn.Write(p)
}

// A protocol that returns idle without having waited: a second record, which crypto/tls
// holds already, is served all the same, for the socket would never tell of it.
func TestParkingDoesNotForgetARecord(t *testing.T) {
	cc, sc := tlsConfigs(t)
	s := serve(t, &Transporter{ParkAfter: parkSoon, TLSConfig: sc}, func(_ context.Context, conn any) error {
		c := conn.(*TLSConn)
		b, err := c.ReadByte()
		if err != nil {
			return err
		}
		if _, err := network.Conn(c).Write([]byte{b}); err != nil {
			return err
		}
		c.SetIdle(true)
		return nil
	})
	hc := &holdConn{Conn: dialServer(t, s)}
	c := tls.Client(hc, cc)
	askByte(t, c, 'a')
	hc.hold = true
	for _, b := range []string{"b", "c"} {
		if _, err := io.WriteString(c, b); err != nil {
			t.Fatal(err)
		}
	}
	if _, err := hc.Conn.Write(hc.buf.Bytes()); err != nil {
		t.Fatal(err)
	}
	_ = c.SetReadDeadline(time.Now().Add(5 * time.Second))
	b := make([]byte, 2)
	if n, err := io.ReadFull(c, b); string(b) != "bc" {
		t.Errorf("read %q, %v", b[:n], err)
	}
}
