package rest

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"net/http"

	"github.com/grpc-ecosystem/grpc-gateway/v2/runtime"
	"google.golang.org/genproto/googleapis/api/httpbody"
	"google.golang.org/grpc"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/encoding/protojson"
	"google.golang.org/protobuf/proto"

	quernv1 "github.com/quern-data/quern/go-api/gen/quern/v1"
	"github.com/quern-data/quern/go-api/internal/service"
	"github.com/quern-data/quern/go-api/internal/telemetry"
)

const headerReceipt = "Quern-Receipt"

// newGateway returns the handler that grpc-gateway makes from the annotations of quern.v1, calling channel.
func newGateway(ctx context.Context, channel grpc.ClientConnInterface) (http.Handler, error) {
	mux := runtime.NewServeMux(
		runtime.WithMarshalerOption(runtime.MIMEWildcard, newMarshaler()),
		runtime.WithIncomingHeaderMatcher(func(string) (string, bool) { return "", false }),
		runtime.WithOutgoingHeaderMatcher(func(string) (string, bool) { return "", false }),
		runtime.WithOutgoingTrailerMatcher(func(string) (string, bool) { return "", false }),
		runtime.WithMetadata(requestMetadata),
		runtime.WithErrorHandler(answerError),
		runtime.WithStreamErrorHandler(abort),
		runtime.WithForwardResponseOption(announceTrailer),
		runtime.WithForwardResponseRewriter(unwrapBody),
		runtime.WithDisableChunkedEncoding(),
		runtime.WithDisablePathLengthFallback(),
		runtime.WithDisableHTTPMethodOverride(),
		runtime.WithWriteContentLength(),
	)
	channel = earlyErrors{channel}
	if err := quernv1.RegisterTableServiceHandlerClient(ctx, mux, quernv1.NewTableServiceClient(channel)); err != nil {
		return nil, fmt.Errorf("register the table service: %w", err)
	}
	if err := quernv1.RegisterQueryServiceHandlerClient(ctx, mux, quernv1.NewQueryServiceClient(channel)); err != nil {
		return nil, fmt.Errorf("register the query service: %w", err)
	}
	return mux, nil
}

// marshaler is grpc-gateway's for HttpBody and JSON, without the newline that it would write after every chunk.
type marshaler struct{ *runtime.HTTPBodyMarshaler }

func newMarshaler() marshaler {
	return marshaler{&runtime.HTTPBodyMarshaler{Marshaler: &runtime.JSONPb{
		MarshalOptions:   protojson.MarshalOptions{UseProtoNames: true, EmitDefaultValues: true},
		UnmarshalOptions: protojson.UnmarshalOptions{},
	}}}
}

// Marshal writes compact JSON: protojson varies its spaces from build to build, and what does not change must not differ.
func (m marshaler) Marshal(v any) ([]byte, error) {
	text, err := m.HTTPBodyMarshaler.Marshal(v)
	if _, isBytes := v.(*httpbody.HttpBody); err != nil || isBytes {
		return text, err
	}
	if _, isMessage := v.(proto.Message); !isMessage {
		return text, nil
	}
	var compact bytes.Buffer
	if err := json.Compact(&compact, text); err != nil {
		return nil, fmt.Errorf("compact the answer: %w", err)
	}
	return compact.Bytes(), nil
}

// Delimiter implements runtime.Delimited.
func (marshaler) Delimiter() []byte { return nil }

// requestMetadata carries the request's identity and its format by Accept into the call.
func requestMetadata(ctx context.Context, _ *http.Request) metadata.MD {
	ex := exchangeOf(ctx)
	md := ex.identity.Metadata()
	if ex.defaultFormat != "" {
		md.Set(service.DefaultFormatKey, ex.defaultFormat)
	}
	return md
}

// answerError answers with an error that came before the first byte.
func answerError(ctx context.Context, _ *runtime.ServeMux, _ runtime.Marshaler, w http.ResponseWriter, _ *http.Request, err error) {
	exchangeOf(ctx).failed = true
	writeError(w, err)
}

// abort ends a response of which part was sent. grpc-gateway would append an error to the body and end it normally.
func abort(ctx context.Context, err error) *status.Status {
	telemetry.Logger(ctx).WarnContext(ctx, "result failed midway, aborting the connection", "error", err)
	panic(http.ErrAbortHandler)
}

// announceTrailer declares the receipt's trailer where the body does not carry the receipt itself.
func announceTrailer(ctx context.Context, w http.ResponseWriter, message proto.Message) error {
	if _, rows := message.(resultPart); !rows || w.Header().Get("Trailer") != "" {
		return nil
	}
	md, _ := runtime.ServerMetadataFromContext(ctx)
	name := telemetry.First(md.HeaderMD, service.FormatKey)
	for _, format := range service.Formats {
		if format.Name == name && !format.Envelope {
			w.Header().Add("Trailer", headerReceipt)
		}
	}
	return nil
}

// resultPart is a QueryResponse, as it is or as the generated code wraps it.
type resultPart interface {
	GetBody() *httpbody.HttpBody
	GetReceipt() *quernv1.Receipt
}

// unwrapBody takes a result's bytes out of their message, so that grpc-gateway writes them as they are, and keeps the
// receipt for the trailer.
func unwrapBody(ctx context.Context, message proto.Message) (any, error) {
	part, ok := message.(resultPart)
	if !ok {
		return message, nil
	}
	if receipt := part.GetReceipt(); receipt != nil {
		exchangeOf(ctx).receipt = receipt
	}
	if body := part.GetBody(); body != nil {
		return body, nil
	}
	return &httpbody.HttpBody{}, nil
}

// earlyErrors makes a stream's Header return the error of a call that failed before its header. grpc-gateway then
// answers with that error; met later, it would be written into the body.
type earlyErrors struct{ grpc.ClientConnInterface }

// NewStream implements grpc.ClientConnInterface.
func (e earlyErrors) NewStream(ctx context.Context, desc *grpc.StreamDesc, method string, opts ...grpc.CallOption) (grpc.ClientStream, error) {
	stream, err := e.ClientConnInterface.NewStream(ctx, desc, method, opts...)
	if err != nil {
		return nil, err
	}
	return earlyErrorStream{stream}, nil
}

type earlyErrorStream struct{ grpc.ClientStream }

// Header implements grpc.ClientStream. The services send a header before their first message, so its absence means
// that an error, or nothing, came instead.
func (s earlyErrorStream) Header() (metadata.MD, error) {
	header, err := s.ClientStream.Header()
	if err != nil || len(header) > 0 {
		return header, err
	}
	return nil, s.RecvMsg(&quernv1.QueryResponse{})
}
