package standard_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"log"
	"time"

	"github.com/hertznet/hertznet/network"
	"github.com/hertznet/hertznet/standard"
)

const maxLine = 1000

var errLine = errors.New("the line is too long")

// peekLine waits for the next line and returns it with its newline. It is not read yet, and
// the connection's memory until Release.
func peekLine(r network.Reader) ([]byte, error) {
	for seen := 0; ; {
		b, err := r.Peek(max(r.Len(), seen+1)) // all there is, and at least one byte more
		if err != nil {
			return nil, err // then there is no new byte
		}
		if i := bytes.IndexByte(b[seen:], '\n'); i >= 0 {
			return b[:seen+i+1], nil
		}
		if seen = len(b); seen >= maxLine {
			return nil, errLine
		}
	}
}

// answerLine serves a protocol of lines: each is sent back in capitals. It waits in Peek
// for the end of a line; to return before would make the connection idle, and Shutdown
// would close it with half a line.
func answerLine(_ context.Context, conn any) error {
	c := conn.(network.Conn)
	line, err := peekLine(c)
	if err == errLine {
		c.WriteBinary([]byte("error: " + err.Error() + "\n"))
		c.Flush()
	}
	if err != nil {
		return err // closes the connection
	}
	out, err := c.Malloc(len(line))
	if err != nil {
		return err
	}
	copy(out, bytes.ToUpper(line))
	c.Skip(len(line))
	c.Release()
	return c.Flush()
}

// A protocol of lines: how to look for a delimiter with Peek, and when to give up.
func Example_lines() {
	t := &standard.Transporter{Addr: "127.0.0.1:0", ReadTimeout: time.Minute, WriteTimeout: time.Minute}
	ln, err := t.Listen()
	if err != nil {
		log.Fatal(err)
	}
	go t.Serve(ln, answerLine)
	defer t.Close()

	c, err := new(standard.Dialer).DialConnection("tcp", ln.Addr().String(), time.Second, nil)
	if err != nil {
		log.Fatal(err)
	}
	defer c.Close()
	for _, s := range []string{"hel", "lo\nand ", "more\n", string(make([]byte, maxLine))} {
		if _, err := c.Write([]byte(s)); err != nil {
			log.Fatal(err)
		}
	}
	for range 3 {
		line, err := peekLine(c)
		fmt.Printf("%s", line)
		if err != nil {
			fmt.Println(err)
		}
		c.Skip(len(line))
		c.Release()
	}
	_, err = peekLine(c)
	fmt.Println(err)
	// Output:
	// HELLO
	// AND MORE
	// error: the line is too long
	// EOF
}
