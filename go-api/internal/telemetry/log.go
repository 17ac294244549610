// Package telemetry holds what every request carries for those who operate Quern: structured logs, request ids and
// W3C trace context. It knows no service and no handler.
package telemetry

import (
	"context"
	"fmt"
	"io"
	"log/slog"
)

// NewLogger returns a logger that writes one JSON object a line to out. level is debug, info, warn or error.
func NewLogger(out io.Writer, level string) (*slog.Logger, error) {
	var least slog.Level
	if err := least.UnmarshalText([]byte(level)); err != nil {
		return nil, fmt.Errorf("log level %q is none of debug, info, warn, error", level)
	}
	return slog.New(slog.NewJSONHandler(out, &slog.HandlerOptions{Level: least})), nil
}

type loggerKey struct{}

// Source makes a request's logger when it is first needed; most requests log one line, which has its own way.
type Source interface {
	// Logger returns a logger whose lines name the request.
	Logger() *slog.Logger
}

// LoggerKey is the context key of a request's [Source], for contexts that carry it themselves.
var LoggerKey any = loggerKey{}

// WithLogger attaches a request's logger.
func WithLogger(ctx context.Context, source Source) context.Context {
	return context.WithValue(ctx, LoggerKey, source)
}

// Logger returns the request's logger, or the default one.
func Logger(ctx context.Context) *slog.Logger {
	if source, ok := ctx.Value(LoggerKey).(Source); ok {
		return source.Logger()
	}
	return slog.Default()
}

// RequestLogger names a request in each line of a logger.
type RequestLogger struct {
	// To is the logger of all requests.
	To *slog.Logger
	// Identity names the request.
	Identity Identity
}

// Logger implements Source.
func (r RequestLogger) Logger() *slog.Logger {
	return r.To.With("request_id", r.Identity.RequestID, "trace_id", r.Identity.TraceID())
}
