package e2e

import (
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"os"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/quern-data/quern/go-api/test/harness"
)

// TestRowsReference asks what docs/reference/rows.md says is answered.
func TestRowsReference(t *testing.T) {
	raw, err := os.ReadFile(filepath.Join(harness.Root(t), "docs/reference/rows.md"))
	if err != nil {
		t.Fatal(err)
	}
	folder := t.TempDir()
	for file, kind := range map[string]string{"flights.ndjson": "ndjson", "times.csv": "csv"} {
		_, rest, _ := strings.Cut(string(raw), "```"+kind+"\n")
		content, _, found := strings.Cut(rest, "```")
		if !found {
			t.Fatalf("the page has no %s", file)
		}
		if err := os.WriteFile(filepath.Join(folder, file), []byte(content), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	server := harness.Start(t, folder)
	examples := regexp.MustCompile("(?m)^\\| `(.*)` \\| (flights|times) \\| ([0-9, ]*) \\|$").FindAllStringSubmatch(string(raw), -1)
	if len(examples) < 20 {
		t.Fatalf("the page has %d examples", len(examples))
	}
	for _, example := range examples {
		page := readPage(t, server.URL, example[2], url.Values{"filter": {example[1]}, "fields": {"id"}})
		if got := strings.Join(page.ids(), ", "); got != example[3] {
			t.Errorf("%s: rows %s, the page says %s", example[1], got, example[3])
		}
	}
}

type page struct {
	status int
	Rows   []struct{ ID int64 }
	Next   string `json:"next_page_token"`
	Total  *int64 `json:"total_size"`
	Error  struct {
		Message string
		Details []struct{ Reason string }
	}
	link string
}

func (p *page) ids() []string {
	ids := make([]string, 0, len(p.Rows))
	for _, row := range p.Rows {
		ids = append(ids, strconv.FormatInt(row.ID, 10))
	}
	return ids
}

func (p *page) reason() string {
	for _, detail := range p.Error.Details {
		if detail.Reason != "" {
			return detail.Reason
		}
	}
	return ""
}

func readPage(t *testing.T, base, table string, parameters url.Values) *page {
	t.Helper()
	request, err := http.NewRequestWithContext(t.Context(), http.MethodGet, base+"/v1/tables/"+table+"/rows?"+parameters.Encode(), http.NoBody)
	if err != nil {
		t.Fatal(err)
	}
	response, err := http.DefaultClient.Do(request)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = response.Body.Close() }()
	body, err := io.ReadAll(response.Body)
	if err != nil {
		t.Fatal(err)
	}
	read := &page{status: response.StatusCode, link: response.Header.Get("Link")}
	if err := json.Unmarshal(body, read); err != nil {
		t.Fatalf("%s: %v", body, err)
	}
	return read
}

// numbered writes a CSV file of the ids from first to last.
func numbered(t *testing.T, path string, first, last int) {
	t.Helper()
	var text strings.Builder
	text.WriteString("id,half\n")
	for id := first; id <= last; id++ {
		fmt.Fprintf(&text, "%d,%d\n", id, id/2)
	}
	if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
		t.Fatal(err)
	}
	// In one step, as writers should: a table must not be seen half-written.
	if err := os.WriteFile(path+".tmp", []byte(text.String()), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.Rename(path+".tmp", path); err != nil {
		t.Fatal(err)
	}
}

func TestPagesKeepTheirSnapshot(t *testing.T) {
	folder := t.TempDir()
	numbered(t, filepath.Join(folder, "t", "b.csv"), 1, 50)
	numbered(t, filepath.Join(folder, "t", "c.csv"), 51, 100)
	server := harness.Start(t, folder)

	for _, order := range []string{"", "half desc"} {
		arguments := url.Values{"page_size": {"7"}, "order_by": {order}, "filter": {"id != 13"}, "count": {"exact"}}
		seen, totals := map[int64]int{}, map[int64]bool{}
		for pages := 0; ; pages++ {
			read := readPage(t, server.URL, "t", arguments)
			if read.status != http.StatusOK {
				t.Fatalf("page %d: %d %s", pages, read.status, read.Error.Message)
			}
			for _, row := range read.Rows {
				seen[row.ID]++
			}
			if (read.Total != nil) != (pages%3 != 1) {
				t.Errorf("page %d: the count is %v", pages, read.Total)
			}
			if read.Total != nil {
				totals[*read.Total] = true
			}
			// Not every page need be asked.
			arguments.Set("count", map[bool]string{true: "none", false: "exact"}[pages%3 == 0])
			// Files come while the pages are read, before and after the others; no page shows them.
			numbered(t, filepath.Join(folder, "t", fmt.Sprintf("a%s%d.csv", strings.TrimSuffix(order, " desc"), pages)), 1000+pages, 1000+pages)
			if (read.Next == "") != (read.link == "") {
				t.Errorf("the token is %q, the link %q", read.Next, read.link)
			}
			if read.Next == "" {
				break
			}
			arguments.Set("page_token", read.Next)
			arguments.Set("page_size", strconv.Itoa(5+pages))
		}
		if len(totals) != 1 || !totals[int64(len(seen))] {
			t.Errorf("order %q: %d rows, the pages count %v", order, len(seen), totals)
		}
		for id := int64(1); id <= 100; id++ {
			if want := map[bool]int{true: 0, false: 1}[id == 13]; seen[id] != want {
				t.Errorf("order %q: row %d came %d times", order, id, seen[id])
			}
		}
	}

	arguments := url.Values{"page_size": {"7"}}
	first := readPage(t, server.URL, "t", arguments)
	arguments.Set("page_token", first.Next)
	numbered(t, filepath.Join(folder, "t", "b.csv"), 1, 49)
	for range 2 {
		gone := readPage(t, server.URL, "t", arguments)
		if gone.status != http.StatusConflict || gone.reason() != "SNAPSHOT_GONE" || !strings.Contains(gone.Error.Message, "start again") {
			t.Errorf("a page of files that changed: %d %s %s", gone.status, gone.reason(), gone.Error.Message)
		}
	}
	arguments.Del("page_token")
	again := readPage(t, server.URL, "t", arguments)
	if again.status != http.StatusOK || again.Next == "" || again.Next == first.Next {
		t.Errorf("started again: %d %s", again.status, again.Next)
	}
}

// TestPagesKeepTheirTime walks a filter that would match nothing any more by the time of the second page.
func TestPagesKeepTheirTime(t *testing.T) {
	folder := t.TempDir()
	server := harness.Start(t, folder)
	soon := time.Now().UTC().Add(2 * time.Second)
	var text strings.Builder
	text.WriteString("id,at\n")
	for id := range 5 {
		fmt.Fprintf(&text, "%d,%s\n", id, soon.Format("2006-01-02T15:04:05.000"))
	}
	must(t, os.WriteFile(filepath.Join(folder, ".t.tmp"), []byte(text.String()), 0o600))
	must(t, os.Rename(filepath.Join(folder, ".t.tmp"), filepath.Join(folder, "t.csv")))

	arguments := url.Values{"filter": {"at > now()"}, "page_size": {"2"}}
	first := readPage(t, server.URL, "t", arguments)
	if got := strings.Join(first.ids(), " "); got != "0 1" || first.Next == "" {
		t.Fatalf("the first page is %q: %d %s", got, first.status, first.Error.Message)
	}
	time.Sleep(time.Until(soon) + 50*time.Millisecond)
	if late := readPage(t, server.URL, "t", arguments); late.status != http.StatusOK || len(late.Rows) != 0 {
		t.Errorf("asked too late: %d, %v", late.status, late.ids())
	}
	arguments.Set("page_token", first.Next)
	arguments.Set("count", "exact")
	second := readPage(t, server.URL, "t", arguments)
	if got := strings.Join(second.ids(), " "); got != "2 3" || second.Total == nil || *second.Total != 5 {
		t.Errorf("the second page is %q of %v: %d %s", got, second.Total, second.status, second.Error.Message)
	}
}

func TestPagesGoOnAfterTheEngineDied(t *testing.T) {
	folder := t.TempDir()
	numbered(t, filepath.Join(folder, "t.csv"), 1, 20)
	server := harness.Start(t, folder)
	first := readPage(t, server.URL, "t", url.Values{"page_size": {"5"}})
	must(t, syscall.Kill(server.Engine(t).Pid, syscall.SIGKILL))
	second := readPage(t, server.URL, "t", url.Values{"page_size": {"5"}, "page_token": {first.Next}})
	if got := strings.Join(second.ids(), " "); got != "6 7 8 9 10" {
		t.Errorf("the second page is %q: %d %s", got, second.status, second.Error.Message)
	}
}

func TestPageTokensAreForTheirRequest(t *testing.T) {
	folder := t.TempDir()
	numbered(t, filepath.Join(folder, "t.csv"), 1, 100)
	numbered(t, filepath.Join(folder, "u.csv"), 1, 100)
	server := harness.Start(t, folder)
	given := url.Values{"page_size": {"2"}, "filter": {"id > 3"}, "order_by": {"half"}, "fields": {"id"}}
	token := readPage(t, server.URL, "t", given).Next
	with := func(name, value string) url.Values {
		other := url.Values{"page_token": {token}}
		for key, values := range given {
			other[key] = values
		}
		other.Set(name, value)
		return other
	}
	for _, fine := range []url.Values{with("page_size", "9"), with("filter", " id  >3 "), with("timeout", "3s")} {
		if read := readPage(t, server.URL, "t", fine); read.status != http.StatusOK || read.Rows[0].ID != 6 {
			t.Errorf("%v: %d %s", fine, read.status, read.Error.Message)
		}
	}
	flipped := []byte(token)
	flipped[len(flipped)/2] ^= 1
	for _, wrong := range []url.Values{
		with("filter", "id > 4"), with("filter", ""), with("order_by", "half desc"), with("order_by", ""), with("fields", "id,half"),
		with("page_token", string(flipped)), with("page_token", token[:20]), with("page_token", "x"), with("page_token", token+"AA"),
	} {
		if read := readPage(t, server.URL, "t", wrong); read.status != http.StatusBadRequest || read.reason() != "PAGE_TOKEN_INVALID" {
			t.Errorf("%v: %d %s %s", wrong, read.status, read.reason(), read.Error.Message)
		}
	}
	if read := readPage(t, server.URL, "u", with("page_size", "2")); read.reason() != "PAGE_TOKEN_INVALID" {
		t.Errorf("another table: %d %s", read.status, read.reason())
	}
}

func TestLongFilters(t *testing.T) {
	folder := t.TempDir()
	numbered(t, filepath.Join(folder, "t.csv"), 1, 3000)
	server := harness.Start(t, folder)
	terms := make([]string, 0, 1000)
	for id := range 1000 {
		terms = append(terms, fmt.Sprintf("id = %d", 2*id+1))
	}
	if read := readPage(t, server.URL, "t", url.Values{"filter": {strings.Join(terms, " OR ")}, "page_size": {"10000"}}); len(read.Rows) != 1000 {
		t.Errorf("a thousand ORs: %d, %d rows: %s", read.status, len(read.Rows), read.Error.Message)
	}
	deep := strings.Repeat("NOT (", 30) + "id = 1" + strings.Repeat(")", 30)
	if read := readPage(t, server.URL, "t", url.Values{"filter": {deep}}); len(read.Rows) != 1 {
		t.Errorf("thirty NOTs: %d, %d rows: %s", read.status, len(read.Rows), read.Error.Message)
	}
	for _, wrong := range []string{"NOT (" + deep + ")", strings.Repeat("id = 1 OR ", 3_500) + "id = 2", strings.Repeat("(", 16_000)} {
		if read := readPage(t, server.URL, "t", url.Values{"filter": {wrong}}); read.status != http.StatusBadRequest || read.reason() != "FILTER_INVALID" {
			t.Errorf("%.40s: %d %s", wrong, read.status, read.reason())
		}
	}
}
