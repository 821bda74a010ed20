package standard

import (
	"net"
	"testing"
	"unsafe"

	"github.com/hertznet/hertznet/tlsconn"
)

// P3: what a connection is made of fits size classes of the allocator, of which one field
// more takes the next. Whoever adds one decides that it is worth so much for each of a
// million idle connections.
func TestP3_SizeOfConn(t *testing.T) {
	if unsafe.Sizeof(uintptr(0)) != 8 {
		t.Skip("the sizes are those of 64-bit systems")
	}
	for _, test := range []struct {
		what      string
		size, fit uintptr
	}{
		{"Conn", unsafe.Sizeof(Conn{}), 288},
		{"TLSConn", unsafe.Sizeof(TLSConn{}), 320},
		{"accepted", unsafe.Sizeof(accepted{}), 144},
	} {
		if test.size > test.fit {
			t.Errorf("a %s is %d bytes large, want %d at most", test.what, test.size, test.fit)
		}
	}
}

// P3: a parked connection has given back all that it needs only while it reads and writes.
func TestP3_ParkedConnHoldsNothing(t *testing.T) {
	cc, sc := tlsConfigs(t)
	for _, kind := range []string{"tcp", "tls"} {
		t.Run(kind, func(t *testing.T) {
			tr := &Transporter{ParkAfter: parkSoon}
			if kind == "tls" {
				tr.TLSConfig = sc
			}
			s := serve(t, tr, echoByte)
			c, err := net.Dial("tcp", s.addr)
			if err != nil {
				t.Fatal(err)
			}
			defer c.Close()
			if kind == "tls" {
				c = tlsconn.Client(c, cc)
			}
			for round := range byte(3) {
				askByte(t, c, 'a'+round)
				settles(t, "parked connections", 1, s.parked)
			}
			all := s.all()
			s.close(t) // so that none is resumed while it is looked at
			for _, a := range all {
				switch b := a.base; {
				case b.raw != nil:
					t.Error("it has a rawReader")
				case b.out != nil:
					t.Error("it has an output")
				case b.in.cur != nil || b.in.aside != nil:
					t.Error("it has a block")
				}
			}
		})
	}
}

// A10: what Flush has sent, or given up, is nobody's any more.
func TestA10_FlushGivesTheOutputBack(t *testing.T) {
	for _, peer := range []string{"there", "gone"} {
		t.Run(peer, func(t *testing.T) {
			nc, _ := tcpPair(t)
			c := NewConn(nc)
			if peer == "gone" {
				c.Close()
				c = NewConn(nc)
			}
			if _, err := c.WriteBinary(make([]byte, borrowFrom)); err != nil {
				t.Fatal(err)
			}
			if _, err := c.Malloc(1); err != nil {
				t.Fatal(err)
			}
			o := c.out
			if err := c.Flush(); (err != nil) != (peer == "gone") {
				t.Fatalf("Flush: %v", err)
			}
			if c.out != nil {
				t.Error("the connection keeps its output")
			}
			if o.n != 0 || o.open != nil || o.vec != nil {
				t.Error("the output keeps what it was")
			}
			if w := &o.raw; w.one != nil || w.left != 0 || w.sent != 0 || w.err != nil || w.vec != (gather{}) {
				t.Error("the output's rawWriter keeps what it sent")
			}
			for _, b := range o.pieces[:cap(o.pieces)] {
				if b != nil {
					t.Error("the output keeps a slice")
				}
			}
		})
	}
}
