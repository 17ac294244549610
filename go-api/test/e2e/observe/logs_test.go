package observe

import (
	"context"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/quern-data/quern/go-api/test/harness"
)

const (
	traceID = "4bf92f3577b34da6a3ce929d0e0e4736"
	spanID  = "00f067aa0ba902b7"
	parent  = "00-" + traceID + "-" + spanID + "-01"
	// secret is what no log line may hold.
	secret = "s3cr3tl1t3ral"
)

// TestSlowQueriesAreLoggedWithoutWhatTheyAskFor makes every query a slow one.
func TestSlowQueriesAreLoggedWithoutWhatTheyAskFor(t *testing.T) {
	server := harness.Start(t, data(t), "--slow-query", "1ns")
	body := `{"sql":"SELECT id FROM things /* ` + secret + ` */ WHERE name <> '` + secret + `' AND name <> $1 AND id < 77002211","params":["` + secret + `"]}`
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
	defer cancel()
	request, err := http.NewRequestWithContext(ctx, http.MethodPost, server.URL+"/v1/query", strings.NewReader(body))
	if err != nil {
		t.Fatal(err)
	}
	request.Header.Set("Content-Type", "application/json")
	request.Header.Set("Traceparent", parent)
	response, err := http.DefaultClient.Do(request)
	if err != nil {
		t.Fatal(err)
	}
	_ = response.Body.Close()
	if response.StatusCode != http.StatusOK {
		t.Fatal(response.Status)
	}
	ask(t, server, "/v1/tables/things/rows?filter=name%3D%22"+secret+"%22", "Traceparent", parent)
	call(t, server, "SELECT '"+secret+"'")
	harness.Eventually(t, 10*time.Second, "three slow queries are logged", func() bool { return len(lines(server, "slow query")) >= 3 })
	if log := server.Log(); strings.Contains(log, secret) || strings.Contains(log, "77002211") {
		t.Error("a literal or a parameter is in the log:", log)
	}
	entries := lines(server, "slow query")
	wanted := []string{"select id from things where name < > ? and name < > $1 and id < ?", "rows of things filter =(name, ?)", "select ?"}
	for i, want := range wanted {
		entry := entries[i]
		if entry["statement"] != want || entry["level"] != "WARN" || len(entry["fingerprint"].(string)) != 16 {
			t.Errorf("%v instead of %s", entry, want)
		}
		if i < 2 && entry["trace_id"] != traceID {
			t.Error("of another trace:", entry)
		}
	}
	first := entries[0]
	if first["rows"] != 2.0 || first["bytes"].(float64) <= 0 || first["duration_us"].(float64) <= 0 || !strings.HasPrefix(first["cache"].(string), `"quern-edge"; fwd=uri-miss`) {
		t.Error(first)
	}
	if read := first["snapshots"].([]any); len(read) != 1 || !strings.HasPrefix(read[0].(string), "things@") {
		t.Error(first)
	}
}

func TestQuickQueriesAreNotLoggedAsSlow(t *testing.T) {
	for _, limit := range []string{"20s", "0"} {
		server := harness.Start(t, data(t), "--slow-query", limit)
		ask(t, server, query("SELECT * FROM things"))
		harness.Eventually(t, 10*time.Second, "the request is logged", func() bool { return len(lines(server, "request")) > 0 })
		if found := lines(server, "slow query"); len(found) > 0 {
			t.Error(limit, found)
		}
	}
}

// TestEngineLinesNameTheirRequest takes any line that the engine writes while it works for a request.
func TestEngineLinesNameTheirRequest(t *testing.T) {
	server := harness.Start(t, data(t), "--log-level", "debug")
	response, _ := ask(t, server, query("SELECT count(*) FROM things"), "Traceparent", parent, "X-Request-Id", "mine")
	if response.StatusCode != http.StatusOK {
		t.Fatal(response.Status)
	}
	harness.Eventually(t, 10*time.Second, "the engine names the request and its trace", func() bool {
		for _, entry := range lines(server, "planned") {
			span, _ := entry["span"].(map[string]any)
			if span["trace_id"] == traceID && span["request_id"] == "mine" {
				return true
			}
		}
		return false
	})
}
