package containers

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
)

const loadSQL = "SELECT sum(n) AS n FROM numbers"

// load asks the proxy over REST and gRPC, half of it past the cache, until it is stopped.
type load struct {
	want string
	// pause is how long each of ten askers waits between its requests; none by default.
	pause           time.Duration
	stop            context.CancelFunc
	done            sync.WaitGroup
	answered, calls atomic.Int64
	failed, wrong   atomic.Int64
	// first is the first failure, for the test's log.
	once  sync.Once
	first string
}

// startLoad asks for the numbers, which must not change meanwhile.
func (f *fleet) startLoad(t *testing.T, by int) *load {
	t.Helper()
	return f.startPacedLoad(t, by, 0)
}

// startPacedLoad is startLoad with ten askers that wait between their requests.
func (f *fleet) startPacedLoad(t *testing.T, by int, pause time.Duration) *load {
	t.Helper()
	ctx, stop := context.WithCancel(t.Context())
	l := &load{want: fmt.Sprintf("n\r\n%d\r\n", sumOf(by)), pause: pause, stop: stop}
	t.Cleanup(stop)
	for worker := range 8 {
		l.done.Go(func() { l.rest(ctx, f.proxy.URL, worker%2 == 0) })
	}
	for worker := range 2 {
		l.done.Go(func() { l.grpc(ctx, f.proxy.GRPC, worker%2 == 0) })
	}
	return l
}

func (l *load) rest(ctx context.Context, base string, kept bool) {
	client := &http.Client{Transport: &http.Transport{}, Timeout: startLimit}
	defer client.CloseIdleConnections()
	for ctx.Err() == nil {
		time.Sleep(l.pause)
		// A request that is under way when the load ends ends by itself. Go's client would ask a GET again by itself where its
		// connection ends; a POST with a body it does not.
		request, err := http.NewRequestWithContext(context.WithoutCancel(ctx), http.MethodPost, base+"/v1/query",
			io.NopCloser(strings.NewReader(`{"format": "csv", "sql": "`+loadSQL+`"}`)))
		if err != nil {
			l.note("", err)
			return
		}
		request.Header.Set("Content-Type", "application/json")
		if !kept {
			request.Header.Set("Cache-Control", "no-store")
		}
		response, err := client.Do(request)
		if err != nil {
			l.note("", err)
			continue
		}
		body, err := io.ReadAll(response.Body)
		_ = response.Body.Close()
		if response.StatusCode != http.StatusOK {
			err = fmt.Errorf("%s: %s", response.Status, body)
			if response.Header.Get("Content-Type") != "application/json" {
				// The proxy has spoken where an edge should have said what is the matter.
				l.wrong.Add(1)
			}
		}
		l.note(string(body), err)
	}
}

func (l *load) grpc(ctx context.Context, address string, kept bool) {
	conn, err := grpc.NewClient("passthrough:///"+address, grpc.WithTransportCredentials(insecure.NewCredentials()))
	if err != nil {
		l.note("", err)
		return
	}
	defer func() { _ = conn.Close() }()
	client := quernv1.NewQueryServiceClient(conn)
	for ctx.Err() == nil {
		time.Sleep(l.pause)
		call, cancel := context.WithTimeout(context.WithoutCancel(ctx), startLimit)
		if !kept {
			call = metadata.AppendToOutgoingContext(call, "cache-control", "no-store")
		}
		stream, err := client.Query(call, &quernv1.QueryRequest{Sql: loadSQL, Format: "csv"})
		var body []byte
		for err == nil {
			var part *quernv1.QueryResponse
			if part, err = stream.Recv(); err == nil {
				body = append(body, part.GetBody().GetData()...)
			}
		}
		if errors.Is(err, io.EOF) {
			err = nil
		}
		l.calls.Add(1)
		l.note(string(body), err)
		cancel()
	}
}

func (l *load) note(body string, err error) {
	switch {
	case err != nil:
		l.failed.Add(1)
		l.once.Do(func() { l.first = err.Error() })
		time.Sleep(10 * time.Millisecond)
	case body != l.want:
		l.wrong.Add(1)
		l.once.Do(func() { l.first = fmt.Sprintf("got %q, want %q", body, l.want) })
	default:
		l.answered.Add(1)
	}
}

// awaitAnswers waits for so many answers more.
func (l *load) awaitAnswers(t *testing.T, more int64) {
	t.Helper()
	target := l.answered.Load() + more
	harness.Eventually(t, startLimit, "requests are answered", func() bool { return l.answered.Load() >= target })
}

// end stops the load and returns how many failed; a wrong answer fails the test.
func (l *load) end(t *testing.T) int64 {
	t.Helper()
	l.stop()
	l.done.Wait()
	t.Logf("%d answered, %d of all calls over gRPC, %d failed, %d wrong; the first: %s",
		l.answered.Load(), l.calls.Load(), l.failed.Load(), l.wrong.Load(), l.first)
	if l.wrong.Load() > 0 {
		t.Errorf("%d wrong answers, the first trouble: %s", l.wrong.Load(), l.first)
	}
	return l.failed.Load()
}

// killEngine kills the engine under load: requests may fail until Docker has started it again, and none is answered wrong.
func (f *fleet) killEngine(t *testing.T) {
	const by = 7
	f.settle(t, by)
	l := f.startLoad(t, by)
	l.awaitAnswers(t, 200)
	before := f.container(t, "engine").RestartCount
	f.signal(t, "engine", syscall.SIGKILL)
	harness.Eventually(t, startLimit, "Docker has started the engine again", func() bool {
		return f.container(t, "engine").RestartCount > before
	})
	f.awaitHealthy(t, "engine")
	for _, edge := range f.edges {
		edge.WaitReady(t)
	}
	failedThen := l.failed.Load()
	l.awaitAnswers(t, 500)
	l.end(t)
	if late := l.failed.Load() - failedThen; late > 20 {
		t.Errorf("%d requests failed after the engine was back", late)
	}
}

// drainEdge ends an edge by SIGTERM under load, and starts it again: no request may fail.
func (f *fleet) drainEdge(t *testing.T) {
	const by = 9
	f.settle(t, by)
	l := f.startLoad(t, by)
	l.awaitAnswers(t, 200)
	id := f.id(t, "edge-1")
	// Docker would start it again at once if it ended on its own.
	f.run(t, "docker", "stop", "--time", "25", id)
	if code := f.container(t, "edge-1").State.ExitCode; code != 0 {
		t.Errorf("the edge ended with %d", code)
	}
	l.awaitAnswers(t, 500)
	f.run(t, "docker", "start", id)
	f.awaitHealthy(t, "edge-1")
	l.awaitAnswers(t, 500)
	if failed := l.end(t); failed > 0 {
		t.Errorf("%d requests failed, the first: %s", failed, l.first)
	}
}

// settle writes the numbers and waits until no edge may answer with those of before.
func (f *fleet) settle(t *testing.T, by int) {
	t.Helper()
	writeNumbers(t, f.data, by)
	time.Sleep(time.Second)
}
