package rest

import (
	"bytes"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"sync/atomic"
	"testing"
)

// countingConn counts the writes that reach the system. It is no *net.TCPConn, so that a gathered write counts once for
// each of its parts.
type countingConn struct {
	net.Conn

	writes *atomic.Int64
}

func (c countingConn) Write(data []byte) (int, error) {
	c.writes.Add(1)
	return c.Conn.Write(data)
}

// Bodies of all sizes about the buffer's arrive whole, one after the other on one connection, and nothing is held for good.
func TestGatheredResponsesArrive(t *testing.T) {
	for _, trailer := range []bool{false, true} {
		server := httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			var size int
			if _, err := fmt.Sscan(r.URL.Query().Get("size"), &size); err != nil {
				t.Error(err)
			}
			conn, _ := r.Context().Value(connKey{}).(*gatheringConn)
			ex := &exchange{conn: conn}
			if trailer {
				w.Header().Set("Trailer", "X-End")
				defer w.Header().Set("X-End", "end")
			} else {
				w.Header().Set("Content-Length", fmt.Sprint(size))
			}
			if size > headBytes {
				ex.gather()
			}
			_, _ = w.Write(bytes.Repeat([]byte("x"), size))
		}))
		server.Listener = Gather(server.Listener)
		server.Config.ConnContext = ConnContext
		server.Start()
		for size := headBytes - 600; size < 3*headBytes; size += 7 {
			response, err := server.Client().Get(fmt.Sprintf("%s?size=%d", server.URL, size)) //nolint:noctx // the server ends with the test
			if err != nil {
				t.Fatal(err)
			}
			body, err := io.ReadAll(response.Body)
			_ = response.Body.Close()
			if err != nil || len(body) != size || trailer && response.Trailer.Get("X-End") != "end" {
				t.Fatalf("%d bytes of %d, trailer %v: %v", len(body), size, response.Trailer, err)
			}
		}
		server.Close()
	}
}

func TestGatheringJoinsTwoWrites(t *testing.T) {
	near, far := net.Pipe()
	defer func() { _ = near.Close() }()
	received := make(chan []byte)
	go func() {
		all, _ := io.ReadAll(far)
		received <- all
	}()
	var writes atomic.Int64
	conn := &gatheringConn{Conn: countingConn{near, &writes}}
	for i, part := range []string{"head", "rest", "next"} {
		conn.hold = i == 0
		if n, err := conn.Write([]byte(part)); n != len(part) || err != nil {
			t.Error(n, err)
		}
		if i == 0 && writes.Load() != 0 {
			t.Error("the first write was not held")
		}
	}
	_ = conn.Close()
	if all := <-received; string(all) != "headrestnext" {
		t.Errorf("%q arrived", all)
	}
}
