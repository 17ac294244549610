// Package enginetest is an engine double for tests of the edge's parts: real gRPC on a real socket, scripted answers.
// Tests of whole requests use the real engine instead.
package enginetest

import (
	"context"
	"crypto/sha256"
	"net"
	"path/filepath"
	"sync"
	"sync/atomic"
	"testing"

	"google.golang.org/genproto/googleapis/rpc/errdetails"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/health"
	healthpb "google.golang.org/grpc/health/grpc_health_v1"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"

	enginev1 "github.com/quern-data/quern/go-api/gen/quern/engine/v1"
)

// Engine is a double. Set its fields before the first call.
type Engine struct {
	enginev1.UnimplementedQueryServiceServer
	enginev1.UnimplementedCatalogServiceServer

	// OnExecute answers Execute; try counts from 1.
	OnExecute func(try int, request *enginev1.ExecuteRequest, stream enginev1.QueryService_ExecuteServer) error
	// Catalog answers ListTables and GetTable.
	Catalog *enginev1.ListTablesResponse
	// Socket is where it listens.
	Socket string

	tries  atomic.Int32
	server *grpc.Server
	mu     sync.Mutex
	seen   metadata.MD
}

// New returns a double that is not started yet.
func New(t testing.TB) *Engine {
	t.Helper()
	return &Engine{Socket: filepath.Join(t.TempDir(), "e.sock")}
}

// Start listens and serves until the test ends or Kill.
func (e *Engine) Start(t testing.TB) *Engine {
	t.Helper()
	if err := e.listen(t.Context()); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(e.server.Stop)
	return e
}

func (e *Engine) listen(ctx context.Context) error {
	listener, err := new(net.ListenConfig).Listen(ctx, "unix", e.Socket)
	if err != nil {
		return err
	}
	e.server = grpc.NewServer()
	enginev1.RegisterQueryServiceServer(e.server, e)
	enginev1.RegisterCatalogServiceServer(e.server, e)
	healthpb.RegisterHealthServer(e.server, health.NewServer())
	go func() { _ = e.server.Serve(listener) }()
	return nil
}

// URL returns the address to dial.
func (e *Engine) URL() string { return "unix://" + e.Socket }

// Kill ends it at once, calls under way too.
func (e *Engine) Kill() { e.server.Stop() }

// Tries returns how often Execute was called.
func (e *Engine) Tries() int { return int(e.tries.Load()) }

// Seen returns the metadata of the last Execute.
func (e *Engine) Seen() metadata.MD {
	e.mu.Lock()
	defer e.mu.Unlock()
	return e.seen
}

// Execute implements quern.engine.v1.QueryService.
func (e *Engine) Execute(request *enginev1.ExecuteRequest, stream enginev1.QueryService_ExecuteServer) error {
	md, _ := metadata.FromIncomingContext(stream.Context())
	e.mu.Lock()
	e.seen = md
	e.mu.Unlock()
	return e.OnExecute(int(e.tries.Add(1)), request, stream)
}

// ListTables implements quern.engine.v1.CatalogService.
func (e *Engine) ListTables(context.Context, *enginev1.ListTablesRequest) (*enginev1.ListTablesResponse, error) {
	return e.Catalog, nil
}

// GetTable implements quern.engine.v1.CatalogService.
func (e *Engine) GetTable(_ context.Context, request *enginev1.GetTableRequest) (*enginev1.GetTableResponse, error) {
	for _, table := range e.Catalog.GetTables() {
		if table.GetName() == request.GetName() {
			return &enginev1.GetTableResponse{Table: table}, nil
		}
	}
	return nil, Fail(codes.NotFound, "TABLE_NOT_FOUND", "no table `"+request.GetName()+"`")
}

// Send answers Execute with a whole result of these chunks.
func Send(stream enginev1.QueryService_ExecuteServer, chunks ...[]byte) error {
	if err := SendPart(stream, chunks...); err != nil {
		return err
	}
	digest, size := sha256.New(), 0
	for _, chunk := range chunks {
		digest.Write(chunk)
		size += len(chunk)
	}
	return stream.Send(&enginev1.ExecuteResponse{Part: &enginev1.ExecuteResponse_Trailer{Trailer: &enginev1.Receipt{
		Rows: 2, Bytes: uint64(size), Sha256: digest.Sum(nil),
		Snapshots: []*enginev1.TableSnapshot{{Table: "b", Snapshot: "s2"}, {Table: "a", Snapshot: "s1"}},
	}}})
}

// SendPart sends a header and chunks, and no receipt.
func SendPart(stream enginev1.QueryService_ExecuteServer, chunks ...[]byte) error {
	header := &enginev1.ExecuteHeader{Columns: []*enginev1.Column{{Name: "x", Type: "BIGINT"}}, Cacheable: true}
	if err := stream.Send(&enginev1.ExecuteResponse{Part: &enginev1.ExecuteResponse_Header{Header: header}}); err != nil {
		return err
	}
	for _, chunk := range chunks {
		if err := stream.Send(&enginev1.ExecuteResponse{Part: &enginev1.ExecuteResponse_Chunk{Chunk: chunk}}); err != nil {
			return err
		}
	}
	return nil
}

// Fail returns an error as the engine makes them.
func Fail(code codes.Code, reason, message string) error {
	st, err := status.New(code, message).WithDetails(&errdetails.ErrorInfo{Reason: reason, Domain: "quern"})
	if err != nil {
		return err
	}
	return st.Err()
}
