package e2e

import (
	"net"
	"net/http"
	"strings"
	"syscall"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
	healthpb "google.golang.org/grpc/health/grpc_health_v1"

	"github.com/quern-data/quern/go-api/test/harness"
)

// fresh asks over a connection of its own, which may stay open, and says whether it is to be closed.
func fresh(t *testing.T, url string) (status int, closed bool) {
	t.Helper()
	transport := &http.Transport{}
	defer transport.CloseIdleConnections()
	response, err := (&http.Client{Transport: transport, Timeout: 10 * time.Second}).Get(url)
	must(t, err)
	must(t, response.Body.Close())
	return response.StatusCode, response.Close
}

func TestWhoDrainsIsFirstPassedBy(t *testing.T) {
	edge := harness.Start(t, numbersDir(t), "--drain-delay", "4s")
	if status, closed := fresh(t, edge.URL+"/readyz"); status != http.StatusOK || closed {
		t.Error(status, closed)
	}
	conn, err := grpc.NewClient("passthrough:///"+edge.GRPC, grpc.WithTransportCredentials(insecure.NewCredentials()))
	must(t, err)
	defer conn.Close()
	health := healthpb.NewHealthClient(conn)
	load := startTraffic(t, edge)
	edge.Signal(t, syscall.SIGTERM)
	harness.Eventually(t, 2*time.Second, "readiness is off", func() bool {
		answer, err := health.Check(t.Context(), &healthpb.HealthCheckRequest{})
		status, _ := fresh(t, edge.URL+"/readyz")
		return err == nil && answer.GetStatus() == healthpb.HealthCheckResponse_NOT_SERVING && status == http.StatusServiceUnavailable
	})
	if status, closed := fresh(t, edge.URL+"/livez"); status != http.StatusOK || !closed {
		t.Error("/livez", status, closed)
	}
	if status, closed := fresh(t, edge.URL+"/v1/query?sql=SELECT+1"); status != http.StatusOK || !closed {
		t.Error("a query on a new connection", status, closed)
	}
	time.Sleep(time.Second)
	load.endWithoutFailure(t)
	if code := edge.Wait(t, 20*time.Second); code != 0 {
		t.Errorf("exit code %d", code)
	}
	if _, err := net.DialTimeout("tcp", strings.TrimPrefix(edge.URL, "http://"), time.Second); err == nil {
		t.Error("the port is still open")
	}
}

func TestASecondSignalEndsTheDelay(t *testing.T) {
	edge := harness.Start(t, numbersDir(t), "--drain-delay", "5m")
	edge.Signal(t, syscall.SIGTERM)
	harness.Eventually(t, 5*time.Second, "readiness is off", func() bool {
		status, _ := fresh(t, edge.URL+"/readyz")
		return status == http.StatusServiceUnavailable
	})
	edge.Signal(t, syscall.SIGTERM)
	if code := edge.Wait(t, 20*time.Second); code != 0 {
		t.Errorf("exit code %d", code)
	}
}
