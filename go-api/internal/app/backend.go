package app

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"

	"github.com/quern-data/quern/go-api/internal/config"
	"github.com/quern-data/quern/go-api/internal/engine"
)

// backend is the engine as the edge sees it: a client and, for a local engine, its supervisor.
type backend struct {
	client     *engine.Client
	supervisor *engine.Supervisor
}

// startEngine starts a local engine, or only connects to one that runs.
func startEngine(cfg *config.Config, logger *slog.Logger, logs io.Writer) (*backend, error) {
	if cfg.Engine != "" {
		client, err := engine.Dial(cfg.Engine)
		if err != nil {
			return nil, err
		}
		return &backend{client: client}, nil
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
