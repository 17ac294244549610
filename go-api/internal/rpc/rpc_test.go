package rpc

import (
	"bytes"
	"context"
	"log/slog"
	"net"
	"strings"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials/insecure"
	healthpb "google.golang.org/grpc/health/grpc_health_v1"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"

	quernv1 "github.com/quern-data/quern/go-api/gen/quern/v1"
	"github.com/quern-data/quern/go-api/internal/apierr"
	"github.com/quern-data/quern/go-api/internal/telemetry"
)

type tables struct {
	quernv1.UnimplementedTableServiceServer

	seen metadata.MD
}

func (s *tables) ListTables(ctx context.Context, _ *quernv1.ListTablesRequest) (*quernv1.ListTablesResponse, error) {
	s.seen, _ = metadata.FromIncomingContext(ctx)
	return &quernv1.ListTablesResponse{NextPageToken: "t"}, nil
}

func (*tables) GetTable(_ context.Context, request *quernv1.GetTableRequest) (*quernv1.GetTableResponse, error) {
	if request.GetTable() == "boom" {
		panic("at the disco")
	}
	return nil, status.Error(codes.Unavailable, "dial unix /tmp/secret.sock")
}

type queries struct {
	quernv1.UnimplementedQueryServiceServer
}

func (queries) Query(*quernv1.QueryRequest, quernv1.QueryService_QueryServer) error { panic("again") }

type ignored struct{}

func (ignored) ObserveCall(string, string, time.Duration) {}

func serve(t *testing.T) (*tables, *grpc.ClientConn, *Server, *bytes.Buffer) {
	t.Helper()
	logs := &bytes.Buffer{}
	service := &tables{}
	server := NewServer(Services{Tables: service, Queries: queries{}}, slog.New(slog.NewJSONHandler(logs, nil)), ignored{})
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	go func() { _ = server.Serve(listener) }()
	t.Cleanup(server.Stop)
	conn, err := grpc.NewClient("passthrough:///"+listener.Addr().String(), grpc.WithTransportCredentials(insecure.NewCredentials()))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = conn.Close() })
	return service, conn, server, logs
}

func reason(err error) string { return apierr.Info(status.Convert(err)).GetReason() }

func TestIdentity(t *testing.T) {
	tables, conn, server, logs := serve(t)
	ctx := metadata.AppendToOutgoingContext(t.Context(), telemetry.RequestIDKey, "mine", telemetry.TraceParentKey, "rubbish",
		telemetry.TraceStateKey, "a=b")
	var header metadata.MD
	if _, err := quernv1.NewTableServiceClient(conn).ListTables(ctx, &quernv1.ListTablesRequest{}, grpc.Header(&header)); err != nil {
		t.Fatal(err)
	}
	if telemetry.First(header, telemetry.RequestIDKey) != "mine" || telemetry.First(tables.seen, telemetry.RequestIDKey) != "mine" {
		t.Error(header, tables.seen)
	}
	if telemetry.First(tables.seen, telemetry.TraceParentKey) == "rubbish" || len(tables.seen.Get(telemetry.TraceStateKey)) != 0 {
		t.Error("unchecked metadata came through", tables.seen)
	}
	server.GracefulStop()
	if !strings.Contains(logs.String(), `"route":"/quern.v1.TableService/ListTables","status":"OK"`) {
		t.Error(logs)
	}
}

func TestFailuresHaveAReasonAndNoInternals(t *testing.T) {
	_, conn, _, _ := serve(t)
	client := quernv1.NewTableServiceClient(conn)
	if _, err := client.GetTable(t.Context(), &quernv1.GetTableRequest{Table: "boom"}); reason(err) != string(apierr.Internal) {
		t.Error(err)
	}
	_, err := client.GetTable(t.Context(), &quernv1.GetTableRequest{Table: "x"})
	if reason(err) != string(apierr.EngineUnavailable) || strings.Contains(err.Error(), "secret") {
		t.Error(err)
	}
	stream, err := quernv1.NewQueryServiceClient(conn).Query(t.Context(), &quernv1.QueryRequest{})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := stream.Recv(); reason(err) != string(apierr.Internal) {
		t.Error(err)
	}
}

func TestHealth(t *testing.T) {
	_, conn, server, _ := serve(t)
	client := healthpb.NewHealthClient(conn)
	check := func(name string) healthpb.HealthCheckResponse_ServingStatus {
		answer, err := client.Check(t.Context(), &healthpb.HealthCheckRequest{Service: name})
		if err != nil {
			t.Fatal(err)
		}
		return answer.GetStatus()
	}
	if check("") != healthpb.HealthCheckResponse_NOT_SERVING {
		t.Error("serving before it was said")
	}
	server.SetServing(true)
	if check("") != healthpb.HealthCheckResponse_SERVING || check("quern.v1.TableService") != healthpb.HealthCheckResponse_SERVING {
		t.Error("not serving after it was said")
	}
	if _, err := client.Check(t.Context(), &healthpb.HealthCheckRequest{Service: "nope"}); status.Code(err) != codes.NotFound {
		t.Error(err)
	}
}
