package rest

import (
	"cmp"
	"context"
	"errors"
	"log/slog"
	"net/http"
	"runtime/debug"
	"strconv"
	"strings"
	"time"

	"github.com/quern-data/quern/go-api/internal/apierr"
	"github.com/quern-data/quern/go-api/internal/service"
	"github.com/quern-data/quern/go-api/internal/telemetry"
)

// observe gives each request its identity, its logger and its access-log line, and keeps a panic to its own request.
func observe(next http.Handler, logger *slog.Logger, observer Observer, stall time.Duration) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		ex := &exchange{
			recorder:      recorder{ResponseWriter: w, control: http.NewResponseController(w), stall: stall, status: http.StatusOK},
			RequestLogger: telemetry.RequestLogger{To: logger, Identity: identify(r.Header)},
			started:       time.Now(),
			rows:          -1,
		}
		if r.ProtoMajor == 1 {
			ex.conn, _ = r.Context().Value(connKey{}).(*gatheringConn)
		}
		ex.Header()["X-Request-Id"] = []string{ex.Identity.RequestID}
		within, span := telemetry.BeginRequest(r.Context(), &ex.Identity, r.Method)
		ex.span = span
		limitBody(ex.control, r)
		var ctx context.Context = exchangeContext{Context: within, ex: ex}
		defer func() {
			cause := recover()
			aborted := cause != nil
			if failure, _ := cause.(error); aborted && !errors.Is(failure, http.ErrAbortHandler) {
				ex.Logger().ErrorContext(ctx, "request panicked", "panic", cause, "stack", string(debug.Stack()))
				if !ex.wroteHeaders {
					writeError(ex, apierr.New(apierr.Internal, "an internal error; the server's log has it under this request's id"))
					aborted = false
				}
			}
			took := time.Since(ex.started)
			observer.Observe(ex.route, ex.status, took)
			ex.pushOut(r, aborted)
			access(ctx, ex, r, took, aborted)
			traced(ex, r, aborted)
			slow(ctx, ex)
			if aborted {
				// net/http then cuts the connection or resets the stream: nobody takes the part for the whole.
				panic(http.ErrAbortHandler)
			}
		}()
		next.ServeHTTP(ex, r.WithContext(ctx))
	})
}

// pushOut sends a whole answer on its way before it is told of: net/http would once the handler has returned. What has no
// length needs an end that only net/http writes, and a frame of its own on HTTP/2.
func (ex *exchange) pushOut(r *http.Request, aborted bool) {
	ended := len(ex.Header()["Content-Length"]) > 0 || ex.status == http.StatusNotModified
	if !aborted && r.ProtoMajor == 1 && ended {
		_ = ex.control.Flush()
	}
}

// traced ends the request's part of its trace (OpenTelemetry's conventions for HTTP servers). Its target is not there: what
// callers ask for is theirs.
func traced(ex *exchange, r *http.Request, aborted bool) {
	if ex.span.Recorded() {
		ex.span.Name(strings.TrimSpace(r.Method + " " + ex.route))
		ex.span.Text("http.request.method", r.Method)
		ex.span.Text("http.route", ex.route)
		ex.span.Number("http.response.status_code", int64(ex.status))
		ex.span.Number("http.response.body.size", ex.bytes)
		ex.span.Text("network.protocol.version", strings.TrimPrefix(r.Proto, "HTTP/"))
		ex.span.Text(telemetry.AttrCache, ex.cache)
		if ex.rows >= 0 {
			ex.span.Number(telemetry.AttrRows, ex.rows)
			ex.span.Number(telemetry.AttrBytes, ex.bytes)
		}
		reason := apierr.ReasonOf(ex.failure)
		switch {
		case aborted:
			ex.span.Fail(cmp.Or(reason, "aborted"))
		case ex.status >= http.StatusInternalServerError:
			ex.span.Fail(cmp.Or(reason, strconv.Itoa(ex.status)))
		default:
			ex.span.Text(telemetry.AttrError, reason)
		}
	}
	ex.span.End()
}

// slow tells of a query that took long.
func slow(ctx context.Context, ex *exchange) {
	if ex.query == nil {
		return
	}
	ex.query.LogSlow(ctx, service.Outcome{
		Began:     ex.started,
		Rows:      uint64(max(ex.rows, 0)),
		Bytes:     uint64(max(ex.bytes, 0)),
		Snapshots: ex.snapshots,
		Cache:     ex.cache,
		Err:       ex.failure,
	})
}

func identify(header http.Header) telemetry.Identity {
	return telemetry.Identify(header.Get("X-Request-Id"), header.Get("Traceparent"), header.Get("Tracestate"))
}

// access writes the request's one line.
func access(ctx context.Context, ex *exchange, r *http.Request, took time.Duration, aborted bool) {
	level := slog.LevelInfo
	switch ex.route {
	case routeLive, routeHealth, routeReady, routeMetrics:
		level = slog.LevelDebug
	}
	if !ex.To.Enabled(ctx, level) {
		return
	}
	const most = 13
	attrs := append(
		make([]slog.Attr, 0, most),
		slog.String("request_id", ex.Identity.RequestID),
		slog.String("trace_id", ex.Identity.TraceID()),
		slog.String("method", r.Method),
		slog.String("route", ex.route),
		slog.Int("status", ex.status),
		slog.Int64("bytes", ex.bytes),
		slog.Int64("duration_us", took.Microseconds()),
	)
	if !ex.firstByte.IsZero() {
		attrs = append(attrs, slog.Int64("ttfb_us", ex.firstByte.Sub(ex.started).Microseconds()))
	}
	if ex.rows >= 0 {
		attrs = append(attrs, slog.Int64("rows", ex.rows))
	}
	if ex.cache != "" {
		attrs = append(attrs, slog.String("cache", ex.cache))
	}
	if aborted {
		attrs = append(attrs, slog.Bool("aborted", true))
	}
	ex.To.LogAttrs(ctx, level, "request", append(attrs, slog.String("protocol", r.Proto), slog.String("peer", r.RemoteAddr))...)
}
