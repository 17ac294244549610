package e2e

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"maps"
	"net/http"
	"net/url"
	"os"
	"path/filepath"
	"slices"
	"testing"

	"github.com/quern-data/quern/go-api/test/harness"
)

// keyed is what is answered to a request for rows by key.
type keyed struct {
	page

	Missing []string
}

func readKeys(t *testing.T, method, target string, body any) *keyed {
	t.Helper()
	text, err := json.Marshal(body)
	must(t, err)
	request, err := http.NewRequestWithContext(t.Context(), method, target, bytes.NewReader(text))
	must(t, err)
	response, err := http.DefaultClient.Do(request)
	must(t, err)
	defer func() { _ = response.Body.Close() }()
	answer, err := io.ReadAll(response.Body)
	must(t, err)
	read := &keyed{page: page{status: response.StatusCode}}
	if err := json.Unmarshal(answer, read); err != nil {
		t.Fatalf("%.300s: %v", answer, err)
	}
	return read
}

func TestThousandKeys(t *testing.T) {
	folder := t.TempDir()
	numbered(t, filepath.Join(folder, "t", "a.csv"), 1, 1500)
	numbered(t, filepath.Join(folder, "t", "b.csv"), 1501, 3000)
	must(t, os.WriteFile(filepath.Join(folder, "quern.yaml"), []byte("tables: {t: {key: id}}\n"), 0o600))
	server := harness.Start(t, folder)
	target := server.URL + "/v1/tables/t/rows:batchGet"

	var keys, want []string
	for id := 3990; id > 0; id -= 4 {
		keys = append(keys, fmt.Sprint(id))
		if id <= 3000 {
			want = append(want, fmt.Sprint(id))
		}
	}
	keys = append(keys, "7", "2998", "7")[:1000]
	want = append(want, "7", "2998", "7")[:752]
	query := url.Values{"keys": keys, "fields": {"id"}}
	for name, read := range map[string]*keyed{
		"POST": readKeys(t, http.MethodPost, target, map[string]any{"keys": keys}),
		"GET":  readKeys(t, http.MethodGet, target+"?"+query.Encode(), nil),
	} {
		if !slices.Equal(read.ids(), want) || len(read.Missing) != 248 || read.Missing[0] != "3990" {
			t.Errorf("%s: %d, %d rows, %d missing, %s", name, read.status, len(read.Rows), len(read.Missing), read.Error.Message)
		}
	}
	if read := readKeys(t, http.MethodPost, target, map[string]any{"keys": append(keys, "1")}); read.reason() != "TOO_MANY_KEYS" {
		t.Errorf("1001 keys: %d %s", read.status, read.reason())
	}
}

// A row may be asked for any number of times: it is held once, however large.
func TestOneLargeRowManyTimes(t *testing.T) {
	folder := t.TempDir()
	const size = 1 << 20
	row, err := json.Marshal(map[string]any{"id": 1, "text": string(bytes.Repeat([]byte("x"), size))})
	must(t, err)
	must(t, os.WriteFile(filepath.Join(folder, "t.ndjson"), append(row, '\n'), 0o600))
	must(t, os.WriteFile(filepath.Join(folder, "quern.yaml"), []byte("tables: {t: {key: id}}\n"), 0o600))
	server := harness.Start(t, folder, "--query-memory", "16MiB")
	const times = 200
	text, err := json.Marshal(map[string]any{"keys": slices.Repeat([]string{"1"}, times), "format": "csv"})
	must(t, err)
	response, err := http.Post(server.URL+"/v1/tables/t/rows:batchGet", "application/json", bytes.NewReader(text)) //nolint:noctx // the server ends with the test
	must(t, err)
	defer func() { _ = response.Body.Close() }()
	read, err := io.Copy(io.Discard, response.Body)
	if want := int64(times*(size+len("1,\r\n")) + len("id,text\r\n")); err != nil || response.StatusCode != http.StatusOK || read != want {
		t.Errorf("%d, %d bytes of %d: %v", response.StatusCode, read, want, err)
	}
}

// What lies in memory is answered without a query, and in the same bytes.
func TestRowsFromMemory(t *testing.T) {
	folder := t.TempDir()
	numbered(t, filepath.Join(folder, "t.csv"), 1, 1000)
	fromMemory(t, folder)
	linked := t.TempDir()
	must(t, os.Symlink(filepath.Join(folder, "t.csv"), filepath.Join(linked, "t.csv")))
	fromMemory(t, linked)
}

func fromMemory(t *testing.T, folder string) {
	t.Helper()
	must(t, os.WriteFile(filepath.Join(folder, "quern.yaml"), []byte("tables: {t: {key: id}}\n"), 0o600))
	server := harness.Start(t, folder)
	for _, path := range []string{
		"/rows/500", "/rows/500?format=csv", "/rows:batchGet?keys=7&keys=5000&keys=3",
		"/rows?page_size=50", "/rows?filter=id>900&page_size=7&fields=id", "/rows?filter=id>900&format=ndjson",
	} {
		target := server.URL + "/v1/tables/t" + path
		asked := func() (string, http.Header) {
			request, err := http.NewRequestWithContext(t.Context(), http.MethodGet, target, http.NoBody)
			must(t, err)
			request.Header.Set("Cache-Control", "no-store")
			// Whether a small answer is worth compressing is known of a whole one only.
			request.Header.Set("Accept-Encoding", "identity")
			response, err := http.DefaultClient.Do(request)
			must(t, err)
			defer func() { _ = response.Body.Close() }()
			body, err := io.ReadAll(response.Body)
			must(t, err)
			if response.StatusCode != http.StatusOK {
				t.Fatalf("%s: %s", response.Status, body)
			}
			for _, name := range []string{"Date", "X-Request-Id", "Content-Length"} {
				response.Header.Del(name)
			}
			response.Header.Set("Receipt", response.Trailer.Get("Quern-Receipt"))
			return string(body), response.Header
		}
		wantBody, wantHeader := asked()
		before, queries := metric(t, server, "quern_engine_peeked_total"), metric(t, server, executed)
		for range 3 {
			body, header := asked()
			if body != wantBody || !maps.EqualFunc(header, wantHeader, slices.Equal) {
				t.Errorf("%s\nfirst: %s %v\nlater: %s %v", target, wantBody, wantHeader, body, header)
			}
		}
		peeked, more := metric(t, server, "quern_engine_peeked_total")-before, metric(t, server, executed)-queries
		if peeked != 3 || more != 0 {
			t.Errorf("%s: %v answers from memory and %v queries", target, peeked, more)
		}
	}
}
