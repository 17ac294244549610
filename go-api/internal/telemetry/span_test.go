package telemetry

import (
	"context"
	"log/slog"
	"net"
	"strings"
	"testing"
	"time"

	"google.golang.org/grpc/metadata"
)

// TestTracesCostNothingWhenOff holds all that a request does for traces to no allocation.
func TestTracesCostNothingWhenOff(t *testing.T) {
	ctx := t.Context()
	id := Identify("", "", "")
	began := time.Now()
	if allocations := testing.AllocsPerRun(100, func() {
		inside, span := BeginRequest(ctx, &id, "GET")
		hit := Past(inside, "cache", began)
		hit.Text(AttrCache, "hit")
		hit.End()
		inside, call := BeginCall(inside, "a.B", "C")
		call.Number(AttrRows, 1)
		call.Fail("X")
		call.End()
		if Parent(inside) != "" || SampledParent(inside) != "" || Current(inside).Recorded() {
			t.Error("a trace without an exporter")
		}
		span.Name("GET /")
		span.End()
	}); allocations != 0 {
		t.Errorf("%.0f allocations", allocations)
	}
}

// export exports to an address where nobody answers until the test ends.
func export(t *testing.T) {
	t.Helper()
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = listener.Close() })
	t.Setenv("OTEL_EXPORTER_OTLP_ENDPOINT", "http://"+listener.Addr().String())
	stop, err := ExportTraces(t.Context(), "1", slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		began := time.Now()
		if stop(); time.Since(began) > 2*flushLimit {
			t.Error("the end waited for the collector", time.Since(began))
		}
	})
}

func TestIdentityIsThatOfTheSpan(t *testing.T) {
	export(t)
	const trace, parent = "4bf92f3577b34da6a3ce929d0e0e4736", "00f067aa0ba902b7"
	for _, flags := range []string{"00", "01"} {
		id := Identify("", "00-"+trace+"-"+parent+"-"+flags, "vendor=1")
		ctx, span := BeginRequest(t.Context(), &id, "GET")
		if id.TraceID() != trace || strings.Contains(id.TraceParent, parent) || !strings.HasSuffix(id.TraceParent, "-"+flags) {
			t.Error(id)
		}
		if span.Recorded() != (flags == "01") || (SampledParent(ctx) != "") != span.Recorded() || Parent(ctx) != id.TraceParent {
			t.Error(flags, SampledParent(ctx), Parent(ctx))
		}
		md := metadata.NewIncomingContext(ctx, id.Metadata())
		inside, call := BeginCall(md, "a.B", "C")
		sent, _ := metadata.FromOutgoingContext(Outgoing(inside))
		if got := First(sent, TraceParentKey); got != Parent(inside) || (got == id.TraceParent) == span.Recorded() || got[3:35] != trace {
			t.Error("the engine is told of", got)
		}
		if First(sent, TraceStateKey) != "vendor=1" {
			t.Error(sent)
		}
		call.End()
		span.End()
	}
	id := Identify("", "", "")
	before := id.TraceParent
	_, span := BeginRequest(context.Background(), &id, "GET")
	if id.TraceParent == before || !strings.HasSuffix(id.TraceParent, "-01") || !span.Recorded() {
		t.Error(id)
	}
	span.End()
}
