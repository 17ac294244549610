package cli

import (
	"bytes"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
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
	if _, err := run(t, "healthcheck", "http://127.0.0.1:1"); err == nil {
		t.Error("nobody listens, and it is healthy")
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
