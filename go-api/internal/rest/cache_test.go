package rest_test

import (
	"bytes"
	"net/http"
	"strings"
	"testing"
	"time"

	enginev1 "github.com/quern-data/quern/go-api/gen/quern/engine/v1"
	"github.com/quern-data/quern/go-api/internal/enginetest"
)

// startCached serves a double whose answers name the state of its table `a`.
func startCached(t *testing.T) *edge {
	t.Helper()
	var e *edge
	e = start(t, func(_ int, request *enginev1.ExecuteRequest, stream enginev1.QueryService_ExecuteServer) error {
		body := []byte(e.engine.Read()[0].GetSnapshot())
		switch request.GetSql() {
		case "volatile":
			return e.engine.Vary(stream, body)
		case "long":
			return e.engine.Answer(stream, bytes.Repeat(append(body, ' '), 10_000))
		case "large":
			return e.engine.Answer(stream, make([]byte, 1<<20), make([]byte, 1<<20))
		}
		return e.engine.Answer(stream, body)
	})
	return e
}

// expect asks and compares status, body and Cache-Status; it returns the response's header.
func (e *edge) expect(t *testing.T, code int, body, status string, method, path, sent string, header ...string) http.Header {
	t.Helper()
	response, got, err := e.do(t, method, path, sent, header...)
	if err != nil {
		t.Fatal(err)
	}
	if response.StatusCode != code || (body != "*" && string(got) != body) || response.Header.Get("Cache-Status") != status {
		t.Errorf("%s %s: %d %q, Cache-Status %q; want %d %q %q", method, path, response.StatusCode, got,
			response.Header.Get("Cache-Status"), code, body, status)
	}
	return response.Header
}

const (
	hit    = `"quern-edge"; hit`
	stored = `"quern-edge"; fwd=uri-miss; stored`
	asked  = `"quern-edge"; fwd=request`
)

// awaitChange waits until the watch has told of a change.
func (e *edge) awaitChange(t *testing.T, snapshot string) {
	t.Helper()
	e.engine.Change("a", snapshot)
	for deadline := time.Now().Add(5 * time.Second); ; time.Sleep(time.Millisecond) {
		if picture, live := e.client.Picture(); live && picture.Snapshots["a"] == snapshot {
			return
		}
		if time.Now().After(deadline) {
			t.Fatal("the watch does not tell")
		}
	}
}

func TestRepeatsComeFromMemory(t *testing.T) {
	e := startCached(t)
	header := e.expect(t, 200, "s1", stored, "GET", "/v1/query?sql=SELECT+1&format=csv", "")
	if header.Get("Cache-Control") != "private, no-cache" || header.Get("Etag") == "" || header.Get("Last-Modified") != "" ||
		header.Get("Vary") != "Origin, Accept, Accept-Encoding" {
		t.Error(header)
	}
	for _, same := range [][]string{
		{"GET", "/v1/query?sql=SELECT+1&format=csv", ""},
		{"GET", "/v1/query?format=csv&sql=SELECT+1&numbers=exact&params=null", ""},
		{"GET", "/v1/query?sql=SELECT+1&timeout=7s", "", "Accept", "text/csv;q=0.8"},
		{"POST", "/v1/query", `{"sql":"SELECT 1","format":"csv"}`},
		{"POST", "/v1/query", "{ \"format\" : \"csv\",\n\"sql\" : \"SELECT\\u0020 1 -- one\" }"},
		{"POST", "/v1/query?format=csv", `{"sql":" SELECT /* 1 */ 1"}`},
	} {
		again := e.expect(t, 200, "s1", hit, same[0], same[1], same[2], same[3:]...)
		if again.Get("Etag") != header.Get("Etag") {
			t.Errorf("%v has the tag %s, not %s", same, again.Get("Etag"), header.Get("Etag"))
		}
	}
	tries := e.engine.Tries()
	if tries != 1 {
		t.Errorf("%d executions", tries)
	}
	for _, other := range []string{
		"sql=SELECT+2&format=csv", "sql=SELECT+1&format=ndjson", "sql=SELECT+1&format=csv&numbers=string", "sql=SELECT+1&format=csv&params=[1]",
		"sql=SELECT+1&format=csv&params=[%221%22]", "sql=SELECT+1&format=csv&params={%22a%22:1}", "sql=select+1&format=csv",
	} {
		if tag := e.expect(t, 200, "s1", stored, "GET", "/v1/query?"+other, "").Get("Etag"); tag == header.Get("Etag") {
			t.Errorf("%s has the tag of another request", other)
		}
	}
	e.expect(t, 200, "s1", stored, "GET", "/v1/query?sql=x&params={%22a%22:1,%22b%22:2}", "")
	e.expect(t, 200, "s1", hit, "POST", "/v1/query", `{"sql":"x","params":{"b":2,"a":1.0}}`)
}

func TestAChangeIsSeen(t *testing.T) {
	e := startCached(t)
	before := e.expect(t, 200, "s1", stored, "GET", "/v1/query?sql=x", "")
	e.awaitChange(t, "s3")
	after := e.expect(t, 200, "s3", `"quern-edge"; fwd=uri-miss; stored`, "GET", "/v1/query?sql=y", "")
	e.engine.Change("b", "other")
	if before.Get("Etag") == after.Get("Etag") {
		t.Error("one tag for two states")
	}
	// no-cache is strict: the watch may not have told yet.
	e.engine.Change("a", "s4")
	e.expect(t, 200, "s4", `"quern-edge"; fwd=stale; stored`, "GET", "/v1/query?sql=y", "", "Cache-Control", "no-cache")
	e.expect(t, 200, "s4", `"quern-edge"; fwd=request; fwd-status=304`, "GET", "/v1/query?sql=y", "", "Cache-Control", "max-age=0")
	e.expect(t, 200, "s4", `"quern-edge"; fwd=request; fwd-status=304`, "GET", "/v1/query?sql=y", "", "Pragma", "no-cache")
}

func TestConditionalRequests(t *testing.T) {
	e := startCached(t)
	// On a cold cache nothing is executed for a 304 or for HEAD.
	header := e.expect(t, 200, "", `"quern-edge"; fwd=uri-miss`, "HEAD", "/v1/query?sql=x", "")
	tag := header.Get("Etag")
	for _, condition := range []string{tag, "W/" + tag, `"a", ` + tag, "*", `"a" , W/` + tag + `, "b"`} {
		got := e.expect(t, 304, "", hit, "GET", "/v1/query?sql=x", "", "If-None-Match", condition)
		if got.Get("Etag") != tag || got.Get("Cache-Control") == "" || got.Get("Vary") == "" {
			t.Error(condition, got)
		}
		e.expect(t, 304, "", hit, "POST", "/v1/query", `{"sql":"x"}`, "If-None-Match", condition)
		e.expect(t, 304, "", hit, "HEAD", "/v1/query?sql=x", "", "If-None-Match", condition)
	}
	if e.engine.Tries() != 0 || e.engine.Plans() != 1 {
		t.Errorf("%d executions and %d plans", e.engine.Tries(), e.engine.Plans())
	}
	e.expect(t, 200, "s1", stored, "GET", "/v1/query?sql=x", "", "If-None-Match", `"other"`)
	e.expect(t, 304, "", hit, "GET", "/v1/query?sql=x", "", "If-None-Match", tag)
	e.awaitChange(t, "s5")
	if now := e.expect(t, 200, "s5", `"quern-edge"; fwd=stale; stored`, "GET", "/v1/query?sql=x", "", "If-None-Match", tag); now.Get("Etag") == tag {
		t.Error("the tag did not change")
	}
	length := e.expect(t, 200, "", hit, "HEAD", "/v1/query?sql=x", "").Get("Content-Length")
	if length != "2" {
		t.Error("Content-Length", length)
	}
}

func TestEachCodingIsARepresentation(t *testing.T) {
	e := startCached(t)
	tags := map[string]string{}
	for range 2 {
		for _, coding := range []string{"identity", "gzip", "zstd"} {
			response, _, err := e.do(t, "GET", "/v1/query?sql=long&format=csv", "", "Accept-Encoding", coding)
			if err != nil {
				t.Fatal(err)
			}
			if got := response.Header.Get("Content-Encoding"); got != coding && (got != "" || coding != "identity") {
				t.Errorf("%s was answered in %s", coding, got)
			}
			tag := response.Header.Get("Etag")
			if before, ok := tags[coding]; ok && before != tag {
				t.Errorf("%s had the tag %s and has %s", coding, before, tag)
			}
			tags[coding] = tag
		}
	}
	if tags["identity"] == tags["gzip"] || tags["gzip"] == tags["zstd"] {
		t.Error(tags)
	}
	// A tag of one coding also answers for another: what the client keeps is the same data.
	e.expect(t, 304, "", hit, "GET", "/v1/query?sql=long&format=csv", "", "If-None-Match", tags["gzip"], "Accept-Encoding", "zstd")
	// What is too small to gain is sent as it is.
	if header := e.expect(t, 200, "s1", stored, "GET", "/v1/query?sql=x", "", "Accept-Encoding", "gzip"); header.Get("Content-Encoding") != "" {
		t.Error(header)
	}
}

func TestRequestDirectives(t *testing.T) {
	e := startCached(t)
	response, body, err := e.do(t, "GET", "/v1/query?sql=x", "", "Cache-Control", "only-if-cached")
	if err != nil {
		t.Fatal(err)
	}
	expectError(t, response, body, http.StatusGatewayTimeout, "NOT_STORED")
	for range 2 {
		e.expect(t, 200, "s1", asked, "GET", "/v1/query?sql=x", "", "Cache-Control", "no-store")
	}
	e.expect(t, 200, "s1", stored, "GET", "/v1/query?sql=x", "")
	e.expect(t, 200, "s1", hit, "GET", "/v1/query?sql=x", "", "Cache-Control", "only-if-cached")
	e.expect(t, 200, "s1", asked, "GET", "/v1/query?sql=x", "", "Cache-Control", "no-store")
}

func TestWhatIsNotKept(t *testing.T) {
	e := startCached(t)
	header := e.expect(t, 200, "s1", `"quern-edge"; fwd=uri-miss`, "GET", "/v1/query?sql=volatile", "")
	if header.Get("Cache-Control") != "no-store" || header.Get("Etag") != "" {
		t.Error(header)
	}
	e.expect(t, 200, "s1", `"quern-edge"; fwd=bypass`, "GET", "/v1/query?sql=volatile", "")
	e.expect(t, 200, "*", `"quern-edge"; fwd=uri-miss`, "GET", "/v1/query?sql=large", "")
	// It can't be kept, and still it can be asked whether it holds.
	if header := e.expect(t, 200, "*", `"quern-edge"; fwd=bypass`, "GET", "/v1/query?sql=large", ""); header.Get("Etag") == "" {
		t.Error(header)
	}
}

func TestAWatchThatStallsIsNotTrusted(t *testing.T) {
	e := startCached(t)
	e.expect(t, 200, "s1", stored, "GET", "/v1/query?sql=x", "")
	e.engine.Silence(true)
	for deadline := time.Now().Add(5 * time.Second); ; time.Sleep(10 * time.Millisecond) {
		if _, live := e.client.Picture(); !live {
			break
		}
		if time.Now().After(deadline) {
			t.Fatal("a watch that says nothing is still live after 5 s")
		}
	}
	e.expect(t, 200, "s1", `"quern-edge"; fwd=stale; fwd-status=304`, "GET", "/v1/query?sql=x", "")
	e.engine.Change("a", "s6")
	e.expect(t, 200, "s6", `"quern-edge"; fwd=stale; stored`, "GET", "/v1/query?sql=x", "")
	e.engine.Kill()
	response, body, err := e.do(t, "GET", "/v1/query?sql=x&timeout=8s", "")
	if err != nil {
		t.Fatal(err)
	}
	expectError(t, response, body, http.StatusServiceUnavailable, "ENGINE_UNAVAILABLE")
	if response.Header.Get("Retry-After") == "" {
		t.Error("no Retry-After")
	}
}

func TestBinaryHitsAreTheSameBytes(t *testing.T) {
	binary := make([]byte, 300<<10)
	for i := range binary {
		binary[i] = byte(i * 31)
	}
	e := start(t, func(_ int, _ *enginev1.ExecuteRequest, stream enginev1.QueryService_ExecuteServer) error {
		return enginetest.Send(stream, binary[:200<<10], binary[200<<10:])
	})
	var receipts []string
	for range 3 {
		response, body, err := e.do(t, "GET", "/v1/query?sql=x&format=parquet", "", "Accept-Encoding", "gzip", "Want-Repr-Digest", "sha-256=1")
		if err != nil || !bytes.Equal(body, binary) || response.Header.Get("Content-Encoding") != "" {
			t.Fatal(err, len(body), response.Header)
		}
		receipts = append(receipts, response.Trailer.Get("Quern-Receipt")+response.Trailer.Get("Repr-Digest"))
	}
	if receipts[0] != receipts[1] || receipts[1] != receipts[2] || !strings.Contains(receipts[0], "rows=2") || e.engine.Tries() != 1 {
		t.Error(receipts, e.engine.Tries())
	}
}
