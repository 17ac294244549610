package apierr

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"net/http"
	"os"
	"regexp"
	"strings"
	"testing"
	"time"

	"google.golang.org/genproto/googleapis/rpc/errdetails"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
)

var update = flag.Bool("update", false, "rewrite the reference page")

const (
	page        = "../../../docs/reference/errors.md"
	engineTable = "../../../rust-engine/crates/core/src/error.rs"
)

func TestEveryReasonHasOneLine(t *testing.T) {
	seen := map[Reason]bool{}
	for _, entry := range Table {
		if seen[entry.Reason] || entry.Doc == "" || !regexp.MustCompile(`^[A-Z][A-Z_]+$`).MatchString(string(entry.Reason)) {
			t.Errorf("bad line %+v", entry)
		}
		seen[entry.Reason] = true
		st := status.Convert(New(entry.Reason, "m"))
		if st.Code() != entry.Code || Info(st).GetReason() != string(entry.Reason) || HTTPStatus(st) < 400 {
			t.Errorf("%s becomes %v", entry.Reason, st)
		}
	}
}

func TestOf(t *testing.T) {
	cases := []struct {
		err    error
		reason Reason
		http   int
	}{
		{status.Error(codes.Unavailable, "connect: /tmp/secret.sock"), EngineUnavailable, http.StatusServiceUnavailable},
		{fmt.Errorf("x: %w", context.DeadlineExceeded), DeadlineExceeded, http.StatusGatewayTimeout},
		{context.Canceled, RequestCanceled, statusClientClosed},
		{errors.New("/etc/passwd"), Internal, http.StatusInternalServerError},
		{status.Error(codes.ResourceExhausted, "grpc: received message larger than max"), Internal, http.StatusInternalServerError},
		{Timeout(time.Second), DeadlineExceeded, http.StatusGatewayTimeout},
	}
	for _, c := range cases {
		st := Of(c.err)
		if Info(st).GetReason() != string(c.reason) || HTTPStatus(st) != c.http {
			t.Errorf("%v becomes %v %d", c.err, st, HTTPStatus(st))
		}
		if strings.Contains(st.Message(), "/") {
			t.Errorf("%v leaks: %s", c.err, st.Message())
		}
	}
	if RetryAfter(Of(Unavailable())) != time.Second {
		t.Error("no RetryInfo")
	}
	theirs, err := status.New(codes.ResourceExhausted, "m").WithDetails(&errdetails.ErrorInfo{Reason: "MEMORY_LIMIT", Domain: Domain})
	if err != nil {
		t.Fatal(err)
	}
	if Of(theirs.Err()).String() != theirs.String() || HTTPStatus(theirs) != http.StatusTooManyRequests {
		t.Error("an engine's error did not pass as it is")
	}
}

func TestReferencePage(t *testing.T) {
	want := render(t)
	if *update {
		if err := os.WriteFile(page, []byte(want), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	got, err := os.ReadFile(page)
	if err != nil {
		t.Fatal(err)
	}
	if string(got) != want {
		t.Error("docs/reference/errors.md differs from the code; run: go test ./go-api/internal/apierr -update")
	}
}

// render writes the page from this table and from the engine's source, which is the other half of the contract.
func render(t *testing.T) string {
	t.Helper()
	source, err := os.ReadFile(engineTable)
	if err != nil {
		t.Fatal(err)
	}
	var b strings.Builder
	b.WriteString(pageHead)
	b.WriteString("\n## From the edge\n\n| reason | gRPC code | HTTP | when |\n|---|---|---|---|\n")
	for _, entry := range Table {
		row(&b, string(entry.Reason), entry.Code, HTTPStatus(status.Convert(New(entry.Reason, ""))), entry.Doc)
	}
	b.WriteString("\n## From the engine\n\n| reason | gRPC code | HTTP | when |\n|---|---|---|---|\n")
	line := regexp.MustCompile(`(?m)^    /// (.+)\n    \w+ = "([A-Z_]+)" => (\w+),$`)
	matches := line.FindAllStringSubmatch(string(source), -1)
	if len(matches) < 20 {
		t.Fatalf("found %d reasons in the engine's table", len(matches))
	}
	for _, match := range matches {
		code := codeNamed(t, match[3])
		row(&b, match[2], code, httpOfCode(code), match[1])
	}
	return b.String()
}

func row(b *strings.Builder, reason string, code codes.Code, status int, doc string) {
	fmt.Fprintf(b, "| `%s` | `%s` | %d | %s |\n", reason, CodeName(code), status, doc)
}

// codeNamed finds a code by its CamelCase name, in which Rust spells Cancelled as google.rpc.Code does.
func codeNamed(t *testing.T, name string) codes.Code {
	t.Helper()
	for code := range codes.Code(len(codeNames)) {
		if strings.EqualFold(strings.ReplaceAll(CodeName(code), "_", ""), name) {
			return code
		}
	}
	t.Fatalf("no code %s", name)
	return codes.Unknown
}

const pageHead = `# Errors

<!-- Rendered from go-api/internal/apierr and rust-engine/crates/core by a test; change the code, then run:
     go test ./go-api/internal/apierr -update -->

Every error, over REST and gRPC alike, is a ` + "`google.rpc.Status`" + ` with exactly one ` + "`google.rpc.ErrorInfo`" + ` of the domain
` + "`quern`" + ` ([AIP-193](https://google.aip.dev/193)). Programs go by its ` + "`reason`" + `; the message is for people and may change. Over
REST the body is

` + "```json" + `
{"error":{"code":400,"status":"INVALID_ARGUMENT","message":"no column ` + "`delya` in `flights`; did you mean `delay`" + `?",
 "details":[{"@type":"type.googleapis.com/google.rpc.ErrorInfo","reason":"UNKNOWN_COLUMN","domain":"quern"}]}}
` + "```" + `

Details may add ` + "`BadRequest`" + ` (which field), ` + "`RetryInfo`" + ` (over REST also ` + "`Retry-After`" + `) and facts in the ErrorInfo's ` + "`metadata`" + `.
A result that fails after its first byte is never followed by an error text: the connection is aborted (HTTP/1.1: no last
chunk; HTTP/2: RST_STREAM), and over gRPC the stream ends with the status. The reasons ` + "`FILE_…`, `SCHEMA_CONFLICT`,\n`NAME_CONFLICT` and `CONFIG_INVALID`" + ` also stand in the ` + "`problem`" + ` of a broken table.
`
