package observe

import (
	"crypto/tls"
	"fmt"
	"io"
	"maps"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	dto "github.com/prometheus/client_model/go"

	"github.com/quern-data/quern/go-api/test/harness"
)

const page = "docs/reference/metrics.md"

const pageHead = `# Metrics

<!-- Rendered from a running edge and engine by a test; change the code, then run: make gen -->

` + "`GET /metrics`" + ` of the edge answers in the Prometheus text format, the engine's metrics among its own; where the engine can't
be reached, those that begin with ` + "`quern_engine_`" + ` are missing, but for ` + "`quern_engine_serving`" + `. Those of an
engine that is called over TCP have its address as one more label, ` + "`engine`" + `. Those with labels come with the
first request that they count, those of the shared level with ` + "`--cache-redis`" + `, those of TLS with certificates. The Go runtime's (` + "`go_`" + `) and the process's
(` + "`process_`" + `) are there too, as Prometheus' client library names them.

| name | type | labels | what it says |
|---|---|---|---|
`

// TestMetricsReference compares the page with the running system, both ways.
func TestMetricsReference(t *testing.T) {
	families := scrape(t, used(t))
	for name, family := range scrapeTLS(t) {
		if families[name] == nil {
			families[name] = family
		}
	}
	var want strings.Builder
	want.WriteString(pageHead)
	for _, name := range slices.Sorted(maps.Keys(families)) {
		if family := families[name]; strings.HasPrefix(name, "quern_") {
			kind := strings.ToLower(family.GetType().String())
			fmt.Fprintf(&want, "| `%s` | %s | %s | %s |\n", name, kind, shown(labelNames(family)), family.GetHelp())
		}
	}
	path := filepath.Join(harness.Root(t), page)
	if *update {
		if err := os.WriteFile(path, []byte(want.String()), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	got, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if string(got) != want.String() {
		t.Errorf("%s differs from what runs; run: make gen\n%s", page, want.String())
	}
}

// scrapeTLS returns the metrics of a server with a certificate.
func scrapeTLS(t *testing.T) map[string]*dto.MetricFamily {
	t.Helper()
	const name = "api.example.com"
	authority := harness.NewAuthority(t)
	secret := harness.NewSecret(t, authority.Issue(t, name))
	server := harness.Start(t, data(t), "--tls-cert", secret.Path("tls.crt"), "--tls-key", secret.Path("tls.key"))
	transport := &http.Transport{TLSClientConfig: &tls.Config{RootCAs: authority.Pool(), ServerName: name, MinVersion: tls.VersionTLS13}}
	t.Cleanup(transport.CloseIdleConnections)
	request, err := http.NewRequestWithContext(t.Context(), http.MethodGet, "https"+strings.TrimPrefix(server.URL, "http")+"/metrics", http.NoBody)
	if err != nil {
		t.Fatal(err)
	}
	response, err := (&http.Client{Transport: transport, Timeout: 20 * time.Second}).Do(request)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = response.Body.Close() }()
	text, err := io.ReadAll(response.Body)
	if err != nil {
		t.Fatal(err)
	}
	return families(t, string(text))
}

// labelNames returns the names of a metric's labels.
func labelNames(family *dto.MetricFamily) []string {
	names := map[string]bool{}
	for _, metric := range family.GetMetric() {
		for _, label := range metric.GetLabel() {
			names[label.GetName()] = true
		}
	}
	return slices.Sorted(maps.Keys(names))
}

func shown(names []string) string {
	if len(names) == 0 {
		return ""
	}
	return "`" + strings.Join(names, "`, `") + "`"
}

// find returns the metric with these labels, name and value in turns.
func find(t *testing.T, families map[string]*dto.MetricFamily, name string, wanted ...string) *dto.Metric {
	t.Helper()
	for _, metric := range families[name].GetMetric() {
		has := map[string]string{}
		for _, label := range metric.GetLabel() {
			has[label.GetName()] = label.GetValue()
		}
		fits := true
		for i := 0; i+1 < len(wanted); i += 2 {
			fits = fits && has[wanted[i]] == wanted[i+1]
		}
		if fits {
			return metric
		}
	}
	t.Fatalf("no %s with %v", name, wanted)
	return nil
}

func TestRequestsAreCountedByRouteAndCode(t *testing.T) {
	families := scrape(t, used(t))
	const route, method = "/v1/query", "/quern.v1.QueryService/Query"
	if n := find(t, families, "quern_http_requests_total", "route", route, "code", "200").GetCounter().GetValue(); n != 2 {
		t.Error("good answers over HTTP:", n)
	}
	if n := find(t, families, "quern_http_requests_total", "route", route, "code", "400").GetCounter().GetValue(); n != 1 {
		t.Error("failures over HTTP:", n)
	}
	if n := find(t, families, "quern_http_request_duration_seconds", "route", route).GetHistogram().GetSampleCount(); n != 3 {
		t.Error("times over HTTP:", n)
	}
	if n := find(t, families, "quern_grpc_requests_total", "method", method, "code", "OK").GetCounter().GetValue(); n != 1 {
		t.Error("calls:", n)
	}
	if n := find(t, families, "quern_grpc_request_duration_seconds", "method", method).GetHistogram().GetSampleCount(); n != 1 {
		t.Error("times of calls:", n)
	}
	if busy := find(t, families, "quern_engine_threads_busy_seconds_total", "pool", "cpu").GetCounter().GetValue(); busy <= 0 {
		t.Error("the engine's threads did nothing:", busy)
	}
	if threads := find(t, families, "quern_engine_threads", "pool", "io").GetGauge().GetValue(); threads != 2 {
		t.Error("threads for calls:", threads)
	}
}
