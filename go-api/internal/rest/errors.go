package rest

import (
	"encoding/json"
	"math"
	"net/http"
	"strconv"

	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/encoding/protojson"

	"github.com/quern-data/quern/go-api/internal/apierr"
)

// errorBody is the one shape of every error: https://google.aip.dev/193, section "HTTP/1.1+JSON representation".
type errorBody struct {
	Error errorObject `json:"error"`
}

type errorObject struct {
	Code    int               `json:"code"`
	Status  string            `json:"status"`
	Message string            `json:"message"`
	Details []json.RawMessage `json:"details"`
}

// writeError answers with an error. Nothing of the response may have been written.
func writeError(w http.ResponseWriter, err error) {
	st := apierr.Of(err)
	code := apierr.HTTPStatus(st)
	header := w.Header()
	// They were meant for the answer that did not come about.
	header.Del("Trailer")
	header.Del("Content-Disposition")
	header.Set("Content-Type", "application/json")
	header.Set("Cache-Control", "no-store")
	if delay := apierr.RetryAfter(st); delay > 0 {
		header.Set("Retry-After", strconv.Itoa(int(math.Ceil(delay.Seconds()))))
	}
	w.WriteHeader(code)
	// The status is out; a caller who is gone can't be told more.
	_, _ = w.Write(renderError(st, code))
}

func renderError(st *status.Status, code int) []byte {
	body := errorBody{Error: errorObject{
		Code:    code,
		Status:  apierr.CodeName(st.Code()),
		Message: st.Message(),
		Details: []json.RawMessage{},
	}}
	for _, detail := range st.Proto().GetDetails() {
		// A detail of a type that is not linked in can't be rendered; the others still tell.
		if rendered, err := protojson.Marshal(detail); err == nil {
			body.Error.Details = append(body.Error.Details, rendered)
		}
	}
	raw, err := json.Marshal(body)
	if err != nil {
		return []byte(`{"error":{"code":500,"status":"INTERNAL","message":"an error could not be rendered","details":[]}}`)
	}
	return append(raw, '\n')
}
