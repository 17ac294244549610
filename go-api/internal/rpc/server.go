// Package rpc puts the public services behind gRPC: the network server with its interceptors, health and reflection. It
// knows no engine.
package rpc

import (
	"context"
	"log/slog"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/health"
	healthpb "google.golang.org/grpc/health/grpc_health_v1"
	"google.golang.org/grpc/keepalive"
	"google.golang.org/grpc/reflection"

	quernv1 "github.com/quern-data/quern/go-api/gen/quern/v1"
)

const (
	maxRequest        = 1 << 20
	maxMetadata       = 64 << 10
	maxStreamsPerConn = 100
	// readBuffer is what each connection holds, idle or not.
	readBuffer = 8 << 10
	// idleLimit is how long a connection may have no call.
	idleLimit = 2 * time.Minute
)

// Services are the public services.
type Services struct {
	Tables  quernv1.TableServiceServer
	Queries quernv1.QueryServiceServer
}

func (s Services) register(registrar grpc.ServiceRegistrar) {
	quernv1.RegisterTableServiceServer(registrar, s.Tables)
	quernv1.RegisterQueryServiceServer(registrar, s.Queries)
}

// Server is the gRPC server and what it says of its health.
type Server struct {
	*grpc.Server

	health *health.Server
}

// Observer is told of each call, at its end.
type Observer interface {
	// ObserveCall is given one of the server's methods, `/package.Service/Method`, and a code as google.rpc.Code spells it.
	ObserveCall(method, code string, took time.Duration)
}

// NewServer returns a server of the services, not yet listening and not yet SERVING. More options are those of its
// transport.
func NewServer(services Services, logger *slog.Logger, calls Observer, transport ...grpc.ServerOption) *Server {
	observer := observer{logger: logger, calls: calls}
	server := grpc.NewServer(append(transport,
		grpc.ChainUnaryInterceptor(observer.unary, recoverUnary),
		grpc.ChainStreamInterceptor(observer.stream, recoverStream),
		grpc.MaxRecvMsgSize(maxRequest),
		grpc.MaxHeaderListSize(maxMetadata),
		grpc.MaxConcurrentStreams(maxStreamsPerConn),
		grpc.ConnectionTimeout(10*time.Second),
		grpc.KeepaliveParams(keepalive.ServerParameters{
			MaxConnectionIdle: idleLimit, Time: 30 * time.Second, Timeout: 10 * time.Second,
		}),
		grpc.ReadBufferSize(readBuffer),
		grpc.KeepaliveEnforcementPolicy(keepalive.EnforcementPolicy{MinTime: 10 * time.Second, PermitWithoutStream: true}),
	)...)
	services.register(server)
	checks := health.NewServer()
	checks.SetServingStatus("", healthpb.HealthCheckResponse_NOT_SERVING)
	healthpb.RegisterHealthServer(server, checks)
	reflection.Register(server)
	return &Server{Server: server, health: checks}
}

// SetServing tells grpc.health.v1 whether requests can be answered.
func (s *Server) SetServing(serving bool) {
	state := healthpb.HealthCheckResponse_NOT_SERVING
	if serving {
		state = healthpb.HealthCheckResponse_SERVING
	}
	s.health.SetServingStatus("", state)
	for name := range s.GetServiceInfo() {
		s.health.SetServingStatus(name, state)
	}
}

// Leave has grpc.health.v1 say NOT_SERVING from now on. Calls are answered as before.
func (s *Server) Leave() { s.health.Shutdown() }

// Drain lets calls under way end; when ctx ends first, it cuts them off.
func (s *Server) Drain(ctx context.Context) {
	s.Leave()
	done := make(chan struct{})
	go func() {
		s.GracefulStop()
		close(done)
	}()
	select {
	case <-done:
	case <-ctx.Done():
		s.Stop()
		<-done
	}
}
