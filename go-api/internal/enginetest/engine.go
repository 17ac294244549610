// Package enginetest is an engine double for tests of the edge's parts: real gRPC on a real socket, scripted answers.
// Tests of whole requests use the real engine instead.
package enginetest

import (
	"context"
	"crypto/sha256"
	"maps"
	"net"
	"path/filepath"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"time"

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
	// OnPeek answers Peek, where it is set.
	OnPeek func(request *enginev1.PeekRequest) (*enginev1.PeekResponse, error)
	// Catalog answers ListTables and GetTable.
	Catalog *enginev1.ListTablesResponse
	// Socket is where it listens.
	Socket string

	tries  atomic.Int32
	plans  atomic.Int32
	checks atomic.Int32
	silent atomic.Bool
	hung   atomic.Bool
	health *health.Server
	server *grpc.Server
	mu     sync.Mutex
	seen   metadata.MD
	// changed says which of the tables in read have another snapshot by now.
	changed map[string]string
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
	e.health = health.NewServer()
	e.server = grpc.NewServer(grpc.UnaryInterceptor(func(ctx context.Context, request any, _ *grpc.UnaryServerInfo, next grpc.UnaryHandler) (any, error) {
		if e.hung.Load() {
			<-ctx.Done()
		}
		return next(ctx, request)
	}))
	enginev1.RegisterQueryServiceServer(e.server, e)
	enginev1.RegisterCatalogServiceServer(e.server, e)
	healthpb.RegisterHealthServer(e.server, e.health)
	go func() { _ = e.server.Serve(listener) }()
	return nil
}

// URL returns the address to dial.
func (e *Engine) URL() string { return "unix://" + e.Socket }

// Kill ends it at once, calls under way too.
func (e *Engine) Kill() { e.server.Stop() }

// Serve has it report SERVING or NOT_SERVING; it answers either way.
func (e *Engine) Serve(serving bool) {
	state := healthpb.HealthCheckResponse_NOT_SERVING
	if serving {
		state = healthpb.HealthCheckResponse_SERVING
	}
	e.health.SetServingStatus("", state)
}

// Hang has it answer no more calls but streams, or answer again.
func (e *Engine) Hang(hung bool) { e.hung.Store(hung) }

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

// Peek implements quern.engine.v1.QueryService.
func (e *Engine) Peek(ctx context.Context, request *enginev1.PeekRequest) (*enginev1.PeekResponse, error) {
	if e.OnPeek == nil {
		return e.UnimplementedQueryServiceServer.Peek(ctx, request)
	}
	return e.OnPeek(request)
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

// beat is how often WatchSnapshots says something.
const beat = 20 * time.Millisecond

// Change gives a table another snapshot, which WatchSnapshots tells within a beat.
func (e *Engine) Change(table, snapshot string) {
	e.mu.Lock()
	defer e.mu.Unlock()
	changed := maps.Clone(e.changed)
	if changed == nil {
		changed = map[string]string{}
	}
	changed[table] = snapshot
	e.changed = changed
}

// Silence stops or starts what WatchSnapshots says; its streams stay open.
func (e *Engine) Silence(silent bool) { e.silent.Store(silent) }

// Plans returns how often Plan was called.
func (e *Engine) Plans() int { return int(e.plans.Load()) }

// Checks returns how often CheckSnapshots was called.
func (e *Engine) Checks() int { return int(e.checks.Load()) }

// Read returns what every result reads now.
func (e *Engine) Read() []*enginev1.TableSnapshot {
	e.mu.Lock()
	defer e.mu.Unlock()
	now := make([]*enginev1.TableSnapshot, 0, len(read))
	for _, snapshot := range read {
		id := snapshot.GetSnapshot()
		if other, ok := e.changed[snapshot.GetTable()]; ok {
			id = other
		}
		now = append(now, &enginev1.TableSnapshot{Table: snapshot.GetTable(), Snapshot: id})
	}
	return now
}

// WatchSnapshots implements quern.engine.v1.CatalogService. It sends a picture at each change.
func (e *Engine) WatchSnapshots(_ *enginev1.WatchSnapshotsRequest, stream enginev1.CatalogService_WatchSnapshotsServer) error {
	var sent []*enginev1.TableSnapshot
	for {
		event := &enginev1.WatchSnapshotsResponse{Event: &enginev1.WatchSnapshotsResponse_Heartbeat{Heartbeat: &enginev1.Heartbeat{}}}
		now := e.Read()
		if !slices.EqualFunc(sent, now, func(a, b *enginev1.TableSnapshot) bool { return a.GetSnapshot() == b.GetSnapshot() }) {
			sent = now
			event.Event = &enginev1.WatchSnapshotsResponse_Picture{Picture: &enginev1.SnapshotPicture{Snapshots: now, Build: "test"}}
		}
		if !e.silent.Load() {
			if err := stream.Send(event); err != nil {
				return err
			}
		}
		select {
		case <-stream.Context().Done():
			return stream.Context().Err()
		case <-time.After(beat):
		}
	}
}

// CheckSnapshots implements quern.engine.v1.CatalogService.
func (e *Engine) CheckSnapshots(_ context.Context, request *enginev1.CheckSnapshotsRequest) (*enginev1.CheckSnapshotsResponse, error) {
	e.checks.Add(1)
	answer := &enginev1.CheckSnapshotsResponse{}
	for _, snapshot := range e.Read() {
		if slices.Contains(request.GetTables(), snapshot.GetTable()) {
			answer.Snapshots = append(answer.Snapshots, snapshot)
		}
	}
	return answer, nil
}

// Plan implements quern.engine.v1.QueryService.
func (e *Engine) Plan(context.Context, *enginev1.PlanRequest) (*enginev1.PlanResponse, error) {
	e.plans.Add(1)
	return &enginev1.PlanResponse{Header: &enginev1.ExecuteHeader{Cacheable: true, Snapshots: e.Read()}}, nil
}

// Answer sends a whole result that read what the tables hold now.
func (e *Engine) Answer(stream enginev1.QueryService_ExecuteServer, chunks ...[]byte) error {
	return send(stream, e.Read(), true, chunks)
}

// Vary sends a whole result that must not be kept.
func (e *Engine) Vary(stream enginev1.QueryService_ExecuteServer, chunks ...[]byte) error {
	return send(stream, e.Read(), false, chunks)
}

// Send answers Execute with a whole result of these chunks, which read the tables as they were at first.
func Send(stream enginev1.QueryService_ExecuteServer, chunks ...[]byte) error {
	return send(stream, read, true, chunks)
}

func send(stream enginev1.QueryService_ExecuteServer, snapshots []*enginev1.TableSnapshot, cacheable bool, chunks [][]byte) error {
	if err := sendPart(stream, snapshots, cacheable, chunks); err != nil {
		return err
	}
	digest, size := sha256.New(), 0
	for _, chunk := range chunks {
		digest.Write(chunk)
		size += len(chunk)
	}
	return stream.Send(&enginev1.ExecuteResponse{Part: &enginev1.ExecuteResponse_Trailer{Trailer: &enginev1.Receipt{
		Rows: 2, Bytes: uint64(size), Sha256: digest.Sum(nil), Snapshots: snapshots,
	}}})
}

// read is what every result of the double reads at first.
var read = []*enginev1.TableSnapshot{{Table: "a", Snapshot: "s1"}, {Table: "b", Snapshot: "s2"}}

// SendPart sends a header and chunks, and no receipt.
func SendPart(stream enginev1.QueryService_ExecuteServer, chunks ...[]byte) error {
	return sendPart(stream, read, true, chunks)
}

func sendPart(stream enginev1.QueryService_ExecuteServer, snapshots []*enginev1.TableSnapshot, cacheable bool, chunks [][]byte) error {
	header := &enginev1.ExecuteHeader{
		Columns: []*enginev1.Column{{Name: "x", Type: "BIGINT"}}, Cacheable: cacheable, Snapshots: snapshots,
	}
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
