package e2e

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/quern-data/quern/go-api/test/harness"
)

// hostileMemoryMiB is what the engine may hold at its worst while these queries run with --memory 256MiB: the
// pool, and what decoding, planning and the allocator take beside it.
const hostileMemoryMiB = 700

// hostileQueries bring engines down.
var hostileQueries = map[string]string{
	"repeat":              "SELECT repeat('x', 2000000000) AS r",
	"repeat of a column":  "SELECT repeat('xxxxxxxxxx', n * 100000) AS r FROM numbers",
	"nested repeat":       "SELECT repeat(repeat(repeat('x', 60000), 60000), 60000) AS r",
	"range":               "SELECT range(1, 1000000000000) AS r",
	"generate_series":     "SELECT generate_series(1, 1000000000000) AS r",
	"range as a table":    "SELECT count(*) FROM generate_series(1, 1000000000000000)",
	"lpad":                "SELECT lpad('x', 2000000000, 'y') AS r",
	"rpad":                "SELECT rpad('x', 2000000000) AS r",
	"array_repeat":        "SELECT array_repeat('xxxxxxxxxxxxxxxxxxxx', 2000000000) AS r",
	"array_resize":        "SELECT array_resize([1], 2000000000, 7) AS r",
	"replace":             "SELECT replace(repeat('a', 60000), 'a', repeat('b', 60000)) AS r",
	"cross join":          "SELECT count(*) FROM numbers a, numbers b, numbers c, numbers d, numbers e, numbers f, numbers g, numbers h, numbers i, numbers j WHERE a.n + j.n = -1",
	"recursion":           "WITH RECURSIVE r AS (SELECT 1 AS n UNION ALL SELECT n + 1 FROM r) SELECT count(*) FROM r",
	"doubling recursion":  "WITH RECURSIVE r AS (SELECT 1 AS n UNION ALL SELECT r.n + s.n FROM r JOIN numbers s ON s.n < 3) SELECT count(*) FROM r",
	"large sort":          "SELECT a.n, b.n AS m, repeat('x', 100) AS s FROM numbers a, numbers b ORDER BY s, m DESC, a.n",
	"large group":         "SELECT a.n * 10000 + b.n AS k, count(*) AS c FROM numbers a, numbers b GROUP BY 1 ORDER BY 2, 1",
	"large aggregate":     "SELECT array_agg(a.n) AS l FROM numbers a, numbers b",
	"string_agg":          "SELECT string_agg('some longer text', ',') AS l FROM numbers a, numbers b",
	"long separator":      "SELECT string_agg('x', repeat('y', 1000000)) AS l FROM numbers",
	"joined list":         "SELECT array_to_string(range(1, 100000), repeat('y', 1000000)) AS l",
	"nulls of a list":     "SELECT array_to_string(array_repeat(CAST(NULL AS VARCHAR), 100000), ',', repeat('y', 1000000)) AS l",
	"doubling text":       doubling("'x'", "s || s"),
	"doubling view":       doubling("arrow_cast('x', 'Utf8View')", "s || s"),
	"doubling bytes":      doubling("arrow_cast('x', 'Binary')", "s || s"),
	"doubling concat":     doubling("'x'", "concat(s, s)"),
	"doubling encode":     doubling("'x'", "encode(s, 'hex')"),
	"doubling overlay":    doubling("'x'", "overlay(s placing s from 1 for 0)"),
	"doubling list":       doubling("[1]", "array_concat(s, s)"),
	"doubling list by ||": doubling("[1]", "s || s"),
	"doubling joined":     doubling("'x'", "array_to_string([s, s], '')"),
	"many unions":         strings.Repeat("SELECT 1 AS n UNION ALL ", 5000) + "SELECT 1",
	"deep subqueries":     strings.Repeat("SELECT * FROM (", 2000) + "SELECT 1" + strings.Repeat(")", 2000),
	"deep CASE":           "SELECT " + strings.Repeat("CASE WHEN true THEN ", 3000) + "1" + strings.Repeat(" END", 3000),
	"wide select":         "SELECT " + strings.Repeat("1,", 50000) + "1",
	"regular expression":  "SELECT regexp_like(repeat('a', 60000), '(a*)*(a*)*(a*)*b{1000}') AS r",
	"factorials":          "SELECT factorial(n) FROM numbers",
	"exponential CTEs":    exponentialCTEs(30),
	"self-cubed":          "SELECT cube_it.n FROM numbers cube_it GROUP BY CUBE (n, n+1, n+2, n+3, n+4, n+5, n+6, n+7, n+8, n+9, n+10, n+11, n+12, n+13, n+14, n+15, n+16, n+17, n+18, n+19)",
}

// TestHostileQueries runs what brings engines down. Each must end with a refusal or a limit within its deadline,
// and the engine must be the same process, with bounded memory, afterwards.
func TestHostileQueries(t *testing.T) {
	server := harness.Start(t, numbersDir(t), "--memory", "256MiB", "--query-memory", "128MiB", "--timeout-default", "3s", "--spill-bytes", "256MiB")
	engine := server.Engine(t)
	for name, sql := range hostileQueries {
		t.Run(name, func(t *testing.T) {
			started := time.Now()
			answer, err := server.Query(t.Context(), sql, "ndjson")
			took := time.Since(started)
			if err == nil {
				t.Logf("answered with %d bytes", len(answer))
			}
			if err != nil && !refused(err) {
				t.Errorf("want 400, 413, 429, 504 or an aborted connection, got %.300v", err)
			}
			if took > 8*time.Second {
				t.Errorf("ended after %s, the deadline is 3 s", took)
			}
			_, peak := harness.ResidentMiB(t, engine.Pid)
			t.Logf("the engine has held %d MiB at most", peak)
			if peak > hostileMemoryMiB {
				t.Errorf("the engine held %d MiB, allowed are %d", peak, hostileMemoryMiB)
			}
		})
	}
	if now := server.Engine(t); now.Pid != engine.Pid {
		t.Errorf("the engine was restarted: process %d became %d", engine.Pid, now.Pid)
	}
	if _, err := server.Query(t.Context(), "SELECT 1", "json"); err != nil {
		t.Errorf("afterwards: %v", err)
	}
}

// doubling grows one value without end.
func doubling(first, next string) string {
	return fmt.Sprintf("WITH RECURSIVE r AS (SELECT %s AS s UNION ALL SELECT %s FROM r) SELECT count(s) AS n FROM r", first, next)
}

func refused(err error) bool {
	text := err.Error()
	for _, start := range []string{"400", "413", "429", "504"} {
		if strings.HasPrefix(text, start) {
			return true
		}
	}
	return strings.Contains(text, "unexpected EOF") || strings.Contains(text, "connection reset")
}

func exponentialCTEs(depth int) string {
	var sql strings.Builder
	sql.WriteString("WITH c0 AS (SELECT n FROM numbers)")
	for level := 1; level <= depth; level++ {
		fmt.Fprintf(&sql, ", c%d AS (SELECT a.n FROM c%d a JOIN c%d b ON a.n = b.n)", level, level-1, level-1)
	}
	fmt.Fprintf(&sql, " SELECT count(*) FROM c%d", depth)
	return sql.String()
}
