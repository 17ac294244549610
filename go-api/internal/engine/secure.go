package engine

import (
	"context"
	"crypto/tls"
	"errors"
	"log/slog"
	"net"
	"sync"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials"
)

// sameAgain is how long a failure that was logged is not logged again: connections are tried every second.
const sameAgain = 30 * time.Second

// Secure returns the option of [Dial] that calls the engine over TLS, and logs why it can't.
func Secure(config *tls.Config, logger *slog.Logger) grpc.DialOption {
	return grpc.WithTransportCredentials(&secured{
		TransportCredentials: credentials.NewTLS(config), failures: &failureLog{logger: logger},
	})
}

// secured are credentials that say why there is no connection. grpc-go keeps that to itself while it tries again.
type secured struct {
	credentials.TransportCredentials

	failures *failureLog
}

// ClientHandshake implements credentials.TransportCredentials.
func (s *secured) ClientHandshake(ctx context.Context, authority string, raw net.Conn) (net.Conn, credentials.AuthInfo, error) {
	conn, info, err := s.TransportCredentials.ClientHandshake(ctx, authority, raw)
	if err != nil {
		// Who closes the client is no failure.
		if !errors.Is(ctx.Err(), context.Canceled) {
			s.failures.add("the TLS handshake failed", raw.RemoteAddr(), err)
		}
		return nil, nil, err
	}
	return &alertedConn{Conn: conn, failures: s.failures}, info, nil
}

// Clone implements credentials.TransportCredentials.
func (s *secured) Clone() credentials.TransportCredentials {
	return &secured{TransportCredentials: s.TransportCredentials.Clone(), failures: s.failures}
}

// alertedConn notices the engine's refusal of the edge's certificate: by TLS 1.3 it comes after the handshake, to the
// first read.
type alertedConn struct {
	net.Conn

	failures *failureLog
}

// Read implements net.Conn.
func (c *alertedConn) Read(data []byte) (int, error) {
	n, err := c.Conn.Read(data)
	var failure *net.OpError
	if err != nil && errors.As(err, &failure) && failure.Op == "remote error" {
		c.failures.add("the engine refuses this edge's certificate; its log says why", c.RemoteAddr(), err)
	}
	return n, err
}

// failureLog logs failures, the same one not too often.
type failureLog struct {
	logger *slog.Logger

	mu   sync.Mutex
	last string
	at   time.Time
}

func (l *failureLog) add(meaning string, peer net.Addr, err error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	text := err.Error()
	if text == l.last && time.Since(l.at) < sameAgain {
		return
	}
	l.last, l.at = text, time.Now()
	l.logger.Warn("no connection to the engine", "reason", meaning, "peer", peer.String(), "error", err)
}
