package standard

import (
	"errors"
	"io"
	"math"
	"net"
	"os"
)

// copySize is the memory that ReadFrom uses, whatever it copies: two TLS records.
const copySize = 32 << 10

// partSize is how much of a file one write operation sends.
const partSize = 1 << 20

// ReadFrom flushes what is pending and then writes everything that r has [W13].
// It returns how many bytes of r were written; the end of r is no error. An error
// of r itself leaves the connection usable, and so does io.ErrNoProgress, of an r that
// returns nothing again and again. Any other error stays, a timeout as well, since
// bytes that were read from r may be lost. Each write, of at most 1 MiB, is an operation
// of its own for the write timeout.
//
// A regular file goes to a TCP socket without passing through the process where
// the system can do that (sendfile): an *os.File, also behind an
// io.LimitedReader, and also behind a reader that offers its file through
// io.WriterTo and has a method UpdateByteRange(int, int) error, as Hertz's reader
// of static files does.
func (c *Conn) ReadFrom(r io.Reader) (n int64, err error) {
	c.writeMu.Lock()
	defer c.writeMu.Unlock()
	if err := c.Flush(); err != nil {
		return 0, err
	}
	if err := c.writable(); err != nil {
		return 0, err
	}
	if nc, ok := c.nc.(*net.TCPConn); ok {
		if f, limits := fileOf(r); f != nil {
			left := int64(math.MaxInt64)
			for _, l := range limits {
				left = min(left, l.N)
			}
			n, err = c.sendFile(nc, f, left)
			for _, l := range limits {
				l.N -= n
			}
			return n, err
		}
	}
	return c.copyFrom(r)
}

// sendFile leaves the copying of up to left bytes of f to the socket.
func (c *Conn) sendFile(nc *net.TCPConn, f *os.File, left int64) (n int64, err error) {
	part := &io.LimitedReader{R: f}
	for part.N == 0 && left > n {
		part.N = min(left-n, partSize)
		m, err := c.sendPart(nc, f, part)
		n += m
		if err != nil {
			if source := fileError(f); source != nil {
				return n, source // every byte that left is counted
			}
			c.writeErr = err
			c.accepted.failed(err)
			return n, err
		}
	}
	return n, nil // part.N > 0: the file has ended
}

// fileError returns why f cannot be read where it is, or nil: the error of a
// sendfile does not tell whose it is.
func fileError(f *os.File) error {
	at, err := f.Seek(0, io.SeekCurrent)
	if err == nil {
		_, err = f.ReadAt(make([]byte, 1), at)
	}
	if err == io.EOF {
		return nil
	}
	return err
}

// sendPart is one write operation. It leaves in part.N what it did not send.
func (c *Conn) sendPart(nc *net.TCPConn, f *os.File, part *io.LimitedReader) (n int64, err error) {
	defer c.wr.end(c)
	for {
		if err := c.wr.begin(c); err != nil {
			return n, err
		}
		left := part.N
		m, err := nc.ReadFrom(part)
		n += m
		c.accepted.wrote(int(m))
		// Where sendfile cannot be used, which it cannot once the deadline has
		// passed, either, package net copies, and may have read more than it wrote.
		if unsent := left - m - part.N; unsent > 0 {
			if _, err := f.Seek(-unsent, io.SeekCurrent); err != nil {
				return n, err
			}
			part.N += unsent
		}
		if err = c.again(err); err != errAgain {
			return n, err
		}
	}
}

// copyFrom copies through a pooled block.
func (c *Conn) copyFrom(r io.Reader) (n int64, err error) {
	b := getBlock(copySize)
	defer b.drop()
	o := outputs.Get().(*output)
	defer o.free()
	for empty := 0; empty <= maxEmptyReads; empty++ {
		m, rerr := r.Read(b.buf)
		if m < 0 || m > len(b.buf) {
			return n, errors.New("standard: ReadFrom: the source returned an impossible count")
		}
		if m > 0 {
			empty = -1
			w, err := c.writeAll(o, b.buf[:m])
			c.wr.end(c)
			n += int64(w)
			if err != nil {
				c.writeErr = err // bytes of r are lost: there is no going on
				c.accepted.failed(err)
				return n, err
			}
		}
		if rerr == io.EOF {
			return n, nil
		}
		if rerr != nil {
			return n, rerr
		}
	}
	return n, io.ErrNoProgress
}

// fileOf returns the file that r reads and the limits that readers around it
// set, or nil if r is something else. A pipe or a terminal is: waiting for it is
// not writing.
func fileOf(r io.Reader) (f *os.File, limits []*io.LimitedReader) {
	for range 8 { // a reader may offer itself
		switch v := r.(type) {
		case *os.File:
			if info, err := v.Stat(); err != nil || !info.Mode().IsRegular() {
				return nil, nil
			}
			return v, limits
		case *io.LimitedReader:
			limits = append(limits, v)
			r = v.R
		case rangedFile:
			var t fileTaker
			_, _ = v.WriteTo(&t) // it fails: nothing is written here
			r = t.r
		default:
			return nil, nil
		}
	}
	return nil, nil
}

// rangedFile is a reader of a file, or of a range of it, that gives the file away
// to a writer that is an io.ReaderFrom.
type rangedFile interface {
	io.WriterTo
	UpdateByteRange(start, end int) error
}

// fileTaker looks at the reader that is offered to it and takes nothing from it.
type fileTaker struct{ r io.Reader }

var errTaken = errors.New("standard: only looking")

func (t *fileTaker) ReadFrom(r io.Reader) (int64, error) {
	t.r = r
	return 0, errTaken
}

func (t *fileTaker) Write([]byte) (int, error) { return 0, errTaken }
