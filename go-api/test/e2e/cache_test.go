package e2e

import (
	"context"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/redis/rueidis"

	"github.com/quern-data/quern/go-api/test/harness"
)

// cached asks over REST and returns the body and Cache-Status.
func cached(t *testing.T, server *harness.Server, sql string, header ...string) (body, status string) {
	t.Helper()
	body, status, err := tryCached(t.Context(), server, sql, header...)
	must(t, err)
	return body, status
}

func tryCached(ctx context.Context, server *harness.Server, sql string, header ...string) (body, status string, err error) {
	ctx, cancel := context.WithTimeout(ctx, time.Minute)
	defer cancel()
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, server.URL+"/v1/query?format=csv&sql="+url.QueryEscape(sql), http.NoBody)
	if err != nil {
		return "", "", err
	}
	for i := 0; i+1 < len(header); i += 2 {
		request.Header.Set(header[i], header[i+1])
	}
	response, err := http.DefaultClient.Do(request)
	if err != nil {
		return "", "", err
	}
	defer func() { _ = response.Body.Close() }()
	text, err := io.ReadAll(response.Body)
	if err == nil && response.StatusCode != http.StatusOK {
		err = fmt.Errorf("%s: %s %s", sql, response.Status, text)
	}
	return string(text), response.Header.Get("Cache-Status"), err
}

// metric reads one metric of an edge, by its name and labels as they are written.
func metric(t *testing.T, server *harness.Server, name string) float64 {
	t.Helper()
	text, err := server.Get(t.Context(), "/metrics")
	must(t, err)
	for line := range strings.Lines(string(text)) {
		if rest, found := strings.CutPrefix(line, name+" "); found {
			value, err := strconv.ParseFloat(strings.TrimSpace(rest), 64)
			must(t, err)
			return value
		}
	}
	t.Fatalf("no metric %s in\n%s", name, text)
	return 0
}

const (
	executed = "quern_engine_queries_total"
	onHit    = `"quern-edge"; hit`
	onShared = `"quern-redis"; hit, "quern-edge"; fwd=uri-miss; stored`
)

// TestChangesReachTheCacheByThemselves asks in the default mode until a change shows, for each kind of change.
func TestChangesReachTheCacheByThemselves(t *testing.T) {
	dir, elsewhere := t.TempDir(), t.TempDir()
	put := func(path, content string) { must(t, os.WriteFile(path, []byte(content), 0o600)) }
	table := filepath.Join(dir, "t.csv")
	put(table, "a\n1\n")
	server := harness.Start(t, dir)
	const sql = "SELECT sum(a) AS s FROM t"
	cached(t, server, sql)
	if body, status := cached(t, server, sql); body != "s\r\n1\r\n" || status != onHit {
		t.Fatal(body, status)
	}
	expect := func(what string, sum int, change func()) {
		t.Helper()
		change()
		want := fmt.Sprintf("s\r\n%d\r\n", sum)
		harness.Eventually(t, 20*time.Second, what, func() bool {
			body, _ := cached(t, server, sql)
			return body == want
		})
		harness.Eventually(t, 20*time.Second, what+" is stored", func() bool {
			body, status := cached(t, server, sql)
			return body == want && status == onHit
		})
	}
	expect("overwritten by as many bytes", 2, func() { put(table, "a\n2\n") })
	expect("appended to", 5, func() {
		file, err := os.OpenFile(table, os.O_APPEND|os.O_WRONLY, 0)
		must(t, err)
		_, err = file.WriteString("3\n")
		must(t, err)
		must(t, file.Close())
	})
	expect("renamed over", 4, func() {
		put(filepath.Join(dir, "x.tmp"), "a\n4\n")
		must(t, os.Rename(filepath.Join(dir, "x.tmp"), table))
	})
	expect("deleted and recreated", 6, func() {
		must(t, os.Remove(table))
		put(table, "a\n6\n")
	})
	expect("replaced by a folder", 7, func() {
		must(t, os.Remove(table))
		must(t, os.Mkdir(filepath.Join(dir, "t"), 0o750))
		put(filepath.Join(dir, "t", "1.csv"), "a\n7\n")
	})
	expect("a file more in the folder", 15, func() { put(filepath.Join(dir, "t", "2.csv"), "a\n8\n") })
	expect("a file less in the folder", 8, func() { must(t, os.Remove(filepath.Join(dir, "t", "1.csv"))) })
	expect("replaced by a link", 9, func() {
		must(t, os.RemoveAll(filepath.Join(dir, "t")))
		put(filepath.Join(elsewhere, "1"), "a\n9\n")
		put(filepath.Join(elsewhere, "2"), "a\n10\n")
		must(t, os.Symlink(filepath.Join(elsewhere, "1"), table))
	})
	expect("a link that points elsewhere", 10, func() {
		must(t, os.Symlink(filepath.Join(elsewhere, "2"), filepath.Join(dir, "l.tmp")))
		must(t, os.Rename(filepath.Join(dir, "l.tmp"), table))
	})
	expect("a link's target that is written", 11, func() { put(filepath.Join(elsewhere, "2"), "a\n11\n") })
}

// TestNoCacheIsStrict changes a file and asks at once, again and again.
func TestNoCacheIsStrict(t *testing.T) {
	dir := t.TempDir()
	table := filepath.Join(dir, "t.csv")
	must(t, os.WriteFile(table, []byte("a\n10\n"), 0o600))
	server := harness.Start(t, dir)
	for i := 10; i < 100; i++ {
		must(t, os.WriteFile(table, fmt.Appendf(nil, "a\n%d\n", i), 0o600))
		for range 2 {
			if body, status := cached(t, server, "SELECT a FROM t", "Cache-Control", "no-cache"); body != fmt.Sprintf("a\r\n%d\r\n", i) {
				t.Fatalf("change %d: %q, %s", i, body, status)
			}
		}
	}
}

// TestOneExecutionForAThousand is the dog pile: the engine executes once.
func TestOneExecutionForAThousand(t *testing.T) {
	server := harness.Start(t, numbersDir(t))
	server.WaitReady(t)
	before := metric(t, server, executed)
	client := &http.Client{Transport: &http.Transport{MaxIdleConnsPerHost: 1000}}
	t.Cleanup(client.CloseIdleConnections)
	ready := make(chan struct{})
	var group sync.WaitGroup
	var wrong atomic.Int32
	for range 1000 {
		group.Go(func() {
			<-ready
			response, err := client.Get(server.URL + "/v1/query?format=csv&sql=" + url.QueryEscape("SELECT count(*) AS n FROM numbers a, numbers b"))
			if err != nil {
				wrong.Add(1)
				return
			}
			defer func() { _ = response.Body.Close() }()
			if body, err := io.ReadAll(response.Body); err != nil || !strings.HasPrefix(string(body), "n\r\n") {
				wrong.Add(1)
			}
		})
	}
	close(ready)
	group.Wait()
	if wrong.Load() > 0 {
		t.Errorf("%d of 1000 got no answer", wrong.Load())
	}
	if times := metric(t, server, executed) - before; times != 1 {
		t.Errorf("the engine executed %v times", times)
	}
}

// TestTimeDependentAnswersAreNotKept asks for what differs from call to call.
func TestTimeDependentAnswersAreNotKept(t *testing.T) {
	server := harness.Start(t, numbersDir(t))
	for _, sql := range []string{"SELECT now() AS x", "SELECT random() AS x", "SELECT uuid() AS x", "SELECT current_date AS x"} {
		for range 2 {
			if _, status := cached(t, server, sql); strings.Contains(status, "hit") || strings.Contains(status, "stored") {
				t.Errorf("%s: %s", sql, status)
			}
		}
	}
}

// fleet starts three edges on one engine with a shared level.
func fleet(t *testing.T) ([]*harness.Server, *harness.Redis) {
	t.Helper()
	redis := harness.StartRedis(t)
	engine := harness.StartEngine(t, numbersDir(t))
	var edges []*harness.Server
	for range 3 {
		edge := harness.StartEdge(t, engine.URL, "--cache-redis", redis.URL)
		edge.WaitReady(t)
		harness.Eventually(t, 20*time.Second, "the shared level is up", func() bool { return metric(t, edge, "quern_cache_shared_up") == 1 })
		edges = append(edges, edge)
	}
	return edges, redis
}

func TestAFleetSharesItsAnswers(t *testing.T) {
	edges, _ := fleet(t)
	before := metric(t, edges[0], executed)
	want, _ := cached(t, edges[0], "SELECT max(n) AS m FROM numbers")
	harness.Eventually(t, 20*time.Second, "another edge answers from the shared level", func() bool {
		body, status := cached(t, edges[1], "SELECT max(n) AS m FROM numbers")
		return body == want && (status == onShared || status == onHit)
	})
	if body, status := cached(t, edges[2], "SELECT max(n)  AS m FROM numbers -- the same"); body != want || status != onShared {
		t.Error(body, status)
	}
	if body, status := cached(t, edges[2], "SELECT max(n) AS m FROM numbers"); body != want || status != onHit {
		t.Error(body, status)
	}
	if times := metric(t, edges[0], executed) - before; times != 1 {
		t.Errorf("the engine executed %v times for three edges", times)
	}
}

func TestAcrossEdgesOneExecutionServesAll(t *testing.T) {
	edges, _ := fleet(t)
	before := metric(t, edges[0], executed)
	var group sync.WaitGroup
	for i := range 60 {
		group.Go(func() {
			if _, _, err := tryCached(t.Context(), edges[i%3], slow(1)); err != nil {
				t.Error(err)
			}
		})
	}
	group.Wait()
	if times := metric(t, edges[0], executed) - before; times != 1 {
		t.Errorf("the engine executed %v times", times)
	}
}

// slow is a statement that takes a while, different for each number.
func slow(number int) string {
	return fmt.Sprintf("SELECT sum(CAST(a.n * b.n %% 7 AS BIGINT)) + %d AS s FROM numbers a, numbers b", number)
}

func TestAnEdgeThatDiesDoesNotBlockTheOthers(t *testing.T) {
	edges, _ := fleet(t)
	asked := make(chan struct{})
	go func() {
		close(asked)
		_, _ = edges[0].Get(t.Context(), "/v1/query?format=csv&sql="+url.QueryEscape(slow(2)))
	}()
	<-asked
	time.Sleep(150 * time.Millisecond)
	edges[0].Signal(t, syscall.SIGKILL)
	started := time.Now()
	cached(t, edges[1], slow(2))
	if took := time.Since(started); took > 20*time.Second {
		t.Errorf("the lock of an edge that is dead held another one up for %s", took)
	}
}

func TestTheSharedLevelsBadDays(t *testing.T) {
	edges, redis := fleet(t)
	edge := edges[0]
	sql := func(number int) string { return fmt.Sprintf("SELECT max(n) + %d AS m FROM numbers", number) }

	// Values that are cut, flipped or not ours are found out.
	for i := range 4 {
		cached(t, edges[0], sql(i))
	}
	spoil(t, redis.URL)
	for i := range 4 {
		if body, status := cached(t, edges[1], sql(i)); !strings.HasPrefix(body, "m\r\n") || strings.Contains(status, "quern-redis") {
			t.Error(body, status)
		}
	}
	if metric(t, edges[1], "quern_cache_shared_damaged_total") == 0 {
		t.Error("damage is not counted")
	}

	// Slow, then gone: the edge goes on, and says so.
	redis.Signal(t, syscall.SIGSTOP)
	for i := 10; i < 20; i++ {
		started := time.Now()
		cached(t, edge, sql(i))
		if took := time.Since(started); took > 5*time.Second {
			t.Errorf("a shared level that does not answer cost %s", took)
		}
	}
	if metric(t, edge, "quern_cache_shared_failures_total") == 0 {
		t.Error("failures are not counted")
	}
	redis.Signal(t, syscall.SIGCONT)
	redis.Kill()
	for i := 20; i < 30; i++ {
		cached(t, edge, sql(i))
	}
	// Full: nothing is stored, everything is answered.
	redis.Restart(t, "--maxmemory", "1", "--maxmemory-policy", "noeviction")
	for i := 30; i < 40; i++ {
		cached(t, edge, sql(i))
	}
}

// spoil damages each value in a different way.
func spoil(t *testing.T, address string) {
	t.Helper()
	option, err := rueidis.ParseURL(address)
	must(t, err)
	option.DisableCache = true
	client, err := rueidis.NewClient(option)
	must(t, err)
	defer client.Close()
	ctx := t.Context()
	var keys []string
	harness.Eventually(t, 20*time.Second, "the answers are there", func() bool {
		keys, err = client.Do(ctx, client.B().Keys().Pattern("quern:1:entry:*").Build()).AsStrSlice()
		return err == nil && len(keys) == 4
	})
	for i, key := range keys {
		value, err := client.Do(ctx, client.B().Get().Key(key).Build()).AsBytes()
		must(t, err)
		switch i {
		case 0:
			value = value[:len(value)/2]
		case 1:
			value[len(value)/2] ^= 1
		case 2:
			value = []byte("rubbish")
		default:
			value = append(value, value...)
		}
		must(t, client.Do(ctx, client.B().Set().Key(key).Value(rueidis.BinaryString(value)).Build()).Error())
	}
}

// TestStaleIfErrorIsTheOperatorsChoice kills the engine: only the table that opted in is answered from memory.
func TestStaleIfErrorIsTheOperatorsChoice(t *testing.T) {
	dir := t.TempDir()
	must(t, os.WriteFile(filepath.Join(dir, "in.csv"), []byte("a\n1\n"), 0o600))
	must(t, os.WriteFile(filepath.Join(dir, "out.csv"), []byte("a\n1\n"), 0o600))
	settings := filepath.Join(t.TempDir(), "quern.yaml")
	must(t, os.WriteFile(settings, []byte("tables: {in: {cache: {stale_if_error: 10m}}}\n"), 0o600))
	engine := harness.StartEngine(t, dir)
	edge := harness.StartEdge(t, engine.URL, "--config", settings)
	edge.WaitReady(t)
	for _, table := range []string{"in", "out"} {
		harness.Eventually(t, 20*time.Second, "a hit", func() bool {
			_, status := cached(t, edge, "SELECT a FROM "+table)
			return status == onHit
		})
	}
	engine.Kill()
	harness.Eventually(t, 20*time.Second, "the watch is not live", func() bool { return metric(t, edge, "quern_watch_live") == 0 })
	body, status := cached(t, edge, "SELECT a FROM in")
	if body != "a\r\n1\r\n" || !strings.HasPrefix(status, onHit+"; ttl=-") || !strings.HasSuffix(status, "; detail=stale-if-error") {
		t.Error(body, status)
	}
	for _, header := range [][]string{{"SELECT a FROM out"}, {"SELECT a FROM in", "Cache-Control", "no-cache"}} {
		if _, _, err := tryCached(t.Context(), edge, header[0], header[1:]...); err == nil || !strings.Contains(err.Error(), "ENGINE_UNAVAILABLE") {
			t.Errorf("%v: %v", header, err)
		}
	}
	engine.Restart(t)
	edge.WaitReady(t)
	harness.Eventually(t, 20*time.Second, "confirmed again", func() bool {
		_, status, err := tryCached(t.Context(), edge, "SELECT a FROM out")
		return err == nil && status == onHit
	})
}
