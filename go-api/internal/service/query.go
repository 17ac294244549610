package service

import (
	"context"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"
	"time"

	"google.golang.org/genproto/googleapis/api/httpbody"
	"google.golang.org/grpc/metadata"
	"google.golang.org/protobuf/types/known/structpb"

	enginev1 "github.com/quern-data/quern/go-api/gen/quern/engine/v1"
	quernv1 "github.com/quern-data/quern/go-api/gen/quern/v1"
	"github.com/quern-data/quern/go-api/internal/apierr"
	"github.com/quern-data/quern/go-api/internal/telemetry"
)

// Metadata keys of the query service.
const (
	// DefaultFormatKey is request metadata: the format where the request names none. REST fills it from Accept.
	DefaultFormatKey = "quern-default-format"
	// FormatKey is response header metadata: the format of the result.
	FormatKey = "quern-format"
	// ReceiptKey is response trailer metadata: the receipt as an RFC 9651 dictionary.
	ReceiptKey = "quern-receipt"
)

// NoFormat as the default format says that the caller accepts none.
const NoFormat = "none"

// Results starts executions. The engine's client is one; a cache in front of it is another.
type Results interface {
	// Execute returns once the first chunk or the receipt is there: whatever fails earlier is an error here.
	Execute(ctx context.Context, request *enginev1.ExecuteRequest) (Result, error)
}

// Result is one result under way. Close must be called.
type Result interface {
	// Next returns the next chunk, or io.EOF after the last. Nobody writes to a chunk.
	Next() ([]byte, error)
	// Receipt is set once Next has returned io.EOF.
	Receipt() *enginev1.Receipt
	// Close gives the result up.
	Close()
}

// Timeouts bound queries.
type Timeouts struct {
	// Default is for a query that asks for none.
	Default time.Duration
	// Most is what a query may ask for; longer wishes are cut to it.
	Most time.Duration
}

// Queries implements quern.v1.QueryService.
type Queries struct {
	quernv1.UnimplementedQueryServiceServer

	results  Results
	timeouts Timeouts
}

// NewQueries returns the query service.
func NewQueries(results Results, timeouts Timeouts) *Queries {
	return &Queries{results: results, timeouts: timeouts}
}

// Query implements quern.v1.QueryService. No header leaves before the first chunk or the receipt is there, so an early
// failure is an error and nothing else.
func (q *Queries) Query(request *quernv1.QueryRequest, stream quernv1.QueryService_QueryServer) error {
	ctx := stream.Context()
	format, err := resolveFormat(ctx, request.GetFormat())
	if err != nil {
		return err
	}
	execution, timeout, err := q.execution(request, format)
	if err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(ctx, timeout)
	defer cancel()
	result, err := q.results.Execute(ctx, execution)
	if err != nil {
		return outward(ctx, err, timeout)
	}
	defer result.Close()
	if err := stream.SendHeader(metadata.Pairs(FormatKey, format.Name)); err != nil {
		return err
	}
	if err := sendChunks(stream, result, format.MediaType); err != nil {
		return outward(ctx, err, timeout)
	}
	receipt := publicReceipt(result.Receipt())
	line, err := FormatReceipt(receipt)
	if err != nil {
		return outward(ctx, err, timeout)
	}
	stream.SetTrailer(metadata.Pairs(ReceiptKey, line))
	return stream.Send(&quernv1.QueryResponse{Receipt: receipt})
}

// sendChunks sends at least one message, so that an empty result has its content type too.
func sendChunks(stream quernv1.QueryService_QueryServer, result Result, mediaType string) error {
	for first := true; ; first = false {
		chunk, err := result.Next()
		if errors.Is(err, io.EOF) {
			if first {
				return stream.Send(&quernv1.QueryResponse{Body: &httpbody.HttpBody{ContentType: mediaType}})
			}
			return nil
		}
		if err != nil {
			return err
		}
		body := &httpbody.HttpBody{Data: chunk}
		if first {
			body.ContentType = mediaType
		}
		if err := stream.Send(&quernv1.QueryResponse{Body: body}); err != nil {
			return err
		}
	}
}

// execution checks the request and translates it for the engine.
func (q *Queries) execution(request *quernv1.QueryRequest, format Format) (*enginev1.ExecuteRequest, time.Duration, error) {
	if strings.TrimSpace(request.GetSql()) == "" {
		return nil, 0, apierr.Field(apierr.FieldRequired, "sql", "`sql` is empty: give one read-only statement, such as SELECT 1")
	}
	if tooDeep(request.GetParams(), maxParamDepth) {
		return nil, 0, apierr.Field(apierr.ParameterInvalid, "params",
			fmt.Sprintf("`params` is nested more than %d levels deep", maxParamDepth))
	}
	numbers, err := resolveNumbers(request.GetNumbers())
	if err != nil {
		return nil, 0, err
	}
	timeout := q.timeouts.Default
	if asked := request.GetTimeout(); asked != nil {
		if timeout = asked.AsDuration(); timeout <= 0 || !asked.IsValid() {
			return nil, 0, apierr.Field(apierr.TimeoutInvalid, "timeout", "`timeout` must be more than zero, such as \"5s\"")
		}
	}
	return &enginev1.ExecuteRequest{
		Sql:     request.GetSql(),
		Params:  request.GetParams(),
		Format:  format.engine,
		Numbers: numbers,
	}, min(timeout, q.timeouts.Most), nil
}

// maxParamDepth keeps a request below the nesting that protobuf decoders refuse.
const maxParamDepth = 32

// tooDeep goes no deeper than left levels, whatever the value holds.
func tooDeep(value *structpb.Value, left int) bool {
	if left < 0 {
		return true
	}
	deeper := func(child *structpb.Value) bool { return tooDeep(child, left-1) }
	switch kind := value.GetKind().(type) {
	case *structpb.Value_ListValue:
		return slices.ContainsFunc(kind.ListValue.GetValues(), deeper)
	case *structpb.Value_StructValue:
		for _, child := range kind.StructValue.GetFields() {
			if deeper(child) {
				return true
			}
		}
	}
	return false
}

// resolveFormat takes the request's format, else the default that came with the call, else json.
func resolveFormat(ctx context.Context, asked string) (Format, error) {
	name := asked
	if name == "" {
		md, _ := metadata.FromIncomingContext(ctx)
		name = telemetry.First(md, DefaultFormatKey)
	}
	switch name {
	case "":
		return Formats[0], nil
	case NoFormat:
		if asked == "" {
			return Format{}, apierr.Newf(apierr.NotAcceptable,
				"nothing that `Accept` allows can be sent; accept one of %s, or name a `format`: %s",
				join(Formats, func(f Format) string { return f.MediaType }), join(Formats, func(f Format) string { return f.Name }))
		}
	}
	return FormatNamed(name)
}

func resolveNumbers(asked string) (enginev1.NumberStyle, error) {
	switch asked {
	case "", "exact":
		return enginev1.NumberStyle_NUMBER_STYLE_EXACT, nil
	case "string":
		return enginev1.NumberStyle_NUMBER_STYLE_STRING, nil
	default:
		return 0, apierr.Field(apierr.NumbersUnknown, "numbers", "`numbers` "+quote(asked)+" is unknown; it is exact or string")
	}
}
