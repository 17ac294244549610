package app

import (
	"net"
	"net/http"
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus"
)

// looked is how many connections are looked at to find one that can go.
const looked = 64

// connections bounds how many callers may be connected at once. Where it is full, a new one takes the place of one that
// has been idle for long; where none is idle, it is refused. It is a server's ConnState.
type connections struct {
	most int

	mu sync.Mutex
	// open holds since when each is idle; the zero time says that it is not.
	open               map[net.Conn]time.Time
	displaced, refused uint64
}

func newConnections(most int) *connections {
	return &connections{most: most, open: map[net.Conn]time.Time{}}
}

// follow implements http.Server's ConnState.
func (c *connections) follow(conn net.Conn, state http.ConnState) {
	switch state {
	case http.StateNew:
		if over := c.enter(conn); over != nil {
			hangUp(over)
		}
	case http.StateActive:
		c.set(conn, time.Time{})
	case http.StateIdle:
		c.set(conn, time.Now())
	case http.StateClosed, http.StateHijacked:
		c.leave(conn)
	}
}

// enter takes a connection in, which is idle until its first request is whole, and returns the one that has to go.
func (c *connections) enter(conn net.Conn) net.Conn {
	c.mu.Lock()
	defer c.mu.Unlock()
	if len(c.open) < c.most {
		c.open[conn] = time.Now()
		return nil
	}
	over := c.longestIdle()
	if over == nil {
		c.refused++
		return conn
	}
	c.displaced++
	delete(c.open, over)
	c.open[conn] = time.Now()
	return over
}

// longestIdle returns the longest idle of some connections, which a map gives in random order.
func (c *connections) longestIdle() net.Conn {
	var found net.Conn
	var since time.Time
	left := looked
	for conn, idle := range c.open {
		if !idle.IsZero() && (found == nil || idle.Before(since)) {
			found, since = conn, idle
		}
		if left--; left == 0 && found != nil {
			break
		}
	}
	return found
}

// set notes since when a connection is idle, unless it had to go.
func (c *connections) set(conn net.Conn, idle time.Time) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if _, ok := c.open[conn]; ok {
		c.open[conn] = idle
	}
}

func (c *connections) leave(conn net.Conn) {
	c.mu.Lock()
	defer c.mu.Unlock()
	delete(c.open, conn)
}

// hangUp closes a connection without TLS's farewell, for which it would wait.
func hangUp(conn net.Conn) {
	if secured, ok := conn.(interface{ NetConn() net.Conn }); ok {
		conn = secured.NetConn()
	}
	closeQuietly(conn)
}

// watchConnections registers what is known of the connections of the HTTP port.
func (m *metrics) watchConnections(c *connections) {
	locked := func(read func() float64) func() float64 {
		return func() float64 {
			c.mu.Lock()
			defer c.mu.Unlock()
			return read()
		}
	}
	m.registry.MustRegister(
		prometheus.NewGaugeFunc(prometheus.GaugeOpts{
			Name: "quern_http_connections", Help: "Connections that are open.",
		}, locked(func() float64 { return float64(len(c.open)) })),
		prometheus.NewGaugeFunc(prometheus.GaugeOpts{
			Name: "quern_http_connections_max", Help: "How many connections may be open.",
		}, func() float64 { return float64(c.most) }),
		prometheus.NewCounterFunc(prometheus.CounterOpts{
			Name: "quern_http_connections_displaced_total", Help: "Idle connections that were closed to make room for others.",
		}, locked(func() float64 { return float64(c.displaced) })),
		prometheus.NewCounterFunc(prometheus.CounterOpts{
			Name: "quern_http_connections_refused_total", Help: "Connections that were closed at once because all others were at work.",
		}, locked(func() float64 { return float64(c.refused) })),
	)
}
