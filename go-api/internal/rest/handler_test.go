package rest_test

import (
	"bufio"
	"bytes"
	"compress/gzip"
	"crypto/sha256"
	"encoding/base64"
	"encoding/json"
	"errors"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"net/http/httptrace"
	"net/url"
	"strings"
	"testing"
	"time"

	"github.com/klauspost/compress/zstd"
	"google.golang.org/grpc/codes"

	enginev1 "github.com/quern-data/quern/go-api/gen/quern/engine/v1"
	"github.com/quern-data/quern/go-api/internal/cache"
	"github.com/quern-data/quern/go-api/internal/engine"
	"github.com/quern-data/quern/go-api/internal/enginetest"
	"github.com/quern-data/quern/go-api/internal/rest"
	"github.com/quern-data/quern/go-api/internal/service"
)

type edge struct {
	*httptest.Server

	engine *enginetest.Engine
	client *engine.Client
	logs   *bytes.Buffer
	// onFirstByte is called when the first byte of an answer arrives.
	onFirstByte func()
}

// ignored is an observer that looks away.
type ignored struct{}

func (ignored) Observe(string, int, time.Duration) {}

func start(t *testing.T, onExecute func(try int, request *enginev1.ExecuteRequest, stream enginev1.QueryService_ExecuteServer) error) *edge {
	t.Helper()
	double := enginetest.New(t)
	double.OnExecute = onExecute
	double.Catalog = &enginev1.ListTablesResponse{
		Tables: []*enginev1.Table{
			{Name: "a", State: enginev1.TableState_TABLE_STATE_READY, FileCount: 1, SizeBytes: 1 << 60, Snapshot: "s1"},
			{Name: "b", State: enginev1.TableState_TABLE_STATE_BROKEN, Problem: &enginev1.Problem{Reason: "FILE_CORRUPT", Message: "m"}},
			{Name: "c", State: enginev1.TableState_TABLE_STATE_READY},
		},
		PassedOver: []*enginev1.PassedOver{{Path: "empty", Reason: "it is empty"}},
	}
	double.Start(t)
	client, err := engine.Dial(double.URL())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = client.Close() })
	for deadline := time.Now().Add(5 * time.Second); ; time.Sleep(time.Millisecond) {
		if _, live := client.Picture(); live {
			break
		}
		if time.Now().After(deadline) {
			t.Fatal("the watch is not live")
		}
	}
	answers, err := cache.New(client, cache.Options{Bytes: 16 << 20, MaxEntry: 1 << 20, Lasting: service.Lasting})
	if err != nil {
		t.Fatal(err)
	}
	logs := &bytes.Buffer{}
	queries := service.NewQueries(client, answers, func(string) []string { return nil }, service.Timeouts{Default: 5 * time.Second, Most: 10 * time.Second})
	handler, err := rest.NewHandler(t.Context(), rest.Options{
		Tables:      service.NewTables(client, queries, 5*time.Second),
		Queries:     queries,
		Ready:       client.Serving,
		Logger:      slog.New(slog.NewJSONHandler(logs, nil)),
		CORSOrigins: []string{"https://example.com"},
		Metrics:     http.NotFoundHandler(),
		Observer:    ignored{},
		Keep:        func([]cache.Snapshot) string { return "" },
		Stall:       2 * time.Second,
	})
	if err != nil {
		t.Fatal(err)
	}
	server := httptest.NewUnstartedServer(handler)
	protocols := new(http.Protocols)
	protocols.SetHTTP1(true)
	protocols.SetUnencryptedHTTP2(true)
	server.Config.Protocols = protocols
	server.Config.ErrorLog = slog.NewLogLogger(slog.DiscardHandler, slog.LevelDebug)
	server.Start()
	t.Cleanup(server.Close)
	return &edge{Server: server, engine: double, client: client, logs: logs}
}

// do sends a request without the client's own gzip.
func (e *edge) do(t *testing.T, method, path, body string, header ...string) (*http.Response, []byte, error) {
	t.Helper()
	ctx := t.Context()
	if e.onFirstByte != nil {
		ctx = httptrace.WithClientTrace(ctx, &httptrace.ClientTrace{GotFirstResponseByte: e.onFirstByte})
	}
	request, err := http.NewRequestWithContext(ctx, method, e.URL+path, strings.NewReader(body))
	if err != nil {
		t.Fatal(err)
	}
	if body == "" {
		request.Body = http.NoBody
	}
	for i := 0; i+1 < len(header); i += 2 {
		request.Header.Set(header[i], header[i+1])
	}
	client := &http.Client{Transport: &http.Transport{DisableCompression: true}}
	t.Cleanup(client.CloseIdleConnections)
	response, err := client.Do(request)
	if err != nil {
		return nil, nil, err
	}
	defer func() { _ = response.Body.Close() }()
	raw, err := io.ReadAll(response.Body)
	return response, raw, err
}

var rows = []byte(`{"rows":[{"x":1},{"x":2}],"receipt":{"rows":2}}`)

func sendRows(_ int, _ *enginev1.ExecuteRequest, stream enginev1.QueryService_ExecuteServer) error {
	return enginetest.Send(stream, rows)
}

func TestQueryPassesBytesThrough(t *testing.T) {
	binary := make([]byte, 200<<10)
	for i := range binary {
		binary[i] = byte(i * 7)
	}
	var got *enginev1.ExecuteRequest
	e := start(t, func(_ int, request *enginev1.ExecuteRequest, stream enginev1.QueryService_ExecuteServer) error {
		got = request
		return enginetest.Send(stream, binary, []byte{'\n'}, binary)
	})
	want := append(append(append([]byte{}, binary...), '\n'), binary...)
	response, body, err := e.do(t, http.MethodPost, "/v1/query", `{"sql":"SELECT $1","params":[1],"format":"arrow","timeout":"2s"}`,
		"Want-Repr-Digest", "sha-256=1", "Accept-Encoding", "gzip")
	if err != nil || response.StatusCode != http.StatusOK {
		t.Fatal(err, response.Status, string(body))
	}
	if !bytes.Equal(body, want) {
		t.Fatalf("the body is %d bytes and differs from what the engine sent, %d bytes", len(body), len(want))
	}
	if response.Header.Get("Content-Type") != "application/vnd.apache.arrow.stream" || response.Header.Get("Content-Encoding") != "" {
		t.Errorf("headers %v", response.Header)
	}
	sum := sha256.Sum256(want)
	if digest := response.Trailer.Get("Repr-Digest"); digest != "sha-256=:"+base64.StdEncoding.EncodeToString(sum[:])+":" {
		t.Errorf("Repr-Digest %q", digest)
	}
	receipt := response.Trailer.Get("Quern-Receipt")
	if !strings.HasPrefix(receipt, `rows=2, bytes=409601, digest="sha-256=:`) || !strings.HasSuffix(receipt, `snapshots=("a";id="s1" "b";id="s2")`) {
		t.Errorf("Quern-Receipt %q", receipt)
	}
	if got.GetSql() != "SELECT $1" || got.GetFormat() != enginev1.Format_FORMAT_ARROW || got.GetParams().GetListValue().GetValues()[0].GetNumberValue() != 1 {
		t.Errorf("the engine got %v", got)
	}
	if !strings.Contains(e.logs.String(), `"rows":2`) {
		t.Errorf("no rows in the access log: %s", e.logs)
	}
}

func TestQueryJSONHasNoTrailer(t *testing.T) {
	e := start(t, sendRows)
	response, body, err := e.do(t, http.MethodGet, "/v1/query?sql=SELECT+1", "")
	if err != nil || !bytes.Equal(body, rows) || len(response.Trailer) != 0 {
		t.Fatal(err, string(body), response.Trailer)
	}
	if response.Header.Get("Content-Type") != "application/json" || response.ContentLength != int64(len(rows)) {
		t.Error(response.Header, response.ContentLength)
	}
	if vary := response.Header.Get("Vary"); vary != "Origin, Accept, Accept-Encoding" {
		t.Errorf("Vary %q", vary)
	}
}

func TestContentCodings(t *testing.T) {
	big := bytes.Repeat([]byte("0123456789abcdef"), 20<<10)
	e := start(t, func(_ int, _ *enginev1.ExecuteRequest, stream enginev1.QueryService_ExecuteServer) error {
		return enginetest.Send(stream, big)
	})
	readers := map[string]func(io.Reader) (io.Reader, error){
		"gzip": func(r io.Reader) (io.Reader, error) { return gzip.NewReader(r) },
		"zstd": func(r io.Reader) (io.Reader, error) { return zstd.NewReader(r) },
	}
	for coding, open := range readers {
		t.Run(coding, func(t *testing.T) {
			response, body, err := e.do(t, http.MethodGet, "/v1/query?sql=x&format=csv", "", "Accept-Encoding", coding, "Want-Repr-Digest", "sha-256=3")
			if err != nil || response.Header.Get("Content-Encoding") != coding {
				t.Fatal(err, response.Header)
			}
			reader, err := open(bytes.NewReader(body))
			if err != nil {
				t.Fatal(err)
			}
			if plain, err := io.ReadAll(reader); err != nil || !bytes.Equal(plain, big) {
				t.Error("the decoded body differs", err)
			}
			sum := sha256.Sum256(body)
			if digest := response.Trailer.Get("Repr-Digest"); digest != "sha-256=:"+base64.StdEncoding.EncodeToString(sum[:])+":" {
				t.Errorf("Repr-Digest %q is not of the coded bytes", digest)
			}
			if response.Trailer.Get("Quern-Receipt") == "" {
				t.Error("no receipt")
			}
		})
	}
}

func TestEarlyFailureIsAnError(t *testing.T) {
	e := start(t, func(int, *enginev1.ExecuteRequest, enginev1.QueryService_ExecuteServer) error {
		return enginetest.Fail(codes.InvalidArgument, "UNKNOWN_COLUMN", "no column `delya`")
	})
	for _, format := range []string{"json", "csv"} {
		response, body, err := e.do(t, http.MethodGet, "/v1/query?sql=x&format="+format, "")
		if err != nil {
			t.Fatal(err)
		}
		expectError(t, response, body, http.StatusBadRequest, "UNKNOWN_COLUMN")
		if len(response.Trailer) != 0 {
			t.Error("an error has trailers", response.Trailer)
		}
	}
}

func TestMidwayFailureAborts(t *testing.T) {
	failures := map[string]error{
		"status":     enginetest.Fail(codes.InvalidArgument, "DATA_ERROR", "division by zero"),
		"no receipt": nil,
	}
	for name, failure := range failures {
		t.Run(name, func(t *testing.T) {
			begun := make(chan struct{})
			e := start(t, func(_ int, _ *enginev1.ExecuteRequest, stream enginev1.QueryService_ExecuteServer) error {
				if err := enginetest.SendPart(stream, make([]byte, 100<<10)); err != nil {
					return err
				}
				<-begun
				return failure
			})
			e.onFirstByte = func() { begun <- struct{}{} }
			for _, coding := range []string{"identity", "gzip"} {
				response, body, err := e.do(t, http.MethodGet, "/v1/query?sql=x&format=csv", "", "Accept-Encoding", coding)
				if err == nil || !errors.Is(err, io.ErrUnexpectedEOF) {
					t.Errorf("%s: got %d bytes and error %v, want an aborted connection", coding, len(body), err)
				}
				if response != nil && len(response.Trailer.Get("Quern-Receipt")) != 0 {
					t.Error("a broken result has a receipt")
				}
			}
			if e.engine.Tries() != 2 {
				t.Errorf("the engine was asked %d times for 2 requests: what was sent in part must not be retried", e.engine.Tries())
			}
		})
	}
}

func TestMidwayFailureResetsHTTP2(t *testing.T) {
	begun := make(chan struct{})
	e := start(t, func(_ int, _ *enginev1.ExecuteRequest, stream enginev1.QueryService_ExecuteServer) error {
		if err := enginetest.SendPart(stream, make([]byte, 100<<10)); err != nil {
			return err
		}
		<-begun
		return enginetest.Fail(codes.Internal, "INTERNAL", "x")
	})
	protocols := new(http.Protocols)
	protocols.SetUnencryptedHTTP2(true)
	client := &http.Client{Transport: &http.Transport{Protocols: protocols}}
	t.Cleanup(client.CloseIdleConnections)
	request, err := http.NewRequestWithContext(t.Context(), http.MethodGet, e.URL+"/v1/query?sql=x", http.NoBody)
	if err != nil {
		t.Fatal(err)
	}
	response, err := client.Do(request)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = response.Body.Close() }()
	close(begun)
	if _, err := io.ReadAll(response.Body); response.ProtoMajor != 2 || err == nil {
		t.Fatalf("%s ended with %v, want a reset stream", response.Proto, err)
	}
}

// A changed file is asked for once more, an engine that goes twice more.
func TestRetriesAreFew(t *testing.T) {
	for _, code := range []codes.Code{codes.Aborted, codes.Unavailable} {
		reason := map[codes.Code]string{codes.Aborted: "SNAPSHOT_CHANGED", codes.Unavailable: "SHUTTING_DOWN"}[code]
		t.Run(reason, func(t *testing.T) {
			fails := 1
			e := start(t, func(try int, _ *enginev1.ExecuteRequest, stream enginev1.QueryService_ExecuteServer) error {
				if try <= fails {
					return enginetest.Fail(code, reason, "x")
				}
				return enginetest.Send(stream, rows)
			})
			if response, body, err := e.do(t, http.MethodGet, "/v1/query?sql=x", ""); err != nil || response.StatusCode != http.StatusOK {
				t.Fatal(err, string(body))
			}
			fails = 100
			response, body, err := e.do(t, http.MethodGet, "/v1/query?sql=y", "")
			if err != nil {
				t.Fatal(err)
			}
			want := map[codes.Code]int{codes.Aborted: http.StatusConflict, codes.Unavailable: http.StatusServiceUnavailable}[code]
			expectError(t, response, body, want, reason)
			if want := map[codes.Code]int{codes.Aborted: 2 + 2, codes.Unavailable: 2 + 3}[code]; e.engine.Tries() != want {
				t.Errorf("%d tries for two requests, want %d", e.engine.Tries(), want)
			}
		})
	}
}

func TestKilledEngineBeforeTheFirstByteIsRetried(t *testing.T) {
	started := make(chan struct{})
	hang := func(_ int, _ *enginev1.ExecuteRequest, stream enginev1.QueryService_ExecuteServer) error {
		close(started)
		<-stream.Context().Done()
		return stream.Context().Err()
	}
	e := start(t, hang)
	go func() {
		<-started
		e.engine.Kill()
		again := &enginetest.Engine{Socket: e.engine.Socket, OnExecute: sendRows}
		again.Start(t)
	}()
	response, body, err := e.do(t, http.MethodGet, "/v1/query?sql=x", "")
	if err != nil || response.StatusCode != http.StatusOK || !bytes.Equal(body, rows) {
		t.Fatal(err, string(body))
	}
}

func TestRequestIdentityReachesTheEngine(t *testing.T) {
	e := start(t, sendRows)
	response, _, err := e.do(t, http.MethodGet, "/v1/query?sql=x", "", "X-Request-Id", "my-id.1",
		"Traceparent", "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01", "Tracestate", "a=b", "Grpc-Timeout", "1n")
	if err != nil || response.StatusCode != http.StatusOK || response.Header.Get("X-Request-Id") != "my-id.1" {
		t.Fatal(err, response.Header)
	}
	seen := e.engine.Seen()
	parent := strings.Join(seen.Get("traceparent"), "")
	if strings.Join(seen.Get("x-request-id"), "") != "my-id.1" || strings.Join(seen.Get("tracestate"), "") != "a=b" ||
		!strings.HasPrefix(parent, "00-4bf92f3577b34da6a3ce929d0e0e4736-") || strings.Contains(parent, "00f067aa0ba902b7") || !strings.HasSuffix(parent, "-01") {
		t.Errorf("the engine saw %v", seen)
	}
	response, _, err = e.do(t, http.MethodGet, "/v1/tables", "", "X-Request-Id", "no\ttabs", "Traceparent", "rubbish")
	if err != nil || response.Header.Get("X-Request-Id") == "no\ttabs" || len(response.Header.Get("X-Request-Id")) != 36 {
		t.Error(err, response.Header)
	}
}

func TestTables(t *testing.T) {
	e := start(t, nil)
	type page struct {
		Tables []struct {
			Name, State string
			SizeBytes   string `json:"size_bytes"`
		}
		Unreachable []string
		Next        string              `json:"next_page_token"`
		PassedOver  []map[string]string `json:"passed_over"`
	}
	var names []string
	var pages []page
	for token := ""; len(pages) == 0 || token != ""; {
		_, body, err := e.do(t, http.MethodGet, "/v1/tables?page_size=2&page_token="+url.QueryEscape(token), "")
		var p page
		if err == nil {
			err = json.Unmarshal(body, &p)
		}
		if err != nil {
			t.Fatal(err, string(body))
		}
		for _, table := range p.Tables {
			names = append(names, table.Name)
		}
		token = p.Next
		pages = append(pages, p)
	}
	if strings.Join(names, " ") != "a b c" || len(pages) != 2 || pages[0].Tables[0].SizeBytes != "1152921504606846976" {
		t.Error(names, pages)
	}
	if len(pages[1].Unreachable) != 1 || len(pages[0].PassedOver) != 1 || len(pages[1].PassedOver) != 0 {
		t.Error(pages)
	}
	response, body, err := e.do(t, http.MethodGet, "/v1/tables/a", "")
	if err != nil || response.StatusCode != http.StatusOK || !strings.Contains(string(body), `"name":"a"`) || strings.Contains(string(body), `"table"`) {
		t.Error(err, string(body))
	}
}

func TestHead(t *testing.T) {
	e := start(t, sendRows)
	for _, path := range []string{"/v1/tables", "/v1/query?sql=x&format=csv", "/healthz"} {
		response, body, err := e.do(t, http.MethodHead, path, "")
		if err != nil || response.StatusCode != http.StatusOK || len(body) != 0 || response.Header.Get("Content-Type") == "" {
			t.Error(path, err, response, body)
		}
	}
}

func TestCORS(t *testing.T) {
	e := start(t, sendRows)
	response, _, err := e.do(t, http.MethodOptions, "/v1/query", "", "Origin", "https://example.com",
		"Access-Control-Request-Method", "POST", "Access-Control-Request-Headers", "content-type")
	if err != nil || response.Header.Get("Access-Control-Allow-Origin") != "https://example.com" {
		t.Error(err, response.Header)
	}
	response, _, err = e.do(t, http.MethodGet, "/v1/tables", "", "Origin", "https://evil.example")
	if err != nil || response.Header.Get("Access-Control-Allow-Origin") != "" {
		t.Error(err, response.Header)
	}
	response, _, err = e.do(t, http.MethodOptions, "/v1/query", "")
	if err != nil || response.StatusCode != http.StatusNoContent || response.Header.Get("Allow") != "GET, HEAD, OPTIONS, POST" {
		t.Error(err, response.Status, response.Header)
	}
}

func TestStalledCallerIsCutOff(t *testing.T) {
	stopped := make(chan struct{})
	e := start(t, func(_ int, _ *enginev1.ExecuteRequest, stream enginev1.QueryService_ExecuteServer) error {
		defer close(stopped)
		for {
			if err := enginetest.SendPart(stream, make([]byte, 256<<10)); err != nil {
				return err
			}
		}
	})
	request, err := http.NewRequestWithContext(t.Context(), http.MethodGet, e.URL+"/v1/query?sql=x&timeout=10s", http.NoBody)
	if err != nil {
		t.Fatal(err)
	}
	// The client's own gzip would shrink the zeros to next to nothing.
	request.Header.Set("Accept-Encoding", "identity")
	response, err := http.DefaultClient.Do(request)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = response.Body.Close() }()
	if _, err := bufio.NewReader(response.Body).ReadByte(); err != nil {
		t.Fatal(err)
	}
	select {
	case <-stopped:
	case <-time.After(8 * time.Second):
		t.Fatal("a caller who reads nothing still holds its query after 8 s, with a stall limit of 2 s")
	}
}

func expectError(t *testing.T, response *http.Response, body []byte, code int, reason string) string {
	t.Helper()
	var got struct {
		Error struct {
			Code    int
			Status  string
			Message string
			Details []struct {
				Type   string `json:"@type"`
				Reason string
				Domain string
			}
		}
	}
	if err := json.Unmarshal(body, &got); err != nil {
		t.Fatalf("%d with a body that is no error: %s", response.StatusCode, body)
	}
	if response.StatusCode != code || got.Error.Code != code || got.Error.Message == "" || got.Error.Status == "" ||
		response.Header.Get("Content-Type") != "application/json" {
		t.Errorf("got %d %s, want %d %s", response.StatusCode, body, code, reason)
	}
	infos := 0
	for _, detail := range got.Error.Details {
		if detail.Type == "type.googleapis.com/google.rpc.ErrorInfo" && detail.Reason == reason && detail.Domain == "quern" {
			infos++
		}
	}
	if infos != 1 {
		t.Errorf("want one ErrorInfo with %s in %s", reason, body)
	}
	return got.Error.Message
}
