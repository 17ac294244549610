package service

import (
	"context"
	"errors"
	"fmt"
	"io"
	"slices"
	"strconv"
	"strings"
	"time"

	"google.golang.org/genproto/googleapis/api/httpbody"
	"google.golang.org/grpc"
	"google.golang.org/grpc/metadata"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/durationpb"
	"google.golang.org/protobuf/types/known/structpb"

	enginev1 "github.com/quern-data/quern/go-api/gen/quern/engine/v1"
	quernv1 "github.com/quern-data/quern/go-api/gen/quern/v1"
	"github.com/quern-data/quern/go-api/internal/apierr"
	"github.com/quern-data/quern/go-api/internal/cache"
	"github.com/quern-data/quern/go-api/internal/telemetry"
)

// Metadata keys of the query service. The last two are what HTTP headers of the same names say.
const (
	// FormatKey is response header metadata: the format of the result.
	FormatKey = "quern-format"
	// ReceiptKey is response trailer metadata: the receipt as an RFC 9651 dictionary.
	ReceiptKey = "quern-receipt"
	// CacheControlKey is request metadata: directives of RFC 9111, 5.2.1.
	CacheControlKey = "cache-control"
	// CacheStatusKey is response header metadata: RFC 9211.
	CacheStatusKey = "cache-status"
	// EntityTagKey is response header metadata: the result's entity tag.
	EntityTagKey = "etag"
	// NextPageTokenKey is response header metadata of a page that is not the last: the next one's token.
	NextPageTokenKey = "quern-next-page-token" //nolint:gosec // it is no credential
	// TotalSizeKey is response header metadata of a page whose request counts: how many rows all pages have.
	TotalSizeKey = "quern-total-size"
	// MissingKey is response header metadata of rows by key: the numbers of those that no row has, see [FormatMissing].
	MissingKey = "quern-missing"
)

// NoFormat as the default format says that the caller accepts none.
const NoFormat = "none"

// Engine executes statements.
type Engine interface {
	// Execute returns once the beginning or the receipt is there: whatever fails earlier is an error here.
	Execute(ctx context.Context, request *enginev1.ExecuteRequest) (cache.Execution, error)
	// Plan says what Execute would begin with.
	Plan(ctx context.Context, request *enginev1.ExecuteRequest) (cache.Header, error)
}

// Timeouts bound queries.
type Timeouts struct {
	// Default is for a query that asks for none.
	Default time.Duration
	// Most is what a query may ask for; longer wishes are cut to it.
	Most time.Duration
	// Slow is how long an answer takes that is logged; 0 logs none.
	Slow time.Duration
}

// Queries answers queries, from the cache where it may. Its gRPC side is [QueryServer].
type Queries struct {
	engine   Engine
	cache    *cache.Cache
	keys     Keys
	timeouts Timeouts
}

// Keys returns the columns that rows of a table are found by, none where it has no key.
type Keys func(table string) []string

// NewQueries returns the query service.
func NewQueries(engine Engine, cache *cache.Cache, keys Keys, timeouts Timeouts) *Queries {
	return &Queries{engine: engine, cache: cache, keys: keys, timeouts: timeouts}
}

// Query is one request that was checked.
type Query struct {
	// Format is that of the result.
	Format Format
	// Timeout bounds it; the caller sets it on the contexts of Do and Tag.
	Timeout time.Duration

	queries *Queries
	request cache.Request
	execute *enginev1.ExecuteRequest
}

// Check checks a request. defaultFormat is for one that names none. What it returns may be used again for the same
// request, by any number of callers at once.
func (q *Queries) Check(request *quernv1.QueryRequest, defaultFormat string) (*Query, error) {
	format, err := resolveFormat(request.GetFormat(), defaultFormat)
	if err != nil {
		return nil, err
	}
	execute, err := execution(request)
	if err != nil {
		return nil, err
	}
	params, err := canonicalParams(request.GetParams())
	if err != nil {
		return nil, err
	}
	name := []string{"query", cache.CanonicalSQL(request.GetSql()), params}
	return q.prepare(execute, format, common{request.GetNumbers(), request.GetTimeout()}, name, request.GetSql())
}

// common is what all requests for a result say beside what they ask.
type common struct {
	numbers string
	timeout *durationpb.Duration
}

// prepare completes a query. name is what tells the request from others, spelling what its failures may refer to.
func (q *Queries) prepare(execute *enginev1.ExecuteRequest, format Format, how common, name []string, spelling string) (*Query, error) {
	numbers, err := resolveNumbers(how.numbers)
	if err != nil {
		return nil, err
	}
	timeout, err := q.timeout(how.timeout)
	if err != nil {
		return nil, err
	}
	execute.Format, execute.Numbers = format.engine, numbers
	query := &Query{Format: format, Timeout: timeout, queries: q, execute: execute}
	query.request = cache.Request{
		Key:      cache.KeyOf(append([]string{format.Name, numbers.String()}, name...)...),
		Spelling: spelling,
		Timeout:  timeout,
		Execute: func(ctx context.Context) (cache.Execution, error) {
			return q.engine.Execute(ctx, execute)
		},
	}
	return query, nil
}

// timeout takes the caller's wish within the server's bounds.
func (q *Queries) timeout(asked *durationpb.Duration) (time.Duration, error) {
	timeout := q.timeouts.Default
	if asked != nil {
		if timeout = asked.AsDuration(); timeout <= 0 || !asked.IsValid() {
			return 0, apierr.Field(apierr.TimeoutInvalid, "timeout", "`timeout` must be more than zero, such as \"5s\"")
		}
	}
	return min(timeout, q.timeouts.Most), nil
}

// With returns the query with request directives (RFC 9111, 5.2.1).
func (q Query) With(cacheControl string) *Query {
	q.request.Policy = policyOf(cacheControl)
	return &q
}

// canonicalParams gives the same text for the same values, however they were spelled and ordered.
func canonicalParams(params *structpb.Value) (string, error) {
	if _, null := params.GetKind().(*structpb.Value_NullValue); null || params == nil {
		return "", nil
	}
	raw, err := proto.MarshalOptions{Deterministic: true}.Marshal(params)
	if err != nil {
		return "", apierr.Field(apierr.ParameterInvalid, "params", "`params` can't be written down: "+err.Error())
	}
	return string(raw), nil
}

// Hit returns an answer from memory where one may be given without asking anyone, else nil.
func (q *Query) Hit() *cache.Answer { return q.queries.cache.Hit(q.request) }

// Do answers the query. The answer must be closed.
func (q *Query) Do(ctx context.Context) (*cache.Answer, error) {
	ctx, span := telemetry.Begin(ctx, "cache")
	defer span.End()
	answer, err := q.do(ctx)
	if err != nil {
		span.Fail(apierr.ReasonOf(err))
		return nil, err
	}
	q.Describe(span, answer)
	return answer, nil
}

func (q *Query) do(ctx context.Context) (*cache.Answer, error) {
	answer, err := q.queries.cache.Do(ctx, q.request)
	if errors.Is(err, cache.ErrNotStored) {
		return nil, apierr.New(apierr.NotStored, "no stored answer may be given, and `only-if-cached` allows no other; leave it out")
	}
	if err != nil {
		return nil, q.Outward(ctx, err)
	}
	return answer, nil
}

// Tag returns the entity tag that the answer would have now, and what it would be made from; false where it has none, or
// it can't be told without executing the query.
func (q *Query) Tag(ctx context.Context) (cache.Tag, []cache.Snapshot, bool, error) {
	tag, snapshots, ok, err := q.queries.cache.Tag(ctx, q.request, func(ctx context.Context) (cache.Header, error) {
		return q.queries.engine.Plan(ctx, q.execute)
	})
	if err != nil {
		return "", nil, false, q.Outward(ctx, err)
	}
	return tag, snapshots, ok, nil
}

// Outward turns an error of an answer under way into what callers see.
func (q *Query) Outward(ctx context.Context, err error) error {
	if errors.Is(err, cache.ErrTooSlow) {
		return apierr.New(apierr.ResultIncomplete, "the result was read too slowly to be shared with the others who asked for it; ask again")
	}
	return outward(ctx, err, q.Timeout)
}

// QueryServer implements quern.v1.QueryService.
type QueryServer struct {
	quernv1.UnimplementedQueryServiceServer

	queries *Queries
}

// NewQueryServer returns the gRPC side of the query service.
func NewQueryServer(queries *Queries) *QueryServer { return &QueryServer{queries: queries} }

// Query implements quern.v1.QueryService.
func (s *QueryServer) Query(request *quernv1.QueryRequest, stream quernv1.QueryService_QueryServer) error {
	query, err := s.queries.Check(request, "")
	if err != nil {
		return err
	}
	return query.serve(stream, func(body *httpbody.HttpBody, receipt *quernv1.Receipt) error {
		return stream.Send(&quernv1.QueryResponse{Body: body, Receipt: receipt})
	})
}

// serve answers over gRPC. No header leaves before the beginning or the receipt is there, so an early failure is an
// error and nothing else. send is given a body, or last the receipt.
func (q *Query) serve(stream grpc.ServerStream, send func(*httpbody.HttpBody, *quernv1.Receipt) error) error {
	md, _ := metadata.FromIncomingContext(stream.Context())
	query := q.With(strings.Join(md.Get(CacheControlKey), ","))
	ctx, cancel := context.WithTimeout(stream.Context(), query.Timeout)
	defer cancel()
	outcome := Outcome{Began: time.Now()}
	err := query.send(ctx, stream, send, &outcome)
	outcome.Err = err
	query.LogSlow(ctx, outcome)
	return err
}

// send answers, and notes what it sent.
func (q *Query) send(ctx context.Context, stream grpc.ServerStream, send func(*httpbody.HttpBody, *quernv1.Receipt) error, outcome *Outcome) error {
	query := q
	answer, err := query.Do(ctx)
	if err != nil {
		return err
	}
	defer answer.Close()
	query.Describe(telemetry.Current(ctx), answer)
	outcome.Cache, outcome.Snapshots = CacheStatus(answer.Status), answer.Header.Snapshots
	header := metadata.Pairs(FormatKey, query.Format.Name, CacheStatusKey, CacheStatus(answer.Status))
	if answer.Tag != "" {
		header.Set(EntityTagKey, cache.Identity.Tag(answer.Tag))
	}
	if next := answer.Header.NextPageToken; next != "" {
		header.Set(NextPageTokenKey, next)
	}
	if size := answer.Header.TotalSize; size != nil {
		header.Set(TotalSizeKey, strconv.FormatUint(*size, 10))
	}
	if missing := answer.Header.Missing; len(missing) > 0 {
		header.Set(MissingKey, FormatMissing(missing))
	}
	if err := stream.SendHeader(header); err != nil {
		return err
	}
	if err := sendChunks(ctx, answer, query.Format.MediaType, send); err != nil {
		return query.Outward(ctx, err)
	}
	line, err := FormatReceipt(answer.Receipt(), answer.Header.Snapshots)
	if err != nil {
		return query.Outward(ctx, err)
	}
	outcome.Rows, outcome.Bytes = answer.Receipt().Rows, answer.Receipt().Bytes
	stream.SetTrailer(metadata.Pairs(ReceiptKey, line))
	return send(nil, publicReceipt(answer.Receipt(), answer.Header.Snapshots))
}

// messageBytes is the most that one message of a result carries.
const messageBytes = 256 << 10

// sendChunks sends at least one message, so that an empty result has its content type too.
func sendChunks(ctx context.Context, answer *cache.Answer, mediaType string, send func(*httpbody.HttpBody, *quernv1.Receipt) error) error {
	for {
		chunk, err := answer.Next(ctx)
		if errors.Is(err, io.EOF) {
			if mediaType == "" {
				return nil
			}
			return send(&httpbody.HttpBody{ContentType: mediaType}, nil)
		}
		if err != nil {
			return err
		}
		for part := range slices.Chunk(chunk, messageBytes) {
			if err := send(&httpbody.HttpBody{ContentType: mediaType, Data: part}, nil); err != nil {
				return err
			}
			mediaType = ""
		}
	}
}

// execution checks the request and translates it for the engine.
func execution(request *quernv1.QueryRequest) (*enginev1.ExecuteRequest, error) {
	if strings.TrimSpace(request.GetSql()) == "" {
		return nil, apierr.Field(apierr.FieldRequired, "sql", "`sql` is empty: give one read-only statement, such as SELECT 1")
	}
	if tooDeep(request.GetParams(), maxParamDepth) {
		return nil, apierr.Field(apierr.ParameterInvalid, "params",
			fmt.Sprintf("`params` is nested more than %d levels deep", maxParamDepth))
	}
	return &enginev1.ExecuteRequest{Sql: request.GetSql(), Params: request.GetParams()}, nil
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

// resolveFormat takes the request's format, else the default, else json.
func resolveFormat(asked, otherwise string) (Format, error) {
	name := asked
	if name == "" {
		name = otherwise
	}
	switch {
	case name == "":
		return Formats[0], nil
	case name == NoFormat && asked == "":
		return Format{}, apierr.Newf(apierr.NotAcceptable,
			"nothing that `Accept` allows can be sent; accept one of %s, or name a `format`: %s",
			join(Formats, func(f Format) string { return f.MediaType }), join(Formats, func(f Format) string { return f.Name }))
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
