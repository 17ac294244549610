package app

import (
	"context"
	"crypto/tls"
	"fmt"
	"log/slog"
	"net"
	"net/http"

	"github.com/prometheus/client_golang/prometheus"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials"

	"github.com/quern-data/quern/go-api/internal/config"
	"github.com/quern-data/quern/go-api/internal/rest"
	"github.com/quern-data/quern/go-api/internal/tlsfiles"
)

// openCertificates returns what the edge serves TLS with, nil without TLS, and follows its files and those of the
// engine's connection until ctx ends.
func openCertificates(
	ctx context.Context, cfg *config.Config, logger *slog.Logger, metrics *metrics, backend *backend,
) (*tlsfiles.Store, error) {
	var serving *tlsfiles.Store
	if cfg.TLS.Cert != "" {
		var err error
		if serving, err = tlsfiles.Open(tlsfiles.Files{Cert: cfg.TLS.Cert, Key: cfg.TLS.Key}); err != nil {
			return nil, fmt.Errorf("can't set up TLS: %w", err)
		}
	}
	for use, store := range map[string]*tlsfiles.Store{"serving": serving, "engine": backend.certificates} {
		if store != nil {
			go store.Follow(ctx, logger)
			metrics.watchCertificates(use, store)
		}
	}
	return serving, nil
}

// watchCertificates registers what is known of the certificate of one use.
func (m *metrics) watchCertificates(use string, store *tlsfiles.Store) {
	labels := prometheus.Labels{"use": use}
	m.registry.MustRegister(prometheus.NewGaugeFunc(prometheus.GaugeOpts{
		Name: "quern_tls_certificate_expiry_timestamp_seconds", Help: "When the certificate in force ends, in Unix time.", ConstLabels: labels,
	}, func() float64 { return float64(store.Expires().Unix()) }))
	m.count("quern_tls_reload_failures_total", "Changes of certificate files that could not be used.", labels, store.Failures)
}

// secureHTTP has a server speak TLS, HTTP/2 by ALPN.
func secureHTTP(server *http.Server, config *tls.Config) {
	server.TLSConfig = config
	server.Protocols.SetUnencryptedHTTP2(false)
	server.Protocols.SetHTTP2(true)
}

// serveHTTP serves until the server is shut down. Over TLS nothing is gathered: records are written one by one anyway.
func serveHTTP(server *http.Server, listener net.Listener) error {
	if server.TLSConfig != nil {
		return server.ServeTLS(listener, "", "")
	}
	return server.Serve(rest.Gather(listener))
}

// secureGRPC returns the options that have a gRPC server speak TLS.
func secureGRPC(certificates *tlsfiles.Store) []grpc.ServerOption {
	if certificates == nil {
		return nil
	}
	return []grpc.ServerOption{grpc.Creds(credentials.NewTLS(certificates.Server()))}
}
