package cli

import (
	"bytes"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"
)

func run(t *testing.T, args ...string) (string, error) {
	t.Helper()
	var out, errs bytes.Buffer
	root := New(&out, &errs)
	root.SetArgs(args)
	err := root.ExecuteContext(t.Context())
	return out.String(), err
}

func TestVersion(t *testing.T) {
	if out, err := run(t, "version"); err != nil || !strings.HasPrefix(out, "quern ") {
		t.Error(out, err)
	}
}

func TestHealthcheck(t *testing.T) {
	code := http.StatusOK
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path != "/readyz" {
			t.Errorf("asked %s", r.URL.Path)
		}
		w.WriteHeader(code)
	}))
	defer server.Close()
	if _, err := run(t, "healthcheck", server.URL+"/"); err != nil {
		t.Error(err)
	}
	code = http.StatusServiceUnavailable
	if _, err := run(t, "healthcheck", server.URL); err == nil || !strings.Contains(err.Error(), "503") {
		t.Error(err)
	}
	t.Setenv("QUERN_HTTP", strings.TrimPrefix(server.URL, "http://"))
	code = http.StatusOK
	if _, err := run(t, "healthcheck"); err != nil {
		t.Error(err)
	}
	t.Setenv("QUERN_HTTP", "127.0.0.1:1")
	for _, args := range [][]string{{"healthcheck"}, {"healthcheck", "http://127.0.0.1:1"}} {
		if _, err := run(t, args...); err == nil {
			t.Error("nobody listens, and it is healthy")
		}
	}
}

func TestHealthcheckHasADeadline(t *testing.T) {
	socket, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = socket.Close() }()
	started := time.Now()
	// The system accepts and nobody answers.
	if _, err := run(t, "healthcheck", "http://"+socket.Addr().String()); err == nil || time.Since(started) > 2*healthcheckLimit {
		t.Error(err, time.Since(started))
	}
}

func TestServeRefusesWhatItCannotServe(t *testing.T) {
	if _, err := run(t, "serve"); err == nil || !strings.Contains(err.Error(), "name a folder") {
		t.Error(err)
	}
	if _, err := run(t, "serve", t.TempDir(), "--log-level", "loud"); err == nil || !strings.Contains(err.Error(), "debug, info, warn") {
		t.Error(err)
	}
	if _, err := run(t, "serve", t.TempDir(), "--engine-bin", "/none/quern-engine"); err == nil || !strings.Contains(err.Error(), "--engine-bin") {
		t.Error(err)
	}
}
