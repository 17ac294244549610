package rest

import (
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"strconv"
	"testing"
	"time"
)

type nobody struct{}

func (nobody) Observe(string, int, time.Duration) {}

// slowLog takes a line only once it may.
type slowLog struct{ may <-chan struct{} }

func (s slowLog) Write(line []byte) (int, error) {
	<-s.may
	return len(line), nil
}

// Callers have a whole answer before the server has told of it.
func TestAnswersDoNotWaitForTheLog(t *testing.T) {
	whole := func(size int) http.HandlerFunc {
		return func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("Content-Length", strconv.Itoa(size))
			_, _ = w.Write(make([]byte, size))
		}
	}
	for name, answer := range map[string]http.HandlerFunc{
		"nothing":      whole(0),
		"little":       whole(5),
		"much":         whole(3 * headBytes),
		"not modified": func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(http.StatusNotModified) },
	} {
		read := make(chan struct{})
		logger := slog.New(slog.NewTextHandler(slowLog{read}, nil))
		server := httptest.NewServer(observe(answer, logger, nobody{}, time.Minute))
		client := &http.Client{Timeout: 10 * time.Second}
		response, err := client.Get(server.URL) //nolint:noctx // the client has a timeout
		if err != nil {
			close(read)
			t.Fatal(err)
		}
		body, err := io.ReadAll(response.Body)
		_ = response.Body.Close()
		close(read)
		if err != nil || int64(len(body)) != response.ContentLength && response.StatusCode == http.StatusOK {
			t.Errorf("%s: %d bytes of %d: %v", name, len(body), response.ContentLength, err)
		}
		server.Close()
	}
}
