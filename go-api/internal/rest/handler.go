// Package rest is the HTTP side of the edge: grpc-gateway over the services in process, and around it what HTTP asks for:
// strict requests, content negotiation, one error shape, codings, digests, trailers, CORS, access log. Rows pass through
// it as bytes. It knows no engine.
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
	"google.golang.org/grpc"

	"github.com/quern-data/quern/go-api/internal/apierr"
	"github.com/quern-data/quern/go-api/internal/service"
)

const (
	routeHealth = "/healthz"
	routeReady  = "/readyz"
	// flushAfter is how much of a result is gathered before it is pushed out. The engine's chunks are larger, all but
	// a result's last one, which the response's end pushes out at once.
	flushAfter = 16 << 10
	// smallBody is what is not worth a content coding.
	smallBody = 1 << 10
)

// Options says how to build the handler.
type Options struct {
	// Channel calls the public services.
	Channel grpc.ClientConnInterface
	// Ready says whether requests can be answered now.
	Ready func() bool
	// Logger gets one line a request.
	Logger *slog.Logger
	// CORSOrigins lists the origins that browsers may call from; `*` stands for all.
	CORSOrigins []string
	// Stall is how long a caller may take no bytes before its connection is cut.
	Stall time.Duration
}

// NewHandler returns the handler of the HTTP port.
func NewHandler(ctx context.Context, options Options) (http.Handler, error) {
	gateway, err := newGateway(ctx, options.Channel)
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
	api := &api{gateway: gateway, routes: publicRoutes()}
	handler := probes(digests(compress(api)), options.Ready)
	if len(options.CORSOrigins) > 0 {
		handler = withCORS(handler, options.CORSOrigins)
	}
	return observe(handler, options.Logger, options.Stall), nil
}

func withCORS(next http.Handler, origins []string) http.Handler {
	return cors.New(cors.Options{
		AllowedOrigins: origins,
		AllowedMethods: []string{http.MethodGet, http.MethodHead, http.MethodPost},
		AllowedHeaders: []string{"Accept", "Content-Type", "Traceparent", "Tracestate", "Want-Repr-Digest", "X-Request-Id"},
		ExposedHeaders: []string{headerReceipt, headerReprDigest, "Retry-After", "X-Request-Id"},
		MaxAge:         600,
	}).Handler(next)
}

// worthCompressing leaves out what is compressed already or hardly shrinks.
func worthCompressing(mediaType string) bool {
	return !slices.ContainsFunc(service.Formats, func(format service.Format) bool {
		return format.Binary && strings.HasPrefix(mediaType, format.MediaType)
	})
}

// probes answers those who watch over the process, and leaves the rest to next.
func probes(next http.Handler, ready func() bool) http.Handler {
	alive := probe(routeHealth, func() bool { return true })
	able := probe(routeReady, ready)
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		switch r.URL.Path {
		case routeHealth:
			alive(w, r)
		case routeReady:
			able(w, r)
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

// api answers the paths that the annotations of quern.v1 name.
type api struct {
	gateway http.Handler
	routes  []route
}

// ServeHTTP implements http.Handler.
func (a *api) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	ex := exchangeOf(r.Context())
	route, allowed, err := find(a.routes, r.Method, r.URL.Path)
	if len(allowed) > 0 {
		w.Header().Set("Allow", strings.Join(allowed, ", "))
		if r.Method == http.MethodOptions {
			w.WriteHeader(http.StatusNoContent)
			return
		}
	}
	if err != nil {
		writeError(w, err)
		return
	}
	ex.route = route.template
	w.Header().Add("Vary", "Accept")
	if err := a.prepare(ex, route, w, r); err != nil {
		writeError(w, err)
		return
	}
	if r.Method == http.MethodHead {
		headOnly(a.gateway, w, r)
		return
	}
	a.gateway.ServeHTTP(&gathered{ResponseWriter: w, control: http.NewResponseController(w)}, r)
	if route.streams {
		finish(ex, w)
	}
}

// prepare checks the request and settles the format that Accept and the URL ask for.
func (a *api) prepare(ex *exchange, route *route, w http.ResponseWriter, r *http.Request) error {
	// The gateway would take a deadline from this header; over HTTP, `timeout` is the only one.
	r.Header.Del("Grpc-Timeout")
	if !route.streams {
		if err := checkAcceptsJSON(r.Header); err != nil {
			return err
		}
	}
	if err := checkRequest(route, w, r); err != nil {
		return err
	}
	if route.streams {
		ex.defaultFormat = formatByAccept(r.Header)
		if named := r.URL.Query().Get(formatField); named != "" && route.hasBody {
			if _, err := service.FormatNamed(named); err != nil {
				return err
			}
			ex.defaultFormat = named
		}
	}
	return nil
}

// finish adds the receipt's trailer. An answer that is no error and has no receipt broke off, whatever the reason, and
// must not end like a whole one.
func finish(ex *exchange, w http.ResponseWriter) {
	switch {
	case ex.failed:
	case ex.receipt == nil:
		panic(http.ErrAbortHandler)
	case strings.Contains(strings.Join(w.Header().Values("Trailer"), ","), headerReceipt):
		if line, err := service.FormatReceipt(ex.receipt); err == nil {
			w.Header().Set(headerReceipt, line)
		}
	}
}

// gathered pushes a result out when enough of it has come together, not after every message.
type gathered struct {
	http.ResponseWriter

	control *http.ResponseController
	pending int
}

// Write implements http.ResponseWriter.
func (g *gathered) Write(data []byte) (int, error) {
	g.pending += len(data)
	return g.ResponseWriter.Write(data)
}

// FlushError serves http.ResponseController.
func (g *gathered) FlushError() error {
	if g.pending < flushAfter {
		return nil
	}
	g.pending = 0
	return g.control.Flush()
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
