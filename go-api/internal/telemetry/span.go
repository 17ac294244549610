package telemetry

import (
	"context"
	"encoding/hex"
	"sync/atomic"
	"time"

	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/codes"
	"go.opentelemetry.io/otel/trace"
)

// tracer makes spans; nil while traces are off, which then cost a look at it.
var tracer atomic.Pointer[trace.Tracer]

// Names of attributes that OpenTelemetry's conventions have no word for.
const (
	// AttrTables and AttrSnapshots are lists: what a result was read from, as `table` and as `table@snapshot`.
	AttrTables    = "quern.tables"
	AttrSnapshots = "quern.snapshots"
	// AttrCache is how a result came about, as Cache-Status says it.
	AttrCache = "quern.cache.status"
	// AttrFormat is a result's format.
	AttrFormat = "quern.format"
	// AttrRows and AttrBytes are what was sent.
	AttrRows  = "quern.rows"
	AttrBytes = "quern.bytes"
	// AttrError is why it failed: a reason of the error reference.
	AttrError = "error.type"
)

// Span is a part of a request's trace; its zero value, while traces are off, does nothing.
type Span struct{ span trace.Span }

// Recorded says whether what is said of the span goes anywhere.
func (s Span) Recorded() bool { return s.span != nil && s.span.IsRecording() }

// Text says something of the span.
func (s Span) Text(name, value string) {
	if s.Recorded() && value != "" {
		s.span.SetAttributes(attribute.String(name, value))
	}
}

// Texts says several things of one kind.
func (s Span) Texts(name string, values []string) {
	if s.Recorded() && len(values) > 0 {
		s.span.SetAttributes(attribute.StringSlice(name, values))
	}
}

// Number is Text for numbers.
func (s Span) Number(name string, value int64) {
	if s.Recorded() {
		s.span.SetAttributes(attribute.Int64(name, value))
	}
}

// Name names a span whose name was not known when it began.
func (s Span) Name(name string) {
	if s.Recorded() {
		s.span.SetName(name)
	}
}

// Fail says why what the span stands for failed, by a reason of the error reference; no reason says that it did not.
func (s Span) Fail(reason string) {
	if s.Recorded() && reason != "" {
		s.span.SetStatus(codes.Error, "")
		s.Text(AttrError, reason)
	}
}

// End ends the span, once.
func (s Span) End() {
	if s.span != nil {
		s.span.End()
	}
}

// recorded says whether ctx is in a span that is recorded. What lies below another one is not made.
func recorded(ctx context.Context) bool {
	return tracer.Load() != nil && trace.SpanFromContext(ctx).IsRecording()
}

// Begin begins a part of the request's trace. The context that comes back is that of its own parts.
func Begin(ctx context.Context, name string) (context.Context, Span) {
	if !recorded(ctx) {
		return ctx, Span{}
	}
	return start(ctx, name, trace.SpanKindInternal)
}

// BeginCall begins a call to the engine, `package.Service/Method`.
func BeginCall(ctx context.Context, service, method string) (context.Context, Span) {
	if !recorded(ctx) {
		return ctx, Span{}
	}
	ctx, span := start(ctx, service+"/"+method, trace.SpanKindClient)
	span.rpc(service, method)
	return ctx, span
}

// Past is a part that began at some time and ends now.
func Past(ctx context.Context, name string, began time.Time) Span {
	made := tracer.Load()
	if made == nil || !recorded(ctx) {
		return Span{}
	}
	_, span := (*made).Start(ctx, name, trace.WithTimestamp(began))
	return Span{span}
}

// BeginRequest begins this edge's part of a trace, below the caller's part where it named one; the request's identity is
// then that of the span.
func BeginRequest(ctx context.Context, id *Identity, name string) (context.Context, Span) {
	if tracer.Load() == nil {
		return ctx, Span{}
	}
	if parent, ok := parse(id.caller); ok {
		state, err := trace.ParseTraceState(id.TraceState)
		if err == nil {
			parent = parent.WithTraceState(state)
		}
		ctx = trace.ContextWithRemoteSpanContext(ctx, parent)
	}
	ctx, span := start(ctx, name, trace.SpanKindServer)
	id.TraceParent = format(span.span.SpanContext())
	return ctx, span
}

// BeginRPC is BeginRequest for a gRPC call to this edge, `/package.Service/Method`.
func BeginRPC(ctx context.Context, id *Identity, service, method string) (context.Context, Span) {
	if tracer.Load() == nil {
		return ctx, Span{}
	}
	ctx, span := BeginRequest(ctx, id, service+"/"+method)
	span.rpc(service, method)
	return ctx, span
}

func (s Span) rpc(service, method string) {
	if s.Recorded() {
		s.span.SetAttributes(attribute.String("rpc.system", "grpc"), attribute.String("rpc.service", service), attribute.String("rpc.method", method))
	}
}

// Current returns the span that ctx is in.
func Current(ctx context.Context) Span {
	if tracer.Load() == nil {
		return Span{}
	}
	return Span{trace.SpanFromContext(ctx)}
}

// Parent returns the traceparent of what belongs to the span that ctx is in, empty while traces are off.
func Parent(ctx context.Context) string {
	if tracer.Load() == nil {
		return ""
	}
	if span := trace.SpanContextFromContext(ctx); span.IsValid() && !span.IsRemote() {
		return format(span)
	}
	return ""
}

// SampledParent is Parent where the trace is recorded, empty elsewhere.
func SampledParent(ctx context.Context) string {
	if tracer.Load() == nil || !trace.SpanContextFromContext(ctx).IsSampled() {
		return ""
	}
	return Parent(ctx)
}

func start(ctx context.Context, name string, kind trace.SpanKind) (context.Context, Span) {
	made := tracer.Load()
	if made == nil {
		return ctx, Span{}
	}
	ctx, span := (*made).Start(ctx, name, trace.WithSpanKind(kind))
	return ctx, Span{span}
}

// format writes a span as a traceparent of version 00.
func format(span trace.SpanContext) string {
	return "00-" + span.TraceID().String() + "-" + span.SpanID().String() + "-" + span.TraceFlags().String()
}

// parse reads a traceparent that [Identify] has checked.
func parse(parent string) (trace.SpanContext, bool) {
	var config trace.SpanContextConfig
	if len(parent) < traceIDEnd+spanLength+2 {
		return trace.SpanContext{}, false
	}
	var flags [1]byte
	_, badTrace := hex.Decode(config.TraceID[:], []byte(parent[3:traceIDEnd]))
	_, badSpan := hex.Decode(config.SpanID[:], []byte(parent[traceIDEnd+1:traceIDEnd+spanLength-1]))
	_, badFlags := hex.Decode(flags[:], []byte(parent[traceIDEnd+spanLength:traceIDEnd+spanLength+2]))
	config.TraceFlags, config.Remote = trace.TraceFlags(flags[0])&trace.FlagsSampled, true
	return trace.NewSpanContext(config), badTrace == nil && badSpan == nil && badFlags == nil
}
