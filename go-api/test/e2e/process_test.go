package e2e

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/status"

	quernv1 "github.com/quern-data/quern/go-api/gen/quern/v1"
	"github.com/quern-data/quern/go-api/test/harness"
)

// longQuery runs for minutes and streams nothing until its end; wideQuery streams for long, from the start.
const (
	longQuery = "SELECT count(*) AS n FROM numbers a, numbers b, numbers c, numbers d WHERE a.n + b.n + c.n + d.n = 7"
	wideQuery = "SELECT a.n AS x, b.n AS y, 'some text to fill the buffers on the way' AS filler FROM numbers a, numbers b"
)

// numbersDir holds one table: numbers(n), 4,000 rows.
func numbersDir(t *testing.T) string {
	t.Helper()
	dir := t.TempDir()
	content{Head: "n\n", Line: "{n}\n", Times: 4000}.put(t, filepath.Join(dir, "numbers.csv"), "")
	return dir
}

func TestKilledEdgeLeavesNothingBehind(t *testing.T) {
	server := harness.Start(t, numbersDir(t))
	engine := server.Engine(t)
	sockets := harness.UnixSockets(t, engine.Pid)
	if len(sockets) == 0 {
		t.Fatal("the engine listens on no Unix socket")
	}
	server.Signal(t, syscall.SIGKILL)
	harness.Eventually(t, 10*time.Second, "the engine is gone", func() bool {
		_, runs := harness.ReadProcess(engine.Pid)
		return !runs
	})
	for _, socket := range sockets {
		if _, err := os.Stat(socket); !errors.Is(err, os.ErrNotExist) {
			t.Errorf("the socket %s is still there (%v)", socket, err)
		}
	}
}

func TestTerminatedEdgeEndsCleanly(t *testing.T) {
	server := harness.Start(t, numbersDir(t))
	engine := server.Engine(t)
	sockets := harness.UnixSockets(t, engine.Pid)
	server.Signal(t, syscall.SIGTERM)
	if code := server.Wait(t, 15*time.Second); code != 0 {
		t.Errorf("want exit code 0, got %d", code)
	}
	if _, runs := harness.ReadProcess(engine.Pid); runs {
		t.Error("the engine outlives the edge")
	}
	for _, socket := range sockets {
		if _, err := os.Stat(filepath.Dir(socket)); !errors.Is(err, os.ErrNotExist) {
			t.Errorf("the socket's folder is still there (%v)", err)
		}
	}
}

func TestDrainFinishesWhatIsUnderWay(t *testing.T) {
	server := harness.Start(t, numbersDir(t))
	answered := make(chan error, 1)
	go func() {
		answer, err := server.Query(t.Context(), "SELECT count(*) AS n FROM numbers a, numbers b, numbers c WHERE a.n + b.n > c.n AND c.n < 60", "json")
		if err == nil && !strings.Contains(string(answer), `"receipt"`) {
			err = fmt.Errorf("no receipt in %s", answer)
		}
		answered <- err
	}()
	engine := server.Engine(t)
	waitBusy(t, engine.Pid)
	server.Signal(t, syscall.SIGTERM)
	harness.Eventually(t, 3*time.Second, "readiness is off", func() bool {
		_, err := server.Get(t.Context(), "/readyz")
		var unreachable *url.Error
		return errors.As(err, &unreachable) || err != nil && strings.HasPrefix(err.Error(), "503 ")
	})
	if err := <-answered; err != nil {
		t.Errorf("the query under way failed: %v", err)
	}
	if code := server.Wait(t, 30*time.Second); code != 0 {
		t.Errorf("want exit code 0, got %d", code)
	}
}

func TestKilledEngineIsRestarted(t *testing.T) {
	server := harness.Start(t, numbersDir(t))
	for round := range 2 {
		engine := server.Engine(t)
		kill(t, engine.Pid)
		answer, err := server.Query(t.Context(), "SELECT max(n) AS n FROM numbers", "json-array")
		if err != nil && !strings.HasPrefix(err.Error(), "503") {
			t.Errorf("round %d: want the answer or 503, got %v", round, err)
		}
		if err == nil && strings.TrimSpace(string(answer)) != `[{"n":4000}]` {
			t.Errorf("round %d: got %s", round, answer)
		}
		server.WaitReady(t)
	}
	if _, err := server.Query(t.Context(), "SELECT 1", "json"); err != nil {
		t.Errorf("after the restarts: %v", err)
	}
}

func TestEngineKilledBeforeTheFirstByteIsRetried(t *testing.T) {
	server := harness.Start(t, numbersDir(t))
	engine := server.Engine(t)
	type result struct {
		answer []byte
		err    error
	}
	done := make(chan result, 1)
	go func() {
		// Long enough to be under way when the engine dies, short enough to run once more.
		answer, err := server.Query(t.Context(), "SELECT count(*) AS n FROM numbers a, numbers b, numbers c WHERE a.n + b.n > c.n AND c.n < 60", "json-array")
		done <- result{answer, err}
	}()
	waitBusy(t, engine.Pid)
	kill(t, engine.Pid)
	got := <-done
	if got.err != nil || !strings.HasPrefix(string(got.answer), `[{"n":`) {
		t.Errorf("want the answer after one retry, got %s, %v", got.answer, got.err)
	}
}

func TestEngineKilledMidwayAbortsTheConnection(t *testing.T) {
	for _, format := range []string{"json", "json-array", "ndjson", "csv", "arrow", "parquet"} {
		t.Run(format, func(t *testing.T) {
			server := harness.Start(t, numbersDir(t))
			engine := server.Engine(t)
			response := startQuery(t, server, wideQuery, format)
			if _, err := io.ReadFull(response.Body, make([]byte, 1000)); err != nil {
				t.Fatal(err)
			}
			kill(t, engine.Pid)
			rest, err := io.ReadAll(response.Body)
			if err == nil {
				t.Errorf("the body ended as if it were whole, with %.300q", rest[max(0, len(rest)-300):])
			}
			if strings.Contains(string(rest), `"error"`) || strings.Contains(string(rest), `"receipt"`) {
				t.Errorf("an error or a receipt in the body: %.300q", rest[max(0, len(rest)-300):])
			}
		})
	}
}

func TestEngineKilledMidwayIsAStatusOnGRPC(t *testing.T) {
	server := harness.Start(t, numbersDir(t))
	engine := server.Engine(t)
	connection, err := grpc.NewClient(server.GRPC, grpc.WithTransportCredentials(insecure.NewCredentials()))
	must(t, err)
	defer func() { _ = connection.Close() }()
	stream, err := quernv1.NewQueryServiceClient(connection).Query(t.Context(), &quernv1.QueryRequest{Sql: wideQuery, Format: "csv"})
	must(t, err)
	if _, err := stream.Recv(); err != nil {
		t.Fatal(err)
	}
	kill(t, engine.Pid)
	for {
		message, err := stream.Recv()
		if err == nil {
			if message.GetReceipt() != nil {
				t.Fatal("a receipt ended a stream whose engine was killed")
			}
			continue
		}
		if code := status.Code(err); code != codes.Unavailable && code != codes.Aborted {
			t.Errorf("want UNAVAILABLE or ABORTED, got %v", err)
		}
		return
	}
}

func TestClientGoneStopsTheQuery(t *testing.T) {
	server := harness.Start(t, numbersDir(t))
	engine := server.Engine(t)
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() {
		_, err := server.Query(ctx, longQuery, "json")
		done <- err
	}()
	waitBusy(t, engine.Pid)
	cancel()
	if err := <-done; !errors.Is(err, context.Canceled) {
		t.Fatalf("want the client's own cancellation, got %v", err)
	}
	waitIdle(t, engine.Pid)
}

func TestClientGoneMidwayStopsTheQuery(t *testing.T) {
	server := harness.Start(t, numbersDir(t))
	engine := server.Engine(t)
	response := startQuery(t, server, wideQuery, "ndjson")
	if _, err := io.ReadFull(response.Body, make([]byte, 100_000)); err != nil {
		t.Fatal(err)
	}
	_ = response.Body.Close()
	waitIdle(t, engine.Pid)
}

func TestDeadlineStopsTheQuery(t *testing.T) {
	server := harness.Start(t, numbersDir(t), "--timeout-default", "1s")
	_, err := server.Query(t.Context(), longQuery, "json")
	if err == nil || !strings.HasPrefix(err.Error(), "504") {
		t.Errorf("want 504, got %v", err)
	}
	waitIdle(t, server.Engine(t).Pid)
}

func TestDeadlineMidwayAbortsTheConnection(t *testing.T) {
	server := harness.Start(t, numbersDir(t), "--timeout-default", "1s")
	response := startQuery(t, server, wideQuery+", numbers c", "csv")
	if _, err := io.Copy(io.Discard, response.Body); err == nil {
		t.Error("a result cut off by its deadline ended as if it were whole")
	}
}

func TestTooManyAtOnce(t *testing.T) {
	folder := numbersDir(t)
	must(t, os.WriteFile(filepath.Join(folder, "quern.yaml"), []byte("tables: {numbers: {key: n}}\n"), 0o600))
	server := harness.Start(t, folder, "--max-concurrent-queries", "1", "--max-queued-queries", "1")
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	for range 2 {
		go func() { _, _ = server.Query(ctx, longQuery, "json") }()
	}
	waitBusy(t, server.Engine(t).Pid)
	time.Sleep(500 * time.Millisecond)
	// Whether a table's key is one takes as much as a query, once.
	for _, path := range []string{"/v1/query?sql=SELECT%201", "/v1/tables/numbers"} {
		request, err := http.NewRequestWithContext(t.Context(), http.MethodGet, server.URL+path, http.NoBody)
		must(t, err)
		response, err := http.DefaultClient.Do(request)
		must(t, err)
		body, err := io.ReadAll(response.Body)
		_ = response.Body.Close()
		must(t, err)
		if response.StatusCode != http.StatusTooManyRequests || response.Header.Get("Retry-After") == "" {
			t.Errorf("%s: want 429 with Retry-After, got %s %q %s", path, response.Status, response.Header.Get("Retry-After"), body)
		}
		if err := (expectation{Code: "RESOURCE_EXHAUSTED"}).checkError(response.StatusCode, body); err != nil {
			t.Errorf("%s: %v", path, err)
		}
	}
	cancel()
	waitIdle(t, server.Engine(t).Pid)
	if _, err := server.Query(t.Context(), "SELECT 1", "json"); err != nil {
		t.Errorf("after the crowd has gone: %v", err)
	}
	if _, err := server.Get(t.Context(), "/v1/tables/numbers"); err != nil {
		t.Errorf("after the crowd has gone: %v", err)
	}
}

func TestHeavyQueriesDontDelayHealth(t *testing.T) {
	server := harness.Start(t, numbersDir(t))
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	for range 2 {
		go func() { _, _ = server.Query(ctx, longQuery, "json") }()
	}
	waitBusy(t, server.Engine(t).Pid)
	for range 5 {
		started := time.Now()
		_, err := server.Get(t.Context(), "/readyz")
		if took := time.Since(started); err != nil || took > time.Second {
			t.Errorf("readyz under load: %v after %s", err, took)
		}
	}
}

func startQuery(t *testing.T, server *harness.Server, sql, format string) *http.Response {
	t.Helper()
	body, err := json.Marshal(map[string]string{"sql": sql, "format": format})
	must(t, err)
	request, err := http.NewRequestWithContext(t.Context(), http.MethodPost, server.URL+"/v1/query", strings.NewReader(string(body)))
	must(t, err)
	request.Header.Set("Content-Type", "application/json")
	response, err := http.DefaultClient.Do(request)
	must(t, err)
	t.Cleanup(func() { _ = response.Body.Close() })
	if response.StatusCode != http.StatusOK {
		text, _ := io.ReadAll(response.Body)
		t.Fatalf("%s: %s", response.Status, text)
	}
	return response
}

// waitBusy waits until the process has used a while of processor time, which an idle engine never does.
func waitBusy(t *testing.T, pid int) {
	t.Helper()
	before, _ := harness.ReadProcess(pid)
	harness.Eventually(t, 20*time.Second, "the engine works", func() bool {
		now, runs := harness.ReadProcess(pid)
		return runs && now.CPU-before.CPU > 200*time.Millisecond
	})
}

// waitIdle waits until the process used next to no processor time for half a second.
func waitIdle(t *testing.T, pid int) {
	t.Helper()
	harness.Eventually(t, 10*time.Second, "the engine rests", func() bool {
		before, runs := harness.ReadProcess(pid)
		time.Sleep(500 * time.Millisecond)
		after, _ := harness.ReadProcess(pid)
		return runs && after.CPU-before.CPU < 50*time.Millisecond
	})
}

func kill(t *testing.T, pid int) {
	t.Helper()
	must(t, syscall.Kill(pid, syscall.SIGKILL))
}
