// Package observe tests what operators see of the real binaries: metrics, traces, logs, the dashboard and the alerts.
package observe

import (
	"context"
	"encoding/json"
	"flag"
	"io"
	"net/http"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	dto "github.com/prometheus/client_model/go"
	"github.com/prometheus/common/expfmt"
	"github.com/prometheus/common/model"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"

	quernv1 "github.com/quern-data/quern/go-api/gen/quern/v1"
	"github.com/quern-data/quern/go-api/test/harness"
)

var update = flag.Bool("update", false, "rewrite the reference page")

// data makes a folder with a table `things` of two rows.
func data(t *testing.T) string {
	t.Helper()
	dir := t.TempDir()
	const things = "id,name\n1,one\n2,two\n"
	if err := os.WriteFile(filepath.Join(dir, "things.csv"), []byte(things), 0o600); err != nil {
		t.Fatal(err)
	}
	return dir
}

// ask sends a GET with headers, and returns the answer and its body.
func ask(t *testing.T, server *harness.Server, path string, headers ...string) (*http.Response, string) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
	defer cancel()
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, server.URL+path, http.NoBody)
	if err != nil {
		t.Fatal(err)
	}
	for i := 0; i+1 < len(headers); i += 2 {
		request.Header.Set(headers[i], headers[i+1])
	}
	response, err := http.DefaultClient.Do(request)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = response.Body.Close() }()
	body, err := io.ReadAll(response.Body)
	if err != nil {
		t.Fatal(err)
	}
	return response, string(body)
}

func query(sql string) string { return "/v1/query?sql=" + url.QueryEscape(sql) }

// call runs a statement over gRPC.
func call(t *testing.T, server *harness.Server, sql string) {
	t.Helper()
	conn, err := grpc.NewClient("passthrough:///"+server.GRPC, grpc.WithTransportCredentials(insecure.NewCredentials()))
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = conn.Close() }()
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
	defer cancel()
	stream, err := quernv1.NewQueryServiceClient(conn).Query(ctx, &quernv1.QueryRequest{Sql: sql})
	for err == nil {
		_, err = stream.Recv()
	}
	if !strings.Contains(err.Error(), "EOF") {
		t.Fatal(err)
	}
}

// scrape returns Quern's own metrics by name. Those of the Go runtime and the process are documented elsewhere.
func scrape(t *testing.T, server *harness.Server) map[string]*dto.MetricFamily {
	t.Helper()
	_, text := ask(t, server, "/metrics")
	return families(t, text)
}

func families(t *testing.T, text string) map[string]*dto.MetricFamily {
	t.Helper()
	parser := expfmt.NewTextParser(model.UTF8Validation)
	all, err := parser.TextToMetricFamilies(strings.NewReader(text))
	if err != nil {
		t.Fatal(err)
	}
	return all
}

// used returns a server that has answered by every way whose metrics come with the first use, one shared level included.
func used(t *testing.T) *harness.Server {
	t.Helper()
	server := harness.Start(t, data(t), "--cache-redis", harness.StartRedis(t).URL)
	for _, path := range []string{query("SELECT * FROM things"), query("SELECT * FROM things"), query("SELECT nope"), "/v1/tables"} {
		ask(t, server, path)
	}
	call(t, server, "SELECT id FROM things")
	return server
}

// lines returns the entries of the log that have a message, of the edge and the engine together.
func lines(server *harness.Server, message string) []map[string]any {
	var found []map[string]any
	for line := range strings.Lines(server.Log()) {
		entry := map[string]any{}
		if json.Unmarshal([]byte(line), &entry) == nil && (entry["msg"] == message || entry["message"] == message) {
			found = append(found, entry)
		}
	}
	return found
}
