package rest_test

import (
	"net/http"
	"strings"
	"testing"
)

func TestRefusals(t *testing.T) {
	e := start(t, sendRows)
	const post, get = http.MethodPost, http.MethodGet
	cases := []struct {
		name, method, path, body string
		header                   []string
		code                     int
		reason, says             string
	}{
		{"no such path", get, "/v2/x", "", nil, 404, "ROUTE_UNKNOWN", "/v2/x"},
		{"path with more", get, "/v1/tables/a/b", "", nil, 404, "ROUTE_UNKNOWN", ""},
		{"wrong method", http.MethodDelete, "/v1/tables/a", "", nil, 405, "METHOD_NOT_ALLOWED", "GET, HEAD, OPTIONS"},
		{"post to a list", post, "/v1/tables", "{}", nil, 405, "METHOD_NOT_ALLOWED", ""},
		{"method override", post, "/v1/tables", "x=1", []string{"X-HTTP-Method-Override", "GET", "Content-Type", "application/x-www-form-urlencoded"}, 405, "METHOD_NOT_ALLOWED", ""},
		{"not JSON", post, "/v1/query", "{\n  \"sql\": x}", nil, 400, "BODY_INVALID", "line 2, column 10"},
		{"cut short", post, "/v1/query", `{"sql": "SELECT 1"`, nil, 400, "BODY_INVALID", "line 1, column 19"},
		{"two objects", post, "/v1/query", `{"sql":"x"}{}`, nil, 400, "BODY_INVALID", "line 1, column 12"},
		{"empty body", post, "/v1/query", "", nil, 400, "BODY_INVALID", "empty"},
		{"a list", post, "/v1/query", "[1]", nil, 400, "BODY_INVALID", "not a JSON object"},
		{"null", post, "/v1/query", "null", nil, 400, "BODY_INVALID", "not a JSON object"},
		{"bad UTF-8", post, "/v1/query", "{\"sql\":\"\xff\"}", nil, 400, "BODY_INVALID", "column 9"},
		{"unknown field", post, "/v1/query", `{"sql":"x","fromat":"csv"}`, nil, 400, "FIELD_UNKNOWN", "`fromat`"},
		{"field twice", post, "/v1/query", `{"sql":"x","sql":"y"}`, nil, 400, "BODY_INVALID", "duplicate"},
		{"field of the wrong type", post, "/v1/query", `{"sql":5}`, nil, 400, "BODY_INVALID", "sql"},
		{"bad timeout", post, "/v1/query", `{"sql":"x","timeout":"soon"}`, nil, 400, "BODY_INVALID", "timeout"},
		{"timeout of zero", post, "/v1/query", `{"sql":"x","timeout":"0s"}`, nil, 400, "TIMEOUT_INVALID", "more than zero"},
		{"too large", post, "/v1/query", `{"sql":"` + strings.Repeat("x", 1<<20) + `"}`, nil, 413, "BODY_TOO_LARGE", "1 MiB"},
		{"deep", post, "/v1/query", `{"sql":"x","params":` + strings.Repeat("[", 500_000), nil, 400, "BODY_INVALID", "nested"},
		{"depth in params", post, "/v1/query", `{"sql":"x","params":` + strings.Repeat("[", 40) + strings.Repeat("]", 40) + "}", nil, 400, "PARAMETER_INVALID", "nested"},
		{"other media type", post, "/v1/query", "<x/>", []string{"Content-Type", "text/xml"}, 415, "MEDIA_TYPE_UNSUPPORTED", "application/json"},
		{"compressed body", post, "/v1/query", "x", []string{"Content-Encoding", "gzip"}, 415, "MEDIA_TYPE_UNSUPPORTED", "gzip"},
		{"big integer", post, "/v1/query", `{"sql":"x","params":[9007199254740993]}`, nil, 400, "PARAMETER_INVALID", `"9007199254740993"`},
		{"big integer in GET", get, "/v1/query?sql=x&params=%5B9007199254740993%5D", "", nil, 400, "PARAMETER_INVALID", `"9007199254740993"`},
		{"long decimal", post, "/v1/query", `{"sql":"x","params":{"a":0.12345678901234567891}}`, nil, 400, "PARAMETER_INVALID", "string"},
		{"params not JSON in GET", get, "/v1/query?sql=x&params=%5B", "", nil, 400, "QUERY_PARAMETER_INVALID", "params"},
		{"no sql", post, "/v1/query", `{}`, nil, 400, "FIELD_REQUIRED", "sql"},
		{"unknown format", post, "/v1/query", `{"sql":"x","format":"xml"}`, nil, 400, "FORMAT_UNKNOWN", "json, json-array, ndjson, csv, arrow, parquet"},
		{"unknown format in URL", post, "/v1/query?format=xml", `{"sql":"x"}`, nil, 400, "FORMAT_UNKNOWN", "parquet"},
		{"format none in URL", get, "/v1/query?sql=x&format=none", "", nil, 400, "FORMAT_UNKNOWN", "none"},
		{"format none in POST's URL", post, "/v1/query?format=none", `{"sql":"x"}`, nil, 400, "FORMAT_UNKNOWN", "none"},
		{"unknown numbers", post, "/v1/query", `{"sql":"x","numbers":"hex"}`, nil, 400, "NUMBERS_UNKNOWN", "exact"},
		{"unknown query parameter", get, "/v1/query?sql=x&limit=5", "", nil, 400, "QUERY_PARAMETER_UNKNOWN", "`limit`"},
		{"unknown query parameter on a list", get, "/v1/tables?limit=5", "", nil, 400, "QUERY_PARAMETER_UNKNOWN", "page_size"},
		{"query parameter twice", get, "/v1/query?sql=x&sql=y", "", nil, 400, "QUERY_PARAMETER_INVALID", "more than once"},
		{"nested query parameter", get, "/v1/query?sql=x&timeout.seconds=5", "", nil, 400, "QUERY_PARAMETER_UNKNOWN", ""},
		{"path parameter in the query", get, "/v1/tables/a?table=b", "", nil, 400, "QUERY_PARAMETER_UNKNOWN", ""},
		{"bad page size", get, "/v1/tables?page_size=many", "", nil, 400, "QUERY_PARAMETER_INVALID", "whole number"},
		{"negative page size", get, "/v1/tables?page_size=-1", "", nil, 400, "PAGE_SIZE_INVALID", ""},
		{"bad page token", get, "/v1/tables?page_token=zzz", "", nil, 400, "PAGE_TOKEN_INVALID", ""},
		{"bad percent sign", get, "/v1/query?sql=50%", "", nil, 400, "QUERY_PARAMETER_INVALID", "%25"},
		{"semicolon", get, "/v1/query?sql=SELECT+1;SELECT+2", "", nil, 400, "QUERY_PARAMETER_INVALID", "%3B"},
		{"nothing acceptable", get, "/v1/query?sql=x", "", []string{"Accept", "text/html"}, 406, "NOT_ACCEPTABLE", "text/csv"},
		{"nothing acceptable on a list", get, "/v1/tables", "", []string{"Accept", "text/csv"}, 406, "NOT_ACCEPTABLE", "application/json"},
		{"unknown table", get, "/v1/tables/nope", "", nil, 404, "TABLE_NOT_FOUND", "nope"},
	}
	for _, c := range cases {
		t.Run(c.name, func(t *testing.T) {
			response, body, err := e.do(t, c.method, c.path, c.body, c.header...)
			if err != nil {
				t.Fatal(err)
			}
			message := expectError(t, response, body, c.code, c.reason)
			if !strings.Contains(message, c.says) {
				t.Errorf("the message does not say %q: %s", c.says, message)
			}
			if c.code == http.StatusMethodNotAllowed && response.Header.Get("Allow") == "" {
				t.Error("no Allow")
			}
		})
	}
	if e.engine.Tries() != 0 {
		t.Errorf("the engine was asked %d times", e.engine.Tries())
	}
}

func TestNegotiation(t *testing.T) {
	e := start(t, sendRows)
	cases := []struct{ accept, query, want string }{
		{"", "", "application/json"},
		{"*/*", "", "application/json"},
		{"text/csv", "", "text/csv; charset=utf-8"},
		{"application/json;q=0.5, text/csv", "", "text/csv; charset=utf-8"},
		{"text/csv;q=0.5, application/vnd.apache.arrow.stream;q=0.9, */*;q=0.1", "", "application/vnd.apache.arrow.stream"},
		{"application/x-ndjson", "", "application/x-ndjson"},
		{"text/*", "", "text/csv; charset=utf-8"},
		{"application/json;q=0, */*", "", "application/x-ndjson"},
		{"text/html,application/xhtml+xml,*/*;q=0.8", "", "application/json"},
		{"text/html", "&format=parquet", "application/vnd.apache.parquet"},
		{"text/csv", "&format=json-array", "application/json"},
	}
	for _, c := range cases {
		header := []string{"Accept", c.accept}
		if c.accept == "" {
			header = nil
		}
		response, body, err := e.do(t, http.MethodGet, "/v1/query?sql=x"+c.query, "", header...)
		if err != nil || response.Header.Get("Content-Type") != c.want {
			t.Errorf("Accept %q%s: got %s %s %s, want %s", c.accept, c.query, response.Status, response.Header.Get("Content-Type"), body, c.want)
		}
	}
}

func TestExactNumbersPass(t *testing.T) {
	e := start(t, sendRows)
	for _, number := range []string{"9007199254740992", "-9007199254740992", "0", "-0", "0.1", "1e300", "1.50", "123456789.123456", "1E+2", "0e99999"} {
		response, body, err := e.do(t, http.MethodPost, "/v1/query", `{"sql":"x","params":[`+number+`]}`)
		if err != nil || response.StatusCode != http.StatusOK {
			t.Errorf("%s: %s", number, body)
		}
	}
	for _, number := range []string{"9007199254740994", "1e400", "1e-999999999", "1.00000000000000000001", "1e99999999999"} {
		response, body, err := e.do(t, http.MethodPost, "/v1/query", `{"sql":"x","params":[`+number+`]}`)
		if err != nil {
			t.Fatal(err)
		}
		expectError(t, response, body, http.StatusBadRequest, "PARAMETER_INVALID")
	}
}
