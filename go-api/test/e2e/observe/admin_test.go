package observe

import (
	"net/http"
	"os/exec"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/quern-data/quern/go-api/test/harness"
)

// stop ends a server and returns its exit code.
func stop(t *testing.T, server *harness.Server) int {
	t.Helper()
	server.Signal(t, syscall.SIGTERM)
	return server.Wait(t, 30*time.Second)
}

func TestProfilerOnLoopback(t *testing.T) {
	server := harness.Start(t, data(t), "--admin", "127.0.0.1:0")
	entries := lines(server, "profiling")
	if len(entries) != 1 {
		t.Fatal("no line says where the profiler is")
	}
	address, _ := entries[0]["admin"].(string)
	profiler := &harness.Server{URL: "http://" + address}
	if response, body := ask(t, profiler, "/debug/pprof/heap?debug=1"); response.StatusCode != http.StatusOK || !strings.HasPrefix(body, "heap profile") {
		t.Error(response.Status)
	}
	if response, _ := ask(t, profiler, "/v1/tables"); response.StatusCode != http.StatusNotFound {
		t.Error("the admin port answers for data:", response.Status)
	}
	if response, _ := ask(t, server, "/debug/pprof/heap"); response.StatusCode != http.StatusNotFound {
		t.Error("the port for data has the profiler:", response.Status)
	}
}

func TestProfilerBeyondLoopbackIsRefused(t *testing.T) {
	for _, address := range []string{"0.0.0.0:0", ":0", "192.0.2.1:80", "localhost", "localhost:0"} {
		out, err := exec.Command(harness.Binary(t, "quern"), "serve", data(t), "--http", "127.0.0.1:0", "--grpc", "127.0.0.1:0", "--admin", address).CombinedOutput() //nolint:gosec // The repository's own binary.
		if err == nil || !strings.Contains(string(out), "127.0.0.1:port") {
			t.Errorf("%s: %v %s", address, err, out)
		}
	}
}
