package rest_test

import (
	"bytes"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"sync/atomic"
	"testing"

	"google.golang.org/grpc/codes"

	enginev1 "github.com/quern-data/quern/go-api/gen/quern/engine/v1"
	"github.com/quern-data/quern/go-api/internal/enginetest"
	"github.com/quern-data/quern/go-api/internal/rest"
)

// countingListener counts its connections' writes. They are no *net.TCPConn, so that a gathered write counts once for each of
// its two parts.
type countingListener struct {
	net.Listener

	writes *atomic.Int64
}

type countingConn struct {
	net.Conn

	writes *atomic.Int64
}

func (l countingListener) Accept() (net.Conn, error) {
	conn, err := l.Listener.Accept()
	if err != nil {
		return nil, err
	}
	return countingConn{conn, l.writes}, nil
}

func (c countingConn) Write(data []byte) (int, error) {
	c.writes.Add(1)
	return c.Conn.Write(data)
}

// TestChunksAreWrittenAtOnce counts the writes of a large result: two parts of one write for each chunk, and one for the end.
func TestChunksAreWrittenAtOnce(t *testing.T) {
	const chunks = 20
	chunk := bytes.Repeat([]byte("x"), 100<<10)
	e := start(t, func(_ int, _ *enginev1.ExecuteRequest, stream enginev1.QueryService_ExecuteServer) error {
		all := make([][]byte, chunks)
		for i := range all {
			all[i] = chunk
		}
		return enginetest.Send(stream, all...)
	})
	var writes atomic.Int64
	server := httptest.NewUnstartedServer(e.Config.Handler)
	server.Listener = rest.Gather(countingListener{server.Listener, &writes})
	server.Config.ConnContext = rest.ConnContext
	server.Start()
	t.Cleanup(server.Close)
	request, err := http.NewRequestWithContext(t.Context(), http.MethodGet, server.URL+"/v1/query?format=csv&sql=x", http.NoBody)
	if err != nil {
		t.Fatal(err)
	}
	request.Header.Set("Accept-Encoding", "identity")
	response, err := server.Client().Do(request)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = response.Body.Close() }()
	size, err := io.Copy(io.Discard, response.Body)
	if err != nil || size != chunks*int64(len(chunk)) {
		t.Fatalf("%d bytes: %v", size, err)
	}
	if response.Trailer.Get("Quern-Receipt") == "" {
		t.Error("no receipt")
	}
	if writes.Load() > 2*chunks+1 {
		t.Errorf("%d writes for %d chunks", writes.Load(), chunks)
	}
}

func TestFailureBeforeTheHeaderHasLeftIsAnError(t *testing.T) {
	e := start(t, func(_ int, _ *enginev1.ExecuteRequest, stream enginev1.QueryService_ExecuteServer) error {
		if err := enginetest.SendPart(stream, []byte("x")); err != nil {
			return err
		}
		return enginetest.Fail(codes.InvalidArgument, "DATA_ERROR", "division by zero")
	})
	// Without the cache, which waits a little for what is small.
	for _, directives := range []string{"", "no-store"} {
		response, body, err := e.do(t, http.MethodGet, "/v1/query?sql=x&format=csv", "", "Cache-Control", directives, "Accept-Encoding", "gzip")
		if err != nil {
			t.Fatal(err)
		}
		expectError(t, response, body, http.StatusBadRequest, "DATA_ERROR")
		if header := response.Header; header.Get("Etag")+header.Get("Content-Encoding")+header.Get("Trailer") != "" {
			t.Errorf("the failure has headers of a result: %v", header)
		}
	}
}
