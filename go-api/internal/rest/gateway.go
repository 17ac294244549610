package rest

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"net/http"

	"github.com/grpc-ecosystem/grpc-gateway/v2/runtime"
	"google.golang.org/grpc/metadata"
	"google.golang.org/protobuf/encoding/protojson"

	quernv1 "github.com/quern-data/quern/go-api/gen/quern/v1"
)

// newGateway returns the handler that grpc-gateway makes from the annotations of quern.v1 for what is no stream.
func newGateway(ctx context.Context, tables quernv1.TableServiceServer) (http.Handler, error) {
	mux := runtime.NewServeMux(
		runtime.WithMarshalerOption(runtime.MIMEWildcard, newMarshaler()),
		runtime.WithIncomingHeaderMatcher(func(string) (string, bool) { return "", false }),
		runtime.WithOutgoingHeaderMatcher(func(string) (string, bool) { return "", false }),
		runtime.WithOutgoingTrailerMatcher(func(string) (string, bool) { return "", false }),
		runtime.WithMetadata(requestMetadata),
		runtime.WithErrorHandler(answerError),
		runtime.WithDisablePathLengthFallback(),
		runtime.WithDisableHTTPMethodOverride(),
		runtime.WithWriteContentLength(),
	)
	if err := quernv1.RegisterTableServiceHandlerServer(ctx, mux, tables); err != nil {
		return nil, fmt.Errorf("register the table service: %w", err)
	}
	return mux, nil
}

// marshaler is grpc-gateway's for JSON, made compact.
type marshaler struct{ runtime.JSONPb }

func newMarshaler() *marshaler {
	return &marshaler{runtime.JSONPb{MarshalOptions: protojson.MarshalOptions{UseProtoNames: true, EmitDefaultValues: true}}}
}

// Marshal writes compact JSON: protojson varies its spaces from build to build, and what does not change must not differ.
func (m *marshaler) Marshal(v any) ([]byte, error) {
	text, err := m.JSONPb.Marshal(v)
	if err != nil {
		return nil, fmt.Errorf("write the answer: %w", err)
	}
	var compact bytes.Buffer
	if err := json.Compact(&compact, text); err != nil {
		return nil, fmt.Errorf("compact the answer: %w", err)
	}
	return compact.Bytes(), nil
}

// requestMetadata carries the request's identity into the call.
func requestMetadata(ctx context.Context, _ *http.Request) metadata.MD {
	return exchangeOf(ctx).Identity.Metadata()
}

// answerError answers with an error.
func answerError(ctx context.Context, _ *runtime.ServeMux, _ runtime.Marshaler, w http.ResponseWriter, _ *http.Request, err error) {
	exchangeOf(ctx).failure = err
	writeError(w, err)
}
