// Package app wires the edge: engine, services, REST and gRPC, and brings them up and down in the right order.
package app

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"time"

	"golang.org/x/net/netutil"

	"github.com/quern-data/quern/go-api/internal/cache"
	"github.com/quern-data/quern/go-api/internal/config"
	"github.com/quern-data/quern/go-api/internal/engine"
	"github.com/quern-data/quern/go-api/internal/rest"
	"github.com/quern-data/quern/go-api/internal/rpc"
	"github.com/quern-data/quern/go-api/internal/service"
	"github.com/quern-data/quern/go-api/internal/settings"
	"github.com/quern-data/quern/go-api/internal/sharedcache"
	"github.com/quern-data/quern/go-api/internal/telemetry"
)

const (
	readHeaderTimeout  = 10 * time.Second
	idleTimeout        = 2 * time.Minute
	maxHeaderBytes     = 64 << 10
	maxStreamsPerConn  = 100
	maxFrameBytes      = 16 << 10
	startLimit         = 60 * time.Second
	engineStopLimit    = 10 * time.Second
	pictureLimit       = 500 * time.Millisecond
	healthSettleWindow = 100 * time.Millisecond
)

// Run serves until ctx ends, then drains and returns. From when leaving ends, which is when ctx ends at the latest, it says
// that it is not ready, and still serves. It returns early when it can't start.
func Run(ctx, leaving context.Context, cfg *config.Config, logger *slog.Logger, logs io.Writer) error {
	plan := planMemory(cfg, available())
	cfg.CacheBytes = plan.cache
	cfg.MaxConnections = plan.connections
	tuneCollector(plan.limit)
	if cfg.Traces {
		stop, err := telemetry.ExportTraces(ctx, cfg.Version, logger)
		if err != nil {
			return err
		}
		defer stop()
	}
	backend, err := startEngine(cfg, logger, logs)
	if err != nil {
		return err
	}
	err = serve(ctx, leaving, cfg, logger, logs, backend)
	return errors.Join(err, backend.stop())
}

// serve listens before it waits for the engine, so that a port that is taken shows at once.
func serve(ctx, leaving context.Context, cfg *config.Config, logger *slog.Logger, logs io.Writer, backend *backend) error {
	metrics := newMetrics(cfg.Version)
	tables, err := settings.Open(cfg.SettingsPath())
	if err != nil {
		return err
	}
	go tables.Follow(ctx, logger)
	answers, closeCache, err := newCache(cfg, logger, backend.client, metrics, tables)
	if err != nil {
		return err
	}
	defer closeCache()
	queries := service.NewQueries(backend.client, answers, tables.Key, service.Timeouts{
		Default: cfg.TimeoutDefault, Most: cfg.TimeoutMax, Slow: cfg.SlowQuery,
	})
	services := rpc.Services{
		Tables:  service.NewTables(backend.client, queries, cfg.TimeoutDefault),
		Queries: service.NewQueryServer(queries),
	}
	certificates, err := openCertificates(ctx, cfg, logger, metrics, backend)
	if err != nil {
		return err
	}
	leaving, leave := context.WithCancel(leaving)
	defer leave()
	handler, err := rest.NewHandler(ctx, rest.Options{
		Tables:      services.Tables,
		Queries:     queries,
		Keep:        func(read []cache.Snapshot) string { return cacheControl(tables, read) },
		Metrics:     metrics.handler(),
		Observer:    metrics,
		Ready:       func() bool { return leaving.Err() == nil && backend.client.Serving() },
		Leaving:     func() bool { return leaving.Err() != nil },
		Logger:      logger,
		CORSOrigins: cfg.CORSOrigins,
		Stall:       cfg.StallTimeout,
	})
	if err != nil {
		return err
	}
	httpListener, err := listen(ctx, "http", cfg.HTTP)
	if err != nil {
		return err
	}
	defer closeQuietly(httpListener)
	grpcListener, err := listen(ctx, "grpc", cfg.GRPC)
	if err != nil {
		return err
	}
	defer closeQuietly(grpcListener)
	if err := serveAdmin(ctx, cfg.Admin, logs); err != nil {
		return err
	}
	if err := backend.awaitServing(leaving); err != nil {
		if leaving.Err() != nil {
			return nil
		}
		return err
	}

	callers := newConnections(cfg.MaxConnections)
	metrics.watchConnections(callers)
	httpServer := newHTTPServer(handler, logger)
	httpServer.ConnState = callers.follow
	if certificates != nil {
		secureHTTP(httpServer, certificates.Server())
	}
	grpcServer := rpc.NewServer(services, logger, metrics, secureGRPC(certificates)...)
	failed := make(chan error, 2)
	go func() { failed <- serveHTTP(httpServer, httpListener) }()
	// Who comes while it is full waits in the system's backlog until one that is idle is closed.
	go func() { failed <- grpcServer.Serve(netutil.LimitListener(grpcListener, cfg.MaxConnections)) }()
	go followHealth(leaving, backend.client, grpcServer)
	announce(logs, httpListener, grpcListener, certificates != nil)

	context.AfterFunc(leaving, func() {
		grpcServer.Leave()
		logger.Info("leaving", "drain_delay", cfg.DrainDelay.String())
	})
	select {
	case err = <-failed:
		err = fmt.Errorf("a server ended on its own: %w", err)
	case <-ctx.Done():
		err = nil
	}
	leave()
	drain(cfg.GracePeriod, logger, httpServer, grpcServer)
	return err
}

// freshness is what the settings say of an answer.
func freshness(tables *settings.Settings, read []cache.Snapshot) settings.Freshness {
	if !tables.Any() {
		return settings.Freshness{}
	}
	names := make([]string, 0, len(read))
	for _, snapshot := range read {
		names = append(names, snapshot.Table)
	}
	return tables.Freshness(names)
}

// cacheControl returns an answer's response directives, or nothing for the default.
func cacheControl(tables *settings.Settings, read []cache.Snapshot) string {
	found := freshness(tables, read)
	if found == (settings.Freshness{}) {
		return ""
	}
	return found.CacheControl()
}

// announce writes the line that says where the ports are, whatever the log level: with port 0 nobody could know else.
func announce(logs io.Writer, httpListener, grpcListener net.Listener, tls bool) {
	if logger, err := telemetry.NewLogger(logs, "info"); err == nil {
		logger.Info("serving", "http", httpListener.Addr().String(), "grpc", grpcListener.Addr().String(), "tls", tls)
	}
}

// newCache returns the front cache, with its shared level where one is configured, and what closes it.
func newCache(
	cfg *config.Config, logger *slog.Logger, client *engine.Client, metrics *metrics, tables *settings.Settings,
) (*cache.Cache, func(), error) {
	options := cache.Options{
		Bytes: cfg.CacheBytes, MaxEntry: cfg.MaxEntryBytes, Lasting: service.Lasting,
		Tolerance: func(read []cache.Snapshot) time.Duration { return freshness(tables, read).StaleIfError },
	}
	closeShared := func() {}
	var shared *sharedcache.Redis
	if cfg.CacheRedis != "" {
		var err error
		if shared, err = sharedcache.Open(cfg.CacheRedis, logger); err != nil {
			return nil, nil, err
		}
		options.Shared, closeShared = shared, shared.Close
	}
	answers, err := cache.New(client, options)
	if err != nil {
		closeShared()
		return nil, nil, err
	}
	metrics.watchCache(answers, cfg.CacheBytes)
	metrics.watchEngine(client)
	if shared != nil {
		metrics.watchShared(answers, shared)
	}
	return answers, closeShared, nil
}

// drain lets requests under way end within the grace period, then cuts them off.
func drain(grace time.Duration, logger *slog.Logger, httpServer *http.Server, grpcServer *rpc.Server) {
	logger.Info("draining", "grace_period", grace.String())
	// The signal's context has ended; the grace period is a new one.
	ctx, cancel := context.WithTimeout(context.Background(), grace)
	defer cancel()
	calls := make(chan struct{})
	go func() {
		defer close(calls)
		grpcServer.Drain(ctx)
	}()
	if err := httpServer.Shutdown(ctx); err != nil {
		logger.Warn("grace period over, cutting requests off", "error", err)
		// Its connections are gone either way.
		_ = httpServer.Close()
	}
	<-calls
	logger.Info("drained")
}

func newHTTPServer(handler http.Handler, logger *slog.Logger) *http.Server {
	protocols := new(http.Protocols)
	protocols.SetHTTP1(true)
	protocols.SetUnencryptedHTTP2(true)
	return &http.Server{
		Handler:           handler,
		ConnContext:       rest.ConnContext,
		ReadHeaderTimeout: readHeaderTimeout,
		IdleTimeout:       idleTimeout,
		MaxHeaderBytes:    maxHeaderBytes,
		Protocols:         protocols,
		HTTP2: &http.HTTP2Config{
			MaxConcurrentStreams: maxStreamsPerConn, MaxReadFrameSize: maxFrameBytes,
			SendPingTimeout: 30 * time.Second, PingTimeout: 15 * time.Second,
		},
		ErrorLog: slog.NewLogLogger(logger.Handler(), slog.LevelDebug),
	}
}

// followHealth keeps grpc.health.v1 true to the engine's state.
func followHealth(ctx context.Context, client *engine.Client, server *rpc.Server) {
	for ctx.Err() == nil {
		serving := client.Serving()
		server.SetServing(serving)
		if !serving {
			if client.AwaitServing(ctx) != nil {
				return
			}
			continue
		}
		select {
		case <-ctx.Done():
		case <-time.After(healthSettleWindow):
		}
	}
}

func listen(ctx context.Context, name, address string) (net.Listener, error) {
	listener, err := new(net.ListenConfig).Listen(ctx, "tcp", address)
	if err != nil {
		return nil, fmt.Errorf("can't listen on --%s %s: %w", name, address, err)
	}
	return listener, nil
}

// closeQuietly is for listeners that a server may have closed already.
func closeQuietly(closer io.Closer) { _ = closer.Close() }
