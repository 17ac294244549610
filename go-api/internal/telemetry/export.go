package telemetry

import (
	"context"
	"fmt"
	"log/slog"
	"sync"
	"time"

	"go.opentelemetry.io/otel"
	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/exporters/otlp/otlptrace/otlptracegrpc"
	"go.opentelemetry.io/otel/sdk/resource"
	sdktrace "go.opentelemetry.io/otel/sdk/trace"
	"go.opentelemetry.io/otel/trace"
)

const (
	// scope names what makes the spans.
	scope = "quern-edge"
	// flushLimit is how long what waits may take to leave at the end.
	flushLimit = 2 * time.Second
	// complainEvery is how often a collector that is gone is spoken of.
	complainEvery = time.Minute
)

// ExportTraces makes spans and sends them to the collector that the standard variables of OpenTelemetry name, until stop
// is called. Spans wait in a queue that is bounded, 2048 unless OTEL_BSP_MAX_QUEUE_SIZE says otherwise; what finds no place
// is dropped, so a collector that is slow or gone slows no request.
func ExportTraces(ctx context.Context, version string, logger *slog.Logger) (stop func(), err error) {
	otel.SetErrorHandler(&complaints{logger: logger})
	exporter, err := otlptracegrpc.New(ctx)
	if err != nil {
		return nil, fmt.Errorf("set up the export of traces: %w", err)
	}
	// Later ones win: the environment may name the service otherwise.
	about, err := resource.New(
		ctx,
		resource.WithAttributes(attribute.String("service.name", scope), attribute.String("service.version", version)),
		resource.WithTelemetrySDK(),
		resource.WithFromEnv(),
	)
	if err != nil {
		return nil, fmt.Errorf("read OTEL_RESOURCE_ATTRIBUTES: %w", err)
	}
	provider := sdktrace.NewTracerProvider(sdktrace.WithBatcher(exporter), sdktrace.WithResource(about))
	made := provider.Tracer(scope, trace.WithInstrumentationVersion(version))
	tracer.Store(&made)
	return func() {
		tracer.Store(nil)
		// The process ends: its context has ended already.
		flush, cancel := context.WithTimeout(context.Background(), flushLimit)
		defer cancel()
		if err := provider.Shutdown(flush); err != nil {
			logger.Warn("spans were lost at the end", "error", err)
		}
	}, nil
}

// complaints logs failures of the export, now and then.
type complaints struct {
	logger *slog.Logger

	mu   sync.Mutex
	last time.Time
}

// Handle implements otel.ErrorHandler.
func (c *complaints) Handle(err error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if time.Since(c.last) < complainEvery {
		return
	}
	c.last = time.Now()
	c.logger.Warn("spans were lost: the collector did not take them", "error", err)
}
