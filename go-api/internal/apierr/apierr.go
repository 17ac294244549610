// Package apierr is the edge's one error table: reason → gRPC code → HTTP status. Every error that leaves the edge is a
// google.rpc.Status with exactly one google.rpc.ErrorInfo (AIP-193), the engine's as it made them. It knows neither
// handlers nor the engine's client.
package apierr

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"time"

	"google.golang.org/genproto/googleapis/rpc/errdetails"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/protoadapt"
	"google.golang.org/protobuf/types/known/durationpb"
)

// Domain is the ErrorInfo domain of every error, the engine's too.
const Domain = "quern"

// Reason is an UPPER_SNAKE word that names one kind of error for programs.
type Reason string

// The edge's own reasons. The engine's pass through and are listed in the reference page beside these.
const (
	RouteUnknown          Reason = "ROUTE_UNKNOWN"
	MethodNotAllowed      Reason = "METHOD_NOT_ALLOWED"
	MediaTypeUnsupported  Reason = "MEDIA_TYPE_UNSUPPORTED"
	NotAcceptable         Reason = "NOT_ACCEPTABLE"
	BodyTooLarge          Reason = "BODY_TOO_LARGE"
	BodyInvalid           Reason = "BODY_INVALID"
	FieldUnknown          Reason = "FIELD_UNKNOWN"
	QueryParameterInvalid Reason = "QUERY_PARAMETER_INVALID"
	QueryParameterUnknown Reason = "QUERY_PARAMETER_UNKNOWN"
	FieldRequired         Reason = "FIELD_REQUIRED"
	FormatUnknown         Reason = "FORMAT_UNKNOWN"
	NumbersUnknown        Reason = "NUMBERS_UNKNOWN"
	CountUnknown          Reason = "COUNT_UNKNOWN"
	TimeoutInvalid        Reason = "TIMEOUT_INVALID"
	ParameterInvalid      Reason = "PARAMETER_INVALID"
	PageSizeInvalid       Reason = "PAGE_SIZE_INVALID"
	PageTokenInvalid      Reason = "PAGE_TOKEN_INVALID"
	FilterInvalid         Reason = "FILTER_INVALID"
	FieldsInvalid         Reason = "FIELDS_INVALID"
	OrderInvalid          Reason = "ORDER_INVALID"
	KeyInvalid            Reason = "KEY_INVALID"
	TooManyKeys           Reason = "TOO_MANY_KEYS"
	EngineUnavailable     Reason = "ENGINE_UNAVAILABLE"
	DeadlineExceeded      Reason = "QUERY_TIMEOUT"
	RequestCanceled       Reason = "CANCELLED"
	ResultIncomplete      Reason = "RESULT_INCOMPLETE"
	NotStored             Reason = "NOT_STORED"
	Internal              Reason = "INTERNAL"
)

const (
	// statusClientClosed is what access logs of other servers call a caller who went away.
	statusClientClosed       = 499
	unavailableRetryDelay    = time.Second
	internalMessage          = "an internal error; the server's log has it under this request's id"
	engineUnavailableMessage = "the query engine can't be reached right now; try again in a moment"
)

// Entry is one line of the table.
type Entry struct {
	// Reason is the line's key.
	Reason Reason
	// Code is the gRPC code.
	Code codes.Code
	// HTTP is the HTTP status, or 0 where it follows from Code.
	HTTP int
	// Doc is one sentence for the reference page.
	Doc string
}

// Table lists the edge's reasons in the order of the reference page.
var Table = []Entry{
	{RouteUnknown, codes.NotFound, 0, "No resource has that path."},
	{MethodNotAllowed, codes.Unimplemented, http.StatusMethodNotAllowed, "The resource has other methods; `Allow` lists them."},
	{MediaTypeUnsupported, codes.InvalidArgument, http.StatusUnsupportedMediaType, "The request's `Content-Type` is not JSON."},
	{NotAcceptable, codes.InvalidArgument, http.StatusNotAcceptable, "Nothing that can be sent meets `Accept`."},
	{BodyTooLarge, codes.InvalidArgument, http.StatusRequestEntityTooLarge, "The request's body is over 1 MiB."},
	{BodyInvalid, codes.InvalidArgument, 0, "The request's body is not the JSON that the method takes; the message has line and column."},
	{FieldUnknown, codes.InvalidArgument, 0, "The body has a field that the method does not know."},
	{QueryParameterUnknown, codes.InvalidArgument, 0, "The URL has a query parameter that the method does not know."},
	{QueryParameterInvalid, codes.InvalidArgument, 0, "A query parameter's value can't be read, or is given twice."},
	{FieldRequired, codes.InvalidArgument, 0, "A required field is empty."},
	{FormatUnknown, codes.InvalidArgument, 0, "`format` is none of the formats that the message lists."},
	{NumbersUnknown, codes.InvalidArgument, 0, "`numbers` is neither `exact` nor `string`."},
	{CountUnknown, codes.InvalidArgument, 0, "`count` is neither `none` nor `exact`."},
	{TimeoutInvalid, codes.InvalidArgument, 0, "`timeout` is not a duration above zero."},
	{ParameterInvalid, codes.InvalidArgument, 0, "A number in `params` has more digits than a JSON number carries safely; the engine uses the same reason for missing, extra and wrongly typed parameters."},
	{PageSizeInvalid, codes.InvalidArgument, 0, "`page_size` is negative."},
	{PageTokenInvalid, codes.InvalidArgument, 0, "`page_token` is not one that this server made for this list."},
	{FilterInvalid, codes.InvalidArgument, 0, "`filter` does not parse; the message says where. The engine uses the same reason for one that does not fit the table."},
	{FieldsInvalid, codes.InvalidArgument, 0, "`fields` is not a list of columns; the message says where."},
	{OrderInvalid, codes.InvalidArgument, 0, "`order_by` is not a list of columns, each with asc or desc or nothing; the engine uses the same reason for a column that has no order."},
	{KeyInvalid, codes.InvalidArgument, 0, "A row's key can't be read; the engine uses the same reason for one that has not the key's columns or types."},
	{TooManyKeys, codes.InvalidArgument, 0, "`keys` names more than 1000 rows."},
	{EngineUnavailable, codes.Unavailable, 0, "The engine can't be reached; `Retry-After` says when to try again."},
	{DeadlineExceeded, codes.DeadlineExceeded, 0, "The request ran past its timeout."},
	{RequestCanceled, codes.Canceled, 0, "The caller went away."},
	{ResultIncomplete, codes.Internal, 0, "The engine ended a result without its receipt."},
	{NotStored, codes.FailedPrecondition, http.StatusGatewayTimeout, "`Cache-Control: only-if-cached`, and no stored answer may be given (RFC 9111, 5.2.1.7)."},
	{Internal, codes.Internal, 0, "Something failed that no caller can mend; the server's log says what."},
}

var byReason = func() map[Reason]Entry {
	table := make(map[Reason]Entry, len(Table))
	for _, entry := range Table {
		table[entry.Reason] = entry
	}
	return table
}()

// New makes an error of the table. details may add BadRequest, RetryInfo or Help, never a second ErrorInfo.
func New(reason Reason, message string, details ...protoadapt.MessageV1) error {
	entry, ok := byReason[reason]
	if !ok {
		entry = byReason[Internal]
	}
	all := append([]protoadapt.MessageV1{&errdetails.ErrorInfo{Reason: string(entry.Reason), Domain: Domain}}, details...)
	st := status.New(entry.Code, message)
	if detailed, err := st.WithDetails(all...); err == nil {
		st = detailed
	}
	return st.Err()
}

// Newf is New with a formatted message.
func Newf(reason Reason, format string, args ...any) error {
	return New(reason, fmt.Sprintf(format, args...))
}

// Field is New with a BadRequest detail that names the field.
func Field(reason Reason, field, message string) error {
	return New(reason, message, &errdetails.BadRequest{
		FieldViolations: []*errdetails.BadRequest_FieldViolation{{Field: field, Description: message, Reason: string(reason)}},
	})
}

// Unavailable says that the engine can't be reached, and when to try again.
func Unavailable() error {
	return New(EngineUnavailable, engineUnavailableMessage, &errdetails.RetryInfo{RetryDelay: durationpb.New(unavailableRetryDelay)})
}

// Timeout says that the request ran past its timeout.
func Timeout(timeout time.Duration) error {
	return Newf(DeadlineExceeded,
		"the query ran past its timeout of %s; narrow it, or ask for more time with `timeout`, up to the server's maximum",
		timeout.Round(time.Millisecond))
}

// Of returns the error as a status that has an ErrorInfo. An error that has one passes as it is; any other is mapped
// by its code, and its text, which may name internals, is dropped.
func Of(err error) *status.Status {
	if st, ok := status.FromError(err); ok && Info(st) != nil {
		return st
	}
	var code codes.Code
	switch {
	case errors.Is(err, context.DeadlineExceeded):
		code = codes.DeadlineExceeded
	case errors.Is(err, context.Canceled):
		code = codes.Canceled
	default:
		code = status.Code(err)
	}
	return status.Convert(byCode(code, status.Convert(err).Message()))
}

// byCode gives an error that came without an ErrorInfo, from a library, the reason that fits its code.
func byCode(code codes.Code, message string) error {
	switch code {
	case codes.Unavailable:
		return Unavailable()
	case codes.DeadlineExceeded:
		return New(DeadlineExceeded, "the request ran past its deadline")
	case codes.Canceled:
		return New(RequestCanceled, "the request was cancelled")
	case codes.InvalidArgument:
		return New(BodyInvalid, message)
	case codes.Unimplemented:
		return New(RouteUnknown, message)
	default:
		return New(Internal, internalMessage)
	}
}

// Info returns the status's ErrorInfo of Quern's domain, or nil.
func Info(st *status.Status) *errdetails.ErrorInfo {
	for _, detail := range st.Details() {
		if info, ok := detail.(*errdetails.ErrorInfo); ok && info.GetDomain() == Domain {
			return info
		}
	}
	return nil
}

// ReasonOf returns why a request failed, in the words of the error reference; empty where it did not.
func ReasonOf(err error) string {
	if err == nil {
		return ""
	}
	return Info(Of(err)).GetReason()
}

// RetryAfter returns the status's RetryInfo, or 0.
func RetryAfter(st *status.Status) time.Duration {
	for _, detail := range st.Details() {
		if info, ok := detail.(*errdetails.RetryInfo); ok {
			return info.GetRetryDelay().AsDuration()
		}
	}
	return 0
}

// HTTPStatus returns the HTTP status of a gRPC status that went through Of.
func HTTPStatus(st *status.Status) int {
	if info := Info(st); info != nil {
		if entry, ok := byReason[Reason(info.GetReason())]; ok && entry.HTTP != 0 {
			return entry.HTTP
		}
	}
	return httpOfCode(st.Code())
}

// httpOfCode follows google.rpc.Code, but for ABORTED and FAILED_PRECONDITION, which it maps the same way.
func httpOfCode(code codes.Code) int {
	switch code {
	case codes.OK:
		return http.StatusOK
	case codes.InvalidArgument, codes.FailedPrecondition, codes.OutOfRange:
		return http.StatusBadRequest
	case codes.Unauthenticated:
		return http.StatusUnauthorized
	case codes.PermissionDenied:
		return http.StatusForbidden
	case codes.NotFound:
		return http.StatusNotFound
	case codes.Aborted, codes.AlreadyExists:
		return http.StatusConflict
	case codes.ResourceExhausted:
		return http.StatusTooManyRequests
	case codes.Canceled:
		return statusClientClosed
	case codes.Unimplemented:
		return http.StatusNotImplemented
	case codes.Unavailable:
		return http.StatusServiceUnavailable
	case codes.DeadlineExceeded:
		return http.StatusGatewayTimeout
	case codes.Unknown, codes.Internal, codes.DataLoss:
		return http.StatusInternalServerError
	default:
		return http.StatusInternalServerError
	}
}

// CodeName returns the code as google.rpc.Code spells it, such as NOT_FOUND.
func CodeName(code codes.Code) string {
	if int(code) < len(codeNames) {
		return codeNames[code]
	}
	return "UNKNOWN"
}

var codeNames = [...]string{
	"OK", "CANCELLED", "UNKNOWN", "INVALID_ARGUMENT", "DEADLINE_EXCEEDED", "NOT_FOUND", "ALREADY_EXISTS",
	"PERMISSION_DENIED", "RESOURCE_EXHAUSTED", "FAILED_PRECONDITION", "ABORTED", "OUT_OF_RANGE", "UNIMPLEMENTED",
	"INTERNAL", "UNAVAILABLE", "DATA_LOSS", "UNAUTHENTICATED",
}
