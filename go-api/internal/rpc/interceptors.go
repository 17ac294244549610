package rpc

import (
	"context"
	"log/slog"
	"runtime/debug"
	"strings"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/peer"
	"google.golang.org/grpc/status"

	quernv1 "github.com/quern-data/quern/go-api/gen/quern/v1"
	"github.com/quern-data/quern/go-api/internal/apierr"
	"github.com/quern-data/quern/go-api/internal/telemetry"
)

// recoverUnary turns a panic into an INTERNAL error of its own call.
func recoverUnary(ctx context.Context, request any, info *grpc.UnaryServerInfo, handler grpc.UnaryHandler) (answer any, err error) {
	defer recovered(ctx, info.FullMethod, &err)
	return handler(ctx, request)
}

// recoverStream is recoverUnary for streams.
func recoverStream(server any, stream grpc.ServerStream, info *grpc.StreamServerInfo, handler grpc.StreamHandler) (err error) {
	defer recovered(stream.Context(), info.FullMethod, &err)
	return handler(server, stream)
}

func recovered(ctx context.Context, method string, err *error) {
	cause := recover()
	if cause == nil {
		return
	}
	telemetry.Logger(ctx).ErrorContext(ctx, "call panicked", "method", method, "panic", cause, "stack", string(debug.Stack()))
	*err = apierr.New(apierr.Internal, "an internal error; the server's log has it under this request's id")
}

// observer gives each call from the network its identity, its logger and its access-log line.
type observer struct {
	logger *slog.Logger
	// calls is told of each call at its end.
	calls Observer
}

func (o observer) unary(ctx context.Context, request any, info *grpc.UnaryServerInfo, handler grpc.UnaryHandler) (any, error) {
	started := time.Now()
	ctx, id, span := o.begin(ctx, info.FullMethod)
	// It fails only outside of a call.
	_ = grpc.SetHeader(ctx, metadata.Pairs(telemetry.RequestIDKey, id.RequestID))
	answer, err := handler(ctx, request)
	err = withInfo(info.FullMethod, err)
	o.access(ctx, info.FullMethod, started, &counts{}, err)
	ended(span, &counts{}, err)
	return answer, err
}

func (o observer) stream(server any, stream grpc.ServerStream, info *grpc.StreamServerInfo, handler grpc.StreamHandler) error {
	started := time.Now()
	ctx, id, span := o.begin(stream.Context(), info.FullMethod)
	_ = stream.SetHeader(metadata.Pairs(telemetry.RequestIDKey, id.RequestID))
	seen := &counted{ServerStream: stream, ctx: ctx}
	err := withInfo(info.FullMethod, handler(server, seen))
	o.access(ctx, info.FullMethod, started, &seen.counts, err)
	ended(span, &seen.counts, err)
	return err
}

// begin replaces what the caller says of itself by a checked identity, and takes the edge's own keys away.
func (o observer) begin(ctx context.Context, method string) (context.Context, telemetry.Identity, telemetry.Span) {
	md, _ := metadata.FromIncomingContext(ctx)
	id := telemetry.Identify(
		telemetry.First(md, telemetry.RequestIDKey),
		telemetry.First(md, telemetry.TraceParentKey),
		telemetry.First(md, telemetry.TraceStateKey),
	)
	service, name, _ := strings.Cut(strings.TrimPrefix(method, "/"), "/")
	ctx, span := telemetry.BeginRPC(ctx, &id, service, name)
	md = md.Copy()
	md.Delete(telemetry.TraceStateKey)
	for key, values := range id.Metadata() {
		md.Set(key, values...)
	}
	return telemetry.WithLogger(metadata.NewIncomingContext(ctx, md), telemetry.RequestLogger{To: o.logger, Identity: id}), id, span
}

// ended ends a call's part of its trace (OpenTelemetry's conventions for gRPC servers).
func ended(span telemetry.Span, seen *counts, err error) {
	if span.Recorded() {
		code := status.Code(err)
		span.Number("rpc.grpc.status_code", int64(code))
		if seen.receipt != nil {
			span.Number(telemetry.AttrRows, seen.receipt.GetRows())
			span.Number(telemetry.AttrBytes, seen.bytes)
		}
		switch code {
		case codes.OK:
		case codes.Unknown, codes.DeadlineExceeded, codes.Unimplemented, codes.Internal, codes.Unavailable, codes.DataLoss:
			span.Fail(apierr.ReasonOf(err))
		default:
			span.Text(telemetry.AttrError, apierr.ReasonOf(err))
		}
	}
	span.End()
}

func (o observer) access(ctx context.Context, method string, started time.Time, seen *counts, err error) {
	now := time.Now()
	o.calls.ObserveCall(method, apierr.CodeName(status.Code(err)), now.Sub(started))
	attrs := []slog.Attr{
		slog.String("method", "gRPC"),
		slog.String("route", method),
		slog.String("status", apierr.CodeName(status.Code(err))),
		slog.Int64("bytes", seen.bytes),
		slog.Int64("duration_us", now.Sub(started).Microseconds()),
	}
	if !seen.first.IsZero() {
		attrs = append(attrs, slog.Int64("ttfb_us", seen.first.Sub(started).Microseconds()))
	}
	if seen.receipt != nil {
		attrs = append(attrs, slog.Int64("rows", seen.receipt.GetRows()))
	}
	if from, ok := peer.FromContext(ctx); ok {
		attrs = append(attrs, slog.String("peer", from.Addr.String()))
	}
	telemetry.Logger(ctx).LogAttrs(ctx, slog.LevelInfo, "request", attrs...)
}

// withInfo gives an error of a public service an ErrorInfo where it lacks one. Health and reflection have codes of
// their own, which their clients know.
func withInfo(method string, err error) error {
	if err == nil || !strings.HasPrefix(method, "/quern.") || apierr.Info(status.Convert(err)) != nil {
		return err
	}
	return apierr.Of(err).Err()
}

type counts struct {
	bytes   int64
	first   time.Time
	receipt *quernv1.Receipt
}

// counted is a stream that counts a result's bytes and notes its receipt.
type counted struct {
	grpc.ServerStream

	ctx    context.Context //nolint:containedctx // a stream carries its context
	counts counts
}

// Context implements grpc.ServerStream.
func (c *counted) Context() context.Context { return c.ctx }

// SendMsg implements grpc.ServerStream.
func (c *counted) SendMsg(message any) error {
	part, ok := message.(*quernv1.QueryResponse)
	if ok {
		c.counts.bytes += int64(len(part.GetBody().GetData()))
		if c.counts.first.IsZero() {
			c.counts.first = time.Now()
		}
	}
	if err := c.ServerStream.SendMsg(message); err != nil {
		return err
	}
	if ok && part.GetReceipt() != nil {
		c.counts.receipt = part.GetReceipt()
	}
	return nil
}
