// Package rest is the HTTP side of the edge: grpc-gateway over the services in process, results as they come from the
// cache, and around both what HTTP asks for: strict requests, content negotiation, conditional requests, one error shape,
// codings, digests, trailers, CORS, access log. Rows pass through it as bytes. It knows no engine.
package rest

import (
	"compress/gzip"
	"context"
	"fmt"
	"log/slog"
	"net/http"
	"slices"
	"strings"
	"time"

	"github.com/klauspost/compress/gzhttp"
	"github.com/rs/cors"

	quernv1 "github.com/quern-data/quern/go-api/gen/quern/v1"
	"github.com/quern-data/quern/go-api/internal/apierr"
	"github.com/quern-data/quern/go-api/internal/cache"
	"github.com/quern-data/quern/go-api/internal/service"
)

const (
	// routeLive says whether the process lives, whatever its engine does; routeHealth is its older name.
	routeLive   = "/livez"
	routeHealth = "/healthz"
	routeReady  = "/readyz"
	// routeMetrics answers in the Prometheus text format.
	routeMetrics = "/metrics"
	// smallBody is what is not worth a content coding.
	smallBody = 1 << 10
)

// Options says how to build the handler.
type Options struct {
	// Tables answers for the resources that grpc-gateway serves.
	Tables quernv1.TableServiceServer
	// Queries answers queries.
	Queries *service.Queries
	// Keep returns the Cache-Control of an answer made from these snapshots, or nothing for the default.
	Keep func([]cache.Snapshot) string
	// Metrics answers for the metrics.
	Metrics http.Handler
	// Observer is told of each request.
	Observer Observer
	// Ready says whether requests can be answered now.
	Ready func() bool
	// Leaving says whether callers should go elsewhere: each answer then ends its connection.
	Leaving func() bool
	// Logger gets one line a request.
	Logger *slog.Logger
	// CORSOrigins lists the origins that browsers may call from; `*` stands for all.
	CORSOrigins []string
	// Stall is how long a caller may take no bytes before its connection is cut.
	Stall time.Duration
}

// Observer is told of each request, at its end.
type Observer interface {
	// Observe is given a route as the API's definition spells it, one of few, or nothing.
	Observe(route string, code int, took time.Duration)
}

// NewHandler returns the handler of the HTTP port.
func NewHandler(ctx context.Context, options Options) (http.Handler, error) {
	gateway, err := newGateway(ctx, options.Tables)
	if err != nil {
		return nil, err
	}
	compress, err := gzhttp.NewWrapper(
		gzhttp.MinSize(smallBody),
		gzhttp.CompressionLevel(gzip.BestSpeed),
		gzhttp.ContentTypeFilter(worthCompressing),
	)
	if err != nil {
		return nil, fmt.Errorf("set up content codings: %w", err)
	}
	checked, err := newChecked()
	if err != nil {
		return nil, err
	}
	api := &api{gateway: compress(gateway), queries: options.Queries, checked: checked, keep: options.Keep, routes: publicRoutes()}
	handler := leave(probes(digests(api), options.Ready, options.Metrics), options.Leaving)
	if len(options.CORSOrigins) > 0 {
		handler = withCORS(handler, options.CORSOrigins)
	}
	return observe(handler, options.Logger, options.Observer, options.Stall), nil
}

func withCORS(next http.Handler, origins []string) http.Handler {
	return cors.New(cors.Options{
		AllowedOrigins: origins,
		AllowedMethods: []string{http.MethodGet, http.MethodHead, http.MethodPost},
		AllowedHeaders: []string{"Accept", "Cache-Control", "Content-Type", "If-None-Match", "Traceparent", "Tracestate", "Want-Repr-Digest", "X-Request-Id"},
		ExposedHeaders: []string{"Cache-Status", "Etag", "Link", headerMissing, headerReceipt, headerTotalSize, headerReprDigest, "Retry-After", "X-Request-Id"},
		MaxAge:         600,
	}).Handler(next)
}

// worthCompressing leaves out what is compressed already or hardly shrinks.
func worthCompressing(mediaType string) bool {
	return !slices.ContainsFunc(service.Formats, func(format service.Format) bool {
		return format.Binary && strings.HasPrefix(mediaType, format.MediaType)
	})
}

// leave asks callers to go elsewhere with their next request while leaving holds. Over HTTP/2 net/http makes a GOAWAY of it.
func leave(next http.Handler, leaving func() bool) http.Handler {
	if leaving == nil {
		return next
	}
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if leaving() {
			w.Header().Set("Connection", "close")
		}
		next.ServeHTTP(w, r)
	})
}

// probes answers those who watch over the process, and leaves the rest to next.
func probes(next http.Handler, ready func() bool, metrics http.Handler) http.Handler {
	always := func() bool { return true }
	live, health, able := probe(routeLive, always), probe(routeHealth, always), probe(routeReady, ready)
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		switch r.URL.Path {
		case routeLive:
			live(w, r)
		case routeHealth:
			health(w, r)
		case routeReady:
			able(w, r)
		case routeMetrics:
			exchangeOf(r.Context()).route = routeMetrics
			w.Header().Set("Cache-Control", "no-store")
			metrics.ServeHTTP(w, r)
		default:
			next.ServeHTTP(w, r)
		}
	})
}

// probe answers 200 or 503.
func probe(route string, good func() bool) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		exchangeOf(r.Context()).route = route
		w.Header().Set("Cache-Control", "no-store")
		if r.Method != http.MethodGet && r.Method != http.MethodHead {
			w.Header().Set("Allow", "GET, HEAD")
			writeError(w, apierr.Newf(apierr.MethodNotAllowed, "%s takes GET, HEAD", route))
			return
		}
		if !good() {
			writeError(w, apierr.Unavailable())
			return
		}
		w.Header().Set("Content-Type", "application/json")
		_, _ = w.Write([]byte("{\"status\":\"ok\"}\n"))
	}
}

// api answers the paths that the annotations of quern.v1 name: results itself, byte for byte, all else by grpc-gateway.
type api struct {
	gateway http.Handler
	queries *service.Queries
	checked *checked
	keep    func([]cache.Snapshot) string
	routes  []route
}

// ServeHTTP implements http.Handler.
func (a *api) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	ex := exchangeOf(r.Context())
	route, allowed, err := find(a.routes, r.Method, r.URL)
	if len(allowed) > 0 {
		w.Header().Set("Allow", strings.Join(allowed, ", "))
		if r.Method == http.MethodOptions {
			w.WriteHeader(http.StatusNoContent)
			return
		}
	}
	if err != nil {
		ex.failure = err
		writeError(w, err)
		return
	}
	ex.route = route.template
	if route.streams {
		if err := a.query(ex, route, w, r); err != nil {
			ex.failure = err
			writeError(w, err)
		}
		return
	}
	w.Header().Add("Vary", "Accept")
	if err := prepare(route, r); err != nil {
		ex.failure = err
		writeError(w, err)
		return
	}
	if r.Method == http.MethodHead {
		headOnly(a.gateway, w, r)
		return
	}
	a.gateway.ServeHTTP(w, r)
}

// prepare checks a request that the gateway will answer.
func prepare(route *route, r *http.Request) error {
	// The gateway would take a deadline from this header; over HTTP, `timeout` is the only one.
	r.Header.Del("Grpc-Timeout")
	if err := checkAcceptsJSON(r.Header); err != nil {
		return err
	}
	return checkRequest(route, r)
}

// headOnly answers HEAD with the header that GET would get, and stops the work at the first byte of the body.
func headOnly(next http.Handler, w http.ResponseWriter, r *http.Request) {
	ctx, cancel := context.WithCancel(r.Context())
	defer cancel()
	get := r.Clone(ctx)
	get.Method = http.MethodGet
	next.ServeHTTP(&headWriter{ResponseWriter: w}, get)
}

type headWriter struct{ http.ResponseWriter }

// Write implements http.ResponseWriter.
func (headWriter) Write([]byte) (int, error) { return 0, http.ErrBodyNotAllowed }
