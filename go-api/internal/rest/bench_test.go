package rest_test

import (
	"bytes"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"testing"
	"time"

	enginev1 "github.com/quern-data/quern/go-api/gen/quern/engine/v1"
	"github.com/quern-data/quern/go-api/internal/cache"
	"github.com/quern-data/quern/go-api/internal/engine"
	"github.com/quern-data/quern/go-api/internal/enginetest"
	"github.com/quern-data/quern/go-api/internal/rest"
	"github.com/quern-data/quern/go-api/internal/service"
)

// discard is a response that keeps nothing, so that only the handler's own work is measured.
type discard struct{ header http.Header }

func (d *discard) Header() http.Header            { return d.header }
func (d *discard) Write(data []byte) (int, error) { return len(data), nil }
func (*discard) WriteHeader(int)                  {}
func (*discard) FlushError() error                { return nil }

// hitHandler returns a handler whose answer to hitPath, 5 KB, is in memory.
func hitHandler(t testing.TB) http.Handler {
	t.Helper()
	double := enginetest.New(t)
	double.OnExecute = func(_ int, _ *enginev1.ExecuteRequest, stream enginev1.QueryService_ExecuteServer) error {
		return double.Answer(stream, bytes.Repeat([]byte("x"), 5_000))
	}
	double.Start(t)
	client, err := engine.Dial(double.URL())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = client.Close() })
	answers, err := cache.New(client, cache.Options{Bytes: 16 << 20, MaxEntry: 1 << 20, Lasting: service.Lasting})
	if err != nil {
		t.Fatal(err)
	}
	queries := service.NewQueries(client, answers, func(string) []string { return nil }, service.Timeouts{Default: 5 * time.Second, Most: 10 * time.Second})
	handler, err := rest.NewHandler(t.Context(), rest.Options{
		Tables:  service.NewTables(client, queries, 5*time.Second),
		Queries: queries,
		Ready:   client.Serving,
		//nolint:sloglint // Writing the access log is part of what is measured.
		Logger:   slog.New(slog.NewJSONHandler(io.Discard, nil)),
		Metrics:  http.NotFoundHandler(),
		Observer: ignored{},
		Keep:     func([]cache.Snapshot) string { return "" },
		Stall:    time.Minute,
	})
	if err != nil {
		t.Fatal(err)
	}
	for deadline := time.Now().Add(5 * time.Second); ; {
		recorder := httptest.NewRecorder()
		handler.ServeHTTP(recorder, hitRequest())
		if recorder.Header().Get("Cache-Status") == hit {
			return handler
		}
		if time.Now().After(deadline) {
			t.Fatal("no hit within 5 s", recorder.Header())
		}
	}
}

func hitRequest() *http.Request {
	return httptest.NewRequest(http.MethodGet, "/v1/query?sql=SELECT+a,+b+FROM+t+WHERE+a+%3E+%241&params=%5B7%5D", http.NoBody)
}

func BenchmarkHit(b *testing.B) {
	handler := hitHandler(b)
	request := hitRequest()
	w := &discard{header: http.Header{}}
	b.ReportAllocs()
	for b.Loop() {
		clear(w.header)
		handler.ServeHTTP(w, request)
	}
}

// TestHitAllocations holds the work of a hit to what a profile justified.
func TestHitAllocations(t *testing.T) {
	handler := hitHandler(t)
	request := hitRequest()
	w := &discard{header: http.Header{}}
	const most = 20
	if allocations := testing.AllocsPerRun(200, func() {
		clear(w.header)
		handler.ServeHTTP(w, request)
	}); allocations > most {
		t.Errorf("a hit allocates %.0f times, at most %d are allowed", allocations, most)
	}
}
