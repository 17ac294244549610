package app

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"

	"google.golang.org/grpc"

	"github.com/quern-data/quern/go-api/internal/config"
	"github.com/quern-data/quern/go-api/internal/engine"
	"github.com/quern-data/quern/go-api/internal/tlsfiles"
)

// backend is the engine as the edge sees it: a client and, for a local engine, its supervisor.
type backend struct {
	client     *engine.Client
	supervisor *engine.Supervisor
	// certificates are what TLS to an engine elsewhere uses, nil without TLS.
	certificates *tlsfiles.Store
}

// startEngine starts a local engine, or only connects to one that runs.
func startEngine(cfg *config.Config, logger *slog.Logger, logs io.Writer) (*backend, error) {
	if cfg.Engine != "" {
		return dialEngine(cfg, logger)
	}
	binary, err := cfg.FindEngine()
	if err != nil {
		return nil, err
	}
	supervisor, err := engine.Supervise(engine.Process{Binary: binary, Args: cfg.EngineArgs(), Output: logs, Logger: logger})
	if err != nil {
		return nil, err
	}
	client, err := engine.Dial(supervisor.URL())
	if err != nil {
		return nil, errors.Join(err, (&backend{supervisor: supervisor}).stop())
	}
	supervisor.OnRestart(client.Reconnect)
	return &backend{client: client, supervisor: supervisor}, nil
}

// dialEngine connects to an engine that runs elsewhere.
func dialEngine(cfg *config.Config, logger *slog.Logger) (*backend, error) {
	b := &backend{}
	var options []grpc.DialOption
	var err error
	if cfg.TLS.ToEngine() {
		files := tlsfiles.Files{Cert: cfg.TLS.EngineCert, Key: cfg.TLS.EngineKey, CA: cfg.TLS.EngineCA}
		if b.certificates, err = tlsfiles.Open(files); err != nil {
			return nil, fmt.Errorf("can't set up TLS to the engine: %w", err)
		}
		options = append(options, engine.Secure(b.certificates.Client(cfg.TLS.EngineName), logger))
	}
	b.client, err = engine.Dial(cfg.Engine, options...)
	return b, err
}

// awaitServing waits for a local engine's first SERVING, and gives up when it ends before: its next try would fail the
// same way. An engine that runs elsewhere is not waited for; requests say that it is not there.
func (b *backend) awaitServing(ctx context.Context) error {
	if b.supervisor == nil {
		return nil
	}
	ctx, cancel := context.WithTimeout(ctx, startLimit)
	defer cancel()
	serving := make(chan error, 1)
	go func() { serving <- b.client.AwaitServing(ctx) }()
	select {
	case err := <-serving:
		if err != nil {
			return fmt.Errorf("the engine was not ready within %s; its log lines above may say why", startLimit)
		}
		// What is answered from now on can be kept.
		picture, cancel := context.WithTimeout(ctx, pictureLimit)
		defer cancel()
		b.client.AwaitPicture(picture)
		return nil
	case err := <-b.supervisor.Died():
		return fmt.Errorf("%w before it was ready; its log lines above say why", err)
	}
}

// stop ends the connection and a local engine.
func (b *backend) stop() error {
	var failures []error
	if b.client != nil {
		failures = append(failures, b.client.Close())
	}
	if b.supervisor != nil {
		ctx, cancel := context.WithTimeout(context.Background(), engineStopLimit)
		defer cancel()
		failures = append(failures, b.supervisor.Stop(ctx))
	}
	return errors.Join(failures...)
}
