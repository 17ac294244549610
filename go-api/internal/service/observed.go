package service

import (
	"context"
	"log/slog"
	"time"

	"github.com/quern-data/quern/go-api/internal/apierr"
	"github.com/quern-data/quern/go-api/internal/cache"
	"github.com/quern-data/quern/go-api/internal/fingerprint"
	"github.com/quern-data/quern/go-api/internal/telemetry"
)

// Describe says of a part of a trace how an answer came about and what it is made from.
func (q *Query) Describe(span telemetry.Span, answer *cache.Answer) {
	if !span.Recorded() {
		return
	}
	span.Text(telemetry.AttrCache, CacheStatus(answer.Status))
	span.Text(telemetry.AttrFormat, q.Format.Name)
	tables := make([]string, 0, len(answer.Header.Snapshots))
	for _, read := range answer.Header.Snapshots {
		tables = append(tables, read.Table)
	}
	span.Texts(telemetry.AttrTables, tables)
	span.Texts(telemetry.AttrSnapshots, named(answer.Header.Snapshots))
}

// named writes snapshots as `table@id`.
func named(snapshots []cache.Snapshot) []string {
	names := make([]string, 0, len(snapshots))
	for _, read := range snapshots {
		names = append(names, read.Table+"@"+read.ID)
	}
	return names
}

// Outcome is what became of a query.
type Outcome struct {
	// Began is when the request came.
	Began time.Time
	// Rows and Bytes are what a complete result has.
	Rows, Bytes uint64
	// Snapshots are what it was read from.
	Snapshots []cache.Snapshot
	// Cache is its Cache-Status, empty where there was no answer.
	Cache string
	// Err is why it failed.
	Err error
}

// LogSlow writes a line about a query that took long: its shape, never its literals or parameters.
func (q *Query) LogSlow(ctx context.Context, outcome Outcome) {
	took := time.Since(outcome.Began)
	if slow := q.queries.timeouts.Slow; slow == 0 || took < slow {
		return
	}
	name, shape := fingerprint.Of(q.execute)
	attrs := []slog.Attr{
		slog.String("fingerprint", name),
		slog.String("statement", shape),
		slog.Int64("duration_us", took.Microseconds()),
		slog.String("format", q.Format.Name),
		slog.Uint64("rows", outcome.Rows),
		slog.Uint64("bytes", outcome.Bytes),
		slog.Any("snapshots", named(outcome.Snapshots)),
		slog.String("cache", outcome.Cache),
	}
	if reason := apierr.ReasonOf(outcome.Err); reason != "" {
		attrs = append(attrs, slog.String("reason", reason))
	}
	telemetry.Logger(ctx).LogAttrs(ctx, slog.LevelWarn, "slow query", attrs...)
}
