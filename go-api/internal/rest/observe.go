package rest

import (
	"context"
	"errors"
	"log/slog"
	"net/http"
	"runtime/debug"
	"time"

	"github.com/quern-data/quern/go-api/internal/apierr"
	"github.com/quern-data/quern/go-api/internal/telemetry"
)

// observe gives each request its identity, its logger and its access-log line, and keeps a panic to its own request.
func observe(next http.Handler, logger *slog.Logger, stall time.Duration) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		ex := &exchange{
			identity: telemetry.Identify(r.Header.Get("X-Request-Id"), r.Header.Get("Traceparent"), r.Header.Get("Tracestate")),
			started:  time.Now(),
		}
		rec := newRecorder(w, stall)
		rec.Header().Set("X-Request-Id", ex.identity.RequestID)
		log := logger.With("request_id", ex.identity.RequestID, "trace_id", ex.identity.TraceID())
		ctx := context.WithValue(telemetry.WithLogger(r.Context(), log), exchangeKey{}, ex)
		defer func() {
			cause := recover()
			aborted := cause != nil
			if failure, _ := cause.(error); aborted && !errors.Is(failure, http.ErrAbortHandler) {
				log.ErrorContext(ctx, "request panicked", "panic", cause, "stack", string(debug.Stack()))
				if !rec.wroteHeaders {
					writeError(rec, apierr.New(apierr.Internal, "an internal error; the server's log has it under this request's id"))
					aborted = false
				}
			}
			access(ctx, log, ex, rec, r, aborted)
			if aborted {
				// net/http then cuts the connection or resets the stream: nobody takes the part for the whole.
				panic(http.ErrAbortHandler)
			}
		}()
		next.ServeHTTP(rec, r.WithContext(ctx))
	})
}

// access writes the request's one line.
func access(ctx context.Context, log *slog.Logger, ex *exchange, rec *recorder, r *http.Request, aborted bool) {
	now := time.Now()
	attrs := []slog.Attr{
		slog.String("method", r.Method),
		slog.String("route", ex.route),
		slog.Int("status", rec.status),
		slog.Int64("bytes", rec.bytes),
		slog.Float64("duration_ms", milliseconds(now.Sub(ex.started))),
	}
	if !rec.firstByte.IsZero() {
		attrs = append(attrs, slog.Float64("ttfb_ms", milliseconds(rec.firstByte.Sub(ex.started))))
	}
	if ex.receipt != nil {
		attrs = append(attrs, slog.Int64("rows", ex.receipt.GetRows()))
	}
	if aborted {
		attrs = append(attrs, slog.Bool("aborted", true))
	}
	level := slog.LevelInfo
	if ex.route == routeHealth || ex.route == routeReady {
		level = slog.LevelDebug
	}
	log.LogAttrs(ctx, level, "request", append(attrs, slog.String("protocol", r.Proto), slog.String("peer", r.RemoteAddr))...)
}

func milliseconds(d time.Duration) float64 { return float64(d.Microseconds()) / 1000 }
