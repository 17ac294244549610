package rest

import (
	"encoding/json"
	"net/http"
	"net/url"
	"strings"
	"testing"

	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/encoding/protojson"

	quernv1 "github.com/quern-data/quern/go-api/gen/quern/v1"
	"github.com/quern-data/quern/go-api/internal/apierr"
	"github.com/quern-data/quern/go-api/internal/service"
)

// FuzzBody checks that whatever readJSON lets through is a request, and that refusals say why.
func FuzzBody(f *testing.F) {
	for _, seed := range []string{
		`{"sql":"SELECT 1","params":[1,"a",null,{"b":1.5}],"format":"csv","numbers":"string","timeout":"5s"}`,
		`{"sql":"x","params":{"a":9007199254740993}}`, `{"sql":"x"} x`, "{\"sql\":\"\xff\"}", `[[[[`, `{"a":"\ud800"}`, `nul`, "",
	} {
		f.Add([]byte(seed))
	}
	f.Fuzz(func(t *testing.T, raw []byte) {
		err := readJSON(raw, &quernv1.QueryRequest{}, nil)
		if err != nil {
			expectReason(t, err)
			return
		}
		if err := protojson.Unmarshal(raw, &quernv1.QueryRequest{}); err != nil || !json.Valid(raw) {
			t.Errorf("%q passed and is no request: %v", raw, err)
		}
	})
}

// FuzzQuery does the same for the query parameters.
func FuzzQuery(f *testing.F) {
	for _, seed := range []string{"sql=x&params=%5B1%5D&timeout=5s", "a=b", "sql=x;y", "timeout=1e9s", "params={", "page_size=99999999999", "=&=", "sql[x]=1"} {
		f.Add(seed)
	}
	routes := publicRoutes()
	f.Fuzz(func(t *testing.T, query string) {
		for i := range routes {
			if err := readParameters(&routes[i], query, dynamicOf(&routes[i])); err != nil {
				expectReason(t, err)
			}
		}
	})
}

// FuzzAccept checks that negotiation ends in a format that is known, or none.
func FuzzAccept(f *testing.F) {
	for _, seed := range []string{"*/*", "text/csv;q=0.5,application/json", "a/b;c=\"", ",", "text/*;q=0", "application/json;q=2"} {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, accept string) {
		switch format := formatByAccept(http.Header{"Accept": {accept}}); format {
		case "", service.NoFormat:
		default:
			if _, err := service.FormatNamed(format); err != nil {
				t.Errorf("%q gave %q", accept, format)
			}
		}
	})
}

// FuzzConditions checks that tags are found wherever they stand in a list, and that nothing else is.
func FuzzConditions(f *testing.F) {
	for _, seed := range []string{`"a"`, `W/"a-gzip", "b"`, "*", `"`, ` , ,"x"`, `"a" "b"`, "W/", `""`} {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, line string) {
		const tag = "0123456789abcdef0123456789abcdef"
		if matches([]string{line}, tag) && !strings.Contains(line, tag) && !strings.Contains(line, "*") {
			t.Errorf("%q matches", line)
		}
		if !matches([]string{line, `"` + tag + `-zstd"`}, tag) || !matches([]string{`"q", W/"` + tag + `", ` + line}, tag) {
			t.Errorf("a tag beside %q is not found", line)
		}
	})
}

// FuzzExact checks the digits that a float64 keeps against the number's own text.
func FuzzExact(f *testing.F) {
	for _, seed := range []string{"0", "-0.0", "9007199254740993", "1e308", "1e-400", "0.1", "123456789012345678", "1E5", "5e-324"} {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, number string) {
		if !json.Valid([]byte(number)) || strings.ContainsAny(number, "\" [{tfn\t\r\n") || len(number) > 1000 {
			return
		}
		if positive := strings.TrimPrefix(number, "-"); exact(positive) != exact("-"+positive) {
			t.Errorf("%s is judged by its sign", number)
		}
	})
}

func FuzzFind(f *testing.F) {
	f.Add("GET", "/v1/tables/x")
	f.Add("HEAD", "//v1/query/")
	f.Add("GET", "/v1/tables/x/rows/a%2Fb~%257E")
	routes := publicRoutes()
	f.Fuzz(func(t *testing.T, method, path string) {
		parsed, err := url.Parse(path)
		if err != nil {
			return
		}
		route, _, err := find(routes, method, parsed)
		if (route == nil) == (err == nil) {
			t.Errorf("%s %s: %v %v", method, path, route, err)
		}
		if err != nil {
			expectReason(t, err)
		}
	})
}

func expectReason(t *testing.T, err error) {
	t.Helper()
	st := status.Convert(err)
	if info := apierr.Info(st); info == nil || info.GetReason() == string(apierr.Internal) || st.Message() == "" {
		t.Errorf("%v says too little", err)
	}
}
