package main

import (
	"context"
	"errors"
	"net"
	"sync/atomic"

	collector "go.opentelemetry.io/proto/otlp/collector/trace/v1"
	"google.golang.org/grpc"
)

// spanCounter is a collector of OpenTelemetry that counts spans.
type spanCounter struct {
	collector.UnimplementedTraceServiceServer

	spans atomic.Int64
}

// Export implements the collector's service.
func (c *spanCounter) Export(_ context.Context, request *collector.ExportTraceServiceRequest) (*collector.ExportTraceServiceResponse, error) {
	for _, resource := range request.GetResourceSpans() {
		for _, scope := range resource.GetScopeSpans() {
			c.spans.Add(int64(len(scope.GetSpans())))
		}
	}
	return &collector.ExportTraceServiceResponse{}, nil
}

// measureTraces compares answers from the cache and from the engine's memory without traces, with one request of a hundred
// traced, and with every one.
func measureTraces(ctx context.Context, s settings, r *Report) error {
	if s.wrk == "" {
		return nil
	}
	listener, err := new(net.ListenConfig).Listen(ctx, "tcp", "127.0.0.1:0")
	if err != nil {
		return err
	}
	counter := &spanCounter{}
	server := grpc.NewServer()
	collector.RegisterTraceServiceServer(server, counter)
	go func() { _ = server.Serve(listener) }()
	defer server.Stop()
	endpoint := "OTEL_EXPORTER_OTLP_ENDPOINT=http://" + listener.Addr().String()
	ways := []struct {
		name string
		env  []string
	}{
		{"no traces", nil},
		{"one of 100 traced", []string{endpoint, "OTEL_TRACES_SAMPLER=traceidratio", "OTEL_TRACES_SAMPLER_ARG=0.01"}},
		{"all traced", []string{endpoint, "OTEL_TRACES_SAMPLER=always_on"}},
	}
	var hits, rows []target
	for _, way := range ways {
		edge, err := startQuernIn(ctx, way.env, "--log-level", "warn", s.data)
		if err != nil {
			return err
		}
		defer edge.stop()
		if _, _, err := fetch(ctx, queryURL(edge.url, small)); err != nil {
			return err
		}
		family, err := edge.family()
		if err != nil {
			return err
		}
		hits = append(hits, target{name: way.name, url: queryURL(edge.url, small), pids: edge.pids()})
		rows = append(rows, target{
			name: way.name, url: edge.url + "/v1/tables/orders/rows?page_size=10", pids: family, header: []string{"Cache-Control: no-store"},
		})
	}
	for _, part := range []struct {
		prefix  string
		targets []target
	}{{"traces, hit of 4 KB: ", hits}, {"traces, page of 10 rows past the cache: ", rows}} {
		rounds, err := loadInTurns(ctx, s, part.targets)
		if err != nil {
			return err
		}
		rounds.report(r, part.prefix, part.targets)
		for _, way := range ways[1:] {
			r.add(part.prefix+way.name+" / no traces", "×", rounds.against(way.name, "no traces"), 0)
		}
	}
	if counter.spans.Load() == 0 {
		return errors.New("no span reached the collector")
	}
	r.add("traces: spans that the collector got", "", float64(counter.spans.Load()), 0)
	return nil
}
