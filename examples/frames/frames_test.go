package main

import (
	"bytes"
	"errors"
	"io"
	"net"
	"path/filepath"
	"testing"
	"testing/iotest"

	"github.com/hertznet/hertznet/standard"
)

// What main does, for the race detector.
func TestChecks(t *testing.T) {
	if err := checkAll(t.Context()); err != nil {
		t.Fatal(err)
	}
}

// readerConn is a net.Conn to read from.
type readerConn struct {
	net.Conn
	r io.Reader
}

func (c readerConn) Read(p []byte) (int, error) { return c.r.Read(p) }

// Frames are read right wherever the stream is cut into pieces, and its end is told from
// an end within a frame.
func TestReadFrame(t *testing.T) {
	stream := append(request(echo, 1, payload(5000)), request(sum, 2, nil)...)
	for end := range len(stream) + 1 {
		near, far := net.Pipe()
		defer near.Close()
		defer far.Close()
		c := standard.NewConn(readerConn{near, iotest.HalfReader(bytes.NewReader(stream[:end]))})
		want := io.ErrUnexpectedEOF
		if end == 0 || end == headSize+5000 || end == len(stream) {
			want = io.EOF
		}
		n := 0
		for {
			f, err := readFrame(c)
			if err != nil {
				if err != want {
					t.Fatalf("a stream of %d bytes ends with %v, want %v", end, err, want)
				}
				break
			}
			n += headSize + len(f.payload)
			if !bytes.Equal(request(f.kind, f.id, f.payload), stream[n-headSize-len(f.payload):n]) {
				t.Fatalf("a stream of %d bytes has a wrong frame before byte %d", end, n)
			}
		}
		if n > end || end-n >= headSize+5000 || want == io.EOF && n != end {
			t.Fatalf("of a stream of %d bytes, %d were frames", end, n)
		}
	}
}

// A length that no frame has is an error before any more is read.
func TestReadFrameBadLength(t *testing.T) {
	for _, b := range [][]byte{{0, 0, 0, 0}, {0, 0, 0, 4}, {0, 0x10, 0, 6}, {0x80, 0, 0, 0}, {0xff, 0xff, 0xff, 0xff}} {
		near, far := net.Pipe()
		defer near.Close()
		defer far.Close()
		late := errors.New("read on")
		c := standard.NewConn(readerConn{near, io.MultiReader(bytes.NewReader(b), iotest.ErrReader(late))})
		if _, err := readFrame(c); !errors.As(err, new(lengthError)) {
			t.Errorf("length %x: %v", b, err)
		}
	}
}

func listen(t *testing.T, network string) net.Listener {
	t.Helper()
	addr := "127.0.0.1:0"
	if network == "unix" {
		addr = filepath.Join(t.TempDir(), "s")
	}
	ln, err := net.Listen(network, addr)
	if err != nil {
		t.Skip(err)
	}
	return ln
}
