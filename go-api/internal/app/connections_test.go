package app

import (
	"errors"
	"io"
	"net"
	"net/http"
	"testing"
	"time"
)

// pipe is one end of a connection, and whether it was hung up on.
func pipe(t *testing.T) (net.Conn, func() bool) {
	t.Helper()
	server, client := net.Pipe()
	t.Cleanup(func() { _, _ = server.Close(), client.Close() })
	return server, func() bool {
		// It fails where the other end is closed.
		_ = client.SetReadDeadline(time.Now().Add(time.Millisecond))
		_, err := client.Read(make([]byte, 1))
		return errors.Is(err, io.EOF)
	}
}

func TestIdleConnectionsMakeRoom(t *testing.T) {
	c := newConnections(2)
	busy, busyGone := pipe(t)
	c.follow(busy, http.StateNew)
	c.follow(busy, http.StateActive)
	idle, idleGone := pipe(t)
	c.follow(idle, http.StateNew)
	third, thirdGone := pipe(t)
	c.follow(third, http.StateNew)
	if busyGone() || !idleGone() || thirdGone() {
		t.Errorf("gone are busy %v, idle %v, the new one %v; want the idle one", busyGone(), idleGone(), thirdGone())
	}
	// The server tells of what it was not asked to close as well.
	c.follow(idle, http.StateClosed)
	c.follow(third, http.StateActive)
	fourth, fourthGone := pipe(t)
	c.follow(fourth, http.StateNew)
	if busyGone() || thirdGone() || !fourthGone() {
		t.Error("want the new one refused while all others are at work")
	}
	c.follow(fourth, http.StateClosed)
	c.follow(third, http.StateIdle)
	c.follow(busy, http.StateClosed)
	fifth, fifthGone := pipe(t)
	c.follow(fifth, http.StateNew)
	if thirdGone() || fifthGone() || len(c.open) != 2 || c.displaced != 1 || c.refused != 1 {
		t.Errorf("open %d, displaced %d, refused %d", len(c.open), c.displaced, c.refused)
	}
}

func TestTheLongestIdleGoesFirst(t *testing.T) {
	c := newConnections(10)
	for age := range 10 {
		conn, _ := pipe(t)
		c.open[conn] = time.Now().Add(-time.Duration(age) * time.Second)
	}
	var oldest time.Time
	for _, since := range c.open {
		if oldest.IsZero() || since.Before(oldest) {
			oldest = since
		}
	}
	if got := c.open[c.longestIdle()]; !got.Equal(oldest) {
		t.Errorf("got one that is idle since %s, want %s", got, oldest)
	}
}
