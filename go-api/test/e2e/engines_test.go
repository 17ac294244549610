package e2e

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/metadata"

	quernv1 "github.com/quern-data/quern/go-api/gen/quern/v1"
	"github.com/quern-data/quern/go-api/test/harness"
	"github.com/quern-data/quern/go-api/test/staleness"
)

const first, second, third, fourth = "127.0.0.2", "127.0.0.3", "127.0.0.4", "127.0.0.5"

// traffic is a steady load of requests that the cache answers none of.
type traffic struct {
	edge    *harness.Server
	tables  quernv1.TableServiceClient
	queries quernv1.QueryServiceClient
	sent    atomic.Int64
	slowest atomic.Int64
	stop    func()

	mu       sync.Mutex
	failures []error
}

// errMidway is a result of which a part had come.
var errMidway = errors.New("broken off")

// startTraffic sends 200 requests a second until end is called: statements, rows and tables over REST and gRPC.
func startTraffic(t *testing.T, edge *harness.Server) *traffic {
	t.Helper()
	conn, err := grpc.NewClient("passthrough:///"+edge.GRPC, grpc.WithTransportCredentials(insecure.NewCredentials()))
	must(t, err)
	load := &traffic{edge: edge, tables: quernv1.NewTableServiceClient(conn), queries: quernv1.NewQueryServiceClient(conn)}
	ctx, stop := context.WithCancel(t.Context())
	var group sync.WaitGroup
	group.Go(func() {
		tick := time.NewTicker(5 * time.Millisecond)
		defer tick.Stop()
		for {
			select {
			case <-tick.C:
				number := load.sent.Add(1)
				group.Go(func() { load.send(context.WithoutCancel(ctx), number) })
			case <-ctx.Done():
				return
			}
		}
	})
	load.stop = sync.OnceFunc(func() {
		stop()
		group.Wait()
		_ = conn.Close()
	})
	t.Cleanup(load.stop)
	return load
}

// end waits for the last answers and returns what failed.
func (l *traffic) end(t *testing.T) []error {
	t.Helper()
	l.stop()
	t.Logf("%d requests, %d failed, the slowest took %s", l.sent.Load(), len(l.failures), time.Duration(l.slowest.Load()))
	return l.failures
}

// endWithoutFailure is end where all must have been answered.
func (l *traffic) endWithoutFailure(t *testing.T) {
	t.Helper()
	if failures := l.end(t); len(failures) > 0 {
		t.Errorf("%d of %d failed, the first: %v", len(failures), l.sent.Load(), failures[0])
	}
}

func (l *traffic) send(ctx context.Context, number int64) {
	ctx, cancel := context.WithTimeout(ctx, 30*time.Second)
	defer cancel()
	sql := fmt.Sprintf("SELECT n, %d AS request FROM numbers WHERE n = %d", number, number%4000+1)
	begun := time.Now()
	defer func() {
		took := int64(time.Since(begun))
		for before := l.slowest.Load(); took > before && !l.slowest.CompareAndSwap(before, took); before = l.slowest.Load() {
		}
	}()
	var err error
	switch number % 5 {
	case 0:
		_, err = l.edge.Query(ctx, sql, "json")
	case 1:
		err = l.rows(ctx, number)
	case 2:
		_, err = l.edge.Get(ctx, "/v1/tables/numbers")
	case 3:
		var stream quernv1.QueryService_QueryClient
		stream, err = l.queries.Query(metadata.AppendToOutgoingContext(ctx, "cache-control", "no-store"), &quernv1.QueryRequest{Sql: sql})
		parts := 0
		for ; err == nil; parts++ {
			_, err = stream.Recv()
		}
		switch {
		case errors.Is(err, io.EOF):
			err = nil
		case parts > 1:
			err = fmt.Errorf("%w: %w", errMidway, err)
		}
	default:
		_, err = l.tables.GetTable(ctx, &quernv1.GetTableRequest{Table: "numbers"})
	}
	if err != nil {
		l.mu.Lock()
		defer l.mu.Unlock()
		l.failures = append(l.failures, fmt.Errorf("request %d: %w", number, err))
	}
}

func (l *traffic) rows(ctx context.Context, number int64) error {
	url := fmt.Sprintf("%s/v1/tables/numbers/rows?page_size=3&filter=n+%%3E+%d", l.edge.URL, number%3000)
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, url, http.NoBody)
	if err != nil {
		return err
	}
	request.Header.Set("Cache-Control", "no-store")
	response, err := http.DefaultClient.Do(request)
	if err != nil {
		return err
	}
	defer func() { _ = response.Body.Close() }()
	body, err := io.ReadAll(response.Body)
	if err == nil && (response.StatusCode != http.StatusOK || !strings.Contains(string(body), `"receipt"`)) {
		err = fmt.Errorf("%s: %s", response.Status, body)
	}
	return err
}

// startEngines starts engines on these addresses and an edge of them.
func startEngines(t *testing.T, addresses ...string) (*harness.Fleet, *harness.Server) {
	t.Helper()
	fleet := harness.StartFleet(t, numbersDir(t), addresses...)
	edge := harness.StartEdge(t, fleet.URL, "--plain-tcp")
	edge.WaitReady(t)
	return fleet, edge
}

// waitCalled waits until an engine is given statements, which someone else sends.
func waitCalled(t *testing.T, fleet *harness.Fleet, address string) {
	t.Helper()
	before := fleet.Planned(address)
	harness.Eventually(t, 30*time.Second, address+" is called", func() bool { return fleet.Planned(address) > before+3 })
}

func TestEnginesAreRolledWithoutAFailedRequest(t *testing.T) {
	fleet, edge := startEngines(t, first, second)
	load := startTraffic(t, edge)
	waitCalled(t, fleet, first)
	waitCalled(t, fleet, second)
	// In their places, as a StatefulSet's.
	for _, address := range []string{first, second} {
		fleet.Terminate(t, address)
		fleet.Start(t, address)
		waitCalled(t, fleet, address)
		time.Sleep(time.Second)
	}
	// By others, as a Deployment's: the new one is ready and named before the old one ends.
	now := []string{first, second}
	for at, address := range []string{third, fourth} {
		old := now[at]
		fleet.Start(t, address)
		now[at] = address
		fleet.Name(now...)
		fleet.Terminate(t, old)
		waitCalled(t, fleet, address)
		time.Sleep(time.Second)
	}
	load.endWithoutFailure(t)
}

func TestAnEngineThatIsAddedIsCalled(t *testing.T) {
	fleet, edge := startEngines(t, first)
	load := startTraffic(t, edge)
	waitCalled(t, fleet, first)
	fleet.Start(t, second)
	fleet.Name(first, second)
	waitCalled(t, fleet, second)
	metrics, err := edge.Get(t.Context(), "/metrics")
	if err != nil || !strings.Contains(string(metrics), `quern_engine_queries_total{engine="`+first) || !strings.Contains(string(metrics), `quern_engine_queries_total{engine="`+second) {
		t.Errorf("not both engines' metrics: %v\n%s", err, metrics)
	}
	// A name that means nothing for a while ends nothing.
	fleet.Name()
	time.Sleep(6 * time.Second)
	waitCalled(t, fleet, first)
	waitCalled(t, fleet, second)
	load.endWithoutFailure(t)
}

func TestEnginesAreKilledUnderLoad(t *testing.T) {
	fleet, edge := startEngines(t, first, second)
	load := startTraffic(t, edge)
	for round := range 6 {
		address := []string{first, second}[round%2]
		// The other one must have been found: with none there, only so many tries are made.
		waitCalled(t, fleet, first)
		waitCalled(t, fleet, second)
		fleet.Kill(t, address)
		time.Sleep(time.Second)
		fleet.Start(t, address)
	}
	failures := load.end(t)
	for _, failure := range failures {
		// An answer of which a part was sent can only be broken off.
		if !errors.Is(failure, errMidway) && !errors.Is(failure, io.ErrUnexpectedEOF) {
			t.Errorf("not retried: %v", failure)
		}
	}
	if len(failures) > 12 {
		t.Errorf("%d of %d failed, the first: %v", len(failures), load.sent.Load(), failures[0])
	}
}

func TestAnEngineThatHangsIsLeftOut(t *testing.T) {
	fleet, edge := startEngines(t, first, second)
	load := startTraffic(t, edge)
	waitCalled(t, fleet, first)
	waitCalled(t, fleet, second)
	fleet.Signal(t, first, syscall.SIGSTOP)
	harness.Eventually(t, 10*time.Second, "it is left out", func() bool { return metric(t, edge, "quern_engines_ejected_total") >= 1 })
	for range 50 {
		if body, err := edge.Get(t.Context(), "/v1/query?sql=SELECT+count(*)+FROM+numbers&timeout=5s&format=csv"); err != nil {
			t.Errorf("%v %s", err, body)
		}
	}
	fleet.Signal(t, first, syscall.SIGCONT)
	waitCalled(t, fleet, first)
	load.endWithoutFailure(t)
}

// TestNeverStaleWhileEnginesComeAndGo is promise 1 with a watch that moves from engine to engine.
func TestNeverStaleWhileEnginesComeAndGo(t *testing.T) {
	c := &check{stop: make(chan struct{}), grace: watchSilence}
	dir := t.TempDir()
	for _, kind := range staleness.Kinds() {
		writer, err := staleness.NewWriter(kind, dir)
		must(t, err)
		c.writers = append(c.writers, writer)
	}
	fleet := harness.StartFleet(t, dir, first, second)
	for range 2 {
		edge := harness.StartEdge(t, fleet.URL, "--plain-tcp")
		edge.WaitReady(t)
		c.edges = append(c.edges, edge)
	}
	rounds := 0
	c.run(t, 20_000, func() {
		time.Sleep(700 * time.Millisecond)
		address := []string{first, second}[rounds%2]
		if rounds++; rounds%3 == 0 {
			fleet.Kill(t, address)
		} else {
			fleet.Terminate(t, address)
		}
		fleet.Start(t, address)
	})
	c.expectNothingWrong(t)
	for _, edge := range c.edges {
		for line := range strings.Lines(edge.Log()) {
			if strings.Contains(line, `"status":5`) {
				t.Errorf("a request failed for want of an engine: %s", line)
			}
		}
	}
	t.Logf("an engine ended %d times", rounds)
}
