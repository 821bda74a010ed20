package main

import (
	"encoding/binary"
	"fmt"
	"io"

	"github.com/hertznet/hertznet/network"
)

// A frame is, numbers in big endian:
//
//	length   4 bytes   of all that follows, 5 to 5 + maxPayload
//	type     1 byte    a kind
//	id       4 bytes   of a request; its answer has the same
//	payload  the rest
const (
	lengthSize = 4
	headSize   = lengthSize + 1 + 4
	maxPayload = 1 << 20
)

type kind byte

const (
	echo    kind = 1 + iota // a request: the answer has its payload
	sum                     // a request: the answer has the CRC-32C of its payload
	answer                  // to the request with its id
	failure                 // what is wrong with that request; with id 0, why the connection is closed
	goAway                  // of the server, id 0: send no more requests here; those on their way are answered
)

type frame struct {
	kind    kind
	id      uint32
	payload []byte // the connection's memory: valid until its Release
}

// lengthError is a length that no frame can have. Where the next frame begins is not
// known, so the connection has to be closed.
type lengthError uint32

func (n lengthError) Error() string {
	return fmt.Sprintf("a frame of length %d; it must be %d to %d", uint32(n), headSize-lengthSize, headSize-lengthSize+maxPayload)
}

// readFrame waits for the next frame and takes it off the stream. Nothing is copied. At
// the end of the stream it returns io.EOF, within a frame io.ErrUnexpectedEOF.
//
// The length is looked at before the frame is waited for, so that nobody makes us hold
// more than a frame may have.
func readFrame(r network.Reader) (frame, error) {
	b, err := r.Peek(lengthSize)
	if err != nil {
		return frame{}, within(b, err)
	}
	n := binary.BigEndian.Uint32(b)
	if n < headSize-lengthSize || n > headSize-lengthSize+maxPayload {
		return frame{}, lengthError(n)
	}
	if b, err = r.Peek(lengthSize + int(n)); err != nil {
		return frame{}, within(b, err)
	}
	if err := r.Skip(len(b)); err != nil { // b stays as it is until Release
		return frame{}, err
	}
	return frame{kind(b[4]), binary.BigEndian.Uint32(b[5:]), b[headSize:]}, nil
}

func within(b []byte, err error) error {
	if err == io.EOF && len(b) > 0 {
		return io.ErrUnexpectedEOF
	}
	return err
}

// writeFrame adds a frame to the output. The payload must not change until Flush; if it
// is what readFrame returned, Release may come before.
func writeFrame(w network.Writer, k kind, id uint32, payload []byte) error {
	head, err := w.Malloc(headSize)
	if err != nil {
		return err
	}
	putHead(head, k, id, len(payload))
	_, err = w.WriteBinary(payload)
	return err
}

// mallocFrame adds a frame whose payload of n bytes the caller fills before Flush.
func mallocFrame(w network.Writer, k kind, id uint32, n int) (payload []byte, err error) {
	b, err := w.Malloc(headSize + n)
	if err != nil {
		return nil, err
	}
	putHead(b, k, id, n)
	return b[headSize:], nil
}

func putHead(b []byte, k kind, id uint32, n int) {
	binary.BigEndian.PutUint32(b, uint32(headSize-lengthSize+n))
	b[4] = byte(k)
	binary.BigEndian.PutUint32(b[5:], id)
}
