package e2e

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"maps"
	"math/rand/v2"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/quern-data/quern/go-api/test/harness"
)

// hostileFor is how long hostile clients go on: QUERN_HOSTILE_FOR, as a duration.
func hostileFor(t *testing.T) time.Duration {
	t.Helper()
	text := os.Getenv("QUERN_HOSTILE_FOR")
	if text == "" {
		return 20 * time.Second
	}
	length, err := time.ParseDuration(text)
	must(t, err)
	return length
}

// heavyQueries hold as much as they get: more of what the others hold for moments.
var heavyQueries = map[string]string{
	"copies of a column":  "SELECT array_repeat('xxxxxxxxxxxxxxxxxxxx', 100000) AS r FROM numbers",
	"texts of a megabyte": "SELECT repeat('xxxxxxxxxx', 100000) AS r FROM numbers",
	"distinct":            "SELECT count(DISTINCT a.n * 10000 + b.n) AS k FROM numbers a, numbers b",
	"windows":             "SELECT a.n, lag(b.n, 3) OVER (ORDER BY b.n, a.n) AS w, row_number() OVER (ORDER BY a.n, b.n) AS q FROM numbers a, numbers b",
	"moving sums":         "SELECT a.n, sum(b.n) OVER (PARTITION BY a.n % 7 ORDER BY b.n ROWS BETWEEN 1000 PRECEDING AND CURRENT ROW) AS w FROM numbers a, numbers b",
	"many columns":        manyColumns(3000),
	"wide export":         wideQuery,
	"hash join": "SELECT count(*) FROM (SELECT a.n * 10000 + b.n AS k, repeat('y', 50) AS p FROM numbers a, numbers b) x " +
		"JOIN (SELECT a.n * 10000 + b.n AS k, repeat('z', 50) AS p FROM numbers a, numbers b) y ON x.k = y.k AND x.p <> y.p",
	"expressions of many rows": "SELECT count(*) FROM numbers a, numbers b WHERE regexp_like(concat('abc', a.n, b.n), '(a|b|c)+.*[0-9]{3,}x?')",
}

func manyColumns(count int) string {
	var sql strings.Builder
	sql.WriteString("SELECT n")
	for column := range count {
		fmt.Fprintf(&sql, ", n + %d AS c%d", column, column)
	}
	return sql.String() + " FROM numbers"
}

// TestHostileClients lets eight clients ask what brings engines down, all at once and in every format, while another one asks
// for little. It runs against a fleet too: harness.Running.
func TestHostileClients(t *testing.T) {
	dir, ways := harness.Running(t)
	if ways == nil {
		dir = t.TempDir()
	}
	content{Head: "n\n", Line: "{n}\n", Times: 4000}.put(t, filepath.Join(dir, "numbers.csv"), "")
	if ways == nil {
		ways = []*harness.Server{harness.Start(t, dir, "--memory", "256MiB", "--query-memory", "64MiB", "--log-level", "warn")}
	}
	server := ways[0]
	queries := maps.Clone(hostileQueries)
	maps.Copy(queries, heavyQueries)
	ctx, stop := context.WithTimeout(t.Context(), hostileFor(t))
	defer stop()
	var clients sync.WaitGroup
	var asked, served, unserved atomic.Int64
	names := slices.Sorted(maps.Keys(queries))
	for range 8 {
		clients.Go(func() {
			for ctx.Err() == nil {
				askHostile(ctx, server, queries[names[rand.IntN(len(names))]])
				asked.Add(1)
			}
		})
	}
	clients.Go(func() {
		for ctx.Err() == nil {
			limited, cancel := context.WithTimeout(context.WithoutCancel(ctx), 10*time.Second)
			answer, err := server.Query(limited, "SELECT count(*) AS n FROM numbers", "csv")
			cancel()
			if err != nil {
				unserved.Add(1)
				t.Logf("the modest one: %.200v", err)
			} else if served.Add(1); string(answer) != "n\r\n4000\r\n" {
				t.Errorf("a wrong answer: %q", answer)
			}
			time.Sleep(100 * time.Millisecond)
		}
	})
	clients.Wait()
	t.Logf("%d hostile questions; of the modest ones %d were answered, %d were not", asked.Load(), served.Load(), unserved.Load())
	// Who asks for little may be told to come again, but not often.
	if served.Load() < 10*unserved.Load() || served.Load() == 0 {
		t.Errorf("of the modest questions %d were answered, %d were not", served.Load(), unserved.Load())
	}
}

// askHostile reads some of an answer, if there is one.
func askHostile(ctx context.Context, server *harness.Server, sql string) {
	formats := []string{"json", "ndjson", "csv", "arrow", "parquet"}
	body, err := json.Marshal(map[string]string{"sql": sql, "format": formats[rand.IntN(len(formats))], "timeout": "10s"})
	if err != nil {
		return
	}
	request, err := http.NewRequestWithContext(ctx, http.MethodPost, server.URL+"/v1/query", strings.NewReader(string(body)))
	if err != nil {
		return
	}
	request.Header.Set("Content-Type", "application/json")
	request.Header.Set("Cache-Control", "no-store")
	response, err := http.DefaultClient.Do(request)
	if err != nil {
		return
	}
	_, _ = io.CopyN(io.Discard, response.Body, 20<<20)
	_ = response.Body.Close()
}
