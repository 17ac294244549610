package rest

import (
	"context"
	"net/http"
	"strings"
	"time"

	"github.com/quern-data/quern/go-api/internal/cache"
	"github.com/quern-data/quern/go-api/internal/service"
	"github.com/quern-data/quern/go-api/internal/telemetry"
)

// writeDeadlineEvery spares a system call a write.
const writeDeadlineEvery = time.Second

// exchange is what one request and its response come to: for the access log, and for the parts of the handler to tell
// each other. It is the response's writer and the request's context too, so that a request costs one allocation here.
type exchange struct {
	recorder
	telemetry.RequestLogger

	// conn is the connection, where it is one of HTTP/1.1 that gathers.
	conn    *gatheringConn
	started time.Time
	route   string
	// rows is how many rows a complete result has, -1 where the answer is none.
	rows int64
	// cache is how a result came about: Cache-Status.
	cache string
	// span is the request's part of its trace.
	span telemetry.Span
	// failure is the error that was answered.
	failure error
	// query is what was asked for a result, and snapshots what that was read from.
	query     *service.Query
	snapshots []cache.Snapshot
}

type exchangeKey struct{}

// exchangeContext is the context of an exchange's request.
type exchangeContext struct {
	context.Context //nolint:containedctx // it is a context

	ex *exchange
}

// Value implements context.Context.
func (c exchangeContext) Value(key any) any {
	switch key {
	case any(exchangeKey{}):
		return c.ex
	case telemetry.LoggerKey:
		return c.ex.RequestLogger
	}
	return c.Context.Value(key)
}

func exchangeOf(ctx context.Context) *exchange {
	if ex, ok := ctx.Value(exchangeKey{}).(*exchange); ok {
		return ex
	}
	return &exchange{rows: -1}
}

// recorder notes what is sent, and gives each write a deadline, so that a caller who stops reading can't hold a query:
// only one who makes no progress for the stall limit is cut off, however long the whole takes.
type recorder struct {
	http.ResponseWriter

	control      *http.ResponseController
	stall        time.Duration
	deadlineSet  time.Time
	status       int
	bytes        int64
	firstByte    time.Time
	wroteHeaders bool
}

// WriteHeader implements http.ResponseWriter.
func (r *recorder) WriteHeader(code int) {
	if !r.wroteHeaders && code >= http.StatusOK {
		r.wroteHeaders, r.status = true, code
		r.joinVary()
	}
	r.extend()
	r.ResponseWriter.WriteHeader(code)
}

// joinVary makes one line of what the layers said each for itself: callers tend to read the first line only.
func (r *recorder) joinVary() {
	if lines := r.Header().Values("Vary"); len(lines) > 1 {
		r.Header().Set("Vary", strings.Join(lines, ", "))
	}
}

// Write implements http.ResponseWriter.
func (r *recorder) Write(data []byte) (int, error) {
	if !r.wroteHeaders {
		r.wroteHeaders = true
		r.joinVary()
	}
	r.extend()
	n, err := r.ResponseWriter.Write(data)
	if n > 0 && r.firstByte.IsZero() {
		r.firstByte = time.Now()
	}
	r.bytes += int64(n)
	return n, err
}

// Flush implements http.Flusher, for the compressor, which asks for it by type.
func (r *recorder) Flush() {
	r.extend()
	// A connection that is gone shows at the next write.
	_ = r.control.Flush()
}

// Unwrap serves http.ResponseController.
func (r *recorder) Unwrap() http.ResponseWriter { return r.ResponseWriter }

func (r *recorder) extend() {
	now := time.Now()
	if now.Sub(r.deadlineSet) < writeDeadlineEvery {
		return
	}
	r.deadlineSet = now
	// Every connection of the server can; a test's recorder can't and needs none.
	_ = r.control.SetWriteDeadline(now.Add(r.stall))
}
