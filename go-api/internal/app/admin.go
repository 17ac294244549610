package app

import (
	"context"
	"io"
	"net/http"
	"net/http/pprof"
	"time"

	"github.com/quern-data/quern/go-api/internal/telemetry"
)

// profileLimit bounds one profile: `go tool pprof` asks for 30 s unless told otherwise.
const profileLimit = 2 * time.Minute

// serveAdmin serves Go's profiler on a loopback address until ctx ends. No address serves nothing.
func serveAdmin(ctx context.Context, address string, logs io.Writer) error {
	if address == "" {
		return nil
	}
	listener, err := listen(ctx, "admin", address)
	if err != nil {
		return err
	}
	mux := http.NewServeMux()
	// The index has all profiles but these four.
	mux.HandleFunc("GET /debug/pprof/", pprof.Index)
	mux.HandleFunc("GET /debug/pprof/cmdline", pprof.Cmdline)
	mux.HandleFunc("GET /debug/pprof/profile", pprof.Profile)
	mux.HandleFunc("GET /debug/pprof/symbol", pprof.Symbol)
	mux.HandleFunc("GET /debug/pprof/trace", pprof.Trace)
	server := &http.Server{Handler: mux, ReadHeaderTimeout: readHeaderTimeout, WriteTimeout: profileLimit, IdleTimeout: idleTimeout}
	// Nobody waits for a profile when the process ends.
	context.AfterFunc(ctx, func() { _ = server.Close() })
	go func() { _ = server.Serve(listener) }()
	if logger, err := telemetry.NewLogger(logs, "info"); err == nil {
		logger.Info("profiling", "admin", listener.Addr().String())
	}
	return nil
}
