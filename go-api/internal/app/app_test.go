package app_test

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/spf13/pflag"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
	healthpb "google.golang.org/grpc/health/grpc_health_v1"

	quernv1 "github.com/quern-data/quern/go-api/gen/quern/v1"
	"github.com/quern-data/quern/go-api/internal/app"
	"github.com/quern-data/quern/go-api/internal/config"
	"github.com/quern-data/quern/go-api/internal/enginetest"
	"github.com/quern-data/quern/go-api/internal/telemetry"
)

func TestMain(m *testing.M) {
	enginetest.MainIfEngine()
	os.Exit(m.Run())
}

// logs gathers log lines and tells when the one with the addresses has come.
type logs struct {
	mu      sync.Mutex
	buffer  bytes.Buffer
	serving chan map[string]any
}

func (l *logs) Write(line []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	var entry map[string]any
	if json.Unmarshal(line, &entry) == nil && entry["msg"] == "serving" {
		l.serving <- entry
	}
	return l.buffer.Write(line)
}

func (l *logs) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.buffer.String()
}

type process struct {
	http, grpc string
	logs       *logs
	leave      context.CancelFunc
	stop       context.CancelFunc
	done       chan error
}

func configure(t *testing.T, args ...string) *config.Config {
	t.Helper()
	flags := pflag.NewFlagSet("serve", pflag.ContinueOnError)
	cfg := config.Register(flags)
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	args = append([]string{"--http", "127.0.0.1:0", "--grpc", "127.0.0.1:0", "--engine-bin", self}, args...)
	if err := flags.Parse(args); err != nil {
		t.Fatal(err)
	}
	if err := cfg.Complete([]string{t.TempDir()}, func(string) (string, bool) { return "", false }); err != nil {
		t.Fatal(err)
	}
	return cfg
}

func run(t *testing.T, cfg *config.Config) *process {
	t.Helper()
	lines := &logs{serving: make(chan map[string]any, 1)}
	logger, err := telemetry.NewLogger(lines, "info")
	if err != nil {
		t.Fatal(err)
	}
	ctx, stop := context.WithCancel(t.Context())
	leaving, leave := context.WithCancel(ctx)
	p := &process{logs: lines, leave: leave, stop: stop, done: make(chan error, 1)}
	go func() { p.done <- app.Run(ctx, leaving, cfg, logger, lines) }()
	t.Cleanup(func() {
		stop()
		p.wait(t)
	})
	select {
	case entry := <-lines.serving:
		p.http, _ = entry["http"].(string)
		p.grpc, _ = entry["grpc"].(string)
	case err := <-p.done:
		p.done <- err
	case <-time.After(20 * time.Second):
		t.Fatal("not serving after 20 s", lines)
	}
	return p
}

func (p *process) wait(t *testing.T) error {
	t.Helper()
	select {
	case err := <-p.done:
		p.done <- err
		return err
	case <-time.After(20 * time.Second):
		t.Error("did not end within 20 s", p.logs)
		return nil
	}
}

func (p *process) get(t *testing.T, path string) (int, string, error) {
	t.Helper()
	request, err := http.NewRequestWithContext(t.Context(), http.MethodGet, "http://"+p.http+path, http.NoBody)
	if err != nil {
		t.Fatal(err)
	}
	client := &http.Client{Transport: &http.Transport{DisableKeepAlives: true}}
	response, err := client.Do(request)
	if err != nil {
		return 0, "", err
	}
	defer response.Body.Close()
	body, err := io.ReadAll(response.Body)
	return response.StatusCode, string(body), err
}

func (p *process) enginePID(t *testing.T) int {
	t.Helper()
	code, body, err := p.get(t, "/v1/query?sql=pid")
	pid, convErr := strconv.Atoi(body)
	if err != nil || code != http.StatusOK || convErr != nil {
		t.Fatal(code, body, err, p.logs)
	}
	return pid
}

func TestServesRestartsAndLeavesNothing(t *testing.T) {
	temp := t.TempDir()
	t.Setenv("TMPDIR", temp)
	p := run(t, configure(t))
	pid := p.enginePID(t)
	if code, _, err := p.get(t, "/readyz"); err != nil || code != http.StatusOK {
		t.Fatal(code, err)
	}

	// Midway: the connection is aborted. The next request waits for the engine's restart.
	aborted := make(chan error, 1)
	begun := make(chan struct{})
	go func() {
		close(begun)
		_, _, err := p.get(t, "/v1/query?sql=hang")
		aborted <- err
	}()
	<-begun
	time.Sleep(200 * time.Millisecond)
	if err := syscall.Kill(pid, syscall.SIGKILL); err != nil {
		t.Fatal(err)
	}
	if again := p.enginePID(t); again == pid {
		t.Error("the killed engine answered")
	}
	if err := <-aborted; err == nil || !strings.Contains(err.Error(), "EOF") {
		t.Errorf("a result that broke off ended with %v", err)
	}

	conn, err := grpc.NewClient("passthrough:///"+p.grpc, grpc.WithTransportCredentials(insecure.NewCredentials()))
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	stream, err := quernv1.NewQueryServiceClient(conn).Query(t.Context(), &quernv1.QueryRequest{Sql: "pid"})
	var receipt *quernv1.Receipt
	for err == nil {
		var part *quernv1.QueryResponse
		if part, err = stream.Recv(); part.GetReceipt() != nil {
			receipt = part.GetReceipt()
		}
	}
	if !errors.Is(err, io.EOF) || receipt.GetRows() != 2 || len(stream.Trailer().Get("quern-receipt")) != 1 {
		t.Error(err, receipt, stream.Trailer())
	}
	health, err := healthpb.NewHealthClient(conn).Check(t.Context(), &healthpb.HealthCheckRequest{Service: "quern.v1.QueryService"})
	if err != nil || health.GetStatus() != healthpb.HealthCheckResponse_SERVING {
		t.Error(err, health)
	}

	pid = p.enginePID(t)
	p.stop()
	if err := p.wait(t); err != nil {
		t.Error("ended with", err)
	}
	if syscall.Kill(pid, 0) == nil {
		t.Error("the engine still runs")
	}
	if left, _ := filepath.Glob(filepath.Join(temp, "quern-*")); len(left) != 0 {
		t.Error("left behind:", left)
	}
}

func TestRequestsUnderWayEndWithinTheGracePeriod(t *testing.T) {
	p := run(t, configure(t, "--grace-period", "300ms"))
	ended := make(chan error, 1)
	go func() {
		_, _, err := p.get(t, "/v1/query?sql=hang")
		ended <- err
	}()
	time.Sleep(200 * time.Millisecond)
	begun := time.Now()
	p.stop()
	if err := p.wait(t); err != nil {
		t.Error(err)
	}
	if err := <-ended; err == nil {
		t.Error("a result that was cut off ended like a whole one")
	}
	if took := time.Since(begun); took < 250*time.Millisecond || took > 10*time.Second {
		t.Errorf("drained in %s", took)
	}
}

func TestWhoLeavesStillServes(t *testing.T) {
	p := run(t, configure(t))
	conn, err := grpc.NewClient("passthrough:///"+p.grpc, grpc.WithTransportCredentials(insecure.NewCredentials()))
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	p.leave()
	for path, want := range map[string]int{"/readyz": 503, "/livez": 200, "/v1/query?sql=pid": 200} {
		if code, body, err := p.get(t, path); err != nil || code != want {
			t.Error(path, code, body, err)
		}
	}
	var health healthpb.HealthCheckResponse_ServingStatus
	for end := time.Now().Add(5 * time.Second); health != healthpb.HealthCheckResponse_NOT_SERVING && time.Now().Before(end); {
		answer, err := healthpb.NewHealthClient(conn).Check(t.Context(), &healthpb.HealthCheckRequest{})
		if err != nil {
			t.Fatal(err)
		}
		health = answer.GetStatus()
	}
	stream, err := quernv1.NewQueryServiceClient(conn).Query(t.Context(), &quernv1.QueryRequest{Sql: "pid"})
	if err == nil {
		_, err = stream.Recv()
	}
	if err != nil || health != healthpb.HealthCheckResponse_NOT_SERVING {
		t.Error(err, health)
	}
	p.stop()
	if err := p.wait(t); err != nil {
		t.Error(err)
	}
}

func TestEngineThatCannotStartEndsTheEdge(t *testing.T) {
	p := run(t, configure(t, "--spill-dir", "fail"))
	err := p.wait(t)
	if err == nil || !strings.Contains(err.Error(), "exit status 3") {
		t.Fatal(err)
	}
	if !strings.Contains(p.logs.String(), "configuration refused") {
		t.Error("the engine's own words are lost:", p.logs)
	}
}

func TestEngineElsewhereThatIsNotThere(t *testing.T) {
	flags := pflag.NewFlagSet("serve", pflag.ContinueOnError)
	cfg := config.Register(flags)
	args := []string{"--http", "127.0.0.1:0", "--grpc", "127.0.0.1:0", "--engine", "unix://" + t.TempDir() + "/none.sock"}
	if err := flags.Parse(args); err != nil {
		t.Fatal(err)
	}
	if err := cfg.Complete(nil, func(string) (string, bool) { return "", false }); err != nil {
		t.Fatal(err)
	}
	p := run(t, cfg)
	if code, _, err := p.get(t, "/healthz"); err != nil || code != http.StatusOK {
		t.Error(code, err)
	}
	if code, _, err := p.get(t, "/readyz"); err != nil || code != http.StatusServiceUnavailable {
		t.Error(code, err)
	}
	begun := time.Now()
	code, body, err := p.get(t, "/v1/query?sql=pid&timeout=20s")
	if err != nil || code != http.StatusServiceUnavailable || !strings.Contains(body, "ENGINE_UNAVAILABLE") {
		t.Error(code, body, err)
	}
	if took := time.Since(begun); took > 7*time.Second {
		t.Errorf("waited %s", took)
	}
	code, body, err = p.get(t, "/v1/query?sql=pid&timeout=0.2s")
	if err != nil || code != http.StatusGatewayTimeout || !strings.Contains(body, "QUERY_TIMEOUT") {
		t.Error(code, body, err)
	}
}
