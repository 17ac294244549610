package engine

import (
	"bytes"
	"context"
	"io"
	"net"
	"sync"
	"time"
)

const (
	// dataSuffix is what the path of an engine's data socket has after that of its own.
	dataSuffix = ".data"
	// claimTimeout bounds how long it takes to reach the data socket, which a result can do without.
	claimTimeout = time.Second
	// dataMost is how much of a result is taken from a data channel at once, and dataLeast what is waited for.
	dataMost  = 256 << 10
	dataLeast = 64 << 10
)

// dataBuffers has what results are read into: one for each that is being read.
var dataBuffers = sync.Pool{New: func() any { return new([dataMost]byte) }}

// dataChannel brings the bytes of a large result without gRPC's frames. That it has ended says nothing about the result:
// the stream does. A nil one has nothing.
type dataChannel struct {
	conn    net.Conn
	release func() bool
	started bool
	buffer  *[dataMost]byte
}

// claim takes an engine's offer up. It returns nil where that can't be done: the result goes on by gRPC then. The channel
// ends with ctx.
func claim(ctx context.Context, socket string, ticket []byte) *dataChannel {
	if socket == "" {
		return nil
	}
	dialer := net.Dialer{Timeout: claimTimeout}
	conn, err := dialer.DialContext(ctx, "unix", socket)
	if err != nil {
		return nil
	}
	channel := &dataChannel{conn: conn, release: context.AfterFunc(ctx, func() { _ = conn.Close() })}
	if _, err := conn.Write(ticket); err != nil {
		channel.close()
		return nil
	}
	return channel
}

// start says that the result's next bytes are the channel's.
func (d *dataChannel) start() {
	if d != nil {
		d.started = true
		d.buffer, _ = dataBuffers.Get().(*[dataMost]byte)
	}
}

// read returns the next bytes, none where the stream has what comes next. Lent ones are good until the next call.
func (d *dataChannel) read(lent bool) []byte {
	if d == nil || !d.started {
		return nil
	}
	n, err := io.ReadAtLeast(d.conn, d.buffer[:], dataLeast)
	chunk := d.buffer[:n]
	if !lent || err != nil {
		chunk = bytes.Clone(chunk)
	}
	if err != nil {
		dataBuffers.Put(d.buffer)
		d.close()
	}
	return chunk
}

// close ends the channel; twice is as good as once. A buffer that was not read to the end is not used again: net/http's
// HTTP/2 may still be sending it when the write that it was given to has failed.
func (d *dataChannel) close() {
	if d == nil {
		return
	}
	d.release()
	_ = d.conn.Close()
	d.started, d.buffer = false, nil
}
