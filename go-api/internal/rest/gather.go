package rest

import (
	"context"
	"net"
)

// headBytes is net/http's buffer of a connection: a response's header and as much of its body as fits beside it. It
// writes that by one system call and the rest by another.
const headBytes = 4 << 10

// gatheringConn is an HTTP/1.1 connection that can hold a write back until the next one, and write both at once.
type gatheringConn struct {
	net.Conn

	hold bool
	held []byte
}

// Write implements net.Conn.
func (c *gatheringConn) Write(data []byte) (int, error) {
	if c.hold {
		c.hold = false
		c.held = append(c.held[:0], data...)
		return len(data), nil
	}
	if len(c.held) == 0 {
		return c.Conn.Write(data)
	}
	both := net.Buffers{c.held, data}
	before := int64(len(c.held))
	c.held = c.held[:0]
	written, err := both.WriteTo(c.Conn)
	return int(max(written-before, 0)), err
}

// Gather returns a listener whose connections can gather what a response is made of. The server's ConnContext must be
// [ConnContext].
func Gather(listener net.Listener) net.Listener { return gatheringListener{listener} }

type gatheringListener struct{ net.Listener }

// Accept implements net.Listener.
func (l gatheringListener) Accept() (net.Conn, error) {
	conn, err := l.Listener.Accept()
	if err != nil {
		return nil, err
	}
	return &gatheringConn{Conn: conn}, nil
}

type connKey struct{}

// ConnContext lets requests know their connection.
func ConnContext(ctx context.Context, conn net.Conn) context.Context {
	return context.WithValue(ctx, connKey{}, conn)
}

// gather lets the response's first write wait for its second. There must be one: the body is longer than headBytes.
func (ex *exchange) gather() {
	if ex.conn != nil {
		ex.conn.hold = true
	}
}
