package observe

import (
	"context"
	"encoding/hex"
	"fmt"
	"net"
	"net/http"
	"strings"
	"sync"
	"testing"
	"time"

	collector "go.opentelemetry.io/proto/otlp/collector/trace/v1"
	otlp "go.opentelemetry.io/proto/otlp/trace/v1"
	"google.golang.org/grpc"

	"github.com/quern-data/quern/go-api/test/harness"
)

// spans is a collector of OTLP over gRPC that keeps what it gets.
type spans struct {
	collector.UnimplementedTraceServiceServer

	// hang is what exports wait for, nil where they don't.
	hang chan struct{}

	mu    sync.Mutex
	asked int
	all   []span
}

// span is one span and the service that made it.
type span struct {
	*otlp.Span

	service string
}

// Export implements the collector's service.
func (s *spans) Export(ctx context.Context, request *collector.ExportTraceServiceRequest) (*collector.ExportTraceServiceResponse, error) {
	s.mu.Lock()
	s.asked++
	for _, resource := range request.GetResourceSpans() {
		service := ""
		for _, attribute := range resource.GetResource().GetAttributes() {
			if attribute.GetKey() == "service.name" {
				service = attribute.GetValue().GetStringValue()
			}
		}
		for _, scope := range resource.GetScopeSpans() {
			for _, one := range scope.GetSpans() {
				s.all = append(s.all, span{one, service})
			}
		}
	}
	s.mu.Unlock()
	if s.hang != nil {
		select {
		case <-s.hang:
		case <-ctx.Done():
			return nil, ctx.Err()
		}
	}
	return &collector.ExportTraceServiceResponse{}, nil
}

// of returns the spans of a trace by their service and name.
func (s *spans) of(trace string) map[string][]span {
	s.mu.Lock()
	defer s.mu.Unlock()
	found := map[string][]span{}
	for _, one := range s.all {
		if hex.EncodeToString(one.GetTraceId()) == trace {
			name := one.service + " " + one.GetName()
			found[name] = append(found[name], one)
		}
	}
	return found
}

func (s *spans) exports() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.asked
}

// attribute returns what a span says, as text.
func (s span) attribute(name string) string {
	for _, attribute := range s.GetAttributes() {
		if attribute.GetKey() != name {
			continue
		}
		value := attribute.GetValue()
		if list := value.GetArrayValue(); list != nil {
			var texts []string
			for _, item := range list.GetValues() {
				texts = append(texts, item.GetStringValue())
			}
			return strings.Join(texts, ",")
		}
		if text := value.GetStringValue(); text != "" {
			return text
		}
		return fmt.Sprint(value.GetIntValue())
	}
	return ""
}

// collect starts a collector and a server that exports to it without waiting for more.
func collect(t *testing.T, hang chan struct{}, env ...string) (*spans, *harness.Server) {
	t.Helper()
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	collected := &spans{hang: hang}
	server := grpc.NewServer()
	collector.RegisterTraceServiceServer(server, collected)
	go func() { _ = server.Serve(listener) }()
	t.Cleanup(server.Stop)
	env = append([]string{"OTEL_EXPORTER_OTLP_ENDPOINT=http://" + listener.Addr().String(), "OTEL_BSP_SCHEDULE_DELAY=50"}, env...)
	return collected, harness.StartWithEnv(t, env, data(t))
}

// tree waits for these spans of the trace of this test, each once, and returns them; a span is named by its service and its name, and comes
// after the one that it belongs to.
func (s *spans) tree(t *testing.T, paths ...[2]string) map[string]span {
	t.Helper()
	var found map[string][]span
	harness.Eventually(t, 20*time.Second, "all spans of the trace were exported", func() bool {
		found = s.of(traceID)
		for _, path := range paths {
			if len(found[path[1]]) == 0 {
				return false
			}
		}
		return true
	})
	one := map[string]span{}
	for _, path := range paths {
		under, name := path[0], path[1]
		if len(found[name]) != 1 {
			t.Fatalf("%d spans %q", len(found[name]), name)
		}
		one[name] = found[name][0]
		want := spanID
		if under != "" {
			want = hex.EncodeToString(one[under].GetSpanId())
		}
		if got := hex.EncodeToString(one[name].GetParentSpanId()); got != want {
			t.Errorf("%q belongs to %s, not to %s of %q", name, got, want, under)
		}
	}
	return one
}

const (
	cacheSpan   = "quern-edge cache"
	edgeExecute = "quern-edge quern.engine.v1.QueryService/Execute"
	execute     = "quern-engine quern.engine.v1.QueryService/Execute"
	edgePeek    = "quern-edge quern.engine.v1.QueryService/Peek"
	peek        = "quern-engine quern.engine.v1.QueryService/Peek"
)

func check(t *testing.T, one span, wanted map[string]string) {
	t.Helper()
	for name, want := range wanted {
		if got := one.attribute(name); got != want && (want != "*" || got == "") {
			t.Errorf("%s: %s is %q, not %q", one.GetName(), name, got, want)
		}
	}
	if one.GetEndTimeUnixNano() < one.GetStartTimeUnixNano() || one.GetStartTimeUnixNano() == 0 {
		t.Errorf("%s ends before it begins", one.GetName())
	}
}

func TestOneQueryIsOneTree(t *testing.T) {
	collected, server := collect(t, nil)
	response, body := ask(t, server, query("SELECT * FROM things ORDER BY id"), "Traceparent", parent)
	const request = "quern-edge GET /v1/query"
	tree := collected.tree(t, [][2]string{
		{"", request},
		{request, cacheSpan},
		{cacheSpan, edgeExecute},
		{edgeExecute, execute},
		{execute, "quern-engine plan"},
		{execute, "quern-engine scan"},
		{execute, "quern-engine encode"},
	}...)
	verdict := response.Header.Get("Cache-Status")
	check(t, tree[request], map[string]string{
		"http.request.method": "GET", "http.route": "/v1/query", "http.response.status_code": "200", "quern.rows": "2",
		"quern.bytes": fmt.Sprint(len(body)), "quern.cache.status": verdict, "quern.format": "json", "quern.tables": "things", "quern.snapshots": "*",
	})
	check(t, tree[cacheSpan], map[string]string{"quern.cache.status": verdict, "quern.tables": "things"})
	check(t, tree[edgeExecute], map[string]string{"rpc.system": "grpc", "rpc.service": "quern.engine.v1.QueryService", "rpc.method": "Execute", "quern.rows": "2", "quern.bytes": "*"})
	check(t, tree[execute], map[string]string{"rpc.system": "grpc", "rpc.method": "Execute", "quern.rows": "2", "quern.snapshots": "*", "request_id": response.Header.Get("X-Request-Id")})
	check(t, tree["quern-engine scan"], map[string]string{"quern.table": "things", "quern.rows": "2"})
	check(t, tree["quern-engine encode"], map[string]string{"quern.rows": "2", "quern.bytes": "*", "quern.format": "Json"})
	if server, client := tree[execute].GetKind(), tree[edgeExecute].GetKind(); server != otlp.Span_SPAN_KIND_SERVER || client != otlp.Span_SPAN_KIND_CLIENT {
		t.Error(server, client)
	}
}

func TestHitsAreTracedUpToTheCache(t *testing.T) {
	collected, server := collect(t, nil)
	// Its trace is not this test's.
	ask(t, server, query("SELECT * FROM things"))
	if response, _ := ask(t, server, query("SELECT * FROM things"), "Traceparent", parent); response.Header.Get("Cache-Status") != `"quern-edge"; hit` {
		t.Fatal(response.Header)
	}
	const request = "quern-edge GET /v1/query"
	tree := collected.tree(t, [][2]string{{"", request}, {request, cacheSpan}}...)
	check(t, tree[cacheSpan], map[string]string{"quern.cache.status": `"quern-edge"; hit`})
	if found := collected.of(traceID); len(found) != 2 {
		t.Error("a hit has other spans too:", found)
	}
}

func TestRowsFromMemoryAreTraced(t *testing.T) {
	collected, server := collect(t, nil)
	// What is in memory is answered by a peek; the first request brings it there.
	harness.Eventually(t, 20*time.Second, "rows come from memory", func() bool {
		ask(t, server, "/v1/tables/things/rows?page_size=1", "Cache-Control", "no-store")
		return find(t, scrape(t, server), "quern_engine_peeked_total").GetCounter().GetValue() > 0
	})
	ask(t, server, "/v1/tables/things/rows?page_size=1", "Cache-Control", "no-store", "Traceparent", parent)
	const request = "quern-edge GET /v1/tables/{table}/rows"
	tree := collected.tree(t, [][2]string{{"", request}, {request, cacheSpan}, {cacheSpan, edgePeek}, {edgePeek, peek}}...)
	check(t, tree[edgePeek], map[string]string{"quern.rows": "1", "quern.bytes": "*"})
	check(t, tree[peek], map[string]string{"quern.rows": "1", "quern.snapshots": "*"})
}

func TestFailuresSayWhy(t *testing.T) {
	collected, server := collect(t, nil)
	ask(t, server, query("SELECT nope FROM things"), "Traceparent", parent)
	const request = "quern-edge GET /v1/query"
	tree := collected.tree(t, [][2]string{{"", request}, {request, cacheSpan}, {cacheSpan, edgeExecute}, {edgeExecute, execute}, {execute, "quern-engine plan"}}...)
	for _, name := range []string{request, cacheSpan, edgeExecute, execute} {
		check(t, tree[name], map[string]string{"error.type": "UNKNOWN_COLUMN"})
	}
	if code := tree[request].GetStatus().GetCode(); code == otlp.Status_STATUS_CODE_ERROR {
		t.Error("a caller's mistake counts as the server's")
	}
}

func TestCallsOverGRPCAreTracedToo(t *testing.T) {
	collected, server := collect(t, nil)
	call(t, server, "SELECT id FROM things")
	harness.Eventually(t, 20*time.Second, "the call and the engine's part of it were exported", func() bool {
		collected.mu.Lock()
		defer collected.mu.Unlock()
		for _, one := range collected.all {
			if one.GetName() == "quern.v1.QueryService/Query" && one.attribute("quern.rows") == "2" && one.attribute("quern.cache.status") != "" {
				for _, other := range collected.all {
					if other.GetName() == "plan" && string(other.GetTraceId()) == string(one.GetTraceId()) {
						return true
					}
				}
			}
		}
		return false
	})
}

func TestTheCatalogueIsTraced(t *testing.T) {
	collected, server := collect(t, nil)
	ask(t, server, "/v1/tables/things", "Traceparent", parent)
	const (
		request = "quern-edge GET /v1/tables/{table}"
		client  = "quern-edge quern.engine.v1.CatalogService/GetTable"
		engine  = "quern-engine quern.engine.v1.CatalogService/GetTable"
	)
	tree := collected.tree(t, [][2]string{{"", request}, {request, client}, {client, engine}}...)
	check(t, tree[engine], map[string]string{"rpc.service": "quern.engine.v1.CatalogService"})
}

func TestTracesThatNobodyRecordsAreNotExported(t *testing.T) {
	collected, server := collect(t, nil)
	ask(t, server, query("SELECT * FROM things"), "Traceparent", strings.TrimSuffix(parent, "01")+"00")
	const later = "11111111111111111111111111111111"
	ask(t, server, query("SELECT id FROM things"), "Traceparent", strings.Replace(parent, traceID, later, 1))
	harness.Eventually(t, 20*time.Second, "a later trace was exported", func() bool { return len(collected.of(later)) >= 7 })
	if found := collected.of(traceID); len(found) != 0 {
		t.Error(found)
	}
}

func TestCollectorThatHangsDoesNoHarm(t *testing.T) {
	hang := make(chan struct{})
	t.Cleanup(func() { close(hang) })
	collected, server := collect(t, hang, "OTEL_BSP_MAX_QUEUE_SIZE=16", "OTEL_BSP_MAX_EXPORT_BATCH_SIZE=8")
	slowest := time.Duration(0)
	for i := range 200 {
		began := time.Now()
		if response, _ := ask(t, server, query(fmt.Sprintf("SELECT %d FROM things", i))); response.StatusCode != http.StatusOK {
			t.Fatal(response.Status)
		}
		slowest = max(slowest, time.Since(began))
	}
	if slowest > 3*time.Second {
		t.Error("a request waited for the collector:", slowest)
	}
	if collected.exports() == 0 {
		t.Error("nothing was exported, so nothing hung")
	}
	began := time.Now()
	if code := stop(t, server); code != 0 {
		t.Error("exit code", code)
	}
	if took := time.Since(began); took > 15*time.Second {
		t.Error("the end waited for the collector:", took)
	}
}

func TestWithoutACollectorThereAreNoTraces(t *testing.T) {
	collected, server := collect(t, nil, "OTEL_SDK_DISABLED=true")
	response, _ := ask(t, server, query("SELECT * FROM things"), "Traceparent", parent)
	if response.StatusCode != http.StatusOK {
		t.Fatal(response.Status)
	}
	stop(t, server)
	if collected.exports() != 0 {
		t.Error("spans were exported")
	}
}
