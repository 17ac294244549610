package e2e

import (
	"net"
	"os/exec"
	"syscall"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
	healthpb "google.golang.org/grpc/health/grpc_health_v1"

	enginev1 "github.com/quern-data/quern/go-api/gen/quern/engine/v1"
	"github.com/quern-data/quern/go-api/test/harness"
)

// healthAddress returns an address for an engine's health, free a moment ago.
func healthAddress(t *testing.T) string {
	t.Helper()
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = listener.Close() }()
	return listener.Addr().String()
}

func dialEngine(t *testing.T, address string) *grpc.ClientConn {
	t.Helper()
	conn, err := grpc.NewClient("passthrough:///"+address, grpc.WithTransportCredentials(insecure.NewCredentials()))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = conn.Close() })
	return conn
}

// health asks for a service's health, which must be said at once.
func health(t *testing.T, conn *grpc.ClientConn, service string) healthpb.HealthCheckResponse_ServingStatus {
	t.Helper()
	answer, err := healthpb.NewHealthClient(conn).Check(t.Context(), &healthpb.HealthCheckRequest{Service: service})
	if err != nil {
		t.Fatal(err)
	}
	return answer.GetStatus()
}

// asked runs the health check of containers.
func asked(t *testing.T, address string) error {
	t.Helper()
	return exec.CommandContext(t.Context(), harness.Binary(t, "quern-engine"), "healthcheck", "--health", address).Run()
}

func TestEngineTakesQueriesWhileItsEndpointsDrop(t *testing.T) {
	address := healthAddress(t)
	// The delay is longer than the test may take: the second signal ends it.
	engine := harness.StartTCPEngine(t, numbersDir(t), "--health", address, "--drain-delay", "10m")
	probe := dialEngine(t, address)
	for _, service := range []string{"", "liveness"} {
		if status := health(t, probe, service); status != healthpb.HealthCheckResponse_SERVING {
			t.Errorf("%q is %s", service, status)
		}
	}
	if err := asked(t, address); err != nil {
		t.Errorf("the health check: %v", err)
	}

	engine.Signal(t, syscall.SIGTERM)
	harness.Eventually(t, 10*time.Second, "health says that it drains", func() bool {
		return health(t, probe, "") == healthpb.HealthCheckResponse_NOT_SERVING
	})
	if status := health(t, probe, "liveness"); status != healthpb.HealthCheckResponse_SERVING {
		t.Errorf("a draining engine's liveness is %s", status)
	}
	if err := asked(t, address); err == nil {
		t.Error("the health check passes while it drains")
	}
	tables, err := enginev1.NewCatalogServiceClient(dialEngine(t, engine.Address)).ListTables(t.Context(), &enginev1.ListTablesRequest{})
	if err != nil || len(tables.GetTables()) == 0 {
		t.Errorf("a new connection gets %v, %v", tables, err)
	}

	engine.Signal(t, syscall.SIGTERM)
	if err := engine.Wait(t); err != nil {
		t.Errorf("it ended: %v\n%s", err, engine.Log())
	}
}

func TestHealthNeedsNoCertificate(t *testing.T) {
	authority := harness.NewAuthority(t)
	secret := harness.NewSecret(t, authority.Intermediate(t).Issue(t, engineName, "127.0.0.1"))
	address := healthAddress(t)
	engine := harness.StartTCPEngine(t, numbersDir(t), append(engineFlags(secret, edgeName), "--health", address)...)
	if err := asked(t, address); err != nil {
		t.Errorf("the health check: %v", err)
	}
	catalog := enginev1.NewCatalogServiceClient(dialEngine(t, address))
	if tables, err := catalog.ListTables(t.Context(), &enginev1.ListTablesRequest{}); err == nil {
		t.Errorf("data without a certificate: %v", tables)
	}
	if engine.Address == address {
		t.Error("health and queries share a port")
	}
}
