package main

import (
	"bufio"
	"context"
	"crypto/sha1"
	"crypto/tls"
	"crypto/x509"
	"encoding/base64"
	"encoding/binary"
	"fmt"
	"io"
	"net"
	"net/http"
)

// rawConn is a WebSocket connection for what no client library does.
type rawConn struct {
	net.Conn
	r *bufio.Reader
}

const (
	opBinary = 2
	opPing   = 9
	final    = 0x80
	masked   = 0x80
)

// dialRaw connects and upgrades. The frames leave in one write with the request.
func (s *site) dialRaw(ctx context.Context, pool *x509.CertPool, frames []byte) (*rawConn, error) {
	const key = "dGhlIHNhbXBsZSBub25jZQ==" // of RFC 6455; it needs no secrecy here
	addr := s.listener.Addr().String()
	var c net.Conn
	var err error
	if s.tls != nil {
		c, err = (&tls.Dialer{Config: &tls.Config{RootCAs: pool}}).DialContext(ctx, "tcp", addr)
	} else {
		c, err = new(net.Dialer).DialContext(ctx, "tcp", addr)
	}
	if err != nil {
		return nil, err
	}
	request := "GET /echo HTTP/1.1\r\nHost: localhost\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n" +
		"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: " + key + "\r\n\r\n"
	if _, err := c.Write(append([]byte(request), frames...)); err != nil {
		c.Close()
		return nil, err
	}
	r := bufio.NewReader(c)
	resp, err := http.ReadResponse(r, nil)
	if err != nil {
		c.Close()
		return nil, err
	}
	sum := sha1.Sum([]byte(key + "258EAFA5-E914-47DA-95CA-C5AB0DC85B11"))
	accept := base64.StdEncoding.EncodeToString(sum[:])
	if got := resp.Header.Get("Sec-WebSocket-Accept"); resp.StatusCode != http.StatusSwitchingProtocols || got != accept {
		c.Close()
		return nil, fmt.Errorf("status %d, accept %q", resp.StatusCode, got)
	}
	return &rawConn{c, r}, nil
}

// frame returns a binary message as a client sends it. The mask is 0, so that it changes
// nothing, which no browser does.
func frame(payload []byte) []byte {
	b := []byte{final | opBinary}
	switch n := len(payload); {
	case n < 126:
		b = append(b, masked|byte(n))
	case n < 1<<16:
		b = binary.BigEndian.AppendUint16(append(b, masked|126), uint16(n))
	default:
		b = binary.BigEndian.AppendUint64(append(b, masked|127), uint64(n))
	}
	return append(append(b, 0, 0, 0, 0), payload...)
}

// readFrame returns the next message, and skips pings.
func (c *rawConn) readFrame() ([]byte, error) {
	for {
		var head [2]byte
		if _, err := io.ReadFull(c.r, head[:]); err != nil {
			return nil, err
		}
		n := uint64(head[1])
		switch n {
		case 126:
			var long [2]byte
			if _, err := io.ReadFull(c.r, long[:]); err != nil {
				return nil, err
			}
			n = uint64(binary.BigEndian.Uint16(long[:]))
		case 127:
			var long [8]byte
			if _, err := io.ReadFull(c.r, long[:]); err != nil {
				return nil, err
			}
			n = binary.BigEndian.Uint64(long[:])
		}
		if n > maxMessage {
			return nil, fmt.Errorf("a frame of %d bytes", n)
		}
		payload := make([]byte, n)
		if _, err := io.ReadFull(c.r, payload); err != nil {
			return nil, err
		}
		switch head[0] {
		case final | opBinary:
			return payload, nil
		case final | opPing:
		default:
			return nil, fmt.Errorf("a frame that begins with %#x", head[0])
		}
	}
}
