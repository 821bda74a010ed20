//go:build !unix

package standard

import "net"

// canRaw: reads hold a buffer while they wait, and all else that is raw is never called.
const canRaw = false

type rawReader struct{}

func (c *Conn) readRaw([]byte, int) (int, error) { panic("unreachable: nothing is read raw") }

func (c *Conn) dropRaw() {}

const maxRawWrite, maxGather = 0, 0

type rawWriter struct{}

func (*rawWriter) init() {}

func (*rawWriter) write(*Conn, []byte) (int, error) { panic("unreachable: nothing is written raw") }

func (*rawWriter) writev(*Conn, *net.Buffers, int) (int64, error) {
	panic("unreachable: nothing is written raw")
}
