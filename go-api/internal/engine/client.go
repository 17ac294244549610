// Package engine is the edge's way to the engine: the client, its health, and the supervision of a local engine process.
// It knows the internal contract (quern.engine.v1) and neither HTTP nor the public services.
package engine

import (
	"context"
	"fmt"
	"net/url"
	"strings"
	"sync"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/backoff"
	"google.golang.org/grpc/connectivity"
	"google.golang.org/grpc/credentials/insecure"
	_ "google.golang.org/grpc/health" // healthCheckConfig needs it
	"google.golang.org/grpc/keepalive"

	enginev1 "github.com/quern-data/quern/go-api/gen/quern/engine/v1"
	"github.com/quern-data/quern/go-api/internal/apierr"
)

const (
	// streamWindow bounds what the engine may send ahead on one result that its reader does not take. Fixing it
	// turns grpc-go's window estimator off, which would grow every stream's window to 16 MiB.
	streamWindow = 512 << 10
	connWindow   = 4 << 20
	maxMessage   = 64 << 20
	// reachWait is how long a request waits for an engine that is starting or restarting.
	reachWait = 5 * time.Second
	// settleDelay is the pause before a watch that broke is opened anew.
	settleDelay = 20 * time.Millisecond
	// settleMost is how long a dead connection may take to be noticed.
	settleMost = 100 * time.Millisecond
	// connectTimeout and connectPause bound how long an engine that is back is not noticed: a first packet that is lost is
	// sent again after a second.
	connectTimeout = 2 * time.Second
	connectPause   = 500 * time.Millisecond
	// pingAfter is how long a connection may be silent before it is asked for a sign of life, the shortest that grpc-go
	// takes; pingTimeout is how long that sign, or the acknowledgement of anything sent, may take.
	pingAfter   = 10 * time.Second
	pingTimeout = 3 * time.Second
	// serviceConfig has every engine's health followed, so that only those that serve are called.
	serviceConfig = `{"loadBalancingConfig":[{"` + fleetPolicy + `":{}}],"healthCheckConfig":{"serviceName":""}}`
)

// Client talks to one engine, or to several behind one name.
type Client struct {
	conn      *grpc.ClientConn
	catalog   enginev1.CatalogServiceClient
	query     enginev1.QueryServiceClient
	snapshots *watcher
	peeks     *peeker
	retries   budget
	// dataSocket is that of an engine on a Unix socket, beside it.
	dataSocket string
	stop       context.CancelFunc
	watches    sync.WaitGroup
}

// Dial returns a client for target: `unix:///path`, `dns:///host:port` or `tcp://host:port`. It connects in the
// background and follows the engines' health and snapshots until Close. Without [Secure] it speaks without TLS.
func Dial(target string, options ...grpc.DialOption) (*Client, error) {
	address, err := grpcTarget(target)
	if err != nil {
		return nil, err
	}
	reconnect := backoff.Config{BaseDelay: 50 * time.Millisecond, Multiplier: 1.6, Jitter: 0.2, MaxDelay: connectPause}
	defaults := []grpc.DialOption{
		grpc.WithTransportCredentials(insecure.NewCredentials()),
		grpc.WithConnectParams(grpc.ConnectParams{Backoff: reconnect, MinConnectTimeout: connectTimeout}),
		grpc.WithInitialWindowSize(streamWindow),
		grpc.WithInitialConnWindowSize(connWindow),
		grpc.WithDefaultCallOptions(grpc.MaxCallRecvMsgSize(maxMessage), grpc.ForceCodecV2(newCodec())),
		grpc.WithKeepaliveParams(keepalive.ClientParameters{Time: pingAfter, Timeout: pingTimeout}),
		grpc.WithIdleTimeout(0),
		grpc.WithDisableRetry(),
		// Not one from the DNS.
		grpc.WithDisableServiceConfig(),
		grpc.WithDefaultServiceConfig(serviceConfig),
	}
	conn, err := grpc.NewClient(address, append(defaults, options...)...)
	if err != nil {
		return nil, fmt.Errorf("engine address %q: %w", target, err)
	}
	ctx, stop := context.WithCancel(context.Background())
	query := enginev1.NewQueryServiceClient(conn)
	client := &Client{
		conn:      conn,
		catalog:   enginev1.NewCatalogServiceClient(conn),
		query:     query,
		peeks:     &peeker{query: query},
		snapshots: newWatcher(),
		stop:      stop,
	}
	if path, ok := strings.CutPrefix(address, "unix://"); ok {
		client.dataSocket = path + dataSuffix
	}
	conn.Connect()
	client.watches.Go(func() { client.snapshots.follow(ctx, client.catalog) })
	return client, nil
}

// Close ends the watches and the connection. Calls under way fail.
func (c *Client) Close() error {
	c.stop()
	c.watches.Wait()
	if err := c.conn.Close(); err != nil {
		return fmt.Errorf("close the engine connection: %w", err)
	}
	return nil
}

// Serving says whether an engine can be reached and reports SERVING.
func (c *Client) Serving() bool { return c.conn.GetState() == connectivity.Ready }

// AwaitServing waits until Serving holds or ctx ends.
func (c *Client) AwaitServing(ctx context.Context) error {
	for {
		state := c.conn.GetState()
		if state == connectivity.Ready {
			return nil
		}
		if !c.conn.WaitForStateChange(ctx, state) {
			return ctx.Err()
		}
	}
}

// reach waits a little for an engine that is not there, bounded by ctx, and fails with ENGINE_UNAVAILABLE.
func (c *Client) reach(ctx context.Context) error {
	if c.Serving() {
		return nil
	}
	wait, cancel := context.WithTimeout(ctx, reachWait)
	defer cancel()
	if c.AwaitServing(wait) != nil {
		if err := ctx.Err(); err != nil {
			return err
		}
		return apierr.Unavailable()
	}
	return nil
}

// Reconnect asks for a new connection at once, without the rest of the pause after a failed one.
func (c *Client) Reconnect() { c.conn.ResetConnectBackoff() }

// grpcTarget turns an engine URL into grpc-go's spelling and refuses what grpc-go would only fail on later.
func grpcTarget(target string) (string, error) {
	const forms = "use dns:///host:port, tcp://host:port or unix:///path"
	parsed, err := url.Parse(target)
	if err != nil {
		return "", fmt.Errorf("engine address %q is no URL; %s", target, forms)
	}
	switch parsed.Scheme {
	case "unix":
		if !strings.HasPrefix(target, "unix:///") {
			return "", fmt.Errorf("engine address %q has no absolute path; %s", target, forms)
		}
		return target, nil
	case "dns":
		if strings.Trim(parsed.Path, "/") == "" {
			return "", fmt.Errorf("engine address %q names no host; %s", target, forms)
		}
		return target, nil
	case "tcp":
		if parsed.Port() == "" {
			return "", fmt.Errorf("engine address %q has no port; %s", target, forms)
		}
		return "passthrough:///" + parsed.Host, nil
	default:
		return "", fmt.Errorf("engine address %q has no scheme that is known; %s", target, forms)
	}
}
